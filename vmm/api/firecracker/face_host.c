/* SPDX-License-Identifier: Apache-2.0 */
/* See face_host.h. */
#include "vmm/api/firecracker/face_host.h"

#include "core/thread.h"
#include "vfio/given.h"
#include "vmm/machine/host_devices.h"

#include <stdio.h>

#define REMOVE_MS 30000
#define PASSTHROUGH "Device passthrough error: "

/* "01:02.3" is "0000:01:02.3". */
static const char *face_host_short(const char *sbdf)
{
	return strncmp(sbdf, "0000:", 5) == 0 ? sbdf + 5 : sbdf;
}

/* Hexadecimal digits, as in "0000:01:02.3" or "01:02.3". */
static bool face_host_is_address(const char *sbdf)
{
	unsigned int domain, bus, slot, function;
	char rest;

	return strspn(sbdf, "0123456789abcdefABCDEF:.") == strlen(sbdf) &&
	       (sscanf(sbdf, "%4x:%2x:%2x.%1x%c", &domain, &bus, &slot, &function, &rest) == 4 ||
		sscanf(sbdf, "%2x:%2x.%1x%c", &bus, &slot, &function, &rest) == 3);
}

static int face_host_check(struct face *face, const struct fc_host_device *body, struct err *err)
{
	if (!face->options->enable_pci)
		return err_set(err, -EOPNOTSUPP, "PCI is not enabled");
	if (!face_host_is_address(body->sbdf))
		return err_set(err, -EINVAL, PASSTHROUGH "`%.40s` is no SBDF; write 0000:01:02.3 or 01:02.3", body->sbdf);
	for (size_t i = 0; i < face->host_count; i++)
		if (strcmp(face_host_short(face->hosts[i].body.sbdf), face_host_short(body->sbdf)) == 0 &&
		    strcmp(face->hosts[i].body.id, body->id) != 0)
			return err_set(err, -EEXIST, "Duplicate device passthrough SBDF");
	if (face->host_count == FACE_MAX_DEVICES && !face_find_host(face, body->id))
		return err_set(err, -ENOSPC, PASSTHROUGH "no more devices fit");
	return 0;
}

/* name: mvmm's id, or NULL to make one. */
static void face_host_keep(struct face *face, struct fc_host_device *body, const char *name)
{
	struct face_host *host = face_find_host(face, body->id);

	if (!host) {
		host = &face->hosts[face->host_count++];
		*host = (struct face_host){0};
		if (name)
			memcpy(host->name, name, sizeof(host->name));
		else
			face_name(face, "vfio", body->id, host->name);
	}
	body_done(&fc_host_device, &host->body);
	body_update(&fc_host_device, &host->body, body);
}

/* ---- while it runs ---- */

struct opening {
	const char *device;
	struct vfio_given *given;
	struct err *err;
};

/* With the rights of the process, as everything that requests name. */
static int face_host_do_open(void *argument)
{
	const struct opening *opening = argument;

	return vfio_given_open(vfio_sys_host(), opening->device, host_devices_want(VFIO_BACKEND_AUTO), opening->given,
			       opening->err);
}

static void face_host_progress(void *opaque, const char *what, uint64_t done, uint64_t total)
{
}

static void face_host_added(void *opaque, const char *id, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct err why = {""};

	if (code)
		err_set(&why, code, PASSTHROUGH "%s", err->text);
	else
		face_host_keep(request->face, &request->body.host, request->name);
	face_finish(request, code, &why);
}

static int face_host_add(struct face_request *request, struct err *err)
{
	const struct operated *operated = request->face->operated;
	const struct add_device_reply reply = {face_host_progress, face_host_added, request};
	_cleanup_(vfio_given_close) struct vfio_given given = {.count = 0};
	struct opening opening = {request->body.host.sbdf, &given, err};
	char text[100];
	int code;

	if (face_find_host(request->face, request->id))
		return err_set(err, -EEXIST, "Device ID in use");
	face_name(request->face, "vfio", request->id, request->name);
	snprintf(text, sizeof(text), "%s,id=%s", request->body.host.sbdf, request->name);
	code = thread_call(face_host_do_open, &opening);
	code = code ?: operated->ops->add_device(operated->session, "vfio", text, &given, &reply, err);
	return code ? err_prefix(err, code, "Device passthrough error") : FACE_LATER;
}

int face_host_put(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	int code = face_host_check(face, &request->body.host, err);

	if (code)
		return code;
	if (face->phase != FACE_BEFORE)
		return face_host_add(request, err);
	face_host_keep(face, &request->body.host, NULL);
	face->configured = true;
	return 0;
}

static void face_host_removed(void *opaque, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct face *face = request->face;
	struct face_host *host = code ? NULL : face_find_host(face, request->id);

	if (host) {
		body_done(&fc_host_device, &host->body);
		face->host_count--;
		memmove(host, host + 1, (size_t)(&face->hosts[face->host_count] - host) * sizeof(*host));
	}
	face_finish(request, code, err);
}

int face_host_remove(struct face_request *request, struct err *err)
{
	const struct operated *operated = request->face->operated;
	const struct face_host *host = face_find_host(request->face, request->id);
	int code;

	if (!request->face->options->enable_pci)
		return err_set(err, -EOPNOTSUPP, "PCI is not enabled");
	if (!host)
		return err_set(err, -ENODEV, "Device not found");
	code = operated->ops->remove_device(operated->session, "vfio", host->name, true, REMOVE_MS, face_host_removed, request, err);
	return code ?: FACE_LATER;
}
