/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throttles a guest: two timers of the event loop stop its vCPUs for a part of every ten milliseconds. Used for a
 * migration that would not converge otherwise. All calls are made on the loop's thread.
 */
#pragma once

#include "core/event_loop.h"
#include "vmm/kvm/vcpu.h"

struct throttle;

/* Not throttled yet. */
int throttle_create(struct event_loop *loop, struct vcpu_set *vcpus, struct throttle **ret, struct err *err);
/* Lets the vCPUs run. NULL is fine. */
void throttle_destroy(struct throttle *throttle);

/* Stops the vCPUs for that many percent of the time, up to 99. 0: the vCPUs run when this returns. */
void throttle_set(struct throttle *throttle, unsigned int percent);
