/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networking without privileges, through the process passt: Ethernet frames on a stream socket, each after its length
 * (32 bits, big-endian). passt is started here and ends with us, or is already running. Opened by net.c.
 *
 * There are no offloads, so a packet's header is only checked and dropped. Frames to the guest are read in bulk and
 * copied once. A frame to passt is sent from the guest's buffers; only what the socket does not take is copied.
 */
#include "core/monotonic.h"
#include "core/helpers.h"
#include "devices/virtio/iov.h"
#include "devices/virtio/net_internal.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define LENGTH_SIZE 4u
#define MIN_FRAME 14u
#define MAX_FRAME 65535u
#define PASST_MTU 65520u /* in passt's DHCP answers */
#define BUFFER_SIZE KIB(256)
#define START_MS 10000 /* until it must have set itself up */

struct passt {
	struct net_backend base;
	pid_t pid;            /* 0: not started here, or ended */
	int words_fd;         /* its stderr; -1: not started here */
	char reason[400];
	size_t start, end;    /* of the unread bytes in from */
	size_t sent, to_send; /* of the bytes in to */
	uint8_t *from;        /* BUFFER_SIZE */
	uint8_t *to;          /* one frame and its length */
};

static struct passt *net_passt_to_passt(struct net_backend *backend)
{
	return container_of(backend, struct passt, base);
}

/* ---- to the guest ---- */

/* The length of the first frame if it is complete; 0: it is not; -EPIPE: the length is invalid. */
static ssize_t net_passt_whole_frame(const struct passt *passt)
{
	size_t have = passt->end - passt->start;
	uint32_t len;

	if (have < LENGTH_SIZE)
		return 0;
	memcpy(&len, passt->from + passt->start, sizeof(len));
	len = be32toh(len);
	if (len < MIN_FRAME || len > MAX_FRAME)
		return -EPIPE;
	return have - LENGTH_SIZE >= len ? (ssize_t)len : 0;
}

static int net_passt_read_more(struct passt *passt)
{
	ssize_t len;

	if (passt->start) {
		memmove(passt->from, passt->from + passt->start, passt->end - passt->start);
		passt->end -= passt->start;
		passt->start = 0;
	}
	len = recv(passt->base.fds[0], passt->from + passt->end, BUFFER_SIZE - passt->end, MSG_DONTWAIT);
	if (len <= 0)
		return len < 0 && (errno == EAGAIN || errno == EINTR) ? -EAGAIN : -EPIPE;
	passt->end += (size_t)len;
	return 0;
}

static ssize_t net_passt_receive(struct net_backend *backend, unsigned int pair, const struct iovec *iov,
				 unsigned int count)
{
	static const uint8_t header[NET_HDR_SIZE];
	struct passt *passt = net_passt_to_passt(backend);
	ssize_t len;

	while ((len = net_passt_whole_frame(passt)) == 0) {
		int ret = net_passt_read_more(passt);

		if (ret < 0)
			return ret;
	}
	if (len < 0)
		return len;
	iov_scatter(iov, count, 0, header, sizeof(header));
	iov_scatter(iov, count, sizeof(header), passt->from + passt->start + LENGTH_SIZE, (size_t)len);
	passt->start += LENGTH_SIZE + (size_t)len;
	return (ssize_t)NET_HDR_SIZE + len;
}

/* ---- from the guest ---- */

static int net_passt_flush(struct net_backend *backend, unsigned int pair)
{
	struct passt *passt = net_passt_to_passt(backend);

	while (passt->sent < passt->to_send) {
		ssize_t len = send(passt->base.fds[0], passt->to + passt->sent, passt->to_send - passt->sent,
				   MSG_DONTWAIT | MSG_NOSIGNAL);

		if (len < 0)
			return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPIPE;
		passt->sent += (size_t)len;
	}
	passt->sent = passt->to_send = 0;
	return 0;
}

/* Copies the segments' bytes from offset on. */
static size_t net_passt_collect(const struct iovec *iov, unsigned int count, size_t offset, uint8_t *to, size_t size)
{
	size_t len = 0;

	for (unsigned int i = 0; i < count && len < size; i++) {
		size_t step;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		step = MIN(size - len, iov[i].iov_len - offset);
		memcpy(to + len, (uint8_t *)iov[i].iov_base + offset, step);
		len += step;
		offset = 0;
	}
	return len;
}

