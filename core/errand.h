/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that a confined thread does without, made on a thread that may (thread_call). As the calls of the same
 * name: -1 and errno. For a whole function that makes several of them, use thread_call itself.
 */
#pragma once

#include <stdio.h>
#include <sys/socket.h>

#include "core/util.h"

int errand_open(const char *path, int flags, mode_t mode);
int errand_openat(int folder, const char *path, int flags, mode_t mode);
/* For reading, close-on-exec. */
FILE *errand_fopen(const char *path);
int errand_socket(int family, int type, int protocol);
int errand_connect(int fd, const struct sockaddr *address, socklen_t len);
/* Of AF_UNIX, close-on-exec. */
int errand_socketpair(int type, int ret[2]);
int errand_unlink(const char *path);
int errand_unlinkat(int folder, const char *path, int flags);
/* A memfd, close-on-exec. */
int errand_memfd(const char *name);
ssize_t errand_readlink(const char *path, char *buf, size_t size);
