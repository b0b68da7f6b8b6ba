/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/prefetch: the list has what was touched and has data; it is read as it was written, by its own snapshot
 * alone; a list that is cut, flipped or nonsense is refused; reading ahead brings the file's pages into the page cache.
 */
#include "tests/unit/snapshot_rig.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/prefetch.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE SNAPSHOT_PAGE
#define PAGES (RIG_MEMORY / PAGE)

static struct snapshot_rig rig;
static struct snapshot *snapshot;
static struct prefetch *prefetch;
static struct err err;

static void tear_down(void)
{
	free(prefetch);
	prefetch = NULL;
	snapshot_close(snapshot);
	snapshot = NULL;
	rig_done(&rig);
	rig_rmdir();
}

/* A snapshot whose pages have data, but for those from 300 to 399. */
static void set_up(uint8_t id)
{
	rig_mkdir();
	rig_init(&rig, id, 0);
	for (unsigned int i = 0; i < PAGES; i++)
		if (i < 300 || i >= 400)
			rig_fill(&rig, i, (uint8_t)(i + 1));
	rig_finish(&rig);
	CHECK_EQ(rig_write(&rig, rig_path("snap"), 0, &err), 0);
	CHECK_EQ(snapshot_open(rig_path("snap"), &snapshot, &err), 0);
}

static struct prefetch *list(size_t count, const struct prefetch_range *ranges)
{
	struct prefetch *made = calloc(1, sizeof(*made) + count * sizeof(*ranges));

	made->count = count;
	memcpy(made->ranges, ranges, count * sizeof(*ranges));
	return made;
}

static const struct prefetch_range two[] = {{PAGE, 3 * PAGE}, {400 * PAGE, PAGE}};

static void what_was_touched_is_in_the_list_and_holes_are_not(void)
{
	struct guest_file base = {0};
	struct guest_region region = {.size = RIG_MEMORY, .fd = -1, .base = &base};
	struct guest_memory *memory = guest_memory_create();
	volatile char *host;

	set_up(1);
	/* Its own copy of the file: in the page cache, the kernel maps pages around those that are touched. */
	base.fd = snapshot->memory_fd;
	region.host = mmap(NULL, RIG_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE, base.fd, 0);
	CHECK(region.host != MAP_FAILED);
	host = region.host;
	CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	CHECK_EQ(prefetch_collect(memory, &prefetch, &err), 0);
	CHECK_EQ(prefetch->count, 0);
	free(prefetch);
	(void)host[20 * PAGE];
	host[350 * PAGE] = 1; /* in a hole */
	host[600 * PAGE] = 1; /* a copy */
	(void)host[1000 * PAGE];
	CHECK_EQ(prefetch_collect(memory, &prefetch, &err), 0);
	for (size_t i = 0; i < prefetch->count; i++) {
		CHECK(prefetch->ranges[i].offset + prefetch->ranges[i].size <= 300 * PAGE ||
		      prefetch->ranges[i].offset >= 400 * PAGE);
		CHECK(prefetch->ranges[i].size <= 64 * PAGE);
	}
	CHECK(prefetch->count >= 2 && prefetch->count <= 3);
	CHECK(prefetch->ranges[0].offset <= 20 * PAGE &&
	      prefetch->ranges[0].offset + prefetch->ranges[0].size > 20 * PAGE);
	guest_memory_destroy(memory);
	munmap(region.host, RIG_MEMORY);
	tear_down();
}

