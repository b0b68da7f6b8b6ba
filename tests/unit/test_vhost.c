/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/vhost and the kernel's form of vsock, on a kernel of the test's own: its openat(2) and ioctl(2) stand
 * in for the C library's. What is written while it is tracked is told once and never lost; each call fails in turn.
 */
#include "core/bitmap.h"
#include "core/irq.h"
#include "devices/virtio/vhost.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define RAM_SIZE MIB(1)
#define PAGES (RAM_SIZE / 4096)
#define LOG_ALL (1ull << VHOST_F_LOG_ALL)
#define RING_FEATURES (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC)

/* ---- the kernel ---- */

static struct {
	int fd; /* of the device that is open */
	uint64_t offers, features;
	unsigned long *log;
	uint16_t base[VHOST_RINGS];
	struct vhost_vring_addr addr[VHOST_RINGS];
	int kick[VHOST_RINGS], call[VHOST_RINGS];
	bool running; /* vsock */
	unsigned int calls, fail_at; /* 0: none fails */
	unsigned int started;
} k;

int openat(int folder, const char *path, int flags, ...)
{
	if (strncmp(path, "/dev/vhost-", 11) == 0)
		return k.fd = memfd_create("vhost", MFD_CLOEXEC);
	return (int)syscall(SYS_openat, folder, path, flags, 0);
}

static int serve(unsigned long request, void *arg)
{
	const struct vhost_vring_file *file = arg;
	struct vhost_vring_state *state = arg;

	switch (request) {
	case VHOST_GET_FEATURES:
		*(uint64_t *)arg = k.offers;
		break;
	case VHOST_SET_FEATURES:
		CHECK(!(*(uint64_t *)arg & ~k.offers));
		CHECK(!(*(uint64_t *)arg & LOG_ALL) || k.log);
		k.features = *(uint64_t *)arg;
		break;
	case VHOST_SET_LOG_BASE:
		k.log = (unsigned long *)(uintptr_t)*(uint64_t *)arg;
		break;
	case VHOST_SET_VRING_BASE:
		k.base[state->index] = (uint16_t)state->num;
		break;
	case VHOST_GET_VRING_BASE:
		state->num = k.base[state->index];
		break;
	case VHOST_SET_VRING_ADDR:
		k.addr[((struct vhost_vring_addr *)arg)->index] = *(struct vhost_vring_addr *)arg;
		break;
	case VHOST_SET_VRING_KICK:
		k.kick[file->index] = file->fd;
		break;
	case VHOST_SET_VRING_CALL:
		k.call[file->index] = file->fd;
		break;
	case VHOST_VSOCK_SET_RUNNING:
		k.running = *(int *)arg;
		k.started += k.running;
		break;
	default:
		break;
	}
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *arg;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	if (fd != k.fd)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	if (++k.calls == k.fail_at) {
		errno = EIO;
		return -1;
	}
	return serve(request, arg);
}

/* What a worker does: bytes into guest memory, then the bit, where the log is on. */
static void kernel_writes(uint64_t page)
{
	if (k.features & LOG_ALL)
		bitmap_set(k.log, DRIVER_RAM_BASE / 4096 + page);
}

/* ---- one vhost with two rings ---- */

static struct vhost *vhost;
static struct dirty_set set;
static struct virtio_driver *driver;
static struct virtqueue rings[VHOST_RINGS];
static struct virtio_device *device;
static struct event_loop *loop;

static void tear_down(void)
{
	k.fail_at = 0;
	vhost_close(vhost);
	vhost = NULL;
	driver_destroy(driver);
	driver = NULL;
	event_loop_destroy(loop);
	loop = NULL;
	CHECK(!set.first);
	dirty_set_stop(&set);
}

static void set_up(void)
{
	struct vhost_options options = {.path = "/dev/vhost-test", .module = "m", .instead = "i", .dirty = &set};

	tear_down();
	memset(&k, 0, sizeof(k));
	k.offers = RING_FEATURES | LOG_ALL;
	driver = driver_create(RAM_SIZE, false);
	options.memory = driver->memory;
	CHECK_EQ(vhost_open(&options, &vhost, NULL), 0);
	for (unsigned int i = 0; i < VHOST_RINGS; i++) {
		rings[i] = (struct virtqueue){.setup.size = 16, .max_size = 16, .kick_fd = (int)(1000 + i)};
		rings[i].setup.desc = driver_alloc(driver, KIB(12), 4096);
		rings[i].setup.avail = rings[i].setup.desc + KIB(4);
		rings[i].setup.used = rings[i].setup.desc + KIB(8);
		CHECK_EQ(virtqueue_start(&rings[i], driver->memory, 0, NULL), 0);
	}
}

static void start_rings(void)
{
	CHECK_EQ(vhost_set_features(vhost, RING_FEATURES, NULL), 0);
	for (unsigned int i = 0; i < VHOST_RINGS; i++)
		CHECK_EQ(vhost_ring_start(vhost, i, &rings[i], -1, NULL), 0);
}

