/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See fake_vfio.h: how devices of the fake kernel migrate. They know the single arcs of the protocol and no
 * combinations, so that whoever asks for one is found out. Each arc is in the journal, with the device's number.
 */
#include "tests/unit/fake_internal.h"

#include <poll.h>

#define STOP VFIO_DEVICE_STATE_STOP
#define RUNNING VFIO_DEVICE_STATE_RUNNING
#define STOP_COPY VFIO_DEVICE_STATE_STOP_COPY
#define RESUMING VFIO_DEVICE_STATE_RESUMING
#define RUNNING_P2P VFIO_DEVICE_STATE_RUNNING_P2P
#define PRE_COPY VFIO_UAPI_STATE_PRE_COPY
#define PRE_COPY_P2P VFIO_UAPI_STATE_PRE_COPY_P2P

#define MARK 0x5a

static const char *const names[VFIO_UAPI_STATES] = {
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
};

/* <linux/vfio.h>, and what becomes of arcs where the state between is missing. */
enum { ALWAYS, WITH_P2P, WITHOUT_P2P };
static const struct { uint32_t from, to; int when; bool precopy; } arcs[] = {
	{RUNNING_P2P, STOP, WITH_P2P, false},         {STOP_COPY, STOP, ALWAYS, false},
	{RESUMING, STOP, ALWAYS, false},              {PRE_COPY, RUNNING, ALWAYS, true},
	{RUNNING_P2P, RUNNING, WITH_P2P, false},      {PRE_COPY_P2P, RUNNING_P2P, WITH_P2P, true},
	{RUNNING, RUNNING_P2P, WITH_P2P, false},      {STOP, RUNNING_P2P, WITH_P2P, false},
	{RUNNING, PRE_COPY, ALWAYS, true},            {RUNNING_P2P, PRE_COPY_P2P, WITH_P2P, true},
	{STOP, STOP_COPY, ALWAYS, false},             {PRE_COPY, PRE_COPY_P2P, WITH_P2P, true},
	{PRE_COPY_P2P, PRE_COPY, WITH_P2P, true},     {PRE_COPY_P2P, STOP_COPY, WITH_P2P, true},
	{STOP, RESUMING, ALWAYS, false},              {RUNNING, STOP, WITHOUT_P2P, false},
	{STOP, RUNNING, WITHOUT_P2P, false},          {PRE_COPY, STOP_COPY, WITHOUT_P2P, true},
};

void fake_migrates(struct fake_device *device, uint32_t flags)
{
	device->migration.flags = flags;
	device->migration.initial_size = 40;
	for (size_t i = 0; i < FAKE_INSIDE; i++)
		device->migration.inside[i] = (uint8_t)(i * 7 + (uint8_t)device->name[6]);
	device->migration.inside[FAKE_INSIDE - 1] = MARK;
}

static bool is_arc(const struct fake_migration *m, uint32_t to)
{
	bool p2p = m->flags & VFIO_MIGRATION_P2P, precopy = m->flags & VFIO_UAPI_MIGRATION_PRE_COPY;

	for (size_t i = 0; i < ARRAY_SIZE(arcs); i++)
		if (arcs[i].from == m->state && arcs[i].to == to)
			return (precopy || !arcs[i].precopy) && (arcs[i].when == ALWAYS || p2p == (arcs[i].when == WITH_P2P));
	return false;
}

static bool saves(uint32_t state)
{
	return state == STOP_COPY || state == PRE_COPY || state == PRE_COPY_P2P;
}

static int finish_resume(struct fake_migration *m)
{
	if (m->taken < FAKE_INSIDE || m->tail[FAKE_INSIDE - 1] != MARK)
		return -EINVAL;
	memcpy(m->inside, m->tail, FAKE_INSIDE);
	return 0;
}

static int set_state(struct fake_kernel *fake, struct fake_device *device, struct vfio_device_feature_mig_state *arg)
{
	struct fake_migration *m = &device->migration;
	uint32_t to = arg->device_state, from = m->state;

	arg->data_fd = -1;
	if (!is_arc(m, to))
		return -EINVAL;
	if (to == m->fail_to && m->fail_times) {
		m->fail_times--;
		m->state = m->fail_into;
		return m->fail_errno;
	}
	if (from == RESUMING && finish_resume(m) < 0)
		return -EINVAL;
	m->state = to;
	fake_note(fake, names[to], (uint64_t)(device - fake->devices));
	if (to == STOP_COPY)
		m->left = FAKE_INSIDE;
	if (saves(to) && !saves(from)) {
		m->initial = to == STOP_COPY ? 0 : m->initial_size;
		m->dirty = 0;
	}
	m->taken = 0;
	if (to == RESUMING || (saves(to) && !saves(from)))
		arg->data_fd = m->no_session ? -1 : fake_fd_new(fake, FAKE_FD_STATE, (int)(device - fake->devices));
	return 0;
}

