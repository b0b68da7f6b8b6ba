/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of a virtio disk (virtio 1.2 section 5.2.6): a chain becomes one or more io_uring operations, their
 * result a status byte. See blk_internal.h. All of it runs on the queue's thread.
 *
 * A chain can have any segments: the first 16 readable bytes are the header, the last writable byte is the status, the
 * rest is data. A short transfer continues where it stopped. I/O that O_DIRECT refuses (unaligned addresses, lengths or
 * offsets) goes through the page cache, which the kernel keeps coherent.
 */
#include "devices/virtio/blk_internal.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#define BLK_STARTED (-1)     /* instead of VIRTIO_BLK_S_*: the request completes later */
#define BLK_MAX_ATTEMPTS 100 /* on EAGAIN and EINTR without progress */
#define BLK_ZERO_CHUNK KIB(256)

struct io_uring_sqe *blk_get_sqe(struct blk_queue *q)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

	if (!sqe && io_uring_submit(&q->ring) >= 0)
		sqe = io_uring_get_sqe(&q->ring);
	return sqe;
}

static struct blk_request *blk_io_request_get(struct blk_queue *q)
{
	struct blk_request *request = q->free;

	q->free = request->next_free;
	memset(request, 0, offsetof(struct blk_request, segments));
	request->iov = request->segments;
	return request;
}

void blk_request_free(struct blk_request *request)
{
	free(request->extra);
	free(request->rest);
}

/* Writes the status and pushes the chain. */
static void blk_io_request_finish(struct blk_queue *q, struct blk_request *request, uint8_t status)
{
	const struct iovec *in = request->iov + (request->in ? 0 : request->iov_count);
	unsigned int in_count = request->in ? request->iov_count + 1u : 1;
	bool all = request->in_bytes == 1 || (request->in && status == VIRTIO_BLK_S_OK);

	blk_count(q, request, status);
	*(volatile uint8_t *)request->iov[request->iov_count].iov_base = status;
	/* A failed read may have written anywhere: all of it is dirty, and none of it counts as written. */
	virtqueue_push_iov(q->vq, request->head, in, in_count, all ? request->in_bytes : 0);
	q->pushed++;
	blk_request_free(request);
	request->next_free = q->free;
	q->free = request;
}

/*
 * Fills iov with the data segments of the chain in one direction, without header and status, and the status byte after
 * them. False: out of memory; iov has only the status byte.
 */
static bool blk_io_request_gather(struct blk_request *request, const struct virtq_chain *chain, bool in)
{
	const struct iovec *from = chain->iov + (in ? chain->out_count : 0), *last;
	unsigned int count = in ? chain->in_count : chain->out_count, i, n = 0;
	size_t skip = in ? 0 : sizeof(struct virtio_blk_outhdr), len;
	size_t left = in ? chain->in_bytes - 1u : chain->out_bytes - skip;

	if (count >= BLK_INLINE_SEGMENTS)
		request->extra = malloc((count + 1) * sizeof(*request->iov));
	if (request->extra)
		request->iov = request->extra;
	else if (count >= BLK_INLINE_SEGMENTS)
		count = 0;
	request->in = in;
	request->size = left;
	for (i = 0; i < count && left; i++) {
		if (skip >= from[i].iov_len) {
			skip -= from[i].iov_len;
			continue;
		}
		len = MIN(from[i].iov_len - skip, left);
		request->iov[n++] = (struct iovec){(char *)from[i].iov_base + skip, len};
		skip = 0;
		left -= len;
	}
	last = &chain->iov[chain->out_count + chain->in_count - 1];
	request->iov[n] = (struct iovec){(char *)last->iov_base + last->iov_len - 1, 1};
	request->iov_count = (uint16_t)n;
	return !left;
}

/* Whether O_DIRECT allows these segments at this offset. */
static bool blk_io_is_aligned(const struct blk_file *file, uint64_t offset, const struct iovec *iov, unsigned int count)
{
	uint64_t lengths = offset, addresses = 0;
	unsigned int i;

	for (i = 0; i < count; i++) {
		lengths |= iov[i].iov_len;
		addresses |= (uintptr_t)iov[i].iov_base;
	}
	return !(lengths & (file->offset_align - 1)) && !(addresses & (file->memory_align - 1));
}

/* The data segments after request->done bytes. NULL: out of memory. */
static const struct iovec *blk_io_remaining(struct blk_request *request, unsigned int *count)
{
	uint64_t skip = request->done;
	unsigned int i = 0, n = 0;

	*count = request->iov_count;
	if (!skip)
		return request->iov;
	if (!request->rest)
		request->rest = malloc(request->iov_count * sizeof(*request->rest));
	if (!request->rest)
		return NULL;
	for (; i < request->iov_count && skip >= request->iov[i].iov_len; i++)
		skip -= request->iov[i].iov_len;
	for (; i < request->iov_count; i++, skip = 0)
		request->rest[n++] = (struct iovec){(char *)request->iov[i].iov_base + skip,
						    request->iov[i].iov_len - skip};
	*count = n;
	return request->rest;
}

