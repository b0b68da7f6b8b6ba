/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a virtio device behind its PCI transport (virtio_pci_save and virtio_pci_load in virtio.h). It is
 * records one behind the other: the PCI function, MSI-X, the transport with its queues, and what the device has of its
 * own (virtio_device_ops.state).
 *
 * A load does in one go what the driver once did step by step, but for activate: the queues begin where they were left,
 * and the device is active and quiesced.
 */
#include "devices/virtio/virtio_pci_internal.h"

#include <stdio.h>

#define STATUS_BITS                                                                                                 \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |                          \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

struct queue_image {
	uint16_t vector;
	struct virtqueue_setup setup;
	struct virtqueue_place place; /* of an enabled queue of an active device */
};

struct image {
	uint16_t type, queue_select, config_vector;
	uint8_t status, isr, config_generation;
	bool active, broken;
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint32_t queue_count;
	struct queue_image queues[VIRTIO_MAX_QUEUES];
};

/* ---- save ---- */

static void virtio_pci_state_fill_queue(const struct virtio_pci *pci, unsigned int index, struct queue_image *image)
{
	const struct virtqueue *vq = &pci->device->queues[index];

	*image = (struct queue_image){
		.vector = pci->vector[index],
		.setup = vq->setup,
	};
	if (pci->device->active && vq->setup.enabled)
		virtqueue_place(vq, &image->place);
}

