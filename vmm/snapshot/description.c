/* SPDX-License-Identifier: Apache-2.0 */
/* See description.h. */
#include "vmm/snapshot/description.h"

#include "core/utc.h"

#include <stdio.h>
#include <time.h>

static const uint8_t description_no_id[16];

static json_t *description_id(const uint8_t id[16])
{
	char text[SNAPSHOT_ID_TEXT];

	snapshot_id_text(id, text);
	return memcmp(id, description_no_id, sizeof(description_no_id)) ? json_string(text) : json_null();
}

static json_t *description_time(uint64_t ns)
{
	struct tm tm;

	utc_fields((int64_t)(ns / 1000000000u), &tm);
	return json_sprintf("%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
			    tm.tm_min, tm.tm_sec);
}

/* The file that the machine found from its own folder is found from every other one, too. */
static void description_make_absolute(json_t *object, const char *key, const char *folder)
{
	const char *path = json_string_value(json_object_get(object, key));
	char *absolute;

	if (!path || !*path || *path == '/' || asprintf(&absolute, "%s/%s", folder, path) < 0)
		return;
	json_object_set_new(object, key, json_string(absolute));
	free(absolute);
}

static int description_make_all_absolute(json_t *config, struct err *err)
{
	_cleanup_(free_ptr) char *folder = getcwd(NULL, 0);
	json_t *device;
	size_t i;

	if (!folder)
		return err_sys(err, -errno, "the machine's folder");
	json_array_foreach(json_object_get(config, "disk"), i, device)
		description_make_absolute(device, "path", folder);
	json_array_foreach(json_object_get(config, "net"), i, device)
		description_make_absolute(device, "passt", folder);
	description_make_absolute(json_object_get(config, "vsock"), "socket", folder);
	return 0;
}

int snapshot_description_write(const struct snapshot_state *state, const char *offer, char **ret, struct err *err)
{
	json_t *object = json_loads(offer, JSON_REJECT_DUPLICATES, NULL), *root;
	int code = json_is_object(object) ? description_make_all_absolute(json_object_get(object, "config"), err) :
		   err_set(err, -EINVAL, "a snapshot's description: the offer is no object");

	if (code) {
		json_decref(object);
		return code;
	}
	root = json_pack("{s:i, s:b, s:s, s:o, s:o, s:o, s:o}", "format", (int)SNAPSHOT_VERSION, "experimental", 1, "program",
			 "mvmm " MVMM_VERSION, "id", description_id(state->id), "parent", description_id(state->parent),
			 "created", description_time(state->created_ns), "offer", object);
	*ret = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return *ret ? 0 : err_sys(err, -ENOMEM, "a snapshot's description");
}

/* Whether root says under key what it must. */
static bool description_has_id(const json_t *root, const char *key, const uint8_t id[16])
{
	json_t *wanted = description_id(id);
	bool same = json_equal(wanted, json_object_get(root, key));

	json_decref(wanted);
	return same;
}

static int description_check(const struct snapshot_state *state, const json_t *root, struct err *err)
{
	const json_t *format = json_object_get(root, "format");

	if (!json_is_integer(format))
		return err_set(err, -EBADMSG, "damaged: its description has no format");
	if (json_integer_value(format) != SNAPSHOT_VERSION)
		return err_set(err, -ENOTSUP, "its description has format %lld, this program knows %u; use the mvmm that wrote it",
			       (long long)json_integer_value(format), SNAPSHOT_VERSION);
	if (!description_has_id(root, "id", state->id) || !description_has_id(root, "parent", state->parent))
		return err_set(err, -EBADMSG, "damaged: its description is of another snapshot");
	if (!json_is_object(json_object_get(root, "offer")))
		return err_set(err, -EBADMSG, "damaged: its description has no offer");
	return 0;
}

int snapshot_description_read(const struct snapshot_state *state, struct stage *stage, json_t **ret, struct err *err)
{
	json_t *root;
	int code = json_stage_parse(stage, state->description.data, state->description.len, &root, err);

	if (code)
		return err_prefix(err, code, "%s", code == -EBADMSG ? "damaged: its description" : "its description");
	code = description_check(state, root, err);
	if (code) {
		json_decref(root);
		return code;
	}
	*ret = root;
	return 0;
}
