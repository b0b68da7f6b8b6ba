/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/memory_uffd: a handler gets the message in the known form and serves page by page; one that is killed, is
 * stopped, closes something or says nothing ends the machine with one line, and a missing page is never read as zeros.
 */
#include "core/irq.h"
#include "core/monotonic.h"
#include "tests/unit/log_pipe.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/memory_uffd.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define PAGE 4096u
#define PAGES 64u
#define SIZE (PAGES * PAGE)

/* What the handler does. It serves PAGES_SERVED pages, if it serves any, and then no more. */
enum manner { SERVES, IS_SLOW, CLOSES_ALL, CLOSES_THE_USERFAULTFD, IS_MUTE };

static char path[64];
static int listener = -1, told[2] = {-1, -1}, lost_fd = -1;
static pid_t handler;
static struct memory_uffd *uffd;
static struct memory_guard *guard;
static struct guest_memory *memory;
static char *host;
static struct log_pipe lines = LOG_PIPE_CLOSED;
static struct err err;

/* ---- a handler, in a process of its own ---- */

static int receive(int connection, char *text, size_t size)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {text, size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
	int fd;

	if (n <= 0 || !CMSG_FIRSTHDR(&message))
		_exit(3);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	if (write(told[1], text, (size_t)n) != n)
		_exit(4);
	return fd;
}

/* Page n has the byte n + 1; once removed, zeros. */
static void serve(int fd, uintptr_t base, unsigned int delay_ms)
{
	static bool removed[PAGES];
	static uint8_t page[PAGE];

	for (;;) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		struct uffd_msg message;

		poll(&wait, 1, -1);
		if (read(fd, &message, sizeof(message)) != sizeof(message))
			continue;
		if (message.event == UFFD_EVENT_REMOVE) {
			for (uint64_t at = message.arg.remove.start; at < message.arg.remove.end; at += PAGE)
				removed[(at - base) / PAGE] = true;
		} else if (message.event == UFFD_EVENT_PAGEFAULT) {
			uint64_t n = (message.arg.pagefault.address - base) / PAGE;
			struct uffdio_copy copy = {.dst = base + n * PAGE, .src = (uintptr_t)page, .len = PAGE};

			usleep(delay_ms * 1000);
			memset(page, removed[n] ? 0 : (int)n + 1, PAGE);
			while (ioctl(fd, UFFDIO_COPY, &copy) < 0 && errno == EAGAIN)
				copy.copy = 0;
		}
	}
}

static void handle(enum manner manner)
{
	char text[256] = "";
	int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	int fd = receive(connection, text, sizeof(text) - 1);
	unsigned long base = 0;

	sscanf(text, "[{\"base_host_virt_addr\":%lu", &base);
	if (manner == CLOSES_ALL || manner == CLOSES_THE_USERFAULTFD)
		close(fd);
	if (manner == CLOSES_ALL)
		close(connection);
	if (manner <= IS_SLOW)
		serve(fd, base, manner == IS_SLOW ? 100 : 0);
	pause();
	_exit(0);
}

/* ---- the machine's side ---- */

static void on_lost(void *opaque)
{
	eventfd_kick(lost_fd);
}

static void tear_down(void)
{
	memory_uffd_unwatch(uffd);
	memory_guard_destroy(take_ptr(guard));
	guest_memory_destroy(take_ptr(memory));
	if (host)
		munmap(host, SIZE);
	host = NULL;
	memory_uffd_destroy(take_ptr(uffd));
	if (handler) {
		kill(handler, SIGKILL);
		waitpid(handler, NULL, 0);
		handler = 0;
	}
	fd_close(&listener);
	fd_close(&told[0]);
	fd_close(&told[1]);
	log_pipe_close(&lines);
	fd_close(&lost_fd);
	unlink(path);
}

