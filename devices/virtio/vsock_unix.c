/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock in user space (virtio 1.2 section 5.10), for hosts without vhost-vsock and for users who may not use it.
 * Called by vsock.c; see vsock_internal.h.
 *
 * A program on the host connects to the UNIX socket, sends "CONNECT port\n" and gets "OK hostport\n" when the guest has
 * accepted; after that the socket is connected with the guest. A connection of the guest to port N of the host leads to
 * the UNIX socket with the same path and "_N" behind it.
 *
 * The connections take turns with the receive buffers, a packet each. Answers to packets without a connection wait in a
 * list; while it is full, the transmit queue is not served, so a guest cannot make it grow.
 */
#include "devices/virtio/virtio_layout.h"
#include "core/errand.h"
#include "devices/virtio/vsock_internal.h"

#include "core/irq.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define LONGEST_SUFFIX 11u /* "_4294967295" */

static struct vsock *vsock_unix_to_vsock(struct virtio_device *device)
{
	return container_of(virtio_loop_of(device), struct vsock, base);
}

/* ---- turns ---- */

static bool vsock_unix_enter(struct vsock *vsock)
{
	if (!virtio_loop_enter(&vsock->base))
		return false;
	vsock->kicked = true; /* by vsock_unix_leave */
	return true;
}

static void vsock_unix_leave(struct vsock *vsock)
{
	virtio_loop_serve(&vsock->base, VSOCK_RX);
	virtio_loop_leave(&vsock->base);
}

static struct vsock_conn *vsock_unix_next_runnable(struct vsock *vsock)
{
	struct vsock_conn *conn = vsock->first_runnable;

	if (!conn)
		return NULL;
	vsock->first_runnable = conn->next_runnable;
	if (!vsock->first_runnable)
		vsock->last_runnable = &vsock->first_runnable;
	conn->runnable = false;
	return conn;
}

/* ---- to the guest ---- */

static void vsock_unix_answer_orphan(struct vsock *vsock, struct virtio_vsock_hdr *hdr)
{
	const struct virtio_vsock_hdr *to = &vsock->orphans[--vsock->orphan_count];

	*hdr = (struct virtio_vsock_hdr){
		.src_cid = to->dst_cid,
		.dst_cid = to->src_cid,
		.src_port = to->dst_port,
		.dst_port = to->src_port,
		.type = to->type,
		.op = htole16(VIRTIO_VSOCK_OP_RST),
	};
	/* The transmit queue may wait for room in the list. */
	if (vsock->orphan_count == VSOCK_MAX_ORPHANS - 1)
		eventfd_kick(vsock->base.device.queues[VSOCK_TX].kick_fd);
}

static bool vsock_unix_make_packet(struct vsock *vsock, struct virtio_vsock_hdr *hdr, const struct virtq_chain *chain)
{
	struct vsock_conn *conn;

	if (vsock->orphan_count) {
		vsock_unix_answer_orphan(vsock, hdr);
		return true;
	}
	while ((conn = vsock_unix_next_runnable(vsock)))
		if (vsock_conn_send(conn, hdr, chain->iov + chain->out_count, chain->in_count)) {
			vsock_run(conn); /* it may have more; the others first */
			return true;
		}
	return false;
}

static bool vsock_unix_serve_rx(struct vsock *vsock, struct virtqueue *vq, const struct virtq_chain *chain)
{
	struct virtio_vsock_hdr hdr;

	vsock->kicked = true; /* a kick would do the same */
	if (chain->in_bytes <= VSOCK_HDR) {
		vq->broken = true;
		virtio_device_broken(&vsock->base.device, "a receive buffer has no room behind a packet's header");
		return false;
	}
	if (!vsock_unix_make_packet(vsock, &hdr, chain)) {
		vsock->kicked = false;
		return false;
	}
	virtq_chain_write(chain, 0, &hdr, sizeof(hdr));
	virtqueue_push(vq, chain, (uint32_t)sizeof(hdr) + le32toh(hdr.len));
	return true;
}

/* ---- from the guest ---- */

