/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a limit lets pass of a disk, a network card and the rng: exactly its bucket and its burst, then nothing before the
 * refill, which is an hour away or soon. The rest waits in the driver's queue, and a pause does not wait for it.
 */
#include "core/monotonic.h"
#include "tests/unit/net_rig.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>

#define HOUR UINT64_C(3600000000000)
#define NEVER_MS 60 /* what has not come by then does not come */
#define REQUESTS 40u

static const struct token_bucket_limit none;

/* Requests that come back, at most max. */
static unsigned int count_used(struct driver_queue *queue, unsigned int max)
{
	unsigned int count = 0;
	uint16_t head;
	uint32_t len;

	while (count < max && driver_wait_used(queue, count + 1 < max ? WAIT : NEVER_MS, &head, &len))
		count++;
	return count;
}

/* Exactly that many come back. */
static void expect_used(struct driver_queue *queue, unsigned int wanted)
{
	uint16_t head;
	uint32_t len;

	CHECK_EQ(count_used(queue, wanted), wanted);
	CHECK(!driver_wait_used(queue, NEVER_MS, &head, &len));
}

/* ---- a disk ---- */

struct disk {
	char path[64];
	struct virtio_driver *driver;
	struct virtio_device *device;
	uint64_t header, data, status;
};

static void make_disk(struct disk *disk, unsigned int queues)
{
	struct virtio_blk_options options = {.id = "disk0", .path = disk->path, .queues = queues};

	CHECK_EQ(virtio_blk_create(&options, disk->driver->memory, NULL, &disk->device, NULL), 0);
}

static void open_disk(struct disk *disk, unsigned int queues)
{
	int fd;

	snprintf(disk->path, sizeof(disk->path), "/tmp/mvmm-limits-XXXXXX");
	fd = mkstemp(disk->path);
	CHECK(fd >= 0 && ftruncate(fd, MIB(1)) == 0);
	close(fd);
	disk->driver = driver_create(MIB(4), false);
	make_disk(disk, queues);
	CHECK_EQ(driver_attach(disk->driver, disk->device, DRIVER_ALL_FEATURES), 0);
	disk->header = driver_alloc(disk->driver, 16, 16);
	disk->data = driver_alloc(disk->driver, KIB(64), 4096);
	disk->status = driver_alloc(disk->driver, 1, 1);
}

static void close_disk(struct disk *disk)
{
	driver_destroy(disk->driver);
	unlink(disk->path);
}

/* Reads of len bytes; of none: flushes. */
static void ask_disk(struct disk *disk, unsigned int queue, unsigned int count, uint32_t len)
{
	const struct virtio_blk_outhdr header = {.type = htole32(len ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_FLUSH)};
	struct driver_segment segments[] = {{disk->header, 16, false}, {disk->data, len, true}, {disk->status, 1, true}};

	if (!len)
		segments[1] = segments[2];
	memcpy(driver_at(disk->driver, disk->header), &header, sizeof(header));
	for (unsigned int i = 0; i < count; i++)
		CHECK(driver_add(&disk->driver->queues[queue], segments, len ? 3 : 2, true) >= 0);
	driver_kick(&disk->driver->queues[queue]);
}

static void limit_disk(struct disk *disk, const struct token_bucket_limit *bytes, const struct token_bucket_limit *ops)
{
	CHECK_EQ(virtio_device_set_limit(disk->device, 0, bytes, ops), 0);
}

static void a_disk_does_no_more_operations(void)
{
	struct disk disk;

	open_disk(&disk, 1);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){10, 7, HOUR});
	ask_disk(&disk, 0, REQUESTS, 512);
	expect_used(&disk.driver->queues[0], 17);
	close_disk(&disk);
}

static void a_disk_moves_no_more_bytes(void)
{
	struct disk disk;

	open_disk(&disk, 1);
	limit_disk(&disk, &(struct token_bucket_limit){10 * 4096, 0, HOUR}, NULL);
	ask_disk(&disk, 0, REQUESTS, 4096);
	expect_used(&disk.driver->queues[0], 10);
	close_disk(&disk);
}

static void flushes_are_operations_without_bytes(void)
{
	struct disk disk;

	open_disk(&disk, 1);
	limit_disk(&disk, &(struct token_bucket_limit){1, 0, HOUR}, NULL);
	ask_disk(&disk, 0, REQUESTS, 0);
	CHECK_EQ(count_used(&disk.driver->queues[0], REQUESTS), REQUESTS);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){3, 0, HOUR});
	ask_disk(&disk, 0, REQUESTS, 0);
	expect_used(&disk.driver->queues[0], 3);
	close_disk(&disk);
}

