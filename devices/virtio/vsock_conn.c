/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the user-space virtio-vsock; see vsock_internal.h, called by vsock_unix.c.
 *
 * Data for the guest stay in the UNIX socket until there are a receive buffer and credit for them. Data from the guest
 * go straight to the socket; what it does not take waits in a buffer as large as the guest's credit. A guest that sends
 * more than its credit is reset.
 */
#include "devices/virtio/vsock_internal.h"

#include "core/errand.h"
#include "core/irq.h"
#include "core/monotonic.h"
#include "devices/virtio/iov.h"

#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)
#define BIT(n) (1u << (n))

/* ---- turns ---- */

void vsock_kick(struct vsock *vsock)
{
	if (!vsock->kicked)
		eventfd_kick(vsock->base.device.queues[VSOCK_RX].kick_fd);
	vsock->kicked = true;
}

void vsock_run(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;

	if (!conn->runnable) {
		conn->runnable = true;
		conn->next_runnable = NULL;
		*vsock->last_runnable = conn;
		vsock->last_runnable = &conn->next_runnable;
	}
	vsock_kick(vsock);
}

void vsock_set_timer(struct vsock *vsock, uint64_t ns)
{
	if (vsock->timer_ns != ns)
		event_timer_set(vsock->timer, ns, ns);
	vsock->timer_ns = ns;
}

/* The connection is looked at after ns at the latest. */
static void vsock_conn_need_timer(struct vsock_conn *conn, uint64_t ns)
{
	struct vsock *vsock = conn->vsock;

	vsock_set_timer(vsock, vsock->timer_ns ? MIN(vsock->timer_ns, ns) : ns);
}

/* ---- the table ---- */

static struct vsock_conn **vsock_conn_bucket(struct vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	return &vsock->buckets[(host_port * 31 + guest_port) % VSOCK_BUCKETS];
}

struct vsock_conn *vsock_conn_find(struct vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *conn = *vsock_conn_bucket(vsock, host_port, guest_port);

	while (conn && (conn->host_port != host_port || conn->guest_port != guest_port))
		conn = conn->next_in_bucket;
	return conn;
}

static void vsock_conn_enter_table(struct vsock_conn *conn)
{
	struct vsock_conn **head = vsock_conn_bucket(conn->vsock, conn->host_port, conn->guest_port);

	conn->next_in_bucket = *head;
	*head = conn;
}

static void vsock_conn_leave_table(struct vsock_conn *conn)
{
	struct vsock_conn **link = vsock_conn_bucket(conn->vsock, conn->host_port, conn->guest_port);

	while (*link && *link != conn)
		link = &(*link)->next_in_bucket;
	if (*link)
		*link = conn->next_in_bucket;
}

static struct vsock_conn *vsock_conn_take_slot(struct vsock *vsock)
{
	struct vsock_conn *conn = vsock->free;

	if (conn) {
		vsock->free = conn->next_in_bucket;
		return conn;
	}
	if (vsock->conn_count == vsock->conn_limit)
		return NULL;
	conn = calloc(1, sizeof(*conn));
	if (conn)
		vsock->conns[vsock->conn_count++] = conn;
	return conn;
}

static void vsock_conn_close_socket(struct vsock_conn *conn)
{
	event_source_remove(conn->source);
	conn->source = NULL;
	fd_close(&conn->fd);
	free(take_ptr(conn->buffer));
	conn->start = conn->end = 0;
}

/* Puts the connection into the free list. It may still be in the list of runnable ones: vsock_unix.c removes it. */
static void vsock_conn_end(struct vsock_conn *conn)
{
	vsock_conn_close_socket(conn);
	vsock_conn_leave_table(conn);
	conn->state = VSOCK_FREE;
	conn->pending = 0;
	conn->next_in_bucket = conn->vsock->free;
	conn->vsock->free = conn;
}

/* The guest gets only a RST after this. */
static void vsock_conn_reset(struct vsock_conn *conn)
{
	vsock_conn_close_socket(conn);
	conn->state = VSOCK_DEAD;
	conn->pending = BIT(VIRTIO_VSOCK_OP_RST);
	vsock_run(conn);
}

