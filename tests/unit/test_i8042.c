/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/i8042: what Linux's driver asks of it on its way up, the ways to a reset, the three keys in both sets of codes, and its
 * state.
 */
#include "devices/platform.h"
#include "tests/unit/state_subject.h"
#include "tests/unit/test.h"

#include <stdlib.h>

static struct bus *pio;
static struct i8042 *i8042;
static struct irq_line line;
static unsigned int edges, resets;

static void set(struct irq_line *irq, bool level)
{
	edges += level && !irq->level;
	irq->level = level;
}

static void on_reset(void *opaque)
{
	resets++;
}

static const struct irq_line_ops line_ops = {.set = set};

static void begin(void)
{
	const struct i8042_config config = {.irq = &line, .reset = on_reset};
	struct i8042_config here = config;

	i8042_destroy(i8042);
	bus_destroy(pio);
	pio = here.pio = bus_create();
	line = (struct irq_line){.ops = &line_ops};
	edges = resets = 0;
	CHECK_EQ(i8042_create(&here, &i8042, NULL), 0);
}

static uint8_t in(uint16_t port)
{
	uint8_t value;

	CHECK(bus_read(pio, port, &value, 1));
	return value;
}

static void out(uint16_t port, uint8_t value)
{
	CHECK(bus_write(pio, port, &value, 1));
}

/* The next byte, which stands there. */
static uint8_t take(void)
{
	CHECK(in(0x64) & 1);
	return in(0x60);
}

static void takes(const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		CHECK_EQ(take(), bytes[i]);
	CHECK(!(in(0x64) & 1));
}
#define TAKES(...) takes((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* drivers/input/serio/i8042.c, without words on the command line */
static void linux_finds_a_keyboard_alone(void)
{
	begin();
	CHECK(!(in(0x64) & 1));
	CHECK(in(0x64) & 0x10); /* not locked */
	out(0x64, 0x20);
	CHECK_EQ(take(), 0x04); /* codes are not translated */
	out(0x64, 0x60);
	out(0x60, 0x14);
	out(0x64, 0x20);
	CHECK_EQ(take(), 0x14);
	out(0x64, 0xaa);
	CHECK_EQ(take(), 0x55);
	out(0x64, 0xd3); /* an auxiliary port would send it back as its own */
	out(0x60, 0x5a);
	CHECK_EQ(in(0x64) & 0x21, 1);
	CHECK_EQ(take(), 0x5a);
	out(0x64, 0xa9);
	CHECK_EQ(take(), 1);
	out(0x64, 0xab);
	CHECK_EQ(take(), 0);
	out(0x64, 0x60);
	out(0x60, 0x05);
	out(0x60, 0xf2);
	TAKES(0xfa, 0xab, 0x83);
	out(0x60, 0xed);
	TAKES(0xfa);
	out(0x60, 0x07);
	TAKES(0xfa);
	out(0x60, 0xf0);
	TAKES(0xfa);
	out(0x60, 0);
	TAKES(0xfa, 2);
	out(0x60, 0xff);
	TAKES(0xfa, 0xaa);
	out(0x60, 0xee);
	TAKES(0xee);
	out(0x60, 0x99);
	TAKES(0xfe);
	CHECK_EQ(resets, 0);
}

static void guests_reset_by_it(void)
{
	begin();
	out(0x64, 0xfe);
	CHECK_EQ(resets, 1);
	out(0x64, 0xf0);
	CHECK_EQ(resets, 2);
	out(0x64, 0xff); /* pulses nothing */
	out(0x64, 0xd1);
	out(0x60, 0x03);
	CHECK_EQ(resets, 2);
	out(0x64, 0xd1);
	out(0x60, 0x02);
	CHECK_EQ(resets, 3);
	out(0x60, 0xfe); /* not a command */
	CHECK_EQ(resets, 3);
	out(0x64, 0xd0);
	CHECK_EQ(take() & 3, 3);
}

