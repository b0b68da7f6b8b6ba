/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1.1 server (RFC 9112) on a UNIX socket, on the thread of the machine's event loop. It knows no paths: each
 * request goes to one function, which replies to it at once or later. The faces (firecracker/) have those.
 *
 * Clients are not trusted; who may connect is a matter of the socket's file. There are at most HTTP_MAX_CLIENTS, another
 * one gets 503. A client has one request in progress at a time, its further ones wait in its socket, and the replies come
 * in their order; one that has ended its side still gets them. Who does not send a whole request, or does not read its
 * reply, within the server's patience is dropped. What cannot be read as HTTP gets 400, and the connection ends.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"
#include "vmm/api/http_parse.h"

#define HTTP_MAX_CLIENTS 10u
#define HTTP_MAX_FDS 16u
#define HTTP_PATIENCE_MS 10000

struct http;

/* A request in progress. It lives until http_reply, which may be much later. */
struct http_call;

/* request is valid until the function returns. */
typedef void http_fn(void *opaque, struct http_call *call, const struct http_request *request);

struct http_options {
	const char *server; /* the header of this name; outlives the server */
	size_t max_body;    /* bytes */
	unsigned int patience_ms;
	http_fn *fn;
	void *opaque;
	const struct log *log;
};

/* Serves on listen_fd, a listening stream socket, which is consumed. */
int http_create(struct event_loop *loop, int *listen_fd, const struct http_options *options, struct http **ret,
		struct err *err);
/* Sends what clients take at once, and disconnects them. Open calls must still be replied to, without effect. NULL is fine. */
void http_destroy(struct http *http);

/* The descriptors that came with the request (SCM_RIGHTS), now the caller's: as control_take_fds. */
size_t http_take_fds(struct http_call *call, int *fds, size_t max);

/* body NULL: none. headers: more of them, each with its \r\n, or NULL. Copied. */
struct http_response {
	unsigned int status;
	const char *headers, *type;
	const char *body;
	size_t body_len;
};

/* Replies and ends the call; on the loop's thread. */
void http_reply(struct http_call *call, const struct http_response *response);

/*
 * Replies with a body that comes in pieces, until the client goes: then gone is called, on the loop's thread, and the call
 * is over. False: it has gone already, or there is no memory; the call is over.
 */
bool http_stream(struct http_call *call, const char *type, void (*gone)(void *opaque), void *opaque);
/* The next piece. False: the client reads too slowly, and the piece was dropped. It may go, before this returns. */
bool http_stream_send(struct http_call *call, const char *text, size_t len);
