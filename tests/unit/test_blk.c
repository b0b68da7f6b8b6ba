/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/blk*: what is written is read, whatever the layout and the timing; what is wrong is refused. */
#include "tests/unit/blk_rig.h"

#include <fcntl.h>
#include <sys/stat.h>

static void keeps_data(void)
{
	struct disk disk;

	open_disk(&disk, SLOTS * SLOT_DATA);
	random_operations(&disk, 3000, false);
	close_disk(&disk);
}

static void takes_any_layout(void)
{
	struct disk disk;

	open_disk(&disk, SLOTS * SLOT_DATA);
	random_operations(&disk, 3000, true);
	close_disk(&disk);
}

static void has_queues(void)
{
	struct disk disk;

	make_image(&disk, SLOTS * SLOT_DATA);
	disk.options.queues = 4;
	plug(&disk, DRIVER_ALL_FEATURES);
	random_operations(&disk, 4000, true);
	close_disk(&disk);
}

/* Odd segments are what O_DIRECT cannot take. */
static void goes_direct(void)
{
	struct disk disk;

	make_image(&disk, SLOTS * SLOT_DATA);
	disk.options.direct = true;
	plug(&disk, DRIVER_ALL_FEATURES);
	random_operations(&disk, 1000, false);
	driver_reset(disk.driver);
	CHECK_EQ(truncate(disk.path, 0), 0);
	CHECK_EQ(truncate(disk.path, SLOTS * SLOT_DATA), 0);
	CHECK_EQ(driver_start(disk.driver, DRIVER_ALL_FEATURES), 0);
	place_slots(&disk);
	random_operations(&disk, 1000, true);
	close_disk(&disk);
}

static void works_without_event_index(void)
{
	struct disk disk;

	make_image(&disk, SLOTS * SLOT_DATA);
	plug(&disk, 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC);
	random_operations(&disk, 2000, false);
	close_disk(&disk);
}

static void writes_through_without_flush(void)
{
	struct disk disk;
	const struct blk *blk;
	uint8_t wce = 0;

	make_image(&disk, SLOTS * SLOT_DATA);
	plug(&disk, DRIVER_ALL_FEATURES & ~(1ull << VIRTIO_BLK_F_FLUSH) & ~(1ull << VIRTIO_BLK_F_CONFIG_WCE));
	blk = blk_of(&disk);
	CHECK(!blk->write_cache);
	random_operations(&disk, 300, false);
	driver_reset(disk.driver);
	CHECK_EQ(driver_start(disk.driver, DRIVER_ALL_FEATURES), 0);
	CHECK(blk->write_cache);
	disk.device->ops->config_write(disk.device, offsetof(struct virtio_layout_blk, wce), &wce, 1);
	CHECK(!blk->write_cache);
	place_slots(&disk);
	data(&disk)[0] = 7;
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_OK);
	close_disk(&disk);
}

/* ---- kinds of requests ---- */

static void describes_itself(void)
{
	struct virtio_layout_blk config;
	struct disk disk;

	make_image(&disk, MIB(1) + 700);
	disk.options.queues = 3;
	plug(&disk, DRIVER_ALL_FEATURES);
	disk.device->ops->config_read(disk.device, 0, &config, sizeof(config));
	CHECK_EQ(le64toh(config.capacity), 2049);
	CHECK_EQ(le16toh(config.num_queues), 3);
	CHECK_EQ(le32toh(config.blk_size), 512);
	CHECK_EQ(config.wce, 1);
	CHECK(virtio_has(disk.device, VIRTIO_BLK_F_DISCARD) && !virtio_has(disk.device, VIRTIO_BLK_F_RO));
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 2048, 512, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 2049, 512, true), VIRTIO_BLK_S_IOERR);
	close_disk(&disk);
}

