/* SPDX-License-Identifier: Apache-2.0 */
/* Small things with sockets that dialer.c, acceptor.c and channel.c share. Calls on the migration's threads. */
#pragma once

#include "core/err.h"

/* Waits for poll(2) events on fd until deadline (ms of monotonic_ms). -ETIMEDOUT, or -ECANCELED when cancel_fd is readable. */
int socket_wait(int fd, short events, int cancel_fd, int64_t deadline, struct err *err);

/*
 * Makes a connected stream socket fit for a channel: blocking mode, no delay, and for TCP an end to it when the peer has
 * not confirmed anything for silence_ms (0: ten seconds).
 */
int socket_prepare(int fd, unsigned int silence_ms, struct err *err);

/* What a descriptor that somebody handed over is good for. -EINVAL with a sentence when it is no such thing. */
enum socket_use { SOCKET_LISTENS, SOCKET_TCP, SOCKET_DOOR };
int socket_judge(int fd, enum socket_use *ret, struct err *err);

/* Passes a descriptor over a Unix socket, beside one byte; takes one: -EAGAIN when there is none yet, 0 with *ret. */
int socket_pass(int door, int fd, struct err *err);
int socket_take(int door, int *ret, struct err *err);
