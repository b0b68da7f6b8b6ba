/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio disk (virtio 1.2 section 5.2) on io_uring: features, config space, and a thread for each queue. See
 * blk_internal.h; the machine calls virtio_blk_create.
 *
 * A queue's thread sleeps only in io_uring_enter(2): completions and the driver's kicks (a poll on the eventfd) arrive
 * on the same ring. It works in batches: one interrupt for all completions, one system call to submit all available
 * requests. blk_pace.c decides how long to wait for more of either; meanwhile the thread polls the queue without kicks.
 */
#include "devices/virtio/blk_internal.h"

#include "core/irq.h"
#include "core/monotonic.h"

#include <poll.h>
#include <stdio.h>

/* With this many requests in flight the next completion is near: kicks are not needed. */
#define BUSY_REQUESTS 8u

#define KICK_DATA NULL /* the user data of the kick's poll; requests use their address */

/* ---- a queue's ring ---- */

static int blk_queue_ring_create(struct blk_queue *q, struct err *err)
{
	static const uint8_t ops[] = {IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_FSYNC,
				      IORING_OP_FALLOCATE, IORING_OP_POLL_ADD, IORING_OP_NOP, IORING_OP_TIMEOUT};
	const int fds[BLK_FILES] = {
		[BLK_FILE_DIRECT] = q->blk->file.fd,
		[BLK_FILE_BUFFERED] = q->blk->file.buffered_fd,
		[BLK_FILE_KICK] = q->vq->kick_fd,
	};
	const struct ring_rules rules = {.ops = ops, .op_count = ARRAY_SIZE(ops), .files = fds, .file_count = BLK_FILES,
					 .replaced = true};
	int ret = ring_create(&q->ring, BLK_QUEUE_SIZE, &rules, &q->fixed_files);

	if (ret < 0)
		return err_sys(err, ret, "%s: io_uring", q->blk->id);
	q->kick_armed = q->poll_once = q->stale_files = false;
	return 0;
}

/* The disk has another image. On the queue's thread: the ring obeys no other. */
static void blk_queue_update_files(struct blk_queue *q)
{
	const int fds[BLK_FILES] = {
		[BLK_FILE_DIRECT] = q->blk->file.fd,
		[BLK_FILE_BUFFERED] = q->blk->file.buffered_fd,
		[BLK_FILE_KICK] = q->vq->kick_fd,
	};

	q->stale_files = false;
	if (!q->fixed_files || io_uring_register_files_update(&q->ring, 0, fds, BLK_FILES) == BLK_FILES)
		return;
	q->vq->broken = true;
	virtio_device_broken(&q->blk->device, "its ring does not take the other image");
}

/* One multishot poll reports all kicks: the eventfd is not read, its counter is not used. */
static void blk_kick_arm(struct blk_queue *q)
{
	struct io_uring_sqe *sqe = blk_get_sqe(q);

	int fd = q->fixed_files ? BLK_FILE_KICK : q->vq->kick_fd;

	if (!sqe)
		return;
	if (q->poll_once)
		io_uring_prep_poll_add(sqe, fd, POLLIN);
	else
		io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	if (q->fixed_files)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, KICK_DATA);
	q->kick_armed = true;
}

static void blk_kick_seen(struct blk_queue *q, const struct io_uring_cqe *cqe)
{
	virtqueue_kicked(q->vq);
	if (cqe->flags & IORING_CQE_F_MORE)
		return;
	q->kick_armed = false;
	if (cqe->res == -EINVAL)
		q->poll_once = true; /* a kernel without multishot polls */
	else
		eventfd_drain(q->vq->kick_fd);
}

/* ---- a queue's thread ---- */

static void blk_queue_reap(struct blk_queue *q)
{
	struct io_uring_cqe *cqe;
	unsigned int head, count = 0;

	io_uring_for_each_cqe(&q->ring, head, cqe) {
		if (io_uring_cqe_get_data(cqe) == KICK_DATA)
			blk_kick_seen(q, cqe);
		else if (cqe->user_data != LIBURING_UDATA_TIMEOUT) /* liburing's own, where the kernel has no EXT_ARG */
			blk_request_done(q, io_uring_cqe_get_data(cqe), cqe->res);
		count++;
	}
	io_uring_cq_advance(&q->ring, count);
}

/* Whether the disk's limit lets a request begin; else there is one, and limited_ns says when it may. */
static bool blk_queue_may_take(struct blk_queue *q)
{
	struct rate_limiter *limiter = &q->blk->limiter;
	bool limited = rate_limiter_on(limiter) && !blk_is_disconnected(q->blk);

	q->limited_ns = limited && virtqueue_ready(q->vq) ? rate_limiter_wait(limiter) : 0;
	if (q->limited_ns)
		virtqueue_disable_kicks(q->vq);
	return !q->limited_ns;
}

