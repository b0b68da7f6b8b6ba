/* SPDX-License-Identifier: Apache-2.0 */
/* devices/serial: output that is slow, held back by a limit or gone, and what is said of it at its end. */
#include "core/token_bucket.h"
#include "tests/unit/log_pipe.h"
#include "tests/unit/serial_rig.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* A descriptor that takes everything; the guest prints a byte for each write to it, so many times. */
static int greedy_fd = -1;
static unsigned int greedy_left;

ssize_t write(int fd, const void *data, size_t len)
{
	if (fd != greedy_fd)
		return syscall(SYS_write, fd, data, len);
	event_loop_stop(t.loop);
	if (greedy_left) {
		greedy_left--;
		out(UART_TX, 'x');
	}
	return (ssize_t)len;
}

static void flush_call(void *opaque)
{
	serial_flush(t.serial);
}

static void writes_bursts_in_one_piece(void)
{
	int fds[2];
	char buf[4096];
	size_t len = 0;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	open_serial(-1, fds[1]);
	print("a burst\r\n");
	CHECK_EQ(recv(fds[0], buf, sizeof(buf), MSG_DONTWAIT), -1);
	serial_flush(t.serial);
	CHECK_EQ(recv(fds[0], buf, sizeof(buf), MSG_DONTWAIT), 9);
	/* and by itself, soon */
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	print("login: ");
	CHECK(recv(fds[0], buf, sizeof(buf), 0) > 0);
	print("last words");
	close_serial();
	for (ssize_t n; (n = recv(fds[0], buf + len, sizeof(buf) - len, MSG_DONTWAIT)) > 0;)
		len += (size_t)n;
	CHECK(len >= 10 && memcmp(buf + len - 10, "last words", 10) == 0);
	close(fds[0]);
	close(fds[1]);
}

static void slow_readers_lose_only_the_end(void)
{
	int fds[2];
	static char buf[1 << 20];
	ssize_t n, total = 0;

	CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	open_serial(-1, fds[1]);
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	/* nobody reads: a pipe full (of half-full pages at worst) and a buffer full are kept, and the guest goes on */
	for (unsigned int i = 0; i < 300000; i++) {
		out(UART_TX, (uint8_t)(i % 251));
		if (i == 60000)
			event_loop_call(t.loop, flush_call, NULL);
	}
	for (unsigned int idle = 0; total < 90000 && idle < 5000; idle++) {
		n = read(fds[0], buf + total, sizeof(buf) - (size_t)total);
		if (n > 0) {
			total += n;
			idle = 0;
		} else {
			sleep_ms(1);
		}
	}
	CHECK(total >= 90000);
	for (ssize_t i = 0; i < 90000; i++)
		CHECK_EQ((uint8_t)buf[i], i % 251);
	event_loop_call(t.loop, flush_call, NULL);
	total += MAX(read(fds[0], buf, sizeof(buf)), 0);
	CHECK(total < 300000);
	print("!");
	event_loop_call(t.loop, flush_call, NULL);
	CHECK_EQ(read(fds[0], buf, sizeof(buf)), 1);
	close_serial();
	close(fds[0]);
	close(fds[1]);
}

static void a_guest_that_prints_for_ever_leaves_the_loop_time(void)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	open_serial(-1, fd);
	greedy_fd = fd;
	greedy_left = 10000;
	out(UART_TX, 'x');
	event_loop_run(t.loop); /* until the event is over during which it was stopped */
	CHECK(greedy_left > 5000);
	event_loop_run(t.loop); /* and it goes on */
	CHECK(greedy_left < 9990);
	greedy_left = 0;
	close_serial();
	greedy_fd = -1;
	close(fd);
}

static void blocking_pipes_do_not_block(void)
{
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	open_serial(-1, fds[1]);
	for (unsigned int i = 0; i < 200000; i++)
		out(UART_TX, 'x');
	serial_flush(t.serial); /* comes back */
	close_serial();
	close(fds[0]);
	close(fds[1]);
}

/* ---- the end of the output, and what is said of it ---- */

static struct log_pipe lines = LOG_PIPE_CLOSED;

/* Of the next open_serial. */
static void begin_telling(void)
{
	log_pipe_open(&lines, LOG_INFO, NULL);
	told = &lines.log;
}

static const char *end_telling(void)
{
	const char *text = log_pipe_read(&lines);

	log_pipe_close(&lines);
	told = NULL;
	return text;
}

static void *read_late(void *opaque)
{
	static char buf[1000];
	size_t total = 0;

	for (ssize_t n; (n = read(*(int *)opaque, buf, sizeof(buf))) > 0; total += (size_t)n)
		sleep_ms(1);
	return (void *)total;
}

