/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that a machine is made from: kernel, initrd, disks. Each is found by its path once. A reboot makes the next
 * machine from the same files, also if a path names another file by then, or none. Kept by the session, which outlives
 * its machines; used by machine_create.
 */
#pragma once

#include "core/err.h"
#include "core/util.h"

/* All zero: none is found yet. */
struct machine_files {
	struct machine_file *first;
};

/*
 * The name by which to open the file that path (in the folder below, if that is not NULL) named when it was asked for
 * first. NULL: it cannot be found; opening it by path says why. Valid until close. files NULL:
 * nothing is kept.
 */
const char *machine_files_find(struct machine_files *files, const char *below, const char *path);
/* From now on, path leads to this open file, whatever it named before; takes the descriptor. */
int machine_files_add(struct machine_files *files, const char *path, int *fd, struct err *err);
void machine_files_close(struct machine_files *files);
