/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzers of virtio's transports have in common: a device that checks that its life is in order and pops from whatever
 * rings it is started with; and what happens to it besides the guest's accesses: interrupts, config changes, pauses, moves to
 * another machine, some of them by a record that is not what was saved, and new transports.
 */
#pragma once

#include "tests/fuzz/fuzz.h"
#include "tests/unit/virtio_driver.h"

#define TRANSPORT_FUZZ_QUEUES 3u

struct transport_fuzz {
	/* A transport for the device. */
	struct virtio_transport *(*plug)(struct virtio_device *device);
	/* It is gone: nothing of it must be left. */
	void (*unplugged)(void);
	/* An access of the guest, one of 8 that what & 15 chooses from 0 on; and after any action, what always holds. */
	void (*access)(struct input *in, uint8_t what);
	void (*check)(void);
};

/* Makes the device and the guest's memory, once. Returns the device, for the checks. */
const struct virtio_device *transport_fuzz_open(void);
/* An input is a list of actions. Starts with a new transport, and leaves none. */
void transport_fuzz_run(const struct transport_fuzz *fuzz, const uint8_t *data, size_t size);
