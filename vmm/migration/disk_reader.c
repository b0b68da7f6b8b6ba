/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_reader.h. Each disk has a bitmap; one cursor cycles over all disks. */
#include "vmm/migration/disk_reader.h"

#include <fcntl.h>

#include "core/bitmap.h"
#include "core/monotonic.h"

#define PIECE (WIRE_MAX_BLOCKS / DISK_GRANULE) /* granules read at once */

struct disk {
	struct disk_copy copy;
	size_t granules;
	unsigned long *bits;
};

struct disk_reader {
	struct disk_reader_options options;
	struct disk disks[WIRE_MAX_DISKS];
	size_t at;          /* the next disk */
	size_t cursor;      /* the next granule of it */
	uint64_t hole, hole_size; /* on disk `at`, not told yet; bytes */
	uint8_t *buf; /* WIRE_MAX_BLOCKS bytes */
};

/* ---- the list ---- */

/* Bytes of count granules from first; the last granule of a disk may be short. */
static uint64_t disk_reader_bytes_of(const struct disk *disk, size_t first, size_t count)
{
	return MIN(count * DISK_GRANULE, disk->copy.size - first * DISK_GRANULE);
}

/* Contiguous listed granules from first, up to limit. */
static size_t disk_reader_run_length(const struct disk *disk, size_t first, size_t limit)
{
	size_t n = 0;

	while (n < limit && first + n < disk->granules && bitmap_test(disk->bits, first + n))
		n++;
	return n;
}

/* The first listed granule at or after the cursor on its disk; the disk's end if there is none. */
static size_t disk_reader_find(const struct disk *disk, size_t at)
{
	while (at < disk->granules && !bitmap_test(disk->bits, at))
		at += disk->bits[at / BITS_PER_LONG] >> at % BITS_PER_LONG ? 1 : BITS_PER_LONG - at % BITS_PER_LONG;
	return MIN(at, disk->granules);
}

void disk_reader_collect(struct disk_reader *reader)
{
	for (size_t i = 0; i < reader->options.count; i++)
		if (reader->disks[i].copy.collect)
			reader->disks[i].copy.collect(reader->disks[i].copy.opaque, reader->disks[i].bits);
}

uint64_t disk_reader_left(const struct disk_reader *reader)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < reader->options.count; i++) {
		const struct disk *disk = &reader->disks[i];
		size_t last = disk->granules - 1;

		bytes += bitmap_count(disk->bits, bitmap_longs(disk->granules)) * DISK_GRANULE;
		if (disk->granules && bitmap_test(disk->bits, last))
			bytes -= DISK_GRANULE - disk_reader_bytes_of(disk, last, 1);
	}
	return bytes;
}

/* ---- holes ---- */

static int disk_reader_tell_hole(struct disk_reader *reader, struct err *err)
{
	uint64_t size = reader->hole_size;

	reader->hole_size = 0;
	return size ? reader->options.sink->hole(reader->options.opaque, reader->at, reader->hole, size, err) : 0;
}

/* Merges adjacent holes. */
static int disk_reader_add_hole(struct disk_reader *reader, uint64_t offset, uint64_t size, struct err *err)
{
	int code = reader->hole + reader->hole_size == offset ? 0 : disk_reader_tell_hole(reader, err);

	if (!reader->hole_size)
		reader->hole = offset;
	reader->hole_size += size;
	return code;
}

static int disk_reader_tell_blocks(struct disk_reader *reader, uint64_t offset, const uint8_t *data, uint64_t size,
				   struct err *err)
{
	return disk_reader_tell_hole(reader, err) ?:
	       reader->options.sink->blocks(reader->options.opaque, reader->at, offset, data, size, err);
}

/* ---- what is on a disk ---- */

static bool disk_reader_is_zero(const uint8_t *data, size_t size)
{
	return !data[0] && memcmp(data, data + 1, size - 1) == 0;
}

static int disk_reader_read_blocks(struct disk_reader *reader, const struct disk *disk, uint64_t offset, size_t size,
				   struct err *err)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(disk->copy.fd, reader->buf + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "disk %s: read at %llu", disk->copy.id,
				       (unsigned long long)(offset + done));
		if (n == 0)
			return err_set(err, -EIO, "disk %s: its file ends at %llu", disk->copy.id,
				       (unsigned long long)(offset + done));
		done += (size_t)n;
	}
	if (disk->copy.uncached)
		posix_fadvise(disk->copy.fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
	return 0;
}

