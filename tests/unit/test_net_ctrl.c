/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/net_ctrl: the control queue, offloads and pairs, the configuration, the link. */
#include "tests/unit/net_rig.h"

#include <sys/mman.h>

static void answers_control(void)
{
	static const uint8_t mac[6] = {2, 4, 6, 8, 10, 12}, bad[6] = {1};
	uint8_t own[6];
	struct virtio_net_config config;

	set_up(ALL);
	CHECK_EQ(control(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "\1", 1), VIRTIO_NET_OK);
	CHECK_EQ(control(VIRTIO_NET_CTRL_RX, 77, "\1", 1), VIRTIO_NET_ERR);
	CHECK_EQ(control(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0\0\0\0\0", 8), VIRTIO_NET_OK);
	CHECK_EQ(control(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6), VIRTIO_NET_OK);
	CHECK_EQ(control(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 5), VIRTIO_NET_ERR);
	CHECK_EQ(control(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, bad, 6), VIRTIO_NET_ERR);
	read_config(&config);
	CHECK_EQ(memcmp(config.mac, mac, 6), 0);
	CHECK_EQ(control(200, 0, "\0", 1), VIRTIO_NET_ERR);
	/* The next driver finds the device's own address. */
	driver_reset(driver);
	virtio_net_make_mac(own, "vm", "net0");
	read_config(&config);
	CHECK_EQ(memcmp(config.mac, own, 6), 0);
	tear_down();
}

static void changes_offloads(void)
{
	uint64_t csum = NET_BIT(VIRTIO_NET_F_GUEST_CSUM), tso = NET_BIT(VIRTIO_NET_F_GUEST_TSO4);
	uint64_t wish = htole64(csum), too_much = htole64(csum | NET_BIT(VIRTIO_NET_F_GUEST_TSO6));
	uint64_t basic = NET_BIT(VIRTIO_NET_F_CTRL_VQ) | NET_BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);

	set_up(basic | csum | tso);
	ctrl = &driver->queues[2]; /* without MQ it follows the first pair */
	CHECK_EQ(fake->offloads, csum | tso);
	CHECK_EQ(control(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &wish, 8), VIRTIO_NET_OK);
	CHECK_EQ(fake->offloads, csum);
	CHECK_EQ(control(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &too_much, 8),
		 VIRTIO_NET_ERR);
	CHECK_EQ(fake->offloads, csum);
	/* Not negotiated: */
	CHECK_EQ(control(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, "\2\0", 2), VIRTIO_NET_ERR);
	driver_reset(driver);
	CHECK_EQ(fake->offloads, 0);
	tear_down();
}

static void changes_pairs(void)
{
	set_up(ALL);
	CHECK(fake->on[0] && !fake->on[1]);
	CHECK_EQ(pairs(0), VIRTIO_NET_ERR);
	CHECK_EQ(pairs(3), VIRTIO_NET_ERR);
	CHECK_EQ(pairs(2), VIRTIO_NET_OK);
	CHECK(fake->on[0] && fake->on[1]);
	tx = &driver->queues[3];
	send_from_guest((uint32_t[]){HDR + 60, 0}, 5);
	driver_kick(tx);
	expect_far(1, 60, 5);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	device->ops->resume(device);
	send_from_guest((uint32_t[]){HDR + 60, 0}, 6);
	driver_kick(tx);
	expect_far(1, 60, 6);
	CHECK_EQ(pairs(1), VIRTIO_NET_OK);
	CHECK(fake->on[0] && !fake->on[1]);
	send_from_guest((uint32_t[]){HDR + 60, 0}, 7);
	driver_kick_always(tx);
	usleep(10000);
	CHECK_EQ(recv(fake->far[1], &(char){0}, 1, MSG_DONTWAIT), -1);
	CHECK_EQ(pairs(2), VIRTIO_NET_OK);
	expect_far(1, 60, 7);
	driver_reset(driver);
	CHECK(!fake->on[1]);
	tear_down();
}

static void refuses_short_commands(void)
{
	set_up(ALL);
	post(ctrl, false, (uint32_t[]){2, 0});
	driver_kick(ctrl);
	for (int i = 0; i < WAIT && !__atomic_load_n(&device->broken, __ATOMIC_SEQ_CST); i++)
		usleep(1000);
	CHECK(device->broken);
	tear_down();
}

static void shows_its_config(void)
{
	static const uint8_t given[6] = {2, 0, 0, 1, 2, 3};
	struct virtio_net_config config, other;
	struct virtio_net_options options = {.id = "net0", .machine = "one"};

	make_device((struct virtio_net_options){.mac = {2, 0, 0, 1, 2, 3}});
	read_config(&config);
	CHECK_EQ(memcmp(config.mac, given, 6), 0);
	CHECK_EQ(le16toh(config.status), VIRTIO_NET_S_LINK_UP);
	CHECK_EQ(le16toh(config.max_virtqueue_pairs), 2);
	CHECK_EQ(le16toh(config.mtu), 1500);
	CHECK(device->offered & NET_BIT(VIRTIO_NET_F_MQ));
	CHECK_EQ(driver_attach(driver, device, ALL), 0);
	tear_down();
	for (int i = 0; i < 4; i++) {
		options.machine = i == 2 ? "two" : "one";
		options.id = i == 3 ? "net1" : "net0";
		make_device(options);
		read_config(i == 0 ? &config : &other);
		CHECK_EQ(driver_attach(driver, device, ALL), 0);
		tear_down();
		CHECK_EQ(config.mac[0] & 3, 2);
		if (i)
			CHECK_EQ(memcmp(config.mac, other.mac, 6) == 0, i == 1);
	}
}

/* A driver that repeats what fails. */
static void a_command_over_and_over_fills_no_log(void)
{
	struct log log = {.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_WARN};

	log_open(&log);
	set_up(ALL);
	device->log = &log;
	device->queues[2].setup.enabled = device->queues[3].setup.enabled = false;
	for (unsigned int i = 0; i < 1000; i++)
		CHECK_EQ(pairs(2), VIRTIO_NET_ERR);
	CHECK(lseek(log.fd, 0, SEEK_CUR) > 0);
	CHECK(lseek(log.fd, 0, SEEK_CUR) < 2000);
	tear_down();
	log_close(&log);
	close(log.fd);
}

static void takes_the_link_down(void)
{
	struct virtio_net_config config;
	uint16_t head;
	uint32_t len;

	set_up(ALL);
	__atomic_store_n(&fake->broken, true, __ATOMIC_SEQ_CST);
	post(rx, true, (uint32_t[]){66000, 0});
	driver_kick(rx);
	send_to_guest(60, 1);
	for (int i = 0; i < WAIT && !__atomic_load_n(&driver->config_calls, __ATOMIC_SEQ_CST); i++)
		usleep(1000);
	read_config(&config);
	CHECK_EQ(config.status, 0);
	CHECK_EQ(driver->config_calls, 1);
	/* What the guest sends from now on is taken and goes nowhere. */
	send_from_guest((uint32_t[]){HDR + 60, 0}, 1);
	driver_kick(tx);
	CHECK(driver_wait_used(tx, WAIT, &head, &len));
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	device->ops->resume(device);
	usleep(10000);
	CHECK_EQ(driver->config_calls, 1);
	tear_down();
}

TEST_MAIN(TEST(answers_control), TEST(changes_offloads), TEST(changes_pairs), TEST(refuses_short_commands),
	  TEST(shows_its_config), TEST(takes_the_link_down),
	  TEST(a_command_over_and_over_fills_no_log))
