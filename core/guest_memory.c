/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See guest_memory.h.
 *
 * The regions are a sorted table that does not change once it is published. A change makes a new table; the old one is
 * kept until the memory is destroyed, because a lookup on another thread may still use it. Only the host's user causes
 * changes (hot plug), so few tables are kept.
 */
#include "core/guest_memory.h"

#include "core/bitmap.h"

#define MAX_REGIONS 64

struct table {
	struct table *retired; /* the one before it */
	size_t count;
	struct guest_region regions[MAX_REGIONS];
	unsigned long *written[MAX_REGIONS]; /* pages that this process wrote; NULL before tracking begins */
};

struct guest_memory {
	struct table *table; /* read with acquire */
	struct guest_memory_listener *listeners;
	struct dirty_source own_writes;
	bool tracking;
};

static const struct dirty_source_ops own_writes_ops;

static const struct table *guest_memory_current(const struct guest_memory *memory)
{
	return __atomic_load_n(&memory->table, __ATOMIC_ACQUIRE);
}

struct guest_memory *guest_memory_create(void)
{
	struct guest_memory *memory = calloc(1, sizeof(*memory));

	if (!memory)
		return NULL;
	memory->table = calloc(1, sizeof(*memory->table));
	if (!memory->table) {
		free(memory);
		return NULL;
	}
	memory->own_writes = (struct dirty_source){.name = "own writes", .ops = &own_writes_ops};
	return memory;
}

void guest_memory_destroy(struct guest_memory *memory)
{
	if (!memory)
		return;
	for (size_t i = 0; i < memory->table->count; i++)
		free(memory->table->written[i]);
	for (struct table *table = memory->table, *next; table; table = next) {
		next = table->retired;
		free(table);
	}
	free(memory);
}

/* A copy of the table to change; guest_memory_publish() puts it in place. */
static struct table *guest_memory_copy_table(const struct guest_memory *memory)
{
	struct table *table = malloc(sizeof(*table));

	if (table) {
		*table = *memory->table;
		table->retired = memory->table;
	}
	return table;
}

static void guest_memory_publish(struct guest_memory *memory, struct table *table)
{
	__atomic_store_n(&memory->table, table, __ATOMIC_RELEASE);
}

static unsigned long *guest_memory_alloc_written(const struct guest_region *region)
{
	return calloc(bitmap_longs(region->size / GUEST_PAGE_SIZE), sizeof(unsigned long));
}

static int guest_memory_check_region(const struct table *table, const struct guest_region *region, struct err *err)
{
	if (!region->size || (region->gpa | region->size | region->fd_offset) % GUEST_PAGE_SIZE ||
	    range_wraps(region->gpa, region->size))
		return err_set(err, -EINVAL, "memory at 0x%llx, %llu bytes: not whole pages",
			       (unsigned long long)region->gpa, (unsigned long long)region->size);
	for (size_t i = 0; i < table->count; i++)
		if (ranges_overlap(region->gpa, region->size, table->regions[i].gpa, table->regions[i].size))
			return err_set(err, -EINVAL, "memory at 0x%llx overlaps memory at 0x%llx",
				       (unsigned long long)region->gpa, (unsigned long long)table->regions[i].gpa);
	if (table->count == MAX_REGIONS)
		return err_set(err, -ENOSPC, "more than %d regions of memory", MAX_REGIONS);
	return 0;
}

/* Calls remove of the listeners before stop (NULL: of all), the last one first. */
static void guest_memory_tell_removal(struct guest_memory_listener *listener, const struct guest_memory_listener *stop,
				      const struct guest_region *region)
{
	if (!listener || listener == stop)
		return;
	guest_memory_tell_removal(listener->next, stop, region);
	listener->ops->remove(listener, region);
}

