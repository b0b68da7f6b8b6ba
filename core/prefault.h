/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Populates memory before it is needed, on all CPUs: guest RAM that must not fault later, or that a device is about to
 * pin (pinning unpopulated pages one by one is ten times slower).
 */
#pragma once

#include "core/err.h"
#include "core/log.h"

/*
 * Populates [host, host + size) for writing; the contents do not change. what is its name in the line of progress,
 * logged each second after the first (GiB done, GiB/s), and in the error. -ENOMEM: the host has too little memory.
 */
int prefault(void *host, uint64_t size, const char *what, const struct log *log, struct err *err);

/*
 * The same in the background: begin starts it; end waits, returns its result and frees it. wait false: pages not yet
 * begun stay unpopulated. A readable cancel_fd (-1: none) breaks it off with -ECANCELED. The bytes populated are added
 * to *done atomically (NULL: not needed). what, log and done stay valid until then. Meanwhile mmap(2) and munmap(2) in
 * this process may take some milliseconds.
 */
struct prefault;
int prefault_begin(void *host, uint64_t size, const char *what, const struct log *log, uint64_t *done,
		   struct prefault **ret, struct err *err);
/* NULL is fine. */
int prefault_end(struct prefault *prefault, bool wait, int cancel_fd, struct err *err);

/*
 * Whether the memory seems populated, from a sample of its pages: takes microseconds at any size. For callers for which
 * a wrong answer costs only time. host is page aligned, size is not 0.
 */
bool prefault_seems_done(void *host, uint64_t size);
