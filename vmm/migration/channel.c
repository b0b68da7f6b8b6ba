/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See channel.h. Sockets stay in blocking mode, as io_uring needs it. The calls here use MSG_DONTWAIT and wait in
 * poll(2), together with the descriptors that can end the wait.
 */
#include "vmm/migration/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/monotonic.h"
#include "core/thread.h"
#include "vmm/migration/tls.h"

#define MAX_QUIET 16 /* PROGRESS frames that are skipped in one go */

static const char *channel_peer_name(const struct channel *channel)
{
	return channel->options.side == WIRE_SOURCE ? "target" : "source";
}

static enum wire_side channel_peer_side(const struct channel *channel)
{
	return channel->options.side == WIRE_SOURCE ? WIRE_TARGET : WIRE_SOURCE;
}

int channel_create(const struct channel_options *options, int *fd, struct channel **ret, struct err *err)
{
	struct channel *channel = calloc(1, sizeof(*channel));

	if (!channel)
		return err_sys(err, -ENOMEM, "%s channel", wire_kind_name(options->kind));
	channel->options = *options;
	if (!channel->options.silence_ms)
		channel->options.silence_ms = CHANNEL_SILENCE_MS;
	channel->fd = take_fd(fd);
	channel->interrupt_fd = channel->keeper_fd = -1;
	channel->heard = monotonic_ms();
	wire_begin(&channel->conversation, options->kind);
	pthread_mutex_init(&channel->lock, NULL);
	pthread_mutex_init(&channel->send_lock, NULL);
	*ret = channel;
	return 0;
}

void channel_break(struct channel *channel)
{
	shutdown(channel->fd, SHUT_RDWR);
}

void channel_destroy(struct channel *channel)
{
	if (!channel)
		return;
	channel_break(channel);
	channel_keep_alive_end(channel);
	fd_close(&channel->fd);
	tls_destroy(channel->tls);
	pthread_mutex_destroy(&channel->lock);
	pthread_mutex_destroy(&channel->send_lock);
	free(channel);
}

/* ---- waiting ---- */

int channel_lost(const struct channel *channel, int error, struct err *err)
{
	if (error == ETIMEDOUT || error == EAGAIN)
		return err_set(err, -ETIMEDOUT, "the %s has not answered for %u s", channel_peer_name(channel),
			       channel->options.silence_ms / 1000);
	if (error == 0 || error == EPIPE)
		return err_set(err, -ECONNRESET, "the %s closed the connection", channel_peer_name(channel));
	return err_sys(err, -ECONNRESET, "the connection to the %s broke", channel_peer_name(channel));
}

/*
 * Waits for events on the socket until deadline (ms; -1: none). 0, or an error as listed in channel.h. A frame that has
 * been started is sent to its end, even if interrupted.
 */
static int channel_wait_ready(struct channel *channel, short events, int64_t deadline, struct err *err)
{
	int interrupt_fd = __atomic_load_n(&channel->interrupt_fd, __ATOMIC_RELAXED);
	struct pollfd fds[] = {
		{.fd = channel->fd, .events = events},
		{.fd = channel->options.cancel_fd, .events = POLLIN},
		{.fd = events & POLLOUT ? -1 : interrupt_fd, .events = POLLIN},
	};
	int n;

	do {
		n = poll(fds, ARRAY_SIZE(fds), monotonic_left(deadline));
	} while ((n < 0 && errno == EINTR) || (n == 0 && (deadline < 0 || monotonic_ms() < deadline)));
	if (n < 0)
		return err_sys(err, -errno, "poll");
	if (fds[1].revents)
		return err_set(err, -ECANCELED, "cancelled");
	if (fds[0].revents)
		return 0;
	return n ? err_set(err, -EINTR, "interrupted") : channel_lost(channel, ETIMEDOUT, err);
}

/* ---- sending ---- */

int channel_step(struct channel *channel, enum wire_side from, const struct wire_frame *frame, struct err *err)
{
	int code;

	pthread_mutex_lock(&channel->lock);
	code = wire_step(&channel->conversation, from, frame, err);
	pthread_mutex_unlock(&channel->lock);
	return code;
}

void channel_agree(struct channel *channel, uint32_t version)
{
	pthread_mutex_lock(&channel->lock);
	channel->conversation.version = version;
	pthread_mutex_unlock(&channel->lock);
}

