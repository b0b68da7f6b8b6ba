/* SPDX-License-Identifier: Apache-2.0 */
/* See restore_disks.h. A file is made without a name and gets it when it is complete, where the file system can do so. */
#include "vmm/session/restore_disks.h"

#include "core/beneath.h"
#include "core/errand.h"
#include "core/monotonic.h"
#include "devices/virtio/virtio.h"
#include "vmm/migration/report.h"
#include "vmm/snapshot/disk_copier.h"
#include "vmm/snapshot/disk_identity.h"
#include "vmm/snapshot/file_copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define FIRST_WORD_NS 1000000000ull /* a copy that takes longer is announced, */
#define NEXT_WORD_NS 5000000000ull  /* and reported on */

/* A writable disk. */
struct place {
	const struct snapshot_disk *then;
	const struct disk_config *disk;
	bool named;   /* by --disk */
	bool changed; /* --disk-changed */
	const char *source; /* --disk-from, or NULL */
	const char *name; /* in folder; part of disk->path */
	int folder;
	int made;         /* the file that was made, or -1 */
};

struct restore_disks {
	struct restore_disks_options options;
	struct place places[WIRE_MAX_DISKS];
	size_t count;
	struct disk_copier *copier; /* while one is copied */
	uint64_t said, every;       /* when progress was reported, and how often it is */
};

/* ---- which disks there are ---- */

static const struct disk_config *restore_disks_find(const struct machine_config *config, const char *id)
{
	for (size_t i = 0; i < config->disk_count; i++)
		if (config->disks[i].id && strcmp(config->disks[i].id, id) == 0)
			return &config->disks[i];
	return NULL;
}

static int restore_disks_list(struct restore_disks *disks, struct err *err)
{
	const struct restore_options *options = disks->options.options;
	const struct arrival_options *here = disks->options.here;
	const struct snapshot_state *state = disks->options.snapshot->state;

	for (size_t i = 0; i < state->disk_count; i++) {
		const struct snapshot_disk *then = &state->disks[i];
		const struct disk_config *disk = restore_disks_find(disks->options.config, then->id);

		if (!disk || disk->readonly)
			return err_set(err, -EBADMSG, "the snapshot has a writable disk %s that its machine has not", then->id);
		disks->places[disks->count++] = (struct place){
			.then = then, .disk = disk, .folder = -1, .made = -1,
			.named = arrival_override_find(here->disks, here->disk_count, then->id),
			.changed = options->any_disk ||
				   arrival_override_find(options->changed, options->changed_count, then->id),
			.source = arrival_override_find(options->sources, options->source_count, then->id),
		};
	}
	return 0;
}

/* The first len bytes of text are an id. */
static int restore_disks_check_id(const struct machine_config *config, const char *option, const char *text, size_t len,
				  struct err *err)
{
	for (size_t i = 0; i < config->disk_count; i++) {
		const struct disk_config *disk = &config->disks[i];

		if (!disk->readonly && disk->id && strncmp(disk->id, text, len) == 0 && !disk->id[len])
			return 0;
	}
	return err_set(err, -EINVAL, "--%s %.100s: the machine has no such disk that it may write; mvmm snapshot inspect lists "
		       "them", option, text);
}

int restore_disks_check_options(const struct machine_config *config, const struct restore_options *options,
				struct err *err)
{
	const char *again = arrival_override_again(options->sources, options->source_count);
	int code = again ? err_set(err, -EINVAL, "--disk-from %.200s: an earlier --disk-from is of the same id; leave one out",
				   again) : 0;

	for (size_t i = 0; i < options->changed_count && !code; i++)
		code = restore_disks_check_id(config, "disk-changed", options->changed[i].text,
					      strlen(options->changed[i].text), err);
	for (size_t i = 0; i < options->source_count && !code; i++) {
		const char *text = options->sources[i].text;
		size_t len = strcspn(text, "=");

		code = text[len] ? restore_disks_check_id(config, "disk-from", text, len, err) :
				   err_set(err, -EINVAL, "--disk-from %.100s: does not say which; write ID=FILE", text);
	}
	return code;
}

/* A disk of which the snapshot says nothing would be used unseen. */
static int restore_disks_check_count(const struct restore_disks *disks, struct err *err)
{
	const struct machine_config *config = disks->options.config;
	size_t writable = 0;

	for (size_t i = 0; i < config->disk_count; i++)
		writable += !config->disks[i].readonly;
	if (writable != disks->count)
		return err_set(err, -EBADMSG, "the snapshot describes %zu writable disks, its machine has %zu", disks->count,
			       writable);
	return 0;
}

