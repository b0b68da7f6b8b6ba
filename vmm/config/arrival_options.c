/* SPDX-License-Identifier: Apache-2.0 */
/* See arrival_options.h. */
#include "vmm/config/arrival_options.h"

#include <string.h>

static const char *arrival_options_value(const char *text, const char *id, size_t len)
{
	if (strncmp(text, id, len) != 0 || (text[len] && text[len] != '='))
		return NULL;
	return text + len + (text[len] == '=');
}

const char *arrival_override_find(const struct arrival_override *list, size_t count, const char *id)
{
	const char *value = NULL;

	for (size_t i = 0; i < count && !value; i++)
		value = arrival_options_value(list[i].text, id, strlen(id));
	return value;
}

const char *arrival_override_again(const struct arrival_override *list, size_t count)
{
	for (size_t i = 1; i < count; i++)
		for (size_t k = 0; k < i; k++)
			if (arrival_options_value(list[k].text, list[i].text, strcspn(list[i].text, "=")))
				return list[i].text;
	return NULL;
}
