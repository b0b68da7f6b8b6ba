/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_probe.h. */
#include "tests/unit/virtio_probe.h"

struct pci_rig rig;
struct virtio_transport *pci;
struct probe *probe;
struct event_loop *loop;
struct virtio_driver *memory;
unsigned int destroyed;
uint64_t bar;

static struct probe *of(struct virtio_device *device)
{
	return container_of(device, struct probe, device);
}

static void probe_config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	virtio_config_copy(of(device)->config, sizeof(of(device)->config), offset, data, len);
}

static void wait_while_blocked(struct virtio_device *device)
{
	while (__atomic_load_n(&of(device)->blocked, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&of(device)->waits, true, __ATOMIC_SEQ_CST);
		usleep(100);
	}
}

static void probe_config_write(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len)
{
	CHECK(offset + len <= sizeof(of(device)->config));
	wait_while_blocked(device);
	memcpy(of(device)->config + offset, data, len);
}

static int probe_activate(struct virtio_device *device, struct err *err)
{
	of(device)->activated++;
	of(device)->features = device->features;
	return of(device)->fail ? err_set(err, of(device)->fail, "told to fail") : 0;
}

static void probe_reset(struct virtio_device *device)
{
	wait_while_blocked(device);
	of(device)->resets++;
}

static int probe_prepare(struct virtio_device *device, struct err *err)
{
	of(device)->prepared++;
	return 0;
}

static int probe_drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	if (of(device)->hung)
		return err_set(err, -ETIMEDOUT, "%s: told to hang", device->id);
	of(device)->drained++;
	return 0;
}

static void probe_resume(struct virtio_device *device)
{
	of(device)->resumed++;
}

static void probe_call_changed(struct virtio_device *device, unsigned int queue)
{
	of(device)->call_changed[queue]++;
}

static void probe_destroy(struct virtio_device *device)
{
	destroyed++;
	virtio_device_done(device);
	free(of(device));
}

const struct virtio_device_ops probe_ops = {
	.config_read = probe_config_read,
	.config_write = probe_config_write,
	.activate = probe_activate,
	.prepare = probe_prepare,
	.reset = probe_reset,
	.drain = probe_drain,
	.resume = probe_resume,
	.call_changed = probe_call_changed,
	.destroy = probe_destroy,
};

/* ---- the driver ---- */

uint64_t structure(uint8_t type)
{
	for (unsigned int n = 0, cap; (cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_VNDR, n)); n++)
		if (rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1) == type)
			return bar + rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_CAP_OFFSET, 4);
	CHECK(false);
	return 0;
}

uint32_t get(uint8_t type, unsigned int offset, unsigned int len)
{
	uint8_t data[8] = {0};

	CHECK(bus_read(rig.mmio, structure(type) + offset, data, len));
	return get_le32(data);
}

void set(uint8_t type, unsigned int offset, unsigned int len, uint64_t value)
{
	uint8_t data[8];

	put_le64(data, value);
	CHECK(bus_write(rig.mmio, structure(type) + offset, data, len));
}

void command(uint16_t value)
{
	rig_cfg_write(&rig, SLOT, PCI_COMMAND, 2, value);
}

void tear_down(void)
{
	virtio_transport_destroy(pci);
	if (pci)
		rig_close(&rig);
	pci = NULL;
	event_loop_destroy(loop);
	loop = NULL;
	driver_destroy(memory);
	memory = NULL;
}

static void put(struct virtio_device *device)
{
	CHECK_EQ(virtio_pci_create(device, rig.bus, rig.mmio, &rig.msi, loop, SLOT, &pci, NULL), 0);
	CHECK(virtio_transport_device(pci) == device);
	bar = rig_bar(&rig, SLOT);
}

void plug(struct virtio_device *device)
{
	put(device);
	command(MEMORY | MASTER);
}

struct probe *make_probe(void)
{
	const uint16_t sizes[QUEUES] = {16, 32, 1024};

