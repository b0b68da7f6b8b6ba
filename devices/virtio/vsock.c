/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2 section 5.10): chooses between the user-space form (vsock_unix.c) and the host kernel's
 * vhost-vsock, and is the device for the latter. There the kernel moves the packets, AF_VSOCK sockets on the host reach
 * the guest's ports, and this file only starts and stops it.
 *
 * Unlike vhost-net, vhost-vsock does not log the buffers that it fills, only used rings. So it is stopped while dirty
 * pages are tracked: a guest that migrates loses its connections with this host anyway.
 */
#include "core/irq.h"
#include "devices/virtio/vhost.h"
#include "devices/virtio/virtio_layout.h"
#include "devices/virtio/vsock_internal.h"

#include <sys/epoll.h>

struct kernel_vsock {
	struct virtio_device virtio;
	struct vhost *vhost;
	struct event_loop *loop;
	struct event_source *error;
	uint32_t cid;
	struct dirty_set *dirty;
	struct dirty_source source; /* in dirty, unless NULL */
	/* under the device's lock */
	bool wanted;  /* active and not drained */
	bool tracked; /* dirty pages are tracked */
	bool running; /* wanted and not tracked */
	struct vsock_state state;
	bool loaded;
};

static struct kernel_vsock *vsock_to_kernel(struct virtio_device *device)
{
	return container_of(device, struct kernel_vsock, virtio);
}

static void vsock_config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	const struct virtio_layout_vsock config = {.guest_cid = htole64(vsock_to_kernel(device)->cid)};

	virtio_config_copy(&config, sizeof(config), offset, data, len);
}

static void vsock_vhost_failed(void *opaque, uint32_t events)
{
	struct kernel_vsock *kernel = opaque;

	if (eventfd_drain(vhost_error_fd(kernel->vhost)))
		virtio_device_broken(&kernel->virtio, "vhost-vsock found an invalid queue");
}

static void vsock_halt(struct virtio_device *device)
{
	struct kernel_vsock *kernel = vsock_to_kernel(device);
	int off = 0;

	if (!kernel->running)
		return;
	vhost_ioctl(kernel->vhost, VHOST_VSOCK_SET_RUNNING, &off);
	for (unsigned int ring = VSOCK_RX; ring <= VSOCK_TX; ring++)
		vhost_ring_stop(kernel->vhost, ring, &device->queues[ring]);
	kernel->running = false;
}

/* The event queue is not vhost's. Without a buffer there, the event waits for the next start. */
static void vsock_send_event(struct virtio_device *device)
{
	const struct virtio_vsock_event event = {.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};
	struct virtqueue *vq = &device->queues[VSOCK_EVENT];
	_cleanup_(free_ptr) struct virtq_chain *chain = malloc(sizeof(*chain));

	if (!chain || !vq->setup.enabled || virtqueue_pop(vq, chain) <= 0)
		return;
	virtqueue_push(vq, chain, (uint32_t)virtq_chain_write(chain, 0, &event, sizeof(event)));
	virtqueue_notify(vq);
	vsock_to_kernel(device)->state.event_pending = false;
}

static int vsock_go_on(struct virtio_device *device, struct err *err)
{
	struct kernel_vsock *kernel = vsock_to_kernel(device);
	int on = 1, ret;

	if (!device->queues[VSOCK_RX].setup.enabled || !device->queues[VSOCK_TX].setup.enabled)
		return err_set(err, -EINVAL, "%s: a queue is not enabled", device->id);
	kernel->running = true;
	ret = vhost_set_features(kernel->vhost, device->features, err);
	for (unsigned int ring = VSOCK_RX; ret == 0 && ring <= VSOCK_TX; ring++)
		ret = vhost_ring_start(kernel->vhost, ring, &device->queues[ring],
				       device->transport->call_fd(device, ring), err);
	if (ret == 0) {
		ret = vhost_ioctl(kernel->vhost, VHOST_VSOCK_SET_RUNNING, &on);
		if (ret < 0)
			err_sys(err, ret, "/dev/vhost-vsock: start");
	}
	if (ret < 0) {
		vsock_halt(device);
		return err_prefix(err, ret, "%s", device->id);
	}
	/* Check each queue once. */
	for (unsigned int ring = VSOCK_RX; ring <= VSOCK_TX; ring++)
		eventfd_kick(device->queues[ring].kick_fd);
	return 0;
}

