/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/tls and mvmm-tls, by the dialer and the acceptor: every channel is encrypted and both certificates are looked
 * at on each; those that do not do, and peers without TLS, are refused with words on both sides; memory arrives whole; and a
 * connection that is cut ends the channel.
 */
#include "tests/unit/test.h"
#include "vmm/migration/acceptor.h"
#include "vmm/migration/dialer.h"
#include "vmm/migration/memory_receiver.h"
#include "vmm/migration/memory_sender.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SILENCE 4000

static char folder[64];

/* A folder of tests/certificates, which are made once. */
static const char *certificates(const char *name, char path[128])
{
	char command[512];

	if (!folder[0]) {
		snprintf(folder, sizeof(folder), "/tmp/mvmm-test-XXXXXX");
		CHECK(mkdtemp(folder));
		snprintf(command, sizeof(command), "%s/../certificates %s/pki", TESTS_UNIT, folder);
		CHECK_EQ(system(command), 0);
	}
	snprintf(path, 128, "%s/pki/%s", folder, name);
	return path;
}

static void remove_folder(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	CHECK_EQ(system(command), 0);
	CHECK(access(folder, F_OK) < 0);
	folder[0] = 0;
}

/* ---- a wire to look at ---- */

#define RELAYED 8

/* Listens at one Unix socket and connects to another for everyone who comes; keeps the first bytes of each direction. */
struct relay {
	pthread_t thread;
	int listener, stop[2];
	struct sockaddr_un to;
	int fds[RELAYED][2];
	uint8_t seen[RELAYED][2][4096];
	size_t seen_len[RELAYED][2];
	int count;
};

static bool relay_some(struct relay *relay, int n, int side)
{
	uint8_t buf[65536], *seen = relay->seen[n][side];
	ssize_t len = recv(relay->fds[n][side], buf, sizeof(buf), 0);

	if (len <= 0 || send(relay->fds[n][!side], buf, (size_t)len, MSG_NOSIGNAL) != len) {
		shutdown(relay->fds[n][!side], SHUT_WR);
		return false;
	}
	for (ssize_t i = 0; i < len && relay->seen_len[n][side] < sizeof(relay->seen[n][side]); i++)
		seen[relay->seen_len[n][side]++] = buf[i];
	return true;
}

