/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a virtio device and its PCI transport (virtio_pci_save and virtio_pci_load in virtio.h): records
 * in a row, of the PCI function, MSI-X, the transport with its queues, and the device itself (virtio_device_ops.state).
 *
 * A load does at once what the driver did step by step, except activate: the queues continue where they were, and the
 * device is active and drained.
 */
#include "devices/virtio/virtio_pci_internal.h"

#include <stdio.h>

#define STATUS_BITS                                                                                                 \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |                          \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

/* ---- save ---- */

static int virtio_pci_state_collect(void *object, void *into, struct err *err)
{
	struct virtio_pci *pci = object;
	struct virtio_device *device = pci->device;
	struct virtio_pci_state *state = into;

	state->type = device->type;
	state->status = pci->status;
	state->config_generation = device->config_generation;
	state->active = device->active;
	state->broken = __atomic_load_n(&device->broken, __ATOMIC_ACQUIRE);
	state->queue_count = device->queue_count;
	for (unsigned int i = 0; i < device->queue_count; i++) {
		state->queues[i].setup = device->queues[i].setup;
		if (device->active && device->queues[i].setup.enabled)
			virtqueue_place(&device->queues[i], &state->queues[i].place);
	}
	pthread_mutex_lock(&pci->isr_lock);
	state->isr = pci->isr;
	pthread_mutex_unlock(&pci->isr_lock);
	return 0;
}

/* ---- load ---- */

/* "13, 14" */
static void virtio_pci_state_name_bits(uint64_t bits, char *text, size_t size)
{
	size_t at = 0;

	for (unsigned int i = 0; i < 64 && at < size; i++)
		if (bits >> i & 1)
			at += (size_t)snprintf(text + at, size - at, "%s%u", at ? ", " : "", i);
}

static int virtio_pci_state_check_features(const struct virtio_device *device, const struct virtio_pci_state *state,
					   struct err *err)
{
	uint64_t missing = state->driver_features & ~device->offered;
	char text[200];

	if (!(state->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return 0;
	if (!(state->driver_features >> VIRTIO_F_VERSION_1 & 1))
		return err_set(err, -EBADMSG, "the driver has not accepted VIRTIO_F_VERSION_1");
	if (!missing)
		return 0;
	virtio_pci_state_name_bits(missing, text, sizeof(text));
	return err_set(err, -ENOTSUP, "the guest uses features that this device does not have: virtio feature bits %s",
		       text);
}

static int virtio_pci_state_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct virtio_device *device = ((const struct virtio_pci *)object)->device;
	const struct virtio_pci_state *state = loaded;
	uint8_t status = state->status;

	if (state->type != device->type)
		return err_set(err, -EBADMSG, "a virtio device of type %u, not %u", state->type, device->type);
	if (state->queue_count != device->queue_count)
		return err_set(err, -EBADMSG, "%u queues on the source, %u here", state->queue_count,
			       device->queue_count);
	if (status & ~STATUS_BITS || (state->active && !(status & VIRTIO_CONFIG_S_DRIVER_OK)) ||
	    (status & VIRTIO_CONFIG_S_DRIVER_OK && !(status & VIRTIO_CONFIG_S_FEATURES_OK)))
		return err_set(err, -EBADMSG, "invalid status 0x%02x", status);
	if (state->isr & ~(VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG))
		return err_set(err, -EBADMSG, "invalid interrupt status 0x%02x", state->isr);
	for (unsigned int i = 0; i < state->queue_count; i++) {
		uint16_t size = state->queues[i].setup.size;

		if (!is_power_of_two(size) || size > device->queues[i].max_size)
			return err_set(err, -EBADMSG, "queue %u: bad size %u", i, size);
	}
	return virtio_pci_state_check_features(device, state, err);
}

static int virtio_pci_state_load_vector(struct virtio_pci *pci, unsigned int slot, uint16_t vector, struct err *err)
{
	virtio_pci_set_vector(pci, slot, vector);
	if (pci->state.queues[slot].vector == vector)
		return 0;
	return err_set(err, -EBADMSG, "vector %u cannot be created", vector);
}

static int virtio_pci_state_load_queue(struct virtio_pci *pci, unsigned int index,
				       const struct virtio_pci_queue_state *state, struct err *err)
{
	struct virtio_device *device = pci->device;
	struct virtqueue *vq = &device->queues[index];
	int ret = virtio_pci_state_load_vector(pci, index, state->vector, err);

	if (ret < 0)
		return ret;
	vq->setup = state->setup;
	if (!device->active || !vq->setup.enabled)
		return 0;
	return virtqueue_start_at(vq, device->memory, device->features, &state->place, err);
}

static int virtio_pci_state_loaded(void *object, const void *loaded, struct err *err)
{
	struct virtio_pci *pci = object;
	struct virtio_device *device = pci->device;
	const struct virtio_pci_state *state = loaded;
	int ret = virtio_pci_state_load_vector(pci, VIRTIO_PCI_CONFIG_SLOT,
					       state->queues[VIRTIO_PCI_CONFIG_SLOT].vector, err);

	if (ret < 0)
		return ret;
	device->config_generation = state->config_generation;
	device->features = state->active ? state->driver_features : 0;
	device->active = state->active;
	for (unsigned int i = 0; i < device->queue_count && ret == 0; i++)
		ret = virtio_pci_state_load_queue(pci, i, &state->queues[i], err);
	if (ret < 0)
		return ret;
	__atomic_store_n(&device->broken, state->broken, __ATOMIC_SEQ_CST);
	__atomic_store_n(&pci->status, state->status, __ATOMIC_RELEASE);
	virtio_pci_place_kicks(pci);
	pthread_mutex_lock(&pci->isr_lock);
	pci->isr = state->isr;
	pci_set_intx(&pci->function, pci->isr && !msix_enabled(pci->msix));
	pthread_mutex_unlock(&pci->isr_lock);
	return 0;
}

static const struct state_field queue_fields[] = {
	STATE_UINT_AS("size", struct virtio_pci_queue_state, setup.size, 1),
	STATE_UINT(struct virtio_pci_queue_state, vector, 1),
	STATE_BOOL_AS("enabled", struct virtio_pci_queue_state, setup.enabled, 1),
	STATE_UINT_AS("desc", struct virtio_pci_queue_state, setup.desc, 1),
	STATE_UINT_AS("avail", struct virtio_pci_queue_state, setup.avail, 1),
	STATE_UINT_AS("used", struct virtio_pci_queue_state, setup.used, 1),
	STATE_UINT(struct virtio_pci_queue_state, place.next_avail, 1),
	STATE_UINT(struct virtio_pci_queue_state, place.next_used, 1),
	STATE_UINT(struct virtio_pci_queue_state, place.signalled_used, 1),
	STATE_UINT(struct virtio_pci_queue_state, place.avail_idx, 1),
	STATE_UINT(struct virtio_pci_queue_state, place.used_idx, 1),
	STATE_BOOL(struct virtio_pci_queue_state, place.broken, 1),
};
static const struct state_table queue_state = {
	.name = "virtqueue", .version = 1, .oldest = 1, STATE_FIELDS(queue_fields),
};

static const struct state_field fields[] = {
	STATE_UINT(struct virtio_pci_state, type, 1),
	STATE_UINT(struct virtio_pci_state, queue_select, 1),
	STATE_UINT_AS("config_vector", struct virtio_pci_state, queues[VIRTIO_PCI_CONFIG_SLOT].vector, 1),
	STATE_UINT(struct virtio_pci_state, status, 1),
	STATE_UINT(struct virtio_pci_state, isr, 1),
	STATE_UINT(struct virtio_pci_state, config_generation, 1),
	STATE_BOOL(struct virtio_pci_state, active, 1),
	STATE_BOOL(struct virtio_pci_state, broken, 1),
	STATE_UINT(struct virtio_pci_state, device_feature_select, 1),
	STATE_UINT(struct virtio_pci_state, driver_feature_select, 1),
	STATE_UINT(struct virtio_pci_state, driver_features, 1),
	STATE_LIST(struct virtio_pci_state, queues, 1, queue_count, &queue_state),
};
static const struct state_table transport_state = {
	.name = "virtio-pci", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct virtio_pci, state),
	.collect = virtio_pci_state_collect, .judge = virtio_pci_state_judge, .loaded = virtio_pci_state_loaded,
};

