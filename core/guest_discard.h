/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives pages of guest memory back to the host: for the balloon and for reported free pages. They read as zeros
 * afterwards, and cost nothing until they are touched again.
 */
#pragma once

#include "core/guest_memory.h"

/*
 * Gives back [offset, offset + len) of a region, whole pages of the host. 0, or -errno: nothing has changed. One thread
 * at a time. Over a mapped file (region->base) the pages become anonymous memory. That needs mappings, of which a
 * process has 65530; after half of them, pages read as the file's bytes instead: what the guest had there before.
 * Where the contents come from a userfaultfd, the call may wait for its handler, which decides what they are next.
 */
int guest_discard(const struct guest_region *region, uint64_t offset, uint64_t len);
