/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event loop on epoll: descriptors and timers that call back, on one thread. The machine's main thread runs one;
 * a device that needs a thread of its own makes another and starts it. Callbacks of one loop never run at the same
 * time, so what only they touch needs no lock.
 */
#pragma once

#include "core/err.h"

struct event_loop;
struct event_source; /* a watched descriptor or a timer */

/* events: what is ready, EPOLLIN and so on; for a timer the number of expirations. */
typedef void event_fn(void *opaque, uint32_t events);

int event_loop_create(struct event_loop **ret, struct err *err);
/* Stops and joins the loop's thread if it has one; frees its sources. NULL is fine. */
void event_loop_destroy(struct event_loop *loop);

/* Runs callbacks on the calling thread until event_loop_stop. */
void event_loop_run(struct event_loop *loop);
/* The calling thread is about to run it: calls of other threads wait for that from here on. */
void event_loop_claim(struct event_loop *loop);
/* Makes run return after the current callback. Any thread, and from signal handlers too. */
void event_loop_stop(struct event_loop *loop);

/* Runs the loop on a new thread named name (15 characters) with all signals blocked. */
int event_loop_start(struct event_loop *loop, const char *name, struct err *err);

/*
 * Runs fn(opaque) on the loop's thread, between callbacks, and waits for it. On the loop's own thread, or when the
 * loop does not run, fn is called directly.
 */
void event_loop_call(struct event_loop *loop, void (*fn)(void *opaque), void *opaque);
/* The same for a function that can fail: what it returns, and its sentence. */
int event_loop_ask(struct event_loop *loop, int (*fn)(void *opaque, void *argument, struct err *err), void *opaque,
		   void *argument, struct err *err);

/* Calls fn whenever one of events (EPOLLIN, ...; level-triggered unless EPOLLET is among them) is ready on fd, -EPERM
 * where that cannot be told (a regular file). fd is not owned. Any thread. */
int event_loop_watch(struct event_loop *loop, int fd, uint32_t events, event_fn *fn, void *opaque,
		     struct event_source **ret, struct err *err);
/* A stopped timer; owned descriptor inside. */
int event_loop_timer(struct event_loop *loop, event_fn *fn, void *opaque, struct event_source **ret, struct err *err);

/* Changes what a watched descriptor waits for; 0 silences it. */
void event_source_set(struct event_source *source, uint32_t events);
/* Fires after first_ns, then every interval_ns (0: once). first_ns 0 stops the timer. CLOCK_MONOTONIC. */
void event_timer_set(struct event_source *timer, uint64_t first_ns, uint64_t interval_ns);
/* After it returns on the loop's thread the callback is not called again. From another thread use event_loop_call.
 * NULL is fine. */
void event_source_remove(struct event_source *source);
