/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/console: nothing is lost between a slow reader, a fast writer and a guest without buffers. */
#include "core/event_loop.h"
#include "tests/unit/log_pipe.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <fcntl.h>
#include <linux/virtio_console.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <termios.h>

static struct event_loop *loop;
static struct log_pipe told = LOG_PIPE_CLOSED;
static struct virtio_driver *driver;
static struct driver_queue *rx, *tx;
static int host_in = -1, host_out = -1; /* the host's ends: what is typed, what is shown */

static void tear_down(void)
{
	driver_destroy(driver);
	event_loop_destroy(loop);
	driver = NULL;
	loop = NULL;
	fd_close(&host_in);
	fd_close(&host_out);
}

static void set_up(int in_fd, int out_fd)
{
	struct virtio_device *device;

	signal(SIGPIPE, SIG_IGN);
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	driver = driver_create(MIB(1), false);
	CHECK_EQ(virtio_console_create("console0", &in_fd, &out_fd, driver->memory, loop, &told.log, &device, NULL), 0);
	CHECK_EQ(in_fd, -1);
	CHECK_EQ(out_fd, -1);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	rx = &driver->queues[0];
	tx = &driver->queues[1];
}

static void set_up_pipes(void)
{
	int in[2], out[2];

	tear_down();
	CHECK_EQ(pipe(in), 0);
	CHECK_EQ(pipe(out), 0);
	host_in = in[1];
	host_out = out[0];
	CHECK(fcntl(host_out, F_SETPIPE_SZ, 4096) >= 4096);
	set_up(in[0], out[1]);
}

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 7 + at / 251);
}

/* Reads len bytes at most, waiting up to 5 s for the first. */
static size_t host_read(char *buf, size_t len)
{
	struct pollfd pollfd = {.fd = host_out, .events = POLLIN};
	ssize_t got;

	if (poll(&pollfd, 1, 5000) != 1)
		return 0;
	got = read(host_out, buf, len);
	return got > 0 ? (size_t)got : 0;
}

/* 400 KB go to a reader who takes odd amounts; chains have odd sizes too. */
static void show_a_lot(void)
{
	const size_t total = 400000;
	size_t sent = 0, seen = 0;
	uint64_t gpa[8];
	char buf[1777];
	uint16_t head;
	uint32_t len;

	for (unsigned int i = 0; i < 8; i++)
		gpa[i] = driver_alloc(driver, 5000, 1);
	while (seen < total) {
		for (unsigned int chain = 0; sent < total && chain < 8; chain++) {
			uint32_t size = (uint32_t)MIN(total - sent, 2 + sent % 4999);
			char *bytes = driver_at(driver, gpa[chain]);

			for (size_t i = 0; i < size; i++)
				bytes[i] = (char)pattern(sent + i);
			driver_add(tx, (struct driver_segment[]){{gpa[chain], size / 2},
				{gpa[chain] + size / 2, size - size / 2}}, 2, chain & 1);
			sent += size;
		}
		driver_kick(tx);
		while (seen < sent) {
			size_t got = host_read(buf, sizeof(buf));

			CHECK(got);
			for (size_t i = 0; i < got; i++, seen++)
				CHECK_EQ((uint8_t)buf[i], pattern(seen));
		}
		while (tx->free_count < tx->size)
			CHECK(driver_wait_used(tx, 5000, &head, &len));
	}
	CHECK_EQ(seen, total);
}

static void waits_for_a_slow_reader(void)
{
	set_up_pipes();
	show_a_lot();
	tear_down();
}

/* What is typed while the guest has no buffers stays with the host until it has. */
static void keeps_input_for_the_guest(void)
{
	const size_t total = 100000;
	size_t typed = 0, seen = 0;
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up_pipes();
	CHECK_EQ(fcntl(host_in, F_SETFL, O_NONBLOCK), 0);
	gpa = driver_alloc(driver, 64, 1);
	while (seen < total) {
		for (uint8_t byte = pattern(typed); typed < total && write(host_in, &byte, 1) == 1; byte = pattern(typed))
			typed++;
		driver_add(rx, (struct driver_segment[]){{gpa, 60, true}, {gpa + 60, 4, true}}, 2, false);
		driver_kick(rx);
		CHECK(driver_wait_used(rx, 5000, &head, &len));
		CHECK(len > 0 && len <= 64);
		for (uint32_t i = 0; i < len; i++, seen++)
			CHECK_EQ(((uint8_t *)driver_at(driver, gpa))[i], pattern(seen));
	}
	tear_down();
}

