/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/memory_file, with memory_sums and write_queue below it: the file is what memory was, sparse, with the sums
 * of what is in it; calls that fail, end short or are cancelled end by name and lose no mark that was not taken.
 */

#include "tests/unit/full_disk.h"
#include "tests/unit/shortage.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/memory_file.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/bitmap.h"
#include "core/guest_discard.h"
#include "core/monotonic.h"

#define PAGE 4096u
#define CHUNK SNAPSHOT_SUM_BYTES
#define LOW (MIB(23) + 3 * PAGE) /* private; the chunk at its end has bytes of both regions */
#define HIGH_GPA GIB(4)
#define HIGH (MIB(3) + PAGE)     /* a memfd, from its second page */
#define SIZE (LOW + HIGH)
#define PAGES (SIZE / PAGE)

static struct guest_memory *memory;
static uint8_t *low, *high;
static int memfd = -1, out = -1;
static struct memory_file *file;
static struct memory_file_options options;
static unsigned long low_marks[LOW / PAGE / 64 + 1], high_marks[HIGH / PAGE / 64 + 1];
static const struct memory_marks all_marks[] = {{0, LOW, low_marks}, {HIGH_GPA, HIGH, high_marks}};
static struct err err;

/* ---- system calls that fail ---- */

enum call { CALL_WRITE, CALL_READ, CALL_TRUNCATE, CALL_PUNCH, CALLS };
static int fail_at[CALLS], fail_with, calls[CALLS]; /* fail_at: the call that fails, 1 the first; 0: none does */
static bool short_writes;

static bool fails(enum call call)
{
	calls[call]++;
	if (calls[call] != fail_at[call])
		return false;
	errno = fail_with;
	return true;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	return fails(CALL_WRITE) ? -1 : syscall(SYS_pwrite64, fd, data, short_writes && len > 1 ? len / 2 + 1 : len, offset);
}

ssize_t pread(int fd, void *data, size_t len, off_t offset)
{
	return fd == out && fails(CALL_READ) ? -1 : syscall(SYS_pread64, fd, data, len, offset);
}

int ftruncate(int fd, off_t size)
{
	return fails(CALL_TRUNCATE) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	return fails(CALL_PUNCH) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

/* ---- memory and its file ---- */

static int new_file(void)
{
	return memfd_create("memory", MFD_CLOEXEC); /* sparse, as a file on tmpfs */
}

static void set_up(void)
{
	memset(fail_at, 0, sizeof(fail_at));
	memset(calls, 0, sizeof(calls));
	memset(low_marks, 0, sizeof(low_marks));
	memset(high_marks, 0, sizeof(high_marks));
	short_writes = false;
	memory = guest_memory_create();
	low = mmap(NULL, LOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	memfd = memfd_create("ram", MFD_CLOEXEC);
	CHECK_EQ(ftruncate(memfd, PAGE + HIGH), 0);
	high = mmap(NULL, HIGH, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, PAGE);
	madvise(low, LOW, MADV_NOHUGEPAGE);
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){0, LOW, low, -1, 0}, NULL), 0);
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){HIGH_GPA, HIGH, high, memfd, PAGE}, NULL), 0);
	out = new_file();
	options = (struct memory_file_options){.memory = memory, .fd = out, .cancel_fd = -1};
	memset(calls, 0, sizeof(calls));
}

static void tear_down(void)
{
	memory_file_destroy(take_ptr(file));
	guest_memory_destroy(memory);
	munmap(low, LOW);
	munmap(high, HIGH);
	fd_close(&memfd);
	fd_close(&out);
}

static void create(void)
{
	CHECK_EQ(memory_file_create(&options, &file, &err), 0);
}

static uint8_t *page_at(size_t page)
{
	return page < LOW / PAGE ? low + page * PAGE : high + (page - LOW / PAGE) * PAGE;
}

static void fill(size_t page, uint8_t value)
{
	memset(page_at(page), value, PAGE);
}

static void mark(size_t page)
{
	if (page < LOW / PAGE)
		bitmap_set(low_marks, page);
	else
		bitmap_set(high_marks, page - LOW / PAGE);
}

static void mark_all(void)
{
	for (size_t page = 0; page < PAGES; page++)
		mark(page);
}

