/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user-space virtio-vsock driven by nonsense from both sides: a guest with hostile rings and packets that are sound
 * or nearly so, and programs of the host that connect, write, read and leave at any time. Nothing outside guest memory
 * may be touched, and the device always comes to rest with all its sockets closed.
 */
#include "devices/virtio/vsock_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/virtio_actions.h"

#include <sys/socket.h>
#include <sys/un.h>

#define RAM MIB(2)
#define AREA KIB(256) /* at the end of memory, for buffers */
#define ACTIONS 96
#define CID 3u
#define PEERS 8u
#define PORT 80u
#define GUEST_PORT 1u

static char path[64];
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct event_loop *loop;
static int listener;

static void tidy(void)
{
	unlink(address.sun_path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	snprintf(path, sizeof(path), "/tmp/mvmm-fuzz-vsock-%d", (int)getpid());
	snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", path, PORT);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 64) < 0 ||
	    event_loop_create(&loop, NULL) < 0 || event_loop_start(loop, "loop", NULL) < 0 || atexit(tidy))
		abort();
	return 0;
}

static uint64_t area(struct virtio_driver *driver, struct input *in)
{
	return driver->ram.gpa + RAM - AREA + take(in, 2);
}

/* Two connections that there may be, one begun by each side; and one that there is not. */
static void choose_ports(struct input *in, struct virtio_vsock_hdr *hdr)
{
	uint64_t choice = take(in, 1) % 8;

	hdr->src_port = choice == 7 ? 9 : choice & 1 ? GUEST_PORT : GUEST_PORT + 1;
	hdr->dst_port = choice & 1 ? PORT : 1u << 30;
}

static void add_packet(struct virtio_driver *driver, struct input *in, uint16_t *next)
{
	uint64_t shape = take(in, 1), gpa = area(driver, in);
	uint32_t len = shape & 1 ? 0 : (uint32_t)take(in, 2);
	struct driver_segment segments[20];
	struct virtio_vsock_hdr hdr = {
		.src_cid = shape & 64 && shape & 32 ? take(in, 8) : CID,
		.dst_cid = 2,
		.len = len,
		.type = 1,
		.op = (uint16_t)(take(in, 1) % 9),
		.flags = (uint32_t)take(in, 1) & 3,
		.buf_alloc = (uint32_t)take(in, 2),
		.fwd_cnt = (uint32_t)take(in, 2),
	};

	choose_ports(in, &hdr);
	if (shape & 128 && shape & 32)
		hdr.len = (uint32_t)take(in, 4);
	memcpy(driver_at(driver, gpa), &hdr, sizeof(hdr));
	add_chain(&driver->queues[VSOCK_TX], segments,
		  cut(in, gpa, (uint32_t)sizeof(hdr) + len, false, segments, 20), &next[VSOCK_TX]);
	driver_kick(&driver->queues[VSOCK_TX]);
}

static void add_buffers(struct virtio_driver *driver, struct input *in, uint16_t *next)
{
	unsigned int count = take(in, 1) & 15;
	struct driver_segment segments[8];

	while (count--) {
		uint32_t len = 45 + (uint32_t)take(in, 1) * 16;

		add_chain(&driver->queues[VSOCK_RX], segments, cut(in, area(driver, in), len, true, segments, 8),
			  &next[VSOCK_RX]);
	}
	driver_kick(&driver->queues[VSOCK_RX]);
}

static void connect_peer(int *peer)
{
	struct sockaddr_un device = {.sun_family = AF_UNIX};

	fd_close(peer);
	*peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (*peer >= 0)
		return;
	*peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	memcpy(device.sun_path, path, sizeof(path));
	if (connect(*peer, (struct sockaddr *)&device, sizeof(device)) < 0)
		fd_close(peer);
}

