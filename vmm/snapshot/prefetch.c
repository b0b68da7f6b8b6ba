/* SPDX-License-Identifier: Apache-2.0 */
/* See prefetch.h. */
#include "vmm/snapshot/prefetch.h"

#include "core/pagemap.h"
#include "core/thread.h"
#include "vmm/snapshot/file_copy.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define VERSION 1u
#define MAX_RANGES (1u << 20)
#define NEAR KIB(16) /* reading so much for nothing costs less than another read */
#define SCAN 256     /* ranges found at once */
#define READ_AT_ONCE MIB(8)

struct prefetch_header {
	char magic[8];
	uint32_t version, count;
	uint8_t id[16];
	uint64_t bytes, sum;
};
_Static_assert(sizeof(struct prefetch_header) == 48, "layout");

struct prefetch_entry {
	uint32_t page, pages;
};

static const char magic[8] = {'M', 'V', 'M', 'M', 'P', 'R', 'E', 'F'};

/* ---- the bytes ---- */

/* The sum is the last member of the header, so that it covers two parts: the sum of their sums. */
static uint64_t prefetch_sum(const void *data, size_t len)
{
	const size_t at = offsetof(struct prefetch_header, sum);
	const char *bytes = data;
	uint64_t parts[2] = {
		htole64(snapshot_sum(bytes, at)),
		htole64(snapshot_sum(bytes + sizeof(struct prefetch_header), len - sizeof(struct prefetch_header))),
	};

	return snapshot_sum(parts, sizeof(parts));
}

static int prefetch_check_header(const struct prefetch_header *header, size_t len, const struct snapshot_state *state,
				 struct err *err)
{
	if (memcmp(header->magic, magic, sizeof(magic)) != 0)
		return err_set(err, -EBADMSG, "not a list of pages");
	if (le32toh(header->version) != VERSION)
		return err_set(err, -ENOTSUP, "a list of pages of version %u, but this program reads version %u",
			       le32toh(header->version), VERSION);
	if (memcmp(header->id, state->id, sizeof(header->id)) != 0 || le64toh(header->bytes) != state->memory_bytes)
		return err_set(err, -EBADMSG, "the list of pages of another snapshot");
	if (le32toh(header->count) > MAX_RANGES ||
	    len != sizeof(*header) + le32toh(header->count) * sizeof(struct prefetch_entry))
		return err_set(err, -EBADMSG, "a list of pages of the wrong length");
	return 0;
}

int prefetch_parse(const void *data, size_t len, const struct snapshot_state *state, struct prefetch **ret,
		   struct err *err)
{
	_cleanup_(free_ptr) struct prefetch *prefetch = NULL;
	struct prefetch_header header;
	uint64_t last = 0;
	int code;

	if (len < sizeof(header))
		return err_set(err, -EBADMSG, "not a list of pages");
	memcpy(&header, data, sizeof(header));
	code = prefetch_check_header(&header, len, state, err);
	if (code)
		return code;
	if (le64toh(header.sum) != prefetch_sum(data, len))
		return err_set(err, -EBADMSG, "the list of pages is damaged");
	prefetch = calloc(1, sizeof(*prefetch) + le32toh(header.count) * sizeof(prefetch->ranges[0]));
	if (!prefetch)
		return err_sys(err, -ENOMEM, "list of pages");
	for (size_t i = 0; i < le32toh(header.count); i++) {
		struct prefetch_range *range = &prefetch->ranges[i];
		struct prefetch_entry entry;

		memcpy(&entry, (const char *)data + sizeof(header) + i * sizeof(entry), sizeof(entry));
		range->offset = (uint64_t)le32toh(entry.page) * SNAPSHOT_PAGE;
		range->size = (uint64_t)le32toh(entry.pages) * SNAPSHOT_PAGE;
		if (!range->size || range->offset < last || range->offset > state->memory_bytes ||
		    range->size > state->memory_bytes - range->offset)
			return err_set(err, -EBADMSG, "the list of pages is not in order");
		last = range->offset + range->size;
		prefetch->bytes += range->size;
	}
	prefetch->count = le32toh(header.count);
	*ret = take_ptr(prefetch);
	return 0;
}

