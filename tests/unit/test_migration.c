/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/source and target, against each other: the guest arrives whole, and whatever fails, wherever the connection is
 * cut, whenever somebody has enough, at most one side runs it, none only where a person is told so, and the disk is never lost.
 */
#include "tests/unit/migration_check.h"
#include "vmm/migration/wire.h"

static void guest_arrives(void)
{
	struct rig_options options = plain();
	uint64_t sum = 0;

	run(&options);
	for (unsigned int i = 0; i < MIGRATION_STEPS; i++)
		sum += result.source.steps[i];
	CHECK_EQ(sum, result.source.downtime);
	CHECK(result.source.target_load <= result.source.steps[MIGRATION_STEP_LOAD]);
	CHECK(result.source.target_start <= result.source.steps[MIGRATION_STEP_START]);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
	CHECK(result.tells >= 3);
	CHECK(result.tries >= 1);
	CHECK(result.source.progress.round >= 1);
	CHECK(result.source.progress.sent > 0);
	CHECK(result.source.downtime > 0);
	CHECK(result.source.downtime < 5000000000);
}

static void one_stream_is_enough(void)
{
	struct rig_options options = plain();

	options.request.streams = 1;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
	options.request.streams = MIGRATION_MAX_STREAMS;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
}

static void descriptor_will_do(void)
{
	struct rig_options options = plain();

	options.by_fd = true;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
}

static void compressed(void)
{
	struct rig_options options = plain();

	options.request.compress = MIGRATION_ZSTD;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
}

static void failures_are_told_to_both(void)
{
	for (enum rig_failure fail = RIG_OFFER; fail < RIG_FAILURES; fail++) {
		struct rig_options options = plain();
		char words[40];

		options.fail = fail;
		snprintf(words, sizeof(words), "%s fails", rig_failure_text(fail));
		fails_with(&options, words);
	}
}

static void no_target_is_said(void)
{
	struct rig_options options = plain();

	options.cut_after = 1;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
}

/* A whole migration's bytes first, then cut after each of many shares of them. */
static uint64_t bytes_of_one(const struct rig_options *from)
{
	struct rig_options options = *from;

	options.cut_after = UINT64_MAX;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
	return result.passed;
}

/* How migrations ended. */
struct tally {
	unsigned int done, failed, unresolved;
};

static void lose_after(struct rig_options *options, uint64_t bytes, struct tally *tally)
{
	options->cut_after = bytes;
	run(options);
	tally->done += result.source.state == MIGRATION_DONE;
	tally->failed += result.source.state == MIGRATION_FAILED;
	tally->unresolved += result.source.state == MIGRATION_UNRESOLVED;
}

/* Evenly over all of it, and then each place from the end, where the states change, backwards. The bytes are the same each time
 * but for keep-alives, of which a busy machine sends more. A stall takes its time: the first that leaves it open is enough. */
static void lose_connection(bool stall, unsigned int points, bool devices, bool disks)
{
	struct rig_options options = plain();
	struct tally tally = {0};
	uint64_t all;

	options.devices = devices;
	options.disks = disks;
	options.idle = true;
	all = bytes_of_one(&options);
	options.stall = stall;
	for (unsigned int i = 1; i <= points; i++)
		lose_after(&options, all / (points + 1) * i, &tally);
	for (unsigned int i = 0; i < 40 && !(stall && tally.unresolved); i++)
		lose_after(&options, all + 4 * WIRE_HEADER_SIZE - 7 * i, &tally);
	printf("# %s: done %u, failed %u, unresolved %u\n", stall ? "stall" : "cut", tally.done, tally.failed, tally.unresolved);
	CHECK(tally.failed >= points / 2);
	CHECK(tally.unresolved);
}

static void cut_anywhere(void)
{
	lose_connection(false, 14, false, false);
}

static void stalled_anywhere(void)
{
	lose_connection(true, 2, false, false);
}

static void devices_arrive(void)
{
	struct rig_options options = plain();

	options.devices = true;
	run(&options);
	CHECK_STR(result.source.text, "");
	CHECK_EQ(result.source.state, MIGRATION_DONE);
}

