/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/source and target: no wait is longer than its deadline, though the peer is alive or storage hangs, and
 * the guest is paused no longer than it may be.
 */
#include "tests/unit/migration_check.h"
#include "vmm/migration/dialer.h"

/* ---- a target that is alive and does not get on ---- */

static struct rig_options hanging(enum rig_failure at)
{
	struct rig_options options = plain();

	options.hang = at;
	options.silence_ms = 1000;
	return options;
}

static void guest_goes_on_where_the_target_does_not_load_it(void)
{
	struct rig_options options = hanging(RIG_LOAD);

	options.request.goal.downtime = 500000000;
	options.request.downtime_limit = 510000000;
	for (int devices = 0; devices < 2; devices++) {
		options.devices = options.disks = devices;
		fails_with(&options, "the target has not loaded the guest within the 0.51 s for which the guest may be paused "
			   "(--downtime-limit); it continues here");
		CHECK(result.stood >= 500000000);
		CHECK(result.stood < 10 * 1000000000ull);
	}
}

static void target_that_does_not_try_is_left(void)
{
	struct rig_options options = hanging(RIG_TRY);

	fails_with(&options, "the target has not tried to load the state within 1 s");
}

static void target_that_does_not_make_the_machine_is_left(void)
{
	struct rig_options options = hanging(RIG_CREATE);

	options.request.goal.timeout = 50000000;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
	CHECK_STR(result.source.text, "the target has not been prepared within 0.05 s");
}

static void target_that_takes_memory_slowly_is_left_after_the_time_limit(void)
{
	struct rig_options options = plain();

	options.cut_after = 50000;
	options.drips = true;
	options.silence_ms = 500;
	options.request.goal.timeout = 50000000;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
	CHECK(result.source_runs);
	CHECK(!result.target_runs);
	CHECK(strstr(result.source.text, "the target has not taken what was sent within"));
}

static void target_that_does_not_say_that_it_runs_leaves_it_to_the_user(void)
{
	struct rig_options options = hanging(RIG_START);

	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_UNRESOLVED);
	CHECK(strstr(result.source.text, "the target has not said for 1 s that it runs the guest"));
}

/* ---- rehearsals ---- */

static void each_refresh_pauses_the_guest_once(void)
{
	struct rig_options options = plain();

	options.idle = true;
	options.request.goal.downtime = 2000000000;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
	CHECK_EQ(result.pauses, 3 + 1); /* the first estimate's and the switchover's */
	CHECK_EQ(result.tries, 3);
}

static void rehearsal_pauses_no_longer_than_the_downtime(void)
{
	struct rig_options options = plain();

	options.pause_us = 60000000;
	options.request.goal = (struct migration_goal){.downtime = 20000000, .timeout = 300000000};
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
	CHECK(strstr(result.source.text, "its disks or networks do not complete their requests in time"));
	CHECK_EQ(result.pauses, 1); /* the next refresh comes after seconds */
	CHECK(result.stood < 10 * 1000000000ull);
}

static void guest_that_cannot_be_paused_goes_on(void)
{
	struct rig_options options = plain();

	options.pause_us = 60000000;
	options.slow_pause = 4;
	options.request.downtime_limit = 300000000;
	fails_with(&options, "cannot be paused: a device is slow");
	CHECK_EQ(result.pauses, 4);
	CHECK(result.stood < 10 * 1000000000ull);
}

/* ---- a disk that both use ---- */

static struct rig_options sharing(void)
{
	struct rig_options options = plain();

	options.shared = true;
	return options;
}

static void shared_disk_is_flushed_in_rounds_and_before_the_target_gets_it(void)
{
	struct rig_options options = sharing();

	options.flush_us = 20000;
	options.request.goal.downtime = 2000000000;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_DONE);
	CHECK(result.flushes >= 2);
	CHECK(result.flushed);
	CHECK(result.source.progress.predicted >= 10000000);
}

static void flush_that_takes_too_long_is_predicted(void)
{
	struct rig_options options = sharing();

	options.flush_us = 200000;
	options.request.goal = (struct migration_goal){.downtime = 100000000, .timeout = 1000000000};
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
	CHECK(strstr(result.source.text, "not done within"));
	CHECK_EQ(result.pauses, result.tries); /* rehearsals alone */
	options.flush = RIG_FLUSH_HANGS;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
	CHECK(strstr(result.source.text, ": disks that both hosts use are still being flushed"));
}

