/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_machine.h. */
#include "tests/unit/fake_machine.h"

#include "vmm/kvm/vcpu.h"
#include "vmm/machine/disk_copies.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/session/host_devices_migration.h"

struct machine machine;


enum machine_end machine_end(const struct machine *m)
{
	return m->end;
}

bool machine_paused(const struct machine *m)
{
	return m->paused;
}

int machine_pause(struct machine *m, int64_t deadline, struct err *err)
{
	m->deadline = deadline;
	if (m->not_yet) {
		m->not_yet--;
		return -EINPROGRESS;
	}
	if (m->pause_code)
		return err_set(err, m->pause_code, "cannot be paused: disk0: slow");
	m->pauses++;
	m->paused = true;
	return 0;
}

void machine_unpause(struct machine *m)
{
	m->unpauses++;
}

void machine_resume(struct machine *m)
{
	m->resumes++;
	m->paused = false;
}

int machine_save(struct machine *m, struct state_buffer *out, struct err *err)
{
	return m->save_fails ? err_set(err, -EIO, "vcpu0 fails") : state_buffer_add(out, "state", 5);
}

void machine_unlock_disks(struct machine *m)
{
	m->locked = false;
}

int machine_lock_disks(struct machine *m, struct err *err)
{
	if (m->lock_fails)
		return err_set(err, -EBUSY, "disk0 is in use");
	m->locked = true;
	return 0;
}

struct guest_memory *machine_memory(const struct machine *m)
{
	return m->memory ?: (struct guest_memory *)&machine;
}

struct dirty_set *machine_dirty(struct machine *m)
{
	return &m->dirty;
}

struct vcpu_set *machine_vcpus(const struct machine *m)
{
	return (struct vcpu_set *)&machine;
}

size_t machine_virtio_count(const struct machine *m)
{
	return 1;
}

struct virtio_device *machine_virtio(const struct machine *m, size_t index)
{
	return &machine.disk;
}

struct host_devices *machine_host_devices(struct machine *m)
{
	return (struct host_devices *)&machine;
}

struct slots *machine_slots(const struct machine *m)
{
	return NULL;
}

int slots_check_present(const struct slots *slots, struct err *err)
{
	return 0;
}

int machine_offer(struct machine *m, enum migration_copy copy, char **ret, struct err *err)
{
	if (m->offer_fails)
		return err_set(err, -ENOTSUP, "the machine cannot be described");
	*ret = strdup("{}");
	return 0;
}

const char *virtio_blk_guard(struct virtio_device *disk)
{
	return machine.guard;
}

void vcpu_set_pause(struct vcpu_set *set)
{
	machine.vcpu_pauses++;
}

void vcpu_set_resume(struct vcpu_set *set)
{
	machine.vcpu_pauses--;
}

/* ---- its disks and host devices ---- */

bool disk_copies_wanted(struct virtio_device *device, enum migration_copy which)
{
	return which != MIGRATION_COPY_NONE;
}

size_t disk_copies_of(const struct machine *m, enum migration_copy which, struct disk_copy ret[WIRE_MAX_DISKS])
{
	ret[0] = (struct disk_copy){.id = "disk0"};
	return which != MIGRATION_COPY_NONE && !m->diskless;
}

size_t disk_copies_shared(const struct machine *m, enum migration_copy which, struct disk_shared ret[WIRE_MAX_DISKS])
{
	ret[0] = (struct disk_shared){.id = "disk0"};
	return which == MIGRATION_COPY_NONE;
}

int disk_copies_track(const struct machine *m, enum migration_copy which, struct err *err)
{
	if (m->track_fails)
		return err_set(err, -ENOMEM, "disk0: out of memory");
	machine.tracked++;
	return 0;
}

void disk_copies_untrack(const struct machine *m, enum migration_copy which)
{
	machine.tracked--;
}

int host_devices_migration_begin(struct host_devices *devices, const char *name, enum host_devices_purpose purpose,
				 struct host_devices_migration **ret, struct err *err)
{
	if (machine.devices_fail)
		return err_set(err, -ENOTSUP, "vfio a: cannot be migrated");
	machine.moving++;
	*ret = (struct host_devices_migration *)&machine;
	return 0;
}

void host_devices_migration_end(struct host_devices_migration *migration)
{
	machine.moving -= !!migration;
}

const char *host_devices_migration_id(const struct host_devices_migration *migration, size_t index)
{
	return "a";
}

size_t host_devices_migration_group(const struct host_devices_migration *migration, struct vfio_migration *const **ret)
{
	*ret = NULL;
	return 0;
}

uint64_t host_devices_migration_untold(const struct host_devices_migration *migration, const char **id)
{
	*id = "a";
	return MIB(64);
}

int host_devices_migration_start(struct host_devices_migration *migration, struct err *err)
{
	machine.devices = 1;
	return 0;
}

int host_devices_migration_stop(struct host_devices_migration *migration, struct err *err)
{
	machine.devices = 2;
	return 0;
}

int host_devices_migration_run(struct host_devices_migration *migration, struct err *err)
{
	machine.devices = 0;
	return machine.runs_badly ? err_set(err, -EIO, "vfio a: does not run again") : 0;
}
