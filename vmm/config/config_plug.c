/* SPDX-License-Identifier: Apache-2.0 */
/* See config_plug.h. The kinds of devices are a table; how one is written follows from the table of options. */
#include "vmm/config/config_plug.h"

#include "vmm/config/config_json.h"

#include <stdio.h>

struct kind {
	const char *option;
	size_t array, count, size, id;
	int (*check)(const void *item, struct err *err); /* what only a device that comes later must be; or NULL */
	void (*close)(void *item);                       /* its descriptor; or NULL */
};

static int config_plug_check_vfio(const void *item, struct err *err)
{
	const struct vfio_config *vfio = item;

	return vfio->fd < 0 ? 0 : err_set(err, -EINVAL, "--vfio fd=%d: only mvmm run takes descriptors; write the device's "
					  "BDF", vfio->fd);
}

static void config_plug_close_vfio(void *item)
{
	fd_close(&((struct vfio_config *)item)->fd);
}

#define KIND(name, type, array_, count_) \
	.option = name, .array = offsetof(struct machine_config, array_), \
	.count = offsetof(struct machine_config, count_), .size = sizeof(struct type), .id = offsetof(struct type, id)

static const struct kind kinds[] = {
	{KIND("disk", disk_config, disks, disk_count)},
	{KIND("net", net_config, nets, net_count)},
	{KIND("vfio", vfio_config, vfios, vfio_count), .check = config_plug_check_vfio, .close = config_plug_close_vfio},
};

static const struct kind *config_plug_kind(const char *option)
{
	const struct kind *kind = kinds;

	while (strcmp(kind->option, option) != 0)
		kind++;
	return kind;
}

static size_t *config_plug_count(const struct kind *kind, const struct machine_config *config)
{
	return (size_t *)((char *)config + kind->count);
}

static void *config_plug_at(const struct kind *kind, const struct machine_config *config, size_t index)
{
	return *(char **)((char *)config + kind->array) + index * kind->size;
}

static char **config_plug_id(const struct kind *kind, void *item)
{
	return (char **)((char *)item + kind->id);
}

/* NULL: there is none. */
static void *config_plug_find(const struct kind *kind, const struct machine_config *config, const char *id)
{
	for (size_t i = 0; i < *config_plug_count(kind, config); i++) {
		void *item = config_plug_at(kind, config, i);

		if (*config_plug_id(kind, item) && strcmp(*config_plug_id(kind, item), id) == 0)
			return item;
	}
	return NULL;
}

static void config_plug_drop(const struct kind *kind, struct machine_config *config, void *item)
{
	size_t *count = config_plug_count(kind, config);
	const char *nearest;

	option_item_done(option_lookup(&machine_options, kind->option, strlen(kind->option), &nearest), item);
	--*count;
	memmove(item, (char *)item + kind->size,
		(size_t)((char *)config_plug_at(kind, config, *count) - (char *)item));
}

/* The number of a removed device is used again. */
static int config_plug_make_id(const struct kind *kind, const struct machine_config *config, char **ret, struct err *err)
{
	char id[MACHINE_MAX_NAME];
	size_t number = 0;

	do {
		snprintf(id, sizeof(id), "%s%zu", kind->option, number++);
	} while (config_plug_find(kind, config, id));
	*ret = strdup(id);
	return *ret ? 0 : err_sys(err, -ENOMEM, "--%s", kind->option);
}

/* Checks what was added to those that were there before; removes it if it is not right, or if code is not 0. */
static int config_plug_finish(const struct kind *kind, struct machine_config *config, size_t before, int code,
			      struct err *err)
{
	void *item = config_plug_at(kind, config, before);

	if (!code && *config_plug_count(kind, config) != before + 1)
		code = err_set(err, -EINVAL, "--%s: not one device", kind->option);
	if (!code && kind->check)
		code = kind->check(item, err);
	if (!code && !*config_plug_id(kind, item))
		code = config_plug_make_id(kind, config, config_plug_id(kind, item), err);
	code = code ?: machine_config_finish_devices(config, err);
	while (code && *config_plug_count(kind, config) > before)
		config_plug_drop(kind, config, config_plug_at(kind, config, *config_plug_count(kind, config) - 1));
	return code;
}

int config_plug_add(struct machine_config *config, const char *option, const char *text, struct err *err)
{
	const struct kind *kind = config_plug_kind(option);
	size_t before = *config_plug_count(kind, config);
	char dashed[16];
	char *words[] = {dashed, (char *)text};

	snprintf(dashed, sizeof(dashed), "--%s", option);
	return config_plug_finish(kind, config, before,
				  options_parse(&machine_options, config, 2, words, NULL, 0, err), err);
}

int config_plug_add_json(struct machine_config *config, const char *option, json_t *item, struct err *err)
{
	const struct kind *kind = config_plug_kind(option);
	size_t before = *config_plug_count(kind, config);
	json_t *root = json_pack("{s:O}", option, item);
	int code = root ? config_json_read(&machine_options, config, root, err) : err_sys(err, -ENOMEM, "--%s", option);

	json_decref(root);
	return config_plug_finish(kind, config, before, code, err);
}

const char *config_plug_last(const struct machine_config *config, const char *option)
{
	const struct kind *kind = config_plug_kind(option);

	return *config_plug_id(kind, config_plug_at(kind, config, *config_plug_count(kind, config) - 1));
}

void config_plug_remove(struct machine_config *config, const char *id)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		void *item = config_plug_find(&kinds[i], config, id);

		if (!item)
			continue;
		if (kinds[i].close)
			kinds[i].close(item);
		config_plug_drop(&kinds[i], config, item);
		return;
	}
}
