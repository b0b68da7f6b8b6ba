/* SPDX-License-Identifier: Apache-2.0 */
/* Stands between the two sides of a migration, on a thread of its own, and breaks it off somewhere. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct proxy;

/*
 * Whoever connects to the socket `front` reaches the one at `back`, until `limit` bytes have passed, all connections and directions
 * together. Then every connection is closed; or, with `stall`, nothing is taken any more and nothing closed;
 * or, with `drips`, all but the first get on slowly. Close with proxy_close.
 */
struct proxy *proxy_open(const char *front, const char *back, uint64_t limit, bool stall,
			 bool drips);

/* Frees it. The bytes that have passed; 0 for NULL. */
uint64_t proxy_close(struct proxy *proxy);
