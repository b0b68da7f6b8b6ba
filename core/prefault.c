/* SPDX-License-Identifier: Apache-2.0 */
/* See prefault.h. Threads take chunks from a common counter, so that a slow one does not hold up the rest. */
#include "core/prefault.h"

#include "core/thread.h"

#include <sched.h>
#include <sys/mman.h>
#include <time.h>

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
	struct timespec begun;
	char *host;
	uint64_t size;
	uint64_t next; /* taken so far */
	uint64_t done;
	int error;     /* the first one, -errno */
	bool given_up; /* what is not taken yet stays as it is */
	unsigned int threads, running;
	pthread_t ids[MAX_THREADS];
	pthread_mutex_t lock;
	pthread_cond_t progress;
};

/* Kernels before 5.14 lack MADV_POPULATE_WRITE: write each page's own value back to it. */
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
		uint64_t at = i * ((size - 1) / (SAMPLES - 1)); /* the last one is in the last page, or close to it */

		if (mincore(first + align_down(at, PAGE), PAGE, &there) < 0)
			return false;
	}
	return there & 1;
}

static void *prefault_work(void *opaque)
{
	struct prefault *job = opaque;

	pthread_mutex_lock(&job->lock);
	while (job->next < job->size && !job->error && !job->given_up) {
		uint64_t at = job->next, len = MIN(CHUNK, job->size - at);
		int ret;

		job->next += len;
		pthread_mutex_unlock(&job->lock);
		ret = prefault_populate(job->host + at, len);
		pthread_mutex_lock(&job->lock);
		job->done += len;
		if (ret < 0 && !job->error)
			job->error = ret;
	}
	job->running--;
	pthread_cond_signal(&job->progress);
	pthread_mutex_unlock(&job->lock);
	return NULL;
}

static unsigned int prefault_thread_count(uint64_t size)
{
	uint64_t chunks = (size + CHUNK - 1) / CHUNK;
	cpu_set_t cpus;
	int usable = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

	return (unsigned int)MIN(MIN(chunks, (uint64_t)usable), (uint64_t)MAX_THREADS);
}

/* Waits for the workers, with a line each second. Lock held. */
static void prefault_wait_done(struct prefault *job)
{
	struct timespec tick = job->begun;
	unsigned int seconds = 0;

	tick.tv_sec++;
	while (job->running) {
		if (pthread_cond_timedwait(&job->progress, &job->lock, &tick) != ETIMEDOUT)
			continue;
		tick.tv_sec++;
		seconds++;
		log_info(job->log, "%s: %.1f of %.1f GiB, %.1f GiB/s", job->what, (double)job->done / (double)GIB(1),
			 (double)job->size / (double)GIB(1), (double)job->done / (double)GIB(1) / seconds);
	}
}

static void prefault_job_destroy(struct prefault *job)
{
	for (unsigned int i = 0; i < job->threads; i++)
		pthread_join(job->ids[i], NULL);
	pthread_cond_destroy(&job->progress);
	pthread_mutex_destroy(&job->lock);
	free(job);
}

/* All of them wait for the lock until the last one is there: what they do keeps a new thread's stack from being mapped. */
static void prefault_start_threads(struct prefault *job)
{
	unsigned int wanted = prefault_thread_count(job->size);
	sigset_t all, old;

	thread_signals(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_mutex_lock(&job->lock);
	while (job->threads < wanted && pthread_create(&job->ids[job->threads], NULL, prefault_work, job) == 0)
		job->threads++;
	job->running = job->threads;
	pthread_mutex_unlock(&job->lock);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int prefault_begin(void *host, uint64_t size, const char *what, const struct log *log, struct prefault **ret,
		   struct err *err)
{
	struct prefault *job = calloc(1, sizeof(*job));

	if (!job)
		return err_sys(err, -ENOMEM, "%s", what);
	job->what = what;
	job->log = log;
	job->host = host;
	job->size = size;
	clock_gettime(CLOCK_MONOTONIC, &job->begun);
	pthread_mutex_init(&job->lock, NULL);
	thread_cond_init(&job->progress);
	prefault_start_threads(job);
	if (!job->threads && size) {
		prefault_job_destroy(job);
		return err_set(err, -EAGAIN, "%s: no thread can be started", what);
	}
	*ret = job;
	return 0;
}

int prefault_end(struct prefault *job, bool wait, struct err *err)
{
	int ret;

	if (!job)
		return 0;
	pthread_mutex_lock(&job->lock);
	job->given_up = !wait;
	prefault_wait_done(job);
	pthread_mutex_unlock(&job->lock);
	ret = job->error ? err_sys(err, job->error, "%s: %.1f GiB", job->what, (double)job->size / (double)GIB(1)) : 0;
	prefault_job_destroy(job);
	return ret;
}

int prefault(void *host, uint64_t size, const char *what, const struct log *log, struct err *err)
{
	struct prefault *job = NULL;
	int ret = prefault_begin(host, size, what, log, &job, err);

	return ret < 0 ? ret : prefault_end(job, true, err);
}