/* ---- the whole ---- */

int virtio_pci_save(struct virtio_pci *pci, struct state_buffer *out, struct err *err)
{
	struct virtio_device *device = pci->device;
	size_t start = out->len;
	int ret;

	if (!pci->paused || pci->flow != VIRTIO_PCI_STOPPED)
		return err_set(err, -EBUSY, "%s: it is not paused", device->id);
	ret = state_save(&pci_function_state, &pci->function, out, err);
	if (ret == 0)
		ret = state_save(&msix_state, pci->msix, out, err);
	pthread_mutex_lock(&device->lock);
	if (ret == 0)
		ret = state_save(&transport_state, pci, out, err);
	if (ret == 0 && device->ops->state)
		ret = state_save(device->ops->state, device, out, err);
	pthread_mutex_unlock(&device->lock);
	if (ret == 0)
		return 0;
	out->len = start;
	return err_prefix(err, ret, "%s", device->id);
}

/* Without the device's lock, which nests inside that of the bus. */
static int virtio_pci_state_load_function(struct virtio_pci *pci, const uint8_t **data, size_t *len, struct err *err)
{
	int ret = state_load_first(&pci_function_state, &pci->function, data, len, err);

	return ret < 0 ? ret : state_load_first(&msix_state, pci->msix, data, len, err);
}

static int virtio_pci_state_load_device(struct virtio_pci *pci, const uint8_t **data, size_t *len, struct err *err)
{
	struct virtio_device *device = pci->device;
	int ret = state_load_first(&transport_state, pci, data, len, err);

	if (ret == 0 && device->active && device->ops->prepare)
		ret = device->ops->prepare(device, err);
	if (ret == 0 && device->ops->state && (*len || device->ops->state->oldest))
		ret = state_load_first(device->ops->state, device, data, len, err);
	if (ret == 0 && *len)
		ret = err_set(err, -EBADMSG, "%zu bytes too many", *len);
	return ret;
}

int virtio_pci_load(struct virtio_pci *pci, const void *data, size_t len, struct err *err)
{
	struct virtio_device *device = pci->device;
	const uint8_t *at = data;
	int ret;

	pthread_mutex_lock(&device->lock);
	ret = pci->status ? err_set(err, -EBUSY, "it is in use") : 0;
	pci->paused = pci->loaded = true;
	pthread_mutex_unlock(&device->lock);
	if (ret == 0)
		ret = virtio_pci_state_load_function(pci, &at, &len, err);
	pthread_mutex_lock(&device->lock);
	if (ret == 0)
		ret = virtio_pci_state_load_device(pci, &at, &len, err);
	pthread_mutex_unlock(&device->lock);
	return ret < 0 ? err_prefix(err, ret, "%s", device->id) : 0;
}
