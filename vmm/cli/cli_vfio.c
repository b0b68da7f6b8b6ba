/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm vfio`: lists the host's devices and whether they can be passed through, binds them to VFIO and back, adds them
 * to a running machine and removes them. One that is added is opened here, with the rights of the user, and passed to the
 * machine, which opens none for others.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "vfio/binding.h"
#include "vfio/variant.h"
#include "vmm/cli/command.h"
#include "vmm/config/config.h"
#include "vmm/control/control_client.h"
#include "vmm/machine/given_json.h"
#include "vmm/machine/host_devices.h"

struct vfio_options {
	bool json, group, help;
	char *driver;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key driver_name = {"driver", OPTION_STRING, .help = "NAME"};

#define FIELD(member) .plain = true, .offset = offsetof(struct vfio_options, member)
#define HELP {"help", NULL, "show this", &flag, 1, FIELD(help)}

static const struct option list_options[] = {
	{"json", NULL, "print an object with the arrays functions and mdevs", &flag, 1, FIELD(json)},
	HELP,
};
#define GROUP {"group", NULL, "every device of its IOMMU group except bridges", &flag, 1, FIELD(group)}
static const struct option bind_options[] = {
	{"driver", "NAME", "this VFIO driver instead of the one that the kernel's modules name for the device", &driver_name, 1,
	 FIELD(driver)},
	GROUP,
	HELP,
};
static const struct option unbind_options[] = {GROUP, HELP};

static const struct option_table list_table = {list_options, ARRAY_SIZE(list_options)};
static const struct option_table bind_table = {bind_options, ARRAY_SIZE(bind_options)};
static const struct option_table unbind_table = {unbind_options, ARRAY_SIZE(unbind_options)};

static const struct command vfio_list, vfio_bind, vfio_unbind, vfio_add;

static bool cli_vfio_begin(const struct command *command, int argc, char *const *argv, struct vfio_options *given,
			   const char **operands, size_t count, int *code, struct err *err)
{
	*given = (struct vfio_options){0};
	return command_parse_all(command, given, offsetof(struct vfio_options, help), argc, argv, operands, count, code,
				 err);
}

/* ---- list ---- */

static const char *const verdicts[] = {
	[VFIO_FIT_READY] = "yes",
	[VFIO_FIT_BOUND_ELSE] = "not bound to VFIO",
	[VFIO_FIT_SHARED] = "the host uses others of its group",
	[VFIO_FIT_IN_USE] = "in use",
	[VFIO_FIT_BRIDGE] = "no: a bridge",
	[VFIO_FIT_NO_IOMMU] = "no IOMMU; see mvmm doctor",
};

/* The command that would make it fit, into text, or "". */
static void cli_vfio_remedy(const struct vfio_function *function, char *text, size_t size)
{
	text[0] = 0;
	if (function->fitness == VFIO_FIT_BOUND_ELSE)
		snprintf(text, size, "mvmm vfio bind %s", function->host.name);
	else if (function->fitness == VFIO_FIT_SHARED)
		snprintf(text, size, "mvmm vfio bind --group %s", function->host.name);
}

static void cli_vfio_collect(void *opaque, const struct vfio_function *function)
{
	char command[128], kind[16];
	json_t *object;

	cli_vfio_remedy(function, command, sizeof(command));
	snprintf(kind, sizeof(kind), "%04x:%04x", function->vendor, function->device);
	object = json_pack("{s:s, s:s, s:s, s:i, s:b, s:s}", "address", function->host.name, "pci", kind, "driver",
			   function->host.driver, "group", function->host.group, "ready",
			   function->fitness == VFIO_FIT_READY, "state", verdicts[function->fitness]);
	if (command[0])
		json_object_set_new(object, "command", json_string(command));
	if (function->total_vfs)
		json_object_set_new(object, "sriov", json_pack("{s:i, s:i}", "vfs", (int)function->vfs, "total",
							       (int)function->total_vfs));
	if (function->parent[0])
		json_object_set_new(object, "parent", json_string(function->parent));
	json_array_append_new(opaque, object);
}

static void cli_vfio_collect_mdev(void *opaque, const char *name)
{
	json_array_append_new(opaque, json_string(name));
}

static const char *cli_vfio_text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

static void cli_vfio_print_function(const json_t *function)
{
	const json_t *sriov = json_object_get(function, "sriov");
	long long group = (long long)json_integer_value(json_object_get(function, "group"));
	const char *command = cli_vfio_text_of(function, "command"), *driver = cli_vfio_text_of(function, "driver");
	char number[24] = "-";

	if (group >= 0)
		snprintf(number, sizeof(number), "%lld", group);
	printf("%-12s  %-9s  %-12s %5s  %s", cli_vfio_text_of(function, "address"), cli_vfio_text_of(function, "pci"),
	       *driver ? driver : "-", number, cli_vfio_text_of(function, "state"));
	if (*command)
		printf(": %s", command);
	if (sriov)
		printf(" (SR-IOV: %lld of %lld VFs)", (long long)json_integer_value(json_object_get(sriov, "vfs")),
		       (long long)json_integer_value(json_object_get(sriov, "total")));
	if (*cli_vfio_text_of(function, "parent"))
		printf(" (a VF of %s)", cli_vfio_text_of(function, "parent"));
	putchar('\n');
}

static int cli_vfio_run_list(int argc, char *const *argv, struct err *err)
{
	const struct vfio_sys *sys = vfio_sys_host();
	json_t *functions = json_array(), *mdevs = json_array(), *all, *item;
	struct vfio_options given;
	size_t i;
	int code;

	if (!cli_vfio_begin(&vfio_list, argc, argv, &given, NULL, 0, &code, err))
		return code;
	code = vfio_binding_each(sys, cli_vfio_collect, functions, err);
	code = code ?: vfio_binding_each_mdev(sys, cli_vfio_collect_mdev, mdevs, err);
	all = json_pack("{s:o, s:o}", "functions", functions, "mdevs", mdevs);
	if (!code && given.json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (!code) {
		printf("%-12s  %-9s  %-12s %5s  %s\n", "ADDRESS", "PCI", "DRIVER", "GROUP", "CAN BE PASSED THROUGH");
		json_array_foreach(functions, i, item)
			cli_vfio_print_function(item);
		json_array_foreach(mdevs, i, item)
			printf("%s  mediated device  yes\n", json_string_value(item));
	}
	json_decref(all);
	return code ? EXIT_FAILED : EXIT_OFF;
}

/* ---- bind, unbind ---- */

static void cli_vfio_on_change(void *opaque, const char *name, const char *driver)
{
	*(bool *)opaque = true;
	if (*driver)
		printf("%s: the driver is now %s\n", name, driver);
	else
		printf("%s: there is no driver now\n", name);
}

static void cli_vfio_end_binding(const char *spec, int code, bool changed)
{
	if (!code && !changed)
		printf("%s: nothing to do\n", spec);
}

/* A function stays with the VFIO driver that it has: says if that is not the one that bind would have chosen. */
static void cli_vfio_hint_at_driver(const char *spec)
{
	char module[VFIO_DRIVER_NAME];
	struct vfio_host host;

	if (vfio_host_find(vfio_sys_host(), spec, &host, NULL) < 0 ||
	    vfio_variant_find(vfio_sys_host(), host.name, module, NULL) < 0 || vfio_variant_is_same(module, host.driver))
		return;
	printf("%s: the kernel's modules name another driver for it: mvmm vfio bind --driver %s %s\n", spec, module,
	       host.name);
}

static int cli_vfio_exit_code(int code)
{
	return code == -EINVAL ? EXIT_BAD_INPUT : code ? EXIT_FAILED : EXIT_OFF;
}

static int cli_vfio_run_bind(int argc, char *const *argv, struct err *err)
{
	struct vfio_options given;
	const char *spec;
	bool changed = false;
	int code;

	if (cli_vfio_begin(&vfio_bind, argc, argv, &given, &spec, 1, &code, err)) {
		code = vfio_binding_bind(vfio_sys_host(), spec, given.group, given.driver, cli_vfio_on_change, &changed,
					 err);
		cli_vfio_end_binding(spec, code, changed);
		if (!code && !changed && !given.group)
			cli_vfio_hint_at_driver(spec);
		code = cli_vfio_exit_code(code);
	}
	options_done(&bind_table, &given);
	return code;
}

static int cli_vfio_run_unbind(int argc, char *const *argv, struct err *err)
{
	struct vfio_options given;
	const char *spec;
	bool changed = false;
	int code;

	if (!cli_vfio_begin(&vfio_unbind, argc, argv, &given, &spec, 1, &code, err))
		return code;
	code = vfio_binding_unbind(vfio_sys_host(), spec, given.group, cli_vfio_on_change, &changed, err);
	cli_vfio_end_binding(spec, code, changed);
	return cli_vfio_exit_code(code);
}

/* ---- add ---- */

/* A line on stderr each second, as long as the machine's memory is being mapped. */
static void cli_vfio_on_progress(void *opaque, const json_t *parameters)
{
	double done = json_number_value(json_object_get(parameters, "done"));
	double total = json_number_value(json_object_get(parameters, "total"));
	const char *step = json_string_value(json_object_get(parameters, "step"));

	if (step)
		fprintf(stderr, "%s guest memory: %.1f of %.1f GiB\n", step, done / (double)GIB(1),
			total / (double)GIB(1));
}

/* Of the device itself, if it is not named by a descriptor, which the machine refuses. */
static int cli_vfio_open_device(const struct vfio_config *vfio, struct vfio_given *given, struct err *err)
{
	int code = vfio->fd >= 0 ? 0 : vfio_given_open(vfio_sys_host(), vfio->device, host_devices_want(vfio->backend), given, err);
	int rom;

	if (code || vfio->rom != VFIO_ROM_FILE)
		return code;
	rom = open(vfio->rom_file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return rom < 0 ? err_sys(err, -errno, "rom=%.200s", vfio->rom_file) : vfio_given_add(given, VFIO_GIVEN_ROM, rom);
}

/* The text is parsed as mvmm run does it, so that it means the same. */
static int cli_vfio_open(const char *text, struct vfio_given *given, struct err *err)
{
	_cleanup_(machine_config_done) struct machine_config config;
	char option[] = "--vfio", *words[] = {option, (char *)text};
	int code;

	machine_config_init(&config);
	code = options_parse(&machine_options, &config, ARRAY_SIZE(words), words, NULL, 0, err) ?:
	       machine_config_finish_devices(&config, err);
	return code ?: cli_vfio_open_device(&config.vfios[0], given, err);
}

/*
 * Devices pin the guest's memory, which a machine in a jail has given up the right to do beyond its limit. Who may, raises
 * it; else the machine says what it lacks.
 */
static void cli_vfio_raise_limit(const struct control_client *client)
{
	const struct rlimit most = {RLIM_INFINITY, RLIM_INFINITY};
	struct ucred machine;
	socklen_t size = sizeof(machine);

	if (getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &machine, &size) == 0 && machine.pid > 0)
		prlimit(machine.pid, RLIMIT_MEMLOCK, &most, NULL);
}

static int cli_vfio_follow_add(struct control_client *client, const char *text, const struct vfio_given *given, json_t **ret,
			       struct err *err)
{
	const struct control_watch watch = {.progress = cli_vfio_on_progress, .wake_fd = -1};
	json_t *parameters = json_pack("{s:s}", "vfio", text);
	int fds[VFIO_GIVEN_FILES];

	for (size_t i = 0; i < given->count; i++)
		fds[i] = given->files[i].fd;
	given_json_write(given, parameters);
	cli_vfio_raise_limit(client);
	return control_client_follow(client, "AddDevice", parameters, fds, given->count, &watch, ret, err) ? EXIT_FAILED :
													     EXIT_OFF;
}

static int cli_vfio_add(const char *machine, const char *text, json_t **ret, struct err *err)
{
	_cleanup_(vfio_given_close) struct vfio_given given = {.count = 0};
	struct control_client client;
	int code = cli_vfio_open(text, &given, err) ?: control_client_open(machine, &client, err);

	if (code)
		return code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
	code = cli_vfio_follow_add(&client, text, &given, ret, err);
	control_client_close(&client);
	return code;
}

static int cli_vfio_run_add(int argc, char *const *argv, struct err *err)
{
	const char *operands[2];
	json_t *answer = NULL;
	int code;

	if (!command_parse_plain(&vfio_add, argc, argv, operands, 2, &code, err))
		return code;
	code = cli_vfio_add(operands[0], operands[1], &answer, err);
	if (code == EXIT_OFF)
		printf("%s was added; its id is %s\n", operands[1], cli_vfio_text_of(answer, "id"));
	json_decref(answer);
	return code;
}

/* ---- the commands ---- */

static const struct command vfio_list = {
	.name = "vfio list", .operands = "", .options = &list_table, .run = cli_vfio_run_list,
	.summary = "List the host's PCI functions and mediated devices, and which can be passed through",
};
static const struct command vfio_bind = {
	.name = "vfio bind", .operands = "BDF", .options = &bind_table, .run = cli_vfio_run_bind,
	.summary = "Move a PCI function from its driver to VFIO",
	.text = "The kernel's modules name the VFIO driver for a device: vfio-pci, or one with more functions, such as migration.\n",
};
static const struct command vfio_unbind = {
	.name = "vfio unbind", .operands = "BDF", .options = &unbind_table, .run = cli_vfio_run_unbind,
	.summary = "Let the kernel find a driver for a PCI function again",
};
static const struct command vfio_add = {
	.name = "vfio add", .operands = "NAME BDF[,KEY=VALUE]...",
	.options = &command_plain_options, .run = cli_vfio_run_add,
	.summary = "Add a device to a running machine",
	.text = "The device is written as for mvmm run --vfio: BDF|UUID|/sys/...[,backend=...][,rom=...][,p2p=on|off][,id=...]. It is\n"
		"opened with your rights and passed to the machine.\n",
};

static const struct command *const subcommands[] = {&vfio_list, &vfio_bind, &vfio_unbind, &vfio_add, &command_vfio_remove};

static int cli_vfio_run_vfio(int argc, char *const *argv, struct err *err)
{
	return command_run_sub(&command_vfio, subcommands, ARRAY_SIZE(subcommands), argc, argv, err);
}

const struct command command_vfio = {
	.name = "vfio",
	.operands = "list|bind|unbind|add|remove",
	.summary = "List, bind, add and remove host devices",
	.text = "  list                    list PCI functions and whether they can be passed through\n"
		"  bind [--group] BDF      move a function from its driver to VFIO\n"
		"  unbind [--group] BDF    let the kernel find a driver for it again\n"
		"  add NAME BDF            add a device to a running machine\n"
		"  remove NAME ID          ask the guest to release a device, and remove it\n",
	.options = &command_plain_options,
	.run = cli_vfio_run_vfio,
};
