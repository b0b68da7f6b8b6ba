/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See acceptor.h. One poll(2) serves all callers. A caller that sends HELLO in time becomes a channel in joined[];
 * others get the reason for their refusal.
 */
#include "vmm/migration/acceptor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/errand.h"
#include "core/monotonic.h"
#include "core/ration.h"
#include "vmm/migration/resolve.h"
#include "vmm/migration/socket.h"
#include "vmm/migration/tls.h"

#define MAX_LISTENERS RESOLVE_MAX
#define RESOLVE_MS 10000 /* for a name service */
#define MAX_JOINED 64u /* of each kind; at least WIRE_MAX_STREAMS and WIRE_MAX_DEVICES */
#define BACKLOG 128
#define REST_MS 100 /* without descriptors; the callers wait meanwhile */

struct caller {
	int fd; /* -1: unused, unless there is tls */
	struct tls *tls; /* its handshake runs while fd is -1 */
	bool plain;      /* it must begin a handshake first */
	bool speaks;     /* and has tried to; it may have to wait */
	uint8_t host[8]; /* the beginning of its address, for its share of the places */
	int64_t deadline;
	uint8_t bytes[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE];
	size_t have;
	char name[96];
};

struct acceptor {
	struct address from;
	char text[sizeof(((struct address *)0)->text)];
	const struct log *log;
	int cancel_fd;
	unsigned int silence_ms;
	const char *tls, *tls_peer, *tls_helper;
	int listeners[MAX_LISTENERS];
	size_t listener_count;
	int64_t rests; /* without descriptors for callers: when it looks for them again; 0: now */
	int door; /* see socket_pass, or -1 */
	bool made_path;
	struct caller callers[ACCEPTOR_MAX_WAITING];
	struct ration handshakes, lines;
	unsigned int unsaid; /* refused callers without a line */
	bool has_session;
	uint8_t session[WIRE_SESSION_SIZE];
	struct channel *joined[WIRE_KINDS][MAX_JOINED];
};

/* ---- listening ---- */

static int acceptor_listen_on(struct acceptor *acceptor, int *fd, const struct sockaddr *address, socklen_t len,
			      struct err *err)
{
	int one = 1;

	if (address->sa_family != AF_UNIX)
		setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->sa_family == AF_INET6)
		setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(*fd, address, len) < 0)
		return errno == EADDRINUSE ? err_set(err, -EADDRINUSE,
						     "already in use; choose another %s",
						     address->sa_family == AF_UNIX ? "path" : "port") :
					     err_sys(err, -errno, "bind");
	if (address->sa_family == AF_UNIX) {
		acceptor->made_path = true;
		chmod(acceptor->from.path, 0600);
	}
	if (listen(*fd, BACKLOG) < 0)
		return err_sys(err, -errno, "listen");
	acceptor->listeners[acceptor->listener_count++] = take_fd(fd);
	return 0;
}

/* Listens on all addresses of the name that it can. */
static int acceptor_listen_name(struct acceptor *acceptor, struct err *err)
{
	const struct resolve_options options = {
		.host = acceptor->from.host, .port = acceptor->from.port, .cancel_fd = acceptor->cancel_fd,
		.deadline = monotonic_ms() + RESOLVE_MS,
	};
	struct resolved found[RESOLVE_MAX];
	int count = resolve(&options, found, err), code = MIN(count, 0);

	for (int i = 0; i < count && code != -EADDRINUSE; i++) {
		struct sockaddr *address = (struct sockaddr *)&found[i].address;
		_cleanup_(fd_close) int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		code = fd < 0 ? err_sys(err, -errno, "socket") :
				acceptor_listen_on(acceptor, &fd, address, found[i].len, err);
	}
	return code == -EADDRINUSE || !acceptor->listener_count ? code : 0;
}

/* Removes a socket file on which nothing listens any more. */
static void acceptor_remove_stale(const struct sockaddr_un *address)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (fd >= 0 && lstat(address->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED)
		unlink(address->sun_path);
}