static size_t marks_left(void)
{
	return bitmap_count(low_marks, ARRAY_SIZE(low_marks)) + bitmap_count(high_marks, ARRAY_SIZE(high_marks));
}

/* A mixture: single pages, runs, zeros, what was never touched, in both regions and at their edges. */
static void fill_some(void)
{
	static const size_t places[] = {0, 2, 3, 511, 512, 1023, 1500, 1501, 2047, LOW / PAGE - 1, LOW / PAGE, PAGES - 1};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		fill(places[i], (uint8_t)(i + 1));
	for (size_t page = 2048; page < 4608; page++)
		fill(page, (uint8_t)(page / 3 % 4)); /* every fourth three are zero */
	fill(LOW / PAGE + 2, 0);
}

static bool is_data(size_t page)
{
	return lseek(out, (off_t)(page * PAGE), SEEK_DATA) == (off_t)(page * PAGE);
}

static int byte_at(size_t page)
{
	uint8_t byte;

	CHECK_EQ(pread(out, &byte, 1, (off_t)(page * PAGE)), 1);
	return byte;
}

static const uint8_t *map_out(void)
{
	struct stat st;
	void *map;

	CHECK_EQ(fstat(out, &st), 0);
	CHECK_EQ(st.st_size, SIZE);
	map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, out, 0);
	CHECK(map != MAP_FAILED);
	return map;
}

/* The sums are those of the file. */
static void check_sums(void)
{
	struct snapshot_bytes sums;
	const uint8_t *map = map_out();

	CHECK_EQ(memory_file_finish(file, &sums, &err), 0);
	CHECK_EQ(sums.len, (SIZE + CHUNK - 1) / CHUNK * 8);
	for (size_t i = 0; i < sums.len / 8; i++)
		CHECK_EQ(le64toh(((const uint64_t *)sums.data)[i]),
			 snapshot_sum(map + i * CHUNK, MIN(CHUNK, SIZE - i * CHUNK)));
	munmap((void *)(uintptr_t)map, SIZE);
}

/* The file is memory, and pages of zeros are holes. */
static void check_file(void)
{
	static const uint8_t zeros[PAGE];
	static bool data[PAGES];
	const uint8_t *map;

	/* First: a read of a mapped hole makes it data. */
	for (size_t page = 0; page < PAGES; page++)
		data[page] = is_data(page);
	map = map_out();
	for (size_t page = 0; page < PAGES; page++) {
		CHECK(memcmp(map + page * PAGE, page_at(page), PAGE) == 0);
		CHECK_EQ(data[page], memcmp(map + page * PAGE, zeros, PAGE) != 0);
	}
	munmap((void *)(uintptr_t)map, SIZE);
	check_sums();
}

/* ---- everything ---- */

static void the_file_is_what_memory_is(void)
{
	struct memory_file_stats stats;

	set_up();
	fill_some();
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	memory_file_get_stats(file, &stats);
	CHECK_EQ(stats.at, SIZE);
	check_file();
	tear_down();
}

static void empty_memory_is_an_empty_file(void)
{
	struct stat st;

	set_up();
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	CHECK_EQ(fstat(out, &st), 0);
	CHECK_EQ(st.st_blocks, 0);
	CHECK_EQ(calls[CALL_WRITE], 0);
	check_file();
	tear_down();
}

static void what_was_in_the_file_is_gone(void)
{
	set_up();
	fill(700, 7);
	CHECK_EQ(ftruncate(out, SIZE + PAGE), 0);
	CHECK_EQ(pwrite(out, "old", 3, MIB(1)), 3);
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	check_file();
	tear_down();
}

static size_t resident(void)
{
	static unsigned char there[LOW / PAGE];
	size_t count = 0;

	CHECK_EQ(mincore(low, LOW, there), 0);
	for (size_t i = 0; i < LOW / PAGE; i++)
		count += there[i] & 1;
	return count;
}

static void untouched_memory_stays_untouched(void)
{
	struct stat before, after;
	size_t there;

	set_up();
	fill_some();
	there = resident();
	CHECK_EQ(fstat(memfd, &before), 0);
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	check_sums();
	CHECK_EQ(resident(), there);
	CHECK_EQ(fstat(memfd, &after), 0);
	CHECK_EQ(after.st_blocks, before.st_blocks);
	tear_down();
}

