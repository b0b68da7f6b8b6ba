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

/*
 * A process that has no network asks another one for each connection: a message of one byte over a Unix socket of whole
 * messages. ask waits until deadline, or until cancel_fd is readable, for the reply, the connected socket or what went
 * wrong. In the other process, asked takes the next message: -EAGAIN if there is none yet, -ECONNRESET if nobody asks any
 * more; and reply answers it: with fd, or with code, a negative errno, and its text.
 */
int socket_ask(int asker, int cancel_fd, int64_t deadline, int *ret, struct err *err);
int socket_asked(int asker);
int socket_reply(int asker, int fd, int code, const struct err *why);
