/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/session/restore_disks: a machine goes on with the disk that its snapshot saw, or with a copy of it, and with nothing
 * else unless the user says so; the message has the ways out; what was made goes again, whatever fails; the snapshot's
 * own files are never used.
 */
#include "tests/unit/file_faults.h"
#include "tests/unit/full_disk.h"
#include "tests/unit/snapshot_rig.h"
#include "vmm/session/restore_disks.h"
#include "vmm/snapshot/disk_copier.h"
#include "vmm/snapshot/disk_identity.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE MIB(1)

static struct snapshot snapshot;
static struct snapshot_state state;
static struct disk_config configs[2];
static struct machine_config config;
static struct arrival_override named, changed;
static struct restore_options options;
static struct restore_disks *disks;
static unsigned int ticks, ends_at;
static const struct log quiet = {.fd = -1, .level = LOG_ERROR};
static struct err err;

static void put(const char *path, off_t size, const char *text)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && ftruncate(fd, size) == 0);
	CHECK_EQ(pwrite(fd, text, strlen(text), size / 2), strlen(text));
	close(fd);
}

static bool has(const char *path, const char *text)
{
	char bytes[64] = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool good = fd >= 0 && pread(fd, bytes, strlen(text), SIZE / 2) > 0 && strcmp(bytes, text) == 0;

	if (fd >= 0)
		close(fd);
	return good;
}

static bool there(const char *name)
{
	return access(rig_path(name), F_OK) == 0;
}

static int tick(void *opaque, struct err *why)
{
	return ++ticks == ends_at ? err_set(why, -ECANCELED, "interrupted") : 0;
}

static void use(char *path)
{
	free(configs[0].path);
	configs[0].path = strdup(path);
}

/* The user writes --disk root=NAME, of a file in the test's folder. */
static void name_disk(const char *name)
{
	use((char *)rig_path(name));
	named.text = (char *)"root=...";
	options.here.disks = &named;
	options.here.disk_count = 1;
}

static void let_it_be_changed(const char *id)
{
	changed.text = (char *)id;
	options.changed = &changed;
	options.changed_count = 1;
}

