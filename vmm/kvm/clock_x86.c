/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See clock.h. kvmclock is read and set by KVM_GET_CLOCK and KVM_SET_CLOCK. A vCPU's time stamp counter is the host's,
 * scaled if the rates differ, plus an offset (Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET). All
 * counters are moved by the same time, so that synchronized counters stay synchronized. If the kernel does not have the
 * offset, the counters themselves are written, and the kernel synchronizes them.
 */
#include "vmm/kvm/clock.h"

#include <cpuid.h>
#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#define MSR_TSC 0x10u
#define MAX_CPUS 254u

/*
 * Binary places of the ratio by which a processor scales the counter: AMD APM volume 2, "TSC Ratio MSR"; Intel SDM
 * volume 3, "TSC scaling".
 */
#define RATIO_BITS_AMD 32u
#define RATIO_BITS_INTEL 48u

/* Above this, in a migration, the hosts' clocks are taken to be wrong, and the guest's time does not advance. */
#define MAX_AWAY_NS 60000000000ull

struct clock_state {
	uint64_t kvmclock; /* ns */
	uint64_t realtime; /* ns since 1970, UTC, of the host's clock */
	uint32_t tsc_khz;
	uint32_t tsc_len;       /* bytes */
	uint64_t tsc[MAX_CPUS]; /* each vCPU's at that moment */
};

struct clock {
	struct kvm *kvm;
	struct vcpu_set *vcpus;
	const struct log *log;
	bool runs;
	uint64_t max_away_ns;
	bool paused;
	struct clock_state state; /* the recorded time, while paused */
};

/* kvmclock, the host's clock and the host's counter at one moment. */
struct moment {
	uint64_t kvmclock, realtime, tsc;
};

static struct kvm_device_attr clock_offset_attr(int64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset,
	};
}

static unsigned int clock_ratio_bits(void)
{
	uint32_t eax, name[3];

	__cpuid(0, eax, name[0], name[2], name[1]);
	return memcmp(name, "GenuineIntel", sizeof(name)) == 0 ? RATIO_BITS_INTEL : RATIO_BITS_AMD;
}

int clock_create(struct kvm *kvm, struct vcpu_set *vcpus, bool runs, const struct log *log, struct clock **ret,
		 struct err *err)
{
	struct clock *clock = calloc(1, sizeof(*clock));

	if (!clock)
		return err_sys(err, -ENOMEM, "clock");
	clock->kvm = kvm;
	clock->vcpus = vcpus;
	clock->log = log;
	clock->runs = runs;
	clock->max_away_ns = MAX_AWAY_NS;
	*ret = clock;
	return 0;
}

void clock_destroy(struct clock *clock)
{
	free(clock);
}

void clock_expect_long_ago(struct clock *clock)
{
	clock->max_away_ns = UINT64_MAX;
}

static uint64_t clock_wall_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* If KVM does not return all three, the others are read separately. */
static int clock_look(const struct clock *clock, struct moment *ret, struct err *err)
{
	struct kvm_clock_data data = {0};

	if (ioctl(clock->kvm->vm_fd, KVM_GET_CLOCK, &data) < 0)
		return err_sys(err, -errno, "KVM_GET_CLOCK");
	ret->kvmclock = data.clock;
	ret->tsc = data.flags & KVM_CLOCK_HOST_TSC ? data.host_tsc : __rdtsc();
	ret->realtime = data.flags & KVM_CLOCK_REALTIME ? data.realtime : clock_wall_clock();
	return 0;
}

/* The host's counter, scaled to the guest's rate as the processor does it: a counter of 10^15 ticks would differ by
 * 10^5 ticks if the ratio were more exact. */
static uint64_t clock_scaled(const struct clock *clock, uint64_t host_tsc)
{
	unsigned int khz = vcpu_set_tsc_khz(clock->vcpus), host = vcpu_set_host_tsc_khz(clock->vcpus);
	unsigned __int128 ratio;
	unsigned int bits;

	if (khz == host)
		return host_tsc;
	bits = clock_ratio_bits();
	ratio = ((unsigned __int128)khz << bits) / host;
	return (uint64_t)(ratio * host_tsc >> bits);
}

