/* SPDX-License-Identifier: Apache-2.0 */
/* See control_client.h; the protocol is in docs/control.md. */
#include "vmm/control/control_client.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "core/monotonic.h"
#include "vmm/config/config.h"
#include "vmm/config/nearest.h"
#include "vmm/control/control.h"
#include "vmm/control/rundir.h"

#define MAX_ANSWER MIB(16)

/* ---- which machine ---- */

struct search {
	struct nearest near;
	char best[MACHINE_MAX_NAME + 1];
	bool itself; /* it is there, but its socket is not */
};

static int control_client_offer_name(void *opaque, const char *name, pid_t pid)
{
	struct search *search = opaque;
	const char *before = search->near.best;

	if (strcmp(name, search->near.word) == 0) {
		search->itself = true;
		return 0;
	}
	nearest_offer(&search->near, name);
	if (search->near.best != before) {
		snprintf(search->best, sizeof(search->best), "%s", name);
		search->near.best = search->best;
	}
	return 0;
}

int control_client_open(const char *name, struct control_client *ret, struct err *err)
{
	struct search search = {.near = nearest_begin(name, strlen(name))};
	int fd, code = rundir_connect(name, &fd, err);

	if (code != -ENOENT || rundir_each(control_client_offer_name, &search, NULL))
		search = (struct search){{0}};
	if (search.itself)
		code = err_set(err, -EAGAIN, "%s: takes no commands yet, or no more; mvmm ps tells whether it still runs", name);
	else if (search.near.best)
		err_set(err, code, "%s: no machine of this name runs, did you mean %s?", name, search.best);
	if (code)
		return code;
	*ret = (struct control_client){.fd = fd};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	return 0;
}

struct only {
	char name[MACHINE_MAX_NAME + 1];
	unsigned int count;
};

static int control_client_count_machine(void *opaque, const char *name, pid_t pid)
{
	struct only *only = opaque;

	snprintf(only->name, sizeof(only->name), "%s", name);
	return ++only->count > 1;
}

int control_client_open_only(struct control_client *ret, struct err *err)
{
	struct only only = {.count = 0};
	int code = rundir_each(control_client_count_machine, &only, err);

	if (code < 0)
		return code;
	if (only.count > 1)
		return err_set(err, -EINVAL, "several machines run; name one, mvmm ps lists their names");
	if (!only.count)
		return err_set(err, -ENOENT, "no machine runs");
	return control_client_open(only.name, ret, err);
}

void control_client_close(struct control_client *client)
{
	fd_close(&client->fd);
}

/* ---- calls ---- */

/* Waits until the socket is ready; deadline -1: for ever. */
static int control_client_wait_ready(int fd, short events, int64_t deadline)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};
	int n;

	do {
		int64_t left = deadline - monotonic_ms();

		n = poll(&poll_fd, 1, deadline < 0 ? -1 : (int)MAX(left, 0));
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n ? 0 : -ETIMEDOUT;
}

/* Descriptors to pass with the first byte. */
struct passed {
	const int *fds;
	size_t count;
};