/* False: the list of answers is full. */
static bool vsock_unix_serve_tx(struct vsock *vsock, struct virtqueue *vq, const struct virtq_chain *chain)
{
	struct virtio_vsock_hdr hdr;
	struct vsock_conn *conn;
	uint16_t op;

	if (vsock->orphan_count == VSOCK_MAX_ORPHANS)
		return false;
	if (virtq_chain_read(chain, 0, &hdr, sizeof(hdr)) < sizeof(hdr) ||
	    le32toh(hdr.len) > chain->out_bytes - sizeof(hdr)) {
		vq->broken = true;
		virtio_device_broken(&vsock->base.device, "a packet is shorter than its length");
		return false;
	}
	op = le16toh(hdr.op);
	conn = vsock_conn_find(vsock, le32toh(hdr.dst_port), le32toh(hdr.src_port));
	/* A packet not from this guest or not for the host is dropped (section 5.10.6.4.2 requires no answer). */
	if (le64toh(hdr.src_cid) == vsock->cid && le64toh(hdr.dst_cid) == VSOCK_HOST_CID) {
		bool stream = le16toh(hdr.type) == VIRTIO_VSOCK_TYPE_STREAM;

		if (conn && stream)
			vsock_conn_receive(conn, &hdr, chain);
		else if (op != VIRTIO_VSOCK_OP_RST &&
			 !(stream && op == VIRTIO_VSOCK_OP_REQUEST && vsock_conn_request(vsock, &hdr) == 0)) {
			vsock->orphans[vsock->orphan_count++] = hdr;
			vsock_kick(vsock);
		}
	}
	virtqueue_push(vq, chain, 0);
	return true;
}

static bool vsock_unix_serve_event(struct vsock *vsock, struct virtqueue *vq, const struct virtq_chain *chain)
{
	struct virtio_vsock_event event = {.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};

	if (!vsock->state.event_pending)
		return false;
	vsock->state.event_pending = false;
	virtqueue_push(vq, chain, (uint32_t)virtq_chain_write(chain, 0, &event, sizeof(event)));
	return true;
}

static bool vsock_unix_serve(struct virtio_device *device, struct virtqueue *vq, const struct virtq_chain *chain)
{
	struct vsock *vsock = vsock_unix_to_vsock(device);

	switch (vq->index) {
	case VSOCK_RX:
		return vsock_unix_serve_rx(vsock, vq, chain);
	case VSOCK_TX:
		return vsock_unix_serve_tx(vsock, vq, chain);
	default:
		return vsock_unix_serve_event(vsock, vq, chain);
	}
}

/* ---- the socket and the clock ---- */

/* Accepts all waiting clients; the socket is edge-triggered. Without descriptors they wait. */
static void vsock_unix_accept_all(struct vsock *vsock)
{
	int fd;

	while ((fd = event_source_accept(vsock->listener, NULL)) >= 0)
		vsock_conn_accept(vsock, &fd);
}

static void vsock_unix_accept_event(void *opaque, uint32_t events)
{
	struct vsock *vsock = opaque;

	if (!vsock_unix_enter(vsock))
		return; /* vsock_unix_start() makes this come again */
	vsock_unix_accept_all(vsock);
	vsock_unix_leave(vsock);
}

/* The host's side of a connection. */
static void vsock_unix_conn_event(void *opaque, uint32_t events)
{
	struct vsock_conn *conn = opaque;

	if (!vsock_unix_enter(conn->vsock))
		return; /* vsock_conn_wake_all() checks the socket */
	vsock_conn_event(conn, events);
	vsock_unix_leave(conn->vsock);
}

static void vsock_unix_timer_event(void *opaque, uint32_t events)
{
	struct vsock *vsock = opaque;

	if (!vsock_unix_enter(vsock))
		return;
	vsock_set_timer(vsock, vsock_conn_expire(vsock));
	vsock_unix_leave(vsock);
}

/* ---- the device ---- */

static void vsock_unix_config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	const struct virtio_layout_vsock config = {.guest_cid = htole64(vsock_unix_to_vsock(device)->cid)};

	virtio_config_copy(&config, sizeof(config), offset, data, len);
}

