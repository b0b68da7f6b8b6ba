/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a virtio device and its transport (virtio_transport_save and virtio_transport_load in virtio.h):
 * records in a row, of the transport's place on its bus, if it has one, the transport with its queues, and the device
 * itself (virtio_device_ops.state).
 *
 * A load does at once what the driver did step by step, except activate: the queues continue where they were, and the
 * device is active and drained.
 */
#include "devices/virtio/virtio_transport.h"

#include <stdio.h>

#define STATUS_BITS                                                                                                 \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |                          \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

/* ---- save ---- */

int virtio_transport_collect(void *object, void *into, struct err *err)
{
	struct virtio_transport *transport = object;
	struct virtio_device *device = transport->device;
	struct virtio_transport_state *state = into;

	state->type = device->type;
	state->status = transport->status;
	state->config_generation = device->config_generation;
	state->active = device->active;
	state->broken = __atomic_load_n(&device->broken, __ATOMIC_ACQUIRE);
	state->queue_count = device->queue_count;
	for (unsigned int i = 0; i < device->queue_count; i++) {
		state->queues[i].setup = device->queues[i].setup;
		if (device->active && device->queues[i].setup.enabled)
			virtqueue_place(&device->queues[i], &state->queues[i].place);
	}
	pthread_mutex_lock(&transport->isr_lock);
	state->isr = transport->isr;
	pthread_mutex_unlock(&transport->isr_lock);
	return 0;
}

/* ---- load ---- */

/* "13, 14" */
static void virtio_transport_state_name_bits(uint64_t bits, char *text, size_t size)
{
	size_t at = 0;

	for (unsigned int i = 0; i < 64 && at < size; i++)
		if (bits >> i & 1)
			at += (size_t)snprintf(text + at, size - at, "%s%u", at ? ", " : "", i);
}

static int virtio_transport_state_check_features(const struct virtio_device *device,
						 const struct virtio_transport_state *state, struct err *err)
{
	uint64_t missing = state->driver_features & ~device->offered;
	char text[200];

	if (!(state->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return 0;
	if (!(state->driver_features >> VIRTIO_F_VERSION_1 & 1))
		return err_set(err, -EBADMSG, "the driver has not accepted VIRTIO_F_VERSION_1");
	if (!missing)
		return 0;
	virtio_transport_state_name_bits(missing, text, sizeof(text));
	return err_set(err, -ENOTSUP, "the guest uses features that this device does not have: virtio feature bits %s",
		       text);
}

int virtio_transport_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct virtio_device *device = ((const struct virtio_transport *)object)->device;
	const struct virtio_transport_state *state = loaded;
	uint8_t status = state->status;

	if (state->type != device->type)
		return err_set(err, -EBADMSG, "a virtio device of type %u, not %u", state->type, device->type);
	if (state->queue_count != device->queue_count)
		return err_set(err, -EBADMSG, "%u queues on the source, %u here", state->queue_count,
			       device->queue_count);
	if (status & ~STATUS_BITS || (state->active && !(status & VIRTIO_CONFIG_S_DRIVER_OK)) ||
	    (status & VIRTIO_CONFIG_S_DRIVER_OK && !(status & VIRTIO_CONFIG_S_FEATURES_OK)))
		return err_set(err, -EBADMSG, "invalid status 0x%02x", status);
	if (state->isr & ~(VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG))
		return err_set(err, -EBADMSG, "invalid interrupt status 0x%02x", state->isr);
	for (unsigned int i = 0; i < state->queue_count; i++) {
		uint16_t size = state->queues[i].setup.size;

		if (!is_power_of_two(size) || size > device->queues[i].max_size)
			return err_set(err, -EBADMSG, "queue %u: bad size %u", i, size);
	}
	return virtio_transport_state_check_features(device, state, err);
}

static int virtio_transport_state_load_queue(struct virtio_device *device, unsigned int index,
					     const struct virtio_queue_state *state, struct err *err)
{
	struct virtqueue *vq = &device->queues[index];

	vq->setup = state->setup;
	if (!device->active || !vq->setup.enabled)
		return 0;
	return virtqueue_start_at(vq, device->memory, device->features, &state->place, err);
}

int virtio_transport_loaded(void *object, const void *loaded, struct err *err)
{
	struct virtio_transport *transport = object;
	struct virtio_device *device = transport->device;
	const struct virtio_transport_state *state = loaded;
	int ret = 0;

	device->config_generation = state->config_generation;
	device->features = state->active ? state->driver_features : 0;
	device->active = state->active;
	for (unsigned int i = 0; i < device->queue_count && ret == 0; i++)
		ret = virtio_transport_state_load_queue(device, i, &state->queues[i], err);
	if (ret < 0)
		return ret;
	__atomic_store_n(&device->broken, state->broken, __ATOMIC_SEQ_CST);
	__atomic_store_n(&transport->status, state->status, __ATOMIC_RELEASE);
	pthread_mutex_lock(&transport->isr_lock);
	transport->isr = state->isr;
	pthread_mutex_unlock(&transport->isr_lock);
	return 0;
}

/* ---- the whole ---- */

int virtio_transport_save(struct virtio_transport *transport, struct state_buffer *out, struct err *err)
{
	struct virtio_device *device = transport->device;
	size_t start = out->len;
	int ret;

	if (!transport->paused || transport->flow != VIRTIO_STOPPED)
		return err_set(err, -EBUSY, "%s: it is not paused", device->id);
	ret = transport->ops->save ? transport->ops->save(transport, out, err) : 0;
	pthread_mutex_lock(&device->lock);
	if (ret == 0)
		ret = state_save(transport->ops->state, transport, out, err);
	if (ret == 0 && device->ops->state)
		ret = state_save(device->ops->state, device, out, err);
	pthread_mutex_unlock(&device->lock);
	if (ret == 0)
		return 0;
	out->len = start;
	return err_prefix(err, ret, "%s", device->id);
}

static int virtio_transport_state_load_device(struct virtio_transport *transport, const uint8_t **data, size_t *len,
					      struct err *err)
{
	struct virtio_device *device = transport->device;
	int ret = state_load_first(transport->ops->state, transport, data, len, err);

	if (ret == 0 && device->active && device->ops->prepare)
		ret = device->ops->prepare(device, err);
	if (ret == 0 && device->ops->state && (*len || device->ops->state->oldest))
		ret = state_load_first(device->ops->state, device, data, len, err);
	if (ret == 0 && *len)
		ret = err_set(err, -EBADMSG, "%zu bytes too many", *len);
	return ret;
}

int virtio_transport_load(struct virtio_transport *transport, const void *data, size_t len, struct err *err)
{
	struct virtio_device *device = transport->device;
	const uint8_t *at = data;
	int ret;

	pthread_mutex_lock(&device->lock);
	ret = transport->status ? err_set(err, -EBUSY, "it is in use") : 0;
	transport->paused = transport->loaded = true;
	pthread_mutex_unlock(&device->lock);
	/* Without the device's lock, which nests inside that of the bus. */
	if (ret == 0 && transport->ops->load)
		ret = transport->ops->load(transport, &at, &len, err);
	pthread_mutex_lock(&device->lock);
	if (ret == 0)
		ret = virtio_transport_state_load_device(transport, &at, &len, err);
	pthread_mutex_unlock(&device->lock);
	return ret < 0 ? err_prefix(err, ret, "%s", device->id) : 0;
}