/* Sends what the socket takes. */
static ssize_t control_client_send_some(int fd, const char *data, size_t len, const struct passed *passed)
{
	char control[CMSG_SPACE(CONTROL_MAX_FDS * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {.iov_base = (char *)data, .iov_len = len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t size = passed->count * sizeof(int);

	if (size) {
		struct cmsghdr *header;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(size);
		header = CMSG_FIRSTHDR(&message);
		*header = (struct cmsghdr){.cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(header), passed->fds, size);
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int control_client_send_all(int fd, const char *data, size_t len, struct passed passed, int64_t deadline)
{
	while (len) {
		ssize_t n = control_client_send_some(fd, data, len, &passed);
		int code;

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
			passed.count = 0;
			continue;
		}
		code = control_client_wait_ready(fd, POLLOUT, deadline);
		if (code)
			return code;
	}
	return 0;
}

/* Waits for input from the machine and calls the watch for its descriptor meanwhile. */
static int control_client_wait_watching(int fd, const struct control_watch *watch)
{
	struct pollfd poll_fds[] = {{.fd = fd, .events = POLLIN}, {.fd = watch->wake_fd, .events = POLLIN}};

	for (;;) {
		if (poll(poll_fds, ARRAY_SIZE(poll_fds), -1) < 0 && errno != EINTR)
			return -errno;
		if (poll_fds[1].revents)
			watch->wake(watch->opaque);
		if (poll_fds[0].revents)
			return 0;
	}
}

/* Reads available input, but nothing after a zero byte. */
static ssize_t control_client_receive_some(int fd, char *to, size_t room)
{
	ssize_t n = recv(fd, to, room, MSG_DONTWAIT | MSG_PEEK);
	const char *zero = n > 0 ? memchr(to, 0, (size_t)n) : NULL;

	return n <= 0 ? n : recv(fd, to, zero ? (size_t)(zero - to) + 1 : (size_t)n, MSG_DONTWAIT);
}

/* Reads one message up to its zero byte; the caller frees *ret. */
static int control_client_receive(int fd, int64_t deadline, const struct control_watch *watch, char **ret)
{
	_cleanup_(free_ptr) char *text = NULL;
	size_t len = 0, size = 0;

	do {
		int code = watch ? control_client_wait_watching(fd, watch) :
				   control_client_wait_ready(fd, POLLIN, deadline);
		ssize_t n;

		if (code)
			return code;
		if (len == size) {
			char *grown = size < MAX_ANSWER ? realloc(text, size + KIB(64)) : NULL;

			if (!grown)
				return -ENOMEM;
			text = grown;
			size += KIB(64);
		}
		n = control_client_receive_some(fd, text + len, size - len);
		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0)
			len += (size_t)n;
	} while (!len || text[len - 1]);
	*ret = take_ptr(text);
	return 0;
}

/* The reply's parameters, or its error. */
static int control_client_read_answer(const char *name, json_t *root, json_t **ret, struct err *err)
{
	json_t *parameters = json_object_get(root, "parameters");
	const char *error = json_string_value(json_object_get(root, "error"));
	const char *text = json_string_value(json_object_get(parameters, "text"));

	if (error)
		return err_set(err, strcmp(error, "io.mvmm.Machine.NoSpace") == 0 ? -ENOSPC : -EREMOTEIO, "%s: %s", name,
			       text ?: error);
	if (!json_is_object(parameters))
		return err_set(err, -EPROTO, "%s: the machine's reply is invalid", name);
	if (ret)
		*ret = json_incref(parameters);
	return 0;
}

static int control_client_talk_error(const struct control_client *client, int code, struct err *err)
{
	if (code == -ETIMEDOUT)
		return err_set(err, code, "%s: the machine does not reply", client->name);
	return err_sys(err, code, "%s: control socket", client->name);
}

static int control_client_send_request(struct control_client *client, const char *method, json_t *parameters, bool more,
				       struct passed passed, int64_t deadline, struct err *err)
{
	json_t *message = json_pack("{s:s++, s:o, s:b}", "method", "io.mvmm.Machine", ".", method, "parameters",
				    parameters ?: json_object(), "more", more);
	_cleanup_(free_ptr) char *request = json_dumps(message, JSON_COMPACT);
	int code;

	json_decref(message);
	if (!request)
		return err_sys(err, -ENOMEM, "%s", client->name);
	code = control_client_send_all(client->fd, request, strlen(request) + 1, passed, deadline);
	return code ? control_client_talk_error(client, code, err) : 0;
}

/* Reads one reply; *continues: another one follows. */
static int control_client_get_answer(struct control_client *client, int64_t deadline, const struct control_watch *watch,
				     json_t **ret, bool *continues, struct err *err)
{
	_cleanup_(free_ptr) char *answer = NULL;
	int code = control_client_receive(client->fd, deadline, watch, &answer);
	json_t *root;

	if (code)
		return control_client_talk_error(client, code, err);
	root = json_loads(answer, 0, NULL);
	*continues = json_is_true(json_object_get(root, "continues"));
	code = control_client_read_answer(client->name, root, ret, err);
	json_decref(root);
	return code;
}

int control_client_pass(struct control_client *client, const char *method, json_t *parameters, const int *fds,
			size_t fd_count, int timeout_ms, json_t **ret, struct err *err)
{
	int64_t deadline = timeout_ms < 0 ? -1 : monotonic_ms() + timeout_ms;
	const struct passed passed = {fds, fd_count};
	bool continues;

	return control_client_send_request(client, method, parameters, false, passed, deadline, err) ?:
	       control_client_get_answer(client, deadline, NULL, ret, &continues, err);
}

int control_client_call(struct control_client *client, const char *method, json_t *parameters, int timeout_ms,
			json_t **ret, struct err *err)
{
	return control_client_pass(client, method, parameters, NULL, 0, timeout_ms, ret, err);
}

int control_client_call_beside(const char *machine, const char *method, json_t *parameters, int timeout_ms,
			       struct err *err)
{
	struct control_client client;
	int code = control_client_open(machine, &client, err);

	if (code) {
		json_decref(parameters);
		return code;
	}
	code = control_client_call(&client, method, parameters, timeout_ms, NULL, err);
	control_client_close(&client);
	return code;
}

int control_client_follow(struct control_client *client, const char *method, json_t *parameters, const int *fds,
			  size_t fd_count, const struct control_watch *watch, json_t **ret, struct err *err)
{
	const struct passed passed = {fds, fd_count};
	int code = control_client_send_request(client, method, parameters, true, passed, -1, err);

	while (!code) {
		json_t *answer = NULL;
		bool continues = false;

		code = control_client_get_answer(client, -1, watch, &answer, &continues, err);
		if (code)
			break;
		if (!continues) {
			*ret = answer;
			return 0;
		}
		watch->progress(watch->opaque, answer);
		json_decref(answer);
	}
	return code;
}

int control_client_ask(struct control_client *client, const char *method, json_t *parameters, int timeout_ms,
		       struct err *err)
{
	return control_client_send_request(client, method, parameters, true, (struct passed){NULL, 0},
					   monotonic_ms() + timeout_ms, err);
}

int control_client_next(struct control_client *client, int timeout_ms, json_t **ret, bool *continues, struct err *err)
{
	return control_client_get_answer(client, monotonic_ms() + timeout_ms, NULL, ret, continues, err);
}

int control_client_wait_end(struct control_client *client, int timeout_ms)
{
	int64_t deadline = monotonic_ms() + timeout_ms;
	char rest[256];
	ssize_t n;

	do {
		int code = control_client_wait_ready(client->fd, POLLIN, deadline);

		if (code)
			return code;
		n = recv(client->fd, rest, sizeof(rest), MSG_DONTWAIT);
	} while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)));
	return 0;
}
