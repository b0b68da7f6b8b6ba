/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See send_queue.h. A stream has one send in flight, because a later send must not overtake the rest of an incomplete
 * one; meanwhile the next batch is filled. A batch that the kernel still reads (zero-copy) is not reused before its
 * notifications have arrived.
 */
#include "vmm/migration/send_queue.h"

#include <sys/socket.h>

/* Since Linux 6.2; not in liburing of Debian 12. */
#ifndef IORING_SEND_ZC_REPORT_USAGE
#define IORING_SEND_ZC_REPORT_USAGE (1u << 3)
#define IORING_NOTIF_USAGE_ZC_COPIED (1u << 31)
#endif

#define ZERO_COPY_MIN KIB(16) /* bytes of an iovec below which pinning costs more than copying */
#define ENTRIES 32u

static int send_queue_ring_init(struct send_queue *queue)
{
	static const uint8_t ops[] = {IORING_OP_SENDMSG, IORING_OP_SENDMSG_ZC, IORING_OP_TIMEOUT};
	const struct ring_rules rules = {.ops = ops, .op_count = ARRAY_SIZE(ops), .files = &queue->channel->fd, .file_count = 1};
	int code = ring_create(&queue->ring, ENTRIES, &rules, &queue->fixed_file);

	queue->has_ring = !code;
	return code ?: ring_enable(&queue->ring);
}

int send_queue_create(struct channel *channel, bool pack, struct send_queue **ret, struct err *err)
{
	struct send_queue *queue = calloc(1, sizeof(*queue));
	int code = queue ? 0 : -ENOMEM;

	if (!code) {
		queue->channel = channel;
		queue->zero_copy = true;
		code = send_queue_ring_init(queue);
	}
	for (size_t i = 0; !code && pack && i < BATCHES; i++) {
		queue->batches[i].packed = malloc(BATCH_PACKED);
		code = queue->batches[i].packed ? 0 : -ENOMEM;
	}
	if (code) {
		send_queue_destroy(queue);
		return err_sys(err, code, "io_uring");
	}
	*ret = queue;
	return 0;
}

void batch_add(struct batch *batch, const struct wire_frame *frame, const void *payload)
{
	uint8_t *header = batch->headers[batch->frames++];
	struct iovec *last = batch->iov_count ? &batch->iov[batch->iov_count - 1] : NULL;

	wire_put_header(header, frame);
	if (last && (uint8_t *)last->iov_base + last->iov_len == header)
		last->iov_len += WIRE_HEADER_SIZE;
	else
		batch->iov[batch->iov_count++] = (struct iovec){header, WIRE_HEADER_SIZE};
	if (frame->length)
		batch->iov[batch->iov_count++] = (struct iovec){(void *)(uintptr_t)payload, frame->length};
	batch->bytes += WIRE_HEADER_SIZE + frame->length;
}

/* ---- operations ---- */

static void send_queue_start_send(struct send_queue *queue, struct batch *batch)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring); /* it has more entries than there are batches */
	bool large = batch->bytes / batch->iov_count >= ZERO_COPY_MIN;

	io_uring_prep_sendmsg(sqe, queue->fixed_file ? 0 : queue->channel->fd, &batch->message, MSG_NOSIGNAL);
	if (queue->zero_copy && large) {
		sqe->opcode = IORING_OP_SENDMSG_ZC;
		sqe->ioprio = IORING_SEND_ZC_REPORT_USAGE;
	}
	if (queue->fixed_file)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, batch);
	batch->sending = true;
}

static void send_queue_advance(struct batch *batch, size_t n)
{
	struct msghdr *message = &batch->message;

	for (; message->msg_iovlen && n >= message->msg_iov->iov_len; message->msg_iov++, message->msg_iovlen--)
		n -= message->msg_iov->iov_len;
	if (message->msg_iovlen) {
		message->msg_iov->iov_base = (char *)message->msg_iov->iov_base + n;
		message->msg_iov->iov_len -= n;
	}
}

/* Errors of a zero-copy send that a copying send does not have: unknown, unsupported, too much memory pinned. */
static bool send_queue_wants_copy(int result)
{
	return result == -EINVAL || result == -EOPNOTSUPP || result == -ENOMEM || result == -ENOBUFS || result == -EPERM;
}