static void blk_io_prepare_transfer(struct blk_queue *q, struct blk_request *request, struct io_uring_sqe *sqe,
				    const struct iovec *iov, unsigned int count)
{
	uint64_t offset = request->offset + request->done;

	request->through = request->op == BLK_WRITE && !atomic_load(&q->blk->write_cache);
	if (request->file == BLK_FILE_DIRECT && !blk_io_is_aligned(&q->blk->file, offset, iov, count))
		request->file = BLK_FILE_BUFFERED;
	if (count == 1 && iov->iov_len <= INT32_MAX)
		io_uring_prep_rw(request->op == BLK_READ ? IORING_OP_READ : IORING_OP_WRITE, sqe, 0, iov->iov_base,
				 (unsigned int)iov->iov_len, offset);
	else
		io_uring_prep_rw(request->op == BLK_READ ? IORING_OP_READV : IORING_OP_WRITEV, sqe, 0, iov, count,
				 offset);
	sqe->rw_flags = request->through ? RWF_DSYNC : 0;
}

/* Writes zeroes, for a file that does not support fallocate; guest memory is not used. */
static bool blk_io_prepare_zero_write(struct blk_queue *q, struct blk_request *request, struct io_uring_sqe *sqe)
{
	if (!q->zeroes)
		q->zeroes = calloc(1, BLK_ZERO_CHUNK);
	if (!q->zeroes)
		return false;
	request->file = BLK_FILE_BUFFERED;
	io_uring_prep_rw(IORING_OP_WRITE, sqe, 0, q->zeroes,
			 (unsigned int)MIN(request->size - request->done, BLK_ZERO_CHUNK),
			 request->offset + request->done);
	return true;
}

/* Submits the request's current operation; if that fails, or shall fail, completes the request with an error. */
static void blk_io_request_submit(struct blk_queue *q, struct blk_request *request)
{
	bool transfer = request->op == BLK_READ || request->op == BLK_WRITE;
	const struct iovec *iov = NULL;
	struct io_uring_sqe *sqe = NULL;
	unsigned int count = 0;

	if (transfer)
		iov = blk_io_remaining(request, &count);
	if ((iov || !transfer) && !blk_is_disconnected(q->blk))
		sqe = blk_get_sqe(q);
	if (!sqe) {
		blk_io_request_finish(q, request, VIRTIO_BLK_S_IOERR);
		return;
	}
	switch ((enum blk_op)request->op) {
	case BLK_READ:
	case BLK_WRITE:
		blk_io_prepare_transfer(q, request, sqe, iov, count);
		break;
	case BLK_SYNC:
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
		break;
	case BLK_PUNCH:
	case BLK_ZERO_RANGE:
		io_uring_prep_fallocate(sqe, 0,
					FALLOC_FL_KEEP_SIZE | (request->op == BLK_PUNCH ? FALLOC_FL_PUNCH_HOLE
											: FALLOC_FL_ZERO_RANGE),
					(off_t)request->offset, (off_t)request->size);
		break;
	case BLK_ZERO_WRITE:
		if (!blk_io_prepare_zero_write(q, request, sqe))
			io_uring_prep_nop(sqe); /* its result 0, no progress, is an error */
		break;
	}
	if (q->fixed_files) {
		sqe->fd = request->file;
		sqe->flags |= IOSQE_FIXED_FILE;
	} else {
		sqe->fd = request->file == BLK_FILE_DIRECT ? q->blk->file.fd : q->blk->file.buffered_fd;
	}
	if (request->file == BLK_FILE_BUFFERED && request->op != BLK_READ)
		atomic_store(&q->blk->cached, true);
	if (request->attempts)
		sqe->flags |= IOSQE_ASYNC; /* it would block */
	io_uring_sqe_set_data(sqe, request);
	q->in_flight++;
}

static bool blk_io_in_range(const struct blk_queue *q, uint64_t sector, uint64_t bytes)
{
	uint64_t sectors = blk_sectors(q->blk);

	return !(bytes % BLK_SECTOR) && sector <= sectors && bytes / BLK_SECTOR <= sectors - sector;
}

