/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/vmclock and devices/vmgenid: the bytes that a guest finds, which are those of Linux' vmclock-abi.h; what changes in
 * a restored machine, and what comes back from a saved state.
 */
#include "core/guest_memory.h"
#include "core/state.h"
#include "devices/platform.h"
#include "tests/unit/test.h"

#include <sys/mman.h>

#define RAM MIB(1)
#define CLOCK_AT 0xfe000u
#define ID_AT 0xff000u

static struct {
	uint8_t *ram;
	struct guest_memory *memory;
	struct vmclock *clock;
	struct vmgenid *id;
} t;

static void begin(void)
{
	struct guest_region region = {.size = RAM, .fd = -1};

	t.ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(t.ram != MAP_FAILED);
	region.host = t.ram;
	t.memory = guest_memory_create();
	CHECK_EQ(guest_memory_add(t.memory, &region, NULL), 0);
	CHECK_EQ(vmclock_create(t.memory, CLOCK_AT, &t.clock, NULL), 0);
	CHECK_EQ(vmgenid_create(t.memory, ID_AT, &t.id, NULL), 0);
}

static void end(void)
{
	vmclock_destroy(t.clock);
	vmgenid_destroy(t.id);
	guest_memory_destroy(t.memory);
	munmap(t.ram, RAM);
}

static const uint8_t *page(void)
{
	return t.ram + CLOCK_AT;
}

/* What a guest computes from the page, in ns since 1970. */
static uint64_t guest_time(uint64_t counter)
{
	unsigned __int128 part = (unsigned __int128)(counter - get_le64(page() + 40)) * get_le64(page() + 48);

	part = (part >> page()[39]) + get_le64(page() + 80);
	return (get_le64(page() + 72) + (uint64_t)(part >> 64)) * 1000000000 +
	       (uint64_t)((unsigned __int128)(uint64_t)part * 1000000000 >> 64);
}

static uint64_t off_by(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static void the_page_is_what_linux_reads(void)
{
	const struct vmclock_time time = {.counter = 1000, .counter_hz = 2600000000, .realtime_ns = 1700000000250000000};

	begin();
	CHECK_EQ(get_le32(page()), 0); /* it begins with the first publish */
	vmclock_publish(t.clock, &time);
	CHECK_EQ(get_le32(page()), 0x4b4c4356);
	CHECK_EQ(get_le32(page() + 4), 4096);
	CHECK_EQ(get_le16(page() + 8), 1);
	CHECK_EQ(page()[10], 1);               /* the TSC */
	CHECK_EQ(page()[11], 0);               /* UTC */
	CHECK_EQ(get_le32(page() + 12), 2);
	CHECK_EQ(get_le64(page() + 24), 0x300); /* has a generation number, and notifies */
	CHECK_EQ(page()[34], 3);               /* free-running */
	CHECK_EQ(get_le64(page() + 40), 1000);
	CHECK_EQ(get_le64(page() + 72), 1700000000);
	CHECK_EQ(get_le64(page() + 80), 1ull << 62);
	for (size_t at = 56; at < 72; at++) /* no error of the rate or of the time is claimed */
		CHECK(page()[at] == 0 && page()[at + 32] == 0);
	vmclock_publish(t.clock, &time);
	CHECK_EQ(get_le32(page() + 12), 4);
	end();
}

static void the_guest_can_compute_the_time(void)
{
	static const uint64_t rates[] = {2, 3, 1000000, 1ull << 31, 2599999000, 4294967296, 5000000001};

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct vmclock_time time = {.counter = 1ull << 63, .counter_hz = rates[i], .realtime_ns = 1234567890123456789};

		vmclock_publish(t.clock, &time);
		CHECK(off_by(guest_time(time.counter), time.realtime_ns) <= 1);
		/* a week later */
		CHECK(off_by(guest_time(time.counter + 604800 * rates[i]), time.realtime_ns + 604800000000000) <= 2);
	}
	end();
}

static void a_guest_that_writes_its_page_disturbs_nothing(void)
{
	const struct vmclock_time time = {.counter_hz = 1000, .realtime_ns = 5};

	begin();
	vmclock_publish(t.clock, &time);
	memset(t.ram + CLOCK_AT, 0xff, 4096);
	vmclock_publish(t.clock, &time);
	CHECK_EQ(get_le32(page()), 0x4b4c4356);
	CHECK_EQ(get_le32(page() + 12), 4);
	CHECK_EQ(get_le64(page() + 104), 0);
	end();
}

/* A pause or a move publishes the time again, and changes neither number. */
static void only_a_restore_disrupts(void)
{
	const struct vmclock_time time = {.counter_hz = 1000, .realtime_ns = 5};
	uint64_t seen[3][2];

	begin();
	for (unsigned int i = 0; i < 3; i++) {
		vmclock_publish(t.clock, &time);
		seen[i][0] = get_le64(page() + 16);
		seen[i][1] = get_le64(page() + 104);
		vmclock_publish(t.clock, &time);
		CHECK(get_le64(page() + 16) == seen[i][0] && get_le64(page() + 104) == seen[i][1]);
		CHECK_EQ(vmclock_disrupt(t.clock, NULL), 0);
		CHECK(get_le64(page() + 16) == seen[i][0]); /* the guest sees it when it runs */
		for (unsigned int before = 0; before < i; before++)
			CHECK(seen[i][0] != seen[before][0] && seen[i][1] != seen[before][1]);
	}
	end();
}

