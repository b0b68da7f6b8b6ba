/* SPDX-License-Identifier: Apache-2.0 */
/* See host.h. */
#include "vfio/host.h"

#include <ctype.h>
#include <stdio.h>

#define GROUPS "/sys/kernel/iommu_groups"

void vfio_uuid_text(const uint8_t uuid[16], char text[37])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*text++ = '-';
		*text++ = digits[uuid[i] >> 4];
		*text++ = digits[uuid[i] & 15];
	}
	*text = 0;
}

static int vfio_host_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int vfio_uuid_parse(const char *text, uint8_t uuid[16])
{
	uint8_t parsed[16];

	for (int i = 0; i < 16; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return -EINVAL;
		high = vfio_host_hex_digit(text[0]);
		low = high < 0 ? -1 : vfio_host_hex_digit(text[1]);
		if (low < 0)
			return -EINVAL;
		parsed[i] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (*text)
		return -EINVAL;
	memcpy(uuid, parsed, sizeof(parsed));
	return 0;
}

/* The sysfs directory of spec. */
static int vfio_host_sysfs_path(const char *spec, char *path, size_t size, struct err *err)
{
	unsigned int domain = 0, bus, device, function;
	uint8_t uuid[16];
	int end = 0, n;

	if (spec[0] == '/') {
		n = snprintf(path, size, "%s", spec);
		while (n > 1 && n < (int)size && path[n - 1] == '/')
			path[--n] = 0;
	} else if (vfio_uuid_parse(spec, uuid) == 0) {
		n = snprintf(path, size, "/sys/bus/mdev/devices/%s", spec);
	} else if ((sscanf(spec, "%4x:%2x:%2x.%1x%n", &domain, &bus, &device, &function, &end) == 4 && !spec[end]) ||
		   (domain = 0, sscanf(spec, "%2x:%2x.%1x%n", &bus, &device, &function, &end) == 3 && !spec[end])) {
		n = snprintf(path, size, "/sys/bus/pci/devices/%04x:%02x:%02x.%x", domain, bus, device, function);
	} else {
		return err_set(err, -EINVAL, "neither a PCI address (0000:01:00.0), a UUID nor a path under /sys");
	}
	return n < (int)size ? 0 : err_set(err, -EINVAL, "the path is too long");
}

/* The last part of the target of a link in path; "" if there is no such link. Returns other failures. */
static int vfio_host_link_name(const struct vfio_sys *sys, const char *path, const char *link, char *name, size_t size)
{
	char full[512], target[512];
	int rc;

	snprintf(full, sizeof(full), "%s/%s", path, link);
	rc = sys->ops->readlink(sys, full, target, sizeof(target));
	name[0] = 0;
	if (rc == 0)
		snprintf(name, size, "%s", strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
	return rc == -ENOENT || rc == -EINVAL ? 0 : rc;
}

static void vfio_host_take_cdev(void *opaque, const char *name)
{
	struct vfio_host *host = opaque;

	if (strncmp(name, "vfio", 4) == 0)
		snprintf(host->cdev, sizeof(host->cdev), "/dev/vfio/devices/%.40s", name);
}

static int vfio_host_find_cdev(const struct vfio_sys *sys, struct vfio_host *host)
{
	char path[512];
	int rc;

	snprintf(path, sizeof(path), "%s/vfio-dev", host->path);
	rc = sys->ops->list(sys, path, vfio_host_take_cdev, host);
	return rc == -ENOENT ? 0 : rc;
}

static int vfio_host_find_group(const struct vfio_sys *sys, struct vfio_host *host)
{
	char text[64], *end, path[512];
	int rc = vfio_host_link_name(sys, host->path, "iommu_group", text, sizeof(text));

	host->group = -1;
	if (rc < 0 || !text[0])
		return rc;
	host->group = (int)strtol(text, &end, 10);
	if (*end)
		return -EINVAL;
	snprintf(path, sizeof(path), GROUPS "/%d/name", host->group);
	rc = sys->ops->read_file(sys, path, text, sizeof(text));
	/* The group that the kernel makes for a mediated device has the same name. */
	if (rc == 0)
		host->noiommu = !host->mdev && strcmp(text, "vfio-noiommu") == 0;
	return rc == -ENOENT ? 0 : rc;
}

int vfio_host_find(const struct vfio_sys *sys, const char *spec, struct vfio_host *host, struct err *err)
{
	struct vfio_host found = {.group = -1};
	char bus[64];
	int rc = vfio_host_sysfs_path(spec, found.path, sizeof(found.path), err);

	if (rc < 0)
		return rc;
	rc = vfio_host_link_name(sys, found.path, "subsystem", bus, sizeof(bus));
	if (rc == 0 && !bus[0])
		return err_set(err, -ENODEV,
			       "there is no such device on this host; 'mvmm vfio list' shows those there are");
	snprintf(found.name, sizeof(found.name), "%.63s", strrchr(found.path, '/') + 1);
	found.mdev = strcmp(bus, "mdev") == 0;
	if (rc == 0)
		rc = vfio_host_link_name(sys, found.path, "driver", found.driver, sizeof(found.driver));
	if (rc == 0)
		rc = vfio_host_find_cdev(sys, &found);
	if (rc == 0)
		rc = vfio_host_find_group(sys, &found);
	if (rc < 0)
		return err_sys(err, rc, "read %s", found.path);
	*host = found;
	return 0;
}

/* vfio-pci, mlx5_vfio_pci, vfio_mdev, ... */
static bool vfio_host_is_vfio(const char *driver)
{
	return strstr(driver, "vfio") != NULL;
}

int vfio_host_check_bound(const struct vfio_host *host, struct err *err)
{
	if (!vfio_host_is_vfio(host->driver) && !host->cdev[0])
		return err_set(err, -ENODEV, "it %s%s; give it to VFIO with 'mvmm vfio bind %s'",
			       host->driver[0] ? "is in use by the host's driver " : "has no driver", host->driver,
			       host->name);
	if (host->group < 0 && !host->cdev[0])
		return err_set(err, -ENODEV,
			       "it is in no IOMMU group: this host has no IOMMU, or it is off (kernel command line: "
			       "intel_iommu=on on Intel, and the IOMMU enabled in the firmware); see 'mvmm doctor'");
	return 0;
}

void vfio_host_group_path(const struct vfio_host *host, char path[64])
{
	snprintf(path, 64, host->noiommu ? "/dev/vfio/noiommu-%d" : "/dev/vfio/%d", host->group);
}

int vfio_host_open_failed(const struct vfio_host *host, const char *file, int rc, struct err *err)
{
	switch (rc) {
	case -EACCES:
	case -EPERM:
		return err_set(err, rc, "no right to open %s: run as root, or give it to your user: chown \"$USER\" %s",
			       file, file);
	case -EBUSY:
		return err_set(err, rc, "%s is in use by another process; 'fuser -v %s /dev/vfio/devices/*' shows which", file,
			       file);
	case -ENOENT:
	case -ENODEV:
		if (strcmp(file, "/dev/iommu") == 0)
			return err_set(err, rc,
				       "this kernel has no iommufd (%s); load it with 'modprobe iommufd', or use "
				       "backend=legacy", file);
		if (strcmp(file, "/dev/vfio/vfio") == 0)
			return err_set(err, rc, "this kernel has no VFIO containers (%s); load them with "
				       "'modprobe vfio_iommu_type1', or use backend=iommufd", file);
		return err_set(err, rc, "%s is not there; give %s to VFIO with 'mvmm vfio bind %s'", file, host->name,
			       host->name);
	}
	return err_sys(err, rc, "open %s", file);
}

struct members {
	const struct vfio_sys *sys;
	char text[256]; /* " 0000:01:00.1 (igb)", as many as fit */
	size_t used;
};

static void vfio_host_add_member(void *opaque, const char *name)
{
	struct members *m = opaque;
	char path[512], driver[64];
	int n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.64s", name);
	if (vfio_host_link_name(m->sys, path, "driver", driver, sizeof(driver)) < 0 || !driver[0] ||
	    vfio_host_is_vfio(driver))
		return;
	n = snprintf(m->text + m->used, sizeof(m->text) - m->used, " %.64s (%.32s)", name, driver);
	m->used = MIN(m->used + (size_t)n, sizeof(m->text) - 1);
}

int vfio_host_not_viable(const struct vfio_sys *sys, const struct vfio_host *host, struct err *err)
{
	struct members members = {.sys = sys};
	char path[64];

	snprintf(path, sizeof(path), GROUPS "/%d/devices", host->group);
	sys->ops->list(sys, path, vfio_host_add_member, &members);
	if (!members.text[0])
		return err_set(err, -EPERM,
			       "IOMMU group %d (/dev/vfio/%d) is in use: another process or the host has a "
			       "device of it", host->group, host->group);
	return err_set(err, -EPERM,
		       "IOMMU group %d (/dev/vfio/%d) has other members that the host uses:%s; take them all with "
		       "'mvmm vfio bind --group %s'", host->group, host->group, members.text, host->name);
}
