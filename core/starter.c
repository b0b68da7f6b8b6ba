/* SPDX-License-Identifier: Apache-2.0 */
/* See starter.h. */
#include "core/starter.h"

struct starter {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t asked, done;
	/* under the lock */
	struct starter_errand *first, **last;
	bool started, end;
};

static void starter_done(struct starter *starter, struct starter_errand *errand, int code)
{
	pthread_mutex_lock(&starter->lock);
	errand->code = code;
	errand->done = true;
	pthread_cond_broadcast(&starter->done);
	pthread_mutex_unlock(&starter->lock);
}

static void *starter_run_errand(void *opaque)
{
	struct starter_errand *errand = opaque;

	starter_done(errand->starter, errand, errand->fn(errand->argument));
	return NULL;
}

/* Lock held; NULL: the starter is to end. */
static struct starter_errand *starter_next(struct starter *starter)
{
	struct starter_errand *errand;

	while (!starter->first && !starter->end)
		pthread_cond_wait(&starter->asked, &starter->lock);
	errand = starter->first;
	if (errand)
		starter->first = errand->next;
	if (!starter->first)
		starter->last = &starter->first;
	return errand;
}

/* A thread of its own for each errand: one that waits is in nobody else's way. */
static void starter_begin(struct starter *starter, struct starter_errand *errand)
{
	pthread_t thread;
	int code = thread_start(&thread, THREAD_STARTER, starter_run_errand, errand, "errand");

	if (code)
		starter_done(starter, errand, code);
	else
		pthread_detach(thread);
}

static void starter_serve(struct starter *starter, struct starter_errand *errand)
{
	if (errand->swift)
		starter_done(starter, errand, errand->fn(errand->argument));
	else
		starter_begin(starter, errand);
}

static void *starter_main(void *opaque)
{
	struct starter *starter = opaque;
	struct starter_errand *errand;

	pthread_mutex_lock(&starter->lock);
	while ((errand = starter_next(starter))) {
		pthread_mutex_unlock(&starter->lock);
		starter_serve(starter, errand);
		pthread_mutex_lock(&starter->lock);
	}
	pthread_mutex_unlock(&starter->lock);
	return NULL;
}

int starter_create(struct starter **ret, struct err *err)
{
	struct starter *starter = calloc(1, sizeof(*starter));

	if (!starter)
		return err_sys(err, -ENOMEM, "the starter of threads");
	starter->last = &starter->first;
	pthread_mutex_init(&starter->lock, NULL);
	pthread_cond_init(&starter->asked, NULL);
	pthread_cond_init(&starter->done, NULL);
	*ret = starter;
	return 0;
}

int starter_start(struct starter *starter, struct err *err)
{
	int code = thread_start(&starter->thread, THREAD_STARTER, starter_main, starter, "starter");

	if (code)
		return err_sys(err, code, "the starter of threads");
	starter->started = true;
	return 0;
}

void starter_destroy(struct starter *starter)
{
	if (!starter)
		return;
	pthread_mutex_lock(&starter->lock);
	starter->end = true;
	pthread_cond_broadcast(&starter->asked);
	pthread_mutex_unlock(&starter->lock);
	if (starter->started)
		pthread_join(starter->thread, NULL);
	pthread_cond_destroy(&starter->asked);
	pthread_cond_destroy(&starter->done);
	pthread_mutex_destroy(&starter->lock);
	free(starter);
}

void starter_post(struct starter *starter, struct starter_errand *errand)
{
	errand->starter = starter;
	errand->next = NULL;
	errand->done = false;
	pthread_mutex_lock(&starter->lock);
	*starter->last = errand;
	starter->last = &errand->next;
	pthread_cond_signal(&starter->asked);
	pthread_mutex_unlock(&starter->lock);
}

int starter_wait(struct starter_errand *errand)
{
	struct starter *starter = errand->starter;

	pthread_mutex_lock(&starter->lock);
	while (!errand->done)
		pthread_cond_wait(&starter->done, &starter->lock);
	pthread_mutex_unlock(&starter->lock);
	return errand->code;
}

int starter_call(struct starter *starter, int (*fn)(void *argument), void *argument, bool swift)
{
	struct starter_errand errand = {.fn = fn, .argument = argument, .swift = swift};

	starter_post(starter, &errand);
	return starter_wait(&errand);
}
