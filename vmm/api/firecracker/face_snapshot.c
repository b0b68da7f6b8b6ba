/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See face_snapshot.h. The memory file has Firecracker's form (RAM, region after region); the state file is mvmm's own.
 * Snapshots are not synced: they are as durable as any other file that was just written.
 */
#include "vmm/api/firecracker/face_snapshot.h"

#include "core/errand.h"
#include "vmm/machine/start_request.h"
#include "vmm/snapshot/snapshot_files.h"
#include "vmm/snapshot/snapshot_report.h"
#include "vmm/snapshot/state_file.h"

#include <fcntl.h>
#include <stdio.h>

#define CREATE "Create snapshot error: "
#define LOAD "Load snapshot error: "

/* ---- create ---- */

static void face_snapshot_progress(void *opaque, const struct snapshot_report *report)
{
	struct face_request *request = opaque;
	char id[SNAPSHOT_ID_TEXT];

	if (report->phase != SNAPSHOT_WRITTEN)
		return;
	snapshot_id_text(report->id, id);
	request->face->operated->ops->snapshot_commit(request->face->operated->session, id, NULL);
}

static void face_snapshot_done(void *opaque, const struct snapshot_report *report)
{
	struct err err = {""};
	int code = report->phase == SNAPSHOT_DONE ? 0 : err_set(&err, -EIO, CREATE "%s", report->text);

	face_finish(opaque, code, &err);
}

/* A file that a machine may have mapped stays as it is, without a name. */
static int face_snapshot_make(const char *path, int *ret, struct err *err)
{
	errand_unlink(path);
	return face_open(path, O_RDWR | O_CREAT | O_TRUNC, ret, err);
}

static int face_snapshot_check_paused(const struct face *face, struct err *err)
{
	json_t *info;
	int code = face->operated->ops->describe(face->operated->session, &info, err);
	const char *state = code ? NULL : json_string_value(json_object_get(info, "state"));

	if (state && strcmp(state, "paused") != 0)
		code = err_set(err, -EBUSY, "Cannot save the microVM state: Operation not allowed: save/restore unavailable while "
			       "running");
	if (state)
		json_decref(info);
	return code;
}

int face_snapshot_create(struct face_request *request, struct err *err)
{
	const struct face *face = request->face;
	const struct fc_snapshot_create *body = &request->body.create;
	const struct snapshot_request snapshot = {.disks = SNAPSHOT_DISKS_NONE};
	const struct snapshot_reply reply = {face_snapshot_progress, face_snapshot_done, request};
	struct snapshot_files files;
	int code;

	if (body->snapshot_type == FC_SNAPSHOT_DIFF)
		return err_set(err, -EOPNOTSUPP, "The requested operation is not supported: mvmm has no Diff snapshots by this API; "
			       "mvmm snapshot --diff takes one");
	snapshot_files_init(&files);
	code = face_snapshot_check_paused(face, err) ?: face_snapshot_make(body->snapshot_path, &files.state, err);
	code = code ?: face_snapshot_make(body->mem_file_path, &files.memory, err);
	code = code ?: face->operated->ops->snapshot(face->operated->session, &snapshot, &files, &reply, err);
	snapshot_files_close(&files);
	return code ? err_prefix(err, code, "Create snapshot error") : FACE_LATER;
}

/* ---- load ---- */

static int face_snapshot_check(const struct face *face, const struct fc_snapshot_load *body, struct err *err)
{
	bool backend = FC_GIVEN(fc_snapshot_load, *body, mem_backend);

	if (!backend && !body->mem_file_path)
		return err_set(err, -EINVAL, "missing field: either `mem_backend` or `mem_file_path` is required");
	if (backend && body->mem_file_path)
		return err_set(err, -EINVAL, "too many fields: either `mem_backend` or `mem_file_path` exclusively is required");
	if (face->configured)
		return err_set(err, -EINVAL, LOAD "Loading a microVM snapshot not allowed after configuring boot-specific resources.");
	if (body->huge_pages == FC_LOAD_2M)
		return err_set(err, -EINVAL, "The requested operation is not supported: mvmm has the huge pages of the snapshot; leave out huge_pages");
	return 0;
}

static int face_snapshot_copy(char **to, const char *text, struct err *err)
{
	if (!text)
		return 0;
	*to = strdup(text);
	return *to ? 0 : err_sys(err, -ENOMEM, "the request");
}

static int face_snapshot_print(char **to, const char *key, const char *value, struct err *err)
{
	if (asprintf(to, "%s%s", key, value) >= 0)
		return 0;
	*to = NULL;
	return err_sys(err, -ENOMEM, "the request");
}

