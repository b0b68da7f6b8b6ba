/* SPDX-License-Identifier: Apache-2.0 */
/* See control_devices.h. */
#include "vmm/control/control_devices.h"

#include "vmm/machine/given_json.h"
#include "vmm/machine/operations.h"

static const struct operated *control_devices_machine(void *opaque)
{
	return opaque;
}

static void control_devices_finish(void *call, int code, const struct err *err)
{
	if (code)
		control_fail(call, err);
	else
		control_reply(call, NULL);
}

/* The descriptors that came with a call; closed when they were not taken. */
struct passed {
	int fds[CONTROL_MAX_FDS];
	size_t count;
};

static void control_devices_close(struct passed *passed)
{
	for (size_t i = 0; i < passed->count; i++)
		fd_close(&passed->fds[i]);
}

/* ---- add ---- */

static void control_devices_adding(void *call, const char *what, uint64_t done, uint64_t total)
{
	control_progress(call, json_pack("{s:s, s:I, s:I}", "step", what, "done", (json_int_t)done, "total",
					 (json_int_t)total));
}

static void control_devices_added(void *call, const char *id, int code, const struct err *err)
{
	if (code)
		control_fail(call, err);
	else
		control_reply(call, json_pack("{s:s}", "id", id));
}

void control_devices_add(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = control_devices_machine(opaque);
	const struct add_device_reply reply = {control_devices_adding, control_devices_added, call};
	const char *text = json_string_value(json_object_get(parameters, "vfio")), *bad = text ? NULL : "vfio";
	_cleanup_(control_devices_close) struct passed passed = {.count = 0};
	_cleanup_(vfio_given_close) struct vfio_given given = {.count = 0};
	struct err err;

	passed.count = control_take_fds(call, passed.fds, ARRAY_SIZE(passed.fds));
	bad = bad ?: given_json_read(parameters, passed.fds, passed.count, &given);
	if (bad)
		control_bad_parameter(call, bad);
	else if (machine->ops->add_device(machine->session, "vfio", text, &given, &reply, &err))
		control_fail(call, &err);
}

static void control_devices_add_passed(void *opaque, const char *option, struct control_call *call,
				       const json_t *parameters)
{
	const struct operated *machine = control_devices_machine(opaque);
	const struct add_device_reply reply = {control_devices_adding, control_devices_added, call};
	_cleanup_(control_devices_close) struct passed passed = {.count = 0};
	json_t *device = json_object_get(parameters, option);
	struct err err;

	passed.count = control_take_fds(call, passed.fds, ARRAY_SIZE(passed.fds));
	if (!json_is_object(device))
		control_bad_parameter(call, option);
	else if (machine->ops->add_passed(machine->session, option, device, passed.fds, passed.count, &reply, &err))
		control_fail(call, &err);
}

void control_devices_add_disk(void *opaque, struct control_call *call, const json_t *parameters)
{
	control_devices_add_passed(opaque, "disk", call, parameters);
}

void control_devices_add_net(void *opaque, struct control_call *call, const json_t *parameters)
{
	control_devices_add_passed(opaque, "net", call, parameters);
}

/* ---- remove ---- */

static void control_devices_remove_of(void *opaque, const char *kind, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = control_devices_machine(opaque);
	const char *id = json_string_value(json_object_get(parameters, "id"));
	const json_t *timeout = json_object_get(parameters, "timeout");
	long long seconds = timeout ? (long long)json_integer_value(timeout) : 30;
	struct err err;

	if (!id || seconds < 1 || seconds > 86400)
		control_bad_parameter(call, id ? "timeout" : "id");
	else if (machine->ops->remove_device(machine->session, kind, id,
					     json_is_true(json_object_get(parameters, "force")),
					     (unsigned int)seconds * 1000, control_devices_finish, call, &err))
		control_fail(call, &err);
}

void control_devices_remove(void *opaque, struct control_call *call, const json_t *parameters)
{
	control_devices_remove_of(opaque, "vfio", call, parameters);
}

void control_devices_remove_disk(void *opaque, struct control_call *call, const json_t *parameters)
{
	control_devices_remove_of(opaque, "disk", call, parameters);
}

void control_devices_remove_net(void *opaque, struct control_call *call, const json_t *parameters)
{
	control_devices_remove_of(opaque, "net", call, parameters);
}

/* ---- change ---- */

void control_devices_resize_disk(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = control_devices_machine(opaque);
	const char *id = json_string_value(json_object_get(parameters, "id"));
	uint64_t bytes;
	struct err err;

	if (!id)
		control_bad_parameter(call, "id");
	else if (machine->ops->resize_disk(machine->session, id, &bytes, &err))
		control_fail(call, &err);
	else
		control_reply(call, json_pack("{s:I}", "size", (json_int_t)bytes));
}

static void control_devices_replaced(void *call, uint64_t bytes, int code, const struct err *err)
{
	if (code)
		control_fail(call, err);
	else
		control_reply(call, json_pack("{s:I}", "size", (json_int_t)bytes));
}

void control_devices_replace_disk(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = control_devices_machine(opaque);
	const char *id = json_string_value(json_object_get(parameters, "id"));
	const char *path = json_string_value(json_object_get(parameters, "path"));
	_cleanup_(control_devices_close) struct passed passed = {.count = 0};
	struct err err;

	passed.count = control_take_fds(call, passed.fds, ARRAY_SIZE(passed.fds));
	if (!id || !path || !*path)
		control_bad_parameter(call, id ? "path" : "id");
	else if (machine->ops->replace_disk(machine->session, id, path, passed.fds, passed.count, control_devices_replaced,
					    call, &err))
		control_fail(call, &err);
}

void control_devices_set_link(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = control_devices_machine(opaque);
	const char *id = json_string_value(json_object_get(parameters, "id"));
	const json_t *up = json_object_get(parameters, "up");
	struct err err;

	if (!id || !json_is_boolean(up))
		control_bad_parameter(call, id ? "up" : "id");
	else
		control_devices_finish(call, machine->ops->set_link(machine->session, id, json_is_true(up), &err), &err);
}
