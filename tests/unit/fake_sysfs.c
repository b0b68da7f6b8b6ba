/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_vfio.h: sysfs, read and (drivers of PCI functions) written. */
#include "tests/unit/fake_internal.h"

#include <stdio.h>

#define PCI "/sys/bus/pci/devices/"
#define MDEV "/sys/bus/mdev/devices/"

/* The device whose directory path begins with, and what follows it; NULL when there is none. */
static struct fake_device *sysfs_device(struct fake_kernel *fake, const char *path, const char **rest)
{
	for (int i = 0; i < FAKE_MAX; i++) {
		struct fake_device *device = &fake->devices[i];
		const char *prefix = device->mdev ? MDEV : PCI;
		size_t len = strlen(prefix), name = strlen(device->name);

		if (!device->used || strncmp(path, prefix, len) != 0 || strncmp(path + len, device->name, name) != 0 ||
		    (path[len + name] && path[len + name] != '/'))
			continue;
		*rest = path[len + name] ? path + len + name + 1 : "";
		return device;
	}
	return NULL;
}

int fake_sysfs_readlink(const struct vfio_sys *sys, const char *path, char *buf, size_t size)
{
	struct fake_kernel *fake = fake_of(sys);
	struct fake_device *device;
	const char *rest;

	if (fake_fails(fake))
		return fake->fail_errno;
	device = sysfs_device(fake, path, &rest);
	if (!device)
		return -ENOENT;
	if (!*rest)
		snprintf(buf, size, "../../../devices/x/%s", device->name);
	else if (strcmp(rest, "iommu_group") == 0 && device->group >= 0)
		snprintf(buf, size, "../../../kernel/iommu_groups/%d", device->group);
	else if (strcmp(rest, "subsystem") == 0)
		snprintf(buf, size, "../../../bus/%s", device->mdev ? "mdev" : "pci");
	else if (strcmp(rest, "driver") == 0 && device->driver[0])
		snprintf(buf, size, "../../../bus/pci/drivers/%s", device->driver);
	else if (strcmp(rest, "physfn") == 0 && device->physfn[0])
		snprintf(buf, size, "../%s", device->physfn);
	else
		return -ENOENT;
	return 0;
}