static void *run_relay(void *opaque)
{
	struct relay *relay = opaque;
	bool open[RELAYED][2] = {0};

	for (;;) {
		struct pollfd fds[2 + 2 * RELAYED];

		fds[0] = (struct pollfd){.fd = relay->stop[0], .events = POLLIN};
		fds[1] = (struct pollfd){.fd = relay->count < RELAYED ? relay->listener : -1, .events = POLLIN};
		for (int i = 0; i < 2 * RELAYED; i++)
			fds[2 + i] = (struct pollfd){.fd = open[i / 2][i % 2] ? relay->fds[i / 2][i % 2] : -1, .events = POLLIN};
		poll(fds, ARRAY_SIZE(fds), -1);
		if (fds[0].revents)
			break;
		for (int i = 0; i < 2 * RELAYED; i++)
			if (fds[2 + i].revents)
				open[i / 2][i % 2] = relay_some(relay, i / 2, i % 2);
		if (fds[1].revents) {
			int *pair = relay->fds[relay->count];

			pair[0] = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
			pair[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
			connect(pair[1], (struct sockaddr *)&relay->to, sizeof(relay->to));
			open[relay->count][0] = open[relay->count][1] = true;
			relay->count++;
		}
	}
	for (int i = 0; i < relay->count; i++) {
		close(relay->fds[i][0]);
		close(relay->fds[i][1]);
	}
	return NULL;
}

static struct relay relay;

static void start_relay(const char *from, const char *to)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	relay = (struct relay){.to.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", from);
	snprintf(relay.to.sun_path, sizeof(relay.to.sun_path), "%s", to);
	relay.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(relay.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(relay.listener, 16), 0);
	CHECK_EQ(pipe2(relay.stop, O_CLOEXEC), 0);
	CHECK_EQ(pthread_create(&relay.thread, NULL, run_relay, &relay), 0);
}

/* Cuts all that goes through it, too. */
static void stop_relay(void)
{
	CHECK_EQ(write(relay.stop[1], "x", 1), 1);
	pthread_join(relay.thread, NULL);
	close(relay.stop[0]);
	close(relay.stop[1]);
	close(relay.listener);
}

/* ---- sessions ---- */

static struct acceptor *acceptor;
static struct dialer *dialer;
static struct channel *source, *target;
static struct log target_log = {.fd = -1};

static const char *log_text(void)
{
	static char text[4096];
	ssize_t n = pread(target_log.fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static const char *helper = MVMM_TLS;
static const char *source_name, *target_name; /* that the other end asks for */

/* NULL: without TLS. */
static void make_ends(const struct address *from, const char *from_tls, const struct address *to, const char *to_tls)
{
	static char from_path[128], to_path[128];
	const struct acceptor_options accepting = {
		.from = from, .log = &target_log, .cancel_fd = -1, .silence_ms = SILENCE,
		.tls = from_tls ? certificates(from_tls, from_path) : NULL, .tls_peer = source_name, .tls_helper = helper};
	const struct dialer_options dialing = {.to = to, .cancel_fd = -1, .silence_ms = SILENCE,
					       .tls = to_tls ? certificates(to_tls, to_path) : NULL,
					       .tls_peer = target_name, .tls_helper = MVMM_TLS};
	struct err err = {""};

	target_log = (struct log){.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_INFO};
	acceptor_create(&accepting, &acceptor, &err);
	CHECK_STR(err.text, "");
	dialer_create(&dialing, &dialer, &err);
	CHECK_STR(err.text, "");
}

static void make_tcp(const char *from_tls, const char *to_tls)
{
	const int one = 1;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(name);
	struct address from = {.kind = ADDRESS_FD, .fd = listener, .text = "fd:listener"}, to;
	char text[32];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	CHECK_EQ(bind(listener, (struct sockaddr *)&name, len), 0);
	CHECK_EQ(listen(listener, 16), 0);
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&name, &len), 0);
	snprintf(text, sizeof(text), "tcp:127.0.0.1:%u", ntohs(name.sin_port));
	CHECK_EQ(address_parse(text, false, &to, NULL), 0);
	make_ends(&from, from_tls, &to, to_tls);
}

static void end_session(void)
{
	channel_destroy(source);
	channel_destroy(target);
	source = target = NULL;
	dialer_destroy(dialer);
	acceptor_destroy(acceptor);
	dialer = NULL;
	acceptor = NULL;
	fd_close(&target_log.fd);
}

struct call {
	pthread_t thread;
	enum wire_kind kind;
	uint32_t count;
	struct channel *channels[4];
	int code;
	bool done; /* atomic */
	struct err err;
};

static void *run_call(void *opaque)
{
	struct call *call = opaque;

	for (uint32_t i = 0; !call->code && i < call->count; i++)
		call->code = dialer_connect(dialer, call->kind, i, call->count, &call->channels[i], &call->err);
	__atomic_store_n(&call->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static void begin_call(struct call *call, enum wire_kind kind, uint32_t count)
{
	*call = (struct call){.kind = kind, .count = count};
	CHECK_EQ(pthread_create(&call->thread, NULL, run_call, call), 0);
}

static void begin_session(void)
{
	struct err err = {""};
	struct call call;

	begin_call(&call, WIRE_CONTROL, 1);
	acceptor_control(acceptor, 10000, &target, &err);
	pthread_join(call.thread, NULL);
	CHECK_STR(call.err.text, "");
	CHECK_STR(err.text, "");
	source = call.channels[0];
}

static void say_something(void)
{
	struct wire_frame frame;
	char *text;

	CHECK_EQ(channel_send(source, WIRE_OFFER, 0, 0, "plain text", 10, NULL), 0);
	CHECK_EQ(channel_expect(target, WIRE_OFFER, &frame, NULL), 0);
	CHECK_EQ(channel_payload_all(target, &text, NULL), 0);
	CHECK_STR(text, "plain text");
	free(text);
	CHECK_EQ(channel_send(target, WIRE_READY, 0, 0, "{}", 2, NULL), 0);
	CHECK_EQ(channel_expect(source, WIRE_READY, &frame, NULL), 0);
	CHECK_EQ(channel_payload_all(source, &text, NULL), 0);
	free(text);
}

static void sessions_are_encrypted_over_tcp(void)
{
	make_tcp("good", "other");
	begin_session();
	say_something();
	end_session();
}

/* Control, memory and device channels, by way of a wire that is listened to. */
static void every_channel_is_encrypted(void)
{
	struct channel *memory[3], *device[1];
	struct address from, to;
	struct call calls[2];
	struct err err = {""};
	char path[128], text[160];

	certificates("socket", path);
	snprintf(text, sizeof(text), "unix:%s", path);
	CHECK_EQ(address_parse(text, true, &from, NULL), 0);
	certificates("relay", path);
	snprintf(text, sizeof(text), "unix:%s", path);
	CHECK_EQ(address_parse(text, false, &to, NULL), 0);
	make_ends(&from, "good", &to, "other");
	start_relay(to.path, from.path);
	begin_session();
	say_something();
	begin_call(&calls[0], WIRE_MEMORY, 3);
	acceptor_join(acceptor, target, WIRE_MEMORY, 3, memory, &err);
	CHECK_STR(err.text, "");
	pthread_join(calls[0].thread, NULL);
	begin_call(&calls[1], WIRE_DEVICE, 1);
	acceptor_join(acceptor, target, WIRE_DEVICE, 1, device, &err);
	CHECK_STR(err.text, "");
	pthread_join(calls[1].thread, NULL);
	stop_relay();
	CHECK_EQ(relay.count, 5);
	for (int i = 0; i < relay.count; i++) {
		for (int side = 0; side < 2; side++) {
			CHECK(relay.seen_len[i][side] > 500);
			CHECK_EQ(relay.seen[i][side][0], 22); /* a handshake record */
			CHECK(!memmem(relay.seen[i][side], relay.seen_len[i][side], "mvmmmigr", 8));
			CHECK(!memmem(relay.seen[i][side], relay.seen_len[i][side], "plain", 5));
		}
	}
	/* The relay has gone: everybody hears of it. */
	CHECK_EQ(channel_receive(target, &(struct wire_frame){0}, &err), -ECONNRESET);
	CHECK_EQ(channel_receive(device[0], &(struct wire_frame){0}, &err), -ECONNRESET);
	CHECK_EQ(channel_receive(source, &(struct wire_frame){0}, &err), -ECONNRESET);
	for (int i = 0; i < 3; i++) {
		channel_destroy(memory[i]);
		channel_destroy(calls[0].channels[i]);
	}
	channel_destroy(device[0]);
	channel_destroy(calls[1].channels[0]);
	end_session();
	unlink(to.path);
}

#define RAM MIB(8)

static uint8_t *make_memory(struct guest_memory **memory)
{
	uint8_t *host = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct guest_region region = {.gpa = 0, .size = RAM, .host = host, .fd = -1};

	CHECK(host != MAP_FAILED);
	*memory = guest_memory_create();
	CHECK_EQ(guest_memory_add(*memory, &region, NULL), 0);
	return host;
}

static void memory_arrives_whole(void)
{
	static unsigned long bits[RAM / 4096 / 64];
	const struct memory_marks marks = {0, RAM, bits};
	struct guest_memory *source_memory, *target_memory;
	uint8_t *from = make_memory(&source_memory), *to = make_memory(&target_memory);
	struct memory_receiver *receiver;
	struct memory_sender *sender;
	struct channel *memory[2];
	struct err err = {""};
	struct call call;

	for (size_t i = 0; i < RAM; i++)
		from[i] = (uint8_t)(i * 2654435761u >> 13);
	make_tcp("good", "other");
	begin_session();
	begin_call(&call, WIRE_MEMORY, 2);
	acceptor_join(acceptor, target, WIRE_MEMORY, 2, memory, &err);
	CHECK_STR(err.text, "");
	pthread_join(call.thread, NULL);
	memory_receiver_create(&(struct memory_receiver_options){target_memory, memory, 2}, &receiver, &err);
	CHECK_STR(err.text, "");
	memory_sender_create(&(struct memory_sender_options){.memory = source_memory, .channels = call.channels,
							     .channel_count = 2, .cancel_fd = -1}, &sender, &err);
	CHECK_STR(err.text, "");
	for (int round = 0; round < 3; round++) {
		memset(bits, 0xff, sizeof(bits));
		memset(from + (size_t)round * MIB(1), round, MIB(1));
		memory_sender_send(sender, &marks, 1, 0, &err);
		CHECK_STR(err.text, "");
	}
	CHECK_EQ(memory_sender_end(sender, NULL, 0, &err), 0);
	/* What was said before the end arrives, even when the source leaves at once. */
	memory_sender_destroy(sender);
	channel_destroy(call.channels[0]);
	channel_destroy(call.channels[1]);
	memory_receiver_wait(receiver, -1, &err);
	CHECK_STR(err.text, "");
	CHECK_EQ(memcmp(from, to, RAM), 0);
	memory_receiver_destroy(receiver);
	channel_destroy(memory[0]);
	channel_destroy(memory[1]);
	guest_memory_destroy(source_memory);
	guest_memory_destroy(target_memory);
	munmap(from, RAM);
	munmap(to, RAM);
	end_session();
}

/* ---- refusals ---- */

static void who_must_not_is_told_why(void)
{
	static const struct {
		const char *from, *to;
		int code;
		const char *source_words, *target_words;
		const char *source_name, *target_name;
	} cases[] = {
		{"good", "expired", -EACCES, "the target refused the connection: our certificate has expired", "the source's certificate has expired"},
		{"expired", "good", -EACCES, "the target's certificate has expired", "the source refused the connection: our certificate has expired"},
		{"good", "stranger", -EACCES, "the target's certificate is not signed by our ca.pem", "--tls: the source"},
		{"stranger", "good", -EACCES, "the target's certificate is not signed by our ca.pem", "--tls: the source"},
		{"elsewhere", "good", -EACCES, "the target's certificate is for another host than 127.0.0.1",
		 "the source refused the connection: our certificate is not for the host name that it expects"},
		{"good", "elsewhere", 0, NULL, NULL}, /* nobody asks where the source is */
		{"good", "elsewhere", 0, NULL, NULL, "elsewhere.example"},
		{"good", "other", -EACCES, "the target refused the connection: our certificate is not for the host name",
		 "the source's certificate is for another host than elsewhere.example", "elsewhere.example"},
		{"elsewhere", "good", 0, NULL, NULL, "localhost", "elsewhere.example"},
		{"good", "other", -EACCES, "the target's certificate is for another host than elsewhere.example",
		 "the source refused the connection", NULL, "elsewhere.example"},
		{"server", "client", 0, NULL, NULL},
		{"client", "good", -EACCES, "the target's certificate is for another purpose (extended key usage)",
		 "the source refused the connection: our certificate is not for a TLS server"},
		{"good", "server", -EACCES, "the target refused the connection: our certificate is not for a TLS client",
		 "the source's certificate is for another purpose (extended key usage)"},
		{"good", "encipher", -EINVAL, "encipher/cert.pem is not for signatures (key usage)", NULL},
		{"encipher", "good", -ECONNRESET, "the target closed the connection", "is not for signatures (key usage)"},
		{"good", "keyless", -ENOENT, "keyless/key.pem: No such file or directory", NULL},
		{"good", "nothing", -ENOENT, "nothing/ca.pem: No such file or directory", NULL},
		{"good", "mismatch", -EINVAL, "is not the key of", NULL},
		{"mismatch", "good", -ECONNRESET, "the target closed the connection while shaking hands", "is not the key of"},
		{"good", NULL, -EREMOTEIO, "the target: it accepts TLS only; use --tls here too",
		 "the source does not use TLS; use --tls there too"},
		{NULL, "good", -ECONNRESET, "the target closed the connection while shaking hands; see its log, or add --tls there",
		 "the peer uses TLS; use --tls on both sides"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct channel *none = NULL;
		struct call call;

		source_name = cases[i].source_name;
		target_name = cases[i].target_name;
		make_tcp(cases[i].from, cases[i].to);
		begin_call(&call, WIRE_CONTROL, 1);
		for (int turns = 0; turns < 200 && !none && !__atomic_load_n(&call.done, __ATOMIC_ACQUIRE); turns++)
			acceptor_control(acceptor, 50, &none, NULL);
		for (int turns = 0; turns < 100 && cases[i].target_words && !log_text()[0]; turns++)
			acceptor_control(acceptor, 50, &none, NULL);
		pthread_join(call.thread, NULL);
		if (call.code != cases[i].code || (cases[i].source_words && !strstr(call.err.text, cases[i].source_words)) ||
		    (cases[i].target_words && !strstr(log_text(), cases[i].target_words)))
			printf("# case %zu: %d: %s\n# target: %s\n", i, call.code, call.err.text, log_text());
		CHECK_EQ(call.code, cases[i].code);
		CHECK_EQ(!none, !!cases[i].code);
		CHECK(!cases[i].source_words || strstr(call.err.text, cases[i].source_words));
		CHECK(!cases[i].target_words || strstr(log_text(), cases[i].target_words));
		channel_destroy(none);
		channel_destroy(call.channels[0]);
		end_session();
	}
	source_name = target_name = NULL;
}

/* A connection to the acceptor of make_tcp. */
static int call_plainly(void)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(name);
	int listener = -1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	for (int i = 3; i < 64 && listener < 0; i++) {
		int listens = 0;
		socklen_t size = sizeof(listens);

		if (getsockopt(i, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens)
			listener = i;
	}
	CHECK_EQ(getsockname(listener, (struct sockaddr *)&name, &len), 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&name, len), 0);
	return fd;
}

static void mute_callers_hold_nobody_up(void)
{
	int mute[3];

	make_tcp("good", "other");
	for (int i = 0; i < 3; i++)
		mute[i] = call_plainly();
	begin_session();
	say_something();
	for (int i = 0; i < 3; i++)
		close(mute[i]);
	end_session();
}

/* Each handshake is a process: those who say nothing, or leave, get none. */
static void mute_callers_cost_no_process(void)
{
	struct channel *none;
	int mute[2], gone;

	helper = "/nonexistent/mvmm-tls";
	make_tcp("good", "other");
	helper = MVMM_TLS;
	for (int i = 0; i < 2; i++)
		mute[i] = call_plainly();
	gone = call_plainly();
	close(gone);
	for (int turns = 0; turns < 100 && !strstr(log_text(), "it hung up"); turns++)
		CHECK_EQ(acceptor_control(acceptor, 50, &none, NULL), -ETIMEDOUT);
	CHECK(strstr(log_text(), "it hung up"));
	CHECK(!strstr(log_text(), "start /nonexistent/mvmm-tls"));
	CHECK_EQ(write(mute[1], "x", 1), 1);
	for (int turns = 0; turns < 100 && !strstr(log_text(), "start /nonexistent/mvmm-tls"); turns++)
		acceptor_control(acceptor, 50, &none, NULL);
	CHECK(strstr(log_text(), "start /nonexistent/mvmm-tls"));
	close(mute[0]);
	close(mute[1]);
	end_session();
}

#define FLOOD 8

/* Each handshake ends at once, and another caller takes its place. Returns how many. */
static unsigned int flood(int callers[FLOOD])
{
	struct channel *none;
	unsigned int ended = 0;
	char byte;

	CHECK_EQ(acceptor_control(acceptor, 5, &none, NULL), -ETIMEDOUT);
	for (int i = 0; i < FLOOD; i++) {
		if (callers[i] >= 0 && recv(callers[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
			continue;
		ended += callers[i] >= 0;
		fd_close(&callers[i]);
		callers[i] = call_plainly();
		CHECK_EQ(write(callers[i], "x", 1), 1);
	}
	return ended;
}

static void callers_that_come_again_do_not_push_others_aside(void)
{
	int callers[FLOOD], honest;
	unsigned int ended = 0;
	char byte;

	memset(callers, -1, sizeof(callers));
	helper = "/nonexistent/mvmm-tls";
	make_tcp("good", "other");
	helper = MVMM_TLS;
	while (ended <= ACCEPTOR_HANDSHAKES)
		ended += flood(callers);
	honest = call_plainly();
	CHECK_EQ(write(honest, "x", 1), 1);
	ended = 0;
	while (recv(honest, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN && ended < 4 * FLOOD)
		ended += flood(callers);
	CHECK(ended <= 2 * FLOOD);
	for (int i = 0; i < FLOOD; i++)
		close(callers[i]);
	close(honest);
	end_session();
}

static void a_missing_helper_is_named(void)
{
	struct address to = {.kind = ADDRESS_FD, .text = "fd:a"};
	struct channel *none;
	char path[128];
	struct err err;
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	to.fd = fds[0];
	CHECK_EQ(dialer_create(&(struct dialer_options){.to = &to, .cancel_fd = -1, .tls = certificates("good", path),
							.tls_helper = "/nonexistent/mvmm-tls"}, &dialer, &err), 0);
	CHECK_EQ(dialer_connect(dialer, WIRE_CONTROL, 0, 1, &none, &err), -ENOENT);
	CHECK(strstr(err.text, "--tls: start /nonexistent/mvmm-tls"));
	close(fds[1]);
	end_session();
	remove_folder();
}

TEST_MAIN(TEST(sessions_are_encrypted_over_tcp), TEST(every_channel_is_encrypted), TEST(memory_arrives_whole),
	  TEST(who_must_not_is_told_why), TEST(mute_callers_hold_nobody_up), TEST(mute_callers_cost_no_process),
	  TEST(callers_that_come_again_do_not_push_others_aside), TEST(a_missing_helper_is_named))
