/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MMIO transport of virtio devices, modern only (virtio 1.2 section 4.2; include/uapi/linux/virtio_mmio.h): a page of
 * registers and one interrupt for all queues, of which the guest is told by its tables or its command line. Called by
 * vmm/machine/.
 *
 * The interrupt is an edge: a bit of InterruptStatus, and then a kick of an eventfd that the kernel turns into a pulse of
 * the line. Nothing is lost although the driver's acknowledgement does not lower anything: it looks at the queues and the
 * config space after it, and each later reason is another pulse. Devices may share a line for the same reason.
 *
 * vhost kicks the eventfd itself and sets no bit. InterruptStatus then shows used buffers always, which costs the driver a
 * look at its queues.
 */
#include "devices/virtio/virtio_transport.h"

#include "core/bus.h"

#include <linux/virtio_mmio.h>
#include <sys/eventfd.h>

#define MAGIC 0x74726976u  /* "virt" */
#define VERSION 2u
#define VENDOR 0x4d4d564du /* "MVMM" */
#define PAGE_BYTES 0x1000u
_Static_assert(VIRTIO_MMIO_CONFIG == 0x100 && VIRTIO_MMIO_CONFIG_GENERATION == 0xfc, "virtio 1.2");

struct virtio_mmio {
	struct virtio_transport base;
	struct virtio_mmio_config config;
	int irq_fd;
	bool direct;    /* vhost has irq_fd; atomic */
	uint64_t kicks; /* bit n: the kick_fd of queue n is attached; a reset keeps it */
};

static struct virtio_mmio *virtio_mmio_of(const struct virtio_transport *transport)
{
	return container_of(transport, struct virtio_mmio, base);
}

/* ---- interrupts ---- */

static void virtio_mmio_interrupt(struct virtio_transport *transport, uint8_t bit)
{
	pthread_mutex_lock(&transport->isr_lock);
	transport->isr |= bit;
	pthread_mutex_unlock(&transport->isr_lock);
	eventfd_kick(virtio_mmio_of(transport)->irq_fd);
}

static void virtio_mmio_notify_queue(struct virtio_device *device, unsigned int queue)
{
	virtio_mmio_interrupt(device->transport_opaque, VIRTIO_ISR_QUEUE);
}

static void virtio_mmio_notify_config(struct virtio_device *device)
{
	if (virtio_transport_driven(device->transport_opaque))
		virtio_mmio_interrupt(device->transport_opaque, VIRTIO_ISR_CONFIG);
}

static int virtio_mmio_call_fd(struct virtio_device *device, unsigned int queue)
{
	struct virtio_mmio *mmio = virtio_mmio_of(device->transport_opaque);

	__atomic_store_n(&mmio->direct, true, __ATOMIC_RELEASE);
	return mmio->irq_fd;
}

static uint8_t virtio_mmio_interrupt_status(struct virtio_mmio *mmio)
{
	uint8_t isr;

	pthread_mutex_lock(&mmio->base.isr_lock);
	isr = mmio->base.isr;
	pthread_mutex_unlock(&mmio->base.isr_lock);
	return isr | (__atomic_load_n(&mmio->direct, __ATOMIC_ACQUIRE) ? VIRTIO_ISR_QUEUE : 0);
}

static void virtio_mmio_acknowledge(struct virtio_mmio *mmio, uint32_t bits)
{
	pthread_mutex_lock(&mmio->base.isr_lock);
	mmio->base.isr &= (uint8_t)~bits;
	pthread_mutex_unlock(&mmio->base.isr_lock);
}

/* ---- queues ---- */

static struct bus_kick virtio_mmio_kick_of(const struct virtio_mmio *mmio, const struct virtqueue *vq)
{
	return (struct bus_kick){mmio->config.addr + VIRTIO_MMIO_QUEUE_NOTIFY, 4, vq->index, vq->kick_fd};
}

/* If it cannot be attached, the register's write kicks it, more slowly. */
static void virtio_mmio_attach_kick(struct virtio_mmio *mmio, const struct virtqueue *vq)
{
	const struct bus_kick kick = virtio_mmio_kick_of(mmio, vq);

	if (!(mmio->kicks >> vq->index & 1) && bus_attach_eventfd(mmio->config.mmio, &kick, NULL) == 0)
		mmio->kicks |= 1ull << vq->index;
}

