/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/blk_pace.c: a driver that goes on submitting gets few interrupts, one that waits gets them at once. The
 * driver here has a number of threads that each wait for their request, one CPU, and a device of fixed speed.
 */
#include "devices/virtio/blk_internal.h"
#include "tests/unit/test.h"

#define DEPTH 64u

struct world {
	struct blk_pace pace;
	uint64_t now;
	uint64_t driver_ns, device_ns; /* for one request each; the device does all at once */
	unsigned int ready;            /* requests the driver could submit, if it had the time */
	uint64_t driver_free;          /* when it has submitted its last one */
	unsigned int queued;           /* submitted, not taken */
	uint64_t ends[DEPTH];          /* when those in the device are done, in order */
	unsigned int in_flight;
	unsigned int done, interrupts;
	uint64_t held_ns; /* summed over requests: between completion and interrupt */
};

static void start(struct world *world, unsigned int depth, uint64_t driver_ns, uint64_t device_ns)
{
	world->ready = depth;
	world->driver_ns = driver_ns;
	world->device_ns = device_ns;
	world->driver_free = world->now + driver_ns;
	world->queued = MIN(depth, 2u); /* those that have several show it */
	world->ready -= world->queued;
}

static void drive(struct world *world, uint64_t until)
{
	while (world->ready && world->driver_free <= until) {
		world->ready--;
		world->queued++;
		world->driver_free += world->driver_ns;
	}
}

static unsigned int completed(struct world *world)
{
	unsigned int n = 0;

	while (n < world->in_flight && world->ends[n] <= world->now)
		n++;
	memmove(world->ends, world->ends + n, (world->in_flight - n) * sizeof(world->ends[0]));
	world->in_flight -= n;
	return n;
}

static void interrupt(struct world *world, unsigned int completions)
{
	if (!world->ready)
		world->driver_free = world->now + world->driver_ns;
	world->ready += completions;
	world->interrupts++;
}

/* One round of the queue's thread: takes, gives back, interrupts. */
static void turn(struct world *world, bool *quiet)
{
	unsigned int pushed = completed(world), before = world->in_flight, took, held;

	drive(world, world->now);
	took = world->queued;
	world->queued = 0;
	if (took)
		blk_pace_took(&world->pace, took, before, world->now);
	for (unsigned int i = 0; i < took; i++)
		world->ends[world->in_flight++] = world->now + world->device_ns;
	*quiet = *quiet && !took && !pushed;
	if (pushed)
		blk_pace_completed(&world->pace, pushed, world->now);
	world->done += pushed;
	held = world->pace.held;
	if (blk_pace_interrupt(&world->pace, *quiet, before, world->now))
		interrupt(world, held);
}

/* What the thread does until count more requests are done; see queue_main. */
static void run(struct world *world, unsigned int count)
{
	bool quiet = false;

	world->done = world->interrupts = 0;
	world->held_ns = 0;
	while (world->done < count) {
		uint64_t last = world->now, wake;
		unsigned int wanted;

		turn(world, &quiet);
		wanted = MAX(world->in_flight, 1u);
		if (!quiet && world->pace.goal > 1) {
			wake = world->now + blk_pace_poll_ns(&world->pace);
			quiet = true;
			if (world->in_flight >= wanted && world->ends[wanted - 1] < wake) {
				wake = world->ends[wanted - 1];
				quiet = false;
			}
		} else {
			wake = world->in_flight ? world->ends[0] : UINT64_MAX;
			wake = MIN(wake, world->ready ? world->driver_free : UINT64_MAX);
			quiet = false;
		}
		CHECK(wake != UINT64_MAX);
		world->now = MAX(wake, world->now);
		world->held_ns += world->pace.held * (world->now - last);
	}
}

/* As a load of fsync: whatever time it takes between two requests, its 1000th one is as fast as its first. */
static void never_holds_for_one_request_at_a_time(void)
{
	static const uint64_t thinks[] = {5000, 50000, 200000, 1000000, 5000000};

	for (unsigned int i = 0; i < ARRAY_SIZE(thinks); i++) {
		struct world world = {.now = 1};

		blk_pace_init(&world.pace);
		start(&world, 1, thinks[i], 100000);
		run(&world, 20000);
		CHECK_EQ(world.interrupts, world.done);
		CHECK_EQ(world.held_ns, 0);
	}
}

static void gathers_for_a_busy_driver(void)
{
	static const uint64_t paces[] = {2000, 20000, 200000};

	for (unsigned int i = 0; i < ARRAY_SIZE(paces); i++) {
		struct world world = {.now = 1};
		uint64_t began;

		blk_pace_init(&world.pace);
		start(&world, 32, paces[i], 1000);
		run(&world, 1000);
		began = world.now;
		run(&world, 4000);
		CHECK(world.interrupts * 6 < world.done);
		/* It is never without work for long. */
		CHECK(world.now - began < world.done * paces[i] * 5 / 4);
	}
}

static void holds_little_for_one_that_waits(void)
{
	for (unsigned int depth = 2; depth <= 32; depth *= 2) {
		struct world world = {.now = 1};

		blk_pace_init(&world.pace);
		start(&world, depth, 1000, 200000);
		run(&world, 1000);
		run(&world, 4000);
		CHECK(world.held_ns / world.done < 20000);
	}
}

static void learns_that_the_load_has_changed(void)
{
	struct world world = {.now = 1};

	blk_pace_init(&world.pace);
	start(&world, 32, 2000, 1000);
	run(&world, 4000);
	CHECK(world.pace.goal > 4);
	/* All but one thread stop. */
	world.ready = world.in_flight = world.queued = world.pace.held = 0;
	start(&world, 1, 2000, 1000);
	run(&world, 100);
	CHECK(world.held_ns < 5 * blk_pace_poll_ns(&world.pace));
	CHECK_EQ(world.pace.goal, 1);
}

TEST_MAIN(TEST(never_holds_for_one_request_at_a_time), TEST(gathers_for_a_busy_driver), TEST(holds_little_for_one_that_waits),
	  TEST(learns_that_the_load_has_changed))