/* ---- the copy in the snapshot ---- */

static int restore_disks_open_source(const char *path, int *fd, struct err *err)
{
	_cleanup_(fd_close) int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (file < 0 || fstat(file, &st) < 0)
		return err_sys(err, -errno, "--disk-from %.200s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "--disk-from %.200s: is not a file", path);
	*fd = take_fd(&file);
	return 0;
}

/* -ENOENT without a message: there is none. */
static int restore_disks_open_copy(const struct restore_disks *disks, const struct place *place, int *fd, struct err *err)
{
	char name[80];
	struct stat st;
	int code;

	snprintf(name, sizeof(name), "disks/%s", place->then->id);
	code = place->source ? restore_disks_open_source(place->source, fd, err) :
			       snapshot_open_part(disks->options.snapshot, name, fd, err);
	if (code || *fd < 0)
		return code ?: -ENOENT;
	if (fstat(*fd, &st) == 0 && (uint64_t)st.st_size / WIRE_SECTOR == place->then->size / WIRE_SECTOR)
		return 0;
	fd_close(fd);
	return err_set(err, -EBADMSG, "the copy in the snapshot has %llu bytes, but the disk had %llu",
		       (unsigned long long)st.st_size, (unsigned long long)place->then->size);
}

static bool restore_disks_has_copy(const struct restore_disks *disks, const struct place *place)
{
	_cleanup_(fd_close) int fd = -1;

	return restore_disks_open_copy(disks, place, &fd, NULL) == 0;
}

/* ---- a file that exists ---- */

static int restore_disks_refuse_changed(const struct restore_disks *disks, const struct place *place, struct err *err)
{
	const char *id = place->then->id;
	bool copy = restore_disks_has_copy(disks, place);

	if (place->named)
		return err_set(err, -EEXIST, "exists, and is not the disk as it was at the snapshot; %s--disk-changed %s "
			       "uses it all the same, which can destroy what is on it",
			       copy ? "name a file that does not exist to get a copy of that, or " : "", id);
	if (copy)
		return err_set(err, -ESTALE, "has changed since the snapshot; --disk %s=NEWFILE makes a copy of the disk as it "
			       "was, --disk-changed %s uses this one all the same, which can destroy what is on it", id, id);
	return err_set(err, -ESTALE, "has changed since the snapshot, which has no copy of it; --disk-changed %s uses it all "
		       "the same, which can destroy what is on it", id);
}

/* *fd has been opened with O_PATH. A block device is opened, since only then it tells its size and what was written. */
static int restore_disks_measure(const struct stat *st, int *fd, uint64_t *size, struct err *err)
{
	char self[32];
	int device;

	*size = (uint64_t)st->st_size;
	if (S_ISREG(st->st_mode))
		return 0;
	if (!S_ISBLK(st->st_mode))
		return err_set(err, -EINVAL, "is neither a file nor a block device");
	snprintf(self, sizeof(self), "/proc/self/fd/%d", *fd);
	device = open(self, O_RDONLY | O_CLOEXEC);
	if (device < 0)
		return err_sys(err, -errno, "cannot be opened");
	fd_close(fd);
	*fd = device;
	return ioctl(device, BLKGETSIZE64, size) < 0 ? err_sys(err, -errno, "its size is unknown") : 0;
}

static int restore_disks_check_there(const struct restore_disks *disks, const struct place *place, int *fd,
				     const struct stat *st, struct err *err)
{
	uint64_t size;
	int code = restore_disks_measure(st, fd, &size, err);

	if (code)
		return code;
	if (size / WIRE_SECTOR != place->then->size / WIRE_SECTOR)
		return err_set(err, -EINVAL, "has %llu bytes, but the disk had %llu at the snapshot", (unsigned long long)size,
			       (unsigned long long)place->then->size);
	if (place->changed || disk_identity_same(place->then, disks->options.snapshot->state->boot_id, *fd))
		return 0;
	return restore_disks_refuse_changed(disks, place, err);
}

/* ---- a file that is made ---- */

static int restore_disks_tick(void *opaque, struct err *err)
{
	struct restore_disks *disks = opaque;
	uint64_t now = monotonic_ns();
	char left[24];

	if (disks->copier && now > disks->said + disks->every) {
		log_info(disks->options.log, "copying disks from the snapshot, %s left",
			 migration_format_bytes(disk_copier_left(disks->copier), left));
		disks->said = now;
		disks->every = NEXT_WORD_NS;
	}
	return disks->options.tick ? disks->options.tick(disks->options.opaque, err) : 0;
}

static int restore_disks_copy(struct restore_disks *disks, const struct place *place, int from, int to, struct err *err)
{
	struct disk_copy disk = {.fd = from, .size = place->then->size};
	const struct disk_copier_options options = {.disks = &disk, .fds = &to, .count = 1, .tick = restore_disks_tick,
						    .opaque = disks};
	int code;

	snprintf(disk.id, sizeof(disk.id), "%s", place->then->id);
	disks->said = monotonic_ns();
	disks->every = FIRST_WORD_NS;
	code = disk_copier_create(&options, &disks->copier, err);
	code = code ?: disk_copier_finish(disks->copier, err);
	disk_copier_destroy(take_ptr(disks->copier));
	return code;
}

static int restore_disks_name(const struct place *place, int fd, struct err *err)
{
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, place->folder, place->name, AT_SYMLINK_FOLLOW) < 0)
		return err_sys(err, -errno, "cannot be created");
	return 0;
}