/* False: passt cannot handle it; the header asks for offloads, or the frame's size is invalid. */
static bool net_passt_sensible(const struct iovec *iov, unsigned int count, size_t frame)
{
	uint8_t begin[2] = {0}; /* flags, gso_type */

	net_passt_collect(iov, count, 0, begin, sizeof(begin));
	return !(begin[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM) && begin[1] == VIRTIO_NET_HDR_GSO_NONE && frame >= MIN_FRAME &&
	       frame <= MAX_FRAME;
}

static int net_passt_send(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count,
			  size_t bytes)
{
	struct passt *passt = net_passt_to_passt(backend);
	size_t frame = bytes - NET_HDR_SIZE;
	uint32_t length = htobe32((uint32_t)frame);
	struct iovec out[NET_IOV_MAX];
	struct msghdr message = {.msg_iov = out};
	ssize_t sent;

	if (!net_passt_sensible(iov, count, frame))
		return 0;
	out[0] = (struct iovec){&length, sizeof(length)};
	message.msg_iovlen = 1 + iov_slice(iov, count, NET_HDR_SIZE, frame, out + 1, NET_IOV_MAX - 1);
	sent = sendmsg(backend->fds[0], &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPIPE;
	if ((size_t)sent == LENGTH_SIZE + frame)
		return 0;
	passt->to_send = net_passt_collect(out, (unsigned int)message.msg_iovlen, (size_t)sent, passt->to,
					   LENGTH_SIZE + MAX_FRAME);
	return 1;
}

/* ---- the process ---- */

static int net_passt_set_offloads(struct net_backend *backend, uint64_t offloads)
{
	return offloads ? -EOPNOTSUPP : 0;
}

/* Waits a moment for a process that has closed its socket to end; whether it has. */
static bool net_passt_reap(struct passt *passt, int *status)
{
	for (unsigned int i = 0; i < 20; i++) {
		if (helpers_reap(passt->pid, status)) {
			passt->pid = 0;
			return true;
		}
		poll(NULL, 0, 5);
	}
	return false;
}

/* No reason to end: each line that could not be sent to a syslog is one, and so is the change to an ordinary user. */
static bool net_passt_is_noise(const char *line)
{
	return (strncmp(line, "Failed to send ", 15) == 0 && strstr(line, " to syslog")) ||
	       strncmp(line, "Don't run as root", 17) == 0;
}

/* Copies what the process has written to its stderr to reason: whole lines, the last ones if there are many. */
static void net_passt_read_last_words(struct passt *passt)
{
	char text[4096], *rest = text, *line;
	size_t used = 0;
	ssize_t len = read(passt->words_fd, text, sizeof(text) - 1);

	text[MAX(len, 0)] = 0;
	while ((line = strsep(&rest, "\n"))) {
		size_t size = strlen(line), room = sizeof(passt->reason) - 3;

		if (!size || size > room || net_passt_is_noise(line))
			continue;
		if (used + size > room)
			used = 0;
		used += (size_t)snprintf(passt->reason + used, sizeof(passt->reason) - used, "%s%s", used ? "; " : "",
					 line);
	}
	for (char *p = passt->reason; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
}

static const char *net_passt_reason(struct net_backend *backend)
{
	struct passt *passt = net_passt_to_passt(backend);
	int status;

	if (!passt->pid || !net_passt_reap(passt, &status))
		return "passt has closed the connection";
	snprintf(passt->reason, sizeof(passt->reason), "passt has ended");
	if (WIFSIGNALED(status))
		snprintf(passt->reason, sizeof(passt->reason), "passt was ended by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		net_passt_read_last_words(passt);
	return passt->reason;
}

/* passt reads no frame before it has set itself up. */
static bool net_passt_has_read(const struct passt *passt)
{
	int unread;

	return ioctl(passt->base.fds[0], SIOCOUTQ, &unread) < 0 || !unread;
}

static int net_passt_ready(struct net_backend *backend, struct err *err)
{
	struct passt *passt = net_passt_to_passt(backend);
	int64_t deadline = monotonic_ms() + START_MS;

	while (passt->pid) {
		bool has_read = net_passt_has_read(passt); /* or has ended, which is found next */
		struct pollfd pollfd = {.fd = backend->fds[0]};

		if (poll(&pollfd, 1, has_read ? 0 : 1) > 0)
			return err_set(err, -ECONNREFUSED, "--net passt: it cannot start: %s", net_passt_reason(backend));
		if (has_read)
			break;
		if (monotonic_ms() >= deadline)
			return err_set(err, -ETIMEDOUT, "--net passt: it has not started within %d seconds",
				       START_MS / 1000);
	}
	return 0;
}

static void net_passt_destroy(struct net_backend *backend)
{
	struct passt *passt = net_passt_to_passt(backend);

	fd_close(&backend->fds[0]);
	if (passt->pid)
		helpers_kill(passt->pid);
	fd_close(&passt->words_fd);
	free(passt->from);
	free(passt->to);
	free(passt);
}

static const struct net_backend_ops passt_ops = {
	.receive = net_passt_receive,
	.send = net_passt_send,
	.flush = net_passt_flush,
	.set_offloads = net_passt_set_offloads,
	.ready = net_passt_ready,
	.reason = net_passt_reason,
	.destroy = net_passt_destroy,
};

/* A frame of a protocol for experiments, which passt reads and drops, for net_passt_ready. */
static void net_passt_send_probe(struct passt *passt, const struct virtio_net_options *options)
{
	struct {
		uint32_t length;
		struct ether_header ethernet;
		uint8_t padding[ETH_ZLEN - sizeof(struct ether_header)];
	} __attribute__((packed)) probe = {
		.length = htobe32(ETH_ZLEN),
		.ethernet = {.ether_dhost = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, .ether_type = htobe16(0x88b5)},
	};

	memcpy(probe.ethernet.ether_shost, options->mac, ETH_ALEN);
	if (send(passt->base.fds[0], &probe, sizeof(probe), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		/* It has ended, as net_passt_ready will find. */
	}
}

static int net_passt_start_passt(struct passt *passt, const struct virtio_net_options *options, struct err *err)
{
	/* It gets the socket as descriptor 3, stays in the foreground and ends when the socket is closed. */
	static const char *const argv[] = {"passt", "--foreground", "--quiet", "--stderr", "--fd", "3", NULL};
	_cleanup_(fd_close) int theirs = -1;
	_cleanup_(fd_close) int words = -1;
	int pair[2], words_pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, -errno, "--net passt: socket");
	passt->base.fds[0] = pair[0];
	theirs = pair[1];
	/* It is not read before passt ends; output that does not fit is lost. */
	if (pipe2(words_pair, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(err, -errno, "--net passt: pipe");
	passt->words_fd = words_pair[0];
	words = words_pair[1];
	ret = helpers_start(argv, &theirs, 1, words, &passt->pid);
	if (ret == -ENOENT)
		return err_set(err, ret,
			       "--net passt: no such program; install the Debian package passt, or use tap=NAME");
	if (ret < 0)
		return err_sys(err, ret, "--net passt: start passt");
	net_passt_send_probe(passt, options);
	return 0;
}

static int net_passt_connect_passt(struct passt *passt, const char *path, struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, -EINVAL, "--net passt=%s: the path has more than %zu characters", path,
			       sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path));
	passt->base.fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (passt->base.fds[0] < 0)
		return err_sys(err, -errno, "--net passt=%s: socket", path);
	if (connect(passt->base.fds[0], (struct sockaddr *)&address, sizeof(address)) == 0)
		return 0;
	if (errno == ENOENT || errno == ECONNREFUSED)
		return err_set(err, -errno,
			       "--net passt=%s: nobody listens there; start passt with: passt --socket %s, or omit the "
			       "path", path, path);
	return err_sys(err, -errno, "--net passt=%s", path);
}

int net_passt_open(const struct virtio_net_options *options, struct net_backend **ret, struct err *err)
{
	struct passt *passt = calloc(1, sizeof(*passt));
	int code;

	if (!passt)
		return err_sys(err, -ENOMEM, "--net passt");
	passt->base = (struct net_backend){.ops = &passt_ops, .pairs = 1, .fds = {-1}};
	passt->words_fd = -1;
	passt->from = malloc(BUFFER_SIZE);
	passt->to = malloc(LENGTH_SIZE + MAX_FRAME);
	if (!passt->from || !passt->to)
		code = err_sys(err, -ENOMEM, "--net passt");
	else if (options->socket)
		code = net_passt_connect_passt(passt, options->socket, err);
	else
		code = net_passt_start_passt(passt, options, err);
	if (code < 0) {
		net_passt_destroy(&passt->base);
		return code;
	}
	/* The MTU of a passt that was not started here is not known. */
	passt->base.mtu = options->socket ? 0 : PASST_MTU;
	*ret = &passt->base;
	return 0;
}
