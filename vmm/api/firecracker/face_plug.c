/* SPDX-License-Identifier: Apache-2.0 */
/* See face_plug.h. */
#include "vmm/api/firecracker/face_plug.h"

#include "core/thread.h"
#include "devices/virtio/virtio.h"
#include "vmm/api/firecracker/face_before.h"

#include <fcntl.h>

#define REMOVE_MS 30000

static int face_plug_check(const struct face *face, struct err *err)
{
	return face->options->enable_pci ? 0 : err_set(err, -EOPNOTSUPP, "PCI is not enabled");
}

static void face_plug_set_rate(json_t *device, const char *key, const struct fc_token_bucket *bucket, bool given, bool ops)
{
	const struct rate rate = face_rate(bucket, given, ops);
	char text[NUMBER_RATE_TEXT];

	if (rate.given)
		json_object_set_new(device, key, json_string(number_format_rate(&rate, ops, text)));
}

static void face_plug_set_limiter(json_t *device, const struct fc_rate_limiter *limiter, const char *bandwidth, const char *ops)
{
	face_plug_set_rate(device, bandwidth, &limiter->bandwidth, FC_GIVEN(fc_rate_limiter, *limiter, bandwidth), false);
	face_plug_set_rate(device, ops, &limiter->ops, FC_GIVEN(fc_rate_limiter, *limiter, ops), true);
}

/* The log of the machine has it. */
static void face_plug_progress(void *opaque, const char *what, uint64_t done, uint64_t total)
{
}

/* Starts to add the device, which is taken, with the request's descriptor. */
static int face_plug_add(struct face_request *request, const char *option, json_t *device,
			 void (*done)(void *opaque, const char *id, int code, const struct err *err), struct err *err)
{
	const struct operated *operated = request->face->operated;
	const struct add_device_reply reply = {face_plug_progress, done, request};
	int code = device ? operated->ops->add_passed(operated->session, option, device, &request->fd, 1, &reply, err) :
			    err_sys(err, -ENOMEM, "the request");

	json_decref(device);
	return code ?: FACE_LATER;
}

/* ---- drives ---- */

static void face_plug_drive_added(void *opaque, const char *id, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct face *face = request->face;
	struct face_drive *drive = &face->drives[face->drive_count];
	struct err why = {""};

	if (code) {
		err_set(&why, code, "Drive config error: Unable to create the virtio block device: %s", err->text);
	} else {
		*drive = (struct face_drive){.fd = -1};
		memcpy(drive->name, request->name, sizeof(drive->name));
		body_update(&fc_drive, &drive->body, &request->body.drive);
		face->drive_count++;
	}
	face_finish(request, code, &why);
}

static int face_plug_add_drive(struct face_request *request, struct err *err)
{
	const struct fc_drive *body = &request->body.drive;
	int code = face_plug_check(request->face, err) ?: face_before_check_drive(request->face, body, err);
	json_t *device;

	if (!code && face_find_drive(request->face, body->drive_id))
		code = err_set(err, -EEXIST, "Device ID in use");
	if (!code && (body->is_root_device || request->face->drive_count == FACE_MAX_DEVICES))
		code = err_set(err, -EINVAL, "Drive config error: %s", body->is_root_device ?
			       "a root device is there from the start or not at all" : "no more drives fit");
	if (code)
		return code;
	code = face_file(request, body->path_on_host, body->is_read_only ? O_RDONLY : O_RDWR, &request->fd, err);
	if (code)
		return err_prefix(err, code, "Drive config error: Unable to create the virtio block device");
	face_name(request->face, "drive", body->drive_id, request->name);
	device = json_pack("{s:s, s:s, s:b, s:b}", "path", body->path_on_host, "id", request->name, "readonly", body->is_read_only,
			   "lock", 0);
	face_plug_set_limiter(device, &body->rate_limiter, "bandwidth", "ops");
	return face_plug_add(request, "disk", device, face_plug_drive_added, err);
}

int face_plug_drive(struct face_request *request, struct err *err)
{
	return request->face->phase == FACE_BEFORE ? face_before_drive(request, err) : face_plug_add_drive(request, err);
}

/* ---- network interfaces ---- */

