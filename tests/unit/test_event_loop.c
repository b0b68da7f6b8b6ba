/* SPDX-License-Identifier: Apache-2.0 */
/* core/event_loop: descriptors, timers, calls from other threads, sources that remove themselves or each other. */
#include "core/event_loop.h"

#include "core/irq.h"
#include "core/monotonic.h"
#include "core/thread.h"
#include "tests/unit/local_socket.h"
#include "tests/unit/shortage.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

struct watcher {
	struct event_loop *loop;
	struct event_source *source, *other;
	int fd;
	int fired;
	int stop_at;
};

static void on_event(void *opaque, uint32_t events)
{
	struct watcher *w = opaque;

	w->fired++;
	if (w->fd >= 0)
		eventfd_drain(w->fd);
	if (w->fired == w->stop_at)
		event_loop_stop(w->loop);
}

static void calls_back_when_ready(void)
{
	struct watcher w = {.fd = eventfd(1, EFD_NONBLOCK), .stop_at = 1};

	CHECK_EQ(event_loop_create(&w.loop, NULL), 0);
	CHECK_EQ(event_loop_watch(w.loop, w.fd, EPOLLIN, on_event, &w, &w.source, NULL), 0);
	event_loop_run(w.loop);
	CHECK_EQ(w.fired, 1);
	event_source_remove(w.source);
	event_loop_destroy(w.loop);
	close(w.fd);
}

static void timers_fire_and_repeat(void)
{
	struct watcher w = {.fd = -1, .stop_at = 3};

	CHECK_EQ(event_loop_create(&w.loop, NULL), 0);
	CHECK_EQ(event_loop_timer(w.loop, on_event, &w, &w.source, NULL), 0);
	event_timer_set(w.source, 1000000, 1000000);
	event_loop_run(w.loop);
	CHECK_EQ(w.fired, 3);
	event_loop_destroy(w.loop);
}

static void remove_both(void *opaque, uint32_t events)
{
	struct watcher *w = opaque;

	w->fired++;
	event_source_remove(w->source);
	event_source_remove(w->other);
	event_loop_stop(w->loop);
}

/* Both descriptors are ready in one batch; whoever comes first removes both, the other must not be called. */
static void a_removed_source_is_silent_at_once(void)
{
	struct watcher w = {.fd = -1};
	int a = eventfd(1, EFD_NONBLOCK), b = eventfd(1, EFD_NONBLOCK);

	CHECK_EQ(event_loop_create(&w.loop, NULL), 0);
	CHECK_EQ(event_loop_watch(w.loop, a, EPOLLIN, remove_both, &w, &w.source, NULL), 0);
	CHECK_EQ(event_loop_watch(w.loop, b, EPOLLIN, remove_both, &w, &w.other, NULL), 0);
	event_loop_run(w.loop);
	CHECK_EQ(w.fired, 1);
	event_loop_destroy(w.loop);
	close(a);
	close(b);
}

static void count(void *opaque)
{
	++*(int *)opaque;
}

static void runs_calls_on_its_thread(void)
{
	struct event_loop *loop;
	int n = 0;

	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	event_loop_call(loop, count, &n);
	CHECK_EQ(n, 1);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	for (int i = 0; i < 1000; i++)
		event_loop_call(loop, count, &n);
	CHECK_EQ(n, 1001);
	event_loop_destroy(loop);
}

static void stop_it(void *opaque)
{
	event_loop_stop(opaque);
}

static void *ask_it_to_stop(void *opaque)
{
	event_loop_call(opaque, stop_it, opaque);
	return NULL;
}

/* Had the call been made on the other thread, the loop would have been stopped before it ran. */
static void calls_wait_for_a_loop_that_is_claimed(void)
{
	struct watcher w = {.fd = eventfd(1, EFD_NONBLOCK)};
	pthread_t thread;

	CHECK_EQ(event_loop_create(&w.loop, NULL), 0);
	CHECK_EQ(event_loop_watch(w.loop, w.fd, EPOLLIN, on_event, &w, &w.source, NULL), 0);
	event_loop_claim(w.loop);
	CHECK_EQ(thread_start(&thread, THREAD_LOOP, ask_it_to_stop, w.loop, "asks"), 0);
	usleep(20000);
	event_loop_run(w.loop);
	pthread_join(thread, NULL);
	CHECK_EQ(w.fired, 1);
	event_loop_destroy(w.loop);
	close(w.fd);
}

static int signals_of_thread(void *opaque, void *argument, struct err *err)
{
	pthread_sigmask(SIG_SETMASK, NULL, argument);
	return err_set(err, -EBUSY, "%s", (const char *)opaque);
}

