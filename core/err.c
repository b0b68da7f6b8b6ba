/* SPDX-License-Identifier: Apache-2.0 */
/* See err.h. A message that does not fit is cut off. */
#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return code;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	return code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
	va_list args;
	size_t used;

	if (!err)
		return code;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	used = strlen(err->text);
	snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerrordesc_np(-code) ?: "unknown error");
	return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
	char context[sizeof(err->text)];
	struct err old;
	va_list args;
	size_t used;

	if (!err)
		return code;
	va_start(args, fmt);
	vsnprintf(context, sizeof(context), fmt, args);
	va_end(args);
	old = *err;
	used = (size_t)snprintf(err->text, sizeof(err->text), "%s: ", context);
	if (used < sizeof(err->text))
		snprintf(err->text + used, sizeof(err->text) - used, "%s", old.text);
	return code;
}
