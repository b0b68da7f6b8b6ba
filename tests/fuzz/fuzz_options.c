/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `mvmm run`: an input is its words, each ended by a zero byte. Always: what is refused comes with
 * a sentence, what is accepted keeps the limits, and all memory is given back.
 */
#include "tests/fuzz/config_words.h"
#include "tests/fuzz/fuzz.h"

#define WORDS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine_config config;
	struct err err = {""};
	char *text = malloc(size + 1), *argv[WORDS];
	int argc = 0, code;

	memcpy(text, data, size);
	text[size] = 0;
	for (size_t at = 0; at < size && argc < WORDS; at += strlen(text + at) + 1)
		argv[argc++] = text + at;
	machine_config_init(&config);
	code = options_parse(&machine_options, &config, argc, argv, NULL, 0, &err);
	MUST(!code || (code == -EINVAL && err.text[0]));
	options_find(argc, argv, "config");
	if (!code) {
		code = machine_config_finish(&config, &err);
		MUST(!code || (code == -EINVAL && err.text[0]));
	}
	if (!code)
		check_config(&config);
	machine_config_done(&config);
	free(text);
	return 0;
}

/* Half of the time a word made from the table is put behind the others. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	const struct option *option = &machine_options.options[draw(&seed, (unsigned int)machine_options.count)];
	char word[400], buf[64];
	size_t len = (size_t)snprintf(word, sizeof(word), "%c--%s=", 0, option->name);

	if (draw(&seed, 2))
		return LLVMFuzzerMutate(data, size, max_size);
	for (unsigned int i = draw(&seed, 4) + 1; i && len < 300; i--) {
		const struct option_key *key = &option->keys[draw(&seed, (unsigned int)option->key_count)];
		const char *value = draw_value(&seed, key, buf);

		len += (size_t)(option->plain || draw(&seed, 5) == 0 ?
				snprintf(word + len, sizeof(word) - len, "%s", value) :
				snprintf(word + len, sizeof(word) - len, "%s=%s%s", key->name, value, i > 1 ? "," : ""));
	}
	if (size + len > max_size)
		size = 0;
	len = MIN(len, max_size - size);
	memcpy(data + size, word, len);
	return size + len;
}
