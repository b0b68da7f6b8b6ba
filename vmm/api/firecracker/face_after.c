/* SPDX-License-Identifier: Apache-2.0 */
/* See face_after.h. */
#include "vmm/api/firecracker/face_after.h"

#include "vmm/api/firecracker/face_metrics.h"

#include <fcntl.h>
#include <stdio.h>

#define OPS(request) (request)->face->operated->ops
#define SESSION(request) (request)->face->operated->session

static int face_after_reply(struct face_request *request, json_t *reply, struct err *err)
{
	request->reply = reply;
	return reply ? 0 : err_sys(err, -ENOMEM, "the reply");
}

/* ---- questions ---- */

static int face_after_describe(struct face_request *request, json_t **ret, struct err *err)
{
	return OPS(request)->describe(SESSION(request), ret, err);
}

int face_after_instance(struct face_request *request, struct err *err)
{
	const char *state = "Not started", *is;
	json_t *info = NULL;
	int code = request->face->phase == FACE_AFTER ? face_after_describe(request, &info, err) : 0;

	if (code)
		return code;
	is = json_string_value(json_object_get(info, "state"));
	if (is)
		state = strcmp(is, "paused") == 0 ? "Paused" : "Running";
	json_decref(info);
	return face_after_reply(request, json_pack("{s:s, s:s, s:s, s:s}", "id", request->face->options->id, "state", state,
						   "vmm_version", FIRECRACKER_VERSION, "app_name", "Firecracker"), err);
}

int face_after_version(struct face_request *request, struct err *err)
{
	return face_after_reply(request, json_pack("{s:s}", "firecracker_version", FIRECRACKER_VERSION), err);
}

int face_after_machine(struct face_request *request, struct err *err)
{
	return face_after_reply(request, body_write(&fc_machine_config, &request->face->machine), err);
}

static int face_after_check_balloon(const struct face *face, struct err *err)
{
	return face->has_balloon ? 0 : err_set(err, -ENODEV, "Balloon config error: No balloon device found.");
}

int face_after_balloon(struct face_request *request, struct err *err)
{
	return face_after_check_balloon(request->face, err) ?:
	       face_after_reply(request, body_write(&fc_balloon, &request->face->balloon), err);
}

#define PAGE 4096
#define MEBIBYTE 1048576

/* What the guest has told last. */
int face_after_statistics(struct face_request *request, struct err *err)
{
	static const struct {
		const char *ours, *theirs;
		json_int_t unit;
	} members[] = {
		{"target", "target_pages", PAGE}, {"actual", "actual_pages", PAGE}, {"target", "target_mib", MEBIBYTE},
		{"actual", "actual_mib", MEBIBYTE}, {"swap_in", "swap_in", 1}, {"swap_out", "swap_out", 1},
		{"major_faults", "major_faults", 1}, {"minor_faults", "minor_faults", 1}, {"free", "free_memory", 1},
		{"total", "total_memory", 1}, {"available", "available_memory", 1}, {"caches", "disk_caches", 1},
	};
	const struct face *face = request->face;
	json_t *info = NULL, *told, *reply = json_object();
	int code = face_after_check_balloon(face, err);

	if (!code && !face->balloon.stats_polling_interval_s)
		code = err_set(err, -EINVAL, "Balloon config error: Statistics are not enabled for the balloon.");
	code = code ?: face_after_describe(request, &info, err);
	told = json_object_get(info, "balloon");
	for (size_t i = 0; i < ARRAY_SIZE(members) && !code; i++) {
		const json_t *value = json_object_get(told, members[i].ours);

		if (value)
			json_object_set_new(reply, members[i].theirs, json_integer(json_integer_value(value) / members[i].unit));
	}
	json_decref(info);
	if (code)
		json_decref(reply);
	return code ?: face_after_reply(request, reply, err);
}

/* ---- pause and resume ---- */

static void face_after_done(void *opaque, int code, const struct err *err)
{
	struct err why = {""};

	if (code)
		err_set(&why, code, "Internal VMM error: the machine %s", err->text);
	face_finish(opaque, code, &why);
}

int face_after_vm(struct face_request *request, struct err *err)
{
	bool resumes = request->body.vm.state == FC_RESUMED;
	int code = resumes ? OPS(request)->resume(SESSION(request), err) :
			     OPS(request)->pause(SESSION(request), face_after_done, request, err);

	if (code)
		return err_prefix(err, code, "Internal VMM error: the machine");
	return resumes ? 0 : FACE_LATER;
}

/* ---- changes of devices ---- */

static int face_after_set_limits(struct face_request *request, const char *name, const char *limits, struct err *err)
{
	return limits[0] ? OPS(request)->set_limits(SESSION(request), name, limits, err) : 0;
}

/* As GET /vm/config tells them from now on. */
static void face_after_keep_limits(struct fc_rate_limiter *limits, struct fc_rate_limiter *update, body_set *given, body_set bit)
{
	*given |= bit;
	body_update(&fc_rate_limiter, limits, update);
}

