/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See compress.h. Each frame is compressed and decompressed in one call. The output buffer is thus the window, and the
 * window size that a frame claims costs nothing.
 */
#include "vmm/migration/compress.h"

#include <dlfcn.h>
#include <zstd.h>

#define LIBRARY "libzstd.so.1"
#define LEVEL 1

struct compressor {
	void *library;
	ZSTD_CCtx *packer;
	ZSTD_DCtx *unpacker;
	__typeof__(&ZSTD_createCCtx) create_packer;
	__typeof__(&ZSTD_freeCCtx) free_packer;
	__typeof__(&ZSTD_compressCCtx) pack;
	__typeof__(&ZSTD_createDCtx) create_unpacker;
	__typeof__(&ZSTD_freeDCtx) free_unpacker;
	__typeof__(&ZSTD_decompressDCtx) unpack;
	__typeof__(&ZSTD_isError) is_error;
};

static int compressor_load(struct compressor *c, struct err *err)
{
	const struct {
		const char *name;
		void *to;
	} functions[] = {
		{"ZSTD_createCCtx", &c->create_packer}, {"ZSTD_freeCCtx", &c->free_packer},
		{"ZSTD_compressCCtx", &c->pack},        {"ZSTD_createDCtx", &c->create_unpacker},
		{"ZSTD_freeDCtx", &c->free_unpacker},   {"ZSTD_decompressDCtx", &c->unpack},
		{"ZSTD_isError", &c->is_error},
	};

	c->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!c->library)
		return err_set(err, -ENOPKG, "zstd: " LIBRARY " is missing; install the Debian package libzstd1");
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		void *function = dlsym(c->library, functions[i].name);

		if (!function)
			return err_set(err, -ENOPKG, "zstd: " LIBRARY " has no %s", functions[i].name);
		memcpy(functions[i].to, &function, sizeof(function));
	}
	return 0;
}

int compressor_create(struct compressor **ret, struct err *err)
{
	struct compressor *c = calloc(1, sizeof(*c));
	int code;

	if (!c)
		return err_sys(err, -ENOMEM, "zstd");
	code = compressor_load(c, err);
	if (!code) {
		c->packer = c->create_packer();
		c->unpacker = c->create_unpacker();
		if (!c->packer || !c->unpacker)
			code = err_sys(err, -ENOMEM, "zstd");
	}
	if (code) {
		compressor_destroy(c);
		return code;
	}
	*ret = c;
	return 0;
}

void compressor_destroy(struct compressor *c)
{
	if (!c)
		return;
	if (c->packer)
		c->free_packer(c->packer);
	if (c->unpacker)
		c->free_unpacker(c->unpacker);
	if (c->library)
		dlclose(c->library);
	free(c);
}

size_t compressor_pack(struct compressor *c, const void *from, size_t len, void *to, size_t room)
{
	size_t size = c->pack(c->packer, to, room, from, len, LEVEL);

	return c->is_error(size) ? 0 : size;
}

int compressor_unpack(struct compressor *c, const void *from, size_t len, void *to, size_t room)
{
	size_t size = c->unpack(c->unpacker, to, room, from, len);

	return c->is_error(size) || size != room ? -EBADMSG : 0;
}
