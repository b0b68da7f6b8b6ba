/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See guest_discard.h.
 *
 * MADV_DONTNEED frees anonymous memory. On a private mapping of a file it frees the process's copies, but the file's
 * bytes come back: old contents instead of zeros. So a range of such a mapping is replaced by an anonymous one, in one
 * mmap(2): an access meanwhile waits for it. Ranges that touch become one mapping, but for those that were written to
 * before they touched, which the kernel keeps apart. When they are too many, the memory matters more than the zeros,
 * on which neither the virtio specification nor a guest without PAGE_POISON relies.
 */
#include "core/guest_discard.h"

#include "core/bitmap.h"
#include "core/errand.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/mman.h>
#include <sys/mman.h>

#define MOST_MAPPINGS 32768u /* half of vm.max_map_count's default */

static int guest_discard_advise(const struct guest_region *region, uint64_t offset, uint64_t len, int advice)
{
	return madvise((char *)region->host + offset, len, advice) < 0 ? -errno : 0;
}

/* Mappings of this process; UINT_MAX: not known. */
static unsigned int guest_discard_count_mappings(void)
{
	_cleanup_(fd_close) int fd = errand_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	char text[KIB(16)];
	unsigned int count = 0;
	ssize_t n;

	while ((n = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < n; i++)
			count += text[i] == '\n';
	return n < 0 ? UINT_MAX : count;
}

/* Each call makes up to two mappings, so they are counted now and then. */
static bool guest_discard_is_crowded(struct guest_file *base)
{
	unsigned int most = base->most ?: MOST_MAPPINGS;

	if (++base->given % (most / 8) == 0)
		base->crowded = guest_discard_count_mappings() > most;
	return base->crowded;
}

static bool guest_discard_all_gone(const unsigned long *gone, size_t first, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!bitmap_test(gone, first + i))
			return false;
	return true;
}

/* Needed as soon as the first page goes; most machines never have it. */
static int guest_discard_need_bitmap(const struct guest_region *region)
{
	unsigned long *gone;

	if (region->base->gone)
		return 0;
	gone = calloc(bitmap_longs(region->size / GUEST_PAGE_SIZE), sizeof(*gone));
	if (!gone)
		return -ENOMEM;
	__atomic_store_n(&region->base->gone, gone, __ATOMIC_RELEASE);
	return 0;
}

static int guest_discard_map_flags(uint64_t page_size)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	if (page_size <= GUEST_PAGE_SIZE)
		return flags | MAP_NORESERVE;
	return flags | MAP_HUGETLB | __builtin_ctzll(page_size) << MAP_HUGE_SHIFT;
}

static int guest_discard_replace(const struct guest_region *region, uint64_t offset, uint64_t len)
{
	char *host = (char *)region->host + offset;

	if (mmap(host, len, PROT_READ | PROT_WRITE, guest_discard_map_flags(region->page_size), -1, 0) == MAP_FAILED)
		return -errno;
	/* As the other ranges: mappings of the same kind that touch become one. */
	if (region->page_size <= GUEST_PAGE_SIZE)
		madvise(host, len, MADV_HUGEPAGE);
	madvise(host, len, MADV_DONTDUMP);
	return 0;
}

static int guest_discard_over_file(const struct guest_region *region, uint64_t offset, uint64_t len)
{
	struct guest_file *base = region->base;
	size_t first = offset / GUEST_PAGE_SIZE, count = len / GUEST_PAGE_SIZE;
	int ret = guest_discard_need_bitmap(region);

	if (ret < 0 || guest_discard_all_gone(base->gone, first, count) || guest_discard_is_crowded(base))
		return guest_discard_advise(region, offset, len, MADV_DONTNEED);
	ret = guest_discard_replace(region, offset, len);
	if (ret < 0)
		return ret == -ENOMEM ? guest_discard_advise(region, offset, len, MADV_DONTNEED) : ret;
	/* Marked when it is done: before, an absent page is as in the file. */
	for (size_t i = 0; i < count; i++)
		bitmap_set(base->gone, first + i);
	return 0;
}

int guest_discard(const struct guest_region *region, uint64_t offset, uint64_t len)
{
	const struct guest_file *base = region->base;

	if (base && base->fd >= 0)
		return guest_discard_over_file(region, offset, len);
	if (region->fd < 0)
		return guest_discard_advise(region, offset, len, MADV_DONTNEED);
	/* A userfaultfd sees only what goes by way of the mapping. */
	if (base)
		return guest_discard_advise(region, offset, len, MADV_REMOVE);
	return fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(region->fd_offset + offset),
			 (off_t)len) < 0 ? -errno : 0;
}