int guest_memory_add(struct guest_memory *memory, const struct guest_region *region, struct err *err)
{
	struct guest_memory_listener *listener;
	_cleanup_(free_ptr) struct table *table = NULL;
	unsigned long *written = NULL;
	int ret = guest_memory_check_region(memory->table, region, err);
	size_t at;

	if (ret < 0)
		return ret;
	table = guest_memory_copy_table(memory);
	if (memory->tracking)
		written = guest_memory_alloc_written(region);
	if (!table || (memory->tracking && !written)) {
		free(written);
		return err_sys(err, -ENOMEM, "memory at 0x%llx", (unsigned long long)region->gpa);
	}
	for (listener = memory->listeners; listener; listener = listener->next) {
		ret = listener->ops->add(listener, region, err);
		if (ret < 0) {
			guest_memory_tell_removal(memory->listeners, listener, region);
			free(written);
			return ret;
		}
	}
	for (at = table->count; at && table->regions[at - 1].gpa > region->gpa; at--) {
		table->regions[at] = table->regions[at - 1];
		table->written[at] = table->written[at - 1];
	}
	table->regions[at] = *region;
	table->written[at] = written;
	table->count++;
	guest_memory_publish(memory, take_ptr(table));
	return 0;
}

int guest_memory_remove(struct guest_memory *memory, uint64_t gpa, struct err *err)
{
	struct guest_region region;
	struct table *table;
	size_t at = 0;

	while (at < memory->table->count && memory->table->regions[at].gpa != gpa)
		at++;
	if (at == memory->table->count)
		return err_set(err, -ENOENT, "no memory at 0x%llx", (unsigned long long)gpa);
	table = guest_memory_copy_table(memory);
	if (!table)
		return err_sys(err, -ENOMEM, "memory at 0x%llx", (unsigned long long)gpa);
	region = table->regions[at];
	free(table->written[at]);
	table->count--;
	memmove(&table->regions[at], &table->regions[at + 1], (table->count - at) * sizeof(table->regions[0]));
	memmove(&table->written[at], &table->written[at + 1], (table->count - at) * sizeof(table->written[0]));
	guest_memory_tell_removal(memory->listeners, NULL, &region);
	guest_memory_publish(memory, table);
	return 0;
}

int guest_memory_listen(struct guest_memory *memory, struct guest_memory_listener *listener, struct err *err)
{
	const struct table *table = memory->table;
	struct guest_memory_listener **link = &memory->listeners;

	for (size_t i = 0; i < table->count; i++) {
		int ret = listener->ops->add(listener, &table->regions[i], err);

		if (ret < 0) {
			while (i--)
				listener->ops->remove(listener, &table->regions[i]);
			return ret;
		}
	}
	while (*link)
		link = &(*link)->next;
	listener->next = NULL;
	*link = listener;
	return 0;
}

void guest_memory_unlisten(struct guest_memory *memory, struct guest_memory_listener *listener)
{
	struct guest_memory_listener **link = &memory->listeners;

	while (*link && *link != listener)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = listener->next;
	for (size_t i = memory->table->count; i--;)
		listener->ops->remove(listener, &memory->table->regions[i]);
}

const struct guest_region *guest_memory_regions(const struct guest_memory *memory, size_t *count)
{
	const struct table *table = guest_memory_current(memory);

	*count = table->count;
	return table->regions;
}

uint64_t guest_memory_size(const struct guest_memory *memory)
{
	const struct table *table = guest_memory_current(memory);
	uint64_t size = 0;

	for (size_t i = 0; i < table->count; i++)
		size += table->regions[i].size;
	return size;
}

/* Index of the region that contains all of [gpa, gpa + len), or -1. Machines have two or three regions. */
static ssize_t guest_memory_find(const struct table *table, uint64_t gpa, uint64_t len)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct guest_region *region = &table->regions[i];

		if (gpa >= region->gpa && gpa - region->gpa < region->size)
			return len && len <= region->size - (gpa - region->gpa) ? (ssize_t)i : -1;
	}
	return -1;
}

