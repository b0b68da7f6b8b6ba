/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/blk*: reset, drain and resume, the write cache, and the way to another host. */
#include "tests/unit/blk_rig.h"

#include "core/monotonic.h"

#include <fcntl.h>
#include <sys/resource.h>

static void waits_when_reset(void)
{
	struct disk disk;

	make_image(&disk, SLOTS * SLOT_DATA);
	disk.options.queues = 2;
	plug(&disk, DRIVER_ALL_FEATURES);
	for (unsigned int round = 0; round < 50; round++) {
		for (unsigned int i = 0; i < SLOTS; i++) {
			struct slot *slot = &disk.slots[i];

			slot->type = i % 3 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_FLUSH;
			slot->sector = i;
			slot->len = slot->type == VIRTIO_BLK_T_OUT ? 4096 : 0;
			add(&disk, i % 2, slot, false, 1);
		}
		driver_kick(&disk.driver->queues[0]);
		driver_kick(&disk.driver->queues[1]);
		driver_reset(disk.driver);
		/* Nothing may touch memory now. */
		memset(disk.driver->ram.host, 0x11, disk.driver->ram.size);
		usleep(500);
		CHECK(all_bytes(disk.driver->ram.host, disk.driver->ram.size, 0x11));
		CHECK_EQ(driver_start(disk.driver, DRIVER_ALL_FEATURES), 0);
		place_slots(&disk);
	}
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	close_disk(&disk);
}

static void begin_writes(struct disk *disk, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		disk->slots[i].type = VIRTIO_BLK_T_OUT;
		disk->slots[i].sector = i * 8;
		disk->slots[i].len = 4096;
		add(disk, 0, &disk->slots[i], false, 1);
		driver_kick(&disk->driver->queues[0]);
	}
}

static void rests_and_goes_on(void)
{
	struct disk disk;
	uint32_t written;

	open_disk(&disk, SLOTS * SLOT_DATA);
	for (unsigned int round = 0; round < 20; round++) {
		uint16_t used;

		begin_writes(&disk, SLOTS / 4);
		disk.device->ops->drain(disk.device, VIRTIO_NO_DEADLINE, NULL);
		used = disk.driver->queues[0].used->idx;
		usleep(500);
		CHECK_EQ(disk.driver->queues[0].used->idx, used);
		for (unsigned int i = 0; i < SLOTS / 4; i++) {
			if (i == 10)
				disk.device->ops->resume(disk.device);
			if (i < 10 && disk.driver->queues[0].used_idx == le16toh(used))
				continue;
			CHECK_EQ(status_of(&disk, finish(&disk, 0, &written)), VIRTIO_BLK_S_OK);
		}
		while (disk.driver->queues[0].free_count < disk.driver->queues[0].size)
			CHECK_EQ(status_of(&disk, finish(&disk, 0, &written)), VIRTIO_BLK_S_OK);
	}
	close_disk(&disk);
}

/* ---- pauses ---- */

static void keeps_thread_and_ring_in_a_pause(void)
{
	uint64_t fds, threads;
	struct rlimit before;
	struct disk disk;

	make_image(&disk, SLOTS * SLOT_DATA);
	disk.options.queues = 2;
	plug(&disk, DRIVER_ALL_FEATURES);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	fds = sum_of_names("/proc/self/fd");
	threads = sum_of_names("/proc/self/task");
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	for (unsigned int round = 0; round < 3; round++) {
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, before.rlim_max}), 0);
		CHECK_EQ(disk.device->ops->drain(disk.device, VIRTIO_NO_DEADLINE, NULL), 0);
		disk.device->ops->resume(disk.device);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
		CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
		CHECK_EQ(sum_of_names("/proc/self/fd"), fds);
		CHECK_EQ(sum_of_names("/proc/self/task"), threads);
	}
	close_disk(&disk);
}

/* A disk whose storage answers a read of slot 1, which it has, when 512 bytes are written to *answer. */
static void open_hung_disk(struct disk *disk, int *answer)
{
	int ends[2];

	make_image(disk, SLOTS * SLOT_DATA);
	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	create_over(disk, ends[0]);
	close(ends[0]);
	*answer = ends[1];
	attach(disk, DRIVER_ALL_FEATURES);
	disk->slots[1].type = VIRTIO_BLK_T_IN;
	disk->slots[1].len = 512;
	add(disk, 0, &disk->slots[1], true, 1);
	/* Behind it, and so it has been taken when this is answered. */
	CHECK_EQ(ask(disk, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true), VIRTIO_BLK_S_OK);
}

