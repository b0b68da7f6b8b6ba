/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/migration/loop: a guest that writes, a network that sends and a clock, all of them simulated. */
#include "vmm/migration/loop.h"
#include "tests/unit/test.h"

#define SECOND 1000000000ull
#define MS 1000000ull

/* A guest that writes evenly all over a working set, of which a page is dirty once however often it is written. */
static struct world {
	uint64_t clock;
	uint64_t memory, zeros;         /* bytes; zeros of them cost nothing to send */
	uint64_t zero_rate;             /* bytes a second that are found to be zeros; 0: at once */
	uint64_t working_set;
	uint64_t write_rate, burst_rate; /* bytes a second; burst_rate from burst_start to burst_end */
	uint64_t burst_start, burst_end;
	uint64_t send_rate;
	unsigned int packed;            /* percent that compression leaves on the wire */
	uint64_t collect_time;
	struct migration_costs costs;
	uint64_t ready_after; /* a device asks to run on until then */

	uint64_t left, dirty;
	unsigned int throttle, most_throttle, collects, waits;
	unsigned int tells, cancel_at; /* at which tell; 0: never */
	unsigned int fail_collect, fail_send, fail_costs; /* at which call; 0: never */
	unsigned int sends, asked;
	bool first_done;
} world;

static struct migration_progress last;

static uint64_t sim_now(void *opaque)
{
	return world.clock;
}

static void run_guest(uint64_t time)
{
	for (uint64_t step = MS; time; time -= MIN(step, time)) {
		bool burst = world.clock >= world.burst_start && world.clock < world.burst_end;
		double rate = (double)(burst ? world.burst_rate : world.write_rate) * (100 - world.throttle) / 100;
		double clean = 1 - (double)world.dirty / (double)MAX(world.working_set, 1u);

		world.dirty += (uint64_t)(rate * clean * (double)MIN(step, time) / (double)SECOND);
		world.dirty = MIN(world.dirty, world.working_set);
		world.clock += MIN(step, time);
	}
}

static int sim_collect(void *opaque, uint64_t *left, struct err *err)
{
	if (++world.collects == world.fail_collect)
		return err_set(err, -EIO, "the log is gone");
	run_guest(world.collect_time);
	world.left = world.first_done ? MIN(world.left + world.dirty, world.memory) : world.memory;
	world.dirty = 0;
	world.first_done = true;
	*left = world.left;
	return 0;
}

static int sim_send(void *opaque, uint64_t time, struct migration_sent *ret, struct err *err)
{
	uint64_t zeros = MIN(world.zeros, world.left), bytes = MIN(world.left - zeros, world.send_rate / 1000 * (time / MS));
	uint64_t looking = world.zero_rate ? zeros * 1000 / (world.zero_rate / 1000000) : 0;

	if (++world.sends == world.fail_send)
		return err_set(err, -EPIPE, "the peer is gone");
	world.zeros -= zeros;
	run_guest(looking + bytes * 1000 / (world.send_rate / 1000000) + 1);
	world.left -= bytes + zeros;
	*ret = (struct migration_sent){.bytes = bytes + zeros, .content = bytes, .looking = looking, .wire = bytes * world.packed / 100,
				       .left = world.left};
	return 0;
}

static int sim_costs(void *opaque, struct migration_costs *ret, struct err *err)
{
	if (++world.asked == world.fail_costs)
		return err_set(err, -EIO, "a device does not answer");
	*ret = world.costs;
	ret->ready = world.clock >= world.ready_after;
	return 0;
}

static void sim_throttle(void *opaque, unsigned int percent)
{
	world.throttle = percent;
	world.most_throttle = MAX(world.most_throttle, percent);
}

static void sim_wait(void *opaque, uint64_t time)
{
	world.waits++;
	run_guest(time);
}

static int sim_progress(void *opaque, struct err *err)
{
	return ++world.tells == world.cancel_at ? err_set(err, -ECANCELED, "cancelled") : 0;
}

static const struct migration_loop_ops ops = {
	.now = sim_now, .collect = sim_collect, .send = sim_send, .costs = sim_costs,
	.throttle = sim_throttle, .wait = sim_wait, .progress = sim_progress,
};

/* 2 GiB at 1 GB/s, the guest idle, 300 ms for what takes 5 at least. */
static struct migration_goal make_world(void)
{
	world = (struct world){
		.clock = 77 * SECOND, .memory = GIB(2), .working_set = MIB(512), .send_rate = 1000000000, .packed = 100,
		.collect_time = MS, .costs = {.fixed = 5 * MS},
	};
	return (struct migration_goal){.downtime = 300 * MS, .throttle_max = MIGRATION_MAX_THROTTLE};
}

