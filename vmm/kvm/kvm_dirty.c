/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's dirty log as a dirty source (Documentation/virt/kvm/api.rst: KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG,
 * KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2). Guest memory is logged, BARs of host devices are not.
 *
 * KVM returns the log of a whole slot, so guest memory is divided into slots that are not too large (kvm.c). With
 * manual protect, we clear exactly the pages that are reported, and dirty pages outside the range stay in KVM. Without
 * it, reading clears the log, and dirty pages outside the range are kept here. In both cases, a dirty page is reported
 * by the next collect whose range has it.
 */
#include "vmm/kvm/kvm.h"

#include "core/bitmap.h"

#include <sys/ioctl.h>

static struct kvm *kvm_dirty_of(struct dirty_source *source)
{
	return container_of(source, struct kvm, dirty);
}

static size_t kvm_dirty_pages_of(const struct kvm_slot *slot)
{
	return slot->size / GUEST_PAGE_SIZE;
}

/* ---- start and stop ---- */

/* Enables manual protect, from the next start of the log. It cannot be disabled again. */
static void kvm_dirty_enable_manual(struct kvm *kvm)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2};

	if (kvm->manual_log)
		return;
	cap.args[0] = (uint64_t)kvm_check(kvm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) &
		      (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
	kvm->manual_log = cap.args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE &&
			  ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &cap) == 0;
}

static void kvm_dirty_end_tracking(struct kvm *kvm)
{
	kvm->tracking = false;
	for (unsigned int i = 0; i < KVM_SLOTS; i++) {
		struct kvm_slot *slot = &kvm->slots[i];

		if (!slot->size || !slot->ram)
			continue;
		kvm_set_slot(kvm, i, slot, slot->size);
		free(slot->kept);
		slot->kept = NULL;
	}
	free(kvm->log);
	kvm->log = NULL;
	kvm->log_longs = 0;
}

static int kvm_dirty_begin_tracking(struct kvm *kvm)
{
	int ret = 0;

	kvm->tracking = true;
	for (unsigned int i = 0; i < KVM_SLOTS && ret == 0; i++) {
		struct kvm_slot *slot = &kvm->slots[i];

		if (!slot->size || !slot->ram)
			continue;
		ret = kvm_make_room(kvm, slot);
		if (ret == 0)
			ret = kvm_set_slot(kvm, i, slot, slot->size);
	}
	if (ret < 0)
		kvm_dirty_end_tracking(kvm);
	return ret;
}

static int kvm_dirty_start(struct dirty_source *source, struct err *err)
{
	struct kvm *kvm = kvm_dirty_of(source);
	int ret;

	pthread_mutex_lock(&kvm->lock);
	kvm_dirty_enable_manual(kvm);
	ret = kvm->tracking ? 0 : kvm_dirty_begin_tracking(kvm);
	pthread_mutex_unlock(&kvm->lock);
	return ret < 0 ? err_sys(err, ret, "log of written pages") : 0;
}

static void kvm_dirty_stop(struct dirty_source *source)
{
	struct kvm *kvm = kvm_dirty_of(source);

	pthread_mutex_lock(&kvm->lock);
	if (kvm->tracking)
		kvm_dirty_end_tracking(kvm);
	pthread_mutex_unlock(&kvm->lock);
}

/* ---- collect ---- */

/* A range of pages of a slot: the words [word, last] of its bitmap, and the masks for the first and the last word. */
struct span {
	size_t first, word, last;
	unsigned long head, tail;
};

static struct span kvm_dirty_span_of(size_t first, size_t count)
{
	size_t end = first + count;

	return (struct span){
		.first = first,
		.word = first / BITS_PER_LONG,
		.last = (end - 1) / BITS_PER_LONG,
		.head = ~0ul << first % BITS_PER_LONG,
		.tail = ~0ul >> (BITS_PER_LONG - 1 - (end - 1) % BITS_PER_LONG),
	};
}

static unsigned long kvm_dirty_mask_of(const struct span *span, size_t word)
{
	unsigned long mask = ~0ul;

	if (word == span->word)
		mask &= span->head;
	if (word == span->last)
		mask &= span->tail;
	return mask;
}

/* ORs count words of from into to. Most are zero: skipping eight at a time is faster than writing them. */
static void kvm_dirty_or_words(unsigned long *to, const unsigned long *from, size_t count)
{
	size_t i = 0;

	for (; i + 8 <= count; i += 8) {
		const unsigned long *w = from + i;

		if (!(w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]))
			continue;
		for (size_t n = 0; n < 8; n++)
			to[i + n] |= w[n];
	}
	for (; i < count; i++)
		to[i] |= from[i];
}

/* ORs the span's words of log, which have no bits outside the span, into bitmap. Bit 0 is the span's first page. */
static void kvm_dirty_report(const struct span *span, const unsigned long *log, unsigned long *bitmap)
{
	size_t shift = span->first % BITS_PER_LONG, count = span->last - span->word + 1;

	log += span->word;
	if (!shift) {
		kvm_dirty_or_words(bitmap, log, count);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (log[i] >> shift)
			bitmap[i] |= log[i] >> shift;
		if (i && log[i] << (BITS_PER_LONG - shift))
			bitmap[i - 1] |= log[i] << (BITS_PER_LONG - shift);
	}
}

