/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm ps`: lists the running machines; each is asked over its control socket. */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"
#include "vmm/control/rundir.h"

#define PATIENCE_MS 1000 /* for one machine */

struct ps_options {
	bool json, help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};

static const struct option options[] = {
	{"json", NULL, "an array of objects with the same members", &flag, 1, .plain = true,
	 .offset = offsetof(struct ps_options, json)},
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct ps_options, help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

/* Adds a machine to the array; if it does not reply, with what is known without it. */
static int cli_ps_add_machine(void *opaque, const char *name, pid_t pid)
{
	static const char *const shown[] = {"state", "cpus", "memory", "uptime"};
	struct control_client client;
	json_t *list = opaque, *info = NULL, *machine;

	if (control_client_open(name, &client, NULL) == 0) {
		control_client_call(&client, "Info", NULL, PATIENCE_MS, &info, NULL);
		control_client_close(&client);
	}
	machine = json_pack("{s:s, s:i}", "name", name, "pid", (int)pid);
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
		if (json_object_get(info, shown[i]))
			json_object_set(machine, shown[i], json_object_get(info, shown[i]));
	if (!json_object_get(machine, "state"))
		json_object_set_new(machine, "state", json_string("unresponsive"));
	json_decref(info);
	return json_array_append_new(list, machine) ? -ENOMEM : 0;
}

static void cli_ps_print_row(const json_t *machine)
{
	const char *name = json_string_value(json_object_get(machine, "name"));
	const char *state = json_string_value(json_object_get(machine, "state"));
	const json_t *memory = json_object_get(machine, "memory");
	long long up = (long long)json_number_value(json_object_get(machine, "uptime"));
	char size[24], cpus[24] = "-", uptime[32] = "-";

	if (memory) {
		snprintf(cpus, sizeof(cpus), "%lld", (long long)json_integer_value(json_object_get(machine, "cpus")));
		snprintf(uptime, sizeof(uptime), "%lld:%02lld:%02lld", up / 3600, up / 60 % 60, up % 60);
	}
	printf("%-20s %8lld  %-12s %4s %8s %10s\n", name, (long long)json_integer_value(json_object_get(machine, "pid")),
	       state, cpus, memory ? number_format_size((uint64_t)json_integer_value(memory), size) : "-", uptime);
}

static int cli_ps_run(int argc, char *const *argv, struct err *err)
{
	struct ps_options given = {0};
	json_t *list, *machine;
	size_t i;
	int code;

	if (!command_parse(&command_ps, &given, offsetof(struct ps_options, help), argc, argv, NULL, 0, &code, err))
		return code;
	list = json_array();
	code = rundir_each(cli_ps_add_machine, list, err);
	if (!code && given.json) {
		json_dumpf(list, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
	} else if (!code) {
		printf("%-20s %8s  %-12s %4s %8s %10s\n", "NAME", "PID", "STATE", "CPUS", "MEMORY", "UPTIME");
		json_array_foreach(list, i, machine)
			cli_ps_print_row(machine);
	}
	json_decref(list);
	return code ? EXIT_FAILED : EXIT_OFF;
}

const struct command command_ps = {
	.name = "ps",
	.operands = "",
	.summary = "List the running machines",
	.options = &table,
	.run = cli_ps_run,
};