/* Starts available chains while there are free requests and the limit lets them; returns how many. */
static unsigned int blk_queue_take(struct blk_queue *q)
{
	unsigned int took = 0;
	char why[80];

	q->limited_ns = 0;
	while (q->free && blk_queue_may_take(q) && virtqueue_pop(q->vq, &q->chain) > 0) {
		if (!took++)
			virtqueue_disable_kicks(q->vq);
		if (blk_request_start(q) == 0)
			continue;
		q->vq->broken = true;
		snprintf(why, sizeof(why), "queue %u: a request has no header or no status", q->vq->index);
		virtio_device_broken(&q->blk->device, why);
	}
	return took;
}

/* Submits the prepared entries and sleeps until wanted things have happened. True: ns have passed before. */
static bool blk_queue_wait(struct blk_queue *q, unsigned int wanted, uint64_t ns)
{
	struct __kernel_timespec timeout = {.tv_sec = (long long)(ns / 1000000000), .tv_nsec = (long long)(ns % 1000000000)};
	struct io_uring_cqe *cqe;

	return io_uring_submit_and_wait_timeout(&q->ring, &cqe, wanted, &timeout, NULL) == -ETIME;
}

/* Sleeps for a while without kicks. True: nothing has happened. */
static bool blk_queue_poll(struct blk_queue *q)
{
	return blk_queue_wait(q, q->pace.goal > 1 ? MAX(q->in_flight, 1u) : 1, blk_pace_poll_ns(&q->pace));
}

/* Submits the prepared entries and sleeps until something happens. */
static void blk_queue_sleep(struct blk_queue *q, bool parking)
{
	if (!parking && q->free && virtqueue_enable_kicks(q->vq))
		virtqueue_disable_kicks(q->vq);
	else
		io_uring_submit_and_wait(&q->ring, 1);
}

static void *blk_queue_main(void *opaque)
{
	struct blk_queue *q = opaque;
	bool parking, quiet = false;
	unsigned int took, before;
	uint64_t now;

	ring_enable(&q->ring);
	blk_pace_init(&q->pace);
	for (;;) {
		q->now = monotonic_ns();
		blk_queue_reap(q);
		parking = virtio_thread_asked(&q->thread);
		if (!parking && q->stale_files)
			blk_queue_update_files(q);
		if (!parking && atomic_exchange(&q->retry, false))
			blk_retry(q);
		before = q->in_flight;
		took = parking ? 0 : blk_queue_take(q);
		now = monotonic_ns();
		if (took)
			blk_pace_took(&q->pace, took, before, now);
		quiet = quiet && !took && !q->pushed;
		if (q->pushed)
			blk_pace_completed(&q->pace, q->pushed, now);
		if (q->pushed)
			blk_fault_look(q->blk, now);
		q->pushed = 0;
		if (blk_pace_interrupt(&q->pace, quiet || parking || q->limited_ns, before, now))
			virtqueue_notify(q->vq);
		if (parking && !q->in_flight) {
			if (!virtio_thread_park(&q->thread))
				break;
			continue;
		}
		if (!q->kick_armed)
			blk_kick_arm(q);
		if (!parking && q->limited_ns)
			blk_queue_wait(q, 1, q->limited_ns);
		else if (!quiet && !parking && q->free && (q->pace.goal > 1 || q->in_flight >= BUSY_REQUESTS))
			quiet = blk_queue_poll(q);
		else if (took)
			io_uring_submit_and_get_events(&q->ring);
		else
			blk_queue_sleep(q, parking);
	}
	io_uring_unregister_ring_fd(&q->ring);
	for (struct blk_request *kept = blk_fault_take_kept(q); kept; kept = kept->next_free)
		blk_request_free(kept);
	return NULL;
}

static void blk_queue_end(struct blk_queue *q)
{
	if (!q->requests)
		return;
	virtio_thread_stop(&q->thread);
	io_uring_queue_exit(&q->ring);
	free(take_ptr(q->requests));
	free(take_ptr(q->zeroes));
	q->free = NULL;
}

