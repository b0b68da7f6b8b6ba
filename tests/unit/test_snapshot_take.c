/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/snapshot_take: the guest is paused for what must be of one moment and for nothing else, and whatever
 * fails, the machine is as it was before.
 */
#include "tests/unit/full_disk.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/description.h"
#include "vmm/snapshot/snapshot_disks.h"
#include "vmm/snapshot/snapshot_take.h"
#include "vmm/snapshot/state_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE GUEST_PAGE_SIZE
#define SIZE MIB(4)
#define STATE "the state of all devices"

static struct guest_memory *memory;
static char *host;
static bool begun, paused, by_user;
static unsigned int pauses, resumes;
static const char *failing; /* the machine's call that fails */
static const char *cancel_at;
static struct snapshot_take *take; /* also read by a thread that flushes */
static struct snapshot_files files;
static struct snapshot_report report;
static struct disk_copy disks[1];
static struct dirty_set dirty;
static struct track *track;
static struct err err;

static int fails(const char *call, struct err *why)
{
	if (cancel_at && strcmp(cancel_at, call) == 0)
		snapshot_take_cancel(take, "enough");
	return failing && strcmp(failing, call) == 0 ? err_set(why, -EIO, "%s failed", call) : 0;
}

static int do_begin(void *machine, char **offer, struct err *why)
{
	int code = fails("begin", why);

	if (code)
		return code;
	*offer = strdup("{\"some\":\"machine\"}");
	begun = true;
	return 0;
}

static void do_end(void *machine)
{
	begun = false;
}

static struct guest_memory *do_memory(void *machine)
{
	return memory;
}

static int do_pause(void *machine, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state, struct err *why)
{
	int code = fails("pause", why);

	CHECK(begun);
	if (code)
		return code;
	paused = true;
	pauses++;
	*stopped_at = 1;
	return state_buffer_add(state, STATE, sizeof(STATE));
}

static void do_resume(void *machine)
{
	paused = by_user;
	resumes++;
}

static size_t no_devices(void *machine, struct vfio_migration *const **ret)
{
	return 0;
}

static const struct migration_machine_ops ops = {
	.begin = do_begin, .end = do_end, .memory = do_memory, .pause = do_pause, .resume = do_resume,
	.devices = no_devices,
};

static void do_tell(void *opaque, const struct snapshot_report *told)
{
	CHECK(told->phase != SNAPSHOT_PAUSED || paused);
}

static int file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static void make(void)
{
	struct guest_region region = {.gpa = 0, .size = SIZE, .fd = -1};

	host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(host != MAP_FAILED);
	region.host = host;
	memory = guest_memory_create();
	CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	CHECK_EQ(track_create(memory, &dirty, NULL, &track, &err), 0);
	memset(host + 5 * PAGE, 'a', PAGE);
	memset(host + SIZE - PAGE, 'z', PAGE);
	failing = cancel_at = NULL;
	begun = paused = by_user = false;
	pauses = resumes = 0;
	snapshot_files_init(&files);
	files.state = file();
	files.memory = file();
	files.description = file();
}

static void unmake(void)
{
	snapshot_files_close(&files);
	track_destroy(track);
	guest_memory_destroy(memory);
	munmap(host, SIZE);
}

static void run(const struct snapshot_request *request, size_t disk_count)
{
	const struct snapshot_take_config config = {
		.request = request, .files = &files, .ops = &ops, .track = track, .tell = do_tell, .paused = by_user, .disks = disks,
		.disk_count = disk_count, .kernel = -1, .initrd = -1,
	};

	CHECK_EQ(track_begin(track, request, &err), 0);
	CHECK_EQ(snapshot_take_create(&config, &take, &err), 0);
	snapshot_take_run(take, &report);
	track_abort(track);
	snapshot_take_destroy(take);
	take = NULL;
	CHECK(begun == (request->stop && report.phase == SNAPSHOT_WRITTEN)); /* it may have to go on */
}

/* ---- what is written ---- */