static void answers_questions_on_its_thread_which_leaves_signals_alone(void)
{
	char opaque[] = "busy";
	struct event_loop *loop;
	sigset_t blocked;
	struct err err;

	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	CHECK_EQ(event_loop_ask(loop, signals_of_thread, opaque, &blocked, &err), -EBUSY);
	CHECK_STR(err.text, "busy");
	CHECK(sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGCHLD));
	CHECK(!sigismember(&blocked, SIGSEGV) && !sigismember(&blocked, SIGABRT));
	event_loop_destroy(loop);
}

static void silencing_and_waking(void)
{
	struct watcher w = {.fd = eventfd(1, EFD_NONBLOCK), .stop_at = 1};
	struct watcher t = {.fd = -1, .stop_at = 1};

	CHECK_EQ(event_loop_create(&w.loop, NULL), 0);
	t.loop = w.loop;
	CHECK_EQ(event_loop_watch(w.loop, w.fd, EPOLLIN, on_event, &w, &w.source, NULL), 0);
	event_source_set(w.source, 0);
	CHECK_EQ(event_loop_timer(w.loop, on_event, &t, &t.source, NULL), 0);
	event_timer_set(t.source, 5000000, 0);
	event_loop_run(w.loop);
	CHECK_EQ(w.fired, 0);
	CHECK_EQ(t.fired, 1);
	event_source_set(w.source, EPOLLIN);
	event_loop_run(w.loop);
	CHECK_EQ(w.fired, 1);
	event_loop_destroy(w.loop);
	close(w.fd);
}

static int client;

static void accept_one(void *opaque, uint32_t events)
{
	struct watcher *w = opaque;

	w->fired++;
	client = event_source_accept(w->source, NULL);
	if (client >= 0)
		event_loop_stop(w->loop);
}

/* A listener on an abstract address, and a client that waits there. */
static void listen_and_connect(int *listener, int *caller)
{
	struct sockaddr_un address;
	socklen_t len;

	*listener = local_listen(&address, &len);
	*caller = local_connect(&address, len, 60);
}

/* A client for whom there is no descriptor is not asked for again and again, and is accepted when there is one. */
static void a_listener_rests_without_descriptors(void)
{
	static struct shortage shortage;
	struct watcher w = {.fd = -1}, t = {.fd = -1, .stop_at = 1};
	int64_t begin;
	int caller;

	CHECK_EQ(event_loop_create(&w.loop, NULL), 0);
	t.loop = w.loop;
	listen_and_connect(&w.fd, &caller);
	CHECK_EQ(event_loop_watch(w.loop, w.fd, EPOLLIN, accept_one, &w, &w.source, NULL), 0);
	CHECK_EQ(event_loop_timer(w.loop, on_event, &t, &t.source, NULL), 0);
	shortage_begin(&shortage);
	event_timer_set(t.source, 1500000ull * EVENT_REST_MS, 0);
	begin = monotonic_ms();
	event_loop_run(w.loop);
	CHECK(w.fired >= 1);
	CHECK(w.fired <= (monotonic_ms() - begin) / EVENT_REST_MS + 2);
	CHECK_EQ(client, -EMFILE);
	shortage_ease(&shortage);
	event_loop_run(w.loop);
	CHECK(client >= 0);
	close(client);
	shortage_end(&shortage);
	event_loop_destroy(w.loop);
	close(w.fd);
	close(caller);
}

/* The descriptor that is kept for it makes room for a client. */
static void a_reserve_makes_room(void)
{
	static struct shortage shortage;
	struct watcher w = {.fd = -1};
	int caller, reserve = eventfd(0, EFD_CLOEXEC);

	CHECK_EQ(event_loop_create(&w.loop, NULL), 0);
	listen_and_connect(&w.fd, &caller);
	CHECK_EQ(event_loop_watch(w.loop, w.fd, EPOLLIN, accept_one, &w, &w.source, NULL), 0);
	shortage_begin(&shortage);
	client = event_source_accept(w.source, &reserve);
	shortage_end(&shortage);
	CHECK(client >= 0);
	CHECK_EQ(reserve, -1);
	CHECK_EQ(event_source_accept(w.source, &reserve), -EAGAIN);
	close(client);
	event_loop_destroy(w.loop);
	close(w.fd);
	close(caller);
}

TEST_MAIN(TEST(calls_back_when_ready), TEST(timers_fire_and_repeat), TEST(a_removed_source_is_silent_at_once),
	  TEST(runs_calls_on_its_thread), TEST(calls_wait_for_a_loop_that_is_claimed),
	  TEST(answers_questions_on_its_thread_which_leaves_signals_alone),
	  TEST(silencing_and_waking), TEST(a_listener_rests_without_descriptors),
	  TEST(a_reserve_makes_room))