static int acceptor_listen_path(struct acceptor *acceptor, struct err *err)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (fd < 0)
		return err_sys(err, -errno, "socket");
	memcpy(address.sun_path, acceptor->from.path, strlen(acceptor->from.path));
	acceptor_remove_stale(&address);
	return acceptor_listen_on(acceptor, &fd, (struct sockaddr *)&address, sizeof(address), err);
}

static int acceptor_adopt_fd(struct acceptor *acceptor, int fd, struct err *err)
{
	enum socket_use use;
	int flags, code = socket_judge(fd, &use, err);

	if (code)
		return code;
	if (use == SOCKET_TCP)
		return err_set(err, -EINVAL,
			       "a TCP connection is not enough, because a migration needs several; pass a listening "
			       "socket or a connected Unix socket");
	flags = fcntl(fd, F_GETFL);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_sys(err, -errno, "fcntl");
	if (use == SOCKET_DOOR)
		acceptor->door = fd;
	else
		acceptor->listeners[acceptor->listener_count++] = fd;
	return 0;
}

/* Puts the actual port into the text, if the kernel chose it. */
static void acceptor_describe(struct acceptor *acceptor)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);

	snprintf(acceptor->text, sizeof(acceptor->text), "%s", acceptor->from.text);
	if (acceptor->from.kind != ADDRESS_TCP ||
	    getsockname(acceptor->listeners[0], (struct sockaddr *)&address, &len) < 0)
		return;
	snprintf(acceptor->text, sizeof(acceptor->text), strchr(acceptor->from.host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u",
		 acceptor->from.host, resolve_port(&address));
}

int acceptor_create(const struct acceptor_options *options, struct acceptor **ret, struct err *err)
{
	struct acceptor *acceptor = calloc(1, sizeof(*acceptor));
	int code;

	if (!acceptor)
		return err_sys(err, -ENOMEM, "%s", options->from->text);
	acceptor->from = *options->from;
	acceptor->log = options->log;
	acceptor->cancel_fd = options->cancel_fd;
	acceptor->silence_ms = options->silence_ms;
	acceptor->tls = options->tls;
	acceptor->tls_peer = options->tls_peer;
	acceptor->tls_helper = options->tls_helper;
	acceptor->door = -1;
	acceptor->handshakes = (struct ration){ACCEPTOR_HANDSHAKES, ACCEPTOR_HANDSHAKE_MS, 0};
	acceptor->lines = (struct ration){ACCEPTOR_LINES, ACCEPTOR_LINE_MS, 0};
	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers); i++)
		acceptor->callers[i].fd = -1;
	if (acceptor->from.kind == ADDRESS_TCP)
		code = acceptor_listen_name(acceptor, err);
	else if (acceptor->from.kind == ADDRESS_UNIX)
		code = acceptor_listen_path(acceptor, err);
	else
		code = acceptor_adopt_fd(acceptor, acceptor->from.fd, err);
	if (code) {
		acceptor_destroy(acceptor);
		return err_prefix(err, code, "%s", options->from->text);
	}
	acceptor_describe(acceptor);
	*ret = acceptor;
	return 0;
}

const char *acceptor_text(const struct acceptor *acceptor)
{
	return acceptor->text;
}

static bool acceptor_is_free(const struct caller *caller)
{
	return caller->fd < 0 && !caller->tls;
}

static void acceptor_clear_caller(struct caller *caller)
{
	fd_close(&caller->fd);
	tls_destroy(take_ptr(caller->tls));
}

static void acceptor_forget_session(struct acceptor *acceptor)
{
	for (size_t kind = 0; kind < WIRE_KINDS; kind++) {
		for (size_t i = 0; i < MAX_JOINED; i++) {
			channel_destroy(acceptor->joined[kind][i]);
			acceptor->joined[kind][i] = NULL;
		}
	}
	acceptor->has_session = false;
}

