/* SPDX-License-Identifier: Apache-2.0 */
/* See migration.h. */
#include "vfio/migration.h"

#include "vfio/region.h"
#include "vfio/variant.h"

#include <linux/pci_regs.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>

struct vfio_migration {
	const struct vfio_device *device;
	uint32_t flags;
	pthread_mutex_t lock; /* of all below */
	uint32_t state;
	bool saving;    /* from vfio_migration_start until vfio_migration_group_run */
	int data_fd;    /* the session's, or -1 */
	bool no_poll;   /* the driver says "ready" when it is not */
	bool was_reset;
	bool lost;
};

/* ---- What a device can do ---- */

uint32_t vfio_migration_flags(const struct vfio_device *device)
{
	struct vfio_device_feature_migration offered = {0};
	int rc = vfio_device_feature(device, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_MIGRATION, &offered,
				     sizeof(offered));

	return rc < 0 || !(offered.flags & VFIO_MIGRATION_STOP_COPY) ? 0 : (uint32_t)offered.flags;
}

const char *vfio_migration_flags_name(uint32_t flags)
{
	bool p2p = flags & VFIO_MIGRATION_P2P;

	if (!flags)
		return "no";
	if (flags & VFIO_UAPI_MIGRATION_PRE_COPY)
		return p2p ? "pre-copy, p2p" : "pre-copy";
	return p2p ? "stop-copy, p2p" : "stop-copy";
}

int vfio_migration_identity(const struct vfio_device *device, struct vfio_migration_identity *ret, struct err *err)
{
	struct vfio_region config;
	uint8_t head[64] = {0};
	int rc = vfio_region_get(device, VFIO_PCI_CONFIG_REGION_INDEX, &config, err);

	if (rc == 0)
		rc = config.size < sizeof(head) ? -EIO : vfio_region_read(&config, 0, head, sizeof(head));
	if (rc < 0)
		return err_sys(err, -EIO, "vfio %s: read its config space", device->host.name);
	*ret = (struct vfio_migration_identity){
		.vendor = get_le16(head + PCI_VENDOR_ID), .device = get_le16(head + PCI_DEVICE_ID),
		.subsystem_vendor = get_le16(head + PCI_SUBSYSTEM_VENDOR_ID),
		.subsystem = get_le16(head + PCI_SUBSYSTEM_ID),
		.class_code = get_le32(head + PCI_CLASS_REVISION) >> 8, .revision = head[PCI_REVISION_ID],
		.flags = vfio_migration_flags(device),
		.iommu = device->iommu ? device->iommu->type : HOST_IOMMU_NONE,
	};
	return 0;
}

static int vfio_migration_differ(struct err *err, const char *what, int digits, uint32_t source, uint32_t target)
{
	return err_set(err, -ENODEV, "different %s: source 0x%0*x, target 0x%0*x", what, digits, source, digits,
		       target);
}

static bool vfio_migration_known(uint32_t iommu)
{
	return iommu == HOST_IOMMU_VTD || iommu == HOST_IOMMU_SMMUV3 || iommu == HOST_IOMMU_AMD;
}

static const char *vfio_migration_iommu_name(uint32_t iommu)
{
	return host_iommu_type_name((enum host_iommu_type)iommu);
}