static void face_plug_net_added(void *opaque, const char *id, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct face *face = request->face;
	struct face_net *net = &face->nets[face->net_count];
	struct err why = {""};

	if (code) {
		err_set(&why, code, "Network config error: Could not create the network device: %s", err->text);
	} else {
		*net = (struct face_net){.fd = -1};
		memcpy(net->name, request->name, sizeof(net->name));
		body_update(&fc_net, &net->body, &request->body.net);
		face->net_count++;
	}
	face_finish(request, code, &why);
}

struct tap_opening {
	struct face_request *request;
	struct err *err;
};

static int face_plug_do_open_tap(void *argument)
{
	const struct tap_opening *opening = argument;
	struct face_request *request = opening->request;

	int code = virtio_net_open_tap(request->body.net.host_dev_name, 1, &request->fd, opening->err);

	return code ? err_prefix(opening->err, code, "Network config error: Could not create the network device: Open tap device failed") : 0;
}

static int face_plug_add_net(struct face_request *request, struct err *err)
{
	const struct fc_net *body = &request->body.net;
	int code = face_plug_check(request->face, err) ?: face_before_check_net(request->face, body, err);
	json_t *device;

	if (!code && face_find_net(request->face, body->iface_id))
		code = err_set(err, -EEXIST, "Device ID in use");
	if (!code && request->face->net_count == FACE_MAX_DEVICES)
		code = err_set(err, -ENOSPC, "Network config error: no more interfaces fit");
	if (code)
		return code;
	request->fd = face_take_passed(request);
	code = request->fd >= 0 ? face_before_check_tap(request->fd, body->host_dev_name, err) :
				  thread_call(face_plug_do_open_tap, &(struct tap_opening){request, err});
	if (code)
		return code;
	face_name(request->face, "net", body->iface_id, request->name);
	device = json_pack("{s:s, s:s, s:s*}", "tap", body->host_dev_name, "id", request->name, "mac", body->guest_mac);
	face_plug_set_limiter(device, &body->rx_rate_limiter, "rx-bandwidth", "rx-packets");
	face_plug_set_limiter(device, &body->tx_rate_limiter, "tx-bandwidth", "tx-packets");
	return face_plug_add(request, "net", device, face_plug_net_added, err);
}

int face_plug_net(struct face_request *request, struct err *err)
{
	return request->face->phase == FACE_BEFORE ? face_before_net(request, err) : face_plug_add_net(request, err);
}

/* ---- removal: at once, for the guest is not asked ---- */

static void face_plug_drive_removed(void *opaque, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct face *face = request->face;
	struct face_drive *drive = code ? NULL : face_find_drive(face, request->id);

	if (drive) {
		body_done(&fc_drive, &drive->body);
		face->drive_count--;
		memmove(drive, drive + 1, (size_t)(&face->drives[face->drive_count] - drive) * sizeof(*drive));
	}
	face_finish(request, code, err);
}

static void face_plug_net_removed(void *opaque, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct face *face = request->face;
	struct face_net *net = code ? NULL : face_find_net(face, request->id);

	if (net) {
		body_done(&fc_net, &net->body);
		face->net_count--;
		memmove(net, net + 1, (size_t)(&face->nets[face->net_count] - net) * sizeof(*net));
	}
	face_finish(request, code, err);
}

static int face_plug_remove(struct face_request *request, const char *kind, const char *name,
			    void (*done)(void *opaque, int code, const struct err *err), struct err *err)
{
	const struct operated *operated = request->face->operated;

	return operated->ops->remove_device(operated->session, kind, name, true, REMOVE_MS, done, request, err) ?: FACE_LATER;
}

int face_plug_remove_drive(struct face_request *request, struct err *err)
{
	const struct face_drive *drive = face_find_drive(request->face, request->id);
	int code = face_plug_check(request->face, err);

	if (!code && !drive)
		code = err_set(err, -ENODEV, "Device not found");
	if (!code && drive->body.is_root_device)
		code = err_set(err, -EPERM, "Cannot unplug root device");
	return code ?: face_plug_remove(request, "disk", drive->name, face_plug_drive_removed, err);
}

int face_plug_remove_net(struct face_request *request, struct err *err)
{
	const struct face_net *net = face_find_net(request->face, request->id);
	int code = face_plug_check(request->face, err);

	if (!code && !net)
		code = err_set(err, -ENODEV, "Device not found");
	return code ?: face_plug_remove(request, "net", net->name, face_plug_net_removed, err);
}
