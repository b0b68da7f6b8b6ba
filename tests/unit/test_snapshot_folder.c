/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/folder and snapshot_open: a folder is there with everything in it, or not at all, whichever call fails;
 * what cannot be restored is refused with one line.
 */
#include "tests/unit/file_faults.h"
#include "tests/unit/full_disk.h"
#include "tests/unit/snapshot_rig.h"
#include "vmm/snapshot/folder.h"
#include "vmm/snapshot/snapshot_open.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct snapshot_rig rig;
static struct err err;

static void begin(uint8_t id, uint8_t parent)
{
	rig_init(&rig, id, parent);
	rig_fill(&rig, 3, id);
	rig_finish(&rig);
}

/* The id's first byte of what is at path; 0 if it cannot be opened. */
static uint8_t id_at(const char *path)
{
	struct snapshot *snapshot;
	uint8_t id;

	if (snapshot_open(path, &snapshot, NULL))
		return 0;
	id = snapshot->state->id[0];
	snapshot_close(snapshot);
	return id;
}

static int open_code(const char *path, unsigned int flags, const char *what)
{
	struct snapshot *snapshot;
	int code = snapshot_open_as(path, NULL, flags, &snapshot, &err);

	if (!code)
		snapshot_close(snapshot);
	else if (!strstr(err.text, what) || strncmp(err.text, path, strlen(path)) != 0)
		printf("# %s\n", err.text);
	return code && !strstr(err.text, what) ? 1 : code;
}

static unsigned int mode_of(const char *path)
{
	struct stat st = {0};

	CHECK_EQ(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void a_folder_is_whole_and_private(void)
{
	struct snapshot *snapshot;
	uint8_t byte = 0;
	int fd;

	rig_mkdir();
	begin(1, 0);
	umask(0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_EXTRA, &err), 0);
	umask(022);
	CHECK_EQ(rig_names(), 1);
	CHECK_EQ(mode_of(rig_path("a")), 0700);
	CHECK_EQ(mode_of(rig_path("a/memory")), 0600);
	CHECK_EQ(mode_of(rig_path("a/state")), 0600);
	CHECK_EQ(mode_of(rig_path("a/disks")), 0700);
	CHECK_EQ(mode_of(rig_path("a/disks/disk0")), 0600);
	CHECK_EQ(snapshot_open(rig_path("a"), &snapshot, &err), 0);
	CHECK_EQ(snapshot->state->memory_bytes, RIG_MEMORY);
	CHECK_EQ(pread(snapshot->memory_fd, &byte, 1, 3 * SNAPSHOT_PAGE), 1);
	CHECK_EQ(byte, 1);
	CHECK_EQ(snapshot_open_part(snapshot, "kernel", &fd, &err), 0);
	close(fd);
	CHECK_EQ(snapshot_open_part(snapshot, "initrd", &fd, &err), 0);
	CHECK_EQ(fd, -1);
	snapshot_close(snapshot);
	CHECK_EQ(snapshot_open_files(rig_path("a/state"), rig_path("a/memory"), &snapshot, &err), 0);
	snapshot_close(snapshot);
	rig_done(&rig);
	rig_rmdir();
}

static void a_place_that_is_taken_is_refused(void)
{
	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), 0);
	CHECK_EQ(rig_write(&rig, rig_path("a/"), 0, &err), -EEXIST);
	CHECK(strstr(err.text, "a: exists; add --replace"));
	CHECK_EQ(mkdir(rig_path("mine"), 0700), 0);
	for (unsigned int how = 0; how <= RIG_REPLACE; how += RIG_REPLACE) {
		CHECK_EQ(rig_write(&rig, rig_path("mine"), how, &err), -EEXIST);
		CHECK(strstr(err.text, "is no snapshot and is not replaced"));
		CHECK_EQ(rig_write(&rig, rig_path("a/state"), how, &err), -EEXIST);
		CHECK(strstr(err.text, "is no snapshot and is not replaced"));
	}
	CHECK_EQ(symlink("a", rig_path("link")), 0);
	CHECK_EQ(rig_write(&rig, rig_path("link"), RIG_REPLACE, &err), -EEXIST);
	CHECK_EQ(mkdir(rig_path("a/photos"), 0700), 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_REPLACE, &err), -EEXIST);
	CHECK(strstr(err.text, "has photos in it"));
	CHECK_EQ(rmdir(rig_path("a/photos")), 0);
	CHECK(mkdir(rig_path("a/disks"), 0700) == 0 && mkdir(rig_path("a/disks/.old"), 0700) == 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_REPLACE, &err), -EEXIST);
	CHECK(strstr(err.text, "has disks/.old in it"));
	CHECK_EQ(rig_write(&rig, rig_path("none/a"), 0, &err), -ENOENT);
	CHECK(strstr(err.text, "its parent folder"));
	CHECK_EQ(rig_write(&rig, "/", 0, &err), -EINVAL);
	CHECK_EQ(rig_write(&rig, "", 0, &err), -EINVAL);
	CHECK_EQ(rig_write(&rig, rig_path(".."), 0, &err), -EINVAL);
	CHECK_EQ(rig_names(), 3);
	rig_done(&rig);
	rig_rmdir();
}

