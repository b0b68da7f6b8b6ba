/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See bus.h.
 *
 * The ranges are a sorted array of fixed capacity with a sequence counter: a reader copies the entry that it found and
 * tries again if the counter has changed meanwhile; a writer holds the lock. Guests can move BARs at any rate, so a
 * change allocates nothing.
 */
#include "core/bus.h"

#include "core/irq.h"

#include <pthread.h>

#define MAX_RANGES 1024
#define MAX_EVENTFDS 4096

struct range {
	uint64_t base, size;
	const struct bus_ops *ops;
	void *opaque;
	const char *name;
};

struct bus {
	unsigned int seq; /* odd while a writer is at work */
	size_t count;
	struct range ranges[MAX_RANGES];
	size_t kick_count;
	struct bus_kick *kicks;
	const struct bus_eventfd_ops *eventfd_ops;
	void *eventfd_opaque;
	pthread_mutex_t lock;
};

struct bus *bus_create(void)
{
	struct bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return NULL;
	bus->kicks = calloc(MAX_EVENTFDS, sizeof(*bus->kicks));
	if (!bus->kicks) {
		free(bus);
		return NULL;
	}
	pthread_mutex_init(&bus->lock, NULL);
	return bus;
}

void bus_destroy(struct bus *bus)
{
	if (!bus)
		return;
	pthread_mutex_destroy(&bus->lock);
	free(bus->kicks);
	free(bus);
}

static void bus_begin_change(struct bus *bus)
{
	pthread_mutex_lock(&bus->lock);
	__atomic_store_n(&bus->seq, bus->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void bus_end_change(struct bus *bus)
{
	__atomic_store_n(&bus->seq, bus->seq + 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&bus->lock);
}

/* Index of the first range that ends behind addr. */
static size_t bus_lower_bound(const struct bus *bus, uint64_t addr)
{
	size_t low = 0, high = MIN(bus->count, (size_t)MAX_RANGES);

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (bus->ranges[middle].base + (bus->ranges[middle].size - 1) < addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *opaque, const char *name,
	    struct err *err)
{
	size_t at;
	int ret = 0;

	if (!size || range_wraps(base, size))
		return err_set(err, -EINVAL, "%s: empty or wrapping range at 0x%llx", name, (unsigned long long)base);
	bus_begin_change(bus);
	at = bus_lower_bound(bus, base);
	if (at < bus->count && ranges_overlap(base, size, bus->ranges[at].base, bus->ranges[at].size))
		ret = err_set(err, -EEXIST, "%s at 0x%llx: %s is there", name, (unsigned long long)base,
			      bus->ranges[at].name);
	else if (bus->count == MAX_RANGES)
		ret = err_set(err, -ENOSPC, "%s: more than %d ranges", name, MAX_RANGES);
	if (ret == 0) {
		memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof(bus->ranges[0]));
		bus->ranges[at] = (struct range){base, size, ops, opaque, name};
		bus->count++;
	}
	bus_end_change(bus);
	return ret;
}

void bus_remove(struct bus *bus, uint64_t base)
{
	size_t at;

	bus_begin_change(bus);
	at = bus_lower_bound(bus, base);
	if (at < bus->count && bus->ranges[at].base == base) {
		bus->count--;
		memmove(&bus->ranges[at], &bus->ranges[at + 1], (bus->count - at) * sizeof(bus->ranges[0]));
	}
	bus_end_change(bus);
}

/* Copies the range that contains the whole access. */
static bool bus_find(struct bus *bus, uint64_t addr, unsigned int len, struct range *ret)
{
	unsigned int seq;
	bool found;
	size_t at;

	do {
		while ((seq = __atomic_load_n(&bus->seq, __ATOMIC_ACQUIRE)) & 1) {
		}
		at = bus_lower_bound(bus, addr);
		found = at < bus->count && at < MAX_RANGES;
		if (found)
			*ret = bus->ranges[at];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__atomic_load_n(&bus->seq, __ATOMIC_RELAXED) != seq);
	return found && addr >= ret->base && len <= ret->size - (addr - ret->base);
}

bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int len)
{
	struct range range;

	if (bus_find(bus, addr, len, &range)) {
		range.ops->read(range.opaque, addr - range.base, data, len);
		return true;
	}
	memset(data, 0xff, len);
	return false;
}

/* Kicks the eventfds at addr, if the hypervisor does not. */
static bool bus_kick_written(struct bus *bus, uint64_t addr, const void *data, unsigned int len)
{
	uint8_t value[4] = {0};
	bool kicked = false;

	if (bus->eventfd_ops || !__atomic_load_n(&bus->kick_count, __ATOMIC_RELAXED))
		return false;
	memcpy(value, data, MIN(len, sizeof(value)));
	pthread_mutex_lock(&bus->lock);
	for (size_t i = 0; i < bus->kick_count; i++) {
		const struct bus_kick *kick = &bus->kicks[i];

		if (kick->addr == addr && (!kick->len || (kick->len == len && kick->value == get_le32(value)))) {
			eventfd_kick(kick->fd);
			kicked = true;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return kicked;
}

bool bus_write(struct bus *bus, uint64_t addr, const void *data, unsigned int len)
{
	struct range range;

	if (bus_kick_written(bus, addr, data, len))
		return true;
	if (!bus_find(bus, addr, len, &range))
		return false;
	range.ops->write(range.opaque, addr - range.base, data, len);
	return true;
}

int bus_set_eventfd_ops(struct bus *bus, const struct bus_eventfd_ops *ops, void *opaque, struct err *err)
{
	for (size_t i = 0; i < bus->kick_count; i++) {
		uint64_t addr = bus->kicks[i].addr;
		int ret = ops->attach(opaque, &bus->kicks[i]);

		if (ret < 0) {
			while (i--)
				ops->detach(opaque, &bus->kicks[i]);
			return err_sys(err, ret, "eventfd at 0x%llx", (unsigned long long)addr);
		}
	}
	bus->eventfd_ops = ops;
	bus->eventfd_opaque = opaque;
	return 0;
}

int bus_attach_eventfd(struct bus *bus, const struct bus_kick *kick, struct err *err)
{
	int ret = 0;

	pthread_mutex_lock(&bus->lock);
	if (bus->kick_count == MAX_EVENTFDS)
		ret = err_set(err, -ENOSPC, "more than %d eventfds on a bus", MAX_EVENTFDS);
	else if (bus->eventfd_ops)
		ret = bus->eventfd_ops->attach(bus->eventfd_opaque, kick);
	if (ret == 0)
		bus->kicks[bus->kick_count++] = *kick;
	else if (bus->kick_count < MAX_EVENTFDS)
		err_sys(err, ret, "eventfd at 0x%llx", (unsigned long long)kick->addr);
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

void bus_detach_eventfd(struct bus *bus, const struct bus_kick *kick)
{
	pthread_mutex_lock(&bus->lock);
	for (size_t i = 0; i < bus->kick_count; i++) {
		const struct bus_kick *k = &bus->kicks[i];

		if (k->addr != kick->addr || k->len != kick->len || k->value != kick->value || k->fd != kick->fd)
			continue;
		if (bus->eventfd_ops)
			bus->eventfd_ops->detach(bus->eventfd_opaque, kick);
		bus->kicks[i] = bus->kicks[--bus->kick_count];
		break;
	}
	pthread_mutex_unlock(&bus->lock);
}
