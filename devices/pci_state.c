/* SPDX-License-Identifier: Apache-2.0 */
/* See pci.h: the saved state of the bus and of what every function on it has. */
#include "core/state.h"
#include "devices/pci_internal.h"

/* ---- a function ---- */

/* Apart from the function: of config space a part may be a device's own, which is not saved. */
struct pci_function_state {
	uint8_t devfn;
	uint32_t config_len; /* without the zeroes at its end */
	uint8_t config[PCI_CONFIG_SIZE];
	struct pci_bar bars[PCI_BARS];
};

static uint8_t pci_state_ours(const struct pci_function *function, unsigned int at)
{
	return function->ours ? function->ours[at] : 0xff;
}

static int pci_state_collect_function(void *object, void *into, struct err *err)
{
	struct pci_function *function = object;
	struct pci_function_state *state = into;

	pthread_mutex_lock(&function->bus->lock);
	state->devfn = function->devfn;
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		state->config[i] = function->config[i] & pci_state_ours(function, i);
		if (state->config[i])
			state->config_len = i + 1;
	}
	memcpy(state->bars, function->bars, sizeof(state->bars));
	pthread_mutex_unlock(&function->bus->lock);
	return 0;
}

#define BLOCK 64u

/* Whether nothing differs in the block that begins at at: nearly all blocks are zero. */
static bool pci_state_same_block(const struct pci_function *function, const struct pci_function_state *state,
				 unsigned int at)
{
	return at % BLOCK == 0 && memcmp(state->config + at, function->config + at, BLOCK) == 0;
}

/* What the guest cannot write says which device it is. Nobody else touches one that has just come onto the bus. */
static int pci_state_judge_function(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct pci_function *function = object;
	const struct pci_function_state *state = loaded;

	if (state->devfn != function->devfn)
		return err_set(err, -EBADMSG, "it was in PCI slot %02x.%d, and is in %02x.%d here", state->devfn >> 3,
			       state->devfn & 7, function->devfn >> 3, function->devfn & 7);
	if (pci_command(function))
		return err_set(err, -EBUSY, "it is in use");
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t fixed = pci_state_ours(function, i) & (uint8_t)~function->wmask[i];

		if (pci_state_same_block(function, state, i))
			i += BLOCK - 1;
		else if ((state->config[i] ^ function->config[i]) & fixed)
			return err_set(err, -EBADMSG,
				       "another device, or another make of it: config space has 0x%02x at 0x%x, "
				       "not 0x%02x", function->config[i] & fixed, i, state->config[i] & fixed);
	}
	for (unsigned int i = 0; i < PCI_BARS; i++)
		if (state->bars[i].size != function->bars[i].size)
			return err_set(err, -EBADMSG, "BAR %u had %llu bytes, and has %llu here", i,
				       (unsigned long long)state->bars[i].size,
				       (unsigned long long)function->bars[i].size);
	return 0;
}

static int pci_state_function_loaded(void *object, const void *loaded, struct err *err)
{
	struct pci_function *function = object;
	const struct pci_function_state *state = loaded;
	int ret = 0;

	pthread_mutex_lock(&function->bus->lock);
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t writable = function->wmask[i] & pci_state_ours(function, i);

		if (pci_state_same_block(function, state, i))
			i += BLOCK - 1;
		else
			function->config[i] = (uint8_t)((function->config[i] & ~writable) | (state->config[i] & writable));
	}
	for (unsigned int i = 0; i < PCI_BARS && ret == 0; i++)
		ret = pci_bar_load(function, i, state->bars[i].home, state->bars[i].addr, err);
	pthread_mutex_unlock(&function->bus->lock);
	return ret;
}

static const struct state_field bar_fields[] = {
	STATE_UINT(struct pci_bar, size, 1),
	STATE_UINT(struct pci_bar, home, 1),
	STATE_UINT(struct pci_bar, addr, 1),
};
static const struct state_table bar_state = {.name = "bar", .version = 1, .oldest = 1, STATE_FIELDS(bar_fields)};

static const struct state_field function_fields[] = {
	STATE_UINT(struct pci_function_state, devfn, 1),
	STATE_SOME_BYTES(struct pci_function_state, config, 1, config_len),
	STATE_ARRAY(struct pci_function_state, bars, 1, &bar_state),
};

const struct state_table pci_function_state = {
	.name = "pci-function", .version = 1, .oldest = 1, STATE_FIELDS(function_fields),
	STATE_APART(struct pci_function_state), .collect = pci_state_collect_function,
	.judge = pci_state_judge_function, .loaded = pci_state_function_loaded,
};

/* ---- the bus ---- */

/* The guest was told of the windows when it booted; a device that is added must find its place inside them. */
static int pci_state_judge_windows(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct pci_windows *here = &((const struct pci_bus *)object)->config.windows, *there = loaded;

	if (memcmp(here, there, sizeof(*here)) == 0)
		return 0;
	return err_set(err, -EBADMSG, "the windows for PCI lie elsewhere: 64-bit at 0x%llx, %llu GiB, was at 0x%llx, %llu GiB",
		       (unsigned long long)here->mem64, (unsigned long long)here->mem64_size >> 30,
		       (unsigned long long)there->mem64, (unsigned long long)there->mem64_size >> 30);
}

static const struct state_field windows_fields[] = {
	STATE_UINT(struct pci_windows, ecam, 1),
	STATE_UINT(struct pci_windows, mem32, 1),
	STATE_UINT(struct pci_windows, mem32_size, 1),
	STATE_UINT(struct pci_windows, mem64, 1),
	STATE_UINT(struct pci_windows, mem64_size, 1),
	STATE_UINT(struct pci_windows, io, 1),
	STATE_UINT(struct pci_windows, io_size, 1),
};
static const struct state_table windows_state = {
	.name = "pci-windows", .version = 1, .oldest = 1, STATE_FIELDS(windows_fields),
	STATE_IN(struct pci_bus, config.windows), .judge = pci_state_judge_windows,
};

static const struct state_field bus_fields[] = {
	{"windows", STATE_KIND_TABLE, 1, 0, sizeof(struct pci_bus), 1, &windows_state, false, 0},
	STATE_STRUCT(struct pci_bus, bridge, 1, &pci_function_state),
	STATE_UINT(struct pci_bus, config_address, 2),
};

const struct state_table pci_bus_state = {
	.name = "pci-bus", .version = 2, .oldest = 1, STATE_FIELDS(bus_fields),
};
