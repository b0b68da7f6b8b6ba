/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/dialer and acceptor: sessions over every kind of address and descriptor, ways in which they do not come
 * about, and strangers, who do not get into them.
 */
#include "core/ration.h"
#include "tests/unit/shortage.h"
#include "vmm/migration/acceptor.h"
#include "vmm/migration/dialer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

/* ---- a session ---- */

static struct acceptor *acceptor;
static struct dialer *dialer;
static struct channel *source, *control;
static int cancel_fd = -1;
static struct log acceptor_log = {.fd = -1};
static char dir[64];

static const char *in_dir(const char *prefix, const char *name)
{
	static char path[128];

	if (!dir[0]) {
		snprintf(dir, sizeof(dir), "/tmp/mvmm-test-XXXXXX");
		CHECK(mkdtemp(dir));
	}
	snprintf(path, sizeof(path), "%s%s/%s", prefix, dir, name);
	return path;
}

static void parse(const char *text, bool listening, struct address *address)
{
	struct err err = {""};

	if (address_parse(text, listening, address, &err))
		printf("# %s\n", err.text);
	CHECK_STR(err.text, "");
}

static void make_acceptor(const struct address *from)
{
	const struct acceptor_options options = {.from = from, .log = &acceptor_log, .cancel_fd = cancel_fd, .silence_ms = 2000};
	struct err err = {""};

	acceptor_log = (struct log){.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_INFO};
	acceptor_create(&options, &acceptor, &err);
	CHECK_STR(err.text, "");
}

static void make_dialer(const struct address *to)
{
	const struct dialer_options options = {.to = to, .cancel_fd = cancel_fd, .silence_ms = 2000};
	struct err err = {""};

	dialer_create(&options, &dialer, &err);
	CHECK_STR(err.text, "");
}

static void end_session(void)
{
	channel_destroy(take_ptr(source));
	channel_destroy(take_ptr(control));
	dialer_destroy(take_ptr(dialer));
	acceptor_destroy(take_ptr(acceptor));
	fd_close(&acceptor_log.fd);
	fd_close(&cancel_fd);
	if (dir[0])
		CHECK_EQ(rmdir(dir), 0);
	dir[0] = 0;
}

/* A dialer's calls, on a thread of their own. */
struct call {
	pthread_t thread;
	enum wire_kind kind;
	uint32_t first, last, count;
	struct channel *channels[8];
	int code;
	struct err err;
};

static void *run_call(void *opaque)
{
	struct call *call = opaque;

	for (uint32_t i = call->last + 1; !call->code && i-- > call->first;)
		call->code = dialer_connect(dialer, call->kind, i, call->count, &call->channels[i], &call->err);
	return NULL;
}

static void begin_call(struct call *call, enum wire_kind kind, uint32_t first, uint32_t last, uint32_t count)
{
	*call = (struct call){.kind = kind, .first = first, .last = last, .count = count};
	CHECK_EQ(pthread_create(&call->thread, NULL, run_call, call), 0);
}

static void end_call(struct call *call, int code)
{
	pthread_join(call->thread, NULL);
	if (call->code != code)
		printf("# %s\n", call->err.text);
	CHECK_EQ(call->code, code);
}

static void begin_session(void)
{
	struct err err = {""};
	struct call call;

	begin_call(&call, WIRE_CONTROL, 0, 0, 1);
	acceptor_control(acceptor, 5000, &control, &err);
	CHECK_STR(err.text, "");
	end_call(&call, 0);
	source = call.channels[0];
}

