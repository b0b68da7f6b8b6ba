/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio-net queue pair and its thread: moves packets between guest and backend without a copy. Called by net.c.
 *
 * The thread alternates between a bounded round of sending and one of receiving, and sleeps when there is nothing to
 * do. It sleeps in epoll, edge-triggered: a kick needs no read(2) to be cleared.
 *
 * Receiving: the guest's buffers are popped in advance until the longest packet fits or there are no more (one buffer
 * if the driver does not merge buffers), the backend fills them with one call, and the used ones are pushed. A spare
 * buffer of our own follows them. A packet that ends in it is too long for the guest's buffers: it is held until the
 * driver has posted enough of them, and dropped if that takes long or cannot be.
 *
 * Beyond the card's limit, packets wait where they are, in the driver's queue or in the backend.
 */
#include "devices/virtio/net_internal.h"

#include "core/irq.h"
#include "core/monotonic.h"
#include "devices/virtio/iov.h"

#include <stdio.h>
#include <sys/epoll.h>

#define ROUND 64u /* packets in one direction before the other direction */

enum { EVENT_BACKEND, EVENT_RX, EVENT_TX, EVENTS };

struct rx_buffer {
	uint16_t head;
	uint16_t segments;
	uint32_t bytes;
};

struct net_pair {
	struct net_device *net;
	struct net_backend *backend;
	struct virtqueue *rx, *tx;
	struct virtio_net_counts *counts;
	unsigned int index;
	int epoll_fd;
	bool merge;        /* packets may span receive buffers */
	bool readable;     /* the backend may have a packet */
	bool writable;     /* the backend may take one */
	bool flush;        /* the backend may have the rest of a packet */
	bool starved;      /* no receive buffers; the driver kicks when it has posted some */
	bool hung_up;      /* the backend ends after the packets that can still be read */
	bool gone;         /* it has ended */
	uint32_t interest; /* epoll's events for the backend */
	uint64_t rx_limited_ns, tx_limited_ns; /* so long a limit lets no packet pass; 0: it does */

	/* Receive buffers popped and not yet pushed: a window on both arrays. */
	unsigned int first_buffer, buffers, first_segment, segments;
	uint64_t bytes;
	struct rx_buffer buffer[2 * NET_IOV_MAX];
	struct iovec segment[2 * NET_IOV_MAX + 1];
	/*
	 * A packet that needs more buffers: its length (0: none), how many of its bytes are in the window, and until
	 * when.
	 */
	uint64_t held, held_in_window;
	int64_t held_until;
	struct virtq_chain chain;
	uint8_t spare[NET_MAX_PACKET]; /* the end of a packet that is too long for the window */
	uint8_t flat[NET_MAX_PACKET];  /* a packet to send */
};

/* Nothing is popped from this queue until the driver has reset the device. */
static void net_pair_give_up(struct net_pair *pair, struct virtqueue *vq, const char *why)
{
	vq->broken = true;
	virtio_device_broken(&pair->net->virtio, why);
}

static void net_pair_lost_backend(struct net_pair *pair)
{
	pair->gone = true;
	pair->readable = false;
	net_link_down(pair->net);
}

/* ---- from the guest ---- */

/* For more segments than a system call takes. */
static int net_pair_send_flat(struct net_pair *pair)
{
	struct iovec flat = {.iov_base = pair->flat};

	if (pair->chain.out_bytes > sizeof(pair->flat))
		return 0;
	flat.iov_len = virtq_chain_read(&pair->chain, 0, pair->flat, pair->chain.out_bytes);
	return pair->backend->ops->send(pair->backend, pair->index, &flat, 1, flat.iov_len);
}

static int net_pair_send_chain(struct net_pair *pair)
{
	const struct virtq_chain *chain = &pair->chain;
	int ret;

	if (pair->gone || chain->out_bytes == NET_HDR_SIZE || net_link_unplugged(pair->net))
		return 0;
	if (chain->out_count > NET_IOV_MAX - 1) /* the backend may need one for itself */
		ret = net_pair_send_flat(pair);
	else
		ret = pair->backend->ops->send(pair->backend, pair->index, chain->iov, chain->out_count,
					       chain->out_bytes);
	if (ret == -EPIPE)
		net_pair_lost_backend(pair);
	pair->flush = ret == 1;
	return ret == -EAGAIN ? ret : 0;
}