static int blk_io_start_transfer(struct blk_queue *q, struct blk_request *request, uint64_t sector)
{
	if (request->size > BLK_MAX_REQUEST || !blk_io_in_range(q, sector, request->size))
		return VIRTIO_BLK_S_IOERR;
	if (request->type == VIRTIO_BLK_T_OUT && q->blk->file.readonly)
		return VIRTIO_BLK_S_IOERR;
	if (!request->size)
		return VIRTIO_BLK_S_OK;
	request->offset = sector * BLK_SECTOR;
	request->op = request->type == VIRTIO_BLK_T_OUT ? BLK_WRITE : BLK_READ;
	rate_limiter_charge(&q->blk->limiter, request->size, 0);
	blk_io_request_submit(q, request);
	return BLK_STARTED;
}

static int blk_io_start_flush(struct blk_queue *q, struct blk_request *request, uint64_t sector)
{
	request->op = BLK_SYNC;
	blk_io_request_submit(q, request);
	return BLK_STARTED;
}

/* Writes 20 bytes at most, however long the buffer is; only they are marked dirty. */
static int blk_io_start_get_id(struct blk_queue *q, struct blk_request *request, uint64_t sector)
{
	const struct iovec status = request->iov[request->iov_count];
	size_t at = 0;
	uint16_t i;

	for (i = 0; i < request->iov_count && at < VIRTIO_BLK_ID_BYTES; at += request->iov[i++].iov_len) {
		request->iov[i].iov_len = MIN(request->iov[i].iov_len, VIRTIO_BLK_ID_BYTES - at);
		memcpy(request->iov[i].iov_base, q->blk->serial + at, request->iov[i].iov_len);
	}
	if (at < request->size)
		request->in_bytes = (uint32_t)at; /* the status does not follow them */
	request->iov[i] = status;
	request->iov_count = i;
	return VIRTIO_BLK_S_OK;
}

/* The cheapest operation of the file that makes a range read as zeroes. */
static enum blk_op blk_io_zeroing_op(const struct blk_queue *q, const struct blk_request *request)
{
	if (request->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP && !q->no_punch)
		return BLK_PUNCH;
	return q->no_zero_range ? BLK_ZERO_WRITE : BLK_ZERO_RANGE;
}

/* Discard and write-zeroes: one range (max_discard_seg and max_write_zeroes_seg are 1). */
static int blk_io_start_range(struct blk_queue *q, struct blk_request *request, uint64_t sector)
{
	bool discard = request->type == VIRTIO_BLK_T_DISCARD;
	uint32_t flags = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, sectors;
	struct virtio_blk_discard_write_zeroes range;

	if (q->blk->file.readonly)
		return VIRTIO_BLK_S_IOERR;
	if (request->size != sizeof(range))
		return VIRTIO_BLK_S_IOERR;
	virtq_chain_read(&q->chain, sizeof(struct virtio_blk_outhdr), &range, sizeof(range));
	request->flags = le32toh(range.flags);
	sectors = le32toh(range.num_sectors);
	if (request->flags & ~flags)
		return VIRTIO_BLK_S_UNSUPP;
	if (sectors > (discard ? BLK_MAX_DISCARD_SECTORS : BLK_MAX_WRITE_ZEROES_SECTORS))
		return VIRTIO_BLK_S_IOERR;
	if (!blk_io_in_range(q, le64toh(range.sector), (uint64_t)sectors * BLK_SECTOR))
		return VIRTIO_BLK_S_IOERR;
	request->offset = le64toh(range.sector) * BLK_SECTOR;
	request->size = (uint64_t)sectors * BLK_SECTOR;
	if (!sectors || (discard && q->no_punch))
		return VIRTIO_BLK_S_OK; /* a discard is a hint */
	request->op = discard ? BLK_PUNCH : blk_io_zeroing_op(q, request);
	rate_limiter_charge(&q->blk->limiter, discard ? 0 : request->size, 0);
	blk_io_request_submit(q, request);
	return BLK_STARTED;
}

static const struct blk_kind {
	uint32_t type;
	bool in; /* data is for the guest to read */
	int (*start)(struct blk_queue *q, struct blk_request *request, uint64_t sector);
} kinds[] = {
	{VIRTIO_BLK_T_IN, true, blk_io_start_transfer},    {VIRTIO_BLK_T_OUT, false, blk_io_start_transfer},
	{VIRTIO_BLK_T_FLUSH, false, blk_io_start_flush},   {VIRTIO_BLK_T_GET_ID, true, blk_io_start_get_id},
	{VIRTIO_BLK_T_DISCARD, false, blk_io_start_range}, {VIRTIO_BLK_T_WRITE_ZEROES, false, blk_io_start_range},
};

