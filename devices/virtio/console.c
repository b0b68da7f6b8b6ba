/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console device (virtio 1.2 section 5.3): one port, terminal size, emergency write.
 *
 * Both directions have back-pressure. Output that the descriptor does not take stays in the guest's queue; input is
 * read only while the guest has buffers for it. A guest's console driver keeps its processor busy until its output is
 * taken, so a reader that takes nothing for a while is not waited for: output is dropped, counted and reported until
 * the reader takes some again.
 *
 * The descriptors are watched edge-triggered: whatever has stopped (output not taken, no input, no buffers) causes an
 * event when it can continue, and a pty without a client, which epoll always reports as hung up, does not keep the loop
 * busy.
 */
#include "devices/virtio/virtio_layout.h"
#include "devices/virtio/virtio_loop.h"

#include "core/nowait.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/virtio_console.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>

#define QUEUE_SIZE 128
#define BYTES_AT_ONCE KIB(64) /* of output, before it looks at the time */
#define CLASS_CONSOLE 0x078000
#define PATIENCE 500000000ull /* ns for which a reader may take nothing */

enum { RECEIVE, TRANSMIT, QUEUES };

struct console_state {
	uint16_t cols, rows; /* the terminal's size that the guest has read; under the device's lock */
	uint64_t sent;       /* bytes written of the chain at the head of the transmit queue; under loop.lock */
};

struct console {
	struct virtio_loop loop;
	int in_fd, out_fd; /* may be the same */
	bool pty;          /* out_fd is a pty's master */
	struct nowait_out out;
	struct event_source *in_source, *out_source, *patience;
	struct console_state state;
	/* under loop.lock */
	bool complained;  /* an output error is logged, until a write succeeds */
	bool waiting;     /* the reader takes nothing, and patience runs */
	bool dropping;    /* it has run out, until a write succeeds */
	uint64_t dropped; /* bytes since then */
};

static struct console *console_of(struct virtio_device *device)
{
	return container_of(device, struct console, loop.device);
}

/* ---- output ---- */

/* The kernel would buffer the output of a pty without a client until the buffer is full, and then take no more. */
static bool console_nobody_there(const struct console *console)
{
	struct pollfd pollfd = {.fd = console->out_fd};

	return console->pty && poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLHUP;
}

static void console_wrote(struct console *console)
{
	const struct virtio_device *device = &console->loop.device;

	if (console->waiting)
		event_timer_set(console->patience, 0, 0);
	if (console->dropped)
		log_warn(device->log, "%s: the output goes on; %llu bytes were dropped", device->id,
			 (unsigned long long)console->dropped);
	console->waiting = console->dropping = console->complained = false;
	console->dropped = 0;
}

/* The reader takes nothing. Returns the bytes that are lost. */
static size_t console_wait(struct console *console, size_t len)
{
	if (console->dropping) {
		console->dropped += len;
		return len;
	}
	if (!console->waiting)
		event_timer_set(console->patience, PATIENCE, 0);
	console->waiting = true;
	return 0;
}

/* One write; returns the bytes that were written, or are lost without a reader. 0: not now. Lock held. */
static size_t console_put(struct console *console, const char *buf, size_t len)
{
	ssize_t ret;

	if (console_nobody_there(console))
		return len;
	ret = nowait_write(&console->out, buf, len);
	if (ret >= 0) {
		console_wrote(console);
		return (size_t)ret;
	}
	if (ret == -EAGAIN)
		return console_wait(console, len);
	/* The client has just left. */
	if (ret == -EIO || ret == -EPIPE)
		return len;
	if (!console->complained)
		log_warn(console->loop.device.log, "%s: output is lost: %s", console->loop.device.id,
			 strerrordesc_np((int)-ret));
	console->complained = true;
	console->dropped += len;
	return len;
}