/* Reads and tells count granules; granules of zeros are told as a hole. */
static int disk_reader_read_granules(struct disk_reader *reader, const struct disk *disk, size_t first, size_t count,
				     struct err *err)
{
	uint64_t start = first * DISK_GRANULE, size = disk_reader_bytes_of(disk, first, count), end;
	int code = disk_reader_read_blocks(reader, disk, start, size, err);

	for (uint64_t at = 0; !code && at < size; at = end) {
		bool zero = disk_reader_is_zero(reader->buf + at, MIN(DISK_GRANULE, size - at));

		end = at + MIN(DISK_GRANULE, size - at);
		while (end < size && disk_reader_is_zero(reader->buf + end, MIN(DISK_GRANULE, size - end)) == zero)
			end += MIN(DISK_GRANULE, size - end);
		code = zero ? disk_reader_add_hole(reader, start + at, end - at, err) :
			      disk_reader_tell_blocks(reader, start + at, reader->buf + at, end - at, err);
	}
	return code;
}

/*
 * The next data at or after offset. A device, or a file system that cannot tell, counts as data only. A file that has
 * become shorter than its disk has no hole at its end: reading it fails.
 */
static uint64_t disk_reader_next_data(const struct disk *disk, uint64_t offset)
{
	off_t data = lseek(disk->copy.fd, (off_t)offset, SEEK_DATA);

	if (data < 0 && errno == ENXIO && lseek(disk->copy.fd, 0, SEEK_END) >= (off_t)disk->copy.size)
		return disk->copy.size;
	return data < 0 ? offset : MIN((uint64_t)data, disk->copy.size);
}

/* Reads one turn from this listed granule on; the cursor is after it then. */
static int disk_reader_read_from(struct disk_reader *reader, struct disk *disk, size_t first, struct err *err)
{
	const struct limiter *limiter = reader->options.limiter;
	size_t piece = limiter ? limiter_piece(limiter, WIRE_MAX_BLOCKS) / DISK_GRANULE : PIECE;
	uint64_t data = disk_reader_next_data(disk, first * DISK_GRANULE);
	size_t hole = data == disk->copy.size ? disk->granules - first : data / DISK_GRANULE - first;
	size_t count = disk_reader_run_length(disk, first, hole ?: piece);

	bitmap_clear_range(disk->bits, first, count);
	reader->cursor = first + count;
	return hole ? disk_reader_add_hole(reader, first * DISK_GRANULE, disk_reader_bytes_of(disk, first, count),
					   err) :
		      disk_reader_read_granules(reader, disk, first, count, err);
}

/* ---- the outside ---- */

int disk_reader_read(struct disk_reader *reader, uint64_t deadline, struct err *err)
{
	int code = 0;

	/* One spare disk, so that a cursor at the end of the last disk is valid. */
	for (size_t turn = 0; !code && turn <= reader->options.count && (!deadline || monotonic_ns() < deadline);) {
		struct disk *disk = &reader->disks[reader->at];
		size_t found = disk_reader_find(disk, reader->cursor);

		if (found < disk->granules) {
			code = disk_reader_read_from(reader, disk, found, err);
			continue;
		}
		code = disk_reader_tell_hole(reader, err);
		reader->at = (reader->at + 1) % reader->options.count;
		reader->cursor = 0;
		turn++;
	}
	return code ?: disk_reader_tell_hole(reader, err);
}

static bool disk_reader_add_disk(struct disk *disk, const struct disk_copy *copy)
{
	disk->copy = *copy;
	disk->granules = (size_t)((copy->size + (DISK_GRANULE - 1)) / DISK_GRANULE);
	disk->bits = calloc(bitmap_longs(disk->granules), sizeof(*disk->bits));
	if (disk->bits)
		bitmap_set_range(disk->bits, 0, disk->granules);
	return disk->bits;
}

int disk_reader_create(const struct disk_reader_options *options, struct disk_reader **ret, struct err *err)
{
	struct disk_reader *reader = calloc(1, sizeof(*reader));
	bool good;

	if (reader)
		reader->buf = malloc(WIRE_MAX_BLOCKS);
	good = reader && reader->buf;
	for (size_t i = 0; good && i < options->count; i++)
		good = disk_reader_add_disk(&reader->disks[i], &options->disks[i]);
	if (!good) {
		disk_reader_destroy(reader);
		return err_sys(err, -ENOMEM, "reading disks");
	}
	reader->options = *options;
	*ret = reader;
	return 0;
}

void disk_reader_destroy(struct disk_reader *reader)
{
	if (!reader)
		return;
	for (size_t i = 0; i < WIRE_MAX_DISKS; i++)
		free(reader->disks[i].bits);
	free(reader->buf);
	free(reader);
}
