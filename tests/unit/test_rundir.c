/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/rundir: names are claimed once, given free, and taken over from the dead. */
#include "vmm/control/rundir.h"
#include "tests/unit/full_disk.h"
#include "tests/unit/test.h"
#include "vmm/control/control_client.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct err err;
static char base[64];

/* A runtime folder of the test's own. */
static void begin(void)
{
	strcpy(base, "/tmp/test_rundir.XXXXXX");
	CHECK(mkdtemp(base));
	setenv("XDG_RUNTIME_DIR", base, 1);
}

/* Removes it; false when something was left in it. */
static bool end(void)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/mvmm", base);
	return (rmdir(path) == 0 || errno == ENOENT) && rmdir(base) == 0;
}

static void claims_and_releases(void)
{
	struct rundir *rundir;
	struct stat st;
	char path[200], text[20] = "";
	int fd;

	begin();
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	snprintf(path, sizeof(path), "%s/mvmm/a", base);
	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0700);
	strcat(path, "/pid");
	fd = open(path, O_RDONLY);
	CHECK(read(fd, text, sizeof(text)) > 0);
	close(fd);
	CHECK_EQ(atoi(text), getpid());
	rundir_release(rundir);
	rundir_release(NULL);
	CHECK(end());
}

static void a_name_is_claimed_once(void)
{
	struct rundir *rundir, *other;
	char sentence[160];

	begin();
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	CHECK_EQ(rundir_claim("a", &other, &err), -EADDRINUSE);
	snprintf(sentence, sizeof(sentence), "--name a: in use by process %d; choose another name or stop that machine", getpid());
	CHECK_STR(err.text, sentence);
	CHECK_EQ(rundir_claim("b", &other, &err), 0);
	rundir_release(other);
	rundir_release(rundir);
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	rundir_release(rundir);
	CHECK(end());
}

/* A process that claims the name, listens, and dies without a word. */
static void crash(const char *name)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct rundir *rundir;
		int fd;

		if (rundir_claim(name, &rundir, NULL) || rundir_listen(rundir, &fd, NULL))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status));
}

static void takes_over_from_the_dead(void)
{
	struct rundir *rundir;
	int fd, other;

	begin();
	crash("a");
	CHECK_EQ(rundir_connect("a", &fd, &err), -ENOENT);
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	CHECK_EQ(rundir_listen(rundir, &fd, &err), 0);
	CHECK_EQ(rundir_connect("a", &other, &err), 0);
	close(other);
	close(fd);
	rundir_release(rundir);
	CHECK(end());
}

static void a_process_that_dies_can_take_its_folder_along(void)
{
	struct rundir *rundir;
	int fd;

	begin();
	rundir_abandon(NULL);
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	CHECK_EQ(rundir_listen(rundir, &fd, &err), 0);
	rundir_abandon(rundir);
	CHECK(end());
	begin();
	close(fd);
	rundir_release(rundir);
	CHECK(end());
}

static void a_folder_gets_another_name(void)
{
	struct rundir *rundir, *other;
	int fd, client;

	begin();
	crash("b");
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	CHECK_EQ(rundir_listen(rundir, &fd, &err), 0);
	CHECK_EQ(rundir_rename(rundir, "a", &err), 0);
	CHECK_EQ(rundir_rename(rundir, "b", &err), 0);
	CHECK_EQ(rundir_connect("a", &client, &err), -ENOENT);
	CHECK_EQ(rundir_connect("b", &client, &err), 0);
	close(client);
	CHECK_EQ(rundir_claim("b", &other, &err), -EADDRINUSE);
	CHECK_EQ(rundir_claim("a", &other, &err), 0);
	close(fd);
	rundir_release(rundir);
	rundir_release(other);
	CHECK(end());
}

