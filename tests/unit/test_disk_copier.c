/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/disk_copier: a copy has what the disk has, also what is written meanwhile; holes and zeros take no space;
 * a guest that never stops writing does not hold it up; what cannot be read, written or waited for ends it by name.
 */
#include "tests/unit/full_disk.h"
#include "vmm/snapshot/disk_copier.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bitmap.h"

#define SIZE (MIB(16) + KIB(32))
#define OTHER MIB(1)
#define GRANULES (SIZE / DISK_GRANULE + 1)

static struct disk_copy disks[2];
static int fds[2];
static unsigned long changed[2][GRANULES / BITS_PER_LONG + 1];
static struct disk_copier *copier;
static struct err err;
static unsigned int collects, busy_until; /* the guest writes again at each collect before that one */
static unsigned int ticks, ends_at;
static uint8_t page[KIB(4)];

/* ---- a guest ---- */

/* Its data is there first, and then the mark. */
static void change(int disk, uint64_t offset, uint64_t size, uint8_t value)
{
	_cleanup_(free_ptr) uint8_t *data = malloc(size);

	memset(data, value, size);
	CHECK_EQ(pwrite(disks[disk].fd, data, size, (off_t)offset), size);
	for (uint64_t at = offset / DISK_GRANULE; at <= (offset + size - 1) / DISK_GRANULE; at++)
		bitmap_set(changed[disk], at);
}

static void collect(void *opaque, unsigned long *bitmap)
{
	size_t disk = (size_t)((unsigned long (*)[ARRAY_SIZE(changed[0])])opaque - changed);

	if (disk == 0 && ++collects < busy_until)
		change(0, 0, MIB(8), (uint8_t)collects);
	bitmap_take(changed[disk], 0, (disks[disk].size + DISK_GRANULE - 1) / DISK_GRANULE, bitmap);
}

static int tick(void *opaque, struct err *e)
{
	return ++ticks == ends_at ? err_set(e, -ECANCELED, "enough") : 0;
}

/* ---- the rig ---- */

static void make(void)
{
	memset(changed, 0, sizeof(changed));
	collects = busy_until = ticks = ends_at = 0;
	for (int i = 0; i < 2; i++) {
		disks[i] = (struct disk_copy){.fd = memfd_create("disk", MFD_CLOEXEC), .size = i ? OTHER : SIZE,
					      .collect = collect, .opaque = &changed[i]};
		snprintf(disks[i].id, sizeof(disks[i].id), "disk%d", i);
		fds[i] = memfd_create("copy", MFD_CLOEXEC);
		CHECK(fds[i] >= 0 && ftruncate(disks[i].fd, (off_t)disks[i].size) == 0);
	}
	change(0, KIB(4), KIB(4), 'a');
	change(0, MIB(3), MIB(1), 'b');
	change(0, MIB(4), MIB(2), 0); /* zeros that take space in the disk */
	change(0, SIZE - 512, 512, 'z');
	change(1, 0, OTHER, 'o');
	err.text[0] = 0;
}

static void begin(void)
{
	const struct disk_copier_options options = {.disks = disks, .fds = fds, .count = 2, .tick = tick};

	CHECK_EQ(disk_copier_create(&options, &copier, &err), 0);
}

static void unmake(void)
{
	disk_copier_destroy(take_ptr(copier));
	for (int i = 0; i < 2; i++) {
		close(disks[i].fd);
		close(fds[i]);
	}
}

static void check_same(void)
{
	static uint8_t a[SIZE], b[SIZE];

	for (int i = 0; i < 2; i++) {
		struct stat st;

		CHECK_EQ(fstat(fds[i], &st), 0);
		CHECK_EQ(st.st_size, disks[i].size);
		CHECK_EQ(pread(disks[i].fd, a, disks[i].size, 0), disks[i].size);
		CHECK_EQ(pread(fds[i], b, disks[i].size, 0), disks[i].size);
		CHECK(memcmp(a, b, disks[i].size) == 0);
	}
}

/* ---- what it copies ---- */

static void a_copy_has_what_the_disk_has_and_no_zeros(void)
{
	struct stat st;

	make();
	begin();
	CHECK_EQ(disk_copier_left(copier), SIZE + OTHER);
	CHECK_EQ(disk_copier_finish(copier, &err), 0);
	CHECK_EQ(disk_copier_left(copier), 0);
	check_same();
	CHECK_EQ(fstat(fds[0], &st), 0);
	CHECK(st.st_blocks * 512ull <= MIB(1) + 2 * DISK_GRANULE + KIB(64));
	unmake();
}

static void a_file_that_is_not_empty_is_emptied(void)
{
	make();
	memset(page, 'x', sizeof(page));
	CHECK_EQ(pwrite(fds[0], page, sizeof(page), MIB(9)), sizeof(page));
	begin();
	CHECK_EQ(disk_copier_finish(copier, &err), 0);
	check_same();
	unmake();
}

static void what_the_guest_writes_meanwhile_is_copied_too(void)
{
	make();
	busy_until = 3;
	begin();
	CHECK_EQ(disk_copier_follow(copier, &err), 0);
	CHECK(collects >= 3);
	change(0, MIB(12), KIB(4), 'c');
	change(0, MIB(3), MIB(1), 0); /* was copied as data */
	change(1, 0, 512, 'p');
	CHECK_EQ(disk_copier_finish(copier, &err), 0);
	check_same();
	unmake();
}

static void a_guest_that_never_stops_writing_does_not_hold_it_up(void)
{
	make();
	busy_until = 1000;
	begin();
	CHECK_EQ(disk_copier_follow(copier, &err), 0);
	CHECK(collects < 10);
	busy_until = 0;
	CHECK_EQ(disk_copier_finish(copier, &err), 0);
	check_same();
	unmake();
}

/* ---- what ends it ---- */

static void a_tick_ends_it(void)
{
	make();
	ends_at = 1;
	begin();
	CHECK_EQ(disk_copier_follow(copier, &err), -ECANCELED);
	CHECK_STR(err.text, "enough");
	unmake();
}

static void a_full_file_system_names_the_disk(void)
{
	make();
	begin();
	limit_writes(MIB(1));
	CHECK(disk_copier_follow(copier, &err) < 0);
	limit_writes(RLIM_INFINITY);
	CHECK(strncmp(err.text, "disk disk0: write at ", 21) == 0);
	unmake();
	make();
	close(fds[1]);
	fds[1] = open("/dev/full", O_RDWR | O_CLOEXEC); /* cannot be given a size either */
	CHECK(disk_copier_create(&(struct disk_copier_options){.disks = disks, .fds = fds, .count = 2}, &copier, &err) < 0);
	CHECK(strncmp(err.text, "disk disk1: ", 12) == 0);
	unmake();
}

static void a_disk_that_became_shorter_is_named(void)
{
	make();
	CHECK_EQ(ftruncate(disks[1].fd, KIB(64)), 0);
	begin();
	CHECK_EQ(disk_copier_follow(copier, &err), -EIO);
	CHECK_STR(err.text, "disk disk1: its file ends at 65536");
	unmake();
}

TEST_MAIN(TEST(a_copy_has_what_the_disk_has_and_no_zeros), TEST(a_file_that_is_not_empty_is_emptied),
	  TEST(what_the_guest_writes_meanwhile_is_copied_too), TEST(a_guest_that_never_stops_writing_does_not_hold_it_up),
	  TEST(a_tick_ends_it), TEST(a_full_file_system_names_the_disk), TEST(a_disk_that_became_shorter_is_named))
