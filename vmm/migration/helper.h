/* SPDX-License-Identifier: Apache-2.0 */
/* Where the programs are that mvmm starts: mvmm-tls and mvmm-resolve. */
#pragma once

#include <limits.h>

/* The path of the helper of this name, which belongs to this program; it may not be there. */
void helper_find(const char *name, char path[PATH_MAX]);
