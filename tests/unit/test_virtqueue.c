/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/virtqueue: chains of every legal shape, every kind of nonsense, who wakes whom around the wrap of the
 * indices, dirty pages, and no lost wake-up between two threads.
 */
#include "core/irq.h"
#include "tests/unit/log_pipe.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <poll.h>

#define SIZE 16u

/* A device that does nothing by itself: the tests pop and push. */
struct idle {
	struct virtio_device device;
	struct log log;
};

static int idle_activate(struct virtio_device *device, struct err *err)
{
	return 0;
}

static void idle_reset(struct virtio_device *device)
{
}

static void idle_destroy(struct virtio_device *device)
{
	virtio_device_done(device);
	free(container_of(device, struct idle, device));
}

static const struct virtio_device_ops idle_ops = {
	.activate = idle_activate,
	.reset = idle_reset,
	.destroy = idle_destroy,
};

#define EVENT_IDX (1ull << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (1ull << VIRTIO_RING_F_INDIRECT_DESC)

static struct virtio_driver *driver;
static struct driver_queue *queue;
static struct virtqueue *vq;
static struct virtq_chain chain;

static void set_up_sized(uint64_t features, uint64_t ram)
{
	struct idle *idle = calloc(1, sizeof(*idle));

	driver_destroy(driver);
	driver = driver_create(ram, false);
	idle->log = (struct log){.fd = -1, .level = LOG_ERROR};
	CHECK_EQ(virtio_device_init(&idle->device, &idle_ops, "idle0", 99, 1, (uint16_t[]){SIZE}, driver->memory,
				    &idle->log, NULL), 0);
	CHECK_EQ(driver_attach(driver, &idle->device, features), 0);
	queue = &driver->queues[0];
	vq = queue->vq;
}

static void set_up(uint64_t features)
{
	set_up_sized(features, KIB(256));
}

static void pops_direct_chains(void)
{
	uint64_t a, b, c;
	char text[8];
	uint16_t head;
	uint32_t len;

	set_up(0);
	CHECK_EQ(virtqueue_pop(vq, &chain), 0);
	CHECK(!virtqueue_ready(vq));
	a = driver_alloc(driver, 4, 1);
	b = driver_alloc(driver, 3, 1);
	c = driver_alloc(driver, 100, 1);
	memcpy(driver_at(driver, a), "abcdefg", 7);
	CHECK_EQ(driver_add(queue, (struct driver_segment[]){{a, 4}, {b, 3}, {c, 100, true}}, 3, false), 0);
	CHECK_EQ(virtqueue_pop(vq, &chain), 0);
	driver_kick(queue);
	CHECK(virtqueue_ready(vq));
	CHECK_EQ(virtqueue_pop(vq, &chain), 1);
	CHECK_EQ(chain.head, 0);
	CHECK_EQ(chain.out_count, 2);
	CHECK_EQ(chain.in_count, 1);
	CHECK_EQ(chain.out_bytes, 7);
	CHECK_EQ(chain.in_bytes, 100);
	CHECK(chain.iov[2].iov_base == driver_at(driver, c));
	CHECK_EQ(virtq_chain_read(&chain, 2, text, 8), 5);
	CHECK_EQ(memcmp(text, "cdefg", 5), 0);
	CHECK_EQ(virtq_chain_read(&chain, 7, text, 1), 0);
	CHECK_EQ(virtq_chain_write(&chain, 98, "xyz", 3), 2);
	CHECK_EQ(memcmp((char *)driver_at(driver, c) + 98, "xy", 2), 0);
	CHECK(!driver_used(queue, &head, &len));
	virtqueue_push(vq, &chain, 100);
	CHECK(driver_used(queue, &head, &len));
	CHECK_EQ(head, 0);
	CHECK_EQ(len, 100);
	CHECK_EQ(queue->free_count, SIZE);
}

