/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_sums.h. */
#include "vmm/snapshot/memory_sums.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/bitmap.h"

#define CHUNK SNAPSHOT_SUM_BYTES
#define PAGE MEMORY_SUMS_PAGE
#define CHUNK_PAGES (CHUNK / PAGE)
#define SUM_OF_ZEROS 0x94e26d8e04364852ull /* of a whole chunk */
#define ZEROS KIB(16)

struct memory_sums {
	XXH3_state_t *hash;
	uint64_t size, chunks;
	uint64_t *sums;        /* le64; of a chunk of zeros until it is known better */
	unsigned long *forgot; /* chunks to be read */
	uint8_t *buffer;       /* a chunk of the file; NULL: none was read yet */
	uint8_t zeros[ZEROS];
};

static uint64_t memory_sums_len(const struct memory_sums *sums, uint64_t chunk)
{
	return MIN(CHUNK, sums->size - chunk * CHUNK);
}

/* All is a hole. */
static void memory_sums_fill(struct memory_sums *sums)
{
	uint64_t last = sums->chunks - 1;

	for (uint64_t chunk = 0; chunk < sums->chunks; chunk++)
		sums->sums[chunk] = htole64(SUM_OF_ZEROS);
	if (sums->chunks && memory_sums_len(sums, last) < CHUNK) {
		memory_sums_begin(sums);
		memory_sums_add_zeros(sums, memory_sums_len(sums, last));
		memory_sums_end(sums, last);
	}
}

int memory_sums_create(uint64_t memory_bytes, struct memory_sums **ret, struct err *err)
{
	struct memory_sums *sums = calloc(1, sizeof(*sums));

	if (!sums)
		return err_sys(err, -ENOMEM, "checksums");
	sums->size = memory_bytes;
	sums->chunks = memory_bytes / CHUNK + (memory_bytes % CHUNK != 0);
	sums->hash = XXH3_createState();
	sums->sums = calloc(sums->chunks, sizeof(*sums->sums));
	sums->forgot = calloc(bitmap_longs(sums->chunks), sizeof(*sums->forgot));
	if (!sums->hash || !sums->sums || !sums->forgot) {
		memory_sums_destroy(sums);
		return err_sys(err, -ENOMEM, "checksums");
	}
	memory_sums_fill(sums);
	*ret = sums;
	return 0;
}

void memory_sums_destroy(struct memory_sums *sums)
{
	if (!sums)
		return;
	XXH3_freeState(sums->hash);
	free(sums->sums);
	free(sums->forgot);
	free(sums->buffer);
	free(sums);
}

void memory_sums_begin(struct memory_sums *sums)
{
	XXH3_64bits_reset(sums->hash);
}

void memory_sums_add(struct memory_sums *sums, const void *data, size_t len)
{
	XXH3_64bits_update(sums->hash, data, len);
}

void memory_sums_add_zeros(struct memory_sums *sums, uint64_t len)
{
	for (uint64_t n; len; len -= n) {
		n = MIN(len, ZEROS);
		XXH3_64bits_update(sums->hash, sums->zeros, n);
	}
}

void memory_sums_end(struct memory_sums *sums, uint64_t chunk)
{
	sums->sums[chunk] = htole64(XXH3_64bits_digest(sums->hash));
}

void memory_sums_forget(struct memory_sums *sums, uint64_t chunk)
{
	bitmap_set(sums->forgot, chunk);
}

/* ---- from the file ---- */

static int memory_sums_read(int fd, uint8_t *to, size_t len, uint64_t offset, struct err *err)
{
	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(err, n < 0 ? -errno : -EIO, "read");
		to += n;
		len -= (size_t)n;
		offset += (size_t)n;
	}
	return 0;
}

/* Where the run of pages from at, which all are data or all are not, ends. */
static uint64_t memory_sums_run(const unsigned long *data, uint64_t at, uint64_t end)
{
	bool is = bitmap_test(data, at);

	while (at < end && bitmap_test(data, at) == is)
		at++;
	return at;
}

static int memory_sums_of_file(struct memory_sums *sums, int fd, const unsigned long *data, uint64_t chunk,
			       struct err *err)
{
	uint64_t at = chunk * CHUNK_PAGES, end = at + memory_sums_len(sums, chunk) / PAGE, next;
	int code = 0;

	memory_sums_begin(sums);
	for (; !code && at < end; at = next) {
		size_t len;

		next = memory_sums_run(data, at, end);
		len = (next - at) * PAGE;
		if (!bitmap_test(data, at)) {
			memory_sums_add_zeros(sums, len);
			continue;
		}
		code = memory_sums_read(fd, sums->buffer, len, at * PAGE, err);
		memory_sums_add(sums, sums->buffer, len);
	}
	memory_sums_end(sums, chunk);
	return code;
}

int memory_sums_complete(struct memory_sums *sums, int fd, const unsigned long *data,
			 int (*check)(void *opaque, struct err *err), void *opaque, struct snapshot_bytes *ret,
			 struct err *err)
{
	int code = 0;

	for (uint64_t chunk = 0; !code && chunk < sums->chunks; chunk++) {
		if (!bitmap_test(sums->forgot, chunk))
			continue;
		if (!sums->buffer && !(sums->buffer = malloc(CHUNK)))
			return err_sys(err, -ENOMEM, "checksums");
		code = check(opaque, err) ?: memory_sums_of_file(sums, fd, data, chunk, err);
		if (!code)
			bitmap_clear_range(sums->forgot, chunk, 1);
	}
	if (code)
		return code;
	*ret = (struct snapshot_bytes){sums->sums, sums->chunks * sizeof(*sums->sums)};
	return 0;
}
