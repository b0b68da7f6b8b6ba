/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds a guest back: of every ten milliseconds its vCPUs stand still for a part, by two timers of the event loop. For a
 * migration that the guest would otherwise outrun. All calls on the loop's thread.
 */
#pragma once

#include "core/event_loop.h"
#include "vmm/kvm/vcpu.h"

struct throttle;

/* Not throttled yet. */
int throttle_create(struct event_loop *loop, struct vcpu_set *vcpus, struct throttle **ret, struct err *err);
/* Lets the vCPUs run. NULL is fine. */
void throttle_destroy(struct throttle *throttle);

/* For so many percent of the time, up to 99; 0: not at all, and the vCPUs run when this returns. */
void throttle_set(struct throttle *throttle, unsigned int percent);
