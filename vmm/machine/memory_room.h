/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory there is for one more guest, and how much this process has: both sides of a migration ask, so that the target
 * can refuse a guest that it has no room for, instead of being ended by the kernel half-way.
 *
 * Estimates: memory comes and goes. root is "" but for tests: what /proc and /sys are under.
 */
#pragma once

#include <stdint.h>

/*
 * Bytes that the host, and each control group (v2) that this process is in, can still give without ending somebody: what is
 * free, what caches can let go of, and swap. UINT64_MAX where nobody tells.
 */
uint64_t memory_room(const char *root);

/* Bytes of this process, resident and in swap. 0 where nobody tells. */
uint64_t memory_used(const char *root);