static void flush_that_fails_ends_it(void)
{
	struct rig_options options = sharing();

	options.flush = RIG_FLUSH_FAILS;
	fails_with(&options, "disk disk1: flush: Input/output error");
	options.flush = RIG_LAST_FLUSH_FAILS;
	fails_with(&options, "disk disk1: flush: Input/output error");
}

static void flush_that_hangs_holds_nobody_up(void)
{
	struct rig_options options = sharing();

	options.flush = RIG_FLUSH_HANGS;
	options.cancel_us = 50000;
	run(&options);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
	CHECK_STR(result.source.text, "enough");
}

/* ---- a source that does not get on ---- */

static struct dialer *dialer;
static struct channel *played[2]; /* control and memory */

static void connect_and_stop(const char *to, const char *offer)
{
	struct address address;
	const struct dialer_options options = {.to = &address, .cancel_fd = -1, .silence_ms = 1000};
	uint64_t state[2] = {0};
	struct wire_frame frame;
	char *ready = NULL;
	int code = address_parse(to, false, &address, NULL) ?: dialer_create(&options, &dialer, NULL);

	code = code ?: dialer_connect(dialer, WIRE_CONTROL, 0, 1, &played[0], NULL);
	code = code ?: channel_send(played[0], WIRE_OFFER, 0, 0, offer, strlen(offer), NULL);
	code = code ?: channel_expect(played[0], WIRE_READY, &frame, NULL);
	code = code ?: channel_payload_all(played[0], &ready, NULL);
	free(ready);
	code = code ?: dialer_connect(dialer, WIRE_MEMORY, 0, 1, &played[1], NULL);
	code = code ?: channel_send(played[0], WIRE_STOPPED, 0, 0, NULL, 0, NULL);
	code = code ?: channel_send(played[0], WIRE_STATE, 0, 0, state, sizeof(state), NULL);
	code = code ?: channel_send(played[0], WIRE_END, sizeof(state), 0, NULL, 0, NULL);
	if (code)
		printf("# the played source failed: %d\n", code);
}

static void hang_up(void)
{
	for (int i = 0; i < 2; i++)
		channel_destroy(take_ptr(played[i]));
	dialer_destroy(take_ptr(dialer));
}

#define OFFER(pause) "{\"streams\":1,\"pause\":" pause ",\"machine\":{\"fake\":1}}"

static void die_before_the_end(const char *to)
{
	connect_and_stop(to, OFFER("60000000000"));
}

static void live_and_never_end(const char *to)
{
	connect_and_stop(to, OFFER("50000000"));
	channel_keep_alive(played[0], NULL);
}

static void dead_source_frees_the_target(void)
{
	struct rig_options options = plain();

	options.silence_ms = 1000;
	options.play = die_before_the_end;
	rig_run(&options, &result);
	hang_up();
	CHECK_EQ(result.target, -ETIMEDOUT);
	CHECK_STR(result.target_err.text, "the source has not answered for 1 s");
	CHECK(!result.target_runs);
}

static void source_that_does_not_get_on_frees_the_target(void)
{
	struct rig_options options = plain();

	options.silence_ms = 1000;
	options.play = live_and_never_end;
	rig_run(&options, &result);
	hang_up();
	CHECK_EQ(result.target, -ETIME);
	CHECK(strstr(result.target_err.text, "the source has not got on in time"));
	CHECK(!result.target_runs);
}

TEST_MAIN(TEST(guest_goes_on_where_the_target_does_not_load_it), TEST(target_that_does_not_try_is_left),
	  TEST(target_that_does_not_make_the_machine_is_left),
	  TEST(target_that_takes_memory_slowly_is_left_after_the_time_limit),
	  TEST(target_that_does_not_say_that_it_runs_leaves_it_to_the_user), TEST(each_refresh_pauses_the_guest_once),
	  TEST(rehearsal_pauses_no_longer_than_the_downtime), TEST(guest_that_cannot_be_paused_goes_on),
	  TEST(shared_disk_is_flushed_in_rounds_and_before_the_target_gets_it),
	  TEST(flush_that_takes_too_long_is_predicted), TEST(flush_that_fails_ends_it),
	  TEST(flush_that_hangs_holds_nobody_up), TEST(dead_source_frees_the_target),
	  TEST(source_that_does_not_get_on_frees_the_target))
