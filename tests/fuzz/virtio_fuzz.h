/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a virtio device with nonsense, for fuzzers: an input is a list of actions on the rings, the buffers and the
 * config space of the device that a virtio_driver holds. Sound chains are among them, so that the device has
 * something to do, and descriptors that point into the rings themselves.
 */
#pragma once

#include "tests/unit/virtio_driver.h"

#define VIRTIO_FUZZ_ARENA KIB(64) /* buffers; the driver's memory has room for it and all rings */

struct virtio_fuzz {
	struct virtio_driver *driver; /* a device is attached */
	/* Returns when the device has worked off, or begun to, what it was kicked for. NULL: nothing to wait for. */
	void (*settle)(void *opaque);
	/* Something on the host's side of the device, chosen by what. NULL: there is nothing. */
	void (*poke)(void *opaque, uint8_t what);
	void *opaque;
};

/* Starts from a reset, and leaves the device reset. */
void virtio_fuzz_run(const struct virtio_fuzz *fuzz, const uint8_t *data, size_t size);
