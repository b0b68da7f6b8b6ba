/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains of diffs by vmm/snapshot/snapshot_take and track: whatever fails meanwhile, the base with its diffs is what
 * memory is, page for page.
 */
#include "tests/unit/file_faults.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/snapshot_take.h"
#include "vmm/snapshot/state_file.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/monotonic.h"

#define PAGE GUEST_PAGE_SIZE
#define SIZE (MIB(6) + 3 * PAGE)
#define PAGES (SIZE / PAGE)

static struct guest_memory *memory;
static struct guest_file below;
static struct dirty_set dirty;
static uint8_t *ram, *moment; /* moment: ram in the last pause */
static uint8_t *merged; /* the base, and the diffs that were committed */
static struct track *track;
static struct snapshot_files files;
static struct snapshot_report report;
static const char *cancel_at;
static struct snapshot_take *take;
static uint8_t last_id[16];
static uint32_t turn;
static struct err err;

/* ---- a machine ---- */

/* The guest writes to some pages; in some cases zeros. */
static void work(void)
{
	for (unsigned int i = 0; i < 5; i++) {
		uint64_t page = (turn++ * 2654435761u >> 8) % PAGES;

		memset(ram + page * PAGE, i == 4 ? 0 : (int)(turn % 255 + 1), PAGE);
		guest_memory_dirty(memory, page * PAGE, PAGE);
	}
}

static void note(const char *call)
{
	if (cancel_at && strcmp(cancel_at, call) == 0)
		snapshot_take_cancel(take, "enough");
}

static int do_begin(void *machine, char **offer, struct err *why)
{
	*offer = strdup("{\"some\":\"machine\"}");
	return 0;
}

static void do_end(void *machine)
{
}

static struct guest_memory *do_memory(void *machine)
{
	return memory;
}

static struct dirty_set *do_dirty(void *machine)
{
	return &dirty;
}

static int do_track(void *machine, struct err *why)
{
	note("track");
	return dirty_set_start(&dirty, why);
}

static void do_untrack(void *machine)
{
	dirty_set_stop(&dirty);
}

static void do_throttle(void *machine, unsigned int percent)
{
}

static int do_pause(void *machine, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state, struct err *why)
{
	note("pause");
	memcpy(moment, ram, SIZE);
	*stopped_at = monotonic_ns();
	return state_buffer_add(state, "state", 6);
}

static void do_resume(void *machine)
{
	note("resume");
	work();
}

static size_t no_devices(void *machine, struct vfio_migration *const **ret)
{
	return 0;
}

static const struct migration_machine_ops ops = {
	.begin = do_begin, .end = do_end, .memory = do_memory, .dirty = do_dirty, .track = do_track, .untrack = do_untrack,
	.throttle = do_throttle, .pause = do_pause, .resume = do_resume, .devices = no_devices,
};

static void do_tell(void *opaque, const struct snapshot_report *told)
{
}

/* restored: from a snapshot with memory that is not empty. */
static void begin(bool restored)
{
	struct guest_region region = {.size = SIZE, .fd = -1};
	static const uint8_t id[16] = "restored from it";

	turn = 0;
	cancel_at = NULL;
	dirty = (struct dirty_set){0};
	below = (struct guest_file){.fd = -1};
	merged = calloc(1, SIZE);
	moment = malloc(SIZE);
	if (restored) {
		below.fd = memfd_create("base", MFD_CLOEXEC);
		CHECK_EQ(ftruncate(below.fd, SIZE), 0);
		memset(merged + MIB(1), 'b', MIB(2));
		CHECK_EQ(pwrite(below.fd, merged, SIZE, 0), SIZE);
		region.base = &below;
	}
	ram = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | (restored ? 0 : MAP_ANONYMOUS), below.fd, 0);
	CHECK(ram != MAP_FAILED);
	region.host = ram;
	memory = guest_memory_create();
	CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	CHECK_EQ(dirty_set_add(&dirty, guest_memory_dirty_source(memory), NULL), 0);
	memcpy(last_id, id, sizeof(last_id));
	CHECK_EQ(track_create(memory, &dirty, restored ? id : NULL, &track, &err), 0);
	work();
}

static void end(void)
{
	faults_end();
	track_destroy(track);
	guest_memory_destroy(memory);
	munmap(ram, SIZE);
	free(merged);
	free(moment);
	if (below.fd >= 0)
		close(below.fd);
}

/* ---- snapshots ---- */

/* 0, or the report says why not. The owner of the track has to end it. */
static int attempt(const struct snapshot_request *request)
{
	const struct snapshot_take_config config = {.request = request, .files = &files, .ops = &ops, .track = track,
						    .tell = do_tell, .kernel = -1, .initrd = -1};
	int code = track_begin(track, request, &err) ?: snapshot_take_create(&config, &take, &err);

	if (code)
		return code;
	snapshot_take_run(take, &report);
	snapshot_take_destroy(take_ptr(take));
	return report.phase == SNAPSHOT_WRITTEN ? 0 : -EIO;
}

