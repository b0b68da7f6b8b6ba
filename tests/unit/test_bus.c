/* SPDX-License-Identifier: Apache-2.0 */
/* core/bus: who answers, what overlaps, eventfds with and without a hypervisor, look-ups against a busy writer. */
#include "core/bus.h"

#include "core/irq.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <sys/eventfd.h>

struct recorder {
	uint64_t offset;
	unsigned int len;
	uint64_t value;
};

static void record_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct recorder *r = opaque;

	r->offset = offset;
	r->len = len;
	memcpy(data, &r->value, len);
}

static void record_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct recorder *r = opaque;

	r->offset = offset;
	r->len = len;
	r->value = 0;
	memcpy(&r->value, data, len);
}

static const struct bus_ops ops = {.read = record_read, .write = record_write};

static void reaches_the_range_that_holds_the_address(void)
{
	struct bus *bus = bus_create();
	struct recorder a = {0}, b = {0};
	uint32_t value = 0x11223344;

	CHECK_EQ(bus_add(bus, 0x2000, 0x1000, &ops, &b, "b", NULL), 0);
	CHECK_EQ(bus_add(bus, 0x1000, 0x1000, &ops, &a, "a", NULL), 0);
	CHECK(bus_write(bus, 0x1ffc, &value, 4));
	CHECK_EQ(a.offset, 0xffc);
	CHECK_EQ(a.value, 0x11223344);
	CHECK(bus_write(bus, 0x2000, &value, 2));
	CHECK_EQ(b.offset, 0);
	CHECK_EQ(b.len, 2);
	a.value = 0xaabb;
	CHECK(bus_read(bus, 0x1000, &value, 2));
	CHECK_EQ(value & 0xffff, 0xaabb);
	bus_destroy(bus);
}

static void reads_ones_where_nobody_answers(void)
{
	struct bus *bus = bus_create();
	struct recorder a = {0};
	uint64_t value = 0;

	CHECK_EQ(bus_add(bus, 0x1000, 0x10, &ops, &a, "a", NULL), 0);
	CHECK(!bus_read(bus, 0xfff, &value, 1));
	CHECK_EQ(value, 0xff);
	CHECK(!bus_read(bus, 0x1010, &value, 8));
	CHECK_EQ(value, -1);
	CHECK(!bus_write(bus, 0x1010, &value, 4));
	/* Half in, half out: nobody's. */
	CHECK(!bus_read(bus, 0x100c, &value, 8));
	bus_remove(bus, 0x1000);
	CHECK(!bus_read(bus, 0x1000, &value, 1));
	bus_remove(bus, 0x1000);
	bus_destroy(bus);
}

static void refuses_overlaps_and_nonsense(void)
{
	struct bus *bus = bus_create();
	struct recorder a = {0};
	struct err err;

	CHECK_EQ(bus_add(bus, 0x1000, 0x1000, &ops, &a, "first", &err), 0);
	CHECK_EQ(bus_add(bus, 0x1fff, 1, &ops, &a, "second", &err), -EEXIST);
	CHECK_STR(err.text, "second at 0x1fff: first is there");
	CHECK_EQ(bus_add(bus, 0, 0x1001, &ops, &a, "third", &err), -EEXIST);
	CHECK_EQ(bus_add(bus, 0, 0x10000, &ops, &a, "third", &err), -EEXIST);
	CHECK_EQ(bus_add(bus, 0x3000, 0, &ops, &a, "empty", &err), -EINVAL);
	CHECK_EQ(bus_add(bus, UINT64_MAX, 2, &ops, &a, "wraps", &err), -EINVAL);
	CHECK_EQ(bus_add(bus, UINT64_MAX, 1, &ops, &a, "top", &err), 0);
	CHECK_EQ(bus_add(bus, 0x2000, 0x1000, &ops, &a, "behind", &err), 0);
	bus_destroy(bus);
}

static void holds_1024_ranges_and_no_more(void)
{
	struct bus *bus = bus_create();
	struct recorder a = {0};

	for (uint64_t i = 0; i < 1024; i++)
		CHECK_EQ(bus_add(bus, (i * 7919 % 1024) * 16, 16, &ops, &a, "r", NULL), 0);
	CHECK_EQ(bus_add(bus, 1 << 20, 16, &ops, &a, "r", NULL), -ENOSPC);
	for (uint64_t i = 0; i < 1024; i++) {
		uint8_t value;

		CHECK(bus_read(bus, i * 16 + 3, &value, 1));
		CHECK_EQ(a.offset, 3);
	}
	bus_destroy(bus);
}