static void an_id_never_comes_twice(void)
{
	uint8_t seen[50][16];

	begin();
	for (unsigned int i = 0; i < ARRAY_SIZE(seen); i++) {
		CHECK_EQ(vmgenid_renew(t.id, NULL), 0);
		memcpy(seen[i], t.ram + ID_AT, 16);
		for (unsigned int before = 0; before < i; before++)
			CHECK(memcmp(seen[i], seen[before], 16) != 0);
	}
	CHECK_EQ(t.ram[ID_AT + 16], 0);
	end();
}

/* The guest has rebooted: as far as it knows, it is the same machine. */
static void a_reboot_keeps_both(void)
{
	uint8_t id[VMGENID_BYTES];
	uint64_t generation;

	begin();
	CHECK_EQ(vmgenid_renew(t.id, NULL), 0);
	CHECK_EQ(vmclock_generation(t.clock), 0);
	CHECK_EQ(vmclock_disrupt(t.clock, NULL), 0);
	vmgenid_get(t.id, id);
	CHECK(memcmp(id, t.ram + ID_AT, sizeof(id)) == 0);
	generation = vmclock_generation(t.clock);
	end();
	begin();
	CHECK_EQ(vmgenid_set(t.id, id, NULL), 0);
	vmclock_set_generation(t.clock, generation);
	vmclock_publish(t.clock, &(struct vmclock_time){.counter_hz = 1000});
	CHECK(memcmp(id, t.ram + ID_AT, sizeof(id)) == 0);
	CHECK_EQ(get_le64(page() + 104), generation);
	end();
}

static void memory_that_is_not_there_is_an_error(void)
{
	struct vmgenid *id;
	struct vmclock *clock;
	struct err err;

	begin();
	CHECK_EQ(vmgenid_create(t.memory, RAM - 8, &id, NULL), 0);
	CHECK_EQ(vmgenid_renew(id, &err), -EFAULT);
	CHECK_STR(err.text, "generation ID: no guest memory at 0xffff8");
	vmgenid_destroy(id);
	CHECK_EQ(vmclock_create(t.memory, RAM - 64, &clock, NULL), 0);
	vmclock_publish(clock, &(struct vmclock_time){.counter_hz = 1000});
	CHECK_EQ(get_le64(t.ram + RAM - 64), 0);
	vmclock_destroy(clock);
	vmclock_destroy(NULL);
	vmgenid_destroy(NULL);
	end();
}

/* Memory comes with the page and the ID: a load writes neither. */
static void a_move_changes_nothing(void)
{
	struct state_buffer clock = {0}, id = {0}, again = {0};
	uint8_t before[16];

	begin();
	CHECK_EQ(vmgenid_renew(t.id, NULL), 0);
	CHECK_EQ(vmclock_disrupt(t.clock, NULL), 0);
	vmclock_publish(t.clock, &(struct vmclock_time){.counter_hz = 1000});
	memcpy(before, page() + 16, 8);
	memcpy(before + 8, page() + 104, 8);
	CHECK_EQ(state_save(&vmclock_state, t.clock, &clock, NULL), 0);
	CHECK_EQ(state_save(&vmgenid_state, t.id, &id, NULL), 0);
	end();
	begin();
	CHECK_EQ(state_load(&vmclock_state, t.clock, clock.data, clock.len, NULL), 0);
	CHECK_EQ(state_load(&vmgenid_state, t.id, id.data, id.len, NULL), 0);
	CHECK(get_le64(t.ram + ID_AT) == 0 && get_le32(page()) == 0);
	CHECK_EQ(state_save(&vmgenid_state, t.id, &again, NULL), 0);
	CHECK(again.len == id.len && memcmp(again.data, id.data, id.len) == 0);
	vmclock_publish(t.clock, &(struct vmclock_time){.counter_hz = 1000});
	CHECK_EQ(get_le32(page() + 12), 4);
	CHECK(memcmp(page() + 16, before, 8) == 0 && memcmp(page() + 104, before + 8, 8) == 0);
	state_buffer_free(&clock);
	state_buffer_free(&id);
	state_buffer_free(&again);
	end();
}

static void an_odd_sequence_number_is_refused(void)
{
	struct state_buffer clock = {0};
	struct err err;

	begin();
	CHECK_EQ(state_save(&vmclock_state, t.clock, &clock, NULL), 0);
	for (size_t at = 0; at + 8 < clock.len; at++)
		if (memcmp(clock.data + at, "sequence", 8) == 0) {
			clock.data[at + 8 + 5] |= 1; /* behind its kind and length */
			break;
		}
	CHECK_EQ(state_load(&vmclock_state, t.clock, clock.data, clock.len, &err), -EBADMSG);
	CHECK(strstr(err.text, "odd"));
	state_buffer_free(&clock);
	end();
}

TEST_MAIN(TEST(the_page_is_what_linux_reads), TEST(the_guest_can_compute_the_time),
	  TEST(a_guest_that_writes_its_page_disturbs_nothing), TEST(only_a_restore_disrupts),
	  TEST(an_id_never_comes_twice), TEST(a_reboot_keeps_both),
	  TEST(memory_that_is_not_there_is_an_error), TEST(a_move_changes_nothing),
	  TEST(an_odd_sequence_number_is_refused))
