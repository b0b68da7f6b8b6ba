/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See memory_receiver.h. A thread reads a payload, directly to its place, and the next header with one call. It waits
 * in recvmsg(2); when another thread fails, its connection is shut down.
 *
 * Each written page has a bit. A page without it is still zero and is not touched when it is received as zero. A chunk
 * stays on one channel, so one thread sets and clears a page's bit.
 */
#include "vmm/migration/memory_receiver.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "core/bitmap.h"
#include "core/crew.h"
#include "vmm/migration/compress.h"

#define PAGE WIRE_PAGE
#define TAIL KIB(64) /* of a payload, read together with the next header */

struct lane {
	struct memory_receiver *receiver;
	struct channel *channel;
	unsigned int index;
	uint8_t header[WIRE_HEADER_SIZE];
	size_t header_have;
	struct compressor *compressor; /* created for the first compressed frame */
	uint8_t *packed;               /* WIRE_MAX_ZSTD bytes, created then too */
	uint64_t pages, zero_pages;    /* counted as the sender does */
	struct err err;
};

struct memory_receiver {
	struct memory_receiver_options options;
	unsigned long **written; /* one bitmap for each region; bits are atomic */
	size_t region_count;
	struct lane *lanes;
	struct crew *crew; /* one member for each lane */
};

/* ---- reading ---- */

/*
 * Reads at least one byte, first into buf, then into the next header. *got: bytes that went into buf. Between frames a
 * channel may be silent, within a frame not.
 */
static int memory_receiver_read_some(struct lane *lane, void *buf, size_t len, size_t *got)
{
	struct iovec iov[] = {{buf, len}, {lane->header + lane->header_have, WIRE_HEADER_SIZE - lane->header_have}};
	struct msghdr message = {.msg_iov = len ? iov : iov + 1, .msg_iovlen = len ? 2 : 1};
	ssize_t n;

	do {
		n = recvmsg(lane->channel->fd, &message, MSG_WAITALL);
	} while (n < 0 && (errno == EINTR || (errno == EAGAIN && !len && !lane->header_have)));
	*got = 0;
	if (n <= 0)
		return channel_lost(lane->channel, n < 0 ? errno : 0, &lane->err);
	__atomic_fetch_add(&lane->channel->received, (uint64_t)n, __ATOMIC_RELAXED);
	*got = MIN((size_t)n, len);
	lane->header_have += (size_t)n - *got;
	return 0;
}

/* Reads a whole payload; ahead: together with the next header, if it need not be checked before that arrives. */
static int memory_receiver_read_payload(struct lane *lane, void *buf, size_t len, bool ahead)
{
	size_t tail = ahead ? MIN(len, TAIL) : 0;
	uint8_t *to = buf;
	int code = 0;

	for (size_t left = len - tail; left;) {
		ssize_t n = recv(lane->channel->fd, to, left, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return channel_lost(lane->channel, n < 0 ? errno : 0, &lane->err);
		__atomic_fetch_add(&lane->channel->received, (uint64_t)n, __ATOMIC_RELAXED);
		to += n;
		left -= (size_t)n;
	}
	for (size_t got; !code && tail; tail -= got, to += got)
		code = memory_receiver_read_some(lane, to, tail, &got);
	return code;
}

static int memory_receiver_read_header(struct lane *lane, struct wire_frame *frame)
{
	size_t none;
	int code = 0;

	while (!code && lane->header_have < WIRE_HEADER_SIZE)
		code = memory_receiver_read_some(lane, NULL, 0, &none);
	if (code)
		return code;
	wire_get_header(lane->header, frame);
	lane->header_have = 0;
	return channel_step(lane->channel, WIRE_SOURCE, frame, &lane->err);
}

/* ---- frames ---- */

/* The host address of a frame's pages, after checks. *written and *first locate their bits. */
static void *memory_receiver_place(struct lane *lane, uint64_t gpa, uint64_t bytes, unsigned long **written,
				   size_t *first)
{
	const struct memory_receiver *receiver = lane->receiver;
	size_t count;
	const struct guest_region *regions = guest_memory_regions(receiver->options.memory, &count);

	if (gpa / WIRE_CHUNK % receiver->options.channel_count != lane->index) {
		err_set(&lane->err, -EPROTO, "0x%llx does not belong to this channel", (unsigned long long)gpa);
		return NULL;
	}
	for (size_t i = 0; i < MIN(count, receiver->region_count); i++) {
		if (gpa < regions[i].gpa || gpa - regions[i].gpa >= regions[i].size ||
		    bytes > regions[i].size - (gpa - regions[i].gpa))
			continue;
		*written = receiver->written[i];
		*first = (size_t)((gpa - regions[i].gpa) / PAGE);
		return (uint8_t *)regions[i].host + (gpa - regions[i].gpa);
	}
	err_set(&lane->err, -EPROTO, "0x%llx, %llu bytes: not guest memory", (unsigned long long)gpa,
		(unsigned long long)bytes);
	return NULL;
}

static void memory_receiver_set_written(unsigned long *written, size_t first, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!bitmap_test(written, first + i))
			bitmap_set(written, first + i);
}

