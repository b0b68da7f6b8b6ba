/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See memory_sender.h. Each channel has a lane: a thread that walks over its chunks (chunk number modulo channels),
 * takes their marks, separates pages of zeros from others and gathers runs of either into frames. Each call is a round
 * of the crew.
 */
#include "vmm/migration/memory_sender.h"

#include <pthread.h>

#include "core/bitmap.h"
#include "core/crew.h"
#include "core/monotonic.h"
#include "vmm/migration/compress.h"
#include "vmm/migration/send_queue.h"
#include "vmm/migration/zero.h"

#define PAGE WIRE_PAGE
#define CHUNK_PAGES (WIRE_CHUNK / PAGE)
#define CHUNK_LONGS (CHUNK_PAGES / BITS_PER_LONG)
#define TICK_MS 100
#define LOOK_FIRST 32u /* from so many marked pages in a chunk, asking which are absent is cheaper than reading them */

struct lane {
	struct memory_sender *sender;
	struct channel *channel;
	unsigned int index;
	struct send_queue *queue;
	struct compressor *compressor; /* NULL: no compression */
	uint8_t *copy;                 /* WIRE_MAX_ZSTD bytes; data must not change while it is compressed */
	uint64_t cursor;               /* chunk where the next call starts */
	uint64_t pages, zero_pages;    /* atomic */
	uint64_t zero_ns;              /* atomic; in chunks that were all zero */
	bool zero_copied;              /* atomic */
	struct err err;
};

struct memory_sender {
	struct memory_sender_options options;
	struct zero_map *zeros;
	struct lane *lanes;
	struct crew *crew; /* one member for each lane */
	pthread_mutex_t lock;
	/* under lock */
	uint64_t busy_ns;
	uint64_t began; /* start of the call in progress, or 0 */
	/* of the call in progress, written before it starts */
	const struct memory_marks *marks;
	size_t mark_count;
	uint64_t deadline;
	bool here; /* the calling thread does the lanes' work */
};

/* ---- frames ---- */

static size_t memory_sender_batch_limit(const struct lane *lane)
{
	const struct limiter *limiter = lane->sender->options.limiter;

	return limiter ? limiter_piece(limiter, BATCH_BYTES) : BATCH_BYTES;
}

static int memory_sender_flush(struct lane *lane)
{
	struct memory_sender *sender = lane->sender;
	size_t bytes = send_queue_batch(lane->queue)->bytes;
	int stop_fd = sender->here ? sender->options.cancel_fd : crew_fd(sender->crew);
	int code = 0;

	if (sender->options.limiter && bytes)
		code = limiter_wait(sender->options.limiter, bytes, stop_fd);
	if (code)
		return err_set(&lane->err, code, "cancelled");
	code = lane->sender->here ? send_queue_flush_here(lane->queue, &lane->err) :
				    send_queue_flush(lane->queue, &lane->err);
	if (lane->queue->zero_copied)
		__atomic_store_n(&lane->zero_copied, true, __ATOMIC_RELAXED);
	return code;
}

/* Returns the batch for one more frame with room for at least `bytes`. */
static int memory_sender_room_for(struct lane *lane, size_t bytes, struct batch **ret)
{
	struct batch *batch = send_queue_batch(lane->queue);
	int code = 0;

	if (batch->frames == BATCH_FRAMES || (batch->frames &&
					      batch->bytes + bytes > memory_sender_batch_limit(lane)) ||
	    (lane->compressor && BATCH_PACKED - batch->packed_used < WIRE_MAX_ZSTD))
		code = memory_sender_flush(lane);
	*ret = send_queue_batch(lane->queue);
	return code;
}

static int memory_sender_add_zeros(struct lane *lane, uint64_t gpa, uint64_t bytes)
{
	const struct wire_frame frame = {.type = WIRE_ZERO, .a = gpa, .b = bytes};
	struct batch *batch;
	int code = memory_sender_room_for(lane, 0, &batch);

	if (!code)
		batch_add(batch, &frame, NULL);
	__atomic_fetch_add(&lane->zero_pages, bytes / PAGE, __ATOMIC_RELAXED);
	return code;
}

/* Sends one zstd frame if that is smaller. */
static bool memory_sender_add_packed(struct lane *lane, struct batch *batch, uint64_t gpa, const void *host,
				     size_t bytes)
{
	struct wire_frame frame = {.type = WIRE_ZSTD, .a = gpa, .b = bytes};
	uint8_t *to = batch->packed + batch->packed_used;

	memcpy(lane->copy, host, bytes);
	frame.length = (uint32_t)compressor_pack(lane->compressor, lane->copy, bytes, to, bytes - 1);
	if (!frame.length)
		return false;
	batch_add(batch, &frame, to);
	batch->packed_used += frame.length;
	return true;
}

