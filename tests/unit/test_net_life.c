/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/net: pauses, moves to another host, resets, the backend's end, options, and nothing left behind. */
#include "core/monotonic.h"
#include "tests/unit/net_rig.h"

#include <sys/resource.h>

/* The network behind it is asked to look for the guest here: a frame from its address, to all. */
static void expect_announcement(const uint8_t mac[6])
{
	static const uint8_t rarp[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
	struct pollfd pollfd = {.fd = fake->far[0], .events = POLLIN};
	uint8_t frame[256];

	CHECK_EQ(poll(&pollfd, 1, WAIT), 1);
	CHECK_EQ(recv(fake->far[0], frame, sizeof(frame), 0), NET_HDR_SIZE + 60);
	for (size_t i = 0; i < NET_HDR_SIZE; i++)
		CHECK_EQ(frame[i], 0);
	CHECK_EQ(memcmp(frame + NET_HDR_SIZE, "\xff\xff\xff\xff\xff\xff", 6), 0);
	CHECK_EQ(memcmp(frame + NET_HDR_SIZE + 6, mac, 6), 0);
	CHECK_EQ(memcmp(frame + NET_HDR_SIZE + 12, rarp, sizeof(rarp)), 0);
	CHECK_EQ(memcmp(frame + NET_HDR_SIZE + 22, mac, 6), 0);
	CHECK_EQ(memcmp(frame + NET_HDR_SIZE + 32, mac, 6), 0);
}

static void moves_to_another_host(void)
{
	static const uint8_t mac[6] = {2, 4, 6, 8, 10, 12};
	uint64_t wish = htole64(NET_BIT(VIRTIO_NET_F_GUEST_CSUM));
	struct virtio_net_config config;
	struct driver_luggage luggage;
	uint64_t gpa[4];
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	CHECK_EQ(control(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6), VIRTIO_NET_OK);
	CHECK_EQ(control(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &wish, 8), VIRTIO_NET_OK);
	CHECK_EQ(pairs(2), VIRTIO_NET_OK);
	for (int i = 0; i < 4; i++)
		gpa[i] = post(rx, true, (uint32_t[]){40000, 0});
	driver_kick(rx);
	send_to_guest(1000, 0);
	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	expect_rx(gpa[0], 1000, 0, 1);
	for (uint32_t i = 1; i < 3; i++) {
		driver_pack(driver, &luggage);
		make_device_again((struct virtio_net_options){0});
		CHECK(!fake->on[1]);
		CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
		CHECK_EQ(fake->offloads, NET_BIT(VIRTIO_NET_F_GUEST_CSUM));
		CHECK(fake->on[0] && fake->on[1]);
		read_config(&config);
		CHECK_EQ(memcmp(config.mac, mac, 6), 0);
		expect_announcement(mac);
		send_to_guest(1000, i);
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		expect_rx(gpa[i], 1000, i, 1);
		tx = &driver->queues[3];
		send_from_guest((uint32_t[]){HDR + 60, 0}, i);
		driver_kick(tx);
		expect_far(1, 60, i);
	}
	CHECK_EQ(pairs(1), VIRTIO_NET_OK);
	tear_down();
}

static uint16_t status(void)
{
	struct virtio_net_config config;

	read_config(&config);
	return le16toh(config.status);
}

static void make_move(uint64_t features)
{
	struct driver_luggage luggage;

	set_up(features);
	driver_pack(driver, &luggage);
	make_device_again((struct virtio_net_options){0});
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
}

/* A switch that was busy hears of it, too; a guest that can announces itself. */
static void a_move_is_announced_several_times(void)
{
	static const unsigned int waits[] = {150, 250, 350, 0};
	struct virtio_net_config config;
	struct net_device *net;

	make_move(ALL);
	net = container_of(device, struct net_device, virtio);
	read_config(&config);
	expect_announcement(config.mac);
	expect_announcement(config.mac); /* by itself */
	CHECK(__atomic_load_n(&driver->config_calls, __ATOMIC_SEQ_CST) >= 1);
	CHECK_EQ(status(), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	/* The others, without their waits. */
	pthread_mutex_lock(&net->ctrl_lock);
	while (recv(fake->far[0], &(char){0}, 1, MSG_DONTWAIT) == 1)
		;
	net->announcements = 4;
	for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
		CHECK_EQ(net_announce_again(net), waits[i]);
		expect_announcement(config.mac);
	}
	CHECK_EQ(net_announce_again(net), 0);
	pthread_mutex_unlock(&net->ctrl_lock);
	CHECK_EQ(control(VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, "", 1), VIRTIO_NET_OK);
	CHECK_EQ(status(), VIRTIO_NET_S_LINK_UP);
	CHECK_EQ(control(VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, "", 1), VIRTIO_NET_ERR);
	CHECK_EQ(recv(fake->far[0], &(char){0}, 1, MSG_DONTWAIT), -1);
	/* A reset ends it. */
	device->ops->reset(device);
	CHECK_EQ(net->announcements, 0);
	tear_down();
}

/* The driver had set one itself; what was given for the restore replaces it, and a reset does not bring it back. */
static void a_restored_card_gets_another_address(void)
{
	static const uint8_t own[6] = {2, 4, 6, 8, 10, 12}, given[6] = {2, 0, 0, 0, 0, 9};
	struct virtio_net_config config;
	unsigned int generation;

	set_up(ALL & ~NET_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
	CHECK_EQ(control(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, own, 6), VIRTIO_NET_OK);
	generation = device->config_generation;
	pthread_mutex_lock(&device->lock);
	CHECK_EQ(device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL), 0);
	container_of(device, struct net_device, virtio)->loaded = true;
	virtio_net_set_mac(device, given);
	CHECK_EQ(driver->config_calls, 0);
	device->ops->resume(device);
	pthread_mutex_unlock(&device->lock);
	CHECK_EQ(driver->config_calls, 1);
	CHECK(device->config_generation != generation);
	read_config(&config);
	CHECK_EQ(memcmp(config.mac, given, 6), 0);
	expect_announcement(given);
	/* told once */
	pthread_mutex_lock(&device->lock);
	CHECK_EQ(device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL), 0);
	device->ops->resume(device);
	device->ops->reset(device);
	pthread_mutex_unlock(&device->lock);
	CHECK_EQ(driver->config_calls, 1);
	read_config(&config);
	CHECK_EQ(memcmp(config.mac, given, 6), 0);
	tear_down();
}

