/* SPDX-License-Identifier: Apache-2.0 */
/* See binding.h. */
#include "vfio/binding.h"

#include "vfio/variant.h"

#include <fcntl.h>
#include <stdio.h>

#define PCI "/sys/bus/pci"
#define VFIO_PCI "vfio-pci"
#define MAX_FUNCTIONS 4096u

/* Names of a directory, sorted. */
struct names {
	char (*list)[64];
	size_t count, room;
	int code;
};

static void vfio_binding_add_name(void *opaque, const char *name)
{
	struct names *names = opaque;

	if (names->code < 0 || names->count == MAX_FUNCTIONS)
		return;
	if (names->count == names->room) {
		size_t room = names->room ? names->room * 2 : 32;
		void *grown = realloc(names->list, room * sizeof(names->list[0]));

		if (!grown) {
			names->code = -ENOMEM;
			return;
		}
		names->list = grown;
		names->room = room;
	}
	snprintf(names->list[names->count++], sizeof(names->list[0]), "%.63s", name);
}

static int vfio_binding_by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* The caller frees names->list. A directory that does not exist is empty. */
static int vfio_binding_read_names(const struct vfio_sys *sys, const char *path, struct names *names)
{
	int ret = sys->ops->list(sys, path, vfio_binding_add_name, names);

	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (names->code < 0)
		return names->code;
	if (names->count)
		qsort(names->list, names->count, sizeof(names->list[0]), vfio_binding_by_name);
	return 0;
}

static unsigned long vfio_binding_read_number(const struct vfio_sys *sys, const char *name, const char *file)
{
	char path[256], text[32];

	snprintf(path, sizeof(path), PCI "/devices/%.64s/%s", name, file);
	return sys->ops->read_file(sys, path, text, sizeof(text)) < 0 ? 0 : strtoul(text, NULL, 0);
}

/* ---- Listing ---- */

struct group_check {
	const struct vfio_sys *sys;
	bool shared;
};

/* vfio-pci and its relatives may share a group with each other, with driverless devices and with bridges. */
static void vfio_binding_check_member(void *opaque, const char *name)
{
	struct group_check *check = opaque;
	struct vfio_host host;

	if (vfio_host_find(check->sys, name, &host, NULL) == 0 && host.driver[0] && !strstr(host.driver, "vfio") &&
	    vfio_binding_read_number(check->sys, name, "class") >> 8 != 0x0604 && strcmp(host.driver, "pci-stub") != 0)
		check->shared = true;
}

/* A process has the group open, or a device of it by its own file. */
static bool vfio_binding_is_open(const struct vfio_sys *sys, const struct vfio_host *host)
{
	char path[64];
	bool busy;
	int fd;

	snprintf(path, sizeof(path), "/dev/vfio/%d", host->group);
	fd = sys->ops->open(sys, path, O_RDWR);
	busy = fd == -EBUSY;
	vfio_sys_close(sys, &fd);
	return busy;
}

static enum vfio_fitness vfio_binding_fitness_of(const struct vfio_sys *sys, const struct vfio_function *function)
{
	struct group_check check = {.sys = sys};
	char path[64];

	if (function->class_code >> 16 == 0x06)
		return VFIO_FIT_BRIDGE;
	if (function->host.group < 0 || function->host.noiommu)
		return VFIO_FIT_NO_IOMMU;
	if (!strstr(function->host.driver, "vfio"))
		return VFIO_FIT_BOUND_ELSE;
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d/devices", function->host.group);
	sys->ops->list(sys, path, vfio_binding_check_member, &check);
	if (check.shared)
		return VFIO_FIT_SHARED;
	return vfio_binding_is_open(sys, &function->host) ? VFIO_FIT_IN_USE : VFIO_FIT_READY;
}

