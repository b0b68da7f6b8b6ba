/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_sender.h. */
#include "vmm/migration/disk_sender.h"

#include "core/monotonic.h"

#define TICK_MS 100

struct disk_sender {
	struct disk_sender_options options;
	struct channel *channel;
	struct disk_reader *reader;
	size_t selected;    /* the disk of the last SELECT */
	uint64_t blocks_sent, holes_sent; /* bytes */
	uint64_t flush_time;
};

/* ---- frames ---- */

static int disk_sender_select_disk(struct disk_sender *sender, size_t disk, struct err *err)
{
	int code = sender->selected == disk ? 0 :
		   channel_send(sender->channel, WIRE_SELECT, disk, 0, NULL, 0, err);

	if (!code)
		sender->selected = disk;
	return code;
}

static int disk_sender_send_hole(void *opaque, size_t disk, uint64_t offset, uint64_t size, struct err *err)
{
	struct disk_sender *sender = opaque;
	int code = disk_sender_select_disk(sender, disk, err);

	while (!code && size) {
		uint64_t n = MIN(size, WIRE_MAX_HOLE);

		code = channel_send(sender->channel, WIRE_HOLE, offset, n, NULL, 0, err);
		offset += n;
		size -= n;
		sender->holes_sent += n;
	}
	return code;
}

static int disk_sender_send_blocks(void *opaque, size_t disk, uint64_t offset, const uint8_t *data, uint64_t size,
				   struct err *err)
{
	struct disk_sender *sender = opaque;
	int code = disk_sender_select_disk(sender, disk, err);

	if (!code && sender->options.limiter && limiter_wait(sender->options.limiter, size, sender->options.cancel_fd))
		code = err_set(err, -ECANCELED, "cancelled");
	code = code ?: channel_send(sender->channel, WIRE_BLOCKS, offset, 0, data, size, err);
	sender->blocks_sent += size;
	return code;
}

static const struct disk_reader_sink sink = {.blocks = disk_sender_send_blocks, .hole = disk_sender_send_hole};

/* ---- the outside ---- */

void disk_sender_collect(struct disk_sender *sender)
{
	if (sender)
		disk_reader_collect(sender->reader);
}

uint64_t disk_sender_left(const struct disk_sender *sender)
{
	return sender ? disk_reader_left(sender->reader) : 0;
}

int disk_sender_send(struct disk_sender *sender, uint64_t deadline, struct err *err)
{
	return sender ? disk_reader_read(sender->reader, deadline, err) : 0;
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

int disk_sender_create(const struct disk_sender_options *options, struct channel **channel, struct disk_sender **ret,
		       struct err *err)
{
	struct disk_sender *sender = calloc(1, sizeof(*sender));
	const struct disk_reader_options reader = {
		.disks = options->disks, .count = options->count, .limiter = options->limiter, .sink = &sink,
		.opaque = sender,
	};
	int code = sender ? disk_reader_create(&reader, &sender->reader, err) : err_sys(err, -ENOMEM, "sending disks");

	if (code) {
		free(sender);
		return code;
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
	disk_reader_destroy(sender->reader);
	free(sender);
}
