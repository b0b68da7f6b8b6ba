/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens files whose names come from outside: from a folder that the user has named, and from nowhere else. "..",
 * symbolic links and mounts of /proc cannot lead out of the folder, also if somebody changes them meanwhile
 * (openat2(2), RESOLVE_BENEATH). For the disks of a machine that another host sends.
 */
#pragma once

#include "core/util.h"

/*
 * As open(2), with O_CLOEXEC added: the descriptor or -errno. path begins with folder and a slash; -EXDEV: it leads out
 * of folder. folder NULL: the path is trusted, and this is open(2).
 */
int beneath_open(const char *folder, const char *path, int flags);

/* Opens the folder that has path, to create a file in it; *name (in path) is the path's last part. The same errors. */
int beneath_open_folder(const char *folder, const char *path, const char **name);
