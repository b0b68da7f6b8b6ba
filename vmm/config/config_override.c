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

/* A limit stays, unless another one is given. */
static void config_override_take_rate(struct rate *rate, const struct rate *from)
{
	if (from->given)
		*rate = *from;
}

static void config_override_take_disk(void *item, void *written)
{
	struct disk_config *disk = item, *from = written;

	config_override_swap_text(&disk->path, &from->path);
	disk->below = NULL;
	disk->direct |= from->direct;
	disk->lock = from->lock;
	config_override_take_rate(&disk->bandwidth, &from->bandwidth);
	config_override_take_rate(&disk->ops, &from->ops);
}

/* The guest keeps its address, unless another one is given. */
static void config_override_take_net(void *item, void *written)
{
	static const uint8_t none[6];
	struct net_config *net = item, *from = written;

	if (memcmp(from->mac, none, sizeof(none)) != 0) {
		memcpy(net->mac, from->mac, sizeof(net->mac));
		net->new_mac = true;
	}
	config_override_take_rate(&net->rx_bandwidth, &from->rx_bandwidth);
	config_override_take_rate(&net->rx_packets, &from->rx_packets);
	config_override_take_rate(&net->tx_bandwidth, &from->tx_bandwidth);
	config_override_take_rate(&net->tx_packets, &from->tx_packets);
	if (from->kind == NET_NONE)
		return;
	net->kind = from->kind;
	net->fd = from->fd;
	net->vhost = from->vhost;
	net->link = from->link;
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
	return err_set(err, -EINVAL, "--%s %.*s: the machine has no %s with this id; %s%s", kind->option,
		       (int)MIN(len, 60u), id, kind->option, count ? "it has " : "it has none", list);
}

/* As on the command line. A network card may also be given only another address: it stays where it is connected. */
static int config_override_parse(const char *option, const char *value, struct machine_config *written,
				 struct err *err)
{
	bool address = strcmp(option, "net") == 0 && strncmp(value, "mac=", 4) == 0 && !strchr(value, ',');
	const struct option *net = address ? option_lookup(&machine_options, "net", 3, &(const char *){NULL}) : NULL;
	char dashed[16];
	char *words[] = {dashed, (char *)value};
	option_set given = 0, keys = 0;
	int code;

	snprintf(dashed, sizeof(dashed), "--%s", option);
	if (!address)
		return options_parse(&machine_options, written, ARRAY_SIZE(words), words, NULL, 0, err);
	code = option_key_set(net, option_key_lookup(net, "mac", 3, &(const char *){NULL}),
			      option_begin(&machine_options, net, written, &given, err), value + 4, &keys, err);
	return code ? err_prefix(err, code, "--net %.100s", value) : 0;
}

static int config_override_no_id(const char *option, const char *text, struct err *err)
{
	return err_set(err, -EINVAL, "--%s %.100s: does not say which; write ID=VALUE", option, text);
}

static int config_override_device(const struct kind *kind, struct machine_config *config, const char *text,
				  struct err *err)
{
	size_t len = strcspn(text, "="), count;
	char *items = config_override_items_of(kind, config, &count), *item = NULL;
	struct machine_config written;
	int code;

	if (!text[len] || !len)
		return config_override_no_id(kind->option, text, err);
	for (size_t i = 0; i < count && !item; i++) {
		const char *id = config_override_id_of(kind, items + i * kind->size);

		if (id && strlen(id) == len && memcmp(id, text, len) == 0)
			item = items + i * kind->size;
	}
	if (!item)
		return config_override_unknown_id(kind, config, text, len, err);
	machine_config_init(&written);
	code = config_override_parse(kind->option, text + len + 1, &written, err);
	if (code == 0)
		kind->take(item, config_override_items_of(kind, &written, &count));
	machine_config_done(&written);
	return code;
}

int machine_config_override_path(const char *text, char **ret, struct err *err)
{
	size_t len = strcspn(text, "=");
	struct machine_config written;
	int code;

	if (!text[len] || !len)
		return config_override_no_id("disk", text, err);
	machine_config_init(&written);
	code = config_override_parse("disk", text + len + 1, &written, err);
	if (!code)
		*ret = take_ptr(written.disks[0].path);
	machine_config_done(&written);
	return code;
}

/* ---- the rest ---- */

struct vsock_override {
	unsigned int cid; /* 0: not given */
	char *socket;
	bool kernel;
};

#define VSOCK(member) .offset = offsetof(struct vsock_override, member)

static const struct option_key vsock_keys[] = {
	{"cid", OPTION_UINT, VSOCK(cid), .min = 3, .max = INT32_MAX, .help = "N"},
	{"socket", OPTION_STRING, VSOCK(socket), .help = "FILE"},
	{"kernel", OPTION_FLAG, VSOCK(kernel)},
};
static const struct option vsock_option = {
	.name = "vsock", .value = "SOCKET|kernel|cid=N[,socket=PATH|,kernel]", .keys = vsock_keys,
	.key_count = ARRAY_SIZE(vsock_keys),
};
static const struct option_table vsock_table = {&vsock_option, 1};

/* A text without a key is a path as it stands. */
static int config_override_parse_vsock(const char *text, struct vsock_override *ret, struct err *err)
{
	bool keyed = strncmp(text, "cid=", 4) == 0 || strncmp(text, "socket=", 7) == 0;
	char option[] = "--vsock", *words[] = {option, (char *)text};

	options_init(&vsock_table, ret);
	if (keyed)
		return options_parse(&vsock_table, ret, ARRAY_SIZE(words), words, NULL, 0, err);
	ret->kernel = strcmp(text, "kernel") == 0;
	ret->socket = ret->kernel ? NULL : strdup(text);
	return ret->kernel || ret->socket ? 0 : err_sys(err, -ENOMEM, "--vsock");
}

static int config_override_vsock(struct machine_config *config, const char *text, struct err *err)
{
	struct vsock_override given;
	int code;

	if (!config->vsock.cid || !*text)
		return err_set(err, -EINVAL, "--vsock %.100s: %s", text,
			       *text ? "the machine has no vsock" :
				       "empty; write the path of a socket, or kernel");
	code = config_override_parse_vsock(text, &given, err);
	if (code == 0 && given.socket && given.kernel)
		code = err_set(err, -EINVAL, "--vsock %.100s: socket and kernel exclude each other", text);
	if (code == 0 && (given.socket || given.kernel)) {
		config_override_swap_text(&config->vsock.socket, &given.socket);
		config->vsock.named = true;
	}
	if (code == 0 && given.cid)
		config->vsock.cid = given.cid;
	options_done(&vsock_table, &given);
	return code;
}

int machine_config_override(struct machine_config *config, const char *option, const char *text, struct err *err)
{
	static const char *const whole[] = {"name", "serial", "console", "clock"};
	const struct rate bandwidth = config->serial.bandwidth;
	char dashed[16];
	char *words[] = {dashed, (char *)text};
	int code;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i].option, option) == 0)
			return config_override_device(&kinds[i], config, text, err);
	if (strcmp(option, "vsock") == 0)
		return config_override_vsock(config, text, err);
	for (size_t i = 0; i < ARRAY_SIZE(whole); i++) {
		if (strcmp(whole[i], option) != 0)
			continue;
		snprintf(dashed, sizeof(dashed), "--%s", option);
		code = options_parse(&machine_options, config, ARRAY_SIZE(words), words, NULL, 0, err);
		if (!config->serial.bandwidth.given)
			config->serial.bandwidth = bandwidth;
		return code;
	}
	return err_set(err, -EINVAL, "--%.60s: cannot be changed for a machine that comes from elsewhere", option);
}
