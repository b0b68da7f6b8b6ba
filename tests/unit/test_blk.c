/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/blk*: what is written is read, errors are told, layout and timing do not matter. */
#include "devices/virtio/blk_internal.h"
#include "tests/unit/full_disk.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include "core/irq.h"
#include "core/monotonic.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SLOTS 128u
#define SLOT_DATA KIB(16)
#define WAIT_MS 20000
#define NO_ANSWER 0xee

/* One request's place in guest memory: header, data and status, apart from each other. */
struct slot {
	uint64_t header, data, status;
	bool busy;
	uint16_t head;
	uint32_t type;
	uint64_t sector;
	uint32_t len;
};

struct disk {
	char dir[64], path[96];
	struct virtio_blk_options options;
	struct virtio_device *device;
	struct virtio_driver *driver;
	struct slot slots[SLOTS];
	const struct log *log; /* NULL: nobody reads it */
};

static uint64_t seed = 88172645463325252ull;

static uint32_t random_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 20) % n;
}

/* ---- a disk and its driver ---- */

static void make_image(struct disk *disk, off_t size)
{
	const char *tmp = getenv("TMPDIR") ?: "/tmp";
	int fd;

	memset(disk, 0, sizeof(*disk));
	snprintf(disk->dir, sizeof(disk->dir), "%.40s/blkXXXXXX", tmp);
	CHECK(mkdtemp(disk->dir));
	snprintf(disk->path, sizeof(disk->path), "%s/image", disk->dir);
	fd = open(disk->path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, size) == 0);
	close(fd);
	disk->options = (struct virtio_blk_options){.id = "disk0", .path = disk->path, .queues = 1};
}

static void place_slots(struct disk *disk)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		disk->slots[i] = (struct slot){
			.header = driver_alloc(disk->driver, 16, 1),
			.data = driver_alloc(disk->driver, SLOT_DATA, 4096),
			.status = driver_alloc(disk->driver, 1, 1),
		};
}

static void plug(struct disk *disk, uint64_t features)
{
	struct err err;
	int ret = virtio_blk_create(&disk->options, (disk->driver = driver_create(MIB(8), false))->memory,
				    disk->log, &disk->device, &err);

	if (ret < 0)
		printf("# %s\n", err.text);
	CHECK_EQ(ret, 0);
	CHECK_EQ(driver_attach(disk->driver, disk->device, features), 0);
	place_slots(disk);
}

static void open_disk(struct disk *disk, off_t size)
{
	make_image(disk, size);
	plug(disk, DRIVER_ALL_FEATURES);
}

static void remove_image(struct disk *disk)
{
	unlink(disk->path);
	rmdir(disk->dir);
}

static void close_disk(struct disk *disk)
{
	driver_destroy(disk->driver);
	remove_image(disk);
}

/* Adds [gpa, gpa + len), cut anywhere into up to pieces segments. */
static unsigned int cut(struct driver_segment *segments, unsigned int n, uint64_t gpa, uint32_t len, bool in,
			unsigned int pieces)
{
	uint32_t step;

	for (; len; len -= step, gpa += step, pieces--) {
		step = pieces <= 1 ? len : random_below(4) ? 1 + random_below(len) : MIN(512u, len);
		segments[n++] = (struct driver_segment){gpa, step, in};
	}
	return n;
}

static void add(struct disk *disk, unsigned int queue, struct slot *slot, bool in, unsigned int pieces)
{
	struct virtio_blk_outhdr header = {.type = htole32(slot->type), .sector = htole64(slot->sector)};
	struct driver_segment segments[DRIVER_INDIRECT];
	unsigned int n;
	int head;

	memcpy(driver_at(disk->driver, slot->header), &header, sizeof(header));
	*(uint8_t *)driver_at(disk->driver, slot->status) = NO_ANSWER;
	n = cut(segments, 0, slot->header, sizeof(header), false, MIN(pieces, 3u));
	n = cut(segments, n, slot->data, slot->len, in, pieces);
	n = cut(segments, n, slot->status, 1, true, 1);
	head = driver_add(&disk->driver->queues[queue], segments, n, n > 3 || pieces > 1);
	CHECK(head >= 0);
	slot->head = (uint16_t)head;
	slot->busy = true;
}

