/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See control.h.
 *
 * A client has one call in progress at a time; later requests wait in its socket. Nothing is read from a client that
 * has not read all of its replies.
 */
#include "vmm/control/control.h"

#include "core/peer.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define OUT_PROGRESS KIB(64) /* if more than this is unsent, progress is dropped */

struct client {
	struct control *control;
	struct peer peer;
	struct event_source *source;
	char *in;
	size_t in_len;
	bool eof;     /* nothing more is read; it ends after the last reply */
	bool working; /* control_client_work is on the stack */
	struct control_call *call;
	struct client *next;
};

struct control_call {
	struct client *client; /* NULL: it has disconnected */
	bool more, oneway;
	void (*gone)(void *opaque); /* or NULL */
	void *opaque;
};

/* A socket on which clients arrive. */
struct listener {
	struct control *control;
	int fd;
	struct event_source *source;
};

struct control {
	struct event_loop *loop;
	struct listener own, more[CONTROL_MAX_SOCKETS];
	size_t more_count;
	int reserve; /* a descriptor that makes room for a client when there are no others; -1: in use */
	const struct control_interface *interface;
	void *opaque;
	const struct log *log;
	struct client *clients;
	unsigned int client_count;
};

static bool control_client_work(struct client *client);

/* With it, a machine that has run out of descriptors can still be asked and stopped. */
static void control_need_reserve(struct control *control)
{
	if (control->reserve < 0)
		control->reserve = fcntl(control->own.fd, F_DUPFD_CLOEXEC, 0);
}

static void control_client_drop(struct client *client)
{
	struct control *control = client->control;
	struct client **link = &control->clients;
	struct control_call *call = client->call;

	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	control->client_count--;
	if (call)
		call->client = NULL;
	event_source_remove(client->source);
	peer_done(&client->peer);
	free(client->in);
	free(client);
	control_need_reserve(control);
	if (call && call->gone)
		call->gone(call->opaque);
}

/* ---- sending ---- */

/* Appends a message to the output; takes the reference. False if there is no memory. */
static bool control_client_queue(struct client *client, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT | JSON_REAL_PRECISION(9));
	bool queued = text && peer_append(&client->peer, text, strlen(text) + 1); /* with its zero byte */

	json_decref(message);
	free(text);
	return queued;
}

static json_t *control_error_message(const char *interface, const char *name, const char *key, const char *text)
{
	json_t *value = json_string(text) ?: json_string("?");

	return json_pack("{s:s++, s:{s:o}}", "error", interface, ".", name, "parameters", key, value);
}

/* Reports an invalid request and disconnects. */
static void control_client_refuse(struct client *client, const char *why)
{
	client->eof = true;
	client->in_len = 0;
	control_client_queue(client, control_error_message(client->control->interface->name, "Failed", "text", why));
}

/* ---- calls ---- */

static void control_call_end(struct control_call *call, json_t *message)
{
	struct client *client = call->client;

	if (client) {
		client->call = NULL;
		if (!call->oneway && !control_client_queue(client, json_incref(message)))
			client->eof = true;
	}
	json_decref(message);
	free(call);
	if (client)
		control_client_work(client);
}

void control_reply(struct control_call *call, json_t *parameters)
{
	control_call_end(call, json_pack("{s:o}", "parameters", parameters ?: json_object()));
}

bool control_wants_more(const struct control_call *call)
{
	return call->more && !call->oneway;
}

bool control_progress(struct control_call *call, json_t *parameters)
{
	struct client *client = call->client;

	if (!client || !control_wants_more(call) || peer_unsent(&client->peer) > OUT_PROGRESS) {
		json_decref(parameters);
		return false;
	}
	if (!control_client_queue(client, json_pack("{s:o, s:b}", "parameters", parameters, "continues", 1)))
		return false;
	control_client_work(client); /* may end the client, and call's gone */
	return true;
}

void control_fail_as(struct control_call *call, const char *error, const struct err *err)
{
	const char *interface = call->client ? call->client->control->interface->name : "";

	control_call_end(call, control_error_message(interface, error, "text", err->text));
}

void control_fail(struct control_call *call, const struct err *err)
{
	control_fail_as(call, "Failed", err);
}

void control_bad_parameter(struct control_call *call, const char *parameter)
{
	control_call_end(call, control_error_message("org.varlink.service", "InvalidParameter", "parameter",
						     parameter));
}

