/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile saved state: a record is loaded into a device as the machine makes it, and what was loaded is then used by a guest
 * and its host, and saved again. Every virtio device, the serial port, the clock, the keyboard controller, power,
 * generation ID, vmclock, and the PCI bus.
 *
 * Input: a byte that chooses the device, two that say how long the record is, the record, and what lies in the guest's rings.
 * The mutator begins with records that were saved of idle and of busy devices.
 */
#include "core/state.h"
#include "devices/platform.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/state_devices.h"

#include <stdio.h>

#define HEAD 3u

enum { SERIAL, RTC, I8042, POWER, VMGENID, VMCLOCK, BUS, PLATFORM };

static struct state_devices d;
static struct state_buffer seeds[32]; /* idle and busy of each kind */
static unsigned int kinds;

/* ---- the platform's ---- */

static struct {
	struct bus *pio;
	struct serial *serial;
	struct rtc *rtc;
	struct i8042 *i8042;
	struct power *power;
	struct vmgenid *vmgenid;
	struct vmclock *vmclock;
	struct irq_line line;
	struct pci_rig rig;
} p;

static void set_line(struct irq_line *line, bool level)
{
	line->level = level;
}

static uint64_t now(void *opaque)
{
	return 123456789;
}

static void event(void *opaque, enum power_event e)
{
}

static void reset(void *opaque)
{
}

static void platform_make(void)
{
	static const struct irq_line_ops ops = {.set = set_line};
	struct power_config power = {.port = 0x600, .event = event, .irq = &p.line, .sci = &p.line, .now = now};
	struct i8042_config keyboard = {.irq = &p.line, .reset = reset};

	p.line = (struct irq_line){.ops = &ops};
	p.pio = power.pio = keyboard.pio = bus_create();
	MUST(p.pio && serial_create(p.pio, 0x3f8, &p.line, -1, -1, d.loop, NULL, &p.serial, NULL) == 0);
	MUST(rtc_create(p.pio, &p.line, d.loop, &p.rtc, NULL) == 0 && power_create(&power, &p.power, NULL) == 0);
	MUST(i8042_create(&keyboard, &p.i8042, NULL) == 0);
	MUST(vmgenid_create(d.ram->memory, DRIVER_RAM_BASE + 4096, &p.vmgenid, NULL) == 0);
	MUST(vmclock_create(d.ram->memory, DRIVER_RAM_BASE, &p.vmclock, NULL) == 0);
	rig_open(&p.rig);
}

static void platform_done(void *opaque)
{
	vmclock_destroy(p.vmclock);
	vmgenid_destroy(p.vmgenid);
	power_destroy(p.power);
	i8042_destroy(p.i8042);
	rtc_destroy(p.rtc);
	serial_destroy(p.serial);
	bus_destroy(p.pio);
	rig_close(&p.rig);
}

/* Every register is read and written once. */
static void platform_use(void)
{
	static const uint16_t ports[][2] = {{0x3f8, 8}, {RTC_PORT, 2}, {0x60, 1}, {0x64, 1}, {0x604, 12}};
	uint8_t value;

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++)
		for (uint16_t at = 0; at < ports[i][1]; at++) {
			bus_read(p.pio, ports[i][0] + at, &value, 1);
			bus_write(p.pio, ports[i][0] + at, &value, 1);
		}
	for (uint8_t i = 0; i < 128; i++) {
		bus_write(p.pio, RTC_PORT, &i, 1);
		bus_read(p.pio, RTC_PORT + 1, &value, 1);
		bus_write(p.pio, RTC_PORT + 1, &value, 1);
	}
	for (unsigned int command = 0; command < 256; command++) {
		value = (uint8_t)command;
		bus_write(p.pio, 0x64, &value, 1);
		bus_write(p.pio, 0x60, &value, 1);
		bus_read(p.pio, 0x60, &value, 1);
	}
	i8042_ctrl_alt_del(p.i8042);
	serial_feed(p.serial, "typed", 5);
	MUST(vmgenid_renew(p.vmgenid, NULL) == 0 && vmclock_disrupt(p.vmclock, NULL) == 0);
	vmclock_publish(p.vmclock, &(struct vmclock_time){.counter_hz = 1000000});
	power_notify(p.power, POWER_NEW_TIME);
	for (unsigned int at = 0; at < 256; at += 4)
		rig_cfg_write(&p.rig, 0, at, 4, rig_cfg(&p.rig, 0, at, 4));
	driver_settle(d.loop);
}

