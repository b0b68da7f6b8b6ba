/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/snapshot_disks and disk_identity: disks are kept as they are in the pause, or refused with the ways out;
 * storage that hangs holds nothing up; a disk that has been written is told from one that has not.
 */
#include "tests/unit/full_disk.h"
#include "vmm/snapshot/disk_identity.h"
#include "vmm/snapshot/snapshot_disks.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/bitmap.h"
#include "core/monotonic.h"

#define SIZE MIB(2)
#define PATIENCE_MS 20000

static char folder[64];
static struct snapshot_request request;
static struct snapshot_files files;
static struct disk_copy disks[2];
static unsigned long changed; /* of the first disk */
static bool tracked;
static int cancel_fd, gate[2];
static unsigned int flushes, hangs_at; /* the flush that hangs, until gate is closed */
static bool reflinks_hang;
static int reads_hang; /* of this descriptor's file; -1: none */
static struct snapshot_disk_set *set;
static struct snapshot_disk identities[WIRE_MAX_DISKS];
static size_t kept;
static struct err err;

/* ---- a machine ---- */

static void collect(void *opaque, unsigned long *bitmap)
{
	CHECK(tracked);
	*bitmap |= changed;
	changed = 0;
}

static void no_collect(void *opaque, unsigned long *bitmap)
{
}

static int do_track(void *machine, struct err *why)
{
	tracked = true;
	return 0;
}

static void do_untrack(void *machine)
{
	tracked = false;
}

static const struct migration_machine_ops ops = {.track_disks = do_track, .untrack_disks = do_untrack};

static int do_flush(int fd)
{
	struct pollfd open = {.fd = gate[0], .events = POLLIN};

	if (++flushes == hangs_at)
		poll(&open, 1, 20000);
	return 0;
}

static void hang(void)
{
	struct pollfd open = {.fd = gate[0], .events = POLLIN};

	poll(&open, 1, 20000);
}

/* In the place of the C library's. */
int ioctl(int fd, unsigned long call, ...)
{
	va_list args;
	void *argument;

	va_start(args, call);
	argument = va_arg(args, void *);
	va_end(args);
	if (reflinks_hang && call == FICLONERANGE) /* a file system that has them */
		return 0;
	if (reflinks_hang && call == FICLONE)
		hang();
	return (int)syscall(SYS_ioctl, fd, call, argument);
}

ssize_t pread(int fd, void *data, size_t len, off_t at)
{
	struct stat here, there;

	if (reads_hang >= 0 && fstat(fd, &here) == 0 && fstat(reads_hang, &there) == 0 && here.st_ino == there.st_ino)
		hang();
	return syscall(SYS_pread64, fd, data, len, at);
}

static int tick(void *opaque, struct err *why)
{
	struct pollfd cancelled = {.fd = cancel_fd, .events = POLLIN};

	return poll(&cancelled, 1, 0) == 1 ? err_set(why, -ECANCELED, "enough") : 0;
}

static void write_disk(int disk, off_t at, char value)
{
	char bytes[512];

	memset(bytes, value, sizeof(bytes));
	CHECK_EQ(pwrite(disks[disk].fd, bytes, sizeof(bytes), at), sizeof(bytes));
	if (disk == 0)
		changed |= 1ul << (uint64_t)at / DISK_GRANULE;
}

/* ---- the rig ---- */

static const struct snapshot_take_config config = {
	.request = &request, .files = &files, .ops = &ops, .disks = disks, .disk_count = 2, .flush = do_flush,
};

static int file(const char *name)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	unlink(path);
	return fd;
}