/* The interface of every Varlink server. */
static void control_call_service(struct control *control, struct control_call *call, const char *method,
				 const json_t *parameters)
{
	const char *wanted;

	if (strcmp(method, "GetInfo") == 0) {
		control_reply(call, json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", "mvmm", "product", "mvmm",
					      "version", MVMM_VERSION, "url", "", "interfaces", "org.varlink.service",
					      control->interface->name));
	} else if (strcmp(method, "GetInterfaceDescription") == 0) {
		wanted = json_string_value(json_object_get(parameters, "interface"));
		if (!wanted)
			control_bad_parameter(call, "interface");
		else if (strcmp(wanted, control->interface->name) == 0)
			control_reply(call, json_pack("{s:s}", "description", control->interface->description));
		else
			control_call_end(call, control_error_message("org.varlink.service", "InterfaceNotFound",
								     "interface", wanted));
	} else {
		control_call_end(call, control_error_message("org.varlink.service", "MethodNotFound", "method",
							     method));
	}
}

static void control_call_method(struct control *control, struct control_call *call, const char *method,
				const json_t *parameters)
{
	const char *dot = strrchr(method, '.');
	const struct control_interface *interface = control->interface;
	size_t len = dot ? (size_t)(dot - method) : 0;

	if (len == strlen("org.varlink.service") && strncmp(method, "org.varlink.service", len) == 0) {
		control_call_service(control, call, dot + 1, parameters);
		return;
	}
	if (len != strlen(interface->name) || strncmp(method, interface->name, len) != 0) {
		control_call_end(call, control_error_message("org.varlink.service", "InterfaceNotFound", "interface",
							     method));
		return;
	}
	for (size_t i = 0; i < interface->method_count; i++) {
		if (strcmp(interface->methods[i].name, dot + 1) == 0) {
			interface->methods[i].fn(control->opaque, call, parameters);
			return;
		}
	}
	control_call_end(call, control_error_message("org.varlink.service", "MethodNotFound", "method", method));
}

size_t control_take_fds(struct control_call *call, int *fds, size_t max)
{
	return call->client ? peer_take_fds(&call->client->peer, fds, max) : 0;
}

int control_take_fd(struct control_call *call)
{
	int fd;

	return control_take_fds(call, &fd, 1) ? fd : -1;
}

void control_watch_client(struct control_call *call, void (*gone)(void *opaque), void *opaque)
{
	call->gone = gone;
	call->opaque = opaque;
}

bool control_client_left(const struct control_call *call)
{
	struct pollfd peer = {.fd = call->client ? call->client->peer.fd : -1};

	return !call->client || (poll(&peer, 1, 0) == 1 && peer.revents & (POLLHUP | POLLERR));
}

/* Handles one request from the input. */
static void control_client_request(struct client *client, json_t *root, const json_error_t *error)
{
	json_t *parameters = json_object_get(root, "parameters"), *none = NULL;
	const char *method = json_string_value(json_object_get(root, "method"));
	struct control_call *call = NULL;
	char why[sizeof(error->text) + 40];

	if (!root || !method || (parameters && !json_is_object(parameters))) {
		snprintf(why, sizeof(why), "not a request: %s",
			 !root ? error->text : !method ? "no method" : "parameters is not an object");
		control_client_refuse(client, why);
		return;
	}
	call = calloc(1, sizeof(*call));
	if (!parameters)
		parameters = none = json_object();
	if (!call || !parameters) {
		free(call);
		control_client_refuse(client, "out of memory");
		return;
	}
	call->client = client;
	call->more = json_is_true(json_object_get(root, "more"));
	call->oneway = json_is_true(json_object_get(root, "oneway"));
	client->call = call;
	control_call_method(client->control, call, method, parameters);
	json_decref(none);
	peer_close_fds(&client->peer);
}

/* ---- clients ---- */

static bool control_client_has_request(const struct client *client)
{
	return client->in_len && memchr(client->in, 0, client->in_len);
}

/* Handles complete requests in the input while all replies are sent. False if the client has disconnected. */
static bool control_client_requests(struct client *client)
{
	while (peer_flush(&client->peer)) {
		json_error_t error;
		json_t *root;
		size_t len;

		if (client->call || peer_unsent(&client->peer))
			return true;
		if (!control_client_has_request(client)) {
			if (client->in_len < CONTROL_MAX_REQUEST)
				return true;
			control_client_refuse(client, "not a request: longer than 64 KiB");
			continue;
		}
		root = json_loads(client->in, JSON_REJECT_DUPLICATES, &error);
		len = strlen(client->in) + 1;
		client->in_len -= len;
		memmove(client->in, client->in + len, client->in_len);
		control_client_request(client, root, &error);
		json_decref(root);
	}
	return false;
}

