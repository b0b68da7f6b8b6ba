/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/net_tap on real taps, in a network namespace of the test's own: packets both ways, what is said when
 * the tap is missing or unfit, and that the tap is left as it was found. Needs root and /dev/net/tun.
 */
#include "devices/virtio/net_internal.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#define HDR ((uint32_t)NET_HDR_SIZE)
#define FRAME 100u
#define WAIT 2000 /* ms */

static struct virtio_driver *driver;
static struct virtio_device *device;

/* A namespace whose /sys shows its own interfaces. */
static void need_namespace(void)
{
	static bool made;

	if (made)
		return;
	if (access("/dev/net/tun", R_OK | W_OK) < 0)
		SKIP("no /dev/net/tun here, or no right to it");
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		SKIP("no right to make a network namespace");
	CHECK_EQ(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	CHECK_EQ(mount("sysfs", "/sys", "sysfs", 0, NULL), 0);
	made = true;
}

static int open_tap(const char *name, short flags)
{
	struct ifreq request = {.ifr_flags = (short)(IFF_TAP | flags)};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	CHECK(fd >= 0);
	CHECK_EQ(ioctl(fd, TUNSETIFF, &request), 0);
	return fd;
}

static void set_persistent(const char *name, short flags, bool on)
{
	int fd = open_tap(name, flags);

	CHECK_EQ(ioctl(fd, TUNSETPERSIST, (unsigned long)on), 0);
	close(fd);
}

static void set_up_link(const char *name)
{
	struct ifreq request = {0};
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	CHECK_EQ(ioctl(sock, SIOCGIFFLAGS, &request), 0);
	request.ifr_flags |= IFF_UP;
	CHECK_EQ(ioctl(sock, SIOCSIFFLAGS, &request), 0);
	close(sock);
}

/* Sees, and sends, what passes through the interface. */
static int open_packet(const char *name)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htobe16(0x88b5), .sll_ifindex = (int)if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htobe16(0x88b5)); /* a local experiment's type */

	CHECK(fd >= 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void make_frame(uint8_t *frame, uint8_t number)
{
	memset(frame, number, FRAME);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, "\2\0\0\0\0\1\x88\xb5", 8);
}

static int make_device(const char *tap, unsigned int queues, struct err *err)
{
	struct virtio_net_options options = {.id = "net0", .machine = "vm", .tap = tap, .queues = queues};

	driver_destroy(driver);
	driver = driver_create(MIB(16), false);
	return virtio_net_create(&options, driver->memory, NULL, &device, err);
}

static void tear_down(void)
{
	driver_destroy(driver);
	driver = NULL;
}

/* One frame out of the guest and one into it, by the given pair. */
static void exchange(int packet, unsigned int pair)
{
	struct driver_queue *rx = &driver->queues[2 * pair], *tx = rx + 1;
	uint64_t out = driver_alloc(driver, HDR + FRAME, 1);
	struct pollfd pollfd = {.fd = packet, .events = POLLIN};
	uint8_t frame[FRAME], got[2 * FRAME];
	uint16_t head = 0;
	uint32_t len = 0;

	make_frame(driver_at(driver, out + HDR), 1);
	driver_add(tx, (struct driver_segment[]){{out, 7, false}, {out + 7, HDR + FRAME - 7, false}}, 2, false);
	driver_kick(tx);
	CHECK_EQ(poll(&pollfd, 1, WAIT), 1);
	CHECK_EQ(recv(packet, got, sizeof(got), 0), FRAME);
	CHECK_EQ(memcmp(got, driver_at(driver, out + HDR), FRAME), 0);
	if (pair)
		return; /* the kernel chooses the queue for what goes in */
	make_frame(frame, 2);
	for (int i = 0; i < 20; i++) {
		uint64_t in = driver_alloc(driver, 66000, 1);

		driver_add(rx, (struct driver_segment[]){{in, 5, true}, {in + 5, 65995, true}}, 2, false);
	}
	driver_kick(rx);
	/* The kernel drops what is sent before it has seen that the link is up, and has something of its own to say then. */
	for (int i = 0; i < WAIT / 50 && len != HDR + FRAME; i++) {
		CHECK_EQ(send(packet, frame, FRAME, 0), FRAME);
		while (driver_wait_used(rx, 50, &head, &len) && len != HDR + FRAME) {
		}
	}
	CHECK_EQ(len, HDR + FRAME);
	CHECK_EQ(memcmp((uint8_t *)driver_at(driver, le64toh(rx->desc[head].addr)) + HDR, frame, FRAME), 0);
}

