/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loaded into QEMU before its libraries (LD_PRELOAD) by `tests/testhost/enter --slow-clock N`: of N seconds that pass, the
 * monotonic clock, which all of QEMU's timers follow, counts one. N is in MVMM_SLOW_CLOCK. Where QEMU hands a time to the C
 * library to wait for, it is made longer again. The time-stamp counter is not slowed; the emulated kernel is told that it is N
 * times as fast.
 */
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define SECOND 1000000000ll

static int64_t slow = 1, begun;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*real_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static int64_t in_ns(const struct timespec *time)
{
	return time->tv_sec * SECOND + time->tv_nsec;
}

static struct timespec from_ns(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / SECOND, .tv_nsec = ns % SECOND };
}

/* What is slow already from `from` on, at the pace of the world. One that is not expected to come does not. */
static struct timespec stretched(const struct timespec *time, int64_t from)
{
	int64_t ns;

	if (__builtin_mul_overflow(time->tv_sec, SECOND, &ns) || __builtin_add_overflow(ns, time->tv_nsec - from, &ns) ||
	    __builtin_mul_overflow(ns, slow, &ns) || __builtin_add_overflow(ns, from, &ns))
		ns = INT64_MAX;
	return from_ns(ns);
}

/* Other libraries begin before this one and read the clock, so whoever comes first begins. */
static void begin(void)
{
	struct timespec now;
	const char *word = getenv("MVMM_SLOW_CLOCK");

	real_ppoll = dlsym(RTLD_NEXT, "ppoll");
	real_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
	real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	real_gettime(CLOCK_MONOTONIC, &now);
	begun = in_ns(&now);
	if (word && atoi(word) > 1)
		slow = atoi(word);
}

static void begin_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, begin);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	begin_once();
	int status = real_gettime(clock, time);
	if (!status && clock == CLOCK_MONOTONIC)
		*time = from_ns(begun + (in_ns(time) - begun) / slow);
	return status;
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	begin_once();
	struct timespec longer;
	if (timeout) {
		longer = stretched(timeout, 0);
		timeout = &longer;
	}
	return real_ppoll(fds, count, timeout, mask);
}

/* QEMU's conditions are waited for until a point on the monotonic clock. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *end)
{
	begin_once();
	struct timespec later = stretched(end, begun);
	return real_timedwait(condition, mutex, &later);
}