/* A buffer that waits is filled when something is typed. */
static void delivers_what_is_typed(void)
{
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up_pipes();
	gpa = driver_alloc(driver, 64, 1);
	for (unsigned int round = 0; round < 50; round++) {
		driver_add(rx, &(struct driver_segment){gpa, 64, true}, 1, false);
		driver_kick(rx);
		if (round % 2)
			driver_settle(loop);
		CHECK_EQ(write(host_in, "hello", 5), 5);
		CHECK(driver_wait_used(rx, 5000, &head, &len));
		CHECK_EQ(len, 5);
		CHECK_EQ(memcmp(driver_at(driver, gpa), "hello", 5), 0);
	}
	driver_add(rx, &(struct driver_segment){gpa, 64, true}, 1, false);
	driver_kick(rx);
	fd_close(&host_in); /* the end of the input fills no buffer */
	driver_settle(loop);
	CHECK(!driver_used(rx, &head, &len));
	tear_down();
}

static void show(const char *text)
{
	uint64_t gpa = driver_alloc(driver, strlen(text), 1);
	uint16_t head;
	uint32_t len;

	memcpy(driver_at(driver, gpa), text, strlen(text));
	driver_add(tx, &(struct driver_segment){gpa, (uint32_t)strlen(text)}, 1, false);
	driver_kick(tx);
	CHECK(driver_wait_used(tx, 5000, &head, &len));
}

static void move_to(int in_fd, int out_fd)
{
	struct driver_luggage luggage;
	struct virtio_device *device;

	driver_pack(driver, &luggage);
	CHECK_EQ(virtio_console_create("console0", &in_fd, &out_fd, driver->memory, loop, NULL, &device, NULL), 0);
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
}

/* A reader who has taken half of a buffer finds the other half at the guest's next console. */
static void goes_on_in_the_middle_of_a_buffer(void)
{
	const uint32_t total = 10000;
	uint64_t gpa;
	uint32_t seen = 0, len;
	uint16_t head;
	char buf[1000];
	int out[2];

	set_up_pipes();
	gpa = driver_alloc(driver, total, 1);
	for (uint32_t i = 0; i < total; i++)
		((uint8_t *)driver_at(driver, gpa))[i] = pattern(i);
	driver_add(tx, &(struct driver_segment){gpa, total}, 1, false);
	driver_kick(tx);
	driver_settle(loop);
	CHECK_EQ(pipe(out), 0);
	move_to(-1, out[1]);
	while (seen < total) {
		uint32_t got = (uint32_t)host_read(buf, sizeof(buf));

		if (!got && host_out != out[0]) { /* the first console is gone */
			CHECK(seen >= 4096);
			close(host_out);
			host_out = out[0];
			continue;
		}
		CHECK(got);
		for (uint32_t i = 0; i < got; i++, seen++)
			CHECK_EQ((uint8_t)buf[i], pattern(seen));
	}
	CHECK(driver_wait_used(tx, 5000, &head, &len));
	tear_down();
}

static int open_master(char *name, size_t size);

static void tells_of_another_terminal(void)
{
	const struct winsize size = {.ws_col = 132, .ws_row = 50};
	struct virtio_console_config config;
	char name[64];
	int master;

	set_up_pipes();
	driver->device->ops->config_read(driver->device, 0, &config, sizeof(config));
	move_to(-1, memfd_create("out", MFD_CLOEXEC));
	CHECK_EQ(driver->config_calls, 0);
	master = open_master(name, sizeof(name));
	CHECK_EQ(ioctl(master, TIOCSWINSZ, &size), 0);
	move_to(master, master);
	CHECK_EQ(driver->config_calls, 1);
	driver->device->ops->config_read(driver->device, 0, &config, sizeof(config));
	CHECK_EQ(config.cols, 132);
	tear_down();
}

