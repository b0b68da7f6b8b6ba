/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's server: Varlink's wire format (varlink.org), JSON objects that each end with a zero byte, over
 * a UNIX socket, on the thread of the machine's event loop. What can be called is a table; control_machine.c has the
 * machine's. The protocol is told in docs/control.md.
 *
 * Peers are checked (same user or root) but not trusted: requests are at most CONTROL_MAX_REQUEST bytes, clients at
 * most CONTROL_MAX_CLIENTS, and one that does not read its answers only stops its own requests.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"

#include <jansson.h>

#define CONTROL_MAX_REQUEST KIB(64)
#define CONTROL_MAX_CLIENTS 16u

struct control;

/* A request on its way. It lives until it is answered by control_reply or control_fail, which may be much later. */
struct control_call;

/* parameters is an object, valid until the function returns. */
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
/* Drops the clients; calls not yet answered are still to be answered, to nobody. NULL is fine. */
void control_destroy(struct control *control);

/* The descriptor that came along with the request (SCM_RIGHTS), now the caller's, or -1. Only within the method's function. */
int control_take_fd(struct control_call *call);

/* ---- answers; all on the loop's thread ---- */

/* Answers and ends the call. parameters (an object; its reference is taken) may be NULL for none. */
void control_reply(struct control_call *call, json_t *parameters);
/* Tells how it goes, if the client asked for that ("more"); may be lost on a client that reads slowly. */
void control_progress(struct control_call *call, json_t *parameters);
/* Ends the call with the interface's error Failed, whose text is err's. */
void control_fail(struct control_call *call, const struct err *err);
/* Ends the call with the standard's complaint about a parameter. */
void control_bad_parameter(struct control_call *call, const char *parameter);
