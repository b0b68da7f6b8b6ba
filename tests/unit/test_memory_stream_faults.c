/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/memory_sender and memory_receiver: a target that reads nothing, cancellation, and hostile, cut and
 * stalled streams. All of them end by name.
 */
#include "tests/unit/memory_stream_rig.h"
#include "vmm/migration/compress.h"
#include "vmm/migration/zero.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

/* ---- what goes wrong while sending ---- */

static int refuse_tick(void *opaque, struct err *err)
{
	return err_set(err, -ESHUTDOWN, "the guest is off");
}

/* Nobody reads: silence, the cancel descriptor and the caller's own wish end it, each by its name, and for good. */
static void a_target_that_reads_nothing_ends_sending(void)
{
	struct err err;
	int64_t begun;

	for (int how = 0; how < 3; how++) {
		struct timespec now;

		set_up(2, false, how == 0 ? 300 : 60000);
		for (size_t i = 0; i < LOW; i += PAGE)
			scribble(source.low + i);
		sending.cancel_fd = how == 1 ? eventfd(1, EFD_CLOEXEC) : -1;
		sending.tick = how == 2 ? refuse_tick : NULL;
		clock_gettime(CLOCK_MONOTONIC, &now);
		begun = now.tv_sec;
		if (how == 1) {
			CHECK_EQ(memory_sender_create(&sending, &sender, &err), -ECANCELED);
			sender = NULL;
		} else {
			start_sender();
			mark_all();
			CHECK_EQ(send_marks(0, &err), how == 0 ? -ETIMEDOUT : -ESHUTDOWN);
			if (how == 0)
				CHECK(strstr(err.text, "memory channel ") && strstr(err.text, "the target has not answered for"));
			CHECK_EQ(send_marks(0, &err), how == 0 ? -ETIMEDOUT : -ESHUTDOWN);
			CHECK_EQ(memory_sender_end(sender, NULL, 0, &err), how == 0 ? -ETIMEDOUT : -ESHUTDOWN);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		CHECK(now.tv_sec - begun < 20);
		fd_close(&sending.cancel_fd);
		tear_down();
	}
}

static void cancelling_ends_what_is_under_way(void)
{
	struct limiter limiter;
	struct err err;

	set_up(2, false, 60000);
	limiter_init(&limiter, KIB(64)); /* the cap's wait ends as well */
	sending.limiter = &limiter;
	sending.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (size_t i = 0; i < LOW; i += PAGE)
		scribble(source.low + i);
	start_both();
	CHECK_EQ(eventfd_write(sending.cancel_fd, 1), 0);
	mark_all();
	CHECK_EQ(send_marks(0, &err), -ECANCELED);
	CHECK_STR(err.text, "cancelled");
	fd_close(&sending.cancel_fd);
	tear_down();
	limiter_destroy(&limiter);
}

static void one_channel_that_is_cut_ends_them_all_and_is_named(void)
{
	struct err err;

	set_up(3, true, 5000);
	for (size_t i = 0; i < LOW; i += PAGE)
		scribble(source.low + i);
	start_both();
	channel_break(in[1]);
	CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -ECONNRESET);
	CHECK_STR(err.text, "memory channel 1: the source closed the connection");
	mark_all();
	CHECK_EQ(send_marks(0, &err), -ECONNRESET);
	CHECK(strncmp(err.text, "memory channel ", 15) == 0);
	tear_down();
}

/* ---- hostile streams ---- */

static void write_frame(unsigned int channel, uint32_t type, uint64_t a, uint64_t b, const void *payload, size_t len)
{
	const struct wire_frame frame = {.type = type, .length = (uint32_t)len, .a = a, .b = b};
	uint8_t header[WIRE_HEADER_SIZE];

	wire_put_header(header, &frame);
	CHECK_EQ(send(out[channel]->fd, header, sizeof(header), MSG_NOSIGNAL), sizeof(header));
	send(out[channel]->fd, payload, len, MSG_NOSIGNAL); /* whoever was shocked by the header has left */
}