static uint8_t status_of(struct disk *disk, const struct slot *slot)
{
	return *(uint8_t *)driver_at(disk->driver, slot->status);
}

/* Waits for any request of the queue. */
static struct slot *finish(struct disk *disk, unsigned int queue, uint32_t *len)
{
	uint16_t head;

	CHECK(driver_wait_used(&disk->driver->queues[queue], WAIT_MS, &head, len));
	for (unsigned int i = 0; i < SLOTS; i++)
		if (disk->slots[i].busy && disk->slots[i].head == head &&
		    i % disk->options.queues == queue) {
			disk->slots[i].busy = false;
			return &disk->slots[i];
		}
	CHECK(!"a request nobody made came back");
	return NULL;
}

/* One request from start to end, on queue 0 by slot 0. */
static uint8_t ask(struct disk *disk, uint32_t type, uint64_t sector, uint32_t len, bool in)
{
	struct slot *slot = &disk->slots[0];
	uint32_t written;

	slot->type = type;
	slot->sector = sector;
	slot->len = len;
	add(disk, 0, slot, in, 1);
	driver_kick(&disk->driver->queues[0]);
	CHECK(finish(disk, 0, &written) == slot);
	if (status_of(disk, slot) == VIRTIO_BLK_S_OK)
		CHECK_EQ(written, in ? len + 1 : 1);
	return status_of(disk, slot);
}

static uint8_t *data(struct disk *disk)
{
	return driver_at(disk->driver, disk->slots[0].data);
}

static uint8_t ask_range(struct disk *disk, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {htole64(sector), htole32(sectors), htole32(flags)};

	memcpy(data(disk), &range, sizeof(range));
	return ask(disk, type, 0, sizeof(range), false);
}

static bool all_bytes(const uint8_t *p, size_t len, uint8_t value)
{
	while (len && *p == value)
		len--, p++;
	return !len;
}

static void read_image(struct disk *disk, uint64_t sector, uint8_t *bytes)
{
	int fd = open(disk->path, O_RDONLY | O_CLOEXEC);

	CHECK_EQ(pread(fd, bytes, 512, (off_t)sector * 512), 512);
	close(fd);
}

/* ---- data ---- */

/*
 * Random reads, writes and zeroings, many at a time, against a copy in memory. Slot i has the i-th part of the disk
 * for itself, so that requests in flight never overlap; it goes by queue i mod queues.
 */
static void random_operations(struct disk *disk, unsigned int rounds, bool odd_segments)
{
	const uint32_t part = SLOT_DATA / 512;
	uint8_t *model = calloc(SLOTS, SLOT_DATA);
	unsigned int in_flight[8] = {0}, started = 0, done = 0;
	uint8_t sector[512];

	while (done < rounds) {
		unsigned int index = random_below(SLOTS), queue = index % disk->options.queues;
		struct slot *slot = &disk->slots[index];
		uint32_t first, i, written;
		uint8_t *bytes;

		if (started < rounds && !slot->busy && disk->driver->queues[queue].free_count > 40) {
			first = random_below(part);
			slot->sector = (uint64_t)index * part + first;
			slot->len = (1 + random_below(part - first)) * 512;
			slot->type = random_below(2) ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
			bytes = driver_at(disk->driver, slot->data);
			memset(bytes, 0x5a, slot->len);
			for (i = 0; slot->type == VIRTIO_BLK_T_OUT && i < slot->len; i++)
				bytes[i] = (uint8_t)random_below(256);
			if (slot->type == VIRTIO_BLK_T_OUT)
				memcpy(model + slot->sector * 512, bytes, slot->len);
			if (random_below(8) == 0) {
				struct virtio_blk_discard_write_zeroes range = {
					htole64(slot->sector), htole32(slot->len / 512), htole32(random_below(2))};

				memset(model + slot->sector * 512, 0, slot->len);
				memcpy(bytes, &range, sizeof(range));
				slot->type = VIRTIO_BLK_T_WRITE_ZEROES;
				slot->len = sizeof(range);
			}
			add(disk, queue, slot, slot->type == VIRTIO_BLK_T_IN, odd_segments ? 1 + random_below(20) : 1);
			if (random_below(3))
				driver_kick(&disk->driver->queues[queue]);
			in_flight[queue]++;
			started++;
			continue;
		}
		if (!in_flight[queue])
			continue;
		driver_kick(&disk->driver->queues[queue]);
		slot = finish(disk, queue, &written);
		CHECK_EQ(status_of(disk, slot), VIRTIO_BLK_S_OK);
		if (slot->type == VIRTIO_BLK_T_IN)
			CHECK(memcmp(driver_at(disk->driver, slot->data), model + slot->sector * 512, slot->len) == 0);
		in_flight[queue]--;
		done++;
	}
	for (unsigned int i = 0; i < SLOTS * part; i++) {
		read_image(disk, i, sector);
		CHECK(memcmp(sector, model + (size_t)i * 512, 512) == 0);
	}
	free(model);
}

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
	blk = container_of(disk.device, struct blk, device);
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

