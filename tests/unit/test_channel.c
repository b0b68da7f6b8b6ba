/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/migration/channel: frames that arrive, connections cut after every byte, stalled and cancelled; last words. */
#include "tests/unit/test.h"
#include "vmm/migration/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define SILENCE 200 /* ms; short, so that tests of it are */

/* ---- a pair of channels without dialer and acceptor ---- */

static struct channel *source, *target;
static int cancel_fd = -1;

static struct channel *make_end(int fd, enum wire_side side, enum wire_kind kind)
{
	const struct channel_options options = {.side = side, .kind = kind, .count = 1, .cancel_fd = cancel_fd,
						.silence_ms = 20000};
	struct channel *channel;

	CHECK_EQ(channel_create(&options, &fd, &channel, NULL), 0);
	return channel;
}

static void greet(struct channel *channel)
{
	const struct wire_frame hello = wire_hello_frame();

	CHECK_EQ(channel_step(channel, WIRE_SOURCE, &hello, NULL), 0);
	CHECK_EQ(channel_step(channel, WIRE_TARGET, &hello, NULL), 0);
}

static void make_pair(enum wire_kind kind)
{
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	source = make_end(fds[0], WIRE_SOURCE, kind);
	target = make_end(fds[1], WIRE_TARGET, kind);
	greet(source);
	greet(target);
}

/* For tests of silence; for others a busy machine must not make for it. */
static void make_hasty_pair(enum wire_kind kind)
{
	make_pair(kind);
	source->options.silence_ms = target->options.silence_ms = SILENCE;
}

static void end_pair(void)
{
	channel_destroy(source);
	channel_destroy(target);
	source = target = NULL;
	fd_close(&cancel_fd);
}

static void frames_arrive_with_their_payload(void)
{
	static char big[MIB(1)];
	struct wire_frame frame;
	struct err err = {""};
	char *text;

	make_pair(WIRE_CONTROL);
	memset(big, ' ', sizeof(big));
	CHECK_EQ(channel_check(target, &err), 0);
	CHECK_EQ(channel_send(source, WIRE_OFFER, 0, 0, "{\"a\":1}", 7, &err), 0);
	CHECK_EQ(channel_check(target, &err), 1);
	CHECK_EQ(channel_receive(target, &frame, &err), 0);
	CHECK_EQ(frame.type, WIRE_OFFER);
	CHECK_EQ(frame.length, 7);
	CHECK_EQ(channel_payload(target, big, 8, &err), -EPROTO);
	CHECK_EQ(channel_payload_all(target, &text, &err), 0);
	CHECK_STR(text, "{\"a\":1}");
	free(text);
	CHECK_EQ(channel_send(target, WIRE_PROGRESS, 5, 6, NULL, 0, &err), 0);
	CHECK_EQ(channel_send(target, WIRE_READY, 0, 0, "{}", 2, &err), 0);
	CHECK_EQ(channel_expect(source, WIRE_READY, &frame, &err), 0);
	CHECK_EQ(channel_receive(source, &frame, &err), -EPROTO);
	CHECK(strstr(err.text, "2 bytes of READY were not read"));
	CHECK_EQ(channel_sent(source), 24 + 7);
	CHECK_EQ(channel_received(target), 24 + 7);
	end_pair();
}

static void progress_is_not_seen(void)
{
	struct wire_frame frame;

	make_pair(WIRE_CONTROL);
	CHECK_EQ(channel_send(source, WIRE_PROGRESS, 5, 6, NULL, 0, NULL), 0);
	CHECK_EQ(channel_send(source, WIRE_PROGRESS, 7, 8, NULL, 0, NULL), 0);
	CHECK_EQ(channel_check(target, NULL), 0);
	CHECK_EQ(channel_send(source, WIRE_OFFER, 0, 0, "{}", 2, NULL), 0);
	CHECK_EQ(channel_receive(target, &frame, NULL), 0);
	CHECK_EQ(frame.type, WIRE_OFFER);
	end_pair();
}

static void neither_side_can_say_what_it_may_not(void)
{
	struct wire_frame frame = {.type = WIRE_GO};
	uint8_t header[WIRE_HEADER_SIZE];
	struct err err;

	make_pair(WIRE_CONTROL);
	CHECK_EQ(channel_send(source, WIRE_GO, 0, 0, NULL, 0, &err), -EPROTO);
	CHECK_STR(err.text, "GO from the source, after HELLO of the control channel");
	CHECK_EQ(channel_sent(source), 0);
	wire_put_header(header, &frame);
	CHECK_EQ(write(source->fd, header, sizeof(header)), sizeof(header));
	CHECK_EQ(channel_receive(target, &frame, &err), -EPROTO);
	end_pair();
}

