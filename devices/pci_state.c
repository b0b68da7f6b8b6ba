/* SPDX-License-Identifier: Apache-2.0 */
/* See pci.h: the saved state of the bus and of what every function on it has. */
#include "core/state.h"
#include "devices/pci_internal.h"

/* ---- a function ---- */

struct bar_image {
	uint64_t size, home, addr;
};

struct function_image {
	uint8_t devfn;
	uint32_t config_len; /* without the zeroes at its end */
	uint8_t config[PCI_CONFIG_SIZE];
	struct bar_image bars[PCI_BARS];
};

static uint8_t pci_state_ours(const struct pci_function *function, unsigned int at)
{
	return function->ours ? function->ours[at] : 0xff;
}

static int pci_state_fill_function(void *object, void *into, struct err *err)
{
	struct pci_function *function = object;
	struct function_image *image = into;

	pthread_mutex_lock(&function->bus->lock);
	image->devfn = function->devfn;
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		image->config[i] = function->config[i] & pci_state_ours(function, i);
		if (image->config[i])
			image->config_len = i + 1;
	}
	for (unsigned int i = 0; i < PCI_BARS; i++)
		image->bars[i] = (struct bar_image){function->bars[i].size, function->bars[i].home,
						    function->bars[i].addr};
	pthread_mutex_unlock(&function->bus->lock);
	return 0;
}

/* Takes over what the guest may write; the rest says which device it is. */
static int pci_state_load_config(struct pci_function *function, const uint8_t *config, struct err *err)
{
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t writable = function->wmask[i] & pci_state_ours(function, i),
		fixed = pci_state_ours(function, i) & (uint8_t)~writable;

		if ((config[i] ^ function->config[i]) & fixed)
			return err_set(err, -EBADMSG,
				       "another device, or another make of it: config space has 0x%02x at 0x%x, "
				       "not 0x%02x", function->config[i] & fixed, i, config[i] & fixed);
	}
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t writable = function->wmask[i] & pci_state_ours(function, i);

		function->config[i] = (uint8_t)((function->config[i] & ~writable) | (config[i] & writable));
	}
	return 0;
}

static int pci_state_load_bar(struct pci_function *function, unsigned int index, const struct bar_image *image,
			      struct err *err)
{
	if (image->size != function->bars[index].size)
		return err_set(err, -EBADMSG, "BAR %u had %llu bytes, and has %llu here", index,
			       (unsigned long long)image->size, (unsigned long long)function->bars[index].size);
	return pci_bar_load(function, index, image->home, image->addr, err);
}

static int pci_state_apply_function(void *object, const void *from, uint32_t version, struct err *err)
{
	struct pci_function *function = object;
	const struct function_image *image = from;
	int ret;

	if (image->devfn != function->devfn)
		return err_set(err, -EBADMSG, "it was in PCI slot %02x.%d, and is in %02x.%d here", image->devfn >> 3,
			       image->devfn & 7, function->devfn >> 3, function->devfn & 7);
	pthread_mutex_lock(&function->bus->lock);
	ret = pci_command(function) ? err_set(err, -EBUSY, "it is in use")
	: pci_state_load_config(function, image->config, err);
	for (unsigned int i = 0; i < PCI_BARS && ret == 0; i++)
		ret = pci_state_load_bar(function, i, &image->bars[i], err);
	pthread_mutex_unlock(&function->bus->lock);
	return ret;
}

static const struct state_field bar_fields[] = {
	STATE_UINT(struct bar_image, size, 1),
	STATE_UINT(struct bar_image, home, 1),
	STATE_UINT(struct bar_image, addr, 1),
};
static const struct state_table bar_state = {.name = "bar", .version = 1, .oldest = 1, STATE_FIELDS(bar_fields)};

static const struct state_field function_fields[] = {
	STATE_UINT(struct function_image, devfn, 1),
	STATE_SOME_BYTES(struct function_image, config, 1, config_len),
	STATE_ARRAY(struct function_image, bars, 1, &bar_state),
};

const struct state_table pci_function_state = {
	.name = "pci-function", .version = 1, .oldest = 1, STATE_FIELDS(function_fields),
	.image = sizeof(struct function_image), .fill = pci_state_fill_function, .apply = pci_state_apply_function,
};

/* ---- the bus ---- */

static int pci_state_fill_windows(void *object, void *into, struct err *err)
{
	*(struct pci_windows *)into = ((struct pci_bus *)object)->config.windows;
	return 0;
}

/* The guest was told of the windows when it booted; a device that is added must find its place inside them. */
static int pci_state_apply_windows(void *object, const void *from, uint32_t version, struct err *err)
{
	const struct pci_windows *here = &((struct pci_bus *)object)->config.windows, *there = from;

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
	.image = sizeof(struct pci_windows), .fill = pci_state_fill_windows, .apply = pci_state_apply_windows,
};

static const struct state_field bus_fields[] = {
	{"windows", STATE_KIND_TABLE, 1, 0, sizeof(struct pci_bus), 1, &windows_state, false, 0},
	STATE_STRUCT(struct pci_bus, bridge, 1, &pci_function_state),
};

const struct state_table pci_bus_state = {
	.name = "pci-bus", .version = 1, .oldest = 1, STATE_FIELDS(bus_fields),
};
