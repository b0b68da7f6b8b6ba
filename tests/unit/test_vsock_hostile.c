/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/vsock and vsock_conn: a guest that sends nonsense, remembers nothing, or opens without end. */
#include "tests/unit/shortage.h"
#include "tests/unit/vsock_rig.h"

static void answers_nonsense_with_reset(void)
{
	uint32_t port;
	int fd;

	set_up(100);
	for (uint16_t op = 0; op < 12; op++) {
		if (op == VIRTIO_VSOCK_OP_RST)
			continue;
		guest_send(op, 7, 8, 0, NULL, 0);
		guest_expect(VIRTIO_VSOCK_OP_RST, 7, 8);
	}
	guest_send(VIRTIO_VSOCK_OP_RST, 7, 8, 0, NULL, 0);
	guest_expect_silence();
	/* On a connection that there is. */
	fd = open_from_host(&port);
	guest_send(VIRTIO_VSOCK_OP_REQUEST, 1234, port, 0, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RST, 1234, port);
	host_expect_end(fd);
	close(fd);
	fd = open_from_host(&port);
	guest_send(99, 1234, port, 0, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RST, 1234, port);
	close(fd);
	fd = open_from_host(&port);
	guest_send(VIRTIO_VSOCK_OP_SHUTDOWN, 1234, port, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
	guest_send(VIRTIO_VSOCK_OP_RW, 1234, port, 0, "x", 1);
	guest_expect(VIRTIO_VSOCK_OP_RST, 1234, port);
	close(fd);
	CHECK(!device->broken);
	tear_down();
}

/* Without receive buffers the answers wait, a bounded number of them; the guest's queue is not emptied beyond. */
static void bounds_what_it_remembers(void)
{
	uint64_t gpa;
	unsigned int used = 0, answers = 0;
	uint16_t head;
	uint32_t len;

	set_up(0);
	gpa = driver_alloc(driver, HDR, 1);
	*(packet_hdr *)driver_at(driver, gpa) = (packet_hdr){
		.src_cid = CID, .dst_cid = 2, .src_port = 5, .dst_port = 6, .type = 1, .op = VIRTIO_VSOCK_OP_RW};
	for (unsigned int i = 0; i < 200; i++)
		CHECK(driver_add(tx, (struct driver_segment[]){{gpa, HDR, false}}, 1, false) >= 0);
	driver_kick(tx);
	while (used < VSOCK_MAX_ORPHANS && driver_wait_used(tx, WAIT, &head, &len))
		used++;
	CHECK_EQ(used, VSOCK_MAX_ORPHANS);
	CHECK(!driver_wait_used(tx, 50, &head, &len));
	post(250, RX_SIZE);
	while (answers < 200 && driver_wait_used(rx, WAIT, &head, &len))
		answers++;
	while (used < 200 && driver_wait_used(tx, WAIT, &head, &len))
		used++;
	CHECK_EQ(used, 200);
	CHECK_EQ(answers, 200);
	CHECK(!driver_wait_used(rx, 50, &head, &len));
	tear_down();
}

static void ignores_strangers(void)
{
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up(16);
	gpa = driver_alloc(driver, HDR, 1);
	for (int i = 0; i < 3; i++) {
		*(packet_hdr *)driver_at(driver, gpa) = (packet_hdr){
			.src_cid = i == 0 ? CID + 1 : CID, .dst_cid = i == 1 ? 3 : 2, .src_port = 5, .dst_port = 6,
			.type = i == 2 ? 2 : 1, .op = VIRTIO_VSOCK_OP_REQUEST};
		CHECK(driver_add(tx, (struct driver_segment[]){{gpa, HDR, false}}, 1, false) >= 0);
		driver_kick(tx);
		CHECK(driver_wait_used(tx, WAIT, &head, &len));
		if (i < 2) {
			guest_expect_silence();
		} else {
			CHECK(driver_wait_used(rx, WAIT, &head, &len));
			gpa = le64toh(((struct vring_desc *)driver_at(driver, le64toh(rx->desc[head].addr)))->addr);
			CHECK_EQ(((packet_hdr *)driver_at(driver, gpa))->type, 2);
			CHECK_EQ(((packet_hdr *)driver_at(driver, gpa))->op, VIRTIO_VSOCK_OP_RST);
		}
	}
	tear_down();
}

static void breaks_on_short_packets(void)
{
	for (int i = 0; i < 3; i++) {
		struct driver_queue *queue;
		uint64_t gpa;

		set_up(0);
		queue = i == 2 ? rx : tx;
		gpa = driver_alloc(driver, HDR, 1);
		((packet_hdr *)driver_at(driver, gpa))->len = 1;
		driver_add(queue, (struct driver_segment[]){{gpa, i == 1 ? HDR - 1 : HDR, i == 2}}, 1, false);
		driver_kick(queue);
		for (int ms = 0; ms < WAIT && !__atomic_load_n(&device->broken, __ATOMIC_SEQ_CST); ms++)
			usleep(1000);
		CHECK(device->broken);
		CHECK(queue->vq->broken);
		tear_down();
	}
}

static void limits_connections(void)
{
	static int fds[VSOCK_MAX_CONNECTIONS + 1];
	unsigned int open = 0;
	char byte;

	set_up(16);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = host_connect();
	host_expect_end(fds[VSOCK_MAX_CONNECTIONS]);
	for (unsigned int i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
		open += recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0;
	CHECK_EQ(open, VSOCK_MAX_CONNECTIONS);
	guest_send(VIRTIO_VSOCK_OP_REQUEST, 5, 80, 0, NULL, 0);
	guest_expect(VIRTIO_VSOCK_OP_RST, 5, 80);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	close(open_from_host(&(uint32_t){0}));
	tear_down();
}

/* Programs and guests that ask while there is no descriptor are served when there is one. */
static void waits_for_descriptors(void)
{
	static struct shortage shortage;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, listener;

	set_up(32);
	listener = host_listen(80);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	shortage_begin(&shortage);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	host_write(fd, "CONNECT 44\n");
	guest_send(VIRTIO_VSOCK_OP_REQUEST, 5, 80, 0, NULL, 0);
	guest_expect_silence();
	shortage_end(&shortage);
	for (unsigned int i = 0; i < 2; i++) {
		packet_hdr hdr = guest_get(NULL);

		CHECK_EQ(hdr.op, hdr.dst_port == 44 ? VIRTIO_VSOCK_OP_REQUEST : VIRTIO_VSOCK_OP_RESPONSE);
	}
	close(fd);
	host_unlisten(listener, 80);
	tear_down();
}

/* Half of the descriptors stay for others. */
static void takes_half_of_the_descriptors(void)
{
	static int fds[129];
	struct rlimit before;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){256, before.rlim_max}), 0);
	set_up(16);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = host_connect();
	host_expect_end(fds[128]);
	CHECK_EQ(recv(fds[127], &(char){0}, 1, MSG_DONTWAIT), -1);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	tear_down();
}

TEST_MAIN(TEST(answers_nonsense_with_reset), TEST(bounds_what_it_remembers), TEST(ignores_strangers),
	  TEST(breaks_on_short_packets), TEST(limits_connections), TEST(waits_for_descriptors),
	  TEST(takes_half_of_the_descriptors))
