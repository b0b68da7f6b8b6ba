/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See memory_guard.h. A write is seen by inotify, or, by way of a shared mapping, by the file's time and size when it is
 * closed. If there is no watch (a user may have 128), the file is looked at every second.
 */
#include "vmm/snapshot/memory_guard.h"

#include "core/thread.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define LOOK_MS 1000u
#define LAST_SECONDS 1 /* that the loop's thread has to end the process, before the thread that cannot go on does */
#define MAX_RANGES 4 /* RAM has two regions */
#define LINE (PATH_MAX + 200)

/* For the signal's handler. */
static struct {
	struct {
		uintptr_t start, size;
	} ranges[MAX_RANGES];
	size_t count; /* 0: not armed */
	int log_fd, exit_code;
	pthread_t loop_thread;
	void (*dying)(void *opaque);
	void *opaque;
	bool told; /* atomic: the line was logged, or is about to be */
	bool dead; /* atomic: a thread that cannot go on has asked the loop's thread to end the process */
	char line[LINE];
	size_t line_len;
	struct sigaction old;
} armed;

struct memory_guard {
	struct memory_guard_options options;
	char what[PATH_MAX];
	struct stat found;
	int inotify_fd;
	struct event_source *watch, *timer;
};

/* ---- SIGBUS ---- */

static bool memory_guard_covers(uintptr_t address)
{
	for (size_t i = 0; i < armed.count; i++)
		if (address - armed.ranges[i].start < armed.ranges[i].size)
			return true;
	return false;
}

/*
 * The handler that was there before restores the terminal; the signal that it raises then is blocked here.
 */
static _Noreturn void memory_guard_end(int signal)
{
	if (armed.dying)
		armed.dying(armed.opaque);
	if (!(armed.old.sa_flags & SA_SIGINFO) && armed.old.sa_handler != SIG_DFL && armed.old.sa_handler != SIG_IGN)
		armed.old.sa_handler(signal);
	_exit(armed.exit_code);
}

/* This thread cannot go on, and the process not without it. What is left to do is for the loop's thread, if it can. */
static _Noreturn void memory_guard_die(int signal)
{
	static const struct timespec last = {.tv_sec = LAST_SECONDS};
	static const uint32_t nobody_wakes = 0;

	if (!__atomic_exchange_n(&armed.told, true, __ATOMIC_ACQ_REL) && write(armed.log_fd, armed.line, armed.line_len) < 0) {
		/* Nobody reads it. */
	}
	if (!pthread_equal(pthread_self(), armed.loop_thread)) {
		__atomic_store_n(&armed.dead, true, __ATOMIC_RELEASE);
		pthread_kill(armed.loop_thread, signal);
		syscall(SYS_futex, &nobody_wakes, FUTEX_WAIT_PRIVATE, 0, &last);
	}
	memory_guard_end(signal);
}

/* Another address: as if this handler were not there. The access is repeated and raises the signal again. */
static void memory_guard_on_sigbus(int signal, siginfo_t *info, void *context)
{
	if (info->si_code == SI_TKILL && __atomic_load_n(&armed.dead, __ATOMIC_ACQUIRE))
		memory_guard_end(signal);
	if (memory_guard_covers((uintptr_t)info->si_addr))
		memory_guard_die(signal);
	sigaction(SIGBUS, &armed.old, NULL);
}

static void memory_guard_arm(const struct memory_guard *guard, const struct guest_memory *memory)
{
	struct sigaction action = {.sa_sigaction = memory_guard_on_sigbus, .sa_flags = SA_SIGINFO};
	const struct log *log = guard->options.log;
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);

	armed.log_fd = log ? log->fd : STDERR_FILENO;
	armed.exit_code = guard->options.exit_code;
	armed.loop_thread = pthread_self();
	armed.dying = guard->options.dying;
	armed.opaque = guard->options.opaque;
	armed.line_len = (size_t)snprintf(armed.line, sizeof(armed.line),
					  "%s%s: the guest's memory cannot be read any more; the machine ends\n",
					  log && log->prefix ? log->prefix : "", guard->what);
	armed.line_len = MIN(armed.line_len, sizeof(armed.line) - 1);
	for (size_t i = 0; i < count && i < MAX_RANGES; i++) {
		armed.ranges[i].start = (uintptr_t)regions[i].host;
		armed.ranges[i].size = regions[i].size;
	}
	sigaction(SIGBUS, NULL, &armed.old);
	armed.count = MIN(count, (size_t)MAX_RANGES);
	sigaction(SIGBUS, &action, NULL);
}

static void memory_guard_disarm(void)
{
	struct sigaction found;

	if (!armed.count)
		return;
	if (sigaction(SIGBUS, NULL, &found) == 0 && found.sa_flags & SA_SIGINFO &&
	    found.sa_sigaction == memory_guard_on_sigbus)
		sigaction(SIGBUS, &armed.old, NULL);
	armed.count = 0;
}

/* ---- the end ---- */

