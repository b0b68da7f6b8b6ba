/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the user-space virtio-vsock share (virtio 1.2 section 5.10). vsock_unix.c is the device: its
 * queues, its socket, who is next to send something to the guest. vsock_conn.c is one connection: a UNIX socket on our
 * side, a port of the guest's on the other. vsock.c is the kernel's form and needs none of this.
 *
 * Everything here runs under virtio_loop's lock.
 */
#pragma once

#include "devices/virtio/virtio_loop.h"

#include <linux/virtio_vsock.h>

#define VSOCK_HOST_CID 2u
#define VSOCK_MAX_CONNECTIONS 1023u
#define VSOCK_BUFFER KIB(128)     /* what the guest may send before the host's side has taken it, a connection */
#define VSOCK_MAX_DATA KIB(64)    /* of one packet */
#define VSOCK_LINE 32u            /* "CONNECT 4294967295\n" and some air */
#define VSOCK_BUCKETS 256u
#define VSOCK_MAX_ORPHANS 64u
#define VSOCK_LINGER_NS 2000000000ull /* until a guest that does not end a closed connection hears of its end */
#define VSOCK_HDR sizeof(struct virtio_vsock_hdr)

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };

enum vsock_conn_state {
	VSOCK_FREE,
	VSOCK_HELLO,     /* the host's side has connected and not yet said to which port */
	VSOCK_REQUESTED, /* the guest has been asked */
	VSOCK_OPEN,
	VSOCK_CLOSING,   /* the host's side is gone, the guest has been told and not yet agreed */
	VSOCK_DRAINING,  /* the guest's side is gone, the host's side still reads */
	VSOCK_DEAD,      /* only a RST to the guest is left to do */
};

struct vsock;

/*
 * Saved state, the same for both forms, so that a guest can move from one to the other: no connections, which end with
 * the host that they lead to.
 */
struct vsock_state {
	uint32_t next_port; /* for connections of the host's */
	bool event_pending; /* the guest is to hear that all connections are gone */
};
#define VSOCK_FIELDS 2u
extern const struct state_field vsock_fields[VSOCK_FIELDS];

/* Connections are allocated once and used again: an event may come late for one that has ended. */
struct vsock_conn {
	struct vsock *vsock;
	enum vsock_conn_state state;
	uint32_t host_port, guest_port;
	int fd;
	struct event_source *source; /* edge-triggered */
	bool readable, writable;
	bool hung_up;             /* the host's side has closed, not only stopped to send */
	uint8_t host_shutdown;    /* VIRTIO_VSOCK_SHUTDOWN_*: what that side will not do any more */
	uint8_t guest_shutdown;
	uint16_t pending;         /* bits 1 << VIRTIO_VSOCK_OP_*: packets to send to the guest */
	bool asked;               /* for credit, and not yet answered */
	uint64_t deadline;        /* of VSOCK_CLOSING; CLOCK_MONOTONIC, ns */

	/* Credit (section 5.10.6.3). To the guest: bytes sent, the guest's buffer, what it has taken out of it. */
	uint32_t sent, guest_buffer, guest_taken;
	/* From the guest: bytes received, what the host's side has taken, what the guest was told of that. */
	uint32_t received, taken, told;
	uint8_t *buffer;          /* VSOCK_BUFFER bytes, made when first needed */
	size_t start, end;        /* of what waits in it for the host's side */

	char line[VSOCK_LINE];
	unsigned int line_length;

	struct vsock_conn *next_in_bucket; /* by ports; of free ones: the list of those */
	struct vsock_conn *next_runnable;
	bool runnable;
};

struct vsock {
	struct virtio_loop base;
	char *path;
	uint64_t path_inode; /* of the socket we have made there; 0: none */
	int listen_fd;
	struct event_source *listener, *timer;
	event_fn *conn_event; /* of a connection's socket */
	bool timer_set;
	uint32_t cid;
	struct vsock_state state;
	bool loaded;          /* and will, for they are on another host: not resumed since */
	bool kicked;          /* the receive queue is going to be served anyway */
	struct vsock_conn *conns[VSOCK_MAX_CONNECTIONS];
	unsigned int conn_count; /* allocated */
	struct vsock_conn *free;
	struct vsock_conn *buckets[VSOCK_BUCKETS];
	struct vsock_conn *first_runnable, **last_runnable;
	/* Packets of no connection, to be answered with RST. */
	struct virtio_vsock_hdr orphans[VSOCK_MAX_ORPHANS];
	unsigned int orphan_count;
	struct iovec iov[VIRTQUEUE_MAX_SEGMENTS];
};

/* ---- vsock_unix.c ---- */

int vsock_unix_create(const struct virtio_vsock_options *options, struct guest_memory *memory, struct event_loop *loop,
		      const struct log *log, struct virtio_device **ret, struct err *err);
/* All connections are gone; the guest is told. */
void vsock_unix_transport_reset(struct virtio_device *device);

/* ---- vsock_conn.c ---- */

/* The receive queue is to be served: there may be something for the guest. */
void vsock_kick(struct vsock *vsock);
/* The connection has, or may have, something to send to the guest. */
void vsock_run(struct vsock_conn *conn);
/* vsock_conn_expire is wanted from time to time, or no more. */
void vsock_set_timer(struct vsock *vsock, bool on);
struct vsock_conn *vsock_conn_find(struct vsock *vsock, uint32_t host_port, uint32_t guest_port);
/* Something happened to the host's side: what vsock->conn_event comes to. */
void vsock_conn_event(struct vsock_conn *conn, uint32_t events);
/* The host's side has connected; fd is consumed. */
void vsock_conn_accept(struct vsock *vsock, int *fd);
/* The guest asks for a connection: its answer will be a RESPONSE. -errno when it cannot be. */
int vsock_conn_request(struct vsock *vsock, const struct virtio_vsock_hdr *hdr);
/* A packet of the guest's for this connection; its data are at VSOCK_HDR in chain and as long as hdr says. */
void vsock_conn_receive(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr, const struct virtq_chain *chain);
/*
 * Makes the next packet for the guest: fills in hdr, op and what follows it, and reads data into iov. False when there
 * is none. The connection may have ended afterwards.
 */
bool vsock_conn_send(struct vsock_conn *conn, struct virtio_vsock_hdr *hdr, const struct iovec *iov,
		     unsigned int count);
/* Resets those whose time is over; true when some are left to wait for. */
bool vsock_conn_expire(struct vsock *vsock);
/* All may have work after a pause. */
void vsock_conn_wake_all(struct vsock *vsock);
/* Ends all at once without a word to the guest. */
void vsock_conn_end_all(struct vsock *vsock);