static void listen_here(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	tear_down();
	if (memory_uffd_check(NULL) < 0)
		SKIP("no right to a userfaultfd");
	snprintf(path, sizeof(path), "/tmp/mvmm-uffd-%d", getpid());
	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(listener, (struct sockaddr *)&name, sizeof(name)), 0);
	CHECK_EQ(listen(listener, 1), 0);
	CHECK_EQ(pipe2(told, O_CLOEXEC), 0);
	log_pipe_open(&lines, LOG_INFO, NULL);
	lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void set_up(enum manner manner, unsigned int silence)
{
	struct memory_uffd_options options = {.socket = path, .silence = silence};
	struct memory_guard_options guarding = {.fd = -1, .what = "memory", .log = &lines.log, .lost = on_lost};
	struct guest_region region = {.size = SIZE, .fd = -1};

	listen_here();
	fflush(stdout);
	handler = fork();
	if (handler == 0)
		handle(manner);
	fd_close(&listener);
	CHECK_EQ(memory_uffd_create(&options, &uffd, &err), 0);
	region.host = host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(host != MAP_FAILED);
	madvise(host, SIZE, MADV_NOHUGEPAGE);
	CHECK_EQ(memory_uffd_fill(uffd, host, SIZE, &err), 0);
	memory = guest_memory_create();
	CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	CHECK_EQ(memory_guard_create(&guarding, &guard, &err), 0);
	CHECK_EQ(memory_guard_start(guard, memory, &err), 0);
	CHECK_EQ(memory_uffd_watch(uffd, guard, &err), 0);
}

/* Has the kernel read a page, as KVM does: its byte, or -errno. */
static int read_page(unsigned int page)
{
	_cleanup_(fd_close) int fd = memfd_create("read", MFD_CLOEXEC);
	uint8_t byte;

	if (write(fd, host + page * PAGE, 1) != 1)
		return -errno;
	return pread(fd, &byte, 1, 0) == 1 ? byte : -EIO;
}

static void *read_page_9(void *opaque)
{
	*(int *)opaque = read_page(9);
	return NULL;
}

static void *remove_page_9(void *opaque)
{
	*(int *)opaque = madvise(host + 9 * PAGE, PAGE, MADV_DONTNEED);
	return NULL;
}

static bool is_lost(int ms)
{
	struct pollfd wait = {.fd = lost_fd, .events = POLLIN};

	return poll(&wait, 1, ms) == 1;
}

static const char *logged(void)
{
	const char *text = log_pipe_read(&lines);

	CHECK(!*text || strchr(text, '\n') == text + strlen(text) - 1);
	return text;
}

static int check_renewed; /* of the thread that watches */

/* ---- tests ---- */

static void a_handler_gets_the_message_and_serves(void)
{
	char text[256] = "", want[256];

	set_up(SERVES, 0);
	snprintf(want, sizeof(want), "[{\"base_host_virt_addr\":%llu,\"size\":%u,\"offset\":0,\"page_size\":4096,"
		 "\"page_size_kib\":4096}]", (unsigned long long)(uintptr_t)host, SIZE);
	CHECK(read(told[0], text, sizeof(text) - 1) > 0);
	CHECK_STR(text, want);
	for (unsigned int i = 0; i < PAGES; i++)
		CHECK_EQ(read_page(i), i + 1);
	for (unsigned int i = 0; i < PAGES; i++)
		CHECK_EQ((uint8_t)host[i * PAGE + 7], i + 1);
	CHECK(!is_lost(0));
	tear_down();
}

static void what_the_balloon_gives_back_is_removed(void)
{
	set_up(SERVES, 0);
	CHECK_EQ(read_page(5), 6);
	CHECK_EQ(madvise(host + 5 * PAGE, 2 * PAGE, MADV_DONTNEED), 0);
	CHECK_EQ(read_page(4), 5);
	CHECK_EQ(read_page(5), 0);
	CHECK_EQ(read_page(6), 0);
	CHECK_EQ(read_page(7), 8);
	tear_down();
}

static void a_slow_handler_is_waited_for(void)
{
	int64_t begun = monotonic_ms();

	set_up(IS_SLOW, 1500);
	for (unsigned int i = 0; i < 17; i++)
		CHECK_EQ(read_page(i), i + 1);
	CHECK(monotonic_ms() - begun > 1500);
	CHECK(!is_lost(0));
	CHECK_STR(logged(), "");
	tear_down();
}