static void nonsense_is_refused_by_name(void)
{
	static uint8_t pages[MIB(1)];
	static const struct {
		unsigned int channel;
		uint32_t type;
		uint64_t a, b;
		size_t len;
		const char *words;
	} cases[] = {
		{0, WIRE_PAGES, MIB(8), 0, PAGE, "0x800000, 4096 bytes: not guest memory"},
		{0, WIRE_PAGES, UINT64_MAX - MIB(4) + 1, 0, PAGE, "not guest memory"},
		{1, WIRE_PAGES, LOW - PAGE, 0, 2 * PAGE, "0x6ff000, 8192 bytes: not guest memory"},
		{0, WIRE_PAGES, HIGH_GPA - PAGE, 0, 2 * PAGE, "not guest memory"},
		{1, WIRE_PAGES, 0, 0, PAGE, "memory channel 1: 0x0 does not belong to this channel"},
		{0, WIRE_ZERO, MIB(2), PAGE, 0, "does not belong to this channel"},
		{0, WIRE_ZERO, MIB(8), MIB(2), 0, "not guest memory"},
		{1, WIRE_ZERO, MIB(6), MIB(2), 0, "not guest memory"},
		{0, WIRE_PAGES, 17, 0, PAGE, "PAGES with 0x11"},
		{0, WIRE_ZSTD, 0, 8 * PAGE, 20, "invalid compressed data for 0x0, 32768 bytes"},
		{0, WIRE_ZSTD, MIB(8), 8 * PAGE, 20, "not guest memory"},
		{0, WIRE_END, 1, 0, 0, "1 pages and 0 of zeros were sent, but 0 and 0 received"},
		{0, WIRE_END, 0, 7, 0, "0 pages and 7 of zeros were sent, but 0 and 0 received"},
		{0, WIRE_HELLO, WIRE_MAGIC, 0, WIRE_HELLO_SIZE, "HELLO from the source"},
		{0, WIRE_GO, 0, 0, 0, "GO from the source"},
		{0, 0xdeadbeef, 0, 0, 0, "unknown type"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err = {""};

		set_up(2, false, 5000);
		start_receiver();
		write_frame(cases[i].channel, cases[i].type, cases[i].a, cases[i].b, pages, cases[i].len);
		CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -EPROTO);
		if (!strstr(err.text, cases[i].words))
			printf("# case %zu: %s\n", i, err.text);
		CHECK(strstr(err.text, cases[i].words));
		CHECK(strncmp(err.text, "memory channel ", 15) == 0);
		tear_down();
	}
}

/* A zstd frame of another size than it says, shorter or longer, and one cut off. */
static void compressed_frames_must_be_what_they_say(void)
{
	static uint8_t pages[8 * PAGE], packed[8 * PAGE];
	struct compressor *compressor;
	const size_t claims[] = {4 * PAGE, 16 * PAGE, 8 * PAGE};
	struct err err;
	size_t len;

	CHECK_EQ(compressor_create(&compressor, NULL), 0);
	memset(pages, 0x5a, sizeof(pages));
	len = compressor_pack(compressor, pages, sizeof(pages), packed, sizeof(packed));
	CHECK(len > 0 && len < 200);
	for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
		set_up(1, false, 5000);
		start_receiver();
		write_frame(0, WIRE_ZSTD, PAGE, claims[i], packed, claims[i] == 8 * PAGE ? len - 1 : len);
		CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -EPROTO);
		CHECK_EQ(target.low[0], 0);
		CHECK_EQ(target.low[PAGE + claims[i]], 0);
		tear_down();
	}
	set_up(1, false, 5000);
	start_receiver();
	write_frame(0, WIRE_ZSTD, PAGE, 8 * PAGE, packed, len);
	write_frame(0, WIRE_END, 8, 0, NULL, 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, &err), 0);
	CHECK_EQ(memcmp(target.low + PAGE, pages, sizeof(pages)), 0);
	tear_down();
	compressor_destroy(compressor);
}

static void what_comes_last_counts(void)
{
	static uint8_t page[PAGE];

	set_up(1, false, 5000);
	start_receiver();
	memset(page, 1, PAGE);
	write_frame(0, WIRE_ZERO, PAGE, PAGE, NULL, 0);
	write_frame(0, WIRE_PAGES, PAGE, 0, page, PAGE);
	write_frame(0, WIRE_ZERO, 0, 3 * PAGE, NULL, 0);
	memset(page, 2, PAGE);
	write_frame(0, WIRE_PAGES, 2 * PAGE, 0, page, PAGE);
	write_frame(0, WIRE_END, 2, 4, NULL, 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, NULL), 0);
	CHECK(zero_page(target.low + PAGE));
	CHECK_EQ(target.low[2 * PAGE], 2);
	tear_down();
}