/* ---- the host fails ---- */

static void tells_that_the_file_ended(void)
{
	struct disk disk;

	open_disk(&disk, MIB(1));
	CHECK_EQ(truncate(disk.path, 4096 + 512), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 8, 4096, true), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 100, 512, true), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 100, 512, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 100, 512, true), VIRTIO_BLK_S_OK);
	close_disk(&disk);
}

/* The limit falls into the middle of a request: it is cut short, goes on, and fails. */
static void tells_that_a_write_failed(void)
{
	struct rlimit old, limit;
	struct disk disk;

	signal(SIGXFSZ, SIG_IGN);
	open_disk(&disk, MIB(1));
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){16 * 512, old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 8, 4096, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 12, 4096, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 64, 512, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 64, 512, false), VIRTIO_BLK_S_OK);
	close_disk(&disk);
}

/* On a file system of 1 MiB: what was answered OK is there, the rest is told, discards make room again. */
static int fill_the_host(const char *dir)
{
	struct disk disk = {.options = {.id = "disk0", .path = disk.path, .queues = 1}};
	unsigned int i, full = 0;
	uint8_t bytes[512];
	int fd;

	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("none", dir, "tmpfs", 0, "size=1m"))
		return 2;
	snprintf(disk.path, sizeof(disk.path), "%.60s/image", dir);
	fd = open(disk.path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, MIB(4)) == 0);
	close(fd);
	plug(&disk, DRIVER_ALL_FEATURES);
	for (i = 0; i < 256; i++) {
		memset(data(&disk), (int)i + 1, SLOT_DATA);
		if (ask(&disk, VIRTIO_BLK_T_OUT, i * 32, SLOT_DATA, false) != VIRTIO_BLK_S_OK)
			break;
	}
	full = i;
	CHECK(full > 16 && full < 65);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	for (i = 0; i < full * 32; i++) {
		read_image(&disk, i, bytes);
		CHECK(all_bytes(bytes, 512, (uint8_t)(i / 32 + 1)));
	}
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_DISCARD, 0, 320, 0), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, full * 32, SLOT_DATA, false), VIRTIO_BLK_S_OK);
	/* tmpfs has no FALLOC_FL_ZERO_RANGE: zeroes are written. */
	CHECK_EQ(ask_range(&disk, VIRTIO_BLK_T_WRITE_ZEROES, full * 32, 31, 0), VIRTIO_BLK_S_OK);
	read_image(&disk, full * 32 + 30, bytes);
	CHECK(all_bytes(bytes, 512, 0));
	read_image(&disk, full * 32 + 31, bytes);
	CHECK(all_bytes(bytes, 512, (uint8_t)(full + 1)));
	driver_destroy(disk.driver);
	return 0;
}

