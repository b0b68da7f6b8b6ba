/* SPDX-License-Identifier: Apache-2.0 */
/* Counts the requests of a disk for its metrics: how many, how large, how long they took. See blk_internal.h. */
#include "devices/virtio/blk_internal.h"

#include "core/probe.h"

/* The kind of a request's type; VIRTIO_BLK_KINDS: it is not counted. */
static enum virtio_blk_kind blk_count_kind(uint32_t type)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return VIRTIO_BLK_READ;
	case VIRTIO_BLK_T_OUT:
		return VIRTIO_BLK_WRITE;
	case VIRTIO_BLK_T_FLUSH:
		return VIRTIO_BLK_FLUSH;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return VIRTIO_BLK_DISCARD;
	default:
		return VIRTIO_BLK_KINDS;
	}
}

void blk_count(struct blk_queue *q, const struct blk_request *request, uint8_t status)
{
	enum virtio_blk_kind kind = blk_count_kind(request->type);
	struct virtio_blk_counts *counts = &q->counts[kind];

	if (kind == VIRTIO_BLK_KINDS)
		return;
	counter_add(&counts->requests, 1);
	if (status != VIRTIO_BLK_S_OK)
		counter_add(&counts->failed, 1);
	else if (kind != VIRTIO_BLK_FLUSH)
		counter_add(&counts->bytes, request->size);
	counter_histogram_add(&counts->took, q->now - request->started);
	PROBE(disk_request, q->blk->id, kind, request->size, q->now - request->started);
}

void virtio_blk_count(struct virtio_device *disk, struct virtio_blk_counts ret[VIRTIO_BLK_KINDS])
{
	const struct blk *blk = container_of(disk, struct blk, device);

	memset(ret, 0, VIRTIO_BLK_KINDS * sizeof(*ret));
	for (unsigned int i = 0; i < disk->queue_count; i++) {
		for (unsigned int kind = 0; kind < VIRTIO_BLK_KINDS; kind++) {
			const struct virtio_blk_counts *counts = &blk->queues[i].counts[kind];

			ret[kind].requests += counter_read(&counts->requests);
			ret[kind].bytes += counter_read(&counts->bytes);
			ret[kind].failed += counter_read(&counts->failed);
			counter_histogram_sum(&ret[kind].took, &counts->took);
		}
	}
}
