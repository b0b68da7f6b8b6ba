/* SPDX-License-Identifier: Apache-2.0 */
/* See blk_rig.h. */
#include "tests/unit/blk_rig.h"
#include "tests/unit/log_pipe.h"

#include <fcntl.h>

static uint64_t seed = 88172645463325252ull;

uint32_t random_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 20) % n;
}

/* ---- a disk and its driver ---- */

void make_image(struct disk *disk, off_t size)
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

struct blk *blk_of(struct disk *disk)
{
	return container_of(disk->device, struct blk, device);
}

void place_slots(struct disk *disk)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		disk->slots[i] = (struct slot){
			.header = driver_alloc(disk->driver, 16, 1),
			.data = driver_alloc(disk->driver, SLOT_DATA, 4096),
			.status = driver_alloc(disk->driver, 1, 1),
		};
}

void create(struct disk *disk)
{
	struct err err;
	int ret = virtio_blk_create(&disk->options, (disk->driver = driver_create(MIB(8), false))->memory,
				    disk->log, &disk->device, &err);

	if (ret < 0)
		printf("# %s\n", err.text);
	CHECK_EQ(ret, 0);
}

void create_over(struct disk *disk, int fd)
{
	create(disk);
	CHECK(dup3(fd, blk_of(disk)->file.fd, O_CLOEXEC) >= 0);
}

void attach(struct disk *disk, uint64_t features)
{
	CHECK_EQ(driver_attach(disk->driver, disk->device, features), 0);
	place_slots(disk);
}

void plug(struct disk *disk, uint64_t features)
{
	create(disk);
	attach(disk, features);
}

void open_disk(struct disk *disk, off_t size)
{
	make_image(disk, size);
	plug(disk, DRIVER_ALL_FEATURES);
}

void remove_image(struct disk *disk)
{
	unlink(disk->path);
	rmdir(disk->dir);
}

void close_disk(struct disk *disk)
{
	driver_destroy(disk->driver);
	remove_image(disk);
}

/* ---- requests ---- */

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

void add(struct disk *disk, unsigned int queue, struct slot *slot, bool in, unsigned int pieces)
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

uint8_t status_of(struct disk *disk, const struct slot *slot)
{
	return *(uint8_t *)driver_at(disk->driver, slot->status);
}

struct slot *finish(struct disk *disk, unsigned int queue, uint32_t *len)
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

uint8_t ask(struct disk *disk, uint32_t type, uint64_t sector, uint32_t len, bool in)
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

uint8_t *data(struct disk *disk)
{
	return driver_at(disk->driver, disk->slots[0].data);
}

uint8_t ask_range(struct disk *disk, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {htole64(sector), htole32(sectors), htole32(flags)};

	memcpy(data(disk), &range, sizeof(range));
	return ask(disk, type, 0, sizeof(range), false);
}

bool all_bytes(const uint8_t *p, size_t len, uint8_t value)
{
	while (len && *p == value)
		len--, p++;
	return !len;
}

void read_image(struct disk *disk, uint64_t sector, uint8_t *bytes)
{
	int fd = open(disk->path, O_RDONLY | O_CLOEXEC);

	CHECK_EQ(pread(fd, bytes, 512, (off_t)sector * 512), 512);
	close(fd);
}

void random_operations(struct disk *disk, unsigned int rounds, bool odd_segments)
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

/* ---- what is told of it ---- */

static struct log_pipe log_pipe = LOG_PIPE_CLOSED;

void open_log(struct disk *disk)
{
	log_pipe_open(&log_pipe, LOG_WARN, NULL);
	disk->log = &log_pipe.log;
}

const char *logged(void)
{
	const char *text = log_pipe_read(&log_pipe);

	return strncmp(text, "warning: ", 9) ? text : text + 9;
}

struct virtio_blk_health health(struct disk *disk)
{
	struct virtio_blk_health now;

	virtio_blk_health(disk->device, &now);
	return now;
}

void await_kept(struct disk *disk, unsigned int count)
{
	for (unsigned int i = 0; health(disk).kept != count && i < WAIT_MS; i++)
		usleep(1000);
	CHECK_EQ(health(disk).kept, count);
}