int blk_request_start(struct blk_queue *q)
{
	const struct virtq_chain *chain = &q->chain;
	const struct blk_kind *kind = NULL;
	struct blk_request *request;
	struct virtio_blk_outhdr header;
	int status = VIRTIO_BLK_S_UNSUPP;
	size_t i;

	if (!chain->in_bytes || virtq_chain_read(chain, 0, &header, sizeof(header)) < sizeof(header))
		return -EPROTO;
	rate_limiter_charge(&q->blk->limiter, 0, 1);
	request = blk_io_request_get(q);
	request->started = q->now;
	request->head = chain->head;
	request->in_bytes = chain->in_bytes;
	request->type = le32toh(header.type);
	for (i = 0; i < ARRAY_SIZE(kinds) && !kind; i++)
		if (kinds[i].type == request->type)
			kind = &kinds[i];
	if (!blk_io_request_gather(request, chain, kind && kind->in))
		status = VIRTIO_BLK_S_IOERR;
	else if (kind)
		status = kind->start(q, request, le64toh(header.sector));
	if (status != BLK_STARTED)
		blk_io_request_finish(q, request, (uint8_t)status);
	return 0;
}

/* The host has failed: the guest is told, or the request waits until the machine is resumed. */
static int blk_io_fail(struct blk_queue *q, struct blk_request *request, int result)
{
	return blk_fault_failed(q, request, result) ? BLK_STARTED : VIRTIO_BLK_S_IOERR;
}

void blk_retry(struct blk_queue *q)
{
	struct blk_request *request = blk_fault_take_kept(q), *next;

	for (; request; request = next) {
		next = request->next_free;
		request->attempts = 0;
		blk_io_request_submit(q, request);
	}
}

/* After a transfer, complete or short. */
static int blk_io_continue_transfer(struct blk_queue *q, struct blk_request *request, int result)
{
	if (result == -EINVAL && request->file == BLK_FILE_DIRECT && q->blk->file.direct)
		request->file = BLK_FILE_BUFFERED; /* O_DIRECT needs more than the kernel has reported */
	else if (result <= 0)
		return blk_io_fail(q, request, result);
	else
		request->done += (unsigned int)result;
	if (request->done >= request->size)
		return VIRTIO_BLK_S_OK;
	request->attempts = 0;
	blk_io_request_submit(q, request);
	return BLK_STARTED;
}

/* Without a write cache, the change must be on disk before the request completes: the driver may have turned it off
 * meanwhile. */
static int blk_io_finish_change(struct blk_queue *q, struct blk_request *request)
{
	if (request->through || atomic_load(&q->blk->write_cache))
		return VIRTIO_BLK_S_OK;
	request->op = BLK_SYNC;
	request->attempts = 0;
	blk_io_request_submit(q, request);
	return BLK_STARTED;
}

/* After a punch or zeroing of a range. If the file cannot (EINVAL: not at this alignment), tries the next operation. */
static int blk_io_continue_range(struct blk_queue *q, struct blk_request *request, int result)
{
	bool cannot = result == -EOPNOTSUPP || result == -EINVAL || result == -ENODEV || result == -ENOSYS;

	if (result >= 0)
		return blk_io_finish_change(q, request);
	if (!cannot)
		return blk_io_fail(q, request, result);
	if (result != -EINVAL && request->op == BLK_PUNCH)
		q->no_punch = true;
	else if (result != -EINVAL)
		q->no_zero_range = true;
	if (request->type == VIRTIO_BLK_T_DISCARD)
		return VIRTIO_BLK_S_OK;
	request->op = request->op == BLK_PUNCH && !q->no_zero_range ? BLK_ZERO_RANGE : BLK_ZERO_WRITE;
	blk_io_request_submit(q, request);
	return BLK_STARTED;
}

void blk_request_done(struct blk_queue *q, struct blk_request *request, int result)
{
	int status = VIRTIO_BLK_S_IOERR;

	q->in_flight--;
	if (request->op != BLK_READ && request->op != BLK_SYNC)
		blk_mark(q->blk, request->offset, request->size); /* also after an error */
	if ((result == -EAGAIN || result == -EINTR) && request->attempts < BLK_MAX_ATTEMPTS) {
		request->attempts++;
		blk_io_request_submit(q, request);
		return;
	}
	switch ((enum blk_op)request->op) {
	case BLK_READ:
		status = blk_io_continue_transfer(q, request, result);
		break;
	case BLK_SYNC:
		if (result >= 0)
			result = -atomic_exchange(&q->blk->lost, 0);
		status = result < 0 ? blk_io_fail(q, request, result) : VIRTIO_BLK_S_OK;
		break;
	case BLK_PUNCH:
	case BLK_ZERO_RANGE:
		status = blk_io_continue_range(q, request, result);
		break;
	case BLK_WRITE:
	case BLK_ZERO_WRITE:
		status = blk_io_continue_transfer(q, request, result);
		if (status == VIRTIO_BLK_S_OK)
			status = blk_io_finish_change(q, request);
		break;
	}
	if (status != BLK_STARTED)
		blk_io_request_finish(q, request, (uint8_t)status);
}