/* A driver that cannot announce is not asked to. */
static void a_guest_that_cannot_is_not_asked(void)
{
	make_move(ALL & ~NET_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
	CHECK_EQ(status(), VIRTIO_NET_S_LINK_UP);
	CHECK_EQ(driver->config_calls, 0);
	tear_down();
}

static void a_link_that_is_up_again_elsewhere_is_told(void)
{
	struct virtio_net_config config;
	struct driver_luggage luggage;

	set_up(ALL & ~NET_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
	fd_close(&fake->far[0]);
	for (int i = 0; i < WAIT && !__atomic_load_n(&driver->config_calls, __ATOMIC_SEQ_CST); i++)
		poll(NULL, 0, 1);
	CHECK_EQ(driver->config_calls, 1);
	driver_pack(driver, &luggage);
	make_device_again((struct virtio_net_options){0});
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
	CHECK_EQ(driver->config_calls, 2);
	read_config(&config);
	CHECK_EQ(le16toh(config.status), VIRTIO_NET_S_LINK_UP);
	tear_down();
}

/* What either side sends meanwhile is lost; a pause and a reset know nothing of it. */
static void a_cable_is_pulled_and_plugged_in(void)
{
	unsigned int generation;

	set_up(ALL);
	generation = device->config_generation;
	CHECK(virtio_net_link(device));
	CHECK_EQ(virtio_net_set_link(device, false, NULL), 0);
	CHECK_EQ(virtio_net_set_link(device, false, NULL), 0); /* it is out already */
	CHECK_EQ(driver->config_calls, 1);
	CHECK(device->config_generation != generation);
	CHECK_EQ(status(), 0);
	CHECK(!virtio_net_link(device));
	send_from_guest((uint32_t[]){HDR + 60, 0}, 1);
	driver_kick(tx);
	CHECK(driver_wait_used(tx, WAIT, &(uint16_t){0}, &(uint32_t){0}));
	post(rx, true, (uint32_t[]){2048, 0});
	driver_kick(rx);
	send_to_guest(60, 2);
	poll(NULL, 0, 50);
	CHECK_EQ(device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL), 0);
	device->ops->resume(device);
	CHECK_EQ(status(), 0);
	CHECK_EQ(driver->config_calls, 1);
	CHECK_EQ(virtio_net_set_link(device, true, NULL), 0);
	CHECK_EQ(driver->config_calls, 2);
	CHECK_EQ(status(), VIRTIO_NET_S_LINK_UP);
	send_from_guest((uint32_t[]){HDR + 60, 0}, 3);
	driver_kick(tx);
	expect_far(0, 60, 3); /* and not the first one */
	CHECK(!driver_wait_used(rx, 50, &(uint16_t){0}, &(uint32_t){0}));
	tear_down();
	/* It may be out from the start. */
	make_device((struct virtio_net_options){.unplugged = true});
	CHECK_EQ(driver_attach(driver, device, ALL), 0);
	CHECK_EQ(status(), 0);
	CHECK_EQ(virtio_net_set_link(device, true, NULL), 0);
	CHECK_EQ(status(), VIRTIO_NET_S_LINK_UP);
	tear_down();
}

static void does_not_move_to_a_lesser_network(void)
{
	struct driver_luggage luggage;
	struct err err;

	set_up(ALL);
	driver_pack(driver, &luggage);
	make_device_again((struct virtio_net_options){0});
	fake->base.mtu = 1400;
	CHECK_EQ(driver_unpack(driver, device, &luggage, &err), -ENOTSUP);
	CHECK(strstr(err.text, "packets of up to 1500 bytes; the network here takes 1400"));
	tear_down();
	set_up(ALL);
	CHECK_EQ(pairs(2), VIRTIO_NET_OK);
	driver_pack(driver, &luggage);
	make_device_again((struct virtio_net_options){0});
	fake->base.pairs = 1;
	CHECK_EQ(driver_unpack(driver, device, &luggage, &err), -EBADMSG);
	fake->base.pairs = 2;
	tear_down();
}

/* Buffers that were popped ahead are there again after a pause. */
static void survives_a_pause(void)
{
	uint16_t head;
	uint32_t len;
	uint64_t gpa[4];

	set_up(ALL);
	for (int i = 0; i < 4; i++)
		gpa[i] = post(rx, true, (uint32_t[]){40000, 0});
	driver_kick(rx);
	for (uint32_t i = 0; i < 4; i++) {
		if (i < 3) /* two are enough and are taken ahead */
			send_to_guest(1000, i);
		if (i == 3)
			break;
		CHECK(driver_wait_used(rx, WAIT, &head, &len));
		expect_rx(gpa[i], 1000, i, 1);
		device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
		CHECK_EQ(device->queues[0].next_avail, i + 1);
		send_from_guest((uint32_t[]){HDR + 60, 0}, i);
		driver_kick(tx);
		device->ops->resume(device);
		expect_far(0, 60, i);
	}
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	tear_down();
}

static void keeps_threads_in_a_pause(void)
{
	uint64_t fds, threads;
	struct rlimit before;

	set_up(ALL);
	CHECK_EQ(pairs(2), VIRTIO_NET_OK);
	fds = sum_of_names("/proc/self/fd");
	threads = sum_of_names("/proc/self/task");
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	for (uint32_t round = 0; round < 3; round++) {
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, before.rlim_max}), 0);
		CHECK_EQ(device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL), 0);
		device->ops->resume(device);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
		CHECK_EQ(sum_of_names("/proc/self/fd"), fds);
		CHECK_EQ(sum_of_names("/proc/self/task"), threads);
		for (int pair = 0; pair < 2; pair++) {
			tx = &driver->queues[2 * pair + 1];
			send_from_guest((uint32_t[]){HDR + 60, 0}, round);
			driver_kick(tx);
			expect_far(pair, 60, round);
		}
	}
	CHECK_EQ(pairs(1), VIRTIO_NET_OK);
	tear_down();
}