static void stands_a_full_host(void)
{
	struct disk disk;
	int status;
	pid_t pid;

	make_image(&disk, 512);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
			_exit(2);
		if (setjmp(test_failed))
			_exit(1);
		_exit(fill_the_host(disk.dir));
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	remove_image(&disk);
	CHECK_EQ(status, 0);
}

/* ---- the host fails, and somebody is told ---- */

/* A log that can be read: the lines since the last call, in one string. */
static int log_ends[2] = {-1, -1};
static struct log pipe_log = {.level = LOG_WARN};

static void open_log(struct disk *disk)
{
	fd_close(&log_ends[0]);
	fd_close(&log_ends[1]);
	CHECK_EQ(pipe2(log_ends, O_CLOEXEC | O_NONBLOCK), 0);
	pipe_log.fd = log_ends[1];
	disk->log = &pipe_log;
}

static const char *logged(void)
{
	static char text[4096];
	ssize_t len = read(log_ends[0], text, sizeof(text) - 1);

	text[MAX(len, 0)] = 0;
	return strncmp(text, "warning: ", 9) ? text : text + 9;
}

static struct virtio_blk_health health(struct disk *disk)
{
	struct virtio_blk_health now;

	virtio_blk_health(disk->device, &now);
	return now;
}

static struct blk *blk_of(struct disk *disk)
{
	return container_of(disk->device, struct blk, device);
}

static void a_failure_is_told_and_counted(void)
{
	struct disk disk;

	make_image(&disk, MIB(1));
	open_log(&disk);
	disk.options.news = true;
	disk.options.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	plug(&disk, DRIVER_ALL_FEATURES);
	CHECK_STR(health(&disk).last, "");
	/* Its own faults are the guest's alone. */
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, MIB(1) / 512, 512, true), VIRTIO_BLK_S_IOERR);
	CHECK_STR(logged(), "");
	limit_writes(4096);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 4, 4096, false), VIRTIO_BLK_S_IOERR);
	for (unsigned int i = 0; i < 50; i++)
		CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 64, 512, false), VIRTIO_BLK_S_IOERR);
	limit_writes(RLIM_INFINITY);
	CHECK_STR(logged(), "disk0: write at offset 4096: File too large (errno 27); the guest is told\n");
	CHECK_EQ(health(&disk).failed, 51);
	CHECK(eventfd_drain(disk.options.stop_fd));
	CHECK(virtio_blk_take_news(disk.device));
	CHECK(!virtio_blk_take_news(disk.device));
	CHECK_STR(health(&disk).last, "write at offset 32768: File too large (errno 27)");
	/* The next line tells how many there were. */
	blk_of(&disk)->fault.told_ns = 1;
	limit_writes(4096);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 64, 512, false), VIRTIO_BLK_S_IOERR);
	limit_writes(RLIM_INFINITY);
	CHECK_STR(logged(), "disk0: 51 operations have failed, the last one: write at offset 32768: File too large "
			    "(errno 27)\n");
	CHECK(virtio_blk_take_news(disk.device));
	close_disk(&disk);
	close(disk.options.stop_fd);
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

static void await_kept(struct disk *disk, unsigned int count)
{
	for (unsigned int i = 0; health(disk).kept != count && i < WAIT_MS; i++)
		usleep(1000);
	CHECK_EQ(health(disk).kept, count);
}

