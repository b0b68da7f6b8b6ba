/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/net_pair: packets in every layout both ways, merging, back-pressure, what is too short. */
#include "tests/unit/net_rig.h"

#include <sys/ioctl.h>

static void sends_any_layout(void)
{
	static const uint32_t layouts[][32] = {
		{HDR + 60},
		{HDR, 1514},
		{5, 7, 60},
		{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 100},
		{HDR + 10, 65000},
		{HDR + 1},
	};
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		uint32_t total = 0;

		for (unsigned int j = 0; layouts[i][j]; j++)
			total += layouts[i][j];
		send_from_guest(layouts[i], (uint32_t)i);
		driver_kick(tx);
		expect_far(0, total - HDR, (uint32_t)i);
		CHECK(driver_wait_used(tx, WAIT, &head, &len));
		CHECK_EQ(len, 0);
	}
	tear_down();
}

/* More segments than one system call takes, and a packet longer than there can be: the first goes, the second does not.
 */
static void sends_endless_chains(void)
{
	struct vring_desc *desc;
	uint64_t table, data;
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	table = driver_alloc(driver, 16 * 1026, 16);
	data = driver_alloc(driver, MIB(1), 1);
	desc = driver_at(driver, table);
	make_packet(driver_at(driver, data), 1026 - HDR, 9);
	for (int round = 0; round < 2; round++) {
		for (unsigned int i = 0; i < 1026; i++)
			desc[i] = (struct vring_desc){data + i, round ? 1000 : 1, VRING_DESC_F_NEXT, (uint16_t)(i + 1)};
		desc[1025].flags = 0;
		tx->desc[0] = (struct vring_desc){table, 16 * 1026, VRING_DESC_F_INDIRECT, 0};
		driver_add_head(tx, 0);
		driver_kick_always(tx);
		CHECK(driver_wait_used(tx, WAIT, &head, &len));
		if (round == 0)
			expect_far(0, 1026 - HDR, 9);
	}
	CHECK_EQ(recv(fake->far[0], &len, 1, MSG_DONTWAIT), -1);
	tear_down();
}

static void refuses_short_packets(void)
{
	set_up(ALL);
	post(tx, false, (uint32_t[]){HDR - 1, 0});
	driver_kick(tx);
	for (int i = 0; i < WAIT && !__atomic_load_n(&device->broken, __ATOMIC_SEQ_CST); i++)
		usleep(1000);
	CHECK(device->broken);
	CHECK(device->queues[1].broken);
	/* A header and nothing else is odd but no nonsense. After a reset all is well. */
	driver_reset(driver);
	CHECK_EQ(driver_start(driver, ALL), 0);
	post(tx, false, (uint32_t[]){HDR, 0});
	send_from_guest((uint32_t[]){HDR, 60, 0}, 3);
	driver_kick(tx);
	expect_far(0, 60, 3);
	CHECK(!device->broken);
	tear_down();
}

/* The far end reads nothing for a while: nothing is lost and the order is kept. */
static void waits_for_a_slow_backend(void)
{
	uint32_t sent = 0, got = 0;
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	for (; sent < 250; sent++)
		send_from_guest((uint32_t[]){HDR + 4000, 0}, sent);
	driver_kick(tx);
	usleep(20000);
	CHECK(le16toh(tx->used->idx) < 250);
	for (; got < 250; got++)
		expect_far(0, 4000, got);
	for (got = 0; got < 250 && driver_wait_used(tx, WAIT, &head, &len); got++) {
	}
	CHECK_EQ(got, 250);
	tear_down();
}

static void saves_kicks(void)
{
	unsigned int kicks = 0;
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	for (uint32_t i = 0; i < 200; i++) {
		send_from_guest((uint32_t[]){HDR + 60, 0}, i);
		kicks += driver_kick(tx);
		if (i % 50 == 49)
			for (uint32_t j = i - 49; j <= i; j++)
				expect_far(0, 60, j);
	}
	for (unsigned int i = 0; i < 200; i++)
		CHECK(driver_wait_used(tx, WAIT, &head, &len));
	CHECK(kicks < 200);
	CHECK(tx->calls < 200);
	tear_down();
}