/* A sound stream, cut after `bytes`. */
static int receive_cut(size_t bytes, size_t *whole, struct err *err)
{
	static uint8_t stream[4 * WIRE_HEADER_SIZE + 3 * PAGE];
	const struct wire_frame frames[] = {
		{WIRE_PAGES, 2 * PAGE, 0, 0}, {WIRE_ZERO, 0, 2 * PAGE, PAGE}, {WIRE_PAGES, PAGE, PAGE, 0}, {WIRE_END, 0, 3, 1}};
	size_t at = 0;
	int code;

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		wire_put_header(stream + at, &frames[i]);
		at += WIRE_HEADER_SIZE + frames[i].length;
	}
	*whole = at;
	set_up(1, false, 5000);
	start_receiver();
	CHECK_EQ(send(out[0]->fd, stream, MIN(bytes, at), MSG_NOSIGNAL), (ssize_t)MIN(bytes, at));
	channel_break(out[0]);
	code = memory_receiver_wait(receiver, -1, err);
	tear_down();
	return code;
}

static void a_cut_at_every_frame_is_found(void)
{
	size_t whole = SIZE_MAX;
	struct err err;

	for (size_t bytes = 0; bytes < whole; bytes += bytes % PAGE < 100 ? 1 : 509) {
		CHECK_EQ(receive_cut(bytes, &whole, &err), bytes == whole ? 0 : -ECONNRESET);
		CHECK_STR(err.text, "memory channel 0: the source closed the connection");
	}
	CHECK_EQ(receive_cut(whole, &whole, &err), 0);
}

static void a_stall_within_a_frame_is_found_and_between_frames_is_none(void)
{
	static uint8_t page[PAGE];
	const struct timespec pause = {.tv_nsec = 350000000};
	struct err err;

	set_up(1, false, 100);
	start_receiver();
	write_frame(0, WIRE_PAGES, 0, 0, page, PAGE);
	nanosleep(&pause, NULL);
	write_frame(0, WIRE_END, 1, 0, NULL, 0);
	CHECK_EQ(memory_receiver_wait(receiver, -1, &err), 0);
	tear_down();
	for (int how = 0; how < 2; how++) {
		const struct wire_frame frame = {WIRE_PAGES, 2 * PAGE, 0, 0};
		uint8_t header[WIRE_HEADER_SIZE];

		set_up(1, false, 100);
		start_receiver();
		wire_put_header(header, &frame);
		CHECK(send(out[0]->fd, header, how ? sizeof(header) : 3, 0) > 0);
		if (how)
			CHECK_EQ(send(out[0]->fd, page, PAGE, 0), PAGE);
		CHECK_EQ(memory_receiver_wait(receiver, -1, &err), -ETIMEDOUT);
		CHECK_STR(err.text, "memory channel 0: the source has not answered for 0 s");
		tear_down();
	}
}

static void waiting_for_memory_can_be_cancelled_and_failure_be_polled(void)
{
	int cancel_fd = eventfd(1, EFD_CLOEXEC);
	eventfd_t count;
	struct err err;

	set_up(2, false, 5000);
	start_receiver();
	CHECK(read(memory_receiver_fd(receiver), &count, sizeof(count)) < 0);
	CHECK_EQ(memory_receiver_wait(receiver, cancel_fd, &err), -ECANCELED);
	CHECK_EQ(read(memory_receiver_fd(receiver), &count, sizeof(count)), sizeof(count));
	close(cancel_fd);
	tear_down();
}

TEST_MAIN(TEST(a_target_that_reads_nothing_ends_sending), TEST(cancelling_ends_what_is_under_way),
	  TEST(one_channel_that_is_cut_ends_them_all_and_is_named), TEST(nonsense_is_refused_by_name),
	  TEST(compressed_frames_must_be_what_they_say), TEST(what_comes_last_counts),
	  TEST(a_cut_at_every_frame_is_found), TEST(a_stall_within_a_frame_is_found_and_between_frames_is_none),
	  TEST(waiting_for_memory_can_be_cancelled_and_failure_be_polled))
