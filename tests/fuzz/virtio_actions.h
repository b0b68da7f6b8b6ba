/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For fuzzers that know their device's requests (those that do not use virtio_fuzz.h): bytes from the input, chains in
 * rings that lie open to nonsense, and the actions that every device must bear.
 */
#pragma once

#include "tests/fuzz/fuzz.h"
#include "tests/unit/virtio_driver.h"

#include <stdio.h>

/* Writes descriptors by hand: the driver's own bookkeeping trusts the table, which lies open here. *next is the one to
 * begin with. */
static inline void add_chain(struct driver_queue *queue, const struct driver_segment *segments, unsigned int count,
			     uint16_t *next)
{
	uint16_t head = *next;

	for (unsigned int i = 0; i < count; i++) {
		uint16_t at = (uint16_t)(head + i) % queue->size;

		queue->desc[at] = (struct vring_desc){
			.addr = segments[i].gpa,
			.len = segments[i].len,
			.flags = (segments[i].in ? VRING_DESC_F_WRITE : 0) | (i + 1 < count ? VRING_DESC_F_NEXT : 0),
			.next = (uint16_t)(at + 1) % queue->size,
		};
	}
	*next = (uint16_t)(head + count) % queue->size;
	driver_add_head(queue, head);
}

/* Cuts [gpa, gpa + len) into segments at places the input chooses. */
static inline unsigned int cut(struct input *in, uint64_t gpa, uint32_t len, bool to_guest, struct driver_segment *out,
			       unsigned int max)
{
	unsigned int n = 0;

	while (len && n < max) {
		uint32_t step = (uint32_t)take(in, 1) & 63;

		step = step && step < len && n + 1 < max ? step : len;
		out[n++] = (struct driver_segment){gpa, step, to_guest};
		gpa += step;
		len -= step;
	}
	return n;
}

/* One of 8 actions: any chain, any byte, kicks, a pause, a reset. */
static inline void act_at_random(struct virtio_driver *driver, struct input *in, unsigned int what, uint16_t *next)
{
	struct virtio_device *device = driver->device;
	unsigned int index = (what >> 4) % device->queue_count;
	struct driver_queue *queue = &driver->queues[index];
	struct driver_segment segments[4];

	switch (what & 7) {
	case 0:
		for (unsigned int i = 0; i < ARRAY_SIZE(segments); i++)
			segments[i] = (struct driver_segment){driver->ram.gpa + take(in, 4) % (driver->ram.size * 2),
							      (uint32_t)take(in, 3), take(in, 1) & 1};
		add_chain(queue, segments, 1 + what / 64 % 4, &next[index]);
		break;
	case 1:
		*(uint8_t *)driver_at(driver, driver->ram.gpa + take(in, 3) % driver->ram.size) = (uint8_t)take(in, 1);
		break;
	case 2:
		pthread_mutex_lock(&device->lock);
		device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
		device->ops->resume(device);
		pthread_mutex_unlock(&device->lock);
		break;
	case 3:
		driver_reset(driver);
		memset(next, 0, VIRTIO_MAX_QUEUES * sizeof(*next));
		if (driver_start(driver, take(in, 8) | (what & 128 ? DRIVER_ALL_FEATURES : 0)) < 0)
			abort();
		break;
	default:
		driver_kick(queue);
		break;
	}
}
