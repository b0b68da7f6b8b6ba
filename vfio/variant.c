/* SPDX-License-Identifier: Apache-2.0 */
/* See variant.h. */
#include "vfio/variant.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>

#define MAX_FILE MIB(64)

struct search {
	char want[256]; /* "vfio_pci:v0000..." */
	char module[VFIO_DRIVER_NAME];
	unsigned int wildcards; /* of the best match */
};

bool vfio_variant_is_same(const char *a, const char *b)
{
	for (; *a && *b; a++, b++)
		if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
			return false;
	return *a == *b;
}

static void vfio_variant_offer(struct search *search, const char *pattern, const char *module)
{
	unsigned int wildcards = 0;

	for (const char *c = pattern; *c; c++)
		wildcards += *c == '*';
	if (!strstr(module, "vfio") || wildcards >= search->wildcards || fnmatch(pattern, search->want, 0) != 0)
		return;
	search->wildcards = wildcards;
	snprintf(search->module, sizeof(search->module), "%s", module);
}

/* modules.alias: "alias PATTERN MODULE". */
static void vfio_variant_read_alias(struct search *search, const char *line)
{
	char pattern[256], module[VFIO_DRIVER_NAME];

	if (sscanf(line, "alias %255s %63s", pattern, module) == 2)
		vfio_variant_offer(search, pattern, module);
}

/* modules.builtin.modinfo: "MODULE.alias=PATTERN". */
static void vfio_variant_read_modinfo(struct search *search, const char *line)
{
	char pattern[256], module[VFIO_DRIVER_NAME];

	if (sscanf(line, "%63[^.].alias=%255s", module, pattern) == 2)
		vfio_variant_offer(search, pattern, module);
}

/* The whole file, NUL-terminated; the caller frees it. */
static int vfio_variant_read_file(const struct vfio_sys *sys, const char *path, char **ret, size_t *len)
{
	_cleanup_(free_ptr) char *text = NULL;
	size_t room = 0, used = 0;
	int fd = sys->ops->open(sys, path, O_RDONLY);
	ssize_t n = fd < 0 ? fd : 1;

	while (n > 0) {
		if (room - used < 2) {
			char *grown = room < MAX_FILE ? realloc(text, room = room ? room * 2 : KIB(256)) : NULL;

			if (!grown) {
				n = -ENOMEM;
				break;
			}
			text = grown;
		}
		n = sys->ops->read(sys, fd, text + used, room - used - 1);
		used += n > 0 ? (size_t)n : 0;
	}
	vfio_sys_close(sys, &fd);
	if (n < 0)
		return (int)n;
	text[used] = 0;
	*len = used;
	*ret = take_ptr(text);
	return 0;
}

/*
 * Reads the lines of a kernel's file, each of which ends with this character. Without the file there is nothing to
 * read.
 */
static int vfio_variant_read_lines(const struct vfio_sys *sys, const char *release, const char *name, char end,
				   void (*fn)(struct search *search, const char *line), struct search *search,
				   struct err *err)
{
	_cleanup_(free_ptr) char *text = NULL;
	char path[256], *line, *next;
	size_t len = 0;
	int rc;

	snprintf(path, sizeof(path), "/lib/modules/%s/%s", release, name);
	rc = vfio_variant_read_file(sys, path, &text, &len);
	if (rc < 0)
		return rc == -ENOENT ? 0 : err_sys(err, rc, "read %s", path);
	for (line = text; (next = memchr(line, end, (size_t)(text + len - line))); line = next + 1) {
		*next = 0;
		if (strstr(line, "vfio_pci:"))
			fn(search, line);
	}
	return 0;
}

int vfio_variant_find(const struct vfio_sys *sys, const char *name, char module[VFIO_DRIVER_NAME], struct err *err)
{
	struct search search = {.module = "vfio_pci", .wildcards = UINT_MAX};
	char path[256], modalias[240], release[96];
	int rc;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.64s/modalias", name);
	rc = sys->ops->read_file(sys, path, modalias, sizeof(modalias));
	if (rc < 0)
		return err_sys(err, rc, "read %s", path);
	snprintf(search.want, sizeof(search.want), "vfio_%s", modalias);
	rc = sys->ops->read_file(sys, "/proc/sys/kernel/osrelease", release, sizeof(release));
	if (rc < 0)
		return err_sys(err, rc, "read the kernel's release");
	rc = vfio_variant_read_lines(sys, release, "modules.alias", '\n', vfio_variant_read_alias, &search, err);
	if (rc == 0)
		rc = vfio_variant_read_lines(sys, release, "modules.builtin.modinfo", 0, vfio_variant_read_modinfo,
					     &search, err);
	if (rc == 0)
		memcpy(module, search.module, VFIO_DRIVER_NAME);
	return rc;
}