static int memory_sender_add_pages(struct lane *lane, uint64_t gpa, const uint8_t *host, uint64_t bytes)
{
	int code = 0;

	while (!code && bytes) {
		size_t most = lane->compressor ? WIRE_MAX_ZSTD : BATCH_BYTES;
		struct wire_frame frame = {.type = WIRE_PAGES, .a = gpa};
		struct batch *batch;
		uint64_t n;

		code = memory_sender_room_for(lane, PAGE, &batch);
		n = memory_sender_batch_limit(lane) - MIN(batch->bytes, memory_sender_batch_limit(lane) - PAGE);
		n = MIN(bytes, MIN(align_down(n, PAGE), most));
		frame.length = (uint32_t)n;
		if (!code && !(lane->compressor && memory_sender_add_packed(lane, batch, gpa, host, n)))
			batch_add(batch, &frame, host);
		__atomic_fetch_add(&lane->pages, n / PAGE, __ATOMIC_RELAXED);
		gpa += n;
		host += n;
		bytes -= n;
	}
	return code;
}

/* ---- chunks ---- */

/* Sends the marked pages at gpa, which are in one chunk and in the region. */
static int memory_sender_send_marked(struct lane *lane, const struct guest_region *region, uint64_t gpa, size_t count,
				     const unsigned long *marks)
{
	const uint8_t *host = (uint8_t *)region->host + (gpa - region->gpa);
	unsigned long absent[CHUNK_LONGS] = {0};
	struct zero_run run = {0};
	int code = 0;

	if (bitmap_count(marks, CHUNK_LONGS) >= LOOK_FIRST)
		zero_map_absent(lane->sender->zeros, region, gpa - region->gpa, count, absent);
	while (!code && zero_next_run(host, count, marks, absent, &run)) {
		uint64_t at = run.first * PAGE, bytes = (run.end - run.first) * PAGE;

		code = run.zero ? memory_sender_add_zeros(lane, gpa + at, bytes) :
				  memory_sender_add_pages(lane, gpa + at, host + at, bytes);
	}
	return code;
}

/* The part of the chunk that is within these marks. */
static int memory_sender_send_chunk(struct lane *lane, const struct memory_marks *marks, uint64_t chunk)
{
	uint64_t start = MAX(chunk * WIRE_CHUNK, marks->gpa);
	uint64_t end = MIN(chunk * WIRE_CHUNK + (WIRE_CHUNK - 1), marks->gpa + (marks->size - 1));
	size_t count = (size_t)((end - start) / PAGE + 1), regions;
	const struct guest_region *region = guest_memory_regions(lane->sender->options.memory, &regions);
	unsigned long taken[CHUNK_LONGS] = {0};

	/* Chunks of two lanes may share a word. */
	bitmap_take(marks->bitmap, (start - marks->gpa) / PAGE, count, taken);
	if (bitmap_is_blank(taken, CHUNK_LONGS))
		return 0;
	while (start - region->gpa >= region->size)
		region++;
	return memory_sender_send_marked(lane, region, start, count, taken);
}

/* Sends the lane's chunks from first to last. */
static int memory_sender_send_chunks(struct lane *lane, const struct memory_marks *marks, uint64_t first, uint64_t last)
{
	const struct memory_sender *sender = lane->sender;
	unsigned int lanes = sender->options.channel_count;
	uint64_t chunk = first + (lane->index + lanes - first % lanes) % lanes;
	uint64_t now = sender->deadline ? monotonic_ns() : 0;
	int code = 0;

	for (; !code && chunk <= last; chunk += lanes) {
		uint64_t begin = now, pages = lane->pages;

		if (sender->deadline && now >= sender->deadline) {
			lane->cursor = chunk;
			return -EAGAIN;
		}
		code = memory_sender_send_chunk(lane, marks, chunk);
		now = sender->deadline ? monotonic_ns() : 0;
		if (lane->pages == pages)
			__atomic_fetch_add(&lane->zero_ns, now - begin, __ATOMIC_RELAXED);
	}
	return code;
}

/* Sends all marks, from the cursor to the end and then up to the cursor; the last batch is not flushed. */
static int memory_sender_gather(struct lane *lane)
{
	const struct memory_sender *sender = lane->sender;
	uint64_t begin = lane->cursor;
	int code = 0;

	lane->cursor = 0;
	for (int pass = 0; pass < (begin ? 2 : 1); pass++) {
		for (size_t i = 0; !code && i < sender->mark_count; i++) {
			const struct memory_marks *marks = &sender->marks[i];
			uint64_t first = marks->gpa / WIRE_CHUNK, last = (marks->gpa + (marks->size - 1)) / WIRE_CHUNK;

			if (pass == 0)
				first = MAX(first, begin);
			else
				last = MIN(last, begin - 1);
			if (marks->size && first <= last)
				code = memory_sender_send_chunks(lane, marks, first, last);
		}
	}
	return code == -EAGAIN ? 0 : code;
}

