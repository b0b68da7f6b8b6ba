/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of vfio/ have in common: a fake kernel, 64 MiB of guest memory in two regions (at 0 and at 4 GiB), an
 * address space for devices on it, a log that can be read, and a hypervisor that counts.
 */
#pragma once

#include "core/bitmap.h"
#include "tests/unit/fake_vfio.h"
#include "tests/unit/test.h"
#include "vfio/device.h"

#include <fcntl.h>
#include <sys/mman.h>

#define LOW_SIZE MIB(32)
#define HIGH_GPA GIB(4)
#define HIGH_SIZE MIB(32)

struct vfio_bench {
	struct fake_kernel *fake;
	struct guest_memory *memory;
	void *host; /* one mapping behind both regions */
	int memfd;  /* behind the high region */
	struct dirty_set dirty;
	struct log log;
	struct vfio_hypervisor hypervisor;
	int told; /* descriptors that the hypervisor knows */
	int refuse_tell;
	struct vfio_space *space;
	struct err err;
};

static inline int bench_tell(void *opaque, int fd, struct err *err)
{
	struct vfio_bench *b = opaque;

	if (b->refuse_tell)
		return err_set(err, b->refuse_tell, "the hypervisor refuses");
	b->told++;
	return 0;
}

static inline void bench_untell(void *opaque, int fd)
{
	((struct vfio_bench *)opaque)->told--;
}

static inline void bench_add_ram(struct vfio_bench *b)
{
	struct guest_region low = {.gpa = 0, .size = LOW_SIZE, .host = b->host, .fd = -1};
	struct guest_region high = {.gpa = HIGH_GPA, .size = HIGH_SIZE, .host = (char *)b->host + LOW_SIZE, .fd = b->memfd};

	CHECK_EQ(guest_memory_add(b->memory, &low, &b->err), 0);
	CHECK_EQ(guest_memory_add(b->memory, &high, &b->err), 0);
}

/* Describe the host on b->fake, then bench_space(). b is static in each test: nothing is lost in a longjmp. */
static inline void bench_init(struct vfio_bench *b)
{
	memset(b, 0, sizeof(*b));
	b->fake = fake_new();
	b->memory = guest_memory_create();
	b->memfd = memfd_create("guest", MFD_CLOEXEC);
	CHECK(b->memfd >= 0 && ftruncate(b->memfd, (off_t)HIGH_SIZE) == 0);
	b->host = mmap(NULL, LOW_SIZE + HIGH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(b->host != MAP_FAILED);
	bench_add_ram(b);
	b->log = (struct log){.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_DEBUG};
	CHECK_EQ(dirty_set_add(&b->dirty, guest_memory_dirty_source(b->memory), NULL), 0);
	b->hypervisor = (struct vfio_hypervisor){.add = bench_tell, .remove = bench_untell, .opaque = b};
}

static inline void bench_space(struct vfio_bench *b, int *iommufd)
{
	struct vfio_space_options options = {.sys = &b->fake->sys, .log = &b->log, .memory = b->memory, .dirty = &b->dirty,
					     .hypervisor = &b->hypervisor, .iommufd = iommufd};

	CHECK_EQ(vfio_space_create(&options, &b->space, &b->err), 0);
}

/* Takes all down and checks that nothing is left of it. */
static inline void bench_done(struct vfio_bench *b)
{
	CHECK(!b->space || (!b->space->devices && !b->space->containers && !b->space->groups));
	vfio_space_destroy(b->space);
	CHECK_EQ(fake_left(b->fake), 0);
	CHECK_EQ(b->told, 0);
	dirty_set_stop(&b->dirty);
	guest_memory_destroy(b->memory);
	munmap(b->host, LOW_SIZE + HIGH_SIZE);
	close(b->memfd);
	close(b->log.fd);
	fake_free(b->fake);
}

static inline int bench_open(struct vfio_bench *b, const char *name, enum vfio_want want, struct vfio_device **device)
{
	struct vfio_device_options options = {.device = name, .backend = want};

	b->err.text[0] = 0;
	return vfio_device_open(b->space, &options, device, &b->err);
}

/* How often text is in the log. */
static inline int bench_logged(struct vfio_bench *b, const char *text)
{
	static char all[65536];
	ssize_t n = pread(b->log.fd, all, sizeof(all) - 1, 0);
	int count = 0;

	CHECK(n >= 0);
	all[n] = 0;
	for (char *p = all; (p = strstr(p, text)); p++)
		count++;
	return count;
}

/* What the whole set says of a range: the number of dirty pages, or -errno. The bitmap is left for a closer look. */
static unsigned long bench_bitmap[(GIB(1) / 4096) / 64];

static inline long bench_collect(struct vfio_bench *b, uint64_t gpa, uint64_t size)
{
	long pages = 0;
	int rc;

	memset(bench_bitmap, 0, sizeof(bench_bitmap));
	rc = dirty_set_collect(&b->dirty, gpa, size, bench_bitmap, &b->err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < ARRAY_SIZE(bench_bitmap); i++)
		pages += __builtin_popcountl(bench_bitmap[i]);
	return pages;
}

#define CHECK_HAS(text, part)                                                                         \
	do {                                                                                          \
		if (!strstr((text), (part))) {                                                        \
			printf("# %s:%d: \"%s\" does not say \"%s\"\n", __FILE__, __LINE__, (text), (part)); \
			longjmp(test_failed, 1);                                                      \
		}                                                                                     \
	} while (0)