static void make(enum snapshot_disks how)
{
	snprintf(folder, sizeof(folder), "%.40s/disksXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(folder));
	request = (struct snapshot_request){.disks = how};
	snapshot_files_init(&files);
	for (int i = 0; i < 2; i++) {
		disks[i] = (struct disk_copy){.fd = file("disk"), .size = SIZE, .collect = i ? no_collect : collect};
		snprintf(disks[i].id, sizeof(disks[i].id), "disk%d", i);
		CHECK_EQ(ftruncate(disks[i].fd, SIZE), 0);
		files.disks[i].fd = file("copy");
		snprintf(files.disks[i].id, sizeof(files.disks[i].id), "disk%d", i);
	}
	files.disk_count = 2;
	cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK_EQ(pipe2(gate, O_CLOEXEC), 0);
	flushes = hangs_at = 0;
	reflinks_hang = false;
	reads_hang = -1;
	changed = 0;
	write_disk(0, 0, 'a');
	write_disk(1, SIZE - 512, 'z');
	err.text[0] = 0;
}

static int begin(void)
{
	const struct snapshot_disks_options options = {.config = &config, .cancel_fd = cancel_fd, .tick = tick};

	return snapshot_disks_create(&options, &set, &err);
}

static void unmake(void)
{
	snapshot_disks_destroy(take_ptr(set));
	CHECK(!tracked);
	close(gate[1]); /* a flush that hangs ends */
	for (int i = 0; i < 2; i++)
		close(disks[i].fd);
	snapshot_files_close(&files);
	close(cancel_fd);
	CHECK_EQ(rmdir(folder), 0);
}

static void check_kept(void)
{
	static char a[SIZE], b[SIZE];

	CHECK_EQ(kept, 2);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(pread(disks[i].fd, a, SIZE, 0), SIZE);
		CHECK_EQ(pread(files.disks[i].fd, b, SIZE, 0), SIZE);
		CHECK(memcmp(a, b, SIZE) == 0);
		CHECK_STR(identities[i].id, disks[i].id);
		CHECK_EQ(identities[i].size, SIZE);
	}
}

/* ---- how they are kept ---- */

static void copies_have_what_the_disks_have_in_the_pause(void)
{
	make(SNAPSHOT_DISKS_COPY);
	CHECK_EQ(begin(), 0);
	CHECK(tracked);
	CHECK_EQ(snapshot_disks_left(set), 2 * SIZE);
	CHECK_EQ(snapshot_disks_prepare(set, &err), 0);
	write_disk(0, MIB(1), 'b'); /* before the pause */
	CHECK_EQ(snapshot_disks_flush(set, monotonic_ms() + 10000, &err), 0);
	CHECK_EQ(snapshot_disks_keep(set, PATIENCE_MS, identities, &kept, &err), 0);
	CHECK_EQ(snapshot_disks_left(set), 0);
	check_kept();
	unmake();
}

static void reflinks_have_what_the_disks_have_in_the_pause(void)
{
	make(SNAPSHOT_DISKS_REFLINK);
	if (begin() == -ENOTSUP) {
		unmake();
		SKIP("no reflinks on this file system");
	}
	CHECK_EQ(snapshot_disks_prepare(set, &err), 0);
	write_disk(0, MIB(1), 'b');
	CHECK_EQ(snapshot_disks_flush(set, monotonic_ms() + 10000, &err), 0);
	CHECK_EQ(snapshot_disks_keep(set, PATIENCE_MS, identities, &kept, &err), 0);
	check_kept();
	unmake();
}

/* A reflink from one file system to another cannot be had anywhere. */
static void without_reflinks_the_ways_out_are_named(void)
{
	make(SNAPSHOT_DISKS_REFLINK);
	close(files.disks[0].fd);
	files.disks[0].fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	CHECK_EQ(begin(), -ENOTSUP);
	CHECK(strncmp(err.text, "disk0: cannot be kept as a reflink beside the snapshot (", 56) == 0);
	CHECK(strstr(err.text, "--disks copy") && strstr(err.text, "--disks none") && strstr(err.text, "XFS"));
	CHECK_EQ(flushes, 0);
	unmake();
}

static void disks_that_are_not_kept_are_flushed_and_identified(void)
{
	make(SNAPSHOT_DISKS_NONE);
	files.disk_count = 0;
	CHECK_EQ(begin(), 0);
	CHECK_EQ(snapshot_disks_prepare(set, &err), 0);
	CHECK_EQ(flushes, 2);
	CHECK_EQ(snapshot_disks_flush(set, monotonic_ms() + 10000, &err), 0);
	CHECK_EQ(snapshot_disks_keep(set, PATIENCE_MS, identities, &kept, &err), 0);
	CHECK_EQ(flushes, 4);
	CHECK_EQ(kept, 2);
	files.disk_count = 2;
	unmake();
}

static void a_disk_without_a_file_is_named(void)
{
	make(SNAPSHOT_DISKS_COPY);
	files.disks[1].id[4] = '7';
	CHECK_EQ(begin(), -EINVAL);
	CHECK_STR(err.text, "disk1: there is no file for this disk");
	unmake();
}

/* ---- what holds it up ---- */

