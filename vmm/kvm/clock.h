/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's time: what the guest reads as kvmclock and as its processors' time stamp counters. It is held while the
 * machine is paused, as the pair of both at one moment, so that a state saved then is of that moment; the guest itself
 * finds, when it goes on, that time has passed. On another host it goes on by the hosts' clocks.
 */
#pragma once

#include "core/state.h"
#include "vmm/kvm/vcpu.h"

struct clock;

/* The vCPUs outlive it. */
int clock_create(struct kvm *kvm, struct vcpu_set *vcpus, struct clock **ret, struct err *err);
/* NULL is fine. */
void clock_destroy(struct clock *clock);

/* The vCPUs have stopped: takes down what time it is. release: they go on. */
int clock_pause(struct clock *clock, struct err *err);
void clock_resume(struct clock *clock);

/* A held clock, saved; and loaded, which sets the guest's clocks going and leaves this one held. */
int clock_save(struct clock *clock, struct state_buffer *out, struct err *err);
int clock_load(struct clock *clock, const void *data, size_t len, struct err *err);