int vfio_binding_each(const struct vfio_sys *sys, void (*fn)(void *opaque, const struct vfio_function *function),
		      void *opaque, struct err *err)
{
	struct names names = {0};
	int ret = vfio_binding_read_names(sys, PCI "/devices", &names);

	for (size_t i = 0; i < names.count && ret == 0; i++) {
		const char *name = names.list[i];
		struct vfio_function function = {0};
		char path[256], target[256];

		/* Leaves out a function that is removed meanwhile. */
		if (vfio_host_find(sys, name, &function.host, NULL) < 0)
			continue;
		function.vendor = (uint16_t)vfio_binding_read_number(sys, name, "vendor");
		function.device = (uint16_t)vfio_binding_read_number(sys, name, "device");
		function.class_code = (uint32_t)vfio_binding_read_number(sys, name, "class");
		function.vfs = (unsigned int)vfio_binding_read_number(sys, name, "sriov_numvfs");
		function.total_vfs = (unsigned int)vfio_binding_read_number(sys, name, "sriov_totalvfs");
		snprintf(path, sizeof(path), PCI "/devices/%.64s/physfn", name);
		if (sys->ops->readlink(sys, path, target, sizeof(target)) == 0)
			snprintf(function.parent, sizeof(function.parent), "%.63s",
				 strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
		function.fitness = vfio_binding_fitness_of(sys, &function);
		fn(opaque, &function);
	}
	free(names.list);
	return ret < 0 ? err_sys(err, ret, "read " PCI "/devices") : 0;
}

int vfio_binding_each_mdev(const struct vfio_sys *sys, void (*fn)(void *opaque, const char *name), void *opaque,
			   struct err *err)
{
	struct names names = {0};
	int ret = vfio_binding_read_names(sys, "/sys/bus/mdev/devices", &names);

	for (size_t i = 0; i < names.count && ret == 0; i++)
		fn(opaque, names.list[i]);
	free(names.list);
	return ret < 0 ? err_sys(err, ret, "read /sys/bus/mdev/devices") : 0;
}

/* ---- Binding and unbinding ---- */

/* What is to be done, to one function or to several. */
struct change {
	const struct vfio_sys *sys;
	const char *driver; /* that was asked for; NULL: the kernel's own match */
	vfio_binding_fn *changed;
	void *opaque;
};

static int vfio_binding_write_file(const struct vfio_sys *sys, const char *path, const char *text, struct err *err)
{
	int fd = sys->ops->open(sys, path, O_WRONLY);
	ssize_t done;

	if (fd == -EACCES || fd == -EPERM)
		return err_set(err, fd, "no right to write %s: run it as root", path);
	if (fd < 0)
		return err_sys(err, fd, "%s", path);
	done = sys->ops->pwrite(sys, fd, text, strlen(text), 0);
	vfio_sys_close(sys, &fd);
	return done < 0 ? err_sys(err, (int)done, "write '%s' to %s", text[0] == '\n' ? "" : text, path) : 0;
}

/* Sets the override ("" clears it), unbinds the function from its driver and lets the kernel choose a driver. */
static int vfio_binding_hand_over(const struct vfio_sys *sys, const struct vfio_host *host, const char *driver,
				  struct err *err)
{
	char path[256];
	int ret;

	snprintf(path, sizeof(path), PCI "/devices/%s/driver_override", host->name);
	ret = vfio_binding_write_file(sys, path, driver[0] ? driver : "\n", err);
	if (ret == 0 && host->driver[0]) {
		snprintf(path, sizeof(path), PCI "/drivers/%s/unbind", host->driver);
		ret = vfio_binding_write_file(sys, path, host->name, err);
	}
	return ret < 0 ? ret : vfio_binding_write_file(sys, PCI "/drivers_probe", host->name, err);
}

/* Undoes a hand-over that failed half way. before is the function as it was. */
static void vfio_binding_give_back(const struct vfio_sys *sys, const struct vfio_host *before)
{
	struct vfio_host host;
	char path[256];

	if (vfio_host_find(sys, before->name, &host, NULL) < 0)
		return;
	if (strstr(host.driver, "vfio") || strstr(before->driver, "vfio")) {
		vfio_binding_hand_over(sys, &host, strstr(before->driver, "vfio") ? before->driver : "", NULL);
		return;
	}
	snprintf(path, sizeof(path), PCI "/devices/%s/driver_override", host.name);
	vfio_binding_write_file(sys, path, "\n", NULL);
	if (!host.driver[0])
		vfio_binding_write_file(sys, PCI "/drivers_probe", host.name, NULL);
}

static int vfio_binding_find(const struct vfio_sys *sys, const char *spec, struct vfio_host *host, struct err *err)
{
	int ret = vfio_host_find(sys, spec, host, err);

	return ret < 0 ? err_prefix(err, ret, "%s", spec) : 0;
}

struct driver_search {
	const char *want;
	char found[VFIO_DRIVER_NAME];
};

static void vfio_binding_check_driver(void *opaque, const char *name)
{
	struct driver_search *search = opaque;

	if (vfio_variant_is_same(name, search->want))
		snprintf(search->found, sizeof(search->found), "%.63s", name);
}

/*
 * The driver that a function is to have, as the kernel spells it: the one asked for, or the one that its modules name.
 */
static int vfio_binding_choose_driver(const struct change *change, const char *name, char driver[VFIO_DRIVER_NAME],
				      struct err *err)
{
	char module[VFIO_DRIVER_NAME];
	struct driver_search search = {.want = change->driver ?: module};
	int ret = change->driver ? 0 : vfio_variant_find(change->sys, name, module, err);

	if (ret < 0)
		return ret;
	if (change->driver && !strstr(change->driver, "vfio"))
		return err_set(err, -EINVAL, "--driver %.63s: not a driver of VFIO", search.want);
	if (vfio_variant_is_same(search.want, VFIO_PCI))
		search.want = VFIO_PCI;
	ret = change->sys->ops->list(change->sys, PCI "/drivers", vfio_binding_check_driver, &search);
	if (ret < 0)
		return err_sys(err, ret, "read " PCI "/drivers");
	if (!search.found[0] && (change->driver || strcmp(search.want, VFIO_PCI) == 0))
		return err_set(err, -ENODEV, "%s: driver %.63s is not loaded; load it with 'modprobe %.63s'", name,
			       search.want, search.want);
	if (!search.found[0])
		return err_set(err, -ENODEV, "%s: the kernel's VFIO driver for it, %.63s, is not loaded; load it with "
			       "'modprobe %.63s', or use --driver vfio-pci, with which it may lack functions such as "
			       "migration", name, search.want, search.want);
	memcpy(driver, search.found, VFIO_DRIVER_NAME);
	return 0;
}

/* Hands the function to a driver that is loaded, or leaves it as it was. */
static int vfio_binding_move(const struct vfio_sys *sys, const struct vfio_host *before, const char *driver,
			     struct err *err)
{
	struct vfio_host host;
	int ret = vfio_binding_hand_over(sys, before, driver, err);

	if (ret == 0)
		ret = vfio_binding_find(sys, before->name, &host, err);
	if (ret == 0 && strcmp(host.driver, driver) != 0)
		ret = err_set(err, -ENODEV, "%s: %s does not take it; the kernel's log may say why", before->name,
			      driver);
	if (ret < 0)
		vfio_binding_give_back(sys, before);
	return ret;
}

/* These two return 1 if the driver has changed, 0 if there was nothing to do. */
static int vfio_binding_bind_one(const struct change *change, const char *name, struct err *err)
{
	char driver[VFIO_DRIVER_NAME];
	struct vfio_host host;
	int ret = vfio_binding_find(change->sys, name, &host, err);
	bool bound = ret == 0 && strstr(host.driver, "vfio");

	if (ret < 0 || (bound && (!change->driver || vfio_variant_is_same(host.driver, change->driver))))
		return ret;
	if (vfio_binding_read_number(change->sys, host.name, "class") >> 16 == 0x06)
		return err_set(err, -EINVAL, "%s is a bridge, which cannot be passed through; name a device behind it",
			       name);
	if (bound && vfio_binding_is_open(change->sys, &host))
		return err_set(err, -EBUSY, "%s: a process uses it through %s", host.name, host.driver);
	ret = vfio_binding_choose_driver(change, host.name, driver, err);
	if (ret == 0)
		ret = vfio_binding_move(change->sys, &host, driver, err);
	if (ret < 0)
		return ret;
	change->changed(change->opaque, host.name, driver);
	return 1;
}

static int vfio_binding_unbind_one(const struct change *change, const char *name, struct err *err)
{
	struct vfio_host host;
	int ret = vfio_binding_find(change->sys, name, &host, err);

	if (ret < 0 || !strstr(host.driver, "vfio"))
		return ret;
	ret = vfio_binding_hand_over(change->sys, &host, "", err);
	if (ret == 0)
		ret = vfio_binding_find(change->sys, host.name, &host, err);
	if (ret < 0)
		return ret;
	change->changed(change->opaque, host.name, host.driver);
	return 1;
}

typedef int one_fn(const struct change *change, const char *name, struct err *err);

/* Undoes the binding of a function that had this driver before. */
static void vfio_binding_undo(const struct change *change, const char *name, const char *before)
{
	struct change back = *change;

	back.driver = before;
	if (strstr(before, "vfio"))
		vfio_binding_bind_one(&back, name, NULL);
	else
		vfio_binding_unbind_one(&back, name, NULL);
}

/* Calls one for every member of a group except bridges. If one fails, those before it are bound as they were. */
static int vfio_binding_each_member(const struct change *change, const struct names *names, one_fn *one, bool undo,
				    struct err *err)
{
	_cleanup_(free_ptr) struct vfio_host *before = calloc(names->count + 1, sizeof(*before));
	int ret = before ? 0 : err_sys(err, -ENOMEM, "the members of the group");
	size_t i = 0;

	for (; i < names->count && ret >= 0; i++) {
		ret = vfio_binding_find(change->sys, names->list[i], &before[i], err);
		if (ret == 0 && vfio_binding_read_number(change->sys, names->list[i], "class") >> 16 != 0x06)
			ret = one(change, names->list[i], err);
		if (ret == 0)
			before[i].name[0] = 0; /* nothing to undo */
	}
	if (ret < 0 && undo)
		while (i-- > 1)
			if (before[i - 1].name[0])
				vfio_binding_undo(change, before[i - 1].name, before[i - 1].driver);
	return ret;
}

static int vfio_binding_each_of_group(const struct change *change, const struct vfio_host *host, one_fn *one, bool undo,
				      struct err *err)
{
	struct names names = {0};
	char path[64];
	int ret;

	if (host->group < 0)
		return err_set(err, -ENODEV, "%s is in no IOMMU group; leave --group out", host->name);
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d/devices", host->group);
	ret = vfio_binding_read_names(change->sys, path, &names);
	ret = ret < 0 ? err_sys(err, ret, "read %s", path) :
			vfio_binding_each_member(change, &names, one, undo, err);
	free(names.list);
	return ret;
}

static int vfio_binding_change(const struct change *change, const char *spec, bool group, one_fn *one, bool undo,
			       struct err *err)
{
	struct vfio_host host;
	int ret = vfio_binding_find(change->sys, spec, &host, err);

	if (ret < 0)
		return ret;
	if (host.mdev)
		return err_set(err, -EINVAL, "%s is a mediated device, which needs no bind", spec);
	ret = group ? vfio_binding_each_of_group(change, &host, one, undo, err) : one(change, host.name, err);
	return MIN(ret, 0);
}

int vfio_binding_bind(const struct vfio_sys *sys, const char *spec, bool group, const char *driver,
		      vfio_binding_fn *changed, void *opaque, struct err *err)
{
	const struct change change = {.sys = sys, .driver = driver, .changed = changed, .opaque = opaque};

	return vfio_binding_change(&change, spec, group, vfio_binding_bind_one, true, err);
}

int vfio_binding_unbind(const struct vfio_sys *sys, const char *spec, bool group, vfio_binding_fn *changed,
			void *opaque, struct err *err)
{
	const struct change change = {.sys = sys, .changed = changed, .opaque = opaque};

	return vfio_binding_change(&change, spec, group, vfio_binding_unbind_one, false, err);
}