static int vsock_start(struct virtio_device *device, struct err *err)
{
	struct kernel_vsock *kernel = vsock_to_kernel(device);
	int ret = kernel->tracked ? 0 : vsock_go_on(device, err);

	if (ret < 0)
		return ret;
	kernel->wanted = true;
	kernel->state.event_pending |= kernel->loaded;
	kernel->loaded = false;
	if (kernel->state.event_pending)
		vsock_send_event(device);
	return 0;
}

static void vsock_stop(struct virtio_device *device)
{
	vsock_halt(device);
	vsock_to_kernel(device)->wanted = false;
}

static int vsock_drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	vsock_stop(device);
	return 0;
}

static void vsock_reset(struct virtio_device *device)
{
	vsock_stop(device);
	vsock_to_kernel(device)->state.event_pending = vsock_to_kernel(device)->loaded = false;
}

static void vsock_resume(struct virtio_device *device)
{
	struct err err;

	if (vsock_start(device, &err) < 0) {
		log_error(device->log, "%s", err.text);
		virtio_device_broken(device, "it could not be restarted");
	}
}

static void vsock_call_changed(struct virtio_device *device, unsigned int queue)
{
	struct kernel_vsock *kernel = vsock_to_kernel(device);

	if (kernel->running && queue <= VSOCK_TX)
		vhost_ring_call(kernel->vhost, queue, device->transport->call_fd(device, queue));
}

/* ---- dirty tracking ---- */

static int vsock_tracking_start(struct dirty_source *source, struct err *err)
{
	struct kernel_vsock *kernel = container_of(source, struct kernel_vsock, source);

	pthread_mutex_lock(&kernel->virtio.lock);
	kernel->tracked = true;
	vsock_halt(&kernel->virtio);
	pthread_mutex_unlock(&kernel->virtio.lock);
	return 0;
}

static void vsock_tracking_stop(struct dirty_source *source)
{
	struct kernel_vsock *kernel = container_of(source, struct kernel_vsock, source);
	struct err err;

	pthread_mutex_lock(&kernel->virtio.lock);
	if (kernel->tracked && kernel->wanted && vsock_go_on(&kernel->virtio, &err) < 0) {
		log_error(kernel->virtio.log, "%s", err.text);
		virtio_device_broken(&kernel->virtio, "it could not be restarted");
	}
	kernel->tracked = false;
	pthread_mutex_unlock(&kernel->virtio.lock);
}

/* The source of this process's own writes reports those to the queues. */
static int vsock_tracking_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap,
				  struct err *err)
{
	return 0;
}

static const struct dirty_source_ops tracking_ops = {
	.start = vsock_tracking_start,
	.stop = vsock_tracking_stop,
	.collect = vsock_tracking_collect,
};

/* ---- saved state ---- */

static int vsock_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct virtio_device *device = object;

	if (device->active && (!device->queues[VSOCK_RX].setup.enabled || !device->queues[VSOCK_TX].setup.enabled))
		return err_set(err, -EBADMSG, "it is active, and a queue is not enabled");
	return 0;
}

static int vsock_loaded(void *object, const void *state, struct err *err)
{
	vsock_to_kernel(object)->loaded = ((struct virtio_device *)object)->active;
	return 0;
}

static const struct state_table vsock_state = {
	.name = "vsock", .version = 1, .oldest = 1, STATE_FIELDS(vsock_fields), STATE_IN(struct kernel_vsock, state),
	.judge = vsock_judge, .loaded = vsock_loaded,
};

/* ---- the device ---- */

static void vsock_remove_source(void *opaque)
{
	struct kernel_vsock *kernel = opaque;

	event_source_remove(kernel->error);
}

static void vsock_destroy(struct virtio_device *device)
{
	struct kernel_vsock *kernel = vsock_to_kernel(device);

	if (kernel->source.name)
		dirty_set_remove(kernel->dirty, &kernel->source);
	if (kernel->error)
		event_loop_call(kernel->loop, vsock_remove_source, kernel);
	vhost_close(kernel->vhost);
	virtio_device_done(device);
	free(kernel);
}

