/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/disk_sender and disk_receiver: what is on disks arrives as it is, whatever the files had before, what is changed
 * meanwhile too; disks that cannot be read or written are named; hostile streams end by name and touch nothing else.
 */
#include "tests/unit/channel_pair.h"
#include "tests/unit/test.h"
#include "vmm/migration/disk_receiver.h"
#include "vmm/migration/disk_sender.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/bitmap.h"
#include "core/monotonic.h"

#define DISKS 2
#define MOST (MIB(5) + 512)
#define GRANULES (MOST / DISK_GRANULE + 1)

static const uint64_t sizes[DISKS] = {MOST, MIB(2) + KIB(32)};

/* A disk here and there, and what its guest has changed. */
struct side {
	unsigned long changed[GRANULES / BITS_PER_LONG + 1];
	struct disk_copy copy;
	struct disk_target target;
};

static struct side sides[DISKS];
static struct disk_copy copies[DISKS];
static struct disk_target targets[DISKS];
static struct channel *out, *in;
static struct disk_sender *sender;
static struct disk_receiver *receiver;
static struct limiter limiter;
static struct err err;
static uint8_t bytes[MOST], others[MOST];

static void collect(void *opaque, unsigned long *bitmap)
{
	struct side *side = opaque;

	bitmap_take(side->changed, 0, GRANULES, bitmap);
}

static int make_file(uint64_t size)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	return fd;
}

/* What the target's files have before they are a disk of ours. */
static void fill_with_rubbish(int fd, uint64_t size)
{
	memset(bytes, 0x6b, size);
	CHECK_EQ(pwrite(fd, bytes, size, 0), size);
}

static void set_up(void)
{
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	out = channel_end(fds[0], WIRE_SOURCE, WIRE_DISK, 0, 1, 5000);
	in = channel_end(fds[1], WIRE_TARGET, WIRE_DISK, 0, 1, 5000);
	limiter_init(&limiter, 0);
	memset(sides, 0, sizeof(sides));
	for (int i = 0; i < DISKS; i++) {
		copies[i] = (struct disk_copy){.fd = make_file(sizes[i]), .size = sizes[i], .collect = collect, .opaque = &sides[i]};
		targets[i] = (struct disk_target){.fd = make_file(sizes[i]), .size = sizes[i]};
		snprintf(copies[i].id, sizeof(copies[i].id), "disk%d", i);
		snprintf(targets[i].id, sizeof(targets[i].id), "disk%d", i);
		fill_with_rubbish(targets[i].fd, sizes[i]);
	}
	err.text[0] = 0;
}

static void begin(void)
{
	const struct disk_sender_options options = {.disks = copies, .count = DISKS, .limiter = &limiter, .cancel_fd = -1};

	CHECK_EQ(disk_receiver_create(targets, DISKS, &in, &receiver, &err), 0);
	CHECK_EQ(disk_sender_create(&options, &out, &sender, &err), 0);
}

static void tear_down(void)
{
	disk_sender_destroy(take_ptr(sender));
	disk_receiver_destroy(take_ptr(receiver));
	channel_destroy(take_ptr(out));
	channel_destroy(take_ptr(in));
	for (int i = 0; i < DISKS; i++) {
		close(copies[i].fd);
		close(targets[i].fd);
	}
}

/* The guest writes: its data is there first, and then the mark. */
static void change(int disk, uint64_t offset, uint8_t value, uint64_t size)
{
	_cleanup_(free_ptr) uint8_t *data = malloc(size);

	memset(data, value, size);
	CHECK_EQ(pwrite(copies[disk].fd, data, size, (off_t)offset), size);
	for (uint64_t at = offset / DISK_GRANULE; at <= (offset + size - 1) / DISK_GRANULE; at++)
		bitmap_set(sides[disk].changed, at);
}

static void check_same(void)
{
	for (int i = 0; i < DISKS; i++) {
		struct stat stat;

		CHECK_EQ(pread(copies[i].fd, bytes, sizes[i], 0), sizes[i]);
		CHECK_EQ(pread(targets[i].fd, others, sizes[i], 0), sizes[i]);
		CHECK(memcmp(bytes, others, sizes[i]) == 0);
		CHECK_EQ(fstat(targets[i].fd, &stat), 0);
		CHECK_EQ(stat.st_size, sizes[i]);
	}
}

static void finish(void)
{
	disk_sender_collect(sender);
	CHECK_EQ(disk_sender_send(sender, 0, &err), 0);
	CHECK_EQ(disk_sender_left(sender), 0);
	CHECK_EQ(disk_sender_end(sender, &err), 0);
	CHECK_EQ(disk_receiver_wait(receiver, &err), 0);
	CHECK_STR(err.text, "");
	check_same();
}