	probe = calloc(1, sizeof(*probe));
	probe->device.offered = OWN_FEATURE;
	probe->device.config_size = sizeof(probe->config);
	probe->device.class_code = 0x00ff00;
	CHECK_EQ(virtio_device_init(&probe->device, &probe_ops, "probe0", 42, QUEUES, sizes, memory->memory, NULL, NULL), 0);
	return probe;
}

void set_up(void)
{
	tear_down();
	rig_open(&rig);
	memory = driver_create(MIB(1), false);
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	plug(&make_probe()->device);
}

void move_to(struct virtio_device *device)
{
	virtio_transport_destroy(pci);
	rig_close(&rig);
	rig_open(&rig);
	put(device);
}

void negotiate(uint64_t features)
{
	SET(device_status, ACK);
	SET(device_status, DRIVER);
	features |= VERSION_1;
	for (uint32_t i = 0; i < 2; i++) {
		SET(guest_feature_select, i);
		SET(guest_feature, features >> 32 * i);
	}
	SET(device_status, FEATURES_OK);
}

void program_queue(unsigned int index, uint64_t desc, uint64_t avail, uint64_t used)
{
	SET(queue_select, index);
	SET(queue_desc_lo, desc);
	SET(queue_desc_hi, desc >> 32);
	SET(queue_avail_lo, avail);
	SET(queue_avail_hi, avail >> 32);
	SET(queue_used_lo, used);
	SET(queue_used_hi, used >> 32);
	SET(queue_enable, 1);
}

void enable_queue(unsigned int index)
{
	uint64_t ring = driver_alloc(memory, 3 * KIB(16), KIB(16));

	program_queue(index, ring, ring + KIB(16), ring + 2 * KIB(16));
}

void bring_up(unsigned int queues)
{
	negotiate(0);
	for (unsigned int i = 0; i < queues; i++)
		enable_queue(i);
	SET(device_status, DRIVER_OK);
}

/* ---- interrupts, notifications, the window ---- */

void program_vector(unsigned int index, uint32_t data, bool masked)
{
	unsigned int cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_MSIX, 0);
	uint64_t table = bar + (rig_cfg(&rig, SLOT, cap + PCI_MSIX_TABLE, 4) & ~7u) + 16 * index;
	const uint32_t words[] = {0xfee00000, 0, data, masked};

	for (unsigned int i = 0; i < 4; i++) {
		uint8_t word[4];

		put_le32(word, words[i]);
		CHECK(bus_write(rig.mmio, table + 4 * i, word, 4));
	}
}

void enable_msix(bool on)
{
	unsigned int cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_MSIX, 0);

	rig_cfg_write(&rig, SLOT, cap + PCI_MSIX_FLAGS, 2, on ? PCI_MSIX_FLAGS_ENABLE : 0);
}

void notify(unsigned int queue)
{
	probe->device.transport->notify_queue(&probe->device, queue);
}

void config_changes(void)
{
	pthread_mutex_lock(&probe->device.lock);
	virtio_device_config_changed(&probe->device);
	pthread_mutex_unlock(&probe->device.lock);
}

bool line_high(void)
{
	return __atomic_load_n(&rig.line.level, __ATOMIC_SEQ_CST);
}

bool kicked(unsigned int queue)
{
	return eventfd_drain(probe->device.queues[queue].kick_fd);
}

unsigned int window(void)
{
	for (unsigned int n = 0, cap; (cap = rig_find_cap(&rig, SLOT, PCI_CAP_ID_VNDR, n)); n++)
		if (rig_cfg(&rig, SLOT, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1) == VIRTIO_PCI_CAP_PCI_CFG)
			return cap;
	return 0;
}

void aim(uint32_t bar_index, uint32_t offset, uint32_t len)
{
	rig_cfg_write(&rig, SLOT, window() + VIRTIO_PCI_CAP_BAR, 1, bar_index);
	rig_cfg_write(&rig, SLOT, window() + VIRTIO_PCI_CAP_OFFSET, 4, offset);
	rig_cfg_write(&rig, SLOT, window() + VIRTIO_PCI_CAP_LENGTH, 4, len);
}
