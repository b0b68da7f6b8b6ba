/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/blk_replace.c: a disk gets another image while its guest runs. What was written before is in the one
 * image, what is written after is in the other, and the guest sees the other's size.
 */
#include "devices/virtio/blk_internal.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include "core/monotonic.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define WAIT_MS 20000
#define NO_ANSWER 0xee

struct image {
	char path[96];
	struct virtio_blk_passed fds;
};

struct disk {
	char dir[64];
	struct image first, second;
	struct virtio_blk_options options;
	struct virtio_device *device;
	struct virtio_driver *driver;
	uint64_t header, data, status;
};

static void make_image(const struct disk *disk, const char *name, off_t size, struct image *image)
{
	snprintf(image->path, sizeof(image->path), "%s/%s", disk->dir, name);
	image->fds.fd = open(image->path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(image->fds.fd >= 0 && ftruncate(image->fds.fd, size) == 0);
	image->fds.direct_fd = open(image->path, O_RDWR | O_DIRECT | O_CLOEXEC);
}

static void remove_image(struct image *image)
{
	fd_close(&image->fds.fd);
	fd_close(&image->fds.direct_fd);
	unlink(image->path);
}

static void start(struct disk *disk, off_t first, off_t second, unsigned int queues)
{
	memset(disk, 0, sizeof(*disk));
	snprintf(disk->dir, sizeof(disk->dir), "%.40s/blkXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(disk->dir));
	make_image(disk, "first", first, &disk->first);
	make_image(disk, "second", second, &disk->second);
	disk->options = (struct virtio_blk_options){
		.id = "disk0", .path = disk->first.path, .passed = &disk->first.fds, .queues = queues,
	};
}

static void plug(struct disk *disk)
{
	disk->driver = driver_create(MIB(8), false);
	CHECK_EQ(virtio_blk_create(&disk->options, disk->driver->memory, NULL, &disk->device, NULL), 0);
	CHECK_EQ(driver_attach(disk->driver, disk->device, DRIVER_ALL_FEATURES), 0);
	disk->header = driver_alloc(disk->driver, 16, 16);
	disk->data = driver_alloc(disk->driver, 4096, 4096);
	disk->status = driver_alloc(disk->driver, 1, 1);
}

static void done(struct disk *disk)
{
	driver_destroy(disk->driver);
	remove_image(&disk->first);
	remove_image(&disk->second);
	rmdir(disk->dir);
}

static void submit(struct disk *disk, unsigned int queue, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr header = {.type = htole32(type), .sector = htole64(sector)};
	const struct driver_segment segments[] = {
		{disk->header, sizeof(header), false}, {disk->data, 4096, type == VIRTIO_BLK_T_IN}, {disk->status, 1, true},
	};

	memcpy(driver_at(disk->driver, disk->header), &header, sizeof(header));
	*(uint8_t *)driver_at(disk->driver, disk->status) = NO_ANSWER;
	CHECK(driver_add(&disk->driver->queues[queue], segments, ARRAY_SIZE(segments), false) >= 0);
	driver_kick(&disk->driver->queues[queue]);
}

static uint8_t finish(struct disk *disk, unsigned int queue)
{
	uint16_t head;
	uint32_t len;

	CHECK(driver_wait_used(&disk->driver->queues[queue], WAIT_MS, &head, &len));
	return *(uint8_t *)driver_at(disk->driver, disk->status);
}

static uint8_t ask(struct disk *disk, unsigned int queue, uint32_t type, uint64_t sector)
{
	submit(disk, queue, type, sector);
	return finish(disk, queue);
}

static void write_letter(struct disk *disk, unsigned int queue, uint64_t sector, char letter)
{
	memset(driver_at(disk->driver, disk->data), letter, 4096);
	CHECK_EQ(ask(disk, queue, VIRTIO_BLK_T_OUT, sector), VIRTIO_BLK_S_OK);
}

static char letter_at(const struct image *image, uint64_t sector)
{
	char byte = 0;

	CHECK_EQ(pread(image->fds.fd, &byte, 1, (off_t)(sector * 512)), 1);
	return byte;
}

static int drain(struct disk *disk)
{
	return disk->device->ops->drain(disk->device, monotonic_ms() + WAIT_MS, NULL);
}

/* As the machine does it. */
static void replace(struct disk *disk, const struct image *image)
{
	struct virtio_blk_spare *spare;
	struct err err = {""};
	int rc = virtio_blk_spare_open(disk->device, image->path, &image->fds, &spare, &err);

	CHECK_STR(err.text, "");
	CHECK_EQ(rc, 0);
	CHECK_EQ(drain(disk), 0);
	CHECK_EQ(virtio_blk_spare_swap(disk->device, spare, NULL), 0);
	disk->device->ops->resume(disk->device);
	CHECK_EQ(virtio_blk_spare_close(spare, NULL), 0);
}

static uint64_t capacity(const struct disk *disk)
{
	uint8_t sectors[8];

	disk->device->ops->config_read(disk->device, 0, sectors, sizeof(sectors));
	return get_le64(sectors);
}

static bool is_locked(const struct image *image)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(image->path, O_RDWR | O_CLOEXEC);
	bool locked = fcntl(fd, F_OFD_SETLK, &lock) < 0;

	close(fd);
	return locked;
}

static void the_other_image_is_used_from_then_on(void)
{
	struct disk disk;

	for (int direct = 0; direct < 2; direct++) {
		start(&disk, MIB(1), MIB(2), 2);
		disk.options.direct = direct;
		plug(&disk);
		write_letter(&disk, 0, 8, 'a');
		write_letter(&disk, 1, 16, 'b');
		replace(&disk, &disk.second);
		CHECK_EQ(disk.driver->config_calls, 1);
		CHECK_EQ(capacity(&disk), MIB(2) / 512);
		write_letter(&disk, 0, 8, 'c');
		write_letter(&disk, 1, MIB(2) / 512 - 8, 'd'); /* beyond the other one's end */
		CHECK_EQ(letter_at(&disk.first, 8), 'a');
		CHECK_EQ(letter_at(&disk.first, 16), 'b');
		CHECK_EQ(letter_at(&disk.second, 8), 'c');
		CHECK_EQ(letter_at(&disk.second, 16), 0);
		CHECK_EQ(letter_at(&disk.second, MIB(2) / 512 - 8), 'd');
		/* The guest has let go of the first one. */
		CHECK(!is_locked(&disk.first));
		CHECK(is_locked(&disk.second));
		CHECK_EQ(ask(&disk, 0, VIRTIO_BLK_T_FLUSH, 0), VIRTIO_BLK_S_OK);
		done(&disk);
	}
}

static void there_and_back_leaves_nothing(void)
{
	uint64_t before;
	struct disk disk;

	start(&disk, MIB(1), MIB(1), 2);
	plug(&disk);
	write_letter(&disk, 0, 0, 'x');
	before = sum_of_names("/proc/self/fd");
	for (int i = 0; i < 100; i++) {
		replace(&disk, i % 2 ? &disk.first : &disk.second);
		write_letter(&disk, i % 2, 0, (char)('A' + i % 26));
	}
	CHECK_EQ(disk.driver->config_calls, 0); /* its size is what it was */
	replace(&disk, &disk.second);
	replace(&disk, &disk.first);
	CHECK_EQ(sum_of_names("/proc/self/fd"), before);
	done(&disk);
}

/* A placeholder has no room, and then as much as its image. */
static void a_placeholder_grows(void)
{
	struct disk disk;

	start(&disk, 0, MIB(1), 1);
	plug(&disk);
	CHECK_EQ(capacity(&disk), 0);
	CHECK_EQ(ask(&disk, 0, VIRTIO_BLK_T_IN, 0), VIRTIO_BLK_S_IOERR);
	replace(&disk, &disk.second);
	CHECK_EQ(disk.driver->config_calls, 1);
	CHECK_EQ(capacity(&disk), MIB(1) / 512);
	write_letter(&disk, 0, MIB(1) / 512 - 8, 'z');
	/* And back: the medium is taken out. */
	replace(&disk, &disk.first);
	CHECK_EQ(capacity(&disk), 0);
	CHECK_EQ(ask(&disk, 0, VIRTIO_BLK_T_IN, 0), VIRTIO_BLK_S_IOERR);
	done(&disk);
}

/* Nobody has started the queues: they find the image when they are. */
static void a_disk_without_a_driver_is_replaced_too(void)
{
	struct virtio_blk_spare *spare;
	struct disk disk;

	start(&disk, MIB(1), MIB(2), 1);
	plug(&disk);
	driver_reset(disk.driver);
	CHECK_EQ(virtio_blk_spare_open(disk.device, disk.second.path, &disk.second.fds, &spare, NULL), 0);
	CHECK_EQ(virtio_blk_spare_swap(disk.device, spare, NULL), 0);
	CHECK_EQ(virtio_blk_spare_close(spare, NULL), 0);
	CHECK_EQ(driver_start(disk.driver, DRIVER_ALL_FEATURES), 0);
	disk.header = driver_alloc(disk.driver, 16, 16);
	disk.data = driver_alloc(disk.driver, 4096, 4096);
	disk.status = driver_alloc(disk.driver, 1, 1);
	write_letter(&disk, 0, 8, 'n');
	CHECK_EQ(letter_at(&disk.second, 8), 'n');
	done(&disk);
}

static void one_that_cannot_be_is_refused(void)
{
	struct virtio_blk_passed same, readonly;
	struct virtio_blk_spare *spare = NULL;
	struct disk disk;
	struct err err;

	start(&disk, MIB(1), MIB(2), 1);
	plug(&disk);
	same = (struct virtio_blk_passed){open(disk.first.path, O_RDWR | O_CLOEXEC), -1};
	CHECK_EQ(virtio_blk_spare_open(disk.device, "other", &same, &spare, &err), -EEXIST);
	CHECK_STR(err.text, "--disk other: it is the image of disk0 already; mvmm disk resize shows the guest its size");
	readonly = (struct virtio_blk_passed){open(disk.second.path, O_RDONLY | O_CLOEXEC), -1};
	CHECK_EQ(virtio_blk_spare_open(disk.device, "other", &readonly, &spare, &err), -EBADF);
	CHECK(!spare);
	close(same.fd);
	close(readonly.fd);
	/* The guest that waits for the device holds up nobody, and has the image that it had. */
	CHECK_EQ(virtio_blk_spare_open(disk.device, "other", &disk.second.fds, &spare, NULL), 0);
	CHECK(is_locked(&disk.second));
	CHECK_EQ(drain(&disk), 0);
	pthread_mutex_lock(&disk.device->lock);
	CHECK_EQ(virtio_blk_spare_swap(disk.device, spare, &err), -EBUSY);
	pthread_mutex_unlock(&disk.device->lock);
	disk.device->ops->resume(disk.device);
	CHECK_EQ(virtio_blk_spare_close(spare, NULL), 0);
	CHECK(!is_locked(&disk.second));
	write_letter(&disk, 0, 8, 'k');
	CHECK_EQ(letter_at(&disk.first, 8), 'k');
	CHECK_EQ(virtio_blk_spare_close(NULL, NULL), 0);
	done(&disk);
}

TEST_MAIN(TEST(the_other_image_is_used_from_then_on), TEST(there_and_back_leaves_nothing), TEST(a_placeholder_grows),
	  TEST(a_disk_without_a_driver_is_replaced_too), TEST(one_that_cannot_be_is_refused))