static void virtio_mmio_detach_kicks(struct virtio_mmio *mmio)
{
	for (unsigned int i = 0; i < mmio->base.device->queue_count; i++) {
		const struct bus_kick kick = virtio_mmio_kick_of(mmio, &mmio->base.device->queues[i]);

		if (mmio->kicks >> i & 1)
			bus_detach_eventfd(mmio->config.mmio, &kick);
	}
	mmio->kicks = 0;
}

static void virtio_mmio_write_ready(struct virtio_mmio *mmio, uint32_t value)
{
	struct virtqueue *vq = value == 1 ? virtio_transport_programmable(&mmio->base) :
					    virtio_transport_selected(&mmio->base);

	if (!vq || value > 1)
		return;
	if (!value) {
		virtio_transport_take_back(&mmio->base, vq);
		return;
	}
	vq->setup.enabled = true;
	virtio_mmio_attach_kick(mmio, vq);
}

static void virtio_mmio_notify(struct virtio_mmio *mmio, uint32_t queue)
{
	if (queue < mmio->base.device->queue_count)
		eventfd_kick(mmio->base.device->queues[queue].kick_fd);
}

static void virtio_mmio_write_queue(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
	struct virtqueue *vq = virtio_transport_programmable(&mmio->base);

	if (!vq)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		virtio_transport_write_size(vq, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		virtio_transport_write_half(&vq->setup.desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		virtio_transport_write_half(&vq->setup.avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		virtio_transport_write_half(&vq->setup.used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
		break;
	}
}

/* ---- registers ---- */

/* Under the device's lock. */
static uint32_t virtio_mmio_read_register(const struct virtio_mmio *mmio, uint64_t offset)
{
	const struct virtio_device *device = mmio->base.device;
	const struct virtqueue *vq = virtio_transport_selected(&mmio->base);

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return device->type;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return virtio_transport_feature_half(device->offered, mmio->base.state.device_feature_select);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return vq ? vq->max_size : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return vq && vq->setup.enabled;
	case VIRTIO_MMIO_STATUS:
		return virtio_transport_read_status(&mmio->base);
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX; /* there are no such regions */
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return device->config_generation;
	}
	return 0;
}

/* Under the device's lock. */
static void virtio_mmio_write_register(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
	struct virtio_transport_state *state = &mmio->base.state;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		state->device_feature_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		state->driver_feature_select = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		virtio_transport_write_features(&mmio->base, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		state->queue_select = (uint16_t)MIN(value, UINT16_MAX);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		virtio_mmio_write_ready(mmio, value);
		break;
	case VIRTIO_MMIO_STATUS:
		if (value <= UINT8_MAX)
			virtio_transport_write_status(&mmio->base, (uint8_t)value);
		break;
	default:
		virtio_mmio_write_queue(mmio, offset, value);
	}
}

/* Section 4.2.2.2: registers are accessed whole. */
static bool virtio_mmio_is_register(uint64_t offset, unsigned int len)
{
	return len == 4 && !(offset % 4);
}

static void virtio_mmio_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct virtio_mmio *mmio = opaque;

	memset(data, 0, len);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		virtio_transport_read_config(&mmio->base, offset - VIRTIO_MMIO_CONFIG, data, len);
	} else if (!virtio_mmio_is_register(offset, len)) {
		return;
	} else if (offset == VIRTIO_MMIO_INTERRUPT_STATUS) {
		put_le32(data, virtio_mmio_interrupt_status(mmio));
	} else {
		pthread_mutex_lock(&mmio->base.device->lock);
		put_le32(data, virtio_mmio_read_register(mmio, offset));
		pthread_mutex_unlock(&mmio->base.device->lock);
	}
}

static void virtio_mmio_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct virtio_mmio *mmio = opaque;

	if (offset >= VIRTIO_MMIO_CONFIG) {
		virtio_transport_write_config(&mmio->base, offset - VIRTIO_MMIO_CONFIG, data, len);
	} else if (!virtio_mmio_is_register(offset, len)) {
		return;
	} else if (offset == VIRTIO_MMIO_QUEUE_NOTIFY) {
		virtio_mmio_notify(mmio, get_le32(data));
	} else if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		virtio_mmio_acknowledge(mmio, get_le32(data));
	} else {
		virtio_transport_lock(&mmio->base);
		virtio_mmio_write_register(mmio, offset, get_le32(data));
		virtio_transport_unlock(&mmio->base);
	}
}

static const struct bus_ops bus_ops = {virtio_mmio_read, virtio_mmio_write};