/* Interfaces have the names that they have got when they were put. */
static int face_snapshot_nets(struct face *face, const struct body_list *list, struct start_snapshot *snapshot, struct err *err)
{
	const struct fc_network_override *nets = list->items;
	char name[MACHINE_MAX_NAME + 1];
	int code = 0;

	for (size_t i = 0; i < list->count && !code; i++) {
		char **to = &snapshot->nets[snapshot->net_count];

		face_name(face, "net", nets[i].iface_id, name);
		code = asprintf(to, "%s=tap=%s", name, nets[i].host_dev_name) < 0 ? -ENOMEM : 0;
		if (code)
			err_sys(err, code, "the request");
		else
			snapshot->net_count++;
	}
	return code;
}

static int face_snapshot_make_request(struct face *face, const struct fc_snapshot_load *body, struct start_request *start,
				      struct err *err)
{
	struct start_snapshot *snapshot = &start->snapshot;
	const char *id = machine_name_check(face->options->id, NULL) ? NULL : face->options->id;
	int code = face_snapshot_copy(&snapshot->state, body->snapshot_path, err);

	if (body->mem_backend.backend_type == FC_BACKEND_FILE)
		code = code ?: face_snapshot_copy(&snapshot->memory, body->mem_file_path ?: body->mem_backend.backend_path, err);
	else
		code = code ?: face_snapshot_print(&snapshot->mode, "uffd=", body->mem_backend.backend_path, err);
	code = code ?: face_snapshot_copy(&snapshot->vsock, body->vsock_override.uds_path, err);
	code = code ?: face_snapshot_copy(&snapshot->clock, body->clock_realtime ? "run" : "stop", err);
	code = code ?: face_snapshot_copy(&snapshot->name, id, err);
	if (face->serial.serial_out_path)
		code = code ?: face_snapshot_print(&snapshot->serial, "file=", face->serial.serial_out_path, err);
	snapshot->paused = !body->resume_vm;
	return code ?: face_snapshot_nets(face, &body->network_overrides, snapshot, err);
}

/* A machine's id for the drive "rootfs" is "drive-rootfs". */
static void face_snapshot_know_device(struct face *face, const json_t *device)
{
	const char *id = json_string_value(json_object_get(device, "id")), *kind = json_string_value(json_object_get(device, "kind"));

	if (!id || !kind)
		return;
	if (strcmp(kind, "disk") == 0 && strncmp(id, "drive-", 6) == 0 && face->drive_count < FACE_MAX_DEVICES) {
		struct face_drive *drive = &face->drives[face->drive_count++];

		*drive = (struct face_drive){.fd = -1};
		body_init(&fc_drive, &drive->body);
		snprintf(drive->name, sizeof(drive->name), "%s", id);
		drive->body.is_read_only = json_is_true(json_object_get(device, "readonly"));
		drive->body.drive_id = strdup(id + 6);
		face->drive_count -= !drive->body.drive_id;
	} else if (strcmp(kind, "net") == 0 && strncmp(id, "net-", 4) == 0 && face->net_count < FACE_MAX_DEVICES) {
		struct face_net *net = &face->nets[face->net_count++];

		*net = (struct face_net){.fd = -1};
		body_init(&fc_net, &net->body);
		snprintf(net->name, sizeof(net->name), "%s", id);
		net->body.iface_id = strdup(id + 4);
		face->net_count -= !net->body.iface_id;
	}
}

/* What the snapshot has, so that later requests find it. */
static void face_snapshot_know(struct face *face)
{
	json_t *info, *device;
	size_t i;

	if (face->operated->ops->describe(face->operated->session, &info, NULL))
		return;
	face->machine.vcpu_count = (uint64_t)json_integer_value(json_object_get(info, "cpus"));
	face->machine.mem_size_mib = (uint64_t)json_integer_value(json_object_get(info, "memory")) >> 20;
	face->has_balloon = json_object_get(info, "balloon");
	json_array_foreach(json_object_get(info, "devices"), i, device)
		face_snapshot_know_device(face, device);
	json_decref(info);
}

static void face_snapshot_loaded(void *opaque, int code, const struct err *err)
{
	struct face_request *request = opaque;
	struct err why = {""};

	request->face->phase = code ? FACE_BEFORE : FACE_AFTER;
	if (code)
		err_set(&why, code, LOAD "Failed to restore from snapshot: %s", err->text);
	else
		face_snapshot_know(request->face);
	face_finish(request, code, &why);
}

int face_snapshot_load(struct face_request *request, struct err *err)
{
	struct face *face = request->face;
	const struct fc_snapshot_load *body = &request->body.load;
	struct start_request start;
	int code = face_snapshot_check(face, body, err);

	if (code)
		return code;
	request->deprecated = body->mem_file_path || FC_GIVEN(fc_snapshot_load, *body, enable_diff_snapshots);
	start_request_init(&start);
	code = face_snapshot_make_request(face, body, &start, err);
	face->phase = FACE_STARTING;
	code = code ?: face->operated->ops->start(face->operated->session, &start, face_snapshot_loaded, request, err);
	start_request_done(&start);
	if (!code)
		return FACE_LATER;
	face->phase = FACE_BEFORE;
	return err_prefix(err, code, "Load snapshot error");
}
