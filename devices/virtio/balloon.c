/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory balloon (virtio 1.2 section 5.5): pages that the guest puts into the balloon or reports as free go back to
 * the host; statistics of the guest's memory; the guest may take pages back when it runs out (DEFLATE_ON_OOM).
 *
 * A page that was given back reads as zeroes, or, where the kernel image is mapped privately into RAM, as the bytes of
 * that file; the guest sees no data that was not its own. The specification asks for no more, neither of the balloon
 * nor of reported pages without PAGE_POISON, which would promise their contents and is not offered (a driver that
 * relies on the contents of free pages does not report them then). Deflating needs no work: an access brings pages
 * back.
 *
 * Adjacent pages are given back by one call; of huge pages only whole ones. Statistics: the driver leaves a buffer with
 * the device and sends new statistics when the device returns it; only get_stats returns it.
 */
#include "core/guest_discard.h"
#include "devices/virtio/virtio_layout.h"
#include "devices/virtio/virtio_loop.h"

#include <linux/virtio_balloon.h>

#define QUEUE_SIZE 128
#define CLASS_OTHER 0x00ff00
/* What is given back before it looks at the time. Linux sends 256 pages in a chain, and reports up to 128 MiB. */
#define PFNS_AT_ONCE 256u
#define BYTES_AT_ONCE MIB(32)
#define STATS_AT_ONCE 32u

/* Without FREE_PAGE_HINT there is no fourth queue, and Linux before 6.11 uses it as the fifth: both report. */
enum { INFLATE, DEFLATE, STATS, REPORT_LINUX, REPORT, QUEUES };

struct balloon_state {
	uint32_t target, actual; /* pages; under the device's lock */
	/* under loop.lock */
	bool has_buffer; /* of the statistics queue */
	uint16_t buffer; /* its head, or 0 */
	struct virtio_balloon_stats stats;
};

struct balloon {
	struct virtio_loop loop;
	struct balloon_state state;
	/* under loop.lock */
	virtio_balloon_release_fn *release;
	void *release_opaque;
	uint64_t done[QUEUES]; /* bytes of the chain at the head of a queue that need no second turn */
	uint32_t pfns[PFNS_AT_ONCE];
};

static struct balloon *balloon_of(struct virtio_device *device)
{
	return container_of(device, struct balloon, loop.device);
}

/* ---- giving pages back ---- */

/* Gives back the whole pages in a range of guest memory; returns the bytes. */
static uint64_t balloon_give_back(struct balloon *balloon, char *host, uint64_t len)
{
	const struct guest_region *region = guest_memory_region_of(balloon->loop.device.memory, host);
	uint64_t page, offset, end;

	if (!region)
		return 0;
	page = MAX(region->page_size, GUEST_PAGE_SIZE);
	offset = (uint64_t)(host - (char *)region->host);
	end = align_down(MIN(offset + len, region->size), page);
	offset = align_up(offset, page);
	if (offset >= end)
		return 0;
	if (balloon->release && balloon->release(balloon->release_opaque, region->gpa + offset, end - offset))
		return 0;
	if (guest_discard(region, offset, end - offset) < 0)
		return 0;
	guest_memory_dirty(balloon->loop.device.memory, region->gpa + offset, end - offset);
	return end - offset;
}

static int balloon_compare_pfns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Sorts them, so that adjacent pages are one range; ignores pages outside memory. */
static void balloon_give_back_pfns(struct balloon *balloon, uint32_t *pfns, size_t count)
{
	qsort(pfns, count, sizeof(*pfns), balloon_compare_pfns);
	for (size_t i = 0, next; i < count; i = next) {
		uint64_t gpa = (uint64_t)pfns[i] << VIRTIO_BALLOON_PFN_SHIFT;
		const struct guest_memory *memory = balloon->loop.device.memory;
		char *host = guest_memory_at(memory, gpa, GUEST_PAGE_SIZE);

		for (next = i + 1; next < count && pfns[next] - pfns[next - 1] <= 1; next++)
			if (!guest_memory_at(memory, gpa, (pfns[next] - pfns[i] + 1ull) * GUEST_PAGE_SIZE))
				break;
		if (host)
			balloon_give_back(balloon, host, (pfns[next - 1] - pfns[i] + 1ull) * GUEST_PAGE_SIZE);
	}
}

