/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/rng and the life that devices on a shared loop have: drain, resume, reset, a broken queue. */
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

static struct event_loop *loop;
static struct virtio_driver *driver;
static struct driver_queue *queue;

static void set_up(void)
{
	struct virtio_device *device;

	driver_destroy(driver);
	event_loop_destroy(loop);
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	driver = driver_create(MIB(1), false);
	CHECK_EQ(virtio_rng_create("rng0", driver->memory, loop, NULL, &device, NULL), 0);
	CHECK_EQ(device->type, VIRTIO_ID_RNG);
	CHECK_EQ(driver_attach(driver, device, DRIVER_ALL_FEATURES), 0);
	queue = &driver->queues[0];
}

static unsigned int count_zeroes(uint64_t gpa, unsigned int len)
{
	const char *bytes = driver_at(driver, gpa);
	unsigned int count = 0;

	for (unsigned int i = 0; i < len; i++)
		count += !bytes[i];
	return count;
}

static void fills_buffers(void)
{
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up();
	gpa = driver_alloc(driver, 4096, 1);
	driver_add(queue, (struct driver_segment[]){{gpa, 1000, true}, {gpa + 1000, 24, true}}, 2, false);
	driver_kick(queue);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
	CHECK_EQ(len, 1024);
	CHECK(count_zeroes(gpa, 1024) < 40);
	CHECK_EQ(count_zeroes(gpa + 1024, 3072), 3072);
}

static void fills_a_long_buffer_in_part(void)
{
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up();
	gpa = driver_alloc(driver, KIB(512), 1);
	for (unsigned int i = 0; i < 32; i++)
		driver_add(queue, &(struct driver_segment){gpa, KIB(512), true}, 1, true);
	driver_kick(queue);
	for (unsigned int i = 0; i < 32; i++) {
		CHECK(driver_wait_used(queue, 5000, &head, &len));
		CHECK(len > 0 && len < KIB(512));
	}
	CHECK(count_zeroes(gpa, len) < len / 64);
	CHECK_EQ(count_zeroes(gpa + len, (unsigned int)KIB(512) - len), KIB(512) - len);
}

static void serves_more_than_a_turn(void)
{
	uint64_t gpa;
	uint16_t head;
	uint32_t len;

	set_up();
	gpa = driver_alloc(driver, 64, 1);
	for (unsigned int sent = 0, got = 0; got < 1000; got++) {
		for (; queue->free_count; sent++)
			driver_add(queue, &(struct driver_segment){gpa, 8, true}, 1, false);
		driver_kick(queue);
		CHECK(driver_wait_used(queue, 5000, &head, &len));
		CHECK_EQ(len, 8);
	}
}

static void stays_idle_while_drained(void)
{
	uint16_t head;
	uint32_t len;
	uint64_t gpa;

	set_up();
	gpa = driver_alloc(driver, 64, 1);
	driver->device->ops->drain(driver->device, VIRTIO_NO_DEADLINE, NULL);
	driver_add(queue, &(struct driver_segment){gpa, 8, true}, 1, false);
	driver_kick_always(queue);
	driver_settle(loop);
	CHECK(!driver_used(queue, &head, &len));
	driver->device->ops->resume(driver->device);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
	driver->device->ops->drain(driver->device, VIRTIO_NO_DEADLINE, NULL);
	driver_reset(driver);
	CHECK_EQ(driver_start(driver, 0), 0);
	driver_add(queue, &(struct driver_segment){driver_alloc(driver, 64, 1), 8, true}, 1, false);
	driver_kick(queue);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
}

/* A queue filled before the device is active is looked at without a kick. */
static void looks_by_itself(void)
{
	uint16_t head;
	uint32_t len;
	uint64_t gpa;

	set_up();
	driver->device->ops->drain(driver->device, VIRTIO_NO_DEADLINE, NULL);
	gpa = driver_alloc(driver, 64, 1);
	driver_add(queue, &(struct driver_segment){gpa, 8, true}, 1, false);
	driver_kick(queue);
	driver_settle(loop);
	driver->device->ops->resume(driver->device);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
}

static void moves(void)
{
	uint64_t gpa;
	struct driver_luggage luggage;
	struct virtio_device *device;
	uint16_t head;
	uint32_t len;

	set_up();
	gpa = driver_alloc(driver, 64, 1);
	for (unsigned int round = 0; round < 3; round++) {
		driver->device->ops->drain(driver->device, VIRTIO_NO_DEADLINE, NULL);
		driver_add(queue, &(struct driver_segment){gpa, 64, true}, 1, false);
		driver_kick(queue);
		driver_pack(driver, &luggage);
		CHECK_EQ(virtio_rng_create("rng0", driver->memory, loop, NULL, &device, NULL), 0);
		CHECK_EQ(driver_unpack(driver, device, &luggage, NULL), 0);
		CHECK(driver_wait_used(queue, 5000, &head, &len));
		CHECK_EQ(len, 64);
	}
}

static void survives_nonsense(void)
{
	uint16_t head;
	uint32_t len;

	set_up();
	driver_add(queue, &(struct driver_segment){driver_alloc(driver, 8, 1), 8}, 1, false); /* nothing to write to */
	driver_kick(queue);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
	CHECK_EQ(len, 0);
	CHECK(!driver->device->broken);
	driver_add_head(queue, 9999);
	driver_kick_always(queue);
	driver_settle(loop);
	CHECK(driver->device->broken);
	CHECK_EQ(driver->config_calls, 1);
	driver_reset(driver);
	CHECK(!driver->device->broken);
	CHECK_EQ(driver_start(driver, DRIVER_ALL_FEATURES), 0);
	driver_add(queue, &(struct driver_segment){driver_alloc(driver, 8, 1), 8, true}, 1, false);
	driver_kick(queue);
	CHECK(driver_wait_used(queue, 5000, &head, &len));
}

/* Resets while the loop's thread is at work on chains that are still being added. */
static void resets_in_flight(void)
{
	set_up();
	for (unsigned int round = 0; round < 300; round++) {
		uint64_t gpa = driver_alloc(driver, KIB(16), 1);

		while (driver_add(queue, &(struct driver_segment){gpa, KIB(4), true}, 1, round & 1) >= 0)
			driver_kick_always(queue);
		driver_reset(driver);
		memset(driver->ram.host, 0, driver->ram.size);
		CHECK_EQ(count_zeroes(DRIVER_RAM_BASE, MIB(1)), MIB(1)); /* nobody writes there any more */
		CHECK_EQ(driver_start(driver, DRIVER_ALL_FEATURES), 0);
	}
	CHECK(!driver->device->broken);
	driver_destroy(driver);
	event_loop_destroy(loop);
	driver = NULL;
	loop = NULL;
}

TEST_MAIN(TEST(fills_buffers), TEST(fills_a_long_buffer_in_part), TEST(serves_more_than_a_turn),
	  TEST(stays_idle_while_drained), TEST(looks_by_itself), TEST(moves), TEST(survives_nonsense), TEST(resets_in_flight))