int vfio_migration_compare(const struct vfio_migration_identity *source, const struct vfio_migration_identity *target,
			   struct err *err)
{
	const struct {
		const char *what;
		int digits;
		uint32_t source, target;
	} numbers[] = {
		{"vendor", 4, source->vendor, target->vendor},
		{"device", 4, source->device, target->device},
		{"subsystem vendor", 4, source->subsystem_vendor, target->subsystem_vendor},
		{"subsystem", 4, source->subsystem, target->subsystem},
		{"class", 6, source->class_code, target->class_code},
		{"revision", 2, source->revision, target->revision},
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (numbers[i].source != numbers[i].target)
			return vfio_migration_differ(err, numbers[i].what, numbers[i].digits, numbers[i].source,
						     numbers[i].target);
	if (source->flags & ~target->flags)
		return err_set(err, -ENODEV, "different support of migration: source '%s' (0x%x), target '%s' (0x%x)",
			       vfio_migration_flags_name(source->flags), source->flags,
			       vfio_migration_flags_name(target->flags), target->flags);
	if (vfio_migration_known(source->iommu) && vfio_migration_known(target->iommu) &&
	    source->iommu != target->iommu)
		return err_set(err, -ENODEV, "different kind of IOMMU: source %s, target %s",
			       vfio_migration_iommu_name(source->iommu), vfio_migration_iommu_name(target->iommu));
	return 0;
}

/* ---- States ---- */

#define STATE_ERROR VFIO_DEVICE_STATE_ERROR
#define STATE_STOP VFIO_DEVICE_STATE_STOP
#define STATE_RUNNING VFIO_DEVICE_STATE_RUNNING
#define STATE_STOP_COPY VFIO_DEVICE_STATE_STOP_COPY
#define STATE_RESUMING VFIO_DEVICE_STATE_RESUMING
#define STATE_RUNNING_P2P VFIO_DEVICE_STATE_RUNNING_P2P
#define STATE_PRE_COPY VFIO_UAPI_STATE_PRE_COPY
#define STATE_PRE_COPY_P2P VFIO_UAPI_STATE_PRE_COPY_P2P

static const struct {
	const char *name;
	uint32_t needs; /* VFIO_MIGRATION_* without which the device does not have it */
	bool saves;     /* its data is read in one session, which ends when this group of states is left */
} states[VFIO_UAPI_STATES] = {
	[STATE_ERROR] = {"ERROR", 0, false},
	[STATE_STOP] = {"STOP", 0, false},
	[STATE_RUNNING] = {"RUNNING", 0, false},
	[STATE_STOP_COPY] = {"STOP_COPY", VFIO_MIGRATION_STOP_COPY, true},
	[STATE_RESUMING] = {"RESUMING", VFIO_MIGRATION_STOP_COPY, false},
	[STATE_RUNNING_P2P] = {"RUNNING_P2P", VFIO_MIGRATION_P2P, false},
	[STATE_PRE_COPY] = {"PRE_COPY", VFIO_UAPI_MIGRATION_PRE_COPY, true},
	[STATE_PRE_COPY_P2P] = {"PRE_COPY_P2P", VFIO_UAPI_MIGRATION_PRE_COPY | VFIO_MIGRATION_P2P, true},
};

/* The states that a device is to reach. */
enum goal {
	GOAL_PRE_COPY,
	GOAL_P2P,     /* before a stop: writes to no other device */
	GOAL_SAVE,    /* stopped; its state can be read to the end */
	GOAL_LOAD,    /* accepts a state */
	GOAL_STOP,    /* has loaded the state */
	GOAL_RUN_P2P, /* before it runs: not stopped, but writes to no other device yet if it was */
	GOAL_RUN,
	GOALS,
};

/*
 * The next state on the way to a goal, one arc of the protocol each. A state that leads to itself has reached it; 0
 * (ERROR): no arc leads there. A state that the device does not have is skipped: its entry names the one after it.
 */
static const uint8_t ways[GOALS][VFIO_UAPI_STATES] = {
	[GOAL_PRE_COPY] = {
		[STATE_RUNNING] = STATE_PRE_COPY,
		[STATE_PRE_COPY] = STATE_PRE_COPY,
	},
	[GOAL_P2P] = {
		[STATE_RUNNING] = STATE_RUNNING_P2P,
		[STATE_RUNNING_P2P] = STATE_RUNNING_P2P,
		[STATE_PRE_COPY] = STATE_PRE_COPY_P2P,
		[STATE_PRE_COPY_P2P] = STATE_PRE_COPY_P2P,
	},
	[GOAL_SAVE] = {
		[STATE_STOP] = STATE_STOP_COPY,
		[STATE_RUNNING] = STATE_RUNNING_P2P,
		[STATE_STOP_COPY] = STATE_STOP_COPY,
		[STATE_RUNNING_P2P] = STATE_STOP,
		[STATE_PRE_COPY] = STATE_PRE_COPY_P2P,
		[STATE_PRE_COPY_P2P] = STATE_STOP_COPY,
	},
	[GOAL_LOAD] = {
		[STATE_STOP] = STATE_RESUMING,
		[STATE_RUNNING] = STATE_RUNNING_P2P,
		[STATE_RESUMING] = STATE_RESUMING,
		[STATE_RUNNING_P2P] = STATE_STOP,
	},
	[GOAL_STOP] = {
		[STATE_STOP] = STATE_STOP,
		[STATE_RESUMING] = STATE_STOP,
	},
	[GOAL_RUN_P2P] = {
		[STATE_STOP] = STATE_RUNNING_P2P,
		[STATE_RUNNING] = STATE_RUNNING,
		[STATE_STOP_COPY] = STATE_STOP,
		[STATE_RUNNING_P2P] = STATE_RUNNING_P2P,
		[STATE_PRE_COPY] = STATE_PRE_COPY,
		[STATE_PRE_COPY_P2P] = STATE_PRE_COPY_P2P,
	},
	[GOAL_RUN] = {
		[STATE_STOP] = STATE_RUNNING_P2P,
		[STATE_RUNNING] = STATE_RUNNING,
		[STATE_STOP_COPY] = STATE_STOP,
		[STATE_RUNNING_P2P] = STATE_RUNNING,
		[STATE_PRE_COPY] = STATE_RUNNING,
		[STATE_PRE_COPY_P2P] = STATE_RUNNING_P2P,
	},
};

static bool vfio_migration_has_state(const struct vfio_migration *m, uint32_t state)
{
	return (states[state].needs & ~m->flags) == 0;
}

/* The state to set next; m->state if that is the goal, or as near as this device can get. */
static uint32_t vfio_migration_next_state(const struct vfio_migration *m, enum goal goal)
{
	uint32_t next = ways[goal][m->state];

	while (next != STATE_ERROR && !vfio_migration_has_state(m, next)) {
		if (ways[goal][next] == next)
			return m->state;
		next = ways[goal][next];
	}
	return next;
}

static const char *vfio_migration_name_of(const struct vfio_migration *m)
{
	return m->device->host.name;
}

static void vfio_migration_end_session(struct vfio_migration *m)
{
	vfio_sys_close(m->device->sys, &m->data_fd);
}

/* Reads the device's state after a failure. If that fails too, it counts as ERROR. */
static void vfio_migration_ask_state(struct vfio_migration *m)
{
	struct vfio_device_feature_mig_state arg = {0};
	int rc = vfio_device_feature(m->device, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &arg,
				     sizeof(arg));

	m->state = rc < 0 || arg.device_state >= VFIO_UAPI_STATES ? STATE_ERROR : arg.device_state;
}

/* One arc. Keeps the descriptor of a session that it begins, closes that of a session that it ends. */
static int vfio_migration_step(struct vfio_migration *m, uint32_t next, struct err *err)
{
	bool begins = next == STATE_RESUMING || (states[next].saves && !states[m->state].saves);
	struct vfio_device_feature_mig_state arg = {.device_state = next, .data_fd = -1};
	uint32_t from = m->state;
	int rc;

	do
		rc = vfio_device_feature(m->device, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &arg,
					 sizeof(arg));
	while (rc == -EINTR);
	m->state = next;
	if (rc < 0)
		vfio_migration_ask_state(m);
	if (!states[m->state].saves && m->state != STATE_RESUMING)
		vfio_migration_end_session(m);
	if (rc >= 0 && begins) {
		vfio_migration_end_session(m);
		m->data_fd = arg.data_fd;
		m->no_poll = false;
		if (arg.data_fd < 0)
			rc = -EBADF;
	}
	if (rc < 0)
		return err_sys(err, rc, "vfio %s: from %s to %s", vfio_migration_name_of(m), states[from].name,
			       states[next].name);
	return 0;
}

static int vfio_migration_go(struct vfio_migration *m, enum goal goal, struct err *err)
{
	for (unsigned int arcs = 0; arcs < VFIO_UAPI_STATES; arcs++) {
		uint32_t next = vfio_migration_next_state(m, goal);
		int rc;

		if (next == m->state && next != STATE_ERROR)
			return 0;
		if (next == STATE_ERROR)
			break;
		rc = vfio_migration_step(m, next, err);
		if (rc < 0)
			return rc;
	}
	return err_set(err, -EINVAL, "vfio %s: no arc leads on from %s", vfio_migration_name_of(m),
		       states[m->state].name);
}

static int vfio_migration_locked_go(struct vfio_migration *m, enum goal goal, struct err *err)
{
	int rc;

	pthread_mutex_lock(&m->lock);
	rc = vfio_migration_go(m, goal, err);
	pthread_mutex_unlock(&m->lock);
	return rc;
}

/* To RUNNING from any state. */
static int vfio_migration_reset(struct vfio_migration *m, struct err *err)
{
	int rc = vfio_device_reset(m->device);

	vfio_migration_end_session(m);
	vfio_migration_ask_state(m);
	if (rc >= 0 && m->state != STATE_RUNNING)
		rc = -EIO;
	m->lost = rc < 0;
	return rc < 0 ? err_set(err, -EIO,
				"vfio %s: it is in state %s and could not be reset (%s); remove it from the guest",
				vfio_migration_name_of(m), states[m->state].name, strerrordesc_np(-rc)) : 0;
}

bool vfio_migration_precopies(const struct vfio_migration *migration)
{
	return vfio_migration_has_state(migration, STATE_PRE_COPY);
}

uint32_t vfio_migration_state(struct vfio_migration *migration)
{
	uint32_t state;

	pthread_mutex_lock(&migration->lock);
	state = migration->state;
	pthread_mutex_unlock(&migration->lock);
	return state;
}

/* ---- Life cycle ---- */

/* Names the driver that the kernel has for a device which vfio-pci cannot migrate. */
static int vfio_migration_refuse(const struct vfio_device *device, struct err *err)
{
	const struct vfio_host *host = &device->host;
	char module[VFIO_DRIVER_NAME], other[256] = "";

	if (vfio_variant_is_same(host->driver, "vfio-pci") &&
	    vfio_variant_find(device->sys, host->name, module, NULL) == 0 && !vfio_variant_is_same(module, "vfio_pci"))
		snprintf(other, sizeof(other), "; the kernel's modules name another one, which may: 'mvmm vfio bind --driver %s %s'",
			 module, host->name);
	return err_set(err, -ENOTSUP, "vfio %s: its driver on this host (%s) cannot migrate it%s", host->name,
		       host->driver[0] ? host->driver : "unknown", other);
}

int vfio_migration_create(const struct vfio_device *device, struct vfio_migration **ret, struct err *err)
{
	uint32_t flags = vfio_migration_flags(device);
	struct vfio_migration *m;
	int rc;

	if (!flags)
		return vfio_migration_refuse(device, err);
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_sys(err, -ENOMEM, "vfio %s", device->host.name);
	m->device = device;
	m->flags = flags;
	m->data_fd = -1;
	pthread_mutex_init(&m->lock, NULL);
	vfio_migration_ask_state(m);
	rc = m->state == STATE_RUNNING ? 0 : vfio_migration_reset(m, err);
	if (rc < 0) {
		vfio_migration_destroy(m);
		return rc;
	}
	/* Newer kernels then report initial bytes that are new ones (VFIO_PRECOPY_INFO_REINIT). */
	vfio_device_feature(device, VFIO_DEVICE_FEATURE_SET, VFIO_UAPI_FEATURE_PRECOPY_INFO_V2, NULL, 0);
	*ret = m;
	return 0;
}

void vfio_migration_destroy(struct vfio_migration *migration)
{
	if (!migration)
		return;
	if (migration->state != STATE_RUNNING && !migration->lost)
		vfio_migration_reset(migration, NULL);
	vfio_migration_end_session(migration);
	pthread_mutex_destroy(&migration->lock);
	free(migration);
}

const struct vfio_device *vfio_migration_device(const struct vfio_migration *migration)
{
	return migration->device;
}

bool vfio_migration_was_reset(const struct vfio_migration *migration)
{
	return migration->was_reset;
}

bool vfio_migration_is_lost(const struct vfio_migration *migration)
{
	return migration->lost;
}

/* ---- The source ---- */

int vfio_migration_start(struct vfio_migration *migration, struct err *err)
{
	int rc;

	pthread_mutex_lock(&migration->lock);
	rc = vfio_migration_has_state(migration, STATE_PRE_COPY) ? vfio_migration_go(migration, GOAL_PRE_COPY, err) : 0;
	migration->saving = rc == 0;
	pthread_mutex_unlock(&migration->lock);
	return rc;
}

static bool vfio_migration_is_precopying(const struct vfio_migration *m)
{
	return m->state == STATE_PRE_COPY || m->state == STATE_PRE_COPY_P2P;
}

/* Lock held. */
static int vfio_migration_ask_pending(struct vfio_migration *m, struct vfio_migration_pending *ret)
{
	struct vfio_uapi_precopy_info info = {.argsz = sizeof(info)};
	uint64_t size = 0;
	int rc;

	if (vfio_migration_is_precopying(m)) {
		rc = vfio_sys_ioctl(m->device->sys, m->data_fd, VFIO_UAPI_PRECOPY_INFO, &info);
		if (rc < 0)
			return rc;
	}
	rc = vfio_device_feature(m->device, VFIO_DEVICE_FEATURE_GET, VFIO_UAPI_FEATURE_MIG_DATA_SIZE, &size,
				 sizeof(size));
	if (rc < 0 && rc != -ENOTTY)
		return rc;
	*ret = (struct vfio_migration_pending){
		.initial = info.initial_bytes, .dirty = info.dirty_bytes, .stop_known = rc >= 0,
		.stop_copy = rc >= 0 ? size : info.initial_bytes + info.dirty_bytes,
	};
	return 0;
}

int vfio_migration_pending(struct vfio_migration *migration, struct vfio_migration_pending *ret, struct err *err)
{
	int rc;

	pthread_mutex_lock(&migration->lock);
	rc = vfio_migration_ask_pending(migration, ret);
	pthread_mutex_unlock(&migration->lock);
	return rc < 0 ? err_sys(err, rc, "vfio %s: ask for the size of its state", vfio_migration_name_of(migration)) :
			0;
}

/*
 * Lock held. Polls first, because a read could block. In PRE_COPY ENOMSG means "nothing for now"; some drivers return 0
 * bytes instead, or have no poll.
 */
static ssize_t vfio_migration_read_some(struct vfio_migration *m, void *buf, size_t len)
{
	const struct vfio_sys *sys = m->device->sys;
	bool stopped = m->state == STATE_STOP_COPY;
	ssize_t n;

	if (m->data_fd < 0 || !states[m->state].saves)
		return m->saving ? -EAGAIN : -ECANCELED;
	n = sys->ops->poll(sys, m->data_fd, POLLIN, 0);
	if (n > 0)
		n = sys->ops->read(sys, m->data_fd, buf, len);
	else if (n == 0)
		return -EAGAIN;
	if (n > 0)
		m->no_poll = false;
	if (n > 0 || n == -EAGAIN || (n == 0 && stopped))
		return (size_t)MAX(n, 0) > len ? -EIO : n;
	m->no_poll = n == 0 || n == -ENOMSG;
	if (n == -EINTR || (m->no_poll && !stopped))
		return -EAGAIN;
	return n == -ENOMSG ? -EIO : n;
}

ssize_t vfio_migration_read(struct vfio_migration *migration, void *buf, size_t len, struct err *err)
{
	ssize_t n;

	pthread_mutex_lock(&migration->lock);
	n = vfio_migration_read_some(migration, buf, len);
	pthread_mutex_unlock(&migration->lock);
	if (n == -ECANCELED)
		return err_set(err, -ECANCELED, "vfio %s: the migration has been ended",
			       vfio_migration_name_of(migration));
	return n < 0 && n != -EAGAIN ? err_sys(err, (int)n, "vfio %s: read its state",
					       vfio_migration_name_of(migration)) : n;
}

void vfio_migration_wait(struct vfio_migration *migration, int timeout_ms)
{
	const struct vfio_sys *sys = migration->device->sys;
	bool blind;
	int fd;

	pthread_mutex_lock(&migration->lock);
	fd = migration->data_fd;
	blind = migration->no_poll;
	pthread_mutex_unlock(&migration->lock);
	sys->ops->poll(sys, fd, blind ? 0 : POLLIN, timeout_ms);
}

/* ---- The target ---- */

int vfio_migration_load(struct vfio_migration *migration, struct err *err)
{
	return vfio_migration_locked_go(migration, GOAL_LOAD, err);
}

static int vfio_migration_write_all(struct vfio_migration *m, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = m->data_fd < 0 ? -ECANCELED :
					     m->device->sys->ops->write(m->device->sys, m->data_fd, buf, len);

		if (n == -EINTR)
			continue;
		if (n <= 0 || (size_t)n > len)
			return n < 0 ? (int)n : -EIO;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

int vfio_migration_write(struct vfio_migration *migration, const void *buf, size_t len, struct err *err)
{
	int rc;

	pthread_mutex_lock(&migration->lock);
	rc = migration->state == STATE_RESUMING ? vfio_migration_write_all(migration, buf, len) : -EINVAL;
	pthread_mutex_unlock(&migration->lock);
	return rc < 0 ? err_sys(err, rc, "vfio %s: write its state", vfio_migration_name_of(migration)) : 0;
}

int vfio_migration_loaded(struct vfio_migration *migration, struct err *err)
{
	int rc = vfio_migration_locked_go(migration, GOAL_STOP, err);

	return rc < 0 ? err_prefix(err, rc, "the device refuses the state") : 0;
}

/* ---- All devices of a machine ---- */

int vfio_migration_group_check(struct vfio_migration *const *group, size_t count, size_t *which, struct err *err)
{
	for (size_t i = 0; count > 1 && i < count; i++) {
		if (group[i]->flags & VFIO_MIGRATION_P2P)
			continue;
		*which = i;
		return err_set(err, -ENOTSUP,
			       "vfio %s: of %zu devices each must be able to stop its traffic to the others before "
			       "one stops (VFIO_MIGRATION_P2P), and this one's driver cannot",
			       vfio_migration_name_of(group[i]), count);
	}
	return 0;
}

static int vfio_migration_all_to(struct vfio_migration *const *group, size_t count, enum goal goal, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = vfio_migration_locked_go(group[i], goal, err);
	return rc;
}

int vfio_migration_group_stop(struct vfio_migration *const *group, size_t count, struct err *err)
{
	int rc = vfio_migration_all_to(group, count, GOAL_P2P, err);

	if (rc == 0)
		rc = vfio_migration_all_to(group, count, GOAL_SAVE, err);
	if (rc < 0)
		vfio_migration_group_run(group, count, NULL);
	return rc;
}

/* A device in ERROR, or with half a state, can only be reset. From other states the arcs are tried twice first. */
static int vfio_migration_run_one(struct vfio_migration *m, enum goal goal, struct err *err)
{
	struct err why;
	int rc = -EIO;

	pthread_mutex_lock(&m->lock);
	m->saving = m->lost = false;
	for (int tries = 0; tries < 2 && rc < 0; tries++) {
		vfio_migration_ask_state(m);
		rc = vfio_migration_go(m, goal, &why);
	}
	if (rc < 0) {
		log_warn(m->device->log, "%s", why.text);
		rc = vfio_migration_reset(m, err);
		m->was_reset |= rc == 0;
		if (rc == 0)
			log_warn(m->device->log, "vfio %s: it has been reset, and its driver must set it up anew",
				 vfio_migration_name_of(m));
	}
	pthread_mutex_unlock(&m->lock);
	return MIN(rc, 0);
}

int vfio_migration_group_run(struct vfio_migration *const *group, size_t count, struct err *err)
{
	static const enum goal goals[] = {GOAL_RUN_P2P, GOAL_RUN};
	int ret = 0;

	for (size_t g = 0; g < ARRAY_SIZE(goals); g++)
		for (size_t i = 0; i < count; i++) {
			int rc = g && group[i]->lost ? 0 :
						       vfio_migration_run_one(group[i], goals[g], ret ? NULL : err);

			ret = ret ?: rc;
		}
	return ret;
}