static const struct state_table *table(unsigned int kind, void **object)
{
	static const struct state_table *const tables[] = {
		&serial_state, &rtc_state, &i8042_state, &power_state, &vmgenid_state, &vmclock_state, &pci_bus_state,
	};
	void *const objects[] = {p.serial, p.rtc, p.i8042, p.power, p.vmgenid, p.vmclock, p.rig.bus};

	*object = objects[kind];
	return tables[kind];
}

static void platform_try(unsigned int kind, const uint8_t *record, size_t len)
{
	struct state_buffer again = {0};
	void *object;
	const struct state_table *t;

	platform_make();
	t = table(kind, &object);
	if (state_load(t, object, record, len, NULL) == 0) {
		MUST(state_save(t, object, &again, NULL) == 0);
		platform_use();
	}
	state_buffer_free(&again);
	event_loop_call(d.loop, platform_done, NULL);
}

/* ---- virtio ---- */

static void virtio_try(unsigned int kind, const uint8_t *record, size_t len, const uint8_t *ram, size_t ram_len)
{
	struct state_buffer again = {0};

	memset(d.ram->ram.host, 0, d.ram->ram.size);
	memcpy(d.ram->ram.host, ram, MIN(ram_len, d.ram->ram.size));
	state_devices_make(&d, kind);
	if (virtio_transport_load(d.pci, record, len, NULL) == 0) {
		MUST(virtio_transport_save(d.pci, &again, NULL) == 0);
		state_devices_use(&d);
	}
	state_buffer_free(&again);
	state_devices_drop(&d);
}

/* ---- libFuzzer ---- */

static void make_seeds(void)
{
	for (unsigned int kind = 0; kind < PLATFORM; kind++) {
		void *object;
		const struct state_table *t;

		platform_make();
		t = table(kind, &object);
		MUST(state_save(t, object, &seeds[kinds++], NULL) == 0);
		platform_use();
		power_button(p.power);
		MUST(state_save(t, object, &seeds[kinds++], NULL) == 0);
		event_loop_call(d.loop, platform_done, NULL);
	}
	for (unsigned int kind = 0; kind < state_device_count; kind++) {
		state_devices_make(&d, kind);
		virtio_transport_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		MUST(virtio_transport_save(d.pci, &seeds[kinds++], NULL) == 0);
		virtio_transport_resume(d.pci);
		state_devices_bring_up(&d);
		virtio_transport_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		MUST(virtio_transport_save(d.pci, &seeds[kinds++], NULL) == 0);
	}
	state_devices_drop(&d);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	state_devices_open(&d);
	make_seeds();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int kind;
	size_t len;

	if (size < HEAD)
		return 0;
	kind = data[0] % (PLATFORM + state_device_count);
	len = MIN((size_t)get_le16(data + 1), size - HEAD);
	if (kind < PLATFORM)
		platform_try(kind, data + HEAD, len);
	else
		virtio_try(kind - PLATFORM, data + HEAD, len, data + HEAD + len, size - HEAD - len);
	return 0;
}

/* One time in three a seed is the beginning; a change is mostly of a few bytes, so that names and lengths stay whole. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	const struct state_buffer *from = &seeds[seed / 3 % kinds];
	size_t len, at;

	if ((seed % 3 == 0 || size < HEAD) && from->len + HEAD <= max_size) {
		data[0] = (uint8_t)(seed / 3 % kinds / 2);
		put_le16(data + 1, (uint16_t)from->len);
		memcpy(data + HEAD, from->data, from->len);
		size = from->len + HEAD;
	}
	if (size <= HEAD || seed % 5 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	for (unsigned int i = 0; i <= seed / 7 % 3; i++) {
		at = HEAD + (seed / 11 + i * 7919u) % (size - HEAD);
		len = MIN(1 + seed / 13 % 8, size - at);
		LLVMFuzzerMutate(data + at, len, len);
	}
	return size;
}
