/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside boot/: files that are opened, and read into guest memory. Never mapped: a file that is truncated or written to
 * under a running machine must not change its guest.
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

/* Opens a regular file for reading, by file or, if that is NULL, by path, and learns its size; option ("--initrd") and
 * path are named in messages. */
int boot_open_file(const char *option, const char *path, const char *file, int *ret_fd, uint64_t *ret_size,
		   struct err *err);

/* Reads exactly len bytes at offset. -ENOEXEC when the file ends before. */
int boot_read(int fd, uint64_t offset, void *buf, size_t len, struct err *err);

/* Reads a piece of a file straight into guest memory. -ENOSPC when there is no RAM at [gpa, gpa + len). */
int boot_read_to_guest(int fd, uint64_t offset, struct guest_memory *memory, uint64_t gpa, uint64_t len,
		       struct err *err);
/* The same for a piece of the kernel, which the message then names. */
int boot_read_kernel(const struct boot_file *file, uint64_t offset, struct guest_memory *memory, uint64_t gpa, uint64_t len,
		     struct err *err);