/* The guest's driver waits for its buffers; it gets them though nobody reads, and what is lost is told. */
static void a_reader_that_does_not_read_is_not_waited_for(void)
{
	const char *text;
	char buf[8192];

	log_pipe_open(&told, LOG_WARN, NULL);
	set_up_pipes();
	for (unsigned int i = 0; i < 100; i++)
		show("0123456789");
	CHECK(host_read(buf, sizeof(buf)) < 1000);
	show("again");
	text = log_pipe_read(&told);
	CHECK(strstr(text, "console0: nobody reads the output; it is dropped until somebody does\n"));
	CHECK(strstr(text, "console0: the output goes on; "));
	tear_down();
	log_pipe_close(&told);
}

/* A file system that is full for a while. */
static void tells_what_a_full_file_has_not_got(void)
{
	struct rlimit found, full = {.rlim_cur = 3};
	int file = memfd_create("out", MFD_CLOEXEC);

	tear_down();
	signal(SIGXFSZ, SIG_IGN);
	log_pipe_open(&told, LOG_WARN, NULL);
	set_up(-1, dup(file));
	show("one");
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &found), 0);
	full.rlim_max = found.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
	show("lost");
	show("as well");
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &found), 0);
	show("two");
	CHECK_EQ(lseek(file, 0, SEEK_END), 6);
	CHECK_STR(log_pipe_read(&told), "warning: console0: output is lost: File too large\n"
		  "warning: console0: the output goes on; 11 bytes were dropped\n");
	tear_down();
	log_pipe_close(&told);
	close(file);
}

/* stdin and stdout are shared with the shell, which does not expect O_NONBLOCK. */
static void leaves_the_flags_of_descriptors_alone(void)
{
	int in[2], out[2];

	tear_down();
	CHECK_EQ(pipe(in), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, out), 0);
	host_in = in[1];
	host_out = out[0];
	set_up(dup(in[0]), dup(out[1]));
	show("shown");
	CHECK_EQ(fcntl(in[0], F_GETFL) & O_NONBLOCK, 0);
	CHECK_EQ(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
	tear_down();
	close(in[0]);
	close(out[1]);
}

static void loses_what_nobody_reads(void)
{
	set_up_pipes();
	fd_close(&host_out);
	for (unsigned int i = 0; i < 100; i++)
		show("into the void");
	tear_down();
}

static int open_master(char *name, size_t size)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

	CHECK(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0 && ptsname_r(fd, name, size) == 0);
	return fd;
}