void acceptor_destroy(struct acceptor *acceptor)
{
	if (!acceptor)
		return;
	acceptor_forget_session(acceptor);
	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers); i++)
		acceptor_clear_caller(&acceptor->callers[i]);
	for (size_t i = 0; i < acceptor->listener_count; i++)
		fd_close(&acceptor->listeners[i]);
	fd_close(&acceptor->door);
	if (acceptor->made_path)
		errand_unlink(acceptor->from.path);
	free(acceptor);
}

/* ---- callers ---- */

/* A network of IPv6 is one host: it may use as many addresses of it as it likes. */
static void acceptor_note_host(struct caller *caller, const struct sockaddr_storage *address)
{
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;

	if (address->ss_family == AF_INET)
		memcpy(caller->host, &((const struct sockaddr_in *)address)->sin_addr, sizeof(struct in_addr));
	else if (address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(in6)) /* of a listener for both */
		memcpy(caller->host, &in6->s6_addr[12], sizeof(struct in_addr));
	else if (address->ss_family == AF_INET6)
		memcpy(caller->host, in6, sizeof(caller->host));
}

static void acceptor_name_caller(struct caller *caller, int fd)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	char text[RESOLVE_TEXT];

	memset(&address, 0, sizeof(address));
	if (getpeername(fd, (struct sockaddr *)&address, &len) == 0)
		acceptor_note_host(caller, &address);
	if (resolve_write(&address, text))
		snprintf(caller->name, sizeof(caller->name), "%s port %u", text, resolve_port(&address));
	else
		snprintf(caller->name, sizeof(caller->name), "a process on this host");
}

/* Whoever calls often is told of so often, and no more. */
static void acceptor_say(struct acceptor *acceptor, const char *what, const struct caller *caller, const char *why)
{
	if (!ration_take(&acceptor->lines, monotonic_ms())) {
		acceptor->unsaid++;
		return;
	}
	if (acceptor->unsaid)
		log_warn(acceptor->log, "%s: %u more callers were refused", acceptor->text, acceptor->unsaid);
	acceptor->unsaid = 0;
	log_warn(acceptor->log, "%s: %s%s: %s", acceptor->text, what, caller->name, why);
}

static void acceptor_drop_caller(struct acceptor *acceptor, struct caller *caller, const char *why)
{
	acceptor_say(acceptor, "refused ", caller, why);
	acceptor_clear_caller(caller);
}

/* How many places callers of this host have. */
static unsigned int acceptor_share(const struct acceptor *acceptor, const struct caller *of)
{
	unsigned int share = 0;

	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers); i++)
		share += memcmp(acceptor->callers[i].host, of->host, sizeof(of->host)) == 0;
	return share;
}

/* A free place; else that of the oldest caller of the host that has the most, so that a host displaces its own. */
static struct caller *acceptor_find_place(struct acceptor *acceptor)
{
	struct caller *place = &acceptor->callers[0];

	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers) && !acceptor_is_free(place); i++) {
		struct caller *caller = &acceptor->callers[i];
		unsigned int share = acceptor_share(acceptor, caller), most = acceptor_share(acceptor, place);

		if (acceptor_is_free(caller) || share > most || (share == most && caller->deadline < place->deadline))
			place = caller;
	}
	return place;
}

static void acceptor_add_caller(struct acceptor *acceptor, int *fd)
{
	struct caller *place = acceptor_find_place(acceptor);
	struct err err;

	acceptor_clear_caller(place);
	*place = (struct caller){.fd = -1, .deadline = monotonic_ms() + ACCEPTOR_HELLO_MS, .plain = acceptor->tls};
	acceptor_name_caller(place, *fd);
	if (socket_prepare(*fd, acceptor->silence_ms, &err))
		acceptor_say(acceptor, "", place, err.text);
	else
		place->fd = take_fd(fd);
}

/*
 * Of those who have begun to speak, the one who waits longest is next: nobody is pushed aside by those who call often.
 */