static void presses_three_keys(void)
{
	begin();
	CHECK(!i8042_ctrl_alt_del(i8042)); /* nobody listens */
	CHECK(i8042_is_new(i8042));
	out(0x64, 0x60);
	out(0x60, 0x05);
	CHECK(!i8042_is_new(i8042));
	edges = 0;
	CHECK(i8042_ctrl_alt_del(i8042));
	CHECK(line.level);
	TAKES(0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14);
	CHECK_EQ(edges, 11); /* one each */
	CHECK(!line.level);
	out(0x64, 0x60);
	out(0x60, 0x45); /* translated */
	CHECK(i8042_ctrl_alt_del(i8042));
	TAKES(0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d);
	out(0x60, 0xf5); /* it does not scan */
	TAKES(0xfa);
	CHECK(!i8042_ctrl_alt_del(i8042));
	out(0x60, 0xf4);
	TAKES(0xfa);
	out(0x64, 0xad);
	CHECK(!i8042_ctrl_alt_del(i8042));
}

static void keys_wait_while_the_keyboard_is_disabled(void)
{
	begin();
	out(0x64, 0x60);
	out(0x60, 0x05);
	CHECK(i8042_ctrl_alt_del(i8042));
	out(0x64, 0xad);
	CHECK(!(in(0x64) & 1) && !line.level);
	out(0x64, 0x20); /* answers come nevertheless, and before them */
	CHECK_EQ(take(), 0x15);
	out(0x64, 0xae);
	CHECK(line.level);
	CHECK_EQ(take(), 0x14);
	CHECK(i8042_ctrl_alt_del(i8042)); /* what does not fit is lost as a whole */
	for (unsigned int i = 1; i < 11; i++)
		take();
	CHECK(!(in(0x64) & 1));
	for (unsigned int i = 0; i < 1000; i++)
		out(0x60, 0xee);
	for (unsigned int i = 0; i < 16; i++)
		CHECK_EQ(take(), 0xee);
	CHECK(!(in(0x64) & 1));
	CHECK_EQ(in(0x60), 0xee); /* the last one, again */
}

/* ---- state ---- */

static void *make(void)
{
	begin();
	return i8042;
}

static int save(void *object, struct state_buffer *to, struct err *err)
{
	return state_save(&i8042_state, i8042, to, err);
}

static int load(void *object, const void *data, size_t len, struct err *err)
{
	return state_load(&i8042_state, i8042, data, len, err);
}

static void use(void *object)
{
	i8042_ctrl_alt_del(i8042);
	for (unsigned int value = 0; value < 256; value++) {
		out(0x64, (uint8_t)value);
		out(0x60, (uint8_t)value);
		in(0x64);
		in(0x60);
	}
}

static void drop(void *object)
{
}

static const struct state_subject subject = {make, save, load, use, drop};

static void goes_on_where_it_was(void)
{
	begin();
	out(0x64, 0x60);
	out(0x60, 0x05);
	i8042_ctrl_alt_del(i8042);
	take();
	out(0x60, 0xed);
	out(0x64, 0xd3);
	subject_comes_back(&subject, i8042);
	CHECK(line.level);
	CHECK_EQ(in(0x64) & 0x08, 0x08);
	out(0x60, 0x77); /* of the command that waited */
	CHECK_EQ(take(), 0x77);
	out(0x60, 0x02); /* and of that of the keyboard */
	TAKES(0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14, 0xfa, 0xfa);
	begin();
	CHECK(i8042_is_new(i8042));
}

static void any_record_is_survived(void)
{
	begin();
	out(0x64, 0x60);
	out(0x60, 0x05);
	i8042_ctrl_alt_del(i8042);
	subject_survives(&subject, i8042);
}

static void needs_its_ports(void)
{
	const struct i8042_config config = {.irq = &line, .reset = on_reset};
	struct i8042_config here = config;
	struct i8042 *other;
	uint8_t value;

	begin();
	here.pio = pio;
	CHECK_EQ(i8042_create(&here, &other, NULL), -EEXIST);
	i8042_destroy(i8042);
	i8042 = NULL;
	CHECK(!bus_read(pio, 0x60, &value, 1));
	CHECK(!bus_read(pio, 0x64, &value, 1));
	bus_destroy(pio);
	pio = NULL;
}

TEST_MAIN(TEST(linux_finds_a_keyboard_alone), TEST(guests_reset_by_it), TEST(presses_three_keys),
	  TEST(keys_wait_while_the_keyboard_is_disabled), TEST(goes_on_where_it_was), TEST(any_record_is_survived),
	  TEST(needs_its_ports))
