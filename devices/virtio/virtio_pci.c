/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI transport of virtio devices, modern only (virtio 1.2 section 4.1): one 64-bit BAR with the configuration
 * structures, the notification addresses and the MSI-X table; capabilities with their offsets.
 *
 * The kernel turns a notification of the guest into a kick of the queue's kick_fd, and a kick of a vector's eventfd
 * into an interrupt. Without MSI-X an interrupt is the ISR byte and the INTx pin.
 */
#include "devices/virtio/virtio_pci_internal.h"

#include "core/bus.h"
#include "core/monotonic.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#define VENDOR 0x1af4
#define DEVICE_BASE 0x1040 /* plus the virtio device's type */

/* The BAR: each structure has its own page. */
#define COMMON_AT 0x0000u
#define ISR_AT 0x1000u
#define CONFIG_AT 0x2000u
#define TABLE_AT 0x4000u
#define PBA_AT 0x5000u
#define BAR_SIZE 0x8000u
#define AREA_SIZE 0x1000u

#define BUS_MASTER_MS 1000 /* for requests in flight when the guest turns bus mastering off */

/* An eventfd, watched by the event loop, that interrupts the driver without MSI-X. */
struct virtio_pci_relay {
	struct virtio_pci *pci;
	unsigned int queue;
	int fd;
	struct event_source *source;
};

/* ---- interrupts ---- */

/* False: MSI-X has been enabled. Checked under the lock under which virtio_pci_config_written then lowers the pin. */
static bool virtio_pci_interrupt_by_pin(struct virtio_pci *pci, uint8_t isr_bit)
{
	bool by_pin;

	pthread_mutex_lock(&pci->base.isr_lock);
	by_pin = !msix_enabled(pci->msix);
	if (by_pin) {
		pci->base.isr |= isr_bit;
		pci_set_intx(&pci->function, true);
	}
	pthread_mutex_unlock(&pci->base.isr_lock);
	return by_pin;
}

static void virtio_pci_interrupt(struct virtio_pci *pci, unsigned int slot, uint8_t isr_bit)
{
	int fd;

	if (!msix_enabled(pci->msix) && virtio_pci_interrupt_by_pin(pci, isr_bit))
		return;
	fd = __atomic_load_n(&pci->vector_fd[slot], __ATOMIC_ACQUIRE);
	if (fd >= 0)
		eventfd_kick(fd);
}

static void virtio_pci_notify_queue(struct virtio_device *device, unsigned int queue)
{
	virtio_pci_interrupt(virtio_pci_of_transport(device->transport_opaque), queue, VIRTIO_ISR_QUEUE);
}

static void virtio_pci_notify_config(struct virtio_device *device)
{
	struct virtio_pci *pci = virtio_pci_of_transport(device->transport_opaque);

	if (virtio_transport_driven(&pci->base))
		virtio_pci_interrupt(pci, VIRTIO_CONFIG_SLOT, VIRTIO_ISR_CONFIG);
}

static void virtio_pci_relay_kicked(void *opaque, uint32_t events)
{
	struct virtio_pci_relay *relay = opaque;

	if (!eventfd_drain(relay->fd))
		return;
	if (virtio_transport_driven(&relay->pci->base))
		virtio_pci_interrupt(relay->pci, relay->queue, VIRTIO_ISR_QUEUE);
}

/*
 * Moves pending kicks of the relays' eventfds into the ISR byte, as the loop would do: now, before the vCPUs are saved, for
 * a pin that is raised later interrupts a vCPU whose state is gone already. Without the device's lock.
 */
static void virtio_pci_drained(struct virtio_transport *transport)
{
	struct virtio_pci *pci = virtio_pci_of_transport(transport);

	for (unsigned int i = 0; i < VIRTIO_MAX_QUEUES; i++)
		if (pci->relays[i])
			virtio_pci_relay_kicked(pci->relays[i], 0);
}