/* Clears in KVM the bits that are set in the span's words of log. KVM requires that the first page is a multiple of 64,
 * and also the number of pages, except at the slot's end. */
static int kvm_dirty_clear_log(struct kvm *kvm, unsigned int index, const struct span *span, unsigned long *log)
{
	struct kvm_clear_dirty_log clear = {.slot = index};
	size_t word = span->word, last = span->last, pages = kvm_dirty_pages_of(&kvm->slots[index]);

	while (word < last && !log[word])
		word++;
	while (last > word && !log[last])
		last--;
	if (!log[word])
		return 0;
	clear.first_page = word * BITS_PER_LONG;
	clear.num_pages = (uint32_t)(MIN((last + 1) * BITS_PER_LONG, pages) - clear.first_page);
	clear.dirty_bitmap = log + word;
	return ioctl(kvm->vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0 ? -errno : 0;
}

/* After a read that cleared KVM's log: moves bits outside the span from log to kept, and kept ones inside to log. */
static void kvm_dirty_sort_out(const struct kvm_slot *slot, const struct span *span, unsigned long *log)
{
	for (size_t word = 0; word < bitmap_longs(kvm_dirty_pages_of(slot)); word++) {
		unsigned long all = log[word] | slot->kept[word];
		unsigned long mask = word < span->word || word > span->last ? 0 : kvm_dirty_mask_of(span, word);

		log[word] = all & mask;
		slot->kept[word] = all & ~mask;
	}
}

static int kvm_dirty_collect_slot(struct kvm *kvm, unsigned int index, const struct span *span, unsigned long *bitmap)
{
	const struct kvm_slot *slot = &kvm->slots[index];
	struct kvm_dirty_log arg = {.slot = index, .dirty_bitmap = kvm->log};
	unsigned long *log = kvm->log;

	if (ioctl(kvm->vm_fd, KVM_GET_DIRTY_LOG, &arg) < 0)
		return -errno;
	if (!kvm->manual_log) {
		kvm_dirty_sort_out(slot, span, log);
		kvm_dirty_report(span, log, bitmap);
		return 0;
	}
	log[span->word] &= kvm_dirty_mask_of(span, span->word);
	log[span->last] &= kvm_dirty_mask_of(span, span->last);
	kvm_dirty_report(span, log, bitmap);
	return kvm_dirty_clear_log(kvm, index, span, log);
}

/* The slot of guest memory that has gpa, or KVM_SLOTS. */
static unsigned int kvm_dirty_find_slot(const struct kvm *kvm, uint64_t gpa)
{
	unsigned int i = 0;

	for (; i < KVM_SLOTS; i++) {
		const struct kvm_slot *slot = &kvm->slots[i];

		if (slot->ram && slot->size && gpa >= slot->gpa && gpa - slot->gpa < slot->size)
			break;
	}
	return i;
}

/* The part of [gpa, gpa + size) that is in one slot, which begins at the bitmap's bit `first`; *ret is its size. */
static int kvm_dirty_collect_part(struct kvm *kvm, uint64_t gpa, uint64_t size, size_t first, unsigned long *bitmap,
				  uint64_t *ret)
{
	unsigned int index = kvm_dirty_find_slot(kvm, gpa);
	unsigned long *part = bitmap + first / BITS_PER_LONG;
	struct span span;
	size_t pages;
	int code;

	if (!kvm->tracking || index == KVM_SLOTS)
		return -EINVAL;
	*ret = MIN(size, kvm->slots[index].gpa + kvm->slots[index].size - gpa);
	pages = *ret / GUEST_PAGE_SIZE;
	span = kvm_dirty_span_of((gpa - kvm->slots[index].gpa) / GUEST_PAGE_SIZE, pages);
	if (first % BITS_PER_LONG == 0)
		return kvm_dirty_collect_slot(kvm, index, &span, part);
	part = calloc(bitmap_longs(pages), sizeof(*part));
	code = part ? kvm_dirty_collect_slot(kvm, index, &span, part) : -ENOMEM;
	for (size_t i = 0; i < pages && code == 0; i++)
		if (bitmap_test(part, i))
			bitmap_set(bitmap, first + i);
	free(part);
	return code;
}

static int kvm_dirty_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap,
			     struct err *err)
{
	struct kvm *kvm = kvm_dirty_of(source);
	uint64_t done = 0, part = 0;
	int ret = 0;

	pthread_mutex_lock(&kvm->lock);
	for (; done < size && ret == 0; done += part)
		ret = kvm_dirty_collect_part(kvm, gpa + done, size - done, done / GUEST_PAGE_SIZE, bitmap, &part);
	pthread_mutex_unlock(&kvm->lock);
	return ret < 0 ? err_sys(err, ret, "written pages of 0x%llx, %llu bytes", (unsigned long long)gpa,
				 (unsigned long long)size) : 0;
}

static const struct dirty_source_ops dirty_ops = {
	.start = kvm_dirty_start,
	.stop = kvm_dirty_stop,
	.collect = kvm_dirty_collect,
};

struct dirty_source *kvm_dirty_source(struct kvm *kvm)
{
	kvm->dirty.name = "KVM";
	kvm->dirty.ops = &dirty_ops;
	return &kvm->dirty;
}
