/* SPDX-License-Identifier: Apache-2.0 */
/* core/prefault: all pages are there afterwards, with what was in them; what cannot be brought in is told; giving up is no failure. */
#include "core/prefault.h"

#include "core/pagemap.h"
#include "tests/unit/test.h"

#include <sys/eventfd.h>
#include <sys/mman.h>

#define SIZE MIB(160) /* three pieces of work */

static const struct log quiet = {.fd = -1, .level = LOG_ERROR};
static struct err err;
static uint8_t *memory;

static void begin(void)
{
	if (memory)
		munmap(memory, SIZE);
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(memory != MAP_FAILED);
}

static size_t pages_there(void)
{
	static unsigned char there[SIZE / 4096];
	size_t count = 0;

	CHECK_EQ(mincore(memory, SIZE, there), 0);
	for (size_t i = 0; i < sizeof(there); i++)
		count += there[i] & 1;
	return count;
}

static void brings_all_in_and_changes_nothing(void)
{
	begin();
	memory[MIB(100)] = 7;
	CHECK(!prefault_seems_done(memory, SIZE));
	CHECK_EQ(prefault(memory, SIZE, "test", &quiet, &err), 0);
	CHECK_EQ(pages_there(), SIZE / 4096);
	CHECK_EQ(memory[MIB(100)], 7);
	CHECK(prefault_seems_done(memory, SIZE));
	CHECK_EQ(prefault(memory, 0, "nothing", &quiet, &err), 0);
}

/* Of the test's memory, mapped privately from a file. */
static uint64_t own_bytes(void)
{
	struct pagemap map;
	struct pagemap_range range;
	uintptr_t at = (uintptr_t)memory, end = at + MIB(70);
	uint64_t bytes = 0;

	CHECK_EQ(pagemap_open(&map), 0);
	while (at < end && pagemap_scan(&map, PAGEMAP_OWN, &at, end, &range, 1) == 1)
		bytes += range.end - range.start;
	pagemap_close(&map);
	return bytes;
}

/* As for a clone whose memory a device is to write: a page that stayed the file's would be another one for the guest later. */
static void pages_of_a_file_become_our_own(void)
{
	_cleanup_(fd_close) int fd = memfd_create("file", MFD_CLOEXEC);
	uint8_t *file;

	CHECK(fd >= 0 && ftruncate(fd, MIB(70)) == 0);
	file = mmap(NULL, MIB(70), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(file != MAP_FAILED);
	for (size_t at = 0; at < MIB(70); at += MIB(1))
		file[at] = 5;
	begin();
	CHECK(mmap(memory, MIB(70), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == memory);
	for (size_t at = 0; at < MIB(70); at += MIB(2))
		CHECK_EQ(memory[at], 5);
	memory[MIB(3)] = 6;
	CHECK_EQ(own_bytes(), 4096);
	CHECK_EQ(prefault(memory, MIB(70), "test", &quiet, &err), 0);
	CHECK_EQ(own_bytes(), MIB(70));
	CHECK(memory[MIB(1)] == 5 && memory[MIB(3)] == 6 && memory[MIB(70) - 1] == 0 && file[MIB(3)] == 5);
	memset(file, 9, MIB(70)); /* nothing of it is seen */
	CHECK(memory[MIB(1)] == 5 && memory[MIB(70) - 1] == 0);
	munmap(file, MIB(70));
}

static void a_failure_is_told(void)
{
	begin();
	CHECK_EQ(munmap(memory + MIB(70), 4096), 0);
	CHECK_EQ(prefault(memory, SIZE, "test", &quiet, &err), -ENOMEM);
	CHECK(strstr(err.text, "test: 0.2 GiB"));
}

static void giving_up_is_no_failure(void)
{
	struct prefault *job;

	begin();
	CHECK_EQ(prefault_begin(memory, SIZE, "test", &quiet, NULL, &job, &err), 0);
	CHECK_EQ(prefault_end(job, false, -1, &err), 0);
	CHECK_EQ(prefault_end(NULL, true, -1, &err), 0);
}

static void it_can_be_cancelled_and_counts(void)
{
	_cleanup_(fd_close) int cancel = eventfd(0, EFD_CLOEXEC);
	struct prefault *job;
	uint64_t done = 0;

	begin();
	CHECK_EQ(prefault_begin(memory, SIZE, "test", &quiet, &done, &job, &err), 0);
	CHECK_EQ(prefault_end(job, true, cancel, &err), 0);
	CHECK_EQ(done, SIZE);
	begin();
	eventfd_write(cancel, 1);
	CHECK_EQ(prefault_begin(memory, SIZE, "test", &quiet, NULL, &job, &err), 0);
	CHECK_EQ(prefault_end(job, true, cancel, &err), -ECANCELED);
}

TEST_MAIN(TEST(brings_all_in_and_changes_nothing), TEST(pages_of_a_file_become_our_own), TEST(a_failure_is_told),
	  TEST(giving_up_is_no_failure), TEST(it_can_be_cancelled_and_counts))
