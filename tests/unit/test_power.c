/* SPDX-License-Identifier: Apache-2.0 */
/* devices/power and devices/pvpanic: what the registers mean, and the line of the generic event device. */
#include "devices/platform.h"
#include "tests/unit/test.h"

#include <pthread.h>

#define PORT 0x600
#define PANIC 0x505

static struct {
	struct bus *pio;
	struct power *power;
	struct irq_line line, sci;
	bool high, sci_high;
	uint64_t ns;
	unsigned int edges, off, reset, panics, loaded;
	uint32_t ejected;
} t;

static void set_line(struct irq_line *line, bool level)
{
	if (line == &t.sci) {
		t.sci_high = level;
		return;
	}
	t.edges += t.high != level;
	t.high = level;
}

static void event(void *opaque, enum power_event e)
{
	t.off += e == POWER_OFF;
	t.reset += e == POWER_RESET;
}

static void ejected(void *opaque, unsigned int device)
{
	/* may ask for more from inside */
	power_pci_added(t.power, device);
	t.ejected |= 1u << device;
}

static uint64_t now(void *opaque)
{
	return t.ns;
}

static const struct irq_line_ops line_ops = {.set = set_line};

static void open_power(void)
{
	struct power_config config = {.port = PORT, .event = event, .irq = &t.line, .sci = &t.sci, .now = now};

	memset(&t, 0, sizeof(t));
	t.pio = config.pio = bus_create();
	t.line.ops = t.sci.ops = &line_ops;
	CHECK_EQ(power_create(&config, &t.power, NULL), 0);
}

static void close_power(void)
{
	power_destroy(t.power);
	power_destroy(NULL);
	CHECK(!bus_read(t.pio, PORT, (uint8_t[1]){0}, 1));
	bus_destroy(t.pio);
}

static uint32_t in(uint64_t port, unsigned int len)
{
	uint8_t data[4] = {0};

	CHECK(bus_read(t.pio, port, data, len));
	return get_le32(data);
}

static void out(uint64_t port, unsigned int len, uint32_t value)
{
	uint8_t data[4];

	put_le32(data, value);
	CHECK(bus_write(t.pio, port, data, len));
}

static void switches_off_and_resets(void)
{
	open_power();
	for (unsigned int value = 0; value < 256; value++)
		if ((value & 0x3c) != (5 << 2 | 0x20))
			out(PORT + POWER_SLEEP_CONTROL, 1, value);
	CHECK_EQ(t.off, 0);
	out(PORT + POWER_SLEEP_CONTROL, 1, 5 << 2 | 0x20);
	CHECK_EQ(t.off, 1);
	out(PORT + POWER_SLEEP_STATUS, 1, 0xff);
	CHECK_EQ(in(PORT + POWER_SLEEP_STATUS, 1), 0);
	for (unsigned int value = 0; value < 256; value++)
		out(PORT + POWER_RESET_REG, 1, value);
	CHECK_EQ(t.reset, 1);
	CHECK_EQ(t.off, 1);
	close_power();
}

/* By the fixed registers: any other sleep is none. */
static void switches_off_by_the_fixed_register(void)
{
	open_power();
	for (unsigned int type = 0; type < 8; type++) {
		out(PORT + POWER_PM1_CONTROL, 2, type << 10);
		CHECK_EQ(in(PORT + POWER_PM1_CONTROL, 2), type << 10 | 1); /* ACPI mode is always on */
		if (type != 5)
			out(PORT + POWER_PM1_CONTROL, 2, type << 10 | 1 << 13);
	}
	CHECK_EQ(t.off, 0);
	out(PORT + POWER_PM1_CONTROL, 2, 5 << 10 | 1 << 13);
	CHECK_EQ(t.off, 1);
	close_power();
}