/* A thread waits for page 9 meanwhile. */
static void ends(void (*event)(void), const char *reason)
{
	pthread_t thread;
	int got = 1;
	char want[256];

	CHECK_EQ(pthread_create(&thread, NULL, read_page_9, &got), 0);
	if (event)
		event();
	CHECK(is_lost(20000));
	pthread_join(thread, NULL);
	CHECK_EQ(got, -EFAULT);
	for (unsigned int i = 0; i < PAGES; i++)
		CHECK_EQ(read_page(i), -EFAULT);
	snprintf(want, sizeof(want), "the handler of the guest's memory at %s %s; the machine ends\n", path, reason);
	CHECK_STR(logged(), want);
	tear_down();
}

static void kill_it(void)
{
	kill(handler, SIGKILL);
}

static void a_handler_that_dies_or_closes_ends_the_machine_at_once(void)
{
	set_up(IS_MUTE, 0);
	ends(kill_it, "is gone");
	set_up(CLOSES_ALL, 0);
	ends(NULL, "is gone");
}

static void watch_anew(void)
{
	check_renewed = memory_uffd_renew(uffd, &err);
	kill_it();
}

static void another_thread_goes_on_with_the_watch(void)
{
	set_up(IS_MUTE, 0);
	ends(watch_anew, "is gone");
	CHECK_EQ(check_renewed, 0);
}

static void a_handler_that_brings_nothing_ends_the_machine_after_a_while(void)
{
	set_up(IS_MUTE, 200);
	ends(NULL, "has brought no page for 0 s");
	set_up(CLOSES_THE_USERFAULTFD, 200);
	ends(NULL, "has brought no page for 0 s");
	set_up(SERVES, 200);
	CHECK_EQ(read_page(0), 1);
	kill(handler, SIGSTOP);
	ends(NULL, "has brought no page for 0 s");
}

static void a_machine_that_waits_for_nothing_goes_on(void)
{
	set_up(SERVES, 100);
	CHECK_EQ(read_page(0), 1);
	kill(handler, SIGSTOP);
	CHECK(!is_lost(400));
	CHECK_EQ(read_page(0), 1);
	kill(handler, SIGCONT);
	CHECK_EQ(read_page(1), 2);
	tear_down();
}

static void a_removal_that_nobody_takes_does_not_wait_for_ever(void)
{
	pthread_t thread;
	int got = 1;

	set_up(SERVES, 200);
	kill(handler, SIGSTOP);
	CHECK_EQ(pthread_create(&thread, NULL, remove_page_9, &got), 0);
	CHECK(is_lost(20000));
	pthread_join(thread, NULL);
	CHECK_EQ(read_page(9), -EFAULT);
	tear_down();
}

static void what_cannot_be_connected_says_why(void)
{
	char longest[200];
	struct memory_uffd_options options = {.socket = path};

	listen_here();
	close(listener);
	listener = -1;
	CHECK_EQ(memory_uffd_create(&options, &uffd, &err), -ECONNREFUSED);
	CHECK(strstr(err.text, ": Connection refused; start the handler first"));
	unlink(path);
	CHECK_EQ(memory_uffd_create(&options, &uffd, &err), -ENOENT);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	options.socket = longest;
	CHECK_EQ(memory_uffd_create(&options, &uffd, &err), -ENAMETOOLONG);
	tear_down();
}

TEST_MAIN(TEST(a_handler_gets_the_message_and_serves), TEST(what_the_balloon_gives_back_is_removed),
	  TEST(a_slow_handler_is_waited_for), TEST(a_handler_that_dies_or_closes_ends_the_machine_at_once),
	  TEST(another_thread_goes_on_with_the_watch),
	  TEST(a_handler_that_brings_nothing_ends_the_machine_after_a_while),
	  TEST(a_machine_that_waits_for_nothing_goes_on), TEST(a_removal_that_nobody_takes_does_not_wait_for_ever),
	  TEST(what_cannot_be_connected_says_why))
