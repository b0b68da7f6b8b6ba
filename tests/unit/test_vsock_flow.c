/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/vsock_conn: credit in both directions, connections that take turns, all delivered before the end. */
#include "tests/unit/vsock_rig.h"

/* The guest tells of no more room than it has; not a byte more is sent. */
static void respects_the_guests_credit(void)
{
	static char sent[20000], got[20000];
	uint32_t port, total = 0;
	const void *data;
	packet_hdr hdr;
	int fd;

	set_up(32);
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (char)(i * 13 + (i >> 8));
	guest_buffer = 5000;
	fd = open_from_host(&port);
	CHECK_EQ(send(fd, sent, sizeof(sent), 0), sizeof(sent));
	/* The last window is left open: nothing is there to ask credit for. */
	while (total < sizeof(sent)) {
		uint32_t window = 0;

		while (window < 5000 && total + window < sizeof(sent)) {
			hdr = guest_get(&data);
			CHECK_EQ(hdr.op, VIRTIO_VSOCK_OP_RW);
			CHECK(window + hdr.len <= 5000);
			memcpy(got + total + window, data, hdr.len);
			window += hdr.len;
		}
		total += window;
		if (total == sizeof(sent))
			break;
		guest_expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1234, port);
		guest_expect_silence();
		guest_taken = total;
		guest_send(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1234, port, 0, NULL, 0);
	}
	CHECK_EQ(memcmp(sent, got, sizeof(sent)), 0);
	/* A guest that claims to have taken more than it was sent gets nothing. */
	guest_taken = total + 1;
	guest_send(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1234, port, 0, NULL, 0);
	host_write(fd, "x");
	guest_expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1234, port);
	guest_expect_silence();
	close(fd);
	tear_down();
}

/* The host's side reads nothing: the guest's credit runs out exactly at the limit, then all of it arrives. */
static void gives_credit_and_no_more(void)
{
	static uint8_t data[65536], got[65536];
	uint32_t port, sent = 0, room = 0;
	size_t received = 0;
	packet_hdr hdr;
	int fd;

	set_up(200);
	fd = open_from_host(&port);
	/* What the socket itself takes is credit again at once. */
	guest_send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1234, port, 0, NULL, 0);
	hdr = guest_expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1234, port);
	CHECK_EQ(hdr.fwd_cnt, 0);
	for (;;) {
		guest_send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1234, port, 0, NULL, 0);
		do
			hdr = guest_expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1234, port);
		while (driver_wait_used(rx, 5, &(uint16_t){0}, &(uint32_t){0}));
		room = hdr.buf_alloc - (sent - hdr.fwd_cnt);
		if (!room)
			break;
		room = MIN(room, 60001);
		for (uint32_t i = 0; i < room; i++)
			data[i] = (uint8_t)((sent + i) * 7 + ((sent + i) >> 9));
		guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, data, room);
		sent += room;
		CHECK(sent < MIB(4));
	}
	CHECK(sent > VSOCK_BUFFER);
	while (received < sent) {
		ssize_t len = host_read(fd, got, sizeof(got));

		CHECK(len > 0);
		for (ssize_t i = 0; i < len; i++, received++)
			CHECK_EQ(got[i], (uint8_t)(received * 7 + (received >> 9)));
	}
	/* Unasked, the guest hears that there is room again. */
	hdr = guest_expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1234, port);
	CHECK(hdr.fwd_cnt > sent - VSOCK_BUFFER);
	close(fd);
	tear_down();
}

static void resets_who_overdraws(void)
{
	static uint8_t data[65536];
	uint32_t port, count = 0;
	uint16_t op = 0;
	int fd;

	set_up(100);
	fd = open_from_host(&port);
	for (; count < 64 && op != VIRTIO_VSOCK_OP_RST; count++) {
		uint16_t head;
		uint32_t len;

		guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, data, sizeof(data));
		while (driver_wait_used(rx, 5, &head, &len)) {
			struct vring_desc *table = driver_at(driver, le64toh(rx->desc[head].addr));

			op = ((packet_hdr *)driver_at(driver, table->addr))->op;
		}
	}
	CHECK_EQ(op, VIRTIO_VSOCK_OP_RST);
	CHECK(count > VSOCK_BUFFER / sizeof(data));
	close(fd);
	tear_down();
}

/* The guest closes while the host's side has not read all of it: it still gets everything. */
static void delivers_before_it_closes(void)
{
	static uint8_t data[65536];

	for (int with_reset = 0; with_reset < 2; with_reset++) {
		size_t sent = 0, got = 0;
		packet_hdr hdr = {0};
		ssize_t len;
		int fd;

		set_up(100);
		fd = open_from_guest(50);
		do {
			guest_send(VIRTIO_VSOCK_OP_RW, 50, 80, 0, data, 30000);
			sent += 30000;
			guest_send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 50, 80, 0, NULL, 0);
			hdr = guest_expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 50, 80);
			while (driver_wait_used(rx, 5, &(uint16_t){0}, &(uint32_t){0})) {
			}
		} while (hdr.fwd_cnt == sent);
		guest_send(VIRTIO_VSOCK_OP_SHUTDOWN, 50, 80, 3, NULL, 0);
		guest_expect_silence();
		if (with_reset)
			guest_send(VIRTIO_VSOCK_OP_RST, 50, 80, 0, NULL, 0);
		while ((len = host_read(fd, data, sizeof(data))) > 0)
			got += (size_t)len;
		CHECK_EQ(len, 0);
		CHECK_EQ(got, sent);
		if (!with_reset)
			guest_expect(VIRTIO_VSOCK_OP_RST, 50, 80);
		guest_expect_silence();
		close(fd);
		tear_down();
	}
}

/* Many connections share few buffers. */
static void takes_turns(void)
{
	enum { MANY = 40 };
	unsigned int seen[MANY] = {0};
	uint32_t ports[MANY];
	int fds[MANY];

	set_up(2 * MANY);
	for (int i = 0; i < MANY; i++)
		fds[i] = open_from_host(&ports[i]);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	for (int i = 0; i < MANY; i++) {
		static char block[30000];

		CHECK_EQ(send(fds[i], block, sizeof(block), 0), sizeof(block));
	}
	post(3 * MANY, RX_SIZE);
	device->ops->resume(device);
	for (int i = 0; i < 4 * MANY; i++) {
		packet_hdr hdr = guest_get(NULL);

		for (int j = 0; j < MANY; j++)
			seen[j] += hdr.op == VIRTIO_VSOCK_OP_RW && hdr.src_port == ports[j];
	}
	for (int i = 0; i < MANY; i++) {
		CHECK(seen[i] >= 3);
		close(fds[i]);
	}
	tear_down();
}

TEST_MAIN(TEST(respects_the_guests_credit), TEST(gives_credit_and_no_more), TEST(resets_who_overdraws),
	  TEST(delivers_before_it_closes), TEST(takes_turns))
