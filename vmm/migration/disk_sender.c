/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_sender.h. Each disk has a bitmap; one cursor cycles over all disks. */
#include "vmm/migration/disk_sender.h"

#include <fcntl.h>

#include "core/bitmap.h"
#include "core/monotonic.h"

#define TICK_MS 100
#define PIECE (WIRE_MAX_BLOCKS / DISK_GRANULE) /* granules read at once */

struct disk {
	struct disk_copy copy;
	size_t granules;
	unsigned long *bits;
};

struct disk_sender {
	struct disk_sender_options options;
	struct channel *channel;
	struct disk disks[WIRE_MAX_DISKS];
	size_t at;          /* the next disk */
	size_t cursor;      /* the next granule of it */
	size_t selected;    /* the disk of the last SELECT */
	uint64_t hole, hole_size; /* on disk `at`, not sent yet; bytes */
	uint64_t blocks_sent, holes_sent; /* bytes */
	uint64_t flush_time;
	uint8_t *buf; /* WIRE_MAX_BLOCKS bytes */
};

/* ---- the list ---- */

/* Bytes of count granules from first; the last granule of a disk may be short. */
static uint64_t disk_sender_bytes_of(const struct disk *disk, size_t first, size_t count)
{
	return MIN(count * DISK_GRANULE, disk->copy.size - first * DISK_GRANULE);
}

static void disk_sender_clear(struct disk *disk, size_t first, size_t count)
{
	for (size_t i = first; i < first + count; i++)
		disk->bits[i / BITS_PER_LONG] &= ~(1ul << i % BITS_PER_LONG);
}

/* Contiguous listed granules from first, up to limit. */
static size_t disk_sender_run_length(const struct disk *disk, size_t first, size_t limit)
{
	size_t n = 0;

	while (n < limit && first + n < disk->granules && bitmap_test(disk->bits, first + n))
		n++;
	return n;
}

/* The first listed granule at or after the cursor on its disk; the disk's end if there is none. */
static size_t disk_sender_find(const struct disk *disk, size_t at)
{
	while (at < disk->granules && !bitmap_test(disk->bits, at))
		at += disk->bits[at / BITS_PER_LONG] >> at % BITS_PER_LONG ? 1 : BITS_PER_LONG - at % BITS_PER_LONG;
	return MIN(at, disk->granules);
}

void disk_sender_collect(struct disk_sender *sender)
{
	for (size_t i = 0; sender && i < sender->options.count; i++)
		if (sender->disks[i].copy.collect)
			sender->disks[i].copy.collect(sender->disks[i].copy.opaque, sender->disks[i].bits);
}

uint64_t disk_sender_left(const struct disk_sender *sender)
{
	uint64_t bytes = 0;

	for (size_t i = 0; sender && i < sender->options.count; i++) {
		const struct disk *disk = &sender->disks[i];
		size_t count = 0, last = disk->granules - 1;

		for (size_t word = 0; word < bitmap_longs(disk->granules); word++)
			count += (size_t)__builtin_popcountl(disk->bits[word]);
		bytes += count * DISK_GRANULE;
		if (bitmap_test(disk->bits, last))
			bytes -= DISK_GRANULE - disk_sender_bytes_of(disk, last, 1);
	}
	return bytes;
}

/* ---- frames ---- */

static int disk_sender_select_disk(struct disk_sender *sender, struct err *err)
{
	int code = sender->selected == sender->at ? 0 :
		   channel_send(sender->channel, WIRE_SELECT, sender->at, 0, NULL, 0, err);

	if (!code)
		sender->selected = sender->at;
	return code;
}

static int disk_sender_send_hole(struct disk_sender *sender, struct err *err)
{
	int code = sender->hole_size ? disk_sender_select_disk(sender, err) : 0;

	while (!code && sender->hole_size) {
		uint64_t n = MIN(sender->hole_size, WIRE_MAX_HOLE);

		code = channel_send(sender->channel, WIRE_HOLE, sender->hole, n, NULL, 0, err);
		sender->hole += n;
		sender->hole_size -= n;
		sender->holes_sent += n;
	}
	return code;
}