static void pops_indirect_chains(void)
{
	uint64_t a;

	set_up(INDIRECT);
	a = driver_alloc(driver, 4096, 1);
	for (int round = 0; round < 40; round++) {
		uint16_t head;
		uint32_t len;
		struct driver_segment segments[DRIVER_INDIRECT];

		for (unsigned int i = 0; i < DRIVER_INDIRECT; i++)
			segments[i] = (struct driver_segment){a + i, i + 1, i >= 10};
		CHECK(driver_add(queue, segments, DRIVER_INDIRECT, true) >= 0);
		driver_kick(queue);
		CHECK_EQ(virtqueue_pop(vq, &chain), 1);
		CHECK_EQ(chain.out_count, 10);
		CHECK_EQ(chain.in_count, DRIVER_INDIRECT - 10);
		CHECK_EQ(chain.out_bytes, 55);
		CHECK_EQ(chain.iov[31].iov_len, 32);
		virtqueue_push(vq, &chain, 7);
		CHECK(driver_used(queue, &head, &len));
		CHECK_EQ(len, 7);
	}
}

/* Section 2.7.5.3.2: direct descriptors may come before the indirect one, whose write flag means nothing. */
static void pops_direct_then_indirect(void)
{
	uint64_t a, table;
	struct vring_desc *desc;

	set_up(INDIRECT);
	a = driver_alloc(driver, 64, 1);
	table = driver_alloc(driver, 32, 2) + 2; /* an indirect table needs no alignment */
	desc = driver_at(driver, table);
	memcpy(desc, &(struct vring_desc){a, 8, VRING_DESC_F_NEXT, 1}, 16);
	memcpy((char *)desc + 16, &(struct vring_desc){a + 8, 9, VRING_DESC_F_WRITE, 77}, 16);
	queue->desc[3] = (struct vring_desc){a, 16, VRING_DESC_F_NEXT, 9};
	queue->desc[9] = (struct vring_desc){table, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0};
	driver_add_head(queue, 3);
	driver_kick(queue);
	CHECK_EQ(virtqueue_pop(vq, &chain), 1);
	CHECK_EQ(chain.head, 3);
	CHECK_EQ(chain.out_bytes, 24);
	CHECK_EQ(chain.in_bytes, 9);
}

static void unpops(void)
{
	uint64_t a;

	set_up(0);
	a = driver_alloc(driver, 64, 1);
	for (uint32_t i = 0; i < 3; i++)
		driver_add(queue, &(struct driver_segment){a, i + 1}, 1, false);
	driver_kick(queue);
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < 3; i++) {
			CHECK_EQ(virtqueue_pop(vq, &chain), 1);
			CHECK_EQ(chain.out_bytes, i + 1);
		}
		CHECK_EQ(virtqueue_pop(vq, &chain), 0);
		virtqueue_unpop(vq);
		virtqueue_unpop(vq);
		virtqueue_unpop(vq);
		CHECK(virtqueue_ready(vq));
	}
}

/* As many segments as fit, and one more. */
static void bounds_long_tables(void)
{
	for (uint32_t extra = 0; extra < 2; extra++) {
		uint32_t count = VIRTQUEUE_MAX_SEGMENTS + extra;
		uint64_t table;
		struct vring_desc *desc;

		set_up(INDIRECT);
		table = driver_alloc(driver, 16 * count, 16);
		desc = driver_at(driver, table);
		for (uint32_t i = 0; i < count; i++)
			desc[i] = (struct vring_desc){DRIVER_RAM_BASE + i, 1, i + 1 < count ? VRING_DESC_F_NEXT : 0,
						      (uint16_t)(i + 1)};
		queue->desc[0] = (struct vring_desc){table, 16 * count, VRING_DESC_F_INDIRECT, 0};
		driver_add_head(queue, 0);
		driver_kick(queue);
		CHECK_EQ(virtqueue_pop(vq, &chain), extra ? -EPROTO : 1);
	}
}

/* ---- nonsense ---- */

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define TABLE VRING_DESC_F_INDIRECT
#define RAM DRIVER_RAM_BASE
#define RAM_END (DRIVER_RAM_BASE + KIB(256))
#define INNER (RAM_END - KIB(64)) /* where inner[] is put */

