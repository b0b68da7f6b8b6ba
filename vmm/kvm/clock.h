/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's time: kvmclock, the vCPUs' time stamp counters and the timers of their local APICs. KVM's clocks never
 * stop. clock_pause() records them at one moment, and stops the timers; clock_resume() sets them back, so that the
 * guest's time goes on where it stopped, also on another host. A clock that runs is only recorded: after a pause, the
 * guest sees that time has passed, and the clocks of both hosts tell how much a move took.
 */
#pragma once

#include "core/state.h"
#include "vmm/kvm/vcpu.h"

struct clock;

/* runs: time passes while the guest is paused or moved. The vCPUs and the log outlive it. */
int clock_create(struct kvm *kvm, struct vcpu_set *vcpus, bool runs, const struct log *log, struct clock **ret,
		 struct err *err);
/* NULL is fine. */
void clock_destroy(struct clock *clock);

/* The recorded time comes from a snapshot: it may be any time ago, and a clock that runs advances by all of it. */
void clock_expect_long_ago(struct clock *clock);

/* Records the time, after the vCPUs have been paused; called again, only that of a clock that runs. */
int clock_pause(struct clock *clock, struct err *err);
/* Before the vCPUs are resumed. What cannot be set is logged: the guest's time then jumps. True: interrupts that were
 * on their way to a vCPU may have been lost. */
bool clock_resume(struct clock *clock);

/* Saves the recorded time; and sets the guest's clocks from a saved one, which is then the recorded time. After the
 * vCPUs have been loaded, clock_hold stops their timers until clock_resume. */
int clock_save(struct clock *clock, struct state_buffer *out, struct err *err);
int clock_load(struct clock *clock, const void *data, size_t len, struct err *err);
int clock_hold(struct clock *clock, struct err *err);

/* The guest's time in ns, as kvmclock has it: for devices that count. 0 if KVM fails. Any thread. */
uint64_t clock_guest_ns(const struct clock *clock);

/* The counter of the first vCPU, as the guest reads it, and the host's clock at one moment. The vCPUs are paused, or
 * have not started. */
struct clock_moment {
	uint64_t counter, counter_hz;
	uint64_t realtime; /* ns since 1970, UTC */
};
int clock_read(struct clock *clock, struct clock_moment *ret, struct err *err);
