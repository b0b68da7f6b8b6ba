/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/jail/jail_io: which devices are limited, what is written of them, and what is given back, in a folder like a group's. */
#include "vmm/jail/jail_io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "tests/unit/test.h"

#define DEVICE makedev(250, 77) /* for experiments: no kernel has a disk there */

static char base[64];
static int group;
static struct err err;

static const char *in(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	return path;
}

static void begin(void)
{
	snprintf(base, sizeof(base), "%.40s/jail_ioXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(base));
	group = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CHECK(group >= 0);
	err.text[0] = 0;
}

static void end(void)
{
	unlink(in("io.max"));
	unlink(in("node"));
	close(group);
	CHECK_EQ(rmdir(base), 0);
}

static void put(const char *text)
{
	FILE *file = fopen(in("io.max"), "we");

	CHECK(file);
	fputs(text, file);
	fclose(file);
}

/* The beginning of the file: what was written last is there. */
static const char *line(void)
{
	static char text[4096];
	int fd = open(in("io.max"), O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	CHECK(n >= 0);
	close(fd);
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return text;
}

static int open_device(dev_t device)
{
	int fd = mknod(in("node"), S_IFBLK | 0600, device) < 0 ? -1 : open(in("node"), O_PATH | O_CLOEXEC);

	if (fd < 0)
		CHECK_EQ(errno, EPERM); /* only root makes devices */
	return fd;
}

/* Each write is a message of its own, as for the kernel. */
static int open_messages(void)
{
	int reader;

	CHECK_EQ(mkfifo(in("io.max"), 0600), 0);
	reader = open(in("io.max"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
	CHECK(reader >= 0);
	return reader;
}

static void each_device_of_an_open_file_is_limited(void)
{
	const struct jail_config config = {.io = MIB(3)};
	char text[4096] = "";
	int reader, node, again;

	begin();
	node = open_device(DEVICE);
	if (node < 0) {
		end();
		return;
	}
	reader = open_messages();
	again = open(in("node"), O_PATH | O_CLOEXEC);
	CHECK(again >= 0);
	CHECK_EQ(jail_io_limit(group, &config, &err), 0);
	CHECK(read(reader, text, sizeof(text) - 1) > 0);
	CHECK(strstr(text, "250:77 rbps=3145728 wbps=3145728"));
	CHECK(!strstr(strstr(text, "250:77") + 1, "250:77")); /* once */
	close(again);
	close(node);
	close(reader);
	end();
}

/* It was handed in, and the limit of descriptors is lower. */
static void a_descriptor_may_have_any_number(void)
{
	const struct jail_config config = {.io = MIB(3)};
	const struct rlimit few = {.rlim_cur = 64, .rlim_max = 64};
	char text[4096] = "";
	int reader, node, high, status;
	pid_t pid;

	begin();
	node = open_device(DEVICE);
	if (node < 0) {
		end();
		return;
	}
	reader = open_messages();
	high = fcntl(node, F_DUPFD_CLOEXEC, 300);
	CHECK(high >= 300);
	close(node);
	pid = fork(); /* a limit cannot be raised again */
	if (pid == 0)
		_exit(setrlimit(RLIMIT_NOFILE, &few) < 0 || jail_io_limit(group, &config, &err));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK(read(reader, text, sizeof(text) - 1) > 0);
	CHECK(strstr(text, "250:77 rbps=3145728 wbps=3145728"));
	close(high);
	close(reader);
	end();
}

static void more_devices_than_can_be_limited_are_refused(void)
{
	const struct jail_config config = {.io = MIB(3)};
	int fds[65], count = 0, reader;

	begin();
	while (count < 65 && (fds[count] = open_device(makedev(250, count))) >= 0) {
		unlink(in("node"));
		count++;
	}
	reader = open_messages();
	if (count == 65) {
		CHECK_EQ(jail_io_limit(group, &config, &err), -E2BIG);
		CHECK(strncmp(err.text, "--jail io=: ", 12) == 0 && strstr(err.text, "--disk PATH,bandwidth=SIZE"));
		CHECK(read(reader, &(char){0}, 1) < 0); /* not the first ones of them */
	}
	while (count)
		close(fds[--count]);
	close(reader);
	end();
}

static void without_a_limit_nothing_is_written(void)
{
	begin();
	CHECK_EQ(jail_io_limit(group, &(const struct jail_config){.io = 0}, &err), 0);
	end();
}

static void a_device_that_had_none_has_none_again(void)
{
	begin();
	put("8:0 rbps=1048576 wbps=1048576 riops=max wiops=max\n");
	jail_io_give_back(group, "");
	CHECK(strncmp(line(), "8:0 rbps=max wbps=max", 21) == 0);
	put("8:0 rbps=1048576 wbps=1048576 riops=max wiops=max\n");
	jail_io_give_back(group, "18:0 rbps=5 wbps=5\n8:01 rbps=5 wbps=5\n");
	CHECK(strncmp(line(), "8:0 rbps=max wbps=max", 21) == 0);
	end();
}

static void a_device_that_had_one_has_it_again(void)
{
	begin();
	put("8:0 rbps=1048576 wbps=1048576 riops=max wiops=max\n");
	jail_io_give_back(group, "8:16 rbps=1 wbps=1 riops=1 wiops=1\n8:0 rbps=77 wbps=max riops=9 wiops=max\n");
	CHECK(strncmp(line(), "8:0 rbps=77 wbps=max riops=9 wiops=max", 38) == 0);
	end();
}

TEST_MAIN(TEST(each_device_of_an_open_file_is_limited), TEST(a_descriptor_may_have_any_number),
	  TEST(more_devices_than_can_be_limited_are_refused), TEST(without_a_limit_nothing_is_written),
	  TEST(a_device_that_had_none_has_none_again), TEST(a_device_that_had_one_has_it_again))