static void all_of_it_is_in_the_files(void)
{
	const struct snapshot_request request = {0};
	struct snapshot_state *state;
	json_t *description;
	char page[PAGE], *bytes;
	struct stat st;

	make();
	run(&request, 0);
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	CHECK(!paused && pauses == 1);
	CHECK_EQ(report.content, 2 * PAGE);
	CHECK_EQ(fstat(files.memory, &st), 0);
	CHECK_EQ(st.st_size, (off_t)SIZE);
	CHECK(pread(files.memory, page, PAGE, 5 * PAGE) == (ssize_t)PAGE && page[0] == 'a' && page[PAGE - 1] == 'a');
	CHECK(pread(files.memory, page, PAGE, SIZE - PAGE) == (ssize_t)PAGE && page[0] == 'z');
	CHECK_EQ(fstat(files.state, &st), 0);
	bytes = malloc((size_t)st.st_size);
	CHECK_EQ(pread(files.state, bytes, (size_t)st.st_size, 0), st.st_size);
	CHECK_EQ(snapshot_state_parse(bytes, (size_t)st.st_size, &state, &err), 0);
	CHECK(state->machine.len == sizeof(STATE) && memcmp(state->machine.data, STATE, sizeof(STATE)) == 0);
	CHECK_EQ(state->memory_bytes, SIZE);
	CHECK(memcmp(state->id, report.id, 16) == 0 && !state->paused);
	CHECK_EQ(snapshot_description_read(state, NULL, &description, &err), 0);
	CHECK(json_object_get(json_object_get(description, "offer"), "some"));
	json_decref(description);
	free(state);
	free(bytes);
	unmake();
}

static void a_paused_machine_stays_paused(void)
{
	const struct snapshot_request request = {0};

	make();
	by_user = paused = true;
	run(&request, 0);
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	CHECK(paused);
	CHECK_EQ(report.pause, 0);
	unmake();
}

static void a_machine_that_is_to_end_stays_paused_until_the_commit(void)
{
	const struct snapshot_request request = {.stop = true};

	make();
	run(&request, 0);
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	CHECK(paused);
	unmake();
}

/* ---- what fails ---- */

static void check_as_before(const struct snapshot_request *request, const char *text)
{
	run(request, 0);
	CHECK_EQ(report.phase, SNAPSHOT_FAILED);
	CHECK(strstr(report.text, text));
	CHECK(!paused && resumes >= pauses);
}

static void a_failure_leaves_the_machine_as_it_was(void)
{
	static const char *const calls[] = {"begin", "pause"};
	const struct snapshot_request requests[] = {{0}, {.stop = true}};

	for (size_t stop = 0; stop < 2; stop++) {
		for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
			make();
			failing = calls[i];
			check_as_before(&requests[stop], calls[i]);
			unmake();
			make();
			cancel_at = calls[i];
			check_as_before(&requests[stop], "enough");
			unmake();
		}
	}
}

static void a_full_disk_leaves_the_machine_as_it_was(void)
{
	static const rlim_t rooms[] = {0, 100, MIB(1), SIZE - 1};
	const struct snapshot_request requests[] = {{0}, {.stop = true}};

	for (size_t i = 0; i < 2 * ARRAY_SIZE(rooms); i++) {
		make();
		limit_writes(rooms[i / 2]);
		run(&requests[i % 2], 0);
		limit_writes(RLIM_INFINITY);
		CHECK_EQ(report.phase, SNAPSHOT_FAILED);
		CHECK(report.text[0] && !paused);
		unmake();
	}
}

static void files_that_cannot_be_written_leave_the_machine_as_it_was(void)
{
	int *const which[] = {&files.state, &files.memory, &files.description};
	const struct snapshot_request request = {0};

	for (size_t i = 0; i < ARRAY_SIZE(which); i++) {
		make();
		close(*which[i]);
		*which[i] = open("/dev/full", O_RDWR | O_CLOEXEC);
		run(&request, 0);
		CHECK_EQ(report.phase, SNAPSHOT_FAILED);
		CHECK(report.text[0] && !paused);
		unmake();
	}
}

static int do_start(struct dirty_source *source, struct err *why)
{
	return 0;
}

static void do_stop(struct dirty_source *source)
{
}

/* In the pause it is the last thing before memory is written. */
static int do_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *why)
{
	return paused ? fails("collect", why) : 0;
}

/* It is the writer of memory that notices the cancel, and it knows only that there was one. */
static void a_cancel_while_memory_is_written_is_told_with_its_reason(void)
{
	static const struct dirty_source_ops source_ops = {.start = do_start, .stop = do_stop, .collect = do_collect};
	const struct snapshot_request request = {.track = true};
	struct dirty_source source = {.name = "source", .ops = &source_ops};

	make();
	CHECK_EQ(dirty_set_add(&dirty, &source, &err), 0);
	cancel_at = "collect";
	check_as_before(&request, "enough");
	CHECK_EQ(pauses, 1);
	CHECK_EQ(report.content, 0);
	dirty_set_remove(&dirty, &source);
	unmake();
}

/* ---- disks ---- */

