/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_transport.h, and virtio.h for what the machine does with a transport. */
#include "devices/virtio/virtio_transport.h"

#include "core/monotonic.h"

/* Bits that the driver sets and only a reset clears. */
#define STATUS_PROGRESS (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED)

#define LOCK_MS 10 /* longer than any access that does not wait for the device */

void virtio_transport_init(struct virtio_transport *transport, const struct virtio_transport_ops *ops,
			   struct virtio_device *device)
{
	transport->ops = ops;
	transport->device = device;
	pthread_mutex_init(&transport->isr_lock, NULL);
}

void virtio_transport_attach(struct virtio_transport *transport)
{
	virtio_transport_reset(transport);
	transport->device->transport = transport->ops;
	transport->device->transport_opaque = transport;
}

void virtio_transport_done(struct virtio_transport *transport)
{
	pthread_mutex_destroy(&transport->isr_lock);
}

struct virtio_device *virtio_transport_device(const struct virtio_transport *transport)
{
	return transport->device;
}

unsigned int virtio_transport_slot(const struct virtio_transport *transport)
{
	return transport->ops->slot(transport);
}

/* ---- the lock ---- */

void virtio_transport_lock(struct virtio_transport *transport)
{
	pthread_mutex_lock(&transport->device->lock);
	__atomic_store_n(&transport->waits, true, __ATOMIC_SEQ_CST);
}

/*
 * Settles what was not settled meanwhile because of this access: who has seen waits has set unsettled before. With the
 * lock held, for the next thread that gets it may be one that settles nothing.
 */
void virtio_transport_unlock(struct virtio_transport *transport)
{
	__atomic_store_n(&transport->waits, false, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&transport->unsettled, __ATOMIC_SEQ_CST))
		virtio_transport_settle(transport, 0, NULL);
	pthread_mutex_unlock(&transport->device->lock);
}

/* The same without waiting for such an access: -ETIMEDOUT. */
static int virtio_transport_lock_by(struct virtio_transport *transport, int64_t deadline)
{
	const struct timespec until = monotonic_deadline(deadline);

	return -pthread_mutex_clocklock(&transport->device->lock, CLOCK_MONOTONIC, &until);
}

/* ---- status ---- */

static void virtio_transport_set_status(struct virtio_transport *transport, uint8_t status)
{
	__atomic_store_n(&transport->status, status, __ATOMIC_RELEASE);
}

void virtio_transport_call_changed(struct virtio_transport *transport, unsigned int queue)
{
	struct virtio_device *device = transport->device;

	if (transport->flow != VIRTIO_STOPPED && device->queues[queue].setup.enabled && device->ops->call_changed)
		device->ops->call_changed(device, queue);
}

static void virtio_transport_reset_queue(struct virtqueue *vq)
{
	virtqueue_stop(vq);
	vq->setup.enabled = false;
	vq->setup.size = vq->max_size;
	vq->setup.desc = vq->setup.avail = vq->setup.used = 0;
}

static void virtio_transport_stop(struct virtio_transport *transport)
{
	struct virtio_device *device = transport->device;

	if (device->active)
		device->ops->reset(device);
	device->active = false;
	transport->flow = VIRTIO_STOPPED;
}

void virtio_transport_reset(struct virtio_transport *transport)
{
	struct virtio_device *device = transport->device;

	virtio_transport_stop(transport);
	device->features = 0;
	virtio_transport_set_status(transport, 0);
	__atomic_store_n(&device->broken, false, __ATOMIC_SEQ_CST);
	transport->state.device_feature_select = transport->state.driver_feature_select = 0;
	transport->state.driver_features = 0;
	transport->state.queue_select = 0;
	for (unsigned int i = 0; i < device->queue_count; i++)
		virtio_transport_reset_queue(&device->queues[i]);
	transport->ops->reset(transport);
}

