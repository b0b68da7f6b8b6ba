/* SPDX-License-Identifier: Apache-2.0 */
/* See session_record.h. */
#include "vmm/session/session_record.h"

#include "core/beneath.h"
#include "core/monotonic.h"
#include "vmm/session/session.h"
#include "vmm/snapshot/file_copy.h"
#include "vmm/snapshot/prefetch.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>

struct session_record {
	struct session_record_options options;
	uint64_t begun;
	int pipe[2];
	struct event_source *watch, *timer;
	bool wrote, over; /* the guest wrote; or the time has passed */
	int disks[MACHINE_MAX_PCI_DEVICES];
	size_t disk_count;
};

int session_record_create(const struct session_record_options *options, struct session_record **ret, struct err *err)
{
	struct session_record *record = calloc(1, sizeof(*record));

	if (!record)
		return err_sys(err, -ENOMEM, "record");
	*record = (struct session_record){.options = *options, .pipe = {-1, -1}};
	if (pipe2(record->pipe, O_CLOEXEC | O_NONBLOCK) < 0) {
		int code = -errno;

		free(record);
		return err_sys(err, code, "record");
	}
	posix_fadvise(options->snapshot->memory_fd, 0, 0, POSIX_FADV_DONTNEED);
	*ret = record;
	return 0;
}

void session_record_leave(struct session_record *record)
{
	if (!record)
		return;
	event_source_remove(take_ptr(record->watch));
	event_source_remove(take_ptr(record->timer));
}

void session_record_destroy(struct session_record *record)
{
	if (!record)
		return;
	fd_close(&record->pipe[0]);
	fd_close(&record->pipe[1]);
	for (size_t i = 0; i < record->disk_count; i++)
		fd_close(&record->disks[i]);
	free(record);
}

const int *session_record_out(const struct session_record *record)
{
	return &record->pipe[1];
}

/* ---- disks ---- */

/* A file without a name in the folder, with the blocks of from; or -errno. */
static int session_record_clone(int from, int folder)
{
	_cleanup_(fd_close) int fd = openat(folder, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	int code = fd < 0 ? -errno : file_copy_reflink(from, fd);

	return code ?: take_fd(&fd);
}

/* Of the disk as the snapshot has it, or else as it is now. */
static int session_record_clone_disk(const struct session_record *record, const struct disk_config *disk)
{
	const struct snapshot *snapshot = record->options.snapshot;
	_cleanup_(fd_close) int from = -1, folder = -1;
	char part[MACHINE_MAX_NAME + 8];
	const char *name;

	snprintf(part, sizeof(part), "disks/%s", disk->id);
	if (snapshot_open_part(snapshot, part, &from, NULL) == 0 && from >= 0)
		return session_record_clone(from, snapshot->dir_fd);
	from = open(disk->path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return -errno;
	folder = beneath_open_folder(NULL, disk->path, &name);
	return folder < 0 ? folder : session_record_clone(from, folder);
}

static int session_record_replace_disk(struct session_record *record, struct disk_config *disk, struct err *err)
{
	int fd = record->disk_count < ARRAY_SIZE(record->disks) ? session_record_clone_disk(record, disk) : -ENOSPC;
	char *path = NULL;

	if (fd < 0)
		return err_set(err, -ENOTSUP, "disk %s: the guest would write to %.200s, of which no copy can be made that "
			       "shares its blocks (%s); name a copy of it with --disk %s=PATH", disk->id, disk->path,
			       strerrordesc_np(-fd), disk->id);
	record->disks[record->disk_count++] = fd;
	if (asprintf(&path, "/proc/self/fd/%d", fd) < 0)
		return err_sys(err, -ENOMEM, "disk %s", disk->id);
	free(disk->path);
	disk->path = path;
	return 0;
}

int session_record_set_disks(struct session_record *record, const struct arrival_options *here,
			     struct machine_config *config, struct err *err)
{
	int code = 0;

	for (size_t i = 0; i < config->disk_count && !code; i++)
		if (!config->disks[i].readonly && !arrival_override_find(here->disks, here->disk_count, config->disks[i].id))
			code = session_record_replace_disk(record, &config->disks[i], err);
	return code;
}

/* ---- until it is ready ---- */

static void session_record_on_byte(void *opaque, uint32_t events)
{
	struct session_record *record = opaque;

	record->wrote = true;
	event_source_set(record->watch, 0);
	record->options.stop(record->options.opaque);
}

static void session_record_on_timer(void *opaque, uint32_t events)
{
	struct session_record *record = opaque;

	record->over = true;
	record->options.stop(record->options.opaque);
}

/* Each fault is to read one page, and not its neighbours. */
static void session_record_advise(const struct guest_memory *memory)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);

	for (size_t i = 0; i < count; i++)
		madvise(regions[i].host, regions[i].size, MADV_RANDOM);
}

int session_record_start(struct session_record *record, const struct guest_memory *memory, struct err *err)
{
	struct event_loop *loop = record->options.loop;
	int code = event_loop_watch(loop, record->pipe[0], EPOLLIN, session_record_on_byte, record, &record->watch, err);

	code = code ?: event_loop_timer(loop, session_record_on_timer, record, &record->timer, err);
	if (code)
		return err_prefix(err, code, "record");
	session_record_advise(memory);
	event_timer_set(record->timer, record->options.until_ns, 0);
	record->begun = monotonic_ns();
	return 0;
}

int session_record_save(struct session_record *record, const struct guest_memory *memory, struct err *err)
{
	double seconds = (double)(monotonic_ns() - record->begun) / 1e9;
	_cleanup_(free_ptr) struct prefetch *prefetch = NULL;
	int code;

	if (!record->wrote && !record->over)
		return err_set(err, -ECANCELED, "the machine ended before its guest was ready; nothing was recorded");
	code = prefetch_collect(memory, &prefetch, err);
	code = code ?: prefetch_save(record->options.snapshot, prefetch, err);
	if (code)
		return code;
	log_info(record->options.log, "%s: %.1f MiB in %zu parts are read ahead from now on with --memory-mode prefetch; "
		 "the guest %s after %.2f s", record->options.snapshot->path, (double)prefetch->bytes / (double)MIB(1),
		 prefetch->count, record->wrote ? "wrote its first byte" : "has written nothing to its ports", seconds);
	return 0;
}
