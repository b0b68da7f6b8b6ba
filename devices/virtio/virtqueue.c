/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See virtqueue.h. The driver uses the ring at the same time on another CPU, so the order of accesses matters (virtio
 * 1.2 section 2.7.13): its index is loaded with acquire before the entries, ours is stored with release after the
 * entries, and a full barrier separates a request for a wake-up from the check that follows it.
 */
#include "devices/virtio/virtqueue.h"

#include "core/probe.h"

#include <stdio.h>

static int virtqueue_broken(struct virtqueue *vq, const char *why)
{
	char text[80];

	vq->broken = true;
	snprintf(text, sizeof(text), "queue %u: %s", vq->index, why);
	vq->ops->broken(vq, text);
	return -EPROTO;
}

/* Keeps the compiler from reading guest memory again instead of the copy. */
static inline void virtqueue_copied(void)
{
	__asm__ volatile("" ::: "memory");
}

static inline uint16_t virtqueue_load16(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED));
}

static inline void virtqueue_store16(void *p, uint16_t value)
{
	__atomic_store_n((uint16_t *)p, htole16(value), __ATOMIC_RELAXED);
}

/* The word behind the available (used) ring: the index at which the driver (device) wants a wake-up. */
static inline const void *virtqueue_used_event(const struct virtqueue *vq)
{
	return &vq->avail_host->ring[vq->setup.size];
}

static inline void *virtqueue_avail_event(const struct virtqueue *vq)
{
	return &vq->used_host->ring[vq->setup.size];
}

static uint64_t virtqueue_used_size(const struct virtqueue *vq)
{
	return offsetof(struct vring_used, ring) + sizeof(struct vring_used_elem) * vq->setup.size + 2;
}

static void virtqueue_used_dirty(struct virtqueue *vq, const void *at, size_t len)
{
	uint64_t offset = (uint64_t)((const char *)at - (const char *)vq->used_host);

	guest_memory_dirty(vq->memory, vq->setup.used + offset, len);
}

/* ---- start and stop ---- */

static int virtqueue_locate(struct virtqueue *vq, uint64_t gpa, uint64_t len, uint64_t align, const char *what,
			    void **ret, struct err *err)
{
	if (gpa % align)
		return err_set(err, -EINVAL, "queue %u: %s at 0x%llx is misaligned", vq->index, what,
			       (unsigned long long)gpa);
	*ret = guest_memory_at(vq->memory, gpa, len);
	if (!*ret)
		return err_set(err, -EFAULT, "queue %u: %s at 0x%llx is not in memory", vq->index, what,
			       (unsigned long long)gpa);
	return 0;
}

int virtqueue_start(struct virtqueue *vq, struct guest_memory *memory, uint64_t features, struct err *err)
{
	uint64_t avail_size = offsetof(struct vring_avail, ring) + 2ull * vq->setup.size + 2;
	void *desc = NULL, *avail = NULL, *used = NULL; /* gcc 12 does not see that ret guards them */
	int ret;

	if (!is_power_of_two(vq->setup.size) || vq->setup.size > vq->max_size)
		return err_set(err, -EINVAL, "queue %u: bad size %u", vq->index, vq->setup.size);
	vq->memory = memory;
	ret = virtqueue_locate(vq, vq->setup.desc, 16ull * vq->setup.size, 16, "descriptor table", &desc, err);
	if (ret == 0)
		ret = virtqueue_locate(vq, vq->setup.avail, avail_size, 2, "available ring", &avail, err);
	if (ret == 0)
		ret = virtqueue_locate(vq, vq->setup.used, virtqueue_used_size(vq), 4, "used ring", &used, err);
	if (ret < 0)
		return ret;
	vq->desc_host = desc;
	vq->avail_host = avail;
	vq->used_host = used;
	vq->next_avail = vq->seen_avail = vq->next_used = vq->signalled_used = 0;
	vq->event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1;
	vq->indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	vq->broken = false;
	return 0;
}

void virtqueue_stop(struct virtqueue *vq)
{
	vq->desc_host = NULL;
	vq->avail_host = NULL;
	vq->used_host = NULL;
}

void virtqueue_place(const struct virtqueue *vq, struct virtqueue_place *place)
{
	*place = (struct virtqueue_place){
		.next_avail = vq->next_avail,
		.next_used = vq->next_used,
		.signalled_used = vq->signalled_used,
		.avail_idx = virtqueue_load16(&vq->avail_host->idx),
		.used_idx = virtqueue_load16(&vq->used_host->idx),
		.broken = vq->broken,
	};
}

int virtqueue_start_at(struct virtqueue *vq, struct guest_memory *memory, uint64_t features,
		       const struct virtqueue_place *place, struct err *err)
{
	int ret = virtqueue_start(vq, memory, features, err);

	if (ret < 0)
		return ret;
	if (virtqueue_load16(&vq->avail_host->idx) != place->avail_idx ||
	    virtqueue_load16(&vq->used_host->idx) != place->used_idx)
		return err_set(err, -EBADMSG,
			       "queue %u: guest memory does not have the saved ring at 0x%llx",
			       vq->index, (unsigned long long)vq->setup.avail);
	vq->next_avail = vq->seen_avail = place->next_avail;
	vq->next_used = place->next_used;
	vq->signalled_used = place->signalled_used;
	vq->broken = place->broken;
	return 0;
}