/*
 * Also handles the events that came while the device was stopped. On a vCPU's thread, which accepts nobody: who waits at
 * the socket is an event again.
 */
static void vsock_unix_start(struct virtio_device *device)
{
	struct vsock *vsock = vsock_unix_to_vsock(device);

	/* Before the event queue is served. */
	pthread_mutex_lock(&vsock->base.lock);
	vsock->state.event_pending |= vsock->loaded;
	vsock->loaded = false;
	pthread_mutex_unlock(&vsock->base.lock);
	virtio_loop_start(device);
	if (!virtio_loop_enter(&vsock->base))
		return;
	vsock_set_timer(vsock, vsock_conn_expire(vsock));
	vsock_conn_wake_all(vsock);
	event_source_set(vsock->listener, EPOLLIN | EPOLLET);
	virtio_loop_leave(&vsock->base);
}

static int vsock_unix_activate(struct virtio_device *device, struct err *err)
{
	vsock_unix_start(device);
	return 0;
}

static void vsock_unix_reset(struct virtio_device *device)
{
	struct vsock *vsock = vsock_unix_to_vsock(device);

	virtio_loop_stop(device);
	pthread_mutex_lock(&vsock->base.lock);
	vsock_conn_end_all(vsock);
	while (vsock_unix_next_runnable(vsock)) {
	}
	vsock->orphan_count = 0;
	vsock->state.event_pending = vsock->loaded = vsock->kicked = false;
	pthread_mutex_unlock(&vsock->base.lock);
}

void vsock_unix_transport_reset(struct virtio_device *device)
{
	struct vsock *vsock = vsock_unix_to_vsock(device);

	pthread_mutex_lock(&vsock->base.lock);
	vsock_conn_end_all(vsock);
	vsock->state.event_pending = true;
	pthread_mutex_unlock(&vsock->base.lock);
	eventfd_kick(device->queues[VSOCK_EVENT].kick_fd);
}

/* ---- saved state ---- */

static int vsock_unix_loaded(void *object, const void *state, struct err *err)
{
	vsock_unix_to_vsock(object)->loaded = ((struct virtio_device *)object)->active;
	return 0;
}

const struct state_field vsock_fields[VSOCK_FIELDS] = {
	STATE_UINT(struct vsock_state, next_port, 1),
	STATE_BOOL(struct vsock_state, event_pending, 1),
};

static const struct state_table vsock_unix_state = {
	.name = "vsock", .version = 1, .oldest = 1, STATE_FIELDS(vsock_fields),
	STATE_IN(struct vsock, state), STATE_LOCK(struct vsock, base.lock), .loaded = vsock_unix_loaded,
};

/* ---- destruction ---- */

static void vsock_unix_remove_sources(void *opaque)
{
	struct vsock *vsock = opaque;

	event_source_remove(vsock->listener);
	event_source_remove(vsock->timer);
}

