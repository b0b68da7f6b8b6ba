/* SPDX-License-Identifier: Apache-2.0 */
/* See helper.h. */
#include "vmm/migration/helper.h"

#include <stdio.h>

#include "core/thread.h"

/* Beside this program after a build; in its installed place, also relative to this program if the tree was moved. */
static void helper_look(const char *name, char path[PATH_MAX])
{
	static const char *const places[] = {"", MVMM_FROM_BIN "/"};
	char self[PATH_MAX - 256];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[len > 0 ? len : 0] = 0;
	*(strrchr(self, '/') ?: self) = 0;
	for (size_t i = 0; *self && i < ARRAY_SIZE(places); i++) {
		snprintf(path, PATH_MAX, "%s/%s%s", self, places[i], name);
		if (access(path, X_OK) == 0)
			return;
	}
	snprintf(path, PATH_MAX, "%s/%s", MVMM_LIBEXEC, name);
}

struct search {
	const char *name;
	char *path;
};

static int helper_do_find(void *argument)
{
	const struct search *search = argument;

	helper_look(search->name, search->path);
	return 0;
}

void helper_find(const char *name, char path[PATH_MAX])
{
	thread_call(helper_do_find, &(struct search){name, path});
}