static int memory_receiver_take_pages(struct lane *lane, const struct wire_frame *frame)
{
	unsigned long *written;
	size_t first;
	void *host = memory_receiver_place(lane, frame->a, frame->length, &written, &first);

	if (!host)
		return -EPROTO;
	memory_receiver_set_written(written, first, frame->length / PAGE);
	lane->pages += frame->length / PAGE;
	return memory_receiver_read_payload(lane, host, frame->length, true);
}

static int memory_receiver_take_zeros(struct lane *lane, const struct wire_frame *frame)
{
	unsigned long *written;
	size_t first, count = (size_t)(frame->b / PAGE);
	uint8_t *host = memory_receiver_place(lane, frame->a, frame->b, &written, &first);

	if (!host)
		return -EPROTO;
	for (size_t i = 0; i < count; i++) {
		if (!bitmap_test(written, first + i))
			continue;
		memset(host + i * PAGE, 0, PAGE);
		__atomic_fetch_and(&written[(first + i) / BITS_PER_LONG], ~(1ul << ((first + i) % BITS_PER_LONG)),
				   __ATOMIC_RELEASE);
	}
	lane->zero_pages += count;
	return 0;
}

static int memory_receiver_take_packed(struct lane *lane, const struct wire_frame *frame)
{
	unsigned long *written;
	size_t first;
	void *host = memory_receiver_place(lane, frame->a, frame->b, &written, &first);
	int code = host ? 0 : -EPROTO;

	if (!code && !lane->compressor)
		code = compressor_create(&lane->compressor, &lane->err);
	if (!code && !lane->packed) {
		lane->packed = malloc(WIRE_MAX_ZSTD);
		code = lane->packed ? 0 : err_sys(&lane->err, -ENOMEM, "zstd");
	}
	code = code ?: memory_receiver_read_payload(lane, lane->packed, frame->length, false);
	if (code)
		return code;
	memory_receiver_set_written(written, first, (size_t)(frame->b / PAGE));
	lane->pages += frame->b / PAGE;
	if (compressor_unpack(lane->compressor, lane->packed, frame->length, host, (size_t)frame->b))
		return err_set(&lane->err, -EPROTO, "invalid compressed data for 0x%llx, %llu bytes",
			       (unsigned long long)frame->a, (unsigned long long)frame->b);
	return 0;
}

static int memory_receiver_take_end(struct lane *lane, const struct wire_frame *frame)
{
	if (frame->a != lane->pages || frame->b != lane->zero_pages)
		return err_set(&lane->err, -EPROTO, "%llu pages and %llu of zeros were sent, but %llu and %llu received",
			       (unsigned long long)frame->a, (unsigned long long)frame->b,
			       (unsigned long long)lane->pages, (unsigned long long)lane->zero_pages);
	return 1;
}

/* Handles one frame: 1 for END, 0 for others, or an error. */
static int memory_receiver_take_frame(struct lane *lane)
{
	struct wire_frame frame;
	int code = memory_receiver_read_header(lane, &frame);

	if (code)
		return code;
	switch (frame.type) {
	case WIRE_PAGES:
		return memory_receiver_take_pages(lane, &frame);
	case WIRE_ZERO:
		return memory_receiver_take_zeros(lane, &frame);
	case WIRE_ZSTD:
		return memory_receiver_take_packed(lane, &frame);
	case WIRE_END:
		return memory_receiver_take_end(lane, &frame);
	default: /* of a newer version */
		return err_set(&lane->err, -EPROTO, "%s", wire_type_name(frame.type));
	}
}

