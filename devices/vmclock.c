/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h: the page of vmclock (UAPI.13; Linux: include/uapi/linux/vmclock-abi.h), which programs of the guest may
 * map. It says what the host's clock and the guest's time stamp counter were at one moment, and has two numbers that are
 * other ones in each restored machine.
 *
 * The time is the host's when the guest began to run, or to run on. Nothing follows the counter's rate after that, so
 * the status is "free-running", and no bound of the error is claimed. It is UTC: few hosts know their offset to TAI, which
 * UAPI.13 recommends, and Linux makes a PTP clock only of that since 7.0. The sequence number is odd while the page changes.
 */
#include "core/guest_memory.h"
#include "core/state.h"
#include "devices/platform.h"

#include <sys/random.h>

#define PAGE_BYTES 4096u
#define MAGIC 0x4b4c4356u /* "VCLK" */
#define VERSION 1u
#define COUNTER_X86_TSC 1u
#define TIME_UTC 0u
#define FLAG_GENERATION (1ull << 8)
#define FLAG_NOTIFICATION (1ull << 9)
#define STATUS_FREERUNNING 3u
#define SECOND 1000000000u

/* Little-endian; what is not named is zero: not known. */
struct page {
	uint32_t magic, size;
	uint16_t version;
	uint8_t counter, time_type;
	uint32_t sequence;
	uint64_t disruption; /* and the rest is written between an odd sequence number and the next even one */
	uint64_t flags;
	uint8_t reserved0[2], status, smearing;
	uint16_t tai_offset;
	uint8_t leap, period_shift;
	uint64_t counter_value, period; /* in seconds / 2^(64 + period_shift) */
	uint64_t period_errors[2];
	uint64_t seconds, fraction; /* since 1970; in seconds / 2^64 */
	uint64_t time_errors[2];
	uint64_t generation;
};
_Static_assert(sizeof(struct page) == 112, "version 1");
_Static_assert(offsetof(struct page, sequence) == 12 && offsetof(struct page, status) == 34, "version 1");
_Static_assert(offsetof(struct page, counter_value) == 40 && offsetof(struct page, seconds) == 72, "version 1");

struct vmclock_state {
	uint32_t sequence;
	uint64_t disruption, generation;
};

struct vmclock {
	struct guest_memory *memory;
	uint64_t gpa;
	struct vmclock_state state;
};

int vmclock_create(struct guest_memory *memory, uint64_t gpa, struct vmclock **ret, struct err *err)
{
	struct vmclock *vmclock = calloc(1, sizeof(*vmclock));

	if (!vmclock)
		return err_sys(err, -ENOMEM, "vmclock");
	vmclock->memory = memory;
	vmclock->gpa = gpa;
	*ret = vmclock;
	return 0;
}

void vmclock_destroy(struct vmclock *vmclock)
{
	free(vmclock);
}

int vmclock_disrupt(struct vmclock *vmclock, struct err *err)
{
	uint64_t next[2];

	if (getrandom(next, sizeof(next), 0) != sizeof(next))
		return err_set(err, -EIO, "vmclock: the host's kernel gives no random bytes");
	vmclock->state.disruption = next[0];
	vmclock->state.generation = next[1];
	return 0;
}

void vmclock_set_generation(struct vmclock *vmclock, uint64_t generation)
{
	vmclock->state.generation = generation;
}

uint64_t vmclock_generation(const struct vmclock *vmclock)
{
	return vmclock->state.generation;
}

/* A tick of the counter, as precise as 64 bits can say it: 2^(64 + shift) / hz, below 2^64. */
static void vmclock_set_period(struct page *page, uint64_t hz)
{
	unsigned int shift = 63u - (unsigned int)__builtin_clzll(hz - 1);

	page->period_shift = (uint8_t)shift;
	page->period = htole64((uint64_t)(((unsigned __int128)1 << (64 + shift)) / hz));
}

static struct page vmclock_make_page(const struct vmclock_state *state, const struct vmclock_time *time)
{
	unsigned __int128 part = (unsigned __int128)(time->realtime_ns % SECOND) << 64;
	struct page page = {
		.magic = htole32(MAGIC), .size = htole32(PAGE_BYTES), .version = htole16(VERSION),
		.counter = COUNTER_X86_TSC, .time_type = TIME_UTC, .status = STATUS_FREERUNNING,
		.sequence = htole32(state->sequence + 1),
		.disruption = htole64(state->disruption), .generation = htole64(state->generation),
		.flags = htole64(FLAG_GENERATION | FLAG_NOTIFICATION),
		.counter_value = htole64(time->counter),
		.seconds = htole64(time->realtime_ns / SECOND), .fraction = htole64((uint64_t)(part / SECOND)),
	};

	vmclock_set_period(&page, time->counter_hz);
	return page;
}

void vmclock_publish(struct vmclock *vmclock, const struct vmclock_time *time)
{
	struct page next = vmclock_make_page(&vmclock->state, time);
	struct page *page = guest_memory_at(vmclock->memory, vmclock->gpa, sizeof(*page));

	if (!page)
		return;
	__atomic_store_n(&page->sequence, next.sequence, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	memcpy(page, &next, sizeof(next));
	vmclock->state.sequence += 2;
	__atomic_store_n(&page->sequence, htole32(vmclock->state.sequence), __ATOMIC_RELEASE);
	guest_memory_dirty(vmclock->memory, vmclock->gpa, sizeof(*page));
}

/* ---- saved state ---- */

static int vmclock_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct vmclock_state *state = loaded;

	return state->sequence & 1 ? err_set(err, -EBADMSG, "an odd sequence number") : 0;
}

/* The page is in guest memory, which has been loaded before. */
static const struct state_field fields[] = {
	STATE_UINT(struct vmclock_state, sequence, 1),
	STATE_UINT(struct vmclock_state, disruption, 1),
	STATE_UINT(struct vmclock_state, generation, 1),
};

const struct state_table vmclock_state = {
	.name = "vmclock", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct vmclock, state),
	.judge = vmclock_judge,
};
