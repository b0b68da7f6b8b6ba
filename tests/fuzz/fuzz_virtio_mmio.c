/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MMIO transport: accesses of any width to the page of registers, in any order, with interrupts, config changes, pauses,
 * moves to another machine and new devices in between. The device behind it checks that its life is in order and pops from
 * whatever rings it is started with.
 */
#include "core/bus.h"
#include "core/irq.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/virtio_driver.h"

#include <linux/virtio_mmio.h>
#include <stdio.h>

#define AT 0xe0101000ull
#define QUEUES 3u

static struct {
	struct virtio_device device;
	bool active, running;
} checker;

static struct bus *bus;
static struct virtio_transport *mmio;
static struct virtio_driver *memory;
static unsigned int attached, wired;

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
	pop_some(device);
	return 0;
}

static int prepare(struct virtio_device *device, struct err *err)
{
	MUST(!checker.active);
	checker.active = true;
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
	.prepare = prepare,
	.reset = reset,
	.drain = drain,
	.resume = resume,
	.destroy = destroy,
};

static int attach(void *opaque, const struct bus_kick *kick)
{
	MUST(kick->len == 4 && kick->value < QUEUES && kick->fd == checker.device.queues[kick->value].kick_fd);
	attached++;
	return 0;
}

static void detach(void *opaque, const struct bus_kick *kick)
{
	attached--;
}

static int wire(struct irq_line *line, int trigger_fd, int resample_fd, struct err *err)
{
	wired++;
	return 0;
}

static void unwire(struct irq_line *line, int trigger_fd)
{
	wired--;
}

static void plug(void)
{
	static const struct irq_line_ops line_ops = {.wire = wire, .unwire = unwire};
	const struct virtio_mmio_config config = {.mmio = bus, .addr = AT, .slot = 1, .line = {.ops = &line_ops}};

	MUST(virtio_mmio_create(&checker.device, &config, &mmio, NULL) == 0);
}

static void unplug(void)
{
	virtio_transport_destroy(mmio);
	MUST(!checker.active && !attached && !wired);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct bus_eventfd_ops hypervisor = {attach, detach};
	static const uint16_t sizes[QUEUES] = {8, 64, 1024};

	bus = bus_create();
	MUST(bus && bus_set_eventfd_ops(bus, &hypervisor, NULL, NULL) == 0);
	memory = driver_create(KIB(256), false);
	checker.device.config_size = 12;
	MUST(virtio_device_init(&checker.device, &ops, "checker0", 42, QUEUES, sizes, memory->memory, NULL, NULL) == 0);
	return 0;
}

static void put(uint64_t offset, uint64_t value, unsigned int len)
{
	value = htole64(value);
	bus_write(bus, AT + offset, &value, len);
}

/* The way to DRIVER_OK, with a queue where the input says; short inputs get there too. */
static void bring_up(struct input *in)
{
	uint64_t ring = DRIVER_RAM_BASE + (take(in, 1) << 8);

	put(VIRTIO_MMIO_STATUS, 3, 4);
	put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1, 4);
	put(VIRTIO_MMIO_DRIVER_FEATURES, 1, 4);
	put(VIRTIO_MMIO_STATUS, 11, 4);
	put(VIRTIO_MMIO_QUEUE_SEL, take(in, 1) % 4, 4);
	put(VIRTIO_MMIO_QUEUE_DESC_LOW, ring, 4);
	put(VIRTIO_MMIO_QUEUE_AVAIL_LOW, ring + take(in, 1) * 8, 4);
	put(VIRTIO_MMIO_QUEUE_USED_LOW, ring + take(in, 1) * 8, 4);
	put(VIRTIO_MMIO_QUEUE_READY, 1, 4);
	put(VIRTIO_MMIO_STATUS, 15, 4);
}

/* To another machine with the same memory. */
static void move(void)
{
	struct state_buffer state = {0};

	MUST(virtio_transport_drain(mmio, VIRTIO_NO_DEADLINE, NULL) == 0);
	MUST(virtio_transport_save(mmio, &state, NULL) == 0);
	unplug();
	plug();
	/* A ring may have changed since, and its device then only ends. */
	if (virtio_transport_load(mmio, state.data, state.len, NULL) < 0) {
		MUST(!checker.active);
		checker.active = checker.device.active;
		unplug();
		plug();
	}
	state_buffer_free(&state);
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
			MUST(virtio_transport_drain(mmio, VIRTIO_NO_DEADLINE, NULL) == 0);
		else
			virtio_transport_resume(mmio);
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
		bus_read(bus, AT + take(in, 2) % 0x1000, &value, len);
		break;
	case 8:
		move();
		break;
	case 9:
		put(VIRTIO_MMIO_QUEUE_READY, take(in, 1) % 3, 4);
		break;
	case 10:
	case 11:
		put(take(in, 1), take(in, len), len);
		break;
	default:
		put(take(in, 1) & ~3u, take(in, what & 16 ? 1 : 4), 4);
	}
	MUST(attached <= QUEUES && wired == 1 && checker.active == checker.device.active);
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