/* Does what is possible now and waits for the rest. False if the client was dropped. */
static bool control_client_work(struct client *client)
{
	uint32_t events = 0;
	bool alive;

	if (client->working)
		return true;
	client->working = true;
	alive = control_client_requests(client);
	client->working = false;
	if (!alive || (client->eof && !client->call && !peer_unsent(&client->peer) && !control_client_has_request(client))) {
		control_client_drop(client);
		return false;
	}
	if (peer_unsent(&client->peer))
		events |= EPOLLOUT;
	else if (!client->eof && !client->call)
		events |= EPOLLIN;
	event_source_set(client->source, events);
	return true;
}

static void control_client_read(struct client *client)
{
	ssize_t n;

	if (!client->in)
		client->in = malloc(CONTROL_MAX_REQUEST);
	if (!client->in) {
		client->eof = true;
		return;
	}
	n = peer_receive(&client->peer, client->in + client->in_len, CONTROL_MAX_REQUEST - client->in_len);
	if (n > 0)
		client->in_len += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		client->eof = true;
}

static void control_client_event(void *opaque, uint32_t events)
{
	struct client *client = opaque;

	if (events & EPOLLIN && !client->eof && client->in_len < CONTROL_MAX_REQUEST)
		control_client_read(client);
	/* A client that disconnects during its call does not wait for the reply. */
	if (control_client_work(client) && events & (EPOLLHUP | EPOLLERR) && (client->call || client->eof))
		control_client_drop(client);
}

static bool control_peer_may(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

static bool control_may_join(struct control *control, int fd)
{
	if (!control_peer_may(fd)) {
		log_warn(control->log, "control socket: refused a client of another user");
		return false;
	}
	if (control->client_count < CONTROL_MAX_CLIENTS)
		return true;
	log_warn(control->log, "control socket: refused a client; there are already %u", CONTROL_MAX_CLIENTS);
	return false;
}

static void control_add_client(struct control *control, int *fd)
{
	struct client *client = calloc(1, sizeof(*client));
	struct err err;

	if (!client)
		return;
	client->control = control;
	if (event_loop_watch(control->loop, *fd, EPOLLIN, control_client_event, client, &client->source, &err)) {
		log_warn(control->log, "control socket: %s", err.text);
		free(client);
		return;
	}
	client->peer = (struct peer){.fd = take_fd(fd), .most_fds = CONTROL_MAX_FDS};
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
}

static void control_accept_event(void *opaque, uint32_t events)
{
	struct listener *listener = opaque;
	struct control *control = listener->control;
	int fd = event_source_accept(listener->source, &control->reserve);

	if (fd < 0)
		return;
	if (control_may_join(control, fd))
		control_add_client(control, &fd);
	fd_close(&fd);
	control_need_reserve(control);
}

static int control_watch(struct control *control, struct listener *listener, int *listen_fd, struct err *err)
{
	int code;

	listener->control = control;
	code = event_loop_watch(control->loop, *listen_fd, EPOLLIN, control_accept_event, listener, &listener->source, err);
	if (code)
		return err_prefix(err, code, "control socket");
	listener->fd = take_fd(listen_fd);
	return 0;
}

static void control_unwatch(struct listener *listener)
{
	event_source_remove(take_ptr(listener->source));
	fd_close(&listener->fd);
}

int control_listen(struct control *control, int *listen_fd, struct err *err)
{
	struct listener old = control->own;
	int code = control_watch(control, &control->own, listen_fd, err);

	if (code)
		return code;
	fd_close(&control->reserve); /* else the old socket would still listen */
	control_unwatch(&old);
	control_need_reserve(control);
	return 0;
}

int control_listen_more(struct control *control, int *listen_fd, struct err *err)
{
	int code = control->more_count == CONTROL_MAX_SOCKETS ? err_set(err, -ENOSPC, "control socket: too many of them") :
		   control_watch(control, &control->more[control->more_count], listen_fd, err);

	control->more_count += !code;
	return code;
}

int control_create(struct event_loop *loop, int *listen_fd, const struct control_interface *interface, void *opaque,
		   const struct log *log, struct control **ret, struct err *err)
{
	struct control *control = calloc(1, sizeof(*control));
	int code;

	if (!control)
		return err_sys(err, -ENOMEM, "control socket");
	*control = (struct control){.loop = loop, .interface = interface, .opaque = opaque, .log = log,
				    .reserve = -1};
	code = control_watch(control, &control->own, listen_fd, err);
	if (code) {
		free(control);
		return code;
	}
	control_need_reserve(control);
	*ret = control;
	return 0;
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	while (control->clients)
		control_client_drop(control->clients);
	while (control->more_count)
		control_unwatch(&control->more[--control->more_count]);
	control_unwatch(&control->own);
	fd_close(&control->reserve);
	free(control);
}
