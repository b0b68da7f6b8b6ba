/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzers have in common: libFuzzer's entry points, a check that stays in whatever the build, and an input that
 * is taken bite by bite.
 */
#pragma once

#include "core/util.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#define MUST(cond)                                                \
	do {                                                      \
		if (!(cond)) {                                    \
			fprintf(stderr, "not true: %s\n", #cond); \
			abort();                                  \
		}                                                 \
	} while (0)

/* A small generator of numbers; libFuzzer gives the seed. */
static inline unsigned int draw(unsigned int *seed, unsigned int below)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (*seed >> 8) % below;
}

struct input {
	const uint8_t *data;
	size_t left;
};

/* The next bytes of the input, 8 at most; zeroes when it is used up. */
static inline uint64_t take(struct input *in, size_t bytes)
{
	uint64_t value = 0;
	size_t n = MIN(bytes, in->left);

	memcpy(&value, in->data, n);
	in->data += n;
	in->left -= n;
	return value;
}
