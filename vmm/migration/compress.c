/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See compress.h. Each frame is compressed and decompressed in one call. The output buffer is thus the window, and the
 * window size that a frame claims costs nothing.
 */
#include "vmm/migration/compress.h"

#include <zstd.h>

#define LEVEL 1

struct compressor {
	ZSTD_CCtx *packer;
	ZSTD_DCtx *unpacker;
};

int compressor_create(struct compressor **ret, struct err *err)
{
	struct compressor *c = calloc(1, sizeof(*c));

	if (!c)
		return err_sys(err, -ENOMEM, "zstd");
	c->packer = ZSTD_createCCtx();
	c->unpacker = ZSTD_createDCtx();
	if (!c->packer || !c->unpacker) {
		compressor_destroy(c);
		return err_sys(err, -ENOMEM, "zstd");
	}
	*ret = c;
	return 0;
}

void compressor_destroy(struct compressor *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->packer);
	ZSTD_freeDCtx(c->unpacker);
	free(c);
}

size_t compressor_pack(struct compressor *c, const void *from, size_t len, void *to, size_t room)
{
	size_t size = ZSTD_compressCCtx(c->packer, to, room, from, len, LEVEL);

	return ZSTD_isError(size) ? 0 : size;
}

int compressor_unpack(struct compressor *c, const void *from, size_t len, void *to, size_t room)
{
	size_t size = ZSTD_decompressDCtx(c->unpacker, to, room, from, len);

	return ZSTD_isError(size) || size != room ? -EBADMSG : 0;
}
