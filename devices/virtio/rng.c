/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entropy device (virtio 1.2 section 5.4): one queue of buffers, which it fills with random bytes of the host's
 * kernel. A long buffer is filled only partly, so that a guest cannot keep the event loop busy.
 */
#include "devices/virtio/virtio_loop.h"

#include <sys/random.h>

#define QUEUE_SIZE 64
#define BYTES_A_CHAIN KIB(16)
#define CLASS_OTHER 0x00ff00

/* Writes up to len bytes of the kernel into guest memory; returns how many. */
static size_t rng_fill(char *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t got = getrandom(buf + done, len - done, 0);

		if (got < 0 && errno != EINTR)
			break;
		done += got > 0 ? (size_t)got : 0;
	}
	return done;
}

static bool rng_serve(struct virtio_device *device, struct virtqueue *vq, const struct virtq_chain *chain)
{
	const struct iovec *in = chain->iov + chain->out_count;
	size_t done = 0;

	for (unsigned int i = 0; i < chain->in_count; i++)
		done += rng_fill(in[i].iov_base, MIN(in[i].iov_len, BYTES_A_CHAIN - done));
	virtqueue_push(vq, chain, (uint32_t)done);
	return true;
}

static void rng_destroy(struct virtio_device *device)
{
	virtio_loop_done(virtio_loop_of(device));
	free(virtio_loop_of(device));
}

static const struct virtio_device_ops rng_ops = {
	.activate = virtio_loop_activate,
	.reset = virtio_loop_stop,
	.drain = virtio_loop_drain,
	.resume = virtio_loop_start,
	.destroy = rng_destroy,
};

int virtio_rng_create(const char *id, struct guest_memory *memory, struct event_loop *loop, const struct log *log,
		      struct virtio_device **ret, struct err *err)
{
	static const uint16_t sizes[] = {QUEUE_SIZE};
	struct virtio_loop *rng = calloc(1, sizeof(*rng));
	int code;

	if (!rng)
		return err_sys(err, -ENOMEM, "%s", id);
	rng->device.class_code = CLASS_OTHER;
	code = virtio_device_init(&rng->device, &rng_ops, id, VIRTIO_ID_RNG, ARRAY_SIZE(sizes), sizes, memory, log,
				  err);
	if (code == 0)
		code = virtio_loop_watch(rng, loop, rng_serve, err);
	if (code < 0) {
		rng_destroy(&rng->device);
		return code;
	}
	*ret = &rng->device;
	return 0;
}
