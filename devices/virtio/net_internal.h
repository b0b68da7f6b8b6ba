/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of virtio-net share (virtio 1.2 section 5.1). net.c is the device, net_ctrl.c its control queue,
 * net_traffic.c starts and stops pairs of queues, net_pair.c moves packets between one of them and a backend, net_vhost.c
 * has the kernel do that, net_tap.c and net_passt.c are the backends, net_state.c saves and loads. Nobody else includes
 * this but their tests.
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
#define NET_IOV_MAX 1024u /* of one readv or writev */

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
/* What the guest may ask its side of the backend to leave undone; the bits of CTRL_GUEST_OFFLOADS_SET. */
#define NET_GUEST_OFFLOADS                                                                                        \
	(NET_BIT(VIRTIO_NET_F_GUEST_CSUM) | NET_BIT(VIRTIO_NET_F_GUEST_TSO4) | NET_BIT(VIRTIO_NET_F_GUEST_TSO6) | \
	 NET_BIT(VIRTIO_NET_F_GUEST_ECN) | NET_BIT(VIRTIO_NET_F_GUEST_USO4) | NET_BIT(VIRTIO_NET_F_GUEST_USO6))

struct net_backend;

/* A packet always begins with its 12-byte header; a segment may end anywhere, also within the header. */
struct net_backend_ops {
	/*
	 * Fills iov with the next packet. Its length (more than iov holds: the rest is lost), -EAGAIN when there is
	 * none, -EPIPE when there will never be one again. num_buffers is left to the caller.
	 */
	ssize_t (*receive)(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count);
	/*
	 * Sends or drops a packet of bytes bytes: 0; 1 when a rest of it waits in the backend for flush; -EAGAIN when
	 * it must be offered again, once the descriptor is writable; -EPIPE when nothing can be sent any more.
	 */
	int (*send)(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count,
		    size_t bytes);
	/* Sends the rest of a packet: 0, -EAGAIN, -EPIPE. NULL when send never leaves any. */
	int (*flush)(struct net_backend *backend, unsigned int pair);
	/* Packets to the guest may use these of NET_GUEST_OFFLOADS. */
	int (*set_offloads)(struct net_backend *backend, uint64_t offloads);
	/* Takes a pair into use or out of it; all begin in use. NULL when there is one pair only. */
	int (*set_pair)(struct net_backend *backend, unsigned int pair, bool on);
	/* Why it ended, for the log: a string that lives as long as the backend. NULL: no words. */
	const char *(*reason)(struct net_backend *backend);
	void (*destroy)(struct net_backend *backend);
};

struct net_backend {
	const struct net_backend_ops *ops;
	unsigned int pairs;
	int fds[NET_MAX_PAIRS]; /* non-blocking; one a pair */
	uint64_t features;      /* VIRTIO_NET_F_* that it can do */
	uint16_t mtu;           /* 0: not known */
};

/* net_tap.c: the interface options->tap, or the descriptor options->tap_fd. */
int net_tap_open(const struct virtio_net_options *options, struct net_backend **ret, struct err *err);
/* net_passt.c */
int net_passt_open(const struct virtio_net_options *options, struct net_backend **ret, struct err *err);

struct net_pair;

struct net_state {
	uint8_t mac[6];      /* under config_lock, as the next */
	bool link_up;        /* as the guest was told */
	uint16_t mtu;
	uint16_t pairs_used; /* what the guest asked for; 1 to backend->pairs, 0 while it is not active */
	uint64_t offloads;   /* what the guest asked for last */
};

struct net_device {
	struct virtio_device virtio;
	struct net_backend *backend;
	/* Pairs with a thread, or a vhost. */
	struct net_pair *pairs[NET_MAX_PAIRS];
	struct virtio_thread threads[NET_MAX_PAIRS];
	struct vhost *vhosts[NET_MAX_PAIRS]; /* NULL without vhost=on */
	bool vhost_running[NET_MAX_PAIRS];
	bool loaded;                         /* on another host than before, and not resumed since */
	/* The control queue's thread, which also hears of vhost's errors; NULL when there is neither. */
	struct event_loop *ctrl_loop;
	pthread_mutex_t ctrl_lock; /* over a turn of the control queue */
	bool ctrl_running;         /* under ctrl_lock */
	pthread_mutex_t config_lock;
	struct net_state state;
	bool link_up; /* the backend has not ended; under config_lock */
};

/* The device on a backend, which is consumed by success. The rest of virtio_net_create; tests bring their own. */
int net_create(const struct virtio_net_options *options, struct net_backend *backend, struct guest_memory *memory,
	       const struct log *log, struct virtio_device **ret, struct err *err);

/*
 * net_traffic.c: pairs index to pairs_used are made and stand still, run, stand still again. -errno of the first two
 * leaves none of them; park: -ETIMEDOUT at deadline, and some stand, until run. end is for all from index on.
 */
int net_make_pairs(struct net_device *net, unsigned int index, struct err *err);
int net_run_pairs(struct net_device *net, unsigned int index, struct err *err);
int net_park_pairs(struct net_device *net, int64_t deadline);
void net_end_pairs(struct net_device *net, unsigned int index);
/* Packets of a pair that is not in use must not wait in the backend for a reader. */
void net_detach_pairs(struct net_device *net, unsigned int index);

/* net_pair.c: net->threads[index], which moves packets of one pair. It is made parked; a parked one holds no buffers. */
int net_pair_make(struct net_device *net, unsigned int index, struct err *err);
void net_pair_end(struct net_device *net, unsigned int index);

/* net_vhost.c: the kernel moves them. stop leaves the queues where the kernel got to. */
int net_vhost_open(struct net_device *net, struct dirty_set *dirty, struct err *err);
int net_vhost_start(struct net_device *net, unsigned int index, struct err *err);
void net_vhost_stop(struct net_device *net, unsigned int index);

/* net_state.c: saved state; and, on another host, a word to the network, which looks for the guest where it was. */
extern const struct state_table net_state;
void net_announce(struct net_device *net);

/* net_ctrl.c: the control queue stands still until run; park: -ETIMEDOUT, and it runs. */
int net_ctrl_make(struct net_device *net, struct err *err);
void net_ctrl_run(struct net_device *net);
int net_ctrl_park(struct net_device *net, int64_t deadline);
void net_ctrl_end(struct net_device *net);
