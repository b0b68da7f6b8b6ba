/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common configuration structure of a virtio PCI device (virtio 1.2 sections 4.1.4.3 and 3.1): the driver's
 * accesses, and the status that follows from them. A write that the specification does not allow then is ignored.
 */
#include "devices/virtio/virtio_pci_internal.h"

/* Bits that the driver sets and only a reset clears. */
#define STATUS_PROGRESS (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED)

/* ---- status ---- */

static void virtio_pci_common_set_status(struct virtio_pci *pci, uint8_t status)
{
	__atomic_store_n(&pci->status, status, __ATOMIC_RELEASE);
}

void virtio_pci_set_vector(struct virtio_pci *pci, unsigned int slot, uint16_t vector)
{
	int fd = msix_vector_fd(pci->msix, vector);

	pci->state.queues[slot].vector = fd >= 0 ? vector : VIRTIO_MSI_NO_VECTOR;
	__atomic_store_n(&pci->vector_fd[slot], MAX(fd, -1), __ATOMIC_RELEASE);
	if (slot < pci->device->queue_count)
		virtio_pci_call_changed(pci, slot);
}

void virtio_pci_call_changed(struct virtio_pci *pci, unsigned int queue)
{
	struct virtio_device *device = pci->device;

	if (pci->flow != VIRTIO_PCI_STOPPED && device->queues[queue].setup.enabled && device->ops->call_changed)
		device->ops->call_changed(device, queue);
}

static void virtio_pci_common_reset_queue(struct virtqueue *vq)
{
	virtqueue_stop(vq);
	vq->setup.enabled = false;
	vq->setup.size = vq->max_size;
	vq->setup.desc = vq->setup.avail = vq->setup.used = 0;
}

void virtio_pci_reset(struct virtio_pci *pci)
{
	struct virtio_device *device = pci->device;

	if (device->active)
		device->ops->reset(device);
	device->active = false;
	pci->flow = VIRTIO_PCI_STOPPED;
	device->features = 0;
	virtio_pci_common_set_status(pci, 0);
	__atomic_store_n(&device->broken, false, __ATOMIC_SEQ_CST);
	pci->state.device_feature_select = pci->state.driver_feature_select = 0;
	pci->state.driver_features = 0;
	pci->state.queue_select = 0;
	for (unsigned int i = 0; i < device->queue_count; i++) {
		virtio_pci_common_reset_queue(&device->queues[i]);
		virtio_pci_set_vector(pci, i, VIRTIO_MSI_NO_VECTOR);
	}
	virtio_pci_set_vector(pci, VIRTIO_PCI_CONFIG_SLOT, VIRTIO_MSI_NO_VECTOR);
	pthread_mutex_lock(&pci->isr_lock);
	pci->isr = 0;
	pci_set_intx(&pci->function, false);
	pthread_mutex_unlock(&pci->isr_lock);
}

static int virtio_pci_common_start_queues(struct virtio_device *device, struct err *err)
{
	int ret = 0;

	for (unsigned int i = 0; ret == 0 && i < device->queue_count; i++)
		if (device->queues[i].setup.enabled)
			ret = virtqueue_start(&device->queues[i], device->memory, device->features, err);
	return ret;
}

static void virtio_pci_common_activate(struct virtio_pci *pci)
{
	struct virtio_device *device = pci->device;
	struct err err = {"it cannot be started"};
	int ret;

	device->features = pci->state.driver_features;
	device->active = true;
	pci->flow = VIRTIO_PCI_RUNNING;
	ret = virtio_pci_common_start_queues(device, &err);
	if (ret == 0)
		ret = device->ops->activate(device, &err);
	if (ret == 0)
		return;
	device->active = false;
	pci->flow = VIRTIO_PCI_STOPPED;
	virtio_device_broken(device, err.text);
}