static void tells_its_serial(void)
{
	struct disk disk;

	make_image(&disk, 512);
	disk.options.serial = "serial-number-of-20c";
	plug(&disk, DRIVER_ALL_FEATURES);
	memset(data(&disk), 0xff, 64);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
	CHECK(memcmp(data(&disk), "serial-number-of-20c\xff", 21) == 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_GET_ID, 0, 6, true), VIRTIO_BLK_S_OK);
	close_disk(&disk);
	open_disk(&disk, 512);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
	CHECK(memcmp(data(&disk), "disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20) == 0);
	close_disk(&disk);
}

/* A chain whose parts of guest memory are one and the same. */
static uint8_t ask_long(struct disk *disk, uint32_t type, uint64_t data, uint32_t part, uint32_t *written)
{
	struct virtio_blk_outhdr header = {.type = htole32(type)};
	struct driver_segment segments[DRIVER_INDIRECT];
	const struct slot *slot = &disk->slots[1];
	uint16_t head;

	memcpy(driver_at(disk->driver, slot->header), &header, sizeof(header));
	segments[0] = (struct driver_segment){slot->header, sizeof(header), false};
	for (unsigned int i = 1; i < DRIVER_INDIRECT - 1; i++)
		segments[i] = (struct driver_segment){data, part, type != VIRTIO_BLK_T_OUT};
	segments[DRIVER_INDIRECT - 1] = (struct driver_segment){slot->status, 1, true};
	CHECK(driver_add(&disk->driver->queues[0], segments, DRIVER_INDIRECT, true) >= 0);
	driver_kick(&disk->driver->queues[0]);
	CHECK(driver_wait_used(&disk->driver->queues[0], WAIT_MS, &head, written));
	return status_of(disk, slot);
}

static void twenty_bytes_are_twenty_bytes(void)
{
	unsigned long bitmap[MIB(8) / 4096 / 64] = {0};
	struct dirty_source *source;
	uint64_t page;
	struct disk disk;
	uint32_t written;

	open_disk(&disk, 512);
	memset(data(&disk), 0xff, SLOT_DATA);
	source = guest_memory_dirty_source(disk.driver->memory);
	CHECK_EQ(source->ops->start(source, NULL), 0);
	CHECK_EQ(ask_long(&disk, VIRTIO_BLK_T_GET_ID, disk.slots[0].data, SLOT_DATA, &written), VIRTIO_BLK_S_OK);
	CHECK_EQ(written, VIRTIO_BLK_ID_BYTES);
	CHECK(memcmp(data(&disk), "disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff", 21) == 0);
	CHECK(all_bytes(data(&disk) + VIRTIO_BLK_ID_BYTES, SLOT_DATA - VIRTIO_BLK_ID_BYTES, 0xff));
	CHECK_EQ(source->ops->collect(source, DRIVER_RAM_BASE, MIB(8), bitmap, NULL), 0);
	page = (disk.slots[0].data - DRIVER_RAM_BASE) / 4096;
	for (unsigned int i = 0; i < SLOT_DATA / 4096; i++)
		CHECK_EQ(bitmap[(page + i) / 64] >> (page + i) % 64 & 1, i == 0);
	source->ops->stop(source);
	close_disk(&disk);
}

static void a_request_has_a_bound(void)
{
	struct disk disk;
	uint32_t written;

	open_disk(&disk, MIB(512));
	CHECK_EQ(ask_long(&disk, VIRTIO_BLK_T_OUT, DRIVER_RAM_BASE, MIB(8), &written), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask_long(&disk, VIRTIO_BLK_T_OUT, DRIVER_RAM_BASE, MIB(1), &written), VIRTIO_BLK_S_OK);
	close_disk(&disk);
}

static void refuses_what_is_wrong(void)
{
	struct disk disk;

	open_disk(&disk, MIB(1));
	CHECK_EQ(ask(&disk, 77, 0, 512, false), VIRTIO_BLK_S_UNSUPP);
	CHECK_EQ(ask(&disk, 0x80000000, 0, 512, true), VIRTIO_BLK_S_UNSUPP);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_SECURE_ERASE, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 511, true), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 0, 513, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 0, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 2047, 1024, true), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 2048, 512, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, UINT64_MAX, 512, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, UINT64_MAX / 512 + 1, 512, true), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 2047, 512, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	close_disk(&disk);
}

static void discards_and_zeroes(void)
{
	struct disk disk;
	struct stat before, after;
	uint8_t bytes[512];

	open_disk(&disk, MIB(64));
	for (unsigned int i = 0; i < 64; i++) {
		memset(data(&disk), 0xaa, SLOT_DATA);
		CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, i * 32, SLOT_DATA, false), VIRTIO_BLK_S_OK);
	}
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(stat(disk.path, &before), 0);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 1, 7, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 16, 3, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
		 VIRTIO_BLK_S_OK);
	for (unsigned int i = 0; i < 24; i++) {
		bool zeroed = (i >= 1 && i < 8) || (i >= 16 && i < 19);

		read_image(&disk, i, bytes);
		CHECK(all_bytes(bytes, 512, zeroed ? 0 : 0xaa));
	}
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, 32, 2016, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, 0, 0, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(stat(disk.path, &after), 0);
	CHECK_EQ(after.st_size, before.st_size);
	CHECK(after.st_blocks < before.st_blocks);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, 0, 8, 1), VIRTIO_BLK_S_UNSUPP);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2), VIRTIO_BLK_S_UNSUPP);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, 131071, 2, 0), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, UINT64_MAX, 2, 0), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_DISCARD, 0, 15, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_DISCARD, 0, 32, false), VIRTIO_BLK_S_IOERR);
	close_disk(&disk);
}