/* Creates the queue's requests and ring; the thread is started by the first resume. */
static int blk_queue_make(struct blk_queue *q, struct err *err)
{
	_cleanup_(free_ptr) struct blk_request *requests = calloc(q->vq->setup.size, sizeof(*requests));
	char name[16];
	int ret;

	if (!requests)
		return err_sys(err, -ENOMEM, "%s", q->blk->id);
	for (unsigned int i = 0; i < q->vq->setup.size; i++)
		requests[i].next_free = i ? &requests[i - 1] : NULL;
	ret = blk_queue_ring_create(q, err);
	if (ret < 0)
		return ret;
	q->free = &requests[q->vq->setup.size - 1];
	q->in_flight = q->pushed = 0;
	snprintf(name, sizeof(name), "%.10s-q%u", q->blk->id, q->vq->index);
	virtio_thread_prepare(&q->thread, THREAD_DISK, q->vq->kick_fd, blk_queue_main, q, name);
	q->requests = take_ptr(requests);
	return 0;
}

/* ---- the device ---- */

static struct blk *blk_to_blk(struct virtio_device *device)
{
	return container_of(device, struct blk, device);
}

static void blk_end_queues(struct blk *blk)
{
	for (unsigned int i = 0; i < blk->device.queue_count; i++)
		blk_queue_end(&blk->queues[i]);
}

static int blk_make_queues(struct blk *blk, struct err *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < blk->device.queue_count && ret == 0; i++)
		if (blk->device.queues[i].setup.enabled)
			ret = blk_queue_make(&blk->queues[i], err);
	if (ret < 0)
		blk_end_queues(blk);
	return ret;
}

/*
 * Without FLUSH the driver cannot ask for durability, so every write is durable (section 5.2.6.2). When the cache is
 * turned off, no flush will follow for the writes before. If they are lost, it stays on, and the next flush tells it.
 */
static void blk_set_write_cache(struct blk *blk)
{
	bool on = virtio_has(&blk->device, VIRTIO_BLK_F_FLUSH) &&
		  (blk->state.wce || !virtio_has(&blk->device, VIRTIO_BLK_F_CONFIG_WCE));

	if (!atomic_exchange(&blk->write_cache, on) || on || fdatasync(blk->file.fd) == 0)
		return;
	atomic_store(&blk->lost, errno);
	blk->state.wce = true;
	atomic_store(&blk->write_cache, true);
}

static int blk_prepare(struct virtio_device *device, struct err *err)
{
	struct blk *blk = blk_to_blk(device);

	atomic_store(&blk->write_cache, false);
	blk_set_write_cache(blk);
	return blk_make_queues(blk, err);
}

static int blk_go_on(struct blk *blk, struct err *err)
{
	int ret = 0;

	virtio_device_run_limits(&blk->device, true);
	for (unsigned int i = 0; i < blk->device.queue_count && ret == 0; i++) {
		atomic_store(&blk->queues[i].retry, true);
		ret = virtio_thread_resume(&blk->queues[i].thread);
	}
	return ret < 0 ? err_sys(err, ret, "%s: thread", blk->id) : 0;
}

/* Only the first one after a load can fail: the threads are started. */
static void blk_resume(struct virtio_device *device)
{
	struct err err;

	if (blk_go_on(blk_to_blk(device), &err) == 0)
		return;
	log_error(device->log, "%s", err.text);
	virtio_device_broken(device, "it could not be restarted");
}

static struct rate_limiter *blk_limiter(struct virtio_device *device, unsigned int index)
{
	return index ? NULL : &blk_to_blk(device)->limiter;
}

static int blk_activate(struct virtio_device *device, struct err *err)
{
	int ret = blk_prepare(device, err);

	if (ret < 0)
		return ret;
	ret = blk_go_on(blk_to_blk(device), err);
	if (ret < 0)
		blk_end_queues(blk_to_blk(device));
	return ret;
}

static void blk_reset(struct virtio_device *device)
{
	struct blk *blk = blk_to_blk(device);

	blk_end_queues(blk);
	blk->state.wce = true;
}

static int blk_drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	struct blk *blk = blk_to_blk(device);
	int ret = 0;

	for (unsigned int i = 0; i < device->queue_count; i++)
		virtio_thread_pause(&blk->queues[i].thread);
	for (unsigned int i = 0; i < device->queue_count && ret == 0; i++)
		ret = virtio_thread_wait(&blk->queues[i].thread, deadline);
	if (ret)
		return err_set(err, ret, "%s: its storage has not completed its requests", blk->id);
	virtio_device_run_limits(device, false);
	return 0;
}

