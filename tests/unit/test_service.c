/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/service: what a service manager is told, and what it hands in. The manager is a socket of the test; its
 * descriptors are put where a manager puts them, in a child process.
 */
#include "vmm/session/service.c"

#include "core/monotonic.h"
#include "tests/unit/test.h"

#include <poll.h>
#include <sys/wait.h>

static struct log quiet = {.fd = -1};
static struct service service;
static struct event_loop *loop;
static char place[64];
static int manager = -1;
static struct err err;

static void end(void)
{
	service_close(&service);
	event_loop_destroy(take_ptr(loop));
	fd_close(&manager);
	if (place[0] == '/')
		unlink(place);
}

/* A manager at a path, or with '@' at a name in the abstract namespace, and a service that knows of it. */
static void begin(char kind, const char *watchdog_usec)
{
	struct sockaddr_un address;
	socklen_t len;

	end();
	snprintf(place, sizeof(place), "%c%.40s/manager%d", kind, kind == '/' ? (getenv("TMPDIR") ?: "/tmp") + 1 : "test", getpid());
	len = service_address(place, &address);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CHECK(len && bind(manager, (struct sockaddr *)&address, len) == 0);
	setenv("NOTIFY_SOCKET", place, 1);
	if (watchdog_usec)
		setenv("WATCHDOG_USEC", watchdog_usec, 1);
	service_open(&service);
	CHECK_EQ(event_loop_create(&loop, &err), 0);
	CHECK_EQ(service_watch(&service, loop, &quiet, &err), 0);
}

/* What has come, "" if nothing has. */
static const char *heard(void)
{
	static char text[256];
	ssize_t n = recv(manager, text, sizeof(text) - 1, 0);

	text[MAX(n, 0)] = 0;
	return text;
}

static void readiness_is_told_once(void)
{
	for (const char *kind = "/@"; *kind; kind++) {
		begin(*kind, NULL);
		CHECK(service.connected);
		CHECK_STR(heard(), "");
		service_ready(&service, "running");
		CHECK_STR(heard(), "READY=1\nSTATUS=running");
		service_ready(&service, "running");
		service_status(&service, "running");
		CHECK_STR(heard(), "");
		service_status(&service, "paused");
		CHECK_STR(heard(), "READY=1\nSTATUS=paused");
		service_stopping(&service);
		service_stopping(&service);
		CHECK_STR(heard(), "READY=1\nSTOPPING=1\nSTATUS=ending");
		CHECK_STR(heard(), "");
	}
	end();
}

static void a_status_is_one_line(void)
{
	begin('@', NULL);
	service_status(&service, "a\nREADY=1");
	CHECK_STR(heard(), "STATUS=a?READY=1");
	for (size_t i = 0; i < 4; i++) {
		char text[400];

		memset(text, 'x', sizeof(text) - 1);
		text[sizeof(text) - 1] = 0;
		service_status(&service, text);
	}
	CHECK_EQ(strlen(heard()), strlen("STATUS=") + sizeof(service.status) - 1);
	end();
}

static void nothing_stays_in_the_environment(void)
{
	static const char *const names[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
					    "LISTEN_FDNAMES"};

	for (size_t i = 1; i < ARRAY_SIZE(names); i++)
		setenv(names[i], "77", 1);
	begin('@', NULL);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		CHECK(!getenv(names[i]));
	end();
}

/* Neither an address that is none, nor a socket that nobody reads, is an error; nothing is sent anywhere. */
static void a_manager_that_is_not_there_does_no_harm(void)
{
	static const char *const places[] = {"", "/", "@", "relative", "vsock:2:1", "/nonexistent/socket", "@nobody-is-here",
					     "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
					     "aaaaaaaaaaaaaaaaaaaaaaaaaa"};

	end();
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		setenv("NOTIFY_SOCKET", places[i], 1);
		setenv("WATCHDOG_USEC", "1000", 1);
		service_open(&service);
		CHECK(!service.connected);
		CHECK_EQ(service.watchdog_ns, 0);
		service_ready(&service, "running");
		service_stopping(&service);
		service_close(&service);
	}
	unsetenv("NOTIFY_SOCKET");
	service_open(&service);
	CHECK(!service.connected);
	begin('@', NULL);
	fd_close(&manager);
	service_ready(&service, "running");
	end();
}

static void stop_loop(void *opaque, uint32_t events)
{
	event_loop_stop(loop);
}

static void run_for(uint64_t ns)
{
	struct event_source *timer;

	CHECK_EQ(event_loop_timer(loop, stop_loop, NULL, &timer, &err), 0);
	event_timer_set(timer, ns, 0);
	event_loop_run(loop);
	event_source_remove(timer);
}

static void signs_of_life_begin_with_the_readiness(void)
{
	unsigned int signs = 0;

	begin('@', "40000");
	run_for(60000000);
	CHECK_STR(heard(), "");
	service_ready(&service, "running");
	CHECK_STR(heard(), "READY=1\nSTATUS=running");
	for (const char *text; signs < 5;) {
		run_for(5000000);
		while (*(text = heard())) {
			CHECK_STR(text, "WATCHDOG=1");
			signs++;
		}
	}
	end();
}

