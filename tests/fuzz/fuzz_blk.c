/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio disk driven by nonsense. An input is a list of actions: requests that are sound or nearly so, chains of any
 * descriptors, bytes thrown into the rings, kicks, config writes, rests and resets. Nothing outside guest memory and
 * the image may be touched, the image keeps its size, and the device always comes to rest.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/virtio_actions.h"

#include <linux/virtio_blk.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define RAM KIB(512)
#define IMAGE KIB(128)
#define ACTIONS 48

static int image_fd;
static char image_path[64];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	image_fd = memfd_create("image", MFD_CLOEXEC);
	snprintf(image_path, sizeof(image_path), "/proc/self/fd/%d", image_fd);
	return ftruncate(image_fd, IMAGE);
}

/* A request as the specification wants it, but for what its numbers say. */
static void add_request(struct virtio_driver *driver, struct driver_queue *queue, struct input *in, uint16_t *next)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
					 VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE,
					 0xffff};
	uint64_t area = driver->ram.gpa + RAM - KIB(128) + take(in, 2) % KIB(64), shape = take(in, 1);
	struct virtio_blk_outhdr header = {.type = types[take(in, 1) % ARRAY_SIZE(types)], .sector = take(in, 1)};
	bool reads = header.type == VIRTIO_BLK_T_IN || header.type == VIRTIO_BLK_T_GET_ID;
	struct virtio_blk_discard_write_zeroes range = {take(in, 1), (uint32_t)take(in, 1), (uint32_t)take(in, 1) & 3};
	struct driver_segment segments[16] = {{area, sizeof(header), false}};
	uint32_t len = header.type >= VIRTIO_BLK_T_DISCARD ? sizeof(range) : (uint32_t)(take(in, 1) * 512);
	unsigned int n = 1;

	if (shape & 128)
		header.sector = take(in, 8);
	memcpy(driver_at(driver, area), &header, sizeof(header));
	memcpy(driver_at(driver, area + 32), &range, sizeof(range));
	if (shape & 1)
		segments[n++] = (struct driver_segment){area + 32, len, reads};
	for (; shape & 2 && n < 14; n++)
		segments[n] = (struct driver_segment){area + take(in, 1) * 64, 1 + (uint32_t)take(in, 1) * 4, reads};
	if (!(shape & 4))
		segments[n++] = (struct driver_segment){area + 24, 1, true};
	add_chain(queue, segments, n, next);
}

static void act(struct virtio_driver *driver, struct input *in, uint16_t *next)
{
	struct virtio_device *device = driver->device;
	uint64_t what = take(in, 1);
	struct driver_queue *queue = &driver->queues[(what >> 4) % device->queue_count];
	struct driver_segment segments[4];
	uint8_t byte;

	switch (what & 15) {
	default:
		add_request(driver, queue, in, next);
		break;
	case 8:
		for (unsigned int i = 0; i < ARRAY_SIZE(segments); i++)
			segments[i] = (struct driver_segment){driver->ram.gpa + take(in, 4) % (RAM * 2),
							      (uint32_t)take(in, 3), take(in, 1) & 1};
		add_chain(queue, segments, 1 + what / 64, next);
		break;
	case 9:
		memset(driver_at(driver, driver->ram.gpa + take(in, 3) % RAM), (int)take(in, 1), 1);
		break;
	case 10:
	case 11:
		driver_kick(queue);
		break;
	case 12:
		byte = (uint8_t)take(in, 1);
		pthread_mutex_lock(&device->lock);
		device->ops->config_write(device, (unsigned int)take(in, 1), &byte, 1);
		pthread_mutex_unlock(&device->lock);
		break;
	case 13:
		pthread_mutex_lock(&device->lock);
		device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
		device->ops->resume(device);
		pthread_mutex_unlock(&device->lock);
		break;
	case 14:
		driver_reset(driver);
		if (driver_start(driver, (uint64_t)take(in, 8)) < 0)
			abort();
		*next = 0;
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint64_t shape = take(&in, 1);
	struct virtio_blk_options options = {
		.id = "disk0", .path = image_path, .readonly = shape & 1, .queues = 1 + (shape >> 1 & 1)};
	struct virtio_driver *driver = driver_create(RAM, false);
	struct virtio_device *device;
	uint16_t next = 0;
	struct stat st;

	if (virtio_blk_create(&options, driver->memory, NULL, &device, NULL) < 0 ||
	    driver_attach(driver, device, shape & 4 ? DRIVER_ALL_FEATURES : take(&in, 8)) < 0)
		abort();
	for (unsigned int i = 0; in.left && i < ACTIONS; i++)
		act(driver, &in, &next);
	for (unsigned int i = 0; i < device->queue_count; i++)
		driver_kick_always(&driver->queues[i]);
	driver_destroy(driver);
	if (fstat(image_fd, &st) || st.st_size != (off_t)IMAGE)
		abort();
	return 0;
}
