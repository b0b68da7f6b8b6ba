/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of the user-space virtio-vsock (virtio 1.2 section 5.10). vsock_unix.c is the device: its queues,
 * its socket, and the order in which connections send to the guest. vsock_conn.c is one connection between a UNIX
 * socket on the host and a port of the guest. vsock.c is the kernel's form and uses only the state and queue numbers.
 *
 * All of it is under virtio_loop's lock.
 */
#pragma once

#include "devices/virtio/virtio_loop.h"

#include <linux/virtio_vsock.h>

#define VSOCK_HOST_CID 2u
#define VSOCK_MAX_CONNECTIONS 1023u /* and half of the descriptors that this process may have */
#define VSOCK_BUFFER KIB(128)     /* a connection's credit: bytes that the guest may send before the host takes them */
#define VSOCK_MAX_DATA KIB(64)    /* of one packet */
#define VSOCK_LINE 32u            /* "CONNECT 4294967295\n" and some more */
#define VSOCK_BUCKETS 256u
#define VSOCK_MAX_ORPHANS 64u
#define VSOCK_LINGER_NS 2000000000ull  /* until a closed connection is reset if the guest does not end it */
#define VSOCK_CONNECT_NS 5000000000ull /* until a connection of the guest is reset if the host's program has no room */
#define VSOCK_RETRY_NS 20000000ull     /* between two attempts */
#define VSOCK_HDR sizeof(struct virtio_vsock_hdr)

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };

enum vsock_conn_state {
	VSOCK_FREE,
	VSOCK_CONNECTING, /* the guest has asked, and the host's program has no room for it now; there is no socket */
	VSOCK_HELLO,     /* the host has connected and not yet named a port */
	VSOCK_REQUESTED, /* the request is sent to the guest, without a response so far */
	VSOCK_OPEN,
	VSOCK_CLOSING,   /* the host has closed; the guest has not yet ended its side */
	VSOCK_DRAINING,  /* the guest has closed; the host still reads */
	VSOCK_DEAD,      /* only a RST to the guest is pending */
};

struct vsock;

/*
 * Saved state, the same for both forms, so that a guest can migrate from one to the other. Connections are not saved:
 * they end with their host.
 */
struct vsock_state {
	uint32_t next_port; /* for connections of the host */
	bool event_pending; /* a transport reset must be sent to the guest */
};
#define VSOCK_FIELDS 2u
extern const struct state_field vsock_fields[VSOCK_FIELDS];

/* Connections are reused and not freed: an event may come late for one that has ended. */
struct vsock_conn {
	struct vsock *vsock;
	enum vsock_conn_state state;
	uint32_t host_port, guest_port;
	int fd;
	struct event_source *source; /* edge-triggered */
	bool readable, writable;
	bool hung_up;             /* the host has closed, not only shut down sending */
	uint8_t host_shutdown;    /* VIRTIO_VSOCK_SHUTDOWN_* of the host */
	uint8_t guest_shutdown;   /* and of the guest */
	uint16_t pending;         /* bits 1 << VIRTIO_VSOCK_OP_*: packets to send to the guest */
	bool asked;               /* a credit request is sent, without an answer so far */
	uint64_t deadline;        /* of VSOCK_CLOSING and VSOCK_CONNECTING; CLOCK_MONOTONIC, ns */

	/* Credit (section 5.10.6.3). To the guest: bytes sent, the guest's buffer, bytes that it has taken out. */
	uint32_t sent, guest_buffer, guest_taken;
	/* From the guest: bytes received, bytes that the host has taken, the last number of these sent to the guest. */
	uint32_t received, taken, told;
	uint8_t *buffer;          /* VSOCK_BUFFER bytes, allocated on first use */
	size_t start, end;        /* of the bytes in it for the host */

	char line[VSOCK_LINE];
	unsigned int line_length;

	struct vsock_conn *next_in_bucket; /* by ports; of free connections: the free list */
	struct vsock_conn *next_runnable;
	bool runnable;
};

struct vsock {
	struct virtio_loop base;
	char *path;
	uint64_t path_inode; /* of the socket that was made here; 0: none */
	int listen_fd;
	struct event_source *listener, *timer;
	event_fn *conn_event; /* of a connection's socket */
	uint64_t timer_ns;    /* its interval; 0: off */
	uint32_t cid;
	struct vsock_state state;
	bool loaded;          /* and not resumed since */
	bool kicked;          /* the receive queue will be served in any case */
	struct vsock_conn *conns[VSOCK_MAX_CONNECTIONS];
	unsigned int conn_count, conn_limit; /* allocated, and how many there may be */
	struct vsock_conn *free;
	struct vsock_conn *buckets[VSOCK_BUCKETS];
	struct vsock_conn *first_runnable, **last_runnable;
	/* Packets without a connection, to be answered with RST. */
	struct virtio_vsock_hdr orphans[VSOCK_MAX_ORPHANS];
	unsigned int orphan_count;
	struct iovec iov[VIRTQUEUE_MAX_SEGMENTS];
};

/* ---- vsock_unix.c ---- */

int vsock_unix_create(const struct virtio_vsock_options *options, struct guest_memory *memory, struct event_loop *loop,
		      const struct log *log, struct virtio_device **ret, struct err *err);
/* Ends all connections and notifies the guest. */
void vsock_unix_transport_reset(struct virtio_device *device);

/* ---- vsock_conn.c ---- */

/* Serves the receive queue soon: there may be a packet for the guest. */
void vsock_kick(struct vsock *vsock);
/* The connection may have a packet for the guest. */
void vsock_run(struct vsock_conn *conn);
/* Sets the interval of the timer for vsock_conn_expire; 0: off. */
void vsock_set_timer(struct vsock *vsock, uint64_t ns);
struct vsock_conn *vsock_conn_find(struct vsock *vsock, uint32_t host_port, uint32_t guest_port);
/* Handles events of the host's socket; called from vsock->conn_event. */
void vsock_conn_event(struct vsock_conn *conn, uint32_t events);
/* The host has connected; fd is consumed. */
void vsock_conn_accept(struct vsock *vsock, int *fd);
/* The guest asks for a connection; answers with RESPONSE or RST later. -errno: there can be no connection. */
int vsock_conn_request(struct vsock *vsock, const struct virtio_vsock_hdr *hdr);
/* A packet of the guest for this connection; its data are at VSOCK_HDR in chain and have the length in hdr. */
void vsock_conn_receive(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr, const struct virtq_chain *chain);
/*
 * Makes the next packet for the guest: fills in hdr and reads data into iov; it may end the connection. False: none.
 */
bool vsock_conn_send(struct vsock_conn *conn, struct virtio_vsock_hdr *hdr, const struct iovec *iov,
		     unsigned int count);
/* Resets connections after their deadline, and tries the others again. When to call it again, in ns; 0: never. */
uint64_t vsock_conn_expire(struct vsock *vsock);
/* Checks all connections after a pause. */
void vsock_conn_wake_all(struct vsock *vsock);
/* Ends all connections without a packet to the guest. */
void vsock_conn_end_all(struct vsock *vsock);