/* ---- state ---- */

static int virtio_mmio_loaded(void *object, const void *loaded, struct err *err)
{
	struct virtio_mmio *mmio = virtio_mmio_of(object);
	struct virtio_device *device = mmio->base.device;
	int ret = virtio_transport_loaded(object, loaded, err);

	for (unsigned int i = 0; i < device->queue_count && ret == 0; i++)
		if (device->queues[i].setup.enabled)
			virtio_mmio_attach_kick(mmio, &device->queues[i]);
	return ret;
}

static const struct state_field queue_fields[] = {VIRTIO_QUEUE_FIRST_FIELD, VIRTIO_QUEUE_FIELDS};
static const struct state_table queue_state = {
	.name = "virtqueue", .version = 1, .oldest = 1, STATE_FIELDS(queue_fields),
};

static const struct state_field fields[] = {VIRTIO_TRANSPORT_FIRST_FIELDS, VIRTIO_TRANSPORT_FIELDS(&queue_state)};
static const struct state_table mmio_state = {
	.name = "virtio-mmio", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct virtio_transport, state),
	.collect = virtio_transport_collect, .judge = virtio_transport_judge, .loaded = virtio_mmio_loaded,
};

/* ---- what the common part asks for ---- */

static void virtio_mmio_reset(struct virtio_transport *transport)
{
	virtio_mmio_acknowledge(virtio_mmio_of(transport), UINT32_MAX);
	__atomic_store_n(&virtio_mmio_of(transport)->direct, false, __ATOMIC_RELEASE);
}

/* A pulse that was not in the saved interrupt controllers yet; if there was none, the driver finds no reason. */
static void virtio_mmio_kick(struct virtio_transport *transport)
{
	if (virtio_transport_driven(transport))
		eventfd_kick(virtio_mmio_of(transport)->irq_fd);
}

static void virtio_mmio_detach(struct virtio_transport *transport)
{
	struct virtio_mmio *mmio = virtio_mmio_of(transport);

	bus_remove(mmio->config.mmio, mmio->config.addr);
	virtio_mmio_detach_kicks(mmio);
}

static void virtio_mmio_free(struct virtio_transport *transport)
{
	struct virtio_mmio *mmio = virtio_mmio_of(transport);

	if (mmio->irq_fd >= 0)
		mmio->config.line.ops->unwire(&mmio->config.line, mmio->irq_fd);
	fd_close(&mmio->irq_fd);
	virtio_transport_done(transport);
	free(mmio);
}

static unsigned int virtio_mmio_slot(const struct virtio_transport *transport)
{
	return virtio_mmio_of(transport)->config.slot;
}

static const struct virtio_transport_ops transport_ops = {
	.notify_queue = virtio_mmio_notify_queue,
	.notify_config = virtio_mmio_notify_config,
	.call_fd = virtio_mmio_call_fd,
	.reset = virtio_mmio_reset,
	.kick = virtio_mmio_kick,
	.detach = virtio_mmio_detach,
	.free = virtio_mmio_free,
	.slot = virtio_mmio_slot,
	.state = &mmio_state,
};

static int virtio_mmio_wire(struct virtio_mmio *mmio, struct err *err)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), ret;

	if (fd < 0)
		return err_sys(err, -errno, "%s: eventfd", mmio->base.device->id);
	ret = mmio->config.line.ops->wire(&mmio->config.line, fd, -1, err);
	if (ret < 0)
		close(fd);
	else
		mmio->irq_fd = fd;
	return ret;
}

int virtio_mmio_create(struct virtio_device *device, const struct virtio_mmio_config *config,
		       struct virtio_transport **ret, struct err *err)
{
	struct virtio_mmio *mmio = calloc(1, sizeof(*mmio));
	int code;

	if (!mmio)
		return err_sys(err, -ENOMEM, "%s", device->id);
	virtio_transport_init(&mmio->base, &transport_ops, device);
	mmio->config = *config;
	mmio->irq_fd = -1;
	code = virtio_mmio_wire(mmio, err);
	if (code == 0) {
		virtio_transport_attach(&mmio->base);
		code = bus_add(config->mmio, config->addr, PAGE_BYTES, &bus_ops, mmio, "virtio-mmio", err);
	}
	if (code < 0) {
		device->transport = NULL;
		virtio_mmio_free(&mmio->base);
		return code;
	}
	*ret = &mmio->base;
	return 0;
}