static bool console_transmit(struct console *console, struct virtqueue *vq, const struct virtq_chain *chain)
{
	size_t skip = console->state.sent;

	for (unsigned int i = 0; i < chain->out_count; i++) {
		const struct iovec *iov = &chain->iov[i];

		while (skip < iov->iov_len) {
			size_t step = console_put(console, (char *)iov->iov_base + skip,
						  MIN(iov->iov_len - skip, BYTES_AT_ONCE));

			console->state.sent += step;
			skip += step;
			if (!step || virtio_loop_turn_over(&console->loop))
				return false;
		}
		skip -= iov->iov_len;
	}
	console->state.sent = 0;
	virtqueue_push(vq, chain, 0);
	return true;
}

/* ---- input ---- */

static bool console_receive(struct console *console, struct virtqueue *vq, const struct virtq_chain *chain)
{
	ssize_t got = 0;

	if (chain->in_count) {
		got = nowait_readv(console->in_fd, chain->iov + chain->out_count, MIN(chain->in_count, IOV_MAX));
		if (got <= 0)
			return false;
	}
	virtqueue_push(vq, chain, (uint32_t)got);
	return true;
}

static bool console_serve(struct virtio_device *device, struct virtqueue *vq, const struct virtq_chain *chain)
{
	return vq->index == TRANSMIT ? console_transmit(console_of(device), vq, chain)
					: console_receive(console_of(device), vq, chain);
}

/* One of the descriptors is ready again. */
static void console_ready(void *opaque, uint32_t events)
{
	struct console *console = opaque;

	if (!virtio_loop_enter(&console->loop))
		return;
	virtio_loop_serve(&console->loop, TRANSMIT);
	virtio_loop_serve(&console->loop, RECEIVE);
	virtio_loop_leave(&console->loop);
}

/* The reader has taken nothing for too long. */
static void console_give_up(void *opaque, uint32_t events)
{
	struct console *console = opaque;
	const struct virtio_device *device = &console->loop.device;

	pthread_mutex_lock(&console->loop.lock);
	if (console->waiting && console->loop.running) {
		console->dropping = true;
		log_warn(device->log, "%s: nobody reads the output; it is dropped until somebody does", device->id);
		virtio_loop_serve(&console->loop, TRANSMIT);
	}
	console->waiting = false;
	pthread_mutex_unlock(&console->loop.lock);
}

/* ---- the device ---- */

/* 0 by 0 without a terminal. */
static struct winsize console_terminal_size(const struct console *console)
{
	struct winsize size;

	return ioctl(console->out_fd, TIOCGWINSZ, &size) == 0 ? size : (struct winsize){0};
}

static void console_config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	struct console *console = console_of(device);
	struct winsize size = console_terminal_size(console);
	const struct virtio_layout_console config = {.cols = htole16(size.ws_col), .rows = htole16(size.ws_row)};

	console->state.cols = size.ws_col;
	console->state.rows = size.ws_row;
	virtio_config_copy(&config, sizeof(config), offset, data, len);
}

/* Emergency write: a character without a queue. */
static void console_config_write(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len)
{
	struct console *console = console_of(device);

	if (offset != offsetof(struct virtio_layout_console, emerg_wr))
		return;
	pthread_mutex_lock(&console->loop.lock);
	if (!console_put(console, data, 1))
		console->dropped++;
	pthread_mutex_unlock(&console->loop.lock);
}

static int console_activate(struct virtio_device *device, struct err *err)
{
	console_of(device)->state.sent = 0;
	return virtio_loop_activate(device, err);
}

/* After a migration the terminal may have another size. */
static void console_resume(struct virtio_device *device)
{
	const struct console_state *told = &console_of(device)->state;
	struct winsize size = console_terminal_size(console_of(device));

	virtio_loop_start(device);
	if (virtio_has(device, VIRTIO_CONSOLE_F_SIZE) && (size.ws_col != told->cols || size.ws_row != told->rows))
		virtio_device_config_changed(device);
}

/* ---- saved state ---- */

static int console_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	if (((const struct console_state *)loaded)->sent > UINT32_MAX)
		return err_set(err, -EBADMSG, "more bytes are written than a buffer has");
	return 0;
}

