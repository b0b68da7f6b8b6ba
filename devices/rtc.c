/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h. The registers of the MC146818A (its data sheet's names), always in BCD and 24 hours.
 *
 * The time is the host's plus an offset that the guest has set; a timer runs only while an interrupt is enabled. All
 * time registers are computed from one instant. UIP is set at the end of each second for as long as the chip's update
 * takes, and a guest may wait for it; the registers are valid all the time. Unlike on the chip, a field written without
 * SET takes effect at once.
 */
#include "core/state.h"
#include "core/utc.h"
#include "devices/platform.h"

#include <pthread.h>
#include <time.h>

#define PORTS 2u
#define SECOND 1000000000ull
#define DAY 86400

enum {
	SECONDS = 0, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, MONTHDAY, MONTH, YEAR,
	REG_A, REG_B, REG_C, REG_D,
};

#define A_POWER_ON 0x26u /* 32768 Hz, 1024 Hz */
#define A_UPDATING 0x80u
#define A_DIVIDER 0x70u
#define A_DIVIDER_RUNS 0x20u
#define UPDATE_NS 2228000 /* 244 us before the update, and 1984 us of it */
#define B_SET 0x80u
#define B_ALARM 0x20u
#define B_UPDATE 0x10u
#define B_24_HOURS 0x02u
#define B_WRITABLE (B_SET | B_ALARM | B_UPDATE)
#define C_IRQ 0x80u
#define C_ALARM 0x20u
#define C_UPDATE 0x10u
#define D_VALID 0x80u
#define APART_MAX 1000000000000 /* seconds, some 30000 years: within the limits of core/utc.h */
#define ANY 0xc0u /* an alarm byte of this or more always matches */

struct rtc_state {
	uint8_t index;
	uint8_t ram[128]; /* all but the time: alarms, registers A to C, memory */
	int64_t apart;    /* seconds by which the guest's clock is ahead of the host's */
	int64_t seen;     /* the guest's second up to which the flags of C are valid */
	struct tm set;    /* the fields while SET is on; else zeroes */
};

struct rtc {
	struct bus *pio;
	struct irq_line *irq;
	struct event_source *timer;
	pthread_mutex_t lock; /* all below */
	struct rtc_state state;
	bool line_high;
};

static uint8_t rtc_bcd(int value)
{
	value = (value % 100 + 100) % 100;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

static int rtc_from_bcd(uint8_t value)
{
	return (value >> 4) * 10 + (value & 15);
}

/* ---- the time ---- */

/* Not time(2), which changes up to a tick of the host too late. */
static int64_t rtc_guest_now(const struct rtc *rtc)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec + rtc->state.apart;
}

static void rtc_fields(const struct rtc *rtc, struct tm *tm)
{
	if (rtc->state.ram[REG_B] & B_SET)
		*tm = rtc->state.set;
	else
		utc_fields(rtc_guest_now(rtc), tm);
}

/* Lock held, as below. Ignores a time beyond APART_MAX. */
static void rtc_set_time(struct rtc *rtc, struct tm *tm)
{
	int64_t apart = rtc->state.apart + utc_seconds(tm) - rtc_guest_now(rtc);

	if (apart < -APART_MAX || apart > APART_MAX)
		return;
	rtc->state.apart = apart;
	rtc->state.seen = rtc_guest_now(rtc);
}

static uint8_t rtc_read_time(const struct rtc *rtc, unsigned int reg)
{
	struct tm tm;

	rtc_fields(rtc, &tm);
	switch (reg) {
	case SECONDS:
		return rtc_bcd(tm.tm_sec);
	case MINUTES:
		return rtc_bcd(tm.tm_min);
	case HOURS:
		return rtc_bcd(tm.tm_hour);
	case WEEKDAY:
		return rtc_bcd(tm.tm_wday + 1);
	case MONTHDAY:
		return rtc_bcd(tm.tm_mday);
	case MONTH:
		return rtc_bcd(tm.tm_mon + 1);
	case YEAR:
		return rtc_bcd(tm.tm_year);
	default: /* century */
		return rtc_bcd((tm.tm_year + 1900) / 100);
	}
}

static void rtc_write_time(struct rtc *rtc, unsigned int reg, int value)
{
	struct tm tm;
	int year;

	rtc_fields(rtc, &tm);
	year = tm.tm_year + 1900;
	switch (reg) {
	case SECONDS:
		tm.tm_sec = value;
		break;
	case MINUTES:
		tm.tm_min = value;
		break;
	case HOURS:
		tm.tm_hour = value;
		break;
	case WEEKDAY:
		tm.tm_wday = value - 1;
		break;
	case MONTHDAY:
		tm.tm_mday = value;
		break;
	case MONTH:
		tm.tm_mon = value - 1;
		break;
	case YEAR:
		tm.tm_year = year / 100 * 100 + value - 1900;
		break;
	default:
		tm.tm_year = value * 100 + year % 100 - 1900;
		break;
	}
	if (rtc->state.ram[REG_B] & B_SET)
		rtc->state.set = tm;
	else
		rtc_set_time(rtc, &tm);
}

/* ---- flags and interrupts ---- */

static void rtc_update_line(struct rtc *rtc)
{
	bool level = rtc->state.ram[REG_C] & rtc->state.ram[REG_B] & (C_ALARM | C_UPDATE);

	rtc->state.ram[REG_C] = (uint8_t)((rtc->state.ram[REG_C] & ~C_IRQ) | (level ? C_IRQ : 0));
	if (level != rtc->line_high)
		irq_line_set(rtc->irq, level);
	rtc->line_high = level;
}

static bool rtc_alarm_at(const struct rtc *rtc, int64_t second)
{
	static const struct {
		uint8_t reg;
		int64_t unit, units;
	} parts[] = {{SECONDS_ALARM, 1, 60}, {MINUTES_ALARM, 60, 60}, {HOURS_ALARM, 3600, 24}};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		uint8_t want = rtc->state.ram[parts[i].reg];

		if (want < ANY && want != rtc_bcd((int)(second / parts[i].unit % parts[i].units)))
			return false;
	}
	return true;
}

