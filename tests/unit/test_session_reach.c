/* SPDX-License-Identifier: Apache-2.0 */
/* Paths in requests: they lead below the folders that the machine's user has allowed, and nowhere else. */
#include "tests/unit/test.h"
#include "vmm/session/session_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

static char base[PATH_MAX];
static struct jail_folder folders[2];
static struct jail_options options;
static struct session session;
static struct err err;

static const char *in(const char *name)
{
	static char path[2 * PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	return path;
}

static void make(const char *name)
{
	int fd = open(in(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	close(fd);
}

static void setup(void)
{
	char target[PATH_MAX];

	snprintf(base, sizeof(base), "%.40s/reachXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(base));
	CHECK_EQ(mkdir(in("one"), 0700) + mkdir(in("two"), 0700), 0);
	make("secret");
	make("one/file");
	make("two/file");
	snprintf(target, sizeof(target), "%s", in("secret"));
	CHECK_EQ(symlink(target, in("one/absolute")) + symlink("../secret", in("one/relative")) + symlink("file", in("one/link")), 0);
	folders[0].path = strdup(in("one"));
	folders[1].path = strdup(in("two"));
	options = (struct jail_options){.allowed = folders, .allowed_count = 2};
	session = (struct session){.reach = &options};
	err.text[0] = 0;
}

static void done(void)
{
	static const char *const files[] = {"one/link", "one/relative", "one/absolute", "two/file", "one/file", "secret"};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlink(in(files[i]));
	rmdir(in("one"));
	rmdir(in("two"));
	rmdir(base);
	free(folders[0].path);
	free(folders[1].path);
}

static int reach(const char *path)
{
	int fd = -1, code = session_reach_open(&session, path, O_RDONLY, &fd, &err);

	CHECK_EQ(code == 0, fd >= 0);
	fd_close(&fd);
	return code;
}

static void what_is_allowed_opens(void)
{
	setup();
	CHECK_EQ(reach(in("one/file")), 0);
	CHECK_EQ(reach(in("one/link")), 0);
	CHECK_EQ(reach(in("two/file")), 0);
	CHECK_EQ(reach(in("one/none")), -ENOENT);
	CHECK(strstr(err.text, "one/none: No such file"));
	done();
}

static void nothing_else_does(void)
{
	static const char *const paths[] = {"secret", "one/absolute", "one/relative", "one/../secret", "onefile", "one/../one/../secret", "one/../one/file"};

	setup();
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		CHECK_EQ(reach(in(paths[i])), -EACCES);
		CHECK(strstr(err.text, "is out of reach") && strstr(err.text, "--allow DIR"));
	}
	CHECK_EQ(reach("one/file"), -EACCES);
	CHECK_EQ(reach(""), -EACCES);
	done();
}

static void without_folders_nothing_opens(void)
{
	setup();
	options.allowed_count = 0;
	CHECK_EQ(reach(in("one/file")), -EACCES);
	session.reach = NULL;
	CHECK_EQ(reach(in("one/file")), -EACCES);
	done();
}

/* Behind the door of a jail, its root is the folder. What is not there may be outside. */
static void a_jail_is_a_folder(void)
{
	setup();
	options.allowed_count = 0;
	session.inside = true;
	CHECK_EQ(reach(in("one/file")), 0);
	CHECK_EQ(reach(in("none")), -EACCES);
	CHECK(strstr(err.text, "is out of reach"));
	done();
}

TEST_MAIN(TEST(what_is_allowed_opens), TEST(nothing_else_does), TEST(without_folders_nothing_opens), TEST(a_jail_is_a_folder))