static void virtio_pci_free_relay(struct virtio_pci_relay *relay)
{
	if (!relay)
		return;
	event_source_remove(relay->source);
	fd_close(&relay->fd);
	free(relay);
}

/* Created on first use, kept until destroy. */
static int virtio_pci_relay_fd(struct virtio_pci *pci, unsigned int queue)
{
	struct virtio_pci_relay *relay = pci->relays[queue];

	if (relay)
		return relay->fd;
	relay = calloc(1, sizeof(*relay));
	if (!relay)
		return -ENOMEM;
	*relay = (struct virtio_pci_relay){.pci = pci, .queue = queue};
	relay->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (relay->fd < 0 ||
	    event_loop_watch(pci->loop, relay->fd, EPOLLIN, virtio_pci_relay_kicked, relay, &relay->source, NULL) < 0) {
		virtio_pci_free_relay(relay);
		return -EMFILE;
	}
	pci->relays[queue] = relay;
	return relay->fd;
}

static int virtio_pci_call_fd(struct virtio_device *device, unsigned int queue)
{
	struct virtio_pci *pci = virtio_pci_of_transport(device->transport_opaque);
	int fd = __atomic_load_n(&pci->vector_fd[queue], __ATOMIC_ACQUIRE);

	return msix_enabled(pci->msix) && fd >= 0 ? fd : virtio_pci_relay_fd(pci, queue);
}

/* ---- notifications ---- */

static void virtio_pci_kick_write(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len)
{
	uint64_t queue = offset / VIRTIO_PCI_NOTIFY_STEP;

	if (queue < pci->base.device->queue_count)
		eventfd_kick(pci->base.device->queues[queue].kick_fd);
}

/* ---- the BAR ---- */

static void virtio_pci_isr_read(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len)
{
	if (offset)
		return;
	pthread_mutex_lock(&pci->base.isr_lock);
	*(uint8_t *)data = pci->base.isr;
	pci->base.isr = 0;
	pci_set_intx(&pci->function, false);
	pthread_mutex_unlock(&pci->base.isr_lock);
}

static void virtio_pci_read_common(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len)
{
	if (offset + len > sizeof(struct virtio_pci_common_cfg))
		return;
	pthread_mutex_lock(&pci->base.device->lock);
	virtio_pci_common_read(pci, offset, data, len);
	pthread_mutex_unlock(&pci->base.device->lock);
}

static void virtio_pci_write_common(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len)
{
	if (offset + len > sizeof(struct virtio_pci_common_cfg))
		return;
	virtio_transport_lock(&pci->base);
	virtio_pci_common_write(pci, offset, data, len);
	virtio_transport_unlock(&pci->base);
}

static void virtio_pci_device_read(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len)
{
	virtio_transport_read_config(&pci->base, offset, data, len);
}

static void virtio_pci_device_write(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len)
{
	virtio_transport_write_config(&pci->base, offset, data, len);
}

static void virtio_pci_table_read(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len)
{
	if (offset + len <= msix_table_size(pci->msix))
		msix_table_read(pci->msix, offset, data, len);
}

static void virtio_pci_table_write(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len)
{
	if (offset + len <= msix_table_size(pci->msix))
		msix_table_write(pci->msix, offset, data, len);
}

static void virtio_pci_pba_read(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len)
{
	if (offset + len <= msix_pba_size(pci->msix))
		msix_pba_read(pci->msix, offset, data, len);
}

/* The accesses to each page of the BAR. */
static const struct area {
	void (*read)(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len);
	void (*write)(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len);
} areas[BAR_SIZE / AREA_SIZE] = {
	[COMMON_AT / AREA_SIZE] = {virtio_pci_read_common, virtio_pci_write_common},
	[ISR_AT / AREA_SIZE] = {virtio_pci_isr_read, NULL},
	[CONFIG_AT / AREA_SIZE] = {virtio_pci_device_read, virtio_pci_device_write},
	[VIRTIO_PCI_NOTIFY_AT / AREA_SIZE] = {NULL, virtio_pci_kick_write},
	[TABLE_AT / AREA_SIZE] = {virtio_pci_table_read, virtio_pci_table_write},
	[PBA_AT / AREA_SIZE] = {virtio_pci_pba_read, NULL},
};

