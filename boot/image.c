/* SPDX-License-Identifier: Apache-2.0 */
/* See boot.h and image.h: opens kernel files, finds their format, and reads pieces of them into guest memory. */
#include "boot/image.h"

#include <fcntl.h>
#include <sys/stat.h>

struct boot_image {
	struct boot_file file;
	const struct boot_format *format;
	void *parsed;
};

/* What people hand over by mistake: found by a few bytes, answered by what to do. */
static const struct {
	unsigned int offset, len;
	const char *magic;
	const char *advice;
} mistakes[] = {
	{56, 4, "ARM\x64", "this is an arm64 kernel and this machine is not; wrong architecture"},
	{0, 2, "\x1f\x8b", "this is compressed by gzip; unpack it first"},
	{0, 6, "\xfd" "7zXZ\0", "this is compressed by xz; unpack it first"},
	{0, 4, "\x28\xb5\x2f\xfd", "this is compressed by zstd; unpack it first"},
	{0, 6, "070701", "this is a cpio archive; give it as --initrd"},
	{0, 2, "MZ", "this is an EFI program without a Linux boot header; give the kernel (vmlinuz) itself"},
};

int boot_open_file(const char *option, const char *path, int *ret_fd, uint64_t *ret_size, struct err *err)
{
	/* O_NONBLOCK: a FIFO must not make us wait for its writer. */
	_cleanup_(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return err_sys(err, -errno, "%s %s: open", option, path);
	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "%s %s: stat", option, path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "%s %s: this is %s; give a regular file",
			       option, path, S_ISDIR(st.st_mode) ? "a directory" : "not a file");
	*ret_size = (uint64_t)st.st_size;
	*ret_fd = take_fd(&fd);
	return 0;
}

int boot_read(int fd, uint64_t offset, void *buf, size_t len, struct err *err)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "read at offset %llu", (unsigned long long)offset);
		if (n == 0)
			return err_set(err, -ENOEXEC, "truncated: the file ends at offset %llu, %zu bytes are missing",
				       (unsigned long long)offset, len);
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int boot_read_to_guest(int fd, uint64_t offset, struct guest_memory *memory, uint64_t gpa, uint64_t len,
		       struct err *err)
{
	void *host;
	int ret;

	if (!len)
		return 0;
	host = guest_memory_at(memory, gpa, len);
	if (!host)
		return err_set(err, -ENOSPC, "%llu KiB do not fit into guest memory at 0x%llx; give more --memory",
			       (unsigned long long)(len >> 10), (unsigned long long)gpa);
	ret = boot_read(fd, offset, host, len, err);
	guest_memory_dirty(memory, gpa, len);
	return ret;
}

bool boot_map_to_guest(const struct boot_config *config, int fd, uint64_t offset, struct guest_memory *memory,
		       uint64_t gpa, uint64_t len)
{
	const struct boot_mapping mapping = {
		.fd = fd,
		.offset = offset,
		.size = align_up(len, GUEST_PAGE_SIZE),
		.gpa = gpa,
	};

	if (!config->map || (offset | gpa) % GUEST_PAGE_SIZE || !guest_memory_at(memory, gpa, mapping.size))
		return false;
	return config->map(config->opaque, &mapping);
}

static int image_tell(struct boot_image *image, struct err *err)
{
	for (size_t i = 0; boot_formats[i] && !image->format; i++)
		if (boot_formats[i]->is(image->file.head))
			image->format = boot_formats[i];
	if (image->format) {
		image->parsed = calloc(1, image->format->parsed_size);
		return image->parsed ? image->format->parse(&image->file, image->parsed, err) : err_sys(err, -ENOMEM, "parse");
	}
	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++)
		if (!memcmp(image->file.head + mistakes[i].offset, mistakes[i].magic, mistakes[i].len))
			return err_set(err, -ENOEXEC, "%s", mistakes[i].advice);
	return err_set(err, -ENOEXEC, "not a kernel: neither a bzImage nor an ELF file");
}

int boot_image_open(const char *path, struct boot_image **ret, struct err *err)
{
	struct boot_image *image = calloc(1, sizeof(*image));
	int r;

	if (!image)
		return err_sys(err, -ENOMEM, "--kernel %s", path);
	image->file.fd = -1;
	image->file.path = strdup(path);
	if (!image->file.path) {
		r = err_sys(err, -ENOMEM, "--kernel %s", path);
		goto fail;
	}
	r = boot_open_file("--kernel", path, &image->file.fd, &image->file.size, err);
	if (r < 0)
		goto fail;
	if (image->file.size == 0) {
		r = err_set(err, -ENOEXEC, "--kernel %s: the file is empty", path);
		goto fail;
	}
	r = boot_read(image->file.fd, 0, image->file.head, MIN(image->file.size, BOOT_HEAD_SIZE), err);
	if (r == 0)
		r = image_tell(image, err);
	if (r < 0) {
		err_prefix(err, r, "--kernel %s", path);
		goto fail;
	}
	*ret = image;
	return 0;
fail:
	boot_image_close(image);
	return r;
}

void boot_image_close(struct boot_image *image)
{
	if (!image)
		return;
	fd_close(&image->file.fd);
	free(image->parsed);
	free(image->file.path);
	free(image);
}

int boot_load(const struct boot_config *config, struct guest_memory *memory, struct boot_entry *ret, struct err *err)
{
	const struct boot_image *image = config->image;

	return image->format->load(&image->file, image->parsed, config, memory, ret, err);
}