static void *prefetch_format(const struct prefetch *prefetch, const struct snapshot_state *state, size_t *len)
{
	struct prefetch_header header = {
		.version = htole32(VERSION), .count = htole32((uint32_t)prefetch->count),
		.bytes = htole64(state->memory_bytes),
	};
	char *data;

	*len = sizeof(header) + prefetch->count * sizeof(struct prefetch_entry);
	data = malloc(*len);
	if (!data)
		return NULL;
	memcpy(header.magic, magic, sizeof(magic));
	memcpy(header.id, state->id, sizeof(header.id));
	memcpy(data, &header, sizeof(header));
	for (size_t i = 0; i < prefetch->count; i++) {
		const struct prefetch_entry entry = {
			htole32((uint32_t)(prefetch->ranges[i].offset / SNAPSHOT_PAGE)),
			htole32((uint32_t)(prefetch->ranges[i].size / SNAPSHOT_PAGE)),
		};

		memcpy(data + sizeof(header) + i * sizeof(entry), &entry, sizeof(entry));
	}
	put_le64(data + offsetof(struct prefetch_header, sum), prefetch_sum(data, *len));
	return data;
}

/* ---- the file ---- */

int prefetch_open(const struct snapshot *snapshot, struct prefetch **ret, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	_cleanup_(free_ptr) char *data = NULL;
	const size_t most = sizeof(struct prefetch_header) + MAX_RANGES * sizeof(struct prefetch_entry);
	struct stat st;
	int code = snapshot_open_part(snapshot, "prefetch", &fd, err);

	if (code)
		return code;
	if (fd < 0)
		return err_set(err, -ENOENT, "%s has no list of the pages that its guest touches first; mvmm snapshot record "
			       "makes one", snapshot->path);
	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "%s/prefetch", snapshot->path);
	if ((uint64_t)st.st_size > most)
		return err_set(err, -EBADMSG, "%s/prefetch: too large", snapshot->path);
	data = malloc((size_t)st.st_size + 1);
	if (!data)
		return err_sys(err, -ENOMEM, "%s/prefetch", snapshot->path);
	if (pread(fd, data, (size_t)st.st_size, 0) != st.st_size)
		return err_set(err, -EBADMSG, "%s/prefetch: it became shorter", snapshot->path);
	code = prefetch_parse(data, (size_t)st.st_size, snapshot->state, ret, err);
	return code ? err_prefix(err, code, "%s/prefetch", snapshot->path) : 0;
}

