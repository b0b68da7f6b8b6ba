/* SPDX-License-Identifier: Apache-2.0 */
/* See prefault.h. Threads take chunks from a common counter, so that none waits for a slow one. */
#include "core/prefault.h"

#include "core/crew.h"
#include "core/monotonic.h"

#include <sched.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE 4096u /* of the host */
#define CHUNK MIB(64)
#define MAX_THREADS 32u
#define SAMPLES 8u

struct prefault {
	const char *what;
	const struct log *log;
	int64_t begun; /* in ms of monotonic_ms */
	char *host;
	uint64_t size;
	uint64_t next; /* offset of the next chunk; atomic */
	uint64_t done; /* bytes; atomic */
	uint64_t *told; /* the caller's count of them, or NULL; atomic */
	struct crew *crew;
};

/* Kernels before 5.14 lack MADV_POPULATE_WRITE: write a byte of each page without changing it. */
static int prefault_populate(char *host, uint64_t size)
{
	if (madvise(host, size, MADV_POPULATE_WRITE) == 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	for (uint64_t at = 0; at < size; at += PAGE)
		__atomic_fetch_or(host + at, 0, __ATOMIC_RELAXED);
	return 0;
}

bool prefault_seems_done(void *host, uint64_t size)
{
	char *first = host;
	unsigned char there = 1;

	for (uint64_t i = 0; i < SAMPLES && there & 1; i++) {
		uint64_t at = i * ((size - 1) / (SAMPLES - 1)); /* the last sample is in or near the last page */

		if (mincore(first + align_down(at, PAGE), PAGE, &there) < 0)
			return false;
	}
	return there & 1;
}

/* Chunks that were not taken when the crew is broken off stay as they are. */
static int prefault_work(void *opaque, unsigned int index, struct err *err)
{
	struct prefault *job = opaque;
	int code = 0;

	while (!code && !crew_broken(job->crew)) {
		uint64_t at = __atomic_fetch_add(&job->next, CHUNK, __ATOMIC_RELAXED), len;

		if (at >= job->size)
			break;
		len = MIN(CHUNK, job->size - at);
		code = prefault_populate(job->host + at, len);
		__atomic_fetch_add(&job->done, len, __ATOMIC_RELAXED);
		if (job->told)
			__atomic_fetch_add(job->told, len, __ATOMIC_RELAXED);
	}
	return code ? err_sys(err, code, "%s: %.1f GiB", job->what, (double)job->size / (double)GIB(1)) : 0;
}

static unsigned int prefault_thread_count(uint64_t size)
{
	uint64_t chunks = (size + CHUNK - 1) / CHUNK;
	cpu_set_t cpus;
	int usable = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

	return (unsigned int)MIN(MIN(chunks, (uint64_t)usable), (uint64_t)MAX_THREADS);
}

/* Waits for the workers; logs a line each second. */
static void prefault_wait_done(struct prefault *job, int cancel_fd)
{
	for (int seconds = 1; !crew_wait(job->crew, cancel_fd, job->begun + seconds * 1000); seconds++) {
		double done = (double)__atomic_load_n(&job->done, __ATOMIC_RELAXED) / (double)GIB(1);

		log_info(job->log, "%s: %.1f of %.1f GiB, %.1f GiB/s", job->what, done,
			 (double)job->size / (double)GIB(1), done / seconds);
	}
}

/* Halves the number of threads until the kernel allows them. */
static int prefault_start(struct prefault *job, struct err *err)
{
	static const struct crew_ops ops = {.work = prefault_work};
	unsigned int threads = prefault_thread_count(job->size);
	int code;

	do {
		code = crew_create(&ops, job, threads, THREAD_MEMORY, "prefault", &job->crew, err);
		threads /= 2;
	} while (code == -EAGAIN && threads);
	return code ? err_prefix(err, code, "%s", job->what) : 0;
}

int prefault_begin(void *host, uint64_t size, const char *what, const struct log *log, uint64_t *done,
		   struct prefault **ret, struct err *err)
{
	struct prefault *job = calloc(1, sizeof(*job));
	int code;

	if (!job)
		return err_sys(err, -ENOMEM, "%s", what);
	job->what = what;
	job->log = log;
	job->told = done;
	job->host = host;
	job->size = size;
	job->begun = monotonic_ms();
	code = prefault_start(job, err);
	if (code) {
		free(job);
		return code;
	}
	*ret = job;
	return 0;
}

int prefault_end(struct prefault *job, bool wait, int cancel_fd, struct err *err)
{
	int code;

	if (!job)
		return 0;
	if (!wait)
		crew_fail(job->crew, -ECANCELED, &(struct err){"given up"});
	prefault_wait_done(job, cancel_fd);
	code = crew_result(job->crew, err);
	crew_destroy(job->crew);
	free(job);
	return !wait && code == -ECANCELED ? 0 : code;
}

int prefault(void *host, uint64_t size, const char *what, const struct log *log, struct err *err)
{
	struct prefault *job = NULL;
	int ret = prefault_begin(host, size, what, log, NULL, &job, err);

	return ret < 0 ? ret : prefault_end(job, true, -1, err);
}
