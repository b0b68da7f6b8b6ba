/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of metrics as JSON: families in the manner of Prometheus, each with a name, a type, a line of help and samples
 * with labels. machine_metrics.c and the session fill it in; docs/control.md (Metrics) has the form.
 *
 * Out of memory: the set is incomplete, and metrics_take fails.
 */
#pragma once

#include "core/counter.h"
#include "core/err.h"

#include <jansson.h>

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

struct metrics {
	json_t *families;
	json_t *samples; /* of the family that was begun last */
	bool failed;
};

/* A label of a sample; name NULL: none. */
struct metrics_label {
	const char *name, *value;
};
#define METRICS_LABELS 3u

void metrics_init(struct metrics *metrics);
/* Begins a family, to which the samples that follow belong. Its name begins with mvmm_; counters end in _total. */
void metrics_begin(struct metrics *metrics, enum metrics_type type, const char *name, const char *help);
/* Adds a sample; labels end with one without a name, or after METRICS_LABELS. NULL: it has none. */
void metrics_add(struct metrics *metrics, const struct metrics_label *labels, uint64_t value);
void metrics_add_real(struct metrics *metrics, const struct metrics_label *labels, double value);
void metrics_add_histogram(struct metrics *metrics, const struct metrics_label *labels,
			   const struct counter_histogram *histogram);
/* A family of one sample without labels. */
void metrics_one(struct metrics *metrics, enum metrics_type type, const char *name, const char *help, uint64_t value);
/* The array of families, without those that have no sample, now the caller's. -ENOMEM. The set is empty. */
int metrics_take(struct metrics *metrics, json_t **ret, struct err *err);

#define metrics_labels(...) ((const struct metrics_label[METRICS_LABELS + 1]){__VA_ARGS__})
