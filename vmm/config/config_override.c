/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See config.h: replaces what differs on the target host in the configuration that was offered. A device's new value is
 * parsed by the table of options, as on the command line of `mvmm run`. What the guest has seen of the device stays.
 */
#include "vmm/config/config.h"

#include <stdio.h>

/* ---- the devices by id ---- */

/* A kind of device in the configuration. */
struct kind {
	const char *option;
	size_t array, count, size, id;
	/* Moves what differs on this host from written to item. */
	void (*take)(void *item, void *written);
};

static void config_override_swap_text(char **a, char **b)
{
	char *text = *a;

	*a = *b;
	*b = text;
}

static void config_override_take_disk(void *item, void *written)
{
	struct disk_config *disk = item, *from = written;

	config_override_swap_text(&disk->path, &from->path);
	disk->below = NULL;
	disk->direct |= from->direct;
	disk->lock = from->lock;
}

static void config_override_take_net(void *item, void *written)
{
	struct net_config *net = item, *from = written;

	net->kind = from->kind;
	net->vhost = from->vhost;
	config_override_swap_text(&net->target, &from->target);
}

static void config_override_take_vfio(void *item, void *written)
{
	struct vfio_config *vfio = item, *from = written;

	config_override_swap_text(&vfio->device, &from->device);
	config_override_swap_text(&vfio->rom_file, &from->rom_file);
	config_override_swap_text(&vfio->token, &from->token);
	vfio->backend = from->backend;
	vfio->fd = from->fd;
	vfio->rom = from->rom;
	vfio->p2p = from->p2p;
}

#define KIND(name, type, array_, count_)                                                                        \
	{.option = #name, .array = offsetof(struct machine_config, array_),                                     \
	 .count = offsetof(struct machine_config, count_), .size = sizeof(struct type),                         \
	 .id = offsetof(struct type, id), .take = config_override_take_##name}

static const struct kind kinds[] = {
	KIND(disk, disk_config, disks, disk_count),
	KIND(net, net_config, nets, net_count),
	KIND(vfio, vfio_config, vfios, vfio_count),
};

static char *config_override_items_of(const struct kind *kind, struct machine_config *config, size_t *count)
{
	*count = *(size_t *)((char *)config + kind->count);
	return *(char **)((char *)config + kind->array);
}

static const char *config_override_id_of(const struct kind *kind, const char *item)
{
	return *(char *const *)(item + kind->id);
}

static int config_override_unknown_id(const struct kind *kind, struct machine_config *config, const char *id,
				      size_t len, struct err *err)
{
	char list[300] = "";
	size_t count, used = 0;
	char *items = config_override_items_of(kind, config, &count);

	for (size_t i = 0; i < count && used < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "",
					 config_override_id_of(kind, items + i * kind->size) ?: "?");
	return err_set(err, -EINVAL, "--%s %.*s: the incoming machine has no %s with this id; %s%s", kind->option,
		       (int)MIN(len, 60u), id, kind->option, count ? "it has " : "it has none", list);
}

static int config_override_device(const struct kind *kind, struct machine_config *config, const char *text,
				  struct err *err)
{
	size_t len = strcspn(text, "="), count;
	char *items = config_override_items_of(kind, config, &count), *item = NULL;
	struct machine_config written;
	char option[16];
	char *words[] = {option, (char *)text + len + 1};
	int code;

	if (!text[len] || !len)
		return err_set(err, -EINVAL, "--%s %.100s: does not say which; write ID=VALUE", kind->option, text);
	for (size_t i = 0; i < count && !item; i++) {
		const char *id = config_override_id_of(kind, items + i * kind->size);

		if (id && strlen(id) == len && memcmp(id, text, len) == 0)
			item = items + i * kind->size;
	}
	if (!item)
		return config_override_unknown_id(kind, config, text, len, err);
	snprintf(option, sizeof(option), "--%s", kind->option);
	machine_config_init(&written);
	code = options_parse(&machine_options, &written, ARRAY_SIZE(words), words, NULL, 0, err);
	if (code == 0)
		kind->take(item, config_override_items_of(kind, &written, &count));
	machine_config_done(&written);
	return code;
}

/* ---- the rest ---- */

static int config_override_vsock(struct machine_config *config, const char *text, struct err *err)
{
	char *socket;

	if (!config->vsock.cid || !*text)
		return err_set(err, -EINVAL, "--vsock %.100s: %s", text,
			       *text ? "the incoming machine has no vsock" :
				       "empty; write the path of a socket, or kernel");
	socket = strcmp(text, "kernel") == 0 ? NULL : strdup(text);
	if (!socket && strcmp(text, "kernel") != 0)
		return err_sys(err, -ENOMEM, "--vsock");
	free(config->vsock.socket);
	config->vsock.socket = socket;
	return 0;
}

int machine_config_override(struct machine_config *config, const char *option, const char *text, struct err *err)
{
	static const char *const whole[] = {"name", "serial", "console"};
	char dashed[16];
	char *words[] = {dashed, (char *)text};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i].option, option) == 0)
			return config_override_device(&kinds[i], config, text, err);
	if (strcmp(option, "vsock") == 0)
		return config_override_vsock(config, text, err);
	for (size_t i = 0; i < ARRAY_SIZE(whole); i++) {
		if (strcmp(whole[i], option) != 0)
			continue;
		snprintf(dashed, sizeof(dashed), "--%s", option);
		return options_parse(&machine_options, config, ARRAY_SIZE(words), words, NULL, 0, err);
	}
	return err_set(err, -EINVAL, "--%.60s: cannot be changed for an incoming machine", option);
}
