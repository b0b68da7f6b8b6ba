/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file "state" of a snapshot: everything about a machine but the content of its memory. This file makes the bytes
 * and reads them; it does no I/O. The writer of a snapshot calls it, and whoever opens one (snapshot_open.h).
 *
 * The format is experimental: until the first release, a later version may refuse what this one writes. Everything is
 * little-endian:
 *
 *	8 bytes "MVMMSNAP", u32 version, u32 architecture (the e_machine of ELF), u64 length of the whole,
 *	u64 XXH3-64 of all that follows,
 *	sections in any order: u8 length of name, name, u64 length, bytes
 *
 *	snapshot      a record (core/state.h): identity, size of the memory, time
 *	machine.json  the description (description.h)
 *	machine       the machine's saved state, as machine_save writes it
 *	sums          u64 for each 2 MiB of the memory file, the last of which may be shorter: snapshot_sum of its bytes
 *	pages         of a diff only: bit n % 8 of byte n / 8 is set if page n (4 KiB) of the memory file is in it
 *	disk/ID       a record, for each disk that the guest may write: the file as it was
 *	device/ID     the state of a host device, as its driver gave it
 *
 * The bytes are hostile: sizes are bounded, and nothing beyond them is read.
 */
#pragma once

#include "core/state.h"
#include "vmm/config/config.h"
#include "vmm/migration/wire.h"

#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_HEADER_SIZE 32u
#define SNAPSHOT_PAGE WIRE_PAGE
#define SNAPSHOT_SUM_BYTES MIB(2)
#define SNAPSHOT_ID_TEXT 37u                  /* with the NUL */
#define SNAPSHOT_MAX_STATE GIB(4)             /* bytes of the file; most of it may be the state of host devices */
#define SNAPSHOT_MAX_MACHINE WIRE_MAX_STATE
#define SNAPSHOT_MAX_DESCRIPTION (2 * WIRE_MAX_OFFER) /* an offer and a little more */

struct snapshot_bytes {
	const void *data;
	size_t len;
};

/* The file of a disk, after the last flush in the pause. */
struct snapshot_disk {
	char id[MACHINE_MAX_NAME + 1];
	uint64_t size;          /* bytes */
	uint64_t inode, device; /* as of stat(2) */
	uint64_t mtime_ns;      /* CLOCK_REALTIME */
};

struct snapshot_device {
	char id[MACHINE_MAX_NAME + 1];
	struct snapshot_bytes state;
};

/* All that the file says. The bytes belong to the writer, or are in what was parsed. */
struct snapshot_state {
	uint8_t id[16], parent[16]; /* random; parent: all zero in a full snapshot */
	uint8_t boot_id[16];        /* of the kernel where it was taken: /proc/sys/kernel/random/boot_id */
	uint64_t memory_bytes;
	uint64_t created_ns; /* CLOCK_REALTIME */
	bool paused;         /* the user had paused the machine */
	struct snapshot_bytes description, machine, sums, pages; /* pages.len 0: not a diff */
	struct snapshot_disk disks[WIRE_MAX_DISKS];
	size_t disk_count;
	struct snapshot_device devices[WIRE_MAX_DEVICES];
	size_t device_count;
};

/* The architecture that this program runs: an e_machine of ELF (state_file_x86.c). */
extern const uint32_t snapshot_architecture;

/* Appends the file to out, which is empty. -EINVAL: it could not be read again; -ENOMEM. */
int snapshot_state_write(const struct snapshot_state *state, struct state_buffer *out, struct err *err);

/*
 * Parses the file. *ret points into data, which must outlive it; the caller frees it. -EBADMSG: not a snapshot, or
 * damaged; -ENOTSUP: of another version or architecture.
 */
int snapshot_state_parse(const void *data, size_t len, struct snapshot_state **ret, struct err *err);

/* Whether these 32 bytes begin the file of a snapshot, of whatever version and architecture. */
bool snapshot_state_is_header(const uint8_t header[SNAPSHOT_HEADER_SIZE]);
/* Whether they begin a file of this version, architecture and length: -EBADMSG, -ENOTSUP as snapshot_state_parse. */
int snapshot_state_check_header(const uint8_t header[SNAPSHOT_HEADER_SIZE], uint64_t len, struct err *err);

bool snapshot_state_is_diff(const struct snapshot_state *state);
/* Whether the page of the memory file is in this snapshot: all are in a full one. */
bool snapshot_state_has_page(const struct snapshot_state *state, uint64_t page);

/* How many bytes the sections must have for this much memory. */
uint64_t snapshot_sums_len(uint64_t memory_bytes);
uint64_t snapshot_pages_len(uint64_t memory_bytes);

/* XXH3-64 of bytes: of up to SNAPSHOT_SUM_BYTES of a memory file, or of anything else. */
uint64_t snapshot_sum(const void *data, size_t len);

/* The id as a UUID: "01234567-89ab-cdef-0123-456789abcdef". */
void snapshot_id_text(const uint8_t id[16], char text[SNAPSHOT_ID_TEXT]);
