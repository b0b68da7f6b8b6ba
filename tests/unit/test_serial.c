/* SPDX-License-Identifier: Apache-2.0 */
/* devices/serial: register sequences as drivers use them, output that is slow or gone, input from all sides. */
#include "core/token_bucket.h"
#include "devices/platform.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PORT 0x3f8

static struct {
	struct bus *pio;
	struct event_loop *loop;
	struct serial *serial;
	struct irq_line line;
	bool high;
	unsigned int rises;
} t;

static void set_line(struct irq_line *line, bool level)
{
	__atomic_add_fetch(&t.rises, level && !t.high, __ATOMIC_ACQ_REL);
	__atomic_store_n(&t.high, level, __ATOMIC_RELEASE);
}

static const struct irq_line_ops line_ops = {.set = set_line};

/* A descriptor that takes everything; the guest prints a byte for each write to it, so many times. */
static int greedy_fd = -1;
static unsigned int greedy_left;

static void out(unsigned int reg, uint8_t value);

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

static struct log *told; /* NULL: nothing is logged */

static void open_serial(int in_fd, int out_fd)
{
	memset(&t, 0, sizeof(t));
	t.pio = bus_create();
	t.line.ops = &line_ops;
	CHECK_EQ(event_loop_create(&t.loop, NULL), 0);
	CHECK_EQ(serial_create(t.pio, PORT, &t.line, in_fd, out_fd, t.loop, told, &t.serial, NULL), 0);
}

static void destroy(void *opaque)
{
	serial_destroy(t.serial);
	serial_destroy(NULL);
}

static void close_serial(void)
{
	event_loop_call(t.loop, destroy, NULL);
	CHECK(!bus_read(t.pio, PORT, (uint8_t[1]){0}, 1));
	event_loop_destroy(t.loop);
	bus_destroy(t.pio);
}

static uint8_t in(unsigned int reg)
{
	uint8_t value;

	CHECK(bus_read(t.pio, PORT + reg, &value, 1));
	return value;
}

static void out(unsigned int reg, uint8_t value)
{
	CHECK(bus_write(t.pio, PORT + reg, &value, 1));
}

static void print(const char *text)
{
	for (; *text; text++)
		out(UART_TX, (uint8_t)*text);
}

static void sleep_ms(unsigned int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l}, NULL);
}

/* An edge of the interrupt line after the first `seen` ones. */
static bool wait_for_edge(unsigned int seen)
{
	for (unsigned int i = 0; i < 50000 && __atomic_load_n(&t.rises, __ATOMIC_ACQUIRE) == seen; i++)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	return __atomic_load_n(&t.rises, __ATOMIC_ACQUIRE) != seen;
}

static unsigned int drain(uint8_t *to, unsigned int max)
{
	unsigned int count = 0;

	for (unsigned int idle = 0; idle < 50000 && count < max; idle++) {
		for (; count < max && in(UART_LSR) & UART_LSR_DR; count++, idle = 0)
			to[count] = in(UART_RX);
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	}
	return count;
}

static void wait_for_line(void)
{
	for (unsigned int i = 0; i < 5000 && !__atomic_load_n(&t.high, __ATOMIC_ACQUIRE); i++)
		sleep_ms(1);
	CHECK(t.high);
}

static void flush_call(void *opaque)
{
	serial_flush(t.serial);
}

/* One step of a driver: write a register, read and compare one, or look at the line. */
struct step {
	enum { OUT, IN, LINE, FEED } what;
	uint8_t reg, value, mask; /* mask 0: all bits */
};

static void run(const struct step *steps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct step *s = &steps[i];
		uint8_t value, mask = s->mask ?: 0xff;

		if (s->what == OUT) {
			out(s->reg, s->value);
		} else if (s->what == FEED) {
			serial_feed(t.serial, &s->value, 1);
		} else {
			value = s->what == IN ? in(s->reg) & mask : t.high;
			if (value != s->value)
				printf("# step %zu\n", i);
			CHECK_EQ(value, s->value);
		}
	}
}

#define RUN(steps) run(steps, ARRAY_SIZE(steps))

