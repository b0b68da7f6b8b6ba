/* SPDX-License-Identifier: Apache-2.0 */
/* devices/rtc: the host's time in BCD, set and kept by the guest over every kind of year's end, alarms, RAM. */
#include "devices/platform.h"
#include "tests/unit/test.h"

#include <time.h>

struct line {
	struct irq_line line;
	bool high;
	unsigned int rises;
};

/* A clock on a bus of its own. */
struct rig {
	struct bus *pio;
	struct event_loop *loop;
	struct rtc *rtc;
	struct line line;
};

static void set_line(struct irq_line *irq, bool level)
{
	struct line *line = container_of(irq, struct line, line);

	line->rises += level && !line->high;
	line->high = level;
}

static const struct irq_line_ops line_ops = {.set = set_line};

static void open_rtc(struct rig *rig)
{
	*rig = (struct rig){.pio = bus_create(), .line.line.ops = &line_ops};
	CHECK_EQ(event_loop_create(&rig->loop, NULL), 0);
	CHECK_EQ(rtc_create(rig->pio, &rig->line.line, rig->loop, &rig->rtc, NULL), 0);
}

static void destroy(void *opaque)
{
	rtc_destroy(((struct rig *)opaque)->rtc);
}

static void close_rtc(struct rig *rig)
{
	event_loop_call(rig->loop, destroy, rig);
	event_loop_destroy(rig->loop);
	bus_destroy(rig->pio);
}

static uint8_t get(struct rig *rig, uint8_t reg)
{
	uint8_t value;

	CHECK(bus_write(rig->pio, 0x70, &reg, 1));
	CHECK(bus_read(rig->pio, 0x71, &value, 1));
	return value;
}

static void put(struct rig *rig, uint8_t reg, uint8_t value)
{
	uint8_t both[2] = {reg, value};

	if (value & 1) { /* both ways to write a register */
		CHECK(bus_write(rig->pio, 0x70, both, 2));
		return;
	}
	CHECK(bus_write(rig->pio, 0x70, &reg, 1));
	CHECK(bus_write(rig->pio, 0x71, &value, 1));
}

static uint32_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint32_t)(now.tv_nsec / 1000000);
}

static void sleep_ms(unsigned int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l}, NULL);
}

static void early_in_a_second(void)
{
	while (now_ms() > 300)
		sleep_ms(1010 - now_ms());
}

static void wait_for_rises(struct line *line, unsigned int rises)
{
	for (unsigned int i = 0; i < 5000 && __atomic_load_n(&line->rises, __ATOMIC_ACQUIRE) < rises; i++)
		sleep_ms(1);
	CHECK(line->rises >= rises);
}

/* The date and time as "20241231 235959" from the registers' BCD digits. */
static const char *shown(struct rig *rig)
{
	static char text[32];

	snprintf(text, sizeof(text), "%02x%02x%02x%02x %02x%02x%02x", get(rig, 0x32), get(rig, 9), get(rig, 8),
		 get(rig, 7), get(rig, 4), get(rig, 2), get(rig, 0));
	return text;
}

/* Sets it the way drivers do: SET, the fields, SET off. */
static void set(struct rig *rig, uint32_t date, uint32_t time_of_day)
{
	put(rig, 0x0b, get(rig, 0x0b) | 0x80);
	put(rig, 0x32, (uint8_t)(date >> 24));
	put(rig, 9, (uint8_t)(date >> 16));
	put(rig, 8, (uint8_t)(date >> 8));
	put(rig, 7, (uint8_t)date);
	put(rig, 4, (uint8_t)(time_of_day >> 16));
	put(rig, 2, (uint8_t)(time_of_day >> 8));
	put(rig, 0, (uint8_t)time_of_day);
	put(rig, 0x0b, get(rig, 0x0b) & 0x7f);
}

static void host_time(char text[32])
{
	time_t t = time(NULL);

	strftime(text, 32, "%Y%m%d %H%M%S", gmtime(&t));
}

