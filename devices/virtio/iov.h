/* SPDX-License-Identifier: Apache-2.0 */
/* A part of an array of segments, for instance the data after a header. Used by the network devices and vsock. */
#pragma once

#include "core/util.h"

#include <sys/uio.h>

/* Fills out with at most max segments of len bytes at offset (fewer at the end); returns their number. */
static inline unsigned int iov_slice(const struct iovec *iov, unsigned int count, size_t offset, size_t len,
				     struct iovec *out, unsigned int max)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < count && len && n < max; i++) {
		size_t skip = MIN(offset, iov[i].iov_len), step = MIN(len, iov[i].iov_len - skip);

		offset -= skip;
		len -= step;
		if (step)
			out[n++] = (struct iovec){(uint8_t *)iov[i].iov_base + skip, step};
	}
	return n;
}

/* Copies len bytes into the segments at offset; bytes that do not fit are lost. */
static inline void iov_scatter(const struct iovec *iov, unsigned int count, size_t offset, const void *from, size_t len)
{
	for (unsigned int i = 0; i < count && len; i++) {
		size_t skip = MIN(offset, iov[i].iov_len), step = MIN(len, iov[i].iov_len - skip);

		memcpy((uint8_t *)iov[i].iov_base + skip, from, step);
		from = (const uint8_t *)from + step;
		offset -= skip;
		len -= step;
	}
}