/* ---- chains from the driver ---- */

/* A descriptor table: the ring's, or an indirect one. */
struct table {
	const struct vring_desc *desc;
	uint32_t count;
	bool indirect;
};

static int virtqueue_add_segment(struct virtqueue *vq, struct virtq_chain *chain, const struct vring_desc *desc)
{
	bool in = le16toh(desc->flags) & VRING_DESC_F_WRITE;
	unsigned int count = chain->out_count + chain->in_count;
	uint32_t len = le32toh(desc->len);
	uint32_t *bytes = in ? &chain->in_bytes : &chain->out_bytes;
	void *host = guest_memory_at(vq->memory, le64toh(desc->addr), len);

	if (!len)
		return virtqueue_broken(vq, "a buffer is empty");
	if (!host)
		return virtqueue_broken(vq, "a buffer is not in memory");
	if (!in && chain->in_count)
		return virtqueue_broken(vq, "a readable buffer follows a writable one");
	if (count == VIRTQUEUE_MAX_SEGMENTS)
		return virtqueue_broken(vq, "a chain is too long");
	if (__builtin_add_overflow(*bytes, len, bytes))
		return virtqueue_broken(vq, "a chain has more than 4 GiB");
	chain->iov[count] = (struct iovec){host, len};
	if (in)
		chain->in_count++;
	else
		chain->out_count++;
	return 0;
}

/* Continues in the indirect table that desc describes (section 2.7.5.3). */
static int virtqueue_enter_indirect(struct virtqueue *vq, struct table *table, const struct vring_desc *desc)
{
	uint32_t len = le32toh(desc->len);

	if (!vq->indirect || table->indirect)
		return virtqueue_broken(vq, "an indirect table is not allowed here");
	if (le16toh(desc->flags) & VRING_DESC_F_NEXT)
		return virtqueue_broken(vq, "a chain continues after an indirect table");
	if (!len || len % sizeof(struct vring_desc))
		return virtqueue_broken(vq, "an indirect table has an invalid length");
	table->desc = guest_memory_at(vq->memory, le64toh(desc->addr), len);
	if (!table->desc)
		return virtqueue_broken(vq, "an indirect table is not in memory");
	table->count = len / sizeof(struct vring_desc);
	table->indirect = true;
	return 0;
}

/* Reads a chain from its head. Each descriptor but an indirect one adds a segment, so a loop ends as a long chain. */
static int virtqueue_walk(struct virtqueue *vq, struct virtq_chain *chain)
{
	struct table table = {.desc = vq->desc_host, .count = vq->setup.size};
	uint32_t next = chain->head, left = vq->setup.size;

	for (;;) {
		struct vring_desc desc;
		int ret;

		if (next >= table.count)
			return virtqueue_broken(vq, "a descriptor lies outside the table");
		if (!table.indirect && !left--)
			return virtqueue_broken(vq, "a chain is longer than the queue");
		memcpy(&desc, (const char *)table.desc + next * sizeof(desc), sizeof(desc));
		virtqueue_copied();
		if (le16toh(desc.flags) & VRING_DESC_F_INDIRECT) {
			ret = virtqueue_enter_indirect(vq, &table, &desc);
			next = 0;
		} else {
			ret = virtqueue_add_segment(vq, chain, &desc);
			next = le16toh(desc.next);
		}
		if (ret < 0)
			return ret;
		if (!(le16toh(desc.flags) & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT)))
			return 0;
	}
}

/* 1: a chain is available; 0: none; or -EPROTO. Reads the driver's index only when all chains seen are popped. */
static int virtqueue_available(struct virtqueue *vq)
{
	if (vq->broken)
		return -EPROTO;
	if (vq->next_avail != vq->seen_avail)
		return 1;
	vq->seen_avail = le16toh(__atomic_load_n(&vq->avail_host->idx, __ATOMIC_ACQUIRE));
	if ((uint16_t)(vq->seen_avail - vq->next_avail) > vq->setup.size)
		return virtqueue_broken(vq, "more chains are available than the queue holds");
	return vq->seen_avail != vq->next_avail;
}

int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain)
{
	int ret = virtqueue_available(vq);

	if (ret <= 0)
		return ret;
	chain->head = virtqueue_load16(&vq->avail_host->ring[vq->next_avail & (vq->setup.size - 1)]);
	chain->out_count = chain->in_count = 0;
	chain->out_bytes = chain->in_bytes = 0;
	ret = virtqueue_walk(vq, chain);
	if (ret < 0)
		return ret;
	vq->next_avail++;
	return 1;
}

void virtqueue_unpop(struct virtqueue *vq)
{
	vq->next_avail--;
}

bool virtqueue_ready(struct virtqueue *vq)
{
	return virtqueue_available(vq) > 0;
}

/* ---- chains to the driver ---- */

