/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_file.h. Memory is looked at in chunks of the file, the unit of the sums. */
#include "vmm/snapshot/memory_file.h"

#include <fcntl.h>
#include <poll.h>

#include "core/bitmap.h"
#include "core/monotonic.h"
#include "vmm/migration/zero.h"
#include "vmm/snapshot/memory_sums.h"
#include "vmm/snapshot/write_queue.h"

#define PAGE GUEST_PAGE_SIZE
#define CHUNK SNAPSHOT_SUM_BYTES
#define CHUNK_PAGES (CHUNK / PAGE)
#define CHUNK_LONGS (CHUNK_PAGES / BITS_PER_LONG)
#define LOOK_FIRST 32u /* from so many marked pages in a chunk, asking which are absent is cheaper than reading them */
#define TICK_NS 100000000ull
#define ZEROS KIB(64)

_Static_assert(CHUNK_PAGES <= ZERO_MAP_PAGES, "a chunk is looked up at once");

struct memory_file {
	struct memory_file_options options;
	uint64_t size;
	struct zero_map *zero_map;
	struct write_queue *queue;
	struct memory_sums *sums;
	unsigned long *data; /* pages of the file that were written and are not holes */
	uint8_t *zeros;      /* ZEROS of them; NULL: none were needed */
	bool summing;        /* the chunk in work is summed from memory */
	bool no_punch;       /* the file system makes no holes */
	uint64_t ticked;
	struct memory_file_stats stats;
};

/* A part of a region, which is in one chunk of the file. */
struct piece {
	const struct guest_region *region;
	uint64_t offset; /* in the region */
	uint64_t at;     /* in the file */
	size_t pages;
};

static int memory_file_check(void *opaque, struct err *err)
{
	struct memory_file *file = opaque;
	struct pollfd cancel = {.fd = file->options.cancel_fd, .events = POLLIN};
	uint64_t now;

	if (cancel.fd >= 0 && poll(&cancel, 1, 0) > 0)
		return err_set(err, -ECANCELED, "cancelled");
	if (!file->options.tick)
		return 0;
	now = monotonic_ns();
	if (now - file->ticked < TICK_NS)
		return 0;
	file->ticked = now;
	return file->options.tick(file->options.opaque, err);
}

/* ---- pages ---- */

static int memory_file_add_pages(struct memory_file *file, uint64_t at, const uint8_t *host, size_t bytes,
				 struct err *err)
{
	int code = write_queue_add(file->queue, host, bytes, at, err);

	if (code)
		return code;
	bitmap_set_range(file->data, at / PAGE, bytes / PAGE);
	file->stats.pages += bytes / PAGE;
	if (file->summing)
		memory_sums_add(file->sums, host, bytes);
	return 0;
}

static int memory_file_write_zeros(struct memory_file *file, uint64_t at, size_t bytes, struct err *err)
{
	int code = 0;

	if (!file->zeros && !(file->zeros = calloc(1, ZEROS)))
		return err_sys(err, -ENOMEM, "writing zeros");
	bitmap_set_range(file->data, at / PAGE, bytes / PAGE);
	for (size_t n; !code && bytes; at += n, bytes -= n) {
		n = MIN(bytes, ZEROS);
		code = write_queue_add(file->queue, file->zeros, n, at, err);
	}
	return code;
}

/* Makes a hole of what was written by an earlier call, which has ended. */
static int memory_file_punch(struct memory_file *file, uint64_t at, size_t bytes, struct err *err)
{
	if (!file->no_punch &&
	    fallocate(file->options.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)bytes) == 0) {
		bitmap_clear_range(file->data, at / PAGE, bytes / PAGE);
		return 0;
	}
	file->no_punch = true;
	return memory_file_write_zeros(file, at, bytes, err);
}

static int memory_file_add_zeros(struct memory_file *file, uint64_t at, size_t bytes, struct err *err)
{
	uint64_t page = at / PAGE, end = page + bytes / PAGE;
	int code = 0;

	file->stats.zero_pages += bytes / PAGE;
	if (file->summing)
		memory_sums_add_zeros(file->sums, bytes);
	if (file->options.diff)
		return memory_file_write_zeros(file, at, bytes, err);
	while (!code && page < end) {
		uint64_t first = page++;

		if (!bitmap_test(file->data, first))
			continue;
		while (page < end && bitmap_test(file->data, page))
			page++;
		code = memory_file_punch(file, first * PAGE, (page - first) * PAGE, err);
	}
	return code;
}

/* ---- chunks ---- */

