/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/machine/memory: RAM from a file, by a function or empty; around the hole; what cannot be mapped says what can be done. */
#include "boot/layout_x86.h"
#include "tests/unit/test.h"
#include "vmm/machine/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SIZE (LAYOUT_HOLE + MIB(64)) /* sparse: 64 MiB lie above the hole */

static const struct log quiet = {.fd = -1, .level = LOG_ERROR};
static struct guest_memory *memory;
static struct ram *ram;
static struct err err;

static void tear_down(void)
{
	ram_destroy(take_ptr(ram));
	guest_memory_destroy(take_ptr(memory));
}

static int make(const struct memory_config *config, bool shared, const struct ram_source *source)
{
	tear_down();
	err = (struct err){""};
	memory = guest_memory_create();
	return ram_create(config, shared, source, memory, &quiet, &ram, &err);
}

/* A page of the file with its number in it. */
static void put_page(int fd, uint64_t offset)
{
	uint64_t bytes[512];

	for (size_t i = 0; i < ARRAY_SIZE(bytes); i++)
		bytes[i] = offset + 1;
	CHECK_EQ(pwrite(fd, bytes, sizeof(bytes), (off_t)offset), sizeof(bytes));
}

static uint64_t word(uint64_t gpa)
{
	return *(const volatile uint64_t *)guest_memory_at(memory, gpa, 8);
}

static void a_file_is_mapped_around_the_hole_and_stays_as_it_is(void)
{
	const struct memory_config config = {.size = SIZE};
	struct ram_source source = {.fd = memfd_create("memory", MFD_CLOEXEC)};
	const struct guest_region *regions;
	struct stat st;
	size_t count;
	int readonly;
	char path[64];

	CHECK_EQ(ftruncate(source.fd, SIZE), 0);
	put_page(source.fd, 0);
	put_page(source.fd, LAYOUT_HOLE - 4096);
	put_page(source.fd, LAYOUT_HOLE);
	put_page(source.fd, SIZE - 4096);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", source.fd);
	readonly = open(path, O_RDONLY | O_CLOEXEC);
	close(source.fd);
	source.fd = readonly;
	make(&config, false, &source);
	CHECK_STR(err.text, "");
	CHECK_EQ(ram_file(ram), source.fd);
	CHECK_EQ(word(0), 1);
	CHECK_EQ(word(LAYOUT_HOLE - 4096), LAYOUT_HOLE - 4095);
	CHECK_EQ(word(LAYOUT_4G), LAYOUT_HOLE + 1);
	CHECK_EQ(word(LAYOUT_4G + MIB(64) - 8), SIZE - 4095);
	CHECK_EQ(word(MIB(1)), 0);
	regions = guest_memory_regions(memory, &count);
	CHECK_EQ(count, 2);
	for (size_t i = 0; i < count; i++) {
		CHECK_EQ(regions[i].fd, -1);
		CHECK_EQ(regions[i].base->fd, source.fd);
		CHECK_EQ(regions[i].base->offset, i ? LAYOUT_HOLE : 0);
		CHECK_EQ((uintptr_t)regions[i].host % MIB(2), 0);
	}
	memset(guest_memory_at(memory, 0, 4096), 0xff, 4096);
	CHECK_EQ(pread(source.fd, path, 1, 0), 1);
	CHECK_EQ(path[0], 1);
	CHECK_EQ(fstat(source.fd, &st), 0);
	CHECK(st.st_blocks < 10 * 8 * 16);
	tear_down();
	close(source.fd);
}

static void what_cannot_be_mapped_names_the_way_out(void)
{
	struct ram_source source = {.fd = memfd_create("memory", MFD_CLOEXEC)};

	CHECK_EQ(ftruncate(source.fd, (off_t)MIB(64)), 0);
	CHECK_EQ(make(&(struct memory_config){.size = MIB(32)}, false, &source), -EINVAL);
	CHECK_STR(err.text, "the memory file has 67108864 bytes, but the machine has 33554432 bytes of memory");
	CHECK_EQ(make(&(struct memory_config){.size = MIB(64), .hugepages = HUGEPAGES_2M}, false, &source), -ENOTSUP);
	CHECK(strstr(err.text, "not on hugetlbfs with pages of that size; use --memory-mode copy"));
	CHECK_EQ(make(&(struct memory_config){.size = MIB(64)}, true, &source), -ENOTSUP);
	CHECK(strstr(err.text, "shared=on"));
	CHECK(strstr(err.text, "use --memory-mode copy"));
	CHECK(!ram);
	tear_down();
	close(source.fd);
}

static int fill(void *opaque, void *host, uint64_t size, struct err *e)
{
	if (*(int *)opaque)
		return err_set(e, *(int *)opaque, "not filled");
	memset(host, 0x5a, size);
	return 0;
}

static void a_function_fills_it_before_anybody_sees_it(void)
{
	int code = 0;
	struct ram_source source = {.fd = -1, .fill = fill, .opaque = &code};
	size_t count;

	for (int shared = 0; shared < 2; shared++) {
		CHECK_EQ(make(&(struct memory_config){.size = MIB(4)}, shared, &source), 0);
		CHECK_EQ(word(MIB(4) - 8), 0x5a5a5a5a5a5a5a5a);
		CHECK(!guest_memory_regions(memory, &count)->base);
		CHECK_EQ(ram_file(ram), -1);
	}
	source.on_touch = true;
	CHECK_EQ(make(&(struct memory_config){.size = MIB(4)}, false, &source), 0);
	CHECK_EQ(guest_memory_regions(memory, &count)->base->fd, -1);
	code = -EIO;
	CHECK_EQ(make(&(struct memory_config){.size = MIB(4)}, false, &source), -EIO);
	CHECK_STR(err.text, "not filled");
	tear_down();
}

static void huge_pages_are_mapped_from_hugetlbfs(void)
{
	const struct memory_config config = {.size = MIB(4), .hugepages = HUGEPAGES_2M};
	struct ram_source source = {.fd = memfd_create("memory", MFD_CLOEXEC | MFD_HUGETLB)};
	size_t count;

	if (source.fd < 0 || ftruncate(source.fd, (off_t)MIB(4)) < 0) {
		fd_close(&source.fd);
		SKIP("this host has no huge pages");
	}
	if (make(&config, false, &source) == -ENOMEM) {
		close(source.fd);
		SKIP("too few huge pages are reserved");
	}
	CHECK_STR(err.text, "");
	CHECK_EQ(guest_memory_regions(memory, &count)->page_size, MIB(2));
	CHECK_EQ(guest_memory_regions(memory, &count)->base->fd, source.fd);
	tear_down();
	close(source.fd);
}

TEST_MAIN(TEST(a_file_is_mapped_around_the_hole_and_stays_as_it_is), TEST(what_cannot_be_mapped_names_the_way_out),
	  TEST(a_function_fills_it_before_anybody_sees_it), TEST(huge_pages_are_mapped_from_hugetlbfs))