/* What wakes a guest: status and enable are both set, and the line is high until the status is cleared. */
static void button_is_fixed_hardware(void)
{
	open_power();
	out(PORT + POWER_PM1_ENABLE, 2, 0xffff);
	CHECK_EQ(in(PORT + POWER_PM1_ENABLE, 2), 1 << 8 | 1 << 5);
	CHECK(!t.sci_high);
	power_button(t.power);
	CHECK(t.sci_high && !t.high);
	CHECK_EQ(in(PORT + POWER_PM1_STATUS, 2), 1 << 8);
	CHECK_EQ(in(PORT + POWER_PM1_STATUS, 4), 1 << 8 | (1 << 8 | 1 << 5) << 16);
	out(PORT + POWER_PM1_STATUS, 2, 0xfeff);
	CHECK(t.sci_high);
	out(PORT + POWER_PM1_ENABLE, 2, 0);
	CHECK(!t.sci_high);
	out(PORT + POWER_PM1_ENABLE, 2, 1 << 8);
	CHECK(t.sci_high);
	out(PORT + POWER_PM1_STATUS, 2, 1 << 8);
	CHECK(!t.sci_high && in(PORT + POWER_PM1_STATUS, 2) == 0);
	close_power();
}

/* Linux clears the status and then enables it. */
static void an_early_press_is_kept(void)
{
	open_power();
	power_button(t.power);
	CHECK(!t.sci_high);
	out(PORT + POWER_PM1_STATUS, 2, 0xffff);
	out(PORT + POWER_PM1_ENABLE, 2, 1 << 5);
	CHECK(!t.sci_high);
	out(PORT + POWER_PM1_ENABLE, 2, 1 << 8);
	CHECK(t.sci_high);
	out(PORT + POWER_PM1_STATUS, 2, 1 << 8);
	out(PORT + POWER_PM1_ENABLE, 2, 0);
	out(PORT + POWER_PM1_ENABLE, 2, 1 << 8);
	CHECK(!t.sci_high);
	close_power();
}

static void the_timer_counts_the_guests_time(void)
{
	open_power();
	t.ns = 1000000000;
	CHECK_EQ(in(PORT + POWER_PM1_TIMER, 4), 3579545);
	t.ns = 1300ull * 1000000000;
	CHECK_EQ(in(PORT + POWER_PM1_TIMER, 4), (uint32_t)(1300ull * 3579545));
	CHECK_EQ(in(PORT + POWER_PM1_TIMER + 1, 1), (1300ull * 3579545) >> 8 & 0xff);
	out(PORT + POWER_PM1_TIMER, 4, 0);
	CHECK_EQ(in(PORT + POWER_PM1_TIMER, 4), (uint32_t)(1300ull * 3579545));
	close_power();
}

static void button_raises_the_line_until_read(void)
{
	open_power();
	CHECK(!t.high);
	power_button(t.power);
	power_button(t.power);
	CHECK(t.high && t.edges == 1);
	CHECK_EQ(in(PORT + POWER_PCI_UP, 4), 0);
	CHECK(t.high);
	CHECK_EQ(in(PORT + POWER_GED_EVENTS, 4), 1);
	CHECK(!t.high && t.edges == 2);
	CHECK_EQ(in(PORT + POWER_GED_EVENTS, 4), 0);
	CHECK_EQ(t.edges, 2);
	close_power();
}

static void tells_of_devices(void)
{
	open_power();
	power_pci_added(t.power, 3);
	power_pci_added(t.power, 31);
	power_pci_added(t.power, 32);
	CHECK(power_pci_remove(t.power, 9));
	CHECK(!power_pci_remove(t.power, 9)); /* the guest has not read it */
	power_pci_remove(t.power, 10);
	power_pci_withdraw(t.power, 10);
	power_pci_withdraw(t.power, 1000);
	power_pci_remove(t.power, 1000);
	CHECK(t.high);
	CHECK_EQ(in(PORT + POWER_GED_EVENTS, 4), 2);
	CHECK(!t.high);
	CHECK_EQ(in(PORT + POWER_PCI_UP, 4), 0x80000008);
	CHECK_EQ(in(PORT + POWER_PCI_UP, 4), 0);
	/* bytes are cleared one by one */
	CHECK_EQ(in(PORT + POWER_PCI_DOWN, 1), 0);
	CHECK_EQ(in(PORT + POWER_PCI_DOWN + 1, 1), 2);
	CHECK_EQ(in(PORT + POWER_PCI_DOWN, 4), 0);
	out(PORT + POWER_PCI_DOWN, 4, 0x200); /* nobody listens */
	power_set_ejected(t.power, ejected, NULL);
	out(PORT + POWER_PCI_DOWN, 4, 0x80000200);
	CHECK_EQ(t.ejected, 0x80000200);
	CHECK_EQ(in(PORT + POWER_PCI_UP, 4), 0x80000200);
	out(PORT + POWER_PCI_DOWN + 2, 2, 0x0001);
	CHECK_EQ(t.ejected, 0x80010200);
	close_power();
}