static void open_files(void)
{
	snapshot_files_init(&files);
	files.state = memfd_create("state", MFD_CLOEXEC);
	files.memory = memfd_create("memory", MFD_CLOEXEC);
}

static bool fails(const struct snapshot_request *request)
{
	bool failed;

	open_files();
	failed = attempt(request);
	track_abort(track);
	snapshot_files_close(&files);
	return failed;
}

/* Puts the files that were written over what there was. */
static void merge(bool diff)
{
	struct stat st;
	uint8_t *data;
	struct snapshot_state *state;

	CHECK_EQ(fstat(files.state, &st), 0);
	data = malloc((size_t)st.st_size);
	CHECK_EQ(pread(files.state, data, (size_t)st.st_size, 0), st.st_size);
	CHECK_EQ(snapshot_state_parse(data, (size_t)st.st_size, &state, &err), 0);
	CHECK_EQ(snapshot_state_is_diff(state), diff);
	if (diff)
		CHECK(memcmp(state->parent, last_id, 16) == 0);
	CHECK_EQ(fstat(files.memory, &st), 0);
	CHECK_EQ(st.st_size, SIZE);
	for (uint64_t page = 0; page < PAGES; page++) {
		bool is_data = lseek(files.memory, (off_t)(page * PAGE), SEEK_DATA) == (off_t)(page * PAGE);

		if (diff)
			CHECK_EQ(is_data, snapshot_state_has_page(state, page)); /* the bitmap is exact */
		if (snapshot_state_has_page(state, page))
			CHECK_EQ(pread(files.memory, merged + page * PAGE, PAGE, (off_t)(page * PAGE)), PAGE);
	}
	memcpy(last_id, state->id, sizeof(last_id));
	free(state);
	free(data);
}

static void commit(const struct snapshot_request *request)
{
	open_files();
	CHECK_EQ(attempt(request), 0);
	track_commit(track, report.id);
	merge(request->diff);
	CHECK(memcmp(merged, moment, SIZE) == 0);
	snapshot_files_close(&files);
}

#define GOAL {.downtime = 1000000000, .aim = 1000000, .timeout = 60000000000}

static const struct snapshot_request base = {.track = true}, diff = {.diff = true}, plain = {0},
	live_base = {.track = true, .live = true, .goal = GOAL}, live_diff = {.diff = true, .live = true, .goal = GOAL};

static void a_chain_is_what_memory_is(void)
{
	begin(false);
	commit(&base);
	for (int i = 0; i < 5; i++) {
		work();
		commit(&diff);
	}
	commit(&live_diff);
	commit(&diff);
	commit(&live_base);
	commit(&diff);
	end();
}

/* Every call on the files, one after the other, in snapshots of every kind; the guest goes on writing. */
static void whatever_fails_once_the_next_diff_has_it(void)
{
	static const struct snapshot_request *const requests[] = {&diff, &plain, &live_diff, &base};

	begin(false);
	commit(&base);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		unsigned int n = 1;
		bool failed, any = false;

		do {
			work();
			faults_begin(n, n % 2 ? EIO : ENOSPC);
			failed = fails(requests[i]);
			any |= failed;
			CHECK_EQ(report.no_space, failed && n % 2 == 0);
			if (!faults_end())
				break;
			n += 1 + n / 8;
		} while (n < 200);
		CHECK(any);
		work();
		commit(&diff);
	}
	end();
}

static void what_is_cancelled_is_in_the_next_diff(void)
{
	static const char *const points[] = {"track", "pause", "resume"};

	begin(false);
	commit(&base);
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		cancel_at = points[i];
		work();
		CHECK(fails(&live_diff));
		CHECK_STR(report.text, "enough");
		cancel_at = NULL;
		commit(&diff);
	}
	end();
}

/* Written, and given up by who asked for it. */
static void what_is_not_committed_is_in_the_next_diff(void)
{
	begin(false);
	commit(&base);
	for (int i = 0; i < 4; i++) {
		work();
		CHECK(!fails(i % 2 ? &diff : &live_diff));
	}
	commit(&diff);
	end();
}

static void a_restored_machine_has_a_diff_of_what_it_came_from(void)
{
	begin(true);
	commit(&diff);
	end();
	begin(true);
	work();
	CHECK(!fails(&live_diff));
	work();
	commit(&live_diff);
	CHECK(!dirty.users);
	end();
	begin(true);
	commit(&(struct snapshot_request){.diff = true, .track = true});
	work();
	commit(&diff);
	end();
}

static void without_a_parent_it_is_refused_by_name(void)
{
	begin(false);
	CHECK_EQ(attempt(&diff), -ENOTSUP);
	CHECK(strstr(err.text, "--track"));
	end();
}

TEST_MAIN(TEST(a_chain_is_what_memory_is), TEST(whatever_fails_once_the_next_diff_has_it),
	  TEST(what_is_cancelled_is_in_the_next_diff), TEST(what_is_not_committed_is_in_the_next_diff),
	  TEST(a_restored_machine_has_a_diff_of_what_it_came_from), TEST(without_a_parent_it_is_refused_by_name))