static void answer_and_close(struct disk *disk, int answer)
{
	uint32_t written;

	CHECK(finish(disk, 0, &written) == &disk->slots[1]);
	CHECK_EQ(status_of(disk, &disk->slots[1]), VIRTIO_BLK_S_OK);
	CHECK_EQ(written, 513);
	CHECK_EQ(ask(disk, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true), VIRTIO_BLK_S_OK);
	close(answer);
	close_disk(disk);
}

struct pause {
	struct virtio_device *device;
	int code;
	atomic_bool over;
};

static void *run_pause(void *opaque)
{
	struct pause *pause = opaque;

	pause->code = pause->device->ops->drain(pause->device, VIRTIO_NO_DEADLINE, NULL);
	atomic_store(&pause->over, true);
	return NULL;
}

static void a_pause_waits_for_what_is_in_flight(void)
{
	static const uint8_t bytes[512];
	struct pause pause = {0};
	pthread_t thread;
	struct disk disk;
	int answer;

	open_hung_disk(&disk, &answer);
	pause.device = disk.device;
	CHECK_EQ(pthread_create(&thread, NULL, run_pause, &pause), 0);
	usleep(20000);
	CHECK(!atomic_load(&pause.over));
	CHECK_EQ(write(answer, bytes, sizeof(bytes)), sizeof(bytes));
	pthread_join(thread, NULL);
	CHECK_EQ(pause.code, 0);
	CHECK_EQ(le16toh(disk.driver->queues[0].used->idx), 2);
	disk.device->ops->resume(disk.device);
	answer_and_close(&disk, answer);
}

static void a_pause_gives_up_on_storage_that_hangs(void)
{
	static const uint8_t bytes[512];
	struct disk disk;
	struct err err;
	int answer;

	open_hung_disk(&disk, &answer);
	CHECK_EQ(disk.device->ops->drain(disk.device, monotonic_ms() + 20, &err), -ETIMEDOUT);
	CHECK_STR(err.text, "disk0: its storage has not completed its requests");
	disk.device->ops->resume(disk.device);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(write(answer, bytes, sizeof(bytes)), sizeof(bytes));
	answer_and_close(&disk, answer);
}

static int sync_error; /* of the next fdatasync(2); disks use it when their cache is turned off */

int fdatasync(int fd)
{
	errno = sync_error;
	sync_error = 0;
	return errno ? -1 : 0;
}

/* As long as the flush before is not known to have succeeded, the cache is on; the guest is told by its next flush. */
static void a_cache_that_cannot_be_written_stays_on(void)
{
	struct disk disk;
	uint8_t wce = 0;

	open_disk(&disk, MIB(1));
	sync_error = EIO;
	disk.device->ops->config_write(disk.device, offsetof(struct virtio_layout_blk, wce), &wce, 1);
	CHECK(blk_of(&disk)->state.wce && atomic_load(&blk_of(&disk)->write_cache));
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	disk.device->ops->config_write(disk.device, offsetof(struct virtio_layout_blk, wce), &wce, 1);
	CHECK(!blk_of(&disk)->state.wce && !atomic_load(&blk_of(&disk)->write_cache));
	close_disk(&disk);
}

