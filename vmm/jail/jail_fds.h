/* SPDX-License-Identifier: Apache-2.0 */
/* The open descriptors of this process. */
#pragma once

#include <sys/stat.h>

/* Calls fn for each, with what it is, until one fails. Returns that, or -errno. */
int jail_fds_each(int (*fn)(void *opaque, int fd, const struct stat *st), void *opaque);