static uint64_t cpu_ms(void)
{
	struct rusage usage;

	CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* A pty: output is lost until a client comes, and again when it has gone; both directions work in between. */
static void serves_a_pty(void)
{
	struct winsize size = {.ws_row = 50, .ws_col = 132};
	struct virtio_console_config config;
	char name[64], buf[64];
	struct termios termios;
	uint64_t gpa, before;
	uint16_t head;
	uint32_t len;
	int master;

	tear_down();
	master = open_master(name, sizeof(name));
	CHECK_EQ(ioctl(master, TIOCSWINSZ, &size), 0);
	set_up(master, master);
	CHECK(virtio_has(driver->device, VIRTIO_CONSOLE_F_SIZE));
	driver->device->ops->config_read(driver->device, 0, &config, sizeof(config));
	CHECK_EQ(config.cols, 132);
	CHECK_EQ(config.rows, 50);
	gpa = driver_alloc(driver, 64, 1);
	driver_add(rx, &(struct driver_segment){gpa, 64, true}, 1, false);
	driver_kick(rx);
	for (unsigned int round = 0; round < 2; round++) {
		show("lost");
		host_out = open(name, O_RDWR | O_NOCTTY);
		CHECK(host_out >= 0);
		CHECK_EQ(tcgetattr(host_out, &termios), 0);
		cfmakeraw(&termios);
		CHECK_EQ(tcsetattr(host_out, TCSANOW, &termios), 0);
		show("shown");
		CHECK_EQ(host_read(buf, sizeof(buf)), 5);
		CHECK_EQ(memcmp(buf, "shown", 5), 0);
		CHECK_EQ(write(host_out, "typed", 5), 5);
		CHECK(driver_wait_used(rx, 5000, &head, &len));
		CHECK_EQ(len, 5);
		CHECK_EQ(memcmp(driver_at(driver, gpa), "typed", 5), 0);
		driver_add(rx, &(struct driver_segment){gpa, 64, true}, 1, false);
		driver_kick(rx);
		show_a_lot();
		fd_close(&host_out);
		driver_settle(loop);
	}
	before = cpu_ms();
	usleep(100000); /* a pty without a client is hung up all the time, which must not keep the loop busy */
	CHECK(cpu_ms() - before < 50);
	tear_down();
}

static void writes_to_a_file(void)
{
	int file = memfd_create("out", MFD_CLOEXEC);
	char buf[32] = "";

	tear_down();
	CHECK(file >= 0);
	set_up(-1, dup(file));
	CHECK(virtio_has(driver->device, VIRTIO_CONSOLE_F_SIZE)); /* for when it has moved to a terminal */
	driver->device->ops->config_read(driver->device, 0, buf, 4);
	CHECK_EQ(get_le32(buf), 0);
	show("one ");
	show("two");
	CHECK(virtio_has(driver->device, VIRTIO_CONSOLE_F_EMERG_WRITE));
	driver->device->ops->config_write(driver->device, 8, "!", 1);
	driver->device->ops->config_write(driver->device, 8, "?\0\0\0", 4);
	driver->device->ops->config_write(driver->device, 0, "xxxx", 4);
	CHECK_EQ(pread(file, buf, sizeof(buf), 0), 9);
	CHECK_STR(buf, "one two!?");
	close(file);
	tear_down();
}

/* A full pipe, then a drain and a resume in the middle of a chain: each byte once. */
static void goes_on_after_a_pause(void)
{
	const uint32_t total = 60000;
	uint64_t gpa;
	uint16_t head;
	uint32_t len;
	size_t seen = 0;
	char buf[4096];

	set_up_pipes();
	gpa = driver_alloc(driver, total, 1);
	for (uint32_t i = 0; i < total; i++)
		((uint8_t *)driver_at(driver, gpa))[i] = pattern(i);
	driver_add(tx, &(struct driver_segment){gpa, total}, 1, false);
	driver_kick(tx);
	driver_settle(loop);
	while (seen < total) {
		size_t got;

		driver->device->ops->drain(driver->device, VIRTIO_NO_DEADLINE, NULL);
		got = host_read(buf, sizeof(buf));
		driver_settle(loop); /* the event that the pipe has room comes while nobody may act on it */
		for (size_t i = 0; i < got; i++, seen++)
			CHECK_EQ((uint8_t)buf[i], pattern(seen));
		CHECK(got);
		driver->device->ops->resume(driver->device);
		driver_settle(loop);
	}
	CHECK(driver_wait_used(tx, 5000, &head, &len));
	tear_down();
}

/* A chain that is half out when the guest resets the device takes nothing from the next one. */
static void starts_afresh_after_a_reset(void)
{
	char buf[8192];
	uint64_t gpa;

	set_up_pipes();
	gpa = driver_alloc(driver, KIB(64), 1);
	driver_add(tx, &(struct driver_segment){gpa, KIB(64)}, 1, false);
	driver_kick(tx);
	driver_settle(loop);
	driver_reset(driver);
	CHECK_EQ(driver_start(driver, 0), 0);
	CHECK_EQ(host_read(buf, sizeof(buf)), 4096);
	show("fresh");
	CHECK_EQ(host_read(buf, sizeof(buf)), 5);
	tear_down();
}

TEST_MAIN(TEST(waits_for_a_slow_reader), TEST(keeps_input_for_the_guest), TEST(delivers_what_is_typed),
	  TEST(loses_what_nobody_reads), TEST(a_reader_that_does_not_read_is_not_waited_for),
	  TEST(leaves_the_flags_of_descriptors_alone), TEST(tells_what_a_full_file_has_not_got), TEST(serves_a_pty), TEST(writes_to_a_file), TEST(goes_on_after_a_pause),
	  TEST(starts_afresh_after_a_reset),
	  TEST(goes_on_in_the_middle_of_a_buffer), TEST(tells_of_another_terminal))