void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	const struct table *table = guest_memory_current(memory);
	ssize_t at = guest_memory_find(table, gpa, len);

	return at < 0 ? NULL : (char *)table->regions[at].host + (gpa - table->regions[at].gpa);
}

const struct guest_region *guest_memory_region_of(const struct guest_memory *memory, const void *host)
{
	const struct table *table = guest_memory_current(memory);

	for (size_t i = 0; i < table->count; i++)
		if ((uintptr_t)host - (uintptr_t)table->regions[i].host < table->regions[i].size)
			return &table->regions[i];
	return NULL;
}

int guest_memory_write(struct guest_memory *memory, uint64_t gpa, const void *buf, size_t len)
{
	void *host = guest_memory_at(memory, gpa, len);

	if (!host)
		return len ? -EFAULT : 0;
	memcpy(host, buf, len);
	guest_memory_dirty(memory, gpa, len);
	return 0;
}

void guest_memory_dirty(struct guest_memory *memory, uint64_t gpa, uint64_t len)
{
	const struct table *table;
	unsigned long *written;
	ssize_t at;

	/* Pairs with start(): a writer that does not see the flag wrote before tracking began. */
	if (!__atomic_load_n(&memory->tracking, __ATOMIC_SEQ_CST))
		return;
	table = guest_memory_current(memory);
	at = guest_memory_find(table, gpa, len);
	if (at < 0)
		return;
	written = __atomic_load_n(&table->written[at], __ATOMIC_ACQUIRE);
	if (!written)
		return;
	gpa -= table->regions[at].gpa;
	for (uint64_t page = gpa / GUEST_PAGE_SIZE; page <= (gpa + len - 1) / GUEST_PAGE_SIZE; page++)
		bitmap_set(written, page);
}

static struct guest_memory *guest_memory_of(struct dirty_source *source)
{
	return container_of(source, struct guest_memory, own_writes);
}

/* The bitmaps are kept until the memory is destroyed: a late writer may still use one. */
static int guest_memory_own_writes_start(struct dirty_source *source, struct err *err)
{
	struct guest_memory *memory = guest_memory_of(source);
	struct table *table = memory->table;

	for (size_t i = 0; i < table->count; i++) {
		unsigned long *written = table->written[i] ?: guest_memory_alloc_written(&table->regions[i]);

		if (!written)
			return err_sys(err, -ENOMEM, "bitmap of the memory at 0x%llx",
				       (unsigned long long)table->regions[i].gpa);
		memset(written, 0, bitmap_longs(table->regions[i].size / GUEST_PAGE_SIZE) * sizeof(*written));
		__atomic_store_n(&table->written[i], written, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&memory->tracking, true, __ATOMIC_SEQ_CST);
	return 0;
}

static void guest_memory_own_writes_stop(struct dirty_source *source)
{
	__atomic_store_n(&guest_memory_of(source)->tracking, false, __ATOMIC_SEQ_CST);
}

static int guest_memory_own_writes_collect(struct dirty_source *source, uint64_t gpa, uint64_t size,
					   unsigned long *bitmap, struct err *err)
{
	const struct table *table = guest_memory_current(guest_memory_of(source));
	ssize_t at = guest_memory_find(table, gpa, size);

	if (at < 0 || !table->written[at])
		return err_set(err, -EINVAL, "0x%llx, %llu bytes: not one region that is tracked",
			       (unsigned long long)gpa, (unsigned long long)size);
	bitmap_take(table->written[at], (gpa - table->regions[at].gpa) / GUEST_PAGE_SIZE, size / GUEST_PAGE_SIZE,
		    bitmap);
	return 0;
}

static const struct dirty_source_ops own_writes_ops = {
	.start = guest_memory_own_writes_start,
	.stop = guest_memory_own_writes_stop,
	.collect = guest_memory_own_writes_collect,
};

struct dirty_source *guest_memory_dirty_source(struct guest_memory *memory)
{
	return &memory->own_writes;
}