static void receives_into_any_layout(void)
{
	static const uint32_t layouts[][32] = {
		{HDR + 65536 + 18}, {5, 7, 66000}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 66000},
		{11, 66000},        {10, 66000},
	};
	uint64_t features[] = {ALL, NO_MERGE};
	uint16_t head;
	uint32_t len;

	for (int round = 0; round < 2; round++) {
		set_up(features[round]);
		for (uint32_t i = 0; i < ARRAY_SIZE(layouts); i++) {
			uint64_t gpa = post(rx, true, layouts[i]);

			driver_kick(rx);
			send_to_guest(60 + 9000 * i, i);
			CHECK(driver_wait_used(rx, WAIT, &head, &len));
			CHECK_EQ(len, HDR + 60 + 9000 * i);
			expect_rx(gpa, 60 + 9000 * i, i, 1);
		}
		tear_down();
	}
}

static void merges_buffers(void)
{
	uint64_t gpa = 0;
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	/* Neighbours in memory, so that a merged packet can be compared in one piece. */
	for (uint32_t i = 0; i < 100; i++) {
		uint64_t at = post(rx, true, (uint32_t[]){700, 800, 0});

		gpa = gpa ?: at;
	}
	driver_kick(rx);
	send_to_guest(65000, 1);
	send_to_guest(60, 2);
	send_to_guest(1500 * 3 - HDR, 3);
	send_to_guest(1500 * 2 - HDR + 1, 4);
	for (uint32_t i = 0, left = HDR + 65000; i < 44; i++) {
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		CHECK_EQ(len, MIN(left, 1500));
		left -= len;
	}
	expect_rx(gpa, 65000, 1, 44);
	gpa += 44 * 1500;
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR + 60);
	expect_rx(gpa, 60, 2, 1);
	gpa += 1500;
	for (int i = 0; i < 3; i++) {
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		CHECK_EQ(len, 1500);
	}
	expect_rx(gpa, 1500 * 3 - HDR, 3, 3);
	gpa += 3 * 1500;
	for (int i = 0; i < 3; i++) {
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		CHECK_EQ(len, i < 2 ? 1500 : 1);
	}
	expect_rx(gpa, 1500 * 2 - HDR + 1, 4, 3);
	tear_down();
}

static void drops_what_does_not_fit(void)
{
	uint16_t head;
	uint32_t len;
	uint64_t gpa;

	set_up(NO_MERGE);
	gpa = post(rx, true, (uint32_t[]){1000, 0});
	driver_kick(rx);
	send_to_guest(1000, 1);
	send_to_guest(900, 2);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR + 900);
	expect_rx(gpa, 900, 2, 1);
	tear_down();
}

/* Few buffers are enough for what fits into them. */
static void serves_a_small_driver(void)
{
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	for (uint32_t i = 0; i < 3; i++)
		post(rx, true, (uint32_t[]){200, 0});
	driver_kick(rx);
	send_to_guest(100, 1);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR + 100);
	send_to_guest(200, 2);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, 200);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR);
	tear_down();
}

/* A packet that does not fit is dropped after a while, and what comes after it is delivered. */
static void drops_what_the_driver_posts_no_buffers_for(void)
{
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	for (uint32_t i = 0; i < 40; i++)
		post(rx, true, (uint32_t[]){200, 0});
	driver_kick(rx);
	send_to_guest(40 * 200, 1);
	send_to_guest(60, 2);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR + 60);
	send_to_guest(61, 3); /* the backend is watched again */
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR + 61);
	tear_down();
}

/* The device has taken all packets from the backend. */
static bool all_taken(void)
{
	int waiting = 1;

	for (int i = 0; i < WAIT && waiting; i++) {
		CHECK_EQ(ioctl(fake->base.fds[0], FIONREAD, &waiting), 0);
		usleep(waiting ? 1000 : 0);
	}
	return !waiting;
}

/* The driver has posted too little for a packet: it gets the packet when it has posted the rest, in any pieces. */
static void holds_a_packet_until_it_fits(void)
{
	static const uint32_t rest[][4] = {{2000, 0}, {1, 1, 1998, 0}, {700, 1300, 0}};
	uint16_t head;
	uint32_t len;

	for (size_t i = 0; i < ARRAY_SIZE(rest); i++) {
		uint64_t gpa;

		set_up(ALL);
		container_of(device, struct net_device, virtio)->hold_ms = 1000 * WAIT;
		gpa = post(rx, true, (uint32_t[]){1000, 0});
		driver_kick(rx);
		send_to_guest(2500, 1);
		CHECK(all_taken());
		CHECK_EQ(post(rx, true, rest[i]), gpa + 1000);
		driver_kick(rx);
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		CHECK_EQ(len, 1000);
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		CHECK_EQ(len, HDR + 2500 - 1000);
		expect_rx(gpa, 2500, 1, 2);
		tear_down();
	}
}

