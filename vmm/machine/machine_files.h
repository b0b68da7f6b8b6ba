/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that a machine is made from: kernel, initrd, disks, and the descriptors that were handed in for devices. Each is found by its path once. A reboot makes the next
 * machine from the same files, also if a path names another file by then, or none. Kept by the session, which outlives
 * its machines; used by machine_create.
 */
#pragma once

#include "core/err.h"
#include "core/util.h"

/* All zero: none is found yet. */
struct machine_files {
	struct machine_file *first;
	struct machine_passed *passed;
};

/*
 * The name by which to open the file that path (in the folder below, if that is not NULL) named when it was asked for
 * first. NULL: it cannot be found; opening it by path says why. Valid until close. files NULL:
 * nothing is kept.
 */
const char *machine_files_find(struct machine_files *files, const char *below, const char *path);
/* From now on, path leads to this open file, whatever it named before; takes the descriptor. */
int machine_files_add(struct machine_files *files, const char *path, int *fd, struct err *err);

/* What a device has: a disk its image, and that with O_DIRECT; a network card its tap, once for each queue. */
#define MACHINE_FILES_PASSED 16u
/* From now on the device with this id has these descriptors, which are taken (-1), instead of those before. -ENOMEM */
int machine_files_pass(struct machine_files *files, const char *id, int *fds, size_t count, struct err *err);
/* How many the device has; *fds: they, still the files'. 0: it has none, and is opened by its path or name. */
size_t machine_files_passed(const struct machine_files *files, const char *id, const int **fds);
/* The device has gone. */
void machine_files_forget(struct machine_files *files, const char *id);

void machine_files_close(struct machine_files *files);
