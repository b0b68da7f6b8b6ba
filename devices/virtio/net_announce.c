/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The announcement that the guest is on another host. The network gets a frame from the guest's address, from which the
 * switches learn its port (RFC 903; of a kind that no host answers). It is sent several times, at growing intervals, as
 * a switch may be busy or a link not up yet. A guest whose driver has VIRTIO_NET_F_GUEST_ANNOUNCE (virtio 1.2 section
 * 5.1.6.5.4) is asked to announce itself, too: it knows its IP addresses and its VLANs.
 */
#include "devices/virtio/net_internal.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>

#define ROUNDS 5u
#define LATER_MS 100u /* longer each time */
#define RARP_REQUEST 3 /* no host answers it */

struct announcement {
	struct virtio_net_hdr_v1 header;
	struct ether_header ethernet;
	struct arphdr arp;
	struct {
		uint8_t mac[6], ip[4];
	} __attribute__((packed)) sender, target;
	uint8_t padding[ETH_ZLEN - sizeof(struct ether_header) - sizeof(struct arphdr) - 20];
} __attribute__((packed));

static void net_announce_send(struct net_device *net)
{
	struct announcement frame = {
		.ethernet.ether_dhost = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		.ethernet.ether_type = htons(ETHERTYPE_REVARP),
		.arp = {.ar_hrd = htons(ARPHRD_ETHER), .ar_pro = htons(ETHERTYPE_IP), .ar_hln = 6, .ar_pln = 4,
			.ar_op = htons(RARP_REQUEST)},
	};
	const struct iovec iov = {&frame, sizeof(frame)};

	pthread_mutex_lock(&net->config_lock);
	memcpy(frame.ethernet.ether_shost, net->state.mac, 6);
	memcpy(frame.sender.mac, net->state.mac, 6);
	memcpy(frame.target.mac, net->state.mac, 6);
	pthread_mutex_unlock(&net->config_lock);
	net->backend->ops->send(net->backend, 0, &iov, 1, sizeof(frame));
}

/* Its driver reads the status, announces the guest, and acknowledges. */
static void net_announce_ask_guest(struct net_device *net)
{
	if (!virtio_has(&net->virtio, VIRTIO_NET_F_GUEST_ANNOUNCE) || !virtio_has(&net->virtio, VIRTIO_NET_F_CTRL_VQ))
		return;
	pthread_mutex_lock(&net->config_lock);
	net->announce = true;
	pthread_mutex_unlock(&net->config_lock);
	virtio_device_config_changed(&net->virtio);
}

void net_announce_begin(struct net_device *net)
{
	net_announce_send(net);
	net_announce_ask_guest(net);
	net->announcements = ROUNDS - 1;
}

/* A backend that keeps the rest of a packet belongs to its pair's thread. */
unsigned int net_announce_again(struct net_device *net)
{
	if (!net->announcements)
		return 0;
	if (!net->backend->ops->flush)
		net_announce_send(net);
	net_announce_ask_guest(net);
	net->announcements--;
	return net->announcements ? NET_ANNOUNCE_MS + (ROUNDS - 1 - net->announcements) * LATER_MS : 0;
}
