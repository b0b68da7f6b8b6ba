/* SPDX-License-Identifier: Apache-2.0 */
/* core/beneath: what is in the folder opens, and nothing leads out of it. */
#include "core/beneath.h"

#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static char folder[64];

static const char *in(const char *name)
{
	static char paths[2][160];
	static unsigned int turn;
	char *path = paths[turn++ % 2];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static void put(const char *name)
{
	int fd = open(in(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	close(fd);
}

static int look(const char *base, const char *path)
{
	int fd = beneath_open(base, path, O_RDONLY);

	if (fd >= 0)
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	return fd < 0 ? fd : close(fd);
}

static void nothing_leads_out_of_the_folder(void)
{
	char base[80];

	snprintf(folder, sizeof(folder), "%.40s/beneathXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(folder));
	snprintf(base, sizeof(base), "%s/base", folder);
	CHECK_EQ(mkdir(base, 0700) | mkdir(in("base/sub"), 0700), 0);
	put("secret");
	put("base/disk");
	put("base/sub/disk");
	CHECK_EQ(symlink("sub/disk", in("base/inner")), 0);
	CHECK_EQ(symlink("../secret", in("base/outer")), 0);
	CHECK_EQ(symlink(in("secret"), in("base/absolute")), 0);
	CHECK_EQ(symlink("..", in("base/up")), 0);
	CHECK_EQ(symlink("/proc/self/root", in("base/magic")), 0);
	CHECK_EQ(look(base, in("base/disk")), 0);
	CHECK_EQ(look(base, in("base//sub/../disk")), 0);
	CHECK_EQ(look(base, in("base/inner")), 0);
	CHECK_EQ(look(base, in("base/none")), -ENOENT);
	CHECK_EQ(look(base, in("base/../secret")), -EXDEV);
	CHECK_EQ(look(base, in("base/outer")), -EXDEV);
	CHECK_EQ(look(base, in("base/absolute")), -EXDEV);
	CHECK_EQ(look(base, in("base/up/secret")), -EXDEV);
	CHECK_EQ(look(base, in("base/magic/etc/passwd")), -EXDEV);
	CHECK_EQ(look(base, in("secret")), -EXDEV);
	CHECK_EQ(look(base, in("base2")), -EXDEV);
	CHECK_EQ(look("/none", "/none/x"), -ENOENT);
	/* A trusted path, and the folder that is all there is. */
	CHECK_EQ(look(NULL, in("base/outer")), 0);
	CHECK_EQ(look("/", in("secret")), 0);
}

static void the_folder_of_a_file_to_make_is_found(void)
{
	const char *name;
	char base[80];
	int fd;

	snprintf(base, sizeof(base), "%s/base", folder);
	fd = beneath_open_folder(base, in("base/sub/new"), &name);
	CHECK(fd >= 0);
	CHECK_STR(name, "new");
	CHECK_EQ(faccessat(fd, "disk", F_OK, 0), 0);
	close(fd);
	fd = beneath_open_folder(base, in("base/new"), &name);
	CHECK(fd >= 0 && faccessat(fd, "sub", F_OK, 0) == 0);
	close(fd);
	CHECK_EQ(beneath_open_folder(base, in("base/up/new"), &name), -EXDEV);
	CHECK_EQ(beneath_open_folder(base, in("base/none/new"), &name), -ENOENT);
	fd = beneath_open_folder(NULL, "new", &name);
	CHECK(fd >= 0);
	CHECK_STR(name, "new");
	close(fd);
	for (const char *const *each = (const char *const[]){"base/disk", "base/sub/disk", "base/inner", "base/outer",
	     "base/absolute", "base/up", "base/magic", "secret", NULL}; *each; each++)
		CHECK_EQ(unlink(in(*each)), 0);
	CHECK_EQ(rmdir(in("base/sub")) | rmdir(base) | rmdir(folder), 0);
}

TEST_MAIN(TEST(nothing_leads_out_of_the_folder), TEST(the_folder_of_a_file_to_make_is_found))