/* ---- one vCPU's counter ---- */

/* Whether the error says that this KVM does not have the offset: ENXIO, or EINVAL if its vCPUs have no attributes. */
static bool clock_lacks_offsets(int error)
{
	return error == ENXIO || error == EINVAL || error == ENOTTY;
}

static int clock_read_tsc(const struct clock *clock, unsigned int index, const struct moment *moment, uint64_t *ret,
			  struct err *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = {.head.nmsrs = 1, .entry.index = MSR_TSC};
	int fd = vcpu_set_fd(clock->vcpus, index);
	int64_t offset;
	struct kvm_device_attr attr = clock_offset_attr(&offset);

	if (ioctl(fd, KVM_GET_DEVICE_ATTR, &attr) == 0) {
		*ret = clock_scaled(clock, moment->tsc) + (uint64_t)offset;
		return 0;
	}
	if (!clock_lacks_offsets(errno))
		return err_sys(err, -errno, "vCPU %u: KVM_VCPU_TSC_OFFSET", index);
	if (ioctl(fd, KVM_GET_MSRS, &msr) != 1)
		return err_sys(err, -errno, "vCPU %u: TSC", index);
	*ret = msr.entry.data;
	return 0;
}

static int clock_write_tsc(const struct clock *clock, unsigned int index, const struct moment *moment, uint64_t value,
			   struct err *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = {.head.nmsrs = 1, .entry = {.index = MSR_TSC, .data = value}};
	int fd = vcpu_set_fd(clock->vcpus, index);
	int64_t offset = (int64_t)(value - clock_scaled(clock, moment->tsc));
	struct kvm_device_attr attr = clock_offset_attr(&offset);

	if (ioctl(fd, KVM_SET_DEVICE_ATTR, &attr) == 0)
		return 0;
	if (!clock_lacks_offsets(errno))
		return err_sys(err, -errno, "vCPU %u: KVM_VCPU_TSC_OFFSET", index);
	return ioctl(fd, KVM_SET_MSRS, &msr) != 1 ? err_sys(err, -errno, "vCPU %u: TSC", index) : 0;
}

/* ---- pause and resume ---- */

static int clock_record(struct clock *clock, struct err *err)
{
	unsigned int count = vcpu_set_count(clock->vcpus);
	struct clock_state now = {
		.tsc_khz = vcpu_set_tsc_khz(clock->vcpus), .tsc_len = count * (uint32_t)sizeof(now.tsc[0]),
	};
	struct moment moment;
	int code;

	code = clock_look(clock, &moment, err);
	for (unsigned int i = 0; i < count && code == 0; i++)
		code = clock_read_tsc(clock, i, &moment, &now.tsc[i], err);
	if (code < 0)
		return code;
	now.kvmclock = moment.kvmclock;
	now.realtime = moment.realtime;
	clock->state = now;
	return 0;
}

int clock_pause(struct clock *clock, struct err *err)
{
	int code = 0;

	if (clock->paused && !clock->runs)
		return 0;
	code = clock_record(clock, err);
	if (code == 0 && !clock->runs)
		code = vcpu_set_stop_timers(clock->vcpus, err);
	clock->paused = code == 0;
	return code;
}

/* The time in ns since the state was recorded, by the hosts' clocks; 0 if they cannot be right. */
static uint64_t clock_away(const struct clock *clock)
{
	uint64_t now = clock_wall_clock(), then = clock->state.realtime;

	return now > then && now - then <= clock->max_away_ns ? now - then : 0;
}

static int clock_set_kvmclock(const struct clock *clock, struct err *err)
{
	struct kvm_clock_data data = {.clock = clock->state.kvmclock};
	uint64_t gone = clock->runs ? clock_away(clock) : 0;

	if (gone && kvm_check(clock->kvm, KVM_CAP_ADJUST_CLOCK) & KVM_CLOCK_REALTIME) {
		data.flags = KVM_CLOCK_REALTIME;
		data.realtime = clock->state.realtime;
	} else {
		data.clock += gone;
	}
	return ioctl(clock->kvm->vm_fd, KVM_SET_CLOCK, &data) < 0 ? err_sys(err, -errno, "KVM_SET_CLOCK") : 0;
}

