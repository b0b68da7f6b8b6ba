/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives a disk another image while the guest runs: a worker opens that one, has the loop exchange them as soon as the
 * disk has completed its requests, and writes the other one back. See machine.h.
 */
#include "vmm/machine/machine_internal.h"

#include "core/monotonic.h"
#include "core/thread.h"

#include <poll.h>

#define DRAIN_MS 10000 /* for requests in flight: shorter than the timeout of a guest's watchdog */
#define POLL_MS 2

struct replacement {
	struct machine *machine;
	struct virtio_transport *transport;
	char *path;
	struct virtio_blk_passed passed; /* the caller's, until done */
	struct virtio_blk_spare *spare;
	bool swapped; /* the loop's thread writes it */
	struct err *open_err;
	bool lost; /* and err: what the guest has written last is lost */
	struct err err;
	void (*done)(void *opaque, int code, const struct err *err);
	void *opaque;
};

static void machine_replace_free(struct replacement *replacement)
{
	free(replacement->path);
	free(replacement);
}

/* On the loop's thread. -EINPROGRESS: there are requests in flight. */
static int machine_replace_try(void *opaque, void *argument, struct err *err)
{
	struct replacement *replacement = opaque;
	const struct machine *machine = replacement->machine;
	struct virtio_device *disk = virtio_transport_device(replacement->transport);
	bool last = *(const bool *)argument;
	int ret;

	if (machine->settling)
		return err_set(err, -ECANCELED, "%s: the machine ended, or the guest rebooted, before that", disk->id);
	ret = virtio_transport_drain(replacement->transport, monotonic_ms(), err);
	if (ret == -ETIMEDOUT && !last)
		return -EINPROGRESS;
	ret = ret ?: virtio_blk_spare_swap(disk, replacement->spare, err);
	replacement->swapped = ret == 0;
	machine_plug_go_on(machine, replacement->transport);
	return ret;
}

static int machine_replace_swap(struct replacement *replacement, struct err *err)
{
	int64_t deadline = monotonic_ms() + DRAIN_MS;
	int ret;

	do {
		bool last = monotonic_ms() >= deadline;

		ret = event_loop_ask(replacement->machine->host.loop, machine_replace_try, replacement, &last, err);
		if (ret == -EINPROGRESS)
			poll(NULL, 0, POLL_MS);
	} while (ret == -EINPROGRESS);
	return ret;
}

static int machine_replace_open(void *argument)
{
	struct replacement *replacement = argument;

	return virtio_blk_spare_open(virtio_transport_device(replacement->transport), replacement->path, &replacement->passed,
				     &replacement->spare, replacement->open_err);
}

/* Either the one before, or the new one, which nobody has written. */
static int machine_replace_close(void *argument)
{
	struct replacement *replacement = argument;
	int ret = virtio_blk_spare_close(replacement->spare, &replacement->err);

	replacement->lost = ret < 0 && replacement->swapped;
	return 0;
}

static int machine_replace_work(void *opaque, struct err *err)
{
	struct replacement *replacement = opaque;
	int ret;

	replacement->open_err = err;
	ret = thread_call(machine_replace_open, replacement);
	if (ret)
		return ret;
	ret = machine_replace_swap(replacement, err);
	thread_call(machine_replace_close, replacement);
	return ret;
}

static void machine_replace_end(void *opaque, int code, const struct err *err)
{
	struct replacement *replacement = opaque;
	const struct machine *machine = replacement->machine;

	replacement->machine->plugging--;
	if (replacement->lost)
		log_error(machine->host.log, "%s", replacement->err.text);
	replacement->done(replacement->opaque, code, code ? err : NULL);
	machine_replace_free(replacement);
}

static int machine_replace_take(struct replacement *replacement, const char *path, const int *fds, size_t count,
				struct err *err)
{
	struct virtio_blk_image image;

	virtio_blk_image(virtio_transport_device(replacement->transport), &image);
	if (count != (image.direct ? 2 : 1))
		return err_set(err, -EINVAL, "--disk %s: %s", path, image.direct ?
			       "pass two descriptors, the second one opened with O_DIRECT" : "pass one descriptor");
	replacement->passed = (struct virtio_blk_passed){fds[0], image.direct ? fds[1] : -1};
	replacement->path = strdup(path);
	return replacement->path ? 0 : err_sys(err, -ENOMEM, "--disk %s", path);
}

static int machine_replace_begin(struct replacement *replacement, struct err *err)
{
	struct machine *machine = replacement->machine;
	const char *id = virtio_transport_device(replacement->transport)->id;
	const struct slots_job job = {SLOTS_CHANGING, id, machine_replace_work, machine_replace_end, replacement};
	int code = slots_begin(machine->slots, &job, err);

	if (code < 0)
		return err_prefix(err, code, "%s", id);
	machine->plugging++;
	return 0;
}

int machine_replace_disk(struct machine *machine, const char *id, const char *path, const int *fds, size_t count,
			 void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	struct virtio_transport *disk = machine_find_disk(machine, id);
	struct replacement *replacement;
	int code;

	if (!disk)
		return err_set(err, -ENODEV, "%s: no disk has this id; mvmm info lists them", id);
	replacement = calloc(1, sizeof(*replacement));
	if (!replacement)
		return err_sys(err, -ENOMEM, "%s", id);
	*replacement = (struct replacement){.machine = machine, .transport = disk, .done = done, .opaque = opaque};
	code = machine_replace_take(replacement, path, fds, count, err) ?: machine_replace_begin(replacement, err);
	if (code < 0)
		machine_replace_free(replacement);
	return code;
}
