/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_io.h. */
#include "vmm/jail/jail_io.h"

#include "vmm/jail/jail_fds.h"
#include "vmm/jail/jail_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define DEVICES 64u
#define FILE_SIZE 8192 /* of io.max */

struct devices {
	dev_t numbers[DEVICES];
	size_t count;
};

static int jail_io_add(struct devices *devices, dev_t number)
{
	for (size_t i = 0; i < devices->count; i++)
		if (devices->numbers[i] == number)
			return 0;
	if (devices->count == DEVICES)
		return -E2BIG;
	devices->numbers[devices->count++] = number;
	return 0;
}

/* Of a partition, the disk, for which alone there are limits. */
static dev_t jail_io_whole(dev_t number)
{
	char path[64], text[32];
	unsigned int major, minor;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(number), minor(number));
	if (access(path, F_OK) < 0)
		return number;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(number), minor(number));
	if (jail_file_read(AT_FDCWD, path, text, sizeof(text)) < 0 || sscanf(text, "%u:%u", &major, &minor) != 2)
		return number;
	return makedev(major, minor);
}

/* Files of file systems without a device, and other things than files, are on none. */
static int jail_io_on_fd(void *opaque, int fd, const struct stat *st)
{
	dev_t device = S_ISBLK(st->st_mode) ? st->st_rdev : S_ISREG(st->st_mode) ? st->st_dev : 0;

	return major(device) ? jail_io_add(opaque, jail_io_whole(device)) : 0;
}

int jail_io_limit(int group_fd, const struct jail_config *config, struct err *err)
{
	struct devices devices = {.count = 0};
	int code = config->io ? jail_fds_each(jail_io_on_fd, &devices) : 0;

	if (code == -E2BIG)
		return err_set(err, code, "--jail io=: the machine's files are on more than %u block devices; leave io= out and limit "
			       "the disks: --disk PATH,bandwidth=SIZE", DEVICES);
	if (code)
		return err_sys(err, code, "--jail io=: the open files");
	if (config->io && !devices.count)
		return err_set(err, -ENODEV, "--jail io=: no file of the machine is on a block device of its own, as with btrfs or NFS; "
			       "leave io= out and limit the disks: --disk PATH,bandwidth=SIZE");
	for (size_t i = 0; i < devices.count && !code; i++) {
		dev_t device = devices.numbers[i];
		char text[96];

		snprintf(text, sizeof(text), "%u:%u rbps=%llu wbps=%llu", major(device), minor(device),
			 (unsigned long long)config->io, (unsigned long long)config->io);
		code = jail_file_write(group_fd, "io.max", text);
		if (code)
			err_sys(err, code, "--jail cgroup=%.200s,io=: the limit of device %u:%u", config->cgroup, major(device),
				minor(device));
	}
	return code;
}

/* ---- at the end ---- */

/* The line of the device at the beginning of line, NULL: there is none. */
static const char *jail_io_line_of(const char *text, const char *line)
{
	size_t len = strcspn(line, " ") + 1;

	while (text && strncmp(text, line, len) != 0) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text;
}

void jail_io_give_back(int group_fd, const char *before)
{
	char now[FILE_SIZE], text[256];

	if (jail_file_read(group_fd, "io.max", now, sizeof(now)))
		return;
	for (const char *line = now; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *old = jail_io_line_of(before, line);

		if (old)
			snprintf(text, sizeof(text), "%.*s", (int)strcspn(old, "\n"), old);
		else
			snprintf(text, sizeof(text), "%.*s rbps=max wbps=max", (int)strcspn(line, " "), line);
		jail_file_write(group_fd, "io.max", text);
	}
}