static void virtio_pci_bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	const struct area *area = &areas[offset / AREA_SIZE];

	memset(data, 0, len);
	if (area->read && offset % AREA_SIZE + len <= AREA_SIZE)
		area->read(opaque, offset % AREA_SIZE, data, len);
}

static void virtio_pci_bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	const struct area *area = &areas[offset / AREA_SIZE];

	if (area->write && offset % AREA_SIZE + len <= AREA_SIZE)
		area->write(opaque, offset % AREA_SIZE, data, len);
}

static const struct bus_ops bar_ops = {virtio_pci_bar_read, virtio_pci_bar_write};

/* ---- config space ---- */

static struct virtio_pci *virtio_pci_of(struct pci_function *function)
{
	return container_of(function, struct virtio_pci, function);
}

static bool virtio_pci_in_window(const struct virtio_pci *pci, unsigned int offset, unsigned int len)
{
	return ranges_overlap(offset, len, pci->window + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data), 4);
}

/* The access that VIRTIO_PCI_CAP_PCI_CFG describes (section 4.1.4.9); false: none. */
static bool virtio_pci_window_target(const struct virtio_pci *pci, uint32_t *offset, uint32_t *len)
{
	const uint8_t *cap = pci->function.config + pci->window;

	*offset = get_le32(cap + offsetof(struct virtio_pci_cap, offset));
	*len = get_le32(cap + offsetof(struct virtio_pci_cap, length));
	return cap[offsetof(struct virtio_pci_cap, bar)] == VIRTIO_PCI_BAR && (*len == 1 || *len == 2 || *len == 4) &&
	       *offset % *len == 0 && *offset < BAR_SIZE;
}

static uint8_t *virtio_pci_window_data(struct virtio_pci *pci)
{
	return pci->function.config + pci->window + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
}

static void virtio_pci_config_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len)
{
	struct virtio_pci *pci = virtio_pci_of(function);
	uint32_t at, width;

	if (virtio_pci_in_window(pci, offset, len) && virtio_pci_window_target(pci, &at, &width))
		virtio_pci_bar_read(pci, at, virtio_pci_window_data(pci), width);
	pci_config_read(function, offset, data, len);
}

static void virtio_pci_calls_changed(struct virtio_pci *pci)
{
	pthread_mutex_lock(&pci->base.device->lock);
	for (unsigned int i = 0; i < pci->base.device->queue_count; i++)
		virtio_transport_call_changed(&pci->base, i);
	pthread_mutex_unlock(&pci->base.device->lock);
}

static void virtio_pci_config_written(struct pci_function *function, unsigned int offset, unsigned int len)
{
	struct virtio_pci *pci = virtio_pci_of(function);
	bool by_message = msix_enabled(pci->msix);
	uint32_t at, width;

	msix_config_written(pci->msix);
	pthread_mutex_lock(&pci->base.isr_lock);
	pci_set_intx(function, pci->base.isr && !msix_enabled(pci->msix));
	pthread_mutex_unlock(&pci->base.isr_lock);
	if (by_message != msix_enabled(pci->msix))
		virtio_pci_calls_changed(pci);
	if (virtio_pci_in_window(pci, offset, len) && virtio_pci_window_target(pci, &at, &width))
		virtio_pci_bar_write(pci, at, virtio_pci_window_data(pci), width);
}

static void virtio_pci_bar_moved(struct pci_function *function, unsigned int bar, uint64_t old)
{
	struct virtio_pci *pci = virtio_pci_of(function);

	pthread_mutex_lock(&pci->base.device->lock);
	virtio_pci_place_kicks(pci);
	pthread_mutex_unlock(&pci->base.device->lock);
}

