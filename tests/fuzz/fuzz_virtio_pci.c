/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI transport: accesses of any width to the BAR and to config space, in any order, with interrupts, config
 * changes, pauses and new functions in between. The device behind it checks that its life is in order and pops from
 * whatever rings it is started with.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/pci_rig.h"
#include "tests/unit/virtio_driver.h"

#include <linux/virtio_pci.h>
#include <stdio.h>

#define SLOT PCI_DEVFN(1, 0)
#define COMMON(name) offsetof(struct virtio_pci_common_cfg, name)

static struct {
	struct virtio_device device;
	bool active, running;
} checker;

static struct pci_rig rig;
static struct virtio_transport *pci;
static struct virtio_driver *memory;
static struct event_loop *loop;

static void config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	static const uint8_t config[12];

	virtio_config_copy(config, sizeof(config), offset, data, len);
}

static void config_write(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len)
{
	MUST(offset + len <= device->config_size);
}

static void pop_some(struct virtio_device *device)
{
	static struct virtq_chain chain;

	for (unsigned int i = 0; i < device->queue_count; i++) {
		struct virtqueue *vq = &device->queues[i];

		for (unsigned int n = 0; vq->setup.enabled && n < 8 && virtqueue_pop(vq, &chain) == 1; n++)
			virtqueue_push(vq, &chain, chain.in_bytes);
		if (vq->setup.enabled)
			virtqueue_notify(vq);
	}
}

static int activate(struct virtio_device *device, struct err *err)
{
	MUST(!checker.active && !(device->features & ~device->offered) && virtio_has(device, VIRTIO_F_VERSION_1));
	checker.active = checker.running = true;
	MUST(device->transport->call_fd(device, 0) >= 0);
	pop_some(device);
	return 0;
}

static void reset(struct virtio_device *device)
{
	MUST(checker.active);
	checker.active = checker.running = false;
}

static int drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	MUST(checker.active && checker.running);
	checker.running = false;
	return 0;
}

static void resume(struct virtio_device *device)
{
	MUST(checker.active && !checker.running);
	checker.running = true;
	pop_some(device);
}

static void destroy(struct virtio_device *device)
{
}

static const struct virtio_device_ops ops = {
	.config_read = config_read,
	.config_write = config_write,
	.activate = activate,
	.reset = reset,
	.drain = drain,
	.resume = resume,
	.destroy = destroy,
};

static void plug(void)
{
	MUST(virtio_pci_create(&checker.device, rig.bus, rig.mmio, &rig.msi, loop, SLOT, &pci, NULL) == 0);
}

static void unplug(void)
{
	virtio_transport_destroy(pci);
	MUST(!checker.active && !rig.attached && !rig.line.level);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const uint16_t sizes[] = {8, 64, 1024};

	rig_open(&rig);
	memory = driver_create(KIB(256), false);
	MUST(event_loop_create(&loop, NULL) == 0);
	checker.device.config_size = 12;
	MUST(virtio_device_init(&checker.device, &ops, "checker0", 42, 3, sizes, memory->memory, NULL, NULL) == 0);
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

static void act(struct input *in)
{
	uint8_t what = (uint8_t)take(in, 1);
	unsigned int len = 1u << (what >> 4 & 3), offset;
	uint64_t value;

	switch (what & 15) {
	case 0:
		bring_up(in);
		break;
	case 1:
		if (what & 16)
			MUST(virtio_transport_drain(pci, VIRTIO_NO_DEADLINE, NULL) == 0);
		else
			virtio_transport_resume(pci);
		break;
	case 2:
		unplug();
		plug();
		break;
	case 3:
		checker.device.transport->notify_queue(&checker.device, what >> 4 & 1);
		break;
	case 4:
		pthread_mutex_lock(&checker.device.lock);
		virtio_device_config_changed(&checker.device);
		pthread_mutex_unlock(&checker.device.lock);
		break;
	case 5:
		virtio_device_broken(&checker.device, "told so");
		break;
	case 6:
		offset = (unsigned int)take(in, 2) % (KIB(256) - 8);
		value = take(in, 8);
		memcpy(driver_at(memory, DRIVER_RAM_BASE + offset), &value, 8);
		break;
	case 7:
		bus_read(rig.mmio, rig_bar(&rig, SLOT) + bar_offset(in), &value, len);
		break;
	case 8:
	case 9:
		rig_cfg_write(&rig, SLOT, take(in, 1) & ~(MIN(len, 4) - 1), MIN(len, 4), (uint32_t)take(in, 4));
		break;
	case 10:
		rig_cfg(&rig, SLOT, take(in, 1) & ~(MIN(len, 4) - 1), MIN(len, 4));
		break;
	default:
		bar_write(bar_offset(in), take(in, len), len);
	}
	MUST(rig.attached <= 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	plug();
	while (in.left)
		act(&in);
	unplug();
	memset(memory->ram.host, 0, memory->ram.size);
	return 0;
}