static const struct nonsense {
	const char *what;
	uint64_t features;
	struct vring_desc desc[3];  /* the ring's first descriptors */
	struct vring_desc inner[2]; /* at INNER */
	uint16_t head;
} nonsense[] = {
	{"head outside", 0, .head = SIZE},
	{"next outside", 0, {{RAM, 1, NEXT, SIZE}}},
	{"loop of one", 0, {{RAM, 1, NEXT, 0}}},
	{"loop of three", 0, {{RAM, 1, NEXT, 1}, {RAM, 1, NEXT, 2}, {RAM, 1, NEXT, 0}}},
	{"empty", 0, {{RAM, 0, 0, 0}}},
	{"empty, writable", 0, {{RAM, 1, NEXT, 1}, {RAM, 0, WRITE, 0}}},
	{"below memory", 0, {{RAM - 1, 2, 0, 0}}},
	{"beyond memory", 0, {{RAM_END - 1, 2, 0, 0}}},
	{"all of it and more", 0, {{RAM, UINT32_MAX, 0, 0}}},
	{"wraps", 0, {{UINT64_MAX, 2, 0, 0}}},
	{"wraps to memory", 0, {{UINT64_MAX - 15, RAM + 32, WRITE, 0}}},
	{"readable after writable", 0, {{RAM, 1, WRITE | NEXT, 1}, {RAM, 1, 0, 0}}},
	{"table not negotiated", 0, {{INNER, 16, TABLE, 0}}, {{RAM, 1, 0, 0}}},
	{"table and next", INDIRECT, {{INNER, 16, TABLE | NEXT, 1}, {RAM, 1, 0, 0}}, {{RAM, 1, 0, 0}}},
	{"table in table", INDIRECT, {{INNER, 32, TABLE, 0}}, {{INNER + 16, 16, TABLE, 0}, {RAM, 1, 0, 0}}},
	{"table empty", INDIRECT, {{INNER, 0, TABLE, 0}}, {{RAM, 1, 0, 0}}},
	{"table of half an entry", INDIRECT, {{INNER, 24, TABLE, 0}}, {{RAM, 1, 0, 0}}},
	{"table outside", INDIRECT, {{RAM_END - 8, 16, TABLE, 0}}},
	{"table wraps", INDIRECT, {{UINT64_MAX - 15, 32, TABLE, 0}}},
	{"next outside table", INDIRECT, {{INNER, 16, TABLE, 0}}, {{RAM, 1, NEXT, 1}, {RAM, 1, 0, 0}}},
	{"loop in table", INDIRECT, {{INNER, 32, TABLE, 0}}, {{RAM, 1, NEXT, 1}, {RAM, 1, NEXT, 0}}},
	{"loop in table, nothing but 1 MiB writable", INDIRECT, {{INNER, 16, TABLE, 0}}, {{RAM, 65536, NEXT | WRITE, 0}}},
};

/* Runs a queue into nonsense and looks at everything that must follow. */
static void expect_broken(const char *what)
{
	struct idle *idle = container_of(driver->device, struct idle, device);
	struct log_pipe pipe = LOG_PIPE_CLOSED;
	uint16_t used = queue->used->idx;
	const char *line;

	log_pipe_open(&pipe, LOG_ERROR, NULL);
	idle->log = pipe.log;
	if (virtqueue_pop(vq, &chain) != -EPROTO) {
		printf("# accepted: %s\n", what);
		CHECK(false);
	}
	CHECK(driver->device->broken);
	CHECK(!virtqueue_ready(vq));
	CHECK_EQ(virtqueue_pop(vq, &chain), -EPROTO);
	CHECK_EQ(driver->config_calls, 1);
	CHECK(!virtqueue_enable_kicks(vq));
	virtqueue_push_head(vq, 0, 1);
	virtqueue_notify(vq);
	CHECK_EQ(queue->used->idx, used);
	CHECK_EQ(queue->calls, 0);
	line = log_pipe_read(&pipe);
	CHECK_EQ(strncmp(line, "idle0: ", 7), 0);
	CHECK(strchr(line, '\n') == line + strlen(line) - 1);
	idle->log.fd = -1;
	log_pipe_close(&pipe);
}

static void breaks_on_nonsense(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		set_up(nonsense[i].features);
		memcpy(queue->desc, nonsense[i].desc, sizeof(nonsense[i].desc));
		memcpy(driver_at(driver, INNER), nonsense[i].inner, sizeof(nonsense[i].inner));
		driver_add_head(queue, nonsense[i].head);
		driver_kick(queue);
		expect_broken(nonsense[i].what);
	}
}