static int send_queue_done(struct send_queue *queue, struct batch *batch, int result, struct err *err)
{
	batch->sending = false;
	if (result > 0) {
		__atomic_fetch_add(&queue->channel->sent, (uint64_t)result, __ATOMIC_RELAXED);
		send_queue_advance(batch, (size_t)result);
	} else if (queue->zero_copy && send_queue_wants_copy(result)) {
		queue->zero_copy = false;
	} else if (result != -EAGAIN && result != -EINTR) {
		return channel_lost(queue->channel, -result, err);
	}
	if (batch->message.msg_iovlen)
		send_queue_start_send(queue, batch);
	return 0;
}

static int send_queue_handle(struct send_queue *queue, const struct io_uring_cqe *cqe, struct err *err)
{
	struct batch *batch = io_uring_cqe_get_data(cqe);

	if (cqe->flags & IORING_CQE_F_NOTIF) {
		batch->notifications--;
		if ((uint32_t)cqe->res & IORING_NOTIF_USAGE_ZC_COPIED)
			queue->zero_copy = false;
		else
			queue->zero_copied = true;
		return 0;
	}
	if (cqe->flags & IORING_CQE_F_MORE)
		batch->notifications++;
	return send_queue_done(queue, batch, cqe->res, err);
}

/* Submits prepared operations, waits for a completion and handles all completions. */
static int send_queue_turn(struct send_queue *queue, struct err *err)
{
	unsigned int silence = queue->channel->options.silence_ms;
	struct __kernel_timespec limit = {.tv_sec = silence / 1000, .tv_nsec = silence % 1000 * 1000000ll};
	struct io_uring_cqe *cqe;
	unsigned int head, count = 0;
	int code = io_uring_submit_and_wait_timeout(&queue->ring, &cqe, 1, &limit, NULL);

	if (code == -ETIME)
		return channel_lost(queue->channel, ETIMEDOUT, err);
	if (code < 0 && code != -EINTR && code != -EAGAIN)
		return err_sys(err, code, "io_uring");
	code = 0;
	io_uring_for_each_cqe(&queue->ring, head, cqe) {
		code = code ?: send_queue_handle(queue, cqe, err);
		count++;
	}
	io_uring_cq_advance(&queue->ring, count);
	return code;
}

static struct batch *send_queue_sending(struct send_queue *queue)
{
	for (size_t i = 0; i < BATCHES; i++)
		if (queue->batches[i].sending)
			return &queue->batches[i];
	return NULL;
}

/* ---- batches ---- */

struct batch *send_queue_batch(struct send_queue *queue)
{
	return &queue->batches[queue->current];
}

int send_queue_drain(struct send_queue *queue, struct err *err)
{
	int code = 0;

	while (!code && send_queue_sending(queue))
		code = send_queue_turn(queue, err);
	return code;
}

static void send_queue_empty(struct batch *batch)
{
	batch->iov_count = batch->frames = 0;
	batch->bytes = batch->packed_used = 0;
}

int send_queue_flush_here(struct send_queue *queue, struct err *err)
{
	struct batch *batch = send_queue_batch(queue);
	int code = batch->frames ? channel_send_bytes(queue->channel, batch->iov, batch->iov_count, err) : 0;

	send_queue_empty(batch);
	return code;
}

int send_queue_flush(struct send_queue *queue, struct err *err)
{
	struct batch *batch = send_queue_batch(queue), *next;
	int code = batch->frames ? send_queue_drain(queue, err) : 0;

	if (code || !batch->frames)
		return code;
	batch->message = (struct msghdr){.msg_iov = batch->iov, .msg_iovlen = batch->iov_count};
	send_queue_start_send(queue, batch);
	code = io_uring_submit(&queue->ring);
	if (code < 0)
		return err_sys(err, code, "io_uring");
	queue->current = (queue->current + 1) % BATCHES;
	next = send_queue_batch(queue);
	for (code = 0; !code && next->notifications;)
		code = send_queue_turn(queue, err);
	send_queue_empty(next);
	return code;
}

void send_queue_destroy(struct send_queue *queue)
{
	if (!queue)
		return;
	/* A failed send is not repeated; one in flight ends with its connection. */
	while (queue->has_ring && send_queue_sending(queue) && !send_queue_turn(queue, NULL))
		;
	if (queue->has_ring)
		io_uring_queue_exit(&queue->ring);
	for (size_t i = 0; i < BATCHES; i++)
		free(queue->batches[i].packed);
	free(queue);
}