/* The whole of a session: a control channel, three of memory that come in any order, and one of a device. */
static void session_over(const struct address *from, const struct address *to)
{
	struct channel *memory[3], *device[1];
	struct wire_frame frame;
	struct err err = {""};
	struct call calls[2];

	make_acceptor(from);
	make_dialer(to);
	begin_session();
	begin_call(&calls[0], WIRE_MEMORY, 0, 2, 3);
	acceptor_join(acceptor, control, WIRE_MEMORY, 3, memory, &err);
	CHECK_STR(err.text, "");
	end_call(&calls[0], 0);
	begin_call(&calls[1], WIRE_DEVICE, 0, 0, 1);
	acceptor_join(acceptor, control, WIRE_DEVICE, 1, device, &err);
	CHECK_STR(err.text, "");
	end_call(&calls[1], 0);
	for (uint32_t i = 0; i < 3; i++) {
		CHECK_EQ(memory[i]->options.index, i);
		CHECK_EQ(channel_send(calls[0].channels[i], WIRE_END, i, 0, NULL, 0, &err), 0);
		CHECK_EQ(channel_expect(memory[i], WIRE_END, &frame, &err), 0);
		CHECK_EQ(frame.a, i);
	}
	for (uint32_t i = 0; i < 3; i++) {
		channel_destroy(memory[i]);
		channel_destroy(calls[0].channels[i]);
	}
	channel_destroy(device[0]);
	channel_destroy(calls[1].channels[0]);
}

static void listen_on_any_port(struct address *from, struct address *to, const char *host)
{
	char text[64];

	snprintf(text, sizeof(text), "tcp:%s", host);
	parse(text, true, from);
	strcpy(from->port, "0");
	make_acceptor(from);
	CHECK(strstr(acceptor_text(acceptor), text) == acceptor_text(acceptor));
	parse(acceptor_text(acceptor), true, to);
	CHECK(strcmp(to->port, "0") != 0);
	*from = *to;
	acceptor_destroy(acceptor);
	fd_close(&acceptor_log.fd);
}

static void sessions_go_over_every_kind_of_address(void)
{
	struct address from, to;
	int fds[2];

	listen_on_any_port(&from, &to, "127.0.0.1");
	session_over(&from, &to);
	end_session();

	parse(in_dir("unix:", "s"), true, &from);
	session_over(&from, &from);
	end_session();

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	from = (struct address){.kind = ADDRESS_FD, .fd = fds[0], .text = "fd:a"};
	to = (struct address){.kind = ADDRESS_FD, .fd = fds[1], .text = "fd:b"};
	session_over(&from, &to);
	CHECK(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	end_session();
	CHECK(fcntl(fds[0], F_GETFD) < 0 && fcntl(fds[1], F_GETFD) < 0);
}

static void listening_and_connected_tcp_descriptors_do(void)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
	struct address from = {.kind = ADDRESS_FD, .fd = listener, .text = "fd:listener"};
	struct address to = {.kind = ADDRESS_FD, .fd = client, .text = "fd:client"};
	struct sockaddr_storage name;
	socklen_t len = sizeof(name);

	CHECK_EQ(listen(listener, 8), 0);
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&name, &len), 0);
	CHECK_EQ(connect(client, (struct sockaddr *)&name, len), 0);
	session_over(&from, &to);
	end_session();
}

static void bad_descriptors_are_refused_by_name(void)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), file = memfd_create("f", 0);
	struct acceptor_options from = {.cancel_fd = -1};
	struct dialer_options to = {.cancel_fd = -1};
	struct address address = {.kind = ADDRESS_FD, .fd = 1000, .text = "fd:1000"};
	struct sockaddr_storage name;
	socklen_t len = sizeof(name);
	struct err err;

	from.from = to.to = &address;
	CHECK_EQ(acceptor_create(&from, &acceptor, &err), -EBADF);
	CHECK_STR(err.text, "fd:1000: no such descriptor is open");
	address.fd = file;
	CHECK_EQ(dialer_create(&to, &dialer, &err), -EINVAL);
	CHECK_STR(err.text, "fd:1000: it is not a TCP or Unix stream socket");
	address.fd = client;
	CHECK_EQ(dialer_create(&to, &dialer, &err), -ENOTCONN);
	CHECK_EQ(listen(listener, 8), 0);
	address.fd = listener;
	CHECK_EQ(dialer_create(&to, &dialer, &err), -EINVAL);
	CHECK(strstr(err.text, "it is a listening socket"));
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&name, &len), 0);
	CHECK_EQ(connect(client, (struct sockaddr *)&name, len), 0);
	address.fd = client;
	CHECK_EQ(acceptor_create(&from, &acceptor, &err), -EINVAL);
	CHECK(strstr(err.text, "a TCP connection is not enough"));
	CHECK(!acceptor && !dialer);
	close(listener);
	close(client);
	close(file);
}