static void the_queues_of_a_disk_share_its_limit(void)
{
	struct disk disk;
	unsigned int first, second;

	open_disk(&disk, 2);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){20, 0, HOUR});
	ask_disk(&disk, 0, 15, 512);
	ask_disk(&disk, 1, 15, 512);
	first = count_used(&disk.driver->queues[0], 16);
	second = count_used(&disk.driver->queues[1], 16);
	CHECK(first + second >= 20 && first + second <= 21); /* both may find the last token */
	close_disk(&disk);
}

static void another_limit_holds_at_once(void)
{
	struct disk disk;

	open_disk(&disk, 1);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){1, 0, HOUR});
	ask_disk(&disk, 0, REQUESTS, 512);
	expect_used(&disk.driver->queues[0], 1);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){5, 0, HOUR});
	expect_used(&disk.driver->queues[0], 5);
	limit_disk(&disk, NULL, &none);
	CHECK_EQ(count_used(&disk.driver->queues[0], REQUESTS - 6), REQUESTS - 6);
	close_disk(&disk);
}

static void a_pause_does_not_wait_for_the_limit(void)
{
	struct disk disk;
	struct err err;

	open_disk(&disk, 1);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){4, 0, HOUR});
	ask_disk(&disk, 0, REQUESTS, 512);
	expect_used(&disk.driver->queues[0], 4);
	CHECK_EQ(disk.device->ops->drain(disk.device, monotonic_ms() + WAIT, &err), 0);
	disk.device->ops->resume(disk.device);
	expect_used(&disk.driver->queues[0], 0);
	driver_reset(disk.driver);
	close_disk(&disk);
}

static void the_fill_of_a_disk_moves_with_it(void)
{
	struct driver_luggage luggage;
	struct disk disk;

	open_disk(&disk, 1);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){4, 6, HOUR});
	ask_disk(&disk, 0, 7, 512);
	CHECK_EQ(count_used(&disk.driver->queues[0], 7), 7);
	driver_pack(disk.driver, &luggage);
	make_disk(&disk, 1);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){4, 6, HOUR});
	CHECK_EQ(driver_unpack(disk.driver, disk.device, &luggage, NULL), 0);
	ask_disk(&disk, 0, REQUESTS - 7, 512);
	expect_used(&disk.driver->queues[0], 3);
	close_disk(&disk);
}

/* The rest comes by itself, at the rate. */
static void a_disk_keeps_its_rate(void)
{
	struct disk disk;
	uint64_t begun, took;

	open_disk(&disk, 1);
	limit_disk(&disk, NULL, &(struct token_bucket_limit){10, 0, 100000000});
	begun = monotonic_ns();
	ask_disk(&disk, 0, REQUESTS, 512);
	CHECK_EQ(count_used(&disk.driver->queues[0], REQUESTS), REQUESTS);
	took = monotonic_ns() - begun;
	CHECK(took >= 290000000 && took < 2000000000); /* the first ten at once, then 100 a second */
	close_disk(&disk);
}

static void a_limited_disk_delays_no_other(void)
{
	struct disk slow, fast;

	open_disk(&slow, 1);
	open_disk(&fast, 1);
	limit_disk(&slow, NULL, &(struct token_bucket_limit){1, 0, HOUR});
	ask_disk(&slow, 0, REQUESTS, 512);
	ask_disk(&fast, 0, REQUESTS, 512);
	CHECK_EQ(count_used(&fast.driver->queues[0], REQUESTS), REQUESTS);
	expect_used(&slow.driver->queues[0], 1);
	close_disk(&slow);
	close_disk(&fast);
}

/* ---- a network card ---- */

/* Packets of the guest, as many as are wanted and those beyond; not those by which a card that has moved announces it. */
static unsigned int count_far(unsigned int wanted)
{
	uint8_t packet[256];
	unsigned int count = 0;

	while (poll(&(struct pollfd){.fd = fake->far[0], .events = POLLIN}, 1, count < wanted ? WAIT : NEVER_MS) == 1)
		count += recv(fake->far[0], packet, sizeof(packet), 0) > 0 && packet[HDR + 12] != 0x80;
	return count;
}

static void limit_net(unsigned int index, const struct token_bucket_limit *bytes, const struct token_bucket_limit *ops)
{
	CHECK_EQ(virtio_device_set_limit(device, index, bytes, ops), 0);
}