static void breaks_when_the_index_jumps(void)
{
	const uint16_t jumps[] = {SIZE + 1, UINT16_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(jumps); i++) {
		set_up(0);
		driver_add(queue, &(struct driver_segment){RAM, 1}, 1, false); /* a sound chain at the head of it all */
		queue->avail_idx = jumps[i];
		driver_kick(queue);
		expect_broken("index too far ahead");
	}
}

/* The device's count of bytes has 32 bits, and so has what it says it wrote. */
static void breaks_on_4_gib(void)
{
	const uint32_t count = 512, size = MIB(8);
	struct vring_desc *desc;
	uint64_t table;

	for (uint32_t extra = 0; extra < 2; extra++) {
		set_up_sized(INDIRECT, MIB(9));
		table = driver_alloc(driver, 16 * count, 16);
		desc = driver_at(driver, table);
		for (uint32_t i = 0; i < count; i++)
			desc[i] = (struct vring_desc){RAM, size, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(i + 1)};
		desc[count - 1] = (struct vring_desc){RAM, size - 1 + extra, VRING_DESC_F_WRITE, 0};
		queue->desc[0] = (struct vring_desc){table, 16 * count, VRING_DESC_F_INDIRECT, 0};
		driver_add_head(queue, 0);
		driver_kick(queue);
		if (extra) {
			expect_broken("4 GiB");
		} else {
			CHECK_EQ(virtqueue_pop(vq, &chain), 1);
			CHECK_EQ(chain.in_bytes, UINT32_MAX);
		}
	}
}

static void reset_heals(void)
{
	set_up(0);
	driver_add_head(queue, SIZE);
	driver_kick(queue);
	expect_broken("head outside");
	driver_reset(driver);
	CHECK_EQ(driver_start(driver, 0), 0);
	driver_add(queue, &(struct driver_segment){driver_alloc(driver, 1, 1), 1}, 1, false);
	driver_kick(queue);
	CHECK_EQ(virtqueue_pop(vq, &chain), 1);
}

static void refuses_bad_rings(void)
{
	struct virtqueue good;
	struct err err;

	set_up(0);
	good = *vq;
	for (unsigned int size = 0; size <= 2 * SIZE; size++) {
		vq->setup.size = (uint16_t)size;
		CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), is_power_of_two(size) && size <= SIZE ? 0 : -EINVAL);
	}
	*vq = good;
	vq->setup.desc += 8;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), -EINVAL);
	*vq = good;
	vq->setup.avail += 1;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), -EINVAL);
	*vq = good;
	vq->setup.used += 2;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), -EINVAL);
	*vq = good;
	vq->setup.desc = RAM_END - 16 * SIZE + 16;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), -EFAULT);
	*vq = good;
	vq->setup.avail = RAM_END - 6 - 2 * SIZE + 2;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), -EFAULT);
	vq->setup.avail -= 2;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), 0);
	*vq = good;
	vq->setup.used = RAM_END - 8 * SIZE - 4; /* the word behind the ring lies outside */
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), -EFAULT);
	vq->setup.used -= 4;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), 0);
	vq->setup.used = UINT64_MAX - 3;
	CHECK_EQ(virtqueue_start(vq, driver->memory, 0, &err), -EFAULT);
	*vq = good;
}

/* ---- used entries ---- */

static void shows_filled_entries_at_once(void)
{
	uint16_t head;
	uint32_t len;

	set_up(0);
	vq->next_used = vq->signalled_used = queue->used_idx = UINT16_MAX; /* in front of the wrap */
	queue->used->idx = UINT16_MAX;
	virtqueue_fill(vq, 1, 6, NULL, 0, 60);
	virtqueue_fill(vq, 0, 5, NULL, 0, 50);
	CHECK(!driver_used(queue, &head, &len));
	virtqueue_publish(vq, 2);
	CHECK(driver_used(queue, &head, &len));
	CHECK_EQ(head, 5);
	CHECK_EQ(len, 50);
	CHECK(driver_used(queue, &head, &len));
	CHECK_EQ(head, 6);
	CHECK_EQ(len, 60);
	CHECK(!driver_used(queue, &head, &len));
}

