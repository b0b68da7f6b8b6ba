/* SPDX-License-Identifier: Apache-2.0 */
/* Who a guest is told that it is: the same after a move, another one after a restore, and what time it is there. */
#include "tests/kvm/move_rig.h"

#include <time.h>

/* What a guest says of itself. */
struct identity {
	char id[33];
	uint64_t generation, disruption, time;
	uint32_t sequence, events;
};

static uint64_t host_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

/* Asks it. The time that it computes is the true one, but for what the rate of a counter may be off. */
static struct identity ask(struct side *side)
{
	uint64_t before = host_time();
	struct identity ret = {0};
	const char *at;

	forget_output(side);
	type(side, 'p');
	CHECK(wait_for(side, " end\n", 60 * SECOND));
	at = strstr(side->printed, "id ");
	CHECK(at && sscanf(at, "id %32s generation %lx disruption %lx sequence %x events %x time %lx", ret.id, &ret.generation,
			   &ret.disruption, &ret.sequence, &ret.events, &ret.time) == 6);
	if (ret.time < before - SECOND / 100 || ret.time > host_time() + SECOND / 100)
		printf("# %lld ns after the question, which took %llu\n", (long long)(ret.time - before),
		       (unsigned long long)(host_time() - before));
	CHECK(ret.time >= before - SECOND / 100 && ret.time <= host_time() + SECOND / 100);
	CHECK_EQ(ret.sequence % 2, 0);
	return ret;
}

/* Away for a while; clone: it comes back as another machine. */
static struct identity go_away(bool clone)
{
	move();
	machine_destroy(take_ptr(here->machine));
	pass_time(SECOND / 3);
	if (clone)
		CHECK_EQ(machine_tell_apart(there->machine, &err), 0);
	CHECK_EQ(machine_start(there->machine, &err), 0);
	return ask(there);
}

static void a_machine_that_moves_is_the_same(void)
{
	struct identity before, after;

	boot("clone", "");
	before = ask(here);
	CHECK_EQ(before.events, 0);
	CHECK_EQ(before.sequence, 2);
	pause_side(here);
	pass_time(SECOND / 3);
	machine_resume(here->machine);
	after = ask(here);
	CHECK_STR(after.id, before.id);
	CHECK(after.generation == before.generation && after.disruption == before.disruption);
	CHECK_EQ(after.events, 8); /* the time is another one */
	CHECK_EQ(after.sequence, 4);
	after = go_away(false);
	CHECK_STR(after.id, before.id);
	CHECK(after.generation == before.generation && after.disruption == before.disruption);
	CHECK_EQ(after.events, 8);
	CHECK_EQ(after.sequence, 6);
}

static void a_restored_machine_is_another_one(void)
{
	struct identity before, after;

	boot("clone", "--clock run");
	before = ask(here);
	after = go_away(true);
	CHECK(strcmp(after.id, before.id) != 0 && strlen(after.id) == 32);
	CHECK(after.generation != before.generation && after.disruption != before.disruption);
	CHECK_EQ(after.events, 8 | 4);
}

/* But a guest that reboots is still the clone that it was. */
static void every_start_has_an_id_of_its_own(void)
{
	struct identity first, second, again;

	boot("clone", "");
	first = ask(here);
	CHECK(strcmp(first.id, "00000000000000000000000000000000") != 0);
	boot("clone", "");
	CHECK(strcmp(ask(here).id, first.id) != 0);
	second = go_away(true);
	machine_destroy(take_ptr(there->machine));
	there->config.kernel = strdup(GUESTS "/guest_clone");
	make(there, NULL);
	CHECK_EQ(machine_start(there->machine, &err), 0);
	forget_output(there);
	CHECK(wait_for(there, "ready", 60 * SECOND));
	again = ask(there);
	CHECK_STR(again.id, second.id);
	CHECK(again.generation == second.generation && again.generation);
	CHECK_EQ(again.events, 0);
	end();
}

TEST_MAIN(TEST(a_machine_that_moves_is_the_same), TEST(a_restored_machine_is_another_one),
	  TEST(every_start_has_an_id_of_its_own))