/* False: the turn is over; the rest of the chain is for the next one. */
static bool balloon_inflate(struct balloon *balloon, const struct virtq_chain *chain)
{
	uint64_t *done = &balloon->done[INFLATE];
	size_t len;

	while ((len = virtq_chain_read(chain, *done, balloon->pfns, sizeof(balloon->pfns))) >= sizeof(uint32_t)) {
		for (size_t i = 0; i < len / sizeof(uint32_t); i++)
			balloon->pfns[i] = le32toh(balloon->pfns[i]);
		balloon_give_back_pfns(balloon, balloon->pfns, len / sizeof(uint32_t));
		*done += len;
		if (virtio_loop_turn_over(&balloon->loop))
			return false;
	}
	*done = 0;
	return true;
}

/* The end of the part of a range that is given back at once: pages of the host are not cut. */
static uint64_t balloon_part(const struct balloon *balloon, char *host, uint64_t len)
{
	const struct guest_region *region = guest_memory_region_of(balloon->loop.device.memory, host);
	uint64_t part = region ? MAX(region->page_size, BYTES_AT_ONCE) : len;
	uint64_t offset = region ? (uint64_t)(host - (char *)region->host) : 0;

	return MIN(len, part - offset % part);
}

/* Each segment is a free range of guest memory. As balloon_inflate. */
static bool balloon_report(struct balloon *balloon, unsigned int queue, const struct virtq_chain *chain)
{
	const struct iovec *in = chain->iov + chain->out_count;
	uint64_t skip = balloon->done[queue];

	for (unsigned int i = 0; i < chain->in_count; i++) {
		while (skip < in[i].iov_len) {
			char *host = (char *)in[i].iov_base + skip;
			uint64_t part = balloon_part(balloon, host, in[i].iov_len - skip);

			balloon->state.stats.reported += balloon_give_back(balloon, host, part);
			balloon->done[queue] += part;
			skip += part;
			if (virtio_loop_turn_over(&balloon->loop))
				return false;
		}
		skip -= in[i].iov_len;
	}
	balloon->done[queue] = 0;
	return true;
}

/* ---- statistics ---- */

static void balloon_forget_stats(struct balloon *balloon)
{
	uint64_t reported = balloon->state.stats.reported;

	memset(&balloon->state.stats, 0xff, sizeof(balloon->state.stats));
	balloon->state.stats.reported = reported;
	balloon->state.has_buffer = false;
	balloon->state.buffer = 0;
}

static void balloon_take_stats(struct balloon *balloon, const struct virtq_chain *chain)
{
	static const size_t fields[] = {
		[VIRTIO_BALLOON_S_SWAP_IN] = offsetof(struct virtio_balloon_stats, swap_in),
		[VIRTIO_BALLOON_S_SWAP_OUT] = offsetof(struct virtio_balloon_stats, swap_out),
		[VIRTIO_BALLOON_S_MAJFLT] = offsetof(struct virtio_balloon_stats, major_faults),
		[VIRTIO_BALLOON_S_MINFLT] = offsetof(struct virtio_balloon_stats, minor_faults),
		[VIRTIO_BALLOON_S_MEMFREE] = offsetof(struct virtio_balloon_stats, free),
		[VIRTIO_BALLOON_S_MEMTOT] = offsetof(struct virtio_balloon_stats, total),
		[VIRTIO_BALLOON_S_AVAIL] = offsetof(struct virtio_balloon_stats, available),
		[VIRTIO_BALLOON_S_CACHES] = offsetof(struct virtio_balloon_stats, caches),
	};
	struct virtio_balloon_stat told[STATS_AT_ONCE];
	size_t count = virtq_chain_read(chain, 0, told, sizeof(told)) / sizeof(told[0]);

	for (size_t i = 0; i < count; i++) {
		uint16_t tag = le16toh(told[i].tag);
		uint64_t value = le64toh(told[i].val);

		if (tag < ARRAY_SIZE(fields))
			memcpy((char *)&balloon->state.stats + fields[tag], &value, sizeof(value));
	}
}

