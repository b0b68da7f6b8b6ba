/* SPDX-License-Identifier: Apache-2.0 */
/* See given.h. */
#include "vfio/given.h"

#include <fcntl.h>
#include <stdio.h>

int vfio_given_add(struct vfio_given *given, const char *path, int fd)
{
	struct vfio_given_file *file = &given->files[given->count];
	int rc = given->count == ARRAY_SIZE(given->files) ? -ENOSPC : strlen(path) >= sizeof(file->path) ? -ENAMETOOLONG : 0;

	if (rc < 0) {
		vfio_sys_close(given->sys ?: vfio_sys_host(), &fd);
		return rc;
	}
	snprintf(file->path, sizeof(file->path), "%s", path);
	file->fd = fd;
	given->count++;
	return 0;
}

int vfio_given_take(struct vfio_given *given, const char *path)
{
	for (size_t i = 0; i < given->count; i++)
		if (given->files[i].fd >= 0 && strcmp(given->files[i].path, path) == 0)
			return take_fd(&given->files[i].fd);
	return -EBUSY;
}

int vfio_given_file(struct vfio_given *given, const struct vfio_sys *sys, const char *path)
{
	return given ? vfio_given_take(given, path) : sys->ops->open(sys, path, O_RDWR);
}

void vfio_given_close(struct vfio_given *given)
{
	while (given->count)
		vfio_sys_close(given->sys ?: vfio_sys_host(), &given->files[--given->count].fd);
}

/* ---- opening ---- */

static int vfio_given_open_file(struct vfio_given *given, const char *path)
{
	int fd = given->sys->ops->open(given->sys, path, O_RDWR);

	return fd < 0 ? fd : vfio_given_add(given, path, fd);
}

static int vfio_given_open_each(struct vfio_given *given, const char *const paths[2], struct err *err)
{
	for (size_t i = 0; i < 2; i++) {
		int rc = vfio_given_open_file(given, paths[i]);

		if (rc < 0)
			return vfio_host_open_failed(&given->host, paths[i], rc, err);
	}
	return 0;
}

/* A group can be opened once: a machine that has it already needs no other descriptor. */
static int vfio_given_open_group(struct vfio_given *given, struct err *err)
{
	char path[64];
	int rc = vfio_given_open_file(given, "/dev/vfio/vfio");

	if (rc < 0)
		return vfio_host_open_failed(&given->host, "/dev/vfio/vfio", rc, err);
	vfio_host_group_path(&given->host, path);
	rc = vfio_given_open_file(given, path);
	return rc < 0 && rc != -EBUSY ? vfio_host_open_failed(&given->host, path, rc, err) : 0;
}

static int vfio_given_open_found(struct vfio_given *given, enum vfio_want backend, struct err *err)
{
	struct vfio_host *host = &given->host;
	const char *const paths[] = {"/dev/iommu", host->cdev};
	bool chosen = backend == VFIO_WANT_IOMMUFD, group = backend == VFIO_WANT_LEGACY || host->noiommu;
	int rc;

	if (!group && chosen && !host->cdev[0])
		return err_set(err, -ENODEV, "this kernel makes no /dev/vfio/devices file for it; use backend=legacy");
	if (!group && host->cdev[0]) {
		rc = vfio_given_open_each(given, paths, err);
		if (rc != -ENOENT || given->count || chosen)
			return rc;
	}
	host->cdev[0] = 0; /* the machine takes the group, too */
	return vfio_given_open_group(given, err);
}

int vfio_given_open(const struct vfio_sys *sys, const char *spec, enum vfio_want backend, struct vfio_given *ret,
		    struct err *err)
{
	struct vfio_given given = {.sys = sys};
	int rc = vfio_host_find(sys, spec, &given.host, err);

	rc = rc < 0 ? rc : vfio_host_check_bound(&given.host, err);
	rc = rc < 0 ? rc : vfio_given_open_found(&given, backend, err);
	if (rc < 0)
		vfio_given_close(&given);
	else
		*ret = given;
	return rc < 0 ? err_prefix(err, rc, "--vfio %s", spec) : 0;
}
