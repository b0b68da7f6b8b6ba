/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/net_passt: frames in pieces and in bulk, a peer that does not read, nonsense from either side, the
 * peer's end, and a passt that is started, missing or failing (programs of the test's own stand in for it).
 */
#include "devices/virtio/net_internal.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define HDR ((uint32_t)NET_HDR_SIZE)
#define WAIT 2000 /* ms */

static struct virtio_driver *driver;
static struct virtio_device *device;
static struct driver_queue *rx, *tx;
static int peer = -1, log_fd = -1;
static struct log device_log;
static char dir[64];

static const char *in_dir(const char *name)
{
	static char path[128];

	if (!dir[0]) {
		snprintf(dir, sizeof(dir), "/tmp/mvmm-test-XXXXXX");
		CHECK(mkdtemp(dir));
	}
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void tear_down(void)
{
	driver_destroy(driver);
	driver = NULL;
	fd_close(&peer);
	fd_close(&log_fd);
	if (dir[0])
		CHECK_EQ(rmdir(dir), 0);
	dir[0] = 0;
}

static int create(const char *socket_path, struct err *err)
{
	struct virtio_net_options options = {
		.id = "net0", .machine = "vm", .passt = true, .socket = socket_path, .queues = 1};
	int ret;

	log_fd = memfd_create("log", MFD_CLOEXEC);
	device_log = (struct log){.fd = log_fd, .level = LOG_INFO};
	driver = driver_create(MIB(8), false);
	ret = virtio_net_create(&options, driver->memory, &device_log, &device, err);
	rx = &driver->queues[0];
	tx = &driver->queues[1];
	return ret;
}

/* A device that has connected to us. */
static void set_up(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", in_dir("passt"));
	CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(listener, 1), 0);
	CHECK_EQ(create(address.sun_path, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(peer >= 0);
	close(listener);
	unlink(address.sun_path);
}

static uint8_t pattern(uint32_t number, uint32_t i)
{
	return (uint8_t)(number * 31 + i * 7 + (i >> 8));
}

static void post_rx(unsigned int count)
{
	while (count--) {
		uint64_t gpa = driver_alloc(driver, 66000, 1);

		driver_add(rx, (struct driver_segment[]){{gpa, 66000, true}}, 1, false);
	}
	driver_kick(rx);
}

static size_t put_frame(uint8_t *to, uint32_t size, uint32_t number)
{
	uint32_t length = htobe32(size);

	memcpy(to, &length, 4);
	for (uint32_t i = 0; i < size; i++)
		to[4 + i] = pattern(number, i);
	return 4 + size;
}

static void expect_rx(uint32_t size, uint32_t number)
{
	static const uint8_t header[NET_HDR_SIZE] = {[10] = 1};
	uint16_t head;
	uint32_t len;
	uint8_t *at;

	CHECK(driver_wait_used(rx, WAIT, &head, &len));
	CHECK_EQ(len, HDR + size);
	at = driver_at(driver, le64toh(rx->desc[head].addr));
	CHECK_EQ(memcmp(at, header, HDR), 0);
	for (uint32_t i = 0; i < size; i++)
		CHECK_EQ(at[HDR + i], pattern(number, i));
}

static void reads_frames_in_pieces(void)
{
	uint8_t bytes[4 + 60 + 4 + 14];
	size_t size;

	set_up();
	post_rx(2);
	size = put_frame(bytes, 60, 1);
	size += put_frame(bytes + size, 14, 2);
	for (size_t i = 0; i < size; i++) {
		CHECK_EQ(send(peer, bytes + i, 1, 0), 1);
		usleep(200);
	}
	expect_rx(60, 1);
	expect_rx(14, 2);
	tear_down();
}

static void reads_frames_in_bulk(void)
{
	static uint8_t bytes[40 * (4 + 65535)];
	size_t size = 0, sent = 0;

	set_up();
	post_rx(40);
	for (uint32_t i = 0; i < 40; i++)
		size += put_frame(bytes + size, i % 5 == 4 ? 65535 : 1500 + i, i);
	while (sent < size) {
		ssize_t len = send(peer, bytes + sent, MIN(size - sent, 100001), 0);

		CHECK(len > 0);
		sent += (size_t)len;
	}
	for (uint32_t i = 0; i < 40; i++)
		expect_rx(i % 5 == 4 ? 65535 : 1500 + i, i);
	tear_down();
}

static void send_frame(uint32_t size, uint32_t number, uint8_t flags, uint8_t gso)
{
	uint64_t gpa = driver_alloc(driver, HDR + size, 1);
	uint8_t *at = driver_at(driver, gpa);
	struct driver_segment segments[] = {
		{gpa, 1, false}, {gpa + 1, HDR + 2, false}, {gpa + HDR + 3, size - 3, false}};

	at[0] = flags;
	at[1] = gso;
	for (uint32_t i = 0; i < size; i++)
		at[HDR + i] = pattern(number, i);
	CHECK(driver_add(tx, segments, 3, true) >= 0);
}

static void expect_frame(uint32_t size, uint32_t number)
{
	static uint8_t bytes[4 + 65535];
	uint32_t length;
	struct pollfd pollfd = {.fd = peer, .events = POLLIN};

	CHECK_EQ(poll(&pollfd, 1, WAIT), 1);
	CHECK_EQ(recv(peer, bytes, 4 + size, MSG_WAITALL), 4 + size);
	memcpy(&length, bytes, 4);
	CHECK_EQ(be32toh(length), size);
	for (uint32_t i = 0; i < size; i++)
		CHECK_EQ(bytes[4 + i], pattern(number, i));
}

/* The peer begins to read when its socket is full, so that frames are cut in two. */
static void writes_to_a_slow_peer(void)
{
	set_up();
	for (uint32_t i = 0; i < 50; i++)
		send_frame(i % 2 ? 65000 + i : 200 + i, i, 0, 0);
	driver_kick(tx);
	usleep(50000);
	CHECK(le16toh(tx->used->idx) < 50);
	for (uint32_t i = 0; i < 50; i++)
		expect_frame(i % 2 ? 65000 + i : 200 + i, i);
	tear_down();
}

/* A limit counts whole frames, also those that come in pieces; what it holds back is not lost. */
static void keeps_a_limit(void)
{
	const struct token_bucket_limit none = {0}, three = {.size = 3, .refill_ns = 3600000000000ull};
	struct pollfd more = {.events = POLLIN};
	uint8_t bytes[8 * (4 + 60)];
	uint16_t head;
	uint32_t len;
	size_t size = 0;

	set_up();
	more.fd = peer;
	CHECK_EQ(virtio_device_set_limit(device, VIRTIO_NET_LIMIT_TX, NULL, &three), 0);
	CHECK_EQ(virtio_device_set_limit(device, VIRTIO_NET_LIMIT_RX, NULL, &three), 0);
	for (uint32_t i = 0; i < 8; i++)
		send_frame(60, i, 0, 0);
	driver_kick(tx);
	for (uint32_t i = 0; i < 3; i++)
		expect_frame(60, i);
	CHECK_EQ(poll(&more, 1, 50), 0);
	post_rx(8);
	for (uint32_t i = 0; i < 8; i++)
		size += put_frame(bytes + size, 60, i);
	for (size_t at = 0; at < size; at += 100)
		CHECK(send(peer, bytes + at, MIN(size - at, 100u), 0) > 0);
	for (uint32_t i = 0; i < 3; i++)
		expect_rx(60, i);
	CHECK(!driver_wait_used(rx, 50, &head, &len));
	/* Without it, all the others. */
	CHECK_EQ(virtio_device_set_limit(device, VIRTIO_NET_LIMIT_TX, NULL, &none), 0);
	CHECK_EQ(virtio_device_set_limit(device, VIRTIO_NET_LIMIT_RX, NULL, &none), 0);
	for (uint32_t i = 3; i < 8; i++)
		expect_frame(60, i);
	for (uint32_t i = 3; i < 8; i++)
		expect_rx(60, i);
	tear_down();
}

/* While the cable is out, whole frames are lost, and the stream stays in step. */
static void loses_whole_frames_without_its_cable(void)
{
	uint8_t bytes[2 * (4 + 60)];
	uint16_t head;
	uint32_t len;
	size_t size;

	set_up();
	post_rx(4);
	CHECK_EQ(virtio_net_set_link(device, false, NULL), 0);
	size = put_frame(bytes, 60, 1);
	size += put_frame(bytes + size, 60, 2);
	CHECK_EQ(send(peer, bytes, 70, 0), 70);
	send_frame(60, 1, 0, 0);
	driver_kick(tx);
	CHECK(driver_wait_used(tx, WAIT, &head, &len));
	CHECK(!driver_wait_used(rx, 50, &head, &len));
	CHECK_EQ(virtio_net_set_link(device, true, NULL), 0);
	CHECK_EQ(send(peer, bytes + 70, size - 70, 0), (ssize_t)(size - 70));
	expect_rx(60, 2);
	send_frame(60, 3, 0, 0);
	driver_kick(tx);
	expect_frame(60, 3);
	tear_down();
}

static void sends_no_nonsense(void)
{
	uint16_t head;
	uint32_t len;

	set_up();
	send_frame(60, 1, VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
	send_frame(60, 2, 0, VIRTIO_NET_HDR_GSO_TCPV4);
	send_frame(13, 3, 0, 0);
	send_frame(65536, 4, 0, 0);
	send_frame(60, 5, 0, 0);
	driver_kick(tx);
	expect_frame(60, 5);
	for (int i = 0; i < 5; i++)
		CHECK(driver_wait_used(tx, WAIT, &head, &len));
	tear_down();
}

static bool link_goes_down(void)
{
	struct virtio_net_config config;

	for (int i = 0; i < WAIT && !__atomic_load_n(&driver->config_calls, __ATOMIC_SEQ_CST); i++)
		usleep(1000);
	device->ops->config_read(device, 0, &config, 12);
	return !config.status;
}

static const char *logged(void)
{
	static char text[1024];
	ssize_t len = pread(log_fd, text, sizeof(text) - 1, 0);

	text[len < 0 ? 0 : len] = 0;
	return text;
}

static void notices_the_end(void)
{
	uint16_t head;
	uint32_t len;

	set_up();
	post_rx(1);
	fd_close(&peer);
	CHECK(link_goes_down());
	CHECK_STR(logged(), "warning: net0: its network has ended, the link is down: passt has closed the "
			    "connection\n");
	send_frame(60, 1, 0, 0);
	driver_kick(tx);
	CHECK(driver_wait_used(tx, WAIT, &head, &len));
	tear_down();
}

/* A guest whose interface is down has no buffers, and is to know nevertheless. */
static void notices_the_end_without_buffers(void)
{
	set_up();
	fd_close(&peer);
	CHECK(link_goes_down());
	tear_down();
}

static void refuses_nonsense(void)
{
	static const uint32_t lengths[] = {0, 13, 65536, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint32_t length = htobe32(lengths[i]);

		set_up();
		post_rx(1);
		CHECK_EQ(send(peer, &length, 4, 0), 4);
		CHECK(link_goes_down());
		tear_down();
	}
}

/* ---- passt itself ---- */

static char *old_path;

static void put_program(const char *text)
{
	const char *path = in_dir("passt");
	int fd;

	old_path = strdup(getenv("PATH"));
	if (text) {
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
		CHECK(fd >= 0);
		CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
		close(fd);
	}
	setenv("PATH", dir, 1);
}

static void remove_program(void)
{
	setenv("PATH", old_path, 1);
	free(take_ptr(old_path));
	unlink(in_dir("passt"));
	tear_down();
}

static void starts_passt(void)
{
	struct virtio_net_config config;

	/* Reads a frame of 60 bytes, and sends back what comes after it. */
	put_program("#!/bin/sh\n[ \"$*\" = '--foreground --quiet --stderr --fd 3' ] || exit 1\n"
		    "/usr/bin/head -c 64 <&3 >/dev/null\nexec /bin/cat <&3 >&3\n");
	CHECK_EQ(create(NULL, NULL), 0);
	CHECK_EQ(virtio_net_ready(device, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	device->ops->config_read(device, 0, &config, 12);
	CHECK_EQ(le16toh(config.mtu), 65520);
	post_rx(1);
	send_frame(1000, 7, 0, 0);
	driver_kick(tx);
	expect_rx(1000, 7);
	remove_program();
}

static void tells_how_passt_ended(void)
{
	put_program("#!/bin/sh\necho words of the beginning >&2\nkill -9 $$\n");
	CHECK_EQ(create(NULL, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	post_rx(1);
	CHECK(link_goes_down());
	CHECK_STR(logged(),
		  "warning: net0: its network has ended, the link is down: passt was ended by signal 9\n");
	remove_program();
}

static void tells_why_passt_ended(void)
{
	put_program("#!/bin/sh\necho first >&2\necho 'No routable interface' >&2\nexit 1\n");
	CHECK_EQ(create(NULL, NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	post_rx(1);
	CHECK(link_goes_down());
	CHECK_STR(logged(),
		  "warning: net0: its network has ended, the link is down: first; No routable interface\n");
	remove_program();
}

/* A passt that ends at once is a reason not to start the machine. */
static void tells_why_passt_cannot_start(void)
{
	static const struct {
		const char *program, *says;
	} cases[] = {
		{"#!/bin/sh\necho No interface for IPv4 >&2\necho Failed to send 46 bytes to syslog >&2\n"
		 "echo External interface not usable >&2\nexit 1\n",
		 "--net passt: it cannot start: No interface for IPv4; External interface not usable"},
		{"#!/bin/sh\nkill -9 $$\n", "--net passt: it cannot start: passt was ended by signal 9"},
		{"#!/bin/sh\nexit 0\n", "--net passt: it cannot start: passt has ended"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err;

		put_program(cases[i].program);
		CHECK_EQ(create(NULL, NULL), 0);
		CHECK_EQ(virtio_net_ready(device, &err), -ECONNREFUSED);
		CHECK_STR(err.text, cases[i].says);
		device->ops->destroy(device);
		remove_program();
	}
}

/* Whole lines, and the last ones of many. */
static void tells_no_half_of_a_line(void)
{
	char program[2000] = "#!/bin/sh\n", line[] = "echo 0123456789 0123456789 0123456789 x >&2\n";
	struct err err;

	for (char i = 'a'; i <= 'z'; i++) {
		line[38] = i;
		strcat(program, line);
	}
	strcat(program, "exit 1\n");
	put_program(program);
	CHECK_EQ(create(NULL, NULL), 0);
	CHECK_EQ(virtio_net_ready(device, &err), -ECONNREFUSED);
	CHECK(strstr(err.text, "it cannot start: 0123456789 0123456789 0123456789 "));
	CHECK_STR(err.text + strlen(err.text) - 2, " z");
	device->ops->destroy(device);
	remove_program();
}

static void explains_itself(void)
{
	char want[256];
	struct err err;

	put_program(NULL);
	CHECK_EQ(create(NULL, &err), -ENOENT);
	CHECK_STR(err.text, "--net passt: no such program; install the Debian package passt, or use tap=NAME");
	remove_program();
	CHECK_EQ(create(in_dir("none"), &err), -ENOENT);
	snprintf(want, sizeof(want),
		 "--net passt=%s: nobody listens there; start passt with: passt --socket %s, or omit the path",
		 in_dir("none"), in_dir("none"));
	CHECK_STR(err.text, want);
	tear_down();
}

TEST_MAIN(TEST(reads_frames_in_pieces), TEST(reads_frames_in_bulk), TEST(writes_to_a_slow_peer),
	  TEST(keeps_a_limit), TEST(loses_whole_frames_without_its_cable), TEST(sends_no_nonsense),
	  TEST(notices_the_end), TEST(notices_the_end_without_buffers), TEST(refuses_nonsense),
	  TEST(starts_passt), TEST(tells_how_passt_ended), TEST(tells_why_passt_ended),
	  TEST(tells_why_passt_cannot_start), TEST(tells_no_half_of_a_line), TEST(explains_itself))