/* Two chains that are too long for one system call together. The thread still answers. */
static void survives_chains_that_do_not_fit_together(void)
{
	struct vring_desc *desc;
	uint64_t table, data;
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	table = driver_alloc(driver, 16 * 600, 16);
	data = driver_alloc(driver, 600, 1);
	desc = driver_at(driver, table);
	for (unsigned int i = 0; i < 600; i++)
		desc[i] = (struct vring_desc){data + i, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(i + 1)};
	desc[599].flags = VRING_DESC_F_WRITE;
	for (uint16_t i = 0; i < 2; i++) {
		rx->desc[i] = (struct vring_desc){table, 16 * 600, VRING_DESC_F_INDIRECT, 0};
		driver_add_head(rx, i);
	}
	driver_kick(rx);
	send_to_guest(1000, 1); /* does not fit into one */
	send_to_guest(500, 2);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR + 500);
	tear_down();
}

static void waits_for_buffers(void)
{
	uint16_t head;
	uint32_t len;
	uint64_t gpa;

	set_up(ALL);
	for (uint32_t i = 0; i < 20; i++)
		send_to_guest(500, i);
	usleep(20000);
	for (uint32_t i = 0; i < 20; i++) {
		gpa = post(rx, true, (uint32_t[]){66000, 0});
		driver_kick(rx);
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		CHECK_EQ(len, HDR + 500);
		expect_rx(gpa, 500, i, 1);
	}
	tear_down();
}

static void packets_are_counted(void)
{
	struct virtio_net_counts counts;
	uint16_t head;
	uint32_t len;
	uint64_t gpa;

	set_up(ALL);
	send_from_guest((uint32_t[]){HDR + 60, 0}, 1);
	send_from_guest((uint32_t[]){HDR, 1000, 0}, 2);
	driver_kick(tx);
	expect_far(0, 60, 1);
	expect_far(0, 1000, 2);
	for (unsigned int i = 0; i < 2; i++)
		CHECK(driver_wait_used(tx, WAIT, &head, &len));
	gpa = post(rx, true, (uint32_t[]){66000, 0});
	driver_kick(rx);
	send_to_guest(500, 3);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	expect_rx(gpa, 500, 3, 1);
	virtio_net_count(device, &counts);
	CHECK_EQ(counts.tx_packets, 2);
	CHECK_EQ(counts.tx_bytes, 1060);
	CHECK_EQ(counts.rx_packets, 1);
	CHECK_EQ(counts.rx_bytes, 500);
	CHECK_EQ(counts.rx_dropped, 0);
	CHECK_EQ(virtio_device_counts(device, 1).chains, 2);
	CHECK_EQ(virtio_device_counts(device, 0).chains, 1);
	tear_down();
}

/* One that is longer than all that the driver has posted is dropped when the driver has had its time. */
static void a_packet_that_is_dropped_is_counted(void)
{
	struct virtio_net_counts counts = {0};

	set_up(ALL);
	post(rx, true, (uint32_t[]){1000, 0});
	driver_kick(rx);
	send_to_guest(2500, 1);
	for (int i = 0; i < WAIT && !counts.rx_dropped; i++) {
		virtio_net_count(device, &counts);
		usleep(1000);
	}
	CHECK_EQ(counts.rx_dropped, 1);
	CHECK_EQ(counts.rx_packets, 0);
	tear_down();
}

static void refuses_short_buffers(void)
{
	set_up(ALL);
	post(rx, true, (uint32_t[]){HDR - 1, 0});
	driver_kick_always(rx);
	send_to_guest(60, 1);
	for (int i = 0; i < WAIT && !__atomic_load_n(&device->broken, __ATOMIC_SEQ_CST); i++)
		usleep(1000);
	CHECK(device->broken);
	tear_down();
}

TEST_MAIN(TEST(sends_any_layout), TEST(sends_endless_chains), TEST(refuses_short_packets),
	  TEST(waits_for_a_slow_backend), TEST(saves_kicks), TEST(receives_into_any_layout), TEST(merges_buffers),
	  TEST(drops_what_does_not_fit), TEST(serves_a_small_driver),
	  TEST(drops_what_the_driver_posts_no_buffers_for), TEST(holds_a_packet_until_it_fits),
	  TEST(survives_chains_that_do_not_fit_together), TEST(waits_for_buffers),
	  TEST(packets_are_counted), TEST(a_packet_that_is_dropped_is_counted), TEST(refuses_short_buffers))
