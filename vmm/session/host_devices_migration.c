/* SPDX-License-Identifier: Apache-2.0 */
/* See host_devices_migration.h. */
#include "vmm/session/host_devices_migration.h"


struct host_devices_migration {
	struct host_devices *devices;
	enum host_devices_purpose purpose;
	size_t count;
	struct vfio_migration **group;
	size_t *index; /* of each device in devices */
};

static int host_devices_migration_refuse(const struct host_devices_migration *migration,
					 const struct vfio_pci_info *info, const char *machine, int code,
					 struct err *err)
{
	struct err why = *err;

	return err_set(err, code, "--vfio %s: %s%s; remove it first: mvmm vfio remove %s %s", info->id, why.text,
		       migration->purpose == HOST_DEVICES_SNAPSHOT ? ", and a snapshot needs its state" : "", machine,
		       info->id);
}

static void host_devices_migration_info_of(const struct host_devices_migration *migration, size_t i,
					   struct vfio_pci_info *info)
{
	host_devices_info(migration->devices, migration->index[i], info);
}

static int host_devices_migration_add(struct host_devices_migration *migration, size_t index, const char *machine,
				      struct err *err)
{
	struct vfio_pci_info info, other;
	struct vfio_migration *device;
	size_t at = migration->count;
	int code;

	host_devices_info(migration->devices, index, &info);
	code = info.fenced ? err_set(err, -ENOTSUP, "it has failed and is fenced") :
			     vfio_migration_create(info.device, &device, err);
	if (code < 0)
		return host_devices_migration_refuse(migration, &info, machine, code, err);
	for (; at > 0; at--) {
		host_devices_migration_info_of(migration, at - 1, &other);
		if (strcmp(other.id, info.id) < 0)
			break;
		migration->group[at] = migration->group[at - 1];
		migration->index[at] = migration->index[at - 1];
	}
	migration->group[at] = device;
	migration->index[at] = index;
	migration->count++;
	return 0;
}

/* Whether they can be migrated together. */
static int host_devices_migration_check(const struct host_devices_migration *migration, const char *machine,
					struct err *err)
{
	struct vfio_pci_info info;
	size_t which;
	int code = vfio_migration_group_check(migration->group, migration->count, &which, err);

	if (code == 0)
		return 0;
	host_devices_migration_info_of(migration, which, &info);
	return host_devices_migration_refuse(migration, &info, machine, code, err);
}

int host_devices_migration_begin(struct host_devices *devices, const char *machine, enum host_devices_purpose purpose,
				 struct host_devices_migration **ret, struct err *err)
{
	static const char *const blockers[] = {
		[HOST_DEVICES_MIGRATE] = "the machine is being migrated; try again when it has arrived, or after mvmm "
					 "migrate --cancel",
		[HOST_DEVICES_SNAPSHOT] = "a snapshot of the machine is being taken; try again after it",
	};
	struct host_devices_migration *migration = calloc(1, sizeof(*migration));
	size_t count = host_devices_count(devices);
	struct err local;
	int code = 0;

	err = err ?: &local;
	if (!migration)
		return err_sys(err, -ENOMEM, "migrate host devices");
	migration->devices = devices;
	migration->purpose = purpose;
	migration->group = calloc(count + 1, sizeof(*migration->group));
	migration->index = calloc(count + 1, sizeof(*migration->index));
	if (!migration->group || !migration->index)
		code = err_sys(err, -ENOMEM, "migrate host devices");
	for (size_t i = 0; i < count && code == 0; i++)
		code = host_devices_migration_add(migration, i, machine, err);
	if (code == 0)
		code = host_devices_migration_check(migration, machine, err);
	if (code == 0)
		code = host_devices_set_blocker(devices, blockers[purpose], err);
	if (code < 0) {
		host_devices_migration_end(migration);
		return code;
	}
	*ret = migration;
	return 0;
}

void host_devices_migration_end(struct host_devices_migration *migration)
{
	if (!migration)
		return;
	for (size_t i = 0; i < migration->count; i++)
		vfio_migration_destroy(migration->group[i]);
	host_devices_set_blocker(migration->devices, NULL, NULL);
	free(migration->group);
	free(migration->index);
	free(migration);
}

const char *host_devices_migration_id(const struct host_devices_migration *migration, size_t index)
{
	struct vfio_pci_info info;

	host_devices_migration_info_of(migration, index, &info);
	return info.id;
}

size_t host_devices_migration_group(const struct host_devices_migration *migration, struct vfio_migration *const **ret)
{
	*ret = migration->group;
	return migration->count;
}

uint64_t host_devices_migration_untold(const struct host_devices_migration *migration, const char **id)
{
	const struct vfio_device *who = NULL;
	uint64_t bytes = 0;

	*id = NULL;
	if (migration->count)
		bytes = vfio_device_untracked(vfio_migration_device(migration->group[0])->space, &who);
	for (size_t i = 0; who && i < migration->count; i++)
		if (vfio_migration_device(migration->group[i]) == who)
			*id = host_devices_migration_id(migration, i);
	return bytes;
}

int host_devices_migration_start(struct host_devices_migration *migration, struct err *err)
{
	int code = 0;

	for (size_t i = 0; code == 0 && i < migration->count; i++)
		code = vfio_migration_start(migration->group[i], err);
	if (code < 0)
		vfio_migration_group_run(migration->group, migration->count, NULL);
	return code;
}

int host_devices_migration_stop(struct host_devices_migration *migration, struct err *err)
{
	return vfio_migration_group_stop(migration->group, migration->count, err);
}

int host_devices_migration_run(struct host_devices_migration *migration, struct err *err)
{
	int code = vfio_migration_group_run(migration->group, migration->count, err);

	for (size_t i = 0; i < migration->count; i++)
		if (vfio_migration_is_lost(migration->group[i]))
			host_devices_cut_off(migration->devices, migration->index[i]);
	return code;
}

int host_devices_migration_check_whole(const struct host_devices_migration *migration, struct err *err)
{
	for (size_t i = 0; i < migration->count; i++)
		if (vfio_migration_was_reset(migration->group[i]))
			return err_set(err, -EIO,
				       "vfio %s: it did not run with the received state and had to be reset",
				       host_devices_migration_id(migration, i));
	return 0;
}
