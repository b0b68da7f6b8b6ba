/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside boot/: files that are opened, read, and put into guest memory, by copying or by mapping.
 */
#pragma once

#include "boot/boot.h"

#define BOOT_HEAD_SIZE 4096u

/* The file as it was when opened. What is checked is read once, into memory; what is loaded later is verified to be
 * there still. */
struct boot_file {
	int fd;
	char *path;
	uint64_t size;
	uint8_t head[BOOT_HEAD_SIZE]; /* its first bytes, zero beyond the file's end */
};

/* Opens a regular file for reading and learns its size; option ("--initrd") and path are named in messages. */
int boot_open_file(const char *option, const char *path, int *ret_fd, uint64_t *ret_size, struct err *err);

/* Reads exactly len bytes at offset. -ENOEXEC when the file ends before. */
int boot_read(int fd, uint64_t offset, void *buf, size_t len, struct err *err);

/*
 * Maps a piece of a file over guest memory, in whole pages: offset and gpa are page multiples, the last page is the
 * file's whatever it holds. false when there is no RAM or the caller of boot_load would not have it: then it is to be
 * read.
 */
bool boot_map_to_guest(const struct boot_config *config, int fd, uint64_t offset, struct guest_memory *memory,
		       uint64_t gpa, uint64_t len);

/* Reads a piece of a file straight into guest memory. -ENOSPC when there is no RAM at [gpa, gpa + len). */
int boot_read_to_guest(int fd, uint64_t offset, struct guest_memory *memory, uint64_t gpa, uint64_t len,
		       struct err *err);
