/* SPDX-License-Identifier: Apache-2.0 */
/* Saved state of serial port, clock and power: busy ones go on in another machine where they were. */
#include "core/state.h"
#include "devices/platform.h"
#include "tests/unit/state_subject.h"
#include "tests/unit/test.h"

#include <linux/serial_reg.h>
#include <time.h>

#define COM1 0x3f8
#define POWER 0x600

/* The platform devices of one machine; each on its own line. */
enum { SERIAL, RTC, POWER_LINE, SCI, LINES };

struct platform {
	struct bus *pio;
	struct event_loop *loop;
	struct serial *serial;
	struct rtc *rtc;
	struct power *power;
	struct irq_line lines[LINES];
};

static void set_line(struct irq_line *line, bool level)
{
	line->level = level;
}

static void event(void *opaque, enum power_event e)
{
}

static uint64_t now(void *opaque)
{
	return 123456789000;
}

static void *make(void)
{
	static const struct irq_line_ops line_ops = {.set = set_line};
	struct platform *p = calloc(1, sizeof(*p));
	struct power_config power = {.port = POWER, .event = event, .now = now};

	CHECK(p);
	p->pio = power.pio = bus_create();
	for (unsigned int i = 0; i < LINES; i++)
		p->lines[i].ops = &line_ops;
	power.irq = &p->lines[POWER_LINE];
	power.sci = &p->lines[SCI];
	CHECK_EQ(event_loop_create(&p->loop, NULL), 0);
	CHECK_EQ(serial_create(p->pio, COM1, &p->lines[SERIAL], -1, -1, p->loop, NULL, &p->serial, NULL), 0);
	CHECK_EQ(rtc_create(p->pio, &p->lines[RTC], p->loop, &p->rtc, NULL), 0);
	CHECK_EQ(power_create(&power, &p->power, NULL), 0);
	return p;
}

static void drop(void *object)
{
	struct platform *p = object;

	power_destroy(p->power);
	rtc_destroy(p->rtc);
	serial_destroy(p->serial);
	event_loop_destroy(p->loop);
	bus_destroy(p->pio);
	free(p);
}

static uint8_t in(struct platform *p, uint64_t port)
{
	uint8_t value;

	CHECK(bus_read(p->pio, port, &value, 1));
	return value;
}

static void out(struct platform *p, uint64_t port, uint8_t value)
{
	CHECK(bus_write(p->pio, port, &value, 1));
}

/* Every register is read and written once. */
static void use(void *object)
{
	struct platform *p = object;

	for (unsigned int i = 0; i < 8; i++)
		out(p, COM1 + i, in(p, COM1 + i));
	serial_feed(p->serial, "x", 1);
	for (unsigned int i = 0; i < 128; i++) {
		out(p, RTC_PORT, (uint8_t)i);
		out(p, RTC_PORT + 1, in(p, RTC_PORT + 1));
	}
	for (unsigned int i = POWER_GED_EVENTS; i < POWER_PORTS; i++)
		in(p, POWER + i);
}

static int save_serial(void *object, struct state_buffer *to, struct err *err)
{
	return state_save(&serial_state, ((struct platform *)object)->serial, to, err);
}

static int load_serial(void *object, const void *data, size_t len, struct err *err)
{
	return state_load(&serial_state, ((struct platform *)object)->serial, data, len, err);
}

static int save_rtc(void *object, struct state_buffer *to, struct err *err)
{
	return state_save(&rtc_state, ((struct platform *)object)->rtc, to, err);
}

static int load_rtc(void *object, const void *data, size_t len, struct err *err)
{
	return state_load(&rtc_state, ((struct platform *)object)->rtc, data, len, err);
}

static int save_power(void *object, struct state_buffer *to, struct err *err)
{
	return state_save(&power_state, ((struct platform *)object)->power, to, err);
}

static int load_power(void *object, const void *data, size_t len, struct err *err)
{
	return state_load(&power_state, ((struct platform *)object)->power, data, len, err);
}