static void virtio_pci_bus_master(struct pci_function *function, bool on)
{
	struct virtio_pci *pci = virtio_pci_of(function);

	virtio_transport_lock(&pci->base);
	/* Without bus mastering nothing may access memory, but the bus's lock is held: what hangs ends later. */
	virtio_transport_settle(&pci->base, monotonic_ms() + BUS_MASTER_MS, NULL);
	virtio_transport_unlock(&pci->base);
}

static const struct pci_function_ops function_ops = {
	.config_read = virtio_pci_config_read,
	.config_written = virtio_pci_config_written,
	.bar_moved = virtio_pci_bar_moved,
	.bus_master = virtio_pci_bus_master,
};

/* ---- construction ---- */

static int virtio_pci_add_capability(struct virtio_pci *pci, uint8_t type, uint32_t offset, uint32_t length,
				     uint8_t size)
{
	int cap = pci_add_capability(&pci->function, PCI_CAP_ID_VNDR, size);
	uint8_t *config = pci->function.config + cap;

	if (cap < 0)
		return cap;
	config[VIRTIO_PCI_CAP_LEN] = size;
	config[VIRTIO_PCI_CAP_CFG_TYPE] = type;
	config[VIRTIO_PCI_CAP_BAR] = VIRTIO_PCI_BAR;
	put_le32(config + VIRTIO_PCI_CAP_OFFSET, offset);
	put_le32(config + VIRTIO_PCI_CAP_LENGTH, length);
	return cap;
}