static void a_card_sends_no_more(void)
{
	struct err err;

	set_up(ALL);
	limit_net(VIRTIO_NET_LIMIT_TX, NULL, &(struct token_bucket_limit){5, 2, HOUR});
	for (uint32_t i = 0; i < 20; i++)
		send_from_guest((uint32_t[]){HDR + 60, 0}, i);
	driver_kick(tx);
	CHECK_EQ(count_far(7), 7);
	CHECK_EQ(device->ops->drain(device, monotonic_ms() + WAIT, &err), 0);
	device->ops->resume(device);
	CHECK_EQ(count_far(0), 0);
	limit_net(VIRTIO_NET_LIMIT_TX, &(struct token_bucket_limit){180, 0, HOUR}, &none); /* 60 a packet */
	CHECK_EQ(count_far(3), 3);
	limit_net(VIRTIO_NET_LIMIT_TX, &none, NULL);
	CHECK_EQ(count_far(10), 10);
	tear_down();
}

static void a_card_receives_no_more(void)
{
	unsigned int got = 0;

	set_up(ALL);
	limit_net(VIRTIO_NET_LIMIT_RX, &(struct token_bucket_limit){300, 0, HOUR}, NULL);
	for (uint32_t i = 0; i < 20; i++)
		post(rx, true, (uint32_t[]){2000, 0});
	driver_kick(rx);
	for (uint32_t i = 0; i < 10; i++)
		send_to_guest(100, i);
	expect_used(rx, 3);
	send_from_guest((uint32_t[]){HDR + 60, 0}, 0); /* the other direction is free */
	driver_kick(tx);
	CHECK_EQ(count_far(1), 1);
	limit_net(VIRTIO_NET_LIMIT_RX, &none, &(struct token_bucket_limit){1, 0, 50000000});
	got = count_used(rx, 7);
	CHECK_EQ(got, 7);
	tear_down();
}

static void the_fill_of_a_card_moves_with_it(void)
{
	struct driver_luggage luggage;

	set_up(ALL);
	limit_net(VIRTIO_NET_LIMIT_TX, NULL, &(struct token_bucket_limit){5, 0, HOUR});
	for (uint32_t i = 0; i < 3; i++)
		send_from_guest((uint32_t[]){HDR + 60, 0}, i);
	driver_kick(tx);
	CHECK_EQ(count_far(3), 3);
	driver_pack(driver, &luggage);
	make_device_again((struct virtio_net_options){0});
	limit_net(VIRTIO_NET_LIMIT_TX, NULL, &(struct token_bucket_limit){5, 0, HOUR});
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
	tx = &driver->queues[1];
	for (uint32_t i = 0; i < 10; i++)
		send_from_guest((uint32_t[]){HDR + 60, 0}, i);
	driver_kick(tx);
	CHECK_EQ(count_far(2), 2);
	tear_down();
}

/* ---- the rng ---- */

static void the_rng_gives_no_more(void)
{
	struct virtio_driver *with;
	struct virtio_device *rng;
	struct event_loop *loop;
	uint64_t gpa;

	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	with = driver_create(MIB(1), false);
	CHECK_EQ(virtio_rng_create("rng", with->memory, loop, NULL, &rng, NULL), 0);
	CHECK_EQ(virtio_device_set_limit(rng, 1, &none, &none), -ENOTSUP);
	CHECK_EQ(virtio_device_set_limit(rng, 0, &(struct token_bucket_limit){1000, 0, HOUR}, NULL), 0);
	CHECK_EQ(driver_attach(with, rng, DRIVER_ALL_FEATURES), 0);
	gpa = driver_alloc(with, 100, 1);
	for (unsigned int i = 0; i < 20; i++)
		driver_add(&with->queues[0], &(struct driver_segment){gpa, 100, true}, 1, false);
	driver_kick(&with->queues[0]);
	expect_used(&with->queues[0], 10);
	CHECK_EQ(virtio_device_set_limit(rng, 0, &(struct token_bucket_limit){100, 0, 20000000}, NULL), 0);
	CHECK_EQ(count_used(&with->queues[0], 6), 6); /* by the timer */
	driver_destroy(with);
	event_loop_destroy(loop);
}

TEST_MAIN(TEST(a_disk_does_no_more_operations), TEST(a_disk_moves_no_more_bytes),
	  TEST(flushes_are_operations_without_bytes), TEST(the_queues_of_a_disk_share_its_limit),
	  TEST(another_limit_holds_at_once), TEST(a_pause_does_not_wait_for_the_limit),
	  TEST(the_fill_of_a_disk_moves_with_it), TEST(a_disk_keeps_its_rate), TEST(a_limited_disk_delays_no_other),
	  TEST(a_card_sends_no_more), TEST(a_card_receives_no_more), TEST(the_fill_of_a_card_moves_with_it),
	  TEST(the_rng_gives_no_more))
