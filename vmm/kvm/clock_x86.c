/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See clock.h. kvmclock is read and set by KVM_GET_CLOCK and KVM_SET_CLOCK. A vCPU's time stamp counter is the host's,
 * scaled if the rates differ, plus an offset (Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET). A load
 * advances all counters by the same time, so that synchronized counters stay synchronized. If the kernel does not have
 * the offset, the counters themselves are written, and the kernel synchronizes them.
 */
#include "vmm/kvm/clock.h"

#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#define MSR_TSC 0x10u
#define MAX_CPUS 254u

/* Above this, the hosts' clocks are taken to be wrong, and the guest's time does not advance. */
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
	bool by_offset; /* KVM has KVM_VCPU_TSC_OFFSET */
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

int clock_create(struct kvm *kvm, struct vcpu_set *vcpus, struct clock **ret, struct err *err)
{
	struct clock *clock = calloc(1, sizeof(*clock));

	if (!clock)
		return err_sys(err, -ENOMEM, "clock");
	clock->kvm = kvm;
	clock->vcpus = vcpus;
	*ret = clock;
	return 0;
}

void clock_destroy(struct clock *clock)
{
	free(clock);
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

/* The host's counter, scaled to the guest's rate. */
static uint64_t clock_scaled(const struct clock *clock, uint64_t host_tsc)
{
	unsigned int khz = vcpu_set_tsc_khz(clock->vcpus), host = vcpu_set_host_tsc_khz(clock->vcpus);

	return khz == host ? host_tsc : (uint64_t)((unsigned __int128)host_tsc * khz / host);
}

/* ---- one vCPU's counter ---- */

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

	if (clock->by_offset) {
		if (ioctl(fd, KVM_GET_DEVICE_ATTR, &attr) < 0)
			return err_sys(err, -errno, "vCPU %u: KVM_VCPU_TSC_OFFSET", index);
		*ret = clock_scaled(clock, moment->tsc) + (uint64_t)offset;
		return 0;
	}
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

	if (clock->by_offset)
		return ioctl(fd, KVM_SET_DEVICE_ATTR, &attr) < 0 ?
		       err_sys(err, -errno, "vCPU %u: KVM_VCPU_TSC_OFFSET", index) : 0;
	return ioctl(fd, KVM_SET_MSRS, &msr) != 1 ? err_sys(err, -errno, "vCPU %u: TSC", index) : 0;
}

/* ---- pause and resume ---- */

static void clock_find_offset_attr(struct clock *clock)
{
	int64_t offset;
	struct kvm_device_attr attr = clock_offset_attr(&offset);

	clock->by_offset = ioctl(vcpu_set_fd(clock->vcpus, 0), KVM_HAS_DEVICE_ATTR, &attr) == 0;
}

int clock_pause(struct clock *clock, struct err *err)
{
	unsigned int count = vcpu_set_count(clock->vcpus);
	struct clock_state now = {
		.tsc_khz = vcpu_set_tsc_khz(clock->vcpus), .tsc_len = count * (uint32_t)sizeof(now.tsc[0]),
	};
	struct moment moment;
	int code;

	if (clock->paused)
		return 0;
	clock_find_offset_attr(clock);
	code = clock_look(clock, &moment, err);
	for (unsigned int i = 0; i < count && code == 0; i++)
		code = clock_read_tsc(clock, i, &moment, &now.tsc[i], err);
	if (code < 0)
		return code;
	now.kvmclock = moment.kvmclock;
	now.realtime = moment.realtime;
	clock->state = now;
	clock->paused = true;
	return 0;
}

void clock_resume(struct clock *clock)
{
	clock->paused = false;
}

/* ---- save and load ---- */

static int clock_collect(void *object, void *state, struct err *err)
{
	return ((struct clock *)object)->paused ? 0 : err_set(err, -EBUSY, "the machine is not paused");
}

/* The time in ns since the state was saved, by the hosts' clocks; 0 if they cannot be right. */
static uint64_t clock_away(const struct clock_state *state)
{
	uint64_t now = clock_wall_clock();

	return now > state->realtime && now - state->realtime <= MAX_AWAY_NS ? now - state->realtime : 0;
}

static int clock_set_kvmclock(const struct clock *clock, struct err *err)
{
	struct kvm_clock_data data = {.clock = clock->state.kvmclock};
	uint64_t gone = clock_away(&clock->state);

	if (gone && kvm_check(clock->kvm, KVM_CAP_ADJUST_CLOCK) & KVM_CLOCK_REALTIME) {
		data.flags = KVM_CLOCK_REALTIME;
		data.realtime = clock->state.realtime;
	} else {
		data.clock += gone;
	}
	return ioctl(clock->kvm->vm_fd, KVM_SET_CLOCK, &data) < 0 ? err_sys(err, -errno, "KVM_SET_CLOCK") : 0;
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
	const struct clock_state *state = loaded;
	struct moment moment;
	uint64_t passed;
	int code;

	clock_find_offset_attr(clock);
	code = clock_set_kvmclock(clock, err);
	code = code ?: clock_look(clock, &moment, err);
	if (code < 0)
		return code;
	passed = moment.kvmclock > state->kvmclock ? moment.kvmclock - state->kvmclock : 0;
	passed = (uint64_t)((unsigned __int128)passed * state->tsc_khz / 1000000);
	for (unsigned int i = 0; i < vcpu_set_count(clock->vcpus) && code == 0; i++)
		code = clock_write_tsc(clock, i, &moment, state->tsc[i] + passed, err);
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