static int run(const struct migration_goal *goal, struct err *err)
{
	uint64_t start = world.clock;
	int code = migration_loop_run(&ops, NULL, goal, &last, err);

	CHECK_EQ(last.elapsed <= world.clock - start, 1);
	return code;
}

static void idle_guest_takes_one_round(void)
{
	struct migration_goal goal = make_world();

	CHECK_EQ(run(&goal, NULL), 0);
	CHECK_EQ(last.round, 1);
	CHECK_EQ(last.sent, GIB(2));
	CHECK_EQ(last.left, 0);
	CHECK_EQ(last.predicted, 5 * MS);
	CHECK_EQ(world.most_throttle, 0);
}

/* 300 ms would do, but further rounds bring it down, until it is 6 ms, or a few were of no use. */
static void an_aim_is_tried_for_without_throttling(void)
{
	struct migration_goal goal = make_world();

	world.write_rate = 100000000;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK_EQ(last.round, 1);
	goal = make_world();
	goal.aim = 6 * MS;
	world.write_rate = 100000000;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.round > 1 && last.round < 12);
	CHECK(last.predicted <= 8 * MS);
	CHECK_EQ(world.most_throttle, 0);
	goal = make_world();
	goal.aim = 1; /* cannot be */
	world.write_rate = 100000000;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.round > 3 && last.round < 12);
	CHECK_EQ(world.most_throttle, 0);
}

static void no_memory_at_all_is_fine(void)
{
	struct migration_goal goal = make_world();

	world.memory = world.working_set = 0;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK_EQ(last.predicted, 5 * MS);
}

/* 100 MB/s against 1 GB/s: rounds shrink tenfold, and what is predicted is what the last list takes. */
static void busy_guest_converges_unhindered(void)
{
	struct migration_goal goal = make_world();

	world.write_rate = 100000000;
	goal.downtime = 20 * MS;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK_EQ(world.most_throttle, 0);
	CHECK(last.round >= 2 && last.round <= 4);
	CHECK(last.predicted <= 20 * MS);
	CHECK_EQ(last.left, world.left);
	CHECK(last.predicted >= 5 * MS + last.left && last.predicted <= 6 * MS + last.left * 11 / 10);
	CHECK(last.dirty_rate > 80000000 && last.dirty_rate < 110000000);
	CHECK(last.send_rate > 900000000 && last.send_rate < 1100000000);
}

/* Zeros go for nothing, and say nothing about pages that are written later. */
static void zero_pages_do_not_flatter_the_rate(void)
{
	struct migration_goal goal = make_world();

	world.zeros = GIB(1);
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.send_rate < 1100000000);
	CHECK_EQ(last.sent, GIB(1));
}

/* Nor does it look worse for the time that they took, or for what compression made of the rest. */
static void nor_does_the_time_they_take_spoil_it(void)
{
	struct migration_goal goal = make_world();

	world.zeros = GIB(1);
	world.zero_rate = 500000000;
	world.packed = 20;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.send_rate > 900000000 && last.send_rate < 1100000000);
}

/* So little is sent that a cap is not felt, but what devices send when they stop will feel it. */
static void a_cap_that_was_not_felt_is_reckoned_with(void)
{
	struct migration_goal goal = make_world();

	world.memory = world.working_set = KIB(256);
	world.costs.device = KIB(256);
	goal.bandwidth = MIB(1);
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK_EQ(last.predicted, 255 * MS);
}

static void fast_writer_is_slowed_down_no_more_than_needed(void)
{
	struct migration_goal goal = make_world();

	world.write_rate = 3000000000;
	goal.downtime = 100 * MS;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(world.most_throttle >= 20);
	CHECK(world.most_throttle <= MIGRATION_MAX_THROTTLE);
	CHECK_EQ(world.throttle, world.most_throttle); /* until the guest stands */
	CHECK(last.predicted <= 100 * MS);
	goal = make_world();
	world.write_rate = 1100000000;
	goal.downtime = 200 * MS;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(world.most_throttle <= 60);
}

/* What more would be needed is said, and left to the time limit. */
static void writer_is_slowed_down_no_more_than_allowed(void)
{
	struct migration_goal goal = make_world();
	struct err err;

	world.write_rate = 100000000000;
	goal.timeout = 60 * SECOND;
	goal.throttle_max = 60;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK_EQ(world.most_throttle, 60);
	CHECK(strstr(err.text, "; throttled to --throttle-max, 60 %"));
	goal = make_world();
	world.write_rate = 100000000000;
	goal.timeout = 60 * SECOND;
	goal.throttle_max = 0;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK_EQ(world.most_throttle, 0);
	CHECK(strstr(err.text, "; --throttle-max is 0"));
}