/* Writes the marked pages of a piece; bit 0 is its first. */
static int memory_file_write_piece(struct memory_file *file, const struct piece *piece, const unsigned long *marks,
				   bool all, struct err *err)
{
	const uint8_t *host = (const uint8_t *)piece->region->host + piece->offset;
	unsigned long absent[CHUNK_LONGS] = {0};
	struct zero_run run = {0};
	int code = 0;

	if (all || bitmap_count(marks, CHUNK_LONGS) >= LOOK_FIRST)
		zero_map_absent(file->zero_map, piece->region, piece->offset, piece->pages, absent);
	while (!code && zero_next_run(host, piece->pages, marks, absent, &run)) {
		uint64_t first = run.first * PAGE, bytes = (run.end - run.first) * PAGE;

		code = run.zero ? memory_file_add_zeros(file, piece->at + first, bytes, err) :
				  memory_file_add_pages(file, piece->at + first, host + first, bytes, err);
	}
	return code;
}

/* The part of a region from `at` in the file up to the end of the chunk. The regions cover all of the file. */
static struct piece memory_file_piece_at(const struct memory_file *file, uint64_t at)
{
	size_t count;
	const struct guest_region *region = guest_memory_regions(file->options.memory, &count);
	uint64_t begin = 0, bytes;

	for (; at - begin >= region->size; region++)
		begin += region->size;
	bytes = MIN(region->size - (at - begin), CHUNK - at % CHUNK);
	return (struct piece){.region = region, .offset = at - begin, .at = at, .pages = bytes / PAGE};
}

/* ---- everything ---- */

static int memory_file_write_chunk(struct memory_file *file, uint64_t chunk, struct err *err)
{
	uint64_t at = chunk * CHUNK, end = MIN(at + CHUNK, file->size);
	unsigned long marks[CHUNK_LONGS];
	int code = memory_file_check(file, err);

	memset(marks, 0xff, sizeof(marks));
	file->summing = true;
	memory_sums_begin(file->sums);
	while (!code && at < end) {
		struct piece piece = memory_file_piece_at(file, at);

		code = memory_file_write_piece(file, &piece, marks, true, err);
		at += piece.pages * PAGE;
	}
	if (!code)
		memory_sums_end(file->sums, chunk);
	file->summing = false;
	return code;
}

/* The first place at or behind `at` in the file for which there may be data; the file's size if there is none. */
static uint64_t memory_file_next(const struct memory_file *file, uint64_t at)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(file->options.memory, &count);
	uint64_t begin = 0;

	for (size_t i = 0; i < count; begin += regions[i++].size) {
		uint64_t offset = MAX(at, begin) - begin;

		if (offset >= regions[i].size)
			continue;
		offset = zero_map_next(file->zero_map, &regions[i], offset);
		if (offset < regions[i].size)
			return begin + offset;
	}
	return file->size;
}

int memory_file_write_all(struct memory_file *file, struct err *err)
{
	uint64_t begin = monotonic_ns();
	int code = 0;

	while (!code && (file->stats.at = memory_file_next(file, file->stats.at)) < file->size) {
		uint64_t chunk = file->stats.at / CHUNK;

		code = memory_file_write_chunk(file, chunk, err);
		file->stats.at = MIN((chunk + 1) * CHUNK, file->size);
	}
	code = code ?: write_queue_drain(file->queue, err);
	file->stats.busy_ns += monotonic_ns() - begin;
	return code;
}

/* ---- marks ---- */

/* The place in the file of a guest address; UINT64_MAX if the bytes from there are not in one region. */
static uint64_t memory_file_place(const struct memory_file *file, uint64_t gpa, uint64_t size)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(file->options.memory, &count);
	uint64_t begin = 0;

	for (size_t i = 0; i < count; begin += regions[i++].size)
		if (gpa >= regions[i].gpa && gpa - regions[i].gpa < regions[i].size)
			return size <= regions[i].size - (gpa - regions[i].gpa) ? begin + (gpa - regions[i].gpa) :
										  UINT64_MAX;
	return UINT64_MAX;
}

static int memory_file_check_marks(const struct memory_file *file, const struct memory_marks *marks, size_t count,
				   struct err *err)
{
	for (size_t i = 0; i < count; i++)
		if ((marks[i].gpa | marks[i].size) % PAGE ||
		    (marks[i].size && memory_file_place(file, marks[i].gpa, marks[i].size) == UINT64_MAX))
			return err_set(err, -EINVAL, "0x%llx, %llu bytes: not in one region of memory",
				       (unsigned long long)marks[i].gpa, (unsigned long long)marks[i].size);
	return 0;
}