/* At least one in each half of the time: counted by the timer's setting, not by the clock of a busy machine. */
static void they_come_twice_as_often_as_wanted(void)
{
	static const struct {
		const char *usec;
		uint64_t ns;
	} cases[] = {{"30000000", 30000000000}, {"1", 1000}, {"0", 0}, {"-1", 0}, {"x", 0}, {"", 0}, {"1x", 0},
		     {"99999999999999999999", 0}, {"18446744073709551615", 0}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin('@', cases[i].usec);
		CHECK_EQ(service.watchdog_ns, cases[i].ns);
		CHECK_EQ(service.watchdog != NULL, cases[i].ns != 0);
	}
	setenv("WATCHDOG_PID", "1", 1); /* is not for us */
	begin('@', "1000");
	CHECK_EQ(service.watchdog_ns, 0);
	end();
}

static void a_busy_manager_is_told_later(void)
{
	unsigned int sent = 0;

	begin('@', NULL);
	while (service_send(&service, "STATUS=filler"))
		CHECK(sent++ < 100000);
	service_ready(&service, "running");
	while (strcmp(heard(), "STATUS=filler") == 0)
		continue;
	CHECK_STR(heard(), "");
	for (int i = 0; i < 100; i++) {
		struct pollfd wait = {.fd = manager, .events = POLLIN};

		run_for(RETRY_NS);
		if (poll(&wait, 1, 0) == 1)
			break;
	}
	CHECK_STR(heard(), "READY=1\nSTATUS=running");
	end();
}

/* ---- sockets ---- */

/* In a child: the descriptors are what a manager hands in from 3 on; how many of them are served, or 99. */
static int served(const int *fds, size_t count, const char *said, bool ours)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		char number[16];
		int moved[8];

		for (size_t i = 0; i < count; i++)
			moved[i] = fcntl(fds[i], F_DUPFD, 40);
		for (int fd = FIRST_FD; fd < 40; fd++)
			close(fd);
		for (size_t i = 0; i < count; i++)
			dup2(moved[i], FIRST_FD + (int)i);
		snprintf(number, sizeof(number), "%d", ours ? getpid() : getppid());
		setenv("LISTEN_PID", number, 1);
		setenv("LISTEN_FDS", said, 1);
		service_open(&service);
		for (size_t i = 0; i < service.socket_count; i++)
			if (!(fcntl(service.sockets[i], F_GETFD) & FD_CLOEXEC) || !(fcntl(service.sockets[i], F_GETFL) & O_NONBLOCK))
				_exit(99);
		_exit((int)service.socket_count);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static int listening(int domain, int type)
{
	int fd = socket(domain, type | SOCK_CLOEXEC, 0);
	struct sockaddr_un any = {.sun_family = AF_UNIX};

	if (domain == AF_UNIX)
		CHECK_EQ(bind(fd, (struct sockaddr *)&any, sizeof(any.sun_family)), 0); /* a name of the kernel's */
	CHECK_EQ(listen(fd, 5), 0);
	return fd;
}

static void listening_sockets_are_served(void)
{
	int one = listening(AF_UNIX, SOCK_STREAM), inet = listening(AF_INET, SOCK_STREAM), null = open("/dev/null", O_RDWR);
	int packets = listening(AF_UNIX, SOCK_SEQPACKET), idle = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int mixed[] = {null, one, inet, packets, idle, one}, many[] = {one, one, one, one, one, one};

	CHECK_EQ(served(many, 1, "1", true), 1);
	CHECK_EQ(served(many, 1, "1", false), 0); /* they are another process's */
	CHECK_EQ(served(mixed, 6, "6", true), 2);
	CHECK_EQ(served(mixed, 6, "1", true), 0);
	CHECK_EQ(served(many, 6, "6", true), SERVICE_SOCKETS);
	CHECK_EQ(served(many, 2, "30", true), 2); /* the others are not open */
	for (const char *const *bad = (const char *const[]){"", "0", "-1", "x", "99999", "1 ", NULL}; *bad; bad++)
		CHECK_EQ(served(many, 1, *bad, true), 0);
	close(one);
	close(inet);
	close(null);
	close(packets);
	close(idle);
}

static void each_is_taken_once(void)
{
	int one = listening(AF_UNIX, SOCK_STREAM);

	service = (struct service){.sockets = {one}, .socket_count = 1};
	CHECK_EQ(service_take_socket(&service), one);
	CHECK_EQ(service_take_socket(&service), -1);
	service = (struct service){.sockets = {one}, .socket_count = 1};
	service_close(&service);
	CHECK(fcntl(one, F_GETFD) < 0);
}

TEST_MAIN(TEST(readiness_is_told_once), TEST(a_status_is_one_line), TEST(nothing_stays_in_the_environment),
	  TEST(a_manager_that_is_not_there_does_no_harm), TEST(signs_of_life_begin_with_the_readiness),
	  TEST(they_come_twice_as_often_as_wanted), TEST(a_busy_manager_is_told_later), TEST(listening_sockets_are_served),
	  TEST(each_is_taken_once))