static void nobody_there_is_said(void)
{
	struct address from, to;
	struct channel *channel;
	struct err err;

	listen_on_any_port(&from, &to, "127.0.0.1");
	acceptor = NULL;
	make_dialer(&to);
	CHECK_EQ(dialer_connect(dialer, WIRE_CONTROL, 0, 1, &channel, &err), -ECONNREFUSED);
	CHECK(strstr(err.text, "nobody listens there; start `mvmm receive` first"));
	CHECK(strncmp(err.text, "tcp:127.0.0.1:", 14) == 0);
	end_session();
	parse("unix:/nonexistent/x", false, &to);
	make_dialer(&to);
	CHECK_EQ(dialer_connect(dialer, WIRE_CONTROL, 0, 1, &channel, &err), -ENOENT);
	end_session();
}

static int listen_plainly(const struct address *at)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, at->path, sizeof(at->path) - 1);
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(fd, 4), 0);
	return fd;
}

static void a_path_is_taken_once_and_left_clean(void)
{
	struct acceptor_options options = {.cancel_fd = -1};
	struct acceptor *second;
	struct address from;
	struct err err;

	parse(in_dir("unix:", "s"), true, &from);
	options.from = &from;
	close(listen_plainly(&from)); /* as one that was killed leaves it */
	make_acceptor(&from);
	CHECK_EQ(acceptor_create(&options, &second, &err), -EADDRINUSE);
	CHECK(strstr(err.text, "already in use; choose another path"));
	CHECK_EQ(access(from.path, F_OK), 0);
	acceptor_destroy(acceptor);
	acceptor = NULL;
	CHECK(access(from.path, F_OK) < 0);
	end_session();
}

static void waiting_ends_when_cancelled(void)
{
	struct channel *memory[2];
	struct address from;
	struct err err;

	cancel_fd = eventfd(0, EFD_CLOEXEC);
	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	CHECK_EQ(acceptor_control(acceptor, 50, &control, &err), -ETIMEDOUT);
	make_dialer(&from);
	begin_session();
	eventfd_write(cancel_fd, 1);
	CHECK_EQ(acceptor_join(acceptor, control, WIRE_MEMORY, 2, memory, &err), -ECANCELED);
	CHECK_EQ(acceptor_control(acceptor, -1, &control, &err), -ECANCELED);
	end_session();
}

static void joining_ends_when_the_source_speaks_or_leaves(void)
{
	struct channel *memory[2];
	struct address from;
	struct err err;

	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	make_dialer(&from);
	begin_session();
	CHECK_EQ(channel_send(source, WIRE_ABORT, 0, 0, "no", 2, &err), 0);
	CHECK_EQ(acceptor_join(acceptor, control, WIRE_MEMORY, 2, memory, &err), -EINTR);
	CHECK_EQ(channel_words(control, &(struct wire_frame){0}, &err), -EREMOTEIO);
	end_session();
	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	make_dialer(&from);
	begin_session();
	channel_destroy(source);
	source = NULL;
	CHECK_EQ(acceptor_join(acceptor, control, WIRE_MEMORY, 2, memory, &err), -ECONNRESET);
	end_session();
}

/* ---- strangers ---- */