/* A sync of a pipe fails, and so shows that there was one. */
static void a_write_in_flight_when_the_cache_is_turned_off_is_synced(void)
{
	char bytes[4096] = {0};
	struct disk disk;
	uint32_t written;
	uint8_t wce = 0;
	int ends[2];

	for (unsigned int off = 0; off < 2; off++) {
		make_image(&disk, SLOTS * SLOT_DATA);
		CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
		while (write(ends[1], bytes, sizeof(bytes)) > 0)
			;
		CHECK_EQ(fcntl(ends[1], F_SETFL, 0), 0);
		create_over(&disk, ends[1]);
		close(ends[1]);
		attach(&disk, DRIVER_ALL_FEATURES);
		disk.slots[1].type = VIRTIO_BLK_T_OUT;
		disk.slots[1].len = 512;
		add(&disk, 0, &disk.slots[1], false, 1);
		CHECK_EQ(ask(&disk, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true), VIRTIO_BLK_S_OK);
		if (off)
			disk.device->ops->config_write(disk.device, offsetof(struct virtio_layout_blk, wce), &wce, 1);
		while (read(ends[0], bytes, sizeof(bytes)) > 0)
			;
		CHECK(finish(&disk, 0, &written) == &disk.slots[1]);
		CHECK_EQ(status_of(&disk, &disk.slots[1]), off ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
		close(ends[0]);
		close_disk(&disk);
	}
}

static int arrive(struct disk *disk, struct driver_luggage *luggage, struct err *err)
{
	CHECK_EQ(virtio_blk_create(&disk->options, disk->driver->memory, NULL, &disk->device, err), 0);
	return driver_unpack(disk->driver, disk->device, luggage, err);
}

/* Requests are in the ring while it moves; all are answered, and the cache mode goes with it. */
static void moves_to_another_host(void)
{
	struct driver_luggage luggage;
	struct disk disk;
	uint32_t written;
	uint8_t wce = 0;

	open_disk(&disk, SLOTS * SLOT_DATA);
	disk.device->ops->config_write(disk.device, offsetof(struct virtio_layout_blk, wce), &wce, 1);
	for (unsigned int round = 0; round < 5; round++) {
		begin_writes(&disk, SLOTS / 4);
		driver_pack(disk.driver, &luggage);
		CHECK_EQ(arrive(&disk, &luggage, NULL), 0);
		while (disk.driver->queues[0].free_count < disk.driver->queues[0].size)
			CHECK_EQ(status_of(&disk, finish(&disk, 0, &written)), VIRTIO_BLK_S_OK);
		CHECK(!blk_of(&disk)->write_cache);
	}
	disk.device->ops->config_read(disk.device, offsetof(struct virtio_layout_blk, wce), &wce, 1);
	CHECK_EQ(wce, 0);
	close_disk(&disk);
}

static void does_not_move_to_another_disk(void)
{
	struct driver_luggage luggage;
	struct disk disk;
	struct err err;

	open_disk(&disk, MIB(1));
	driver_pack(disk.driver, &luggage);
	CHECK_EQ(truncate(disk.path, MIB(2)), 0);
	CHECK_EQ(arrive(&disk, &luggage, &err), -EBADMSG);
	CHECK_STR(err.text, "disk: the disk has 1048576 bytes on the source, 2097152 here");
	close_disk(&disk);
	open_disk(&disk, MIB(1));
	driver_pack(disk.driver, &luggage);
	luggage.features &= ~(1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES);
	disk.options.readonly = true;
	CHECK_EQ(arrive(&disk, &luggage, &err), -EBADMSG);
	CHECK_STR(err.text, "disk: the disk is writable on the source, and not here");
	close_disk(&disk);
}

static void marks_what_it_writes(void)
{
	struct dirty_source *source;
	unsigned long bitmap[MIB(8) / 4096 / 64] = {0};
	struct disk disk;
	uint64_t page;

	open_disk(&disk, MIB(1));
	source = guest_memory_dirty_source(disk.driver->memory);
	CHECK_EQ(source->ops->start(source, NULL), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 8192, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(source->ops->collect(source, DRIVER_RAM_BASE, MIB(8), bitmap, NULL), 0);
	page = (disk.slots[0].data - DRIVER_RAM_BASE) / 4096;
	for (unsigned int i = 0; i < 3; i++)
		CHECK_EQ(bitmap[(page + i) / 64] >> (page + i) % 64 & 1, i < 2);
	source->ops->stop(source);
	close_disk(&disk);
}

TEST_MAIN(TEST(a_cache_that_cannot_be_written_stays_on),
	  TEST(a_write_in_flight_when_the_cache_is_turned_off_is_synced), TEST(waits_when_reset),
	  TEST(rests_and_goes_on), TEST(keeps_thread_and_ring_in_a_pause), TEST(a_pause_waits_for_what_is_in_flight),
	  TEST(a_pause_gives_up_on_storage_that_hangs), TEST(moves_to_another_host),
	  TEST(does_not_move_to_another_disk), TEST(marks_what_it_writes))
