/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/kvm/kvm_coalesced: writes that KVM has kept are answered in their order, each once, before anybody goes on. */
#include "tests/unit/test.h"
#include "vmm/kvm/kvm.h"

#include <pthread.h>
#include <unistd.h>

#define PORT 0xcf8u
#define ENTRIES ((4096 - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

static _Alignas(4096) uint8_t page[4096];
static struct kvm_coalesced_mmio_ring *const ring = (void *)page;
static struct kvm kvm;
static uint32_t seen[1024], seen_count, slow_us;

static void device_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	usleep(slow_us);
	seen[seen_count % ARRAY_SIZE(seen)] = get_le32(data);
	__atomic_store_n(&seen_count, seen_count + 1, __ATOMIC_RELEASE);
}

static const struct bus_ops device = {.write = device_write};

static struct bus *begin(uint32_t at)
{
	struct bus *bus = bus_create();

	CHECK(bus && bus_add(bus, PORT, 4, &device, NULL, "device", NULL) == 0);
	memset(page, 0, sizeof(page));
	kvm = (struct kvm){.coalesced = ring};
	pthread_mutex_init(&kvm.coalesced_lock, NULL);
	ring->first = ring->last = at;
	seen_count = slow_us = 0;
	return bus;
}

/* As the kernel does it. */
static void keep(uint32_t value)
{
	struct kvm_coalesced_mmio *write = &ring->coalesced_mmio[ring->last];

	*write = (struct kvm_coalesced_mmio){.phys_addr = PORT, .len = 4, .pio = 1};
	put_le32(write->data, value);
	__atomic_store_n(&ring->last, (ring->last + 1) % ENTRIES, __ATOMIC_RELEASE);
}

static void writes_come_in_their_order_around_the_end(void)
{
	struct bus *bus = begin(ENTRIES - 3);

	for (uint32_t i = 0; i < 10; i++)
		keep(100 + i);
	kvm_coalesced_flush(&kvm, bus);
	CHECK_EQ(seen_count, 10);
	for (uint32_t i = 0; i < 10; i++)
		CHECK_EQ(seen[i], 100 + i);
	CHECK_EQ(ring->first, ring->last);
	kvm_coalesced_flush(&kvm, bus);
	CHECK_EQ(seen_count, 10);
	bus_destroy(bus);
}

static void nothing_is_kept_where_kvm_has_no_ring(void)
{
	struct bus *bus = begin(0);

	kvm.coalesced = NULL;
	kvm_coalesced_flush(&kvm, bus);
	kvm_coalesced_port(&kvm, PORT, 4);
	CHECK_EQ(seen_count, 0);
	bus_destroy(bus);
}

static void *flush_bus(void *bus)
{
	kvm_coalesced_flush(&kvm, bus);
	return NULL;
}

/* A vCPU whose own write another one is about to answer must find it answered. */
static void who_has_flushed_finds_every_write_answered(void)
{
	struct bus *bus = begin(0);
	pthread_t other;

	slow_us = 2000;
	for (uint32_t i = 0; i < 20; i++)
		keep(i);
	CHECK_EQ(pthread_create(&other, NULL, flush_bus, bus), 0);
	while (!__atomic_load_n(&seen_count, __ATOMIC_ACQUIRE))
		usleep(100);
	kvm_coalesced_flush(&kvm, bus);
	CHECK_EQ(__atomic_load_n(&seen_count, __ATOMIC_ACQUIRE), 20);
	pthread_join(other, NULL);
	CHECK_EQ(seen_count, 20);
	bus_destroy(bus);
}

TEST_MAIN(TEST(writes_come_in_their_order_around_the_end), TEST(nothing_is_kept_where_kvm_has_no_ring),
	  TEST(who_has_flushed_finds_every_write_answered))