static void moves_packets(void)
{
	struct virtio_net_config config;
	int packet;

	need_namespace();
	set_persistent("mvt0", 0, true);
	set_up_link("mvt0");
	CHECK_EQ(make_device("mvt0", 1, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	device->ops->config_read(device, 0, &config, 12);
	CHECK_EQ(le16toh(config.mtu), 1500);
	CHECK(device->offered & NET_BIT(VIRTIO_NET_F_HOST_TSO4));
	packet = open_packet("mvt0");
	exchange(packet, 0);
	driver_reset(driver);
	CHECK_EQ(driver_start(driver, DRIVER_ALL_FEATURES), 0);
	exchange(packet, 0);
	close(packet);
	tear_down();
	set_persistent("mvt0", 0, false);
	CHECK_EQ(if_nametoindex("mvt0"), 0);
}

static void uses_many_queues(void)
{
	struct driver_queue *ctrl;
	uint64_t gpa;
	uint16_t head;
	uint32_t len;
	int packet;

	need_namespace();
	set_persistent("mvt1", IFF_MULTI_QUEUE, true);
	set_up_link("mvt1");
	CHECK_EQ(make_device("mvt1", 3, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	ctrl = &driver->queues[6];
	packet = open_packet("mvt1");
	exchange(packet, 0);
	gpa = driver_alloc(driver, 5, 1);
	memcpy(driver_at(driver, gpa), (uint8_t[]){VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 3, 0, 9}, 5);
	driver_add(ctrl, (struct driver_segment[]){{gpa, 4, false}, {gpa + 4, 1, true}}, 2, false);
	driver_kick(ctrl);
	CHECK(driver_wait_used(ctrl, WAIT, &head, &len));
	CHECK_EQ(*(uint8_t *)driver_at(driver, gpa + 4), VIRTIO_NET_OK);
	exchange(packet, 1);
	exchange(packet, 2);
	close(packet);
	tear_down();
	/* One queue will do, too. */
	CHECK_EQ(make_device("mvt1", 1, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	tear_down();
	set_persistent("mvt1", IFF_MULTI_QUEUE, false);
}

static long sys_flags(const char *name)
{
	char path[64], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/net/%s/tun_flags", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return strtol(text, NULL, 16);
}

static void leaves_the_tap_as_it_was(void)
{
	long flags;
	int fd, size = 10;

	need_namespace();
	set_persistent("mvt2", IFF_VNET_HDR, true);
	fd = open_tap("mvt2", IFF_VNET_HDR);
	CHECK_EQ(ioctl(fd, TUNSETVNETHDRSZ, &size), 0);
	close(fd);
	flags = sys_flags("mvt2");
	CHECK_EQ(make_device("mvt2", 1, NULL), 0);
	CHECK(sys_flags("mvt2") != flags);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	tear_down();
	CHECK_EQ(sys_flags("mvt2"), flags);
	fd = open_tap("mvt2", IFF_VNET_HDR);
	size = 0;
	CHECK_EQ(ioctl(fd, TUNGETVNETHDRSZ, &size), 0);
	CHECK_EQ(size, 10);
	close(fd);
	set_persistent("mvt2", IFF_VNET_HDR, false);
}

static void goes_down_with_the_tap(void)
{
	struct virtio_net_config config;

	need_namespace();
	set_persistent("mvt3", 0, true);
	set_up_link("mvt3");
	CHECK_EQ(make_device("mvt3", 1, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	CHECK_EQ(system("ip link del mvt3"), 0);
	for (int i = 0; i < WAIT && !__atomic_load_n(&driver->config_calls, __ATOMIC_SEQ_CST); i++) {
		struct driver_queue *rx = &driver->queues[0];

		if (i == 0) {
			driver_add(rx, (struct driver_segment[]){{driver_alloc(driver, 66000, 1), 66000, true}}, 1,
				   false);
			driver_kick_always(rx);
		}
		usleep(1000);
	}
	device->ops->config_read(device, 0, &config, 12);
	CHECK_EQ(config.status, 0);
	tear_down();
}

/* vhost does not say that the tap was deleted, but the kernel's messages about interfaces do. */
static void finds_the_end_without_receiving(void)
{
	const struct virtio_net_options options = {.tap = "mvt7", .queues = 1, .vhost = true};
	struct net_backend *backend;
	struct pollfd pollfd = {.events = POLLIN};

	need_namespace();
	set_persistent("mvt7", 0, true);
	CHECK_EQ(net_tap_open(&options, &backend, NULL), 0);
	pollfd.fd = backend->ops->end_fd(backend);
	CHECK(!backend->ops->ended(backend));
	CHECK_EQ(poll(&pollfd, 1, 0), 0);
	set_up_link("mvt7"); /* something else happens to it */
	CHECK_EQ(poll(&pollfd, 1, WAIT), 1);
	CHECK(!backend->ops->ended(backend));
	CHECK_EQ(system("ip link del mvt7"), 0);
	CHECK_EQ(poll(&pollfd, 1, WAIT), 1);
	CHECK(backend->ops->ended(backend));
	CHECK_EQ(backend->ops->set_offloads(backend, 0), 0); /* the guest may reset its device and start it again */
	backend->ops->destroy(backend);
}

static void explains_itself(void)
{
	struct err err;

	need_namespace();
	CHECK_EQ(make_device("mvt9", 1, &err), -ENODEV);
	CHECK_STR(err.text,
		  "--net tap=mvt9: there is no such interface; create it with: ip tuntap add dev mvt9 mode tap user "
		  "0 && ip link set mvt9 up");
	CHECK_EQ(make_device("lo", 1, &err), -EINVAL);
	CHECK_STR(err.text,
		  "--net tap=lo: this interface is not a tap; create one with: ip tuntap add dev NAME mode tap user "
		  "0");
	set_persistent("mvt4", 0, true);
	CHECK_EQ(make_device("mvt4", 2, &err), -EINVAL);
	CHECK_STR(err.text,
		  "--net tap=mvt4,queues=2: it has a single queue; use queues=1, or create it again with: ip tuntap "
		  "add dev mvt4 mode tap user 0 multi_queue");
	{
		int fd = open_tap("mvt4", 0);

		CHECK_EQ(make_device("mvt4", 1, &err), -EBUSY);
		CHECK_STR(err.text,
			  "--net tap=mvt4: another process uses it already; give each machine a tap of its own");
		close(fd);
	}
	set_persistent("mvt4", 0, false);
	CHECK_EQ(make_device("a-name-that-is-too-long", 1, &err), -EINVAL);
	CHECK_EQ(make_device("", 1, &err), -EINVAL);
	tear_down();
}

static void explains_vhost(void)
{
	struct virtio_net_options options = {.id = "net0", .tap = "mvt6", .queues = 1, .vhost = true};
	struct err err;

	need_namespace();
	if (access("/dev/vhost-net", F_OK) == 0)
		SKIP("/dev/vhost-net is there");
	driver = driver_create(MIB(16), false);
	set_persistent("mvt6", 0, true);
	CHECK_EQ(virtio_net_create(&options, driver->memory, NULL, &device, &err), -ENOENT);
	CHECK_STR(err.text, "--net vhost=on: there is no /dev/vhost-net: load the kernel module vhost_net (modprobe "
			    "vhost_net), or leave vhost=on out");
	set_persistent("mvt6", 0, false);
	tear_down();
}

static void adopts_a_descriptor(void)
{
	int fd = -1, packet;
	struct virtio_net_options options = {.id = "net0", .tap = "mvt5", .tap_fds = &fd, .queues = 1};

	need_namespace();
	driver = driver_create(MIB(16), false);
	fd = open_tap("mvt5", IFF_NO_PI | IFF_VNET_HDR);
	set_up_link("mvt5");
	CHECK_EQ(virtio_net_create(&options, driver->memory, NULL, &device, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	packet = open_packet("mvt5");
	exchange(packet, 0);
	close(packet);
	tear_down();
	CHECK(if_nametoindex("mvt5")); /* it is still the caller's */
	close(fd);
	CHECK_EQ(if_nametoindex("mvt5"), 0);
}

/* An interface of several queues belongs to one machine, as one of a single queue does. */
static void shares_no_queues(void)
{
	struct virtio_driver *first;
	struct virtio_device *other;
	struct virtio_net_options options = {.id = "net0", .machine = "vm", .tap = "mvt6"};
	struct err err;
	int parked;

	need_namespace();
	set_persistent("mvt6", IFF_MULTI_QUEUE, true);
	CHECK_EQ(make_device("mvt6", 1, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	first = driver;
	for (options.queues = 1; options.queues < 3; options.queues++) {
		CHECK_EQ(virtio_net_create(&options, first->memory, NULL, &other, &err), -EBUSY);
		CHECK_STR(err.text, "--net tap=mvt6: another process uses it already; give each machine a tap of its own");
	}
	tear_down();
	/* A manager that keeps the interface with a queue that is switched off is no other user. */
	parked = open_tap("mvt6", IFF_MULTI_QUEUE);
	CHECK_EQ(ioctl(parked, TUNSETQUEUE, &(struct ifreq){.ifr_flags = IFF_DETACH_QUEUE}), 0);
	CHECK_EQ(make_device("mvt6", 2, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	tear_down();
	close(parked);
	set_persistent("mvt6", IFF_MULTI_QUEUE, false);
}

TEST_MAIN(TEST(moves_packets), TEST(uses_many_queues), TEST(shares_no_queues),
	  TEST(leaves_the_tap_as_it_was), TEST(goes_down_with_the_tap), TEST(finds_the_end_without_receiving),
	  TEST(explains_itself), TEST(explains_vhost), TEST(adopts_a_descriptor))
