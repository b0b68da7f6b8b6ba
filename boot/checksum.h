/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum of firmware's tables, ACPI's and the MP table.
 */
#pragma once

#include "core/util.h"

/* The byte that makes the sum of all of data's bytes zero, computed while it is zero itself. */
static inline uint8_t checksum_of(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	while (len--)
		sum += *p++;
	return (uint8_t)-sum;
}
