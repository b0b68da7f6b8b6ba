/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm metrics`: prints what a machine has counted, for people, as JSON, or in Prometheus' text format (0.0.4). */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"
#include "vmm/machine/metrics_text.h"

#define PATIENCE_MS 15000

struct metrics_options {
	bool json, prometheus, help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};

#define FIELD(member) .plain = true, .offset = offsetof(struct metrics_options, member)

static const struct option options[] = {
	{"json", NULL, "print an object", &flag, 1, FIELD(json)},
	{"prometheus", NULL, "print the text that Prometheus reads, with the machine's name as a label", &flag, 1,
	 FIELD(prometheus)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

static int cli_metrics_ask(const char *name, json_t **ret, struct err *err)
{
	struct control_client client;
	int code = control_client_open(name, &client, err);

	if (code)
		return code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
	code = control_client_call(&client, "Metrics", NULL, PATIENCE_MS, ret, err);
	control_client_close(&client);
	return code ? EXIT_FAILED : EXIT_OFF;
}

static int cli_metrics_run(int argc, char *const *argv, struct err *err)
{
	struct metrics_options given = {0};
	const char *name;
	json_t *metrics;
	int code;

	if (!command_parse(&command_metrics, &given, offsetof(struct metrics_options, help), argc, argv, &name, 1, &code, err))
		return code;
	if (!name)
		err_set(err, -EINVAL, "metrics: NAME is missing; write mvmm metrics NAME, mvmm ps lists the names");
	else if (given.json && given.prometheus)
		err_set(err, -EINVAL, "--prometheus: cannot be combined with --json; leave one out");
	if (err->text[0])
		return EXIT_BAD_INPUT;
	code = cli_metrics_ask(name, &metrics, err);
	if (code)
		return code;
	if (given.json) {
		json_dumpf(metrics, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
	} else {
		metrics_text_write(json_object_get(metrics, "families"), given.prometheus ? name : NULL, stdout);
	}
	json_decref(metrics);
	return EXIT_OFF;
}

const struct command command_metrics = {
	.name = "metrics",
	.operands = "NAME",
	.summary = "Show what a machine has counted: exits, disks, networks, memory",
	.options = &table,
	.run = cli_metrics_run,
};
