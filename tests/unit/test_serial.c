/* SPDX-License-Identifier: Apache-2.0 */
/* devices/serial: register sequences as drivers use them, and input from all sides. */
#include "tests/unit/serial_rig.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

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

TEST_MAIN(TEST(powers_on), TEST(is_found_as_a_16550a), TEST(tells_when_it_has_sent), TEST(ranks_interrupts),
	  TEST(loops_back), TEST(receives), TEST(every_driver_gets_all_of_the_input),
	  TEST(the_line_falls_when_the_fifo_is_empty), TEST(a_client_may_leave_early), TEST(keeps_what_came_early),
	  TEST(takes_no_more_than_fits), TEST(any_access_is_harmless), TEST(reads_pipes_and_files_to_their_end),
	  TEST(changes_clients), TEST(needs_its_ports))
