/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h: the fixed registers of ACPI (ACPI 6.4 section 4.8.3) with the power button, and the generic event
 * device (section 5.6.9), whose line is high until the DSDT's method has read all events.
 *
 * The button is the fixed one, for Linux lets the fixed registers' interrupt alone wake it from its sleep (s2idle). A
 * press while the guest has not enabled it is kept until it does. Then it is also an event of the generic event device:
 * guests whose tables are older than the fixed registers have the button there, and the sleep register.
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
#define EVENT_NOTICES (POWER_NEW_GENERATION | POWER_NEW_TIME)

#define PM1_GLOBAL (1u << 5) /* of the global lock: never signalled, but Linux looks whether it can be enabled */
#define PM1_BUTTON (1u << 8)
#define PM1_ENABLES (PM1_GLOBAL | PM1_BUTTON)
#define PM1_ACPI_MODE 1u
#define PM1_SLEEP_TYPE 0x1c00u
#define TIMER_HZ 3579545u

/* The 32-bit registers from POWER_GED_EVENTS on; a read clears them. */
enum { EVENTS, PCI_UP, PCI_DOWN, REGISTERS };

struct power_state {
	uint32_t registers[REGISTERS];
	uint16_t pm1_status, pm1_enable, pm1_control;
	bool pressed; /* the button, while it was not enabled */
};

struct power {
	struct power_config config;
	pthread_mutex_t lock;
	struct power_state state;
	bool line, sci;
	void (*ejected)(void *opaque, unsigned int device);
	void *ejected_opaque;
};

/* Lock held, as below. */
static void power_update_lines(struct power *power)
{
	bool level = power->state.registers[EVENTS] != 0, sci = power->state.pm1_status & power->state.pm1_enable;

	if (level != power->line)
		irq_line_set(power->config.irq, level);
	power->line = level;
	if (sci != power->sci)
		irq_line_set(power->config.sci, sci);
	power->sci = sci;
}

static uint8_t power_read_event(struct power *power, uint64_t at)
{
	uint32_t *reg = &power->state.registers[at / 4], shift = at % 4 * 8;
	uint8_t value = (uint8_t)(*reg >> shift);

	*reg &= ~(0xffu << shift);
	return value;
}

static uint32_t power_timer(const struct power *power)
{
	return (uint32_t)((unsigned __int128)power->config.now(power->config.opaque) * TIMER_HZ / 1000000000u);
}

/* The fixed registers, as they are read. */
static void power_show_fixed(const struct power *power, uint8_t fixed[POWER_PORTS - POWER_PM1_STATUS])
{
	const struct power_state *state = &power->state;

	put_le16(fixed, state->pm1_status);
	put_le16(fixed + (POWER_PM1_ENABLE - POWER_PM1_STATUS), state->pm1_enable);
	put_le16(fixed + (POWER_PM1_CONTROL - POWER_PM1_STATUS), state->pm1_control | PM1_ACPI_MODE);
	put_le32(fixed + (POWER_PM1_TIMER - POWER_PM1_STATUS), power_timer(power));
}

static void power_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	uint8_t fixed[POWER_PORTS - POWER_PM1_STATUS] = {0}, *out = data;
	struct power *power = opaque;

	memset(data, 0, len);
	pthread_mutex_lock(&power->lock);
	if (offset + len > POWER_PM1_STATUS)
		power_show_fixed(power, fixed);
	for (unsigned int i = 0; i < len; i++) {
		uint64_t at = offset + i;

		if (at >= POWER_PM1_STATUS)
			out[i] = fixed[at - POWER_PM1_STATUS];
		else if (at >= POWER_GED_EVENTS)
			out[i] = power_read_event(power, at - POWER_GED_EVENTS);
	}
	power_update_lines(power);
	pthread_mutex_unlock(&power->lock);
}

static void power_write_enable(struct power *power, uint16_t value)
{
	power->state.pm1_enable = value & PM1_ENABLES;
	if (power->state.pressed && value & PM1_BUTTON) {
		power->state.pressed = false;
		power->state.pm1_status |= PM1_BUTTON;
	}
}