static int virtio_transport_start_queues(struct virtio_device *device, struct err *err)
{
	int ret = 0;

	for (unsigned int i = 0; ret == 0 && i < device->queue_count; i++)
		if (device->queues[i].setup.enabled)
			ret = virtqueue_start(&device->queues[i], device->memory, device->features, err);
	return ret;
}

static void virtio_transport_activate(struct virtio_transport *transport)
{
	struct virtio_device *device = transport->device;
	struct err err = {"it cannot be started"};
	int ret;

	device->features = transport->state.driver_features;
	device->active = true;
	transport->flow = VIRTIO_RUNNING;
	ret = virtio_transport_start_queues(device, &err);
	if (ret == 0)
		ret = device->ops->activate(device, &err);
	if (ret == 0)
		return;
	device->active = false;
	transport->flow = VIRTIO_STOPPED;
	virtio_device_broken(device, err.text);
}

static bool virtio_transport_may_run(const struct virtio_transport *transport)
{
	return transport->status & VIRTIO_CONFIG_S_DRIVER_OK &&
	       (!transport->ops->may_run || transport->ops->may_run(transport));
}

int virtio_transport_settle(struct virtio_transport *transport, int64_t deadline, struct err *err)
{
	struct virtio_device *device = transport->device;
	bool run = virtio_transport_may_run(transport);
	int ret;

	__atomic_store_n(&transport->unsettled, false, __ATOMIC_SEQ_CST);
	run = run && !__atomic_load_n(&transport->paused, __ATOMIC_SEQ_CST);
	if (!device->active) {
		if (run && !__atomic_load_n(&device->broken, __ATOMIC_ACQUIRE))
			virtio_transport_activate(transport);
		return 0;
	}
	if (transport->flow == (run ? VIRTIO_RUNNING : VIRTIO_STOPPED))
		return 0;
	if (run) {
		device->ops->resume(device);
		transport->flow = VIRTIO_RUNNING;
		return 0;
	}
	ret = device->ops->drain(device, deadline, err);
	transport->flow = ret < 0 ? VIRTIO_DRAINING : VIRTIO_STOPPED;
	return ret;
}

uint8_t virtio_transport_read_status(const struct virtio_transport *transport)
{
	bool broken = __atomic_load_n(&transport->device->broken, __ATOMIC_ACQUIRE);

	return transport->status | (broken ? VIRTIO_CONFIG_S_NEEDS_RESET : 0);
}

static bool virtio_transport_features_fit(const struct virtio_transport *transport)
{
	uint64_t features = transport->state.driver_features;

	return !(features & ~transport->device->offered) && features >> VIRTIO_F_VERSION_1 & 1;
}

/* Section 3.1.1: bits are added one step at a time; zero resets. */
void virtio_transport_write_status(struct virtio_transport *transport, uint8_t value)
{
	uint8_t status = transport->status;

	if (!value) {
		virtio_transport_reset(transport);
		return;
	}
	status |= value & STATUS_PROGRESS;
	if (value & VIRTIO_CONFIG_S_FEATURES_OK && virtio_transport_features_fit(transport))
		status |= VIRTIO_CONFIG_S_FEATURES_OK;
	if (value & VIRTIO_CONFIG_S_DRIVER_OK && status & VIRTIO_CONFIG_S_FEATURES_OK)
		status |= VIRTIO_CONFIG_S_DRIVER_OK;
	virtio_transport_set_status(transport, status);
	virtio_transport_settle(transport, 0, NULL);
}

/* ---- config space ---- */

void virtio_transport_read_config(struct virtio_transport *transport, uint64_t offset, void *data, unsigned int len)
{
	struct virtio_device *device = transport->device;

	if (!device->config_size)
		return;
	pthread_mutex_lock(&device->lock);
	device->ops->config_read(device, (unsigned int)offset, data, len);
	pthread_mutex_unlock(&device->lock);
}

