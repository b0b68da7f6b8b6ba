/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/machine/machine_files: what a path named first is what it names, whatever happens to the path. */
#include "tests/unit/test.h"
#include "vmm/machine/machine_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static char dir[32], a[64], b[64];

static void begin(void)
{
	snprintf(dir, sizeof(dir), "/tmp/mvmm-test-XXXXXX");
	CHECK(mkdtemp(dir));
	snprintf(a, sizeof(a), "%s/a", dir);
	snprintf(b, sizeof(b), "%s/b", dir);
	for (unsigned int i = 0; i < 2; i++) {
		int fd = open(i ? b : a, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		CHECK_EQ(write(fd, i ? "b" : "a", 1), 1);
		close(fd);
	}
}

static void end(void)
{
	unlink(a);
	unlink(b);
	CHECK_EQ(rmdir(dir), 0);
}

/* What is read by this name; 0: nothing. */
static char content(const char *name)
{
	_cleanup_(fd_close) int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
	char byte;

	return fd >= 0 && read(fd, &byte, 1) == 1 ? byte : 0;
}

static void a_file_stays_what_it_was(void)
{
	struct machine_files files = {0};
	const char *first;

	begin();
	first = machine_files_find(&files, NULL, a);
	CHECK_EQ(content(first), 'a');
	CHECK_EQ(content(machine_files_find(&files, dir, b)), 'b');
	CHECK_EQ(rename(b, a), 0);
	CHECK_EQ(content(machine_files_find(&files, NULL, a)), 'a');
	CHECK_EQ(content(first), 'a');
	CHECK_EQ(content(machine_files_find(&files, dir, b)), 'b');
	CHECK_EQ(unlink(a), 0);
	CHECK_EQ(content(machine_files_find(&files, NULL, a)), 'a');
	CHECK(!machine_files_find(&files, NULL, b)); /* asked for as another one: not found yet */
	machine_files_close(&files);
	CHECK(!machine_files_find(&files, NULL, a));
	end();
}

static void what_is_missing_may_come(void)
{
	struct machine_files files = {0};

	begin();
	CHECK_EQ(unlink(a), 0);
	CHECK(!machine_files_find(&files, NULL, a));
	CHECK_EQ(rename(b, a), 0);
	CHECK_EQ(content(machine_files_find(&files, NULL, a)), 'b');
	CHECK(!machine_files_find(NULL, NULL, a)); /* nothing is kept */
	machine_files_close(&files);
	end();
}

/* What was handed in for a device lasts until it goes, or gets something else. */
static void descriptors_are_kept_by_the_device(void)
{
	struct machine_files files = {0};
	int fds[2], kept[2];
	const int *found;

	begin();
	CHECK_EQ(machine_files_passed(&files, "disk1", &found), 0);
	CHECK_EQ(machine_files_passed(NULL, "disk1", &found), 0);
	fds[0] = kept[0] = open(a, O_RDONLY | O_CLOEXEC);
	fds[1] = kept[1] = open(b, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(machine_files_pass(&files, "disk1", fds, 2, NULL), 0);
	CHECK_EQ(fds[0] + fds[1], -2);
	CHECK_EQ(machine_files_passed(&files, "disk1", &found), 2);
	CHECK(found[0] == kept[0] && found[1] == kept[1]);
	CHECK_EQ(machine_files_passed(&files, "disk2", &found), 0);
	fds[0] = open(a, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(machine_files_pass(&files, "disk1", fds, 1, NULL), 0);
	CHECK_EQ(machine_files_passed(&files, "disk1", &found), 1);
	CHECK(fcntl(kept[0], F_GETFD) < 0 && fcntl(kept[1], F_GETFD) < 0);
	machine_files_forget(&files, "disk2");
	machine_files_forget(&files, "disk1");
	CHECK_EQ(machine_files_passed(&files, "disk1", &found), 0);
	fds[0] = kept[0] = open(a, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(machine_files_pass(&files, "disk1", fds, 1, NULL), 0);
	machine_files_close(&files);
	CHECK(fcntl(kept[0], F_GETFD) < 0);
	end();
}

TEST_MAIN(TEST(descriptors_are_kept_by_the_device), TEST(a_file_stays_what_it_was), TEST(what_is_missing_may_come))
