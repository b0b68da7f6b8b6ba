/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_arrivals.h. */
#include "vmm/session/disk_arrivals.h"

#include "core/beneath.h"
#include "core/errand.h"
#include "vmm/migration/report.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

struct disk_arrivals {
	struct disk_target targets[WIRE_MAX_DISKS];
	struct place {
		const struct disk_config *disk;
		const char *name; /* in the folder; both belong to the configuration */
		int folder;       /* its descriptor, or -1 */
		bool made;
		dev_t dev;
		uint64_t needs; /* bytes needed on its file system; 0 for a device */
	} places[WIRE_MAX_DISKS];
	size_t count;
};

static const struct disk_config *disk_arrivals_find(const struct machine_config *config, const char *id)
{
	for (size_t i = 0; i < config->disk_count; i++)
		if (config->disks[i].id && strcmp(config->disks[i].id, id) == 0)
			return &config->disks[i];
	return NULL;
}

static int disk_arrivals_make_file(struct disk_target *target, struct place *place, struct err *err)
{
	place->made = true;
	if (ftruncate(target->fd, (off_t)target->size) < 0)
		return err_sys(err, -errno, "cannot be set to %llu bytes", (unsigned long long)target->size);
	/* The file's name must be as safe as its contents. */
	if (fsync(target->fd) < 0 || (fsync(place->folder) < 0 && errno != EINVAL))
		return err_sys(err, -errno, "cannot be synced");
	return 0;
}

/* Checked before it is opened: opening a pipe or a terminal can block or do harm. */
static int disk_arrivals_open_there(struct disk_target *target, struct place *place, bool named, struct err *err)
{
	_cleanup_(fd_close) int found = -1;
	char self[32];
	uint64_t size;
	struct stat st;

	if (!named)
		return err_set(err, -EEXIST,
			       "exists; mvmm receive --disk %s=PATH overwrites a file of this size, or names another",
			       target->id);
	found = openat(place->folder, place->name, O_PATH | O_CLOEXEC);
	if (found < 0 || fstat(found, &st) < 0)
		return err_sys(err, -errno, "cannot be looked at");
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "is neither a file nor a block device");
	snprintf(self, sizeof(self), "/proc/self/fd/%d", found);
	target->fd = open(self, O_RDWR | O_CLOEXEC);
	if (target->fd < 0)
		return err_sys(err, -errno, "cannot be opened");
	size = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(target->fd, BLKGETSIZE64, &size) < 0)
		return err_sys(err, -errno, "its size is unknown");
	if (size / WIRE_SECTOR != target->size / WIRE_SECTOR)
		return err_set(err, -EINVAL, "has %llu bytes, but the source's disk has %llu",
			       (unsigned long long)size, (unsigned long long)target->size);
	return 0;
}

