/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings memory in before it is needed, on all CPUs at once: guest RAM that shall not fault later, or that a device is
 * about to pin (pinning unpopulated pages one by one is ten times slower).
 */
#pragma once

#include "core/err.h"
#include "core/log.h"

/*
 * Populates [host, host + size) for writing; contents stay. what names it in the line of progress, which is logged each
 * second beyond the first (GiB done, GiB/s), and in the error: -ENOMEM when the host has not that much.
 */
int prefault(void *host, uint64_t size, const char *what, const struct log *log, struct err *err);

/*
 * The same in two steps, so that it goes on beside what else there is to do: begin starts it, end waits for it, tells how
 * it ended and frees it; with wait false what is not being populated yet is left as it is. what and log stay valid until
 * then. Meanwhile calls that map or unmap anything in this process may take some milliseconds.
 */
struct prefault;
int prefault_begin(void *host, uint64_t size, const char *what, const struct log *log, struct prefault **ret,
		   struct err *err);
/* NULL is fine. */
int prefault_end(struct prefault *prefault, bool wait, struct err *err);

/*
 * Whether pages all over the memory are there already, as far as a few of them tell: a look that costs microseconds at
 * any size, for those whom a rest that is missing would cost time and nothing else. host is at a page, size not 0.
 */
bool prefault_seems_done(void *host, uint64_t size);
