/* SPDX-License-Identifier: Apache-2.0 */
/* See format.h: the formats of kernels for x86. */
#include "boot/format.h"

const struct boot_format *const boot_formats[] = {&boot_bzimage, &boot_elf_pvh, NULL};
