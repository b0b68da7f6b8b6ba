/* SPDX-License-Identifier: Apache-2.0 */
/* See state_devices.h. */
#include "tests/unit/state_devices.h"

#include "core/irq.h"
#include "devices/virtio/net_internal.h"

#include <fcntl.h>
#include <linux/virtio_pci.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define RAM KIB(512)
#define RING KIB(4) /* each part of a ring; of few entries */
#define ENTRIES 16u
#define BUFFER 64u
#define COMMON(name) offsetof(struct virtio_pci_common_cfg, name)
#define MSIX_TABLE 0x4000u

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "state devices: %s\n", what);
	abort();
}

/* ---- the kinds ---- */

static int make_rng(struct state_devices *d, struct virtio_device **ret)
{
	return virtio_rng_create("rng", d->ram->memory, d->loop, NULL, ret, NULL);
}

static int make_console(struct state_devices *d, struct virtio_device **ret)
{
	int in[2], out[2];

	need(pipe2(in, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(out, O_CLOEXEC | O_NONBLOCK) == 0, "no pipe");
	d->far[0] = in[1];
	d->far[1] = out[0];
	need(write(in[1], "typed", 5) == 5, "no pipe");
	return virtio_console_create("console", &in[0], &out[1], d->ram->memory, d->loop, NULL, ret, NULL);
}

static int make_balloon(struct state_devices *d, struct virtio_device **ret)
{
	return virtio_balloon_create("balloon", d->ram->memory, d->loop, NULL, ret, NULL);
}

static int make_disk(struct state_devices *d, struct virtio_device **ret)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/disk", d->dir);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	need(fd >= 0 && ftruncate(fd, KIB(64)) == 0, "no file");
	close(fd);
	return virtio_blk_create(&(struct virtio_blk_options){.id = "disk", .path = path, .queues = 2}, d->ram->memory, NULL,
				 ret, NULL);
}

static int make_vsock(struct state_devices *d, struct virtio_device **ret)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/vsock", d->dir);
	return virtio_vsock_create(&(struct virtio_vsock_options){.id = "vsock", .cid = 3, .socket = path}, d->ram->memory,
				   d->loop, NULL, ret, NULL);
}

/* A network that swallows what it gets and gives what the far end sends. */

static ssize_t net_receive(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count)
{
	ssize_t len = readv(backend->fds[pair], iov, (int)MIN(count, 1024u));

	return len > 0 ? len : -EAGAIN;
}

static int net_send(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count, size_t bytes)
{
	return 0;
}

static int net_set_offloads(struct net_backend *backend, uint64_t offloads)
{
	need(!(offloads & ~NET_GUEST_OFFLOADS), "offloads that nobody has");
	return 0;
}

static int net_set_pair(struct net_backend *backend, unsigned int pair, bool on)
{
	need(pair < backend->pairs, "a pair that is not there");
	return 0;
}

static void net_destroy(struct net_backend *backend)
{
	for (unsigned int i = 0; i < backend->pairs; i++)
		fd_close(&backend->fds[i]);
	free(backend);
}

static int make_net(struct state_devices *d, struct virtio_device **ret)
{
	static const struct net_backend_ops ops = {
		.receive = net_receive, .send = net_send, .set_offloads = net_set_offloads, .set_pair = net_set_pair,
		.destroy = net_destroy,
	};
	struct net_backend *backend = calloc(1, sizeof(*backend));
	int ends[2];

	need(backend, "no memory");
	*backend = (struct net_backend){.ops = &ops, .pairs = 2, .features = NET_GUEST_OFFLOADS, .mtu = 1500};
	for (unsigned int i = 0; i < 2; i++) {
		need(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "no socket");
		backend->fds[i] = ends[0];
		d->far[i] = ends[1];
	}
	return net_create(&(struct virtio_net_options){.id = "net"}, backend, d->ram->memory, NULL, ret, NULL);
}

static int (*const kinds[])(struct state_devices *d, struct virtio_device **ret) = {
	make_rng, make_console, make_balloon, make_disk, make_vsock, make_net,
};
const char *const state_device_names[] = {"rng", "console", "balloon", "disk", "vsock", "net"};
const unsigned int state_device_count = ARRAY_SIZE(kinds);

/* ---- the machine ---- */

void state_devices_open(struct state_devices *d)
{
	*d = (struct state_devices){.far = {-1, -1, -1, -1}, .dir = "/tmp/mvmm-state-XXXXXX"};
	signal(SIGPIPE, SIG_IGN);
	need(mkdtemp(d->dir) != NULL, "no folder");
	d->ram = driver_create(RAM, false);
	need(event_loop_create(&d->loop, NULL) == 0 && event_loop_start(d->loop, "state", NULL) == 0, "no loop");
}

void state_devices_close(struct state_devices *d)
{
	char path[64];

	state_devices_drop(d);
	event_loop_destroy(d->loop);
	driver_destroy(d->ram);
	snprintf(path, sizeof(path), "%s/disk", d->dir);
	unlink(path);
	rmdir(d->dir);
}