static bool acceptor_is_next(const struct acceptor *acceptor, const struct caller *caller)
{
	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers); i++) {
		const struct caller *other = &acceptor->callers[i];

		if (other->fd >= 0 && other->plain && other->speaks && other->deadline < caller->deadline)
			return false;
	}
	return true;
}

/* The caller has begun to speak: a process for its handshake is not wasted on a mute one. */
static void acceptor_begin_tls(struct acceptor *acceptor, struct caller *caller)
{
	const struct tls_options tls = {.folder = acceptor->tls, .helper = acceptor->tls_helper, .side = WIRE_TARGET,
					.peer = acceptor->tls_peer};
	struct err err;
	char byte;

	if (recv(caller->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
		acceptor_drop_caller(acceptor, caller, "it hung up");
		return;
	}
	caller->speaks = true;
	if (!acceptor_is_next(acceptor, caller) || !ration_take(&acceptor->handshakes, monotonic_ms()))
		return; /* its turn comes */
	caller->plain = false;
	if (tls_start(&tls, &caller->fd, &caller->tls, &err))
		acceptor_drop_caller(acceptor, caller, err.text);
}

/* Sends the reason. All input has been read, so that the close does not discard the message. */
static void acceptor_refuse_caller(struct acceptor *acceptor, struct caller *caller, const char *why)
{
	const struct wire_frame frame = {.type = WIRE_REFUSED, .length = (uint32_t)MIN(strlen(why), WIRE_MAX_TEXT)};
	uint8_t bytes[WIRE_HEADER_SIZE + WIRE_MAX_TEXT];

	wire_put_header(bytes, &frame);
	memcpy(bytes + WIRE_HEADER_SIZE, why, frame.length);
	send(caller->fd, bytes, WIRE_HEADER_SIZE + frame.length, MSG_DONTWAIT | MSG_NOSIGNAL);
	acceptor_drop_caller(acceptor, caller, why);
}

/* Makes the caller a channel and answers its HELLO. */
static int acceptor_add_member(struct acceptor *acceptor, struct caller *caller, const struct wire_hello *hello,
			       uint32_t version, struct err *err)
{
	const struct channel_options options = {.side = WIRE_TARGET, .kind = hello->kind, .index = hello->index,
						.count = hello->count, .cancel_fd = acceptor->cancel_fd,
						.silence_ms = acceptor->silence_ms};
	const struct wire_frame frame = wire_hello_frame();
	struct wire_hello answer = *hello;
	uint8_t bytes[WIRE_HELLO_SIZE];
	struct channel *channel;
	int code = channel_create(&options, &caller->fd, &channel, err);

	if (code)
		return code;
	channel->tls = take_ptr(caller->tls);
	answer.version = WIRE_VERSION;
	answer.oldest = WIRE_OLDEST;
	wire_put_hello(bytes, &answer);
	code = channel_step(channel, WIRE_SOURCE, &frame, err);
	code = code ?: channel_send(channel, WIRE_HELLO, WIRE_MAGIC, 0, bytes, sizeof(bytes), err);
	if (code) {
		channel_destroy(channel);
		return code;
	}
	channel_agree(channel, version);
	acceptor->joined[hello->kind][hello->index] = channel;
	return 0;
}

/* The whole HELLO of a caller has arrived. */
static void acceptor_hear_hello(struct acceptor *acceptor, struct caller *caller)
{
	const struct wire_hello mine = {.version = WIRE_VERSION, .oldest = WIRE_OLDEST};
	struct wire_hello hello;
	uint32_t version;
	struct err err;

	if (wire_get_hello(caller->bytes + WIRE_HEADER_SIZE, &hello, &err) ||
	    wire_agree(&mine, &hello, &version, &err)) {
		acceptor_refuse_caller(acceptor, caller, err.text);
		return;
	}
	if (hello.kind == WIRE_CONTROL && !acceptor->has_session) {
		acceptor->has_session = true;
		memcpy(acceptor->session, hello.session, sizeof(hello.session));
	} else if (hello.kind == WIRE_CONTROL) {
		acceptor_refuse_caller(acceptor, caller, "another machine is coming in here");
		return;
	}
	if (!acceptor->has_session || memcmp(acceptor->session, hello.session, sizeof(hello.session)) != 0)
		acceptor_refuse_caller(acceptor, caller, "the channel is of no migration that comes in here");
	else if (acceptor->joined[hello.kind][hello.index])
		acceptor_refuse_caller(acceptor, caller, "the channel is there already");
	else if (acceptor_add_member(acceptor, caller, &hello, version, &err))
		acceptor_say(acceptor, "", caller, err.text);
}

static void acceptor_read_caller(struct acceptor *acceptor, struct caller *caller)
{
	struct wire_frame frame;
	struct err err;
	ssize_t n = recv(caller->fd, caller->bytes + caller->have, sizeof(caller->bytes) - caller->have, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		acceptor_drop_caller(acceptor, caller, "it hung up");
		return;
	}
	caller->have += (size_t)n;
	if (caller->have < WIRE_HEADER_SIZE)
		return;
	wire_get_header(caller->bytes, &frame);
	if (wire_check_first(&frame, &err))
		acceptor_drop_caller(acceptor, caller, err.text);
	else if (caller->have == sizeof(caller->bytes))
		acceptor_hear_hello(acceptor, caller);
}

/* The handshake has ended. */
static void acceptor_hear_tls(struct acceptor *acceptor, struct caller *caller)
{
	struct err err;

	if (tls_finish(caller->tls, &caller->fd, &err))
		acceptor_drop_caller(acceptor, caller, err.text);
}

/* ---- serving ---- */

static void acceptor_accept_from(struct acceptor *acceptor, int listener)
{
	for (unsigned int i = 0; i < ACCEPTOR_MAX_WAITING; i++) {
		_cleanup_(fd_close) int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
			acceptor->rests = monotonic_ms() + REST_MS;
		if (fd < 0)
			return;
		acceptor_add_caller(acceptor, &fd);
	}
}

static int acceptor_take_from_door(struct acceptor *acceptor, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	int code = socket_take(acceptor->door, &fd, err);

	if (code == -EAGAIN)
		return 0;
	if (code)
		return err_prefix(err, code, "%s", acceptor->text);
	acceptor_add_caller(acceptor, &fd);
	return 0;
}

static bool acceptor_must_wait(const struct acceptor *acceptor, const struct caller *caller)
{
	return caller->fd >= 0 && caller->plain && ration_next(&acceptor->handshakes) > monotonic_ms();
}

/* What to wait for: the begin of the handshake, its end, or HELLO. */
static int acceptor_caller_fd(const struct acceptor *acceptor, const struct caller *caller)
{
	if (acceptor_must_wait(acceptor, caller))
		return -1;
	return caller->fd >= 0 ? caller->fd : caller->tls ? tls_report_fd(caller->tls) : -1;
}

/* The earliest deadline, in ms from now. */
static int acceptor_time_left(const struct acceptor *acceptor, int64_t deadline)
{
	int64_t first = deadline < 0 ? INT64_MAX : deadline;

	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers); i++)
		if (!acceptor_is_free(&acceptor->callers[i]))
			first = MIN(first, acceptor_must_wait(acceptor, &acceptor->callers[i]) ?
						   MIN(acceptor->callers[i].deadline, ration_next(&acceptor->handshakes)) :
						   acceptor->callers[i].deadline);
	if (acceptor->rests)
		first = MIN(first, acceptor->rests);
	return first == INT64_MAX ? -1 : monotonic_left(first);
}