static void a_name_that_is_in_use_is_not_given(void)
{
	struct rundir *rundir, *other;
	int fd, client;

	begin();
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	CHECK_EQ(rundir_listen(rundir, &fd, &err), 0);
	CHECK_EQ(rundir_claim("b", &other, &err), 0);
	CHECK_EQ(rundir_rename(rundir, "b", &err), -EADDRINUSE);
	CHECK_EQ(rundir_rename(rundir, "../b", &err), -EINVAL);
	CHECK_EQ(rundir_connect("a", &client, &err), 0);
	close(client);
	rundir_release(other);
	CHECK_EQ(rundir_rename(rundir, "b", &err), 0);
	close(fd);
	rundir_release(rundir);
	CHECK(end());
}

/* A logout empties $XDG_RUNTIME_DIR: the name stays reserved, and the owner makes its folder again. */
static void outlives_its_folder(void)
{
	char command[120];
	struct rundir *rundir, *other;
	int fd, again = -1, client;

	begin();
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	CHECK_EQ(rundir_listen(rundir, &fd, &err), 0);
	CHECK_EQ(rundir_restore(rundir, &again, &err), 0);
	snprintf(command, sizeof(command), "rm -rf %s", base);
	CHECK_EQ(system(command), 0);
	CHECK_EQ(rundir_restore(rundir, &again, &err), -ENOENT); /* nobody is logged in */
	CHECK_EQ(mkdir(base, 0700), 0);
	CHECK_EQ(rundir_claim("a", &other, &err), -EADDRINUSE);
	limit_writes(0); /* as on a full file system */
	CHECK(rundir_restore(rundir, &again, &err) < 0);
	limit_writes(RLIM_INFINITY);
	CHECK_EQ(rundir_restore(rundir, &again, &err), 1);
	CHECK_EQ(rundir_connect("a", &client, &err), 0);
	close(client);
	CHECK_EQ(rundir_claim("a", &other, &err), -EADDRINUSE);
	CHECK_EQ(rundir_restore(rundir, &fd, &err), 0);
	close(fd);
	close(again);
	rundir_release(rundir);
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	rundir_release(rundir);
	CHECK(end());
}

static int count(void *opaque, const char *name, pid_t pid)
{
	if (pid != getpid())
		return -EINVAL;
	++*(int *)opaque;
	return 0;
}

static void lists_the_living_and_buries_the_dead(void)
{
	struct rundir *a, *b;
	int found = 0;

	begin();
	CHECK_EQ(rundir_each(count, &found, &err), 0);
	CHECK_EQ(found, 0);
	CHECK_EQ(rundir_claim("a", &a, &err), 0);
	CHECK_EQ(rundir_claim("b", &b, &err), 0);
	crash("c");
	CHECK_EQ(rundir_each(count, &found, &err), 0);
	CHECK_EQ(found, 2);
	rundir_release(a);
	rundir_release(b);
	CHECK(end());
}

static void refuses_strange_places(void)
{
	struct rundir *rundir;
	char path[120];
	int fd;

	begin();
	CHECK_EQ(rundir_claim("../a", &rundir, &err), -EINVAL);
	CHECK_EQ(rundir_claim("", &rundir, &err), -EINVAL);
	CHECK_EQ(rundir_connect("a/b", &fd, &err), -EINVAL);
	snprintf(path, sizeof(path), "%s/mvmm", base);
	CHECK_EQ(symlink("/tmp", path), 0);
	CHECK(rundir_claim("a", &rundir, &err) < 0);
	unlink(path);
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	CHECK_EQ(rundir_claim("a", &rundir, &err), -EINVAL);
	setenv("XDG_RUNTIME_DIR", "/proc/nothing", 1);
	CHECK(rundir_claim("a", &rundir, &err) < 0);
	CHECK(strstr(err.text, "set XDG_RUNTIME_DIR to a folder of your own"));
	CHECK(end());
}

