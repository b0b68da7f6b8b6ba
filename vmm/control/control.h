/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of the control socket. It speaks Varlink (varlink.org): JSON objects, each followed by a zero byte, over a
 * UNIX socket, on the thread of the machine's event loop. The methods are a table; control_machine.c has the machine's.
 * docs/control.md describes the protocol.
 *
 * Peers are checked (same user or root) but not trusted: a request has at most CONTROL_MAX_REQUEST bytes, there are at
 * most CONTROL_MAX_CLIENTS clients, and a client that does not read its replies blocks only its own requests.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"

#include <jansson.h>

#define CONTROL_MAX_REQUEST KIB(64)
#define CONTROL_MAX_CLIENTS 16u
#define CONTROL_MAX_SOCKETS 4u /* of control_listen_more */

struct control;

/* A request in progress. It lives until control_reply or control_fail, which may be much later. */
struct control_call;

/* parameters is an object that is valid until the function returns. */
typedef void control_fn(void *opaque, struct control_call *call, const json_t *parameters);

struct control_method {
	const char *name; /* without the interface */
	control_fn *fn;
};

struct control_interface {
	const char *name;        /* "io.mvmm.Machine" */
	const char *description; /* in Varlink's interface language */
	const struct control_method *methods;
	size_t method_count;
};

/* Serves on listen_fd, a listening stream socket, which is consumed. interface must outlive the server. */
int control_create(struct event_loop *loop, int *listen_fd, const struct control_interface *interface, void *opaque,
		   const struct log *log, struct control **ret, struct err *err);
/* Listens on another socket, which is consumed, instead. The clients stay. */
int control_listen(struct control *control, int *listen_fd, struct err *err);
/* Listens on this socket, which is consumed, as well; for as long as the server is there. */
int control_listen_more(struct control *control, int *listen_fd, struct err *err);
/* Disconnects the clients. Open calls must still be replied to, without effect. NULL is fine. */
void control_destroy(struct control *control);

/*
 * The descriptors that came with the request (SCM_RIGHTS), now the caller's: fills fds with the first of them, and
 * returns their number, up to max; others are closed. take_fd: the only one, or -1. Only in the method's function.
 */
#define CONTROL_MAX_FDS 64u
size_t control_take_fds(struct control_call *call, int *fds, size_t max);
int control_take_fd(struct control_call *call);

/* From now until the reply: gone is called if the client disconnects. The call must still be replied to. */
void control_watch_client(struct control_call *call, void (*gone)(void *opaque), void *opaque);

/* Whether the client has asked for progress ("more"). */
bool control_wants_more(const struct control_call *call);

/* Whether the client has disconnected, perhaps before its request was read. */
bool control_client_left(const struct control_call *call);

/* ---- replies; on the loop's thread ---- */

/* Replies and ends the call. Takes the reference to parameters (an object), which may be NULL for none. */
void control_reply(struct control_call *call, json_t *parameters);
/* Sends progress if the client asked for it ("more"); false: it did not, or it reads slowly, and this is dropped. */
bool control_progress(struct control_call *call, json_t *parameters);
/* Ends the call with the interface's error Failed and err's text; fail_as: with another of its errors. */
void control_fail(struct control_call *call, const struct err *err);
void control_fail_as(struct control_call *call, const char *error, const struct err *err);
/* Ends the call with Varlink's error for an invalid parameter. */
void control_bad_parameter(struct control_call *call, const char *parameter);