static void storage_that_hangs_before_the_pause_is_given_up_by_a_cancel(void)
{
	make(SNAPSHOT_DISKS_NONE);
	hangs_at = 1;
	CHECK_EQ(begin(), 0);
	eventfd_write(cancel_fd, 1);
	CHECK_EQ(snapshot_disks_prepare(set, &err), -ECANCELED);
	CHECK_STR(err.text, "enough");
	unmake();
}

static void storage_that_hangs_in_the_pause_ends_it(void)
{
	make(SNAPSHOT_DISKS_NONE);
	hangs_at = 3;
	CHECK_EQ(begin(), 0);
	CHECK_EQ(snapshot_disks_prepare(set, &err), 0);
	CHECK_EQ(snapshot_disks_flush(set, monotonic_ms() + 20, &err), -ETIMEDOUT);
	CHECK(strstr(err.text, "storage has not completed a flush"));
	unmake();
}

/* As if the kernel took the blocks of the first disk for ever. */
static void a_reflink_that_hangs_ends_the_pause(void)
{
	make(SNAPSHOT_DISKS_REFLINK);
	reflinks_hang = true;
	CHECK_EQ(begin(), 0);
	CHECK_EQ(snapshot_disks_keep(set, 20, identities, &kept, &err), -ETIMEDOUT);
	CHECK_STR(err.text, "storage has not kept the disks in time");
	CHECK_EQ(kept, 0);
	eventfd_write(cancel_fd, 1);
	CHECK_EQ(snapshot_disks_keep(set, PATIENCE_MS, identities, &kept, &err), -ECANCELED);
	CHECK_STR(err.text, "enough");
	unmake();
}

static void a_read_that_hangs_ends_the_pause(void)
{
	make(SNAPSHOT_DISKS_COPY);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(snapshot_disks_prepare(set, &err), 0);
	write_disk(0, MIB(1), 'b');
	reads_hang = disks[0].fd;
	CHECK_EQ(snapshot_disks_keep(set, 20, identities, &kept, &err), -ETIMEDOUT);
	CHECK_STR(err.text, "storage has not kept the disks in time");
	CHECK_EQ(snapshot_disks_left(set), 0); /* it was handed over */
	unmake();
}

static void a_full_file_system_names_the_disk(void)
{
	make(SNAPSHOT_DISKS_COPY);
	CHECK_EQ(begin(), 0);
	limit_writes(KIB(4));
	CHECK(snapshot_disks_prepare(set, &err) < 0);
	limit_writes(RLIM_INFINITY);
	CHECK(strncmp(err.text, "disk disk0: write at ", 21) == 0);
	unmake();
}

/* ---- whether a disk has changed ---- */

static void a_disk_that_was_written_is_told_from_one_that_was_not(void)
{
	uint8_t boot[16];
	struct snapshot_disk then;

	make(SNAPSHOT_DISKS_NONE);
	disk_identity_boot_id(boot);
	for (int i = 0; i < 20; i++) { /* within a tick of the clock of files, too */
		write_disk(0, 0, (char)i);
		disk_identity_settle(disks[0].fd);
		CHECK_EQ(disk_identity_read("disk0", disks[0].fd, SIZE, &then, &err), 0);
		CHECK(disk_identity_same(&then, boot, disks[0].fd));
		write_disk(0, 0, (char)i);
		CHECK(!disk_identity_same(&then, boot, disks[0].fd));
	}
	CHECK_EQ(disk_identity_read("disk0", disks[0].fd, SIZE, &then, &err), 0);
	CHECK(!disk_identity_same(&then, boot, disks[1].fd)); /* another file */
	unmake();
}

TEST_MAIN(TEST(copies_have_what_the_disks_have_in_the_pause), TEST(reflinks_have_what_the_disks_have_in_the_pause),
	  TEST(without_reflinks_the_ways_out_are_named), TEST(disks_that_are_not_kept_are_flushed_and_identified),
	  TEST(a_disk_without_a_file_is_named), TEST(storage_that_hangs_before_the_pause_is_given_up_by_a_cancel),
	  TEST(storage_that_hangs_in_the_pause_ends_it), TEST(a_reflink_that_hangs_ends_the_pause),
	  TEST(a_read_that_hangs_ends_the_pause), TEST(a_full_file_system_names_the_disk),
	  TEST(a_disk_that_was_written_is_told_from_one_that_was_not))
