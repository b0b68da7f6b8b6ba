/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics (metrics.h) as text. Called by `mvmm metrics` and by the HTTP faces. */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* machine: in the text format of Prometheus (0.0.4), with its name as a label; NULL: for people. */
void metrics_text_write(const json_t *families, const char *machine, FILE *out);