static void replace_puts_the_new_one_in_its_place(void)
{
	struct snapshot *snapshot;

	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_REPLACE | RIG_EXTRA, &err), 0);
	rig_done(&rig);
	begin(2, 0);
	CHECK_EQ(snapshot_open(rig_path("a"), &snapshot, &err), 0);
	CHECK_EQ(snapshot_lock(snapshot, false, &err), 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_REPLACE, &err), -EBUSY);
	CHECK(strstr(err.text, "its memory is mapped"));
	snapshot_close(snapshot);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_REPLACE, &err), 0);
	CHECK_EQ(id_at(rig_path("a")), 2);
	CHECK_EQ(rig_names(), 1);
	rig_done(&rig);
	rig_rmdir();
}

/* Mapped only while the new one was written: it goes with the next one. */
static void what_is_mapped_meanwhile_stays_until_it_is_free(void)
{
	struct snapshot_folder *folder;
	struct snapshot *snapshot, *again;

	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_EXTRA, &err), 0);
	CHECK_EQ(snapshot_folder_begin(rig_path("a"), true, &folder, &err), 0);
	CHECK_EQ(snapshot_open(rig_path("a"), &snapshot, &err), 0);
	CHECK_EQ(snapshot_lock(snapshot, false, &err), 0);
	CHECK_EQ(snapshot_open(rig_path("a"), &again, &err), 0);
	CHECK_EQ(snapshot_lock(again, true, &err), -EBUSY);
	snapshot_close(again);
	CHECK_EQ(snapshot_folder_put(folder, "state", "new", 3, &err), 0);
	CHECK_EQ(snapshot_folder_commit(folder, false, &err), 0);
	snapshot_folder_end(folder);
	CHECK_EQ(rig_names(), 2);
	CHECK_EQ(rig_write(&rig, rig_path("b"), 0, &err), 0);
	CHECK_EQ(rig_names(), 3);
	snapshot_close(snapshot);
	CHECK_EQ(snapshot_folder_begin(rig_path("a"), true, &folder, &err), -EEXIST); /* "new" is no snapshot */
	rig_cut(rig_path("a/state"), 0);
	CHECK_EQ(unlink(rig_path("a/state")), 0);
	CHECK_EQ(rmdir(rig_path("a")), 0);
	CHECK_EQ(snapshot_folder_begin(rig_path("a"), true, &folder, &err), 0);
	snapshot_folder_end(folder);
	CHECK_EQ(rig_names(), 1);
	rig_done(&rig);
	rig_rmdir();
}

static void a_dead_writer_is_removed_and_a_live_one_respected(void)
{
	struct snapshot_folder *folder, *other;
	pid_t child;
	int status;

	rig_mkdir();
	begin(1, 0);
	child = fork();
	if (child == 0) {
		snapshot_folder_begin(rig_path("a"), false, &folder, NULL);
		snapshot_folder_put(folder, "disks/disk0", "x", 1, NULL);
		snapshot_folder_put(folder, "memory", "x", 1, NULL);
		kill(getpid(), SIGKILL);
	}
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
	CHECK_EQ(rig_names(), 1);
	CHECK_EQ(access(rig_path("a"), F_OK), -1);
	CHECK_EQ(snapshot_folder_begin(rig_path("a"), false, &folder, &err), 0);
	CHECK_EQ(rig_names(), 1);
	CHECK_EQ(snapshot_folder_begin(rig_path("a"), false, &other, &err), -EBUSY);
	CHECK(strstr(err.text, "another process is writing a snapshot to it"));
	CHECK_EQ(rig_write(&rig, rig_path("b"), 0, &err), 0);
	CHECK_EQ(mkdir(rig_path("a"), 0700), 0);
	CHECK_EQ(snapshot_folder_commit(folder, true, &err), -EEXIST);
	CHECK(strstr(err.text, "exists now"));
	snapshot_folder_end(folder);
	CHECK_EQ(rig_names(), 2);
	rig_done(&rig);
	rig_rmdir();
}

