/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/device_sender and device_receiver: what is in the source's devices is in the target's, whatever happens to the
 * devices and their channels it ends, and a peer that says what it may not is found out. Devices are the fake kernel's.
 */
#include "tests/unit/vfio_bench.h"
#include "vmm/migration/device_receiver.h"
#include "vmm/migration/device_sender.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#define ALL (VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_UAPI_MIGRATION_PRE_COPY)
#define P2P (VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P)
#define COUNT 2 /* on each side */

struct side {
	struct vfio_device *devices[COUNT];
	struct vfio_migration *group[COUNT];
	struct fake_migration *fakes[COUNT];
	struct channel *channels[COUNT];
};

static struct vfio_bench b;
static struct side from, to;
static struct device_sender *sender;
static struct device_receiver *receiver;
static int cancel_fd;
static uint8_t inside[COUNT][FAKE_INSIDE];

static void open_side(struct side *side, int first, int iommu, const uint32_t *flags)
{
	for (int i = 0; i < COUNT; i++) {
		struct fake_device *fake;
		char name[32];

		snprintf(name, sizeof(name), "0000:0%d:00.0", first + i);
		fake = fake_device(b.fake, name, fake_group(b.fake), iommu);
		fake_migrates(fake, flags[i]);
		side->fakes[i] = &fake->migration;
		CHECK_EQ(bench_open(&b, name, VFIO_WANT_AUTO, &side->devices[i]), 0);
		CHECK_EQ(vfio_migration_create(side->devices[i], &side->group[i], &b.err), 0);
	}
}

static struct channel *make_end(int fd, enum wire_side side, uint32_t index)
{
	const struct channel_options options = {.side = side, .kind = WIRE_DEVICE, .index = index, .count = COUNT,
						.cancel_fd = cancel_fd, .silence_ms = 2000};
	const struct wire_frame hello = wire_hello_frame();
	struct channel *channel;

	CHECK_EQ(channel_create(&options, &fd, &channel, NULL), 0);
	CHECK_EQ(channel_step(channel, WIRE_SOURCE, &hello, NULL), 0);
	CHECK_EQ(channel_step(channel, WIRE_TARGET, &hello, NULL), 0);
	return channel;
}

/* Two devices on each side; the second of flags may not be able to give its state while it runs. */
static void setup(uint32_t second)
{
	const uint32_t flags[COUNT] = {ALL, second};
	int iommu, fds[2];

	bench_init(&b);
	iommu = fake_iommu(b.fake, true);
	bench_space(&b, NULL);
	open_side(&from, 1, iommu, flags);
	open_side(&to, 5, iommu, flags);
	cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (uint32_t i = 0; i < COUNT; i++) {
		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		from.channels[i] = make_end(fds[0], WIRE_SOURCE, i);
		to.channels[i] = make_end(fds[1], WIRE_TARGET, i);
		memcpy(inside[i], from.fakes[i]->inside, FAKE_INSIDE);
	}
	sender = NULL;
	receiver = NULL;
}

static void end_side(struct side *side)
{
	for (int i = 0; i < COUNT; i++) {
		channel_destroy(side->channels[i]);
		vfio_migration_destroy(side->group[i]);
		vfio_device_close(side->devices[i]);
	}
}

static void done(void)
{
	device_sender_destroy(sender);
	device_receiver_destroy(receiver);
	end_side(&from);
	end_side(&to);
	close(cancel_fd);
	bench_done(&b);
}

static struct limiter limiter;

static void begin_sending(void)
{
	const struct device_sender_options options = {.devices = from.group, .channels = from.channels, .count = COUNT,
						      .limiter = limiter.rate ? &limiter : NULL, .rate = 1ull << 62};

	for (int i = 0; i < COUNT; i++)
		CHECK_EQ(vfio_migration_start(from.group[i], &b.err), 0);
	CHECK_EQ(device_sender_create(&options, &sender, &b.err), 0);
}