/* Whatever devices do, theirs is the sentence on both sides, and they work on where they were. */
static void failures_of_devices_are_told_to_both(void)
{
	static const char *const words[] = {
		[RIG_DEVICE_START] = "vfio 0000:01:00.0: from RUNNING to PRE_COPY: ",
		[RIG_DEVICE_STOP] = "vfio 0000:01:00.0: from PRE_COPY_P2P to STOP_COPY: ",
		[RIG_DEVICE_READ] = "vfio 0000:01:01.0: read its state: ",
		[RIG_DEVICE_WRITE] = "vfio 0000:02:00.0: write its state: ",
		[RIG_DEVICE_STATE] = "the device refuses the state: vfio 0000:02:01.0: from RESUMING to STOP: ",
	};

	for (enum rig_failure fail = RIG_DEVICE_START; fail < RIG_ALL_FAILURES; fail++) {
		struct rig_options options = plain();

		options.devices = true;
		options.fail = fail;
		fails_with(&options, words[fail]);
	}
}

static void cut_anywhere_with_devices(void)
{
	lose_connection(false, 10, true, false);
}

static void stalled_anywhere_with_devices(void)
{
	lose_connection(true, 2, true, false);
}

static void a_disk_goes_along(void)
{
	struct rig_options options = plain();

	options.disks = true;
	run(&options);
	CHECK_STR(result.source.text, "");
	CHECK_EQ(result.source.state, MIGRATION_DONE);
	CHECK(result.source.disk_sent > MIB(1));
	CHECK(result.source.disk_sent < result.source.progress.sent);
	options.devices = true;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
}

static void failures_of_disks_are_told_to_both(void)
{
	static const char *const words[] = {
		[RIG_DISK_READ] = "disk disk0: read at 0: ",
		[RIG_DISK_WRITE] = "disk disk0: write at 0: No space left on device",
	};

	for (enum rig_failure fail = RIG_DISK_READ; fail <= RIG_DISK_WRITE; fail++) {
		struct rig_options options = plain();

		options.disks = true;
		options.fail = fail;
		fails_with(&options, words[fail]);
	}
}

static void cut_anywhere_with_a_disk(void)
{
	lose_connection(false, 10, false, true);
}

static void stalled_anywhere_with_a_disk(void)
{
	lose_connection(true, 2, false, true);
}

static void cancelled_at_any_time(void)
{
	unsigned int cancelled = 0;

	for (unsigned int i = 0; i < 16; i++) {
		struct rig_options options = plain();

		options.devices = i % 2;
		options.disks = i % 3 == 0;
		options.cancel_us = 1 + i * i * 200;
		run(&options);
		if (result.source.state == MIGRATION_DONE)
			continue;
		CHECK_EQ(result.source.state, MIGRATION_FAILED);
		CHECK_STR(result.source.text, "enough");
		cancelled++;
	}
	CHECK(cancelled >= 3);
}

static void target_ended_at_any_time(void)
{
	unsigned int ended = 0;

	for (unsigned int i = 0; i < 16; i++) {
		struct rig_options options = plain();

		options.devices = i % 2;
		options.disks = i % 3 == 0;
		options.end_us = 1 + i * i * 200;
		run(&options);
		ended += result.source.state == MIGRATION_FAILED;
	}
	CHECK(ended >= 3);
}

TEST_MAIN(TEST(guest_arrives), TEST(one_stream_is_enough), TEST(descriptor_will_do), TEST(compressed),
	  TEST(failures_are_told_to_both), TEST(no_target_is_said), TEST(cut_anywhere), TEST(stalled_anywhere),
	  TEST(devices_arrive), TEST(failures_of_devices_are_told_to_both), TEST(cut_anywhere_with_devices),
	  TEST(stalled_anywhere_with_devices), TEST(a_disk_goes_along), TEST(failures_of_disks_are_told_to_both),
	  TEST(cut_anywhere_with_a_disk), TEST(stalled_anywhere_with_a_disk),
	  TEST(cancelled_at_any_time), TEST(target_ended_at_any_time))