static int virtio_pci_state_fill(void *object, void *into, struct err *err)
{
	struct virtio_pci *pci = object;
	struct image *image = into;

	image->type = pci->device->type;
	image->queue_select = pci->queue_select;
	image->config_vector = pci->vector[VIRTIO_PCI_CONFIG_SLOT];
	image->status = pci->status;
	image->config_generation = pci->device->config_generation;
	image->active = pci->device->active;
	image->broken = __atomic_load_n(&pci->device->broken, __ATOMIC_ACQUIRE);
	image->device_feature_select = pci->device_feature_select;
	image->driver_feature_select = pci->driver_feature_select;
	image->driver_features = pci->driver_features;
	image->queue_count = pci->device->queue_count;
	for (unsigned int i = 0; i < image->queue_count; i++)
		virtio_pci_state_fill_queue(pci, i, &image->queues[i]);
	pthread_mutex_lock(&pci->isr_lock);
	image->isr = pci->isr;
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

static int virtio_pci_state_check_features(const struct virtio_device *device, const struct image *image,
					   struct err *err)
{
	uint64_t missing = image->driver_features & ~device->offered;
	char text[200];

	if (!(image->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return 0;
	if (!(image->driver_features >> VIRTIO_F_VERSION_1 & 1))
		return err_set(err, -EBADMSG, "a driver that does not know virtio 1");
	if (!missing)
		return 0;
	virtio_pci_state_name_bits(missing, text, sizeof(text));
	return err_set(err, -ENOTSUP, "the guest uses features that this device does not have: virtio feature bits %s",
		       text);
}

static int virtio_pci_state_check(const struct virtio_pci *pci, const struct image *image, struct err *err)
{
	const struct virtio_device *device = pci->device;
	uint8_t status = image->status;

	if (image->type != device->type)
		return err_set(err, -EBADMSG, "a virtio device of type %u, not %u", image->type, device->type);
	if (image->queue_count != device->queue_count)
		return err_set(err, -EBADMSG, "it had %u queues, and has %u here", image->queue_count,
			       device->queue_count);
	if (status & ~STATUS_BITS || (image->active && !(status & VIRTIO_CONFIG_S_DRIVER_OK)) ||
	    (status & VIRTIO_CONFIG_S_DRIVER_OK && !(status & VIRTIO_CONFIG_S_FEATURES_OK)))
		return err_set(err, -EBADMSG, "status 0x%02x cannot be", status);
	if (image->isr & ~(VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG))
		return err_set(err, -EBADMSG, "interrupt status 0x%02x cannot be", image->isr);
	return virtio_pci_state_check_features(device, image, err);
}

static int virtio_pci_state_load_vector(struct virtio_pci *pci, unsigned int slot, uint16_t vector, struct err *err)
{
	virtio_pci_set_vector(pci, slot, vector);
	return pci->vector[slot] == vector ? 0 : err_set(err, -EBADMSG, "vector %u cannot be had", vector);
}

static int virtio_pci_state_load_queue(struct virtio_pci *pci, unsigned int index, const struct queue_image *image,
				       struct err *err)
{
	struct virtio_device *device = pci->device;
	struct virtqueue *vq = &device->queues[index];
	int ret = virtio_pci_state_load_vector(pci, index, image->vector, err);

	if (ret < 0)
		return ret;
	if (!is_power_of_two(image->setup.size) || image->setup.size > vq->max_size)
		return err_set(err, -EBADMSG, "queue %u: bad size %u", index, image->setup.size);
	vq->setup = image->setup;
	if (!device->active || !vq->setup.enabled)
		return 0;
	return virtqueue_start_at(vq, device->memory, device->features, &image->place, err);
}

static int virtio_pci_state_apply(void *object, const void *from, uint32_t version, struct err *err)
{
	struct virtio_pci *pci = object;
	struct virtio_device *device = pci->device;
	const struct image *image = from;
	int ret = virtio_pci_state_check(pci, image, err);

	if (ret == 0)
		ret = virtio_pci_state_load_vector(pci, VIRTIO_PCI_CONFIG_SLOT, image->config_vector, err);
	if (ret < 0)
		return ret;
	pci->queue_select = image->queue_select;
	pci->device_feature_select = image->device_feature_select;
	pci->driver_feature_select = image->driver_feature_select;
	pci->driver_features = image->driver_features;
	device->config_generation = image->config_generation;
	device->features = image->active ? image->driver_features : 0;
	device->active = image->active;
	for (unsigned int i = 0; i < device->queue_count && ret == 0; i++)
		ret = virtio_pci_state_load_queue(pci, i, &image->queues[i], err);
	if (ret < 0)
		return ret;
	__atomic_store_n(&device->broken, image->broken, __ATOMIC_SEQ_CST);
	__atomic_store_n(&pci->status, image->status, __ATOMIC_RELEASE);
	virtio_pci_place_kicks(pci);
	pthread_mutex_lock(&pci->isr_lock);
	pci->isr = image->isr;
	pci_set_intx(&pci->function, pci->isr && !msix_enabled(pci->msix));
	pthread_mutex_unlock(&pci->isr_lock);
	return 0;
}

static const struct state_field queue_fields[] = {
	STATE_UINT_AS("size", struct queue_image, setup.size, 1),
	STATE_UINT(struct queue_image, vector, 1),
	STATE_BOOL_AS("enabled", struct queue_image, setup.enabled, 1),
	STATE_UINT_AS("desc", struct queue_image, setup.desc, 1),
	STATE_UINT_AS("avail", struct queue_image, setup.avail, 1),
	STATE_UINT_AS("used", struct queue_image, setup.used, 1),
	STATE_UINT(struct queue_image, place.next_avail, 1),
	STATE_UINT(struct queue_image, place.next_used, 1),
	STATE_UINT(struct queue_image, place.signalled_used, 1),
	STATE_UINT(struct queue_image, place.avail_idx, 1),
	STATE_UINT(struct queue_image, place.used_idx, 1),
	STATE_BOOL(struct queue_image, place.broken, 1),
};
static const struct state_table queue_state = {
	.name = "virtqueue", .version = 1, .oldest = 1, STATE_FIELDS(queue_fields),
};

static const struct state_field fields[] = {
	STATE_UINT(struct image, type, 1),
	STATE_UINT(struct image, queue_select, 1),
	STATE_UINT(struct image, config_vector, 1),
	STATE_UINT(struct image, status, 1),
	STATE_UINT(struct image, isr, 1),
	STATE_UINT(struct image, config_generation, 1),
	STATE_BOOL(struct image, active, 1),
	STATE_BOOL(struct image, broken, 1),
	STATE_UINT(struct image, device_feature_select, 1),
	STATE_UINT(struct image, driver_feature_select, 1),
	STATE_UINT(struct image, driver_features, 1),
	STATE_LIST(struct image, queues, 1, queue_count, &queue_state),
};
static const struct state_table transport_state = {
	.name = "virtio-pci", .version = 1, .oldest = 1, STATE_FIELDS(fields), .image = sizeof(struct image),
	.fill = virtio_pci_state_fill, .apply = virtio_pci_state_apply,
};

/* ---- the whole ---- */

int virtio_pci_save(struct virtio_pci *pci, struct state_buffer *out, struct err *err)
{
	struct virtio_device *device = pci->device;
	size_t start = out->len;
	int ret;

	if (!pci->paused)
		return err_set(err, -EBUSY, "%s: it is not paused", device->id);
	virtio_pci_drain_relays(pci);
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

/* What the bus and MSI-X do, they do without the device's lock. */
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
	if (ret == 0 && device->ops->state)
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