static void disks_arrive(void)
{
	struct stat stat;

	set_up();
	change(0, 512, 1, 512);
	change(0, MIB(1) - 512, 2, KIB(64));
	change(0, MIB(2), 0, MIB(1)); /* zeros that are there */
	change(0, MOST - 512, 3, 512);
	change(1, 0, 4, sizes[1]);
	begin();
	CHECK_EQ(disk_sender_left(sender), sizes[0] + sizes[1]);
	finish();
	CHECK(disk_sender_sent(sender) < sizes[1] + 5 * DISK_GRANULE); /* neither holes nor zeros */
	CHECK_EQ(fstat(targets[0].fd, &stat), 0);
	CHECK(stat.st_blocks * 512 < (blkcnt_t)MIB(1)); /* and they are holes here */
	tear_down();
}

static void what_changes_goes_again(void)
{
	uint64_t sent;

	set_up();
	change(0, 0, 1, MIB(1));
	begin();
	CHECK_EQ(disk_sender_send(sender, 0, &err), 0);
	CHECK_EQ(disk_sender_flush(sender, &err), 0);
	CHECK(disk_sender_flush_time(sender) > 0);
	disk_sender_collect(sender); /* what was changed before it began */
	CHECK_EQ(disk_sender_left(sender), MIB(1));
	CHECK_EQ(disk_sender_send(sender, 0, &err), 0);
	disk_sender_collect(sender);
	CHECK_EQ(disk_sender_left(sender), 0);
	sent = disk_sender_sent(sender);
	change(0, 4096, 2, 512);
	change(0, MOST - 512, 3, 512);
	change(1, MIB(2), 4, 4096);
	disk_sender_collect(sender);
	CHECK_EQ(disk_sender_left(sender), DISK_GRANULE + 512 + KIB(32));
	CHECK_EQ(disk_sender_send(sender, 0, &err), 0);
	CHECK(disk_sender_sent(sender) - sent < DISK_GRANULE + 512 + KIB(32) + 1024);
	/* What was there is discarded, on one by a hole, on the other by zeros. */
	CHECK_EQ(fallocate(copies[0].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MIB(1)), 0);
	for (unsigned int i = 0; i < MIB(1) / DISK_GRANULE; i++)
		bitmap_set(sides[0].changed, i);
	change(1, MIB(2), 0, 4096);
	finish();
	tear_down();
}

/* A guest at work: it writes numbers that grow, here and there. */
static atomic_bool over;

static void *guest(void *opaque)
{
	uint64_t seed = 88172645463325252ull;

	for (uint8_t number = 1; !atomic_load(&over); number++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		change((int)(seed & 1), seed % (sizes[seed & 1] / 4096) * 4096, number, 4096);
	}
	return NULL;
}

