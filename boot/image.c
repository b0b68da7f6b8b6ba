/* SPDX-License-Identifier: Apache-2.0 */
/* See boot.h: opens a kernel file and finds its format. */
#include "boot/format.h"

struct boot_image {
	struct boot_file file;
	const struct boot_format *format;
	void *parsed;
};

/* Files that users give by mistake, recognised by a few bytes. */
static const struct {
	unsigned int offset, len;
	const char *magic;
	const char *advice;
} mistakes[] = {
	{56, 4, "ARM\x64", "this is an arm64 kernel, and this machine is not arm64; wrong architecture"},
	{0, 2, "\x1f\x8b", "this is compressed by gzip; unpack it first"},
	{0, 6, "\xfd" "7zXZ\0", "this is compressed by xz; unpack it first"},
	{0, 4, "\x28\xb5\x2f\xfd", "this is compressed by zstd; unpack it first"},
	{0, 6, "070701", "this is a cpio archive; give it as --initrd"},
	{0, 2, "MZ", "this is an EFI program without a Linux boot header; give the kernel (vmlinuz) itself"},
};

static int image_tell(struct boot_image *image, struct err *err)
{
	for (size_t i = 0; boot_formats[i] && !image->format; i++)
		if (boot_formats[i]->is(image->file.head))
			image->format = boot_formats[i];
	if (image->format) {
		image->parsed = calloc(1, image->format->parsed_size);
		if (!image->parsed)
			return err_sys(err, -ENOMEM, "parse");
		return image->format->parse(&image->file, image->parsed, err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++)
		if (!memcmp(image->file.head + mistakes[i].offset, mistakes[i].magic, mistakes[i].len))
			return err_set(err, -ENOEXEC, "%s", mistakes[i].advice);
	return err_set(err, -ENOEXEC, "not a kernel: neither a bzImage nor an ELF file");
}

int boot_image_open(const char *path, const char *file, struct boot_image **ret, struct err *err)
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
	r = boot_open_file("--kernel", path, file, &image->file.fd, &image->file.size, err);
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