static void kicks_eventfds(void)
{
	struct bus *bus = bus_create();
	struct recorder a = {0};
	int any = eventfd(0, EFD_NONBLOCK), two = eventfd(0, EFD_NONBLOCK);
	uint32_t value = 1;

	CHECK_EQ(bus_add(bus, 0x1000, 0x1000, &ops, &a, "a", NULL), 0);
	CHECK_EQ(bus_attach_eventfd(bus, &(struct bus_kick){0x1004, 0, 0, any}, NULL), 0);
	CHECK_EQ(bus_attach_eventfd(bus, &(struct bus_kick){0x1008, 2, 1, two}, NULL), 0);
	CHECK(bus_write(bus, 0x1004, &value, 4));
	CHECK(eventfd_drain(any));
	CHECK(bus_write(bus, 0x1008, &value, 2));
	CHECK(eventfd_drain(two));
	CHECK_EQ(a.len, 0);
	/* Another length, or another value, goes to the device. */
	CHECK(bus_write(bus, 0x1008, &value, 4));
	CHECK(!eventfd_drain(two));
	CHECK_EQ(a.offset, 8);
	value = 2;
	CHECK(bus_write(bus, 0x1008, &value, 2));
	CHECK(!eventfd_drain(two));
	CHECK_EQ(a.len, 2);
	bus_detach_eventfd(bus, &(struct bus_kick){0x1008, 2, 2, two}); /* none such */
	value = 1;
	CHECK(bus_write(bus, 0x1008, &value, 2));
	CHECK(eventfd_drain(two));
	bus_detach_eventfd(bus, &(struct bus_kick){0x1004, 0, 0, any});
	CHECK(bus_write(bus, 0x1004, &value, 4));
	CHECK(!eventfd_drain(any));
	close(any);
	close(two);
	bus_destroy(bus);
}

struct hypervisor {
	int attached;
	int fail_at;
};

static int hv_attach(void *opaque, const struct bus_kick *kick)
{
	struct hypervisor *hv = opaque;

	if (hv->attached == hv->fail_at)
		return -ENOSPC;
	hv->attached++;
	return 0;
}

static void hv_detach(void *opaque, const struct bus_kick *kick)
{
	((struct hypervisor *)opaque)->attached--;
}

static void hands_eventfds_to_the_hypervisor(void)
{
	static const struct bus_eventfd_ops hv_ops = {.attach = hv_attach, .detach = hv_detach};
	struct hypervisor hv = {.fail_at = 1};
	struct bus *bus = bus_create();
	int fd = eventfd(0, EFD_NONBLOCK);
	uint32_t value = 0;

	CHECK_EQ(bus_attach_eventfd(bus, &(struct bus_kick){0x10, 4, 0, fd}, NULL), 0);
	CHECK_EQ(bus_attach_eventfd(bus, &(struct bus_kick){0x20, 4, 0, fd}, NULL), 0);
	/* All or none. */
	CHECK_EQ(bus_set_eventfd_ops(bus, &hv_ops, &hv, NULL), -ENOSPC);
	CHECK_EQ(hv.attached, 0);
	hv.fail_at = 3;
	CHECK_EQ(bus_set_eventfd_ops(bus, &hv_ops, &hv, NULL), 0);
	CHECK_EQ(hv.attached, 2);
	CHECK_EQ(bus_attach_eventfd(bus, &(struct bus_kick){0x30, 4, 0, fd}, NULL), 0);
	CHECK_EQ(bus_attach_eventfd(bus, &(struct bus_kick){0x40, 4, 0, fd}, NULL), -ENOSPC);
	CHECK_EQ(hv.attached, 3);
	bus_detach_eventfd(bus, &(struct bus_kick){0x40, 4, 0, fd});
	bus_detach_eventfd(bus, &(struct bus_kick){0x10, 4, 0, fd});
	CHECK_EQ(hv.attached, 2);
	/* The hypervisor kicks now, not the bus. */
	CHECK(!bus_write(bus, 0x20, &value, 4));
	CHECK(!eventfd_drain(fd));
	close(fd);
	bus_destroy(bus);
}

static void *move_a_range(void *opaque)
{
	static struct recorder moving;
	struct bus *bus = opaque;

	for (int i = 0; i < 20000; i++) {
		uint64_t base = 0x10000 + (uint64_t)(i % 5) * 0x1000;

		bus_add(bus, base, 0x1000, &ops, &moving, "moving", NULL);
		bus_remove(bus, base);
	}
	return NULL;
}

static void finds_what_stays_while_others_move(void)
{
	struct bus *bus = bus_create();
	struct recorder low = {.value = 1}, high = {.value = 2};
	pthread_t mover;

	CHECK_EQ(bus_add(bus, 0x1000, 0x10, &ops, &low, "low", NULL), 0);
	CHECK_EQ(bus_add(bus, 0x100000, 0x10, &ops, &high, "high", NULL), 0);
	CHECK_EQ(pthread_create(&mover, NULL, move_a_range, bus), 0);
	for (int i = 0; i < 20000; i++) {
		uint8_t value = 0;

		CHECK(bus_read(bus, 0x1000, &value, 1));
		CHECK_EQ(value, 1);
		CHECK(bus_read(bus, 0x10000f, &value, 1));
		CHECK_EQ(value, 2);
	}
	pthread_join(mover, NULL);
	bus_destroy(bus);
}

TEST_MAIN(TEST(reaches_the_range_that_holds_the_address), TEST(reads_ones_where_nobody_answers),
	  TEST(refuses_overlaps_and_nonsense), TEST(holds_1024_ranges_and_no_more), TEST(kicks_eventfds),
	  TEST(hands_eventfds_to_the_hypervisor), TEST(finds_what_stays_while_others_move))