static const struct state_subject serial = {make, save_serial, load_serial, use, drop};
static const struct state_subject rtc = {make, save_rtc, load_rtc, use, drop};
static const struct state_subject power = {make, save_power, load_power, use, drop};

/* ---- the serial port ---- */

static struct platform *busy_serial(void)
{
	struct platform *p = make();

	out(p, COM1 + UART_LCR, UART_LCR_DLAB);
	out(p, COM1 + UART_DLL, 1);
	out(p, COM1 + UART_DLM, 2);
	out(p, COM1 + UART_LCR, UART_LCR_WLEN8);
	out(p, COM1 + UART_SCR, 0x5a);
	out(p, COM1 + UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
	serial_feed(p->serial, "typed and not yet read", 22);
	CHECK_EQ(in(p, COM1 + UART_RX), 't'); /* what is left begins in the middle of the ring */
	out(p, COM1 + UART_IER, UART_IER_RDI | UART_IER_THRI);
	return p;
}

static void await_input(struct platform *p)
{
	for (unsigned int i = 0; i < 50000 && !(in(p, COM1 + UART_LSR) & UART_LSR_DR); i++)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void what_was_typed_is_read_behind_the_move(void)
{
	struct platform *from = busy_serial(), *to = subject_comes_back(&serial, from);
	char text[32] = "";

	CHECK(to->lines[SERIAL].level);
	CHECK_EQ(in(to, COM1 + UART_SCR), 0x5a);
	CHECK_EQ(in(to, COM1 + UART_IER), UART_IER_RDI | UART_IER_THRI);
	CHECK_EQ(in(to, COM1 + UART_MCR), UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
	CHECK_EQ(event_loop_start(to->loop, "test", NULL), 0);
	for (unsigned int i = 0; i < strlen("yped and not yet read"); i++) {
		await_input(to);
		text[i] = (char)in(to, COM1 + UART_RX);
	}
	CHECK_STR(text, "yped and not yet read");
	/* The transmitter's interrupt was due and has not been lost either. */
	CHECK(to->lines[SERIAL].level);
	CHECK_EQ(in(to, COM1 + UART_IIR) & 0x0f, UART_IIR_THRI);
	CHECK(!to->lines[SERIAL].level);
	out(to, COM1 + UART_LCR, UART_LCR_DLAB);
	CHECK_EQ(in(to, COM1 + UART_DLL), 1);
	CHECK_EQ(in(to, COM1 + UART_DLM), 2);
	drop(from);
	drop(to);
}

static void a_loop_back_goes_on(void)
{
	struct platform *from = make(), *to;

	out(from, COM1 + UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	out(from, COM1 + UART_MCR, UART_MCR_LOOP);
	for (unsigned int i = 0; i < 20; i++)
		out(from, COM1 + UART_TX, (uint8_t)('a' + i));
	to = subject_comes_back(&serial, from);
	CHECK_EQ(in(to, COM1 + UART_LSR) & (UART_LSR_OE | UART_LSR_DR), UART_LSR_OE | UART_LSR_DR);
	for (unsigned int i = 0; i < 16; i++)
		CHECK_EQ(in(to, COM1 + UART_RX), 'a' + i);
	CHECK_EQ(in(to, COM1 + UART_LSR) & UART_LSR_DR, 0);
	drop(from);
	drop(to);
}

static void input_that_was_held_back_still_comes(void)
{
	struct platform *from = make(), *to;

	out(from, COM1 + UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	serial_feed(from->serial, "late", 4);
	to = subject_comes_back(&serial, from);
	CHECK_EQ(in(to, COM1 + UART_LSR) & UART_LSR_DR, 0);
	CHECK_EQ(event_loop_start(to->loop, "test", NULL), 0);
	await_input(to);
	CHECK_EQ(in(to, COM1 + UART_RX), 'l');
	drop(from);
	drop(to);
}

static void any_record_of_a_serial_port_is_survived(void)
{
	struct platform *p = busy_serial();

	subject_survives(&serial, p);
	drop(p);
}

/* ---- the clock ---- */

static void set_clock(struct platform *p, uint8_t reg, uint8_t value)
{
	out(p, RTC_PORT, reg);
	out(p, RTC_PORT + 1, value);
}

static uint8_t clock_reg(struct platform *p, uint8_t reg)
{
	out(p, RTC_PORT, reg);
	return in(p, RTC_PORT + 1);
}

/* The year 1999, and an alarm at any second, which is switched on; fired: and has gone off. */
static struct platform *busy_clock(bool fired)
{
	struct platform *p = make();

	set_clock(p, 0x0b, 0x82);
	set_clock(p, RTC_CENTURY, 0x19);
	set_clock(p, 9, 0x99);
	set_clock(p, 8, 0x06);
	set_clock(p, 7, 0x15);
	set_clock(p, 0x0b, 0x22);
	for (unsigned int i = 1; i <= 5; i += 2)
		set_clock(p, (uint8_t)i, 0xff);
	set_clock(p, 0x40, 0x77);
	for (unsigned int i = 0; fired && i < 5000 && !p->lines[RTC].level; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		set_clock(p, 0x0b, 0x22);
	}
	CHECK(!fired || p->lines[RTC].level);
	return p;
}

static void guest_time_goes_on(void)
{
	struct platform *from = busy_clock(false), *to = subject_comes_back(&rtc, from);

	CHECK_EQ(clock_reg(to, RTC_CENTURY), 0x19);
	CHECK_EQ(clock_reg(to, 9), 0x99);
	CHECK_EQ(clock_reg(to, 8), 0x06);
	CHECK_EQ(clock_reg(to, 0x40), 0x77);
	drop(from);
	drop(to);
}

static void an_alarm_that_nobody_has_seen_is_not_lost(void)
{
	struct platform *from = busy_clock(true), *to = subject_comes_back(&rtc, from);

	CHECK(to->lines[RTC].level);
	CHECK_EQ(clock_reg(to, 0x0c) & 0xa0, 0xa0);
	CHECK(!to->lines[RTC].level);
	drop(from);
	drop(to);
}

/* Moves the second up to which a record of a clock knows its alarms. */
static void age(struct state_buffer *record, int64_t seconds)
{
	uint8_t *seen = memmem(record->data, record->len, "seen", 4);

	CHECK(seen);
	seen += 4 + 5; /* behind its name, kind and length */
	put_le64(seen, get_le64(seen) + (uint64_t)seconds);
}

/*
 * An alarm at a time of day that comes once between the snapshot and now is due; one of another time is not, and in a
 * snapshot from the future none is. The time is the host's.
 */
static void a_clock_from_another_week_tells_the_time(void)
{
	static const int64_t weeks[] = {-604800, 604800, -4000, -4000};
	time_t now = time(NULL), then = now - 3600;
	struct tm tm;

	for (size_t i = 0; i < ARRAY_SIZE(weeks); i++) {
		struct platform *from = make(), *to = make(), *fresh = make();
		struct state_buffer record = {0};

		then = i == 3 ? now + 43200 : now - 3600;
		gmtime_r(&then, &tm);
		set_clock(from, 5, (uint8_t)(tm.tm_hour / 10 << 4 | tm.tm_hour % 10));
		set_clock(from, 3, (uint8_t)(tm.tm_min / 10 << 4 | tm.tm_min % 10));
		set_clock(from, 1, (uint8_t)(tm.tm_sec / 10 << 4 | tm.tm_sec % 10));
		set_clock(from, 0x0b, 0x22);
		CHECK_EQ(save_rtc(from, &record, NULL), 0);
		age(&record, weeks[i]);
		CHECK_EQ(load_rtc(to, record.data, record.len, NULL), 0);
		CHECK_EQ(clock_reg(to, 0x0c) & 0x20, i % 2 ? 0 : 0x20);
		CHECK(!to->lines[RTC].level);
		CHECK_EQ(clock_reg(to, 0x0c) & 0x20, 0);
		CHECK_EQ(clock_reg(to, 9), clock_reg(fresh, 9));
		state_buffer_free(&record);
		drop(from);
		drop(to);
		drop(fresh);
	}
}

static void a_time_that_is_being_set_stays_as_it_is(void)
{
	struct platform *from = make(), *to;

	set_clock(from, 0x0b, 0x82);
	set_clock(from, 0, 0x58);
	set_clock(from, 7, 0xff); /* nonsense */
	to = subject_comes_back(&rtc, from);
	CHECK_EQ(clock_reg(to, 0), 0x58);
	CHECK_EQ(clock_reg(to, 7), clock_reg(from, 7));
	drop(from);
	drop(to);
}

static void a_clock_set_over_and_over_can_still_be_saved(void)
{
	struct platform *from = make();
	void *to;

	set_clock(from, RTC_CENTURY, 0xff);
	for (unsigned int i = 0; i < 20000; i++)
		set_clock(from, 9, 0xff);
	to = subject_comes_back(&rtc, from);
	drop(from);
	drop(to);
}

static void any_record_of_a_clock_is_survived(void)
{
	struct platform *p = busy_clock(false);

	subject_survives(&rtc, p);
	set_clock(p, 0x0b, 0x82);
	subject_survives(&rtc, p);
	drop(p);
}

/* ---- power ---- */

static void a_pressed_button_and_hot_plug_are_still_told(void)
{
	struct platform *from = make(), *to;

	power_button(from->power);
	power_pci_added(from->power, 20);
	power_pci_remove(from->power, 31);
	to = subject_comes_back(&power, from);
	CHECK(to->lines[POWER_LINE].level);
	CHECK_EQ(in(to, POWER + POWER_PCI_UP + 2), 1 << 4);
	CHECK_EQ(in(to, POWER + POWER_PCI_DOWN + 3), 1 << 7);
	CHECK_EQ(in(to, POWER + POWER_GED_EVENTS), 3);
	CHECK(!to->lines[POWER_LINE].level);
	subject_survives(&power, from);
	drop(from);
	drop(to);
}

static void out16(struct platform *p, uint64_t port, uint16_t value)
{
	uint8_t data[2];

	put_le16(data, value);
	CHECK(bus_write(p->pio, port, data, 2));
}

static void a_button_that_woke_a_guest_is_still_told(void)
{
	struct platform *from = make(), *to;

	out16(from, POWER + POWER_PM1_CONTROL, 5 << 10);
	out16(from, POWER + POWER_PM1_ENABLE, 1 << 8);
	power_button(from->power);
	to = subject_comes_back(&power, from);
	CHECK(to->lines[SCI].level && !to->lines[POWER_LINE].level);
	CHECK_EQ(in(to, POWER + POWER_PM1_CONTROL + 1), 5 << 2);
	out16(to, POWER + POWER_PM1_STATUS, 1 << 8);
	CHECK(!to->lines[SCI].level);
	subject_survives(&power, from);
	drop(from);
	drop(to);
}

TEST_MAIN(TEST(what_was_typed_is_read_behind_the_move), TEST(a_loop_back_goes_on),
	  TEST(input_that_was_held_back_still_comes), TEST(any_record_of_a_serial_port_is_survived),
	  TEST(guest_time_goes_on), TEST(an_alarm_that_nobody_has_seen_is_not_lost),
	  TEST(a_clock_from_another_week_tells_the_time), TEST(a_time_that_is_being_set_stays_as_it_is), TEST(a_clock_set_over_and_over_can_still_be_saved),
	  TEST(any_record_of_a_clock_is_survived), TEST(a_pressed_button_and_hot_plug_are_still_told),
	  TEST(a_button_that_woke_a_guest_is_still_told))