static bool logs(unsigned int ring)
{
	return k.addr[ring].flags & 1u << VHOST_VRING_F_LOG;
}

static unsigned int told(uint64_t first, uint64_t pages, unsigned long *bitmap)
{
	unsigned int count = 0;

	memset(bitmap, 0, bitmap_longs(PAGES) * sizeof(unsigned long));
	CHECK_EQ(dirty_set_collect(&set, DRIVER_RAM_BASE + first * 4096, pages * 4096, bitmap, NULL), 0);
	for (uint64_t i = 0; i < pages; i++)
		count += bitmap_test(bitmap, i);
	return count;
}

static void tracking_begins_and_ends_while_rings_run(void)
{
	unsigned long bitmap[PAGES / 64];

	set_up();
	start_rings();
	CHECK(!(k.features & LOG_ALL) && !logs(0) && !logs(1));
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	CHECK_EQ(k.features, RING_FEATURES | LOG_ALL);
	CHECK(logs(0) && logs(1));
	CHECK_EQ(k.addr[1].log_guest_addr, rings[1].setup.used);
	CHECK_EQ(k.addr[1].desc_user_addr, (uintptr_t)rings[1].desc_host);
	kernel_writes(3);
	kernel_writes(200);
	CHECK_EQ(told(0, PAGES, bitmap), 2);
	CHECK(bitmap_test(bitmap, 3) && bitmap_test(bitmap, 200));
	CHECK_EQ(told(0, PAGES, bitmap), 0); /* once */
	dirty_set_stop(&set);
	CHECK_EQ(k.features, RING_FEATURES);
	CHECK(!logs(0) && !logs(1));
	tear_down();
}

/* The driver has moved its interrupts: they go there, and one more, in case one went to the old place. */
static void interrupts_may_move_while_a_ring_runs(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	set_up();
	start_rings();
	vhost_ring_call(vhost, 1, fd);
	CHECK_EQ(k.call[0], -1);
	CHECK_EQ(k.call[1], fd);
	CHECK(eventfd_drain(fd));
	vhost_ring_stop(vhost, 1, &rings[1]);
	CHECK_EQ(k.call[1], -1);
	vhost_ring_call(vhost, 1, fd);
	CHECK_EQ(k.call[1], -1);
	CHECK(!eventfd_drain(fd));
	close(fd);
	tear_down();
}

static void rings_that_start_later_are_tracked_too(void)
{
	set_up();
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	CHECK_EQ(k.features, 0); /* nothing is negotiated */
	start_rings();
	CHECK_EQ(k.features, RING_FEATURES | LOG_ALL);
	CHECK(logs(0) && logs(1));
	k.base[0] = 7;
	vhost_ring_stop(vhost, 0, &rings[0]);
	CHECK_EQ(rings[0].next_avail, 7);
	CHECK_EQ(k.kick[0], -1);
	k.addr[0].flags = 99;
	dirty_set_stop(&set); /* says nothing of a ring that has been taken back */
	CHECK_EQ(k.addr[0].flags, 99);
	CHECK(!logs(1));
	tear_down();
}

static void a_part_of_memory_is_asked_for(void)
{
	unsigned long bitmap[PAGES / 64];
	struct err err;

	set_up();
	start_rings();
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	for (uint64_t i = 0; i < PAGES; i++)
		kernel_writes(i);
	CHECK_EQ(told(5, 90, bitmap), 90);
	CHECK_EQ(told(0, 6, bitmap), 5);
	CHECK_EQ(told(94, PAGES - 94, bitmap), PAGES - 95);
	CHECK_EQ(dirty_set_collect(&set, DRIVER_RAM_BASE + RAM_SIZE, 4096, bitmap, &err), -EINVAL);
	CHECK_EQ(dirty_set_collect(&set, UINT64_MAX - 4095, 4096, bitmap, &err), -EINVAL);
	dirty_set_stop(&set);
	CHECK_EQ(dirty_set_collect(&set, DRIVER_RAM_BASE, 4096, bitmap, &err), -EINVAL);
	tear_down();
}

static void tracking_that_begins_anew_forgets(void)
{
	unsigned long bitmap[PAGES / 64];

	set_up();
	start_rings();
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	kernel_writes(9);
	dirty_set_stop(&set);
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	CHECK_EQ(told(0, PAGES, bitmap), 0);
	tear_down();
}

static void a_kernel_without_a_log_is_named(void)
{
	struct err err;

	set_up();
	vhost_close(vhost);
	k.offers = RING_FEATURES;
	CHECK_EQ(vhost_open(&(struct vhost_options){.path = "/dev/vhost-test", .memory = driver->memory, .dirty = &set}, &vhost,
			    NULL), 0);
	CHECK_EQ(dirty_set_start(&set, &err), -ENOTSUP);
	CHECK(strstr(err.text, "/dev/vhost-test"));
	tear_down();
}

