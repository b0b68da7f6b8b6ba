/* SPDX-License-Identifier: Apache-2.0 */
/* See device_workers.h. */
#include "vmm/migration/device_workers.h"

#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

#include "core/irq.h"
#include "core/thread.h"

/* Lock held. The first failure counts; the others are broken off by it, wherever they wait. */
static void device_workers_fail(struct device_workers *all, int code, const struct err *err)
{
	if (all->code == 0) {
		all->code = code;
		all->err = *err;
		eventfd_kick(all->failed_fd);
	}
	all->ending = true;
	for (size_t i = 0; i < all->count; i++)
		channel_break(all->workers[i].channel);
}

static void *device_workers_work(void *opaque)
{
	struct device_worker *worker = opaque;
	struct device_workers *all = worker->all;
	struct err err = {.text = ""};
	int code = all->work(worker, &err);

	if (code < 0 && !strstr(err.text, vfio_migration_device(worker->device)->host.name))
		err_prefix(&err, code, "vfio %s", vfio_migration_device(worker->device)->host.name);
	pthread_mutex_lock(&all->lock);
	if (code < 0)
		device_workers_fail(all, code, &err);
	all->busy--;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
	return NULL;
}

static int device_workers_start(struct device_worker *worker, const char *name)
{
	int code = thread_start(&worker->thread, device_workers_work, worker, "%.10s%zu", name, (size_t)(worker - worker->all->workers));

	worker->running = code == 0;
	return code;
}

int device_workers_create(struct vfio_migration *const *devices, struct channel *const *channels, size_t count,
			  struct limiter *limiter, const char *name,
			  int (*work_fn)(struct device_worker *worker, struct err *err), struct device_workers **ret,
			  struct err *err)
{
	struct device_workers *all = calloc(1, sizeof(*all) + count * sizeof(all->workers[0]));
	int code = 0;

	if (!all)
		return err_sys(err, -ENOMEM, "device channels");
	all->work = work_fn;
	all->limiter = limiter;
	all->count = all->busy = count;
	pthread_mutex_init(&all->lock, NULL);
	thread_cond_init(&all->changed);
	all->failed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (all->failed_fd < 0)
		code = -errno;
	for (size_t i = 0; i < count; i++)
		all->workers[i] = (struct device_worker){.all = all, .device = devices[i], .channel = channels[i]};
	for (size_t i = 0; i < count && code == 0; i++)
		code = device_workers_start(&all->workers[i], name);
	if (code < 0) {
		device_workers_destroy(all);
		return err_sys(err, code, "device channels");
	}
	*ret = all;
	return 0;
}

void device_workers_destroy(struct device_workers *workers)
{
	if (!workers)
		return;
	pthread_mutex_lock(&workers->lock);
	if (workers->busy)
		device_workers_fail(workers, -ECANCELED, &(struct err){"ended"});
	pthread_cond_broadcast(&workers->changed);
	pthread_mutex_unlock(&workers->lock);
	for (size_t i = 0; i < workers->count; i++)
		if (workers->workers[i].running)
			pthread_join(workers->workers[i].thread, NULL);
	fd_close(&workers->failed_fd);
	pthread_cond_destroy(&workers->changed);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}

int device_workers_wait(struct device_workers *workers, struct err *err)
{
	int code;

	pthread_mutex_lock(&workers->lock);
	while (workers->busy)
		pthread_cond_wait(&workers->changed, &workers->lock);
	code = workers->code;
	if (code < 0)
		err_set(err, code, "%s", workers->err.text);
	pthread_mutex_unlock(&workers->lock);
	return code;
}

uint64_t device_workers_bytes(const struct device_workers *workers)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < workers->count; i++)
		bytes += __atomic_load_n(&workers->workers[i].position, __ATOMIC_RELAXED);
	return bytes;
}

bool device_workers_rest(struct device_workers *workers, unsigned int ms)
{
	struct timespec until;
	bool goes_on;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&workers->lock);
	while (!workers->stopped && !workers->ending)
		if (pthread_cond_timedwait(&workers->changed, &workers->lock, &until) == ETIMEDOUT)
			break;
	goes_on = !workers->ending;
	pthread_mutex_unlock(&workers->lock);
	return goes_on;
}
