/* SPDX-License-Identifier: Apache-2.0 */
/* See http.h. */
#include "vmm/api/http.h"

#include "core/monotonic.h"
#include "core/peer.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define IN KIB(8)            /* read ahead of the request in progress */
#define OUT_STREAM KIB(256)  /* if more than this of a stream is unsent, pieces are dropped */
#define LINGER_BYTES MIB(1)  /* of a request that was refused are read, so that its client gets to the reply */
#define LINGER_MS 2000
#define TICK_NS 100000000u

struct client {
	struct http *http;
	struct peer peer;
	struct event_source *source;
	struct http_parse *parse;
	char in[IN];
	size_t in_len;
	int64_t deadline; /* CLOCK_MONOTONIC, ms: it is dropped; 0: it owes nothing */
	bool eof;         /* nothing more is read; it ends after the last reply */
	bool refused;     /* it ends after the reply; what it still sends is thrown away */
	size_t lingered;
	bool working;     /* http_client_work is on the stack */
	struct http_call *call;
	struct client *next;
};

struct http_call {
	struct client *client; /* NULL: it has disconnected */
	bool keep_alive;
	bool streams;
	void (*gone)(void *opaque);
	void *opaque;
};

struct http {
	struct event_loop *loop;
	struct http_options options;
	int fd;
	struct event_source *source, *timer;
	bool ticking;
	int reserve; /* a descriptor that makes room for a client when there are no others; -1: in use */
	struct client *clients;
	unsigned int client_count;
};

static bool http_client_work(struct client *client);

static void http_need_reserve(struct http *http)
{
	if (http->reserve < 0)
		http->reserve = fcntl(http->fd, F_DUPFD_CLOEXEC, 0);
}

static void http_client_drop(struct client *client)
{
	struct http *http = client->http;
	struct client **link = &http->clients;
	struct http_call *call = client->call;

	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	http->client_count--;
	if (call)
		call->client = NULL;
	event_source_remove(client->source);
	peer_done(&client->peer);
	http_parse_destroy(client->parse);
	free(client);
	http_need_reserve(http);
	if (call && call->streams) {
		call->gone(call->opaque);
		free(call);
	}
}

/* ---- sending ---- */

static bool http_client_printf(struct client *client, const char *fmt, ...) _printf_(2, 3);
static bool http_client_printf(struct client *client, const char *fmt, ...)
{
	char text[512];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return len >= 0 && (size_t)len < sizeof(text) && peer_append(&client->peer, text, (size_t)len);
}

/* A reply's head, without its last line. Clients of Firecracker know this order; there is no text after the status. */
static bool http_client_head(struct client *client, unsigned int status, bool keep_alive, const char *headers)
{
	return http_client_printf(client, "HTTP/1.1 %u \r\nServer: %s\r\nConnection: %s\r\n", status,
				  client->http->options.server, keep_alive ? "keep-alive" : "close") &&
	       (!headers || peer_append(&client->peer, headers, strlen(headers)));
}

static bool http_client_reply(struct client *client, const struct http_response *response, bool keep_alive)
{
	bool good = http_client_head(client, response->status, keep_alive, response->headers);

	if (good && response->body)
		good = http_client_printf(client, "Content-Type: %s\r\nContent-Length: %zu\r\n", response->type,
					  response->body_len);
	good = good && peer_append(&client->peer, "\r\n", 2);
	return good && (!response->body || peer_append(&client->peer, response->body, response->body_len));
}

/* The text is of http_parse, and has nothing that JSON would need to hide. */
static void http_client_refuse(struct client *client, const struct err *err)
{
	char body[sizeof(err->text) + 32];
	int len = snprintf(body, sizeof(body), "{ \"error\": \"%s\" }", err->text);
	const struct http_response response = {.status = 400, .type = "application/json", .body = body, .body_len = (size_t)len};

	client->in_len = 0;
	client->refused = true;
	client->peer.most_fds = 0;
	client->deadline = monotonic_ms() + LINGER_MS;
	if (!http_client_reply(client, &response, false))
		client->eof = true;
}

/* ---- calls ---- */