static void power_write_fixed(struct power *power, uint64_t at, uint8_t value)
{
	struct power_state *state = &power->state;
	unsigned int shift = at % 2 * 8;
	uint16_t others = (uint16_t)(0xff00u >> shift), bits = (uint16_t)(value << shift);

	pthread_mutex_lock(&power->lock);
	if (at < POWER_PM1_ENABLE)
		state->pm1_status &= ~bits;
	else if (at < POWER_PM1_CONTROL)
		power_write_enable(power, (uint16_t)((state->pm1_enable & others) | bits));
	else if (at < POWER_PM1_CONTROL + 2)
		state->pm1_control = ((state->pm1_control & others) | bits) & PM1_SLEEP_TYPE;
	power_update_lines(power);
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

		/* The older register has the layout of the newer one's second byte. */
		if ((at == POWER_SLEEP_CONTROL || at == POWER_PM1_CONTROL + 1) && in[i] & SLEEP_ENABLE &&
		    (in[i] >> 2 & 7) == SLEEP_TYPE_OFF)
			power->config.event(power->config.opaque, POWER_OFF);
		if (at == POWER_RESET_REG && in[i] == 1)
			power->config.event(power->config.opaque, POWER_RESET);
		if (at >= POWER_PM1_STATUS)
			power_write_fixed(power, at, in[i]);
		else if (at >= POWER_PCI_DOWN)
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

/* Lock held. Returns the bits that were set before. */
static uint32_t power_raise_event(struct power *power, uint32_t event, unsigned int reg, uint32_t bits)
{
	uint32_t old = power->state.registers[reg] & bits;

	power->state.registers[reg] |= bits;
	power->state.registers[EVENTS] |= event;
	power_update_lines(power);
	return old;
}

static uint32_t power_raise_pci(struct power *power, unsigned int reg, unsigned int device)
{
	uint32_t old;

	pthread_mutex_lock(&power->lock);
	old = power_raise_event(power, EVENT_PCI, reg, 1u << device);
	pthread_mutex_unlock(&power->lock);
	return old;
}

void power_button(struct power *power)
{
	pthread_mutex_lock(&power->lock);
	if (power->state.pm1_enable & PM1_BUTTON) {
		power->state.pm1_status |= PM1_BUTTON;
		power_update_lines(power);
	} else {
		power->state.pressed = true;
		power_raise_event(power, EVENT_BUTTON, EVENTS, 0);
	}
	pthread_mutex_unlock(&power->lock);
}

void power_notify(struct power *power, enum power_notice notice)
{
	pthread_mutex_lock(&power->lock);
	power_raise_event(power, notice & EVENT_NOTICES, EVENTS, 0);
	pthread_mutex_unlock(&power->lock);
}

void power_pci_added(struct power *power, unsigned int device)
{
	if (device < 32)
		power_raise_pci(power, PCI_UP, device);
}

bool power_pci_remove(struct power *power, unsigned int device)
{
	return device >= 32 || !power_raise_pci(power, PCI_DOWN, device);
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

	if (state->registers[EVENTS] & ~(EVENT_BUTTON | EVENT_PCI | EVENT_NOTICES))
		return err_set(err, -EBADMSG, "events 0x%x: invalid bits", state->registers[EVENTS]);
	if (state->pm1_status & ~PM1_BUTTON || state->pm1_enable & ~PM1_ENABLES || state->pm1_control & ~PM1_SLEEP_TYPE)
		return err_set(err, -EBADMSG, "a fixed register has invalid bits");
	return 0;
}

static int power_loaded(void *object, const void *state, struct err *err)
{
	power_update_lines(object);
	return 0;
}

static const struct state_field state_fields[] = {
	STATE_UINT_AS("events", struct power_state, registers[EVENTS], 1),
	STATE_UINT_AS("pci_up", struct power_state, registers[PCI_UP], 1),
	STATE_UINT_AS("pci_down", struct power_state, registers[PCI_DOWN], 1),
	STATE_UINT(struct power_state, pm1_status, 2),
	STATE_UINT(struct power_state, pm1_enable, 2),
	STATE_UINT(struct power_state, pm1_control, 2),
	STATE_BOOL(struct power_state, pressed, 2),
};

const struct state_table power_state = {
	.name = "power", .version = 2, .oldest = 1, STATE_FIELDS(state_fields),
	STATE_IN(struct power, state), STATE_LOCK(struct power, lock), .judge = power_judge, .loaded = power_loaded,
};
