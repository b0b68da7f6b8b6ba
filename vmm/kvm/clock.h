/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's time: kvmclock and the vCPUs' time stamp counters. clock_pause() records both at one moment, so that a
 * saved state has the time of the pause. KVM's clocks keep running: after a pause, the guest sees that time has passed.
 * On another host, the clocks of both hosts tell how much.
 */
#pragma once

#include "core/state.h"
#include "vmm/kvm/vcpu.h"

struct clock;

/* The vCPUs outlive it. */
int clock_create(struct kvm *kvm, struct vcpu_set *vcpus, struct clock **ret, struct err *err);
/* NULL is fine. */
void clock_destroy(struct clock *clock);

/* Records the time, after the vCPUs have been paused; and drops it, before they are resumed. */
int clock_pause(struct clock *clock, struct err *err);
void clock_resume(struct clock *clock);

/* Saves the recorded time; and sets the guest's clocks from a saved one, which is then the recorded time. */
int clock_save(struct clock *clock, struct state_buffer *out, struct err *err);
int clock_load(struct clock *clock, const void *data, size_t len, struct err *err);