/* One bit each, in one register with the others; the line falls when all have been read. */
static void notices_are_events_of_their_own(void)
{
	open_power();
	power_notify(t.power, POWER_NEW_GENERATION);
	power_notify(t.power, POWER_NEW_TIME);
	power_notify(t.power, POWER_NEW_TIME);
	power_pci_added(t.power, 3);
	CHECK(t.high && t.edges == 1);
	CHECK_EQ(in(PORT + POWER_GED_EVENTS, 4), 1 << 1 | 1 << 2 | 1 << 3);
	CHECK(!t.high && t.edges == 2);
	power_notify(t.power, POWER_NEW_TIME);
	CHECK_EQ(in(PORT + POWER_GED_EVENTS, 4), 1 << 3);
	CHECK_EQ(t.edges, 4);
	close_power();
}

static void takes_any_access(void)
{
	uint8_t data[8];

	open_power();
	power_button(t.power);
	power_pci_added(t.power, 1);
	for (unsigned int len = 1; len <= 8; len *= 2)
		for (unsigned int at = 0; at + len <= POWER_PORTS; at++) {
			memset(data, 0xff, sizeof(data));
			CHECK(bus_write(t.pio, PORT + at, data, len));
			CHECK(bus_read(t.pio, PORT + at, data, len));
		}
	CHECK(!t.high && !t.sci_high == !(in(PORT + POWER_PM1_STATUS, 2) & in(PORT + POWER_PM1_ENABLE, 2)));
	close_power();
}

static void *presses(void *opaque)
{
	for (unsigned int i = 0; i < 20000; i++)
		power_button(t.power);
	return NULL;
}

static void presses_from_another_thread(void)
{
	pthread_t thread;
	unsigned int seen = 0;

	open_power();
	CHECK_EQ(pthread_create(&thread, NULL, presses, NULL), 0);
	for (unsigned int i = 0; i < 20000; i++)
		seen += in(PORT + POWER_GED_EVENTS, 4);
	pthread_join(thread, NULL);
	seen += in(PORT + POWER_GED_EVENTS, 4);
	CHECK(seen > 0 && seen <= 20000);
	CHECK(!t.high);
	CHECK_EQ(t.edges, 2 * seen);
	close_power();
}

static void panicked(void *opaque, bool loaded)
{
	t.panics += !loaded;
	t.loaded += loaded;
}

static void hears_of_a_panic(void)
{
	struct pvpanic *pvpanic, *second;

	memset(&t, 0, sizeof(t));
	t.pio = bus_create();
	CHECK_EQ(pvpanic_create(t.pio, PANIC, panicked, NULL, &pvpanic, NULL), 0);
	CHECK_EQ(pvpanic_create(t.pio, PANIC, panicked, NULL, &second, NULL), -EEXIST);
	CHECK_EQ(in(PANIC, 1), 3);
	out(PANIC, 1, 0);
	out(PANIC, 1, 0xfc);
	CHECK_EQ(t.panics + t.loaded, 0);
	out(PANIC, 1, 1);
	CHECK(t.panics == 1 && t.loaded == 0);
	out(PANIC, 1, 2);
	CHECK(t.panics == 1 && t.loaded == 1);
	pvpanic_destroy(pvpanic);
	pvpanic_destroy(NULL);
	CHECK(!bus_read(t.pio, PANIC, (uint8_t[1]){0}, 1));
	bus_destroy(t.pio);
}

TEST_MAIN(TEST(switches_off_and_resets), TEST(switches_off_by_the_fixed_register), TEST(button_is_fixed_hardware),
	  TEST(an_early_press_is_kept), TEST(the_timer_counts_the_guests_time),
	  TEST(button_raises_the_line_until_read), TEST(tells_of_devices), TEST(notices_are_events_of_their_own),
	  TEST(takes_any_access), TEST(presses_from_another_thread), TEST(hears_of_a_panic))
