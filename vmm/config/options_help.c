/* SPDX-License-Identifier: Apache-2.0 */
/* See options.h. Help and words for completion, printed from the tables. */
#include "vmm/config/options.h"

#include <stdio.h>

void options_print_help(const struct option_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct option *option = &table->options[i];

		printf("  --%s%s%s\n        %s\n", option->name, option->value ? " " : "", option->value ?: "",
		       option->help);
	}
}

static void options_help_print_words(const struct option_key *key)
{
	switch (key->kind) {
	case OPTION_BOOL:
		fputs("on|off", stdout);
		break;
	case OPTION_WORD:
	case OPTION_WORD_OR_PATH:
		for (size_t i = 0; key->words[i]; i++)
			printf("%s%s", i ? "|" : "", key->words[i]);
		if (key->kind == OPTION_WORD_OR_PATH)
			fputs("|FILE", stdout);
		break;
	default:
		fputs(key->help ?: "", stdout);
		break;
	}
}

void options_print_words(const struct option_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct option *option = &table->options[i];

		printf("--%s", option->name);
		for (size_t k = 0; k < option->key_count; k++) {
			const struct option_key *key = &option->keys[k];

			if (key->kind == OPTION_FLAG || key->kind == OPTION_NAMES)
				continue;
			if (option->plain || (k == 0 && option->bare)) {
				putchar(' ');
				options_help_print_words(key);
			}
			if (option->plain)
				continue;
			if (key->kind == OPTION_CHOICE || key->kind == OPTION_CHOICE_MAYBE)
				printf(" %s", key->name);
			if (key->kind != OPTION_CHOICE) {
				printf(" %s=", key->name);
				options_help_print_words(key);
			}
		}
		putchar('\n');
	}
}
