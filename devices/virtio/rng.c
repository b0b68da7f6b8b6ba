/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entropy device (virtio 1.2 section 5.4): one queue of buffers, which it fills with random bytes of the host's
 * kernel. A long buffer is filled only partly, so that a guest cannot keep the event loop busy. Beyond its limit a
 * buffer waits in the queue, and a timer of the loop serves it.
 */
#include "devices/virtio/virtio_loop.h"

#include <sys/random.h>

#define QUEUE_SIZE 64
#define BYTES_A_CHAIN KIB(16)
#define CLASS_OTHER 0x00ff00

struct rng_state {
	struct rate_limiter_state limit; /* of the time of a save */
};

struct rng {
	struct virtio_loop loop;
	struct rate_limiter limiter;
	struct event_source *timer;
	struct rng_state state;
};

static struct rng *rng_to_rng(struct virtio_device *device)
{
	return container_of(virtio_loop_of(device), struct rng, loop);
}

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
	struct rng *rng = rng_to_rng(device);
	uint64_t wait = rate_limiter_wait(&rng->limiter);
	size_t done = 0;

	if (wait) {
		event_timer_set(rng->timer, wait, 0);
		return false;
	}
	for (unsigned int i = 0; i < chain->in_count; i++)
		done += rng_fill(in[i].iov_base, MIN(in[i].iov_len, BYTES_A_CHAIN - done));
	rate_limiter_charge(&rng->limiter, done, 1);
	virtqueue_push(vq, chain, (uint32_t)done);
	return true;
}

static void rng_due(void *opaque, uint32_t events)
{
	struct rng *rng = opaque;

	if (!virtio_loop_enter(&rng->loop))
		return;
	virtio_loop_serve(&rng->loop, 0);
	virtio_loop_leave(&rng->loop);
}

/* ---- the device ---- */

static struct rate_limiter *rng_limiter(struct virtio_device *device, unsigned int index)
{
	return index ? NULL : &rng_to_rng(device)->limiter;
}

static int rng_drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	int ret = virtio_loop_drain(device, deadline, err);

	virtio_device_run_limits(device, false);
	return ret;
}

static void rng_resume(struct virtio_device *device)
{
	virtio_device_run_limits(device, true);
	virtio_loop_start(device);
}

static int rng_activate(struct virtio_device *device, struct err *err)
{
	rng_resume(device);
	return 0;
}

static void rng_remove_timer(void *opaque)
{
	event_source_remove(((struct rng *)opaque)->timer);
}

static void rng_destroy(struct virtio_device *device)
{
	struct rng *rng = rng_to_rng(device);

	if (rng->loop.loop)
		event_loop_call(rng->loop.loop, rng_remove_timer, rng);
	virtio_loop_done(&rng->loop);
	rate_limiter_done(&rng->limiter);
	free(rng);
}

/* ---- saved state ---- */

static int rng_collect(void *object, void *state, struct err *err)
{
	rate_limiter_save(&rng_to_rng(object)->limiter, &((struct rng_state *)state)->limit, monotonic_ns());
	return 0;
}

static int rng_loaded(void *object, const void *state, struct err *err)
{
	struct rng *rng = rng_to_rng(object);

	rate_limiter_load(&rng->limiter, &rng->state.limit, monotonic_ns());
	return 0;
}

static const struct state_field fields[] = {
	STATE_STRUCT(struct rng_state, limit, 1, &rate_limiter_state),
};
/* Version 0: no record. */
static const struct state_table rng_state = {
	.name = "rng", .version = 1, .oldest = 0, STATE_FIELDS(fields), STATE_IN(struct rng, state),
	.collect = rng_collect, .loaded = rng_loaded,
};

static const struct virtio_device_ops rng_ops = {
	.activate = rng_activate,
	.reset = virtio_loop_stop,
	.drain = rng_drain,
	.resume = rng_resume,
	.limiter = rng_limiter,
	.destroy = rng_destroy,
	.state = &rng_state,
};

int virtio_rng_create(const char *id, struct guest_memory *memory, struct event_loop *loop, const struct log *log,
		      struct virtio_device **ret, struct err *err)
{
	static const uint16_t sizes[] = {QUEUE_SIZE};
	struct rng *rng = calloc(1, sizeof(*rng));
	struct virtio_device *device;
	int code;

	if (!rng)
		return err_sys(err, -ENOMEM, "%s", id);
	device = &rng->loop.device;
	device->class_code = CLASS_OTHER;
	rng->state.limit = (struct rate_limiter_state)RATE_LIMITER_FULL;
	rate_limiter_init(&rng->limiter);
	code = virtio_device_init(device, &rng_ops, id, VIRTIO_ID_RNG, ARRAY_SIZE(sizes), sizes, memory, log, err);
	code = code ?: event_loop_timer(loop, rng_due, rng, &rng->timer, err);
	code = code ?: virtio_loop_watch(&rng->loop, loop, rng_serve, err);
	if (code < 0) {
		rng_destroy(device);
		return code;
	}
	*ret = device;
	return 0;
}