void state_devices_drop(struct state_devices *d)
{
	if (!d->pci)
		return;
	virtio_transport_destroy(d->pci);
	rig_close(&d->rig);
	d->pci = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(d->far); i++)
		fd_close(&d->far[i]);
}

void state_devices_make(struct state_devices *d, unsigned int kind)
{
	struct virtio_device *device;

	state_devices_drop(d);
	rig_open(&d->rig);
	d->kind = kind;
	need(kinds[kind](d, &device) == 0, "a device cannot be made");
	need(virtio_pci_create(device, d->rig.bus, d->rig.mmio, &d->rig.msi, d->loop, STATE_SLOT, &d->pci, NULL) == 0,
	     "it cannot be plugged");
}

/* ---- the driver ---- */

static void poke(struct state_devices *d, uint64_t offset, unsigned int len, uint64_t value)
{
	uint8_t data[8];

	put_le64(data, value);
	bus_write(d->rig.mmio, rig_bar(&d->rig, STATE_SLOT) + offset, data, len);
}

static void program_queue(struct state_devices *d, unsigned int index, uint64_t ring)
{
	struct vring_desc *desc = driver_at(d->ram, ring);
	struct vring_avail *avail = driver_at(d->ram, ring + RING / 4);
	bool out = index % 2; /* transmit queues, and what a disk would refuse */

	desc[0] = (struct vring_desc){.addr = htole64(ring + 3 * RING / 4), .len = htole32(BUFFER),
				      .flags = htole16(out ? 0 : VRING_DESC_F_WRITE)};
	avail->idx = htole16(1);
	poke(d, COMMON(queue_select), 2, index);
	poke(d, COMMON(queue_size), 2, ENTRIES);
	poke(d, COMMON(queue_msix_vector), 2, index + 1);
	poke(d, COMMON(queue_desc_lo), 4, ring);
	poke(d, COMMON(queue_avail_lo), 4, ring + RING / 4);
	poke(d, COMMON(queue_used_lo), 4, ring + RING / 2);
	poke(d, COMMON(queue_enable), 2, 1);
}

void state_devices_bring_up(struct state_devices *d)
{
	struct virtio_device *device = virtio_transport_device(d->pci);
	unsigned int cap = rig_find_cap(&d->rig, STATE_SLOT, PCI_CAP_ID_MSIX, 0);

	memset(d->ram->ram.host, 0, RAM);
	rig_cfg_write(&d->rig, STATE_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	rig_cfg_write(&d->rig, STATE_SLOT, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	for (unsigned int i = 0; i <= device->queue_count; i++) {
		poke(d, MSIX_TABLE + 16 * i, 4, 0xfee00000);
		poke(d, MSIX_TABLE + 16 * i + 8, 8, (100 + i) | (uint64_t)(i == 2) << 32); /* one is masked */
	}
	poke(d, COMMON(device_status), 1, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t i = 0; i < 2; i++) {
		poke(d, COMMON(guest_feature_select), 4, i);
		poke(d, COMMON(guest_feature), 4, device->offered >> 32 * i);
	}
	poke(d, COMMON(device_status), 1, VIRTIO_CONFIG_S_FEATURES_OK);
	poke(d, COMMON(msix_config), 2, 0);
	for (unsigned int i = 0; i < device->queue_count; i++)
		program_queue(d, i, DRIVER_RAM_BASE + i * RING);
	poke(d, COMMON(device_status), 1, VIRTIO_CONFIG_S_DRIVER_OK);
	driver_settle(d->loop);
}

void state_devices_use(struct state_devices *d)
{
	struct virtio_device *device = virtio_transport_device(d->pci);
	uint8_t data[8] = {0};

	for (unsigned int round = 0; round < 2; round++) {
		virtio_transport_resume(d->pci);
		for (unsigned int i = 0; i < device->queue_count; i++) {
			struct vring_avail *avail = driver_at(d->ram, DRIVER_RAM_BASE + i * RING + RING / 4);

			avail->idx = htole16((uint16_t)(le16toh(avail->idx) + 1));
			eventfd_kick(device->queues[i].kick_fd);
		}
		if (d->kind == 2)
			virtio_balloon_get_stats(device, &(struct virtio_balloon_stats){0});
		driver_settle(d->loop);
		virtio_transport_drain(d->pci, VIRTIO_NO_DEADLINE, NULL);
	}
	rig_cfg_write(&d->rig, STATE_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (unsigned int at = 0; at < 0x6000; at += 8) {
		if (at % 0x1000 == 0x40)
			at += 0x1000 - 0x40;
		bus_read(d->rig.mmio, rig_bar(&d->rig, STATE_SLOT) + at, data, sizeof(data));
	}
	virtio_transport_resume(d->pci);
	poke(d, COMMON(device_status), 1, 0);
}