int virtio_pci_settle(struct virtio_pci *pci, int64_t deadline, struct err *err)
{
	struct virtio_device *device = pci->device;
	bool run = pci->status & VIRTIO_CONFIG_S_DRIVER_OK && pci_bus_master_enabled(&pci->function);
	int ret;

	__atomic_store_n(&pci->unsettled, false, __ATOMIC_SEQ_CST);
	run = run && !__atomic_load_n(&pci->paused, __ATOMIC_SEQ_CST);
	if (!device->active) {
		if (run && !__atomic_load_n(&device->broken, __ATOMIC_ACQUIRE))
			virtio_pci_common_activate(pci);
		return 0;
	}
	if (pci->flow == (run ? VIRTIO_PCI_RUNNING : VIRTIO_PCI_STOPPED))
		return 0;
	if (run) {
		device->ops->resume(device);
		pci->flow = VIRTIO_PCI_RUNNING;
		return 0;
	}
	ret = device->ops->drain(device, deadline, err);
	pci->flow = ret < 0 ? VIRTIO_PCI_DRAINING : VIRTIO_PCI_STOPPED;
	return ret;
}

static bool virtio_pci_common_features_fit(const struct virtio_pci *pci)
{
	uint64_t features = pci->state.driver_features;

	return !(features & ~pci->device->offered) && features >> VIRTIO_F_VERSION_1 & 1;
}

/* Section 3.1.1: bits are added one step at a time; zero resets. */
static void virtio_pci_common_write_status(struct virtio_pci *pci, uint8_t value)
{
	uint8_t status = pci->status;

	if (!value) {
		virtio_pci_reset(pci);
		return;
	}
	status |= value & STATUS_PROGRESS;
	if (value & VIRTIO_CONFIG_S_FEATURES_OK && virtio_pci_common_features_fit(pci))
		status |= VIRTIO_CONFIG_S_FEATURES_OK;
	if (value & VIRTIO_CONFIG_S_DRIVER_OK && status & VIRTIO_CONFIG_S_FEATURES_OK)
		status |= VIRTIO_CONFIG_S_DRIVER_OK;
	virtio_pci_common_set_status(pci, status);
	virtio_pci_settle(pci, 0, NULL);
}

/* ---- notifications ---- */

void virtio_pci_place_kicks(struct virtio_pci *pci)
{
	uint64_t bar = pci->function.bars[VIRTIO_PCI_BAR].addr;

	for (unsigned int i = 0; i < pci->device->queue_count; i++) {
		struct virtqueue *vq = &pci->device->queues[i];
		uint64_t offset = VIRTIO_PCI_NOTIFY_AT + i * VIRTIO_PCI_NOTIFY_STEP;
		uint64_t addr = bar == PCI_UNMAPPED ? PCI_UNMAPPED : bar + offset;

		if (pci->kick_addr[i] != addr && pci->kick_addr[i] != PCI_UNMAPPED) {
			bus_detach_eventfd(pci->mmio, pci->kick_addr[i], 0, vq->kick_fd);
			pci->kick_addr[i] = PCI_UNMAPPED;
		}
		/* If it cannot be attached, the BAR's write kicks it, more slowly. */
		if (pci->kick_addr[i] != addr && vq->setup.enabled &&
		    bus_attach_eventfd(pci->mmio, addr, 0, vq->kick_fd, NULL) == 0)
			pci->kick_addr[i] = addr;
	}
}

/* ---- fields ---- */

static struct virtqueue *virtio_pci_common_selected(const struct virtio_pci *pci)
{
	uint16_t select = pci->state.queue_select;

	return select < pci->device->queue_count ? &pci->device->queues[select] : NULL;
}

/* The selected queue, if the driver may program it now. */
static struct virtqueue *virtio_pci_common_programmable(const struct virtio_pci *pci)
{
	struct virtqueue *vq = virtio_pci_common_selected(pci);

	return vq && !vq->setup.enabled && !(pci->status & VIRTIO_CONFIG_S_DRIVER_OK) ? vq : NULL;
}

