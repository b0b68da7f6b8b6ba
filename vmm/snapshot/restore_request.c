/* SPDX-License-Identifier: Apache-2.0 */
/* See restore_request.h. */
#include "vmm/snapshot/restore_request.h"

#include "core/util.h"

#include <string.h>

static const struct {
	const char *name;
	size_t offset;
} words[] = {
	{"name", offsetof(struct arrival_options, name)},
	{"serial", offsetof(struct arrival_options, serial)},
	{"console", offsetof(struct arrival_options, console)},
	{"vsock", offsetof(struct arrival_options, vsock)},
};

static const struct {
	const char *name;
	size_t array, count;
} lists[] = {
	{"disks", offsetof(struct arrival_options, disks), offsetof(struct arrival_options, disk_count)},
	{"nets", offsetof(struct arrival_options, nets), offsetof(struct arrival_options, net_count)},
};

static char **restore_request_word(struct restore_request *request, size_t index)
{
	return (char **)((char *)&request->here + words[index].offset);
}

static struct arrival_override **restore_request_list(struct restore_request *request, size_t index, size_t **count)
{
	*count = (size_t *)((char *)&request->here + lists[index].count);
	return (struct arrival_override **)((char *)&request->here + lists[index].array);
}

/* ---- to JSON ---- */

static json_t *restore_request_list_to_json(const struct restore_request *request, size_t index)
{
	size_t *count;
	struct arrival_override **list = restore_request_list((struct restore_request *)request, index, &count);
	json_t *array = json_array();

	for (size_t i = 0; i < *count; i++)
		json_array_append_new(array, json_string((*list)[i].text));
	return array;
}

json_t *restore_request_to_json(const struct restore_request *request)
{
	json_t *object = json_pack("{s:b}", "paused", request->paused), *files = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		const char *word = *restore_request_word((struct restore_request *)request, i);

		if (word)
			json_object_set_new(object, words[i].name, json_string(word));
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		json_object_set_new(object, lists[i].name, restore_request_list_to_json(request, i));
	for (size_t i = 0; i < request->file_count; i++)
		json_array_append_new(files, json_string(request->files[i].path));
	json_object_set_new(object, "files", files);
	return object;
}

/* ---- from JSON ---- */

/* Missing is fine. */
static bool restore_request_read_word(const json_t *value, char **ret)
{
	if (!value || json_is_null(value))
		return true;
	*ret = json_is_string(value) ? strdup(json_string_value(value)) : NULL;
	return *ret;
}

static bool restore_request_read_list(const json_t *value, struct arrival_override **ret, size_t *count)
{
	size_t size = json_array_size(value);

	if (!value || json_is_null(value))
		return true;
	*ret = json_is_array(value) ? calloc(MAX(size, 1), sizeof(**ret)) : NULL;
	if (!*ret)
		return false;
	while (*count < size) {
		const char *text = json_string_value(json_array_get(value, *count));

		(*ret)[*count].text = text ? strdup(text) : NULL;
		if (!(*ret)[*count].text)
			return false;
		(*count)++;
	}
	return true;
}

/* All descriptors belong to the request from here on. */
static bool restore_request_read_files(const json_t *value, const int *fds, size_t fd_count,
				       struct restore_request *ret)
{
	bool good = fd_count <= RESTORE_MAX_FILES && json_array_size(value) == fd_count;

	for (size_t i = 0; i < fd_count; i++) {
		const char *path = good ? json_string_value(json_array_get(value, i)) : NULL;
		char *copy = path ? strdup(path) : NULL;

		good = copy;
		if (good)
			ret->files[ret->file_count++] = (struct restore_file){copy, fds[i]};
		else
			close(fds[i]);
	}
	return good;
}

static const char *restore_request_read(const json_t *parameters, const int *fds, size_t fd_count,
					struct restore_request *ret)
{
	const json_t *paused = json_object_get(parameters, "paused");
	size_t *count;

	if (!restore_request_read_files(json_object_get(parameters, "files"), fds, fd_count, ret))
		return "files";
	if (paused && !json_is_boolean(paused) && !json_is_null(paused))
		return "paused";
	ret->paused = json_is_true(paused);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!restore_request_read_word(json_object_get(parameters, words[i].name), restore_request_word(ret, i)))
			return words[i].name;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		struct arrival_override **list = restore_request_list(ret, i, &count);

		if (!restore_request_read_list(json_object_get(parameters, lists[i].name), list, count))
			return lists[i].name;
	}
	return NULL;
}

const char *restore_request_from_json(const json_t *parameters, const int *fds, size_t fd_count,
				      struct restore_request *ret)
{
	struct restore_request request = {.file_count = 0};
	const char *bad = restore_request_read(parameters, fds, fd_count, &request);

	if (bad)
		restore_request_done(&request);
	else
		*ret = request;
	return bad;
}

void restore_request_done(struct restore_request *request)
{
	size_t *count;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		free(*restore_request_word(request, i));
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		struct arrival_override **list = restore_request_list(request, i, &count);

		while (*count)
			free((*list)[--*count].text);
		free(*list);
	}
	while (request->file_count) {
		struct restore_file *file = &request->files[--request->file_count];

		fd_close(&file->fd);
		free(file->path);
	}
}