/* The marked pages of one chunk, from page first of the marks, which is piece's first. */
static int memory_file_write_marked(struct memory_file *file, const struct memory_marks *marks, size_t first,
				    const struct piece *piece, struct err *err)
{
	unsigned long taken[CHUNK_LONGS] = {0};
	int code;

	bitmap_take(marks->bitmap, first, piece->pages, taken);
	if (bitmap_is_blank(taken, CHUNK_LONGS))
		return 0;
	code = memory_file_check(file, err);
	memory_sums_forget(file->sums, piece->at / CHUNK);
	return code ?: memory_file_write_piece(file, piece, taken, false, err);
}

/* -EAGAIN at the deadline. */
static int memory_file_write_marks(struct memory_file *file, const struct memory_marks *marks, uint64_t deadline,
				   struct err *err)
{
	uint64_t place = memory_file_place(file, marks->gpa, marks->size), now = deadline ? monotonic_ns() : 0;
	int code = 0;

	for (uint64_t done = 0; !code && done < marks->size;) {
		struct piece piece = memory_file_piece_at(file, place + done);
		uint64_t begin = now, pages = file->stats.pages, zeros = file->stats.zero_pages;

		if (deadline && now >= deadline)
			return -EAGAIN;
		piece.pages = MIN(piece.pages, (marks->size - done) / PAGE);
		code = memory_file_write_marked(file, marks, done / PAGE, &piece, err);
		done += piece.pages * PAGE;
		if (!deadline || (file->stats.pages == pages && file->stats.zero_pages == zeros))
			continue;
		now = monotonic_ns();
		if (file->stats.pages == pages)
			file->stats.zero_ns += now - begin;
	}
	return code;
}

int memory_file_write(struct memory_file *file, const struct memory_marks *marks, size_t count, uint64_t deadline_ns,
		      struct err *err)
{
	uint64_t begin = monotonic_ns();
	int code = memory_file_check_marks(file, marks, count, err);

	for (size_t i = 0; !code && i < count; i++)
		if (marks[i].size)
			code = memory_file_write_marks(file, &marks[i], deadline_ns, err);
	if (code == -EAGAIN)
		code = 0;
	code = code ?: write_queue_drain(file->queue, err);
	file->stats.busy_ns += monotonic_ns() - begin;
	return code;
}

/* ---- beginning and end ---- */

static int memory_file_set_size(const struct memory_file *file, struct err *err)
{
	int fd = file->options.fd;

	if (ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)file->size) == 0)
		return 0;
	if (errno == EFBIG)
		return err_set(err, -EFBIG, "a file of the memory's %llu MiB is larger than its file system or ulimit -f "
					    "allows", (unsigned long long)(file->size >> 20));
	return err_sys(err, -errno, "a file of %llu MiB", (unsigned long long)(file->size >> 20));
}

static int memory_file_prepare(struct memory_file *file, struct err *err)
{
	const struct write_queue_options queue = {.fd = file->options.fd, .check = memory_file_check, .opaque = file};

	file->size = guest_memory_size(file->options.memory);
	file->data = calloc(bitmap_longs(file->size / PAGE), sizeof(*file->data));
	if (!file->data)
		return err_sys(err, -ENOMEM, "the file of memory");
	return memory_file_set_size(file, err) ?:
	       zero_map_create(file->options.memory, &file->zero_map, err) ?:
	       memory_sums_create(file->size, &file->sums, err) ?:
	       write_queue_create(&queue, &file->queue, err);
}

int memory_file_create(const struct memory_file_options *options, struct memory_file **ret, struct err *err)
{
	struct memory_file *file = calloc(1, sizeof(*file));
	int code;

	if (!file)
		return err_sys(err, -ENOMEM, "the file of memory");
	file->options = *options;
	file->ticked = monotonic_ns();
	code = memory_file_prepare(file, err);
	if (code) {
		memory_file_destroy(file);
		return code;
	}
	*ret = file;
	return 0;
}

void memory_file_destroy(struct memory_file *file)
{
	if (!file)
		return;
	write_queue_destroy(file->queue);
	memory_sums_destroy(file->sums);
	zero_map_destroy(file->zero_map);
	free(file->data);
	free(file->zeros);
	free(file);
}

int memory_file_finish(struct memory_file *file, struct snapshot_bytes *sums, struct err *err)
{
	return write_queue_drain(file->queue, err) ?:
	       memory_sums_complete(file->sums, file->options.fd, file->data, memory_file_check, file, sums, err);
}

void memory_file_get_stats(const struct memory_file *file, struct memory_file_stats *stats)
{
	*stats = file->stats;
}