static int face_after_drive_limits(struct face_request *request, struct face_drive *drive, struct err *err)
{
	struct fc_drive_update *update = &request->body.drive_update;
	char limits[400] = "";
	int code;

	if (!FC_GIVEN(fc_drive_update, *update, rate_limiter))
		return 0;
	face_limits(&update->rate_limiter, "", "ops", limits);
	code = face_after_set_limits(request, drive->name, limits, err);
	if (code)
		return err_prefix(err, code, "Drive config error: Unable to patch the block device");
	face_after_keep_limits(&drive->body.rate_limiter, &update->rate_limiter, &drive->body.given,
			       FC_BIT(fc_drive, drive->body, rate_limiter));
	return 0;
}

static void face_after_replaced(void *opaque, uint64_t bytes, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct face_drive *drive = face_find_drive(request->face, request->id);
	struct err why = {""};

	if (code == -EEXIST && drive) /* it has this image, whose size may be another one */
		code = OPS(request)->resize_disk(SESSION(request), drive->name, &bytes, &why);
	else if (code)
		err_set(&why, code, "Drive config error: Unable to patch the block device: %s Please verify the request arguments.",
			err->text);
	if (!code && drive) {
		free(drive->body.path_on_host);
		drive->body.path_on_host = take_ptr(request->body.drive_update.path_on_host);
		code = face_after_drive_limits(request, drive, &why);
	}
	face_finish(request, code, &why);
}

static int face_after_replace(struct face_request *request, struct face_drive *drive, struct err *err)
{
	const char *path = request->body.drive_update.path_on_host;
	int code = face_file(request, path, drive->body.is_read_only ? O_RDONLY : O_RDWR, &request->fd, err);

	if (code)
		return err_set(err, code, "Drive config error: Unable to patch the block device: Virtio backend error: Error manipulating "
			       "the backing file: %s (os error %d) %.200s Please verify the request arguments.",
			       strerrordesc_np(-code), -code, path);
	code = OPS(request)->replace_disk(SESSION(request), drive->name, path, &request->fd, 1, face_after_replaced, request, err);
	return code ? err_prefix(err, code, "Drive config error: Unable to patch the block device") : FACE_LATER;
}

int face_after_drive(struct face_request *request, struct err *err)
{
	struct face_drive *drive = face_find_drive(request->face, request->id);

	if (!drive)
		return err_set(err, -ENODEV, "Drive config error: Unable to patch the block device: Device not found Please verify the "
			       "request arguments.");
	if (request->body.drive_update.path_on_host)
		return face_after_replace(request, drive, err);
	if (!FC_GIVEN(fc_drive_update, request->body.drive_update, rate_limiter))
		return err_set(err, -EINVAL, "Drive config error: Unable to patch the block device: Running method expected different "
			       "backend. Please verify the request arguments.");
	return face_after_drive_limits(request, drive, err);
}

int face_after_net(struct face_request *request, struct err *err)
{
	struct face_net *net = face_find_net(request->face, request->id);
	struct fc_net_update *update = &request->body.net_update;
	bool rx = FC_GIVEN(fc_net_update, *update, rx_rate_limiter), tx = FC_GIVEN(fc_net_update, *update, tx_rate_limiter);
	char limits[400] = "";
	int code;

	if (!net)
		return err_set(err, -ENODEV, "Network config error: Unable to update the net device: Device not found");
	if (rx)
		face_limits(&update->rx_rate_limiter, "rx-", "packets", limits);
	if (tx)
		face_limits(&update->tx_rate_limiter, "tx-", "packets", limits);
	code = face_after_set_limits(request, net->name, limits, err);
	if (code)
		return err_prefix(err, code, "Network config error: Unable to update the net device");
	if (rx)
		face_after_keep_limits(&net->body.rx_rate_limiter, &update->rx_rate_limiter, &net->body.given,
				       FC_BIT(fc_net, net->body, rx_rate_limiter));
	if (tx)
		face_after_keep_limits(&net->body.tx_rate_limiter, &update->tx_rate_limiter, &net->body.given,
				       FC_BIT(fc_net, net->body, tx_rate_limiter));
	return 0;
}

int face_after_set_balloon(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	uint64_t amount = request->body.balloon_update.amount_mib;
	int code = face_after_check_balloon(face, err);

	if (!code && amount > face->machine.mem_size_mib)
		code = err_set(err, -ERANGE, "Balloon update error: Amount of pages requested is too large.");
	code = code ?: OPS(request)->set_balloon(SESSION(request), amount << 20, err);
	if (!code)
		face->balloon.amount_mib = amount;
	return code;
}

/* ---- actions ---- */

int face_after_flush(struct face_request *request, struct err *err)
{
	int code = face_metrics_write(request->face->lines, err);

	return code ? err_prefix(err, code, "Internal VMM error: Cannot flush metrics") : 0;
}

/* A guest that listens to no keyboard has a power button, for which it ends as well. */
int face_after_keys(struct face_request *request, struct err *err)
{
	int code = OPS(request)->ctrl_alt_del(SESSION(request), err);

	if (code == -EOPNOTSUPP)
		code = OPS(request)->stop(SESSION(request), false, err);
	return code ? err_prefix(err, code, "Internal VMM error: the machine") : 0;
}
