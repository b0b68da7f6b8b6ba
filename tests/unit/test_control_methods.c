/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods of the control socket are the same in the table that calls them, in the interface's definition and in
 * docs/control.md, with the same parameters.
 */
#include "tests/unit/test.h"
#include "vmm/control/control_machine.c"

#include <ctype.h>
#include <stdio.h>

static char document[KIB(64)];

static void read_document(void)
{
	FILE *file = fopen(TESTS_UNIT "/../../docs/control.md", "re");
	size_t len;

	CHECK(file);
	len = fread(document, 1, sizeof(document) - 1, file);
	CHECK(len > 1000 && len < sizeof(document) - 1);
	document[len] = 0;
	fclose(file);
}

/* The parameters behind "(", as "name name ": up to ")", without types. */
static const char *parameters_at(const char *text, char names[600])
{
	size_t used = 0;
	bool type = false;

	for (; *text && *text != ')'; text++) {
		if (*text == ':' || *text == ',')
			type = *text == ':';
		if (*text == ',')
			names[used++] = ' ';
		else if (!type && (isalnum((unsigned char)*text) || *text == '_'))
			names[used++] = *text;
		CHECK(used < 590);
	}
	names[used] = 0;
	return names;
}

/* What follows "PREFIXName(" in text, or NULL. */
static const char *find_method(const char *text, const char *prefix, const char *name)
{
	char words[80];
	const char *at;

	snprintf(words, sizeof(words), "%s%s(", prefix, name);
	at = strstr(text, words);
	return at ? at + strlen(words) : NULL;
}

static void every_method_is_defined_and_documented(void)
{
	read_document();
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		const char *defined = find_method(description, "\nmethod ", methods[i].name);
		const char *documented = find_method(document, "\n| `", methods[i].name);
		char names[2][600];

		if (!defined || !documented)
			printf("# %s: %s\n", methods[i].name, defined ? "not in docs/control.md" : "not in the definition");
		CHECK(defined && documented);
		CHECK_STR(parameters_at(documented, names[0]), parameters_at(defined, names[1]));
		CHECK(i == 0 || strcmp(methods[i - 1].name, methods[i].name) < 0);
	}
}

/* Each row and each definition is one of a method in the table. */
static unsigned int count_methods(const char *text, const char *prefix)
{
	unsigned int count = 0;

	for (const char *at = text; (at = strstr(at, prefix)); count++) {
		at += strlen(prefix);
		for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
			if (strncmp(methods[i].name, at, strlen(methods[i].name)) == 0 && at[strlen(methods[i].name)] == '(')
				break;
			else if (i + 1 == ARRAY_SIZE(methods))
				printf("# no method: %.20s\n", at);
	}
	return count;
}

static void nothing_else_is(void)
{
	CHECK_EQ(count_methods(description, "\nmethod "), ARRAY_SIZE(methods));
	CHECK_EQ(count_methods(document, "\n| `"), ARRAY_SIZE(methods));
}

TEST_MAIN(TEST(every_method_is_defined_and_documented), TEST(nothing_else_is))
