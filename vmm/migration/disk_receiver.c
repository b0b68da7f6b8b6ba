/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_receiver.h. */
#include "vmm/migration/disk_receiver.h"

#include <fcntl.h>

#include "core/crew.h"

struct disk {
	struct disk_target target;
	bool changed; /* since the last flush */
};

struct disk_receiver {
	struct disk disks[WIRE_MAX_DISKS];
	size_t count;
	struct disk *selected; /* NULL: none yet */
	struct channel *channel;
	uint64_t blocks, holes; /* received bytes */
	uint8_t *buf;           /* WIRE_MAX_BLOCKS bytes */
	struct crew *crew;      /* one thread */
};

/* ---- files ---- */

static int disk_receiver_flush(struct disk_receiver *receiver, struct err *err)
{
	for (size_t i = 0; i < receiver->count; i++) {
		struct disk *disk = &receiver->disks[i];

		if (disk->changed && fdatasync(disk->target.fd) < 0)
			return err_sys(err, -errno, "disk %s: flush", disk->target.id);
		disk->changed = false;
	}
	return 0;
}

/* ---- frames ---- */

static int disk_receiver_take_select(struct disk_receiver *receiver, const struct wire_frame *frame, struct err *err)
{
	if (frame->a >= receiver->count)
		return err_set(err, -EPROTO, "disk %llu of %zu", (unsigned long long)frame->a, receiver->count);
	receiver->selected = &receiver->disks[frame->a];
	return 0;
}

/* The disk that [offset, offset + size) is written to; the frame's numbers do not overflow. */
static int disk_receiver_check_place(struct disk_receiver *receiver, uint64_t offset, uint64_t size, struct err *err)
{
	struct disk *disk = receiver->selected;

	if (!disk)
		return err_set(err, -EPROTO, "no disk was selected");
	if (offset > disk->target.size || size > disk->target.size - offset)
		return err_set(err, -EPROTO, "disk %s: %llu bytes at %llu, but it has only %llu", disk->target.id,
			       (unsigned long long)size, (unsigned long long)offset,
			       (unsigned long long)disk->target.size);
	disk->changed = true;
	return 0;
}

static int disk_receiver_take_blocks(struct disk_receiver *receiver, const struct wire_frame *frame, struct err *err)
{
	int code = disk_receiver_check_place(receiver, frame->a, frame->length, err);

	code = code ?: channel_payload(receiver->channel, receiver->buf, frame->length, err);
	code = code ?: disk_target_write(&receiver->selected->target, frame->a, receiver->buf, frame->length, err);
	/* Starts writeback now, so that less is left for the flush during the pause; a hint. */
	if (!code)
		sync_file_range(receiver->selected->target.fd, (off_t)frame->a, frame->length, SYNC_FILE_RANGE_WRITE);
	receiver->blocks += frame->length;
	return code;
}

static int disk_receiver_take_hole(struct disk_receiver *receiver, const struct wire_frame *frame, struct err *err)
{
	int code = disk_receiver_check_place(receiver, frame->a, frame->b, err);

	receiver->holes += frame->b;
	return code ?: disk_target_zero(&receiver->selected->target, frame->a, frame->b, err);
}

static int disk_receiver_take_end(struct disk_receiver *receiver, const struct wire_frame *frame, struct err *err)
{
	if (frame->a != receiver->blocks || frame->b != receiver->holes)
		return err_set(err, -EPROTO, "%llu bytes and %llu of holes were sent, but %llu and %llu received",
			       (unsigned long long)frame->a, (unsigned long long)frame->b,
			       (unsigned long long)receiver->blocks, (unsigned long long)receiver->holes);
	return disk_receiver_flush(receiver, err) ?: 1;
}

/* Handles one frame: 1 for END, 0 for others, or an error. */
static int disk_receiver_take_frame(struct disk_receiver *receiver, struct err *err)
{
	struct wire_frame frame;
	int code = channel_receive(receiver->channel, &frame, err);

	if (code)
		return code;
	switch (frame.type) {
	case WIRE_SELECT:
		return disk_receiver_take_select(receiver, &frame, err);
	case WIRE_BLOCKS:
		return disk_receiver_take_blocks(receiver, &frame, err);
	case WIRE_HOLE:
		return disk_receiver_take_hole(receiver, &frame, err);
	case WIRE_FLUSH:
		return disk_receiver_flush(receiver, err) ?: channel_send(receiver->channel, WIRE_FLUSHED, 0, 0, NULL,
									  0, err);
	default:
		return disk_receiver_take_end(receiver, &frame, err);
	}
}

static int disk_receiver_work(void *opaque, unsigned int index, struct err *err)
{
	struct disk_receiver *receiver = opaque;
	int code = 0;

	while (!code)
		code = disk_receiver_take_frame(receiver, err);
	return MIN(code, 0);
}

static void disk_receiver_break_off(void *opaque, unsigned int index)
{
	channel_break(((struct disk_receiver *)opaque)->channel);
}

/* ---- the outside ---- */

static int disk_receiver_start(struct disk_receiver *receiver, struct err *err)
{
	static const struct crew_ops ops = {.work = disk_receiver_work, .break_off = disk_receiver_break_off};

	receiver->buf = malloc(WIRE_MAX_BLOCKS);
	if (!receiver->buf)
		return err_sys(err, -ENOMEM, "receiving disks");
	return crew_create(&ops, receiver, 1, THREAD_MIGRATION, "disks", &receiver->crew, err);
}

int disk_receiver_create(const struct disk_target *disks, size_t count, struct channel **channel,
			 struct disk_receiver **ret, struct err *err)
{
	struct disk_receiver *receiver = calloc(1, sizeof(*receiver));
	int code;

	if (!receiver)
		return err_sys(err, -ENOMEM, "receiving disks");
	receiver->count = count;
	receiver->channel = *channel;
	for (size_t i = 0; i < count; i++)
		receiver->disks[i].target = disks[i];
	code = disk_receiver_start(receiver, err);
	if (code) {
		receiver->channel = NULL;
		disk_receiver_destroy(receiver);
		return code;
	}
	*channel = NULL;
	*ret = receiver;
	return 0;
}

void disk_receiver_destroy(struct disk_receiver *receiver)
{
	if (!receiver)
		return;
	crew_destroy(receiver->crew);
	channel_destroy(receiver->channel);
	free(receiver->buf);
	free(receiver);
}

int disk_receiver_fd(const struct disk_receiver *receiver)
{
	return crew_fd(receiver->crew);
}

bool disk_receiver_done(struct disk_receiver *receiver, int cancel_fd, int64_t until)
{
	return crew_wait(receiver->crew, cancel_fd, until);
}

int disk_receiver_wait(struct disk_receiver *receiver, struct err *err)
{
	crew_wait(receiver->crew, -1, -1);
	return crew_result(receiver->crew, err);
}
