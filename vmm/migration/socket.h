/* SPDX-License-Identifier: Apache-2.0 */
/* Socket helpers for dialer.c, acceptor.c and channel.c. Used on the migration's threads. */
#pragma once

#include "core/err.h"

/* Waits for poll(2) events until deadline (ms of monotonic_ms). -ETIMEDOUT, or -ECANCELED if cancel_fd is readable. */
int socket_wait(int fd, short events, int cancel_fd, int64_t deadline, struct err *err);

/*
 * Prepares a connected stream socket for a channel: blocking mode, no delay, and for TCP a timeout when the peer has
 * not acknowledged data for silence_ms (0: ten seconds).
 */
int socket_prepare(int fd, unsigned int silence_ms, struct err *err);

/* Determines the kind of a descriptor that was passed in. -EINVAL with a message if it does not fit. */
enum socket_use { SOCKET_LISTENS, SOCKET_TCP, SOCKET_DOOR };
int socket_judge(int fd, enum socket_use *ret, struct err *err);

/* Sends a descriptor over a Unix socket with one byte; receives one into *ret: -EAGAIN if there is none yet. */
int socket_pass(int door, int fd, struct err *err);
int socket_take(int door, int *ret, struct err *err);
