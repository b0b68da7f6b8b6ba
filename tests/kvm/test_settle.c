/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that runs before all threads are confined: nobody looks at what it writes until they are (thread_settle). */
#include "core/monotonic.h"
#include "core/thread.h"
#include "tests/kvm/move_rig.h"

#include <pthread.h>

#define WHILE (SECOND / 5) /* in which it would have printed */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static bool gate_leads_on;

static void gate_enter(void *opaque, enum thread_kind kind)
{
}

static bool gate_settle(void *opaque)
{
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	return gate_leads_on;
}

static const struct thread_filters gated = {.enter = gate_enter, .settle = gate_settle};

/* Returns when the guest has had time to print, and with the gate open. */
static void start_at_a_closed_gate(bool leads_on)
{
	int code;

	prepare("travel", "--cpus 2");
	gate_leads_on = leads_on;
	pthread_mutex_lock(&gate);
	thread_set_filters(&gated);
	code = machine_start(here->machine, &err);
	thread_set_filters(NULL);
	pass_time(WHILE);
	pthread_mutex_unlock(&gate);
	CHECK_EQ(code, 0);
	CHECK_STR(here->printed, "");
}

static void what_a_guest_says_waits_for_all_to_be_confined(void)
{
	start_at_a_closed_gate(true);
	CHECK(wait_for(here, "ready", 60 * SECOND));
}

static void what_a_guest_says_is_not_heard_if_they_will_not_be(void)
{
	start_at_a_closed_gate(false);
	pass_time(WHILE);
	CHECK_STR(here->printed, "");
	CHECK_EQ(machine_end(here->machine), MACHINE_RUNNING);
	machine_destroy(take_ptr(here->machine));
	CHECK_STR(here->printed, "");
}

static const uint8_t address[] = {0xa4, 0xa5, 0, 0x80}; /* what guest_silent writes to the address port of PCI */

static bool address_is_saved(void)
{
	struct state_buffer state;
	bool saved;

	pause_side(here);
	state = save(here);
	saved = memmem(state.data, state.len, address, sizeof(address));
	state_buffer_free(&state);
	machine_resume(here->machine);
	return saved;
}

/* KVM keeps its write, and it has no exit with which it would be taken. */
static void a_guest_that_has_never_left_is_saved_whole(void)
{
	uint64_t deadline = monotonic_ns() + 60 * SECOND;
	bool saved = false;

	prepare("silent", "--cpus 1");
	CHECK_EQ(machine_start(here->machine, &err), 0);
	while (!saved && monotonic_ns() < deadline) {
		pass_time(SECOND / 20);
		saved = address_is_saved();
	}
	CHECK(saved);
	end();
}

TEST_MAIN(TEST(what_a_guest_says_waits_for_all_to_be_confined), TEST(what_a_guest_says_is_not_heard_if_they_will_not_be),
	  TEST(a_guest_that_has_never_left_is_saved_whole))
