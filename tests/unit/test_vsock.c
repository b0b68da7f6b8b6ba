/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/vsock_unix and vsock_conn: both ways to connect, greetings, refusals, closed by halves. */
#include "tests/unit/vsock_rig.h"

static void connects_from_the_host(void)
{
	uint32_t port;
	int fd;

	set_up(16);
	fd = open_from_host(&port);
	host_write(fd, "hello");
	guest_expect_data(1234, "hello");
	guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, "world", 5);
	host_expect(fd, "world");
	close(fd);
	guest_expect_closed(1234, port);
	guest_send(VIRTIO_VSOCK_OP_RST, 1234, port, 0, NULL, 0);
	guest_expect_silence();
	tear_down();
}

/* The line comes in pieces, and what follows it is the guest's. */
static void reads_the_greeting_exactly(void)
{
	static const char line[] = "CONNECT 77\nmore";
	char answer[32];
	packet_hdr hdr;
	int fd;

	set_up(16);
	fd = host_connect();
	for (size_t i = 0; i < strlen(line); i++) {
		CHECK_EQ(send(fd, line + i, 1, 0), 1);
		usleep(500);
	}
	hdr = guest_expect(VIRTIO_VSOCK_OP_REQUEST, 77, 0);
	guest_send(VIRTIO_VSOCK_OP_RESPONSE, 77, hdr.src_port, 0, NULL, 0);
	guest_expect_data(77, "more");
	snprintf(answer, sizeof(answer), "OK %u\n", hdr.src_port);
	host_expect(fd, answer);
	close(fd);
	tear_down();
}

static void refuses_bad_greetings(void)
{
	static const char *const lines[] = {
		"connect 5\n", "CONNECT \n", "CONNECT -1\n", "CONNECT 5x\n", "CONNECT 4294967296\n",
		"CONNECT 5                                     ", "\n", "CONNECT  5\n",
	};

	set_up(16);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int fd = host_connect();
		char byte;

		host_write(fd, lines[i]);
		CHECK(host_read(fd, &byte, 1) <= 0);
		close(fd);
	}
	close(host_connect());
	guest_expect_silence();
	tear_down();
}

static void tells_when_the_guest_refuses(void)
{
	packet_hdr hdr;
	int fd;

	set_up(16);
	fd = host_connect();
	host_write(fd, "CONNECT 9\n");
	hdr = guest_expect(VIRTIO_VSOCK_OP_REQUEST, 9, 0);
	guest_send(VIRTIO_VSOCK_OP_RST, 9, hdr.src_port, 0, NULL, 0);
	host_expect_end(fd);
	close(fd);
	/* The host's side gives up before the guest has answered. */
	fd = host_connect();
	host_write(fd, "CONNECT 9\n");
	hdr = guest_expect(VIRTIO_VSOCK_OP_REQUEST, 9, 0);
	close(fd);
	guest_expect(VIRTIO_VSOCK_OP_RST, 9, hdr.src_port);
	tear_down();
}

static void connects_from_the_guest(void)
{
	int fd;

	set_up(16);
	guest_send(VIRTIO_VSOCK_OP_REQUEST, 1000, 80, 0, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RST, 1000, 80);
	fd = open_from_guest(1000);
	guest_send(VIRTIO_VSOCK_OP_RW, 1000, 80, 0, "ping", 4);
	host_expect(fd, "ping");
	host_write(fd, "pong");
	guest_expect_data(1000, "pong");
	guest_send(VIRTIO_VSOCK_OP_SHUTDOWN, 1000, 80, 3, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RST, 1000, 80);
	host_expect_end(fd);
	close(fd);
	tear_down();
}

