/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm metrics`: prints what a machine has counted, for people, as JSON, or in Prometheus' text format (0.0.4). */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"

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

/* As a label's value: a backslash, a quote and a newline are escaped. */
static void cli_metrics_print_escaped(const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			putchar('\\');
		fputs(*text == '\n' ? "\\n" : (char[]){*text, 0}, stdout);
	}
}

/* A name with its labels. machine: one more label, or NULL; le: the last label, or NULL. */
static void cli_metrics_print_name(const char *name, const char *suffix, const json_t *labels, const char *machine,
				   const char *le)
{
	const char *key, *separator = "{";
	json_t *value;

	printf("%s%s", name, suffix);
	if (machine) {
		printf("{machine=\"");
		cli_metrics_print_escaped(machine);
		putchar('"');
		separator = ",";
	}
	json_object_foreach((json_t *)labels, key, value) {
		printf("%s%s=\"", separator, key);
		cli_metrics_print_escaped(json_string_value(value) ?: "");
		putchar('"');
		separator = ",";
	}
	if (le) {
		printf("%sle=\"%s\"", separator, le);
		separator = ",";
	}
	printf("%s ", *separator == ',' ? "}" : "");
}

static void cli_metrics_print_value(const json_t *value)
{
	if (json_is_integer(value))
		printf("%lld\n", (long long)json_integer_value(value));
	else
		printf("%.9g\n", json_number_value(value));
}

static void cli_metrics_print_histogram(const char *name, const json_t *sample, const char *machine)
{
	const json_t *labels = json_object_get(sample, "labels"), *buckets = json_object_get(sample, "buckets");
	char le[32];

	for (size_t i = 0; i < json_array_size(buckets); i++) {
		const json_t *bucket = json_array_get(buckets, i);

		snprintf(le, sizeof(le), "%.9g", json_number_value(json_object_get(bucket, "le")));
		cli_metrics_print_name(name, "_bucket", labels, machine, le);
		cli_metrics_print_value(json_object_get(bucket, "count"));
	}
	cli_metrics_print_name(name, "_bucket", labels, machine, "+Inf");
	cli_metrics_print_value(json_object_get(sample, "count"));
	cli_metrics_print_name(name, "_sum", labels, machine, NULL);
	cli_metrics_print_value(json_object_get(sample, "sum"));
	cli_metrics_print_name(name, "_count", labels, machine, NULL);
	cli_metrics_print_value(json_object_get(sample, "count"));
}

/* How many there were, and how long they took on average. */
static void cli_metrics_print_summary(const char *name, const json_t *sample)
{
	double sum = json_number_value(json_object_get(sample, "sum"));
	long long count = json_integer_value(json_object_get(sample, "count"));

	cli_metrics_print_name(name, "", json_object_get(sample, "labels"), NULL, NULL);
	printf("%lld, on average %.1f us\n", count, count ? sum / (double)count * 1e6 : 0.0);
}

static void cli_metrics_print_family(const json_t *family, const char *machine)
{
	const char *name = json_string_value(json_object_get(family, "name"));
	const char *type = json_string_value(json_object_get(family, "type"));
	const char *help = json_string_value(json_object_get(family, "help"));
	const json_t *samples = json_object_get(family, "samples");

	if (!name || !type)
		return;
	if (machine)
		printf("# HELP %s %s\n# TYPE %s %s\n", name, help ?: "", name, type);
	for (size_t i = 0; i < json_array_size(samples); i++) {
		const json_t *sample = json_array_get(samples, i);

		if (!json_object_get(sample, "buckets")) {
			cli_metrics_print_name(name, "", json_object_get(sample, "labels"), machine, NULL);
			cli_metrics_print_value(json_object_get(sample, "value"));
		} else if (machine) {
			cli_metrics_print_histogram(name, sample, machine);
		} else {
			cli_metrics_print_summary(name, sample);
		}
	}
}

static void cli_metrics_print(const json_t *metrics, const char *machine)
{
	const json_t *families = json_object_get(metrics, "families");

	for (size_t i = 0; i < json_array_size(families); i++)
		cli_metrics_print_family(json_array_get(families, i), machine);
}

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
		cli_metrics_print(metrics, given.prometheus ? name : NULL);
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
