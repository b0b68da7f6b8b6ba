/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/kvm/clock_x86 and vcpu_timer_x86: over a pause and a move, kvmclock, counters and timers move together, or all follow the
 * host; a scaled counter never steps back; each call of KVM may fail.
 */
#include "tests/unit/fake_kvm.h"
#include "tests/unit/test.h"
#include "vmm/kvm/clock.h"
#include "vmm/kvm/guest_cpu.h"

#include <cpuid.h>
#include <sys/ioctl.h>
#include <time.h>

#define SECOND 1000000000ull
#define DEADLINE 0x6e0u
#define LVT_TIMER 0x320
#define COUNT 0x390
#define CPUS 2u

/* A VM with vCPUs and its clock. */
struct side {
	struct kvm kvm;
	struct guest_cpu *cpu;
	struct vcpu_set *vcpus;
	struct clock *clock;
};

static struct side here, there;
static struct err err;

static void close_side(struct side *side)
{
	clock_destroy(take_ptr(side->clock));
	vcpu_set_destroy(take_ptr(side->vcpus));
	guest_cpu_destroy(take_ptr(side->cpu));
	if (side->kvm.vm_fd > 0)
		kvm_close(&side->kvm);
	*side = (struct side){0};
}

static void end(void)
{
	close_side(&here);
	close_side(&there);
	fake_kvm_reset();
}

static void open_side(struct side *side, bool runs, unsigned int khz)
{
	static const struct log log = {.fd = -1};
	struct vcpu_config config = {.kvm = &side->kvm, .count = CPUS, .log = &log, .tsc_khz = khz};

	CHECK_EQ(kvm_open(&side->kvm, &err), 0);
	CHECK_EQ(kvm_create_vm(&side->kvm, &err), 0);
	CHECK_EQ(guest_cpu_create(&side->kvm, CPUS, NULL, &side->cpu, &err), 0);
	CHECK_EQ(vcpu_set_create(&config, side->cpu, NULL, &side->vcpus, &err), 0);
	CHECK_EQ(clock_create(&side->kvm, side->vcpus, runs, &log, &side->clock, &err), 0);
}

static void begin(bool runs)
{
	struct timespec now;
	uint32_t eax, name[3];

	end();
	clock_gettime(CLOCK_REALTIME, &now);
	__cpuid(0, eax, name[0], name[2], name[1]);
	fake_kvm.ratio_bits = memcmp(name, "GenuineIntel", 12) == 0 ? 48 : 32;
	fake_kvm.realtime = (uint64_t)now.tv_sec * SECOND - SECOND;
	fake_kvm.cpuid_count = 1;
	open_side(&here, runs, 0);
	for (unsigned int i = 0; i < CPUS; i++)
		fake_kvm_vcpu(i)->tsc_offset = -9000000000000ll - 77 * (int)i;
}

static uint64_t counter(unsigned int cpu)
{
	return fake_kvm_tsc(fake_kvm_vcpu(cpu));
}

static uint8_t *lapic(unsigned int cpu)
{
	return (uint8_t *)fake_kvm_vcpu(cpu)->lapic.regs;
}

static void a_pause_takes_no_time(void)
{
	uint64_t tsc, clock;

	begin(false);
	tsc = counter(0);
	clock = fake_kvm_clock();
	CHECK_EQ(clock_pause(here.clock, &err), 0);
	fake_kvm_pass(7 * SECOND);
	/* paused again, as for a migration of a paused machine */
	CHECK_EQ(clock_pause(here.clock, &err), 0);
	fake_kvm_pass(3 * SECOND);
	CHECK(!clock_resume(here.clock));
	CHECK_EQ(counter(0), tsc);
	CHECK_EQ(counter(1), tsc - 77);
	CHECK_EQ(fake_kvm_clock(), clock);
	CHECK_EQ(clock_guest_ns(here.clock), clock);
	fake_kvm_pass(SECOND);
	CHECK_EQ(fake_kvm_clock(), clock + SECOND);
	CHECK_EQ(counter(0), tsc + fake_kvm.host_khz * 1000ull);
	/* resumed, and not paused */
	CHECK(!clock_resume(here.clock));
	CHECK_EQ(fake_kvm_clock(), clock + SECOND);
}

static void a_clock_that_runs_follows_the_host(void)
{
	uint64_t tsc, clock;

	begin(true);
	tsc = counter(0);
	clock = fake_kvm_clock();
	*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE) = 555;
	CHECK_EQ(clock_pause(here.clock, &err), 0);
	fake_kvm_pass(10 * SECOND);
	CHECK_EQ(*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE), 555);
	CHECK(!clock_resume(here.clock));
	CHECK_EQ(counter(0), tsc + 10000ull * fake_kvm.host_khz * 1000 / 1000);
	CHECK_EQ(fake_kvm_clock(), clock + 10 * SECOND);
}