static void it_is_read_as_it_was_written_and_replaces_an_older_one(void)
{
	struct stat st;

	set_up(2);
	CHECK_EQ(prefetch_open(snapshot, &prefetch, &err), -ENOENT);
	for (size_t count = 2; count--;) {
		struct prefetch *made = list(count, two);

		CHECK_EQ(prefetch_save(snapshot, made, &err), 0);
		free(made);
		free(take_ptr(prefetch));
		CHECK_EQ(prefetch_open(snapshot, &prefetch, &err), 0);
		CHECK_EQ(prefetch->count, count);
		CHECK_EQ(prefetch->bytes, count ? 3 * PAGE : 0);
		CHECK_EQ(memcmp(prefetch->ranges, two, count * sizeof(two[0])), 0);
	}
	CHECK_EQ(stat(rig_path("snap/prefetch"), &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0600);
	tear_down();
}

/* What a writer that was killed has left is replaced by the next one, and goes with the folder. */
static void one_at_a_time_is_written_and_a_dead_writer_does_not_matter(void)
{
	struct prefetch *made = list(2, two);
	struct snapshot *other;

	set_up(6);
	CHECK_EQ(mknod(rig_path("snap/" PREFETCH_NEW), S_IFREG | 0600, 0), 0);
	CHECK_EQ(snapshot_open(rig_path("snap"), &other, &err), 0);
	CHECK_EQ(flock(other->dir_fd, LOCK_EX | LOCK_NB), 0);
	CHECK_EQ(prefetch_save(snapshot, made, &err), -EBUSY);
	CHECK(strstr(err.text, "snap: another process writes to it"));
	snapshot_close(other);
	CHECK_EQ(prefetch_save(snapshot, made, &err), 0);
	CHECK(access(rig_path("snap/" PREFETCH_NEW), F_OK) < 0 && access(rig_path("snap/prefetch"), F_OK) == 0);
	CHECK_EQ(mknod(rig_path("snap/" PREFETCH_NEW), S_IFREG | 0600, 0), 0);
	CHECK_EQ(rig_write(&rig, rig_path("snap"), RIG_REPLACE, &err), 0);
	CHECK_EQ(rig_names(), 1);
	free(made);
	tear_down();
}

static void any_byte_that_is_wrong_and_any_cut_is_refused(void)
{
	struct prefetch *made = list(2, two);
	unsigned char bytes[256];
	int fd;
	ssize_t len;

	set_up(3);
	CHECK_EQ(prefetch_save(snapshot, made, &err), 0);
	free(made);
	fd = open(rig_path("snap/prefetch"), O_RDONLY | O_CLOEXEC);
	len = read(fd, bytes, sizeof(bytes));
	close(fd);
	CHECK_EQ(len, 48 + 16);
	for (ssize_t i = 0; i < len; i++) {
		CHECK(prefetch_parse(bytes, (size_t)i, snapshot->state, &prefetch, &err) < 0);
		bytes[i] ^= 0x40;
		CHECK(prefetch_parse(bytes, (size_t)len, snapshot->state, &prefetch, &err) < 0);
		bytes[i] ^= 0x40;
	}
	CHECK(prefetch_parse(bytes, sizeof(bytes), snapshot->state, &prefetch, &err) < 0);
	CHECK_EQ(prefetch_parse(bytes, (size_t)len, snapshot->state, &prefetch, &err), 0);
	tear_down();
}

static void one_of_another_snapshot_or_out_of_order_is_refused(void)
{
	static const struct prefetch_range bad[][2] = {
		{{PAGE, PAGE}, {PAGE, PAGE}}, {{2 * PAGE, PAGE}, {PAGE, PAGE}}, {{PAGE, 0}, {3 * PAGE, PAGE}},
		{{PAGE, PAGE}, {RIG_MEMORY, PAGE}}, {{PAGE, PAGE}, {RIG_MEMORY - PAGE, 2 * PAGE}},
	};
	struct prefetch *made;

	set_up(4);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		made = list(2, bad[i]);
		CHECK_EQ(prefetch_save(snapshot, made, &err), 0);
		free(made);
		CHECK_EQ(prefetch_open(snapshot, &prefetch, &err), -EBADMSG);
		CHECK(strstr(err.text, "not in order"));
	}
	made = list(2, two);
	CHECK_EQ(prefetch_save(snapshot, made, &err), 0);
	free(made);
	snapshot->state->id[3] ^= 1;
	CHECK_EQ(prefetch_open(snapshot, &prefetch, &err), -EBADMSG);
	CHECK(strstr(err.text, "/prefetch: the list of pages of another snapshot"));
	tear_down();
}

static size_t cached(uint64_t offset, uint64_t size)
{
	unsigned char there[PAGES];
	void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, snapshot->memory_fd, (off_t)offset);
	size_t count = 0;

	CHECK_EQ(mincore(map, size, there), 0);
	for (size_t i = 0; i < size / PAGE; i++)
		count += there[i] & 1;
	munmap(map, size);
	return count;
}

static void reading_ahead_fills_the_page_cache(void)
{
	const struct prefetch_range range = {100 * PAGE, 50 * PAGE};
	struct prefetch_job *job;
	int i;

	set_up(5);
	fsync(snapshot->memory_fd);
	posix_fadvise(snapshot->memory_fd, 0, 0, POSIX_FADV_DONTNEED);
	if (cached(range.offset, range.size) > 0) {
		tear_down();
		SKIP("this file system keeps its pages");
	}
	prefetch = list(1, &range);
	CHECK_EQ(prefetch_begin(&prefetch, snapshot->memory_fd, &job, &err), 0);
	CHECK(!prefetch);
	prefetch_end(job);
	for (i = 0; i < 5000 && cached(range.offset, range.size) < 50; i++)
		usleep(2000);
	CHECK_EQ(cached(range.offset, range.size), 50);
	CHECK(cached(800 * PAGE, 50 * PAGE) < 50);
	tear_down();
}

static void another_thread_goes_on_with_the_rest(void)
{
	struct prefetch_range ranges[60];
	struct prefetch_job *job;
	int i;

	for (size_t k = 0; k < ARRAY_SIZE(ranges); k++)
		ranges[k] = (struct prefetch_range){(100 + 4 * k) * PAGE, 2 * PAGE};
	set_up(5);
	fsync(snapshot->memory_fd);
	posix_fadvise(snapshot->memory_fd, 0, 0, POSIX_FADV_DONTNEED);
	if (cached(100 * PAGE, 240 * PAGE) > 0) {
		tear_down();
		SKIP("this file system keeps its pages");
	}
	prefetch = list(ARRAY_SIZE(ranges), ranges);
	CHECK_EQ(prefetch_begin(&prefetch, snapshot->memory_fd, &job, &err), 0);
	for (i = 0; i < 5; i++)
		CHECK_EQ(prefetch_renew(job, &err), 0);
	prefetch_end(job);
	for (size_t k = 0; k < ARRAY_SIZE(ranges); k++) {
		for (i = 0; i < 5000 && cached(ranges[k].offset, 2 * PAGE) < 2; i++)
			usleep(2000);
		CHECK_EQ(cached(ranges[k].offset, 2 * PAGE), 2);
	}
	tear_down();
}

TEST_MAIN(TEST(what_was_touched_is_in_the_list_and_holes_are_not),
	  TEST(it_is_read_as_it_was_written_and_replaces_an_older_one),
	  TEST(one_at_a_time_is_written_and_a_dead_writer_does_not_matter),
	  TEST(any_byte_that_is_wrong_and_any_cut_is_refused), TEST(one_of_another_snapshot_or_out_of_order_is_refused),
	  TEST(reading_ahead_fills_the_page_cache), TEST(another_thread_goes_on_with_the_rest))