static void is_read_only(void)
{
	struct disk disk;

	make_image(&disk, MIB(1));
	disk.options.readonly = true;
	plug(&disk, DRIVER_ALL_FEATURES);
	CHECK(virtio_has(disk.device, VIRTIO_BLK_F_RO) && !virtio_has(disk.device, VIRTIO_BLK_F_DISCARD));
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	close_disk(&disk);
}

static void what_the_guest_asks_for_is_counted(void)
{
	struct virtio_blk_counts counts[VIRTIO_BLK_KINDS];
	struct virtqueue_counts queue;
	struct disk disk;
	uint64_t slow = 0;

	open_disk(&disk, MIB(1));
	for (unsigned int i = 0; i < 3; i++)
		CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, i, 1024, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 8, 4096, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, 0, 16, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, MIB(1) / 512, 512, true), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, 77, 0, 512, true), VIRTIO_BLK_S_UNSUPP);
	virtio_blk_count(disk.device, counts);
	CHECK_EQ(counts[VIRTIO_BLK_READ].requests, 4);
	CHECK_EQ(counts[VIRTIO_BLK_READ].bytes, 3 * 1024);
	CHECK_EQ(counts[VIRTIO_BLK_READ].failed, 1);
	CHECK_EQ(counts[VIRTIO_BLK_WRITE].requests, 1);
	CHECK_EQ(counts[VIRTIO_BLK_WRITE].bytes, 4096);
	CHECK_EQ(counts[VIRTIO_BLK_WRITE].failed, 0);
	CHECK_EQ(counts[VIRTIO_BLK_FLUSH].requests, 1);
	CHECK_EQ(counts[VIRTIO_BLK_DISCARD].requests, 2);
	CHECK_EQ(counts[VIRTIO_BLK_DISCARD].bytes, (16 + 8) * 512);
	for (unsigned int i = 0; i < COUNTER_BUCKETS; i++)
		slow += counts[VIRTIO_BLK_WRITE].took.buckets[i];
	CHECK_EQ(slow, 1);
	queue = virtio_device_counts(disk.device, 0);
	CHECK_EQ(queue.chains, 9);
	CHECK(queue.interrupts >= 1 && queue.interrupts <= 9);
	CHECK(queue.kicks >= 1);
	/* A reset of the driver forgets nothing. */
	driver_reset(disk.driver);
	virtio_blk_count(disk.device, counts);
	CHECK_EQ(counts[VIRTIO_BLK_READ].requests, 4);
	close_disk(&disk);
}

/* A request that has nowhere to say how it went: the queue is broken, a reset mends it. */
static void survives_nonsense(void)
{
	struct disk disk;
	struct slot *slot;

	open_disk(&disk, MIB(1));
	for (unsigned int i = 0; i < 2; i++) {
		const struct driver_segment bad[2][2] = {
			{{disk.slots[0].header, 16, false}, {disk.slots[0].data, 512, false}},
			{{disk.slots[0].header, 15, false}, {disk.slots[0].status, 1, true}},
		};

		slot = &disk.slots[1];
		slot->type = VIRTIO_BLK_T_IN;
		slot->len = 512;
		add(&disk, 0, slot, true, 1);
		CHECK(driver_add(&disk.driver->queues[0], bad[i], 2, false) >= 0);
		driver_kick(&disk.driver->queues[0]);
		while (!__atomic_load_n(&disk.device->broken, __ATOMIC_SEQ_CST))
			usleep(1000);
		driver_reset(disk.driver);
		CHECK_EQ(driver_start(disk.driver, DRIVER_ALL_FEATURES), 0);
		place_slots(&disk);
		CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	}
	close_disk(&disk);
}

TEST_MAIN(TEST(keeps_data), TEST(takes_any_layout), TEST(has_queues), TEST(goes_direct),
	  TEST(works_without_event_index), TEST(writes_through_without_flush), TEST(describes_itself),
	  TEST(tells_its_serial), TEST(twenty_bytes_are_twenty_bytes), TEST(a_request_has_a_bound),
	  TEST(refuses_what_is_wrong), TEST(discards_and_zeroes), TEST(is_read_only), TEST(survives_nonsense),
	  TEST(what_the_guest_asks_for_is_counted))
