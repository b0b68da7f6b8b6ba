/* SPDX-License-Identifier: Apache-2.0 */
/* See crew.h. */
#include "core/crew.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "core/monotonic.h"

struct crew_member {
	struct crew *crew;
	pthread_t thread;
	bool at_work; /* under the crew's lock */
};

struct crew {
	struct crew_ops ops;
	void *opaque;
	int failed_fd; /* eventfd, readable once broken */
	int idle_fd;   /* eventfd, readable while no member is at work */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	unsigned int count, busy; /* threads, and those at work */
	uint64_t rounds;
	bool broken; /* or being destroyed */
	int code;    /* the first failure */
	struct err err;
	struct crew_member members[];
};

/* ---- members; lock held ---- */

static void crew_break_off(struct crew *crew, int code, const struct err *err)
{
	if (crew->broken)
		return;
	crew->broken = true;
	crew->code = code;
	crew->err = *err;
	eventfd_write(crew->failed_fd, 1);
	pthread_cond_broadcast(&crew->changed);
	for (unsigned int i = 0; crew->ops.break_off && i < crew->count; i++)
		crew->ops.break_off(crew->opaque, i);
}

static void crew_set_idle(struct crew *crew, struct crew_member *member)
{
	if (!member->at_work)
		return;
	member->at_work = false;
	if (--crew->busy == 0)
		eventfd_write(crew->idle_fd, 1);
}

static void crew_set_busy(struct crew *crew)
{
	for (unsigned int i = 0; i < crew->count; i++)
		crew->members[i].at_work = true;
	crew->busy = crew->count;
}

/* ---- threads ---- */

/* crew_create holds the lock until all threads exist: work could keep the kernel from creating the remaining ones. */
static void *crew_run_member(void *opaque)
{
	struct crew_member *member = opaque;
	struct crew *crew = member->crew;
	struct err err = {.text = ""};
	int code = crew_broken(crew) ? 0 : crew->ops.work(crew->opaque, (unsigned int)(member - crew->members), &err);

	pthread_mutex_lock(&crew->lock);
	if (code < 0)
		crew_break_off(crew, code, &err);
	crew_set_idle(crew, member);
	pthread_mutex_unlock(&crew->lock);
	return NULL;
}

static int crew_start(struct crew *crew, unsigned int count, enum thread_kind kind, const char *name)
{
	int code = 0;

	while (!code && crew->count < count) {
		struct crew_member *member = &crew->members[crew->count];

		member->crew = crew;
		code = thread_start(&member->thread, kind, crew_run_member, member, "%.10s%u", name, crew->count);
		crew->count += !code;
	}
	return code;
}

int crew_create(const struct crew_ops *ops, void *opaque, unsigned int count, enum thread_kind kind, const char *name,
		struct crew **ret, struct err *err)
{
	struct crew *crew = calloc(1, sizeof(*crew) + count * sizeof(crew->members[0]));
	int code;

	if (!crew)
		return err_sys(err, -ENOMEM, "threads %s", name);
	crew->ops = *ops;
	crew->opaque = opaque;
	pthread_mutex_init(&crew->lock, NULL);
	pthread_cond_init(&crew->changed, NULL);
	crew->failed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	crew->idle_fd = eventfd(count == 0, EFD_CLOEXEC | EFD_NONBLOCK);
	code = crew->failed_fd < 0 || crew->idle_fd < 0 ? -errno : 0;
	pthread_mutex_lock(&crew->lock);
	code = code ?: crew_start(crew, count, kind, name);
	crew->broken = code < 0;
	crew_set_busy(crew);
	if (!code)
		*ret = crew;
	pthread_mutex_unlock(&crew->lock);
	if (code)
		crew_destroy(crew);
	return code ? err_sys(err, code, "threads %s", name) : 0;
}

void crew_destroy(struct crew *crew)
{
	if (!crew)
		return;
	pthread_mutex_lock(&crew->lock);
	if (crew->busy)
		crew_break_off(crew, -ECANCELED, &(struct err){"ended"});
	crew->broken = true;
	pthread_cond_broadcast(&crew->changed);
	pthread_mutex_unlock(&crew->lock);
	for (unsigned int i = 0; i < crew->count; i++)
		pthread_join(crew->members[i].thread, NULL);
	fd_close(&crew->failed_fd);
	fd_close(&crew->idle_fd);
	pthread_cond_destroy(&crew->changed);
	pthread_mutex_destroy(&crew->lock);
	free(crew);
}

/* ---- failures ---- */

void crew_fail(struct crew *crew, int code, const struct err *err)
{
	pthread_mutex_lock(&crew->lock);
	crew_break_off(crew, code, err);
	pthread_mutex_unlock(&crew->lock);
}

bool crew_broken(struct crew *crew)
{
	bool broken;

	pthread_mutex_lock(&crew->lock);
	broken = crew->broken;
	pthread_mutex_unlock(&crew->lock);
	return broken;
}

int crew_fd(const struct crew *crew)
{
	return crew->failed_fd;
}

int crew_result(struct crew *crew, struct err *err)
{
	int code;

	pthread_mutex_lock(&crew->lock);
	code = crew->code;
	if (code)
		err_set(err, code, "%s", crew->err.text);
	pthread_mutex_unlock(&crew->lock);
	return code;
}

/* ---- rounds ---- */

bool crew_wait(struct crew *crew, int cancel_fd, int64_t deadline)
{
	struct pollfd fds[] = {{.fd = crew->idle_fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};

	do {
		poll(fds, ARRAY_SIZE(fds), monotonic_left(deadline));
		if (fds[1].revents) {
			crew_fail(crew, -ECANCELED, &(struct err){"cancelled"});
			fds[1] = (struct pollfd){.fd = -1};
		}
	} while (!fds[0].revents && monotonic_left(deadline) != 0);
	return fds[0].revents;
}

bool crew_next(struct crew *crew, unsigned int index)
{
	uint64_t round;
	bool goes_on;

	pthread_mutex_lock(&crew->lock);
	round = crew->rounds;
	crew_set_idle(crew, &crew->members[index]);
	while (crew->rounds == round && !crew->broken)
		pthread_cond_wait(&crew->changed, &crew->lock);
	goes_on = !crew->broken;
	pthread_mutex_unlock(&crew->lock);
	return goes_on;
}

void crew_again(struct crew *crew)
{
	eventfd_t count;

	pthread_mutex_lock(&crew->lock);
	if (!crew->broken) {
		eventfd_read(crew->idle_fd, &count);
		crew_set_busy(crew);
		crew->rounds++;
		pthread_cond_broadcast(&crew->changed);
	}
	pthread_mutex_unlock(&crew->lock);
}
