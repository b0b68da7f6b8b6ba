/* SPDX-License-Identifier: Apache-2.0 */
/* See given_json.h. */
#include "vmm/machine/given_json.h"

#include <stdio.h>

void given_json_write(const struct vfio_given *given, json_t *parameters)
{
	const struct vfio_host *host = &given->host;
	json_t *device = json_pack("{s:s, s:s, s:b, s:i, s:b, s:s}", "name", host->name, "path", host->path, "mdev", host->mdev,
				   "group", host->group, "noiommu", host->noiommu, "cdev", host->cdev);
	json_t *files = json_array();

	for (size_t i = 0; i < given->count; i++)
		json_array_append_new(files, json_string(given->files[i].path));
	json_object_set_new(parameters, "device", device);
	json_object_set_new(parameters, "files", files);
}

/* A word that may be missing, if there is no prefix that it begins with. */
static bool given_json_read_word(const json_t *device, const char *key, const char *prefix, char *to, size_t size)
{
	const char *text = json_string_value(json_object_get(device, key));

	if (!text)
		return !*prefix;
	if (strlen(text) >= size || (*text && strncmp(text, prefix, strlen(prefix)) != 0))
		return false;
	snprintf(to, size, "%s", text);
	return true;
}

static bool given_json_read_device(const json_t *device, struct vfio_host *ret)
{
	const json_t *group = json_object_get(device, "group");
	json_int_t number = json_is_integer(group) ? json_integer_value(group) : -1;

	*ret = (struct vfio_host){.group = (int)number, .mdev = json_is_true(json_object_get(device, "mdev")),
				  .noiommu = json_is_true(json_object_get(device, "noiommu"))};
	return json_is_object(device) && number >= -1 && number <= INT32_MAX &&
	       given_json_read_word(device, "name", "", ret->name, sizeof(ret->name)) && *ret->name &&
	       given_json_read_word(device, "path", "/sys/", ret->path, sizeof(ret->path)) && *ret->path &&
	       given_json_read_word(device, "cdev", "", ret->cdev, sizeof(ret->cdev));
}

static bool given_json_read_files(const json_t *files, int *fds, size_t count, struct vfio_given *ret)
{
	bool good = json_array_size(files) == count;

	for (size_t i = 0; i < count && good; i++) {
		const char *path = json_string_value(json_array_get(files, i));

		good = path && vfio_given_add(ret, path, take_fd(&fds[i])) == 0;
	}
	return good;
}

const char *given_json_read(const json_t *parameters, int *fds, size_t count, struct vfio_given *ret)
{
	struct vfio_given given = {.count = 0};
	const char *bad = !given_json_read_files(json_object_get(parameters, "files"), fds, count, &given) ? "files" :
			  count && !given_json_read_device(json_object_get(parameters, "device"), &given.host) ? "device" : NULL;

	for (size_t i = 0; i < count; i++)
		fd_close(&fds[i]);
	if (bad)
		vfio_given_close(&given);
	else
		*ret = given;
	return bad;
}