/* O_EXCL follows no link. */
static int disk_arrivals_open_place(struct disk_target *target, struct place *place, bool named, struct err *err)
{
	place->folder = beneath_open_folder(place->disk->below, place->disk->path, &place->name);
	if (place->folder == -EXDEV || (place->folder == -ELOOP && place->disk->below))
		return err_set(err, place->folder, "a link or .. in it leads out of %s", place->disk->below);
	if (place->folder < 0)
		return err_sys(err, place->folder, "cannot be created");
	target->fd = openat(place->folder, place->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (target->fd >= 0)
		return disk_arrivals_make_file(target, place, err);
	return errno == EEXIST ? disk_arrivals_open_there(target, place, named, err) :
				 err_sys(err, -errno, "cannot be created");
}

static int disk_arrivals_open_target(struct disk_target *target, struct place *place, uint64_t allocated, bool named,
				     struct err *err)
{
	int code = disk_arrivals_open_place(target, place, named, err);
	struct stat st;

	if (!code && fstat(target->fd, &st) < 0)
		code = err_sys(err, -errno, "cannot be looked at");
	if (code)
		return err_prefix(err, code, "disk %s: %.300s", target->id, place->disk->path);
	place->dev = st.st_dev;
	allocated = MIN(allocated, target->size);
	if (S_ISREG(st.st_mode) && allocated > (uint64_t)st.st_blocks * 512)
		place->needs = allocated - (uint64_t)st.st_blocks * 512;
	return 0;
}

/* Adds up the needs of files that share a file system. */
static int disk_arrivals_check_room(const struct disk_arrivals *arrivals, struct err *err)
{
	for (size_t i = 0; i < arrivals->count; i++) {
		uint64_t needs = 0, has;
		struct statvfs fs;
		char a[24], b[24];

		for (size_t k = 0; k <= i; k++)
			needs += arrivals->places[k].dev == arrivals->places[i].dev ? arrivals->places[k].needs : 0;
		if (!arrivals->places[i].needs || fstatvfs(arrivals->targets[i].fd, &fs) < 0)
			continue;
		has = (uint64_t)fs.f_bavail * fs.f_frsize;
		if (needs > has)
			return err_set(err, -ENOSPC, "disk %s: %.300s: needs %s, but only %s are free",
				       arrivals->targets[i].id,
				       arrivals->places[i].disk->path, migration_format_bytes(needs, a),
				       migration_format_bytes(has, b));
	}
	return 0;
}

static int disk_arrivals_open_all(struct disk_arrivals *arrivals, const struct machine_offer *offer,
				  const struct machine_config *config, const struct arrival_override *named,
				  size_t named_count, struct err *err)
{
	int code = 0;

	for (size_t i = 0; !code && i < offer->device_count && arrivals->count < WIRE_MAX_DISKS; i++) {
		const struct offered_device *device = &offer->devices[i];
		struct disk_target *target = &arrivals->targets[arrivals->count];
		struct place *place = &arrivals->places[arrivals->count];

		if (!device->copied)
			continue;
		*target = (struct disk_target){.fd = -1, .size = device->size};
		snprintf(target->id, sizeof(target->id), "%.63s", device->id);
		*place = (struct place){.disk = disk_arrivals_find(config, device->id), .folder = -1};
		arrivals->count++;
		code = place->disk ? disk_arrivals_open_target(target, place, device->allocated,
							       arrival_override_find(named, named_count, device->id),
							       err) :
				     err_set(err, -EBADMSG, "disk %s is copied, but is not in the configuration",
					     device->id);
	}
	return code ?: disk_arrivals_check_room(arrivals, err);
}

int disk_arrivals_create(const struct machine_offer *offer, const struct machine_config *config,
			 const struct arrival_override *named, size_t named_count, struct disk_arrivals **ret,
			 struct err *err)
{
	struct disk_arrivals *arrivals = calloc(1, sizeof(*arrivals));
	int code;

	if (!arrivals)
		return err_sys(err, -ENOMEM, "disks");
	code = disk_arrivals_open_all(arrivals, offer, config, named, named_count, err);
	if (code) {
		disk_arrivals_destroy(arrivals);
		return code;
	}
	*ret = arrivals;
	return 0;
}

size_t disk_arrivals_get(const struct disk_arrivals *arrivals, const struct disk_target **ret)
{
	*ret = arrivals->targets;
	return arrivals->count;
}

void disk_arrivals_keep(struct disk_arrivals *arrivals)
{
	for (size_t i = 0; i < arrivals->count; i++)
		arrivals->places[i].made = false;
}

/* Removes the file only if it is still the one that was created. */
static void disk_arrivals_remove_file(const struct disk_target *target, const struct place *place)
{
	struct stat ours, there;

	if (fstat(target->fd, &ours) == 0 &&
	    fstatat(place->folder, place->name, &there, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_dev == there.st_dev &&
	    ours.st_ino == there.st_ino)
		errand_unlinkat(place->folder, place->name, 0);
}

void disk_arrivals_destroy(struct disk_arrivals *arrivals)
{
	if (!arrivals)
		return;
	for (size_t i = 0; i < arrivals->count; i++) {
		if (arrivals->places[i].made)
			disk_arrivals_remove_file(&arrivals->targets[i], &arrivals->places[i]);
		fd_close(&arrivals->targets[i].fd);
		fd_close(&arrivals->places[i].folder);
	}
	free(arrivals);
}