/* ---- connections that end ---- */

/* A conversation that is cut after `bytes`: every read of it fails by name, none hangs. */
static int receive_cut(size_t bytes, struct err *err)
{
	const struct wire_frame frame = {.type = WIRE_OFFER, .length = 16};
	uint8_t stream[WIRE_HEADER_SIZE + 16] = {0};
	struct wire_frame got;
	char *text = NULL;
	int code;

	wire_put_header(stream, &frame);
	make_pair(WIRE_CONTROL);
	CHECK_EQ(write(source->fd, stream, bytes), (ssize_t)bytes);
	channel_break(source);
	code = channel_receive(target, &got, err) ?: channel_payload_all(target, &text, err);
	free(text);
	end_pair();
	return code;
}

static void a_cut_after_any_byte_is_found(void)
{
	struct err err;

	for (size_t bytes = 0; bytes < WIRE_HEADER_SIZE + 16; bytes++) {
		CHECK_EQ(receive_cut(bytes, &err), -ECONNRESET);
		CHECK_STR(err.text, "the source closed the connection");
	}
	CHECK_EQ(receive_cut(WIRE_HEADER_SIZE + 16, &err), 0);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void silence_is_a_failure(void)
{
	int64_t begun = now_ms();
	struct wire_frame frame;
	struct err err;

	make_hasty_pair(WIRE_CONTROL);
	CHECK_EQ(channel_receive(target, &frame, &err), -ETIMEDOUT);
	CHECK(now_ms() - begun >= SILENCE && now_ms() - begun < 100 * SILENCE);
	CHECK_STR(err.text, "the source has not answered for 0 s");
	CHECK_EQ(channel_check(target, &err), -ETIMEDOUT);
	CHECK_EQ(channel_send(source, WIRE_PROGRESS, 0, 0, NULL, 0, &err), 0);
	CHECK_EQ(channel_check(target, &err), 0);
	end_pair();
}

static void a_frame_that_stops_halfway_is_a_failure(void)
{
	struct wire_frame frame;
	struct err err;

	make_hasty_pair(WIRE_MEMORY);
	CHECK_EQ(write(source->fd, "half", 4), 4);
	CHECK_EQ(channel_receive(target, &frame, &err), -ETIMEDOUT);
	end_pair();
}

/* Between frames a memory channel may rest; the cancel descriptor is what ends the wait here. */
static void *cancel_later(void *opaque)
{
	const struct timespec pause = {.tv_nsec = 2 * SILENCE * 1000000};

	nanosleep(&pause, NULL);
	eventfd_write(*(int *)opaque, 1);
	return NULL;
}

static void memory_channels_may_rest_until_cancelled(void)
{
	int64_t begun = now_ms();
	struct wire_frame frame;
	pthread_t thread;
	struct err err;

	make_hasty_pair(WIRE_MEMORY);
	CHECK_EQ(pthread_create(&thread, NULL, cancel_later, &cancel_fd), 0);
	CHECK_EQ(channel_receive(target, &frame, &err), -ECANCELED);
	CHECK(now_ms() - begun >= 2 * SILENCE);
	pthread_join(thread, NULL);
	end_pair();
}

/* It says PROGRESS and nothing else: others are looked at before all of that has been read. */
static void a_peer_that_never_stops_holds_nobody_up(void)
{
	struct wire_frame frame;
	struct err err;
	int left;

	make_pair(WIRE_CONTROL);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(channel_send(source, WIRE_PROGRESS, 0, 0, NULL, 0, &err), 0);
	eventfd_write(cancel_fd, 1);
	CHECK_EQ(channel_receive(target, &frame, &err), -ECANCELED);
	CHECK(ioctl(target->fd, FIONREAD, &left) == 0 && left > 0);
	end_pair();
}

static void an_interrupt_ends_the_wait_and_no_frame_is_lost(void)
{
	int interrupt = eventfd(1, EFD_CLOEXEC);
	struct wire_frame frame;
	struct err err;

	make_pair(WIRE_CONTROL);
	channel_set_interrupt(target, interrupt);
	CHECK_EQ(channel_receive(target, &frame, &err), -EINTR);
	CHECK_EQ(channel_send(source, WIRE_OFFER, 0, 0, "{}", 2, NULL), 0);
	CHECK_EQ(channel_receive(target, &frame, &err), 0);
	CHECK_EQ(frame.type, WIRE_OFFER);
	close(interrupt);
	end_pair();
}

static void a_peer_that_takes_nothing_is_a_failure(void)
{
	static char much[MIB(1)];
	struct err err;
	int code = 0;

	make_hasty_pair(WIRE_DEVICE);
	for (unsigned int i = 0; !code && i < 1000; i++)
		code = channel_send(source, WIRE_DATA, 0, 0, much, sizeof(much), &err);
	CHECK_EQ(code, -ETIMEDOUT);
	CHECK_STR(err.text, "the target has not answered for 0 s");
	CHECK_EQ(eventfd_write(cancel_fd, 1), 0);
	CHECK_EQ(channel_send(source, WIRE_DATA, 0, 0, much, sizeof(much), &err), -ECANCELED);
	end_pair();
}

static void keep_alive_is_heard(void)
{
	int64_t begun = now_ms();

	make_pair(WIRE_CONTROL);
	CHECK_EQ(channel_keep_alive(source, NULL), 0);
	while (!channel_received(target) && now_ms() - begun < 15000) {
		struct pollfd fd = {.fd = target->fd, .events = POLLIN};

		poll(&fd, 1, 100);
		CHECK_EQ(channel_check(target, NULL), 0);
	}
	CHECK_EQ(channel_received(target), 24);
	CHECK(now_ms() - begun >= 900);
	end_pair();
}

/* ---- last words ---- */

static void *say_farewell(void *opaque)
{
	channel_farewell(opaque, WIRE_FAILED, "no memory\nleft \xff");
	channel_break(opaque);
	return NULL;
}

static void last_words_reach_who_waits_and_who_sends(void)
{
	struct wire_frame frame;
	pthread_t thread;
	struct err err;

	make_pair(WIRE_CONTROL);
	CHECK_EQ(channel_send(source, WIRE_OFFER, 0, 0, "{}", 2, &err), 0);
	CHECK_EQ(channel_expect(target, WIRE_OFFER, &frame, &err), 0);
	CHECK_EQ(pthread_create(&thread, NULL, say_farewell, target), 0);
	CHECK_EQ(channel_expect(source, WIRE_READY, &frame, &err), -EREMOTEIO);
	CHECK_STR(err.text, "the target: no memory?left ?");
	channel_break(source);
	pthread_join(thread, NULL);
	end_pair();

	make_pair(WIRE_CONTROL);
	CHECK_EQ(channel_send(source, WIRE_OFFER, 0, 0, "{}", 2, &err), 0);
	CHECK_EQ(channel_expect(target, WIRE_OFFER, &frame, &err), 0);
	CHECK_EQ(channel_send(target, WIRE_PROGRESS, 0, 0, NULL, 0, &err), 0);
	CHECK_EQ(pthread_create(&thread, NULL, say_farewell, target), 0);
	err_set(&err, -ECONNRESET, "memory channel 0 broke");
	CHECK_EQ(channel_last_words(source, -ECONNRESET, &err), -EREMOTEIO);
	CHECK_STR(err.text, "the target: no memory?left ?");
	channel_break(source);
	pthread_join(thread, NULL);
	end_pair();

	make_pair(WIRE_CONTROL);
	channel_break(target);
	err_set(&err, -ECONNRESET, "memory channel 0 broke");
	CHECK_EQ(channel_last_words(source, -ECONNRESET, &err), -ECONNRESET);
	CHECK_STR(err.text, "memory channel 0 broke");
	end_pair();
}

TEST_MAIN(TEST(frames_arrive_with_their_payload), TEST(progress_is_not_seen),
	  TEST(neither_side_can_say_what_it_may_not), TEST(a_cut_after_any_byte_is_found),
	  TEST(silence_is_a_failure), TEST(a_frame_that_stops_halfway_is_a_failure),
	  TEST(memory_channels_may_rest_until_cancelled), TEST(a_peer_that_never_stops_holds_nobody_up),
	  TEST(an_interrupt_ends_the_wait_and_no_frame_is_lost), TEST(a_peer_that_takes_nothing_is_a_failure),
	  TEST(keep_alive_is_heard), TEST(last_words_reach_who_waits_and_who_sends))
