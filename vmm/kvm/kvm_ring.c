/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's rings of written pages, one for each vCPU: the other way in which kvm_dirty.c's source learns what was written
 * (Documentation/virt/kvm/api.rst: KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL). See kvm.h.
 *
 * The kernel adds an entry when a vCPU writes to a page that is protected, and lets it write from then on. We note the page in
 * its slot's `kept`, hand the entry back, and KVM_RESET_DIRTY_RINGS protects the pages of all entries that were handed back.
 * All of that happens under one lock, from which a page comes out only when it is protected again: what is written to it
 * while it is being sent makes a new entry.
 *
 * A vCPU whose ring is full leaves the guest and empties the rings itself. What the processor has buffered is in the ring
 * once its vCPU has left KVM_RUN, as all have before the last collect. KVM on x86 writes to guest memory (clock, steal time)
 * on behalf of vCPUs alone; an architecture that does so without one says it by KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, and
 * gets no ring here.
 */
#include "vmm/kvm/kvm.h"

#include "core/bitmap.h"
#include "core/thread.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* Linux headers since 6.2 have it. */
#ifndef KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP
#define KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP 225
#endif

/* 64 KiB for each vCPU, no less than the kernel's documentation asks for. It keeps up to 576 of them back. */
#define ENTRIES 4096u
#define BYTES (ENTRIES * sizeof(struct kvm_dirty_gfn))

int kvm_ring_enable(struct kvm *kvm, struct err *err)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL};
	int most = kvm_check(kvm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);

	if (!most) {
		cap.cap = KVM_CAP_DIRTY_LOG_RING;
		most = kvm_check(kvm, KVM_CAP_DIRTY_LOG_RING);
	}
	if (!most || kvm_check(kvm, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP))
		return err_set(err, -ENOTSUP, "this host's KVM has no ring of written pages that tells all of them");
	cap.args[0] = MIN(BYTES, (size_t)most);
	if (ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		return err_sys(err, -errno, "KVM's ring of written pages");
	kvm->ring_entries = (unsigned int)(cap.args[0] / sizeof(struct kvm_dirty_gfn));
	return 0;
}

int kvm_ring_map(struct kvm *kvm, int vcpu_fd, struct err *err)
{
	struct kvm_ring *rings;
	void *entries;

	if (!kvm->ring_entries)
		return 0;
	rings = reallocarray(kvm->rings, kvm->ring_count + 1, sizeof(*rings));
	if (!rings)
		return err_sys(err, -ENOMEM, "ring of written pages");
	kvm->rings = rings;
	entries = mmap(NULL, kvm->ring_entries * sizeof(struct kvm_dirty_gfn), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd,
		       KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE));
	if (entries == MAP_FAILED)
		return err_sys(err, -errno, "ring of written pages");
	rings[kvm->ring_count++] = (struct kvm_ring){.entries = entries};
	return 0;
}

void kvm_ring_unmap(struct kvm *kvm)
{
	while (kvm->ring_count)
		munmap(kvm->rings[--kvm->ring_count].entries, kvm->ring_entries * sizeof(struct kvm_dirty_gfn));
	free(take_ptr(kvm->rings));
}

/* Of a slot that is gone, or that nobody asks for any longer, nothing is noted; the number may be another slot's by now,
 * which then has a page too many. */
static void kvm_ring_note(struct kvm *kvm, uint32_t index, uint64_t page)
{
	struct kvm_slot *slot = index < KVM_SLOTS ? &kvm->slots[index] : NULL;

	if (slot && slot->kept && page < slot->size / GUEST_PAGE_SIZE)
		bitmap_set(slot->kept, page);
}

static struct kvm_dirty_gfn *kvm_ring_entry_at(const struct kvm *kvm, const struct kvm_ring *ring)
{
	return &ring->entries[ring->next & (kvm->ring_entries - 1)];
}

static void kvm_ring_hand_back(struct kvm *kvm, struct kvm_ring *ring)
{
	__atomic_store_n(&kvm_ring_entry_at(kvm, ring)->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	ring->next++;
	kvm->ring_taken++;
}

static void kvm_ring_empty(struct kvm *kvm, struct kvm_ring *ring)
{
	uint32_t first = ring->next;

	for (;;) {
		const struct kvm_dirty_gfn *entry = kvm_ring_entry_at(kvm, ring);

		if ((__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_MASK) != KVM_DIRTY_GFN_F_DIRTY)
			break;
		kvm_ring_note(kvm, entry->slot, entry->offset);
		kvm_ring_hand_back(kvm, ring);
	}
	/* The kernel makes a vCPU leave while there is room; one whose emulator does not has written over entries. */
	kvm->ring_overrun |= ring->next - first == kvm->ring_entries;
}

/*
 * Protects the pages of the entries that were taken. Linux since 6.16 ends this when a signal comes, and forgets up to 64 pages
 * whose entries it has taken back already. So signals wait, and the callers' threads have no io_uring of their own; but any
 * thread can be stopped or frozen. That shows in fewer entries or in that the thread slept. (It also sleeps when somebody
 * else has the kernel's lock, which costs no more than pages sent twice.)
 */
static int kvm_ring_reset(struct kvm *kvm)
{
	struct rusage before, after;
	sigset_t all, old;
	int count;

	thread_signals(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	getrusage(RUSAGE_THREAD, &before);
	count = ioctl(kvm->vm_fd, KVM_RESET_DIRTY_RINGS, 0);
	if (count < 0)
		count = -errno;
	getrusage(RUSAGE_THREAD, &after);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (count < 0)
		return count;
	kvm->ring_lost |= (unsigned int)count < kvm->ring_taken || after.ru_nvcsw != before.ru_nvcsw;
	kvm->ring_taken -= MIN(kvm->ring_taken, (unsigned int)count);
	return 0;
}

int kvm_ring_harvest(struct kvm *kvm)
{
	for (unsigned int i = 0; i < kvm->ring_count; i++)
		kvm_ring_empty(kvm, &kvm->rings[i]);
	return kvm->ring_taken ? kvm_ring_reset(kvm) : 0;
}

/* A ring that was written over begins elsewhere than we think, and is of no use any more; but the guest must go on. That it is
 * full twice with nothing taken out in between is the kernel's word that half of it can go back unread. */
int kvm_ring_full(struct kvm *kvm, unsigned int index)
{
	struct kvm_ring *ring = &kvm->rings[index];
	int ret;

	pthread_mutex_lock(&kvm->lock);
	ret = kvm_ring_harvest(kvm);
	if (ret == 0 && kvm->ring_overrun && ring->next == ring->full_at) {
		for (unsigned int i = 0; i < kvm->ring_entries / 2; i++)
			kvm_ring_hand_back(kvm, ring);
		ret = kvm_ring_reset(kvm);
	}
	ring->full_at = ring->next;
	pthread_mutex_unlock(&kvm->lock);
	return ret;
}
