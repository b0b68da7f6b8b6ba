/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net with the kernel's vhost-net: a vhost for each queue pair, with the tap's descriptor of this pair as
 * backend. The control queue is served here. Called by net.c.
 */
#include "devices/virtio/net_internal.h"

#include "core/irq.h"

/* The features that concern vhost; the others concern only the driver and the tap. */
#define RING_FEATURES                                                                                         \
	(NET_BIT(VIRTIO_F_VERSION_1) | NET_BIT(VIRTIO_RING_F_INDIRECT_DESC) | NET_BIT(VIRTIO_RING_F_EVENT_IDX) | \
	 NET_BIT(VIRTIO_NET_F_MRG_RXBUF))

/* How long vhost polls before it sleeps, in microseconds; it yields to other threads. Each packet that it finds saves
 * the driver a kick and the host a wake-up. */
#define BUSY_US 50u

int net_vhost_open(struct net_device *net, struct dirty_set *dirty, struct err *err)
{
	const struct vhost_options options = {
		.path = "/dev/vhost-net", .module = "vhost_net", .instead = "leave vhost=on out",
		.memory = net->virtio.memory, .dirty = dirty,
	};

	for (unsigned int i = 0; i < net->backend->pairs; i++) {
		int ret = vhost_open(&options, &net->vhosts[i], err);

		if (ret < 0)
			return err_prefix(err, ret, "--net vhost=on");
		net->virtio.offered &= ~RING_FEATURES | vhost_features(net->vhosts[i]);
	}
	return 0;
}

static int net_vhost_set_backend(struct net_device *net, unsigned int index, unsigned int ring, int fd)
{
	const struct vhost_vring_file file = {.index = ring, .fd = fd};

	return vhost_ioctl(net->vhosts[index], VHOST_NET_SET_BACKEND, &file);
}

static int net_vhost_start_ring(struct net_device *net, unsigned int index, unsigned int ring, struct err *err)
{
	struct virtio_device *device = &net->virtio;
	struct virtqueue *vq = &device->queues[2 * index + ring];
	const struct vhost_vring_state busy = {.index = ring, .num = BUSY_US};
	int ret;

	/* Optional: old kernels do not have it. */
	vhost_ioctl(net->vhosts[index], VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &busy);
	ret = vhost_ring_start(net->vhosts[index], ring, vq, device->transport->call_fd(device, vq->index), err);
	if (ret < 0)
		return ret;
	ret = net_vhost_set_backend(net, index, ring, net->backend->fds[index]);
	if (ret < 0)
		return err_sys(err, ret, "/dev/vhost-net: the tap as its backend");
	/* Check the queue once. */
	eventfd_kick(vq->kick_fd);
	return 0;
}

int net_vhost_start(struct net_device *net, unsigned int index, struct err *err)
{
	int ret;

	if (net->vhost_running[index] || !net_link_is_up(net))
		return 0;
	ret = vhost_set_features(net->vhosts[index], net->virtio.features & RING_FEATURES, err);
	if (ret < 0)
		return err_prefix(err, ret, "%s", net->virtio.id);
	net->vhost_running[index] = true;
	for (unsigned int ring = 0; ring < 2; ring++) {
		ret = net_vhost_start_ring(net, index, ring, err);
		if (ret < 0) {
			net_vhost_stop(net, index);
			return err_prefix(err, ret, "%s", net->virtio.id);
		}
	}
	return 0;
}

void net_vhost_call_changed(struct net_device *net, unsigned int queue)
{
	struct virtio_device *device = &net->virtio;
	unsigned int index = queue / 2;

	if (index < net->backend->pairs && net->vhost_running[index])
		vhost_ring_call(net->vhosts[index], queue % 2, device->transport->call_fd(device, queue));
}

void net_vhost_stop(struct net_device *net, unsigned int index)
{
	if (!net->vhost_running[index])
		return;
	for (unsigned int ring = 0; ring < 2; ring++) {
		net_vhost_set_backend(net, index, ring, VHOST_FILE_UNBIND);
		vhost_ring_stop(net->vhosts[index], ring, &net->virtio.queues[2 * index + ring]);
	}
	net->vhost_running[index] = false;
}