static bool page_dirty(uint64_t gpa)
{
	struct dirty_source *source = guest_memory_dirty_source(driver->memory);
	unsigned long bitmap = 0;

	CHECK_EQ(source->ops->collect(source, align_down(gpa, 4096), 4096, &bitmap, NULL), 0);
	return bitmap & 1;
}

static void marks_what_it_writes(void)
{
	struct dirty_source *source;
	uint64_t page;

	set_up(EVENT_IDX);
	source = guest_memory_dirty_source(driver->memory);
	page = driver_alloc(driver, 4 * 4096, 4096);
	vq->setup.used = driver_alloc(driver, 2 * 4096, 4096) + 4092; /* the index on one page, the entries on the next */
	CHECK_EQ(virtqueue_start(vq, driver->memory, EVENT_IDX, NULL), 0);
	driver_add(queue, (struct driver_segment[]){{page, 10}, {page + 4096 + 4090, 6, true}, {page + 8192, 4096, true},
						    {page + 12288, 4096, true}}, 4, false);
	driver_kick(queue);
	CHECK_EQ(virtqueue_pop(vq, &chain), 1);
	CHECK_EQ(source->ops->start(source, NULL), 0);
	virtqueue_push(vq, &chain, 7);
	CHECK(page_dirty(vq->setup.used));
	CHECK(page_dirty(vq->setup.used + 4));
	CHECK(!page_dirty(page));
	CHECK(page_dirty(page + 4096));
	CHECK(page_dirty(page + 8192));
	CHECK(!page_dirty(page + 12288));
	virtqueue_push_iov(vq, chain.head, chain.iov + chain.out_count, chain.in_count, 0);
	CHECK(page_dirty(page + 12288));
	CHECK(page_dirty(vq->setup.used + 4));
	virtqueue_enable_kicks(vq);
	CHECK(page_dirty(vq->setup.used + 4));
	source->ops->stop(source);
}

/* ---- who wakes whom ---- */

/*
 * Section 2.7.7.2, literally: an interrupt is due when one of the entries placed since the last look has the index that
 * the driver named. All batch sizes and all distances around the wrap.
 */
static void interrupts_as_the_event_index_says(void)
{
	set_up(EVENT_IDX);
	for (unsigned int count = 0; count <= SIZE; count++) {
		for (int distance = -20; distance <= 20; distance++) {
			for (int start = -20; start <= 2; start++) {
				uint16_t first = (uint16_t)start, event = (uint16_t)(start + distance);
				bool due = false;

				for (unsigned int i = 0; i < count; i++)
					due |= (uint16_t)(first + i) == event;
				vq->next_used = vq->signalled_used = first;
				*driver_used_event(queue) = event;
				queue->calls = 0;
				for (unsigned int i = 0; i < count; i++)
					virtqueue_push_head(vq, 0, 0);
				virtqueue_notify(vq);
				CHECK_EQ(queue->calls, due);
				virtqueue_notify(vq);
				CHECK_EQ(queue->calls, due);
			}
		}
	}
}

static void interrupts_as_the_flag_says(void)
{
	set_up(0);
	virtqueue_notify(vq);
	CHECK_EQ(queue->calls, 0);
	virtqueue_push_head(vq, 0, 0);
	virtqueue_notify(vq);
	CHECK_EQ(queue->calls, 1);
	queue->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	virtqueue_push_head(vq, 0, 0);
	virtqueue_notify(vq);
	CHECK_EQ(queue->calls, 1);
	queue->avail->flags = 0;
	virtqueue_notify(vq);
	CHECK_EQ(queue->calls, 1);
}

static void asks_for_kicks(void)
{
	uint64_t a;

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		set_up(event_idx ? EVENT_IDX : 0);
		a = driver_alloc(driver, 1, 1);
		vq->next_avail = vq->seen_avail = queue->avail_idx = queue->avail->idx = UINT16_MAX - 1;
		virtqueue_disable_kicks(vq);
		for (int round = 0; round < 4; round++) { /* over the wrap */
			CHECK(!virtqueue_enable_kicks(vq));
			driver_add(queue, &(struct driver_segment){a, 1}, 1, false);
			CHECK(driver_kick(queue));
			CHECK_EQ(virtqueue_pop(vq, &chain), 1);
			virtqueue_disable_kicks(vq);
			driver_add(queue, &(struct driver_segment){a, 1}, 1, false);
			CHECK(!driver_kick(queue));
			CHECK(virtqueue_enable_kicks(vq)); /* one came while nobody wanted to hear */
			CHECK_EQ(virtqueue_pop(vq, &chain), 1);
		}
	}
}

