/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON file of `mvmm run --config`. Always: what is refused comes with a sentence, what is accepted keeps the
 * limits, and all memory is given back.
 */
#include "tests/fuzz/config_words.h"
#include "vmm/config/config_json.h"
#include "tests/fuzz/fuzz.h"

/* What is written of a configuration reads as the same one. */
static void check_write(const struct machine_config *config)
{
	json_t *first, *second;
	struct machine_config again;
	struct err err;

	MUST(!config_json_write(&machine_options, config, &first, &err));
	machine_config_init(&again);
	MUST(!config_json_read(&machine_options, &again, first, &err));
	MUST(!config_json_write(&machine_options, &again, &second, &err));
	MUST(json_equal(first, second));
	machine_config_done(&again);
	json_decref(first);
	json_decref(second);
}

/* Descriptors mean nothing to who reads: they are not written, and what is left names no tap and no device. */
static bool is_of_descriptors(const struct machine_config *config)
{
	for (size_t i = 0; i < config->net_count; i++)
		if (config->nets[i].kind == NET_FD)
			return true;
	for (size_t i = 0; i < config->vfio_count; i++)
		if (!config->vfios[i].device)
			return true;
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine_config config;
	struct err err = {""};
	int code;

	machine_config_init(&config);
	code = config_json_parse(&machine_options, &config, (const char *)data, size, &err);
	MUST(!code || (code == -EINVAL && err.text[0]));
	if (!code) {
		code = machine_config_finish(&config, &err);
		MUST(!code || (code == -EINVAL && err.text[0]));
	}
	if (!code) {
		check_config(&config);
		if (!is_of_descriptors(&config))
			check_write(&config);
	}
	machine_config_done(&config);
	return 0;
}

static size_t draw_scalar(unsigned int *seed, const struct option_key *key, char *text, size_t size)
{
	static const char *const plain[] = {"true", "false", "null", "3", "1.5", "[\"a\"]", "{}"};
	char buf[64];

	if (draw(seed, 3) == 0)
		return (size_t)snprintf(text, size, "%s", plain[draw(seed, ARRAY_SIZE(plain))]);
	return (size_t)snprintf(text, size, "\"%s\"", draw_value(seed, key, buf));
}

static size_t draw_item(unsigned int *seed, const struct option *option, char *text, size_t size)
{
	size_t len = 1;

	if (draw(seed, 3) == 0)
		return draw_scalar(seed, &option->keys[0], text, size);
	text[0] = '{';
	for (unsigned int i = draw(seed, 4); i && len < size - 100; i--) {
		const struct option_key *key = &option->keys[draw(seed, (unsigned int)option->key_count)];

		len += (size_t)snprintf(text + len, size - len, "\"%s\":", key->name);
		len += draw_scalar(seed, key, text + len, size - len);
		if (i > 1)
			text[len++] = ',';
	}
	text[len++] = '}';
	return len;
}

/* Half of the time a member made from the table is put before the last brace. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	const struct option *option = &machine_options.options[draw(&seed, (unsigned int)machine_options.count)];
	char member[600];
	size_t len;

	if (draw(&seed, 2))
		return LLVMFuzzerMutate(data, size, max_size);
	if (size < 3 || data[size - 1] != '}' || size + sizeof(member) > max_size) {
		static const char start[] = "{\"kernel\":\"k\"}";

		size = MIN(sizeof(start) - 1, max_size);
		memcpy(data, start, size);
	}
	len = (size_t)snprintf(member, sizeof(member), ",\"%s\":", option->name);
	len += draw_item(&seed, option, member + len, sizeof(member) - len - 1);
	member[len++] = '}';
	if (size == 0 || size - 1 + len > max_size)
		return size;
	memcpy(data + size - 1, member, len);
	return size - 1 + len;
}
