/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: a code and a sentence. Functions return 0 or -errno; those whose failure a person will read also take a
 * struct err, last, which may be NULL. The sentence starts where the fault is found and gains context on the way up
 * ("--disk a.img: open: permission denied"). It is logged once, by whoever stops passing it on. No allocation.
 */
#pragma once

#include "core/util.h"

struct err {
	char text[512];
};

/* Writes the sentence and returns code (a negative errno): return err_set(err, -EINVAL, "bad size %u", n); */
int err_set(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);

/* As err_set, with ": " and the plain text of the errno appended: return err_sys(err, -errno, "open %s", path); */
int err_sys(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);

/* Puts "context: " before the sentence already there; returns code unchanged. */
int err_prefix(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);
