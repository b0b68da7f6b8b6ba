/* SPDX-License-Identifier: Apache-2.0 */
/* See serial_rig.h. */
#include "tests/unit/serial_rig.h"

struct serial_bench t;
struct log *told;

static void set_line(struct irq_line *line, bool level)
{
	__atomic_add_fetch(&t.rises, level && !t.high, __ATOMIC_ACQ_REL);
	__atomic_store_n(&t.high, level, __ATOMIC_RELEASE);
}

static const struct irq_line_ops line_ops = {.set = set_line};

void open_serial(int in_fd, int out_fd)
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

void close_serial(void)
{
	event_loop_call(t.loop, destroy, NULL);
	CHECK(!bus_read(t.pio, PORT, (uint8_t[1]){0}, 1));
	event_loop_destroy(t.loop);
	bus_destroy(t.pio);
}

uint8_t in(unsigned int reg)
{
	uint8_t value;

	CHECK(bus_read(t.pio, PORT + reg, &value, 1));
	return value;
}

void out(unsigned int reg, uint8_t value)
{
	CHECK(bus_write(t.pio, PORT + reg, &value, 1));
}

void print(const char *text)
{
	for (; *text; text++)
		out(UART_TX, (uint8_t)*text);
}

void sleep_ms(unsigned int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l}, NULL);
}