static void blk_config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	const struct blk_state *state = &blk_to_blk(device)->state;
	const struct virtio_layout_blk config = {
		.capacity = htole64(state->sectors),
		.seg_max = htole32(BLK_MAX_SEGMENTS),
		.blk_size = htole32(state->block_size),
		.physical_block_exp = state->physical_block_exp,
		.min_io_size = htole16(state->min_io_size),
		.wce = state->wce,
		.num_queues = htole16((uint16_t)device->queue_count),
		.max_discard_sectors = htole32(BLK_MAX_DISCARD_SECTORS),
		.max_discard_seg = htole32(1),
		.discard_sector_alignment = htole32(state->discard_alignment),
		.max_write_zeroes_sectors = htole32(BLK_MAX_WRITE_ZEROES_SECTORS),
		.max_write_zeroes_seg = htole32(1),
		.write_zeroes_may_unmap = 1,
	};

	virtio_config_copy(&config, sizeof(config), offset, data, len);
}

static void blk_config_write(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len)
{
	struct blk *blk = blk_to_blk(device);

	if (offset != offsetof(struct virtio_layout_blk, wce) || len != 1)
		return;
	blk->state.wce = *(const uint8_t *)data & 1;
	if (device->active)
		blk_set_write_cache(blk);
}

/* ---- saved state ---- */

static int blk_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct blk_state *here = &((const struct blk *)object)->state, *there = loaded;

	if (there->sectors != here->sectors)
		return err_set(err, -EBADMSG, "the disk has %llu bytes on the source, %llu here",
			       (unsigned long long)there->sectors * BLK_SECTOR,
			       (unsigned long long)here->sectors * BLK_SECTOR);
	if (there->block_size != here->block_size)
		return err_set(err, -EBADMSG, "the disk has blocks of %u bytes on the source, %u here",
			       there->block_size, here->block_size);
	if (there->readonly != here->readonly)
		return err_set(err, -EBADMSG, "the disk is %s on the source, and not here",
			       there->readonly ? "read-only" : "writable");
	return 0;
}

static int blk_collect(void *object, void *state, struct err *err)
{
	rate_limiter_save(&blk_to_blk(object)->limiter, &((struct blk_state *)state)->limit, monotonic_ns());
	return 0;
}

/* If the file is on another file system here, the guest keeps the hints that it has read. */
static int blk_loaded(void *object, const void *state, struct err *err)
{
	struct blk *blk = blk_to_blk(object);

	atomic_store(&blk->write_cache, false);
	if (blk->device.active)
		blk_set_write_cache(blk);
	rate_limiter_load(&blk->limiter, &blk->state.limit, monotonic_ns());
	return 0;
}

static const struct state_field state_fields[] = {
	STATE_UINT(struct blk_state, sectors, 1),
	STATE_UINT(struct blk_state, block_size, 1),
	STATE_UINT(struct blk_state, discard_alignment, 1),
	STATE_UINT(struct blk_state, min_io_size, 1),
	STATE_UINT(struct blk_state, physical_block_exp, 1),
	STATE_BOOL(struct blk_state, readonly, 1),
	STATE_BOOL(struct blk_state, wce, 1),
	STATE_STRUCT(struct blk_state, limit, 2, &rate_limiter_state),
};

static const struct state_table blk_state = {
	.name = "disk", .version = 2, .oldest = 1, STATE_FIELDS(state_fields), STATE_IN(struct blk, state),
	.collect = blk_collect, .judge = blk_judge, .loaded = blk_loaded,
};

/* ---- construction ---- */

static void blk_destroy(struct virtio_device *device)
{
	struct blk *blk = blk_to_blk(device);

	virtio_device_done(device);
	blk_file_close(&blk->file);
	free(blk->queues);
	blk_dirty_done(blk);
	blk_fault_done(&blk->fault);
	rate_limiter_done(&blk->limiter);
	free(blk);
}

static const struct virtio_device_ops blk_ops = {
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.activate = blk_activate,
	.prepare = blk_prepare,
	.reset = blk_reset,
	.drain = blk_drain,
	.resume = blk_resume,
	.limiter = blk_limiter,
	.destroy = blk_destroy,
	.state = &blk_state,
};

static void blk_describe(struct blk *blk)
{
	const struct blk_file *file = &blk->file;
	uint64_t offered = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |
			   1ull << VIRTIO_BLK_F_TOPOLOGY | 1ull << VIRTIO_BLK_F_FLUSH |
			   1ull << VIRTIO_BLK_F_CONFIG_WCE | 1ull << VIRTIO_BLK_F_MQ;

	if (file->readonly)
		offered |= 1ull << VIRTIO_BLK_F_RO;
	else
		offered |= 1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
	blk->device.offered = offered;
	blk->state = (struct blk_state){
		.sectors = file->sectors,
		.block_size = file->block_size,
		.discard_alignment = file->physical_size / BLK_SECTOR,
		.min_io_size = (uint16_t)(file->physical_size / file->block_size),
		.physical_block_exp = (uint8_t)__builtin_ctz(file->physical_size / file->block_size),
		.readonly = file->readonly,
		.wce = true,
		.limit = RATE_LIMITER_FULL,
	};
}