static void powers_on(void)
{
	static const struct step steps[] = {
		{IN, UART_RX, 0},       {IN, UART_IER, 0},    {IN, UART_IIR, 1}, {IN, UART_LCR, 0},
		{IN, UART_MCR, 0},      {IN, UART_LSR, 0x60}, {IN, UART_MSR, 0xb0}, {IN, UART_SCR, 0},
		{LINE, 0, 0},           {OUT, UART_LCR, 0x80}, {IN, UART_DLL, 12}, {IN, UART_DLM, 0},
		{OUT, UART_DLL, 1},     {OUT, UART_DLM, 2},   {IN, UART_DLL, 1},
		{IN, UART_DLM, 2},      {OUT, UART_LCR, 3},   {IN, UART_LCR, 3}, {IN, UART_IER, 0},
		{OUT, UART_SCR, 0xa5},  {IN, UART_SCR, 0xa5}, {OUT, UART_LSR, 0}, {OUT, UART_MSR, 0},
		{IN, UART_LSR, 0x60},
	};
	static const struct step after[] = {
		{IN, UART_LCR, 0}, {IN, UART_SCR, 0}, {OUT, UART_LCR, 0x80}, {IN, UART_DLL, 12}, {IN, UART_DLM, 0},
	};

	open_serial(-1, -1);
	RUN(steps);
	serial_reset(t.serial);
	RUN(after);
	close_serial();
}

/* What Linux's 8250 driver does to find out what it has, in this order. */
static void is_found_as_a_16550a(void)
{
	static const struct step steps[] = {
		{OUT, UART_IER, 0},        {IN, UART_IER, 0, 0x0f},        {OUT, UART_IER, 0x0f},
		{IN, UART_IER, 0x0f, 0x0f}, {OUT, UART_IER, 0},
		/* loopback: RTS and OUT2 show as CTS and DCD */
		{OUT, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS}, {IN, UART_MSR, 0x90, 0xf0},
		{OUT, UART_MCR, 0},
		/* FIFO: a 16550A, not a 16550, and nothing newer */
		{OUT, UART_LCR, 0},        {OUT, UART_FCR, 1},             {IN, UART_IIR, 0xc0, 0xe0},
		{OUT, UART_LCR, 0xbf},     {IN, UART_IIR, 0xc1},           {OUT, UART_LCR, 0},
		{OUT, UART_FCR, 0x21},     {IN, UART_IIR, 0xc0, 0xe0},     {OUT, UART_FCR, 1},
		{OUT, UART_IER, 0x40},     {IN, UART_IER, 0},
		/* the test for a lost transmitter interrupt */
		{OUT, UART_IER, UART_IER_THRI}, {IN, UART_IIR, 0xc2},      {IN, UART_IIR, 0xc1},
		{OUT, UART_IER, 0},        {OUT, UART_IER, UART_IER_THRI}, {LINE, 0, 1},
		{IN, UART_IIR, 0xc2},      {LINE, 0, 0},                   {OUT, UART_FCR, 0},
		{IN, UART_IIR, 1},
	};

	open_serial(-1, -1);
	RUN(steps);
	close_serial();
}

static void tells_when_it_has_sent(void)
{
	static const struct step steps[] = {
		{OUT, UART_TX, 'a'},  {LINE, 0, 0},           {OUT, UART_IER, UART_IER_THRI}, {LINE, 0, 1},
		{OUT, UART_TX, 'b'},  {LINE, 0, 1},           {IN, UART_LSR, 0x60},           {LINE, 0, 1},
		{IN, UART_IIR, 2},    {LINE, 0, 0},           {OUT, UART_TX, 'c'},            {LINE, 0, 1},
		{OUT, UART_IER, 0},   {LINE, 0, 0},           {IN, UART_IIR, 1},
		{OUT, UART_IER, UART_IER_THRI}, {IN, UART_IIR, 2}, {OUT, UART_IER, UART_IER_THRI}, {LINE, 0, 0},
	};

	open_serial(-1, -1);
	RUN(steps);
	CHECK_EQ(t.rises, 3);
	close_serial();
}

