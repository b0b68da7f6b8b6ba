/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of pages that a restored guest touches first. Always: what is refused comes with a sentence, and the ranges of
 * what is accepted are whole pages of the snapshot's memory, ascending and apart. Inputs begin as a sound list; their
 * checksum is made right, since only malice gets beyond that.
 */
#include "vmm/snapshot/prefetch.h"
#include "tests/fuzz/fuzz.h"

#define MEMORY MIB(64)
#define HEADER 48u
#define SUM_AT 40u

static const struct snapshot_state snapshot = {.id = {1, 2, 3}, .memory_bytes = MEMORY};

static void seal(uint8_t *data, size_t size)
{
	uint8_t parts[16];

	if (size < HEADER)
		return;
	put_le64(parts, snapshot_sum(data, SUM_AT));
	put_le64(parts + 8, snapshot_sum(data + HEADER, size - HEADER));
	put_le64(data + SUM_AT, snapshot_sum(parts, sizeof(parts)));
}

static void check_ranges(const struct prefetch *prefetch)
{
	uint64_t last = 0, bytes = 0;

	for (size_t i = 0; i < prefetch->count; i++) {
		const struct prefetch_range *range = &prefetch->ranges[i];

		MUST(range->size && range->size % SNAPSHOT_PAGE == 0 && range->offset % SNAPSHOT_PAGE == 0);
		MUST(range->offset >= last && range->size <= MEMORY && range->offset <= MEMORY - range->size);
		last = range->offset + range->size;
		bytes += range->size;
	}
	MUST(bytes == prefetch->bytes && bytes <= MEMORY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prefetch *prefetch;
	struct err err = {""};
	int code = prefetch_parse(data, size, &snapshot, &prefetch, &err);

	MUST(!code || ((code == -EBADMSG || code == -ENOTSUP) && err.text[0]));
	if (code)
		return 0;
	check_ranges(prefetch);
	free(prefetch);
	return 0;
}

/* A list of some ranges that fits. */
static size_t sound(uint8_t *data, size_t max_size, unsigned int *seed)
{
	uint32_t count = draw(seed, 8), page = 0;
	size_t size = HEADER + count * 8;

	if (size > max_size)
		return 0;
	memcpy(data, "MVMMPREF", 8);
	put_le32(data + 8, 1);
	put_le32(data + 12, count);
	memcpy(data + 16, snapshot.id, sizeof(snapshot.id));
	put_le64(data + 32, MEMORY);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t pages = 1 + draw(seed, 4);

		put_le32(data + HEADER + i * 8, page);
		put_le32(data + HEADER + i * 8 + 4, pages);
		page += pages + draw(seed, 3);
	}
	return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	if (size < HEADER || draw(&seed, 4) == 0)
		size = sound(data, max_size, &seed);
	if (draw(&seed, 8))
		size = LLVMFuzzerMutate(data, size, max_size);
	if (draw(&seed, 8))
		seal(data, size);
	return size;
}