/* The error of an invalid call shows whether io_uring is available. */
static int blk_probe_io_uring(struct err *err)
{
	int ret = ring_probe();

	if (ret == -ENOSYS)
		return err_set(err, ret, "this kernel has no io_uring, which disks need (CONFIG_IO_URING)");
	if (ret == -EPERM || ret == -EACCES)
		return err_set(err, ret,
			       "io_uring, which disks need, is forbidden here; allow it with sysctl "
			       "kernel.io_uring_disabled=0, or in the container's seccomp profile (mvmm doctor checks it)");
	return 0;
}

static int blk_init_device(struct blk *blk, const struct virtio_blk_options *options, struct guest_memory *memory,
			   const struct log *log, struct err *err)
{
	uint16_t sizes[VIRTIO_MAX_QUEUES];
	unsigned int i;
	int ret;

	for (i = 0; i < options->queues; i++)
		sizes[i] = BLK_QUEUE_SIZE;
	blk_describe(blk);
	ret = virtio_device_init(&blk->device, &blk_ops, blk->id, VIRTIO_ID_BLOCK, options->queues, sizes, memory, log,
				 err);
	if (ret < 0)
		return ret;
	blk->device.class_code = 0x018000; /* mass storage, other */
	blk->device.config_size = sizeof(struct virtio_layout_blk);
	for (i = 0; i < options->queues; i++) {
		blk->queues[i].blk = blk;
		blk->queues[i].vq = &blk->device.queues[i];
	}
	return 0;
}

int virtio_blk_lock(struct virtio_device *disk, struct err *err)
{
	struct blk *blk = container_of(disk, struct blk, device);
	int ret = blk_file_lock(&blk->file, err);

	return ret ? err_prefix(err, ret, "--disk %s", blk->id) : 0;
}

void virtio_blk_unlock(struct virtio_device *disk)
{
	blk_file_unlock(&container_of(disk, struct blk, device)->file);
}

void virtio_blk_disconnect(struct virtio_device *disk)
{
	atomic_store(&blk_to_blk(disk)->disconnected, true);
}

const char *virtio_blk_guard(struct virtio_device *disk)
{
	return blk_guard(&container_of(disk, struct blk, device)->file);
}

int virtio_blk_create(const struct virtio_blk_options *options, struct guest_memory *memory, const struct log *log,
		      struct virtio_device **ret, struct err *err)
{
	const char *serial = options->serial ?: options->id;
	struct blk *blk;
	int rc;

	if (!options->queues || options->queues > VIRTIO_MAX_QUEUES)
		return err_set(err, -EINVAL, "--disk %s: queues=%u: a disk has 1 to %u", options->path,
			       options->queues, VIRTIO_MAX_QUEUES);
	if (options->serial && strlen(serial) > VIRTIO_BLK_ID_BYTES)
		return err_set(err, -EINVAL, "--disk %s: serial=%s: at most %d characters", options->path, serial,
			       VIRTIO_BLK_ID_BYTES);
	blk = calloc(1, sizeof(*blk));
	if (!blk)
		return err_sys(err, -ENOMEM, "--disk %s", options->path);
	snprintf(blk->id, sizeof(blk->id), "%s", options->id);
	memcpy(blk->serial, serial, MIN(strlen(serial), sizeof(blk->serial)));
	blk->file.fd = blk->file.buffered_fd = -1;
	blk_fault_init(&blk->fault, options);
	rate_limiter_init(&blk->limiter);
	blk->queues = calloc(options->queues, sizeof(*blk->queues));
	rc = blk->queues ? blk_probe_io_uring(err) : err_sys(err, -ENOMEM, "%s", blk->id);
	if (rc < 0)
		err_prefix(err, rc, "--disk %s", options->path);
	else
		rc = blk_file_open(options, log, &blk->file, err);
	if (rc == 0)
		rc = blk_init_device(blk, options, memory, log, err);
	if (rc < 0) {
		blk_file_close(&blk->file);
		blk_fault_done(&blk->fault);
		rate_limiter_done(&blk->limiter);
		free(blk->queues);
		free(blk);
		return rc;
	}
	*ret = &blk->device;
	return 0;
}
