/* SPDX-License-Identifier: Apache-2.0 */
/* See door.h. */
#include "vmm/jail/door.h"

#include "core/starter.h"

#include <stdio.h>

struct door {
	struct door_options options;
	struct thread_filters filters;
	struct thread_filters later; /* of threads that the starter starts when it has no rights to leave to them */
	struct starter *starter;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool serves; /* the starter has its thread; the main thread's */
	/* changed under the lock */
	bool closed;  /* rights are to be given up */
	bool settled; /* all are confined */
	bool ended;
};

/*
 * Whether the thread, which was started before the door was closed, gives up its rights now. One that runs the guest waits
 * until it must; another one that runs before keeps them.
 */
static bool door_takes_rights(struct door *door, enum thread_kind kind)
{
	bool takes;

	pthread_mutex_lock(&door->lock);
	while (!door->closed && !door->ended && kind == THREAD_VCPU)
		pthread_cond_wait(&door->changed, &door->lock);
	takes = door->closed;
	pthread_mutex_unlock(&door->lock);
	return takes;
}

/* A thread that is not confined must not run. */
static void door_filter(const struct door *door, enum thread_kind kind)
{
	int code = seccomp_enter(door->options.seccomp, kind);

	if (!code)
		return;
	errno = -code;
	log_error(door->options.log, "a thread's filter of system calls: %m");
	_exit(SECCOMP_EXIT);
}

/* The starter keeps its rights until the door is closed: a migration that arrives needs it. It looks at nothing that arrives. */
static void door_enter(void *opaque, enum thread_kind kind)
{
	struct door *door = opaque;

	if (door->options.jail && kind == THREAD_STARTER)
		return;
	if (door->options.jail && door_takes_rights(door, kind))
		jail_confine(door->options.jail);
	door_filter(door, kind);
}

static bool door_settle(void *opaque)
{
	struct door *door = opaque;
	bool settled;

	pthread_mutex_lock(&door->lock);
	while (!door->settled && !door->ended)
		pthread_cond_wait(&door->changed, &door->lock);
	settled = door->settled;
	pthread_mutex_unlock(&door->lock);
	return settled;
}

static void door_enter_later(void *opaque, enum thread_kind kind)
{
	door_filter(opaque, kind);
}

/* By who starts a thread, and not by when it begins to run, it is known whether it has rights to give up. */
static int door_confine_starter(void *argument)
{
	const struct door *door = argument;

	jail_leave(door->options.jail);
	jail_confine(door->options.jail);
	thread_set_filters(&door->later);
	door_filter(door, THREAD_STARTER);
	return 0;
}

static int door_call(void *opaque, int (*fn)(void *argument), void *argument, bool swift)
{
	const struct door *door = opaque;

	return starter_call(door->starter, fn, argument, swift);
}

int door_create(const struct door_options *options, struct door **ret, struct err *err)
{
	const struct log *log = options->log;
	struct door *door;
	int code = seccomp_prepare(options->seccomp, log->fd, log->prefix ?: "", err);

	if (code || (options->seccomp == SECCOMP_OFF && !options->jail))
		return code;
	door = calloc(1, sizeof(*door));
	if (!door)
		return err_sys(err, -ENOMEM, "threads");
	door->options = *options;
	door->closed = options->jail_closed;
	door->filters = (struct thread_filters){.enter = door_enter, .call = door_call, .settle = door_settle, .opaque = door};
	door->later = (struct thread_filters){.enter = door_enter_later, .call = door_call, .opaque = door};
	pthread_mutex_init(&door->lock, NULL);
	pthread_cond_init(&door->changed, NULL);
	code = starter_create(&door->starter, err);
	thread_set_filters(&door->filters);
	if (code)
		door_destroy(door);
	else
		*ret = door;
	return code;
}

int door_serve(struct door *door, struct err *err)
{
	int code = !door || door->serves ? 0 : starter_start(door->starter, err);

	if (door && !code)
		door->serves = true;
	return code;
}

static void door_set(struct door *door, bool *what)
{
	pthread_mutex_lock(&door->lock);
	*what = true;
	pthread_cond_broadcast(&door->changed);
	pthread_mutex_unlock(&door->lock);
}

/* They confine themselves at the same time. What the starter starts from now on has what it has left. */
int door_close(struct door *door, struct err *err)
{
	struct starter_errand errand = {.fn = door_confine_starter, .argument = door, .swift = true};
	int code = door_serve(door, err);

	if (code || !door || door->settled)
		return code;
	if (door->options.jail)
		starter_post(door->starter, &errand);
	door_set(door, &door->closed);
	thread_enter(THREAD_MAIN);
	if (door->options.jail)
		starter_wait(&errand);
	door_set(door, &door->settled);
	return 0;
}

void door_end(struct door *door)
{
	if (door)
		door_set(door, &door->ended);
}

void door_destroy(struct door *door)
{
	if (!door)
		return;
	door_end(door);
	thread_set_filters(NULL);
	starter_destroy(door->starter);
	pthread_cond_destroy(&door->changed);
	pthread_mutex_destroy(&door->lock);
	free(door);
}