/* The host has closed. */
static void vsock_conn_close_host(struct vsock_conn *conn)
{
	vsock_conn_close_socket(conn);
	conn->state = VSOCK_CLOSING;
	conn->host_shutdown = BOTH;
	conn->pending |= BIT(VIRTIO_VSOCK_OP_SHUTDOWN);
	conn->deadline = monotonic_ns() + VSOCK_LINGER_NS;
	vsock_conn_need_timer(conn, VSOCK_LINGER_NS / 4);
	vsock_run(conn);
}

/* ---- from the guest to the host ---- */

/* Sends a credit update before the guest's credit is less than a packet. */
static void vsock_conn_consider_credit(struct vsock_conn *conn)
{
	if (conn->taken == conn->told || VSOCK_BUFFER - (conn->received - conn->told) >= VSOCK_MAX_DATA)
		return;
	conn->pending |= BIT(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	vsock_run(conn);
}

/* The host takes no more data: drops what waits, and sends a shutdown to the guest. */
static void vsock_conn_stop_writing(struct vsock_conn *conn)
{
	conn->taken = conn->received;
	conn->start = conn->end = 0;
	conn->host_shutdown |= VIRTIO_VSOCK_SHUTDOWN_RCV;
	conn->pending |= BIT(VIRTIO_VSOCK_OP_SHUTDOWN);
	vsock_run(conn);
}

/* All data of the guest are written. */
static void vsock_conn_all_written(struct vsock_conn *conn)
{
	conn->start = conn->end = 0;
	if (conn->state == VSOCK_DRAINING)
		vsock_conn_end(conn);
	else if (conn->guest_shutdown == BOTH)
		vsock_conn_reset(conn);
	else if (conn->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(conn->fd, SHUT_WR);
}

/* Writes the buffer's data, as much as the socket takes. */
static void vsock_conn_flush(struct vsock_conn *conn)
{
	ssize_t n;

	if (conn->start == conn->end)
		return;
	while (conn->start < conn->end) {
		n = send(conn->fd, conn->buffer + conn->start, conn->end - conn->start, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN) {
			conn->writable = false;
			vsock_conn_consider_credit(conn);
			return;
		}
		if (n < 0) {
			vsock_conn_stop_writing(conn);
			break;
		}
		conn->start += (size_t)n;
		conn->taken += (uint32_t)n;
	}
	vsock_conn_consider_credit(conn);
	vsock_conn_all_written(conn);
}

/* Puts len bytes of the chain's data from offset on into the buffer. */
static int vsock_conn_keep(struct vsock_conn *conn, const struct virtq_chain *chain, size_t offset, size_t len)
{
	if (!conn->buffer)
		conn->buffer = malloc(VSOCK_BUFFER);
	if (!conn->buffer)
		return -ENOMEM;
	if (conn->end + len > VSOCK_BUFFER) {
		memmove(conn->buffer, conn->buffer + conn->start, conn->end - conn->start);
		conn->end -= conn->start;
		conn->start = 0;
	}
	conn->end += virtq_chain_read(chain, VSOCK_HDR + offset, conn->buffer + conn->end, len);
	return 0;
}

static void vsock_conn_take_data(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr,
				 const struct virtq_chain *chain)
{
	size_t len = le32toh(hdr->len);
	struct msghdr message = {.msg_iov = conn->vsock->iov};
	ssize_t n = 0;

	if (conn->received - conn->taken + len > VSOCK_BUFFER || conn->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) {
		vsock_conn_reset(conn);
		return;
	}
	conn->received += (uint32_t)len;
	if (conn->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		conn->taken = conn->received;
		return;
	}
	if (len && conn->start == conn->end) {
		message.msg_iovlen = iov_slice(chain->iov, chain->out_count, VSOCK_HDR, len, conn->vsock->iov, 1024);
		n = sendmsg(conn->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	if (n < 0 && errno != EAGAIN) {
		vsock_conn_stop_writing(conn);
		return;
	}
	n = MAX(n, 0);
	conn->taken += (uint32_t)n;
	if ((size_t)n < len && vsock_conn_keep(conn, chain, (size_t)n, len - (size_t)n) < 0) {
		vsock_conn_reset(conn);
		return;
	}
	vsock_conn_consider_credit(conn);
}

/* ---- packets of the guest ---- */

static void vsock_conn_take_response(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr,
				     const struct virtq_chain *chain)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);

	if (send(conn->fd, line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) != len) {
		vsock_conn_reset(conn);
		return;
	}
	conn->state = VSOCK_OPEN;
}

static void vsock_conn_take_reset(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr,
				  const struct virtq_chain *chain)
{
	if (conn->state != VSOCK_OPEN || conn->start == conn->end) {
		vsock_conn_end(conn);
		return;
	}
	vsock_conn_leave_table(conn);
	conn->pending = 0;
	conn->state = VSOCK_DRAINING;
}

static void vsock_conn_take_shutdown(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr,
				     const struct virtq_chain *chain)
{
	conn->guest_shutdown |= le32toh(hdr->flags) & BOTH;
	if (conn->state == VSOCK_CLOSING) {
		if (conn->guest_shutdown == BOTH)
			vsock_conn_reset(conn);
		return;
	}
	if (conn->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV)
		shutdown(conn->fd, SHUT_RD);
	if (conn->start == conn->end)
		vsock_conn_all_written(conn);
}

static void vsock_conn_take_credit_request(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr,
					   const struct virtq_chain *chain)
{
	conn->pending |= BIT(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
}

/* Every packet has the guest's credit; this one has nothing else. */
static void vsock_conn_take_credit_update(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr,
					  const struct virtq_chain *chain)
{
}

/* The states in which the guest may send each packet. */
static const struct {
	unsigned int states;
	void (*take)(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr, const struct virtq_chain *chain);
} ops[] = {
	[VIRTIO_VSOCK_OP_RESPONSE] = {BIT(VSOCK_REQUESTED), vsock_conn_take_response},
	[VIRTIO_VSOCK_OP_RST] = {BIT(VSOCK_CONNECTING) | BIT(VSOCK_REQUESTED) | BIT(VSOCK_OPEN) | BIT(VSOCK_CLOSING),
				 vsock_conn_take_reset},
	[VIRTIO_VSOCK_OP_SHUTDOWN] = {BIT(VSOCK_OPEN) | BIT(VSOCK_CLOSING), vsock_conn_take_shutdown},
	[VIRTIO_VSOCK_OP_RW] = {BIT(VSOCK_OPEN) | BIT(VSOCK_CLOSING), vsock_conn_take_data},
	[VIRTIO_VSOCK_OP_CREDIT_UPDATE] = {BIT(VSOCK_OPEN) | BIT(VSOCK_CLOSING), vsock_conn_take_credit_update},
	[VIRTIO_VSOCK_OP_CREDIT_REQUEST] = {BIT(VSOCK_OPEN) | BIT(VSOCK_CLOSING), vsock_conn_take_credit_request},
};

static void vsock_conn_note_credit(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr)
{
	conn->guest_buffer = le32toh(hdr->buf_alloc);
	conn->guest_taken = le32toh(hdr->fwd_cnt);
	conn->asked = false;
}

void vsock_conn_receive(struct vsock_conn *conn, const struct virtio_vsock_hdr *hdr, const struct virtq_chain *chain)
{
	unsigned int op = le16toh(hdr->op);

	if (conn->state == VSOCK_DEAD)
		return;
	if (op >= ARRAY_SIZE(ops) || !(ops[op].states & BIT(conn->state))) {
		vsock_conn_reset(conn);
		return;
	}
	vsock_conn_note_credit(conn, hdr);
	ops[op].take(conn, hdr, chain);
	if (conn->state != VSOCK_FREE)
		vsock_run(conn);
}

/* ---- from the host to the guest ---- */

static uint32_t vsock_conn_credit(const struct vsock_conn *conn)
{
	uint32_t underway = conn->sent - conn->guest_taken;

	return underway < conn->guest_buffer ? conn->guest_buffer - underway : 0;
}

/* Reads "CONNECT port\n" from the socket, up to the end of the line: 1; 0: not complete yet; -EPROTO. */
static int vsock_conn_read_line(struct vsock_conn *conn)
{
	char *at = conn->line + conn->line_length, *end_of_line;
	size_t room = sizeof(conn->line) - 1 - conn->line_length;
	ssize_t len = recv(conn->fd, at, room, MSG_PEEK | MSG_DONTWAIT);

	if (len < 0 && errno == EAGAIN) {
		conn->readable = false;
		return 0;
	}
	if (len <= 0)
		return -EPROTO;
	end_of_line = memchr(at, '\n', (size_t)len);
	if (end_of_line)
		len = end_of_line + 1 - at;
	if (recv(conn->fd, at, (size_t)len, MSG_DONTWAIT) != len)
		return -EPROTO;
	conn->line_length += (unsigned int)len;
	conn->line[conn->line_length] = 0;
	if (end_of_line)
		return 1;
	return (size_t)len < room ? 0 : -EPROTO;
}

static int vsock_conn_parse_line(const char *line, uint32_t *port)
{
	static const char command[] = "CONNECT ";
	const char *digits = line + sizeof(command) - 1;
	unsigned long long value;
	char *rest;

	if (strncmp(line, command, sizeof(command) - 1) != 0 || *digits < '0' || *digits > '9')
		return -EPROTO;
	value = strtoull(digits, &rest, 10);
	if (value > UINT32_MAX || strcmp(rest, "\n") != 0)
		return -EPROTO;
	*port = (uint32_t)value;
	return 0;
}

/* Reads the port and sends a request to the guest. */
static void vsock_conn_greet(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;
	int ret;

	do
		ret = vsock_conn_read_line(conn);
	while (ret == 0 && conn->readable);
	if (ret == 0)
		return;
	if (ret < 0 || vsock_conn_parse_line(conn->line, &conn->guest_port) < 0) {
		vsock_conn_end(conn);
		return;
	}
	do /* far above the ports that guests ask for */
		conn->host_port = vsock->state.next_port++ | 1u << 30;
	while (vsock_conn_find(vsock, conn->host_port, conn->guest_port));
	vsock_conn_enter_table(conn);
	conn->state = VSOCK_REQUESTED;
	conn->pending = BIT(VIRTIO_VSOCK_OP_REQUEST);
	vsock_run(conn);
}

/* Handles changes on the host's side, except data for the guest. */
static void vsock_conn_look_at_host(struct vsock_conn *conn)
{
	if (conn->fd < 0)
		return;
	if (conn->state == VSOCK_HELLO && conn->readable)
		vsock_conn_greet(conn);
	if (conn->writable && (conn->state == VSOCK_OPEN || conn->state == VSOCK_DRAINING))
		vsock_conn_flush(conn);
	if (!conn->hung_up)
		return;
	if (conn->state == VSOCK_REQUESTED && !(conn->pending & BIT(VIRTIO_VSOCK_OP_REQUEST)))
		vsock_conn_reset(conn);
	else if (conn->state == VSOCK_REQUESTED || conn->state == VSOCK_DRAINING)
		vsock_conn_end(conn);
	else if (conn->state == VSOCK_OPEN &&
		 (conn->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND || conn->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV))
		vsock_conn_close_host(conn);
}

void vsock_conn_event(struct vsock_conn *conn, uint32_t events)
{
	if (conn->fd < 0)
		return;
	conn->readable = true;
	conn->writable = true;
	conn->hung_up |= !!(events & EPOLLHUP);
	vsock_conn_look_at_host(conn);
	vsock_run(conn);
}

static bool vsock_conn_wants_to_read(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_OPEN && conn->readable && !(conn->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) &&
	       !(conn->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Without credit it only checks for data, or for their end. */
static ssize_t vsock_conn_read_socket(struct vsock_conn *conn, const struct iovec *iov, unsigned int count)
{
	struct iovec *room = conn->vsock->iov;
	size_t most = MIN((size_t)vsock_conn_credit(conn), VSOCK_MAX_DATA);
	char byte;

	if (!most)
		return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return readv(conn->fd, room, (int)iov_slice(iov, count, VSOCK_HDR, most, room, 1024));
}

/* Reads data into a packet and returns their length; 0: none, but another kind of packet may be pending. */
static uint32_t vsock_conn_read_data(struct vsock_conn *conn, const struct iovec *iov, unsigned int count)
{
	bool may_send = vsock_conn_credit(conn);
	ssize_t len;

	if (!vsock_conn_wants_to_read(conn))
		return 0;
	len = vsock_conn_read_socket(conn, iov, count);
	if (len > 0 && may_send) {
		conn->sent += (uint32_t)len;
		return (uint32_t)len;
	}
	if (len > 0) {
		conn->pending |= conn->asked ? 0 : BIT(VIRTIO_VSOCK_OP_CREDIT_REQUEST);
		conn->asked = true;
		return 0;
	}
	conn->readable = false;
	if (len < 0 && errno == EAGAIN)
		return 0;
	conn->host_shutdown |= VIRTIO_VSOCK_SHUTDOWN_SEND;
	conn->pending |= BIT(VIRTIO_VSOCK_OP_SHUTDOWN);
	vsock_conn_look_at_host(conn);
	return 0;
}

/* The order of pending packets. */
static const uint8_t order[] = {
	VIRTIO_VSOCK_OP_REQUEST,        VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_RST,
	VIRTIO_VSOCK_OP_CREDIT_REQUEST, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_OP_CREDIT_UPDATE,
};

static uint16_t vsock_conn_take_pending(struct vsock_conn *conn)
{
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		if (conn->pending & BIT(order[i])) {
			conn->pending &= (uint16_t)~BIT(order[i]);
			return order[i];
		}
	return VIRTIO_VSOCK_OP_INVALID;
}

bool vsock_conn_send(struct vsock_conn *conn, struct virtio_vsock_hdr *hdr, const struct iovec *iov, unsigned int count)
{
	uint16_t op;
	uint32_t len = 0;

	vsock_conn_look_at_host(conn);
	op = vsock_conn_take_pending(conn);
	if (!op) {
		len = vsock_conn_read_data(conn, iov, count);
		op = len ? VIRTIO_VSOCK_OP_RW : vsock_conn_take_pending(conn);
	}
	if (!op)
		return false;
	*hdr = (struct virtio_vsock_hdr){
		.src_cid = htole64(VSOCK_HOST_CID),
		.dst_cid = htole64(conn->vsock->cid),
		.src_port = htole32(conn->host_port),
		.dst_port = htole32(conn->guest_port),
		.len = htole32(len),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
		.op = htole16(op),
		.flags = htole32(op == VIRTIO_VSOCK_OP_SHUTDOWN ? conn->host_shutdown : 0),
		.buf_alloc = htole32(VSOCK_BUFFER),
		.fwd_cnt = htole32(conn->taken),
	};
	conn->told = conn->taken;
	conn->pending &= (uint16_t)~BIT(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	if (op == VIRTIO_VSOCK_OP_RST)
		vsock_conn_end(conn);
	return true;
}

/* ---- begin and end ---- */

/* A connection without a socket. */
static struct vsock_conn *vsock_conn_begin(struct vsock *vsock, enum vsock_conn_state state)
{
	struct vsock_conn *conn = vsock_conn_take_slot(vsock);
	bool runnable = conn && conn->runnable;
	struct vsock_conn *next = conn ? conn->next_runnable : NULL;

	if (conn)
		*conn = (struct vsock_conn){.vsock = vsock, .state = state, .fd = -1, .runnable = runnable,
					    .next_runnable = next};
	return conn;
}

/* Gives it a connected socket; success consumes fd. */
static int vsock_conn_take_socket(struct vsock_conn *conn, int *fd)
{
	int ret = event_loop_watch(conn->vsock->base.loop, *fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
				   conn->vsock->conn_event, conn, &conn->source, NULL);

	if (ret < 0)
		return ret;
	conn->fd = take_fd(fd);
	conn->readable = conn->writable = true;
	vsock_run(conn);
	return 0;
}

void vsock_conn_accept(struct vsock *vsock, int *fd)
{
	struct vsock_conn *conn = vsock_conn_begin(vsock, VSOCK_HELLO);

	if (conn && vsock_conn_take_socket(conn, fd) < 0)
		vsock_conn_end(conn);
	fd_close(fd);
}

static int vsock_conn_connect_port(const char *path, uint32_t port)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_(fd_close) int fd = errand_socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", path, port);
	if (errand_connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return take_fd(&fd);
}

/* Connects to the host's program and answers the guest. */
static int vsock_conn_connect(struct vsock_conn *conn)
{
	_cleanup_(fd_close) int fd = vsock_conn_connect_port(conn->vsock->path, conn->host_port);
	int ret = fd < 0 ? fd : vsock_conn_take_socket(conn, &fd);

	if (ret < 0)
		return ret;
	conn->state = VSOCK_OPEN;
	conn->pending = BIT(VIRTIO_VSOCK_OP_RESPONSE);
	return 0;
}

/* A backlog is full, or there is no descriptor: neither stays so, and the kernel reports no end of it. */
static bool vsock_conn_may_succeed_later(int code)
{
	return code == -EAGAIN || code == -EMFILE || code == -ENFILE || code == -ENOMEM || code == -ENOBUFS;
}

int vsock_conn_request(struct vsock *vsock, const struct virtio_vsock_hdr *hdr)
{
	struct vsock_conn *conn = vsock_conn_begin(vsock, VSOCK_CONNECTING);
	int ret;

	if (!conn)
		return -ENOSPC;
	conn->host_port = le32toh(hdr->dst_port);
	conn->guest_port = le32toh(hdr->src_port);
	vsock_conn_enter_table(conn);
	vsock_conn_note_credit(conn, hdr);
	ret = vsock_conn_connect(conn);
	if (ret < 0 && !vsock_conn_may_succeed_later(ret)) {
		vsock_conn_end(conn);
		return ret;
	}
	conn->deadline = monotonic_ns() + VSOCK_CONNECT_NS;
	if (ret < 0)
		vsock_conn_need_timer(conn, VSOCK_RETRY_NS);
	return 0;
}

/* full: a port of the host whose program has no room now; one attempt for each is enough. */
static void vsock_conn_try_again(struct vsock_conn *conn, uint64_t now, int64_t *full)
{
	int ret = conn->host_port == *full ? -EAGAIN : vsock_conn_connect(conn);

	if (ret == -EAGAIN)
		*full = conn->host_port;
	if (ret < 0 && (conn->deadline <= now || !vsock_conn_may_succeed_later(ret)))
		vsock_conn_reset(conn);
}

uint64_t vsock_conn_expire(struct vsock *vsock)
{
	uint64_t now = monotonic_ns(), next = 0;
	int64_t full = -1;

	for (unsigned int i = 0; i < vsock->conn_count; i++) {
		struct vsock_conn *conn = vsock->conns[i];

		if (conn->state == VSOCK_CONNECTING)
			vsock_conn_try_again(conn, now, &full);
		else if (conn->state == VSOCK_CLOSING && conn->deadline <= now)
			vsock_conn_reset(conn);
		if (conn->state == VSOCK_CONNECTING)
			next = VSOCK_RETRY_NS;
		else if (conn->state == VSOCK_CLOSING && !next)
			next = VSOCK_LINGER_NS / 4;
	}
	return next;
}

/* The socket is edge-triggered: an event that came meanwhile is not repeated. */
static bool vsock_conn_has_hung_up(const struct vsock_conn *conn)
{
	struct pollfd pollfd = {.fd = conn->fd};

	return conn->fd >= 0 && poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLHUP;
}

void vsock_conn_wake_all(struct vsock *vsock)
{
	for (unsigned int i = 0; i < vsock->conn_count; i++) {
		struct vsock_conn *conn = vsock->conns[i];

		if (conn->state == VSOCK_FREE)
			continue;
		conn->readable = conn->writable = true;
		conn->hung_up |= vsock_conn_has_hung_up(conn);
		vsock_conn_look_at_host(conn);
		vsock_run(conn);
	}
}

void vsock_conn_end_all(struct vsock *vsock)
{
	for (unsigned int i = 0; i < vsock->conn_count; i++)
		if (vsock->conns[i]->state != VSOCK_FREE)
			vsock_conn_end(vsock->conns[i]);
}