/* False: the backend still has the rest of a packet. */
static bool net_pair_flushed(struct net_pair *pair)
{
	int ret = pair->flush && !pair->gone ? pair->backend->ops->flush(pair->backend, pair->index) : 0;

	if (ret == -EPIPE)
		net_pair_lost_backend(pair);
	pair->writable = ret != -EAGAIN;
	pair->flush = ret == -EAGAIN;
	return !pair->flush;
}

/* Whether the limit lets a packet be sent; else there is one, and tx_limited_ns says when it may. */
static bool net_pair_may_send(struct net_pair *pair)
{
	struct rate_limiter *limiter = &pair->net->tx;

	pair->tx_limited_ns = rate_limiter_on(limiter) && virtqueue_ready(pair->tx) ? rate_limiter_wait(limiter) : 0;
	return !pair->tx_limited_ns;
}

/* True: there is more to do at once. */
static bool net_pair_transmit(struct net_pair *pair)
{
	unsigned int count = 0;
	int got = 1;

	pair->tx_limited_ns = 0;
	if (!pair->writable || pair->tx->broken)
		return false;
	virtqueue_disable_kicks(pair->tx);
	while (count < ROUND && net_pair_flushed(pair) && net_pair_may_send(pair) &&
	       (got = virtqueue_pop(pair->tx, &pair->chain)) > 0) {
		if (pair->chain.out_bytes < NET_HDR_SIZE) {
			net_pair_give_up(pair, pair->tx, "a packet to send is shorter than its header");
			got = -EPROTO;
			break;
		}
		if (net_pair_send_chain(pair) == -EAGAIN) {
			virtqueue_unpop(pair->tx);
			pair->writable = false;
			break;
		}
		counter_add(&pair->counts->tx_packets, 1);
		counter_add(&pair->counts->tx_bytes, pair->chain.out_bytes - NET_HDR_SIZE);
		rate_limiter_charge(&pair->net->tx, pair->chain.out_bytes - NET_HDR_SIZE, 1);
		virtqueue_push(pair->tx, &pair->chain, 0);
		count++;
	}
	if (count)
		virtqueue_notify(pair->tx);
	if (got == 0)
		return virtqueue_enable_kicks(pair->tx);
	return got > 0 && pair->writable && !pair->tx_limited_ns;
}

/* ---- to the guest ---- */

/* Moves the window to the front of its arrays if the next chain might not fit behind it. */
static void net_pair_make_room(struct net_pair *pair)
{
	if (pair->first_segment + pair->segments + NET_IOV_MAX > 2 * NET_IOV_MAX) {
		memmove(pair->segment, pair->segment + pair->first_segment, pair->segments * sizeof(pair->segment[0]));
		pair->first_segment = 0;
	}
	if (pair->first_buffer + pair->buffers == ARRAY_SIZE(pair->buffer)) {
		memmove(pair->buffer, pair->buffer + pair->first_buffer, pair->buffers * sizeof(pair->buffer[0]));
		pair->first_buffer = 0;
	}
}