/* Sets the flags for the seconds since seen. */
static void rtc_catch_up(struct rtc *rtc)
{
	int64_t now = rtc_guest_now(rtc);

	if (rtc->state.ram[REG_B] & B_SET || now == rtc->state.seen)
		return;
	rtc->state.ram[REG_C] |= C_UPDATE;
	for (int64_t s = MAX(rtc->state.seen + 1, now - DAY + 1); s <= now; s++)
		if (rtc_alarm_at(rtc, s)) {
			rtc->state.ram[REG_C] |= C_ALARM;
			break;
		}
	rtc->state.seen = now;
	rtc_update_line(rtc);
}

/* While an interrupt is enabled, sets the timer for the next full second. */
static void rtc_arm(struct rtc *rtc)
{
	bool wanted = rtc->state.ram[REG_B] & (B_ALARM | B_UPDATE) && !(rtc->state.ram[REG_B] & B_SET);
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	event_timer_set(rtc->timer, wanted ? SECOND - (uint64_t)now.tv_nsec + 1000 : 0, 0);
}

static void rtc_second_passed(void *opaque, uint32_t events)
{
	struct rtc *rtc = opaque;

	pthread_mutex_lock(&rtc->lock);
	rtc_catch_up(rtc);
	rtc_arm(rtc);
	pthread_mutex_unlock(&rtc->lock);
}

/* ---- registers; lock held ---- */

static bool rtc_is_time(unsigned int reg)
{
	return reg == SECONDS || reg == MINUTES || reg == HOURS || (reg >= WEEKDAY && reg <= YEAR) ||
	       reg == RTC_CENTURY;
}

static void rtc_write_b(struct rtc *rtc, uint8_t value)
{
	uint8_t old = rtc->state.ram[REG_B];

	rtc_catch_up(rtc);
	if (value & ~old & B_SET)
		rtc_fields(rtc, &rtc->state.set);
	rtc->state.ram[REG_B] = (value & B_WRITABLE) | B_24_HOURS;
	if (old & ~value & B_SET) {
		rtc_set_time(rtc, &rtc->state.set);
		rtc->state.set = (struct tm){0};
	}
	rtc_update_line(rtc);
	rtc_arm(rtc);
}

/* The time changes when it ends. */
static bool rtc_is_updating(const struct rtc *rtc)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_nsec >= (long)SECOND - UPDATE_NS && !(rtc->state.ram[REG_B] & B_SET) &&
	       (rtc->state.ram[REG_A] & A_DIVIDER) == A_DIVIDER_RUNS;
}

static uint8_t rtc_read_register(struct rtc *rtc, unsigned int reg)
{
	uint8_t value;

	if (rtc_is_time(reg))
		return rtc_read_time(rtc, reg);
	if (reg == REG_D)
		return D_VALID;
	if (reg == REG_A)
		return rtc->state.ram[reg] | (rtc_is_updating(rtc) ? A_UPDATING : 0);
	if (reg != REG_C)
		return rtc->state.ram[reg];
	rtc_catch_up(rtc);
	value = rtc->state.ram[REG_C];
	rtc->state.ram[REG_C] = 0;
	rtc_update_line(rtc);
	return value;
}

static void rtc_write_register(struct rtc *rtc, unsigned int reg, uint8_t value)
{
	if (rtc_is_time(reg))
		rtc_write_time(rtc, reg, rtc_from_bcd(value));
	else if (reg == REG_A)
		rtc->state.ram[reg] = value & ~A_UPDATING;
	else if (reg == REG_B)
		rtc_write_b(rtc, value);
	else if (reg != REG_C && reg != REG_D)
		rtc->state.ram[reg] = value;
}