static void http_call_end(struct http_call *call, bool good)
{
	struct client *client = call->client;
	bool keep_alive = call->keep_alive;

	free(call);
	if (!client)
		return;
	client->call = NULL;
	client->eof |= !good || !keep_alive;
	http_client_work(client);
}

void http_reply(struct http_call *call, const struct http_response *response)
{
	http_call_end(call, call->client && http_client_reply(call->client, response, call->keep_alive));
}

bool http_stream(struct http_call *call, const char *type, void (*gone)(void *opaque), void *opaque)
{
	struct client *client = call->client;

	if (!client || !http_client_head(client, 200, false, NULL) ||
	    !http_client_printf(client, "Content-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", type)) {
		http_call_end(call, false);
		return false;
	}
	call->streams = true;
	call->gone = gone;
	call->opaque = opaque;
	return true;
}

bool http_stream_send(struct http_call *call, const char *text, size_t len)
{
	struct client *client = call->client;

	if (peer_unsent(&client->peer) > OUT_STREAM || !http_client_printf(client, "%zx\r\n", len))
		return false;
	if (!peer_append(&client->peer, text, len) || !peer_append(&client->peer, "\r\n", 2))
		client->eof = client->refused = true; /* a piece is cut */
	http_client_work(client);
	return true;
}

/* The last chunk, if the client takes it at once. */
static void http_client_end_stream(struct client *client)
{
	if (client->call && client->call->streams && peer_append(&client->peer, "0\r\n\r\n", 5))
		peer_flush(&client->peer);
}

size_t http_take_fds(struct http_call *call, int *fds, size_t max)
{
	return call->client ? peer_take_fds(&call->client->peer, fds, max) : 0;
}

/* ---- clients ---- */

static void http_client_request(struct client *client)
{
	const struct http_request *request = http_parse_request(client->parse);
	struct http_call *call = calloc(1, sizeof(*call));

	if (!call) {
		client->eof = true;
		client->in_len = 0;
		return;
	}
	call->client = client;
	call->keep_alive = request->keep_alive;
	client->call = call;
	client->http->options.fn(client->http->options.opaque, call, request);
	peer_close_fds(&client->peer);
}

/* Reads on in the input, and handles a request if it is complete. */
static void http_client_parse(struct client *client)
{
	struct err err;
	size_t used;
	int code = http_parse_read(client->parse, client->in, client->in_len, &used, &err);

	if (code < 0) {
		http_client_refuse(client, &err);
		return;
	}
	client->in_len -= used;
	memmove(client->in, client->in + used, client->in_len);
	if (http_parse_take_expect(client->parse) && !peer_append(&client->peer, "HTTP/1.1 100 \r\n\r\n", 17))
		client->eof = true;
	if (code)
		http_client_request(client);
}

/* Handles requests in the input while all replies are sent. False if the client has disconnected. */
static bool http_client_requests(struct client *client)
{
	while (peer_flush(&client->peer)) {
		if (client->call || peer_unsent(&client->peer) || client->refused || !client->in_len)
			return true;
		http_client_parse(client);
	}
	return false;
}

static void http_client_set_deadline(struct client *client)
{
	struct http *http = client->http;
	bool owes = peer_unsent(&client->peer) || (!client->call && http_parse_begun(client->parse));

	if (!client->refused && !owes)
		client->deadline = 0;
	else if (!client->deadline)
		client->deadline = monotonic_ms() + http->options.patience_ms;
	if (client->deadline && !http->ticking) {
		http->ticking = true;
		event_timer_set(http->timer, TICK_NS, TICK_NS);
	}
}

/* Does what is possible now and waits for the rest. False if the client was dropped. */
static bool http_client_work(struct client *client)
{
	uint32_t events = 0;
	bool alive;

	if (client->working)
		return true;
	client->working = true;
	alive = http_client_requests(client);
	client->working = false;
	if (!alive || (client->eof && !client->call && !peer_unsent(&client->peer) && (!client->in_len || client->refused))) {
		http_client_drop(client);
		return false;
	}
	if (client->refused && !peer_unsent(&client->peer))
		shutdown(client->peer.fd, SHUT_WR);
	http_client_set_deadline(client);
	if (peer_unsent(&client->peer))
		events |= EPOLLOUT;
	else if (!client->eof && !client->call)
		events |= EPOLLIN;
	event_source_set(client->source, events);
	return true;
}

