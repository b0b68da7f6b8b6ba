/* SPDX-License-Identifier: Apache-2.0 */
/* See migration_machine.h: its host devices. */
#include "tests/unit/migration_machine.h"

#include <stdio.h>

#define BUS(fake) ((fake) == &(fake)->rig->source ? 1 : 2)

void describe_devices(struct fake *fake, struct rig *rig)
{
	static const uint32_t flags[DEVICES] = {
		VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_UAPI_MIGRATION_PRE_COPY,
		VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
	};
	char name[32];

	for (int i = 0; i < DEVICES; i++) {
		struct fake_device *device;

		snprintf(name, sizeof(name), "0000:0%d:0%d.0", fake == &rig->source ? 1 : 2, i);
		device = fake_device(rig->kernel, name, fake_group(rig->kernel), fake_iommu(rig->kernel, true));
		fake_migrates(device, flags[i]);
		fake->inside[i] = &device->migration;
	}
}

int open_devices(struct fake *fake, struct err *err)
{
	const struct vfio_space_options options = {
		.sys = &fake->rig->kernel->sys, .memory = fake->memory, .dirty = &fake->dirty,
	};
	int code = vfio_space_create(&options, &fake->space, err);
	char name[32];

	for (int i = 0; i < DEVICES && !code; i++) {
		snprintf(name, sizeof(name), "0000:0%d:0%d.0", BUS(fake), i);
		code = vfio_device_open(fake->space, &(struct vfio_device_options){.device = name}, &fake->devices[i], err);
		code = code ?: vfio_migration_create(fake->devices[i], &fake->group[i], err);
	}
	return code;
}

void close_devices(struct fake *fake)
{
	for (int i = 0; i < DEVICES; i++) {
		vfio_migration_destroy(fake->group[i]);
		vfio_device_close(fake->devices[i]);
	}
	vfio_space_destroy(fake->space);
}

bool devices_are(const struct fake *fake, uint32_t state)
{
	const struct rig *rig = fake->rig;
	bool right = true;

	for (int i = 0; i < DEVICES && rig->kernel; i++)
		right &= fake->inside[i]->state == state && !vfio_migration_was_reset(fake->group[i]) &&
			 memcmp(fake->inside[i]->inside, rig->source.inside[i]->inside, FAKE_INSIDE) == 0;
	return right;
}

size_t do_devices(void *opaque, struct vfio_migration *const **ret)
{
	struct fake *fake = opaque;

	*ret = fake->group;
	return fake->rig->kernel ? DEVICES : 0;
}

int start_devices(void *opaque, struct err *err)
{
	struct fake *fake = opaque;
	int code = 0;

	for (int i = 0; i < DEVICES && !code; i++)
		code = vfio_migration_start(fake->group[i], err);
	if (code)
		vfio_migration_group_run(fake->group, DEVICES, NULL);
	return code;
}

int stop_devices(void *opaque, struct err *err)
{
	struct fake *fake = opaque;

	return fake->running ? err_set(err, -EINVAL, "the guest runs") : vfio_migration_group_stop(fake->group, DEVICES, err);
}

void run_devices(void *opaque)
{
	struct fake *fake = opaque;

	vfio_migration_group_run(fake->group, DEVICES, NULL);
}

size_t target_devices(void *opaque, struct vfio_migration *const **ret)
{
	return do_devices(&((struct rig *)opaque)->target, ret);
}

static void fail_arc(struct fake_migration *inside, uint32_t to, uint32_t into)
{
	inside->fail_to = to;
	inside->fail_into = into;
	inside->fail_errno = -EIO;
	inside->fail_times = 1;
}

void order_failure(struct rig *rig)
{
	struct fake_migration *first = rig->source.inside[0];

	if (rig->options->fail == RIG_DEVICE_START)
		fail_arc(first, VFIO_UAPI_STATE_PRE_COPY, VFIO_DEVICE_STATE_RUNNING);
	else if (rig->options->fail == RIG_DEVICE_STOP)
		fail_arc(first, VFIO_DEVICE_STATE_STOP_COPY, VFIO_UAPI_STATE_PRE_COPY_P2P);
	else if (rig->options->fail == RIG_DEVICE_READ)
		rig->source.inside[1]->fail_read = -EIO;
	else if (rig->options->fail == RIG_DEVICE_WRITE)
		rig->target.inside[0]->fail_write = -EIO;
	else if (rig->options->fail == RIG_DEVICE_STATE)
		rig->source.inside[1]->inside[FAKE_INSIDE - 1] = 0;
}