/* Merges adjacent holes. */
static int disk_sender_add_hole(struct disk_sender *sender, uint64_t offset, uint64_t size, struct err *err)
{
	int code = sender->hole + sender->hole_size == offset ? 0 : disk_sender_send_hole(sender, err);

	if (!sender->hole_size)
		sender->hole = offset;
	sender->hole_size += size;
	return code;
}

static int disk_sender_send_blocks(struct disk_sender *sender, uint64_t offset, const uint8_t *data, uint64_t size,
				   struct err *err)
{
	int code = disk_sender_send_hole(sender, err) ?: disk_sender_select_disk(sender, err);

	if (!code && sender->options.limiter && limiter_wait(sender->options.limiter, size, sender->options.cancel_fd))
		code = err_set(err, -ECANCELED, "cancelled");
	code = code ?: channel_send(sender->channel, WIRE_BLOCKS, offset, 0, data, size, err);
	sender->blocks_sent += size;
	return code;
}

/* ---- what is on a disk ---- */

static bool disk_sender_is_zero(const uint8_t *data, size_t size)
{
	return !data[0] && memcmp(data, data + 1, size - 1) == 0;
}

static int disk_sender_read_blocks(struct disk_sender *sender, const struct disk *disk, uint64_t offset, size_t size,
				   struct err *err)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(disk->copy.fd, sender->buf + done, size - done, (off_t)(offset + done));

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

/* Reads and sends count granules; granules of zeros are sent as a hole. */
static int disk_sender_send_granules(struct disk_sender *sender, const struct disk *disk, size_t first, size_t count,
				     struct err *err)
{
	uint64_t start = first * DISK_GRANULE, size = disk_sender_bytes_of(disk, first, count), end;
	int code = disk_sender_read_blocks(sender, disk, start, size, err);

	for (uint64_t at = 0; !code && at < size; at = end) {
		bool zero = disk_sender_is_zero(sender->buf + at, MIN(DISK_GRANULE, size - at));

		end = at + MIN(DISK_GRANULE, size - at);
		while (end < size && disk_sender_is_zero(sender->buf + end, MIN(DISK_GRANULE, size - end)) == zero)
			end += MIN(DISK_GRANULE, size - end);
		code = zero ? disk_sender_add_hole(sender, start + at, end - at, err) :
			      disk_sender_send_blocks(sender, start + at, sender->buf + at, end - at, err);
	}
	return code;
}

/*
 * The next data at or after offset. A device, or a file system that cannot tell, counts as data only. A file that has
 * become shorter than its disk has no hole at its end: reading it fails.
 */
static uint64_t disk_sender_next_data(const struct disk *disk, uint64_t offset)
{
	off_t data = lseek(disk->copy.fd, (off_t)offset, SEEK_DATA);

	if (data < 0 && errno == ENXIO && lseek(disk->copy.fd, 0, SEEK_END) >= (off_t)disk->copy.size)
		return disk->copy.size;
	return data < 0 ? offset : MIN((uint64_t)data, disk->copy.size);
}

/* Sends one turn from this listed granule on; the cursor is after it then. */
static int disk_sender_send_from(struct disk_sender *sender, struct disk *disk, size_t first, struct err *err)
{
	const struct limiter *limiter = sender->options.limiter;
	size_t piece = limiter ? limiter_piece(limiter, WIRE_MAX_BLOCKS) / DISK_GRANULE : PIECE;
	uint64_t data = disk_sender_next_data(disk, first * DISK_GRANULE);
	size_t hole = data == disk->copy.size ? disk->granules - first : data / DISK_GRANULE - first;
	size_t count = disk_sender_run_length(disk, first, hole ?: piece);

	disk_sender_clear(disk, first, count);
	sender->cursor = first + count;
	return hole ? disk_sender_add_hole(sender, first * DISK_GRANULE, disk_sender_bytes_of(disk, first, count),
					   err) :
		      disk_sender_send_granules(sender, disk, first, count, err);
}

