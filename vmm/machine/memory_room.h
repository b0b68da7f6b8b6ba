/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Estimates how much memory is left for another guest, and how much this process uses. The target of a migration
 * refuses a guest for which there is no room, instead of being killed by the kernel half-way.
 *
 * root is the folder of /proc and /sys: "" except in tests.
 */
#pragma once

#include <stdint.h>

/*
 * Bytes that can still be allocated on the host, and in each control group (v2) of this process, without an OOM kill:
 * free memory, reclaimable caches, and swap. UINT64_MAX if unknown.
 */
uint64_t memory_room(const char *root);

/* Bytes of this process, resident and in swap. 0 if unknown. */
uint64_t memory_used(const char *root);
/* The same without pages of files, which is what it holds of RAM that maps one. */
uint64_t memory_own(const char *root);