/* The name of the folder that is being written: the only one that begins with a dot. */
static const char *temporary_name(void)
{
	static char name[300];
	char command[400];
	FILE *list;

	snprintf(command, sizeof(command), "cd %s && echo .a.*", rig_path(""));
	list = popen(command, "r");
	CHECK(list && fgets(name, sizeof(name), list));
	pclose(list);
	name[strcspn(name, "\n")] = 0;
	return name;
}

static void a_folder_being_written_is_named_so(void)
{
	struct snapshot_folder *folder;

	rig_mkdir();
	CHECK_EQ(snapshot_folder_begin(rig_path("a"), false, &folder, &err), 0);
	CHECK_EQ(open_code(rig_path(temporary_name()), 0, "is being written"), -EBUSY);
	CHECK_EQ(snapshot_folder_put(folder, "state", "", 0, &err), 0);
	CHECK_EQ(open_code(rig_path(temporary_name()), 0, "is being written"), -EBUSY);
	CHECK_EQ(snapshot_folder_drop(folder, "state"), 0);
	CHECK_EQ(snapshot_folder_drop(folder, "state"), -ENOENT);
	CHECK_EQ(snapshot_folder_put(folder, "../a", "", 0, &err), -EINVAL);
	CHECK_EQ(snapshot_folder_put(folder, "disks/../a", "", 0, &err), -EINVAL);
	CHECK_EQ(snapshot_folder_put(folder, "notes", "", 0, &err), -EINVAL);
	snapshot_folder_end(folder);
	CHECK_EQ(rig_names(), 0);
	rig_rmdir();
}

/* ---- which call fails ---- */

static void each_call_of_writing_fails_once(void)
{
	static const int errors[] = {EIO, ENOSPC, EINTR};

	rig_mkdir();
	begin(7, 0);
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		unsigned int before = faults_open_files(), failed = 0, syncs = 0;
		bool more = true;

		for (unsigned int n = 1; more; n++) {
			int code;

			err.text[0] = 0;
			faults_begin(n, errors[i]);
			code = rig_write(&rig, rig_path("a"), RIG_EXTRA | RIG_SYNC, &err);
			more = faults_end();
			failed += code != 0;
			syncs += more && strcmp(faults_call, "fsync") == 0;
			CHECK(!code == !err.text[0]);
			CHECK(code != -ENOSPC || strstr(err.text, "free some") || strstr(err.text, "the test's memory"));
			CHECK_EQ(rig_names(), !code);
			CHECK_EQ(id_at(rig_path("a")), code ? 0 : 7);
			CHECK_EQ(faults_open_files(), before);
			if (!code)
				rig_remove("a");
		}
		CHECK(errors[i] == EINTR || failed > 10);
		CHECK_EQ(syncs, errors[i] == EINTR ? 0 : 8); /* five files, two folders, and the one that has the name */
	}
	rig_done(&rig);
	rig_rmdir();
}

static void the_old_one_stays_whichever_call_fails(void)
{
	unsigned int failed = 0;
	bool more = true;

	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), RIG_EXTRA, &err), 0);
	rig_done(&rig);
	for (unsigned int n = 1; more; n++) {
		uint8_t id;
		int code;

		begin((uint8_t)(2 + n), 0);
		id = id_at(rig_path("a"));
		faults_begin(n, EIO);
		code = rig_write(&rig, rig_path("a"), RIG_REPLACE | RIG_EXTRA | RIG_SYNC, &err);
		more = faults_end();
		failed += code != 0;
		CHECK_EQ(id_at(rig_path("a")), code ? id : 2 + n);
		rig_done(&rig);
	}
	CHECK(failed > 10);
	CHECK_EQ(rig_names(), 1);
	rig_rmdir();
}

/* Forks a writer that is killed at call n. False: it has ended before. */
static bool write_until(unsigned int n)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		faults_begin(n, FAULTS_KILL);
		_exit(rig_write(&rig, rig_path("a"), RIG_REPLACE | RIG_EXTRA | RIG_SYNC, &err) ? 1 : 0);
	}
	CHECK(child > 0 && waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status);
}

