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

struct machine_passed {
	struct machine_passed *next;
	char *id;
	int fds[MACHINE_FILES_PASSED];
	size_t count;
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

static struct machine_passed **machine_files_find_passed(const struct machine_files *files, const char *id)
{
	struct machine_passed **link = (struct machine_passed **)&files->passed;

	while (*link && strcmp((*link)->id, id) != 0)
		link = &(*link)->next;
	return link;
}

static void machine_files_free_passed(struct machine_passed *passed)
{
	while (passed->count)
		fd_close(&passed->fds[--passed->count]);
	free(passed->id);
	free(passed);
}

int machine_files_pass(struct machine_files *files, const char *id, int *fds, size_t count, struct err *err)
{
	struct machine_passed *passed = calloc(1, sizeof(*passed));

	if (!passed)
		return err_sys(err, -ENOMEM, "%s", id);
	passed->id = strdup(id);
	if (!passed->id) {
		free(passed);
		return err_sys(err, -ENOMEM, "%s", id);
	}
	for (size_t i = 0; i < MIN(count, MACHINE_FILES_PASSED); i++)
		passed->fds[passed->count++] = take_fd(&fds[i]);
	machine_files_forget(files, id);
	passed->next = files->passed;
	files->passed = passed;
	return 0;
}

size_t machine_files_passed(const struct machine_files *files, const char *id, const int **fds)
{
	const struct machine_passed *passed = files ? *machine_files_find_passed(files, id) : NULL;

	if (!passed)
		return 0;
	*fds = passed->fds;
	return passed->count;
}

void machine_files_forget(struct machine_files *files, const char *id)
{
	struct machine_passed **link = machine_files_find_passed(files, id), *passed = *link;

	if (!passed)
		return;
	*link = passed->next;
	machine_files_free_passed(passed);
}

void machine_files_close(struct machine_files *files)
{
	while (files->passed)
		machine_files_forget(files, files->passed->id);
	while (files->first) {
		struct machine_file *file = files->first;

		files->first = file->next;
		machine_files_free(file);
	}
}
