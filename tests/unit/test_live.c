/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/live: a "guest" on a thread writes while its memory is written to a file; in the pause the file is what
 * memory is. Failures end the rounds by name and leave nothing started.
 */
#include "vmm/snapshot/live.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <sys/mman.h>

#include "core/bitmap.h"
#include "core/monotonic.h"

#define PAGE GUEST_PAGE_SIZE
#define SIZE MIB(24)
#define BUSY 600u /* pages to which the guest writes */

static struct guest_memory *memory;
static struct dirty_set dirty;
static uint8_t *ram;
static int out;
static struct memory_file *file;
static struct live *live;
static struct migration_goal goal;
static struct migration_progress progress;
static struct live_config config;
static struct err err;

/* ---- a machine ---- */

static pthread_t guest;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool off, held; /* held: the guest is paused */
static unsigned int pauses, resumes, throttles, flushes;
static int pause_fails;

static void *run_guest(void *opaque)
{
	bool end = false;

	for (uint32_t n = 0; !end; n++) {
		uint64_t page = n * 7919ull % BUSY;

		pthread_mutex_lock(&lock);
		memcpy(ram + page * PAGE, &n, sizeof(n));
		guest_memory_dirty(memory, page * PAGE, PAGE);
		end = off;
		pthread_mutex_unlock(&lock);
		if (n % 64 == 0)
			usleep(100);
	}
	return NULL;
}

static struct guest_memory *fake_memory(void *machine)
{
	return memory;
}

static struct dirty_set *fake_dirty(void *machine)
{
	return &dirty;
}

static int fake_track(void *machine, struct err *why)
{
	return dirty_set_start(&dirty, why);
}

static void fake_untrack(void *machine)
{
	dirty_set_stop(&dirty);
}

static void fake_throttle(void *machine, unsigned int percent)
{
	throttles = percent;
}

static int fake_pause(void *machine, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state, struct err *why)
{
	if (pause_fails)
		return err_set(why, pause_fails, "no pause");
	pthread_mutex_lock(&lock);
	held = true;
	pauses++;
	*stopped_at = monotonic_ns();
	return 0;
}

static void fake_resume(void *machine)
{
	resumes++;
	held = false;
	pthread_mutex_unlock(&lock);
}

static const struct migration_machine_ops ops = {
	.memory = fake_memory, .dirty = fake_dirty, .track = fake_track, .untrack = fake_untrack,
	.throttle = fake_throttle, .pause = fake_pause, .resume = fake_resume,
};

static unsigned int looks, end_at_look;

static int look(void *opaque, struct err *why)
{
	looks++;
	return looks == end_at_look ? err_set(why, -ECANCELED, "enough") : 0;
}

static int flush(int fd)
{
	flushes++;
	return 0;
}

/* The guest writes after the rounds and before the pause. */
static void write_late(void)
{
	pthread_mutex_lock(&lock);
	ram[MIB(20)] = 77;
	guest_memory_dirty(memory, MIB(20), PAGE);
	pthread_mutex_unlock(&lock);
}

static void begin(void)
{
	const struct memory_file_options options = {.cancel_fd = -1};
	struct memory_file_options with;

	if (held) /* by a case that failed */
		fake_resume(NULL);
	pauses = resumes = throttles = flushes = looks = end_at_look = 0;
	pause_fails = 0;
	off = false;
	progress = (struct migration_progress){0};
	goal = (struct migration_goal){.downtime = 1000000000, .aim = 2000000, .timeout = 60000000000};
	dirty = (struct dirty_set){0};
	memory = guest_memory_create();
	ram = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){0, SIZE, ram, -1, 0}, NULL), 0);
	CHECK_EQ(dirty_set_add(&dirty, guest_memory_dirty_source(memory), NULL), 0);
	for (uint64_t at = MIB(8); at < MIB(16); at += PAGE)
		ram[at + 5] = (uint8_t)(at / PAGE);
	out = memfd_create("memory", MFD_CLOEXEC);
	with = options;
	with.memory = memory;
	with.fd = out;
	CHECK_EQ(memory_file_create(&with, &file, &err), 0);
	config = (struct live_config){.ops = &ops, .goal = &goal, .file = file, .progress = &progress, .cancel_fd = -1, .look = look};
	CHECK_EQ(pthread_create(&guest, NULL, run_guest, NULL), 0);
}

static void end(void)
{
	live_end(take_ptr(live));
	CHECK_EQ(dirty.users, 0);
	CHECK(!dirty.rounds_follow);
	pthread_mutex_lock(&lock);
	off = true;
	pthread_mutex_unlock(&lock);
	pthread_join(guest, NULL);
	memory_file_destroy(file);
	guest_memory_destroy(memory);
	munmap(ram, SIZE);
	close(out);
}

/* In the pause. */
static void check_file(void)
{
	static uint8_t chunk[SNAPSHOT_SUM_BYTES];

	for (uint64_t at = 0; at < SIZE; at += sizeof(chunk)) {
		CHECK_EQ(pread(out, chunk, sizeof(chunk), (off_t)at), sizeof(chunk));
		CHECK(memcmp(chunk, ram + at, sizeof(chunk)) == 0);
	}
}

