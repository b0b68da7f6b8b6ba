/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_files.h. */
#include "vmm/snapshot/snapshot_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#define FILES (5 + WIRE_MAX_DISKS)

void snapshot_files_init(struct snapshot_files *files)
{
	*files = (struct snapshot_files){.state = -1, .memory = -1, .description = -1, .kernel = -1, .initrd = -1};
}

void snapshot_files_close(struct snapshot_files *files)
{
	fd_close(&files->state);
	fd_close(&files->memory);
	fd_close(&files->description);
	fd_close(&files->kernel);
	fd_close(&files->initrd);
	while (files->disk_count)
		fd_close(&files->disks[--files->disk_count].fd);
}

/* ---- what they are ---- */

struct snapshot_file {
	const char *name;
	int fd;
	struct stat st;
};

static size_t snapshot_files_list(const struct snapshot_files *files, struct snapshot_file list[FILES])
{
	const struct snapshot_file known[] = {
		{"state", files->state, {0}}, {"memory", files->memory, {0}}, {"machine.json", files->description, {0}},
		{"kernel", files->kernel, {0}}, {"initrd", files->initrd, {0}},
	};
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].fd >= 0)
			list[count++] = known[i];
	for (size_t i = 0; i < files->disk_count; i++)
		list[count++] = (struct snapshot_file){.name = files->disks[i].id, .fd = files->disks[i].fd};
	return count;
}

/* With O_APPEND, pages would land behind each other instead of in their places. */
static int snapshot_files_check_one(struct snapshot_file *file, struct err *err)
{
	int flags = fcntl(file->fd, F_GETFL);

	if (flags < 0 || fstat(file->fd, &file->st) < 0)
		return err_sys(err, -errno, "the file for %s", file->name);
	if (S_ISREG(file->st.st_mode) && !file->st.st_size && (flags & (O_ACCMODE | O_APPEND | O_PATH)) == O_RDWR)
		return 0;
	return err_set(err, -EINVAL, "the file for %s is not an empty plain file that is open for reading and writing; "
				     "create a new one with O_RDWR, without O_APPEND", file->name);
}

int snapshot_files_check(const struct snapshot_files *files, struct err *err)
{
	struct snapshot_file list[FILES];
	size_t count = snapshot_files_list(files, list);
	int code = 0;

	for (size_t i = 0; !code && i < count; i++) {
		code = snapshot_files_check_one(&list[i], err);
		for (size_t j = 0; !code && j < i; j++)
			if (list[i].st.st_ino == list[j].st.st_ino && list[i].st.st_dev == list[j].st.st_dev)
				code = err_set(err, -EINVAL, "the file for %s is that for %s, too; create one for each",
					       list[i].name, list[j].name);
	}
	return code;
}