/* Adds one chain to the window: 1; 0: there is none; -ENOBUFS: the window has no room for it; -EPROTO. */
static int net_pair_gather_one(struct net_pair *pair)
{
	struct virtq_chain *chain = &pair->chain;
	struct rx_buffer *buffer;
	unsigned int room = NET_IOV_MAX - 1 - pair->segments;
	int got = room ? virtqueue_pop(pair->rx, chain) : -ENOBUFS;

	if (got <= 0)
		return got;
	if (chain->in_bytes < NET_HDR_SIZE) {
		net_pair_give_up(pair, pair->rx, "a receive buffer is shorter than a packet's header");
		return -EPROTO;
	}
	if (chain->in_count > room && pair->buffers) {
		virtqueue_unpop(pair->rx);
		return -ENOBUFS;
	}
	net_pair_make_room(pair);
	buffer = &pair->buffer[pair->first_buffer + pair->buffers];
	*buffer = (struct rx_buffer){.head = chain->head, .segments = (uint16_t)MIN(chain->in_count, room)};
	for (unsigned int i = 0; i < buffer->segments; i++) {
		const struct iovec *in = &chain->iov[chain->out_count + i];

		pair->segment[pair->first_segment + pair->segments + i] = *in;
		buffer->bytes += (uint32_t)in->iov_len;
	}
	pair->buffers++;
	pair->segments += buffer->segments;
	pair->bytes += buffer->bytes;
	return 1;
}

static void net_pair_hold(struct net_pair *pair, uint64_t len)
{
	pair->held = len;
	pair->held_in_window = pair->bytes;
	pair->held_until = monotonic_ms() + pair->net->hold_ms;
}

static void net_pair_drop(struct net_pair *pair)
{
	pair->held = 0;
	counter_add(&pair->counts->rx_dropped, 1);
}

/* The window holds the held packet now: completes it, and returns its length. */
static ssize_t net_pair_unhold(struct net_pair *pair)
{
	uint64_t len = pair->held;

	iov_scatter(&pair->segment[pair->first_segment], pair->segments, pair->held_in_window, pair->spare,
		    len - pair->held_in_window);
	pair->held = 0;
	return (ssize_t)len;
}

/*
 * True: there are buffers, and enough of them for a packet that is held. Gathers as many as the longest packet needs if
 * the driver merges buffers.
 */
static bool net_pair_gather(struct net_pair *pair)
{
	bool more = pair->merge ? pair->bytes < NET_MAX_PACKET : !pair->buffers;
	int got = 1;

	while (more && (got = net_pair_gather_one(pair)) > 0)
		more = pair->merge && pair->bytes < NET_MAX_PACKET;
	if (pair->held > pair->bytes && (!more || got == -ENOBUFS || monotonic_ms() >= pair->held_until))
		net_pair_drop(pair);
	return pair->buffers && pair->held <= pair->bytes;
}

/* Writes the header's num_buffers, which may straddle segments. */
static void net_pair_set_num_buffers(struct net_pair *pair, uint16_t count)
{
	size_t at = offsetof(struct virtio_net_hdr_v1, num_buffers);
	const struct iovec *segment = &pair->segment[pair->first_segment];
	uint8_t bytes[2];

	put_le16(bytes, count);
	for (unsigned int i = 0; i < sizeof(bytes); i++, at++) {
		while (at >= segment->iov_len)
			at -= (segment++)->iov_len;
		((uint8_t *)segment->iov_base)[at] = bytes[i];
	}
}

/* Pushes the buffers with a packet of len bytes, all at once. */
static void net_pair_deliver(struct net_pair *pair, uint64_t len)
{
	uint16_t count = 0;
	uint64_t held = 0;

	while (held < len)
		held += pair->buffer[pair->first_buffer + count++].bytes;
	net_pair_set_num_buffers(pair, count);
	for (uint16_t i = 0; i < count; i++) {
		const struct rx_buffer *buffer = &pair->buffer[pair->first_buffer++];
		uint32_t written = (uint32_t)MIN(len, buffer->bytes);

		virtqueue_fill(pair->rx, i, buffer->head, &pair->segment[pair->first_segment], buffer->segments,
			       written);
		len -= written;
		pair->first_segment += buffer->segments;
		pair->segments -= buffer->segments;
		pair->bytes -= buffer->bytes;
		pair->buffers--;
	}
	virtqueue_publish(pair->rx, count);
}

