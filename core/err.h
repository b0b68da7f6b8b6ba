/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: a code and a message. Functions return 0 or -errno; if a user will see the failure, the last argument is a
 * struct err, which may be NULL. The message is written where the fault is found; callers add context in front
 * ("--disk a.img: open: permission denied"). It is logged once, where it is no longer passed on. No allocation.
 */
#pragma once

#include "core/util.h"

struct err {
	char text[512];
};

/* Writes the message and returns code (a negative errno): return err_set(err, -EINVAL, "bad size %u", n); */
int err_set(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);

/* Like err_set, and appends ": " and the text of the errno: return err_sys(err, -errno, "open %s", path); */
int err_sys(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);

/* Puts "context: " in front of the message; returns code. */
int err_prefix(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);