enum { CANCEL, CONTROL, DOOR, CALLERS, LISTENERS = CALLERS + ACCEPTOR_MAX_WAITING, FDS = LISTENERS + MAX_LISTENERS };

/* One turn: waits for events until the deadline (ms; -1: none) and handles them. */
static int acceptor_serve(struct acceptor *acceptor, struct channel *control, int64_t deadline, struct err *err)
{
	struct pollfd fds[FDS];

	for (size_t i = 0; i < FDS; i++)
		fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	fds[CANCEL].fd = acceptor->cancel_fd;
	fds[CONTROL].fd = control ? control->fd : -1;
	fds[DOOR].fd = acceptor->door;
	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers); i++)
		fds[CALLERS + i].fd = acceptor_caller_fd(acceptor, &acceptor->callers[i]);
	if (acceptor->rests <= monotonic_ms())
		acceptor->rests = 0;
	for (size_t i = 0; i < acceptor->listener_count && !acceptor->rests; i++)
		fds[LISTENERS + i].fd = acceptor->listeners[i];
	if (poll(fds, FDS, acceptor_time_left(acceptor, deadline)) < 0)
		return errno == EINTR ? 0 : err_sys(err, -errno, "poll");
	if (fds[CANCEL].revents)
		return err_set(err, -ECANCELED, "cancelled");
	for (size_t i = 0; i < ARRAY_SIZE(acceptor->callers); i++) {
		struct caller *caller = &acceptor->callers[i];

		if (fds[CALLERS + i].revents && caller->fd >= 0 && caller->plain)
			acceptor_begin_tls(acceptor, caller);
		else if (fds[CALLERS + i].revents && caller->fd >= 0)
			acceptor_read_caller(acceptor, caller);
		else if (fds[CALLERS + i].revents && caller->tls)
			acceptor_hear_tls(acceptor, caller);
		if (!acceptor_is_free(caller) && caller->deadline <= monotonic_ms())
			acceptor_drop_caller(acceptor, caller, "it did not say HELLO in time");
	}
	for (size_t i = 0; i < acceptor->listener_count; i++)
		if (fds[LISTENERS + i].revents)
			acceptor_accept_from(acceptor, acceptor->listeners[i]);
	return fds[DOOR].revents ? acceptor_take_from_door(acceptor, err) : 0;
}