/* ---- the device ---- */

static bool balloon_serve(struct virtio_device *device, struct virtqueue *vq, const struct virtq_chain *chain)
{
	struct balloon *balloon = balloon_of(device);

	if (vq->index == STATS && virtio_has(device, VIRTIO_BALLOON_F_STATS_VQ)) {
		if (balloon->state.has_buffer)
			return false;
		balloon_take_stats(balloon, chain);
		balloon->state.has_buffer = true;
		balloon->state.buffer = chain->head;
		return true;
	}
	if (vq->index == INFLATE && !balloon_inflate(balloon, chain))
		return false;
	if (vq->index > STATS && virtio_has(device, VIRTIO_BALLOON_F_REPORTING) &&
	    !balloon_report(balloon, vq->index, chain))
		return false;
	virtqueue_push_head(vq, chain->head, 0);
	return true;
}

static void balloon_config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	struct balloon *balloon = balloon_of(device);
	const struct virtio_layout_balloon config = {
		.num_pages = htole32(balloon->state.target),
		.actual = htole32(balloon->state.actual),
	};

	virtio_config_copy(&config, sizeof(config), offset, data, len);
}

static void balloon_config_write(struct virtio_device *device, unsigned int offset, const void *data, unsigned int len)
{
	if (offset == offsetof(struct virtio_layout_balloon, actual) && len == 4)
		balloon_of(device)->state.actual = get_le32(data);
}

static void balloon_reset(struct virtio_device *device)
{
	struct balloon *balloon = balloon_of(device);

	virtio_loop_stop(device);
	balloon->state.actual = 0;
	pthread_mutex_lock(&balloon->loop.lock);
	balloon_forget_stats(balloon);
	memset(balloon->done, 0, sizeof(balloon->done));
	pthread_mutex_unlock(&balloon->loop.lock);
}

/* ---- saved state ---- */

/*
 * The pages in the balloon need no state: guest memory is saved without them. Neither does a chain that is half done:
 * pages may be given back twice.
 */
static int balloon_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct virtio_device *device = object;
	const struct balloon_state *state = loaded;
	const struct virtqueue *vq = &device->queues[STATS];

	if (state->has_buffer && (!device->active || !virtio_has(device, VIRTIO_BALLOON_F_STATS_VQ) ||
				  !vq->setup.enabled || state->buffer >= vq->setup.size))
		return err_set(err, -EBADMSG, "a statistics buffer without an enabled statistics queue");
	return 0;
}

static const struct state_field state_fields[] = {
	STATE_UINT(struct balloon_state, target, 1),
	STATE_UINT(struct balloon_state, actual, 1),
	STATE_BOOL(struct balloon_state, has_buffer, 1),
	STATE_UINT(struct balloon_state, buffer, 1),
	STATE_UINT(struct balloon_state, stats.free, 1),
	STATE_UINT(struct balloon_state, stats.total, 1),
	STATE_UINT(struct balloon_state, stats.available, 1),
	STATE_UINT(struct balloon_state, stats.caches, 1),
	STATE_UINT(struct balloon_state, stats.major_faults, 1),
	STATE_UINT(struct balloon_state, stats.minor_faults, 1),
	STATE_UINT(struct balloon_state, stats.swap_in, 1),
	STATE_UINT(struct balloon_state, stats.swap_out, 1),
	STATE_UINT(struct balloon_state, stats.reported, 1),
};

