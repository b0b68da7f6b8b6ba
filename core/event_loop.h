/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event loop on epoll: callbacks for descriptors and timers, on one thread. The machine's main thread runs one; a
 * device that needs its own thread creates another and starts it. Callbacks of one loop never run at the same time, so
 * data that only they use needs no lock.
 */
#pragma once

#include "core/err.h"

struct event_loop;
struct event_source; /* a watched descriptor or a timer */

/* events: those that are ready (EPOLLIN, ...); for a timer the number of expirations. */
typedef void event_fn(void *opaque, uint32_t events);

int event_loop_create(struct event_loop **ret, struct err *err);
/* Stops and joins the loop's thread if it has one; frees its sources. NULL is fine. */
void event_loop_destroy(struct event_loop *loop);

/* Runs callbacks on the calling thread until event_loop_stop. */
void event_loop_run(struct event_loop *loop);
/* The calling thread will run the loop: from now on event_loop_call of other threads waits for it. */
void event_loop_claim(struct event_loop *loop);
/* Makes event_loop_run return after the current callback. Any thread, and signal handlers. */
void event_loop_stop(struct event_loop *loop);

/* Runs the loop on a new thread of THREAD_LOOP named name (15 characters) with all signals blocked. */
int event_loop_start(struct event_loop *loop, const char *name, struct err *err);

/*
 * Runs fn(opaque) on the loop's thread, between callbacks, and waits for it. On the loop's own thread, or if the loop
 * does not run, calls fn directly.
 */
void event_loop_call(struct event_loop *loop, void (*fn)(void *opaque), void *opaque);
/* The same for a function that can fail; returns its result and error message. */
int event_loop_ask(struct event_loop *loop, int (*fn)(void *opaque, void *argument, struct err *err), void *opaque,
		   void *argument, struct err *err);

/* Calls fn whenever one of events (EPOLLIN, ...; level-triggered without EPOLLET) is ready on fd. -EPERM: fd cannot be
 * polled (a regular file). fd is not owned. Any thread. */
int event_loop_watch(struct event_loop *loop, int fd, uint32_t events, event_fn *fn, void *opaque,
		     struct event_source **ret, struct err *err);
/* A timer, stopped. It owns its descriptor. */
int event_loop_timer(struct event_loop *loop, event_fn *fn, void *opaque, struct event_source **ret, struct err *err);

/* Changes the events of a watched descriptor; 0: no callbacks. */
void event_source_set(struct event_source *source, uint32_t events);
/*
 * Accepts a client of the listening socket that source watches: its descriptor, CLOEXEC and non-blocking, or -errno. If
 * there is none left for it, *reserve (NULL: none) is closed to make room; else the client waits and the source rests:
 * its callback is not called for EVENT_REST_MS, and then as if the socket had just been watched. So the loop does not
 * spin, and the client is served when there are descriptors again. Any thread.
 */
#define EVENT_REST_MS 100
int event_source_accept(struct event_source *source, int *reserve);
/* Fires after first_ns, then every interval_ns (0: once). first_ns 0 stops the timer. CLOCK_MONOTONIC. */
void event_timer_set(struct event_source *timer, uint64_t first_ns, uint64_t interval_ns);
/* On the loop's thread: the callback is not called again. Use event_loop_call on other threads. NULL is fine. */
void event_source_remove(struct event_source *source);