/* A machine with a writable disk "root", which is the file "own", and a read-only one; copy: it is in the snapshot. */
static void make(bool copy)
{
	int fd;

	rig_mkdir();
	CHECK(mkdir(rig_path("snap"), 0700) == 0 && mkdir(rig_path("snap/disks"), 0700) == 0);
	put(rig_path("own"), SIZE, "then");
	if (copy)
		put(rig_path("snap/disks/root"), SIZE, "kept");
	options = (struct restore_options){0};
	state = (struct snapshot_state){.disk_count = 1};
	fd = open(rig_path("own"), O_RDONLY | O_CLOEXEC);
	disk_identity_settle(fd);
	CHECK_EQ(disk_identity_read("root", fd, SIZE, &state.disks[0], &err), 0);
	close(fd);
	disk_identity_boot_id(state.boot_id);
	snapshot = (struct snapshot){.dir_fd = open(rig_path("snap"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), .folder = true,
				     .path = (char *)"snap", .state = &state};
	memset(configs, 0, sizeof(configs));
	configs[0].id = (char *)"root";
	use((char *)rig_path("own"));
	configs[1] = (struct disk_config){.id = (char *)"cd", .path = (char *)"/dev/null", .readonly = true};
	config = (struct machine_config){.disks = configs, .disk_count = 2};
	ticks = ends_at = 0;
	err.text[0] = 0;
}

static int create(void)
{
	const struct restore_disks_options all = {
		.snapshot = &snapshot, .config = &config, .options = &options, .here = &options.here, .log = &quiet, .tick = tick,
	};

	return restore_disks_create(&all, &disks, &err);
}

static void unmake(void)
{
	restore_disks_destroy(take_ptr(disks));
	free(take_ptr(configs[0].path));
	close(snapshot.dir_fd);
	rig_rmdir();
}

static void check_refused(int code, const char *text)
{
	CHECK_EQ(create(), code);
	if (!strstr(err.text, text))
		printf("# %s\n", err.text);
	CHECK(strstr(err.text, text));
	CHECK(strncmp(err.text, "disk root: ", 11) == 0 && !strchr(err.text, '\n'));
}

/* ---- the disk itself ---- */

static void a_disk_that_nothing_has_written_is_used_as_it_is(void)
{
	make(true);
	CHECK_EQ(create(), 0);
	restore_disks_destroy(take_ptr(disks));
	CHECK(has(rig_path("own"), "then"));
	name_disk("own");
	CHECK_EQ(create(), 0);
	unmake();
}

static void a_disk_that_was_written_is_refused_with_the_ways_out(void)
{
	for (int copy = 0; copy < 2; copy++) {
		make(copy);
		put(rig_path("own"), SIZE, "now");
		check_refused(-ESTALE, "has changed since the snapshot");
		CHECK(strstr(err.text, "--disk-changed root"));
		CHECK(!strstr(err.text, "--disk root=NEWFILE") == !copy);
		let_it_be_changed("root");
		CHECK_EQ(create(), 0);
		unmake();
	}
}

static void another_file_is_refused_with_the_ways_out(void)
{
	make(true);
	put(rig_path("other"), SIZE, "other");
	name_disk("other");
	check_refused(-EEXIST, "name a file that does not exist");
	CHECK(strstr(err.text, "--disk-changed root"));
	let_it_be_changed("root");
	CHECK_EQ(create(), 0);
	CHECK(has(rig_path("other"), "other"));
	unmake();
}

static void another_size_is_refused_with_both(void)
{
	make(true);
	put(rig_path("other"), SIZE - 512, "other");
	name_disk("other");
	let_it_be_changed("root");
	check_refused(-EINVAL, "has 1048064 bytes, but the disk had 1048576 at the snapshot");
	unmake();
}

static void a_disk_that_is_missing_is_refused_with_the_way_out(void)
{
	make(true);
	unlink(rig_path("own"));
	check_refused(-ENOENT, "does not exist; --disk root=NEWFILE makes a copy");
	unmake();
	make(false);
	unlink(rig_path("own"));
	check_refused(-ENOENT, "does not exist; name the disk by --disk root=PATH");
	name_disk("none");
	check_refused(-ENOENT, "does not exist, and the snapshot has no copy");
	name_disk("no/where");
	check_refused(-ENOENT, "its folder cannot be opened");
	unmake();
}

static void what_is_no_disk_is_not_opened(void)
{
	make(true);
	CHECK_EQ(mkfifo(rig_path("pipe"), 0600), 0);
	name_disk("pipe");
	check_refused(-EINVAL, "is neither a file nor a block device");
	CHECK_EQ(symlink("nowhere", rig_path("link")), 0);
	name_disk("link");
	check_refused(-EEXIST, "cannot be created");
	unmake();
}

/* ---- the copy in the snapshot ---- */

static void a_new_file_gets_the_copy_and_goes_again_if_the_guest_does_not_run(void)
{
	struct stat st;

	make(true);
	name_disk("new");
	CHECK_EQ(create(), 0);
	CHECK(has(rig_path("new"), "kept"));
	CHECK_EQ(stat(rig_path("new"), &st), 0);
	CHECK(st.st_size == SIZE && (st.st_mode & 0777) == 0600);
	CHECK(st.st_blocks * 512 <= (blkcnt_t)(2 * DISK_GRANULE)); /* holes are holes */
	restore_disks_destroy(take_ptr(disks));
	CHECK(!there("new"));
	unmake();
}

static void the_file_of_a_guest_that_runs_stays(void)
{
	make(true);
	name_disk("new");
	CHECK_EQ(create(), 0);
	restore_disks_keep(disks);
	restore_disks_destroy(take_ptr(disks));
	CHECK(has(rig_path("new"), "kept") && has(rig_path("snap/disks/root"), "kept"));
	unmake();
}

static void only_what_was_made_goes(void)
{
	make(true);
	name_disk("new");
	CHECK_EQ(create(), 0);
	unlink(rig_path("new"));
	put(rig_path("new"), SIZE, "mine");
	restore_disks_destroy(take_ptr(disks));
	CHECK(has(rig_path("new"), "mine"));
	unmake();
}

static void a_copy_of_another_size_is_refused(void)
{
	make(true);
	put(rig_path("snap/disks/root"), SIZE + 512, "kept");
	name_disk("new");
	check_refused(-EBADMSG, "the copy in the snapshot has 1049088 bytes, but the disk had 1048576");
	CHECK(!there("new"));
	unmake();
}

static void the_snapshot_itself_is_never_written(void)
{
	static const char *const names[] = {"snap/disks/root", "snap/new", "link", "hard", "snap/../snap/disks/new"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		make(true);
		CHECK_EQ(symlink("snap/disks/root", rig_path("link")), 0);
		CHECK_EQ(link(rig_path("snap/disks/root"), rig_path("hard")), 0);
		name_disk(names[i]);
		let_it_be_changed("root");
		check_refused(-EINVAL, "is part of the snapshot");
		unmake();
	}
}

static void an_interrupted_copy_leaves_nothing(void)
{
	int code;

	make(true);
	name_disk("new");
	ends_at = 1;
	code = create();
	if (!code) {
		unmake();
		SKIP("this file system has reflinks, so that nothing is copied");
	}
	CHECK_EQ(code, -ECANCELED);
	CHECK(strstr(err.text, "interrupted") && !there("new"));
	unmake();
}

static void a_full_file_system_leaves_nothing(void)
{
	make(true);
	name_disk("new");
	limit_writes(SIZE - 512);
	check_refused(-EFBIG, "cannot be set to 1048576 bytes");
	limit_writes(RLIM_INFINITY);
	CHECK(!there("new"));
	unmake();
}

static void whichever_call_fails_nothing_is_left(void)
{
	static const int errors[] = {EIO, ENOSPC};
	unsigned int failed = 0;

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		bool more = true;

		for (unsigned int n = 1; more; n++) {
			unsigned int before;
			int code;

			make(true);
			name_disk("new");
			before = faults_open_files();
			faults_begin(n, errors[i]);
			code = create();
			more = faults_end();
			failed += code != 0;
			CHECK(!code == !err.text[0] && !code == there("new"));
			CHECK(code || has(rig_path("new"), "kept"));
			restore_disks_destroy(take_ptr(disks));
			CHECK_EQ(faults_open_files(), before);
			CHECK(!there("new"));
			unmake();
		}
	}
	CHECK(failed > 5);
}

