/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_reader.h. */
#include "vmm/snapshot/memory_reader.h"

#include "vmm/machine/machine_offer.h"
#include "vmm/snapshot/description.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

uint64_t memory_reader_chunks(const struct memory_reader *reader)
{
	return reader->snapshot->state->sums.len / 8;
}

size_t memory_reader_len(const struct memory_reader *reader, uint64_t chunk)
{
	return (size_t)MIN(reader->snapshot->state->memory_bytes - chunk * SNAPSHOT_SUM_BYTES, SNAPSHOT_SUM_BYTES);
}

static uint64_t memory_reader_sum(const struct snapshot_state *state, uint64_t chunk)
{
	return get_le64((const uint8_t *)state->sums.data + 8 * chunk);
}

static int memory_reader_differs(uint64_t chunk, struct err *err)
{
	return err_set(err, -EBADMSG, "memory is damaged: the 2 MiB at offset %" PRIu64 " are not what was written",
		       chunk * SNAPSHOT_SUM_BYTES);
}

/* Whether there is no data in [at, end). */
static int memory_reader_is_hole(struct memory_reader *reader, uint64_t at, uint64_t end, bool *ret, struct err *err)
{
	if (at < reader->hole_begin || end > reader->hole_end) {
		off_t data = lseek(reader->snapshot->memory_fd, (off_t)at, SEEK_DATA);

		if (data < 0 && errno != ENXIO)
			return err_sys(err, -errno, "memory");
		reader->hole_begin = at;
		reader->hole_end = data < 0 ? UINT64_MAX : (uint64_t)data;
	}
	*ret = end <= reader->hole_end;
	return 0;
}

static int memory_reader_check_hole(struct memory_reader *reader, uint64_t chunk, void *buffer, struct err *err)
{
	size_t len = memory_reader_len(reader, chunk);

	if (reader->zeros_len != len) {
		memset(buffer, 0, len);
		reader->zeros_sum = snapshot_sum(buffer, len);
		reader->zeros_len = len;
	}
	return reader->zeros_sum == memory_reader_sum(reader->snapshot->state, chunk) ? 0 :
										       memory_reader_differs(chunk, err);
}

int memory_reader_read(struct memory_reader *reader, uint64_t chunk, void *buffer, bool *hole, struct err *err)
{
	const uint64_t at = chunk * SNAPSHOT_SUM_BYTES;
	size_t len = memory_reader_len(reader, chunk), got = 0;
	int code = memory_reader_is_hole(reader, at, at + len, hole, err);

	if (code)
		return code;
	if (*hole)
		return memory_reader_check_hole(reader, chunk, buffer, err);
	while (got < len) {
		ssize_t n = pread(reader->snapshot->memory_fd, (char *)buffer + got, len - got, (off_t)(at + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "memory");
		if (n == 0)
			return err_set(err, -EBADMSG, "memory was cut off while it was read");
		got += (size_t)n;
	}
	return snapshot_sum(buffer, len) == memory_reader_sum(reader->snapshot->state, chunk) ?
		       0 : memory_reader_differs(chunk, err);
}

int snapshot_data_bytes(int fd, uint64_t size, uint64_t *ret)
{
	uint64_t bytes = 0;
	off_t at = 0, end;

	while ((at = lseek(fd, at, SEEK_DATA)) >= 0 && (uint64_t)at < size) {
		end = lseek(fd, at, SEEK_HOLE);
		if (end < 0)
			return -errno;
		bytes += MIN((uint64_t)end, size) - (uint64_t)at;
		at = end;
	}
	if (at < 0 && errno != ENXIO)
		return -errno;
	*ret = bytes;
	return 0;
}

/* ---- verify ---- */

/* What is not in a diff is not read by anybody, but a diff that has it was not written by this program. */
static int memory_reader_check_pages(const struct snapshot_state *state, uint64_t chunk, const uint8_t *data, size_t len,
				     struct err *err)
{
	const uint64_t first = chunk * (SNAPSHOT_SUM_BYTES / SNAPSHOT_PAGE);

	for (size_t page = 0; page < len / SNAPSHOT_PAGE; page++) {
		const uint8_t *at = data + page * SNAPSHOT_PAGE;

		if (!snapshot_state_has_page(state, first + page) && (at[0] || memcmp(at, at + 1, SNAPSHOT_PAGE - 1) != 0))
			return err_set(err, -EBADMSG, "memory is damaged: the page at offset %" PRIu64 " is not in this diff",
				       (first + page) * SNAPSHOT_PAGE);
	}
	return 0;
}

static int memory_reader_verify_memory(const struct snapshot *snapshot, const struct snapshot_progress *progress,
				       struct err *err)
{
	struct memory_reader reader = {.snapshot = snapshot};
	_cleanup_(free_ptr) uint8_t *buffer = malloc(SNAPSHOT_SUM_BYTES);
	uint64_t chunks = memory_reader_chunks(&reader);
	int code = buffer ? 0 : err_sys(err, -ENOMEM, "memory");

	for (uint64_t chunk = 0; !code && chunk < chunks; chunk++) {
		bool hole;

		code = snapshot_tick(progress, chunk * SNAPSHOT_SUM_BYTES, snapshot->state->memory_bytes, err) ?:
		       memory_reader_read(&reader, chunk, buffer, &hole, err);
		if (!code && !hole)
			code = memory_reader_check_pages(snapshot->state, chunk, buffer, memory_reader_len(&reader, chunk),
							 err);
	}
	return code;
}

static int memory_reader_verify_description(const struct snapshot *snapshot, struct err *err)
{
	struct machine_offer *offer;
	uint64_t size = 0;
	json_t *root;
	int code = snapshot_description_read(snapshot->state, NULL, &root, err);

	if (code)
		return code;
	code = machine_offer_read(json_incref(json_object_get(root, "offer")), &offer, err);
	json_decref(root);
	if (code)
		return err_prefix(err, code, "machine.json: offer");
	for (size_t i = 0; i < offer->region_count; i++)
		size += offer->regions[i].size;
	machine_offer_destroy(offer);
	return size == snapshot->state->memory_bytes ?
		       0 : err_set(err, -EBADMSG, "machine.json: offer: memory of another size than the snapshot's");
}

/* A copy of a disk has no sum of its own; it must at least be all there. */
static int memory_reader_verify_disk(const struct snapshot *snapshot, const struct snapshot_disk *disk, struct err *err)
{
	char name[8 + sizeof(disk->id)];
	_cleanup_(fd_close) int fd = -1;
	struct stat st;
	int code;

	snprintf(name, sizeof(name), "disks/%s", disk->id);
	code = snapshot_open_part(snapshot, name, &fd, err);
	if (code || fd < 0)
		return code;
	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "%s", name);
	if ((uint64_t)st.st_size != disk->size)
		return err_set(err, -EBADMSG, "%s has %" PRIu64 " bytes, the disk had %" PRIu64, name, (uint64_t)st.st_size,
			       disk->size);
	return 0;
}

int snapshot_verify(const struct snapshot *snapshot, const struct snapshot_progress *progress, struct err *err)
{
	int code = memory_reader_verify_description(snapshot, err);

	for (size_t i = 0; !code && i < snapshot->state->disk_count; i++)
		code = memory_reader_verify_disk(snapshot, &snapshot->state->disks[i], err);
	return code ?: memory_reader_verify_memory(snapshot, progress, err);
}
