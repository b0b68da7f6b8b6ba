/* SPDX-License-Identifier: Apache-2.0 */
/* See vsock_rig.h. */
#include "tests/unit/vsock_rig.h"

#include <dirent.h>
#include <stdio.h>

struct virtio_driver *driver;
struct virtio_device *device;
struct event_loop *loop;
struct driver_queue *rx, *tx;
char dir[64], path[96];
uint32_t guest_buffer, guest_taken, guest_cid = CID;

int count_entries(const char *of)
{
	DIR *entries = opendir(of);
	int count = 0;

	while (readdir(entries))
		count++;
	closedir(entries);
	return count;
}

void tear_down(void)
{
	driver_destroy(driver);
	driver = NULL;
	event_loop_destroy(loop);
	loop = NULL;
	if (dir[0])
		CHECK_EQ(rmdir(dir), 0); /* nothing is left in it */
	dir[0] = 0;
	guest_cid = CID;
}

void make_dir(void)
{
	snprintf(dir, sizeof(dir), "/tmp/mvmm-test-XXXXXX");
	CHECK(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/v", dir);
}

int create(struct err *err)
{
	struct virtio_vsock_options options = {.id = "vsock0", .cid = guest_cid, .socket = path};

	if (!loop) {
		CHECK_EQ(event_loop_create(&loop, NULL), 0);
		CHECK_EQ(event_loop_start(loop, "loop", NULL), 0);
	}
	return virtio_vsock_create(&options, driver->memory, loop, NULL, &device, err);
}

void post(unsigned int count, uint32_t size)
{
	while (count--) {
		uint64_t gpa = driver_alloc(driver, size, 1);

		/* The header is split. */
		CHECK(driver_add(rx, (struct driver_segment[]){{gpa, 10, true}, {gpa + 10, size - 10, true}}, 2,
				 true) >= 0);
	}
	driver_kick(rx);
}

void set_up(unsigned int buffers)
{
	driver_destroy(driver);
	make_dir();
	driver = driver_create(MIB(16), false);
	CHECK_EQ(create(NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	rx = &driver->queues[VSOCK_RX];
	tx = &driver->queues[VSOCK_TX];
	guest_buffer = 65536;
	guest_taken = 0;
	post(buffers, RX_SIZE);
}

/* ---- the host's programs ---- */

int host_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

int host_listen(uint32_t port)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", path, port);
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(fd, 64), 0);
	return fd;
}

void host_unlisten(int fd, uint32_t port)
{
	char name[128];

	close(fd);
	snprintf(name, sizeof(name), "%s_%u", path, port);
	unlink(name);
}

ssize_t host_read(int fd, void *buf, size_t size)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};

	return poll(&pollfd, 1, WAIT) == 1 ? recv(fd, buf, size, 0) : -1;
}

void host_expect(int fd, const char *text)
{
	char got[256] = "";

	CHECK(strlen(text) < sizeof(got));
	CHECK_EQ(recv(fd, got, strlen(text), MSG_WAITALL), strlen(text));
	CHECK_STR(got, text);
}

void host_expect_end(int fd)
{
	char byte;

	CHECK_EQ(host_read(fd, &byte, 1), 0);
}

void host_write(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* ---- the guest ---- */

void guest_send(uint16_t op, uint32_t guest_port, uint32_t host_port, uint32_t flags, const void *data,
		       uint32_t len)
{
	uint64_t gpa = driver_alloc(driver, HDR + len, 1);
	packet_hdr hdr = {.src_cid = guest_cid, .dst_cid = 2, .src_port = guest_port, .dst_port = host_port, .len = len,
			  .type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .flags = flags, .buf_alloc = guest_buffer,
			  .fwd_cnt = guest_taken};
	uint16_t head;
	uint32_t written;

	memcpy(driver_at(driver, gpa), &hdr, HDR);
	if (len)
		memcpy(driver_at(driver, gpa + HDR), data, len);
	CHECK(driver_add(tx, (struct driver_segment[]){{gpa, 20, false}, {gpa + 20, HDR - 20 + len, false}}, 2,
			 false) >= 0);
	driver_kick(tx);
	CHECK(driver_wait_used(tx, WAIT, &head, &written));
	CHECK_EQ(written, 0);
}

packet_hdr guest_get(const void **data)
{
	static const packet_hdr none;
	packet_hdr hdr = none;
	uint16_t head;
	uint32_t len;
	uint64_t gpa;

	if (!driver_wait_used(rx, WAIT, &head, &len))
		return hdr;
	gpa = le64toh(((struct vring_desc *)driver_at(driver, le64toh(rx->desc[head].addr)))->addr);
	memcpy(&hdr, driver_at(driver, gpa), HDR);
	if (data)
		*data = driver_at(driver, gpa + HDR);
	if (len != HDR + hdr.len || hdr.src_cid != 2 || hdr.dst_cid != guest_cid || hdr.type != VIRTIO_VSOCK_TYPE_STREAM)
		return none;
	return hdr;
}

packet_hdr guest_expect(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	packet_hdr hdr = guest_get(NULL);

	CHECK_EQ(hdr.op, op);
	CHECK_EQ(hdr.dst_port, guest_port);
	if (host_port)
		CHECK_EQ(hdr.src_port, host_port);
	return hdr;
}

void guest_expect_closed(uint32_t guest_port, uint32_t host_port)
{
	packet_hdr hdr = guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, guest_port, host_port);

	if (hdr.flags == VIRTIO_VSOCK_SHUTDOWN_SEND)
		hdr = guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, guest_port, host_port);
	CHECK_EQ(hdr.flags, VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND);
}

void guest_expect_data(uint32_t guest_port, const char *text)
{
	const void *data;
	packet_hdr hdr = guest_get(&data);

	CHECK_EQ(hdr.op, VIRTIO_VSOCK_OP_RW);
	CHECK_EQ(hdr.dst_port, guest_port);
	CHECK_EQ(hdr.len, strlen(text));
	CHECK_EQ(memcmp(data, text, hdr.len), 0);
}

void guest_expect_silence(void)
{
	uint16_t head;
	uint32_t len;

	CHECK(!driver_wait_used(rx, 50, &head, &len));
}

int open_from_host(uint32_t *host_port)
{
	int fd = host_connect();
	char line[32];
	packet_hdr hdr;

	host_write(fd, "CONNECT 1234\n");
	hdr = guest_expect(VIRTIO_VSOCK_OP_REQUEST, 1234, 0);
	*host_port = hdr.src_port;
	guest_send(VIRTIO_VSOCK_OP_RESPONSE, 1234, *host_port, 0, NULL, 0);
	snprintf(line, sizeof(line), "OK %u\n", *host_port);
	host_expect(fd, line);
	return fd;
}

int open_from_guest(uint32_t guest_port)
{
	int listener = host_listen(80), fd;
	packet_hdr hdr;

	guest_send(VIRTIO_VSOCK_OP_REQUEST, guest_port, 80, 0, NULL, 0);
	hdr = guest_expect(VIRTIO_VSOCK_OP_RESPONSE, guest_port, 80);
	CHECK_EQ(hdr.buf_alloc, VSOCK_BUFFER);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(fd >= 0);
	host_unlisten(listener, 80);
	return fd;
}