/* A deadline of one vCPU and a count of the other one. */
static void timers_stop_with_the_clock(void)
{
	begin(false);
	*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE) = 123456;
	put_le32(lapic(0) + LVT_TIMER, 2 << 17 | 0x40);
	put_le32(lapic(1) + LVT_TIMER, 1 << 17 | 0x40);
	put_le32(lapic(1) + COUNT, 5000);
	CHECK_EQ(clock_pause(here.clock, &err), 0);
	CHECK_EQ(*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE), 0);
	put_le32(lapic(1) + COUNT, 17); /* KVM counts on */
	CHECK(clock_resume(here.clock));
	CHECK_EQ(*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE), 123456);
	CHECK_EQ(get_le32(lapic(1) + COUNT), 5000);
	/* and without a timer that counts, no local APIC is loaded */
	put_le32(lapic(1) + COUNT, 0);
	fake_kvm.call_count = 0;
	CHECK_EQ(clock_pause(here.clock, &err), 0);
	CHECK(!clock_resume(here.clock));
	CHECK_EQ(fake_kvm_find(0, KVM_SET_LAPIC, UINT64_MAX), -1);
}

/* The vCPUs' states and the clock's: as machine_state.c does it. */
static void move(void)
{
	struct state_buffer clock = {0}, cpus[CPUS] = {{0}};

	CHECK_EQ(clock_pause(here.clock, &err), 0);
	CHECK_EQ(clock_save(here.clock, &clock, &err), 0);
	for (unsigned int i = 0; i < CPUS; i++)
		CHECK_EQ(vcpu_set_save(here.vcpus, i, &cpus[i], &err), 0);
	fake_kvm_pass(3 * SECOND);
	CHECK_EQ(clock_load(there.clock, clock.data, clock.len, &err), 0);
	for (unsigned int i = 0; i < CPUS; i++)
		CHECK_EQ(vcpu_set_load(there.vcpus, i, false, cpus[i].data, cpus[i].len, &err), 0);
	CHECK_EQ(clock_hold(there.clock, &err), 0);
	fake_kvm_pass(2 * SECOND);
	clock_resume(there.clock);
	state_buffer_free(&clock);
	for (unsigned int i = 0; i < CPUS; i++)
		state_buffer_free(&cpus[i]);
}

static void a_move_is_like_a_pause(void)
{
	for (int runs = 0; runs < 2; runs++) {
		uint64_t tsc, clock;

		begin(runs);
		open_side(&there, runs, 0);
		*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE) = 123456;
		put_le32(lapic(0) + LVT_TIMER, 2 << 17 | 0x40);
		put_le32(lapic(1) + COUNT, 5000);
		tsc = counter(0);
		clock = fake_kvm_clock();
		move();
		CHECK_EQ(fake_kvm_clock(), clock + (runs ? 5 * SECOND : 0));
		CHECK_EQ(counter(2), tsc + (runs ? 5000ull * fake_kvm.host_khz : 0));
		CHECK_EQ(counter(3), tsc - 77 + (runs ? 5000ull * fake_kvm.host_khz : 0));
		CHECK_EQ(*fake_kvm_msr(fake_kvm_vcpu(2), DEADLINE), 123456);
		CHECK_EQ(get_le32(lapic(3) + COUNT), 5000);
	}
}

/* What a snapshot has: the states of the clock and of the vCPUs. */
struct snapshot {
	struct state_buffer clock, cpus[CPUS];
};

static void take(struct snapshot *snapshot)
{
	*snapshot = (struct snapshot){0};
	CHECK_EQ(clock_pause(here.clock, &err), 0);
	CHECK_EQ(clock_save(here.clock, &snapshot->clock, &err), 0);
	for (unsigned int i = 0; i < CPUS; i++)
		CHECK_EQ(vcpu_set_save(here.vcpus, i, &snapshot->cpus[i], &err), 0);
}

static void restore(struct snapshot *snapshot, bool runs, bool long_ago)
{
	open_side(&there, runs, 0);
	if (long_ago)
		clock_expect_long_ago(there.clock);
	CHECK_EQ(clock_load(there.clock, snapshot->clock.data, snapshot->clock.len, &err), 0);
	state_buffer_free(&snapshot->clock);
	for (unsigned int i = 0; i < CPUS; i++) {
		CHECK_EQ(vcpu_set_load(there.vcpus, i, false, snapshot->cpus[i].data, snapshot->cpus[i].len, &err), 0);
		state_buffer_free(&snapshot->cpus[i]);
	}
	CHECK_EQ(clock_hold(there.clock, &err), 0);
	clock_resume(there.clock);
}

#define WEEK (604800 * SECOND)

/* Whatever the clock did before: it stops or runs as the restored machine's does. */
static void a_snapshot_of_last_week(void)
{
	for (unsigned int i = 0; i < 8; i++) {
		bool ran = i & 1, runs = i & 2, long_ago = i & 4;
		uint64_t passed = runs && long_ago ? WEEK : 0, tsc, clock;
		struct snapshot snapshot;

		begin(ran);
		fake_kvm.realtime -= WEEK;
		*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE) = 123456;
		put_le32(lapic(0) + LVT_TIMER, 2 << 17 | 0x40);
		put_le32(lapic(1) + COUNT, 5000);
		tsc = counter(0);
		clock = fake_kvm_clock();
		take(&snapshot);
		fake_kvm_pass(WEEK);
		restore(&snapshot, runs, long_ago);
		CHECK_EQ(fake_kvm_clock(), clock + passed);
		CHECK_EQ(counter(2), tsc + passed / 1000000 * fake_kvm.host_khz);
		CHECK_EQ(counter(3), counter(2) - 77);
		/* a timer is as far away as it was, or due */
		CHECK_EQ(*fake_kvm_msr(fake_kvm_vcpu(2), DEADLINE), 123456);
		CHECK_EQ(get_le32(lapic(3) + COUNT), 5000);
	}
}