/* Sends all of iov; send_lock is held. */
static int channel_send_all(struct channel *channel, struct iovec *iov, size_t count, struct err *err)
{
	int64_t deadline = monotonic_ms() + channel->options.silence_ms;
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};

	while (message.msg_iovlen) {
		ssize_t n = sendmsg(channel->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		int code = 0;

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return channel_lost(channel, errno, err);
		if (n < 0)
			code = channel_wait_ready(channel, POLLOUT, deadline, err);
		if (code)
			return code;
		if (n < 0)
			continue;
		deadline = monotonic_ms() + channel->options.silence_ms;
		__atomic_fetch_add(&channel->sent, (uint64_t)n, __ATOMIC_RELAXED);
		for (; message.msg_iovlen && (size_t)n >= message.msg_iov->iov_len; message.msg_iov++,
		     message.msg_iovlen--)
			n -= (ssize_t)message.msg_iov->iov_len;
		if (message.msg_iovlen) {
			message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + n;
			message.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

int channel_send(struct channel *channel, enum wire_type type, uint64_t a, uint64_t b, const void *payload, size_t len,
		 struct err *err)
{
	const struct wire_frame frame = {.type = type, .length = (uint32_t)MIN(len, UINT32_MAX), .a = a, .b = b};
	uint8_t header[WIRE_HEADER_SIZE];
	struct iovec iov[] = {{header, sizeof(header)}, {(void *)(uintptr_t)payload, len}};
	int code;

	wire_put_header(header, &frame);
	pthread_mutex_lock(&channel->send_lock);
	code = channel_step(channel, channel->options.side, &frame, err) ?:
	       channel_send_all(channel, iov, len ? 2 : 1, err);
	pthread_mutex_unlock(&channel->send_lock);
	return code;
}

int channel_send_frames(struct channel *channel, const struct channel_frame *frames, size_t count, struct err *err)
{
	uint8_t headers[CHANNEL_MAX_FRAMES][WIRE_HEADER_SIZE];
	struct iovec iov[2 * CHANNEL_MAX_FRAMES];
	size_t used = 0;
	int code = 0;

	pthread_mutex_lock(&channel->send_lock);
	for (size_t i = 0; i < count && !code; i++) {
		const struct wire_frame frame = {.type = frames[i].type,
						 .length = (uint32_t)MIN(frames[i].len, UINT32_MAX)};

		wire_put_header(headers[i], &frame);
		iov[used++] = (struct iovec){headers[i], WIRE_HEADER_SIZE};
		if (frames[i].len)
			iov[used++] = (struct iovec){(void *)(uintptr_t)frames[i].payload, frames[i].len};
		code = channel_step(channel, channel->options.side, &frame, err);
	}
	code = code ?: channel_send_all(channel, iov, used, err);
	pthread_mutex_unlock(&channel->send_lock);
	return code;
}

int channel_send_bytes(struct channel *channel, struct iovec *iov, size_t count, struct err *err)
{
	int code;

	pthread_mutex_lock(&channel->send_lock);
	code = channel_send_all(channel, iov, count, err);
	pthread_mutex_unlock(&channel->send_lock);
	return code;
}

/* ---- receiving ---- */

/* Reads up to len bytes without waiting: their number, -EAGAIN if there are none, or an error. */
static ssize_t channel_receive_some(struct channel *channel, void *buf, size_t len, struct err *err)
{
	ssize_t n = recv(channel->fd, buf, len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n <= 0)
		return channel_lost(channel, n < 0 ? errno : 0, err);
	channel->heard = monotonic_ms();
	__atomic_fetch_add(&channel->received, (uint64_t)n, __ATOMIC_RELAXED);
	return n;
}

/* Between two frames, silence is an error on the control channel only. */
static int64_t channel_header_deadline(const struct channel *channel)
{
	bool patient = channel->options.kind != WIRE_CONTROL && wire_open(&channel->conversation) &&
	!channel->header_have;

	return patient ? -1 : channel->heard + channel->options.silence_ms;
}

/* Checks a complete header. Skips PROGRESS. */
static int channel_take_header(struct channel *channel, struct err *err)
{
	struct wire_frame frame;
	int code = 0;

	wire_get_header(channel->header, &frame);
	channel->header_have = 0;
	if (!wire_open(&channel->conversation) && frame.type != WIRE_REFUSED)
		code = wire_check_first(&frame, err);
	code = code ?: channel_step(channel, channel_peer_side(channel), &frame, err);
	if (code || frame.type == WIRE_PROGRESS)
		return code;
	channel->frame = frame;
	channel->has_frame = true;
	return 0;
}

/*
 * Reads towards the next frame without waiting: 1 if it is complete, 0 if not, or an error. A peer that sends PROGRESS
 * without end cannot keep the caller here.
 */
static int channel_look(struct channel *channel, struct err *err)
{
	unsigned int quiet = 0;

	if (channel->payload_left)
		return err_set(err, -EPROTO, "%u bytes of %s were not read", channel->payload_left,
			       wire_type_name(channel->frame.type));
	while (!channel->has_frame && quiet < MAX_QUIET) {
		ssize_t n = channel_receive_some(channel, channel->header + channel->header_have,
						 WIRE_HEADER_SIZE - channel->header_have, err);
		int code;

		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		channel->header_have += (size_t)n;
		if (channel->header_have < WIRE_HEADER_SIZE)
			continue;
		code = channel_take_header(channel, err);
		if (code)
			return code;
		quiet++;
	}
	return channel->has_frame;
}

int channel_check(struct channel *channel, struct err *err)
{
	int64_t deadline;
	int code = channel_look(channel, err);

	deadline = channel_header_deadline(channel);
	if (!code && deadline >= 0 && monotonic_ms() >= deadline)
		return channel_lost(channel, ETIMEDOUT, err);
	return code;
}

int channel_await(struct channel *channel, int64_t until, struct err *err)
{
	int code;

	while (!(code = channel_check(channel, err)) && monotonic_ms() < until) {
		struct err why;

		code = channel_wait_ready(channel, POLLIN, until, &why);
		if (code && code != -ETIMEDOUT)
			return err_set(err, code, "%s", why.text);
	}
	return code;
}

int channel_receive(struct channel *channel, struct wire_frame *frame, struct err *err)
{
	int code;

	for (;;) {
		code = channel_look(channel, err);
		if (code)
			break;
		code = channel_wait_ready(channel, POLLIN, channel_header_deadline(channel), err);
		if (code)
			break;
	}
	if (code < 0)
		return code;
	channel->has_frame = false;
	channel->payload_left = channel->frame.length;
	*frame = channel->frame;
	return 0;
}

int channel_payload(struct channel *channel, void *buf, size_t len, struct err *err)
{
	char *to = buf;

	if (len > channel->payload_left)
		return err_set(err, -EPROTO, "%s has %u bytes left, but %zu are needed",
			       wire_type_name(channel->frame.type), channel->payload_left, len);
	while (len) {
		ssize_t n = channel_receive_some(channel, to, len, err);
		int code = 0;

		if (n == -EAGAIN)
			code = channel_wait_ready(channel, POLLIN, channel->heard + channel->options.silence_ms, err);
		if (code || (n < 0 && n != -EAGAIN))
			return code ?: (int)n;
		if (n > 0) {
			to += n;
			len -= (size_t)n;
			channel->payload_left -= (uint32_t)n;
		}
	}
	return 0;
}

int channel_payload_all(struct channel *channel, char **ret, struct err *err)
{
	size_t len = channel->payload_left;
	_cleanup_(free_ptr) char *payload = malloc(len + 1);
	int code;

	if (!payload)
		return err_sys(err, -ENOMEM, "%s of %zu bytes", wire_type_name(channel->frame.type), len);
	code = channel_payload(channel, payload, len, err);
	if (code)
		return code;
	payload[len] = 0;
	*ret = take_ptr(payload);
	return 0;
}

/* ---- last words ---- */

static bool channel_has_words(uint32_t type)
{
	return type == WIRE_REFUSED || type == WIRE_FAILED || type == WIRE_ABORT;
}

int channel_words(struct channel *channel, const struct wire_frame *frame, struct err *err)
{
	char words[WIRE_MAX_TEXT + 1] = "";
	int code = channel_payload(channel, words, MIN(frame->length, WIRE_MAX_TEXT), err);

	if (code)
		return code;
	for (uint32_t i = 0; i < MIN(frame->length, WIRE_MAX_TEXT); i++)
		if ((unsigned char)words[i] < ' ' || (unsigned char)words[i] > '~')
			words[i] = '?';
	return err_set(err, -EREMOTEIO, "the %s: %s", channel_peer_name(channel), words);
}

int channel_expect_either(struct channel *channel, enum wire_type type, enum wire_type other, struct wire_frame *frame,
			  struct err *err)
{
	struct wire_frame got;
	int code = channel_receive(channel, &got, err);

	if (code)
		return code;
	if (got.type != type && got.type != other && channel_has_words(got.type))
		return channel_words(channel, &got, err);
	if (got.type != type && got.type != other)
		return err_set(err, -EPROTO, "the %s sent %s instead of %s", channel_peer_name(channel),
			       wire_type_name(got.type), wire_type_name(type));
	*frame = got;
	return 0;
}

int channel_expect(struct channel *channel, enum wire_type type, struct wire_frame *frame, struct err *err)
{
	return channel_expect_either(channel, type, type, frame, err);
}

/* The peer's last words are awaited for no longer than its next ones would be. */
static int64_t channel_farewell_deadline(const struct channel *channel)
{
	return monotonic_ms() + MIN(CHANNEL_FAREWELL_MS, channel->options.silence_ms);
}

/* Skips other frames until one carries a message; 0 with that frame taken into frame. */
static int channel_find_words(struct channel *channel, int64_t deadline, struct wire_frame *frame)
{
	char nothing[4096];
	int code = 0;

	while (!code && monotonic_ms() < deadline) {
		while (!code && channel->payload_left)
			code = channel_payload(channel, nothing, MIN(channel->payload_left, sizeof(nothing)), NULL);
		code = code ?: channel_look(channel, NULL);
		if (code == 1) {
			code = channel_receive(channel, frame, NULL);
			if (!code && channel_has_words(frame->type))
				return 0;
		} else if (!code) {
			code = channel_wait_ready(channel, POLLIN, deadline, NULL);
		}
	}
	return code ?: -ETIMEDOUT;
}

int channel_last_words(struct channel *channel, int code, struct err *err)
{
	struct wire_frame frame;
	struct err words;

	if (code == -EREMOTEIO || code == -ECANCELED || channel->header_have)
		return code;
	channel_set_interrupt(channel, -1);
	if (channel_find_words(channel, channel_farewell_deadline(channel), &frame) ||
	    channel_words(channel, &frame, &words) != -EREMOTEIO)
		return code;
	return err_set(err, -EREMOTEIO, "%s", words.text);
}

void channel_farewell(struct channel *channel, enum wire_type type, const char *words)
{
	size_t len = strlen(words);

	if (!channel_send(channel, type, 0, 0, len ? words : "?", len ? MIN(len, WIRE_MAX_TEXT) : 1, NULL))
		channel_finish(channel);
}

void channel_finish(struct channel *channel)
{
	int64_t deadline = channel_farewell_deadline(channel);
	char nothing[4096];

	shutdown(channel->fd, SHUT_WR);
	for (;;) {
		ssize_t n = recv(channel->fd, nothing, sizeof(nothing), MSG_DONTWAIT);
		struct pollfd fd = {.fd = channel->fd, .events = POLLIN};

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || monotonic_ms() >= deadline)
			return;
		if (n < 0)
			poll(&fd, 1, monotonic_left(deadline));
	}
}

/* ---- keeping alive ---- */

/* Ends when the conversation is over: PROGRESS is not allowed then, and the connection may close at any time. */
static void *channel_keep_alive_work(void *opaque)
{
	struct channel *channel = opaque;
	struct pollfd end = {.fd = channel->keeper_fd, .events = POLLIN};
	int interval = (int)MIN(CHANNEL_KEEP_ALIVE_MS, channel->options.silence_ms / 4), code = 0;

	while (!code && poll(&end, 1, interval) <= 0)
		code = channel_send(channel, WIRE_PROGRESS, 0, 0, NULL, 0, NULL);
	return NULL;
}

int channel_keep_alive(struct channel *channel, struct err *err)
{
	int code;

	channel->keeper_fd = eventfd(0, EFD_CLOEXEC);
	if (channel->keeper_fd < 0)
		return err_sys(err, -errno, "eventfd");
	code = thread_start(&channel->keeper, THREAD_MIGRATION, channel_keep_alive_work, channel, "keep-alive");
	if (code) {
		fd_close(&channel->keeper_fd);
		return err_sys(err, code, "thread of the %s channel", wire_kind_name(channel->options.kind));
	}
	return 0;
}

void channel_keep_alive_end(struct channel *channel)
{
	if (channel->keeper_fd < 0)
		return;
	eventfd_write(channel->keeper_fd, 1);
	pthread_join(channel->keeper, NULL);
	fd_close(&channel->keeper_fd);
}

void channel_set_interrupt(struct channel *channel, int fd)
{
	__atomic_store_n(&channel->interrupt_fd, fd, __ATOMIC_RELAXED);
}

uint64_t channel_sent(const struct channel *channel)
{
	return __atomic_load_n(&channel->sent, __ATOMIC_RELAXED);
}

uint64_t channel_received(const struct channel *channel)
{
	return __atomic_load_n(&channel->received, __ATOMIC_RELAXED);
}