static void ranks_interrupts(void)
{
	static const struct step steps[] = {
		{OUT, UART_MCR, UART_MCR_LOOP}, {IN, UART_MSR, 0x0b},
		/* overrun, data, transmitter and modem all at once, without a FIFO */
		{OUT, UART_IER, 0x0f},    {OUT, UART_TX, 'a'},  {OUT, UART_TX, 'b'},
		{OUT, UART_MCR, UART_MCR_LOOP | UART_MCR_DTR},  {LINE, 0, 1},
		{IN, UART_IIR, 6},        {IN, UART_IIR, 6},    {IN, UART_LSR, 0x63},
		{IN, UART_IIR, 4},        {IN, UART_LSR, 0x61}, {IN, UART_RX, 'b'},
		{IN, UART_IIR, 2},        {IN, UART_IIR, 0},    {IN, UART_IIR, 0},
		{IN, UART_MSR, 0x22},     {IN, UART_IIR, 1},    {LINE, 0, 0},
		/* the ring indicator counts when it ends */
		{OUT, UART_MCR, UART_MCR_LOOP | UART_MCR_DTR | UART_MCR_OUT1}, {LINE, 0, 0}, {IN, UART_MSR, 0x60},
		{OUT, UART_MCR, UART_MCR_LOOP | UART_MCR_DTR},  {LINE, 0, 1}, {IN, UART_MSR, 0x24}, {LINE, 0, 0},
	};

	open_serial(-1, -1);
	RUN(steps);
	close_serial();
}

static void loops_back(void)
{
	int fd = memfd_create("out", MFD_CLOEXEC);
	static const struct step before[] = {{OUT, UART_FCR, 0x81}, {OUT, UART_MCR, UART_MCR_LOOP}};
	static const struct step after[] = {
		{IN, UART_LSR, 0x63}, {IN, UART_LSR, 0x61}, {IN, UART_RX, 0},  {IN, UART_RX, 1},
		{OUT, UART_FCR, 0x83}, {IN, UART_LSR, 0x60}, {OUT, UART_TX, 7}, {OUT, UART_MCR, 0},
		{IN, UART_LSR, 0x60}, {OUT, UART_MCR, UART_MCR_LOOP}, {IN, UART_LSR, 0x60},
	};

	open_serial(-1, fd);
	RUN(before);
	serial_feed(t.serial, "typed", 5);
	CHECK_EQ(in(UART_LSR), 0x60);
	for (unsigned int i = 0; i < 20; i++)
		out(UART_TX, (uint8_t)i);
	RUN(after);
	close_serial();
	CHECK_EQ(lseek(fd, 0, SEEK_END), 0);
	close(fd);
}

static void receives(void)
{
	static const struct step steps[] = {
		{FEED, 0, 'a'},        {IN, UART_LSR, 0x61}, {LINE, 0, 0},           {OUT, UART_IER, UART_IER_RDI},
		{LINE, 0, 1},          {IN, UART_IIR, 4},    {FEED, 0, 'b'},         {IN, UART_RX, 'a'},
		{LINE, 0, 0},          {IN, UART_RX, 0},     {IN, UART_LSR, 0x60},
	};
	static const struct step next[] = {
		{IN, UART_IIR, 4},     {IN, UART_RX, 'b'},   {LINE, 0, 0},           {IN, UART_RX, 0},
		{OUT, UART_FCR, 0x41}, /* a FIFO with a trigger level of 4, and input held off for a moment */
	};
	static const struct step later[] = {
		{IN, UART_IIR, 0xcc}, {FEED, 0, '2'}, {FEED, 0, '3'},
		{IN, UART_IIR, 0xcc}, {FEED, 0, '4'}, {IN, UART_IIR, 0xc4}, {IN, UART_RX, '1'}, {LINE, 0, 0},
		{IN, UART_IIR, 0xc1}, {IN, UART_LSR, 0x61},
	};
	static const struct step timed_out[] = {
		{IN, UART_IIR, 0xcc}, {IN, UART_RX, '2'}, {IN, UART_RX, '3'}, {IN, UART_RX, '4'}, {LINE, 0, 0},
		{IN, UART_IIR, 0xc1},
	};

	open_serial(-1, -1);
	RUN(steps);
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	wait_for_line();
	RUN(next);
	serial_feed(t.serial, "1", 1);
	wait_for_line();
	RUN(later);
	wait_for_line();
	RUN(timed_out);
	close_serial();
}

