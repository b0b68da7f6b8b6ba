/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of this process exist, from /proc/self/pagemap: without touching one, which would allocate some. The
 * ioctl PAGEMAP_SCAN (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst) skips what is not there; without it, the
 * entries are read.
 */
#pragma once

#include "core/util.h"

struct pagemap {
	int fd;
	bool no_scan; /* atomic: the kernel has no such ioctl */
};

enum pagemap_kind {
	PAGEMAP_THERE, /* in memory or swapped; pages that only show the kernel's zeros may be left out */
	PAGEMAP_OWN,   /* in memory or swapped, and not a file's: of a private mapping, the pages that were written */
};

struct pagemap_range {
	uintptr_t start, end;
};

/* 0 or -errno. */
int pagemap_open(struct pagemap *map);
/* All zero, or closed, is fine. */
void pagemap_close(struct pagemap *map);

/*
 * Finds pages of this kind in [*at, end), ascending: at most room ranges, which is not 0. Their number or -errno. *at
 * is where the next call goes on; it reaches end. For a page that is touched meanwhile, either answer is possible. Any
 * thread.
 */
ssize_t pagemap_scan(struct pagemap *map, enum pagemap_kind kind, uintptr_t *at, uintptr_t end,
		     struct pagemap_range *ranges, size_t room);
