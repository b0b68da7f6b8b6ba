/* SPDX-License-Identifier: Apache-2.0 */
/* What a snapshot says of its architecture. See state_file.h. */
#include "vmm/snapshot/state_file.h"

#include <elf.h>

const uint32_t snapshot_architecture = EM_X86_64;