/* The next packet, in the window and the spare buffer: its length, or -EAGAIN. */
static ssize_t net_pair_next(struct net_pair *pair)
{
	struct iovec *segments = &pair->segment[pair->first_segment];
	ssize_t len;

	if (pair->held)
		return net_pair_unhold(pair);
	segments[pair->segments] = (struct iovec){pair->spare, sizeof(pair->spare)};
	len = pair->backend->ops->receive(pair->backend, pair->index, segments, pair->segments + 1);
	if (len == -EPIPE)
		net_pair_lost_backend(pair);
	if (len >= (ssize_t)NET_HDR_SIZE)
		rate_limiter_charge(&pair->net->rx, (uint64_t)len - NET_HDR_SIZE, 1);
	return len;
}

/* There are enough buffers again. */
static void net_pair_feed(struct net_pair *pair)
{
	if (!pair->starved)
		return;
	pair->starved = false;
	virtqueue_disable_kicks(pair->rx);
}

/* There are not enough buffers. False: the driver has posted some meanwhile. */
static bool net_pair_starve(struct net_pair *pair)
{
	if (!pair->rx->broken && virtqueue_enable_kicks(pair->rx))
		return false;
	pair->starved = true;
	if (pair->hung_up && !pair->gone)
		net_pair_lost_backend(pair);
	return true;
}

/* Whether the limit lets the next packet be received; a held one has been. */
static bool net_pair_may_receive(struct net_pair *pair)
{
	pair->rx_limited_ns = pair->held ? 0 : rate_limiter_wait(&pair->net->rx);
	return !pair->rx_limited_ns;
}

static bool net_pair_receive(struct net_pair *pair)
{
	unsigned int count = 0, delivered = 0;

	pair->rx_limited_ns = 0;
	while ((pair->readable || pair->held) && count < ROUND && net_pair_may_receive(pair)) {
		ssize_t len;

		if (!net_pair_gather(pair)) {
			if (net_pair_starve(pair))
				break;
			continue;
		}
		net_pair_feed(pair);
		len = net_pair_next(pair);
		if (len < 0) {
			pair->readable = false;
			break;
		}
		count++;
		if (net_link_unplugged(pair->net))
			continue; /* it is lost */
		if ((uint64_t)len > pair->bytes) {
			net_pair_hold(pair, (uint64_t)len);
		} else if (len >= (ssize_t)NET_HDR_SIZE) {
			counter_add(&pair->counts->rx_packets, 1);
			counter_add(&pair->counts->rx_bytes, (uint64_t)len - NET_HDR_SIZE);
			net_pair_deliver(pair, (uint64_t)len);
			delivered++;
		}
	}
	if (delivered)
		virtqueue_notify(pair->rx);
	return count == ROUND;
}

/* ---- the thread ---- */

/*
 * Without enough receive buffers, or beyond the limit, EPOLLIN is off; while the backend takes no packets, EPOLLOUT is
 * on.
 */
static void net_pair_set_interest(struct net_pair *pair)
{
	bool full = pair->starved || pair->rx_limited_ns;
	uint32_t interest = EPOLLET | (full ? 0 : EPOLLIN) | (pair->writable ? 0 : EPOLLOUT);
	struct epoll_event event = {.events = interest, .data.u32 = EVENT_BACKEND};

	if (interest != pair->interest && !pair->gone) {
		epoll_ctl(pair->epoll_fd, EPOLL_CTL_MOD, pair->backend->fds[pair->index], &event);
		pair->interest = interest;
	}
}

/* How long to sleep, in ms for epoll_wait(2): until a held packet is dropped, or a limit lets one pass. */
static int net_pair_timeout(const struct net_pair *pair)
{
	uint64_t limited = MIN(pair->rx_limited_ns - 1, pair->tx_limited_ns - 1); /* UINT64_MAX: neither */
	int left = pair->held ? monotonic_left(pair->held_until) : -1;
	int wait = limited == UINT64_MAX ? -1 : (int)(limited / 1000000) + 1;

	return left < 0 || (wait >= 0 && wait < left) ? wait : left;
}

