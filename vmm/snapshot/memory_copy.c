/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See memory_copy.h. Threads take pieces of 2 MiB, one checksum each, from a common counter. They are more than two even
 * on a small host: reads from storage wait, and several in flight are faster.
 */
#include "vmm/snapshot/memory_copy.h"

#include "core/crew.h"
#include "core/monotonic.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#define PIECE SNAPSHOT_SUM_BYTES
#define AHEAD (16 * PIECE) /* the kernel reads so far ahead of the pieces */
#define MIN_THREADS 4
#define MAX_THREADS 16

struct copying {
	const struct memory_copy *copy;
	char *host;
	uint64_t size;
	uint64_t next, done; /* bytes; atomic */
	uint64_t zeros;      /* the sum of a whole piece of zeros */
	struct crew *crew;
};

static int memory_copy_read(const struct copying *job, uint64_t at, uint64_t end, struct err *err)
{
	while (at < end) {
		ssize_t n = pread(job->copy->fd, job->host + at, end - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "%s", job->copy->what);
		if (n == 0)
			return err_set(err, -EBADMSG, "%s became shorter", job->copy->what);
		at += (uint64_t)n;
	}
	return 0;
}

/* Reads the parts of a piece that are no holes; *any: there are some. File systems without holes have only data. */
static int memory_copy_read_data(const struct copying *job, uint64_t at, uint64_t end, bool *any, struct err *err)
{
	int code = 0;

	while (!code && at < end) {
		off_t data = lseek(job->copy->fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			return 0;
		at = data < 0 ? at : (uint64_t)data;
		if (at >= end)
			return 0;
		*any = true;
		hole = data < 0 ? -1 : lseek(job->copy->fd, data, SEEK_HOLE);
		code = memory_copy_read(job, at, hole < 0 ? end : MIN((uint64_t)hole, end), err);
		at = hole < 0 ? end : (uint64_t)hole;
	}
	return code;
}

static uint64_t memory_copy_sum(const struct memory_copy *copy, uint64_t piece)
{
	uint64_t sum;

	memcpy(&sum, (const char *)copy->sums.data + piece * sizeof(sum), sizeof(sum));
	return le64toh(sum);
}

static int memory_copy_piece(const struct copying *job, uint64_t at, struct err *err)
{
	uint64_t end = MIN(at + PIECE, job->size);
	bool any = false;
	int code;

	posix_fadvise(job->copy->fd, (off_t)(at + AHEAD), (off_t)PIECE, POSIX_FADV_WILLNEED);
	code = memory_copy_read_data(job, at, end, &any, err);
	if (code)
		return code;
	if (memory_copy_sum(job->copy, at / PIECE) ==
	    (any || end - at != PIECE ? snapshot_sum(job->host + at, end - at) : job->zeros))
		return 0;
	return err_set(err, -EBADMSG, "%s is damaged: the bytes from 0x%llx to 0x%llx are not those that were written; "
		       "restore another snapshot", job->copy->what, (unsigned long long)at,
		       (unsigned long long)end - 1);
}

static int memory_copy_work(void *opaque, unsigned int index, struct err *err)
{
	struct copying *job = opaque;
	int code = 0;

	while (!code && !crew_broken(job->crew)) {
		uint64_t at = __atomic_fetch_add(&job->next, PIECE, __ATOMIC_RELAXED);

		if (at >= job->size)
			break;
		code = memory_copy_piece(job, at, err);
		__atomic_fetch_add(&job->done, MIN(PIECE, job->size - at), __ATOMIC_RELAXED);
	}
	return code;
}

static int memory_copy_run(struct copying *job, struct err *err)
{
	static const struct crew_ops ops = {.work = memory_copy_work};
	uint64_t pieces = (job->size + PIECE - 1) / PIECE;
	int64_t begun = monotonic_ms();
	cpu_set_t cpus;
	int threads = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1, code;

	threads = MIN(MAX(threads, MIN_THREADS), MAX_THREADS);
	code = crew_create(&ops, job, (unsigned int)MIN((uint64_t)threads, pieces), THREAD_MEMORY, "copy", &job->crew, err);
	for (int seconds = 1; !code && !crew_wait(job->crew, job->copy->cancel_fd, begun + seconds * 1000); seconds++) {
		double done = (double)__atomic_load_n(&job->done, __ATOMIC_RELAXED) / (double)GIB(1);

		log_info(job->copy->log, "copy %s: %.1f of %.1f GiB, %.1f GiB/s", job->copy->what, done,
			 (double)job->size / (double)GIB(1), done / seconds);
	}
	code = code ?: crew_result(job->crew, err);
	crew_destroy(job->crew);
	return code;
}

int memory_copy_fill(void *opaque, void *host, uint64_t size, struct err *err)
{
	const struct memory_copy *copy = opaque;
	struct copying job = {.copy = copy, .host = host, .size = size};
	_cleanup_(free_ptr) void *zeros = calloc(1, PIECE);
	struct stat st;

	if (!zeros)
		return err_sys(err, -ENOMEM, "%s", copy->what);
	if (fstat(copy->fd, &st) < 0)
		return err_sys(err, -errno, "%s", copy->what);
	if ((uint64_t)st.st_size != size || copy->sums.len != snapshot_sums_len(size))
		return err_set(err, -EBADMSG, "%s has %llu bytes, but the machine has %llu bytes of memory", copy->what,
			       (unsigned long long)st.st_size, (unsigned long long)size);
	job.zeros = snapshot_sum(zeros, PIECE);
	return memory_copy_run(&job, err);
}