/* O_EXCL follows no link. */
static int restore_disks_make(struct restore_disks *disks, struct place *place, int from, struct err *err)
{
	_cleanup_(fd_close) int fd = openat(place->folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	bool nameless = fd >= 0;
	int code = 0;

	if (!nameless)
		fd = openat(place->folder, place->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, -errno, "cannot be created");
	place->made = nameless ? -1 : fd;
	if (file_copy_reflink(from, fd))
		code = restore_disks_copy(disks, place, from, fd, err);
	if (!code && nameless)
		code = restore_disks_name(place, fd, err);
	if (!code || !nameless)
		place->made = take_fd(&fd);
	return code;
}

static int restore_disks_make_new(struct restore_disks *disks, struct place *place, struct err *err)
{
	_cleanup_(fd_close) int from = -1;
	int code = restore_disks_open_copy(disks, place, &from, err);

	if (code == -ENOENT && place->named)
		return err_set(err, code, "does not exist, and the snapshot has no copy of the disk to make it from");
	if (code == -ENOENT)
		return err_set(err, code, "does not exist; name the disk by --disk %s=PATH", place->then->id);
	if (!code && !place->named)
		return err_set(err, -ENOENT, "does not exist; --disk %s=NEWFILE makes a copy of the one in the snapshot",
			       place->then->id);
	return code ?: restore_disks_make(disks, place, from, err);
}

/* ---- all of them ---- */

/* path of fd begins with that of folder. A snapshot of two files has no folder of its own. */
static bool restore_disks_is_within(const struct snapshot *snapshot, int fd)
{
	char self[32], folder[PATH_MAX], path[PATH_MAX];
	ssize_t folder_len, len;

	if (!snapshot->folder)
		return false;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", snapshot->dir_fd);
	folder_len = readlink(self, folder, sizeof(folder));
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	len = readlink(self, path, sizeof(path));
	return folder_len > 0 && len >= folder_len && memcmp(folder, path, (size_t)folder_len) == 0 &&
	       (len == folder_len || path[folder_len] == '/');
}

/* Another name of a file of the snapshot. */
static bool restore_disks_is_part(const struct restore_disks *disks, const struct place *place, const struct stat *st)
{
	_cleanup_(fd_close) int copy = -1;
	struct stat own;

	return restore_disks_open_copy(disks, place, &copy, NULL) == 0 && fstat(copy, &own) == 0 &&
	       own.st_dev == st->st_dev && own.st_ino == st->st_ino;
}

/* Looked at before it is opened: opening a pipe or a terminal can block or do harm. */
static int restore_disks_place(struct restore_disks *disks, struct place *place, struct err *err)
{
	_cleanup_(fd_close) int found = -1;
	bool absent, within;
	struct stat st;

	found = open(place->disk->path, O_PATH | O_CLOEXEC);
	absent = found < 0 && errno == ENOENT;
	if (!absent && (found < 0 || fstat(found, &st) < 0))
		return err_sys(err, -errno, "cannot be looked at");
	if (absent)
		place->folder = beneath_open_folder(NULL, place->disk->path, &place->name);
	if (absent && place->folder < 0)
		return err_sys(err, place->folder, "its folder cannot be opened");
	within = restore_disks_is_within(disks->options.snapshot, absent ? place->folder : found);
	if (within || (!absent && restore_disks_is_part(disks, place, &st)))
		return err_set(err, -EINVAL, "is part of the snapshot, which is never written; --disk %s=NEWFILE elsewhere makes a "
			       "copy", place->then->id);
	return absent ? restore_disks_make_new(disks, place, err) : restore_disks_check_there(disks, place, &found, &st, err);
}

int restore_disks_create(const struct restore_disks_options *options, struct restore_disks **ret, struct err *err)
{
	struct restore_disks *disks = calloc(1, sizeof(*disks));
	int code;

	if (!disks)
		return err_sys(err, -ENOMEM, "disks");
	disks->options = *options;
	code = restore_disks_list(disks, err) ?: restore_disks_check_count(disks, err) ?:
	       restore_disks_check_options(options->config, options->options, err);
	for (size_t i = 0; i < disks->count && !code; i++) {
		code = restore_disks_place(disks, &disks->places[i], err);
		if (code)
			err_prefix(err, code, "disk %s: %.300s", disks->places[i].then->id, disks->places[i].disk->path);
	}
	if (code)
		restore_disks_destroy(disks);
	else
		*ret = disks;
	return code;
}

/* ---- the machine has them ---- */

static const struct place *restore_disks_place_of(const struct restore_disks *disks, const char *id)
{
	for (size_t i = 0; i < disks->count; i++)
		if (strcmp(disks->places[i].then->id, id) == 0)
			return &disks->places[i];
	return NULL;
}

/* Before the lock another machine could have written it. */
static int restore_disks_check_again(const struct restore_disks *disks, struct virtio_device *device, struct err *err)
{
	const struct place *place = restore_disks_place_of(disks, device->id);
	struct virtio_blk_image image;
	int code;

	virtio_blk_image(device, &image);
	if (!place || place->made >= 0 || place->changed ||
	    disk_identity_same(place->then, disks->options.snapshot->state->boot_id, image.fd))
		return 0;
	code = restore_disks_refuse_changed(disks, place, err);
	return err_prefix(err, code, "disk %s: %.300s", device->id, place->disk->path);
}

static int restore_disks_lock_one(const struct restore_disks *disks, struct virtio_device *device, struct err *err)
{
	const struct place *place = restore_disks_place_of(disks, device->id);
	int code = virtio_blk_lock(device, err);
	struct err why;

	if (code != -EBUSY || !place || !err)
		return code ?: restore_disks_check_again(disks, device, err);
	why = *err;
	if (restore_disks_has_copy(disks, place))
		return err_set(err, code, "%s: --disk %s=NEWFILE makes one; only readonly=on from its start lets machines share a "
			       "disk", why.text, device->id);
	return err_set(err, code, "%s, of which this snapshot has no copy (mvmm snapshot --disks reflink|copy keeps one); only "
		       "readonly=on from its start lets machines share a disk", why.text);
}

int restore_disks_lock(const struct restore_disks *disks, struct machine *machine, struct err *err)
{
	int code = 0;

	if (!disks)
		return machine_lock_disks(machine, err);
	for (size_t i = 0; i < machine_virtio_count(machine) && !code; i++) {
		struct virtio_device *device = machine_virtio(machine, i);

		if (device->type == VIRTIO_ID_BLOCK)
			code = restore_disks_lock_one(disks, device, err);
	}
	return code;
}

void restore_disks_keep(struct restore_disks *disks)
{
	for (size_t i = 0; disks && i < disks->count; i++)
		fd_close(&disks->places[i].made);
}

/* Only if it is still the one that was made. */
static void restore_disks_remove(const struct place *place)
{
	struct stat ours, there;

	if (fstat(place->made, &ours) == 0 && fstatat(place->folder, place->name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
		errand_unlinkat(place->folder, place->name, 0);
}

void restore_disks_destroy(struct restore_disks *disks)
{
	if (!disks)
		return;
	for (size_t i = 0; i < disks->count; i++) {
		struct place *place = &disks->places[i];

		if (place->made >= 0)
			restore_disks_remove(place);
		fd_close(&place->made);
		fd_close(&place->folder);
	}
	free(disks);
}
