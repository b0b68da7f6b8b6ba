/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of virtio-net (virtio 1.2 section 5.1) and their tests. net.c is the device, net_ctrl.c its
 * control queue, net_traffic.c starts and stops queue pairs, net_pair.c moves packets between a pair and a backend,
 * net_vhost.c lets the kernel do that, net_link.c is the link, net_cable.c its cable, net_tap.c and net_passt.c are the backends, net_state.c
 * saves and loads.
 */
#pragma once

#include "devices/virtio/vhost.h"
#include "devices/virtio/virtio.h"
#include "devices/virtio/virtio_thread.h"

#include <linux/virtio_net.h>

#define NET_MAX_PAIRS 16u
#define NET_QUEUE_SIZE 256u
#define NET_HDR_SIZE sizeof(struct virtio_net_hdr_v1) /* 12 */
/* The longest packet: header, Ethernet and VLAN headers, 64 KiB of payload. */
#define NET_MAX_PACKET (NET_HDR_SIZE + 14 + 4 + 65536)
#define NET_ANNOUNCE_MS 50u /* between the first two announcements */
#define NET_IOV_MAX 1024u /* of one readv or writev */
/* How long a packet waits for receive buffers: a driver under load posts more, a small one never does. */
#define NET_HOLD_MS 50

/* virtio 1.3; Linux headers since 6.2 have them. */
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO 56
#endif
#ifndef VIRTIO_NET_CTRL_GUEST_OFFLOADS
#define VIRTIO_NET_CTRL_GUEST_OFFLOADS 5
#define VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET 0
#endif

#define NET_BIT(feature) (1ull << (feature))
/* The offloads of packets to the guest; the bits of CTRL_GUEST_OFFLOADS_SET. */
#define NET_GUEST_OFFLOADS                                                                                        \
	(NET_BIT(VIRTIO_NET_F_GUEST_CSUM) | NET_BIT(VIRTIO_NET_F_GUEST_TSO4) | NET_BIT(VIRTIO_NET_F_GUEST_TSO6) | \
	 NET_BIT(VIRTIO_NET_F_GUEST_ECN) | NET_BIT(VIRTIO_NET_F_GUEST_USO4) | NET_BIT(VIRTIO_NET_F_GUEST_USO6))

struct net_backend;

/* A packet begins with its 12-byte header; a segment may end anywhere, even in the header. */
struct net_backend_ops {
	/*
	 * Fills iov with the next packet and returns its length (longer than iov: the rest is lost). -EAGAIN: there is
	 * none; -EPIPE: there will be none any more. The caller sets num_buffers.
	 */
	ssize_t (*receive)(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count);
	/*
	 * Sends or drops a packet of bytes bytes: 0. 1: its rest waits in the backend for flush; -EAGAIN: send it again
	 * when the descriptor is writable; -EPIPE: nothing can be sent any more.
	 */
	int (*send)(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count,
		    size_t bytes);
	/* Sends the rest of a packet: 0, -EAGAIN, -EPIPE. NULL: send never returns 1. */
	int (*flush)(struct net_backend *backend, unsigned int pair);
	/* Packets to the guest may use these of NET_GUEST_OFFLOADS. */
	int (*set_offloads)(struct net_backend *backend, uint64_t offloads);
	/* Enables or disables a pair; all begin enabled. NULL: there is only one pair. */
	int (*set_pair)(struct net_backend *backend, unsigned int pair, bool on);
	/* Waits until the backend has started, for a bounded time. -errno: it cannot. NULL: it has nothing to start. */
	int (*ready)(struct net_backend *backend, struct err *err);
	/*
	 * A descriptor that is readable when the backend may have ended, for users who do not receive here (vhost);
	 * owned by the backend. ended: whether it has; clears the descriptor. NULL: there is none.
	 */
	int (*end_fd)(struct net_backend *backend);
	bool (*ended)(struct net_backend *backend);
	/* Why the backend has ended, for the log; the string is valid as long as the backend. NULL: no reason known. */
	const char *(*reason)(struct net_backend *backend);
	void (*destroy)(struct net_backend *backend);
};

struct net_backend {
	const struct net_backend_ops *ops;
	unsigned int pairs;
	int fds[NET_MAX_PAIRS]; /* non-blocking; one a pair */
	uint64_t features;      /* VIRTIO_NET_F_* that it supports */
	uint16_t mtu;           /* 0: not known */
};

/* net_tap.c: the interface options->tap, or that of the descriptors options->tap_fds. */
int net_tap_open(const struct virtio_net_options *options, struct net_backend **ret, struct err *err);
/* net_passt.c */
int net_passt_open(const struct virtio_net_options *options, struct net_backend **ret, struct err *err);

struct net_pair;

