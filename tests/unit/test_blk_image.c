/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/blk*: the image's size and sectors, as the guest sees them, and what was changed in it. */
#include "tests/unit/blk_rig.h"
#include "tests/unit/full_disk.h"

#include <fcntl.h>

/* The next request looks at the image. */
static void look(struct disk *disk)
{
	blk_of(disk)->fault.looked_ns = 0;
	CHECK_EQ(ask(disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}

static void an_image_that_changes_its_size_is_noticed(void)
{
	struct disk disk;
	uint64_t bytes;

	make_image(&disk, MIB(1));
	open_log(&disk);
	plug(&disk, DRIVER_ALL_FEATURES);
	look(&disk);
	CHECK_STR(logged(), "");
	CHECK_EQ(truncate(disk.path, MIB(4) + 100), 0);
	CHECK_EQ(health(&disk).image_size, MIB(4) + 100); /* also of a guest that does nothing */
	look(&disk);
	look(&disk);
	CHECK_STR(logged(), "disk0: its image has 4194404 bytes now, the guest sees 1048576; mvmm disk resize NAME disk0 "
			    "tells the guest\n");
	CHECK_EQ(truncate(disk.path, KIB(64)), 0);
	look(&disk);
	CHECK_EQ(truncate(disk.path, MIB(1)), 0);
	look(&disk);
	CHECK_STR(logged(), "");
	CHECK_EQ(truncate(disk.path, KIB(64)), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, MIB(1) / 512 - 1, 512, true), VIRTIO_BLK_S_IOERR);
	CHECK_STR(logged(), "disk0: read at offset 1048064: the image ends there; the guest is told\n"
			    "warning: disk0: its image has 65536 bytes now, the guest sees 1048576; mvmm disk resize NAME disk0 tells "
			    "the guest\n");
	CHECK_EQ(virtio_blk_resize(disk.device, &bytes, NULL), 0);
	CHECK_EQ(bytes, KIB(64));
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, KIB(64) / 512, 512, true), VIRTIO_BLK_S_IOERR);
	CHECK_STR(logged(), "");
	close_disk(&disk);
}

static void a_resize_is_shown_to_the_guest(void)
{
	struct virtio_layout_blk config;
	unsigned long bitmap[2] = {0};
	struct disk disk;
	uint64_t bytes;
	struct err err;
	uint8_t generation;

	open_disk(&disk, MIB(1));
	CHECK_EQ(virtio_blk_track(disk.device, NULL), 0);
	virtio_blk_untrack(disk.device);
	generation = disk.device->config_generation;
	CHECK_EQ(virtio_blk_resize(disk.device, &bytes, NULL), 0);
	CHECK_EQ(disk.device->config_generation, generation);
	CHECK_EQ(truncate(disk.path, MIB(8) + 511), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, MIB(1) / 512, 512, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(virtio_blk_resize(disk.device, &bytes, NULL), 0);
	CHECK_EQ(bytes, MIB(8));
	CHECK(disk.device->config_generation != generation);
	CHECK_EQ(disk.driver->config_calls, 1);
	disk.device->ops->config_read(disk.device, 0, &config, sizeof(config));
	CHECK_EQ(le64toh(config.capacity), MIB(8) / 512);
	CHECK_EQ(virtio_blk_track(disk.device, NULL), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, MIB(8) / 512 - 1, 512, false), VIRTIO_BLK_S_OK);
	virtio_blk_collect(disk.device, bitmap);
	CHECK_EQ(bitmap[1], 1ul << 63);
	CHECK_EQ(truncate(disk.path, 0), 0);
	CHECK_EQ(virtio_blk_resize(disk.device, &bytes, NULL), 0);
	CHECK_EQ(bytes, 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_IOERR);
	/* The guest that waits for the device holds up nobody. */
	pthread_mutex_lock(&disk.device->lock);
	CHECK_EQ(truncate(disk.path, MIB(1)), 0);
	CHECK_EQ(virtio_blk_resize(disk.device, &bytes, &err), -EBUSY);
	pthread_mutex_unlock(&disk.device->lock);
	close_disk(&disk);
}

static void sectors_are_as_large_as_asked(void)
{
	struct virtio_layout_blk config;
	struct disk disk;
	int fd;

	make_image(&disk, 16 * 4096 + 512);
	fd = open(disk.path, O_RDWR | O_CLOEXEC);
	CHECK_EQ(pwrite(fd, "EFI PART", 8, 4096), 8);
	close(fd);
	open_log(&disk);
	plug(&disk, DRIVER_ALL_FEATURES);
	CHECK(strstr(logged(), "its partition table was made for sectors of 4096 bytes, and the guest sees sectors of 512; "
			       "add sector-size=4096\n"));
	driver_destroy(disk.driver);
	disk.options.sector_size = 4096;
	plug(&disk, DRIVER_ALL_FEATURES);
	CHECK(strstr(logged(), "the guest does not see its last 512 bytes"));
	disk.device->ops->config_read(disk.device, 0, &config, sizeof(config));
	CHECK_EQ(le64toh(config.capacity), 16 * 8);
	CHECK_EQ(le32toh(config.blk_size), 4096);
	CHECK_EQ(config.physical_block_exp, 0);
	driver_destroy(disk.driver);
	/* Smaller than what O_DIRECT takes: through the page cache. */
	disk.options.sector_size = 512;
	disk.options.direct = true;
	plug(&disk, DRIVER_ALL_FEATURES);
	blk_of(&disk)->file.offset_align = blk_of(&disk)->file.memory_align = 4096;
	memset(data(&disk), 0x66, 512);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 3, 512, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_OK);
	CHECK(all_bytes(data(&disk) + 3 * 512, 512, 0x66) && all_bytes(data(&disk), 3 * 512, 0));
	close_disk(&disk);
}