/* The folder is locked. */
static int prefetch_replace(int folder, const char *data, size_t len)
{
	_cleanup_(fd_close) int fd = -1;
	int code;

	unlinkat(folder, PREFETCH_NEW, 0);
	fd = openat(folder, PREFETCH_NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	code = file_write(fd, data, len, 0);
	if (!code && fsync(fd) < 0)
		code = -errno;
	if (!code && renameat(folder, PREFETCH_NEW, folder, "prefetch") < 0)
		code = -errno;
	if (code)
		unlinkat(folder, PREFETCH_NEW, 0);
	return code;
}

int prefetch_save(const struct snapshot *snapshot, const struct prefetch *prefetch, struct err *err)
{
	_cleanup_(free_ptr) char *data = NULL;
	size_t len;
	int code;

	if (!snapshot->folder)
		return err_set(err, -ENOTSUP, "the list of pages is kept in the snapshot's folder, which two files do not have");
	data = prefetch_format(prefetch, snapshot->state, &len);
	if (!data)
		return err_sys(err, -ENOMEM, "%s/prefetch", snapshot->path);
	if (flock(snapshot->dir_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, -EBUSY, "%s: another process writes to it; try again", snapshot->path);
	code = prefetch_replace(snapshot->dir_fd, data, len);
	flock(snapshot->dir_fd, LOCK_UN);
	return code ? err_sys(err, code, "%s/prefetch", snapshot->path) : 0;
}

/* ---- which pages ---- */

struct prefetch_list {
	struct prefetch *prefetch;
	size_t room;
};

static int prefetch_add(struct prefetch_list *list, uint64_t offset, uint64_t size)
{
	struct prefetch *prefetch = list->prefetch;
	struct prefetch_range *last = prefetch && prefetch->count ? &prefetch->ranges[prefetch->count - 1] : NULL;

	if (last && offset - (last->offset + last->size) <= NEAR) {
		prefetch->bytes += offset + size - (last->offset + last->size);
		last->size = offset + size - last->offset;
		return 0;
	}
	if (!prefetch || prefetch->count == list->room) {
		size_t room = list->room * 2 ?: 256;

		prefetch = realloc(list->prefetch, sizeof(*prefetch) + room * sizeof(prefetch->ranges[0]));
		if (!prefetch)
			return -ENOMEM;
		if (!list->prefetch)
			*prefetch = (struct prefetch){0};
		list->prefetch = prefetch;
		list->room = room;
	}
	prefetch->ranges[prefetch->count++] = (struct prefetch_range){offset, size};
	prefetch->bytes += size;
	return prefetch->count > MAX_RANGES ? -E2BIG : 0;
}

/* The parts of [at, end) of the file that are no holes. */
static int prefetch_add_data(struct prefetch_list *list, int fd, uint64_t at, uint64_t end)
{
	int code = 0;

	while (!code && at < end) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			return 0;
		at = data < 0 ? at : align_down((uint64_t)data, SNAPSHOT_PAGE);
		if (at >= end)
			return 0;
		hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		data = hole < 0 ? (off_t)end : (off_t)MIN(align_up((uint64_t)hole, SNAPSHOT_PAGE), end);
		code = prefetch_add(list, at, (uint64_t)data - at);
		at = (uint64_t)data;
	}
	return code;
}

static int prefetch_scan(struct prefetch_list *list, struct pagemap *map, const struct guest_region *region)
{
	uintptr_t host = (uintptr_t)region->host, at = host, end = host + region->size;
	uint64_t offset = region->base->offset;
	struct pagemap_range ranges[SCAN];
	int code = 0;

	while (!code && at < end) {
		ssize_t n = pagemap_scan(map, PAGEMAP_THERE, &at, end, ranges, SCAN);

		for (ssize_t i = 0; i < n && !code; i++)
			code = prefetch_add_data(list, region->base->fd, offset + (ranges[i].start - host),
						 offset + (ranges[i].end - host));
		code = code ?: n < 0 ? (int)n : 0;
	}
	return code;
}

int prefetch_collect(const struct guest_memory *memory, struct prefetch **ret, struct err *err)
{
	struct prefetch_list list = {0};
	struct pagemap map;
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);
	int code = pagemap_open(&map);

	for (size_t i = 0; i < count && !code; i++)
		code = regions[i].base && regions[i].base->fd >= 0 ? prefetch_scan(&list, &map, &regions[i]) : 0;
	pagemap_close(&map);
	if (!code && !list.prefetch) {
		list.prefetch = calloc(1, sizeof(*list.prefetch));
		code = list.prefetch ? 0 : -ENOMEM;
	}
	if (code) {
		free(list.prefetch);
		return err_sys(err, code, "the pages that were touched");
	}
	*ret = list.prefetch;
	return 0;
}

/* ---- reading ahead ---- */

#define MAX_REGIONS 4 /* RAM has two */

