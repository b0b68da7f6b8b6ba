/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtqueue by itself: what it pops from hostile rings lies in guest memory and adds up, and what is pushed is
 * written nowhere else. The device behind it scribbles over everything that it is given to write.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/virtio_fuzz.h"

#include <stdio.h>

#define CHAINS 100u

static struct virtio_device scribbler;
static struct virtio_fuzz fuzz;

static int activate(struct virtio_device *device, struct err *err)
{
	return 0;
}

static void nothing(struct virtio_device *device)
{
}

static int drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	return 0;
}

static const struct virtio_device_ops ops = {
	.activate = activate,
	.reset = nothing,
	.drain = drain,
	.resume = nothing,
};

static void check_chain(const struct virtq_chain *chain)
{
	const struct guest_region *ram = &fuzz.driver->ram;
	uint64_t out = 0, in = 0;

	MUST(chain->out_count + chain->in_count >= 1);
	MUST(chain->out_count + chain->in_count <= VIRTQUEUE_MAX_SEGMENTS);
	for (unsigned int i = 0; i < chain->out_count + chain->in_count; i++) {
		const struct iovec *iov = &chain->iov[i];
		uint64_t offset = (uint64_t)((char *)iov->iov_base - (char *)ram->host);

		MUST(iov->iov_len && offset < ram->size && iov->iov_len <= ram->size - offset);
		*(i < chain->out_count ? &out : &in) += iov->iov_len;
	}
	MUST(out == chain->out_bytes && in == chain->in_bytes);
}

static void work(struct virtqueue *vq)
{
	static struct virtq_chain chain;
	uint8_t bytes[64];

	for (unsigned int i = 0; i < CHAINS && virtqueue_pop(vq, &chain) == 1; i++) {
		size_t got;

		check_chain(&chain);
		if (i % 8 == 7) {
			virtqueue_unpop(vq);
			MUST(virtqueue_ready(vq));
			continue;
		}
		got = virtq_chain_read(&chain, chain.out_bytes / 2, bytes, sizeof(bytes));
		MUST(got == MIN(sizeof(bytes), chain.out_bytes - chain.out_bytes / 2));
		memset(bytes, (int)i, sizeof(bytes));
		got = virtq_chain_write(&chain, chain.in_bytes / 2, bytes, sizeof(bytes));
		MUST(got == MIN(sizeof(bytes), chain.in_bytes - chain.in_bytes / 2));
		virtqueue_push(vq, &chain, chain.in_bytes);
	}
	virtqueue_notify(vq);
	virtqueue_disable_kicks(vq);
	if (virtqueue_enable_kicks(vq))
		MUST(!vq->broken);
	if (vq->broken)
		MUST(scribbler.broken && !virtqueue_ready(vq) && virtqueue_pop(vq, &chain) < 0);
}

static void settle(void *opaque)
{
	for (unsigned int i = 0; i < scribbler.queue_count; i++)
		work(&scribbler.queues[i]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const uint16_t sizes[] = {8, 64};

	fuzz = (struct virtio_fuzz){.driver = driver_create(KIB(256), false), .settle = settle};
	MUST(virtio_device_init(&scribbler, &ops, "scribbler0", 99, 2, sizes, fuzz.driver->memory, NULL, NULL) == 0);
	MUST(driver_attach(fuzz.driver, &scribbler, DRIVER_ALL_FEATURES) == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	virtio_fuzz_run(&fuzz, data, size);
	return 0;
}
