/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of virtio-net, and how the network hears that a guest is elsewhere: by a frame from the guest's address,
 * which every switch on the way learns from (RFC 903; the kind that asks for nothing a host would answer).
 */
#include "devices/virtio/net_internal.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>

struct image {
	uint8_t mac[6];
	bool link_up;
	uint16_t mtu;
	uint16_t pairs_used;
	uint64_t offloads;
};

static struct net_device *net_state_of(void *device)
{
	return container_of((struct virtio_device *)device, struct net_device, virtio);
}

static int net_state_fill(void *object, void *into, struct err *err)
{
	struct net_device *net = net_state_of(object);
	struct image *image = into;

	pthread_mutex_lock(&net->config_lock);
	memcpy(image->mac, net->config.mac, sizeof(image->mac));
	/* As the guest was told it: what is different here it hears when it goes on. */
	image->link_up = !!(net->config.status & htole16(VIRTIO_NET_S_LINK_UP)) != net->link_changed;
	image->mtu = le16toh(net->config.mtu);
	pthread_mutex_unlock(&net->config_lock);
	if (net->virtio.active) {
		image->pairs_used = (uint16_t)net->pairs_used;
		image->offloads = net->offloads;
	}
	return 0;
}

/* The backend does for the guest what the one before did. */
static int net_state_load_backend(struct net_device *net, const struct image *image, struct err *err)
{
	const struct net_backend_ops *ops = net->backend->ops;
	int ret = 0;

	if (!image->pairs_used || image->pairs_used > net->backend->pairs)
		return err_set(err, -EBADMSG, "%u pairs of queues are in use, of %u", image->pairs_used,
			       net->backend->pairs);
	for (unsigned int i = 0; i < 2u * image->pairs_used; i++)
		if (!net->virtio.queues[i].setup.enabled)
			return err_set(err, -EBADMSG, "queue %u is in use and not enabled", i);
	if (image->offloads & ~(net->virtio.features & NET_GUEST_OFFLOADS))
		return err_set(err, -EBADMSG, "offloads 0x%llx were not negotiated",
			       (unsigned long long)image->offloads);
	ret = ops->set_offloads(net->backend, image->offloads);
	if (ret < 0)
		return err_sys(err, ret, "offloads of the backend");
	net->pairs_used = image->pairs_used;
	net->offloads = image->offloads;
	return net_make_pairs(net, 1, err);
}

/* A driver that was told of an MTU sends packets of that size; one that was not reads what is here. */
static int net_state_load_mtu(struct net_device *net, uint16_t mtu, struct err *err)
{
	if (!virtio_has(&net->virtio, VIRTIO_NET_F_MTU))
		return 0;
	if (mtu > net->backend->mtu)
		return err_set(err, -ENOTSUP,
			       "the guest sends packets of up to %u bytes; the network here takes %u: set the "
			       "interface's mtu", mtu, net->backend->mtu);
	net->config.mtu = htole16(mtu);
	return 0;
}

static int net_state_apply(void *object, const void *from, uint32_t version, struct err *err)
{
	struct net_device *net = net_state_of(object);
	const struct image *image = from;
	int ret = 0;

	if (image->mac[0] & 1)
		return err_set(err, -EBADMSG, "its address is a multicast one");
	if (net->virtio.active)
		ret = net_state_load_backend(net, image, err);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&net->config_lock);
	memcpy(net->config.mac, image->mac, sizeof(image->mac));
	ret = net_state_load_mtu(net, image->mtu, err);
	net->link_changed = net->virtio.active &&
	image->link_up != !!(net->config.status & htole16(VIRTIO_NET_S_LINK_UP));
	pthread_mutex_unlock(&net->config_lock);
	net->loaded = net->virtio.active;
	return ret;
}

static const struct state_field fields[] = {
	STATE_BYTES(struct image, mac, 1),
	STATE_BOOL(struct image, link_up, 1),
	STATE_UINT(struct image, mtu, 1),
	STATE_UINT(struct image, pairs_used, 1),
	STATE_UINT(struct image, offloads, 1),
};

const struct state_table net_state = {
	.name = "net", .version = 1, .oldest = 1, STATE_FIELDS(fields), .image = sizeof(struct image),
	.fill = net_state_fill, .apply = net_state_apply,
};

/* ---- to the network ---- */

#define RARP_REQUEST 3 /* and so its answer is nobody's to give */

struct announcement {
	struct virtio_net_hdr_v1 header;
	struct ether_header ethernet;
	struct arphdr arp;
	struct {
		uint8_t mac[6], ip[4];
	} __attribute__((packed)) sender, target;
	uint8_t padding[ETH_ZLEN - sizeof(struct ether_header) - sizeof(struct arphdr) - 20];
} __attribute__((packed));

void net_announce(struct net_device *net)
{
	struct announcement frame = {
		.ethernet.ether_dhost = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		.ethernet.ether_type = htons(ETHERTYPE_REVARP),
		.arp = {.ar_hrd = htons(ARPHRD_ETHER), .ar_pro = htons(ETHERTYPE_IP), .ar_hln = 6, .ar_pln = 4,
			.ar_op = htons(RARP_REQUEST)},
	};
	const struct iovec iov = {&frame, sizeof(frame)};

	pthread_mutex_lock(&net->config_lock);
	memcpy(frame.ethernet.ether_shost, net->config.mac, 6);
	memcpy(frame.sender.mac, net->config.mac, 6);
	memcpy(frame.target.mac, net->config.mac, 6);
	pthread_mutex_unlock(&net->config_lock);
	/* What is lost here, the guest's next packet does. */
	net->backend->ops->send(net->backend, 0, &iov, 1, sizeof(frame));
}