static void shows_the_hosts_time(void)
{
	struct rig rig;
	char want[2][32];
	const char *have;

	open_rtc(&rig);
	host_time(want[0]);
	have = shown(&rig);
	host_time(want[1]);
	/* the second may have ended just now */
	CHECK(strcmp(have, want[0]) == 0 || strcmp(have, want[1]) == 0);
	close_rtc(&rig);
}

static void powers_on(void)
{
	struct rig rig;

	open_rtc(&rig);
	CHECK_EQ(get(&rig, 0x0a) & 0x7f, 0x26);
	CHECK_EQ(get(&rig, 0x0b), 0x02);
	CHECK_EQ(get(&rig, 0x0d), 0x80);
	for (uint8_t i = 0x0e; i < 0x80; i++)
		if (i != 0x32)
			CHECK_EQ(get(&rig, i), 0);
	/* RAM holds what is put there, the registers what they can hold; the NMI bit is nothing */
	for (uint8_t i = 0x0e; i < 0x80; i++)
		if (i != 0x32)
			put(&rig, i | 0x80, i ^ 0x5a);
	for (uint8_t i = 0x0e; i < 0x80; i++)
		if (i != 0x32)
			CHECK_EQ(get(&rig, i), i ^ 0x5a);
	put(&rig, 0x0a, 0xff);
	CHECK_EQ(get(&rig, 0x0a), 0x7f); /* the divider is held: no update */
	put(&rig, 0x0b, 0x7f);
	CHECK_EQ(get(&rig, 0x0b), 0x32);
	put(&rig, 0x0d, 0);
	CHECK_EQ(get(&rig, 0x0d), 0x80);
	CHECK(bus_read(rig.pio, 0x70, &(uint8_t[2]){0}, 2));
	close_rtc(&rig);
}

static void keeps_what_is_set(void)
{
	struct rig rig;
	char text[32];

	open_rtc(&rig);
	/* held while SET is on, in every BCD value */
	put(&rig, 0x0b, 0x82);
	for (int i = 0; i < 60; i++) {
		uint8_t value = (uint8_t)(i / 10 << 4 | i % 10);

		put(&rig, 0, value);
		put(&rig, 2, value);
		put(&rig, 9, value);
		CHECK(get(&rig, 0) == value && get(&rig, 2) == value && get(&rig, 9) == value);
	}
	put(&rig, 0x0b, 0x02);
	/* a field by itself, without SET */
	set(&rig, 0x19990515, 0x101500);
	put(&rig, 4, 0x23);
	snprintf(text, sizeof(text), "%.13s", shown(&rig));
	CHECK_STR(text, "19990515 2315");
	put(&rig, 0x32, 0x20);
	snprintf(text, sizeof(text), "%.13s", shown(&rig));
	CHECK_STR(text, "20990515 2315");
	CHECK_EQ(get(&rig, 6), 6); /* a Friday */
	/* nonsense does no harm */
	put(&rig, 0x0b, 0x80);
	for (uint8_t i = 0; i < 10; i++)
		put(&rig, i, 0xff);
	put(&rig, 0x32, 0xff);
	put(&rig, 0x0b, 0);
	shown(&rig);
	get(&rig, 0x0c);
	close_rtc(&rig);
}

/* All of them at once, so that it takes a second only. */
static void knows_the_calendar(void)
{
	static const struct {
		uint32_t date;
		const char *next;
		uint8_t weekday;
	} nights[] = {
		{0x20240228, "20240229 000000", 5}, {0x20240229, "20240301 000000", 6},
		{0x20230228, "20230301 000000", 4}, {0x20000228, "20000229 000000", 3},
		{0x21000228, "21000301 000000", 2}, {0x19991231, "20000101 000000", 7},
		{0x20991231, "21000101 000000", 6}, {0x20260430, "20260501 000000", 6},
		{0x20380118, "20380119 000000", 3},
	};
	struct rig rigs[ARRAY_SIZE(nights)];
	char text[32];

	early_in_a_second();
	for (size_t i = 0; i < ARRAY_SIZE(nights); i++) {
		open_rtc(&rigs[i]);
		set(&rigs[i], nights[i].date, 0x235959);
		snprintf(text, sizeof(text), "%08x 235959", nights[i].date);
		CHECK_STR(shown(&rigs[i]), text);
	}
	sleep_ms(1020 - now_ms());
	for (size_t i = 0; i < ARRAY_SIZE(nights); i++) {
		CHECK_STR(shown(&rigs[i]), nights[i].next);
		CHECK_EQ(get(&rigs[i], 6), nights[i].weekday);
		close_rtc(&rigs[i]);
	}
}