static void burst_is_sat_out(void)
{
	struct migration_goal goal = make_world();

	world.write_rate = 10000000;
	world.burst_rate = 5000000000;
	world.burst_start = world.clock + 2 * SECOND;
	world.burst_end = world.clock + 3 * SECOND;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(world.clock >= world.burst_end);
	CHECK(world.most_throttle <= 40);
	CHECK(last.predicted <= goal.downtime);
}

static void time_out_cancels_and_says_why(void)
{
	struct migration_goal goal = make_world();
	struct err err;
	uint64_t start = world.clock;

	world.write_rate = 1000000000000;
	world.working_set = GIB(2);
	goal.timeout = 60 * SECOND;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK(strstr(err.text, "not done within 60 s: dirtying "));
	CHECK(strstr(err.text, ", sending "));
	CHECK_EQ(world.most_throttle, MIGRATION_MAX_THROTTLE);
	CHECK_EQ(world.throttle, 0);
	CHECK(world.clock - start >= 60 * SECOND && world.clock - start < 61 * SECOND);
}

static void time_out_may_mean_stop_and_copy(void)
{
	struct migration_goal goal = make_world();
	uint64_t start = world.clock;

	world.write_rate = 1000000000000;
	world.working_set = GIB(2);
	goal.timeout = 30 * SECOND;
	goal.on_timeout = MIGRATION_STOP_AND_COPY;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(world.clock - start >= 30 * SECOND && world.clock - start < 31 * SECOND);
	CHECK(last.predicted > 1500 * MS);
	CHECK(last.left > MIB(1500));
	/* within the very first round too */
	goal = make_world();
	goal.timeout = SECOND;
	goal.on_timeout = MIGRATION_STOP_AND_COPY;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK_EQ(last.round, 1);
	CHECK(last.left > MIB(900) && last.left < MIB(1200));
	CHECK(last.predicted > goal.downtime);
	CHECK_EQ(last.left, world.left);
}

static void time_out_in_the_first_round_has_no_excuse(void)
{
	struct migration_goal goal = make_world();
	struct err err;

	goal.timeout = SECOND;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK_STR(err.text, "not done within 1 s; the guest continues");
}

/* What devices send when they stop is part of the prediction, at the same rate. */
static void device_state_is_predicted(void)
{
	struct migration_goal goal = make_world();

	world.costs.device = 200000000;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.predicted > 195 * MS && last.predicted < 215 * MS);
	CHECK_EQ(last.device, 200000000);
}

/* One that gives it slower than the link takes it is what counts; and who must guess says so. */
static void slow_device_is_predicted(void)
{
	struct migration_goal goal = make_world();
	struct err err;

	world.costs.device = MIB(64);
	world.costs.device_time = 200 * MS;
	world.costs.untold = 0;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK_EQ(last.predicted, 205 * MS);
	CHECK(!last.device_assumed);
	goal = make_world();
	world.costs.device = MIB(64);
	world.costs.device_time = 2 * SECOND;
	world.costs.device_assumed = true;
	goal.timeout = 10 * SECOND;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK(strstr(err.text, "the switchover takes 2005.0 ms without memory"));
	CHECK(strstr(err.text, "--device-rate"));
	CHECK(last.device_assumed);
}

/* What nobody can tell, and what is written between the last look and the stop. */
static void unseen_writing_is_predicted(void)
{
	struct migration_goal goal = make_world();

	world.costs.untold = 100000000;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.predicted >= 104 * MS && last.predicted <= 106 * MS);
	goal = make_world();
	world.write_rate = 100000000;
	world.costs.unseen = 10 * MS;
	goal.downtime = 20 * MS;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.predicted >= 5 * MS + last.left + last.dirty_rate / 100);
}

