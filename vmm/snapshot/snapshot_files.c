/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_files.h. */
#include "vmm/snapshot/snapshot_files.h"

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
