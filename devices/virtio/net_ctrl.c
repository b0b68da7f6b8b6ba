/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control queue of virtio-net (virtio 1.2 section 5.1.6.5): a table of commands, each answered with one byte. It
 * has its own thread, which may therefore start and stop the threads of the other queues. Called by net.c.
 *
 * There is no filter: every packet of the backend reaches the guest, so rx modes and address tables are accepted.
 */
#include "devices/virtio/net_internal.h"

#include "core/irq.h"
#include "core/monotonic.h"

#include <stdio.h>
#include <sys/epoll.h>

#define MAX_DATA 8u /* bytes that a command reads */

struct command {
	uint8_t class, cmd;
	uint8_t feature;  /* must have been negotiated */
	uint8_t min_data; /* bytes behind class and command */
	bool (*run)(struct net_device *net, const uint8_t *data);
};

static bool net_ctrl_agree(struct net_device *net, const uint8_t *data)
{
	return true;
}

static bool net_ctrl_set_mac(struct net_device *net, const uint8_t *data)
{
	if (data[0] & 1)
		return false;
	pthread_mutex_lock(&net->config_lock);
	memcpy(net->state.mac, data, sizeof(net->state.mac));
	pthread_mutex_unlock(&net->config_lock);
	return true;
}

static bool net_ctrl_set_pairs(struct net_device *net, const uint8_t *data)
{
	uint16_t wanted = get_le16(data), before = net->state.pairs_used;
	struct err err;

	if (wanted < 1 || wanted > net->backend->pairs)
		return false;
	net->state.pairs_used = wanted;
	if (wanted > before && (net_make_pairs(net, before, &err) < 0 || net_run_pairs(net, before, &err) < 0)) {
		log_warn(net->virtio.log, "%s", err.text);
		net->state.pairs_used = before;
		wanted = before;
	}
	net_end_pairs(net, wanted);
	net_detach_pairs(net, wanted);
	return wanted == get_le16(data);
}

static bool net_ctrl_set_offloads(struct net_device *net, const uint8_t *data)
{
	uint64_t offloads = get_le64(data);

	if (offloads & ~(net->virtio.features & NET_GUEST_OFFLOADS) ||
	    net->backend->ops->set_offloads(net->backend, offloads) < 0)
		return false;
	net->state.offloads = offloads;
	return true;
}

static bool net_ctrl_acknowledge(struct net_device *net, const uint8_t *data)
{
	bool asked;

	pthread_mutex_lock(&net->config_lock);
	asked = net->announce;
	net->announce = false;
	pthread_mutex_unlock(&net->config_lock);
	return asked;
}

static const struct command commands[] = {
	{VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_F_GUEST_ANNOUNCE, 0, net_ctrl_acknowledge},
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_F_CTRL_RX, 1, net_ctrl_agree},
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_F_CTRL_RX, 1, net_ctrl_agree},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_F_CTRL_RX, 8, net_ctrl_agree},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_F_CTRL_MAC_ADDR, 6, net_ctrl_set_mac},
	{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_F_MQ, 2, net_ctrl_set_pairs},
	{VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, 8,
	 net_ctrl_set_offloads},
};

static uint8_t net_ctrl_answer(struct net_device *net, const struct virtq_chain *chain)
{
	uint8_t request[2 + MAX_DATA] = {0};
	size_t len = virtq_chain_read(chain, 0, request, sizeof(request));

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *command = &commands[i];

		if (request[0] == command->class && request[1] == command->cmd && len >= 2u + command->min_data &&
		    virtio_has(&net->virtio, command->feature))
			return command->run(net, request + 2) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
	}
	return VIRTIO_NET_ERR;
}

static struct virtqueue *net_ctrl_queue(struct net_device *net)
{
	unsigned int pairs = virtio_has(&net->virtio, VIRTIO_NET_F_MQ) ? net->backend->pairs : 1;

	return &net->virtio.queues[2 * pairs];
}

static void net_ctrl_serve(struct net_device *net, struct virtqueue *vq, struct virtq_chain *chain)
{
	do {
		while (virtqueue_pop(vq, chain) > 0) {
			uint8_t ack;

			if (chain->out_bytes < 2 || !chain->in_bytes) {
				vq->broken = true;
				virtio_device_broken(&net->virtio, "a control command is too short");
				return;
			}
			ack = net_ctrl_answer(net, chain);
			virtqueue_push(vq, chain, (uint32_t)virtq_chain_write(chain, 0, &ack, sizeof(ack)));
			virtqueue_notify(vq);
		}
	} while (virtqueue_enable_kicks(vq));
}