int fake_migration_feature(struct fake_kernel *fake, struct fake_device *device, struct vfio_device_feature *arg)
{
	struct vfio_device_feature_migration *offered = (void *)arg->data;
	struct vfio_device_feature_mig_state *state = (void *)arg->data;
	struct fake_migration *m = &device->migration;

	if (!m->flags)
		return -ENOTTY;
	switch (arg->flags & VFIO_DEVICE_FEATURE_MASK) {
	case VFIO_DEVICE_FEATURE_MIGRATION:
		offered->flags = m->flags;
		return 0;
	case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
		if (arg->flags & VFIO_DEVICE_FEATURE_SET)
			return set_state(fake, device, state);
		*state = (struct vfio_device_feature_mig_state){.device_state = m->state, .data_fd = -1};
		return 0;
	case VFIO_UAPI_FEATURE_MIG_DATA_SIZE:
		if (m->no_data_size)
			return -ENOTTY;
		*(uint64_t *)(void *)arg->data = (saves(m->state) ? m->initial + m->dirty : 0) +
						 (m->state == STOP_COPY ? m->left : FAKE_INSIDE);
		return 0;
	case VFIO_UAPI_FEATURE_PRECOPY_INFO_V2:
		m->v2 = !m->no_precopy_v2;
		return m->v2 ? 0 : -ENOTTY;
	}
	return -ENOTTY;
}

int fake_migration_reset(struct fake_kernel *fake, struct fake_device *device)
{
	if (!(device->flags & VFIO_DEVICE_FLAGS_RESET) || device->migration.refuse_reset)
		return -EINVAL;
	device->migration.state = RUNNING;
	device->migration.resets++;
	memset(device->migration.inside, 0, FAKE_INSIDE);
	fake_note(fake, "reset", (uint64_t)(device - fake->devices));
	fake_pci_was_reset(fake, device);
	return 0;
}

void fake_migration_closed(struct fake_device *device)
{
	device->migration.state = RUNNING;
}

/* ---- The session ---- */

int fake_state_ioctl(struct fake_device *device, unsigned long request, void *arg)
{
	struct fake_migration *m = &device->migration;
	struct vfio_uapi_precopy_info *info = arg;

	if (request != VFIO_UAPI_PRECOPY_INFO || !(m->flags & VFIO_UAPI_MIGRATION_PRE_COPY))
		return -ENOTTY;
	if (info->argsz < sizeof(*info) || (m->state != PRE_COPY && m->state != PRE_COPY_P2P))
		return -EINVAL;
	info->flags = m->v2 && m->reinit ? VFIO_UAPI_PRECOPY_REINIT : 0;
	info->initial_bytes = m->initial;
	info->dirty_bytes = m->dirty;
	m->reinit = false;
	return 0;
}

static void give(uint64_t *left, uint8_t value, uint8_t *buf, size_t len, size_t *done)
{
	size_t now = MIN(*left, len - *done);

	memset(buf + *done, value, now);
	*left -= now;
	*done += now;
}

ssize_t fake_state_read(struct fake_device *device, void *buf, size_t len)
{
	struct fake_migration *m = &device->migration;
	size_t done = 0, now;

	if (!saves(m->state) || m->fail_read)
		return m->fail_read ?: -ENODEV;
	len = MIN(len, m->piece ?: SIZE_MAX);
	give(&m->initial, 0xa5, buf, len, &done);
	give(&m->dirty, 0xd1, buf, len, &done);
	m->given += done;
	if (m->state != STOP_COPY)
		return done || m->no_poll ? (ssize_t)done : -ENOMSG;
	now = MIN(len - done, m->left);
	memcpy((uint8_t *)buf + done, m->inside + FAKE_INSIDE - m->left, now);
	m->left -= now;
	m->given += now;
	return (ssize_t)(done + now);
}

ssize_t fake_state_write(struct fake_device *device, const void *buf, size_t len)
{
	struct fake_migration *m = &device->migration;
	size_t keep;

	if (m->state != RESUMING || m->fail_write)
		return m->fail_write ?: -ENODEV;
	len = MIN(len, m->piece ?: SIZE_MAX);
	keep = MIN(len, FAKE_INSIDE);
	memmove(m->tail, m->tail + keep, FAKE_INSIDE - keep);
	memcpy(m->tail + FAKE_INSIDE - keep, (const uint8_t *)buf + len - keep, keep);
	m->taken += len;
	m->got += len;
	return (ssize_t)len;
}

short fake_state_poll(const struct fake_device *device, short events)
{
	const struct fake_migration *m = &device->migration;

	if (!saves(m->state))
		return POLLERR;
	return m->no_poll || m->state == STOP_COPY || m->initial || m->dirty ? events & POLLIN : 0;
}
