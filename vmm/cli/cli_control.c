/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm info`, `stop`, `ctrl-alt-del`, `pause`, `resume` and `balloon`: one call to one machine each. */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"

#define PATIENCE_MS 15000 /* for a reply; a pause waits 10 seconds for storage */

struct control_options {
	bool json, force, help;
	unsigned int timeout;
	uint64_t size;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key seconds = {"seconds", OPTION_UINT, .value = 30, .max = 86400, .help = "SECONDS"};

static const struct option_key size_key = {"size", OPTION_SIZE, .max = INT64_MAX, .help = "SIZE"};

#define FIELD(member) .plain = true, .offset = offsetof(struct control_options, member)
#define HELP {"help", NULL, "show this", &flag, 1, FIELD(help)}

static const struct option info_options[] = {
	{"json", NULL, "print an object", &flag, 1, FIELD(json)},
	HELP,
};

static const struct option stop_options[] = {
	{"force", NULL, "end the machine at once, without a shutdown of the guest", &flag, 1, FIELD(force)},
	{"timeout", "SECONDS", "how long to wait for its end, 30 by default; 0: do not wait", &seconds, 1,
	 FIELD(timeout)},
	HELP,
};

static const struct option balloon_options[] = {
	{"size", "SIZE", "how much memory the guest should give back; 0: it gets all back", &size_key, 1, FIELD(size)},
	HELP,
};

static const struct option plain_options[] = {HELP};

static const struct option_table info_table = {info_options, ARRAY_SIZE(info_options)};
static const struct option_table stop_table = {stop_options, ARRAY_SIZE(stop_options)};
static const struct option_table balloon_table = {balloon_options, ARRAY_SIZE(balloon_options)};
static const struct option_table plain_table = {plain_options, ARRAY_SIZE(plain_options)};

/* Reads the command line and connects to the machine. False: the command ends with *code. */
static bool cli_control_begin(const struct command *command, int argc, char *const *argv, struct control_options *given,
			      struct control_client *client, int *code, struct err *err)
{
	const char *name;

	*given = (struct control_options){.timeout = (unsigned int)seconds.value, .size = UINT64_MAX};
	if (!command_parse(command, given, offsetof(struct control_options, help), argc, argv, &name, 1, code, err))
		return false;
	if (!name) {
		err_set(err, -EINVAL, "%s: NAME is missing; write mvmm %s NAME, mvmm ps lists the names", command->name,
			command->name);
		*code = EXIT_BAD_INPUT;
		return false;
	}
	*code = control_client_open(name, client, err);
	if (*code) {
		*code = *code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
		return false;
	}
	return true;
}

/* ---- info ---- */

/* "id disk0, kind disk, active true" */
static void cli_control_print_members(const json_t *object)
{
	const char *key, *separator = "";
	json_t *value;

	json_object_foreach((json_t *)object, key, value) {
		char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

		printf("%s%s %s", separator, key, json_is_string(value) ? json_string_value(value) : text ?: "?");
		separator = ", ";
		free(text);
	}
	putchar('\n');
}

static void cli_control_print_member(const char *key, const json_t *value)
{
	char size[24];

	if (json_is_array(value)) {
		for (size_t i = 0; i < json_array_size(value); i++) {
			printf("%-10s", i ? "" : key);
			cli_control_print_members(json_array_get(value, i));
		}
		return;
	}
	printf("%-10s", key);
	if (json_is_object(value))
		cli_control_print_members(value);
	else if (json_is_string(value))
		puts(json_string_value(value));
	else if (strcmp(key, "memory") == 0)
		puts(number_format_size((uint64_t)json_integer_value(value), size));
	else if (json_is_integer(value))
		printf("%lld\n", (long long)json_integer_value(value));
	else if (json_is_real(value))
		printf("%.1f\n", json_real_value(value));
	else
		puts(json_is_true(value) ? "true" : "false");
}

static int cli_control_run_info(int argc, char *const *argv, struct err *err)
{
	struct control_options given;
	struct control_client client;
	json_t *info, *value;
	const char *key;
	int code;

	if (!cli_control_begin(&command_info, argc, argv, &given, &client, &code, err))
		return code;
	code = control_client_call(&client, "Info", NULL, PATIENCE_MS, &info, err);
	control_client_close(&client);
	if (code)
		return EXIT_FAILED;
	if (given.json) {
		json_dumpf(info, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
	} else {
		json_object_foreach(info, key, value)
			cli_control_print_member(key, value);
	}
	json_decref(info);
	return EXIT_OFF;
}

/* ---- stop, pause, resume ---- */

static int cli_control_run_stop(int argc, char *const *argv, struct err *err)
{
	struct control_options given;
	struct control_client client;
	int code;

	if (!cli_control_begin(&command_stop, argc, argv, &given, &client, &code, err))
		return code;
	code = control_client_call(&client, "Stop", json_pack("{s:b}", "force", given.force), PATIENCE_MS, NULL, err);
	if (!code && given.timeout) {
		code = control_client_wait_end(&client, (int)given.timeout * 1000);
		if (code)
			err_set(err, code, "%s: still runs after %u s; mvmm stop --force %s ends it", client.name,
				given.timeout, client.name);
	}
	control_client_close(&client);
	return code ? EXIT_FAILED : EXIT_OFF;
}

static int cli_control_run_simple(const struct command *command, const char *method, int argc, char *const *argv,
				  struct err *err)
{
	struct control_options given;
	struct control_client client;
	int code;

	if (!cli_control_begin(command, argc, argv, &given, &client, &code, err))
		return code;
	code = control_client_call(&client, method, NULL, PATIENCE_MS, NULL, err);
	control_client_close(&client);
	return code ? EXIT_FAILED : EXIT_OFF;
}

static int cli_control_run_pause(int argc, char *const *argv, struct err *err)
{
	return cli_control_run_simple(&command_pause, "Pause", argc, argv, err);
}

static int cli_control_run_resume(int argc, char *const *argv, struct err *err)
{
	return cli_control_run_simple(&command_resume, "Resume", argc, argv, err);
}

static int cli_control_run_ctrl_alt_del(int argc, char *const *argv, struct err *err)
{
	return cli_control_run_simple(&command_ctrl_alt_del, "CtrlAltDel", argc, argv, err);
}

static int cli_control_run_balloon(int argc, char *const *argv, struct err *err)
{
	struct control_options given;
	struct control_client client;
	int code;

	if (!cli_control_begin(&command_balloon, argc, argv, &given, &client, &code, err))
		return code;
	if (given.size == UINT64_MAX) {
		control_client_close(&client);
		err_set(err, -EINVAL, "balloon: --size is missing; write --size SIZE");
		return EXIT_BAD_INPUT;
	}
	code = control_client_call(&client, "SetBalloon", json_pack("{s:I}", "size", (json_int_t)given.size),
				   PATIENCE_MS, NULL, err);
	control_client_close(&client);
	return code ? EXIT_FAILED : EXIT_OFF;
}

const struct command command_info = {
	.name = "info",
	.operands = "NAME",
	.summary = "Show a machine's configuration, devices and state",
	.options = &info_table,
	.run = cli_control_run_info,
};

const struct command command_stop = {
	.name = "stop",
	.operands = "NAME",
	.summary = "Press a machine's power button and wait for its end",
	.options = &stop_table,
	.run = cli_control_run_stop,
};

const struct command command_ctrl_alt_del = {
	.name = "ctrl-alt-del",
	.operands = "NAME",
	.summary = "Press Ctrl, Alt and Del on a machine's keyboard",
	.options = &plain_table,
	.run = cli_control_run_ctrl_alt_del,
};

const struct command command_pause = {
	.name = "pause",
	.operands = "NAME",
	.summary = "Pause a machine: stop its CPUs and devices",
	.options = &plain_table,
	.run = cli_control_run_pause,
};

const struct command command_resume = {
	.name = "resume",
	.operands = "NAME",
	.summary = "Resume a paused machine",
	.options = &plain_table,
	.run = cli_control_run_resume,
};

const struct command command_balloon = {
	.name = "balloon",
	.operands = "NAME",
	.summary = "Ask a machine's guest to give memory back",
	.options = &balloon_table,
	.run = cli_control_run_balloon,
};