static void rounds_miss_nothing(void)
{
	pthread_t thread;

	set_up();
	begin();
	atomic_store(&over, false);
	CHECK_EQ(pthread_create(&thread, NULL, guest, NULL), 0);
	for (int i = 0; i < 200; i++) {
		CHECK_EQ(disk_sender_send(sender, 0, &err), 0);
		if (i % 50 == 0)
			CHECK_EQ(disk_sender_flush(sender, &err), 0);
		disk_sender_collect(sender);
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	finish();
	tear_down();
}

static void time_and_cap_are_kept(void)
{
	uint64_t start, left;

	set_up();
	limiter.rate = MIB(8);
	change(0, 0, 1, MIB(4));
	begin();
	start = monotonic_ns();
	CHECK_EQ(disk_sender_send(sender, start + 100000000, &err), 0);
	left = disk_sender_left(sender);
	CHECK(left > MIB(2) + sizes[1] && left < sizes[0] + sizes[1]);
	finish();
	CHECK(monotonic_ns() - start > 400000000);
	tear_down();
}

static void no_disks_are_nothing_to_do(void)
{
	disk_sender_collect(NULL);
	CHECK_EQ(disk_sender_left(NULL), 0);
	CHECK_EQ(disk_sender_sent(NULL), 0);
	CHECK_EQ(disk_sender_send(NULL, 0, NULL), 0);
	CHECK_EQ(disk_sender_flush(NULL, NULL), 0);
	CHECK_EQ(disk_sender_end(NULL, NULL), 0);
	disk_sender_destroy(NULL);
	disk_receiver_destroy(NULL);
}

/* ---- disks that fail ---- */

static void a_disk_that_cannot_be_read_is_named(void)
{
	set_up();
	change(1, 0, 1, sizes[1]);
	CHECK_EQ(ftruncate(copies[1].fd, (off_t)MIB(1)), 0);
	begin();
	CHECK_EQ(disk_sender_send(sender, 0, &err), -EIO);
	CHECK_STR(err.text, "disk disk1: its file ends at 1048576");
	tear_down();
	/* No more where there is nothing but a hole. */
	set_up();
	CHECK_EQ(ftruncate(copies[0].fd, 0), 0);
	begin();
	CHECK_EQ(disk_sender_send(sender, 0, &err), -EIO);
	CHECK_STR(err.text, "disk disk0: its file ends at 0");
	tear_down();

	set_up();
	change(1, 0, 1, sizes[1]);
	close(copies[1].fd);
	copies[1].fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	begin();
	CHECK_EQ(disk_sender_send(sender, 0, &err), -EBADF);
	CHECK(strstr(err.text, "disk disk1: read at 0: "));
	tear_down();
}

static void a_full_target_is_named(void)
{
	static const bool zeros[] = {false, true};

	for (size_t i = 0; i < ARRAY_SIZE(zeros); i++) {
		int code = 0;

		set_up();
		if (!zeros[i])
			change(0, 0, 1, MIB(1));
		close(targets[0].fd);
		targets[0].fd = open("/dev/full", O_RDWR | O_CLOEXEC);
		begin();
		while (!code)
			code = disk_sender_send(sender, 0, &err) ?: disk_sender_flush(sender, &err);
		CHECK(code == -ECONNRESET);
		CHECK_EQ(disk_receiver_wait(receiver, &err), -ENOSPC);
		CHECK_STR(err.text, "disk disk0: write at 0: No space left on device");
		tear_down();
	}
}

/* Called ten times a second; its error is the wait's. */
static int have_enough(void *opaque, struct err *why)
{
	unsigned int *ticks = opaque;

	return ++*ticks == 2 ? err_set(why, -EIO, "something else has failed") : 0;
}

static void flush_that_is_not_answered_is_waited_for_no_longer_than_wanted(void)
{
	unsigned int ticks = 0;
	const struct disk_sender_options options = {.disks = copies, .count = DISKS, .cancel_fd = -1, .tick = have_enough,
						    .opaque = &ticks};

	set_up();
	CHECK_EQ(disk_sender_create(&options, &out, &sender, &err), 0); /* and nobody receives */
	CHECK_EQ(disk_sender_flush(sender, &err), -EIO);
	CHECK_STR(err.text, "something else has failed");
	CHECK_EQ(ticks, 2);
	tear_down();
}

/* ---- peers that say what they may not ---- */

static void hostile_frames_end_by_name(void)
{
	static const struct {
		struct wire_frame frames[3];
		const char *words;
	} cases[] = {
		{{{WIRE_BLOCKS, 512, 0, 0}}, "no disk was selected"},
		{{{WIRE_HOLE, 0, 0, 512}}, "no disk was selected"},
		{{{WIRE_SELECT, 0, DISKS, 0}}, "disk 2 of 2"},
		{{{WIRE_SELECT, 0, UINT64_MAX, 0}}, "disk 18446744073709551615 of 2"},
		{{{WIRE_SELECT, 0, 0, 0}, {WIRE_BLOCKS, 512, MOST, 0}}, "disk disk0: 512 bytes at 5243392, but it has only 5243392"},
		{{{WIRE_SELECT, 0, 0, 0}, {WIRE_BLOCKS, 1024, MOST - 512, 0}}, "disk disk0: 1024 bytes at "},
		{{{WIRE_SELECT, 0, 0, 0}, {WIRE_BLOCKS, 512, UINT64_MAX - 511, 0}}, "disk disk0: 512 bytes at "},
		{{{WIRE_SELECT, 0, 1, 0}, {WIRE_HOLE, 0, MIB(2), MIB(1)}}, "disk disk1: 1048576 bytes at 2097152"},
		{{{WIRE_SELECT, 0, 1, 0}, {WIRE_HOLE, 0, 0, 512}, {WIRE_END, 0, 0, 1024}}, "0 bytes and 1024 of holes were sent, but 0 and 512 received"},
		{{{WIRE_END, 0, 512, 0}}, "512 bytes and 0 of holes were sent, but 0 and 0 received"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t header[WIRE_HEADER_SIZE];

		set_up();
		CHECK_EQ(disk_receiver_create(targets, DISKS, &in, &receiver, &err), 0);
		for (size_t f = 0; f < ARRAY_SIZE(cases[i].frames) && cases[i].frames[f].type; f++) {
			wire_put_header(header, &cases[i].frames[f]);
			send(out->fd, header, sizeof(header), MSG_NOSIGNAL);
			send(out->fd, bytes, cases[i].frames[f].length, MSG_NOSIGNAL);
		}
		CHECK_EQ(disk_receiver_wait(receiver, &err), -EPROTO);
		if (!strstr(err.text, cases[i].words))
			printf("# %s\n", err.text);
		CHECK(strstr(err.text, cases[i].words));
		for (int disk = 0; disk < DISKS; disk++) {
			struct stat stat;

			CHECK_EQ(fstat(targets[disk].fd, &stat), 0);
			CHECK_EQ(stat.st_size, sizes[disk]);
		}
		tear_down();
	}
}

TEST_MAIN(TEST(disks_arrive), TEST(what_changes_goes_again), TEST(rounds_miss_nothing), TEST(time_and_cap_are_kept),
	  TEST(no_disks_are_nothing_to_do), TEST(a_disk_that_cannot_be_read_is_named), TEST(a_full_target_is_named),
	  TEST(flush_that_is_not_answered_is_waited_for_no_longer_than_wanted),
	  TEST(hostile_frames_end_by_name))
