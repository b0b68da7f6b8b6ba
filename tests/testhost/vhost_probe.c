/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio's vhost on a real kernel, without a guest: run by tests/testhost/cases/vhost.sh.
 *
 *	vhost_probe TAP    receives frames by vhost-net while it is tracked what is written, and compares all of memory with
 *	                   what it was before; moves to another vhost in between; halts and runs the kernel's vsock
 *
 * Prints "name=value" words and exits 0, or says what is wrong and exits 1.
 */
#include "core/bitmap.h"
#include "devices/virtio/net_internal.h"
#include "tests/unit/virtio_driver.h"

#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/socket.h>

#define RAM MIB(16)
#define PAGES (RAM / 4096)
#define PROTOCOL 0x88b5 /* a local experiment's */
#define FRAME 1000u
#define BATCH 40u

static struct virtio_driver *driver;
static struct virtio_device *device;
static struct driver_queue *rx;
static struct dirty_set set;
static struct err err;

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	printf("%s: %s\n", what, err.text);
	exit(1);
}

static void make_net(const char *tap)
{
	const struct virtio_net_options options = {
		.id = "net0", .machine = "vm", .tap = tap, .queues = 1, .vhost = true, .dirty = &set,
	};

	need(virtio_net_create(&options, driver->memory, NULL, &device, &err) == 0, "virtio_net_create");
}

static int open_packet(const char *name)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htobe16(PROTOCOL), .sll_ifindex = (int)if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htobe16(PROTOCOL));

	need(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "a packet socket");
	return fd;
}

/* Buffers of a page each, every other page. */
static void post(unsigned int count)
{
	for (; count; count--)
		need(driver_add(rx, &(struct driver_segment){driver_alloc(driver, KIB(8), 4096), 4096, true}, 1, false) >= 0,
		     "a buffer");
	driver_kick_always(rx);
}

static uint16_t used(void)
{
	return le16toh(__atomic_load_n(&rx->used->idx, __ATOMIC_ACQUIRE));
}

static void receive(int packet, unsigned int count)
{
	uint16_t before = used();
	uint8_t frame[FRAME];

	memset(frame, 0xff, 6);
	memcpy(frame + 6, "\2\0\0\0\0\1\x88\xb5", 8);
	for (unsigned int i = 0; i < count; i++) {
		memset(frame + 14, (int)(before + i + 1), sizeof(frame) - 14);
		need(send(packet, frame, sizeof(frame), 0) == FRAME, "send");
	}
	for (unsigned int i = 0; i < 5000 && (uint16_t)(used() - before) < count; i++)
		usleep(1000);
	need((uint16_t)(used() - before) >= count, "frames arrive");
}

/* Every page that is another than in before must have been told. */
static void compare(const char *when, const char *before)
{
	static unsigned long bitmap[PAGES / BITS_PER_LONG];
	unsigned int changed = 0, told = 0, missed = 0;

	memset(bitmap, 0, sizeof(bitmap));
	need(dirty_set_collect(&set, DRIVER_RAM_BASE, RAM, bitmap, &err) == 0, "collect");
	for (size_t i = 0; i < PAGES; i++) {
		bool differs = memcmp(before + i * 4096, (char *)driver->ram.host + i * 4096, 4096) != 0;

		changed += differs;
		told += bitmap_test(bitmap, i);
		missed += differs && !bitmap_test(bitmap, i);
		if (differs && !bitmap_test(bitmap, i))
			printf("missed: 0x%llx\n", DRIVER_RAM_BASE + i * 4096);
	}
	printf("%s: changed=%u told=%u missed=%u\n", when, changed, told, missed);
	need(changed >= BATCH && !missed, "a page that was written was not told");
}

static void drain(struct virtio_device *resting)
{
	need(resting->ops->drain(resting, VIRTIO_NO_DEADLINE, &err) == 0, "drain");
}

static void in_lock(void (*fn)(struct virtio_device *))
{
	pthread_mutex_lock(&device->lock);
	fn(device);
	pthread_mutex_unlock(&device->lock);
}

static void track_net(const char *tap)
{
	struct driver_luggage luggage;
	int packet = open_packet(tap);
	char *before = malloc(RAM);

	need(before && dirty_set_add(&set, guest_memory_dirty_source(driver->memory), &err) == 0, "begin");
	make_net(tap);
	need(driver_attach(driver, device, DRIVER_ALL_FEATURES) == 0, "activate");
	rx = &driver->queues[0];
	post(200);
	receive(packet, BATCH); /* untracked */
	need(dirty_set_start(&set, &err) == 0, "start");
	memcpy(before, driver->ram.host, RAM);
	receive(packet, BATCH);
	compare("while it runs", before);
	memcpy(before, driver->ram.host, RAM);
	receive(packet, BATCH);
	in_lock(drain);
	compare("at rest", before);
	memcpy(before, driver->ram.host, RAM);
	in_lock(device->ops->resume);
	driver_pack(driver, &luggage);
	make_net(tap);
	need(driver_unpack(driver, device, &luggage, &err) == 0, "unpack");
	receive(packet, BATCH);
	compare("by another vhost", before);
	dirty_set_stop(&set);
	receive(packet, BATCH - 10);
	need(!device->broken, "nothing is broken");
	free(before);
	close(packet);
}

static void halt_vsock(void)
{
	const struct virtio_vsock_options options = {.id = "vsock0", .cid = 77, .dirty = &set};
	struct event_loop *loop;

	need(event_loop_create(&loop, &err) == 0 && event_loop_start(loop, "loop", &err) == 0, "loop");
	need(virtio_vsock_create(&options, driver->memory, loop, NULL, &device, &err) == 0, "virtio_vsock_create");
	need(driver_attach(driver, device, DRIVER_ALL_FEATURES) == 0, "activate");
	for (unsigned int i = 0; i < 3; i++) {
		need(dirty_set_start(&set, &err) == 0, "start");
		in_lock(drain);
		in_lock(device->ops->resume);
		dirty_set_stop(&set);
	}
	need(!device->broken, "nothing is broken");
	driver_destroy(driver);
	event_loop_destroy(loop);
	printf("vsock: fine\n");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "vhost_probe TAP\n");
		return 2;
	}
	driver = driver_create(RAM, false);
	track_net(argv[1]);
	driver_destroy(driver);
	set = (struct dirty_set){0};
	driver = driver_create(RAM, false);
	halt_vsock();
	return 0;
}