static const struct virtio_device_ops kernel_ops = {
	.config_read = vsock_config_read,
	.activate = vsock_start,
	.reset = vsock_reset,
	.drain = vsock_drain,
	.resume = vsock_resume,
	.call_changed = vsock_call_changed,
	.destroy = vsock_destroy,
	.state = &vsock_state,
};

static int vsock_join(struct kernel_vsock *kernel, struct dirty_set *dirty, struct err *err)
{
	int ret;

	kernel->dirty = dirty;
	kernel->source = (struct dirty_source){.name = "vhost-vsock", .ops = &tracking_ops, .halts = true};
	ret = dirty_set_add(dirty, &kernel->source, err);
	if (ret < 0)
		kernel->source.name = NULL;
	return ret;
}

static int vsock_init(struct kernel_vsock *kernel, const struct virtio_vsock_options *options,
		      struct guest_memory *memory, const struct log *log, struct err *err)
{
	static const uint16_t sizes[VSOCK_QUEUES] = {256, 256, 16};
	const struct vhost_options vhost = {
		.path = "/dev/vhost-vsock", .module = "vhost_vsock", .instead = "give socket=PATH", .memory = memory,
	};
	const uint64_t cid = options->cid;
	int ret;

	ret = vhost_open(&vhost, &kernel->vhost, err);
	if (ret < 0)
		return err_prefix(err, ret, "--vsock cid=%u", options->cid);
	ret = vhost_ioctl(kernel->vhost, VHOST_VSOCK_SET_GUEST_CID, &cid);
	if (ret == -EADDRINUSE)
		return err_set(err, ret, "--vsock cid=%u: another machine on this host has it; choose another number",
			       options->cid);
	if (ret < 0)
		return err_sys(err, ret, "--vsock cid=%u", options->cid);
	ret = virtio_device_init(&kernel->virtio, &kernel_ops, options->id, VIRTIO_ID_VSOCK, VSOCK_QUEUES, sizes,
				 memory, log, err);
	if (ret < 0)
		return ret;
	kernel->virtio.class_code = 0x028000; /* network controller, other */
	kernel->virtio.config_size = sizeof(struct virtio_layout_vsock);
	kernel->virtio.offered |= 1ull << VIRTIO_VSOCK_F_SEQPACKET;
	kernel->virtio.offered &= vhost_features(kernel->vhost);
	ret = event_loop_watch(kernel->loop, vhost_error_fd(kernel->vhost), EPOLLIN, vsock_vhost_failed, kernel,
			       &kernel->error, err);
	return ret < 0 || !options->dirty ? ret : vsock_join(kernel, options->dirty, err);
}

static int vsock_kernel_create(const struct virtio_vsock_options *options, struct guest_memory *memory,
			       struct event_loop *loop, const struct log *log, struct virtio_device **ret,
			       struct err *err)
{
	struct kernel_vsock *kernel = calloc(1, sizeof(*kernel));
	int code;

	if (!kernel)
		return err_sys(err, -ENOMEM, "--vsock");
	kernel->cid = options->cid;
	kernel->loop = loop;
	code = vsock_init(kernel, options, memory, log, err);
	if (code < 0) {
		vsock_destroy(&kernel->virtio);
		return code;
	}
	*ret = &kernel->virtio;
	return 0;
}

void virtio_vsock_transport_reset(struct virtio_device *device)
{
	struct kernel_vsock *kernel = vsock_to_kernel(device);

	pthread_mutex_lock(&device->lock);
	if (device->ops != &kernel_ops) {
		vsock_unix_transport_reset(device);
	} else if (device->active) {
		kernel->state.event_pending = true;
		if (kernel->wanted)
			vsock_send_event(device);
	}
	pthread_mutex_unlock(&device->lock);
}

int virtio_vsock_create(const struct virtio_vsock_options *options, struct guest_memory *memory,
			struct event_loop *loop, const struct log *log, struct virtio_device **ret, struct err *err)
{
	if (options->cid < 3 || options->cid == UINT32_MAX)
		return err_set(err, -EINVAL, "--vsock cid=%u: 3 to %u; smaller numbers are reserved",
			       options->cid, UINT32_MAX - 1);
	if (options->socket)
		return vsock_unix_create(options, memory, loop, log, ret, err);
	return vsock_kernel_create(options, memory, loop, log, ret, err);
}
