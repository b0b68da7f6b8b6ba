/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common configuration structure of a virtio PCI device (virtio 1.2 section 4.1.4.3), and where its queues' interrupts
 * and notifications are.
 */
#include "devices/virtio/virtio_pci_internal.h"

/* ---- interrupts and notifications ---- */

void virtio_pci_set_vector(struct virtio_pci *pci, unsigned int slot, uint16_t vector)
{
	int fd = msix_vector_fd(pci->msix, vector);

	pci->base.state.queues[slot].vector = fd >= 0 ? vector : VIRTIO_MSI_NO_VECTOR;
	__atomic_store_n(&pci->vector_fd[slot], MAX(fd, -1), __ATOMIC_RELEASE);
	if (slot < pci->base.device->queue_count)
		virtio_transport_call_changed(&pci->base, slot);
}

void virtio_pci_place_kicks(struct virtio_pci *pci)
{
	uint64_t bar = pci->function.bars[VIRTIO_PCI_BAR].addr;

	for (unsigned int i = 0; i < pci->base.device->queue_count; i++) {
		struct virtqueue *vq = &pci->base.device->queues[i];
		uint64_t offset = VIRTIO_PCI_NOTIFY_AT + i * VIRTIO_PCI_NOTIFY_STEP;
		uint64_t addr = bar == PCI_UNMAPPED ? PCI_UNMAPPED : bar + offset;

		if (pci->kick_addr[i] != addr && pci->kick_addr[i] != PCI_UNMAPPED) {
			bus_detach_eventfd(pci->mmio, &(struct bus_kick){.addr = pci->kick_addr[i], .fd = vq->kick_fd});
			pci->kick_addr[i] = PCI_UNMAPPED;
		}
		/* If it cannot be attached, the BAR's write kicks it, more slowly. */
		if (pci->kick_addr[i] != addr && vq->setup.enabled &&
		    bus_attach_eventfd(pci->mmio, &(struct bus_kick){.addr = addr, .fd = vq->kick_fd}, NULL) == 0)
			pci->kick_addr[i] = addr;
	}
}

/* ---- fields ---- */

static void virtio_pci_common_describe_queue(const struct virtio_pci *pci, struct virtio_pci_common_cfg *cfg)
{
	const struct virtqueue *vq = virtio_transport_selected(&pci->base);

	cfg->queue_select = htole16(pci->base.state.queue_select);
	cfg->queue_msix_vector = htole16(VIRTIO_MSI_NO_VECTOR);
	if (!vq)
		return;
	cfg->queue_size = htole16(vq->setup.size);
	cfg->queue_msix_vector = htole16(pci->base.state.queues[vq->index].vector);
	cfg->queue_enable = htole16(vq->setup.enabled);
	cfg->queue_notify_off = htole16(vq->index);
	cfg->queue_desc_lo = htole32((uint32_t)vq->setup.desc);
	cfg->queue_desc_hi = htole32((uint32_t)(vq->setup.desc >> 32));
	cfg->queue_avail_lo = htole32((uint32_t)vq->setup.avail);
	cfg->queue_avail_hi = htole32((uint32_t)(vq->setup.avail >> 32));
	cfg->queue_used_lo = htole32((uint32_t)vq->setup.used);
	cfg->queue_used_hi = htole32((uint32_t)(vq->setup.used >> 32));
}

void virtio_pci_common_read(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len)
{
	const struct virtio_device *device = pci->base.device;
	const struct virtio_transport_state *state = &pci->base.state;
	struct virtio_pci_common_cfg cfg = {
		.device_feature_select = htole32(state->device_feature_select),
		.device_feature = htole32(virtio_transport_feature_half(device->offered, state->device_feature_select)),
		.guest_feature_select = htole32(state->driver_feature_select),
		.guest_feature = htole32(virtio_transport_feature_half(state->driver_features, state->driver_feature_select)),
		.msix_config = htole16(state->queues[VIRTIO_CONFIG_SLOT].vector),
		.num_queues = htole16((uint16_t)device->queue_count),
		.device_status = virtio_transport_read_status(&pci->base),
		.config_generation = device->config_generation,
	};

	virtio_pci_common_describe_queue(pci, &cfg);
	memcpy(data, (const char *)&cfg + offset, len);
}

/* Only writes of a whole field have an effect. */
#define FIELD(name) \
	(offsetof(struct virtio_pci_common_cfg, name) << 8 | sizeof(((struct virtio_pci_common_cfg *)0)->name))

static void virtio_pci_common_write_queue_field(struct virtio_pci *pci, uint64_t field, uint32_t value)
{
	struct virtqueue *vq = virtio_transport_programmable(&pci->base);

	if (!vq)
		return;
	switch (field) {
	case FIELD(queue_size):
		virtio_transport_write_size(vq, value);
		break;
	case FIELD(queue_enable):
		vq->setup.enabled = value == 1;
		virtio_pci_place_kicks(pci);
		break;
	case FIELD(queue_desc_lo):
	case FIELD(queue_desc_hi):
		virtio_transport_write_half(&vq->setup.desc, field == FIELD(queue_desc_hi), value);
		break;
	case FIELD(queue_avail_lo):
	case FIELD(queue_avail_hi):
		virtio_transport_write_half(&vq->setup.avail, field == FIELD(queue_avail_hi), value);
		break;
	case FIELD(queue_used_lo):
	case FIELD(queue_used_hi):
		virtio_transport_write_half(&vq->setup.used, field == FIELD(queue_used_hi), value);
		break;
	}
}

static void virtio_pci_common_write_field(struct virtio_pci *pci, uint64_t field, uint32_t value)
{
	struct virtio_transport_state *state = &pci->base.state;

	switch (field) {
	case FIELD(device_feature_select):
		state->device_feature_select = value;
		break;
	case FIELD(guest_feature_select):
		state->driver_feature_select = value;
		break;
	case FIELD(guest_feature):
		virtio_transport_write_features(&pci->base, value);
		break;
	case FIELD(msix_config):
		virtio_pci_set_vector(pci, VIRTIO_CONFIG_SLOT, (uint16_t)value);
		break;
	case FIELD(device_status):
		virtio_transport_write_status(&pci->base, (uint8_t)value);
		break;
	case FIELD(queue_select):
		state->queue_select = (uint16_t)value;
		break;
	case FIELD(queue_msix_vector):
		if (virtio_transport_selected(&pci->base))
			virtio_pci_set_vector(pci, pci->base.state.queue_select, (uint16_t)value);
		break;
	default:
		virtio_pci_common_write_queue_field(pci, field, value);
	}
}

void virtio_pci_common_write(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len)
{
	uint32_t value = 0;

	memcpy(&value, data, MIN(len, sizeof(value)));
	virtio_pci_common_write_field(pci, offset << 8 | MIN(len, sizeof(value)), le32toh(value));
	if (len == 8)
		virtio_pci_common_write(pci, offset + 4, (const char *)data + 4, 4);
}
