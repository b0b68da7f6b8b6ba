/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_devices.h. */
#include "vmm/jail/jail_devices.h"

#include "vmm/jail/jail_fds.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* What a machine opens again, or a device of it does. A name that ends with a slash is a folder of such. */
static const char *const jail_devices[] = {
	"kvm", "net/tun", "vhost-net", "vhost-vsock", "iommu", "vfio/",
};

static bool jail_devices_is_one(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(jail_devices); i++) {
		size_t len = strlen(jail_devices[i]);

		if (jail_devices[i][len - 1] == '/' ? strncmp(name, jail_devices[i], len) == 0 && name[len] != '.' :
						      strcmp(name, jail_devices[i]) == 0)
			return true;
	}
	return false;
}

/* "net" of "net/tun". */
static int jail_devices_make_folders(int dev_fd, const char *name)
{
	char folder[64];

	for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - name), name);
		if (mkdirat(dev_fd, folder, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/* The host's node, over an empty file. */
static int jail_devices_bind(int dev_fd, const char *name)
{
	_cleanup_(fd_close) int file = openat(dev_fd, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDONLY | O_CLOEXEC, 0600);
	char from[96], to[32];

	if (file < 0)
		return -errno;
	snprintf(from, sizeof(from), "/dev/%s", name);
	snprintf(to, sizeof(to), "/proc/self/fd/%d", file);
	return mount(from, to, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

static int jail_devices_make_one(int dev_fd, const char *name, dev_t number, unsigned int uid, unsigned int gid)
{
	int code = jail_devices_make_folders(dev_fd, name);

	if (code)
		return code;
	if (mknodat(dev_fd, name, S_IFCHR | 0600, number) < 0)
		return errno == EEXIST ? 0 : errno == EPERM ? jail_devices_bind(dev_fd, name) : -errno;
	return uid && fchownat(dev_fd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

struct jail_devices {
	int dev_fd;
	unsigned int uid, gid;
	char path[80]; /* of the last one that was made */
};

static int jail_devices_on_fd(void *opaque, int fd, const struct stat *st)
{
	struct jail_devices *devices = opaque;
	char link[32], path[sizeof(devices->path)] = "";

	if (!S_ISCHR(st->st_mode))
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (readlink(link, path, sizeof(path) - 1) < 5 || strncmp(path, "/dev/", 5) != 0 || !jail_devices_is_one(path + 5))
		return 0;
	memcpy(devices->path, path, sizeof(path));
	return jail_devices_make_one(devices->dev_fd, path + 5, st->st_rdev, devices->uid, devices->gid);
}

int jail_devices_make(int dev_fd, unsigned int uid, unsigned int gid, struct err *err)
{
	struct jail_devices devices = {.dev_fd = dev_fd, .uid = uid, .gid = gid, .path = "the open files"};
	int code = jail_fds_each(jail_devices_on_fd, &devices);

	return code ? err_sys(err, code, "--jail: %.60s", devices.path) : 0;
}