/*
 * The interrupt is edge-triggered. However few bytes a driver takes from the port in one of its turns, and though it
 * looks only when there is an edge, it gets all of them.
 */
static void every_driver_gets_all_of_the_input(void)
{
	static const unsigned int limits[] = {1, 5, 16, 100};
	uint8_t sent[400], got[sizeof(sent)];

	for (unsigned int i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + i / 100);
	for (unsigned int l = 0; l < ARRAY_SIZE(limits); l++) {
		unsigned int count = 0, edges = 0;

		open_serial(-1, -1);
		CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
		out(UART_FCR, 0x81);
		out(UART_IER, UART_IER_RDI);
		serial_feed(t.serial, sent, sizeof(sent));
		while (count < sizeof(sent) && wait_for_edge(edges)) {
			edges = __atomic_load_n(&t.rises, __ATOMIC_ACQUIRE);
			for (unsigned int i = 0; i < limits[l] && in(UART_LSR) & UART_LSR_DR && count < sizeof(sent); i++)
				got[count++] = in(UART_RX);
		}
		CHECK_EQ(count, sizeof(sent));
		CHECK_EQ(memcmp(got, sent, sizeof(sent)), 0);
		close_serial();
	}
}

/* Linux reads without a pause for 512 turns: the line must have fallen before. */
static void the_line_falls_when_the_fifo_is_empty(void)
{
	unsigned int count = 0;

	open_serial(-1, -1);
	out(UART_FCR, 0x81);
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	out(UART_IER, UART_IER_RDI);
	for (unsigned int i = 0; i < 100; i++)
		serial_feed(t.serial, "x", 1);
	wait_for_line();
	for (; t.high; count++)
		in(UART_RX);
	CHECK(count <= 16);
	close_serial();
}

/* What was typed before the driver started is not lost to its clearing of the receiver. */
static void keeps_what_came_early(void)
{
	static const struct step start[] = {
		{OUT, UART_FCR, 1}, {OUT, UART_FCR, 7}, {OUT, UART_FCR, 0}, {IN, UART_LSR, 0x60},
		{IN, UART_RX, 0},   {IN, UART_RX, 0},   {OUT, UART_FCR, 1}, {OUT, UART_IER, UART_IER_RDI},
		{LINE, 0, 0},
	};
	char got[64] = "";

	open_serial(-1, -1);
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	serial_feed(t.serial, "echo hello to the guest\n", 24);
	RUN(start);
	wait_for_line();
	CHECK_EQ(drain((uint8_t *)got, 24), 24);
	CHECK_STR(got, "echo hello to the guest\n");
	close_serial();
}

static void takes_no_more_than_fits(void)
{
	uint8_t big[8192], got[4096];

	open_serial(-1, -1);
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	out(UART_FCR, 1);
	for (unsigned int i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7);
	serial_feed(t.serial, big, sizeof(big));
	CHECK_EQ(drain(got, sizeof(got)), sizeof(got));
	CHECK_EQ(memcmp(got, big, sizeof(got)), 0);
	sleep_ms(2);
	CHECK_EQ(in(UART_LSR) & UART_LSR_DR, 0);
	close_serial();
}

static void any_access_is_harmless(void)
{
	uint8_t data[8];

	open_serial(-1, -1);
	for (unsigned int len = 1; len <= 8; len *= 2)
		for (unsigned int at = 0; at + len <= 8; at++) {
			memset(data, (int)(at * 37 + len), sizeof(data));
			CHECK(bus_write(t.pio, PORT + at, data, len));
			CHECK(bus_read(t.pio, PORT + at, data, len));
		}
	close_serial();
}

/* ---- output ---- */

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

static int telling[2];

static void begin_telling(struct log *log)
{
	CHECK_EQ(pipe2(telling, O_CLOEXEC | O_NONBLOCK), 0);
	*log = (struct log){.fd = telling[1], .level = LOG_INFO};
	told = log;
}

static const char *end_telling(void)
{
	static char text[2000];
	ssize_t n = read(telling[0], text, sizeof(text) - 1);

	text[MAX(n, 0)] = 0;
	close(telling[0]);
	close(telling[1]);
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
	struct log log;
	void *total;
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK(fcntl(fds[1], F_SETPIPE_SZ, 4096) >= 4096);
	begin_telling(&log);
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
	struct log log;
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(fcntl(fds[1], F_SETPIPE_SZ, 4096), 4096);
	begin_telling(&log);
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
	struct log log;

	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &found), 0);
	full.rlim_max = found.rlim_max;
	begin_telling(&log);
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