static int virtio_pci_add_capabilities(struct virtio_pci *pci)
{
	const uint8_t size = sizeof(struct virtio_pci_cap);
	struct virtio_device *device = pci->base.device;
	int cap;

	cap = virtio_pci_add_capability(pci, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_AT, sizeof(struct virtio_pci_common_cfg),
					size);
	if (cap >= 0)
		cap = virtio_pci_add_capability(pci, VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, 1, size);
	if (cap >= 0 && device->config_size)
		cap = virtio_pci_add_capability(pci, VIRTIO_PCI_CAP_DEVICE_CFG, CONFIG_AT, device->config_size, size);
	if (cap >= 0)
		cap = virtio_pci_add_capability(pci, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_NOTIFY_AT,
						device->queue_count * VIRTIO_PCI_NOTIFY_STEP,
						sizeof(struct virtio_pci_notify_cap));
	if (cap < 0)
		return cap;
	put_le32(pci->function.config + cap + VIRTIO_PCI_NOTIFY_CAP_MULT, VIRTIO_PCI_NOTIFY_STEP);
	cap = virtio_pci_add_capability(pci, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, sizeof(struct virtio_pci_cfg_cap));
	if (cap < 0)
		return cap;
	pci->window = (unsigned int)cap;
	pci->function.wmask[cap + VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(pci->function.wmask + cap + VIRTIO_PCI_CAP_OFFSET, 0xff, 12);
	return 0;
}

static int virtio_pci_build_function(struct virtio_pci *pci, struct msi_controller *msi, struct err *err)
{
	struct virtio_device *device = pci->base.device;
	uint16_t id = (uint16_t)(DEVICE_BASE + device->type);
	const struct msix_config config = {
		.vectors = device->queue_count + 1,
		.table_bar = VIRTIO_PCI_BAR,
		.table_offset = TABLE_AT,
		.pba_bar = VIRTIO_PCI_BAR,
		.pba_offset = PBA_AT,
		.msi = msi,
		.log = device->log,
	};
	int ret;

	pci_function_init(&pci->function, &function_ops, device->id, VENDOR, id, device->class_code, 1);
	pci_set_subsystem(&pci->function, VENDOR, id);
	pci_set_pin(&pci->function, 1);
	ret = pci_set_bar(&pci->function, VIRTIO_PCI_BAR, PCI_BAR_MEM64, true, BAR_SIZE, &bar_ops, pci);
	if (ret == 0)
		ret = virtio_pci_add_capabilities(pci);
	if (ret < 0)
		return err_sys(err, ret, "%s: pci function", device->id);
	return msix_create(&pci->function, &config, &pci->msix, err);
}

static void virtio_pci_free_relays(void *opaque)
{
	struct virtio_pci *pci = opaque;

	for (unsigned int i = 0; i < VIRTIO_MAX_QUEUES; i++)
		virtio_pci_free_relay(pci->relays[i]);
}

/* All but the device, which the caller keeps if create fails. */
static void virtio_pci_free(struct virtio_transport *transport)
{
	struct virtio_pci *pci = virtio_pci_of_transport(transport);

	event_loop_call(pci->loop, virtio_pci_free_relays, pci);
	msix_destroy(pci->msix);
	virtio_transport_done(transport);
	free(pci);
}

/* ---- what the common part asks for ---- */

static bool virtio_pci_may_run(const struct virtio_transport *transport)
{
	return pci_bus_master_enabled(&virtio_pci_of_transport(transport)->function);
}

static void virtio_pci_reset(struct virtio_transport *transport)
{
	struct virtio_pci *pci = virtio_pci_of_transport(transport);

	for (unsigned int i = 0; i < transport->device->queue_count; i++)
		virtio_pci_set_vector(pci, i, VIRTIO_MSI_NO_VECTOR);
	virtio_pci_set_vector(pci, VIRTIO_CONFIG_SLOT, VIRTIO_MSI_NO_VECTOR);
	pthread_mutex_lock(&transport->isr_lock);
	transport->isr = 0;
	pci_set_intx(&pci->function, false);
	pthread_mutex_unlock(&transport->isr_lock);
}

static void virtio_pci_kick(struct virtio_transport *transport)
{
	msix_kick(virtio_pci_of_transport(transport)->msix);
}

static void virtio_pci_detach(struct virtio_transport *transport)
{
	pci_bus_remove(&virtio_pci_of_transport(transport)->function);
}

static unsigned int virtio_pci_slot(const struct virtio_transport *transport)
{
	return virtio_pci_of_transport(transport)->function.devfn >> 3;
}

static const struct virtio_transport_ops transport_ops = {
	.notify_queue = virtio_pci_notify_queue,
	.notify_config = virtio_pci_notify_config,
	.call_fd = virtio_pci_call_fd,
	.may_run = virtio_pci_may_run,
	.reset = virtio_pci_reset,
	.drained = virtio_pci_drained,
	.kick = virtio_pci_kick,
	.detach = virtio_pci_detach,
	.free = virtio_pci_free,
	.slot = virtio_pci_slot,
	.state = &virtio_pci_state,
	.save = virtio_pci_state_save,
	.load = virtio_pci_state_load,
};

int virtio_pci_create(struct virtio_device *device, struct pci_bus *bus, struct bus *mmio, struct msi_controller *msi,
		      struct event_loop *loop, int devfn, struct virtio_transport **ret, struct err *err)
{
	struct virtio_pci *pci = calloc(1, sizeof(*pci));
	int code;

	if (!pci)
		return err_sys(err, -ENOMEM, "%s", device->id);
	virtio_transport_init(&pci->base, &transport_ops, device);
	pci->mmio = mmio;
	pci->loop = loop;
	for (unsigned int i = 0; i < ARRAY_SIZE(pci->kick_addr); i++)
		pci->kick_addr[i] = PCI_UNMAPPED;
	code = virtio_pci_build_function(pci, msi, err);
	if (code == 0) {
		virtio_transport_attach(&pci->base);
		code = pci_bus_add(bus, &pci->function, devfn, err);
	}
	if (code < 0) {
		device->transport = NULL;
		virtio_pci_free(&pci->base);
		return code;
	}
	*ret = &pci->base;
	return 0;
}