static void fill_all(void)
{
	for (size_t page = 0; page < PAGES; page++)
		fill(page, (uint8_t)(page % 255 + 1));
}

/* So much that the ring writes most of it; without descriptors there is none. */
static void without_io_uring_the_file_is_the_same(void)
{
	for (int without = 0; without < 2; without++) {
		struct shortage shortage;

		set_up();
		fill_all();
		for (size_t page = 1; page < PAGES; page += 7)
			fill(page, 0);
		create();
		if (without)
			shortage_begin(&shortage);
		CHECK_EQ(memory_file_write_all(file, &err), 0);
		if (without)
			shortage_end(&shortage);
		CHECK(without ? calls[CALL_WRITE] > 900 : calls[CALL_WRITE] < 300);
		check_file();
		tear_down();
	}
}

static void private_huge_pages_are_written(void)
{
	uint8_t *huge = mmap(NULL, MIB(4), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);

	if (huge == MAP_FAILED)
		SKIP("no huge pages are reserved");
	set_up();
	guest_memory_remove(memory, HIGH_GPA, NULL);
	guest_memory_remove(memory, 0, NULL);
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){0, MIB(4), huge, -1, 0, MIB(2)}, NULL), 0);
	memset(huge + MIB(2) + PAGE, 5, PAGE);
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	CHECK(!is_data(0) && !is_data(512) && is_data(513) && !is_data(514));
	munmap(huge, MIB(4));
	tear_down();
}