static void a_disk_needs_a_file_or_a_reason(void)
{
	struct snapshot_request request = {.disks = SNAPSHOT_DISKS_REFLINK};
	struct snapshot_state *state;
	char bytes[KIB(64)];
	struct stat st;
	ssize_t len;

	make();
	disks[0] = (struct disk_copy){.id = "root", .fd = file(), .size = KIB(8)};
	CHECK_EQ(ftruncate(disks[0].fd, KIB(8)), 0);
	run(&request, 1);
	CHECK(strstr(report.text, "root: there is no file for this disk") && pauses == 0);
	files.disks[0].fd = file(); /* of a file system without reflinks */
	snprintf(files.disks[0].id, sizeof(files.disks[0].id), "root");
	files.disk_count = 1;
	run(&request, 1);
	CHECK(strstr(report.text, "--disks copy") && strstr(report.text, "--disks none") && pauses == 0);
	request.disks = SNAPSHOT_DISKS_NONE;
	run(&request, 1);
	CHECK_EQ(report.phase, SNAPSHOT_WRITTEN);
	len = pread(files.state, bytes, sizeof(bytes), 0);
	CHECK_EQ(snapshot_state_parse(bytes, (size_t)len, &state, &err), 0);
	CHECK_EQ(fstat(disks[0].fd, &st), 0);
	CHECK_EQ(state->disk_count, 1);
	CHECK_STR(state->disks[0].id, "root");
	CHECK(state->disks[0].size == KIB(8) && state->disks[0].inode == st.st_ino && state->disks[0].device == st.st_dev);
	free(state);
	close(disks[0].fd);
	unmake();
}

/* In the pause, the flush of a disk cancels the snapshot and hangs until this pipe is closed; -1: none does. */
static int hang_fd = -1;

int fdatasync(int fd)
{
	char byte;

	if (!paused || hang_fd < 0)
		return 0;
	snapshot_take_cancel(take, "enough");
	return read(hang_fd, &byte, 1) == 1 ? 0 : -1;
}

static void storage_that_hangs_in_the_pause_can_be_left(void)
{
	const struct snapshot_request request = {.disks = SNAPSHOT_DISKS_NONE};
	int fds[2];

	CHECK_EQ(pipe(fds), 0);
	make();
	hang_fd = fds[0];
	disks[0] = (struct disk_copy){.id = "root", .fd = file(), .size = KIB(8)};
	run(&request, 1);
	CHECK_EQ(report.phase, SNAPSHOT_FAILED);
	CHECK(!paused && pauses == 1 && resumes == 1);
	close(fds[1]); /* the flush ends */
	hang_fd = -1;
	close(disks[0].fd);
	unmake();
}

/* The code for these two files. */
static int judge(int state, int to)
{
	struct snapshot_files given;
	int code;

	snapshot_files_init(&given);
	given.state = state;
	given.memory = to;
	err.text[0] = 0;
	code = snapshot_files_check(&given, &err);
	snapshot_files_close(&given);
	CHECK(!code == !err.text[0]);
	return code;
}

static void only_empty_files_of_their_own_are_written_to(void)
{
	int fds[2], fd;

	CHECK_EQ(judge(file(), file()), 0);
	fd = file();
	CHECK_EQ(judge(fd, dup(fd)), -EINVAL);
	CHECK(strstr(err.text, "memory is that for state, too"));
	fd = file();
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(judge(fd, file()), -EINVAL);
	CHECK_EQ(judge(file(), open("/tmp", O_TMPFILE | O_RDWR | O_APPEND, 0600)), -EINVAL);
	CHECK_EQ(judge(file(), open("/tmp", O_TMPFILE | O_WRONLY, 0600)), -EINVAL);
	CHECK_EQ(judge(open("/dev/null", O_RDWR), file()), -EINVAL);
	CHECK_EQ(judge(file(), open("/tmp", O_RDONLY | O_DIRECTORY)), -EINVAL);
	CHECK_EQ(judge(file(), open("/tmp", O_PATH)), -EINVAL);
	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(judge(fds[1], fds[0]), -EINVAL);
}

TEST_MAIN(TEST(all_of_it_is_in_the_files), TEST(a_paused_machine_stays_paused),
	  TEST(a_machine_that_is_to_end_stays_paused_until_the_commit), TEST(a_failure_leaves_the_machine_as_it_was),
	  TEST(a_full_disk_leaves_the_machine_as_it_was), TEST(files_that_cannot_be_written_leave_the_machine_as_it_was),
	  TEST(a_cancel_while_memory_is_written_is_told_with_its_reason),
	  TEST(a_disk_needs_a_file_or_a_reason), TEST(only_empty_files_of_their_own_are_written_to),
	  TEST(storage_that_hangs_in_the_pause_can_be_left))
