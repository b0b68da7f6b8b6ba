/* SPDX-License-Identifier: Apache-2.0 */
/* See face_full.h. */
#include "vmm/api/firecracker/face_full.h"

#include "vmm/api/firecracker/face_before.h"
#include "vmm/api/firecracker/face_host.h"

#include <fcntl.h>

/* A member of the object, in the order in which they are put. fn NULL: mvmm does not have it. */
static const struct face_full_member {
	const char *name;
	const struct body *body;
	face_fn *fn;
	bool list, needed;
} members[] = {
	{"logger", &fc_logger, face_before_logger},
	{"metrics", &fc_metrics, face_before_metrics},
	{"machine-config", &fc_machine_config, face_before_machine},
	{"cpu-config"},
	{"boot-source", &fc_boot_source, face_before_boot, .needed = true},
	{"drives", &fc_drive, face_before_drive, .list = true, .needed = true},
	{"network-interfaces", &fc_net, face_before_net, .list = true},
	{"device-passthrough", &fc_host_device, face_host_put, .list = true},
	{"vsock", &fc_vsock, face_before_vsock},
	{"balloon", &fc_balloon, face_before_balloon},
	{"mmds-config"},
	{"entropy", &fc_entropy, face_before_entropy},
	{"pmem", .list = true},
	{"memory-hotplug"},
};

/* ---- reading ---- */

/* As a request for it would. */
static int face_full_put(struct face *face, const struct face_full_member *member, const json_t *value, struct err *err)
{
	struct face_request request = {.face = face, .table = member->body, .fd = -1};
	int code;

	if (!member->fn)
		return err_set(err, -EINVAL, "The requested operation is not supported: mvmm has no %s; leave it out", member->name);
	body_init(member->body, &request.body);
	code = body_read(member->body, value, &request.body, err);
	code = code ? err_prefix(err, code, "Invalid JSON") : member->fn(&request, err);
	body_done(member->body, &request.body);
	return code;
}

static int face_full_put_member(struct face *face, const struct face_full_member *member, const json_t *root, struct err *err)
{
	const json_t *value = json_object_get(root, member->name);
	int code = 0;

	if (!value || json_is_null(value))
		return member->needed ? err_set(err, -EINVAL, "Invalid JSON: missing field `%s`", member->name) : 0;
	if (member->list && !json_is_array(value))
		return err_set(err, -EINVAL, "Invalid JSON: %s: invalid type, expected a sequence", member->name);
	if (!member->list)
		return face_full_put(face, member, value, err);
	for (size_t i = 0; i < json_array_size(value) && !code; i++)
		code = face_full_put(face, member, json_array_get(value, i), err);
	return code;
}

static int face_full_read(int fd, char **text, size_t *len, struct err *err)
{
	ssize_t n = 1;

	*text = malloc(FACE_MAX_FILE);
	for (*len = 0; *text && n > 0 && *len < FACE_MAX_FILE; *len += (size_t)n) {
		n = read(fd, *text + *len, FACE_MAX_FILE - *len);
		if (n < 0)
			return err_sys(err, -errno, "read");
	}
	if (!*text)
		return err_sys(err, -ENOMEM, "read");
	return *len < FACE_MAX_FILE ? 0 : err_set(err, -EFBIG, "larger than 1M; a configuration is a few lines");
}

int face_full_load(struct face *face, const char *path, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	_cleanup_(free_ptr) char *text = NULL;
	json_error_t error;
	json_t *root;
	size_t len;
	int code = face_open(path, O_RDONLY, &fd, err) ?: face_full_read(fd, &text, &len, err);

	if (code)
		return err_prefix(err, code, "%.200s: Unable to open or read from the configuration file", path);
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (!root)
		return err_set(err, -EINVAL, "Invalid JSON: %s at line %d column %d", error.text, error.line, error.column);
	for (size_t i = 0; i < ARRAY_SIZE(members) && !code; i++)
		code = face_full_put_member(face, &members[i], root, err);
	json_decref(root);
	return code;
}

/* ---- writing ---- */

static json_t *face_full_body(const struct body *body, const void *value, bool there)
{
	return there ? body_write(body, value) : json_null();
}

static json_t *face_full_drives(const struct face *face)
{
	json_t *list = json_array();

	for (size_t i = 0; i < face->drive_count; i++)
		json_array_append_new(list, body_write(&fc_drive, &face->drives[i].body));
	return list;
}

static json_t *face_full_nets(const struct face *face)
{
	json_t *list = json_array();

	for (size_t i = 0; i < face->net_count; i++)
		json_array_append_new(list, body_write(&fc_net, &face->nets[i].body));
	return list;
}

static json_t *face_full_hosts(const struct face *face)
{
	json_t *list = json_array();

	for (size_t i = 0; i < face->host_count; i++)
		json_array_append_new(list, body_write(&fc_host_device, &face->hosts[i].body));
	return list;
}

int face_full_get(struct face_request *request, struct err *err)
{
	const struct face *face = request->face;

	request->reply = json_pack("{s:o, s:o, s:o, s:n, s:o, s:o, s:n, s:o, s:o, s:n, s:o, s:[], s:n}",
				   "balloon", face_full_body(&fc_balloon, &face->balloon, face->has_balloon),
				   "drives", face_full_drives(face),
				   "boot-source", face_full_body(&fc_boot_source, &face->boot, face->boot.given),
				   "cpu-config",
				   "logger", face_full_body(&fc_logger, &face->logger, face->logger.given),
				   "machine-config", body_write(&fc_machine_config, &face->machine),
				   "memory-hotplug",
				   "metrics", face_full_body(&fc_metrics, &face->metrics, face->metrics.given),
				   "vsock", face_full_body(&fc_vsock, &face->vsock, face->vsock.given),
				   "mmds-config",
				   "network-interfaces", face_full_nets(face),
				   "pmem",
				   "entropy");
	if (request->reply && face->has_entropy)
		json_object_set_new(request->reply, "entropy", body_write(&fc_entropy, &face->entropy));
	if (request->reply && face->host_count) /* clients that do not know it do not see it */
		json_object_set_new(request->reply, "device-passthrough", face_full_hosts(face));
	return request->reply ? 0 : err_sys(err, -ENOMEM, "the reply");
}
