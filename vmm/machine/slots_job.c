/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to the devices of the slots, one thing at a time, by a worker. See slots.h. */
#include "vmm/machine/slots_internal.h"

#include "core/crew.h"
#include "core/irq.h"

static const struct {
	const char *name, *after, *thread;
} doings[] = {
	[SLOTS_ADDING] = {"added", "it is there", "add device"},
	[SLOTS_REMOVING] = {"removed", "it is gone", "drop dev"},
	[SLOTS_CHANGING] = {"changed", "that is done", "change dev"},
};

int slots_check_free(const struct slots *slots, struct err *err)
{
	const struct slots_job *job = &slots->job;

	if (slots->blocker)
		return err_set(err, -EBUSY, "%s", slots->blocker);
	if (job->id)
		return err_set(err, -EBUSY, "the device %s is being %s; try again when %s", job->id,
			       doings[job->doing].name, doings[job->doing].after);
	return 0;
}

int slots_job_work(void *opaque, unsigned int index, struct err *err)
{
	struct slots *slots = opaque;
	int code = slots->job.work(slots->job.opaque, err);

	eventfd_kick(slots->worked_fd);
	return code;
}

int slots_job_start(struct slots *slots, struct err *err)
{
	static const struct crew_ops ops = {.work = slots_job_work};

	return crew_create(&ops, slots, 1, THREAD_DEVICE, doings[slots->job.doing].thread, &slots->crew, err);
}

int slots_begin(struct slots *slots, const struct slots_job *job, struct err *err)
{
	int code = slots_check_free(slots, err);

	if (code < 0)
		return code;
	slots->job = *job;
	code = slots_job_start(slots, err);
	if (code < 0)
		slots->job.id = NULL;
	return code;
}

void slots_job_end(struct slots *slots)
{
	struct crew *crew = take_ptr(slots->crew);
	const struct slots_job job = slots->job;
	struct err err = {""};
	int code = 0;

	if (crew) {
		crew_wait(crew, -1, -1);
		code = crew_result(crew, &err);
	}
	crew_destroy(crew);
	eventfd_drain(slots->worked_fd);
	slots->job = (struct slots_job){0};
	eventfd_kick(slots->eject_fd);
	job.done(job.opaque, code, &err);
}

void slots_job_on_worked(void *opaque, uint32_t events)
{
	struct slots *slots = opaque;

	if (eventfd_drain(slots->worked_fd) && slots->job.id && slots->phase == SLOTS_SETTLED)
		slots_job_end(slots);
}