static void virtqueue_host_dirty(struct guest_memory *memory, const char *host, uint64_t len)
{
	const struct guest_region *region = guest_memory_region_of(memory, host);

	if (region)
		guest_memory_dirty(memory, region->gpa + (uint64_t)(host - (const char *)region->host), len);
}

void virtqueue_dirty(struct virtqueue *vq, const struct iovec *iov, unsigned int count, uint64_t bytes)
{
	for (unsigned int i = 0; i < count && bytes; i++) {
		uint64_t len = MIN((uint64_t)iov[i].iov_len, bytes);

		virtqueue_host_dirty(vq->memory, iov[i].iov_base, len);
		bytes -= len;
	}
}

void virtqueue_fill(struct virtqueue *vq, uint16_t ahead, uint16_t head, const struct iovec *in, unsigned int in_count,
		    uint32_t written)
{
	uint16_t slot = (uint16_t)(vq->next_used + ahead) & (uint16_t)(vq->setup.size - 1);
	struct vring_used_elem *elem = &vq->used_host->ring[slot];

	virtqueue_dirty(vq, in, in_count, written);
	if (vq->broken)
		return;
	elem->id = htole32(head);
	elem->len = htole32(written);
	virtqueue_used_dirty(vq, elem, sizeof(*elem));
}

void virtqueue_publish(struct virtqueue *vq, uint16_t count)
{
	if (vq->broken)
		return;
	vq->next_used += count;
	counter_add(&vq->counts.chains, count);
	__atomic_store_n(&vq->used_host->idx, htole16(vq->next_used), __ATOMIC_RELEASE);
	virtqueue_used_dirty(vq, &vq->used_host->idx, sizeof(vq->used_host->idx));
}

void virtqueue_push(struct virtqueue *vq, const struct virtq_chain *chain, uint32_t written)
{
	virtqueue_fill(vq, 0, chain->head, chain->iov + chain->out_count, chain->in_count, written);
	virtqueue_publish(vq, 1);
}

void virtqueue_push_iov(struct virtqueue *vq, uint16_t head, const struct iovec *in, unsigned int in_count,
			uint32_t written)
{
	virtqueue_dirty(vq, in, in_count, UINT64_MAX);
	virtqueue_push_head(vq, head, written);
}

void virtqueue_push_head(struct virtqueue *vq, uint16_t head, uint32_t written)
{
	virtqueue_fill(vq, 0, head, NULL, 0, written);
	virtqueue_publish(vq, 1);
}

/* ---- wake-ups ---- */

/* Section 2.7.7.2: without the event index a flag forbids interrupts; with it, the driver names the entry. */
static bool virtqueue_wants_interrupt(struct virtqueue *vq)
{
	uint16_t old = vq->signalled_used, new = vq->next_used;

	vq->signalled_used = new;
	if (old == new)
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return !(virtqueue_load16(&vq->avail_host->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return vring_need_event(virtqueue_load16(virtqueue_used_event(vq)), new, old);
}

void virtqueue_notify(struct virtqueue *vq)
{
	uint16_t before = vq->signalled_used;
	bool wants = !vq->broken && virtqueue_wants_interrupt(vq);

	if (vq->next_used != before)
		PROBE(queue_batch, vq->id, vq->index, (uint16_t)(vq->next_used - before), wants);
	if (!wants)
		return;
	counter_add(&vq->counts.interrupts, 1);
	vq->ops->notify(vq);
}

bool virtqueue_enable_kicks(struct virtqueue *vq)
{
	void *word = vq->event_idx ? virtqueue_avail_event(vq) : &vq->used_host->flags;

	if (vq->broken)
		return false;
	virtqueue_store16(word, vq->event_idx ? vq->next_avail : 0);
	virtqueue_used_dirty(vq, word, 2);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return virtqueue_ready(vq);
}

void virtqueue_disable_kicks(struct virtqueue *vq)
{
	/* With the event index no write is needed: the old index stays behind. */
	if (vq->broken || vq->event_idx)
		return;
	virtqueue_store16(&vq->used_host->flags, VRING_USED_F_NO_NOTIFY);
	virtqueue_used_dirty(vq, &vq->used_host->flags, 2);
}

/* ---- bytes in chains ---- */

/* Copies from buf to the segments at offset (to_guest), or back. */
static size_t virtqueue_copy(const struct iovec *iov, unsigned int count, size_t offset, char *buf, size_t len,
			     bool to_guest)
{
	size_t done = 0;

	for (unsigned int i = 0; i < count && done < len; i++) {
		size_t step;
		char *at;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		at = (char *)iov[i].iov_base + offset;
		step = MIN(iov[i].iov_len - offset, len - done);
		if (to_guest)
			memcpy(at, buf + done, step);
		else
			memcpy(buf + done, at, step);
		done += step;
		offset = 0;
	}
	virtqueue_copied();
	return done;
}

size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset, void *buf, size_t len)
{
	return virtqueue_copy(chain->iov, chain->out_count, offset, buf, len, false);
}

size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset, const void *buf, size_t len)
{
	return virtqueue_copy(chain->iov + chain->out_count, chain->in_count, offset, (char *)(uintptr_t)buf, len,
			      true);
}
