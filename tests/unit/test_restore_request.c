/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot/restore_request and snapshot/snapshot_seen: what a process that waits with a snapshot is asked, and refuses. */
#include "tests/unit/test.h"
#include "vmm/snapshot/restore_request.h"
#include "vmm/snapshot/snapshot_seen.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err err;

/* ---- requests ---- */

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static const char *read_text(const char *text, const int *fds, size_t count, struct restore_request *ret)
{
	json_t *parameters = json_loads(text, 0, NULL);
	const char *bad = restore_request_from_json(parameters, fds, count, ret);

	json_decref(parameters);
	return bad;
}

static void a_request_arrives_as_it_was_sent(void)
{
	struct arrival_override disks[] = {{(char *)"a=/x,lock=off"}, {(char *)"b=y"}}, nets[] = {{(char *)"n=tap=t"}};
	const struct restore_request sent = {
		.here = {.name = (char *)"one", .serial = (char *)"none", .disks = disks, .disk_count = 2, .nets = nets,
			 .net_count = 1},
		.paused = true, .files = {{(char *)".", 5}, {(char *)"/x", 6}}, .file_count = 2,
	};
	const int fds[] = {open("/", O_PATH | O_CLOEXEC), open("/dev/null", O_PATH | O_CLOEXEC)};
	json_t *parameters = restore_request_to_json(&sent);
	struct restore_request got;

	CHECK(!restore_request_from_json(parameters, fds, 2, &got));
	json_decref(parameters);
	CHECK_STR(got.here.name, "one");
	CHECK_STR(got.here.serial, "none");
	CHECK(!got.here.console && !got.here.vsock && got.paused);
	CHECK_EQ(got.here.disk_count, 2);
	CHECK_STR(got.here.disks[0].text, "a=/x,lock=off");
	CHECK_STR(got.here.disks[1].text, "b=y");
	CHECK_EQ(got.here.net_count, 1);
	CHECK_STR(got.here.nets[0].text, "n=tap=t");
	CHECK_EQ(got.file_count, 2);
	CHECK_STR(got.files[1].path, "/x");
	CHECK_EQ(got.files[1].fd, fds[1]);
	restore_request_done(&got);
	CHECK(!is_open(fds[0]) && !is_open(fds[1]));
}

static void everything_may_be_left_out(void)
{
	struct restore_request got;

	CHECK(!read_text("{}", NULL, 0, &got));
	CHECK(!got.here.name && !got.here.disk_count && !got.paused && !got.file_count);
	restore_request_done(&got);
}

/* Also what was read before it is freed, and no descriptor stays open. */
static void an_invalid_parameter_is_named(void)
{
	static const struct {
		const char *text, *bad;
	} cases[] = {
		{"{\"name\":1}", "name"},
		{"{\"name\":\"a\",\"vsock\":[]}", "vsock"},
		{"{\"disks\":\"a=b\"}", "disks"},
		{"{\"name\":\"a\",\"disks\":[\"a=b\",2]}", "disks"},
		{"{\"disks\":[\"a=b\"],\"nets\":{}}", "nets"},
		{"{\"paused\":\"yes\"}", "paused"},
		{"{\"files\":[]}", "files"},
		{"{\"files\":[\"a\",\"b\"]}", "files"},
		{"{\"files\":[7]}", "files"},
		{"{}", "files"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int fd = open("/dev/null", O_PATH | O_CLOEXEC);
		size_t passed = i < 6 ? 0 : 1;
		struct restore_request got;

		CHECK_STR(read_text(cases[i].text, &fd, passed, &got) ?: "", cases[i].bad);
		CHECK_EQ(is_open(fd), !passed);
		if (!passed)
			close(fd);
	}
}

static void too_many_files_are_refused(void)
{
	int fds[RESTORE_MAX_FILES + 1];
	struct restore_request got;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = open("/dev/null", O_PATH | O_CLOEXEC);
	CHECK_STR(read_text("{}", fds, ARRAY_SIZE(fds), &got) ?: "", "files");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		CHECK(!is_open(fds[i]));
}

/* ---- snapshots that change ---- */

static char folder[64], path[80];
static struct snapshot snapshot;
static struct snapshot_seen seen;

static int make(const char *name)
{
	int fd = openat(snapshot.dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
	return fd;
}

static void begin(void)
{
	strcpy(folder, "/tmp/test_seen.XXXXXX");
	CHECK(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/snapshot", folder);
	CHECK_EQ(mkdir(path, 0700), 0);
	snapshot = (struct snapshot){.path = path, .folder = true, .dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	snapshot.state_fd = make("state");
	snapshot.memory_fd = make("memory");
	CHECK_EQ(snapshot_see(&snapshot, &seen, &err), 0);
	CHECK_EQ(snapshot_check_seen(&snapshot, &seen, &err), 0);
}

static void end(void)
{
	unlinkat(snapshot.dir_fd, "state", 0);
	unlinkat(snapshot.dir_fd, "memory", 0);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/other", folder);
	rmdir(path);
	rmdir(folder);
	close(snapshot.state_fd);
	close(snapshot.memory_fd);
	close(snapshot.dir_fd);
}

static void a_truncated_or_written_memory_is_seen(void)
{
	const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};

	begin();
	CHECK_EQ(ftruncate(snapshot.memory_fd, 4096), 0);
	CHECK_EQ(snapshot_check_seen(&snapshot, &seen, &err), -ESTALE);
	CHECK(strstr(err.text, "was changed"));
	CHECK_EQ(ftruncate(snapshot.memory_fd, 8192), 0);
	CHECK_EQ(snapshot_see(&snapshot, &seen, &err), 0);
	CHECK_EQ(futimens(snapshot.state_fd, times), 0); /* as a write, whose time may be the same here */
	CHECK_EQ(snapshot_check_seen(&snapshot, &seen, &err), -ESTALE);
	end();
}

static void a_removed_snapshot_is_seen(void)
{
	begin();
	unlinkat(snapshot.dir_fd, "memory", 0);
	CHECK_EQ(snapshot_check_seen(&snapshot, &seen, &err), -ESTALE);
	CHECK(strstr(err.text, "was removed or replaced"));
	end();
}

static void another_snapshot_in_its_place_is_seen(void)
{
	char other[80];

	begin();
	snprintf(other, sizeof(other), "%s/other", folder);
	CHECK_EQ(rename(path, other), 0);
	CHECK_EQ(snapshot_check_seen(&snapshot, &seen, &err), -ESTALE);
	CHECK_EQ(mkdir(path, 0700), 0);
	CHECK_EQ(snapshot_check_seen(&snapshot, &seen, &err), -ESTALE);
	CHECK(strstr(err.text, "was removed or replaced"));
	end();
}

TEST_MAIN(TEST(a_request_arrives_as_it_was_sent), TEST(everything_may_be_left_out), TEST(an_invalid_parameter_is_named),
	  TEST(too_many_files_are_refused), TEST(a_truncated_or_written_memory_is_seen), TEST(a_removed_snapshot_is_seen),
	  TEST(another_snapshot_in_its_place_is_seen))
