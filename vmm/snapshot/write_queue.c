/* SPDX-License-Identifier: Apache-2.0 */
/* See write_queue.h. A write that ends short is continued with what is left. */
#include "vmm/snapshot/write_queue.h"

#include "core/ring.h"


#define DEPTH 64u
#define ALONE MIB(4)     /* written before there is a ring */
#define LARGE KIB(128)   /* so many bytes are passed to the kernel at once */
#define MOST MIB(16)     /* in flight, so that a cancel does not wait for long */
#define CHECK_NS 100000000ll

struct request {
	const uint8_t *data;
	size_t left;
	uint64_t offset;
	struct request *next; /* free ones */
};

struct write_queue {
	struct write_queue_options options;
	struct io_uring ring;
	bool has_ring, no_ring, fixed_file;
	struct request requests[DEPTH];
	struct request *idle;
	unsigned int busy;
	uint64_t alone;  /* bytes written without the ring */
	size_t flying;   /* bytes in flight */
	size_t prepared; /* bytes that were not submitted yet */
	int code;        /* the first failure */
	struct err err;
};

int write_queue_create(const struct write_queue_options *options, struct write_queue **ret, struct err *err)
{
	struct write_queue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return err_sys(err, -ENOMEM, "writing");
	queue->options = *options;
	for (size_t i = 0; i < DEPTH; i++) {
		queue->requests[i].next = queue->idle;
		queue->idle = &queue->requests[i];
	}
	*ret = queue;
	return 0;
}

void write_queue_destroy(struct write_queue *queue)
{
	if (queue && queue->has_ring)
		io_uring_queue_exit(&queue->ring);
	free(queue);
}

static int write_queue_failed(struct write_queue *queue, int code)
{
	return err_sys(&queue->err, code, "write");
}

/* Whether what follows is written by a ring, which is made when there is enough to write. */
static bool write_queue_wants_ring(struct write_queue *queue)
{
	static const uint8_t ops[] = {IORING_OP_WRITE, IORING_OP_TIMEOUT};
	const struct ring_rules rules = {.ops = ops, .op_count = ARRAY_SIZE(ops), .files = &queue->options.fd, .file_count = 1};
	int code;

	if (queue->has_ring || queue->no_ring || queue->alone < ALONE)
		return queue->has_ring;
	code = ring_create(&queue->ring, DEPTH, &rules, &queue->fixed_file);
	queue->has_ring = !code;
	code = code ?: ring_enable(&queue->ring);
	queue->no_ring = code;
	return queue->has_ring;
}

/* ---- without a ring ---- */

static int write_queue_write(struct write_queue *queue, const uint8_t *data, size_t len, uint64_t offset)
{
	while (len) {
		int code = queue->options.check(queue->options.opaque, &queue->err);
		ssize_t n = code ? 0 : pwrite(queue->options.fd, data, len, (off_t)offset);

		if (code)
			return code;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return write_queue_failed(queue, n < 0 ? -errno : -EIO);
		data += n;
		len -= (size_t)n;
		offset += (size_t)n;
		queue->alone += (size_t)n;
	}
	return 0;
}

/* ---- with it ---- */

static void write_queue_start(struct write_queue *queue, struct request *request)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring); /* as many entries as requests */

	io_uring_prep_write(sqe, queue->fixed_file ? 0 : queue->options.fd, request->data, (unsigned int)request->left, request->offset);
	if (queue->fixed_file)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, request);
	queue->prepared += request->left;
}

static int write_queue_done(struct write_queue *queue, struct request *request, int result)
{
	if (result <= 0 && result != -EINTR && result != -EAGAIN)
		return write_queue_failed(queue, result ?: -EIO);
	if (result > 0) {
		request->data += result;
		request->offset += (size_t)result;
		request->left -= (size_t)result;
		queue->flying -= (size_t)result;
	}
	if (request->left) {
		write_queue_start(queue, request);
		return 0;
	}
	request->next = queue->idle;
	queue->idle = request;
	queue->busy--;
	return 0;
}

static int write_queue_submit(struct write_queue *queue)
{
	int code = io_uring_submit(&queue->ring);

	if (code < 0 && code != -EINTR && code != -EAGAIN && code != -EBUSY)
		return err_sys(&queue->err, code, "io_uring");
	queue->prepared = 0;
	return 0;
}

/* Submits what is prepared, waits for a completion and handles all completions. */
static int write_queue_turn(struct write_queue *queue)
{
	struct __kernel_timespec limit = {.tv_nsec = CHECK_NS};
	struct io_uring_cqe *cqe;
	unsigned int head, count = 0;
	int code = queue->options.check(queue->options.opaque, &queue->err);

	if (code)
		return code;
	queue->prepared = 0;
	code = io_uring_submit_and_wait_timeout(&queue->ring, &cqe, 1, &limit, NULL);
	if (code < 0 && code != -ETIME && code != -EINTR && code != -EAGAIN && code != -EBUSY)
		return err_sys(&queue->err, code, "io_uring");
	code = 0;
	io_uring_for_each_cqe(&queue->ring, head, cqe) {
		code = code ?: write_queue_done(queue, io_uring_cqe_get_data(cqe), cqe->res);
		count++;
	}
	io_uring_cq_advance(&queue->ring, count);
	return code;
}

static int write_queue_add_request(struct write_queue *queue, const void *data, size_t len, uint64_t offset)
{
	struct request *request;
	int code = 0;

	while (!code && (!queue->idle || queue->flying >= MOST))
		code = write_queue_turn(queue);
	if (code)
		return code;
	request = queue->idle;
	queue->idle = request->next;
	*request = (struct request){.data = data, .left = len, .offset = offset};
	queue->busy++;
	queue->flying += len;
	write_queue_start(queue, request);
	return queue->prepared >= LARGE ? write_queue_submit(queue) : 0;
}

/* ---- the outside ---- */

/* Keeps the first failure, and tells it each time. */
static int write_queue_result(struct write_queue *queue, int code, struct err *err)
{
	queue->code = code;
	if (code && err)
		*err = queue->err;
	return code;
}

int write_queue_add(struct write_queue *queue, const void *data, size_t len, uint64_t offset, struct err *err)
{
	int code = queue->code;

	if (!code)
		code = write_queue_wants_ring(queue) ? write_queue_add_request(queue, data, len, offset) :
						       write_queue_write(queue, data, len, offset);
	return write_queue_result(queue, code, err);
}

int write_queue_drain(struct write_queue *queue, struct err *err)
{
	int code = queue->code;

	while (!code && queue->busy)
		code = write_queue_turn(queue);
	return write_queue_result(queue, code, err);
}