/* Sets kvmclock and all counters to the recorded time, or to what that has become. */
static int clock_set(const struct clock *clock, struct err *err)
{
	const struct clock_state *state = &clock->state;
	struct moment moment;
	int code = clock_set_kvmclock(clock, err);
	uint64_t passed;

	code = code ?: clock_look(clock, &moment, err);
	if (code < 0)
		return code;
	passed = moment.kvmclock > state->kvmclock ? moment.kvmclock - state->kvmclock : 0;
	passed = (uint64_t)((unsigned __int128)passed * state->tsc_khz / 1000000);
	for (unsigned int i = 0; i < vcpu_set_count(clock->vcpus) && code == 0; i++)
		code = clock_write_tsc(clock, i, &moment, state->tsc[i] + passed, err);
	return code;
}

bool clock_resume(struct clock *clock)
{
	struct err err;

	if (!clock->paused)
		return false;
	clock->paused = false;
	if (clock->runs)
		return false;
	if (clock_set(clock, &err) < 0)
		log_warn(clock->log, "%s; the guest's time jumps", err.text);
	return vcpu_set_start_timers(clock->vcpus, clock->log);
}

int clock_hold(struct clock *clock, struct err *err)
{
	if (!clock->runs)
		return vcpu_set_stop_timers(clock->vcpus, err);
	vcpu_set_start_timers(clock->vcpus, clock->log);
	return 0;
}

uint64_t clock_guest_ns(const struct clock *clock)
{
	struct kvm_clock_data data = {0};

	return ioctl(clock->kvm->vm_fd, KVM_GET_CLOCK, &data) < 0 ? 0 : data.clock;
}

int clock_read(struct clock *clock, struct clock_moment *ret, struct err *err)
{
	struct moment moment = {0};
	uint64_t counter = 0;
	int code;

	code = clock_look(clock, &moment, err) ?: clock_read_tsc(clock, 0, &moment, &counter, err);
	if (code == 0)
		*ret = (struct clock_moment){
			.counter = counter, .counter_hz = vcpu_set_real_tsc_khz(clock->vcpus) * 1000ull,
			.realtime = moment.realtime,
		};
	return code;
}

/* ---- save and load ---- */

static int clock_collect(void *object, void *state, struct err *err)
{
	return ((struct clock *)object)->paused ? 0 : err_set(err, -EBUSY, "the machine is not paused");
}

static int clock_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct clock *clock = object;
	const struct clock_state *state = loaded;
	unsigned int count = vcpu_set_count(clock->vcpus);

	if (state->tsc_len != count * sizeof(state->tsc[0]))
		return err_set(err, -EBADMSG, "%u bytes of counters for %u vCPUs", state->tsc_len, count);
	if (state->tsc_khz != vcpu_set_tsc_khz(clock->vcpus))
		return err_set(err, -EBADMSG, "the guest's TSC has %u kHz, but %u kHz were offered", state->tsc_khz,
			       vcpu_set_tsc_khz(clock->vcpus));
	/* Any time below 2^63 ns (292 years) is valid. */
	if (state->kvmclock >> 63 || state->realtime >> 63)
		return err_set(err, -EBADMSG, "an invalid time");
	return 0;
}

static int clock_loaded(void *object, const void *loaded, struct err *err)
{
	struct clock *clock = object;
	int code;

	code = clock_set(clock, err);
	clock->paused = code == 0;
	return code;
}

static const struct state_field fields[] = {
	STATE_UINT(struct clock_state, kvmclock, 1),
	STATE_UINT(struct clock_state, realtime, 1),
	STATE_UINT(struct clock_state, tsc_khz, 1),
	STATE_SOME_BYTES(struct clock_state, tsc, 1, tsc_len),
};

static const struct state_table clock_state = {
	.name = "clock-x86", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct clock, state),
	.collect = clock_collect, .judge = clock_judge, .loaded = clock_loaded,
};

int clock_save(struct clock *clock, struct state_buffer *out, struct err *err)
{
	return state_save(&clock_state, clock, out, err);
}

int clock_load(struct clock *clock, const void *data, size_t len, struct err *err)
{
	return state_load(&clock_state, clock, data, len, err);
}