/* The host's clock was set back meanwhile: the guest's never is. */
static void a_snapshot_of_the_future(void)
{
	for (int runs = 0; runs < 2; runs++) {
		struct snapshot snapshot;
		uint64_t tsc, clock;

		begin(runs);
		fake_kvm.realtime += WEEK;
		tsc = counter(0);
		clock = fake_kvm_clock();
		take(&snapshot);
		fake_kvm_pass(SECOND);
		fake_kvm.realtime -= WEEK;
		restore(&snapshot, runs, true);
		CHECK_EQ(fake_kvm_clock(), clock);
		CHECK_EQ(counter(2), tsc);
	}
}

/* For vmclock: where the guest's counter is, how fast it really is, and what time it is. */
static void counter_and_time_are_read_together(void)
{
	struct clock_moment now;

	begin(false);
	CHECK_EQ(clock_read(here.clock, &now, &err), 0);
	CHECK_EQ(now.counter, counter(0));
	CHECK_EQ(now.counter_hz, fake_kvm.host_khz * 1000ull);
	CHECK_EQ(now.realtime, fake_kvm.realtime);
	/* scaled */
	open_side(&there, false, fake_kvm.host_khz / 2);
	CHECK_EQ(clock_read(there.clock, &now, &err), 0);
	CHECK_EQ(now.counter, counter(2));
	CHECK_EQ(now.counter_hz, fake_kvm.host_khz / 2 * 1000ull);
	close_side(&there);
	/* told another rate than it has */
	open_side(&there, false, fake_kvm.host_khz - 10);
	CHECK_EQ(clock_read(there.clock, &now, &err), 0);
	CHECK_EQ(now.counter_hz, fake_kvm.host_khz * 1000ull);
	fake_kvm.offsets = false;
	CHECK_EQ(clock_read(here.clock, &now, &err), 0);
	CHECK_EQ(now.counter, counter(0));
	fake_kvm_fail(2, EIO);
	CHECK_EQ(clock_read(here.clock, &now, &err), -EIO);
}

/* A counter of 10^15 ticks, on a host whose rate is 3/7 of the guest's and a bit. */
static void a_scaled_counter_does_not_step_back(void)
{
	uint64_t tsc;

	begin(false);
	fake_kvm.host_khz = 1999997;
	fake_kvm.host_tsc = 1000000000000007ull;
	open_side(&there, false, 2600003);
	for (unsigned int i = 2; i < 4; i++)
		fake_kvm_vcpu(i)->tsc_offset = -9000000000000ll;
	tsc = counter(2);
	CHECK_EQ(clock_pause(there.clock, &err), 0);
	fake_kvm_pass(5 * SECOND);
	clock_resume(there.clock);
	CHECK_EQ(counter(2), tsc);
	CHECK_EQ(counter(3), tsc);
}

/* Without the offset, the counters themselves are written. */
static void older_kernels_have_no_offset(void)
{
	uint64_t tsc;

	begin(false);
	fake_kvm.offsets = false;
	tsc = counter(1);
	CHECK_EQ(clock_pause(here.clock, &err), 0);
	fake_kvm_pass(5 * SECOND);
	clock_resume(here.clock);
	CHECK_EQ(counter(1), tsc);
}

/* A pause that fails changes nothing; a resume cannot fail. */
static void every_call_may_fail(void)
{
	unsigned int n = 1;

	begin(false);
	*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE) = 1234567;
	put_le32(lapic(0) + LVT_TIMER, 2 << 17 | 0x40);
	put_le32(lapic(1) + COUNT, 5000);
	do {
		int code;

		fake_kvm_fail(n, EIO);
		code = clock_pause(here.clock, &err);
		CHECK(code == 0 || (code == -EIO && err.text[0]));
		if (code < 0) /* the timers run on as they were */
			CHECK_EQ(*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE), 1234567);
		clock_resume(here.clock);
		CHECK(code || fake_kvm.failed || *fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE) == 1234567);
		*fake_kvm_msr(fake_kvm_vcpu(0), DEADLINE) = 1234567;
	} while (fake_kvm.failed && n++ < 100);
	CHECK(n > 12 && n < 100);
	end();
}

TEST_MAIN(TEST(a_pause_takes_no_time), TEST(a_clock_that_runs_follows_the_host), TEST(timers_stop_with_the_clock),
	  TEST(a_move_is_like_a_pause), TEST(a_snapshot_of_last_week), TEST(a_snapshot_of_the_future),
	  TEST(counter_and_time_are_read_together), TEST(a_scaled_counter_does_not_step_back), TEST(older_kernels_have_no_offset),
	  TEST(every_call_may_fail))
