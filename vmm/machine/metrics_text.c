/* SPDX-License-Identifier: Apache-2.0 */
/* See metrics_text.h. */
#include "vmm/machine/metrics_text.h"

/* As a label's value: a backslash, a quote and a newline are escaped. */
static void metrics_text_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', out);
		fputs(*text == '\n' ? "\\n" : (char[]){*text, 0}, out);
	}
}

/* A name with its labels. machine: one more label, or NULL; le: the last label, or NULL. */
static void metrics_text_name(FILE *out, const char *name, const char *suffix, const json_t *labels, const char *machine,
			      const char *le)
{
	const char *key, *separator = "{";
	json_t *value;

	fprintf(out, "%s%s", name, suffix);
	if (machine) {
		fprintf(out, "{machine=\"");
		metrics_text_escaped(out, machine);
		fputc('"', out);
		separator = ",";
	}
	json_object_foreach((json_t *)labels, key, value) {
		fprintf(out, "%s%s=\"", separator, key);
		metrics_text_escaped(out, json_string_value(value) ?: "");
		fputc('"', out);
		separator = ",";
	}
	if (le) {
		fprintf(out, "%sle=\"%s\"", separator, le);
		separator = ",";
	}
	fprintf(out, "%s ", *separator == ',' ? "}" : "");
}

static void metrics_text_value(FILE *out, const json_t *value)
{
	if (json_is_integer(value))
		fprintf(out, "%lld\n", (long long)json_integer_value(value));
	else
		fprintf(out, "%.9g\n", json_number_value(value));
}

static void metrics_text_histogram(FILE *out, const char *name, const json_t *sample, const char *machine)
{
	const json_t *labels = json_object_get(sample, "labels"), *buckets = json_object_get(sample, "buckets");
	char le[32];

	for (size_t i = 0; i < json_array_size(buckets); i++) {
		const json_t *bucket = json_array_get(buckets, i);

		snprintf(le, sizeof(le), "%.9g", json_number_value(json_object_get(bucket, "le")));
		metrics_text_name(out, name, "_bucket", labels, machine, le);
		metrics_text_value(out, json_object_get(bucket, "count"));
	}
	metrics_text_name(out, name, "_bucket", labels, machine, "+Inf");
	metrics_text_value(out, json_object_get(sample, "count"));
	metrics_text_name(out, name, "_sum", labels, machine, NULL);
	metrics_text_value(out, json_object_get(sample, "sum"));
	metrics_text_name(out, name, "_count", labels, machine, NULL);
	metrics_text_value(out, json_object_get(sample, "count"));
}

/* How many there were, and how long they took on average. */
static void metrics_text_summary(FILE *out, const char *name, const json_t *sample)
{
	double sum = json_number_value(json_object_get(sample, "sum"));
	long long count = json_integer_value(json_object_get(sample, "count"));

	metrics_text_name(out, name, "", json_object_get(sample, "labels"), NULL, NULL);
	fprintf(out, "%lld, on average %.1f us\n", count, count ? sum / (double)count * 1e6 : 0.0);
}

static void metrics_text_family(FILE *out, const json_t *family, const char *machine)
{
	const char *name = json_string_value(json_object_get(family, "name"));
	const char *type = json_string_value(json_object_get(family, "type"));
	const char *help = json_string_value(json_object_get(family, "help"));
	const json_t *samples = json_object_get(family, "samples");

	if (!name || !type)
		return;
	if (machine)
		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help ?: "", name, type);
	for (size_t i = 0; i < json_array_size(samples); i++) {
		const json_t *sample = json_array_get(samples, i);

		if (!json_object_get(sample, "buckets")) {
			metrics_text_name(out, name, "", json_object_get(sample, "labels"), machine, NULL);
			metrics_text_value(out, json_object_get(sample, "value"));
		} else if (machine) {
			metrics_text_histogram(out, name, sample, machine);
		} else {
			metrics_text_summary(out, name, sample);
		}
	}
}

void metrics_text_write(const json_t *families, const char *machine, FILE *out)
{
	for (size_t i = 0; i < json_array_size(families); i++)
		metrics_text_family(out, json_array_get(families, i), machine);
}