/* The backlog of the host's program is full: who comes too early is connected when there is room. */
static void waits_for_a_busy_program(void)
{
	int listener;
	bool seen[5] = {false};

	set_up(32);
	listener = host_listen(80);
	CHECK_EQ(listen(listener, 1), 0);
	for (uint32_t i = 0; i < 5; i++)
		guest_send(VIRTIO_VSOCK_OP_REQUEST, 1000 + i, 80, 0, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RESPONSE, 1000, 80);
	guest_expect(VIRTIO_VSOCK_OP_RESPONSE, 1001, 80);
	guest_expect_silence();
	for (uint32_t i = 0; i < 3; i++) {
		packet_hdr hdr;

		close(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
		do
			hdr = guest_get(NULL);
		while (hdr.op == VIRTIO_VSOCK_OP_SHUTDOWN);
		CHECK_EQ(hdr.op, VIRTIO_VSOCK_OP_RESPONSE);
		seen[hdr.dst_port - 1000] = true;
	}
	for (uint32_t i = 2; i < 5; i++)
		CHECK(seen[i]);
	host_unlisten(listener, 80);
	tear_down();
}

/* A program that ends while others wait for it; and a guest that does not want to wait. */
static void waits_no_longer_than_is_sensible(void)
{
	int listener;

	set_up(32);
	listener = host_listen(80);
	CHECK_EQ(listen(listener, 0), 0);
	for (uint32_t i = 0; i < 3; i++)
		guest_send(VIRTIO_VSOCK_OP_REQUEST, 1000 + i, 80, 0, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RESPONSE, 1000, 80);
	guest_send(VIRTIO_VSOCK_OP_RST, 1001, 80, 0, NULL, 0);
	guest_send(VIRTIO_VSOCK_OP_REQUEST, 1001, 80, 0, NULL, 0);
	guest_send(VIRTIO_VSOCK_OP_RW, 1001, 80, 0, "x", 1); /* too early: the connection is reset */
	guest_expect(VIRTIO_VSOCK_OP_RST, 1001, 80);
	guest_expect_silence();
	host_unlisten(listener, 80);
	for (bool reset = false; !reset;) {
		packet_hdr hdr = guest_get(NULL);

		reset = hdr.op == VIRTIO_VSOCK_OP_RST && hdr.dst_port == 1002;
		CHECK(reset || hdr.op == VIRTIO_VSOCK_OP_SHUTDOWN);
	}
	tear_down();
}

static void closes_by_halves(void)
{
	uint32_t port;
	int fd;

	set_up(16);
	/* The host has said all it has to say. */
	fd = open_from_host(&port);
	host_write(fd, "last");
	shutdown(fd, SHUT_WR);
	guest_expect_data(1234, "last");
	CHECK_EQ(guest_expect(VIRTIO_VSOCK_OP_SHUTDOWN, 1234, port).flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, "answer", 6);
	host_expect(fd, "answer");
	guest_send(VIRTIO_VSOCK_OP_SHUTDOWN, 1234, port, 3, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RST, 1234, port);
	host_expect_end(fd);
	close(fd);
	/* The guest has. */
	fd = open_from_host(&port);
	guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, "last", 4);
	guest_send(VIRTIO_VSOCK_OP_SHUTDOWN, 1234, port, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
	host_expect(fd, "last");
	host_expect_end(fd);
	host_write(fd, "answer");
	guest_expect_data(1234, "answer");
	close(fd);
	guest_expect_closed(1234, port);
	guest_send(VIRTIO_VSOCK_OP_RST, 1234, port, 0, NULL, 0);
	/* The guest will not read any more. */
	fd = open_from_host(&port);
	guest_send(VIRTIO_VSOCK_OP_SHUTDOWN, 1234, port, VIRTIO_VSOCK_SHUTDOWN_RCV, NULL, 0);
	usleep(20000);
	CHECK_EQ(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	close(fd);
	guest_expect_closed(1234, port);
	/* It does not answer either, and hears of the end nevertheless. */
	guest_expect(VIRTIO_VSOCK_OP_RST, 1234, port);
	tear_down();
}

TEST_MAIN(TEST(connects_from_the_host), TEST(reads_the_greeting_exactly), TEST(refuses_bad_greetings),
	  TEST(tells_when_the_guest_refuses), TEST(connects_from_the_guest), TEST(waits_for_a_busy_program),
	  TEST(waits_no_longer_than_is_sensible), TEST(closes_by_halves))