/* Pages of the file, of this process, and of neither. */
static void a_private_mapping_of_a_file_is_written_as_it_is_seen(void)
{
	int fd = memfd_create("base", MFD_CLOEXEC);
	struct guest_file base = {.fd = fd, .offset = PAGE};
	struct guest_region region = {.size = MIB(5), .fd = -1, .base = &base};
	uint8_t value = 6, read_back[PAGE];

	set_up();
	guest_memory_remove(memory, HIGH_GPA, NULL);
	guest_memory_remove(memory, 0, NULL);
	CHECK_EQ(ftruncate(fd, PAGE + MIB(5)), 0);
	CHECK_EQ(syscall(SYS_pwrite64, fd, &value, 1, PAGE), 1);
	CHECK_EQ(syscall(SYS_pwrite64, fd, &value, 1, MIB(3)), 1);
	region.host = mmap(NULL, MIB(5), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
	CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	((uint8_t *)region.host)[MIB(4)] = 7;
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	for (size_t page = 0; page < MIB(5) / PAGE; page++) {
		bool data = page == 0 || page == MIB(3) / PAGE - 1 || page == MIB(4) / PAGE;

		CHECK_EQ(is_data(page), data);
		CHECK_EQ(syscall(SYS_pread64, out, read_back, PAGE, page * PAGE), PAGE);
		CHECK(memcmp(read_back, (uint8_t *)region.host + page * PAGE, PAGE) == 0);
		CHECK_EQ(read_back[0], !data ? 0 : page == MIB(4) / PAGE ? 7 : 6);
	}
	munmap(region.host, MIB(5));
	close(fd);
	tear_down();
}

/* As the balloon does it. */
static void what_was_given_back_is_a_hole(void)
{
	size_t count;
	const struct guest_region *regions;

	set_up();
	fill_all();
	regions = guest_memory_regions(memory, &count);
	CHECK_EQ(guest_discard(&regions[0], MIB(1), MIB(6)), 0);
	CHECK_EQ(guest_discard(&regions[1], PAGE, MIB(1)), 0);
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	CHECK(!is_data(MIB(1) / PAGE) && !is_data(MIB(7) / PAGE - 1) && is_data(MIB(7) / PAGE));
	CHECK(is_data(LOW / PAGE) && !is_data(LOW / PAGE + 1) && is_data(LOW / PAGE + 1 + MIB(1) / PAGE));
	check_file();
	tear_down();
}

/* ---- rounds ---- */

static void rounds_leave_what_was_written_last(void)
{
	set_up();
	fill_some();
	create();
	mark_all();
	CHECK_EQ(memory_file_write(file, all_marks, 2, 0, &err), 0);
	CHECK_EQ(marks_left(), 0);
	for (size_t page = 2000; page < 2100; page += 3) {
		fill(page, page % 2 ? 9 : 0);
		mark(page);
	}
	fill(PAGES - 1, 0);
	mark(PAGES - 1);
	fill(5000, 5);
	mark(5000);
	CHECK_EQ(memory_file_write(file, all_marks, 2, 0, &err), 0);
	check_file();
	tear_down();
}

static void without_holes_zeros_are_written(void)
{
	set_up();
	fill(1, 1);
	fill(2, 2);
	create();
	mark_all();
	CHECK_EQ(memory_file_write(file, all_marks, 2, 0, &err), 0);
	fail_at[CALL_PUNCH] = 1;
	fail_with = EOPNOTSUPP;
	fill(1, 0);
	fill(2, 0);
	mark(1);
	mark(2);
	CHECK_EQ(memory_file_write(file, all_marks, 2, 0, &err), 0);
	CHECK(is_data(1) && is_data(2));
	check_sums();
	CHECK_EQ(byte_at(1), 0);
	CHECK_EQ(byte_at(2), 0);
	tear_down();
}

static void only_marked_pages_are_looked_at(void)
{
	set_up();
	fill_all();
	create();
	mark(3);
	mark(LOW / PAGE);
	CHECK_EQ(memory_file_write(file, all_marks, 2, 0, &err), 0);
	for (size_t page = 0; page < PAGES; page++)
		CHECK_EQ(is_data(page), page == 3 || page == LOW / PAGE);
	check_sums();
	tear_down();
}

static void a_diff_has_zeros_as_data(void)
{
	static const size_t places[] = {0, 100, 511, 512, LOW / PAGE - 1, LOW / PAGE, PAGES - 1};

	set_up();
	options.diff = true;
	fill(100, 1);
	fill(101, 1);
	create();
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		mark(places[i]);
	for (size_t page = 1024; page < 1536; page++)
		mark(page);
	CHECK_EQ(memory_file_write(file, all_marks, 2, 0, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		CHECK(is_data(places[i]));
	CHECK(is_data(1024) && is_data(1535) && !is_data(1536) && !is_data(101) && !is_data(1));
	CHECK_EQ(byte_at(100), 1);
	check_sums();
	tear_down();
}

static void a_deadline_leaves_marks(void)
{
	set_up();
	fill_all();
	create();
	mark_all();
	CHECK_EQ(memory_file_write(file, all_marks, 2, 1, &err), 0);
	CHECK_EQ(marks_left(), PAGES);
	CHECK_EQ(memory_file_write(file, all_marks, 2, monotonic_ns() + 3600000000000ull, &err), 0);
	CHECK_EQ(marks_left(), 0);
	check_file();
	tear_down();
}

static void marks_outside_of_memory_are_refused(void)
{
	const struct memory_marks bad[] = {{LOW - PAGE, 2 * PAGE, low_marks}, {HIGH_GPA - PAGE, PAGE, low_marks},
					   {1, PAGE, low_marks}, {0, PAGE - 1, low_marks}, {PAGE, -PAGE & ~0ull, low_marks}};

	set_up();
	create();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(memory_file_write(file, &bad[i], 1, 0, &err), -EINVAL);
	CHECK_EQ(memory_file_write(file, &(struct memory_marks){5, 0, NULL}, 1, 0, &err), -EINVAL);
	CHECK_EQ(memory_file_write(file, &(struct memory_marks){HIGH_GPA * 2, 0, NULL}, 1, 0, &err), 0);
	tear_down();
}

/* ---- failures ---- */

/* All in one, as a snapshot does. */
static int take(void)
{
	struct snapshot_bytes sums;
	int code = memory_file_create(&options, &file, &err);

	if (code)
		return code;
	code = memory_file_write_all(file, &err);
	if (code) {
		CHECK_EQ(memory_file_write_all(file, NULL), code); /* once failed, always failed */
		return code;
	}
	mark(0);
	mark(1);
	low[0] = 77;
	memset(low + PAGE, 0, PAGE);
	return memory_file_write(file, all_marks, 2, 0, &err) ?: memory_file_finish(file, &sums, &err);
}

static void every_call_may_fail_once(void)
{
	static const int codes[] = {ENOSPC, EIO, EDQUOT};

	for (int call = CALL_WRITE; call <= CALL_TRUNCATE; call++) {
		unsigned int failures = 0;
		int code;

		for (int n = 1;; n += n < 4 ? 1 : 60) {
			set_up();
			fill_some();
			fill(1, 1);
			fail_at[call] = n;
			fail_with = codes[n % (int)ARRAY_SIZE(codes)];
			err.text[0] = 0;
			code = take();
			if (code) {
				CHECK_EQ(code, -fail_with);
				CHECK(strstr(err.text, strerror(fail_with)));
				failures++;
			}
			tear_down();
			if (!code)
				break;
		}
		CHECK(failures >= 1);
	}
}

static void interrupted_and_short_writes_go_on(void)
{
	set_up();
	fill_some();
	short_writes = true;
	fail_at[CALL_WRITE] = 3;
	fail_with = EINTR;
	create();
	CHECK_EQ(memory_file_write_all(file, &err), 0);
	check_file();
	tear_down();
}

/* The write that crosses the limit is short, and the rest fails; the first MiB are written without the ring. */
static void a_limit_of_size_is_told(void)
{
	static const uint64_t limits[] = {MIB(1) + 5, MIB(9) + 5, SIZE - 1};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		int code;

		set_up();
		fill_all();
		create();
		limit_writes(limits[i]);
		code = memory_file_write_all(file, &err);
		limit_writes(RLIM_INFINITY);
		CHECK_EQ(code, -EFBIG);
		CHECK(strstr(err.text, "File too large"));
		CHECK_EQ(memory_file_write_all(file, NULL), -EFBIG);
		tear_down();
	}
	set_up();
	limit_writes(SIZE - 1);
	CHECK_EQ(memory_file_create(&options, &file, &err), -EFBIG);
	limit_writes(RLIM_INFINITY);
	CHECK(strstr(err.text, "ulimit -f"));
	tear_down();
}

static void a_pipe_is_no_file(void)
{
	int fds[2];

	set_up();
	CHECK_EQ(pipe(fds), 0);
	options.fd = fds[1];
	CHECK_EQ(memory_file_create(&options, &file, &err), -EINVAL);
	close(fds[0]);
	close(fds[1]);
	tear_down();
}

static void a_cancel_ends_it(void)
{
	int fd = eventfd(1, EFD_CLOEXEC);

	set_up();
	fill_all();
	options.cancel_fd = fd;
	create();
	mark_all();
	CHECK_EQ(memory_file_write(file, all_marks, 2, 0, &err), -ECANCELED);
	CHECK_STR(err.text, "cancelled");
	CHECK(marks_left() >= PAGES - CHUNK / PAGE);
	CHECK_EQ(memory_file_write_all(file, &err), -ECANCELED);
	close(fd);
	tear_down();
}

static int ticks;

static int tick_fails(void *opaque, struct err *why)
{
	ticks++;
	return err_set(why, -EPIPE, "nobody asks any more");
}

static void a_tick_may_end_it(void)
{
	set_up();
	fill_all();
	options.tick = tick_fails;
	create();
	usleep(110000);
	CHECK_EQ(memory_file_write_all(file, &err), -EPIPE);
	CHECK_EQ(ticks, 1);
	CHECK_STR(err.text, "nobody asks any more");
	tear_down();
}

TEST_MAIN(TEST(the_file_is_what_memory_is), TEST(empty_memory_is_an_empty_file), TEST(what_was_in_the_file_is_gone),
	  TEST(untouched_memory_stays_untouched), TEST(without_io_uring_the_file_is_the_same),
	  TEST(private_huge_pages_are_written),
	  TEST(a_private_mapping_of_a_file_is_written_as_it_is_seen), TEST(what_was_given_back_is_a_hole), TEST(rounds_leave_what_was_written_last),
	  TEST(without_holes_zeros_are_written), TEST(only_marked_pages_are_looked_at), TEST(a_diff_has_zeros_as_data),
	  TEST(a_deadline_leaves_marks), TEST(marks_outside_of_memory_are_refused), TEST(every_call_may_fail_once),
	  TEST(interrupted_and_short_writes_go_on), TEST(a_limit_of_size_is_told), TEST(a_pipe_is_no_file),
	  TEST(a_cancel_ends_it), TEST(a_tick_may_end_it))