/* Only the socket that was made here. */
static void vsock_unix_remove_socket(const struct vsock *vsock)
{
	struct stat st;

	if (vsock->path_inode && lstat(vsock->path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == vsock->path_inode)
		errand_unlink(vsock->path);
}

static void vsock_unix_destroy(struct virtio_device *device)
{
	struct vsock *vsock = vsock_unix_to_vsock(device);

	if (vsock->base.loop)
		event_loop_call(vsock->base.loop, vsock_unix_remove_sources, vsock);
	virtio_loop_done(&vsock->base); /* after it, there is no callback any more */
	vsock_unix_remove_socket(vsock);
	fd_close(&vsock->listen_fd);
	for (unsigned int i = 0; i < vsock->conn_count; i++)
		free(vsock->conns[i]);
	free(vsock->path);
	free(vsock);
}

static const struct virtio_device_ops vsock_ops = {
	.config_read = vsock_unix_config_read,
	.activate = vsock_unix_activate,
	.reset = vsock_unix_reset,
	.drain = virtio_loop_drain,
	.resume = vsock_unix_start,
	.destroy = vsock_unix_destroy,
	.state = &vsock_unix_state,
};

/* ---- construction ---- */

/* Removes a socket of that path without a listener. */
static int vsock_unix_clear_path(const struct sockaddr_un *address, struct err *err)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct stat st;

	if (lstat(address->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, "--vsock socket=%s: a file is in the way; choose another path",
			       address->sun_path);
	if (fd < 0)
		return err_sys(err, -errno, "--vsock: socket");
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return err_set(err, -EADDRINUSE,
			       "--vsock socket=%s: another process listens there; choose another path",
			       address->sun_path);
	if (errno == ECONNREFUSED && unlink(address->sun_path) == 0)
		return 0;
	return err_sys(err, -errno, "--vsock socket=%s: remove what is left there", address->sun_path);
}

static int vsock_unix_open_socket(struct vsock *vsock, struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int ret;

	if (strlen(vsock->path) + LONGEST_SUFFIX >= sizeof(address.sun_path))
		return err_set(err, -EINVAL, "--vsock socket=%s: longer than %zu characters; choose a shorter path",
			       vsock->path, sizeof(address.sun_path) - 1 - LONGEST_SUFFIX);
	memcpy(address.sun_path, vsock->path, strlen(vsock->path));
	ret = vsock_unix_clear_path(&address, err);
	if (ret < 0)
		return ret;
	vsock->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (vsock->listen_fd < 0)
		return err_sys(err, -errno, "--vsock: socket");
	if (bind(vsock->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return err_sys(err, -errno, "--vsock socket=%s", vsock->path);
	if (lstat(vsock->path, &st) == 0)
		vsock->path_inode = st.st_ino;
	if (listen(vsock->listen_fd, 128) < 0)
		return err_sys(err, -errno, "--vsock socket=%s", vsock->path);
	return 0;
}

/* Disks, networks and the control socket need descriptors, too. */
static unsigned int vsock_unix_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / 2 > VSOCK_MAX_CONNECTIONS)
		return VSOCK_MAX_CONNECTIONS;
	return (unsigned int)limit.rlim_cur / 2;
}

static int vsock_unix_init(struct vsock *vsock, const struct virtio_vsock_options *options, struct guest_memory *memory,
			   struct event_loop *loop, const struct log *log, struct err *err)
{
	static const uint16_t sizes[VSOCK_QUEUES] = {256, 256, 16};
	struct virtio_device *device = &vsock->base.device;
	int ret;

	vsock->path = strdup(options->socket);
	if (!vsock->path)
		return err_sys(err, -ENOMEM, "--vsock");
	ret = vsock_unix_open_socket(vsock, err);
	if (ret == 0)
		ret = virtio_device_init(device, &vsock_ops, options->id, VIRTIO_ID_VSOCK, VSOCK_QUEUES, sizes, memory,
					 log, err);
	ret = ret ?: virtio_loop_watch(&vsock->base, loop, vsock_unix_serve, err);
	if (ret < 0)
		return ret;
	device->class_code = 0x028000; /* network controller, other */
	device->config_size = sizeof(struct virtio_layout_vsock);
	ret = event_loop_timer(loop, vsock_unix_timer_event, vsock, &vsock->timer, err);
	if (ret < 0)
		return ret;
	return event_loop_watch(loop, vsock->listen_fd, EPOLLIN | EPOLLET, vsock_unix_accept_event, vsock,
				&vsock->listener, err);
}

int vsock_unix_create(const struct virtio_vsock_options *options, struct guest_memory *memory, struct event_loop *loop,
		      const struct log *log, struct virtio_device **ret, struct err *err)
{
	struct vsock *vsock = calloc(1, sizeof(*vsock));
	int code;

	if (!vsock)
		return err_sys(err, -ENOMEM, "--vsock");
	vsock->listen_fd = -1;
	vsock->cid = options->cid;
	vsock->last_runnable = &vsock->first_runnable;
	vsock->conn_event = vsock_unix_conn_event;
	vsock->conn_limit = vsock_unix_limit();
	code = vsock_unix_init(vsock, options, memory, loop, log, err);
	if (code < 0) {
		vsock_unix_destroy(&vsock->base.device);
		return code;
	}
	*ret = &vsock->base.device;
	return 0;
}