/* ---- input ---- */

static void reads_pipes_and_files_to_their_end(void)
{
	static uint8_t sent[30000], got[30000];
	int fds[2], file = memfd_create("in", MFD_CLOEXEC);

	for (unsigned int i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 31 >> 3);
	CHECK_EQ(write(file, sent, sizeof(sent)), sizeof(sent));
	lseek(file, 0, SEEK_SET);
	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(write(fds[1], sent, sizeof(sent)), sizeof(sent));
	close(fds[1]);
	for (unsigned int kind = 0; kind < 2; kind++) {
		open_serial(kind ? file : fds[0], -1);
		out(UART_FCR, 1);
		CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
		memset(got, 0, sizeof(got));
		CHECK_EQ(drain(got, sizeof(sent)), sizeof(sent));
		CHECK_EQ(in(UART_LSR) & UART_LSR_DR, 0);
		CHECK_EQ(memcmp(got, sent, sizeof(sent)), 0);
		close_serial();
	}
	close(fds[0]);
	close(file);
}

static uint64_t cpu_ms(void)
{
	struct rusage usage;

	CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* A client has left more than the guest reads: this costs nothing, and the guest still gets it. */
static void a_client_may_leave_early(void)
{
	static uint8_t sent[20000], got[20000];
	uint64_t before;
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	CHECK_EQ(write(ends[0], sent, sizeof(sent)), sizeof(sent));
	close(ends[0]);
	open_serial(ends[1], ends[1]);
	out(UART_FCR, 1);
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	sleep_ms(50);
	before = cpu_ms();
	sleep_ms(100);
	CHECK(cpu_ms() - before < 5);
	CHECK_EQ(drain(got, sizeof(got)), sizeof(got));
	close_serial();
	close(ends[1]);
}

static void set_in(void *opaque)
{
	serial_set_fds(t.serial, *(int *)opaque, -1);
}

static void changes_clients(void)
{
	int a[2], b[2];
	uint8_t got[16];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
	open_serial(a[1], a[1]); /* one descriptor both ways */
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	print("to a");
	CHECK_EQ(write(a[0], "from a", 6), 6);
	CHECK_EQ(drain(got, 6), 6);
	CHECK(read(a[0], got, sizeof(got)) > 0);
	event_loop_call(t.loop, set_in, &b[1]);
	CHECK_EQ(write(a[0], "no", 2), 2);
	CHECK_EQ(write(b[0], "from b", 6), 6);
	CHECK_EQ(drain(got, 6), 6);
	CHECK_EQ(memcmp(got, "from b", 6), 0);
	close_serial();
	for (unsigned int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
}

static void needs_its_ports(void)
{
	struct serial *second;

	open_serial(-1, -1);
	CHECK_EQ(serial_create(t.pio, PORT + 4, &t.line, -1, -1, t.loop, NULL, &second, NULL), -EEXIST);
	close_serial();
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

TEST_MAIN(TEST(powers_on), TEST(is_found_as_a_16550a), TEST(tells_when_it_has_sent), TEST(ranks_interrupts),
	  TEST(loops_back), TEST(receives), TEST(every_driver_gets_all_of_the_input),
	  TEST(the_line_falls_when_the_fifo_is_empty), TEST(the_end_waits_for_a_reader),
	  TEST(the_end_tells_what_is_lost), TEST(a_full_file_is_tried_again), TEST(a_client_may_leave_early),
	  TEST(keeps_what_came_early), TEST(takes_no_more_than_fits),
	  TEST(any_access_is_harmless), TEST(writes_bursts_in_one_piece), TEST(slow_readers_lose_only_the_end),
	  TEST(a_guest_that_prints_for_ever_leaves_the_loop_time),
	  TEST(blocking_pipes_do_not_block), TEST(survives_readers_that_go), TEST(reads_pipes_and_files_to_their_end),
	  TEST(changes_clients), TEST(needs_its_ports), TEST(a_limit_holds_output_back))