static void check_sums(void)
{
	static uint8_t chunk[SNAPSHOT_SUM_BYTES];
	struct snapshot_bytes sums;

	CHECK_EQ(memory_file_finish(file, &sums, &err), 0);
	for (uint64_t at = 0; at < SIZE; at += sizeof(chunk)) {
		CHECK_EQ(pread(out, chunk, sizeof(chunk), (off_t)at), sizeof(chunk));
		CHECK_EQ(le64toh(((const uint64_t *)sums.data)[at / sizeof(chunk)]), snapshot_sum(chunk, sizeof(chunk)));
	}
}

static void the_file_is_what_memory_is_in_the_pause(void)
{
	uint64_t stopped_at;

	begin();
	CHECK_EQ(live_begin(&config, &live, &err), 0);
	CHECK_EQ(live_rounds(live, &err), 0);
	CHECK(progress.round >= 2);
	CHECK(pauses >= 3 && pauses == resumes);
	write_late();
	CHECK_EQ(fake_pause(NULL, 0, &stopped_at, NULL, &err), 0);
	CHECK_EQ(live_rest(live, &err), 0);
	check_file();
	fake_resume(NULL);
	check_sums();
	end();
}

/* Only what is told, and what is written meanwhile. */
static void a_diff_begins_with_some_pages(void)
{
	struct page_set *only;
	uint64_t stopped_at;

	begin();
	CHECK_EQ(page_set_create(memory, false, &only, NULL), 0);
	page_set_add(only, MIB(9), PAGE, NULL);
	page_set_add(only, 0, BUSY * PAGE, NULL);
	config.only = only;
	CHECK_EQ(live_begin(&config, &live, &err), 0);
	page_set_destroy(only);
	CHECK_EQ(live_rounds(live, &err), 0);
	CHECK_EQ(fake_pause(NULL, 0, &stopped_at, NULL, &err), 0);
	CHECK_EQ(live_rest(live, &err), 0);
	for (uint64_t page = 0; page < SIZE / PAGE; page++) {
		uint8_t bytes[8];
		bool in = page < BUSY || page == MIB(9) / PAGE;

		CHECK_EQ(pread(out, bytes, 8, (off_t)(page * PAGE)), 8);
		CHECK(in ? memcmp(bytes, ram + page * PAGE, 8) == 0 : !memcmp(bytes, "\0\0\0\0\0\0\0", 8));
	}
	fake_resume(NULL);
	end();
}

static void disks_are_flushed_in_rounds_and_in_the_pause(void)
{
	struct disk_shared disk = {.id = "d", .fd = -1, .flush = flush};
	char path[] = "/tmp/mvmm-live-XXXXXX";
	struct disk_flusher *flusher;
	uint64_t stopped_at;
	unsigned int before;

	begin();
	disk.fd = mkstemp(path);
	unlink(path);
	CHECK_EQ(disk_flusher_create(&disk, 1, &flusher, &err), 0);
	config.flusher = flusher;
	CHECK_EQ(live_begin(&config, &live, &err), 0);
	CHECK_EQ(live_rounds(live, &err), 0);
	CHECK(flushes >= 1);
	before = flushes;
	CHECK_EQ(fake_pause(NULL, 0, &stopped_at, NULL, &err), 0);
	CHECK_EQ(live_rest(live, &err), 0);
	CHECK_EQ(flushes, before + 1);
	fake_resume(NULL);
	end();
	disk_flusher_destroy(flusher);
	close(disk.fd);
}

static void a_look_may_end_it(void)
{
	for (unsigned int n = 1; n < 6; n++) {
		begin();
		end_at_look = n;
		CHECK_EQ(live_begin(&config, &live, &err), 0);
		CHECK_EQ(live_rounds(live, &err), -ECANCELED);
		CHECK_STR(err.text, "enough");
		CHECK_EQ(pauses, resumes);
		end();
		CHECK_EQ(throttles, 0);
	}
}

static void a_pause_that_fails_ends_it(void)
{
	begin();
	pause_fails = -ESHUTDOWN;
	CHECK_EQ(live_begin(&config, &live, &err), 0);
	CHECK_EQ(live_rounds(live, &err), -ESHUTDOWN);
	CHECK_STR(err.text, "no pause");
	end();
}

static void a_time_limit_ends_it(void)
{
	begin();
	goal.downtime = 1;
	goal.aim = 0;
	goal.timeout = 50000000;
	CHECK_EQ(live_begin(&config, &live, &err), 0);
	CHECK_EQ(live_rounds(live, &err), -ETIME);
	CHECK(strstr(err.text, "the guest continues"));
	end();
}

TEST_MAIN(TEST(the_file_is_what_memory_is_in_the_pause), TEST(a_diff_begins_with_some_pages),
	  TEST(disks_are_flushed_in_rounds_and_in_the_pause), TEST(a_look_may_end_it), TEST(a_pause_that_fails_ends_it),
	  TEST(a_time_limit_ends_it))
