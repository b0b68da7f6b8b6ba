/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/blk*: the host fails, and the guest or whoever runs it is told. */
#include "tests/unit/blk_rig.h"
#include "tests/unit/full_disk.h"

#include "core/irq.h"
#include "core/monotonic.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/wait.h>

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
	struct disk disk;

	open_disk(&disk, MIB(1));
	limit_writes(16 * 512);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 8, 4096, false), VIRTIO_BLK_S_OK);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 12, 4096, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_OUT, 64, 512, false), VIRTIO_BLK_S_IOERR);
	limit_writes(RLIM_INFINITY);
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

/* Those that wait for a resume, for a limit, and those that come: nothing holds them up, and the host is not told. */
static void a_disconnected_disk_fails_all_requests(void)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
	const struct token_bucket_limit one = {.size = 1, .refill_ns = 3600000000000ull};
	struct disk disk;
	uint32_t written;

	make_image(&disk, MIB(1));
	open_log(&disk);
	disk.options.stop_on_error = true;
	disk.options.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	plug(&disk, DRIVER_ALL_FEATURES);
	CHECK_EQ(virtio_device_set_limit(disk.device, 0, &(struct token_bucket_limit){0}, &one), 0);
	limit_writes(4096);
	disk.slots[0].type = VIRTIO_BLK_T_OUT;
	disk.slots[0].len = 8192;
	disk.slots[1].type = VIRTIO_BLK_T_IN;
	disk.slots[1].len = 4096;
	add(&disk, 0, &disk.slots[0], false, 1);
	add(&disk, 0, &disk.slots[1], true, 1);
	driver_kick(&disk.driver->queues[0]);
	await_kept(&disk, 1);
	limit_writes(RLIM_INFINITY);
	CHECK_EQ(disk.device->ops->drain(disk.device, monotonic_ms() + WAIT_MS, NULL), 0);
	virtio_blk_disconnect(disk.device);
	disk.device->ops->resume(disk.device);
	for (unsigned int i = 0; i < 2; i++) {
		const struct slot *slot = finish(&disk, 0, &written);

		CHECK_EQ(status_of(&disk, slot), VIRTIO_BLK_S_IOERR);
	}
	CHECK_EQ(health(&disk).kept, 0);
	for (unsigned int i = 0; i < 4; i++)
		CHECK_EQ(ask(&disk, types[i % 2], 0, 4096, !(i % 2)), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(health(&disk).failed, 1);
	/* Nor does a driver that begins anew find more. */
	driver_reset(disk.driver);
	CHECK_EQ(driver_start(disk.driver, DRIVER_ALL_FEATURES), 0);
	place_slots(&disk);
	CHECK_EQ(ask(&disk, VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_IOERR);
	CHECK(!strchr(strchr(logged(), '\n') + 1, '\n'));
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
		CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
		create_over(&disk, ends[1]);
		blk_of(&disk)->file.direct = direct;
		atomic_store(&blk_of(&disk)->cached, direct == 2);
		attach(&disk, DRIVER_ALL_FEATURES);
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

TEST_MAIN(TEST(tells_that_the_file_ended), TEST(tells_that_a_write_failed), TEST(stands_a_full_host),
	  TEST(a_failure_is_told_and_counted), TEST(a_failed_request_waits_for_a_resume),
	  TEST(a_disconnected_disk_fails_all_requests),
	  TEST(a_flush_that_has_lost_writes_is_told))