/* ---- what was changed ---- */

static uint64_t changed(struct disk *disk)
{
	unsigned long bitmap[1] = {0};

	virtio_blk_collect(disk->device, bitmap);
	return bitmap[0];
}

static void tells_what_was_changed(void)
{
	const uint32_t part = VIRTIO_BLK_GRANULE / 512;
	struct disk disk;

	open_disk(&disk, 16 * VIRTIO_BLK_GRANULE + 512);
	CHECK_EQ(virtio_blk_track(disk.device, NULL), 0);
	CHECK_EQ(changed(&disk), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 2 * part - 1, 1024, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(changed(&disk), 6);
	CHECK_EQ(changed(&disk), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 16 * part + 1, 512, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(changed(&disk), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 16 * part, 512, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(changed(&disk), 1 << 16);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, part, 2 * part, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 5 * part, 8, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 7 * part, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), VIRTIO_BLK_S_OK);
	CHECK_EQ(changed(&disk), 6 | 1 << 5 | 1 << 7);
	virtio_blk_untrack(disk.device);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(changed(&disk), 0);
	close_disk(&disk);
}

/* Its beginning may be on the disk. */
static void tells_of_a_write_that_failed(void)
{
	struct disk disk;

	open_disk(&disk, MIB(1));
	CHECK_EQ(virtio_blk_track(disk.device, NULL), 0);
	limit_writes(VIRTIO_BLK_GRANULE + 512);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, VIRTIO_BLK_GRANULE / 512, 4096, false), VIRTIO_BLK_S_IOERR);
	limit_writes(RLIM_INFINITY);
	CHECK_EQ(changed(&disk), 2);
	close_disk(&disk);
}

/* Who copies what was changed as soon as he hears of it, while the next writes are under way. */
struct copier {
	struct virtio_device *device;
	uint8_t copy[SLOTS * SLOT_DATA];
	atomic_bool over;
};

static void copy_changed(struct copier *copier)
{
	unsigned long bitmap[SLOTS * SLOT_DATA / VIRTIO_BLK_GRANULE / 64 + 1] = {0};
	struct virtio_blk_image image;

	virtio_blk_image(copier->device, &image);
	virtio_blk_collect(copier->device, bitmap);
	for (uint64_t at = 0; at < image.size; at += VIRTIO_BLK_GRANULE)
		if (bitmap[at / VIRTIO_BLK_GRANULE / 64] >> at / VIRTIO_BLK_GRANULE % 64 & 1)
			CHECK_EQ(pread(image.fd, copier->copy + at, VIRTIO_BLK_GRANULE, (off_t)at), VIRTIO_BLK_GRANULE);
}

static void *run_copier(void *opaque)
{
	struct copier *copier = opaque;

	while (!atomic_load(&copier->over))
		copy_changed(copier);
	return NULL;
}

static void misses_no_write_in_flight(void)
{
	static struct copier copier;
	struct disk disk;
	pthread_t thread;
	uint8_t bytes[512];

	make_image(&disk, SLOTS * SLOT_DATA);
	disk.options.queues = 2;
	plug(&disk, DRIVER_ALL_FEATURES);
	copier.device = disk.device;
	CHECK_EQ(virtio_blk_track(disk.device, NULL), 0);
	CHECK_EQ(pthread_create(&thread, NULL, run_copier, &copier), 0);
	random_operations(&disk, 6000, false);
	atomic_store(&copier.over, true);
	pthread_join(thread, NULL);
	disk.device->ops->drain(disk.device, VIRTIO_NO_DEADLINE, NULL);
	copy_changed(&copier);
	for (unsigned int i = 0; i < SLOTS * SLOT_DATA / 512; i++) {
		read_image(&disk, i, bytes);
		CHECK(memcmp(copier.copy + (size_t)i * 512, bytes, 512) == 0);
	}
	disk.device->ops->resume(disk.device);
	close_disk(&disk);
}

TEST_MAIN(TEST(an_image_that_changes_its_size_is_noticed), TEST(a_resize_is_shown_to_the_guest),
	  TEST(sectors_are_as_large_as_asked), TEST(tells_what_was_changed), TEST(tells_of_a_write_that_failed),
	  TEST(misses_no_write_in_flight))
