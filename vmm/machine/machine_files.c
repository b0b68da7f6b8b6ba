/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_files.h. A file is kept by a descriptor that gives no access to it (O_PATH) and cannot block anybody. */
#include "vmm/machine/machine_files.h"

#include "core/beneath.h"

#include <fcntl.h>
#include <stdio.h>

struct machine_file {
	struct machine_file *next;
	char *below, *path;
	int fd;
	char name[32]; /* "/proc/self/fd/N" */
};

static void machine_files_free(struct machine_file *file)
{
	fd_close(&file->fd);
	free(file->below);
	free(file->path);
	free(file);
}

static bool machine_files_is(const struct machine_file *file, const char *below, const char *path)
{
	return strcmp(file->path, path) == 0 && !below == !file->below && (!below || strcmp(file->below, below) == 0);
}

/* Takes over the file if it is complete. */
static const char *machine_files_keep(struct machine_files *files, struct machine_file *file)
{
	snprintf(file->name, sizeof(file->name), "/proc/self/fd/%d", file->fd);
	file->next = files->first;
	files->first = file;
	return file->name;
}

const char *machine_files_find(struct machine_files *files, const char *below, const char *path)
{
	struct machine_file *file = files ? files->first : NULL;

	if (!files)
		return NULL;
	while (file && !machine_files_is(file, below, path))
		file = file->next;
	if (file)
		return file->name;
	file = calloc(1, sizeof(*file));
	if (!file)
		return NULL;
	file->fd = beneath_open(below, path, O_PATH);
	file->path = strdup(path);
	file->below = below ? strdup(below) : NULL;
	if (file->fd < 0 || !file->path || (below && !file->below)) {
		machine_files_free(file);
		return NULL;
	}
	return machine_files_keep(files, file);
}

int machine_files_add(struct machine_files *files, const char *path, int *fd, struct err *err)
{
	struct machine_file *file = calloc(1, sizeof(*file));

	if (!file)
		return err_sys(err, -ENOMEM, "%.200s", path);
	file->path = strdup(path);
	file->fd = take_fd(fd);
	if (!file->path) {
		machine_files_free(file);
		return err_sys(err, -ENOMEM, "%.200s", path);
	}
	machine_files_keep(files, file);
	return 0;
}

void machine_files_close(struct machine_files *files)
{
	while (files->first) {
		struct machine_file *file = files->first;

		files->first = file->next;
		machine_files_free(file);
	}
}
