/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/migration/connector: connections that one process makes for another one that has no network. */
#include "vmm/migration/connector.h"
#include "core/monotonic.h"
#include "tests/unit/test.h"
#include "vmm/migration/acceptor.h"
#include "vmm/migration/socket.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

static char dir[64];
static struct address address;
static struct connector *connector;
static int peer = -1;
static pthread_t server;
static struct err err;

/* What mvmm migrate does while it waits. */
static void *serve(void *opaque)
{
	struct pollfd asked = {.fd = connector_fd(connector), .events = POLLIN};

	while (poll(&asked, 1, -1) == 1 && connector_serve(connector))
		;
	return NULL;
}

static void begin(void)
{
	const struct dialer_options options = {.to = &address, .cancel_fd = -1, .silence_ms = 2000};
	char text[100];

	err.text[0] = 0;
	snprintf(dir, sizeof(dir), "/tmp/mvmm-test-XXXXXX");
	CHECK(mkdtemp(dir));
	snprintf(text, sizeof(text), "unix:%s/s", dir);
	CHECK_EQ(address_parse(text, false, &address, &err), 0);
	CHECK_EQ(connector_create(&options, &peer, &connector, &err), 0);
	CHECK_EQ(pthread_create(&server, NULL, serve, NULL), 0);
}

static void end(void)
{
	fd_close(&peer);
	pthread_join(server, NULL);
	connector_destroy(take_ptr(connector));
	CHECK_EQ(rmdir(dir), 0);
}

static struct dialer *dialer;
static struct channel *channels[3];

static void *dial(void *opaque)
{
	static int code;

	code = dialer_connect(dialer, WIRE_CONTROL, 0, 1, &channels[0], &err);
	for (uint32_t i = 0; i < 2 && !code; i++)
		code = dialer_connect(dialer, WIRE_MEMORY, i, 2, &channels[1 + i], &err);
	return &code;
}

static void a_session_goes_over_its_connections(void)
{
	struct log log = {.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_INFO};
	const struct acceptor_options accepting = {.from = &address, .log = &log, .cancel_fd = -1, .silence_ms = 2000};
	struct dialer_options options = {.to = &address, .cancel_fd = -1, .silence_ms = 2000};
	struct channel *control, *memory[2];
	struct acceptor *acceptor;
	struct wire_frame frame;
	struct err other;
	pthread_t thread;
	void *code;

	begin();
	CHECK_EQ(acceptor_create(&accepting, &acceptor, &err), 0);
	options.asker = peer;
	CHECK_EQ(dialer_create(&options, &dialer, &err), 0);
	CHECK_EQ(pthread_create(&thread, NULL, dial, NULL), 0);
	CHECK_EQ(acceptor_control(acceptor, 5000, &control, &other), 0);
	CHECK_EQ(acceptor_join(acceptor, control, WIRE_MEMORY, 2, memory, &other), 0);
	pthread_join(thread, &code);
	CHECK_EQ(*(int *)code, 0);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(channel_send(channels[1 + i], WIRE_END, i, 0, NULL, 0, &err), 0);
		CHECK_EQ(channel_expect(memory[i], WIRE_END, &frame, &err), 0);
		CHECK_EQ(frame.a, i);
		channel_destroy(memory[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(channels); i++)
		channel_destroy(channels[i]);
	channel_destroy(control);
	dialer_destroy(dialer);
	acceptor_destroy(acceptor);
	fd_close(&log.fd);
	end();
}

static void why_there_is_no_connection_is_told(void)
{
	int fd = -1;

	begin();
	CHECK_EQ(socket_ask(peer, -1, monotonic_ms() + 5000, &fd, &err), -ENOENT);
	CHECK(strstr(err.text, "nobody listens there; start `mvmm receive` first"));
	CHECK_EQ(fd, -1);
	end();
}

static void waiting_ends_when_cancelled(void)
{
	int pair[2], cancel_fd = eventfd(1, EFD_CLOEXEC), fd = -1;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	CHECK_EQ(socket_ask(pair[0], cancel_fd, monotonic_ms() + 5000, &fd, &err), -ECANCELED);
	CHECK_EQ(socket_ask(pair[0], -1, monotonic_ms() + 20, &fd, &err), -ETIMEDOUT);
	close(pair[1]);
	CHECK_EQ(socket_ask(pair[0], -1, monotonic_ms() + 5000, &fd, &err), -ECONNRESET);
	CHECK(strstr(err.text, "has ended"));
	close(pair[0]);
	close(cancel_fd);
}

/* Whatever comes back: an error, and no descriptor stays. */
static void bad_replies_are_refused(void)
{
	static const char *const bad[] = {"", "0", "1", "-5", "5 text", "-5000 text", "text", "-5text", "00"};
	int pair[2], fd = -1, next = dup(0);

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK(send(pair[1], bad[i], strlen(bad[i]), 0) >= 0);
		CHECK_EQ(socket_ask(pair[0], -1, monotonic_ms() + 1000, &fd, &err), -ECONNRESET);
		CHECK_EQ(fd, -1);
	}
	/* and good ones are taken */
	CHECK_EQ(socket_reply(pair[1], next, 0, NULL), 0);
	CHECK_EQ(socket_ask(pair[0], -1, monotonic_ms() + 1000, &fd, &err), 0);
	CHECK(fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	err_set(&err, -EIO, "because");
	CHECK_EQ(socket_reply(pair[1], -1, -EIO, &err), 0);
	CHECK_EQ(socket_ask(pair[0], -1, monotonic_ms() + 1000, &fd, &err), -EIO);
	CHECK_STR(err.text, "because");
	close(pair[0]);
	close(pair[1]);
	close(next);
}

TEST_MAIN(TEST(a_session_goes_over_its_connections), TEST(why_there_is_no_connection_is_told),
	  TEST(waiting_ends_when_cancelled), TEST(bad_replies_are_refused))
