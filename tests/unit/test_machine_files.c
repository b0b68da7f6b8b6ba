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

TEST_MAIN(TEST(a_file_stays_what_it_was), TEST(what_is_missing_may_come))