static int memory_sender_send_all(struct lane *lane)
{
	return memory_sender_gather(lane) ?: memory_sender_flush(lane) ?: send_queue_drain(lane->queue, &lane->err);
}

/* ---- lanes ---- */

static int memory_sender_prepare(struct lane *lane)
{
	int code = send_queue_create(lane->channel, lane->sender->options.compress, &lane->queue, &lane->err);

	if (code || !lane->sender->options.compress)
		return code;
	lane->copy = malloc(WIRE_MAX_ZSTD);
	return lane->copy ? compressor_create(&lane->compressor, &lane->err) : err_sys(&lane->err, -ENOMEM, "zstd");
}

static int memory_sender_run_lane(void *opaque, unsigned int index, struct err *err)
{
	struct memory_sender *sender = opaque;
	struct lane *lane = &sender->lanes[index];
	int code = memory_sender_prepare(lane);

	while (!code && crew_next(sender->crew, index))
		code = memory_sender_send_all(lane);
	if (code)
		err_set(err, code, "memory channel %u: %s", index, lane->err.text);
	compressor_destroy(lane->compressor);
	free(lane->copy);
	send_queue_destroy(lane->queue);
	return code;
}

static void memory_sender_break_off(void *opaque, unsigned int index)
{
	channel_break(((struct memory_sender *)opaque)->options.channels[index]);
}

/* Waits until no lane works, and calls tick meanwhile (may be NULL). */
static int memory_sender_wait(struct memory_sender *sender, int (*tick)(void *opaque, struct err *err), struct err *err)
{
	while (!crew_wait(sender->crew, sender->options.cancel_fd, monotonic_ms() + TICK_MS)) {
		struct err why = {.text = ""};
		int code = tick ? tick(sender->options.opaque, &why) : 0;

		if (code)
			crew_fail(sender->crew, code, &why);
	}
	return crew_result(sender->crew, err);
}

/* ---- the outside ---- */

static int memory_sender_start_lanes(struct memory_sender *sender, struct err *err)
{
	static const struct crew_ops ops = {.work = memory_sender_run_lane, .break_off = memory_sender_break_off};
	unsigned int count = sender->options.channel_count;
	int code;

	for (unsigned int i = 0; i < count; i++)
		sender->lanes[i] = (struct lane){.sender = sender, .channel = sender->options.channels[i], .index = i};
	code = crew_create(&ops, sender, count, THREAD_MIGRATION, "memory", &sender->crew, err);
	return code ?: memory_sender_wait(sender, NULL, err);
}

int memory_sender_create(const struct memory_sender_options *options, struct memory_sender **ret, struct err *err)
{
	struct memory_sender *sender = calloc(1, sizeof(*sender));
	int code;

	if (!sender)
		return err_sys(err, -ENOMEM, "sending memory");
	sender->options = *options;
	pthread_mutex_init(&sender->lock, NULL);
	sender->lanes = calloc(options->channel_count, sizeof(*sender->lanes));
	code = sender->lanes ? zero_map_create(options->memory, &sender->zeros, err) : err_sys(err, -ENOMEM, "sending memory");
	code = code ?: memory_sender_start_lanes(sender, err);
	if (code) {
		memory_sender_destroy(sender);
		return code;
	}
	*ret = sender;
	return 0;
}

void memory_sender_destroy(struct memory_sender *sender)
{
	if (!sender)
		return;
	crew_destroy(sender->crew);
	zero_map_destroy(sender->zeros);
	free(sender->lanes);
	pthread_mutex_destroy(&sender->lock);
	free(sender);
}

static bool memory_sender_in_one_region(const struct guest_memory *memory, const struct memory_marks *marks)
{
	return (marks->gpa | marks->size) % PAGE == 0 && (!marks->size ||
							  guest_memory_at(memory, marks->gpa, marks->size));
}

static int memory_sender_check_marks(const struct memory_sender *sender, const struct memory_marks *marks, size_t count,
				     struct err *err)
{
	for (size_t i = 0; i < count; i++)
		if (!memory_sender_in_one_region(sender->options.memory, &marks[i]))
			return err_set(err, -EINVAL, "0x%llx, %llu bytes: not in one region of memory",
				       (unsigned long long)marks[i].gpa, (unsigned long long)marks[i].size);
	return 0;
}

/* For the statistics: a call is in progress between begin and done. */
static void memory_sender_begin(struct memory_sender *sender)
{
	pthread_mutex_lock(&sender->lock);
	sender->began = monotonic_ns();
	pthread_mutex_unlock(&sender->lock);
}

