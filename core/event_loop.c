/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See event_loop.h.
 *
 * A source that is removed while a batch of events is processed stays allocated, marked dead, until the end of the
 * batch: epoll may have reported it already. Calls from other threads are a list and an eventfd. A source that rests
 * has no events in epoll until the time is over.
 */
#include "core/event_loop.h"

#include "core/irq.h"
#include "core/monotonic.h"
#include "core/thread.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#define BATCH 16

struct event_source {
	struct event_loop *loop;
	int fd;
	bool timer; /* fd is a timerfd of ours */
	bool dead;
	uint32_t events;  /* that are watched */
	int64_t rests;    /* until this time of monotonic_ms(); 0: it does not. Under the loop's lock */
	event_fn *fn;
	void *opaque;
	struct event_source *next; /* all of the loop's */
};

struct call {
	void (*fn)(void *opaque);
	void *opaque;
	bool done;
	struct call *next;
};

struct event_loop {
	int epoll_fd, wake_fd;
	bool stop;
	pthread_mutex_t lock;
	pthread_cond_t called;
	/* under lock */
	struct event_source *sources;
	struct call *calls;
	bool running;
	bool buried; /* some source is dead */
	bool rests;  /* some source does */
	pthread_t runner;
	bool has_thread;
	pthread_t thread;
};

int event_loop_create(struct event_loop **ret, struct err *err)
{
	struct event_loop *loop = calloc(1, sizeof(*loop));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	int code;

	if (!loop)
		return err_sys(err, -ENOMEM, "event loop");
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
		code = -errno;
		fd_close(&loop->epoll_fd);
		fd_close(&loop->wake_fd);
		free(loop);
		return err_sys(err, code, "event loop");
	}
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->called, NULL);
	*ret = loop;
	return 0;
}

static void event_loop_free_source(struct event_source *source)
{
	if (source->timer)
		fd_close(&source->fd);
	free(source);
}

/* Frees the dead sources. Lock held, on the loop's thread between callbacks. */
static void event_loop_bury(struct event_loop *loop)
{
	struct event_source **link = &loop->sources;

	while (*link) {
		struct event_source *source = *link;

		if (!source->dead) {
			link = &source->next;
			continue;
		}
		*link = source->next;
		event_loop_free_source(source);
	}
	loop->buried = false;
}

void event_loop_destroy(struct event_loop *loop)
{
	if (!loop)
		return;
	if (loop->has_thread) {
		event_loop_stop(loop);
		pthread_join(loop->thread, NULL);
	}
	for (struct event_source *source = loop->sources, *next; source; source = next) {
		next = source->next;
		event_loop_free_source(source);
	}
	fd_close(&loop->epoll_fd);
	fd_close(&loop->wake_fd);
	pthread_cond_destroy(&loop->called);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

/* Runs the calls of other threads. Lock held; released around each call. */
static void event_loop_run_calls(struct event_loop *loop)
{
	while (loop->calls) {
		struct call *call = loop->calls;

		loop->calls = call->next;
		pthread_mutex_unlock(&loop->lock);
		call->fn(call->opaque);
		pthread_mutex_lock(&loop->lock);
		call->done = true;
		pthread_cond_broadcast(&loop->called);
	}
}

static void event_loop_dispatch(struct event_source *source, uint32_t events)
{
	uint64_t expirations;

	if (__atomic_load_n(&source->dead, __ATOMIC_ACQUIRE))
		return;
	if (!source->timer)
		source->fn(source->opaque, events);
	else if (read(source->fd, &expirations, sizeof(expirations)) == sizeof(expirations))
		source->fn(source->opaque, (uint32_t)MIN(expirations, (uint64_t)UINT32_MAX));
}

static void event_loop_set_events(struct event_source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

/* Wakes the sources that have rested; returns the ms until the next one has, or -1. Lock held. */
static int event_loop_wake_rested(struct event_loop *loop)
{
	int64_t next = -1, now = monotonic_ms();

	for (struct event_source *source = loop->sources; source && loop->rests; source = source->next) {
		if (!source->rests || source->dead)
			continue;
		if (source->rests <= now) {
			source->rests = 0;
			event_loop_set_events(source, source->events);
		} else if (next < 0 || source->rests < next) {
			next = source->rests;
		}
	}
	loop->rests = next >= 0;
	return monotonic_left(next);
}

void event_loop_claim(struct event_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->running = true;
	loop->runner = pthread_self();
	pthread_mutex_unlock(&loop->lock);
}

void event_loop_run(struct event_loop *loop)
{
	struct epoll_event events[BATCH];

	event_loop_claim(loop);
	pthread_mutex_lock(&loop->lock);
	while (!__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE)) {
		int count, timeout = loop->rests ? event_loop_wake_rested(loop) : -1;

		pthread_mutex_unlock(&loop->lock);
		count = epoll_wait(loop->epoll_fd, events, BATCH, timeout);
		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr)
				event_loop_dispatch(events[i].data.ptr, events[i].events);
			else
				eventfd_drain(loop->wake_fd);
		}
		pthread_mutex_lock(&loop->lock);
		event_loop_run_calls(loop);
		if (loop->buried)
			event_loop_bury(loop);
	}
	event_loop_run_calls(loop);
	__atomic_store_n(&loop->stop, false, __ATOMIC_RELEASE);
	loop->running = false;
	pthread_mutex_unlock(&loop->lock);
}

void event_loop_stop(struct event_loop *loop)
{
	int saved = errno;

	__atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
	eventfd_kick(loop->wake_fd);
	errno = saved;
}

static void *event_loop_thread_main(void *opaque)
{
	event_loop_run(opaque);
	return NULL;
}

