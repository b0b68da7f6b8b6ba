/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/vsock and vsock_unix: pauses, resets, moves to another host, the socket file, options. */
#include "tests/unit/vsock_rig.h"

#include <sys/stat.h>

static void survives_a_pause(void)
{
	uint32_t port;
	int fd, waiting;

	set_up(32);
	fd = open_from_host(&port);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	host_write(fd, "while paused");
	waiting = host_connect();
	host_write(waiting, "CONNECT 44\n");
	guest_expect_silence();
	device->ops->resume(device);
	for (int i = 0; i < 2; i++) {
		const void *data;
		packet_hdr hdr = guest_get(&data);

		CHECK_EQ(hdr.op, hdr.dst_port == 44 ? VIRTIO_VSOCK_OP_REQUEST : VIRTIO_VSOCK_OP_RW);
	}
	guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, "after", 5);
	host_expect(fd, "after");
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	close(fd);
	device->ops->resume(device);
	guest_expect_closed(1234, port);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	close(waiting);
	device->ops->resume(device);
	guest_expect(VIRTIO_VSOCK_OP_RST, 44, 0);
	tear_down();
}

/* A buffer for an event; its guest address. */
static uint64_t post_event(void)
{
	struct driver_queue *event = &driver->queues[VSOCK_EVENT];
	uint64_t gpa = driver_alloc(driver, 4, 1);

	memset(driver_at(driver, gpa), 0xff, 4);
	driver_add(event, (struct driver_segment[]){{gpa, 4, true}}, 1, false);
	driver_kick(event);
	return gpa;
}

