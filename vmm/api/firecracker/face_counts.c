/* SPDX-License-Identifier: Apache-2.0 */
/* See face_counts.h. The counts are those of operations.metrics. */
#include "vmm/api/firecracker/face_counts.h"

#include <stdio.h>

/* A sample of one of mvmm's families, by one of its labels, and what Firecracker calls it. */
static const struct row {
	const char *family, *label, *value, *group, *leaf;
} rows[] = {
	{"mvmm_disk_requests_total", "kind", "read", "block", "read_count"},
	{"mvmm_disk_requests_total", "kind", "write", "block", "write_count"},
	{"mvmm_disk_requests_total", "kind", "flush", "block", "flush_count"},
	{"mvmm_disk_bytes_total", "kind", "read", "block", "read_bytes"},
	{"mvmm_disk_bytes_total", "kind", "write", "block", "write_bytes"},
	{"mvmm_disk_failed_requests_total", "kind", NULL, "block", "execute_fails"},
	{"mvmm_net_bytes_total", "direction", "rx", "net", "rx_bytes_count"},
	{"mvmm_net_bytes_total", "direction", "tx", "net", "tx_bytes_count"},
	{"mvmm_net_packets_total", "direction", "rx", "net", "rx_packets_count"},
	{"mvmm_net_packets_total", "direction", "tx", "net", "tx_packets_count"},
	{"mvmm_net_dropped_total", "direction", "rx", "net", "no_rx_avail_buffer"},
};

void face_counts_sum(json_t *line, const char *group, const char *leaf, json_int_t value)
{
	json_t *object = json_object_get(line, group);

	if (!object) {
		object = json_object();
		json_object_set_new(line, group, object);
	}
	value += json_integer_value(json_object_get(object, leaf));
	json_object_set_new(object, leaf, json_integer(value));
}

/* The client's id of a device; NULL: it has not put it. */
static const char *face_counts_id(const struct face *face, const char *name)
{
	for (size_t i = 0; i < face->drive_count; i++)
		if (strcmp(face->drives[i].name, name) == 0)
			return face->drives[i].body.drive_id;
	for (size_t i = 0; i < face->net_count; i++)
		if (strcmp(face->nets[i].name, name) == 0)
			return face->nets[i].body.iface_id;
	return NULL;
}

static void face_counts_sample(const struct face *face, const struct row *row, const json_t *sample, json_t *totals)
{
	const json_t *labels = json_object_get(sample, "labels");
	const char *is = json_string_value(json_object_get(labels, row->label));
	const char *device = json_string_value(json_object_get(labels, "device"));
	const char *id = device ? face_counts_id(face, device) : NULL;
	json_int_t value = json_integer_value(json_object_get(sample, "value"));
	char group[300];

	if (!is || (row->value && strcmp(is, row->value) != 0))
		return;
	face_counts_sum(totals, row->group, row->leaf, value);
	snprintf(group, sizeof(group), "%s_%s", row->group, id ?: "");
	if (id)
		face_counts_sum(totals, group, row->leaf, value);
}

static json_t *face_counts_totals(const struct face *face, const json_t *families)
{
	json_t *totals = json_object(), *family, *sample;
	size_t i, j;

	json_array_foreach((json_t *)families, i, family) {
		const char *name = json_string_value(json_object_get(family, "name"));

		for (size_t row = 0; row < ARRAY_SIZE(rows); row++) {
			if (!name || strcmp(rows[row].family, name) != 0)
				continue;
			json_array_foreach(json_object_get(family, "samples"), j, sample)
				face_counts_sample(face, &rows[row], sample, totals);
		}
	}
	return totals;
}

/* A device that has come again under an id counts from 0. */
static void face_counts_since(const json_t *totals, const json_t *before, json_t *line)
{
	const char *group, *leaf;
	json_t *object, *value;

	json_object_foreach((json_t *)totals, group, object) {
		const json_t *then = json_object_get(before, group);

		json_object_foreach(object, leaf, value) {
			json_int_t now = json_integer_value(value), was = json_integer_value(json_object_get(then, leaf));

			face_counts_sum(line, group, leaf, now >= was ? now - was : now);
		}
	}
}

void face_counts_add(struct face *face, json_t *line)
{
	json_t *metrics, *totals;

	if (face->phase != FACE_AFTER || face->operated->ops->metrics(face->operated->session, &metrics, NULL))
		return;
	totals = face_counts_totals(face, json_object_get(metrics, "families"));
	json_decref(metrics);
	face_counts_since(totals, face->counted, line);
	json_decref(face->counted);
	face->counted = totals;
}