static void rtc_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct rtc *rtc = opaque;

	memset(data, 0xff, len); /* the index cannot be read */
	pthread_mutex_lock(&rtc->lock);
	if (offset + len == PORTS)
		((uint8_t *)data)[len - 1] = rtc_read_register(rtc, rtc->state.index);
	pthread_mutex_unlock(&rtc->lock);
}

static void rtc_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct rtc *rtc = opaque;
	const uint8_t *in = data;

	pthread_mutex_lock(&rtc->lock);
	if (offset == 0)
		rtc->state.index = in[0] & 0x7f; /* the top bit masks NMIs, of which there are none */
	if (offset + len == PORTS)
		rtc_write_register(rtc, rtc->state.index, in[len - 1]);
	pthread_mutex_unlock(&rtc->lock);
}

/* ---- construction ---- */

static const struct bus_ops rtc_ops = {rtc_read, rtc_write};

static void rtc_free_rtc(struct rtc *rtc)
{
	event_source_remove(rtc->timer);
	pthread_mutex_destroy(&rtc->lock);
	free(rtc);
}

int rtc_create(struct bus *pio, struct irq_line *irq, struct event_loop *loop, struct rtc **ret, struct err *err)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));
	int code;

	if (!rtc)
		return err_sys(err, -ENOMEM, "rtc");
	rtc->pio = pio;
	rtc->irq = irq;
	rtc->state.ram[REG_A] = A_POWER_ON;
	rtc->state.ram[REG_B] = B_24_HOURS;
	rtc->state.seen = rtc_guest_now(rtc);
	pthread_mutex_init(&rtc->lock, NULL);
	code = event_loop_timer(loop, rtc_second_passed, rtc, &rtc->timer, err);
	if (code == 0)
		code = bus_add(pio, RTC_PORT, PORTS, &rtc_ops, rtc, "rtc", err);
	if (code < 0) {
		rtc_free_rtc(rtc);
		return code;
	}
	*ret = rtc;
	return 0;
}

void rtc_destroy(struct rtc *rtc)
{
	if (!rtc)
		return;
	bus_remove(rtc->pio, RTC_PORT);
	rtc_free_rtc(rtc);
}

/* ---- saved state ---- */

static bool rtc_between(int64_t value, int64_t least, int64_t most)
{
	return value >= least && value <= most;
}

/* While SET is on, a field is any value of two BCD digits, invalid digits included, less one. */
static int rtc_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct rtc_state *state = loaded;
	const struct tm *set = &state->set;
	const int small[] = {set->tm_sec, set->tm_min, set->tm_hour, set->tm_mday, set->tm_mon, set->tm_wday};
	const uint8_t *ram = state->ram;

	for (size_t i = 0; i < ARRAY_SIZE(small); i++)
		if (!rtc_between(small[i], -1, 165))
			return err_set(err, -EBADMSG, "the time that is being set is invalid");
	if (!rtc_between(set->tm_year, -40000, 40000))
		return err_set(err, -EBADMSG, "the year that is being set is invalid");
	if (!rtc_between(state->apart, -APART_MAX, APART_MAX) ||
	    !rtc_between(state->seen, -2 * APART_MAX, 2 * APART_MAX))
		return err_set(err, -EBADMSG, "its time is out of range");
	if (state->index > 0x7f || ram[REG_A] & 0x80 || (ram[REG_B] & ~B_WRITABLE) != B_24_HOURS ||
	    ram[REG_C] & ~(C_IRQ | C_ALARM | C_UPDATE))
		return err_set(err, -EBADMSG, "a register has invalid bits");
	return 0;
}

static int rtc_loaded(void *object, const void *state, struct err *err)
{
	rtc_update_line(object);
	rtc_arm(object);
	return 0;
}

static const struct state_field state_fields[] = {
	STATE_UINT(struct rtc_state, index, 1),
	STATE_BYTES(struct rtc_state, ram, 1),
	STATE_UINT(struct rtc_state, apart, 1),
	STATE_UINT(struct rtc_state, seen, 1),
	STATE_UINT_AS("set_sec", struct rtc_state, set.tm_sec, 1),
	STATE_UINT_AS("set_min", struct rtc_state, set.tm_min, 1),
	STATE_UINT_AS("set_hour", struct rtc_state, set.tm_hour, 1),
	STATE_UINT_AS("set_mday", struct rtc_state, set.tm_mday, 1),
	STATE_UINT_AS("set_mon", struct rtc_state, set.tm_mon, 1),
	STATE_UINT_AS("set_year", struct rtc_state, set.tm_year, 1),
	STATE_UINT_AS("set_wday", struct rtc_state, set.tm_wday, 1),
};

const struct state_table rtc_state = {
	.name = "rtc", .version = 1, .oldest = 1, STATE_FIELDS(state_fields),
	STATE_IN(struct rtc, state), STATE_LOCK(struct rtc, lock), .judge = rtc_judge, .loaded = rtc_loaded,
};