static void net_pair_wait_for_work(struct net_pair *pair)
{
	struct epoll_event events[EVENTS];
	int count;

	net_pair_set_interest(pair);
	count = epoll_wait(pair->epoll_fd, events, EVENTS, net_pair_timeout(pair));
	for (int i = 0; i < count; i++) {
		if (events[i].data.u32 != EVENT_BACKEND) {
			virtqueue_kicked(events[i].data.u32 == EVENT_RX ? pair->rx : pair->tx);
			continue;
		}
		if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
			pair->readable = !pair->gone;
		pair->hung_up |= !!(events[i].events & (EPOLLERR | EPOLLHUP));
		if (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
			pair->writable = true;
	}
}

/* Returns the buffers popped in advance to the queue; a packet that is held is dropped. */
static void net_pair_give_back(struct net_pair *pair)
{
	if (pair->held)
		net_pair_drop(pair);
	for (; pair->buffers; pair->buffers--)
		virtqueue_unpop(pair->rx);
	pair->first_buffer = pair->first_segment = pair->segments = 0;
	pair->bytes = 0;
}

/* True: the thread runs on; it then checks everything once, because edge-triggered events are not repeated. */
static bool net_pair_park(struct net_pair *pair)
{
	net_pair_give_back(pair);
	if (!virtio_thread_park(&pair->net->threads[pair->index]))
		return false;
	virtqueue_disable_kicks(pair->rx);
	pair->readable = !pair->gone;
	pair->writable = true;
	pair->starved = false;
	return true;
}

static void *net_pair_main(void *opaque)
{
	struct net_pair *pair = opaque;
	bool more;

	for (;;) {
		if (virtio_thread_asked(&pair->net->threads[pair->index]) && !net_pair_park(pair))
			return NULL;
		more = net_pair_transmit(pair);
		more |= net_pair_receive(pair);
		if (!more)
			net_pair_wait_for_work(pair);
	}
}

static int net_pair_watch(struct net_pair *pair, int fd, unsigned int what)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = what};

	return epoll_ctl(pair->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int net_pair_open_fds(struct net_pair *pair)
{
	int ret;

	pair->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (pair->epoll_fd < 0)
		return -errno;
	pair->interest = EPOLLIN | EPOLLET;
	ret = net_pair_watch(pair, pair->backend->fds[pair->index], EVENT_BACKEND);
	ret = ret ?: net_pair_watch(pair, pair->rx->kick_fd, EVENT_RX);
	return ret ?: net_pair_watch(pair, pair->tx->kick_fd, EVENT_TX);
}

static void net_pair_free_pair(struct net_pair *pair)
{
	fd_close(&pair->epoll_fd);
	free(pair);
}

int net_pair_make(struct net_device *net, unsigned int index, struct err *err)
{
	struct net_pair *pair = malloc(sizeof(*pair));
	char name[16];
	int ret;

	if (!pair)
		return err_sys(err, -ENOMEM, "%s: queue pair %u", net->virtio.id, index);
	/* The arrays are written before they are read; clearing them would only touch their pages. */
	memset(pair, 0, offsetof(struct net_pair, buffer));
	pair->net = net;
	pair->backend = net->backend;
	pair->index = index;
	pair->counts = &net->counts[index];
	pair->rx = &net->virtio.queues[2 * index];
	pair->tx = &net->virtio.queues[2 * index + 1];
	pair->merge = virtio_has(&net->virtio, VIRTIO_NET_F_MRG_RXBUF);
	pair->flush = pair->backend->ops->flush; /* a rest from before a reset */
	snprintf(name, sizeof(name), "%.12s.%u", net->virtio.id, index);
	ret = net_pair_open_fds(pair);
	if (ret < 0) {
		net_pair_free_pair(pair);
		return err_sys(err, ret, "%s: queue pair %u", net->virtio.id, index);
	}
	virtio_thread_prepare(&net->threads[index], THREAD_NET, pair->tx->kick_fd, net_pair_main, pair, name);
	net->pairs[index] = pair;
	return 0;
}

void net_pair_end(struct net_device *net, unsigned int index)
{
	if (!net->pairs[index])
		return;
	virtio_thread_stop(&net->threads[index]);
	net_pair_free_pair(take_ptr(net->pairs[index]));
}