static long ns_of_second(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_nsec;
}

/* Whether UIP is set; the moment is between the two. */
static bool updating(struct rig *rig, long *before, long *after)
{
	bool set;

	*before = ns_of_second();
	set = get(rig, 0x0a) & 0x80;
	*after = ns_of_second();
	return set;
}

/* A guest that waits for it sees it, and the time changes where it ends. */
static void an_update_is_seen_at_the_end_of_a_second(void)
{
	struct rig rig;
	long before, after;
	unsigned int seen = 0;

	open_rtc(&rig);
	for (unsigned int i = 0; i < 3000000 && !seen; i++) {
		bool set = updating(&rig, &before, &after);

		if (after < before) /* a second has ended between */
			continue;
		CHECK(!set || after >= 1000000000 - 2228000);
		CHECK(set || before < 1000000000 - 2228000);
		seen += set;
		if (before < 990000000)
			sleep_ms(5);
	}
	CHECK(seen);
	/* never while the time is being set */
	put(&rig, 0x0b, 0x82);
	for (unsigned int i = 0; i < 100; i++)
		CHECK_EQ(get(&rig, 0x0a) & 0x80, 0);
	close_rtc(&rig);
}

static void interrupts(void)
{
	struct rig update, alarm, later;
	uint8_t flags;

	open_rtc(&update);
	open_rtc(&alarm);
	open_rtc(&later);
	early_in_a_second();
	CHECK_EQ(event_loop_start(update.loop, "update", NULL), 0);
	CHECK_EQ(event_loop_start(alarm.loop, "alarm", NULL), 0);
	CHECK_EQ(event_loop_start(later.loop, "later", NULL), 0);
	set(&alarm, 0x20260101, 0x115958);
	set(&later, 0x20260101, 0x115958);
	put(&alarm, 5, 0x11);
	put(&alarm, 3, 0xff);
	put(&alarm, 1, 0x59);
	put(&later, 5, 0x15);
	get(&update, 0x0c);
	put(&update, 0x0b, 0x12);
	put(&alarm, 0x0b, 0x22);
	put(&later, 0x0b, 0x22);
	CHECK(!update.line.high && !alarm.line.high);
	wait_for_rises(&update.line, 1);
	wait_for_rises(&alarm.line, 1);
	CHECK(update.line.high && alarm.line.high && !later.line.high);
	flags = get(&update, 0x0c);
	CHECK_EQ(flags, 0x90);
	CHECK(!update.line.high);
	flags = get(&alarm, 0x0c);
	CHECK_EQ(flags, 0xb0);
	CHECK(!alarm.line.high && alarm.line.rises == 1);
	CHECK_EQ(get(&alarm, 0x0c), 0);
	CHECK_EQ(get(&later, 0x0c), 0x10);
	/* switched off: the flags come all the same, the line does not */
	put(&alarm, 0x0b, 0x02);
	put(&alarm, 1, 0xc0);
	put(&alarm, 5, 0xc0);
	wait_for_rises(&update.line, 2);
	CHECK_EQ(alarm.line.rises, 1);
	CHECK_EQ(get(&alarm, 0x0c), 0x30);
	close_rtc(&update);
	close_rtc(&alarm);
	close_rtc(&later);
}

static void needs_its_ports(void)
{
	struct rig rig;
	struct rtc *second;

	open_rtc(&rig);
	CHECK_EQ(rtc_create(rig.pio, NULL, rig.loop, &second, NULL), -EEXIST);
	rtc_destroy(NULL);
	close_rtc(&rig);
}

TEST_MAIN(TEST(shows_the_hosts_time), TEST(powers_on), TEST(keeps_what_is_set), TEST(knows_the_calendar),
	  TEST(an_update_is_seen_at_the_end_of_a_second), TEST(interrupts), TEST(needs_its_ports))