/* The machine ends while 60,000 bytes are in the ring and the pipe takes 4096 at a time. */
static void the_end_waits_for_a_reader(void)
{
	pthread_t reader;
	void *total;
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK(fcntl(fds[1], F_SETPIPE_SZ, 4096) >= 4096);
	begin_telling();
	open_serial(-1, fds[1]);
	for (unsigned int i = 0; i < 60000; i++)
		out(UART_TX, 'x');
	CHECK_EQ(pthread_create(&reader, NULL, read_late, &fds[0]), 0);
	close_serial();
	close(fds[1]);
	pthread_join(reader, &total);
	CHECK_EQ((size_t)total, 60000);
	CHECK_STR(end_telling(), "");
	close(fds[0]);
}

static void the_end_tells_what_is_lost(void)
{
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(fcntl(fds[1], F_SETPIPE_SZ, 4096), 4096);
	begin_telling();
	open_serial(-1, fds[1]);
	for (unsigned int i = 0; i < 70000; i++)
		out(UART_TX, 'x');
	close_serial();
	CHECK_STR(end_telling(), "warning: serial: nobody reads the output; what does not fit is dropped\n"
		  "warning: serial: the last 65904 bytes of the output are lost: nobody reads them\n");
	close(fds[0]);
	close(fds[1]);
}

/* A log on a full file system: the output is back when there is room again. */
static void a_full_file_is_tried_again(void)
{
	struct rlimit found, full = {.rlim_cur = 10};
	int file = memfd_create("out", MFD_CLOEXEC);

	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &found), 0);
	full.rlim_max = found.rlim_max;
	begin_telling();
	open_serial(-1, file);
	print("0123456789");
	serial_flush(t.serial);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
	print("abc");
	serial_flush(t.serial);
	print("def");
	serial_flush(t.serial);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &found), 0);
	CHECK_EQ(lseek(file, 0, SEEK_END), 10);
	serial_flush(t.serial);
	CHECK_EQ(lseek(file, 0, SEEK_END), 16);
	close_serial();
	CHECK_STR(end_telling(),
		  "warning: serial: the output cannot be written (File too large); this is tried again\n"
		  "warning: serial: the output goes on; 0 bytes were dropped\n");
	close(file);
}

static void survives_readers_that_go(void)
{
	int fds[2], again = memfd_create("again", MFD_CLOEXEC);
	char buf[8];

	signal(SIGPIPE, SIG_DFL);
	for (unsigned int kind = 0; kind < 2; kind++) {
		CHECK_EQ(kind ? socketpair(AF_UNIX, SOCK_STREAM, 0, fds) : pipe(fds), 0);
		open_serial(-1, fds[1]);
		print("one");
		serial_flush(t.serial);
		CHECK_EQ(read(fds[0], buf, sizeof(buf)), 3);
		close(fds[0]);
		print("two");
		serial_flush(t.serial);
		print("three");
		serial_flush(t.serial);
		serial_set_fds(t.serial, -1, again);
		print("four");
		close_serial();
		close(fds[1]);
	}
	CHECK_EQ(lseek(again, 0, SEEK_END), 8);
	close(again);
}

/* Beyond its limit, output waits; a flush and the end do not. */
static void a_limit_holds_output_back(void)
{
	static const struct token_bucket_limit tight = {10, 5, 3600000000000}, soon = {10, 0, 20000000};
	char text[128] = "";
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	open_serial(-1, fds[1]);
	serial_set_limit(t.serial, &tight);
	CHECK_EQ(event_loop_start(t.loop, "test", NULL), 0);
	print("0123456789abcdefghijklmnopqrstuvwxyz");
	sleep_ms(50);
	CHECK_EQ(read(fds[0], text, sizeof(text)), 15);
	sleep_ms(50);
	CHECK(read(fds[0], text, sizeof(text)) < 0);
	serial_set_limit(t.serial, &soon);
	for (unsigned int i = 0, got = 0; got < 21; i++) {
		ssize_t n = read(fds[0], text, sizeof(text));

		CHECK(i < 5000 && n <= 10);
		got += (unsigned int)MAX(n, 0);
		sleep_ms(1);
	}
	serial_set_limit(t.serial, &tight);
	print("0123456789abcdefghijklmnopqrstuvwxyz");
	event_loop_call(t.loop, flush_call, NULL);
	CHECK_EQ(read(fds[0], text, sizeof(text)), 36);
	print("the end");
	close_serial();
	CHECK_EQ(read(fds[0], text, sizeof(text)), 7);
	close(fds[0]);
	close(fds[1]);
}

TEST_MAIN(TEST(the_end_waits_for_a_reader), TEST(the_end_tells_what_is_lost), TEST(a_full_file_is_tried_again),
	  TEST(writes_bursts_in_one_piece), TEST(slow_readers_lose_only_the_end),
	  TEST(a_guest_that_prints_for_ever_leaves_the_loop_time), TEST(blocking_pipes_do_not_block),
	  TEST(survives_readers_that_go), TEST(a_limit_holds_output_back))