static void net_ctrl_kicked(void *opaque, uint32_t events)
{
	struct net_device *net = opaque;
	struct virtqueue *vq = net_ctrl_queue(net);
	_cleanup_(free_ptr) struct virtq_chain *chain = malloc(sizeof(*chain));

	if (!chain)
		return;
	eventfd_drain(vq->kick_fd);
	pthread_mutex_lock(&net->ctrl_lock);
	virtqueue_kicked(vq);
	if (net->ctrl_running) /* net_ctrl_run kicks again */
		net_ctrl_serve(net, vq, chain);
	pthread_mutex_unlock(&net->ctrl_lock);
}

static void net_ctrl_vhost_failed(void *opaque, uint32_t events)
{
	struct net_device *net = opaque;

	for (unsigned int i = 0; i < net->backend->pairs; i++)
		if (net->vhosts[i] && eventfd_drain(vhost_error_fd(net->vhosts[i])))
			virtio_device_broken(&net->virtio, "vhost-net found an invalid queue");
}

/* Without vhost, the threads of the pairs find it. */
static void net_ctrl_backend_event(void *opaque, uint32_t events)
{
	struct net_device *net = opaque;

	if (net->backend->ops->ended(net->backend))
		net_link_down(net);
}

static void net_ctrl_announce(void *opaque, uint32_t expirations)
{
	struct net_device *net = opaque;
	unsigned int ms;

	pthread_mutex_lock(&net->ctrl_lock);
	ms = net->ctrl_running ? net_announce_again(net) : 0; /* else net_ctrl_run goes on with it */
	pthread_mutex_unlock(&net->ctrl_lock);
	if (ms)
		event_timer_set(net->announcer, ms * 1000000ull, 0);
}

static int net_ctrl_watch(struct net_device *net, int fd, event_fn *fn, struct err *err)
{
	struct event_source *source; /* freed with the loop */

	return event_loop_watch(net->ctrl_loop, fd, EPOLLIN, fn, net, &source, err);
}

static int net_ctrl_watch_vhosts(struct net_device *net, struct err *err)
{
	const struct net_backend_ops *ops = net->backend->ops;
	int ret = 0;

	for (unsigned int i = 0; ret == 0 && i < net->backend->pairs && net->vhosts[i]; i++)
		ret = net_ctrl_watch(net, vhost_error_fd(net->vhosts[i]), net_ctrl_vhost_failed, err);
	if (ret == 0 && net->vhosts[0] && ops->end_fd && ops->end_fd(net->backend) >= 0)
		ret = net_ctrl_watch(net, ops->end_fd(net->backend), net_ctrl_backend_event, err);
	return ret;
}

int net_ctrl_make(struct net_device *net, struct err *err)
{
	struct virtqueue *vq = net_ctrl_queue(net);
	bool wanted = virtio_has(&net->virtio, VIRTIO_NET_F_CTRL_VQ) && vq->setup.enabled;
	int ret;

	net->ctrl_running = net->ctrl_started = false;
	ret = event_loop_create(&net->ctrl_loop, err);
	if (ret < 0)
		return ret;
	ret = event_loop_timer(net->ctrl_loop, net_ctrl_announce, net, &net->announcer, err);
	if (ret == 0 && wanted)
		ret = net_ctrl_watch(net, vq->kick_fd, net_ctrl_kicked, err);
	ret = ret ?: net_ctrl_watch_vhosts(net, err);
	if (ret < 0)
		net_ctrl_end(net);
	return ret;
}

static int net_ctrl_start(struct net_device *net, struct err *err)
{
	char name[16];
	int ret;

	snprintf(name, sizeof(name), "%.10s.ctrl", net->virtio.id);
	ret = event_loop_start(net->ctrl_loop, name, err);
	net->ctrl_started = ret == 0;
	return ret;
}

int net_ctrl_run(struct net_device *net, struct err *err)
{
	int ret = net->ctrl_started ? 0 : net_ctrl_start(net, err);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&net->ctrl_lock);
	net->ctrl_running = true;
	if (net->announcements)
		event_timer_set(net->announcer, NET_ANNOUNCE_MS * 1000000ull, 0);
	pthread_mutex_unlock(&net->ctrl_lock);
	eventfd_kick(net_ctrl_queue(net)->kick_fd);
	return 0;
}

int net_ctrl_park(struct net_device *net, int64_t deadline)
{
	const struct timespec until = monotonic_deadline(deadline);
	int ret = -pthread_mutex_clocklock(&net->ctrl_lock, CLOCK_MONOTONIC, &until);

	if (ret < 0)
		return ret;
	net->ctrl_running = false;
	pthread_mutex_unlock(&net->ctrl_lock);
	return 0;
}

void net_ctrl_end(struct net_device *net)
{
	event_loop_destroy(net->ctrl_loop); /* and its timer */
	net->ctrl_loop = NULL;
	net->announcer = NULL;
	net->announcements = 0;
	net->announce = false;
}