/* And whoever writes there next finds no trace of it. */
static void killed_at_any_call_there_is_the_old_or_the_new_one(void)
{
	unsigned int n = 1;
	uint8_t id = 0;

	rig_mkdir();
	for (bool killed = true; killed; n++) {
		uint8_t now;

		begin((uint8_t)(n + 1), 0);
		killed = write_until(n);
		now = id_at(rig_path("a"));
		CHECK(now == n + 1 || (killed && now == id));
		id = now;
		rig_done(&rig);
	}
	CHECK(n > 30);
	CHECK_EQ(rig_names(), 1);
	rig_rmdir();
}

static void each_call_of_reading_fails_once(void)
{
	unsigned int before, failed = 0;
	bool more = true;

	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), 0);
	before = faults_open_files();
	for (unsigned int n = 1; more; n++) {
		struct snapshot *snapshot = NULL;
		int code;

		err.text[0] = 0;
		faults_begin(n, EIO);
		code = snapshot_open(rig_path("a"), &snapshot, &err);
		if (!code)
			code = snapshot_lock(snapshot, false, &err);
		more = faults_end();
		failed += code != 0;
		CHECK(!code == !err.text[0]);
		snapshot_close(snapshot);
		CHECK_EQ(faults_open_files(), before);
	}
	CHECK(failed >= 10);
	rig_done(&rig);
	rig_rmdir();
}

static void a_full_disk_leaves_nothing(void)
{
	rig_mkdir();
	begin(1, 0);
	limit_writes(KIB(1));
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), -EFBIG);
	limit_writes(RLIM_INFINITY);
	CHECK_EQ(rig_names(), 0);
	rig_done(&rig);
	rig_rmdir();
}

/* ---- what cannot be restored ---- */

static void what_is_no_snapshot_is_refused(void)
{
	struct snapshot *snapshot;

	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), 0);
	CHECK_EQ(open_code(rig_path("b"), 0, "does not exist"), -ENOENT);
	CHECK_EQ(open_code(rig_path("a/state"), 0, "not a folder"), -ENOTDIR);
	CHECK_EQ(mkdir(rig_path("b"), 0700), 0);
	CHECK_EQ(open_code(rig_path("b"), 0, "not a snapshot: no file \"state\""), -ENOENT);
	CHECK_EQ(symlink("../a/state", rig_path("b/state")), 0);
	CHECK_EQ(open_code(rig_path("b"), 0, "state is a symbolic link"), -EBADMSG);
	CHECK_EQ(unlink(rig_path("b/state")), 0);
	CHECK_EQ(mkfifo(rig_path("b/state"), 0600), 0);
	CHECK_EQ(open_code(rig_path("b"), 0, "state is not a plain file"), -EBADMSG);
	CHECK_EQ(snapshot_open_files(rig_path("a/memory"), rig_path("a/memory"), &snapshot, &err), -EBADMSG);
	CHECK(strstr(err.text, "not the state of a snapshot"));
	CHECK_EQ(snapshot_open_files(rig_path("a/state"), rig_path("a/state"), &snapshot, &err), -EBADMSG);
	CHECK(strstr(err.text, "memory has"));
	CHECK_EQ(snapshot_open_files(rig_path("a/state"), rig_path("none"), &snapshot, &err), -ENOENT);
	rig_cut(rig_path("a/memory"), RIG_MEMORY + 4096);
	CHECK_EQ(open_code(rig_path("a"), 0, "memory has 4235264 bytes, the snapshot's is 4231168"), -EBADMSG);
	rig_cut(rig_path("a/memory"), 0);
	CHECK_EQ(open_code(rig_path("a"), 0, "memory has 0 bytes"), -EBADMSG);
	CHECK_EQ(unlink(rig_path("a/memory")), 0);
	CHECK_EQ(open_code(rig_path("a"), 0, "no file \"memory\""), -ENOENT);
	rig_done(&rig);
	rig_rmdir();
}

/* The header tells the length: a file of another one is refused before a buffer of its size is filled. */
static void a_state_of_the_wrong_length_is_not_read(void)
{
	unsigned int reads = 0;
	bool more = true;

	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), 0);
	rig_cut(rig_path("a/state"), (off_t)MIB(8));
	CHECK_EQ(open_code(rig_path("a"), 0, "state: damaged: 8388608 bytes, of "), -EBADMSG);
	for (unsigned int n = 1; more; n++) {
		faults_begin(n, EIO);
		open_code(rig_path("a"), 0, "");
		more = faults_end();
		reads += more && strcmp(faults_call, "pread") == 0;
	}
	CHECK_EQ(reads, 1);
	rig_done(&rig);
	rig_rmdir();
}