struct net_state {
	uint8_t mac[6];      /* under config_lock, as link_up */
	bool link_up;        /* as the guest sees it */
	uint16_t mtu;
	uint16_t pairs_used; /* set by the guest: 1 to backend->pairs; 0 while inactive */
	uint64_t offloads;   /* set by the guest */
	struct rate_limiter_state rx_limit, tx_limit; /* of the time of a save */
};

struct net_device {
	struct virtio_device virtio;
	struct net_backend *backend;
	uint8_t mac[6]; /* after a reset */
	/* Pairs with a thread, or a vhost. */
	struct net_pair *pairs[NET_MAX_PAIRS];
	struct virtio_net_counts *counts; /* one a pair (core/counter.h); those of vhost stay 0 */
	struct virtio_thread threads[NET_MAX_PAIRS];
	struct vhost *vhosts[NET_MAX_PAIRS]; /* NULL without vhost=on */
	bool vhost_running[NET_MAX_PAIRS];
	bool loaded;                         /* and not resumed since */
	bool mac_changed;                    /* by virtio_net_set_mac; the driver is told at the resume */
	int64_t hold_ms;                     /* NET_HOLD_MS, but in tests */
	struct rate_limiter rx, tx;          /* packets to the guest, and from it */
	/* The control queue's thread, which also watches for vhost's errors and announces; NULL while inactive. */
	struct event_loop *ctrl_loop;
	struct event_source *announcer; /* its timer */
	unsigned int announcements;     /* that follow; under ctrl_lock, as ctrl_running */
	pthread_mutex_t ctrl_lock; /* over a turn of the control queue */
	bool ctrl_running;         /* under ctrl_lock */
	bool ctrl_started;         /* its thread */
	pthread_mutex_t config_lock;
	struct net_state state;
	bool announce; /* the guest is asked to announce itself; under config_lock */
	bool link_up; /* false: the backend has ended; under config_lock */
	bool unplugged; /* by the user; written under config_lock and ctrl_lock */
};

/* The device on a backend, which success consumes. For virtio_net_create and tests with their own backend. */
int net_create(const struct virtio_net_options *options, struct net_backend *backend, struct guest_memory *memory,
	       const struct log *log, struct virtio_device **ret, struct err *err);

/*
 * net_traffic.c. make creates the pairs from index to pairs_used, parked; the first run starts their threads; after a
 * failure of either none is left. park parks all; -ETIMEDOUT at deadline: some may be parked until run. end ends all
 * pairs from index on.
 */
int net_make_pairs(struct net_device *net, unsigned int index, struct err *err);
int net_run_pairs(struct net_device *net, unsigned int index, struct err *err);
int net_park_pairs(struct net_device *net, int64_t deadline);
void net_end_pairs(struct net_device *net, unsigned int index);
/* Disables the backend's pairs from index on: packets must not wait there for a reader. */
void net_detach_pairs(struct net_device *net, unsigned int index);

/*
 * net_link.c. down: the backend has ended; shows the guest the link down, and logs it, once. Any thread, without
 * device->lock.
 */
void net_link_down(struct net_device *net);
/* Whether packets go through. */
bool net_link_is_up(struct net_device *net);
static inline bool net_link_unplugged(const struct net_device *net)
{
	return __atomic_load_n(&net->unplugged, __ATOMIC_RELAXED);
}

/* net_pair.c: net->threads[index] moves the packets of one pair. It is made parked; a parked one has no buffers. */
int net_pair_make(struct net_device *net, unsigned int index, struct err *err);
void net_pair_end(struct net_device *net, unsigned int index);

/* net_vhost.c: the kernel moves them. After stop, the queues have the kernel's position. */
int net_vhost_open(struct net_device *net, struct dirty_set *dirty, struct err *err);
int net_vhost_start(struct net_device *net, unsigned int index, struct err *err);
void net_vhost_stop(struct net_device *net, unsigned int index);
/* The eventfd for the interrupts of a queue has changed. */
void net_vhost_call_changed(struct net_device *net, unsigned int queue);

/* net_state.c: saved state. */
extern const struct state_table net_state;

/*
 * net_announce.c: tells the network, and the guest if its driver wants to know, that the guest is on another host.
 * begin: the pairs are parked; a round is sent at once, the others follow from the control queue's thread.
 */
void net_announce_begin(struct net_device *net);
/* Sends one more round; returns after how many ms the next one is due, 0: none. With ctrl_lock. */
unsigned int net_announce_again(struct net_device *net);

/* net_ctrl.c: make prepares the control queue's thread, which the first run starts. park -ETIMEDOUT: it runs on. */
int net_ctrl_make(struct net_device *net, struct err *err);
int net_ctrl_run(struct net_device *net, struct err *err);
int net_ctrl_park(struct net_device *net, int64_t deadline);
void net_ctrl_end(struct net_device *net);