static uint32_t virtio_pci_common_half(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> 32 * select) : 0;
}

static void virtio_pci_common_set_half(uint64_t *value, bool high, uint32_t half_value)
{
	unsigned int shift = high ? 32 : 0;

	*value = (*value & ~(0xffffffffull << shift)) | (uint64_t)half_value << shift;
}

static void virtio_pci_common_describe_queue(const struct virtio_pci *pci, struct virtio_pci_common_cfg *cfg)
{
	const struct virtqueue *vq = virtio_pci_common_selected(pci);

	cfg->queue_select = htole16(pci->state.queue_select);
	cfg->queue_msix_vector = htole16(VIRTIO_MSI_NO_VECTOR);
	if (!vq)
		return;
	cfg->queue_size = htole16(vq->setup.size);
	cfg->queue_msix_vector = htole16(pci->state.queues[vq->index].vector);
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
	const struct virtio_device *device = pci->device;
	const struct virtio_pci_state *state = &pci->state;
	bool needs_reset = __atomic_load_n(&device->broken, __ATOMIC_ACQUIRE);
	struct virtio_pci_common_cfg cfg = {
		.device_feature_select = htole32(state->device_feature_select),
		.device_feature = htole32(virtio_pci_common_half(device->offered, state->device_feature_select)),
		.guest_feature_select = htole32(state->driver_feature_select),
		.guest_feature = htole32(virtio_pci_common_half(state->driver_features, state->driver_feature_select)),
		.msix_config = htole16(state->queues[VIRTIO_PCI_CONFIG_SLOT].vector),
		.num_queues = htole16((uint16_t)device->queue_count),
		.device_status = pci->status | (needs_reset ? VIRTIO_CONFIG_S_NEEDS_RESET : 0),
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
	struct virtqueue *vq = virtio_pci_common_programmable(pci);

	if (!vq)
		return;
	switch (field) {
	case FIELD(queue_size):
		if (is_power_of_two(value) && value <= vq->max_size)
			vq->setup.size = (uint16_t)value;
		break;
	case FIELD(queue_enable):
		vq->setup.enabled = value == 1;
		virtio_pci_place_kicks(pci);
		break;
	case FIELD(queue_desc_lo):
	case FIELD(queue_desc_hi):
		virtio_pci_common_set_half(&vq->setup.desc, field == FIELD(queue_desc_hi), value);
		break;
	case FIELD(queue_avail_lo):
	case FIELD(queue_avail_hi):
		virtio_pci_common_set_half(&vq->setup.avail, field == FIELD(queue_avail_hi), value);
		break;
	case FIELD(queue_used_lo):
	case FIELD(queue_used_hi):
		virtio_pci_common_set_half(&vq->setup.used, field == FIELD(queue_used_hi), value);
		break;
	}
}

static void virtio_pci_common_write_field(struct virtio_pci *pci, uint64_t field, uint32_t value)
{
	struct virtio_pci_state *state = &pci->state;

	switch (field) {
	case FIELD(device_feature_select):
		state->device_feature_select = value;
		break;
	case FIELD(guest_feature_select):
		state->driver_feature_select = value;
		break;
	case FIELD(guest_feature):
		if (!(pci->status & VIRTIO_CONFIG_S_FEATURES_OK) && state->driver_feature_select < 2)
			virtio_pci_common_set_half(&state->driver_features, state->driver_feature_select, value);
		break;
	case FIELD(msix_config):
		virtio_pci_set_vector(pci, VIRTIO_PCI_CONFIG_SLOT, (uint16_t)value);
		break;
	case FIELD(device_status):
		virtio_pci_common_write_status(pci, (uint8_t)value);
		break;
	case FIELD(queue_select):
		state->queue_select = (uint16_t)value;
		break;
	case FIELD(queue_msix_vector):
		if (virtio_pci_common_selected(pci))
			virtio_pci_set_vector(pci, pci->state.queue_select, (uint16_t)value);
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
