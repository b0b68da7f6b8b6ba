/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See config.h: the limits of devices, which are the keys of their options that have a rate, and their change while the
 * machine runs. The configuration has them, so that they hold after a reboot and go along in a move.
 */
#include "vmm/config/config.h"

#include <stdio.h>

#include "vmm/config/config_json.h"
#include "vmm/config/nearest.h"

static const struct option *config_limits_option(const char *name)
{
	const char *nearest;

	return option_lookup(&machine_options, name, strlen(name), &nearest);
}

static bool config_limits_is_limit(const struct option_key *key)
{
	return key->kind == OPTION_RATE || key->kind == OPTION_RATE_COUNT;
}

/* Those of an item; given: only if they were given. */
static void config_limits_list(const struct option *option, const void *item, bool given, struct machine_limits *ret)
{
	ret->count = 0;
	for (size_t i = 0; i < option->key_count; i++) {
		const struct option_key *key = &option->keys[i];
		const struct rate *rate = (const void *)((const char *)item + key->offset);

		if (config_limits_is_limit(key) && (given ? rate->given : rate->amount > 0))
			ret->limits[ret->count++] = (struct machine_limit){
				strncmp(key->name, "tx-", 3) == 0, key->kind == OPTION_RATE_COUNT, number_rate_limit(rate)};
	}
}

/* The device's structure and its option. NULL: there is no such device, or it has no limits. */
static const void *config_limits_find(const struct machine_config *config, const char *id, const char **option)
{
	for (size_t i = 0; i < config->disk_count; i++)
		if (strcmp(config->disks[i].id, id) == 0) {
			*option = "disk";
			return &config->disks[i];
		}
	for (size_t i = 0; i < config->net_count; i++)
		if (strcmp(config->nets[i].id, id) == 0) {
			*option = "net";
			return &config->nets[i];
		}
	*option = strcmp(id, "rng") == 0 ? "rng" : "serial";
	return strcmp(id, "rng") == 0 ? (const void *)&config->rng : strcmp(id, "serial") == 0 ? &config->serial : NULL;
}

void machine_config_limits(const struct machine_config *config, const char *id, struct machine_limits *ret)
{
	const char *option;
	const void *item = config_limits_find(config, id, &option);

	ret->count = 0;
	if (item)
		config_limits_list(config_limits_option(option), item, false, ret);
}

void machine_config_print_limits(const struct machine_config *config, const char *id, json_t *object)
{
	const char *name;
	const void *item = config_limits_find(config, id, &name);
	const struct option *option = config_limits_option(name);
	char text[NUMBER_RATE_TEXT];

	for (size_t i = 0; item && i < option->key_count; i++) {
		const struct option_key *key = &option->keys[i];
		const struct rate *rate = (const void *)((const char *)item + key->offset);

		if (config_limits_is_limit(key) && rate->amount)
			json_object_set_new(object, key->name,
					    json_string(number_format_rate(rate, key->kind == OPTION_RATE_COUNT, text)));
	}
}

/* ---- changes ---- */

static int config_limits_unknown(const struct option *option, const char *name, struct err *err)
{
	struct nearest near = nearest_begin(name, strlen(name));
	char list[120] = "", hint[NEAREST_HINT];
	size_t used = 0;

	for (size_t i = 0; i < option->key_count; i++) {
		if (!config_limits_is_limit(&option->keys[i]))
			continue;
		nearest_offer(&near, option->keys[i].name);
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s=RATE", used ? ", " : "",
					 option->keys[i].name);
	}
	if (near.best)
		return err_set(err, -EINVAL, "%.60s: unknown limit%s", name, nearest_hint("", near.best, hint));
	return err_set(err, -EINVAL, "%.60s: unknown limit; write one of %s", name, list);
}

/* One part between commas, KEY=RATE, into an item of its own. */
static int config_limits_parse_part(const struct option *option, char *part, void *item, option_set *keys,
				    struct err *err)
{
	char *text = strchr(part, '=');
	const char *nearest;
	const struct option_key *key;
	int code;

	if (text)
		*text++ = 0;
	key = option_key_lookup(option, part, strlen(part), &nearest);
	if (!key || !config_limits_is_limit(key))
		return config_limits_unknown(option, part, err);
	code = option_key_set(option, key, item, text, keys, err);
	return code ? err_prefix(err, code, "%s%s%.60s", key->name, text ? "=" : "", text ?: "") : 0;
}

static void config_limits_copy(const struct option *option, void *item, const void *from)
{
	for (size_t i = 0; i < option->key_count; i++) {
		const struct option_key *key = &option->keys[i];
		const struct rate *rate = (const void *)((const char *)from + key->offset);

		if (config_limits_is_limit(key) && rate->given)
			*(struct rate *)(void *)((char *)item + key->offset) = *rate;
	}
}

/* What any device's limits fit into. */
union limited {
	struct disk_config disk;
	struct net_config net;
	struct rng_config rng;
	struct port_config port;
};

int machine_config_set_limits(struct machine_config *config, const char *id, const char *text,
			      struct machine_limits *ret, struct err *err)
{
	_cleanup_(free_ptr) char *copy = strdup(text);
	const char *name;
	void *item = (void *)config_limits_find(config, id, &name);
	const struct option *option = config_limits_option(name);
	union limited given;
	option_set keys = 0;
	char *rest = copy, *part;
	int code = 0;

	if (!item)
		return err_set(err, -ENODEV, "%.60s: no disk or network card has this id; mvmm info lists them", id);
	if (!copy)
		return err_sys(err, -ENOMEM, "limits");
	memset(&given, 0, sizeof(given));
	while (!code && (part = strsep(&rest, ",")))
		code = config_limits_parse_part(option, part, &given, &keys, err);
	if (!code && strcmp(name, "net") == 0 && ((const struct net_config *)item)->vhost)
		code = err_set(err, -EINVAL, "the kernel moves its packets (vhost=on) and knows no limits");
	if (code)
		return err_prefix(err, code, "%s", id);
	config_limits_copy(option, item, &given);
	config_limits_list(option, &given, true, ret);
	return 0;
}