/* The files of a PCI function that hold a number. */
static bool read_number(const struct fake_device *device, const char *file, char *buf, size_t size)
{
	const struct {
		const char *name;
		unsigned int value;
	} files[] = {
		{"vendor", device->vendor},    {"device", device->product},          {"class", device->class_code},
		{"sriov_numvfs", device->vfs}, {"sriov_totalvfs", device->total_vfs},
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (!device->mdev && strcmp(file, files[i].name) == 0) {
			snprintf(buf, size, files[i].name[0] == 's' ? "%u" : "0x%x", files[i].value);
			return true;
		}
	return false;
}

int fake_sysfs_read(const struct vfio_sys *sys, const char *path, char *buf, size_t size)
{
	struct fake_kernel *fake = fake_of(sys);
	struct fake_device *device;
	const char *rest;
	int group;

	if (fake_fails(fake))
		return fake->fail_errno;
	if (sscanf(path, "/sys/kernel/iommu_groups/%d/name", &group) == 1 && group < FAKE_MAX) {
		bool made_up = fake->groups[group].noiommu;

		/* Linux gives the group of a mediated device the same name. */
		for (int i = 0; i < FAKE_MAX; i++)
			made_up |= fake->devices[i].used && fake->devices[i].mdev && fake->devices[i].group == group;
		snprintf(buf, size, "vfio-noiommu");
		return made_up ? 0 : -ENOENT;
	}
	if (strcmp(path, "/proc/sys/kernel/osrelease") == 0) {
		snprintf(buf, size, "7.2.0-fake");
		return 0;
	}
	device = sysfs_device(fake, path, &rest);
	if (device && !device->mdev && strcmp(rest, "modalias") == 0) {
		snprintf(buf, size, "pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X", device->vendor, device->product, 0x1028, 0x07b4,
			 device->class_code >> 16 & 0xff, device->class_code >> 8 & 0xff, device->class_code & 0xff);
		return 0;
	}
	if (device && read_number(device, rest, buf, size))
		return 0;
	if (!device || device->iommu < 0 || fake->iommus[device->iommu].type != IOMMUFD_UAPI_HW_TYPE_VTD)
		return -ENOENT;
	if (strcmp(rest, "iommu/intel-iommu/cap") == 0)
		snprintf(buf, size, "%llx", (unsigned long long)fake->iommus[device->iommu].registers[1]);
	else if (strcmp(rest, "iommu/intel-iommu/ecap") == 0)
		snprintf(buf, size, "%llx", (unsigned long long)fake->iommus[device->iommu].registers[2]);
	else
		return -ENOENT;
	return 0;
}

static bool is_loaded(const struct fake_kernel *fake, const char *driver)
{
	if (strcmp(driver, "vfio-pci") == 0)
		return !fake->no_vfio_pci;
	return !strstr(driver, "vfio") || (fake->variant && strcmp(driver, fake->variant) == 0);
}

int fake_text_open(struct fake_kernel *fake, const char *path)
{
	bool alias = strcmp(path, "/lib/modules/7.2.0-fake/modules.alias") == 0;
	int fd;

	if (!(alias ? fake->alias : fake->modinfo))
		return -ENOENT;
	fd = fake_fd_new(fake, FAKE_FD_TEXT, 0);
	fake_fd(fake, fd)->file = alias ? FAKE_ALIAS : FAKE_MODINFO;
	return fd;
}

ssize_t fake_text_read(struct fake_kernel *fake, struct fake_fd *f, void *buf, size_t len)
{
	const char *text = f->file == FAKE_ALIAS ? fake->alias : fake->modinfo;
	size_t size = f->file == FAKE_ALIAS ? strlen(text) : fake->modinfo_size;

	/* In pieces, as a reader of a large file sees it. */
	len = MIN(MIN(len, size - f->at), (size_t)37);
	memcpy(buf, text + f->at, len);
	f->at += len;
	return (ssize_t)len;
}

int fake_sysfs_list(const struct vfio_sys *sys, const char *path, void (*fn)(void *opaque, const char *name),
		    void *opaque)
{
	struct fake_kernel *fake = fake_of(sys);
	struct fake_device *device;
	const char *rest;
	char name[32];
	int group;

	if (fake_fails(fake))
		return fake->fail_errno;
	if (sscanf(path, "/sys/kernel/iommu_groups/%d/devices", &group) == 1) {
		for (int i = 0; i < FAKE_MAX; i++)
			if (fake->devices[i].used && fake->devices[i].group == group)
				fn(opaque, fake->devices[i].name);
		return 0;
	}
	if (strcmp(path, "/sys/bus/pci/devices") == 0 || strcmp(path, "/sys/bus/mdev/devices") == 0) {
		for (int i = FAKE_MAX; i--;)
			if (fake->devices[i].used && fake->devices[i].mdev == (path[9] == 'm'))
				fn(opaque, fake->devices[i].name);
		return 0;
	}
	if (strcmp(path, "/sys/bus/pci/drivers") == 0) {
		fn(opaque, "igb");
		if (!fake->no_vfio_pci)
			fn(opaque, "vfio-pci");
		if (fake->variant)
			fn(opaque, fake->variant);
		return 0;
	}
	device = sysfs_device(fake, path, &rest);
	if (!device || strcmp(rest, "vfio-dev") != 0 || !device->cdev || !strstr(device->driver, "vfio"))
		return -ENOENT;
	snprintf(name, sizeof(name), "vfio%d", (int)(device - fake->devices));
	fn(opaque, name);
	return 0;
}

/* ---- who drives a function ---- */

static struct fake_device *by_name(struct fake_kernel *fake, const char *name)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (fake->devices[i].used && strcmp(fake->devices[i].name, name) == 0)
			return &fake->devices[i];
	return NULL;
}

int fake_sysfs_open(struct fake_kernel *fake, const char *path)
{
	char name[64], end[32];
	struct fake_device *device = NULL;
	int fd;

	if (sscanf(path, "/sys/bus/pci/devices/%63[^/]/%31s", name, end) == 2 && strcmp(end, "driver_override") == 0)
		device = by_name(fake, name);
	else if (strcmp(path, "/sys/bus/pci/drivers_probe") != 0 &&
		 (sscanf(path, "/sys/bus/pci/drivers/%63[^/]/%31s", name, end) != 2 || strcmp(end, "unbind") != 0))
		return -ENOENT;
	fd = fake_fd_new(fake, FAKE_FD_SYSFS, device ? (int)(device - fake->devices) : 0);
	fake_fd(fake, fd)->file = device ? FAKE_OVERRIDE : path[20] == '_' ? FAKE_PROBE : FAKE_UNBIND;
	return fd;
}

/* As drivers/base/dd.c does, with driver_override before everything. */
static int probe(struct fake_kernel *fake, struct fake_device *device)
{
	const char *driver = device->override[0] ? device->override : device->native;

	if (!device->driver[0] && is_loaded(fake, driver) && !(device->choosy && strstr(driver, "vfio")) && device->class_code >> 8 != 0x604)
		snprintf(device->driver, sizeof(device->driver), "%s", driver);
	return 0;
}

ssize_t fake_sysfs_write(struct fake_kernel *fake, const struct fake_fd *f, const char *text, size_t len)
{
	struct fake_device *device;
	char name[64];

	snprintf(name, sizeof(name), "%.*s", (int)len, text);
	if (f->file == FAKE_OVERRIDE) {
		device = &fake->devices[f->index];
		snprintf(device->override, sizeof(device->override), "%s", strcmp(name, "\n") == 0 ? "" : name);
		return (ssize_t)len;
	}
	device = by_name(fake, name);
	if (!device)
		return -ENODEV;
	if (f->file == FAKE_PROBE)
		return probe(fake, device) ?: (ssize_t)len;
	if (device->stuck)
		return -EBUSY;
	device->driver[0] = 0;
	return (ssize_t)len;
}
