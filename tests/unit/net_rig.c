/* SPDX-License-Identifier: Apache-2.0 */
/* See net_rig.h. */
#include "tests/unit/net_rig.h"

#include <dirent.h>

struct fake *fake;
struct virtio_driver *driver;
struct driver_queue *rx, *tx, *ctrl;
struct virtio_device *device;

/* ---- the backend ---- */

static ssize_t fake_receive(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count)
{
	ssize_t len = __atomic_load_n(&fake->broken, __ATOMIC_SEQ_CST) ? 0 : readv(backend->fds[pair], iov, (int)count);

	return len > 0 ? len : len == 0 ? -EPIPE : -EAGAIN;
}

static int fake_send(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count,
		     size_t bytes)
{
	while (__atomic_load_n(&fake->hold, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&fake->held, true, __ATOMIC_SEQ_CST);
		poll(NULL, 0, 1);
	}
	return writev(backend->fds[pair], iov, (int)count) < 0 && errno == EAGAIN ? -EAGAIN : 0;
}

static int fake_set_offloads(struct net_backend *backend, uint64_t offloads)
{
	fake->offloads = offloads;
	return 0;
}

static int fake_set_pair(struct net_backend *backend, unsigned int pair, bool on)
{
	fake->on[pair] = on;
	return 0;
}

static void fake_destroy(struct net_backend *backend)
{
	for (int i = 0; i < 2; i++) {
		fd_close(&fake->far[i]);
		fd_close(&backend->fds[i]);
	}
	free(take_ptr(fake));
}

static const struct net_backend_ops fake_ops = {
	.receive = fake_receive,
	.send = fake_send,
	.set_offloads = fake_set_offloads,
	.set_pair = fake_set_pair,
	.destroy = fake_destroy,
};

/* ---- the device ---- */

int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

void make_device_again(struct virtio_net_options options)
{
	options.id = options.id ?: "net0";
	options.machine = options.machine ?: "vm";
	fake = calloc(1, sizeof(*fake));
	fake->base = (struct net_backend){.ops = &fake_ops, .pairs = 2, .features = NET_GUEST_OFFLOADS, .mtu = 1500};
	for (int i = 0; i < 2; i++) {
		int ends[2];

		CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
		fake->base.fds[i] = ends[0];
		fake->far[i] = ends[1];
	}
	CHECK_EQ(net_create(&options, &fake->base, driver->memory, NULL, &device, NULL), 0);
	rx = &driver->queues[0];
	tx = &driver->queues[1];
	ctrl = &driver->queues[4];
}

void make_device(struct virtio_net_options options)
{
	driver = driver_create(MIB(16), false);
	make_device_again(options);
}

void set_up(uint64_t features)
{
	driver_destroy(driver); /* a failed case leaves one */
	make_device((struct virtio_net_options){0});
	CHECK_EQ(driver_attach(driver, device, features), 0);
}

void tear_down(void)
{
	driver_destroy(driver);
	driver = NULL;
}

uint64_t post(struct driver_queue *queue, bool in, const uint32_t *lengths)
{
	struct driver_segment segments[32];
	unsigned int count = 0;
	uint64_t first = 0;

	for (; lengths[count]; count++) {
		uint64_t gpa = driver_alloc(driver, lengths[count], 1);

		first = first ?: gpa;
		segments[count] = (struct driver_segment){gpa, lengths[count], in};
	}
	CHECK(driver_add(queue, segments, count, count > 3) >= 0);
	return first;
}

void make_packet(uint8_t *packet, uint32_t n, uint32_t number)
{
	memset(packet, 0, HDR);
	for (uint32_t i = 0; i < n; i++)
		packet[HDR + i] = (uint8_t)(number * 31 + i * 7 + (i >> 8));
}

void send_from_guest(const uint32_t *lengths, uint32_t number)
{
	uint64_t gpa = post(tx, false, lengths);
	uint32_t total = 0;

	for (unsigned int i = 0; lengths[i]; i++)
		total += lengths[i];
	make_packet(driver_at(driver, gpa), total - HDR, number);
}

ssize_t far_receive(int pair, void *buf, size_t size)
{
	struct pollfd pollfd = {.fd = fake->far[pair], .events = POLLIN};

	return poll(&pollfd, 1, WAIT) == 1 ? recv(fake->far[pair], buf, size, 0) : -1;
}

void expect_far(int pair, uint32_t n, uint32_t number)
{
	static uint8_t got[NET_MAX_PACKET + 1], want[NET_MAX_PACKET];

	CHECK_EQ(far_receive(pair, got, sizeof(got)), HDR + n);
	make_packet(want, n, number);
	CHECK_EQ(memcmp(got, want, HDR + n), 0);
}

void send_to_guest(uint32_t n, uint32_t number)
{
	static uint8_t packet[NET_MAX_PACKET + 100];

	make_packet(packet, n, number);
	CHECK_EQ(send(fake->far[0], packet, HDR + n, 0), HDR + n);
}

void expect_rx(uint64_t gpa, uint32_t n, uint32_t number, uint16_t buffers)
{
	static uint8_t want[NET_MAX_PACKET];

	make_packet(want, n, number);
	put_le16(want + offsetof(struct virtio_net_hdr_v1, num_buffers), buffers);
	CHECK_EQ(memcmp(driver_at(driver, gpa), want, HDR + n), 0);
}

uint8_t control(uint8_t class, uint8_t cmd, const void *data, uint32_t size)
{
	uint64_t request = driver_alloc(driver, 2, 1), body = driver_alloc(driver, size, 1);
	uint64_t ack = driver_alloc(driver, 1, 1);
	struct driver_segment segments[] = {{request, 2, false}, {body, size, false}, {ack, 1, true}};
	uint16_t head;
	uint32_t len;

	memcpy(driver_at(driver, request), (uint8_t[]){class, cmd}, 2);
	memcpy(driver_at(driver, body), data, size);
	*(uint8_t *)driver_at(driver, ack) = 0xaa;
	driver_add(ctrl, segments, 3, false);
	driver_kick(ctrl);
	CHECK(driver_wait_used(ctrl, WAIT, &head, &len));
	CHECK_EQ(len, 1);
	return *(uint8_t *)driver_at(driver, ack);
}

uint8_t pairs(uint16_t count)
{
	uint8_t data[2];

	put_le16(data, count);
	return control(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, data, 2);
}

void read_config(struct virtio_net_config *config)
{
	device->ops->config_read(device, 0, config, offsetof(struct virtio_net_config, speed));
}