static void http_client_read(struct client *client)
{
	ssize_t n = peer_receive(&client->peer, client->in + client->in_len, IN - client->in_len);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		client->eof = true;
	if (n > 0 && !client->refused)
		client->in_len += (size_t)n;
	else if (n > 0)
		client->lingered += (size_t)n;
	client->eof |= client->lingered > LINGER_BYTES;
}

static void http_client_event(void *opaque, uint32_t events)
{
	struct client *client = opaque;

	if (events & EPOLLIN && !client->eof && client->in_len < IN)
		http_client_read(client);
	/* A client that disconnects during its call does not wait for the reply. */
	if (http_client_work(client) && events & (EPOLLHUP | EPOLLERR) && (client->call || client->eof))
		http_client_drop(client);
}

/* ---- the server ---- */

static void http_tick(void *opaque, uint32_t expirations)
{
	struct http *http = opaque;
	int64_t now = monotonic_ms();
	struct client *next;

	http->ticking = false;
	for (struct client *client = http->clients; client; client = next) {
		next = client->next;
		if (client->deadline && client->deadline <= now)
			http_client_drop(client);
		else
			http->ticking |= client->deadline != 0;
	}
	if (!http->ticking)
		event_timer_set(http->timer, 0, 0);
}

static void http_turn_away(const struct http *http, int fd)
{
	static const char body[] = "{ \"error\": \"Too many open connections\" }";
	char text[256];
	int len = snprintf(text, sizeof(text), "HTTP/1.1 503 \r\nServer: %s\r\nConnection: close\r\n"
			   "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", http->options.server,
			   sizeof(body) - 1, body);

	if (send(fd, text, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		/* It has gone. */
	}
	log_warn(http->options.log, "API: refused a client; there are already %u", HTTP_MAX_CLIENTS);
}

static void http_add_client(struct http *http, int *fd)
{
	struct client *client = calloc(1, sizeof(*client));
	struct err err = {"API: out of memory"};
	int code = client ? http_parse_create(http->options.max_body, &client->parse, &err) : -ENOMEM;

	if (!code)
		code = event_loop_watch(http->loop, *fd, EPOLLIN, http_client_event, client, &client->source, &err);
	if (code) {
		log_warn(http->options.log, "API: a client: %s", err.text);
		if (client)
			http_parse_destroy(client->parse);
		free(client);
		return;
	}
	client->http = http;
	client->peer = (struct peer){.fd = take_fd(fd), .most_fds = HTTP_MAX_FDS};
	client->next = http->clients;
	http->clients = client;
	http->client_count++;
}

static void http_accept_event(void *opaque, uint32_t events)
{
	struct http *http = opaque;
	int fd = event_source_accept(http->source, &http->reserve);

	if (fd < 0)
		return;
	if (http->client_count < HTTP_MAX_CLIENTS)
		http_add_client(http, &fd);
	else
		http_turn_away(http, fd);
	fd_close(&fd);
	http_need_reserve(http);
}

int http_create(struct event_loop *loop, int *listen_fd, const struct http_options *options, struct http **ret,
		struct err *err)
{
	struct http *http = calloc(1, sizeof(*http));
	int code;

	if (!http)
		return err_sys(err, -ENOMEM, "API");
	*http = (struct http){.loop = loop, .options = *options, .fd = -1, .reserve = -1};
	code = event_loop_timer(loop, http_tick, http, &http->timer, err);
	code = code ?: event_loop_watch(loop, *listen_fd, EPOLLIN, http_accept_event, http, &http->source, err);
	if (code) {
		http_destroy(http);
		return err_prefix(err, code, "API");
	}
	http->fd = take_fd(listen_fd);
	http_need_reserve(http);
	*ret = http;
	return 0;
}

void http_destroy(struct http *http)
{
	if (!http)
		return;
	while (http->clients) {
		http_client_end_stream(http->clients);
		http_client_drop(http->clients);
	}
	event_source_remove(http->source);
	event_source_remove(http->timer);
	fd_close(&http->reserve);
	fd_close(&http->fd);
	free(http);
}
