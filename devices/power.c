/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h: sleep and reset registers of hardware-reduced ACPI (ACPI 6.4 sections 4.8.3.6 and 4.8.3.7), and the
 * generic event device (section 5.6.9), whose line is high until the DSDT's method has read all events.
 *
 * The button and hot plug come from other threads than the guest's accesses. Callbacks are called without the lock.
 */
#include "core/state.h"
#include "devices/platform.h"

#include <pthread.h>

#define SLEEP_TYPE_OFF 5u
#define SLEEP_ENABLE 0x20u
#define EVENT_BUTTON 0x1u
#define EVENT_PCI 0x2u

/* The 32-bit registers from POWER_GED_EVENTS on; a read clears them. */
enum { EVENTS, PCI_UP, PCI_DOWN, REGISTERS };

struct power_state {
	uint32_t registers[REGISTERS];
};

struct power {
	struct power_config config;
	pthread_mutex_t lock;
	struct power_state state;
	bool line;
	void (*ejected)(void *opaque, unsigned int device);
	void *ejected_opaque;
};

/* Lock held. */
static void power_update_line(struct power *power)
{
	bool level = power->state.registers[EVENTS] != 0;

	if (level != power->line)
		irq_line_set(power->config.irq, level);
	power->line = level;
}

static void power_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct power *power = opaque;

	memset(data, 0, len);
	pthread_mutex_lock(&power->lock);
	for (unsigned int i = 0; i < len; i++) {
		uint64_t at = offset + i;

		if (at < POWER_GED_EVENTS)
			continue;
		at -= POWER_GED_EVENTS;
		((uint8_t *)data)[i] = (uint8_t)(power->state.registers[at / 4] >> at % 4 * 8);
		power->state.registers[at / 4] &= ~(0xffu << at % 4 * 8);
	}
	power_update_line(power);
	pthread_mutex_unlock(&power->lock);
}

static void power_eject(struct power *power, uint32_t devices)
{
	void (*ejected)(void *opaque, unsigned int device);
	void *opaque;

	pthread_mutex_lock(&power->lock);
	ejected = power->ejected;
	opaque = power->ejected_opaque;
	pthread_mutex_unlock(&power->lock);
	for (unsigned int device = 0; ejected && device < 32; device++)
		if (devices >> device & 1)
			ejected(opaque, device);
}

static void power_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct power *power = opaque;
	const uint8_t *in = data;
	uint32_t devices = 0;

	for (unsigned int i = 0; i < len; i++) {
		uint64_t at = offset + i;

		if (at == POWER_SLEEP_CONTROL && in[i] & SLEEP_ENABLE && (in[i] >> 2 & 7) == SLEEP_TYPE_OFF)
			power->config.event(power->config.opaque, POWER_OFF);
		if (at == POWER_RESET_REG && in[i] == 1)
			power->config.event(power->config.opaque, POWER_RESET);
		if (at >= POWER_PCI_DOWN)
			devices |= (uint32_t)in[i] << (at - POWER_PCI_DOWN) * 8;
	}
	if (devices)
		power_eject(power, devices);
}

static const struct bus_ops power_ops = {power_read, power_write};

int power_create(const struct power_config *config, struct power **ret, struct err *err)
{
	struct power *power = calloc(1, sizeof(*power));
	int code;

	if (!power)
		return err_sys(err, -ENOMEM, "power");
	power->config = *config;
	pthread_mutex_init(&power->lock, NULL);
	code = bus_add(config->pio, config->port, POWER_PORTS, &power_ops, power, "power", err);
	if (code < 0) {
		pthread_mutex_destroy(&power->lock);
		free(power);
		return code;
	}
	*ret = power;
	return 0;
}

void power_destroy(struct power *power)
{
	if (!power)
		return;
	bus_remove(power->config.pio, power->config.port);
	pthread_mutex_destroy(&power->lock);
	free(power);
}

/* Returns the bits that were set before. */
static uint32_t power_raise_event(struct power *power, uint32_t event, unsigned int reg, uint32_t bits)
{
	uint32_t old;

	pthread_mutex_lock(&power->lock);
	old = power->state.registers[reg] & bits;
	power->state.registers[reg] |= bits;
	power->state.registers[EVENTS] |= event;
	power_update_line(power);
	pthread_mutex_unlock(&power->lock);
	return old;
}

void power_button(struct power *power)
{
	power_raise_event(power, EVENT_BUTTON, EVENTS, 0);
}

void power_pci_added(struct power *power, unsigned int device)
{
	if (device < 32)
		power_raise_event(power, EVENT_PCI, PCI_UP, 1u << device);
}

bool power_pci_remove(struct power *power, unsigned int device)
{
	return device >= 32 || !power_raise_event(power, EVENT_PCI, PCI_DOWN, 1u << device);
}

/* The event stays: the guest finds nothing to do. */
void power_pci_withdraw(struct power *power, unsigned int device)
{
	pthread_mutex_lock(&power->lock);
	if (device < 32)
		power->state.registers[PCI_DOWN] &= ~(1u << device);
	pthread_mutex_unlock(&power->lock);
}

void power_set_ejected(struct power *power, void (*ejected)(void *opaque, unsigned int device), void *opaque)
{
	pthread_mutex_lock(&power->lock);
	power->ejected = ejected;
	power->ejected_opaque = opaque;
	pthread_mutex_unlock(&power->lock);
}

/* ---- saved state ---- */

static int power_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct power_state *state = loaded;

	if (state->registers[EVENTS] & ~(EVENT_BUTTON | EVENT_PCI))
		return err_set(err, -EBADMSG, "events 0x%x: invalid bits", state->registers[EVENTS]);
	return 0;
}

static int power_loaded(void *object, const void *state, struct err *err)
{
	power_update_line(object);
	return 0;
}

static const struct state_field state_fields[] = {
	STATE_UINT_AS("events", struct power_state, registers[EVENTS], 1),
	STATE_UINT_AS("pci_up", struct power_state, registers[PCI_UP], 1),
	STATE_UINT_AS("pci_down", struct power_state, registers[PCI_DOWN], 1),
};

const struct state_table power_state = {
	.name = "power", .version = 1, .oldest = 1, STATE_FIELDS(state_fields),
	STATE_IN(struct power, state), STATE_LOCK(struct power, lock), .judge = power_judge, .loaded = power_loaded,
};
