/* SPDX-License-Identifier: Apache-2.0 */
/* See options.h. Splits the command line into options, parts and keys. */
#include "vmm/config/options.h"

#include <stdio.h>

#include "vmm/config/nearest.h"

/* The length of "key" if text begins with "key=", else 0. */
static size_t options_line_key_length(const char *text)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return text[len] == '=' ? len : 0;
}

static int options_line_unknown_key(const struct option *option, const char *part, size_t len, const char *nearest,
				    struct err *err)
{
	char hint[NEAREST_HINT];

	return err_set(err, -EINVAL, "--%s: %.*s: unknown key%s%s%s", option->name, (int)MIN(len, 60u), part,
		       nearest_hint("", nearest, hint), nearest ? "" : "; write ", nearest ? "" : option->value);
}

/* One part between commas: key=value, a key alone, or the first part's bare value. */
static int options_line_parse_part(const struct option *option, void *item, char *part, bool first, option_set *keys,
				   struct err *err)
{
	size_t len = options_line_key_length(part);
	const char *nearest = NULL, *text = len ? part + len + 1 : NULL;
	const struct option_key *key = option_key_lookup(option, part, len ?: strlen(part), &nearest);
	int code;

	if (!key && part[0] == '-') {
		for (size_t i = 0; i < option->key_count; i++)
			if (option->keys[i].kind == OPTION_NAMES)
				key = &option->keys[i];
		text = part + 1;
	}
	/* With keys that have no value ("pty"), only a text with a slash is a bare value. */
	if (!key && !len && first && option->bare &&
	    (option->keys[0].kind != OPTION_CHOICE_TEXT || strchr(part, '/'))) {
		key = &option->keys[0];
		text = part;
	}
	if (!key)
		return options_line_unknown_key(option, part, len ?: strlen(part), nearest, err);
	code = option_key_set(option, key, item, text, keys, err);
	return code ? err_prefix(err, code, "--%s %.100s", option->name, part) : 0;
}

/* Splits the next part off *rest at a comma; two commas are a comma of the value. NULL at the end. */
static char *options_line_next_part(char **rest)
{
	char *part = *rest, *to = part, *from = part;

	if (!part)
		return NULL;
	while (*from && (*from != ',' || from[1] == ',')) {
		from += *from == ',';
		*to++ = *from++;
	}
	*rest = *from ? from + 1 : NULL;
	*to = 0;
	return part;
}

static int options_line_parse_value(const struct option *option, void *item, const char *text, struct err *err)
{
	_cleanup_(free_ptr) char *copy = NULL;
	option_set keys = 0;
	char *rest, *part;
	int code = 0;

	if (option->plain) {
		code = option_key_set(option, &option->keys[0], item, text, &keys, err);
		return !code ? 0 : text ? err_prefix(err, code, "--%s %.100s", option->name, text) :
		       err_prefix(err, code, "--%s", option->name);
	}
	copy = strdup(text);
	if (!copy)
		return err_sys(err, -ENOMEM, "--%s", option->name);
	rest = copy;
	for (bool first = true; !code && (part = options_line_next_part(&rest)); first = false)
		code = options_line_parse_part(option, item, part, first, &keys, err);
	if (code)
		return code;
	code = option_end(option, keys, err);
	return code ? err_prefix(err, code, "--%s %.100s", option->name, text) : 0;
}

/* argv[*at] begins with two dashes. Advances *at past the option and its value. */
static int options_line_parse_option(const struct option_table *table, void *target, option_set *given, int argc,
				     char *const *argv, int *at, struct err *err)
{
	const char *name = argv[*at] + 2, *nearest, *text = NULL;
	size_t len = strcspn(name, "=");
	const struct option *option = option_lookup(table, name, len, &nearest);
	char hint[NEAREST_HINT];
	void *item;

	if (!option)
		return err_set(err, -EINVAL, "--%.*s: unknown option%s", (int)MIN(len, 60u), name,
			       nearest_hint("--", nearest, hint));
	++*at;
	if (name[len])
		text = name + len + 1;
	else if (option->keys[0].kind != OPTION_FLAG) {
		if (*at >= argc || strncmp(argv[*at], "--", 2) == 0)
			return err_set(err, -EINVAL, "--%s: needs a value; write --%s%s%s", option->name, option->name,
				       *at >= argc ? " " : "=",
				       *at >= argc ? option->value : "VALUE if it begins with dashes");
		text = argv[(*at)++];
	}
	item = option_begin(table, option, target, given, err);
	return item ? options_line_parse_value(option, item, text, err) :
	       err_prefix(err, -EINVAL, "--%s", option->name);
}

int options_parse(const struct option_table *table, void *target, int argc, char *const *argv, const char **operands,
		  size_t max_operands, struct err *err)
{
	option_set given = 0;
	size_t found = 0;
	bool ended = false;
	int at = 0, code;

	for (size_t i = 0; i < max_operands; i++)
		operands[i] = NULL;
	while (at < argc) {
		const char *word = argv[at];

		if (!ended && strcmp(word, "--") == 0) {
			ended = true;
			at++;
		} else if (!ended && strncmp(word, "--", 2) == 0) {
			code = options_line_parse_option(table, target, &given, argc, argv, &at, err);
			if (code)
				return code;
		} else if (!ended && word[0] == '-' && word[1]) {
			return err_set(err, -EINVAL, "%.60s: unknown option; options begin with two dashes", word);
		} else if (found == max_operands) {
			return err_set(err, -EINVAL, "%.100s: unexpected; %s", word,
				       max_operands ? "one name is enough" : "options begin with two dashes");
		} else {
			operands[found++] = word;
			at++;
		}
	}
	return 0;
}

const char *options_find(int argc, char *const *argv, const char *name)
{
	size_t len = strlen(name);

	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strncmp(argv[i], "--", 2) != 0 || strncmp(argv[i] + 2, name, len) != 0)
			continue;
		if (argv[i][2 + len] == '=')
			return argv[i] + 2 + len + 1;
		if (argv[i][2 + len] == 0 && i + 1 < argc)
			return argv[i + 1];
	}
	return NULL;
}
