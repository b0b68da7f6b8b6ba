/* SPDX-License-Identifier: Apache-2.0 */
/* See device_workers.h. */
#include "vmm/migration/device_workers.h"

#include <sys/eventfd.h>

static int device_workers_work(void *opaque, unsigned int index, struct err *err)
{
	struct device_workers *all = opaque;
	struct device_worker *worker = &all->workers[index];
	const char *name = vfio_migration_device(worker->device)->host.name;
	int code = all->work(worker, err);

	return code < 0 && !strstr(err->text, name) ? err_prefix(err, code, "vfio %s", name) : code;
}

static void device_workers_break_off(void *opaque, unsigned int index)
{
	struct device_worker *worker = &((struct device_workers *)opaque)->workers[index];

	if (worker->channel)
		channel_break(worker->channel);
}

int device_workers_create(struct vfio_migration *const *devices, struct channel *const *channels, size_t count,
			  struct limiter *limiter, const char *name,
			  int (*work_fn)(struct device_worker *worker, struct err *err), void *opaque,
			  struct device_workers **ret, struct err *err)
{
	static const struct crew_ops ops = {.work = device_workers_work, .break_off = device_workers_break_off};
	struct device_workers *all = calloc(1, sizeof(*all) + count * sizeof(all->workers[0]));
	int code;

	if (!all)
		return err_sys(err, -ENOMEM, "device channels");
	all->work = work_fn;
	all->opaque = opaque;
	all->limiter = limiter;
	all->count = count;
	for (size_t i = 0; i < count; i++)
		all->workers[i] = (struct device_worker){.all = all, .device = devices[i],
							 .channel = channels ? channels[i] : NULL};
	all->stopped_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	code = all->stopped_fd < 0 ? err_sys(err, -errno, "device channels") :
	       crew_create(&ops, all, (unsigned int)count, THREAD_MIGRATION, name, &all->crew, err);
	if (code < 0) {
		device_workers_destroy(all);
		return code;
	}
	*ret = all;
	return 0;
}

void device_workers_destroy(struct device_workers *workers)
{
	if (!workers)
		return;
	crew_destroy(workers->crew);
	fd_close(&workers->stopped_fd);
	free(workers);
}

int device_workers_wait(struct device_workers *workers, struct err *err)
{
	crew_wait(workers->crew, -1, -1);
	return crew_result(workers->crew, err);
}
