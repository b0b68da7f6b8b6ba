/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI transport: accesses of any width to the BAR and to config space, in any order, and what transport_fuzz.h does in
 * between.
 */
#include "tests/fuzz/transport_fuzz.h"
#include "tests/unit/pci_rig.h"

#include <linux/virtio_pci.h>

#define SLOT PCI_DEVFN(1, 0)
#define COMMON(name) offsetof(struct virtio_pci_common_cfg, name)

static struct pci_rig rig;
static struct event_loop *loop;

static struct virtio_transport *plug(struct virtio_device *device)
{
	struct virtio_transport *pci;

	MUST(virtio_pci_create(device, rig.bus, rig.mmio, &rig.msi, loop, SLOT, &pci, NULL) == 0);
	return pci;
}

static void unplugged(void)
{
	MUST(!rig.attached && !rig.line.level);
}

static void check(void)
{
	MUST(rig.attached <= TRANSPORT_FUZZ_QUEUES);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	rig_open(&rig);
	MUST(event_loop_create(&loop, NULL) == 0);
	transport_fuzz_open();
	return 0;
}

static void bar_write(uint64_t offset, uint64_t value, unsigned int len)
{
	value = htole64(value);
	bus_write(rig.mmio, rig_bar(&rig, SLOT) + offset, &value, len);
}

/* The way to DRIVER_OK, with a queue where the input says; short inputs get there too. */
static void bring_up(struct input *in)
{
	uint64_t ring = DRIVER_RAM_BASE + (take(in, 1) << 8);

	rig_cfg_write(&rig, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bar_write(COMMON(device_status), 3, 1);
	bar_write(COMMON(guest_feature_select), 1, 4);
	bar_write(COMMON(guest_feature), 1, 4);
	bar_write(COMMON(device_status), 11, 1);
	bar_write(COMMON(queue_select), take(in, 1) % 4, 2);
	bar_write(COMMON(queue_desc_lo), ring, 8);
	bar_write(COMMON(queue_avail_lo), ring + take(in, 1) * 8, 8);
	bar_write(COMMON(queue_used_lo), ring + take(in, 1) * 8, 8);
	bar_write(COMMON(queue_enable), 1, 2);
	bar_write(COMMON(device_status), 15, 1);
}

/* Offsets as they come hit nothing: the pages of the structures, and mostly their first bytes. */
static uint64_t bar_offset(struct input *in)
{
	uint64_t page = take(in, 1) % 8, offset = take(in, 1);

	return page << 12 | (offset < 0xf8 ? offset : 0xf00 + offset);
}

static void access_function(struct input *in, uint8_t what)
{
	unsigned int len = 1u << (what >> 4 & 3);
	uint64_t value;

	switch (what & 7) {
	case 0:
		bring_up(in);
		break;
	case 1:
		bus_read(rig.mmio, rig_bar(&rig, SLOT) + bar_offset(in), &value, len);
		break;
	case 2:
	case 3:
		rig_cfg_write(&rig, SLOT, take(in, 1) & ~(MIN(len, 4) - 1), MIN(len, 4), (uint32_t)take(in, 4));
		break;
	case 4:
		rig_cfg(&rig, SLOT, take(in, 1) & ~(MIN(len, 4) - 1), MIN(len, 4));
		break;
	default:
		bar_write(bar_offset(in), take(in, len), len);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct transport_fuzz fuzz = {plug, unplugged, access_function, check};

	transport_fuzz_run(&fuzz, data, size);
	return 0;
}