int acceptor_control(struct acceptor *acceptor, int timeout_ms, struct channel **ret, struct err *err)
{
	int64_t deadline = timeout_ms < 0 ? -1 : monotonic_ms() + timeout_ms;
	struct channel **control = &acceptor->joined[WIRE_CONTROL][0];

	acceptor_forget_session(acceptor);
	while (!*control) {
		int code = acceptor_serve(acceptor, NULL, deadline, err);

		if (code)
			return code;
		acceptor->has_session = *control; /* a session that ended at once was none */
		if (!*control && deadline >= 0 && monotonic_ms() >= deadline)
			return err_set(err, -ETIMEDOUT, "%s: no connection within %d s", acceptor->text, timeout_ms / 1000);
	}
	*ret = take_ptr(*control);
	return 0;
}

static bool acceptor_all_joined(struct channel *const *joined, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (!joined[i] || joined[i]->options.count != count)
			return false;
	return true;
}

int acceptor_join(struct acceptor *acceptor, struct channel *control, enum wire_kind kind, uint32_t count,
		  struct channel **channels, struct err *err)
{
	int64_t deadline = monotonic_ms() + ACCEPTOR_JOIN_MS;
	struct channel **joined = acceptor->joined[kind];

	if (count > MAX_JOINED)
		return err_set(err, -EPROTO, "%u %s channels", count, wire_kind_name(kind));
	while (!acceptor_all_joined(joined, count)) {
		int code = channel_check(control, err);

		if (code)
			return code < 0 ? code : err_set(err, -EINTR, "interrupted");
		code = acceptor_serve(acceptor, control, deadline, err);
		if (code)
			return code;
		if (!acceptor_all_joined(joined, count) && monotonic_ms() >= deadline)
			return err_set(err, -ETIMEDOUT, "%s: not all %u %s channels connected within %d s", acceptor->text,
				       count, wire_kind_name(kind), ACCEPTOR_JOIN_MS / 1000);
	}
	memcpy(channels, joined, count * sizeof(*channels));
	memset(joined, 0, count * sizeof(*joined));
	return 0;
}