static const struct state_field state_fields[] = {
	STATE_UINT(struct console_state, cols, 1),
	STATE_UINT(struct console_state, rows, 1),
	STATE_UINT(struct console_state, sent, 1),
};

static const struct state_table console_state = {
	.name = "console", .version = 1, .oldest = 1, STATE_FIELDS(state_fields),
	STATE_IN(struct console, state), STATE_LOCK(struct console, loop.lock), .judge = console_judge,
};

/* ---- construction ---- */

static void console_remove_sources(void *opaque)
{
	struct console *console = opaque;

	event_source_remove(console->in_source);
	event_source_remove(console->out_source);
	event_source_remove(console->patience);
}

static void console_destroy(struct virtio_device *device)
{
	struct console *console = console_of(device);

	if (console->loop.loop)
		event_loop_call(console->loop.loop, console_remove_sources, console);
	if (console->dropped)
		log_warn(device->log, "%s: the last %llu bytes of the output are lost", device->id,
			 (unsigned long long)console->dropped);
	virtio_loop_done(&console->loop);
	if (console->in_fd == console->out_fd)
		console->in_fd = -1;
	fd_close(&console->in_fd);
	fd_close(&console->out_fd);
	free(console);
}

static const struct virtio_device_ops console_ops = {
	.config_read = console_config_read,
	.config_write = console_config_write,
	.activate = console_activate,
	.reset = virtio_loop_stop,
	.drain = virtio_loop_drain,
	.resume = console_resume,
	.destroy = console_destroy,
	.state = &console_state,
};

/* Regular files are always ready and cannot be watched. */
static int console_watch(struct console *console, int fd, uint32_t events, struct event_source **ret, struct err *err)
{
	int code;

	if (fd < 0)
		return 0;
	code = event_loop_watch(console->loop.loop, fd, events | EPOLLET, console_ready, console, ret, err);
	return code == -EPERM ? 0 : code;
}

static int console_set_up(struct console *console, struct event_loop *loop, struct err *err)
{
	bool same = console->in_fd == console->out_fd;
	int ret = virtio_loop_watch(&console->loop, loop, console_serve, err);
	int peer = ioctl(console->out_fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);

	/* A pty reports a missing client only after it had one: TIOCGPTPEER was the first. */
	console->pty = peer >= 0;
	fd_close(&peer);
	console->out = nowait_out(console->out_fd);
	if (ret == 0)
		ret = event_loop_timer(loop, console_give_up, console, &console->patience, err);
	if (ret == 0 && !same)
		ret = console_watch(console, console->in_fd, EPOLLIN, &console->in_source, err);
	if (ret == 0)
		ret = console_watch(console, console->out_fd, EPOLLOUT | (same ? EPOLLIN : 0), &console->out_source,
				    err);
	return ret;
}

int virtio_console_create(const char *id, int *in_fd, int *out_fd, struct guest_memory *memory, struct event_loop *loop,
			  const struct log *log, struct virtio_device **ret, struct err *err)
{
	static const uint16_t sizes[QUEUES] = {QUEUE_SIZE, QUEUE_SIZE};
	struct console *console = calloc(1, sizeof(*console));
	int code;

	if (!console)
		return err_sys(err, -ENOMEM, "%s", id);
	console->in_fd = *in_fd;
	console->out_fd = *out_fd;
	console->loop.device.class_code = CLASS_CONSOLE;
	console->loop.device.config_size = sizeof(struct virtio_layout_console);
	/* SIZE also without a terminal: the guest keeps its features on another host, where there may be one. */
	console->loop.device.offered = 1ull << VIRTIO_CONSOLE_F_EMERG_WRITE | 1ull << VIRTIO_CONSOLE_F_SIZE;
	*in_fd = *out_fd = -1;
	code = virtio_device_init(&console->loop.device, &console_ops, id, VIRTIO_ID_CONSOLE, QUEUES, sizes, memory,
				  log, err);
	if (code == 0)
		code = console_set_up(console, loop, err);
	if (code < 0) {
		console_destroy(&console->loop.device);
		return code;
	}
	*ret = &console->loop.device;
	return 0;
}