static void long_paths_work(void)
{
	char path[300];
	struct rundir *rundir;
	int fd, other;

	begin();
	snprintf(path, sizeof(path), "%s/%0150d", base, 7);
	CHECK_EQ(mkdir(path, 0700), 0);
	setenv("XDG_RUNTIME_DIR", path, 1);
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	CHECK_EQ(rundir_listen(rundir, &fd, &err), 0);
	CHECK_EQ(rundir_connect("a", &other, &err), 0);
	close(other);
	close(fd);
	rundir_release(rundir);
	strcat(path, "/mvmm");
	CHECK_EQ(rmdir(path), 0);
	*strrchr(path, '/') = 0;
	CHECK_EQ(rmdir(path), 0);
	CHECK(end());
}

/* Eight processes claim one name over and over; never do two have it. */
static void holds_under_contention(void)
{
	char path[120];
	int failed = 0, status;

	begin();
	snprintf(path, sizeof(path), "%s/one", base);
	for (int i = 0; i < 8; i++) {
		if (fork())
			continue;
		for (int round = 0; round < 100; round++) {
			struct rundir *rundir;
			int found = 0, code = rundir_claim("a", &rundir, NULL);

			if (code && code != -EADDRINUSE)
				_exit(2);
			if (i == 0)
				rundir_each(count, &found, NULL);
			if (code)
				continue;
			if (mkdir(path, 0700) < 0)
				_exit(3);
			rmdir(path);
			rundir_release(rundir);
		}
		_exit(0);
	}
	for (int i = 0; i < 8; i++) {
		wait(&status);
		if (status)
			printf("# a process ended with %d\n", WEXITSTATUS(status));
		failed += status != 0;
	}
	CHECK_EQ(failed, 0);
	CHECK(end());
}

/* A machine whose socket is not there yet is not one that does not run, and its name no better than itself. */
static void a_machine_without_a_socket_is_told_so(void)
{
	struct control_client client;
	struct rundir *rundir;

	begin();
	CHECK_EQ(rundir_claim("kk", &rundir, &err), 0);
	CHECK_EQ(control_client_open("kk", &client, &err), -EAGAIN);
	CHECK(strncmp(err.text, "kk: takes no commands yet", 25) == 0);
	CHECK_EQ(control_client_open("kj", &client, &err), -ENOENT);
	CHECK_STR(err.text, "kj: no machine of this name runs, did you mean kk?");
	rundir_release(rundir);
	CHECK_EQ(control_client_open("kk", &client, &err), -ENOENT);
	CHECK(!strstr(err.text, "did you mean"));
	CHECK(end());
}

/* Root sees the machines of whom XDG_RUNTIME_DIR belongs to, and makes none there. Others see their own. */
static void root_sees_everybodys(void)
{
	int found = 0;
	struct rundir *rundir, *other;
	char path[80];
	int status = -1;
	pid_t pid;

	if (geteuid() != 0)
		return;
	begin();
	CHECK_EQ(rundir_claim("a", &rundir, &err), 0);
	snprintf(path, sizeof(path), "%s/mvmm", base);
	CHECK_EQ(chown(path, 65534, 65534), 0);
	CHECK_EQ(rundir_each(count, &found, &err), 0);
	CHECK_EQ(found, 1);
	CHECK_EQ(rundir_claim("b", &other, &err), -EPERM);
	CHECK(strstr(err.text, "belongs to another user"));
	CHECK_EQ(chmod(base, 0755) + chmod(path, 0755) + chown(path, 65533, 65533), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid)
		_exit(setuid(65534) < 0 || rundir_each(count, &found, NULL) != -EPERM);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	rundir_release(rundir);
	CHECK(end());
}

TEST_MAIN(TEST(a_machine_without_a_socket_is_told_so), TEST(claims_and_releases), TEST(a_name_is_claimed_once), TEST(takes_over_from_the_dead),
	  TEST(a_process_that_dies_can_take_its_folder_along), TEST(a_folder_gets_another_name),
	  TEST(a_name_that_is_in_use_is_not_given),
	  TEST(outlives_its_folder), TEST(lists_the_living_and_buries_the_dead), TEST(refuses_strange_places), TEST(long_paths_work),
	  TEST(holds_under_contention), TEST(root_sees_everybodys))