static void memory_sender_done(struct memory_sender *sender)
{
	pthread_mutex_lock(&sender->lock);
	sender->busy_ns += monotonic_ns() - sender->began;
	sender->began = 0;
	pthread_mutex_unlock(&sender->lock);
}

int memory_sender_send(struct memory_sender *sender, const struct memory_marks *marks, size_t count,
		       uint64_t deadline_ns, struct err *err)
{
	int code = memory_sender_check_marks(sender, marks, count, err) ?: crew_result(sender->crew, err);

	if (code)
		return code;
	sender->marks = marks;
	sender->mark_count = count;
	sender->deadline = deadline_ns;
	memory_sender_begin(sender);
	crew_again(sender->crew);
	code = memory_sender_wait(sender, sender->options.tick, err);
	memory_sender_done(sender);
	return code;
}

/* One of the lane's chunks; false if there is none. */
static bool memory_sender_find_page(const struct lane *lane, uint64_t *gpa, const uint8_t **host)
{
	const struct memory_sender *sender = lane->sender;
	unsigned int lanes = sender->options.channel_count;
	size_t count;
	const struct guest_region *regions = guest_memory_regions(sender->options.memory, &count);

	for (size_t i = 0; i < count; i++) {
		uint64_t first = align_up(regions[i].gpa, WIRE_CHUNK) / WIRE_CHUNK;
		uint64_t chunk = first + (lane->index + lanes - first % lanes) % lanes;

		*gpa = chunk * WIRE_CHUNK;
		if (*gpa - regions[i].gpa >= regions[i].size)
			continue;
		*host = (const uint8_t *)regions[i].host + (*gpa - regions[i].gpa);
		return true;
	}
	return false;
}

static int memory_sender_rehearse_lane(struct lane *lane)
{
	const uint8_t *host;
	uint64_t gpa;
	int code = memory_sender_find_page(lane, &gpa, &host) ? memory_sender_add_pages(lane, gpa, host, PAGE) : 0;

	return code ?: memory_sender_flush(lane);
}

int memory_sender_rehearse(struct memory_sender *sender, struct err *err)
{
	int code = crew_result(sender->crew, err);

	if (code)
		return code;
	sender->here = true;
	for (unsigned int i = 0; i < sender->options.channel_count && !code; i++) {
		code = memory_sender_rehearse_lane(&sender->lanes[i]);
		if (code)
			err_set(err, code, "memory channel %u: %s", i, sender->lanes[i].err.text);
	}
	sender->here = false;
	return code;
}

/* Sends the lane's remaining batch and END, on the calling thread. */
static int memory_sender_end_lane(struct lane *lane)
{
	struct wire_frame end = {.type = WIRE_END};
	struct batch *batch;
	int code = memory_sender_gather(lane) ?: memory_sender_room_for(lane, 0, &batch);

	if (code)
		return code;
	end.a = lane->pages;
	end.b = lane->zero_pages;
	batch_add(batch, &end, NULL);
	return channel_step(lane->channel, WIRE_SOURCE, &end, &lane->err) ?: memory_sender_flush(lane);
}

int memory_sender_end(struct memory_sender *sender, const struct memory_marks *marks, size_t count, struct err *err)
{
	int code = crew_result(sender->crew, err) ?: memory_sender_check_marks(sender, marks, count, err);

	if (code)
		return code;
	sender->marks = marks;
	sender->mark_count = count;
	sender->deadline = 0;
	sender->here = true;
	for (unsigned int i = 0; i < sender->options.channel_count && !code; i++) {
		code = memory_sender_end_lane(&sender->lanes[i]);
		if (code)
			err_set(err, code, "memory channel %u: %s", i, sender->lanes[i].err.text);
	}
	return code;
}

void memory_sender_get_stats(struct memory_sender *sender, struct memory_sender_stats *stats)
{
	*stats = (struct memory_sender_stats){0};
	for (unsigned int i = 0; i < sender->options.channel_count; i++) {
		stats->pages += __atomic_load_n(&sender->lanes[i].pages, __ATOMIC_RELAXED);
		stats->zero_pages += __atomic_load_n(&sender->lanes[i].zero_pages, __ATOMIC_RELAXED);
		stats->zero_ns += __atomic_load_n(&sender->lanes[i].zero_ns,
						  __ATOMIC_RELAXED) / sender->options.channel_count;
		stats->zero_copy |= __atomic_load_n(&sender->lanes[i].zero_copied, __ATOMIC_RELAXED);
		stats->bytes += channel_sent(sender->options.channels[i]);
	}
	pthread_mutex_lock(&sender->lock);
	stats->busy_ns = sender->busy_ns + (sender->began ? monotonic_ns() - sender->began : 0);
	pthread_mutex_unlock(&sender->lock);
}