/* ---- the outside ---- */

int disk_sender_send(struct disk_sender *sender, uint64_t deadline, struct err *err)
{
	int code = 0;

	if (!sender)
		return 0;
	/* One spare disk, so that a cursor at the end of the last disk is valid. */
	for (size_t turn = 0; !code && turn <= sender->options.count && (!deadline || monotonic_ns() < deadline);) {
		struct disk *disk = &sender->disks[sender->at];
		size_t found = disk_sender_find(disk, sender->cursor);

		if (found < disk->granules) {
			code = disk_sender_send_from(sender, disk, found, err);
			continue;
		}
		code = disk_sender_send_hole(sender, err);
		sender->at = (sender->at + 1) % sender->options.count;
		sender->cursor = 0;
		turn++;
	}
	return code ?: disk_sender_send_hole(sender, err);
}

int disk_sender_flush(struct disk_sender *sender, struct err *err)
{
	struct wire_frame frame;
	uint64_t begin = monotonic_ns();
	int code = sender ? channel_send(sender->channel, WIRE_FLUSH, 0, 0, NULL, 0, err) : 0;

	if (!sender || code)
		return code;
	while (!code && !(code = channel_await(sender->channel, monotonic_ms() + TICK_MS, err)))
		code = sender->options.tick ? sender->options.tick(sender->options.opaque, err) : 0;
	if (code < 0)
		return code;
	code = channel_expect(sender->channel, WIRE_FLUSHED, &frame, err);
	sender->flush_time = monotonic_ns() - begin;
	return code;
}

uint64_t disk_sender_flush_time(const struct disk_sender *sender)
{
	return sender ? sender->flush_time : 0;
}

uint64_t disk_sender_sent(const struct disk_sender *sender)
{
	return sender ? channel_sent(sender->channel) : 0;
}

int disk_sender_end(struct disk_sender *sender, struct err *err)
{
	return sender ? channel_send(sender->channel, WIRE_END, sender->blocks_sent, sender->holes_sent, NULL, 0, err) :
			0;
}

static bool disk_sender_add_disk(struct disk *disk, const struct disk_copy *copy)
{
	disk->copy = *copy;
	disk->granules = (size_t)((copy->size + (DISK_GRANULE - 1)) / DISK_GRANULE);
	disk->bits = calloc(bitmap_longs(disk->granules), sizeof(*disk->bits));
	for (size_t i = 0; disk->bits && i < disk->granules; i++)
		disk->bits[i / BITS_PER_LONG] |= 1ul << i % BITS_PER_LONG;
	return disk->bits;
}

int disk_sender_create(const struct disk_sender_options *options, struct channel **channel, struct disk_sender **ret,
		       struct err *err)
{
	struct disk_sender *sender = calloc(1, sizeof(*sender));
	bool good;

	if (sender)
		sender->buf = malloc(WIRE_MAX_BLOCKS);
	good = sender && sender->buf;
	for (size_t i = 0; good && i < options->count; i++)
		good = disk_sender_add_disk(&sender->disks[i], &options->disks[i]);
	if (!good) {
		disk_sender_destroy(sender);
		return err_sys(err, -ENOMEM, "sending disks");
	}
	sender->options = *options;
	sender->selected = SIZE_MAX;
	sender->channel = take_ptr(*channel);
	*ret = sender;
	return 0;
}

void disk_sender_destroy(struct disk_sender *sender)
{
	if (!sender)
		return;
	channel_destroy(sender->channel);
	for (size_t i = 0; i < WIRE_MAX_DISKS; i++)
		free(sender->disks[i].bits);
	free(sender->buf);
	free(sender);
}