static void *let_go(void *opaque)
{
	poll(NULL, 0, 20);
	__atomic_store_n(&fake->hold, false, __ATOMIC_SEQ_CST);
	return NULL;
}

static void send_and_hang(uint32_t number)
{
	fake->held = false;
	__atomic_store_n(&fake->hold, true, __ATOMIC_SEQ_CST);
	send_from_guest((uint32_t[]){HDR + 60, 0}, number);
	driver_kick(tx);
	for (int i = 0; i < WAIT && !__atomic_load_n(&fake->held, __ATOMIC_SEQ_CST); i++)
		poll(NULL, 0, 1);
}

static void a_pause_waits_for_a_packet_and_not_for_ever(void)
{
	pthread_t thread;
	struct err err;

	set_up(ALL);
	send_and_hang(0);
	CHECK_EQ(device->ops->drain(device, monotonic_ms() + 20, &err), -ETIMEDOUT);
	CHECK_STR(err.text, "net0: its network has not taken its packets");
	device->ops->resume(device);
	CHECK_EQ(pthread_create(&thread, NULL, let_go, NULL), 0);
	expect_far(0, 60, 0);
	pthread_join(thread, NULL);
	send_and_hang(1);
	CHECK_EQ(pthread_create(&thread, NULL, let_go, NULL), 0);
	CHECK_EQ(device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL), 0);
	CHECK_EQ(device->queues[1].next_used, 2);
	expect_far(0, 60, 1);
	pthread_join(thread, NULL);
	device->ops->resume(device);
	CHECK_EQ(pairs(2), VIRTIO_NET_OK); /* the control queue goes on, too */
	CHECK_EQ(pairs(1), VIRTIO_NET_OK);
	tear_down();
}