void memory_guard_lose(struct memory_guard *guard, const char *fmt, ...)
{
	char reason[LINE];
	va_list args;

	if (__atomic_exchange_n(&armed.told, true, __ATOMIC_ACQ_REL))
		return;
	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	log_error(guard->options.log, "%s; the machine ends", reason);
	guard->options.lost(guard->options.opaque);
}

/* ---- the file ---- */

/* Whether somebody has changed it; if so, the memory is lost. */
static bool memory_guard_look(struct memory_guard *guard)
{
	const struct stat *found = &guard->found;
	struct stat now;

	if (guard->options.fd < 0)
		return false;
	if (fstat(guard->options.fd, &now) < 0)
		memory_guard_lose(guard, "%s: %s, while this machine's memory is mapped from it", guard->what,
				  strerrordesc_np(errno));
	else if (now.st_size != found->st_size)
		memory_guard_lose(guard, "%s was %s while this machine's memory is mapped from it", guard->what,
				  now.st_size < found->st_size ? "truncated" : "extended");
	else if (now.st_mtim.tv_sec != found->st_mtim.tv_sec || now.st_mtim.tv_nsec != found->st_mtim.tv_nsec)
		memory_guard_lose(guard, "%s was written to while this machine's memory is mapped from it",
				  guard->what);
	else
		return false;
	return true;
}

bool memory_guard_ask(struct memory_guard *guard, bool fault)
{
	if (__atomic_load_n(&armed.told, __ATOMIC_ACQUIRE) || memory_guard_look(guard))
		return true;
	if (fault)
		memory_guard_lose(guard, "%s: the guest's memory cannot be read any more", guard->what);
	return fault;
}

/* Two writes within a tick of the kernel's clock leave the same time, so the event itself counts. */
static void memory_guard_on_event(void *opaque, uint32_t events)
{
	struct memory_guard *guard = opaque;
	_Alignas(struct inotify_event) char buffer[4096];
	ssize_t len = read(guard->inotify_fd, buffer, sizeof(buffer));
	bool written = false;

	for (ssize_t at = 0; at < len;) {
		const struct inotify_event *event = (const struct inotify_event *)(buffer + at);

		written |= event->mask & IN_MODIFY;
		at += (ssize_t)sizeof(*event) + event->len;
	}
	if (!memory_guard_look(guard) && written)
		memory_guard_lose(guard, "%s was written to while this machine's memory is mapped from it",
				  guard->what);
}

/* By way of the descriptor: the path may lead elsewhere by now. */
static int memory_guard_watch(void *opaque)
{
	struct memory_guard *guard = opaque;
	_cleanup_(fd_close) int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char path[64];
	int ret;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", guard->options.fd);
	if (fd < 0 || inotify_add_watch(fd, path, IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE) < 0)
		return -errno;
	ret = event_loop_watch(guard->options.loop, fd, EPOLLIN, memory_guard_on_event, guard, &guard->watch, NULL);
	if (ret == 0)
		guard->inotify_fd = take_fd(&fd);
	return ret;
}

/* Once with a watch, and again and again without one. */
static void memory_guard_on_timer(void *opaque, uint32_t events)
{
	struct memory_guard *guard = opaque;

	if (thread_call(memory_guard_watch, guard) == 0)
		event_timer_set(guard->timer, 0, 0);
	else
		event_timer_set(guard->timer, (guard->options.look_ms ?: LOOK_MS) * 1000000ull, 0);
	if (memory_guard_look(guard))
		event_timer_set(guard->timer, 0, 0);
}

int memory_guard_create(const struct memory_guard_options *options, struct memory_guard **ret, struct err *err)
{
	struct memory_guard *guard = calloc(1, sizeof(*guard));

	if (!guard)
		return err_sys(err, -ENOMEM, "memory");
	guard->options = *options;
	guard->inotify_fd = -1;
	snprintf(guard->what, sizeof(guard->what), "%s", options->what);
	if (options->fd >= 0 && fstat(options->fd, &guard->found) < 0) {
		int code = -errno;

		free(guard);
		return err_sys(err, code, "%s", options->what);
	}
	__atomic_store_n(&armed.told, false, __ATOMIC_RELEASE);
	*ret = guard;
	return 0;
}

int memory_guard_start(struct memory_guard *guard, const struct guest_memory *memory, struct err *err)
{
	int ret = guard->options.fd >= 0 ? event_loop_timer(guard->options.loop, memory_guard_on_timer, guard,
							    &guard->timer, err) : 0;

	if (ret < 0)
		return ret;
	if (guard->timer)
		event_timer_set(guard->timer, (guard->options.look_ms ?: LOOK_MS) * 1000000ull, 0);
	memory_guard_arm(guard, memory);
	return 0;
}

void memory_guard_destroy(struct memory_guard *guard)
{
	if (!guard)
		return;
	memory_guard_disarm();
	event_source_remove(guard->watch);
	event_source_remove(guard->timer);
	fd_close(&guard->inotify_fd);
	free(guard);
}
