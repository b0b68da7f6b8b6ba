/* SPDX-License-Identifier: Apache-2.0 */
/* Small files of the kernel, as those of /proc and of control groups: read and written at once. Used by the jail. */
#pragma once

#include "core/err.h"

/* Writes text; 0 or -errno. path is in the open folder (or AT_FDCWD), and no link. */
int jail_file_write(int folder, const char *path, const char *text);
/* Reads all of it, NUL-terminated, or as much as there is room for; 0 or -errno. */
int jail_file_read(int folder, const char *path, char *text, size_t size);
