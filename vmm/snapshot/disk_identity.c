/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_identity.h. */
#include "vmm/snapshot/disk_identity.h"

#include "core/errand.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#define UNKNOWN UINT64_MAX /* in the place of the written sectors */

void disk_identity_boot_id(uint8_t ret[16])
{
	_cleanup_(fd_close) int fd = errand_open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC, 0);
	char text[37] = {0};
	unsigned int byte;

	memset(ret, 0, 16);
	if (fd < 0 || read(fd, text, 36) != 36)
		return;
	for (size_t i = 0, at = 0; i < 16 && sscanf(text + at, "%2x", &byte) == 1; i++) {
		ret[i] = (uint8_t)byte;
		at += 2;
		at += text[at] == '-';
	}
}

#define TICKS_NS 20000000ll /* more than one */

void disk_identity_settle(int fd)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}}, *now = &times[1];
	struct stat st;
	int64_t age;

	clock_gettime(CLOCK_REALTIME, now);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	age = (now->tv_sec - st.st_mtim.tv_sec) * 1000000000ll + now->tv_nsec - st.st_mtim.tv_nsec;
	now->tv_nsec |= 1;
	if (age < TICKS_NS)
		futimens(fd, times);
}

/* A number in a file of the device's folder in /sys; fields before it are skipped. */
static bool disk_identity_read_number(dev_t device, const char *name, unsigned int skip, uint64_t *ret)
{
	unsigned long long number = 0;
	bool good = true;
	char path[80];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(device), minor(device), name);
	file = errand_fopen(path);
	for (unsigned int i = 0; file && good && i <= skip; i++)
		good = fscanf(file, "%llu", &number) == 1;
	if (file)
		fclose(file);
	*ret = number;
	return file && good;
}

/* Documentation/block/stat.rst of the kernel: the seventh number is the sectors written. They may not be counted. */
static uint64_t disk_identity_written(dev_t device)
{
	uint64_t counts, written;

	if (!disk_identity_read_number(device, "queue/iostats", 0, &counts) &&
	    !disk_identity_read_number(device, "../queue/iostats", 0, &counts)) /* a partition */
		counts = 0;
	return counts && disk_identity_read_number(device, "stat", 6, &written) ? written : UNKNOWN;
}

static void disk_identity_read_device(int fd, dev_t device, struct snapshot_disk *ret)
{
	uint64_t instance = 0;

	ret->device = device;
	ret->mtime_ns = ioctl(fd, BLKGETDISKSEQ, &instance) < 0 ? UNKNOWN : disk_identity_written(device);
	ret->inode = instance;
}

int disk_identity_read(const char *id, int fd, uint64_t size, struct snapshot_disk *ret, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "disk %s", id);
	*ret = (struct snapshot_disk){
		.size = size, .inode = st.st_ino, .device = st.st_dev,
		.mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec,
	};
	if (S_ISBLK(st.st_mode))
		disk_identity_read_device(fd, st.st_rdev, ret);
	snprintf(ret->id, sizeof(ret->id), "%s", id);
	return 0;
}

bool disk_identity_same(const struct snapshot_disk *then, const uint8_t boot_id[16], int fd)
{
	struct snapshot_disk now;
	uint8_t boot[16];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	if (S_ISBLK(st.st_mode))
		fdatasync(fd); /* what is still in the page cache has not been counted */
	if (disk_identity_read(then->id, fd, then->size, &now, NULL))
		return false;
	if (now.inode != then->inode || now.device != then->device || now.mtime_ns != then->mtime_ns)
		return false;
	if (!S_ISBLK(st.st_mode))
		return true;
	disk_identity_boot_id(boot);
	return now.mtime_ns != UNKNOWN && memcmp(boot, boot_id, sizeof(boot)) == 0;
}