static const struct state_table balloon_state = {
	.name = "balloon", .version = 1, .oldest = 1, STATE_FIELDS(state_fields),
	STATE_IN(struct balloon, state), STATE_LOCK(struct balloon, loop.lock), .judge = balloon_judge,
};

/* ---- construction ---- */

static void balloon_destroy(struct virtio_device *device)
{
	struct balloon *balloon = balloon_of(device);

	virtio_loop_done(&balloon->loop);
	free(balloon);
}

static const struct virtio_device_ops balloon_ops = {
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.activate = virtio_loop_activate,
	.reset = balloon_reset,
	.drain = virtio_loop_drain,
	.resume = virtio_loop_start,
	.destroy = balloon_destroy,
	.state = &balloon_state,
};

int virtio_balloon_create(const char *id, struct guest_memory *memory, struct event_loop *loop, const struct log *log,
			  struct virtio_device **ret, struct err *err)
{
	static const uint16_t sizes[QUEUES] = {QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE};
	struct balloon *balloon = calloc(1, sizeof(*balloon));
	int code;

	if (!balloon)
		return err_sys(err, -ENOMEM, "%s", id);
	balloon_forget_stats(balloon);
	balloon->loop.device.class_code = CLASS_OTHER;
	balloon->loop.device.config_size = sizeof(struct virtio_layout_balloon);
	balloon->loop.device.offered = 1ull << VIRTIO_BALLOON_F_STATS_VQ | 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
				  1ull << VIRTIO_BALLOON_F_REPORTING;
	code = virtio_device_init(&balloon->loop.device, &balloon_ops, id, VIRTIO_ID_BALLOON, QUEUES, sizes, memory,
				  log, err);
	if (code == 0)
		code = virtio_loop_watch(&balloon->loop, loop, balloon_serve, err);
	if (code < 0) {
		balloon_destroy(&balloon->loop.device);
		return code;
	}
	*ret = &balloon->loop.device;
	return 0;
}

void virtio_balloon_set_release(struct virtio_device *device, virtio_balloon_release_fn *fn, void *opaque)
{
	struct balloon *balloon = balloon_of(device);

	pthread_mutex_lock(&balloon->loop.lock);
	balloon->release = fn;
	balloon->release_opaque = opaque;
	pthread_mutex_unlock(&balloon->loop.lock);
}

void virtio_balloon_set_target(struct virtio_device *device, uint64_t bytes)
{
	struct balloon *balloon = balloon_of(device);

	pthread_mutex_lock(&device->lock);
	balloon->state.target = (uint32_t)MIN(bytes >> VIRTIO_BALLOON_PFN_SHIFT, (uint64_t)UINT32_MAX);
	virtio_device_config_changed(device);
	pthread_mutex_unlock(&device->lock);
}

void virtio_balloon_get_stats(struct virtio_device *device, struct virtio_balloon_stats *stats)
{
	struct balloon *balloon = balloon_of(device);

	pthread_mutex_lock(&device->lock);
	pthread_mutex_lock(&balloon->loop.lock);
	*stats = balloon->state.stats;
	stats->actual = (uint64_t)balloon->state.actual << VIRTIO_BALLOON_PFN_SHIFT;
	stats->target = (uint64_t)balloon->state.target << VIRTIO_BALLOON_PFN_SHIFT;
	if (balloon->state.has_buffer && balloon->loop.running) {
		virtqueue_push_head(&device->queues[STATS], balloon->state.buffer, 0);
		balloon->state.has_buffer = false;
		balloon->state.buffer = 0;
		virtqueue_notify(&device->queues[STATS]);
		virtio_loop_serve(&balloon->loop, STATS);
	}
	pthread_mutex_unlock(&balloon->loop.lock);
	pthread_mutex_unlock(&device->lock);
}