static void begin_receiving(void)
{
	const struct device_receiver_options options = {.devices = to.group, .channels = to.channels, .count = COUNT};

	CHECK_EQ(device_receiver_create(&options, &receiver, &b.err), 0);
}

static void rest(void)
{
	poll(NULL, 0, 2);
}

/* Bytes that the source's devices have given, and that the target's have got. */
static uint64_t given(void)
{
	return __atomic_load_n(&from.fakes[0]->given, __ATOMIC_RELAXED) + __atomic_load_n(&from.fakes[1]->given, __ATOMIC_RELAXED);
}

static uint64_t got(void)
{
	return __atomic_load_n(&to.fakes[0]->got, __ATOMIC_RELAXED) + __atomic_load_n(&to.fakes[1]->got, __ATOMIC_RELAXED);
}

static void wait_until_ready(void)
{
	struct device_sender_pending pending = {0};

	for (int tries = 0; !pending.ready; tries++) {
		CHECK(tries < 5000);
		CHECK_EQ(device_sender_get_pending(sender, &pending, &b.err), 0);
		rest();
	}
	CHECK_EQ(pending.stop_bytes, COUNT * FAKE_INSIDE);
	CHECK(pending.known);
	CHECK(pending.stop_ns > 0); /* though the rate has no part in it: a read and a frame take their time */
}

static void stop(void)
{
	CHECK_EQ(vfio_migration_group_stop(from.group, COUNT, &b.err), 0);
	device_sender_stopped(sender);
}

static bool is_ready(int fd)
{
	return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
}

/* ---- what is to be ---- */

static void move(uint32_t second, uint64_t bytes)
{
	setup(second);
	begin_receiving();
	begin_sending();
	wait_until_ready();
	CHECK_EQ(given(), bytes - COUNT * FAKE_INSIDE);
	stop();
	CHECK_EQ(device_sender_wait(sender, &b.err), 0);
	CHECK_EQ(device_receiver_wait(receiver, &b.err), 0);
	CHECK_EQ(given(), bytes);
	CHECK_EQ(got(), bytes);
	CHECK(!is_ready(device_sender_fd(sender)) && !is_ready(device_receiver_fd(receiver)));
	for (int i = 0; i < COUNT; i++) {
		CHECK_EQ(to.fakes[i]->state, VFIO_DEVICE_STATE_STOP);
		CHECK(memcmp(to.fakes[i]->inside, inside[i], FAKE_INSIDE) == 0);
	}
	CHECK_EQ(vfio_migration_group_run(to.group, COUNT, &b.err), 0);
	CHECK(!vfio_migration_was_reset(to.group[0]) && !vfio_migration_was_reset(to.group[1]));
	done();
}

static void devices_arrive(void)
{
	move(ALL, COUNT * (40 + FAKE_INSIDE));
}

static void one_that_waits_for_the_stop_arrives_too(void)
{
	move(P2P, 40 + COUNT * FAKE_INSIDE);
}

/* Not ready before the target has the initial data; and not again while there is new one. */
static void initial_data_is_waited_for(void)
{
	struct device_sender_pending pending;

	setup(ALL);
	begin_sending();
	for (int tries = 0; tries < 20 || given() != COUNT * 40; tries++) {
		CHECK(tries < 5000);
		rest();
		CHECK_EQ(device_sender_get_pending(sender, &pending, &b.err), 0);
		CHECK(!pending.ready);
	}
	begin_receiving();
	wait_until_ready();
	pthread_mutex_lock(&b.fake->lock);
	from.fakes[1]->initial = MIB(4);
	pthread_mutex_unlock(&b.fake->lock);
	wait_until_ready();
	stop();
	CHECK_EQ(device_receiver_wait(receiver, &b.err), 0);
	CHECK_EQ(got(), COUNT * (40 + FAKE_INSIDE) + MIB(4));
	done();
}