static void resets_the_transport(void)
{
	uint64_t gpa;
	uint32_t port, len;
	uint16_t head;
	int fd;

	set_up(32);
	gpa = post_event();
	fd = open_from_host(&port);
	virtio_vsock_transport_reset(device);
	CHECK(driver_wait_used(&driver->queues[VSOCK_EVENT], WAIT, &head, &len));
	CHECK_EQ(len, 4);
	CHECK_EQ(get_le32(driver_at(driver, gpa)), VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	host_expect_end(fd);
	close(fd);
	guest_expect_silence();
	close(open_from_host(&port));
	tear_down();
}

/* The guest hears of the end of its connections when it runs again, and begins new ones. */
static void moves_without_its_connections(void)
{
	struct driver_luggage luggage;
	uint64_t gpa;
	uint32_t port, before, len;
	uint16_t head;
	int fd;

	set_up(32);
	gpa = post_event();
	fd = open_from_host(&before);
	driver_pack(driver, &luggage);
	host_expect_end(fd);
	close(fd);
	CHECK_EQ(create(NULL), 0);
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
	CHECK(driver_wait_used(&driver->queues[VSOCK_EVENT], WAIT, &head, &len));
	CHECK_EQ(get_le32(driver_at(driver, gpa)), VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	guest_expect_silence();
	fd = open_from_host(&port);
	CHECK(port != before);
	close(fd);
	tear_down();
}

static uint64_t seen_cid(void)
{
	uint8_t config[8];

	device->ops->config_read(device, 0, config, sizeof(config));
	return get_le64(config);
}

/* The guest reads its CID again when it hears of the reset; packets from the old one are nobody's. */
static void comes_back_with_another_cid(void)
{
	struct driver_luggage luggage;
	uint64_t gpa;
	uint32_t port, len;
	uint16_t head;
	int fd;

	set_up(32);
	gpa = post_event();
	fd = open_from_host(&port);
	CHECK_EQ(seen_cid(), CID);
	driver_pack(driver, &luggage);
	close(fd);
	guest_cid = 77;
	CHECK_EQ(create(NULL), 0);
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
	CHECK(driver_wait_used(&driver->queues[VSOCK_EVENT], WAIT, &head, &len));
	CHECK_EQ(get_le32(driver_at(driver, gpa)), VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	CHECK_EQ(seen_cid(), 77);
	guest_cid = CID;
	guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, "old", 3);
	guest_expect_silence();
	guest_cid = 77;
	guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, "new", 3);
	guest_expect(VIRTIO_VSOCK_OP_RST, 1234, port);
	close(open_from_host(&port));
	tear_down();
}

/* Nobody is told who has no buffer for it, but later. */
static void moves_twice_before_the_guest_hears_of_it(void)
{
	struct driver_luggage luggage;
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up(32);
	for (unsigned int i = 0; i < 2; i++) {
		driver_pack(driver, &luggage);
		CHECK_EQ(create(NULL), 0);
		CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
	}
	gpa = driver_alloc(driver, 4, 1);
	driver_add(&driver->queues[VSOCK_EVENT], (struct driver_segment[]){{gpa, 4, true}}, 1, false);
	driver_kick_always(&driver->queues[VSOCK_EVENT]);
	CHECK(driver_wait_used(&driver->queues[VSOCK_EVENT], WAIT, &head, &len));
	tear_down();
}

static void resets_with_connections(void)
{
	int fds = 0;

	for (int i = 0; i < 3; i++) {
		uint32_t port;
		int fd;

		if (i == 0)
			set_up(16);
		fd = open_from_host(&port);
		driver_reset(driver);
		host_expect_end(fd);
		close(fd);
		if (i == 1)
			fds = count_entries("/proc/self/fd");
		else if (i == 2)
			CHECK_EQ(count_entries("/proc/self/fd"), fds);
		CHECK_EQ(driver_start(driver, DRIVER_ALL_FEATURES), 0);
		post(16, RX_SIZE);
	}
	tear_down();
}

static void keeps_its_socket_tidy(void)
{
	struct virtio_device *first;
	struct err err;
	struct stat st;
	char want[256];
	int fd;

	driver_destroy(driver);
	driver = driver_create(MIB(16), false);
	make_dir();
	CHECK_EQ(create(NULL), 0);
	first = device;
	CHECK_EQ(create(&err), -EADDRINUSE);
	snprintf(want, sizeof(want), "--vsock socket=%s: another process listens there; choose another path", path);
	CHECK_STR(err.text, want);
	first->ops->destroy(first);
	CHECK_EQ(stat(path, &st), -1);
	/* Left behind by a process that was killed. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	{
		struct sockaddr_un address = {.sun_family = AF_UNIX};

		snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
		CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
		close(fd);
	}
	CHECK_EQ(create(NULL), 0);
	/* Not ours any more: stays. */
	CHECK_EQ(unlink(path), 0);
	CHECK_EQ(mkdir(path, 0700), 0);
	device->ops->destroy(device);
	CHECK_EQ(create(&err), -EEXIST);
	CHECK_EQ(rmdir(path), 0);
	tear_down();
}

static void refuses_bad_options(void)
{
	struct virtio_vsock_options options = {.id = "vsock0", .socket = "/nonexistent/v"};
	char longest[200];
	struct err err;

	driver_destroy(driver);
	driver = driver_create(MIB(16), false);
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	for (uint32_t cid = 0; cid < 3; cid++) {
		options.cid = cid;
		CHECK_EQ(virtio_vsock_create(&options, driver->memory, loop, NULL, &device, &err), -EINVAL);
	}
	options.cid = UINT32_MAX;
	CHECK_EQ(virtio_vsock_create(&options, driver->memory, loop, NULL, &device, &err), -EINVAL);
	options.cid = 3;
	CHECK_EQ(virtio_vsock_create(&options, driver->memory, loop, NULL, &device, &err), -ENOENT);
	CHECK_STR(err.text, "--vsock socket=/nonexistent/v: No such file or directory");
	memset(longest, 'a', sizeof(longest));
	longest[97] = 0;
	options.socket = longest;
	CHECK_EQ(virtio_vsock_create(&options, driver->memory, loop, NULL, &device, &err), -EINVAL);
	options.socket = NULL;
	if (access("/dev/vhost-vsock", F_OK) < 0) {
		CHECK_EQ(virtio_vsock_create(&options, driver->memory, loop, NULL, &device, &err), -ENOENT);
		CHECK_STR(err.text, "--vsock cid=3: there is no /dev/vhost-vsock: load the kernel module vhost_vsock "
				    "(modprobe vhost_vsock), or give socket=PATH");
	}
	tear_down();
}

TEST_MAIN(TEST(survives_a_pause), TEST(resets_the_transport), TEST(moves_without_its_connections),
	  TEST(comes_back_with_another_cid),
	  TEST(moves_twice_before_the_guest_hears_of_it), TEST(resets_with_connections), TEST(keeps_its_socket_tidy),
	  TEST(refuses_bad_options))