/* Where memory is not the reason the guest is left alone, and rounds do not spin. */
static void too_much_beside_memory_is_said(void)
{
	struct migration_goal goal = make_world();
	struct err err;

	world.costs.fixed = 400 * MS;
	goal.timeout = 10 * SECOND;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK(strstr(err.text, "the switchover takes 400.0 ms without memory, but the downtime is 300.0 ms"));
	CHECK_EQ(world.most_throttle, 0);
	CHECK(world.collects < 1000);
	CHECK(world.waits > 10);
	goal = make_world();
	world.costs.device = 1000000000;
	goal.timeout = 10 * SECOND;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK(strstr(err.text, " ms without memory"));
	/* Memory that a device may have written without anybody's knowing is sent in the pause, however slow the guest. */
	goal = make_world();
	world.costs.untold = GIB(1);
	world.write_rate = 100000000;
	goal.timeout = 10 * SECOND;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK(strstr(err.text, " ms with the 1.0 GiB of memory whose writers nothing reports, but the downtime is 300.0 ms"));
	CHECK_EQ(world.most_throttle, 0);
}

static void device_that_is_not_ready_is_waited_for(void)
{
	struct migration_goal goal = make_world();
	struct err err;

	world.ready_after = world.clock + 5 * SECOND;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(world.clock >= world.ready_after);
	CHECK_EQ(world.most_throttle, 0);
	goal = make_world();
	world.ready_after = UINT64_MAX;
	goal.timeout = 10 * SECOND;
	CHECK_EQ(run(&goal, &err), -ETIME);
	CHECK(strstr(err.text, "a device is not ready to stop yet"));
}

static void slow_link_without_limit_goes_on(void)
{
	struct migration_goal goal = make_world();

	world.send_rate = 10000000; /* a cap */
	world.write_rate = 2000000;
	CHECK_EQ(run(&goal, NULL), 0);
	CHECK(last.send_rate > 9000000 && last.send_rate < 11000000);
	CHECK(last.predicted <= goal.downtime);
	CHECK_EQ(world.most_throttle, 0);
}

/* A migration that is throttled, cancelled at each of its first thousand looks at the user. */
static void cancel_at_every_point(void)
{
	unsigned int points;
	struct err err;

	for (points = 1; points < 1000; points++) {
		struct migration_goal goal = make_world();
		int code;

		world.write_rate = 3000000000;
		world.cancel_at = points;
		code = run(&goal, &err);
		if (!code)
			break;
		CHECK_EQ(code, -ECANCELED);
		CHECK_STR(err.text, "cancelled");
		CHECK_EQ(world.throttle, 0);
		CHECK_EQ(world.tells, points);
	}
	CHECK(points > 20 && points < 1000);
}

/* Whatever fails ends it with its own words, and the guest unhindered. */
static void failures_end_it(void)
{
	unsigned int *const where[] = {&world.fail_collect, &world.fail_send, &world.fail_costs};
	static const char *const words[] = {"the log is gone", "the peer is gone", "a device does not answer"};
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(where); i++) {
		unsigned int at = 1;

		for (;; at++) {
			struct migration_goal goal = make_world();
			int code;

			world.write_rate = 3000000000;
			*where[i] = at;
			code = run(&goal, &err);
			if (!code)
				break;
			CHECK_STR(err.text, words[i]);
			CHECK_EQ(world.throttle, 0);
		}
		CHECK(at > 4);
	}
}

static void rates_read_well(void)
{
	char buf[24];

	CHECK_STR(migration_format_rate(0, buf), "0 B/s");
	CHECK_STR(migration_format_rate(999, buf), "999 B/s");
	CHECK_STR(migration_format_rate(GIB(12) / 10, buf), "1.2 GiB/s");
	CHECK_STR(migration_format_rate(MIB(930), buf), "930 MiB/s");
	CHECK_STR(migration_format_rate(UINT64_MAX, buf), "16777216 TiB/s");
}

TEST_MAIN(TEST(idle_guest_takes_one_round), TEST(an_aim_is_tried_for_without_throttling), TEST(no_memory_at_all_is_fine), TEST(busy_guest_converges_unhindered),
	  TEST(zero_pages_do_not_flatter_the_rate), TEST(nor_does_the_time_they_take_spoil_it),
	  TEST(a_cap_that_was_not_felt_is_reckoned_with),
	  TEST(fast_writer_is_slowed_down_no_more_than_needed), TEST(writer_is_slowed_down_no_more_than_allowed), TEST(burst_is_sat_out),
	  TEST(time_out_cancels_and_says_why), TEST(time_out_may_mean_stop_and_copy),
	  TEST(time_out_in_the_first_round_has_no_excuse), TEST(device_state_is_predicted),
	  TEST(slow_device_is_predicted), TEST(unseen_writing_is_predicted),
	  TEST(too_much_beside_memory_is_said), TEST(device_that_is_not_ready_is_waited_for),
	  TEST(slow_link_without_limit_goes_on), TEST(cancel_at_every_point), TEST(failures_end_it), TEST(rates_read_well))