static void a_failed_request_waits_for_a_resume(void)
{
	struct disk disk;
	uint32_t written;

	make_image(&disk, MIB(1));
	open_log(&disk);
	disk.options.stop_on_error = true;
	disk.options.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	plug(&disk, DRIVER_ALL_FEATURES);
	limit_writes(4096);
	memset(data(&disk), 0x77, 8192);
	disk.slots[0].type = VIRTIO_BLK_T_OUT;
	disk.slots[0].len = 8192;
	add(&disk, 0, &disk.slots[0], false, 1);
	driver_kick(&disk.driver->queues[0]);
	await_kept(&disk, 1);
	CHECK(eventfd_drain(disk.options.stop_fd));
	CHECK_STR(logged(), "disk0: write at offset 4096: File too large (errno 27); the machine stops, and resume tries it "
			    "again\n");
	CHECK_EQ(status_of(&disk, &disk.slots[0]), NO_ANSWER);
	/* It fails again, and again it waits; a pause is not held up. */
	CHECK_EQ(disk.device->ops->drain(disk.device, monotonic_ms() + WAIT_MS, NULL), 0);
	disk.device->ops->resume(disk.device);
	for (unsigned int i = 0; health(&disk).failed < 2 && i < WAIT_MS; i++)
		usleep(1000);
	await_kept(&disk, 1);
	CHECK_EQ(disk.device->ops->drain(disk.device, monotonic_ms() + WAIT_MS, NULL), 0);
	limit_writes(RLIM_INFINITY);
	disk.device->ops->resume(disk.device);
	CHECK(finish(&disk, 0, &written) == &disk.slots[0]);
	CHECK_EQ(status_of(&disk, &disk.slots[0]), VIRTIO_BLK_S_OK);
	CHECK_EQ(health(&disk).kept, 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 8, 4096, true), VIRTIO_BLK_S_OK);
	CHECK(all_bytes(data(&disk), 4096, 0x77));
	/* A reset by the guest forgets it. */
	limit_writes(4096);
	disk.slots[0].type = VIRTIO_BLK_T_OUT;
	disk.slots[0].len = 8192;
	add(&disk, 0, &disk.slots[0], false, 20);
	driver_kick(&disk.driver->queues[0]);
	disk.slots[0].busy = false;
	await_kept(&disk, 1);
	driver_reset(disk.driver);
	limit_writes(RLIM_INFINITY);
	CHECK_EQ(health(&disk).kept, 0);
	close(disk.options.stop_fd);
	close_disk(&disk);
}

/* A pipe instead of the image cannot be flushed. */
static void a_flush_that_has_lost_writes_is_told(void)
{
	struct disk disk;
	int ends[2];

	for (unsigned int direct = 0; direct < 3; direct++) {
		make_image(&disk, MIB(1));
		disk.options.stop_on_error = true;
		disk.options.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		disk.driver = driver_create(MIB(8), false);
		CHECK_EQ(virtio_blk_create(&disk.options, disk.driver->memory, NULL, &disk.device, NULL), 0);
		CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
		CHECK(dup3(ends[1], blk_of(&disk)->file.fd, O_CLOEXEC) >= 0);
		blk_of(&disk)->file.direct = direct;
		atomic_store(&blk_of(&disk)->cached, direct == 2);
		CHECK_EQ(driver_attach(disk.driver, disk.device, DRIVER_ALL_FEATURES), 0);
		place_slots(&disk);
		if (direct == 1) {
			disk.slots[0].type = VIRTIO_BLK_T_FLUSH;
			disk.slots[0].len = 0;
			add(&disk, 0, &disk.slots[0], false, 1);
			driver_kick(&disk.driver->queues[0]);
			await_kept(&disk, 1);
			CHECK(eventfd_drain(disk.options.stop_fd));
			disk.slots[0].busy = false;
		} else {
			CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_IOERR);
			CHECK_EQ(health(&disk).kept, 0);
			CHECK(!eventfd_drain(disk.options.stop_fd));
		}
		close(ends[0]);
		close(ends[1]);
		close(disk.options.stop_fd);
		close_disk(&disk);
	}
}

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

/* ---- life ---- */

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