/* Traffic both ways while the device is reset again and again. */
static void resets_in_flight(void)
{
	for (uint32_t round = 0; round < 50; round++) {
		if (round == 0)
			set_up(ALL);
		else
			CHECK_EQ(driver_start(driver, ALL), 0);
		for (uint32_t i = 0; i < 64; i++) {
			post(rx, true, (uint32_t[]){4000, 0});
			send_from_guest((uint32_t[]){HDR + 200, 0}, i);
		}
		driver_kick(rx);
		driver_kick(tx);
		for (uint32_t i = 0; i < 8; i++)
			send(fake->far[0], driver->ram.host, 3000, MSG_DONTWAIT);
		usleep(round * 20);
		driver_reset(driver);
		while (recv(fake->far[0], &(char){0}, 1, MSG_DONTWAIT) > 0) {
		}
	}
	CHECK(!device->broken);
	tear_down();
}

static void leaves_nothing_behind(void)
{
	int fds = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");

	set_up(ALL);
	CHECK_EQ(pairs(2), VIRTIO_NET_OK);
	CHECK(count_entries("/proc/self/task") == threads + 3);
	tear_down();
	CHECK_EQ(count_entries("/proc/self/fd"), fds);
	CHECK_EQ(count_entries("/proc/self/task"), threads);
}

static void refuses_bad_options(void)
{
	static const struct {
		struct virtio_net_options options;
		const char *text;
	} bad[] = {
		{{.tap = "t", .queues = 0}, "--net queues=0: 1 to 16"},
		{{.tap = "t", .queues = 17}, "--net queues=17: 1 to 16"},
		{{.passt = true, .queues = 1, .vhost = true},
		 "--net passt: vhost=on needs a tap; leave it out or use tap=NAME"},
		{{.passt = true, .queues = 2}, "--net passt: queues needs a tap; leave it out or use tap=NAME"},
	};
	struct virtio_device *none;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_EQ(virtio_net_create(&bad[i].options, NULL, NULL, &none, &err), -EINVAL);
		CHECK_STR(err.text, bad[i].text);
	}
}

TEST_MAIN(TEST(moves_to_another_host), TEST(a_move_is_announced_several_times),
	  TEST(a_restored_card_gets_another_address),
	  TEST(a_guest_that_cannot_is_not_asked), TEST(a_link_that_is_up_again_elsewhere_is_told),
	  TEST(a_cable_is_pulled_and_plugged_in), TEST(does_not_move_to_a_lesser_network), TEST(survives_a_pause), TEST(keeps_threads_in_a_pause),
	  TEST(a_pause_waits_for_a_packet_and_not_for_ever), TEST(resets_in_flight),
	  TEST(leaves_nothing_behind), TEST(refuses_bad_options))