static void send_from_guest(struct virtio_driver *driver, uint16_t op, uint32_t guest_port, uint32_t host_port,
			    uint16_t *next)
{
	uint64_t gpa = driver->ram.gpa + RAM - KIB(8);
	const struct driver_segment segment = {gpa, sizeof(struct virtio_vsock_hdr), false};

	*(struct virtio_vsock_hdr *)driver_at(driver, gpa) = (struct virtio_vsock_hdr){
		.src_cid = CID, .dst_cid = 2, .src_port = guest_port, .dst_port = host_port, .type = 1, .op = op,
		.buf_alloc = 30000};
	add_chain(&driver->queues[VSOCK_TX], &segment, 1, &next[VSOCK_TX]);
	driver_kick(&driver->queues[VSOCK_TX]);
	driver_settle(loop);
}

/* The two connections that choose_ports knows, begun as they should be. */
static void begin(struct virtio_driver *driver, struct input *in, uint16_t *next, int *peers)
{
	static const char line[] = "CONNECT 2\n";

	connect_peer(&peers[0]);
	send(peers[0], line, sizeof(line) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	driver_settle(loop);
	send_from_guest(driver, VIRTIO_VSOCK_OP_RESPONSE, GUEST_PORT + 1, 1u << 30, next);
	send_from_guest(driver, VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, PORT, next);
	connect_peer(&peers[1]);
}

static void act_as_peer(struct input *in, int *peer)
{
	static char bytes[20000];
	uint64_t how = take(in, 1);
	int len;

	switch (how & 7) {
	case 0:
		connect_peer(peer);
		break;
	case 1:
		len = snprintf(bytes, sizeof(bytes), "CONNECT %u\n%s", (unsigned int)take(in, 1) & 3,
			       how & 8 ? "more" : "");
		send(*peer, bytes, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 2:
		len = (int)MIN(in->left, how >> 3);
		send(*peer, in->data, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 3:
		send(*peer, bytes, take(in, 2) % sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 4:
		recv(*peer, bytes, 1 + take(in, 2) % (sizeof(bytes) - 1), MSG_DONTWAIT);
		break;
	case 5:
		shutdown(*peer, how & 8 ? SHUT_RD : SHUT_WR);
		break;
	case 6:
		fd_close(peer);
		break;
	default:
		driver_settle(loop);
	}
}

static void act(struct virtio_driver *driver, struct input *in, uint16_t *next, int *peers)
{
	unsigned int what = (unsigned int)take(in, 1);

	switch (what & 15) {
	case 0:
	case 1:
	case 2:
		add_packet(driver, in, next);
		break;
	case 3:
		add_buffers(driver, in, next);
		break;
	case 4:
	case 5:
	case 6:
		act_as_peer(in, &peers[(what >> 4) % PEERS]);
		break;
	case 7:
		if (what >> 4 == 15)
			virtio_vsock_transport_reset(driver->device);
		else
			driver_settle(loop);
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
	const struct virtio_vsock_options options = {.id = "vsock0", .cid = CID, .socket = path};
	struct virtio_driver *driver = driver_create(RAM, false);
	uint16_t next[VIRTIO_MAX_QUEUES] = {0};
	struct virtio_device *device;
	int peers[PEERS], fd;

	memset(peers, 0xff, sizeof(peers));
	if (virtio_vsock_create(&options, driver->memory, loop, NULL, &device, NULL) < 0 ||
	    driver_attach(driver, device, DRIVER_ALL_FEATURES) < 0)
		abort();
	if (shape & 1) {
		add_buffers(driver, &in, next);
		begin(driver, &in, next, peers);
	}
	for (unsigned int i = 0; in.left && i < ACTIONS; i++)
		act(driver, &in, next, peers);
	for (unsigned int i = 0; i < device->queue_count; i++)
		driver_kick_always(&driver->queues[i]);
	driver_settle(loop);
	driver_destroy(driver);
	for (unsigned int i = 0; i < PEERS; i++)
		fd_close(&peers[i]);
	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
	if (access(path, F_OK) == 0)
		abort();
	return 0;
}
