/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the PCI transport saves beside virtio_transport_state.c: the records of the function and of MSI-X, and the
 * vectors of the queues.
 */
#include "devices/virtio/virtio_pci_internal.h"

static int virtio_pci_state_load_vector(struct virtio_pci *pci, unsigned int slot, uint16_t vector, struct err *err)
{
	virtio_pci_set_vector(pci, slot, vector);
	if (pci->base.state.queues[slot].vector == vector)
		return 0;
	return err_set(err, -EBADMSG, "vector %u cannot be created", vector);
}

static int virtio_pci_state_loaded(void *object, const void *loaded, struct err *err)
{
	struct virtio_pci *pci = virtio_pci_of_transport(object);
	const struct virtio_transport_state *state = loaded;
	int ret = virtio_pci_state_load_vector(pci, VIRTIO_CONFIG_SLOT, state->queues[VIRTIO_CONFIG_SLOT].vector, err);

	for (unsigned int i = 0; i < pci->base.device->queue_count && ret == 0; i++)
		ret = virtio_pci_state_load_vector(pci, i, state->queues[i].vector, err);
	ret = ret ?: virtio_transport_loaded(object, loaded, err);
	if (ret < 0)
		return ret;
	virtio_pci_place_kicks(pci);
	pthread_mutex_lock(&pci->base.isr_lock);
	pci_set_intx(&pci->function, pci->base.isr && !msix_enabled(pci->msix));
	pthread_mutex_unlock(&pci->base.isr_lock);
	return 0;
}

static const struct state_field queue_fields[] = {
	VIRTIO_QUEUE_FIRST_FIELD,
	STATE_UINT(struct virtio_queue_state, vector, 1),
	VIRTIO_QUEUE_FIELDS,
};
static const struct state_table queue_state = {
	.name = "virtqueue", .version = 1, .oldest = 1, STATE_FIELDS(queue_fields),
};

static const struct state_field fields[] = {
	VIRTIO_TRANSPORT_FIRST_FIELDS,
	STATE_UINT_AS("config_vector", struct virtio_transport_state, queues[VIRTIO_CONFIG_SLOT].vector, 1),
	VIRTIO_TRANSPORT_FIELDS(&queue_state),
};
const struct state_table virtio_pci_state = {
	.name = "virtio-pci", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct virtio_transport, state),
	.collect = virtio_transport_collect, .judge = virtio_transport_judge, .loaded = virtio_pci_state_loaded,
};

int virtio_pci_state_save(struct virtio_transport *transport, struct state_buffer *out, struct err *err)
{
	struct virtio_pci *pci = virtio_pci_of_transport(transport);
	int ret = state_save(&pci_function_state, &pci->function, out, err);

	return ret ?: state_save(&msix_state, pci->msix, out, err);
}

int virtio_pci_state_load(struct virtio_transport *transport, const uint8_t **data, size_t *len, struct err *err)
{
	struct virtio_pci *pci = virtio_pci_of_transport(transport);
	int ret = state_load_first(&pci_function_state, &pci->function, data, len, err);

	return ret ?: state_load_first(&msix_state, pci->msix, data, len, err);
}