static int call_plainly(const struct address *to)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, to->path, sizeof(to->path) - 1);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* How often this thread has slept. */
static long sleeps(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

/* A caller for whom there is no descriptor waits, and is not asked for again and again meanwhile. */
static void callers_wait_for_descriptors(void)
{
	static struct shortage shortage;
	char nonsense[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE] = "?";
	struct channel *channel;
	struct address from;
	struct err err;
	long before;
	int fd;

	parse(in_dir("unix:", "sock"), true, &from);
	make_acceptor(&from);
	fd = call_plainly(&from);
	shortage_begin(&shortage);
	before = sleeps();
	CHECK_EQ(acceptor_control(acceptor, 400, &channel, &err), -ETIMEDOUT);
	CHECK(sleeps() - before >= 2);
	shortage_end(&shortage);
	CHECK_EQ(send(fd, nonsense, sizeof(nonsense), 0), sizeof(nonsense));
	CHECK_EQ(acceptor_control(acceptor, 400, &channel, &err), -ETIMEDOUT);
	CHECK(recv(fd, nonsense, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN); /* it was heard, and sent away */
	close(fd);
	end_session();
}

static void say_hello(int fd, const struct wire_hello *hello, size_t bytes)
{
	const struct wire_frame frame = wire_hello_frame();
	uint8_t buf[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE];

	wire_put_header(buf, &frame);
	wire_put_hello(buf + WIRE_HEADER_SIZE, hello);
	CHECK_EQ(write(fd, buf, bytes), (ssize_t)bytes);
}

/* What a caller is told, "" when it is hung up on without a word. Closes fd. */
static const char *answer(int fd)
{
	static char buf[WIRE_HEADER_SIZE + WIRE_MAX_TEXT + 1];
	struct wire_frame frame = {0};
	ssize_t n, have = 0;

	while ((n = read(fd, buf + have, sizeof(buf) - 1 - (size_t)have)) > 0)
		have += n;
	close(fd);
	if (have < (ssize_t)WIRE_HEADER_SIZE)
		return "";
	buf[have] = 0;
	wire_get_header((uint8_t *)buf, &frame);
	CHECK_EQ(frame.type, WIRE_REFUSED);
	CHECK_EQ(frame.length, have - (ssize_t)WIRE_HEADER_SIZE);
	return buf + WIRE_HEADER_SIZE;
}

/* Lets the acceptor serve for a while. */
static void serve_a_while(void)
{
	struct channel *none;

	CHECK_EQ(acceptor_control(acceptor, 60, &none, NULL), -ETIMEDOUT);
}

static const char *log_text(void)
{
	static char text[KIB(64)];
	ssize_t n = pread(acceptor_log.fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static void strangers_are_sent_away_and_named(void)
{
	struct wire_hello hello = {.version = 9, .oldest = 8, .kind = WIRE_CONTROL, .count = 1};
	struct address from;
	int http, future, orphan, nonsense;

	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	http = call_plainly(&from);
	CHECK_EQ(write(http, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27), 27);
	future = call_plainly(&from);
	say_hello(future, &hello, WIRE_HEADER_SIZE + WIRE_HELLO_SIZE);
	orphan = call_plainly(&from);
	hello = (struct wire_hello){.version = 1, .oldest = 1, .kind = WIRE_MEMORY, .count = 1};
	say_hello(orphan, &hello, WIRE_HEADER_SIZE + WIRE_HELLO_SIZE);
	nonsense = call_plainly(&from);
	hello.count = 1000;
	say_hello(nonsense, &hello, WIRE_HEADER_SIZE + WIRE_HELLO_SIZE);
	serve_a_while();
	CHECK_STR(answer(http), "");
	CHECK(strstr(answer(future), "the peer supports versions 8 to 9 of the migration stream, this host 1 to 2"));
	CHECK_STR(answer(orphan), "the channel is of no migration that comes in here");
	CHECK_STR(answer(nonsense), "HELLO for channel 0 of 1000 of kind 1, versions 1 to 1");
	CHECK(strstr(log_text(), "refused a process on this host: the peer does not use mvmm's migration protocol"));
	end_session();
}

static void a_session_takes_its_own_channels_only(void)
{
	struct wire_hello hello = {.version = 1, .oldest = 1, .kind = WIRE_MEMORY, .count = 2};
	struct channel *memory[2];
	struct address from;
	struct call call;
	int guess, second;
	struct err err;

	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	make_dialer(&from);
	begin_session();
	guess = call_plainly(&from);
	say_hello(guess, &hello, WIRE_HEADER_SIZE + WIRE_HELLO_SIZE);
	second = call_plainly(&from);
	hello = (struct wire_hello){.version = 1, .oldest = 1, .kind = WIRE_CONTROL, .count = 1};
	say_hello(second, &hello, WIRE_HEADER_SIZE + WIRE_HELLO_SIZE);
	begin_call(&call, WIRE_MEMORY, 0, 1, 2);
	CHECK_EQ(acceptor_join(acceptor, control, WIRE_MEMORY, 2, memory, &err), 0);
	end_call(&call, 0);
	CHECK_STR(answer(guess), "the channel is of no migration that comes in here");
	CHECK_STR(answer(second), "another machine is coming in here");
	for (unsigned int i = 0; i < 2; i++) {
		channel_destroy(memory[i]);
		channel_destroy(call.channels[i]);
	}
	end_session();
}

static void a_channel_joins_once(void)
{
	struct channel *devices[2];
	struct address from;
	struct call calls[2];
	struct err err;

	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	make_dialer(&from);
	begin_session();
	begin_call(&calls[0], WIRE_DEVICE, 0, 1, 2);
	begin_call(&calls[1], WIRE_DEVICE, 0, 1, 2);
	CHECK_EQ(acceptor_join(acceptor, control, WIRE_DEVICE, 2, devices, &err), 0);
	for (int i = 0; i < 2; i++)
		channel_destroy(devices[i]);
	acceptor_destroy(acceptor);
	acceptor = NULL;
	for (int i = 0; i < 2; i++) {
		pthread_join(calls[i].thread, NULL);
		channel_destroy(calls[i].channels[0]);
		channel_destroy(calls[i].channels[1]);
	}
	CHECK(calls[0].code || calls[1].code);
	end_session();
}

/* More callers than there are places, all mute, and one half-way through HELLO: the source comes in all the same. */
static void mute_callers_hold_nobody_up(void)
{
	struct wire_hello hello = {.version = 1, .oldest = 1, .kind = WIRE_CONTROL, .count = 1};
	int mute[ACCEPTOR_MAX_WAITING + 4];
	struct address from;

	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	make_dialer(&from);
	for (size_t i = 0; i < ARRAY_SIZE(mute); i++)
		mute[i] = call_plainly(&from);
	say_hello(mute[ARRAY_SIZE(mute) - 1], &hello, WIRE_HEADER_SIZE + 7);
	begin_session();
	CHECK_STR(answer(mute[0]), "");
	for (size_t i = 1; i < ARRAY_SIZE(mute); i++)
		close(mute[i]);
	end_session();
}

static int call_from(const char *host, const struct address *to)
{
	struct sockaddr_in from = {.sin_family = AF_INET}, name = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, host, &from.sin_addr);
	inet_pton(AF_INET, to->host, &name.sin_addr);
	name.sin_port = htons((uint16_t)atoi(to->port));
	CHECK_EQ(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	return fd;
}

/* A descriptor of a listening socket for IPv4 and IPv6; of IPv4 only where there is no IPv6. */
static void listen_on_both(struct address *from, struct address *to)
{
	struct sockaddr_in6 name = {.sin6_family = AF_INET6};
	struct sockaddr_in only = {.sin_family = AF_INET};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), off = 0;
	socklen_t len = sizeof(name);

	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0 ||
	    bind(fd, (struct sockaddr *)&name, sizeof(name)) < 0) {
		fd_close(&fd);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		CHECK_EQ(bind(fd, (struct sockaddr *)&only, sizeof(only)), 0);
	}
	CHECK_EQ(listen(fd, 64), 0);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	*from = (struct address){.kind = ADDRESS_FD, .fd = fd, .text = "fd:both"};
	*to = (struct address){.kind = ADDRESS_TCP, .host = "127.0.0.1"};
	snprintf(to->port, sizeof(to->port), "%u", ntohs(name.sin6_port)); /* in both kinds it is there */
}

/* A host that takes all places displaces its own callers, not one of another host that came first. */
static void host_displaces_its_own_callers(bool both)
{
	const struct wire_hello hello = {.version = 1, .oldest = 1, .kind = WIRE_CONTROL, .count = 1};
	int first, flood[3 * ACCEPTOR_MAX_WAITING];
	struct address from, to;

	if (both)
		listen_on_both(&from, &to);
	else
		listen_on_any_port(&from, &to, "127.0.0.1");
	make_acceptor(&from);
	first = call_from("127.0.0.2", &to);
	for (size_t i = 0; i < ARRAY_SIZE(flood); i++)
		flood[i] = call_from("127.0.0.1", &to);
	serve_a_while();
	say_hello(first, &hello, WIRE_HEADER_SIZE + WIRE_HELLO_SIZE);
	CHECK_EQ(acceptor_control(acceptor, 5000, &control, NULL), 0);
	close(first);
	for (size_t i = 0; i < ARRAY_SIZE(flood); i++)
		close(flood[i]);
	end_session();
}

static void a_host_displaces_its_own_callers(void)
{
	host_displaces_its_own_callers(false);
	host_displaces_its_own_callers(true);
}

static void a_flood_does_not_fill_the_log(void)
{
	unsigned int lines = 0;
	struct address from;

	parse(in_dir("unix:", "s"), true, &from);
	make_acceptor(&from);
	for (int i = 0; i < 30; i++) {
		int fds[4];

		for (size_t k = 0; k < ARRAY_SIZE(fds); k++) {
			fds[k] = call_plainly(&from);
			CHECK_EQ(write(fds[k], "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27), 27);
		}
		acceptor_control(acceptor, 1, &control, NULL);
		for (size_t k = 0; k < ARRAY_SIZE(fds); k++)
			close(fds[k]);
	}
	for (const char *at = log_text(); (at = strchr(at, '\n')); at++)
		lines++;
	CHECK(lines >= ACCEPTOR_LINES && lines < 60); /* of 120; some more on a slow machine */
	end_session();
}

/* What may be taken at once, what later, and what was not taken is not saved up. */
static void a_ration_is_kept(void)
{
	struct ration ration = {.at_once = 3, .period_ms = 10};

	for (int i = 0; i < 3; i++)
		CHECK(ration_take(&ration, 1000));
	CHECK(!ration_take(&ration, 1000) && !ration_take(&ration, 1009));
	CHECK_EQ(ration_next(&ration), 1010);
	CHECK(ration_take(&ration, 1010) && !ration_take(&ration, 1010));
	for (int i = 0; i < 3; i++)
		CHECK(ration_take(&ration, 9000));
	CHECK(!ration_take(&ration, 9000));
}

static void *answer_with_another_version(void *opaque)
{
	int fd = accept(*(int *)opaque, NULL, NULL);
	uint8_t bytes[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE];

	if (recv(fd, bytes, sizeof(bytes), MSG_WAITALL) == sizeof(bytes)) {
		put_le32(bytes + WIRE_HEADER_SIZE, 7);
		put_le32(bytes + WIRE_HEADER_SIZE + 4, 6);
		send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
	}
	close(fd);
	return NULL;
}

static void a_target_of_another_version_is_named(void)
{
	struct channel *channel;
	struct address from;
	pthread_t thread;
	struct err err;
	int listener;

	parse(in_dir("unix:", "s"), true, &from);
	listener = listen_plainly(&from);
	make_dialer(&from);
	CHECK_EQ(pthread_create(&thread, NULL, answer_with_another_version, &listener), 0);
	CHECK_EQ(dialer_connect(dialer, WIRE_CONTROL, 0, 1, &channel, &err), -EPROTONOSUPPORT);
	CHECK(strstr(err.text, "versions 6 to 7"));
	pthread_join(thread, NULL);
	close(listener);
	unlink(from.path);
	end_session();
}

TEST_MAIN(TEST(sessions_go_over_every_kind_of_address), TEST(listening_and_connected_tcp_descriptors_do),
	  TEST(bad_descriptors_are_refused_by_name), TEST(nobody_there_is_said),
	  TEST(a_path_is_taken_once_and_left_clean), TEST(waiting_ends_when_cancelled),
	  TEST(joining_ends_when_the_source_speaks_or_leaves), TEST(strangers_are_sent_away_and_named),
	  TEST(a_session_takes_its_own_channels_only), TEST(a_channel_joins_once), TEST(mute_callers_hold_nobody_up),
	  TEST(callers_wait_for_descriptors), TEST(a_host_displaces_its_own_callers),
	  TEST(a_flood_does_not_fill_the_log), TEST(a_ration_is_kept),
	  TEST(a_target_of_another_version_is_named))