void virtio_transport_write_config(struct virtio_transport *transport, uint64_t offset, const void *data,
				   unsigned int len)
{
	struct virtio_device *device = transport->device;

	if (!device->ops->config_write || offset + len > device->config_size)
		return;
	virtio_transport_lock(transport);
	device->ops->config_write(device, (unsigned int)offset, data, len);
	virtio_transport_unlock(transport);
}

/* ---- features and queues ---- */

uint32_t virtio_transport_feature_half(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> 32 * select) : 0;
}

void virtio_transport_write_half(uint64_t *value, bool high, uint32_t half)
{
	unsigned int shift = high ? 32 : 0;

	*value = (*value & ~(0xffffffffull << shift)) | (uint64_t)half << shift;
}

void virtio_transport_write_features(struct virtio_transport *transport, uint32_t value)
{
	struct virtio_transport_state *state = &transport->state;

	if (!(transport->status & VIRTIO_CONFIG_S_FEATURES_OK) && state->driver_feature_select < 2)
		virtio_transport_write_half(&state->driver_features, state->driver_feature_select, value);
}

struct virtqueue *virtio_transport_selected(const struct virtio_transport *transport)
{
	uint16_t select = transport->state.queue_select;

	return select < transport->device->queue_count ? &transport->device->queues[select] : NULL;
}

struct virtqueue *virtio_transport_programmable(const struct virtio_transport *transport)
{
	struct virtqueue *vq = virtio_transport_selected(transport);

	return vq && !vq->setup.enabled && !(transport->status & VIRTIO_CONFIG_S_DRIVER_OK) ? vq : NULL;
}

void virtio_transport_write_size(struct virtqueue *vq, uint32_t value)
{
	if (is_power_of_two(value) && value <= vq->max_size)
		vq->setup.size = (uint16_t)value;
}

void virtio_transport_take_back(struct virtio_transport *transport, struct virtqueue *vq)
{
	if (vq->setup.enabled && transport->device->active) {
		virtio_transport_stop(transport);
		virtio_device_broken(transport->device, "its driver has disabled a queue");
	}
	virtqueue_stop(vq);
	vq->setup.enabled = false;
}

/* ---- the machine's side ---- */

static void virtio_transport_set_paused(struct virtio_transport *transport, bool paused)
{
	__atomic_store_n(&transport->paused, paused, __ATOMIC_SEQ_CST);
	__atomic_store_n(&transport->unsettled, true, __ATOMIC_SEQ_CST);
}

int virtio_transport_drain(struct virtio_transport *transport, int64_t deadline, struct err *err)
{
	int ret;

	virtio_transport_set_paused(transport, true);
	if (virtio_transport_lock_by(transport, deadline))
		return err_set(err, -ETIMEDOUT, "%s: the guest waits for it, and it does not answer",
			       transport->device->id);
	ret = virtio_transport_settle(transport, deadline, err);
	pthread_mutex_unlock(&transport->device->lock);
	if (ret == 0 && transport->ops->drained)
		transport->ops->drained(transport);
	return ret;
}

void virtio_transport_resume(struct virtio_transport *transport)
{
	virtio_transport_set_paused(transport, false);
	while (virtio_transport_lock_by(transport, monotonic_ms() + LOCK_MS))
		if (__atomic_load_n(&transport->waits, __ATOMIC_SEQ_CST))
			return;
	virtio_transport_settle(transport, 0, NULL);
	pthread_mutex_unlock(&transport->device->lock);
	if (transport->loaded)
		transport->ops->kick(transport);
	transport->loaded = false;
}

void virtio_transport_detach(struct virtio_transport *transport)
{
	transport->ops->detach(transport);
	pthread_mutex_lock(&transport->device->lock);
	virtio_transport_reset(transport);
	pthread_mutex_unlock(&transport->device->lock);
}

void virtio_transport_destroy(struct virtio_transport *transport)
{
	struct virtio_device *device;

	if (!transport)
		return;
	device = transport->device;
	virtio_transport_detach(transport);
	transport->ops->free(transport);
	device->ops->destroy(device);
}
