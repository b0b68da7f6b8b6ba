/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio network device driven by nonsense from both sides: a guest with hostile rings, packets and commands, and a
 * peer that is either a tap in all but name (a socket that keeps packets whole) or passt's stream. Nothing outside
 * guest memory may be touched, and the device always comes to rest.
 */
#include "devices/virtio/net_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/virtio_actions.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RAM MIB(4)
#define AREA KIB(256) /* at the end of memory, for buffers */
#define ACTIONS 64

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listener;

static void tidy(void)
{
	unlink(address.sun_path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/mvmm-fuzz-net-%d", (int)getpid());
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 8) < 0 || atexit(tidy))
		abort();
	return 0;
}

/* ---- a tap in all but name ---- */

static ssize_t fake_receive(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count)
{
	ssize_t len = readv(backend->fds[pair], iov, (int)count);

	return len > 0 ? len : len < 0 && errno == EAGAIN ? -EAGAIN : -EPIPE;
}

static int fake_send(struct net_backend *backend, unsigned int pair, const struct iovec *iov, unsigned int count,
		     size_t bytes)
{
	if (writev(backend->fds[pair], iov, (int)count) >= 0)
		return 0;
	if (errno == EFAULT || errno == EINVAL)
		abort(); /* nothing but memory, and no more segments than may be */
	return errno == EAGAIN ? -EAGAIN : errno == EPIPE ? -EPIPE : 0;
}

static int fake_set_offloads(struct net_backend *backend, uint64_t offloads)
{
	if (offloads & ~NET_GUEST_OFFLOADS)
		abort();
	return 0;
}

static int fake_set_pair(struct net_backend *backend, unsigned int pair, bool on)
{
	if (pair >= backend->pairs)
		abort();
	return 0;
}

static void fake_destroy(struct net_backend *backend)
{
	for (unsigned int i = 0; i < backend->pairs; i++)
		fd_close(&backend->fds[i]);
	free(backend);
}

static const struct net_backend_ops fake_ops = {
	.receive = fake_receive,
	.send = fake_send,
	.set_offloads = fake_set_offloads,
	.set_pair = fake_set_pair,
	.destroy = fake_destroy,
};

static int make_fake(struct virtio_driver *driver, int *far, struct virtio_device **ret)
{
	const struct virtio_net_options options = {.id = "net0"};
	struct net_backend *backend = calloc(1, sizeof(*backend));
	int ends[2];

	*backend = (struct net_backend){.ops = &fake_ops, .pairs = 2, .features = NET_GUEST_OFFLOADS};
	for (int i = 0; i < 2; i++) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
			abort();
		backend->fds[i] = ends[0];
		far[i] = ends[1];
	}
	return net_create(&options, backend, driver->memory, NULL, ret, NULL);
}

static int make_passt(struct virtio_driver *driver, int *far, struct virtio_device **ret)
{
	const struct virtio_net_options options = {
		.id = "net0", .passt = true, .socket = address.sun_path, .queues = 1};
	int code = virtio_net_create(&options, driver->memory, NULL, ret, NULL);

	far[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	far[1] = -1;
	return code;
}

/* ---- actions ---- */

static uint64_t area(struct virtio_driver *driver, struct input *in)
{
	return driver->ram.gpa + RAM - AREA + take(in, 2);
}

static void add_packet(struct virtio_driver *driver, struct input *in, uint16_t *next)
{
	unsigned int index = 1 + 2 * (take(in, 1) % (driver->device->queue_count / 2));
	struct virtio_net_hdr_v1 hdr = {.flags = (uint8_t)take(in, 1) & 1, .gso_type = (uint8_t)take(in, 1) & 3};
	uint64_t gpa = area(driver, in);
	struct driver_segment segments[20];

	memcpy(driver_at(driver, gpa), &hdr, sizeof(hdr));
	add_chain(&driver->queues[index], segments, cut(in, gpa, 1 + (uint32_t)take(in, 2) * 2, false, segments, 20),
		  &next[index]);
}

static void add_buffers(struct virtio_driver *driver, struct input *in, uint16_t *next)
{
	unsigned int index = 2 * (take(in, 1) % (driver->device->queue_count / 2)), count = take(in, 1) & 31;
	struct driver_segment segments[20];

	while (count--) {
		uint32_t len = 12 + (uint32_t)take(in, 2) * 2;

		add_chain(&driver->queues[index], segments, cut(in, area(driver, in), len, true, segments, 20),
			  &next[index]);
	}
}

static void add_command(struct virtio_driver *driver, struct input *in, uint16_t *next)
{
	unsigned int index = driver->device->queue_count - 1;
	uint64_t gpa = area(driver, in), request = take(in, 8);
	struct driver_segment segments[5];
	unsigned int count;

	put_le16(driver_at(driver, gpa), (uint16_t)((take(in, 1) % 6) | (request & 1) << 8));
	memcpy(driver_at(driver, gpa + 2), &request, sizeof(request));
	count = cut(in, gpa, 2 + (uint32_t)take(in, 1) % 12, false, segments, 4);
	segments[count++] = (struct driver_segment){gpa + 16, 1, true};
	add_chain(&driver->queues[index], segments, count, &next[index]);
	driver_kick(&driver->queues[index]);
}

/* The peer sends; on passt's stream with a true length in front, or whatever the input has. */
static void send_from_peer(struct input *in, const int *far)
{
	static uint8_t bytes[70000];
	size_t len = take(in, 2) * 17 % sizeof(bytes) + 1;
	uint32_t length = htobe32((uint32_t)len);
	uint64_t how = take(in, 1);

	memcpy(bytes, in->data, MIN(in->left, 32u));
	if (how & 1)
		send(far[0], &length, sizeof(length), MSG_DONTWAIT | MSG_NOSIGNAL);
	send(far[how >> 1 & 1], bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void drain(const int *far)
{
	static uint8_t bytes[70000];

	for (int i = 0; i < 2; i++)
		for (int n = 0; n < 8 && recv(far[i], bytes, sizeof(bytes), MSG_DONTWAIT) > 0; n++) {
		}
}

static void act(struct virtio_driver *driver, struct input *in, uint16_t *next, int *far)
{
	unsigned int what = (unsigned int)take(in, 1);

	switch (what & 15) {
	case 0:
	case 1:
	case 2:
		add_packet(driver, in, next);
		break;
	case 3:
	case 4:
		add_buffers(driver, in, next);
		break;
	case 5:
		add_command(driver, in, next);
		break;
	case 6:
		send_from_peer(in, far);
		break;
	case 7:
		drain(far);
		if (what >> 4 == 15)
			fd_close(&far[0]);
		break;
	default:
		act_at_random(driver, in, what, next);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint64_t shape = take(&in, 1);
	struct virtio_driver *driver = driver_create(RAM, false);
	uint16_t next[VIRTIO_MAX_QUEUES] = {0};
	struct virtio_device *device;
	int far[2], ret;

	ret = shape & 1 ? make_passt(driver, far, &device) : make_fake(driver, far, &device);
	if (ret < 0 || driver_attach(driver, device, shape & 2 ? DRIVER_ALL_FEATURES : take(&in, 8)) < 0)
		abort();
	for (unsigned int i = 0; in.left && i < ACTIONS; i++)
		act(driver, &in, next, far);
	for (unsigned int i = 0; i < device->queue_count; i++)
		driver_kick_always(&driver->queues[i]);
	drain(far);
	driver_destroy(driver);
	fd_close(&far[0]);
	fd_close(&far[1]);
	return 0;
}