static void memory_waits_until_nobody_tracks(void)
{
	struct guest_region more = {.gpa = MIB(64), .size = 4096, .host = driver, .fd = -1};
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct err err;

	set_up();
	more.host = page;
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	CHECK_EQ(guest_memory_add(driver->memory, &more, &err), -EBUSY);
	dirty_set_stop(&set);
	CHECK_EQ(guest_memory_add(driver->memory, &more, &err), 0);
	tear_down();
	munmap(page, 4096);
}

static void each_call_fails_in_turn(void)
{
	struct err err;
	int ret = -1;

	for (unsigned int at = 1; ret < 0; at++) {
		set_up();
		start_rings();
		k.calls = 0;
		k.fail_at = at;
		ret = dirty_set_start(&set, &err);
		CHECK_EQ(ret, at <= 4 ? -EIO : 0); /* log, features, two rings */
		if (ret < 0) {
			CHECK(!set.users && strstr(err.text, "/dev/vhost-test"));
			CHECK_EQ(k.features, RING_FEATURES);
			CHECK(!logs(0) && !logs(1));
		}
	}
	tear_down();
}

/* The kernel goes on writing where it could not be told to stop: into memory that is still there. */
static void a_log_that_cannot_be_switched_off_stays(void)
{
	unsigned long bitmap[PAGES / 64];

	set_up();
	start_rings();
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	k.fail_at = k.calls + 1;
	dirty_set_stop(&set);
	CHECK(k.features & LOG_ALL);
	kernel_writes(1);
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	CHECK_EQ(told(0, PAGES, bitmap), 0);
	kernel_writes(2);
	CHECK_EQ(told(0, PAGES, bitmap), 1);
	tear_down();
}

/* ---- the kernel's vsock ---- */

static int create_vsock(struct err *err)
{
	const struct virtio_vsock_options options = {.id = "vsock0", .cid = 3, .dirty = &set};

	return virtio_vsock_create(&options, driver->memory, loop, NULL, &device, err);
}

static void set_up_vsock(void)
{
	tear_down();
	memset(&k, 0, sizeof(k));
	k.offers = RING_FEATURES | LOG_ALL;
	driver = driver_create(RAM_SIZE, false);
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(create_vsock(NULL), 0);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
}

/* It fills buffers and does not say which. */
static void vsock_stands_still_while_somebody_tracks(void)
{
	set_up_vsock();
	CHECK(k.running);
	k.base[0] = 3;
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	CHECK(!k.running);
	CHECK_EQ(device->queues[0].next_avail, 3);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	device->ops->resume(device);
	CHECK(!k.running);
	dirty_set_stop(&set);
	CHECK(k.running);
	CHECK_EQ(k.base[0], 3);
	device->ops->drain(device, VIRTIO_NO_DEADLINE, NULL);
	CHECK(!k.running);
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	dirty_set_stop(&set);
	CHECK(!k.running); /* it is at rest for another reason */
	device->ops->resume(device);
	CHECK(k.running);
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	driver_reset(driver);
	dirty_set_stop(&set);
	CHECK(!k.running);
	tear_down();
}

static void vsock_moves_and_tells_the_guest(void)
{
	struct driver_luggage luggage;
	struct driver_queue *event;
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up_vsock();
	event = &driver->queues[2];
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	driver_pack(driver, &luggage);
	dirty_set_stop(&set);
	CHECK_EQ(create_vsock(NULL), 0);
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
	CHECK(k.running);
	CHECK(!driver_used(event, &head, &len)); /* no buffer for it yet */
	gpa = driver_alloc(driver, 4, 4);
	memset(driver_at(driver, gpa), 0xff, 4);
	driver_add(event, &(struct driver_segment){gpa, 4, true}, 1, false);
	driver_kick(event);
	driver_pack(driver, &luggage);
	CHECK_EQ(create_vsock(NULL), 0);
	CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
	CHECK(driver_used(event, &head, &len));
	CHECK_EQ(len, 4);
	CHECK_EQ(get_le32(driver_at(driver, gpa)), VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	tear_down();
}

static void vsock_leaves_nothing_behind(void)
{
	unsigned int calls;
	int ret = -1;

	set_up_vsock();
	driver_reset(driver);
	device->ops->destroy(device);
	driver->device = NULL;
	for (unsigned int at = 1; ret < 0; at++) {
		k.calls = 0;
		k.fail_at = at;
		ret = create_vsock(NULL);
		CHECK(ret == 0 || !set.first);
		calls = k.calls;
	}
	CHECK(calls >= 4);
	device->ops->destroy(device);
	tear_down();
}

TEST_MAIN(TEST(tracking_begins_and_ends_while_rings_run), TEST(interrupts_may_move_while_a_ring_runs),
	  TEST(rings_that_start_later_are_tracked_too),
	  TEST(a_part_of_memory_is_asked_for), TEST(tracking_that_begins_anew_forgets),
	  TEST(a_kernel_without_a_log_is_named), TEST(memory_waits_until_nobody_tracks), TEST(each_call_fails_in_turn),
	  TEST(a_log_that_cannot_be_switched_off_stays),
	  TEST(vsock_stands_still_while_somebody_tracks), TEST(vsock_moves_and_tells_the_guest),
	  TEST(vsock_leaves_nothing_behind))
