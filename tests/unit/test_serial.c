/* SPDX-License-Identifier: Apache-2.0 */
/* devices/serial: register sequences as drivers use them, output that is slow or gone, input from all sides. */
#include "devices/platform.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <linux/serial_reg.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

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
	t.rises += level && !t.high;
	__atomic_store_n(&t.high, level, __ATOMIC_RELEASE);
}

static const struct irq_line_ops line_ops = {.set = set_line};

static void open_serial(int in_fd, int out_fd)
{
	memset(&t, 0, sizeof(t));
	t.pio = bus_create();
	t.line.ops = &line_ops;
	CHECK_EQ(event_loop_create(&t.loop, NULL), 0);
	CHECK_EQ(serial_create(t.pio, PORT, &t.line, in_fd, out_fd, t.loop, NULL, &t.serial, NULL), 0);
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
		{LINE, 0, 1},          {IN, UART_RX, 'b'},   {LINE, 0, 0},           {IN, UART_RX, 0},
		{OUT, UART_FCR, 0x41}, /* a FIFO with a trigger level of 4, and input held off for a moment */
	};
	static const struct step later[] = {
		{IN, UART_IIR, 0xcc}, {FEED, 0, '2'}, {FEED, 0, '3'},
		{IN, UART_IIR, 0xcc}, {FEED, 0, '4'}, {IN, UART_IIR, 0xc4}, {IN, UART_RX, '1'}, {IN, UART_IIR, 0xcc},
		{IN, UART_RX, '2'}, {IN, UART_RX, '3'}, {IN, UART_RX, '4'}, {LINE, 0, 0}, {IN, UART_IIR, 0xc1},
	};

	open_serial(-1, -1);
	RUN(steps);
	CHECK_EQ(event_loop_start(t.loop, "serial", NULL), 0);
	serial_feed(t.serial, "1", 1);
	wait_for_line();
	RUN(later);
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
	for (unsigned int i = 0; in(UART_LSR) & UART_LSR_DR; i++)
		got[i] = (char)in(UART_RX);
	CHECK_STR(got, "echo hello to the guest\n");
	close_serial();
}

static void takes_no_more_than_fits(void)
{
	uint8_t big[8192];
	unsigned int count = 0;

	open_serial(-1, -1);
	for (unsigned int i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7);
	serial_feed(t.serial, big, sizeof(big));
	for (; in(UART_LSR) & UART_LSR_DR; count++)
		CHECK_EQ(in(UART_RX), big[count]);
	CHECK_EQ(count, 4096);
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

static unsigned int drain(uint8_t *to, unsigned int max)
{
	unsigned int count = 0;

	for (unsigned int idle = 0; idle < 5000 && count < max; idle++) {
		for (; count < max && in(UART_LSR) & UART_LSR_DR; count++, idle = 0)
			to[count] = in(UART_RX);
		sleep_ms(1);
	}
	return count;
}

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

TEST_MAIN(TEST(powers_on), TEST(is_found_as_a_16550a), TEST(tells_when_it_has_sent), TEST(ranks_interrupts),
	  TEST(loops_back), TEST(receives), TEST(keeps_what_came_early), TEST(takes_no_more_than_fits),
	  TEST(any_access_is_harmless), TEST(writes_bursts_in_one_piece), TEST(slow_readers_lose_only_the_end),
	  TEST(blocking_pipes_do_not_block), TEST(survives_readers_that_go), TEST(reads_pipes_and_files_to_their_end),
	  TEST(changes_clients), TEST(needs_its_ports))
