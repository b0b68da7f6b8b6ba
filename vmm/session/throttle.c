/* SPDX-License-Identifier: Apache-2.0 */
/* See throttle.h. Pauses of vCPUs nest, so the machine may be paused and resumed meanwhile. */
#include "vmm/session/throttle.h"

#define PERIOD 10000000u /* ns */

struct throttle {
	struct vcpu_set *vcpus;
	struct event_source *timer;
	unsigned int percent;
	bool paused;
};

static void throttle_resume(struct throttle *throttle)
{
	if (throttle->paused)
		vcpu_set_resume(throttle->vcpus);
	throttle->paused = false;
}

/* One timer, set again each time: paused for a part of the period, running for the rest. */
static void throttle_on_timer(void *opaque, uint32_t expirations)
{
	struct throttle *throttle = opaque;
	uint64_t paused = PERIOD / 100 * throttle->percent;

	if (throttle->paused) {
		throttle_resume(throttle);
		event_timer_set(throttle->timer, PERIOD - paused, 0);
	} else {
		vcpu_set_pause(throttle->vcpus);
		throttle->paused = true;
		event_timer_set(throttle->timer, paused, 0);
	}
}

int throttle_create(struct event_loop *loop, struct vcpu_set *vcpus, struct throttle **ret, struct err *err)
{
	struct throttle *throttle = calloc(1, sizeof(*throttle));
	int code;

	if (!throttle)
		return err_sys(err, -ENOMEM, "throttle");
	throttle->vcpus = vcpus;
	code = event_loop_timer(loop, throttle_on_timer, throttle, &throttle->timer, err);
	if (code) {
		free(throttle);
		return err_prefix(err, code, "throttle");
	}
	*ret = throttle;
	return 0;
}

void throttle_destroy(struct throttle *throttle)
{
	if (!throttle)
		return;
	throttle_set(throttle, 0);
	event_source_remove(throttle->timer);
	free(throttle);
}

void throttle_set(struct throttle *throttle, unsigned int percent)
{
	bool begins = percent && !throttle->percent;

	throttle->percent = MIN(percent, 99u);
	if (!percent) {
		event_timer_set(throttle->timer, 0, 0);
		throttle_resume(throttle);
	} else if (begins) {
		event_timer_set(throttle->timer, 1, 0);
	}
}