struct prefetch_job {
	struct prefetch *prefetch;
	int fd;
	pthread_t thread;
	bool running; /* it is to be joined */
	size_t next; /* range to ask for; the thread's */
	pthread_mutex_t lock;
	/* under lock */
	bool pausing; /* the thread is to end, and another one goes on */
	bool asked; /* for all */
	struct iovec mapped[MAX_REGIONS];
	size_t mapped_count;
};

/* A fault on a page that is not there yet reads that page alone; the kernel's readahead would get in the way. */
static void prefetch_advise(const struct prefetch_job *job, int advice)
{
	for (size_t i = 0; i < job->mapped_count; i++)
		madvise(job->mapped[i].iov_base, job->mapped[i].iov_len, advice);
}

static bool prefetch_is_pausing(struct prefetch_job *job)
{
	bool pausing;

	pthread_mutex_lock(&job->lock);
	pausing = job->pausing;
	pthread_mutex_unlock(&job->lock);
	return pausing;
}

/* Asking does not wait for the data, and adjacent requests are merged; but it may wait for room in the device's queue,
 * so that a thread does it. */
static void *prefetch_run(void *opaque)
{
	struct prefetch_job *job = opaque;

	for (; job->next < job->prefetch->count && !prefetch_is_pausing(job); job->next++) {
		const struct prefetch_range *range = &job->prefetch->ranges[job->next];

		for (uint64_t at = 0; at < range->size; at += READ_AT_ONCE)
			posix_fadvise(job->fd, (off_t)(range->offset + at), (off_t)MIN(READ_AT_ONCE, range->size - at),
				      POSIX_FADV_WILLNEED);
	}
	pthread_mutex_lock(&job->lock);
	job->asked = job->next == job->prefetch->count;
	if (job->asked)
		prefetch_advise(job, MADV_NORMAL);
	pthread_mutex_unlock(&job->lock);
	return NULL;
}

int prefetch_begin(struct prefetch **prefetch, int fd, struct prefetch_job **ret, struct err *err)
{
	struct prefetch_job *job = calloc(1, sizeof(*job));
	int code;

	if (!job)
		return err_sys(err, -ENOMEM, "prefetch");
	pthread_mutex_init(&job->lock, NULL);
	job->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	job->prefetch = take_ptr(*prefetch);
	code = job->fd < 0 ? -errno : thread_start(&job->thread, THREAD_MEMORY, prefetch_run, job, "prefetch");
	if (code) {
		free(job->prefetch);
		fd_close(&job->fd);
		free(job);
		return err_sys(err, code, "prefetch");
	}
	job->running = true;
	*ret = job;
	return 0;
}

static void prefetch_set_pausing(struct prefetch_job *job, bool pausing)
{
	pthread_mutex_lock(&job->lock);
	job->pausing = pausing;
	pthread_mutex_unlock(&job->lock);
}

int prefetch_renew(struct prefetch_job *job, struct err *err)
{
	int code;

	prefetch_set_pausing(job, true);
	pthread_join(job->thread, NULL);
	prefetch_set_pausing(job, false);
	job->running = false;
	code = job->asked ? 0 : thread_start(&job->thread, THREAD_MEMORY, prefetch_run, job, "prefetch");
	job->running = !job->asked && !code;
	return code ? err_sys(err, code, "prefetch") : 0;
}

void prefetch_map(struct prefetch_job *job, const struct guest_memory *memory)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);

	pthread_mutex_lock(&job->lock);
	for (size_t i = 0; i < count && i < MAX_REGIONS && !job->asked; i++)
		job->mapped[job->mapped_count++] = (struct iovec){regions[i].host, regions[i].size};
	if (!job->asked)
		prefetch_advise(job, MADV_RANDOM);
	pthread_mutex_unlock(&job->lock);
}

void prefetch_end(struct prefetch_job *job)
{
	if (!job)
		return;
	if (job->running)
		pthread_join(job->thread, NULL);
	pthread_mutex_destroy(&job->lock);
	free(job->prefetch);
	fd_close(&job->fd);
	free(job);
}