int event_loop_start(struct event_loop *loop, const char *name, struct err *err)
{
	int code = thread_start(&loop->thread, THREAD_LOOP, event_loop_thread_main, loop, "%s", name);

	if (code)
		return err_sys(err, code, "thread %s", name);
	loop->has_thread = true;
	/* From now on calls are queued for the thread, even if it does not run yet. */
	pthread_mutex_lock(&loop->lock);
	loop->running = true;
	loop->runner = loop->thread;
	pthread_mutex_unlock(&loop->lock);
	return 0;
}

void event_loop_call(struct event_loop *loop, void (*fn)(void *opaque), void *opaque)
{
	struct call call = {.fn = fn, .opaque = opaque};
	struct call **link;

	pthread_mutex_lock(&loop->lock);
	if (!loop->running || pthread_equal(loop->runner, pthread_self())) {
		pthread_mutex_unlock(&loop->lock);
		fn(opaque);
		return;
	}
	for (link = &loop->calls; *link; link = &(*link)->next) {
	}
	*link = &call;
	eventfd_kick(loop->wake_fd);
	while (!call.done)
		pthread_cond_wait(&loop->called, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
}

struct question {
	int (*fn)(void *opaque, void *argument, struct err *err);
	void *opaque, *argument;
	struct err *err;
	int answer;
};

static void event_loop_answer(void *opaque)
{
	struct question *q = opaque;

	q->answer = q->fn(q->opaque, q->argument, q->err);
}

int event_loop_ask(struct event_loop *loop, int (*fn)(void *opaque, void *argument, struct err *err), void *opaque,
		   void *argument, struct err *err)
{
	struct question question = {fn, opaque, argument, err, 0};

	event_loop_call(loop, event_loop_answer, &question);
	return question.answer;
}

static int event_loop_add_source(struct event_loop *loop, int fd, uint32_t events, bool timer, event_fn *fn,
				 void *opaque, struct event_source **ret, struct err *err)
{
	struct event_source *source = calloc(1, sizeof(*source));
	struct epoll_event event = {.events = events, .data.ptr = source};

	if (!source)
		return err_sys(err, -ENOMEM, "event source");
	*source = (struct event_source){.loop = loop, .fd = fd, .timer = timer, .events = events, .fn = fn,
					.opaque = opaque};
	*ret = source;
	pthread_mutex_lock(&loop->lock);
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		int code = -errno;

		pthread_mutex_unlock(&loop->lock);
		free(source);
		*ret = NULL;
		return err_sys(err, code, "watching descriptor %d", fd);
	}
	source->next = loop->sources;
	loop->sources = source;
	pthread_mutex_unlock(&loop->lock);
	return 0;
}

int event_loop_watch(struct event_loop *loop, int fd, uint32_t events, event_fn *fn, void *opaque,
		     struct event_source **ret, struct err *err)
{
	return event_loop_add_source(loop, fd, events, false, fn, opaque, ret, err);
}

int event_loop_timer(struct event_loop *loop, event_fn *fn, void *opaque, struct event_source **ret, struct err *err)
{
	_cleanup_(fd_close) int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int code;

	if (fd < 0)
		return err_sys(err, -errno, "timer");
	code = event_loop_add_source(loop, fd, EPOLLIN, true, fn, opaque, ret, err);
	if (code == 0)
		take_fd(&fd);
	return code;
}

void event_source_set(struct event_source *source, uint32_t events)
{
	pthread_mutex_lock(&source->loop->lock);
	source->events = events;
	source->rests = 0;
	event_loop_set_events(source, events);
	pthread_mutex_unlock(&source->loop->lock);
}

static void event_loop_rest(struct event_source *source)
{
	struct event_loop *loop = source->loop;

	pthread_mutex_lock(&loop->lock);
	source->rests = monotonic_ms() + EVENT_REST_MS;
	loop->rests = true;
	event_loop_set_events(source, 0);
	eventfd_kick(loop->wake_fd); /* it may wait without a time limit */
	pthread_mutex_unlock(&loop->lock);
}

/* The system, or this process, has too little for another descriptor. */
static bool event_loop_short_of_descriptors(int code)
{
	return code == -EMFILE || code == -ENFILE || code == -ENOMEM || code == -ENOBUFS;
}

static int event_loop_accept(int fd)
{
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return client < 0 ? -errno : client;
}

int event_source_accept(struct event_source *source, int *reserve)
{
	int client = event_loop_accept(source->fd);

	if (event_loop_short_of_descriptors(client) && reserve && *reserve >= 0) {
		fd_close(reserve);
		client = event_loop_accept(source->fd);
	}
	if (event_loop_short_of_descriptors(client))
		event_loop_rest(source);
	return client;
}

void event_timer_set(struct event_source *timer, uint64_t first_ns, uint64_t interval_ns)
{
	struct itimerspec when = {
		.it_value = {.tv_sec = (time_t)(first_ns / 1000000000), .tv_nsec = (long)(first_ns % 1000000000)},
		.it_interval = {.tv_sec = (time_t)(interval_ns / 1000000000),
				.tv_nsec = (long)(interval_ns % 1000000000)},
	};

	timerfd_settime(timer->fd, 0, &when, NULL);
}

void event_source_remove(struct event_source *source)
{
	struct event_loop *loop;

	if (!source)
		return;
	loop = source->loop;
	pthread_mutex_lock(&loop->lock);
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	__atomic_store_n(&source->dead, true, __ATOMIC_RELEASE);
	if (loop->running)
		loop->buried = true;
	else
		event_loop_bury(loop);
	pthread_mutex_unlock(&loop->lock);
}