/* ---- two threads ---- */

#define ECHOES 60000u

/* Gives every chain back with its first four bytes copied, asleep whenever there is nothing. */
static void *echo(void *unused)
{
	static struct virtq_chain mine;
	struct pollfd pollfd = {.fd = vq->kick_fd, .events = POLLIN};
	uint32_t value, left = ECHOES;

	while (left) {
		if (virtqueue_enable_kicks(vq) == false) {
			if (poll(&pollfd, 1, 5000) == 0)
				return (void *)"the device was not woken";
			eventfd_drain(vq->kick_fd);
		}
		virtqueue_disable_kicks(vq);
		while (left && virtqueue_pop(vq, &mine) == 1) {
			virtq_chain_read(&mine, 0, &value, sizeof(value));
			virtq_chain_write(&mine, 0, &value, sizeof(value));
			virtqueue_push(vq, &mine, sizeof(value));
			left--;
			if (value % 3 == 0)
				virtqueue_notify(vq);
		}
		virtqueue_notify(vq);
	}
	return NULL;
}

/* Adds up to want echo requests; slot n of the buffers is free when fewer than SIZE / 2 are under way. */
static uint32_t send(uint64_t buffers, uint32_t sent, uint32_t want, bool indirect)
{
	uint32_t count;

	for (count = 0; count < want; count++, sent++) {
		uint64_t buffer = buffers + 8 * (sent % (SIZE / 2));

		memcpy(driver_at(driver, buffer), &sent, 4);
		driver_add(queue, (struct driver_segment[]){{buffer, 4}, {buffer + 4, 4, true}}, 2, indirect);
	}
	driver_kick(queue);
	return count;
}

/* The driver's side; what went wrong, or NULL. */
static const char *echo_all(bool indirect)
{
	uint64_t buffers = driver_alloc(driver, 8 * SIZE, 8);
	uint32_t sent = 0, received = 0, value, len;
	uint16_t head;

	while (received < ECHOES) {
		uint32_t room = MIN(SIZE / 2 - (sent - received), ECHOES - sent);

		sent += send(buffers, sent, MIN(room, 1 + received % 5), indirect);
		if (!driver_wait_used(queue, 5000, &head, &len))
			return "the driver was not woken";
		memcpy(&value, driver_at(driver, buffers + 8 * (received % (SIZE / 2)) + 4), 4);
		if (len != 4 || value != received)
			return "a wrong answer";
		received++;
	}
	return NULL;
}

static void loses_no_wake_up(void)
{
	for (unsigned int features = 0; features < 4; features++) {
		const char *complaint;
		void *result = NULL;
		pthread_t thread;

		set_up((features & 1 ? EVENT_IDX : 0) | (features & 2 ? INDIRECT : 0));
		CHECK_EQ(pthread_create(&thread, NULL, echo, NULL), 0);
		complaint = echo_all(features & 2);
		pthread_join(thread, &result);
		if (complaint || result)
			printf("# features %u: %s, %s\n", features, complaint ?: "fine", (char *)result ?: "fine");
		CHECK(!complaint && !result);
	}
	driver_destroy(driver);
	driver = NULL;
}

TEST_MAIN(TEST(pops_direct_chains), TEST(pops_indirect_chains), TEST(pops_direct_then_indirect), TEST(unpops),
	  TEST(bounds_long_tables), TEST(breaks_on_nonsense), TEST(breaks_when_the_index_jumps), TEST(breaks_on_4_gib),
	  TEST(reset_heals),
	  TEST(refuses_bad_rings), TEST(shows_filled_entries_at_once), TEST(marks_what_it_writes),
	  TEST(interrupts_as_the_event_index_says), TEST(interrupts_as_the_flag_says), TEST(asks_for_kicks),
	  TEST(loses_no_wake_up))