/* ---- lanes ---- */

static int memory_receiver_run_lane(void *opaque, unsigned int index, struct err *err)
{
	struct memory_receiver *receiver = opaque;
	struct lane *lane = &receiver->lanes[index];
	int code = 0;

	while (!code)
		code = memory_receiver_take_frame(lane);
	compressor_destroy(lane->compressor);
	free(lane->packed);
	if (code < 0)
		return err_set(err, code, "memory channel %u: %s", index, lane->err.text);
	/* The guest is paused now. Ending a thread takes the kernel a while, so it is left to the receiver's end. */
	crew_next(receiver->crew, index);
	return 0;
}

static void memory_receiver_break_off(void *opaque, unsigned int index)
{
	channel_break(((struct memory_receiver *)opaque)->options.channels[index]);
}

static int memory_receiver_prepare(const struct channel *channel)
{
	unsigned int silence = channel->options.silence_ms;
	const struct timeval timeout = {.tv_sec = silence / 1000, .tv_usec = silence % 1000 * 1000};

	return setsockopt(channel->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ? -errno : 0;
}

static int memory_receiver_start_lanes(struct memory_receiver *receiver, struct err *err)
{
	static const struct crew_ops ops = {.work = memory_receiver_run_lane, .break_off = memory_receiver_break_off};
	unsigned int count = receiver->options.channel_count;

	for (unsigned int i = 0; i < count; i++) {
		struct channel *channel = receiver->options.channels[i];
		int code = memory_receiver_prepare(channel);

		if (code)
			return err_sys(err, code, "memory channel %u", i);
		receiver->lanes[i] = (struct lane){.receiver = receiver, .channel = channel, .index = i};
	}
	return crew_create(&ops, receiver, count, THREAD_MIGRATION, "memory", &receiver->crew, err);
}

static int memory_receiver_make_bitmaps(struct memory_receiver *receiver)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(receiver->options.memory, &count);

	receiver->written = calloc(count ?: 1, sizeof(*receiver->written));
	for (size_t i = 0; receiver->written && i < count; i++) {
		receiver->written[i] = calloc(bitmap_longs(regions[i].size / PAGE), sizeof(unsigned long));
		if (!receiver->written[i])
			return -ENOMEM;
		receiver->region_count++;
	}
	return receiver->written ? 0 : -ENOMEM;
}

/* ---- the outside ---- */

int memory_receiver_create(const struct memory_receiver_options *options, struct memory_receiver **ret, struct err *err)
{
	struct memory_receiver *receiver = calloc(1, sizeof(*receiver));
	int code;

	if (!receiver)
		return err_sys(err, -ENOMEM, "receiving memory");
	receiver->options = *options;
	receiver->lanes = calloc(options->channel_count, sizeof(*receiver->lanes));
	code = receiver->lanes ? memory_receiver_make_bitmaps(receiver) : -ENOMEM;
	if (code)
		err_sys(err, code, "receiving memory");
	code = code ?: memory_receiver_start_lanes(receiver, err);
	if (code) {
		memory_receiver_destroy(receiver);
		return code;
	}
	*ret = receiver;
	return 0;
}

void memory_receiver_destroy(struct memory_receiver *receiver)
{
	if (!receiver)
		return;
	crew_destroy(receiver->crew);
	for (size_t i = 0; i < receiver->region_count; i++)
		free(receiver->written[i]);
	free(receiver->written);
	free(receiver->lanes);
	free(receiver);
}

int memory_receiver_fd(const struct memory_receiver *receiver)
{
	return crew_fd(receiver->crew);
}

bool memory_receiver_done(struct memory_receiver *receiver, int cancel_fd, int64_t until)
{
	return crew_wait(receiver->crew, cancel_fd, until);
}

int memory_receiver_wait(struct memory_receiver *receiver, int cancel_fd, struct err *err)
{
	crew_wait(receiver->crew, cancel_fd, -1);
	return crew_result(receiver->crew, err);
}