/* What a running device has in addition goes out without being asked for; the last of it at the stop, at once. */
static void dirty_data_goes_out_meanwhile(void)
{
	struct timespec a, z;

	setup(ALL);
	from.fakes[0]->no_poll = from.fakes[1]->no_poll = true;
	begin_receiving();
	begin_sending();
	wait_until_ready();
	pthread_mutex_lock(&b.fake->lock);
	from.fakes[0]->dirty = 500;
	pthread_mutex_unlock(&b.fake->lock);
	for (int tries = 0; got() != COUNT * 40 + 500; tries++) {
		CHECK(tries < 5000);
		rest();
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	stop();
	CHECK_EQ(device_sender_wait(sender, &b.err), 0);
	CHECK_EQ(b.fake->waited_ms, 0);
	CHECK_EQ(device_receiver_wait(receiver, &b.err), 0);
	clock_gettime(CLOCK_MONOTONIC, &z);
	printf("# from the stop until all was loaded: %ld us\n", (z.tv_sec - a.tv_sec) * 1000000 + (z.tv_nsec - a.tv_nsec) / 1000);
	done();
}

/* 8 MiB at 32 MiB a second, of which a hundredth of a second's worth may be ahead; and calling it off does not wait for it. */
static void a_cap_is_kept(void)
{
	struct timespec a, z;
	long ms;

	limiter_init(&limiter, MIB(32));
	setup(ALL);
	begin_receiving();
	begin_sending();
	wait_until_ready();
	clock_gettime(CLOCK_MONOTONIC, &a);
	pthread_mutex_lock(&b.fake->lock);
	from.fakes[0]->dirty = from.fakes[1]->dirty = MIB(4);
	pthread_mutex_unlock(&b.fake->lock);
	stop();
	CHECK_EQ(device_receiver_wait(receiver, &b.err), 0);
	clock_gettime(CLOCK_MONOTONIC, &z);
	ms = (z.tv_sec - a.tv_sec) * 1000 + (z.tv_nsec - a.tv_nsec) / 1000000;
	printf("# %ld ms\n", ms);
	CHECK(ms >= 230);
	device_sender_destroy(take_ptr(sender));
	limiter_destroy(&limiter);
	limiter.rate = 0;
	done();
}

/* ---- what may go wrong ---- */

/* The source's devices all run again, the target's were reset or have not begun. */
static void check_way_back(void)
{
	device_sender_destroy(take_ptr(sender));
	device_receiver_destroy(take_ptr(receiver));
	CHECK_EQ(vfio_migration_group_run(from.group, COUNT, &b.err), 0);
	CHECK_EQ(vfio_migration_group_run(to.group, COUNT, &b.err), 0);
	for (int i = 0; i < COUNT; i++) {
		CHECK(!vfio_migration_was_reset(from.group[i]));
		CHECK_EQ(from.fakes[i]->state, VFIO_DEVICE_STATE_RUNNING);
		CHECK_EQ(to.fakes[i]->state, VFIO_DEVICE_STATE_RUNNING);
	}
}

static void an_end_that_is_not_waited_for_leaves_nothing(void)
{
	for (int when = 0; when < 3; when++) {
		setup(ALL);
		begin_receiving();
		begin_sending();
		if (when > 0)
			wait_until_ready();
		if (when > 1)
			stop();
		check_way_back();
		done();
	}
}

static void a_device_that_fails_ends_it_on_both_sides(void)
{
	setup(ALL);
	begin_receiving();
	begin_sending();
	wait_until_ready();
	from.fakes[1]->fail_read = -EIO;
	stop();
	CHECK_EQ(device_sender_wait(sender, &b.err), -EIO);
	CHECK_HAS(b.err.text, "vfio 0000:02:00.0: read its state: ");
	CHECK(is_ready(device_sender_fd(sender)));
	CHECK_EQ(device_receiver_wait(receiver, &b.err), -ECONNRESET);
	CHECK_HAS(b.err.text, "the source closed the connection");
	CHECK(is_ready(device_receiver_fd(receiver)));
	check_way_back();
	done();
}

static void one_that_takes_nothing_ends_it_on_both_sides(void)
{
	setup(ALL);
	to.fakes[0]->fail_write = -ENOSPC;
	begin_receiving();
	begin_sending();
	CHECK_EQ(device_receiver_wait(receiver, &b.err), -ENOSPC);
	CHECK_HAS(b.err.text, "vfio 0000:05:00.0: write its state: ");
	CHECK_EQ(device_sender_wait(sender, &b.err), -ECONNRESET);
	CHECK_HAS(b.err.text, "the target closed the connection");
	check_way_back();
	done();
}

static void a_state_that_is_refused_is_told(void)
{
	setup(ALL);
	from.fakes[0]->inside[FAKE_INSIDE - 1] = 1;
	begin_receiving();
	begin_sending();
	wait_until_ready();
	stop();
	device_sender_wait(sender, &b.err);
	CHECK_EQ(device_receiver_wait(receiver, &b.err), -EINVAL);
	CHECK_HAS(b.err.text, "the device refuses the state: vfio 0000:05:00.0");
	check_way_back();
	done();
}

static void cancelling_ends_the_wait_for_more(void)
{
	setup(ALL);
	begin_receiving();
	eventfd_write(cancel_fd, 1);
	CHECK_EQ(device_receiver_wait(receiver, &b.err), -ECANCELED);
	check_way_back();
	done();
}

/* ---- what a peer may not say ---- */

static void is_found_out(enum wire_type type, uint64_t a, uint64_t bytes, const char *says)
{
	setup(ALL);
	begin_receiving();
	CHECK_EQ(channel_send(from.channels[0], WIRE_DATA, 0, 0, "12345678", 8, &b.err), 0);
	if (type == WIRE_INITIAL)
		CHECK_EQ(channel_send(from.channels[0], WIRE_INITIAL, 8, 0, NULL, 0, &b.err), 0);
	CHECK_EQ(channel_send(from.channels[0], type, a, type == WIRE_END ? bytes : 0, type == WIRE_DATA ? "x" : NULL,
			      type == WIRE_DATA, &b.err), 0);
	CHECK_EQ(device_receiver_wait(receiver, &b.err), -EPROTO);
	CHECK_HAS(b.err.text, says);
	check_way_back();
	done();
}

static void a_source_that_lies_is_found_out(void)
{
	is_found_out(WIRE_DATA, 9, 0, "vfio 0000:05:00.0: DATA at 9 of the stream, not at 8");
	is_found_out(WIRE_DATA, 7, 0, "DATA at 7 of the stream, not at 8");
	is_found_out(WIRE_END, 7, 1, "END at 7 of the stream, not at 8");
	is_found_out(WIRE_END, 8, 2, "END counts 2 frames of state, but 1 were received");
	is_found_out(WIRE_INITIAL, 8, 0, "INITIAL was sent twice");
}

static void a_target_that_lies_is_found_out(void)
{
	setup(ALL);
	CHECK_EQ(channel_send(to.channels[1], WIRE_ACK, 8, 0, NULL, 0, &b.err), 0);
	CHECK_EQ(channel_send(to.channels[1], WIRE_ACK, 8, 0, NULL, 0, &b.err), 0);
	begin_sending();
	CHECK_EQ(device_sender_wait(sender, &b.err), -EPROTO);
	CHECK_HAS(b.err.text, "vfio 0000:02:00.0: the target sent an unexpected ACK");
	check_way_back();
	done();
}

TEST_MAIN(TEST(devices_arrive), TEST(one_that_waits_for_the_stop_arrives_too), TEST(initial_data_is_waited_for),
	  TEST(dirty_data_goes_out_meanwhile), TEST(a_cap_is_kept), TEST(an_end_that_is_not_waited_for_leaves_nothing),
	  TEST(a_device_that_fails_ends_it_on_both_sides), TEST(one_that_takes_nothing_ends_it_on_both_sides),
	  TEST(a_state_that_is_refused_is_told), TEST(cancelling_ends_the_wait_for_more),
	  TEST(a_source_that_lies_is_found_out), TEST(a_target_that_lies_is_found_out))