static void a_damaged_description_is_refused(void)
{
	size_t len;

	rig_mkdir();
	begin(1, 0);
	len = strlen(rig.description);
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), 0);
	for (size_t at = 0; at < len; at++) {
		rig_flip(rig_path("a/machine.json"), (off_t)at);
		CHECK_EQ(open_code(rig_path("a"), 0, "machine.json is not what"), -EBADMSG);
		rig_flip(rig_path("a/machine.json"), (off_t)at);
	}
	CHECK_EQ(open_code(rig_path("a"), 0, ""), 0);
	for (size_t size = len; size-- > 0;) {
		rig_cut(rig_path("a/machine.json"), (off_t)size);
		CHECK_EQ(open_code(rig_path("a"), 0, "machine.json is not what"), -EBADMSG);
	}
	CHECK_EQ(unlink(rig_path("a/machine.json")), 0);
	CHECK_EQ(open_code(rig_path("a"), 0, "no file \"machine.json\""), -ENOENT);
	rig_flip(rig_path("a/state"), 100);
	CHECK_EQ(open_code(rig_path("a"), 0, "state: damaged: its checksum"), -EBADMSG);
	rig_done(&rig);
	rig_rmdir();
}

static void what_others_may_write_is_not_mapped(void)
{
	static const char *const names[] = {"a", "a/state", "a/memory", "a/machine.json"};

	rig_mkdir();
	begin(1, 0);
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		unsigned int mode = mode_of(rig_path(names[i]));

		CHECK_EQ(chmod(rig_path(names[i]), mode | S_IWGRP), 0);
		CHECK_EQ(open_code(rig_path("a"), 0, "may be written by others"), -EPERM);
		CHECK_EQ(chmod(rig_path(names[i]), mode | S_IWOTH), 0);
		CHECK_EQ(open_code(rig_path("a"), 0, "may be written by others"), -EPERM);
		CHECK_EQ(open_code(rig_path("a"), SNAPSHOT_ANY_OWNER, ""), 0);
		CHECK_EQ(chmod(rig_path(names[i]), mode | 055), 0);
		CHECK_EQ(open_code(rig_path("a"), 0, ""), 0);
		if (geteuid() == 0) {
			CHECK_EQ(chown(rig_path(names[i]), 4711, (gid_t)-1), 0);
			CHECK_EQ(open_code(rig_path("a"), 0, "belongs to user 4711"), -EPERM);
			CHECK_EQ(open_code(rig_path("a"), SNAPSHOT_ANY_OWNER, ""), 0);
			CHECK_EQ(chown(rig_path(names[i]), 0, (gid_t)-1), 0);
		}
	}
	rig_done(&rig);
	rig_rmdir();
}

static void a_diff_is_not_restored(void)
{
	rig_mkdir();
	begin(2, 1);
	CHECK_EQ(rig_write(&rig, rig_path("a"), 0, &err), 0);
	CHECK_EQ(open_code(rig_path("a"), 0, "since the snapshot 01010101-0101-0101-0101-010101010101; write mvmm snapshot merge"),
		 -EINVAL);
	CHECK_EQ(open_code(rig_path("a"), SNAPSHOT_ANY_KIND, ""), 0);
	rig_done(&rig);
	rig_rmdir();
}

TEST_MAIN(TEST(a_folder_is_whole_and_private), TEST(a_place_that_is_taken_is_refused),
	  TEST(replace_puts_the_new_one_in_its_place), TEST(what_is_mapped_meanwhile_stays_until_it_is_free),
	  TEST(a_dead_writer_is_removed_and_a_live_one_respected), TEST(a_folder_being_written_is_named_so),
	  TEST(each_call_of_writing_fails_once), TEST(the_old_one_stays_whichever_call_fails),
	  TEST(killed_at_any_call_there_is_the_old_or_the_new_one), TEST(each_call_of_reading_fails_once), TEST(a_full_disk_leaves_nothing), TEST(what_is_no_snapshot_is_refused),
	  TEST(a_state_of_the_wrong_length_is_not_read),
	  TEST(a_damaged_description_is_refused), TEST(what_others_may_write_is_not_mapped), TEST(a_diff_is_not_restored))
