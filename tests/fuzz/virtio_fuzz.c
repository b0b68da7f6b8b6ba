/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_fuzz.h. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/virtio_fuzz.h"

#include "core/irq.h"

#define SEGMENTS 8u

struct run {
	const struct virtio_fuzz *fuzz;
	struct virtio_driver *driver;
	struct input in;
	uint64_t arena;
};

static uint64_t in_arena(struct run *run)
{
	return run->arena + take(&run->in, 2) % VIRTIO_FUZZ_ARENA;
}

/* Mostly a buffer; or a ring, the edges of memory, anything. */
static uint64_t any_address(struct run *run, const struct driver_queue *queue)
{
	const struct guest_region *ram = &run->driver->ram;

	switch (take(&run->in, 1) % 8) {
	case 0:
		return ram->gpa + ram->size - take(&run->in, 2);
	case 1:
		return ram->gpa - 8 + take(&run->in, 1);
	case 2:
		return queue->vq->setup.desc + take(&run->in, 1) * 4;
	case 3:
		return queue->vq->setup.avail + take(&run->in, 1);
	case 4:
		return queue->vq->setup.used + take(&run->in, 1);
	case 5:
		return take(&run->in, 8);
	default:
		return in_arena(run);
	}
}

/* One descriptor, in the ring's table or where an indirect table may be. */
static void write_descriptor(struct run *run, struct driver_queue *queue)
{
	uint8_t where = (uint8_t)take(&run->in, 1);
	struct vring_desc desc = {
		.addr = htole64(any_address(run, queue)),
		.len = htole32((uint32_t)take(&run->in, where & 64 ? 4 : 1)),
		.flags = htole16((uint16_t)take(&run->in, 1) & 7),
		.next = htole16((uint16_t)take(&run->in, 1)),
	};

	if (where & 128)
		memcpy(driver_at(run->driver, run->arena + (where & 63) * sizeof(desc)), &desc, sizeof(desc));
	else
		queue->desc[(where & 63) % queue->size] = desc;
}

/* A chain as a sound driver makes it, whose contents are what lies in the arena. */
static void add_chain(struct run *run, struct driver_queue *queue)
{
	uint8_t shape = (uint8_t)take(&run->in, 1);
	unsigned int out = shape & 3, in = shape >> 2 & 3;
	struct driver_segment segments[SEGMENTS];

	for (unsigned int i = 0; i < out + in; i++) {
		uint64_t gpa = in_arena(run);
		uint32_t room = (uint32_t)(run->arena + VIRTIO_FUZZ_ARENA - gpa);

		segments[i] = (struct driver_segment){gpa, (uint32_t)take(&run->in, shape & 32 ? 2 : 1) % room + 1, i >= out};
		if (segments[i].len > room)
			segments[i].len = room;
	}
	if (out + in)
		driver_add(queue, segments, out + in, shape & 16 && queue->vq->indirect);
}

static void access_config(struct run *run)
{
	struct virtio_device *device = run->driver->device;
	unsigned int offset = (unsigned int)take(&run->in, 1), len = 1u << take(&run->in, 1) % 4;
	uint64_t value = take(&run->in, len);

	pthread_mutex_lock(&device->lock);
	if (device->ops->config_read)
		device->ops->config_read(device, offset, &(uint64_t){0}, len);
	if (device->ops->config_write && offset + len <= device->config_size)
		device->ops->config_write(device, offset, &value, len);
	pthread_mutex_unlock(&device->lock);
}

static void fill_arena(struct run *run)
{
	uint64_t gpa = in_arena(run), len = 1 + take(&run->in, 1) % 64;

	for (; len && gpa < run->arena + VIRTIO_FUZZ_ARENA; len--, gpa++)
		*(uint8_t *)driver_at(run->driver, gpa) = (uint8_t)take(&run->in, 1);
}

static void settle(struct run *run)
{
	if (run->fuzz->settle)
		run->fuzz->settle(run->fuzz->opaque);
}

static void pause_device(struct run *run)
{
	struct virtio_device *device = run->driver->device;

	pthread_mutex_lock(&device->lock);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	device->ops->resume(device);
	pthread_mutex_unlock(&device->lock);
}

static void start(struct run *run)
{
	driver_reset(run->driver);
	if (driver_start(run->driver, take(&run->in, 1) & 1 ? take(&run->in, 8) : DRIVER_ALL_FEATURES) < 0)
		abort();
	run->arena = driver_alloc(run->driver, VIRTIO_FUZZ_ARENA, 4096);
}

static void act(struct run *run)
{
	uint8_t what = (uint8_t)take(&run->in, 1);
	struct driver_queue *queue = &run->driver->queues[(what >> 4) % run->driver->device->queue_count];
	uint16_t head;
	uint32_t len;

	switch (what & 15) {
	case 0:
		access_config(run);
		break;
	case 1:
		pause_device(run);
		break;
	case 2:
		start(run);
		break;
	case 3:
		settle(run);
		break;
	case 4:
		queue->avail_idx = (uint16_t)take(&run->in, 2);
		break;
	case 5:
		queue->avail->flags = htole16((uint16_t)take(&run->in, 1));
		*driver_used_event(queue) = htole16((uint16_t)take(&run->in, 2));
		break;
	case 6:
		if (run->fuzz->poke)
			run->fuzz->poke(run->fuzz->opaque, (uint8_t)take(&run->in, 1));
		break;
	case 7:
		fill_arena(run);
		break;
	case 8:
	case 9:
		write_descriptor(run, queue);
		break;
	case 10:
		driver_add_head(queue, (uint16_t)take(&run->in, 1));
		break;
	case 11:
		while (driver_used(queue, &head, &len) && queue->used_idx & 63) {
		}
		break;
	case 12:
		driver_kick_always(queue);
		break;
	default:
		add_chain(run, queue);
		driver_kick(queue);
	}
}

void virtio_fuzz_run(const struct virtio_fuzz *fuzz, const uint8_t *data, size_t size)
{
	struct run run = {.fuzz = fuzz, .driver = fuzz->driver, .in = {data, size}};

	start(&run);
	while (run.in.left)
		act(&run);
	settle(&run);
	driver_reset(run.driver);
}