static void rests_and_goes_on(void)
{
	struct disk disk;
	uint32_t written;

	open_disk(&disk, SLOTS * SLOT_DATA);
	for (unsigned int round = 0; round < 20; round++) {
		uint16_t used;

		for (unsigned int i = 0; i < SLOTS / 4; i++) {
			disk.slots[i].type = VIRTIO_BLK_T_OUT;
			disk.slots[i].sector = i * 8;
			disk.slots[i].len = 4096;
			add(&disk, 0, &disk.slots[i], false, 1);
			driver_kick(&disk.driver->queues[0]);
		}
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
	disk->driver = driver_create(MIB(8), false);
	CHECK_EQ(virtio_blk_create(&disk->options, disk->driver->memory, NULL, &disk->device, NULL), 0);
	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	CHECK(dup3(ends[0], container_of(disk->device, struct blk, device)->file.fd, O_CLOEXEC) >= 0);
	close(ends[0]);
	*answer = ends[1];
	CHECK_EQ(driver_attach(disk->driver, disk->device, DRIVER_ALL_FEATURES), 0);
	place_slots(disk);
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
		disk.driver = driver_create(MIB(8), false);
		CHECK_EQ(virtio_blk_create(&disk.options, disk.driver->memory, NULL, &disk.device, NULL), 0);
		CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
		while (write(ends[1], bytes, sizeof(bytes)) > 0)
			;
		CHECK_EQ(fcntl(ends[1], F_SETFL, 0), 0);
		CHECK(dup3(ends[1], blk_of(&disk)->file.fd, O_CLOEXEC) >= 0);
		close(ends[1]);
		CHECK_EQ(driver_attach(disk.driver, disk.device, DRIVER_ALL_FEATURES), 0);
		place_slots(&disk);
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
		for (unsigned int i = 0; i < SLOTS / 4; i++) {
			disk.slots[i].type = VIRTIO_BLK_T_OUT;
			disk.slots[i].sector = i * 8;
			disk.slots[i].len = 4096;
			add(&disk, 0, &disk.slots[i], false, 1);
			driver_kick(&disk.driver->queues[0]);
		}
		driver_pack(disk.driver, &luggage);
		CHECK_EQ(arrive(&disk, &luggage, NULL), 0);
		while (disk.driver->queues[0].free_count < disk.driver->queues[0].size)
			CHECK_EQ(status_of(&disk, finish(&disk, 0, &written)), VIRTIO_BLK_S_OK);
		CHECK(!container_of(disk.device, struct blk, device)->write_cache);
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
	struct rlimit old, limit;
	struct disk disk;

	signal(SIGXFSZ, SIG_IGN);
	open_disk(&disk, MIB(1));
	CHECK_EQ(virtio_blk_track(disk.device, NULL), 0);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){VIRTIO_BLK_GRANULE + 512, old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, VIRTIO_BLK_GRANULE / 512, 4096, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
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

TEST_MAIN(TEST(keeps_data), TEST(takes_any_layout), TEST(has_queues), TEST(goes_direct),
	  TEST(works_without_event_index), TEST(writes_through_without_flush), TEST(describes_itself),
	  TEST(tells_its_serial), TEST(twenty_bytes_are_twenty_bytes), TEST(a_request_has_a_bound),
	  TEST(refuses_what_is_wrong), TEST(discards_and_zeroes), TEST(is_read_only),
	  TEST(survives_nonsense), TEST(tells_that_the_file_ended), TEST(tells_that_a_write_failed),
	  TEST(stands_a_full_host), TEST(a_failure_is_told_and_counted), TEST(what_the_guest_asks_for_is_counted),
	  TEST(a_failed_request_waits_for_a_resume), TEST(a_flush_that_has_lost_writes_is_told),
	  TEST(an_image_that_changes_its_size_is_noticed),
	  TEST(a_resize_is_shown_to_the_guest), TEST(sectors_are_as_large_as_asked),
	  TEST(a_cache_that_cannot_be_written_stays_on),
	  TEST(a_write_in_flight_when_the_cache_is_turned_off_is_synced), TEST(waits_when_reset), TEST(rests_and_goes_on),
	  TEST(keeps_thread_and_ring_in_a_pause), TEST(a_pause_waits_for_what_is_in_flight),
	  TEST(a_pause_gives_up_on_storage_that_hangs), TEST(moves_to_another_host),
	  TEST(does_not_move_to_another_disk), TEST(marks_what_it_writes),
	  TEST(tells_what_was_changed), TEST(tells_of_a_write_that_failed), TEST(misses_no_write_in_flight))
