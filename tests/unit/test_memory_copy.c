/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/snapshot/memory_copy: memory becomes what the file has, holes stay holes, and any byte that is wrong is found. */
#include "tests/unit/test.h"
#include "vmm/snapshot/memory_copy.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SIZE (MIB(16) + KIB(20)) /* the last piece is a short one */
#define PIECES 9u

static char *memory;
static uint64_t sums[PIECES];
static struct memory_copy copy;
static struct err err;

static void tear_down(void)
{
	if (memory)
		munmap(memory, SIZE);
	memory = NULL;
	if (copy.fd > 0)
		close(copy.fd);
	copy = (struct memory_copy){.fd = -1};
}

static void sum_up(void)
{
	static char piece[SNAPSHOT_SUM_BYTES];

	for (uint64_t i = 0; i < PIECES; i++) {
		ssize_t n = pread(copy.fd, piece, sizeof(piece), (off_t)(i * sizeof(piece)));

		sums[i] = htole64(snapshot_sum(piece, (size_t)n));
	}
}

static void put(uint64_t offset, char byte)
{
	char page[4096];

	memset(page, byte, sizeof(page));
	CHECK_EQ(pwrite(copy.fd, page, sizeof(page), (off_t)offset), sizeof(page));
}

/* Pages at the edges of pieces, in the middle of one, and at the end; pieces 4 to 6 are holes. */
static void set_up(void)
{
	tear_down();
	err = (struct err){""};
	copy = (struct memory_copy){.fd = memfd_create("memory", MFD_CLOEXEC), .what = "snap/memory", .cancel_fd = -1,
				    .sums = {sums, sizeof(sums)}};
	CHECK_EQ(ftruncate(copy.fd, SIZE), 0);
	put(0, 1);
	put(MIB(2) - 4096, 2);
	put(MIB(2), 3);
	put(MIB(5), 4);
	put(MIB(7) + 8192, 5);
	put(SIZE - 4096, 6);
	sum_up();
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(memory != MAP_FAILED);
	madvise(memory, SIZE, MADV_NOHUGEPAGE);
}

static void memory_is_as_the_file_and_holes_are_not_read(void)
{
	static unsigned char there[SIZE / 4096];
	size_t count = 0;
	char *file;

	set_up();
	CHECK_EQ(memory_copy_fill(&copy, memory, SIZE, &err), 0);
	CHECK_EQ(mincore(memory + MIB(8), MIB(6), there), 0);
	for (size_t i = 0; i < MIB(6) / 4096; i++)
		count += there[i] & 1;
	CHECK_EQ(count, 0);
	file = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, copy.fd, 0);
	CHECK_EQ(memcmp(memory, file, SIZE), 0);
	munmap(file, SIZE);
	tear_down();
}

static void a_wrong_byte_anywhere_is_found(void)
{
	static const uint64_t places[] = {5, MIB(2) - 1, MIB(2), MIB(9), MIB(13) + 77, SIZE - 1};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char text[200];

		set_up();
		CHECK_EQ(pwrite(copy.fd, "x", 1, (off_t)places[i]), 1);
		CHECK_EQ(memory_copy_fill(&copy, memory, SIZE, &err), -EBADMSG);
		snprintf(text, sizeof(text), "snap/memory is damaged: the bytes from 0x%llx to ",
			 (unsigned long long)align_down(places[i], MIB(2)));
		CHECK(strncmp(err.text, text, strlen(text)) == 0);
	}
	set_up();
	CHECK_EQ(fallocate(copy.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
	CHECK_EQ(memory_copy_fill(&copy, memory, SIZE, &err), -EBADMSG);
	tear_down();
}

static void another_size_is_refused_before_anything_is_read(void)
{
	set_up();
	CHECK_EQ(ftruncate(copy.fd, SIZE - 4096), 0);
	CHECK_EQ(memory_copy_fill(&copy, memory, SIZE, &err), -EBADMSG);
	CHECK(strstr(err.text, "snap/memory has "));
	set_up();
	copy.sums.len -= 8;
	CHECK_EQ(memory_copy_fill(&copy, memory, SIZE, &err), -EBADMSG);
	tear_down();
}

static void it_can_be_cancelled(void)
{
	set_up();
	copy.cancel_fd = eventfd(1, EFD_CLOEXEC);
	/* Either it was done before anybody looked. */
	CHECK(memory_copy_fill(&copy, memory, SIZE, &err) == -ECANCELED || !err.text[0]);
	close(copy.cancel_fd);
	tear_down();
}

TEST_MAIN(TEST(memory_is_as_the_file_and_holes_are_not_read), TEST(a_wrong_byte_anywhere_is_found),
	  TEST(another_size_is_refused_before_anything_is_read), TEST(it_can_be_cancelled))