/* ---- what does not fit ---- */

static void a_snapshot_that_does_not_fit_its_machine_is_refused(void)
{
	make(true);
	configs[1].readonly = false;
	CHECK_EQ(create(), -EBADMSG);
	CHECK(strstr(err.text, "describes 1 writable disks, its machine has 2"));
	configs[0].readonly = configs[1].readonly = true;
	CHECK_EQ(create(), -EBADMSG);
	configs[0].readonly = false;
	let_it_be_changed("rot");
	CHECK_EQ(create(), -EINVAL);
	CHECK(strstr(err.text, "--disk-changed rot: the machine has no such disk"));
	unmake();
}

static void a_copy_of_no_disk_is_refused(void)
{
	static const struct {
		const char *first, *second, *text;
	} cases[] = {
		{"rot=x", NULL, "--disk-from rot=x: the machine has no such disk"},
		{"cd=x", NULL, "--disk-from cd=x: the machine has no such disk that it may write"},
		{"root", NULL, "--disk-from root: does not say which; write ID=FILE"},
		{"root=x", "root=y", "--disk-from root=y: an earlier --disk-from is of the same id; leave one out"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct arrival_override sources[] = {{(char *)cases[i].first}, {(char *)cases[i].second}};

		make(true);
		options.sources = sources;
		options.source_count = cases[i].second ? 2 : 1;
		CHECK_EQ(create(), -EINVAL);
		CHECK(strncmp(err.text, cases[i].text, strlen(cases[i].text)) == 0);
		unmake();
	}
}

TEST_MAIN(TEST(a_disk_that_nothing_has_written_is_used_as_it_is),
	  TEST(a_disk_that_was_written_is_refused_with_the_ways_out), TEST(another_file_is_refused_with_the_ways_out),
	  TEST(another_size_is_refused_with_both), TEST(a_disk_that_is_missing_is_refused_with_the_way_out),
	  TEST(what_is_no_disk_is_not_opened), TEST(a_new_file_gets_the_copy_and_goes_again_if_the_guest_does_not_run),
	  TEST(the_file_of_a_guest_that_runs_stays), TEST(only_what_was_made_goes), TEST(a_copy_of_another_size_is_refused),
	  TEST(the_snapshot_itself_is_never_written), TEST(an_interrupted_copy_leaves_nothing),
	  TEST(a_full_file_system_leaves_nothing), TEST(whichever_call_fails_nothing_is_left),
	  TEST(a_snapshot_that_does_not_fit_its_machine_is_refused), TEST(a_copy_of_no_disk_is_refused))
