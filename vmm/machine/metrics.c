/* SPDX-License-Identifier: Apache-2.0 */
/* See metrics.h. */
#include "vmm/machine/metrics.h"

static const char *const types[] = {
	[METRICS_COUNTER] = "counter", [METRICS_GAUGE] = "gauge", [METRICS_HISTOGRAM] = "histogram",
};

void metrics_init(struct metrics *metrics)
{
	*metrics = (struct metrics){.families = json_array()};
	metrics->failed = !metrics->families;
}

/* A family that got no samples is not shown. */
static void metrics_end(struct metrics *metrics)
{
	size_t count = json_array_size(metrics->families);

	if (metrics->samples && !json_array_size(metrics->samples))
		json_array_remove(metrics->families, count - 1);
	metrics->samples = NULL;
}

void metrics_begin(struct metrics *metrics, enum metrics_type type, const char *name, const char *help)
{
	json_t *family, *samples = json_array();

	metrics_end(metrics);
	family = json_pack("{s:s, s:s, s:s, s:o}", "name", name, "type", types[type], "help", help, "samples", samples);
	if (json_array_append_new(metrics->families, family))
		metrics->failed = true;
	else
		metrics->samples = samples;
}

/* Takes the reference to sample. */
static void metrics_append(struct metrics *metrics, const struct metrics_label *labels, json_t *sample)
{
	json_t *object = json_object();

	for (size_t i = 0; labels && i < METRICS_LABELS && labels[i].name; i++)
		if (json_object_set_new(object, labels[i].name, json_string(labels[i].value) ?: json_string("?")))
			metrics->failed = true;
	if (json_object_set_new(sample, "labels", object) || json_array_append_new(metrics->samples, sample))
		metrics->failed = true;
}

void metrics_add(struct metrics *metrics, const struct metrics_label *labels, uint64_t value)
{
	metrics_append(metrics, labels, json_pack("{s:I}", "value", (json_int_t)value));
}

void metrics_add_real(struct metrics *metrics, const struct metrics_label *labels, double value)
{
	metrics_append(metrics, labels, json_pack("{s:f}", "value", value));
}

/* Each bucket counts all that took no longer than le (in seconds); the last one, which counts all, is the count. */
void metrics_add_histogram(struct metrics *metrics, const struct metrics_label *labels,
			   const struct counter_histogram *histogram)
{
	json_t *buckets = json_array();
	uint64_t count = 0;

	for (unsigned int i = 0; i < COUNTER_BUCKETS; i++) {
		count += histogram->buckets[i];
		if (i + 1 < COUNTER_BUCKETS &&
		    json_array_append_new(buckets, json_pack("{s:f, s:I}", "le", (double)(1ull << i) / 1e6, "count",
							     (json_int_t)count)))
			metrics->failed = true;
	}
	metrics_append(metrics, labels, json_pack("{s:o, s:f, s:I}", "buckets", buckets, "sum",
						  (double)histogram->ns / 1e9, "count", (json_int_t)count));
}

void metrics_one(struct metrics *metrics, enum metrics_type type, const char *name, const char *help, uint64_t value)
{
	metrics_begin(metrics, type, name, help);
	metrics_add(metrics, NULL, value);
}

int metrics_take(struct metrics *metrics, json_t **ret, struct err *err)
{
	json_t *families;

	metrics_end(metrics);
	families = take_ptr(metrics->families);
	if (metrics->failed) {
		json_decref(families);
		return err_sys(err, -ENOMEM, "metrics");
	}
	*ret = families;
	return 0;
}
