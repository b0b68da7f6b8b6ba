/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MMIO transport: accesses of any width to the page of registers, in any order, and what transport_fuzz.h does in between.
 */
#include "core/bus.h"
#include "core/irq.h"
#include "tests/fuzz/transport_fuzz.h"

#include <linux/virtio_mmio.h>

#define AT 0xe0101000ull

static struct bus *bus;
static const struct virtio_device *device;
static unsigned int attached, wired;

static int attach(void *opaque, const struct bus_kick *kick)
{
	MUST(kick->len == 4 && kick->value < TRANSPORT_FUZZ_QUEUES && kick->fd == device->queues[kick->value].kick_fd);
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

static struct virtio_transport *plug(struct virtio_device *of)
{
	static const struct irq_line_ops line_ops = {.wire = wire, .unwire = unwire};
	const struct virtio_mmio_config config = {.mmio = bus, .addr = AT, .slot = 1, .line = {.ops = &line_ops}};
	struct virtio_transport *mmio;

	MUST(virtio_mmio_create(of, &config, &mmio, NULL) == 0);
	return mmio;
}

static void unplugged(void)
{
	MUST(!attached && !wired);
}

static void check(void)
{
	MUST(attached <= TRANSPORT_FUZZ_QUEUES && wired == 1);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct bus_eventfd_ops hypervisor = {attach, detach};

	bus = bus_create();
	MUST(bus && bus_set_eventfd_ops(bus, &hypervisor, NULL, NULL) == 0);
	device = transport_fuzz_open();
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

static void access_page(struct input *in, uint8_t what)
{
	unsigned int len = 1u << (what >> 4 & 3);
	uint64_t value;

	switch (what & 7) {
	case 0:
		bring_up(in);
		break;
	case 1:
		bus_read(bus, AT + take(in, 2) % 0x1000, &value, len);
		break;
	case 2:
		put(VIRTIO_MMIO_QUEUE_READY, take(in, 1) % 3, 4);
		break;
	case 3:
	case 4:
		put(take(in, 1), take(in, len), len);
		break;
	default:
		put(take(in, 1) & ~3u, take(in, what & 16 ? 1 : 4), 4);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct transport_fuzz fuzz = {plug, unplugged, access_page, check};

	transport_fuzz_run(&fuzz, data, size);
	return 0;
}
