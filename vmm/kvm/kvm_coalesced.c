/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See kvm.h. Coalesced port writes (Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO): KVM queues them in a
 * ring that all vCPUs share, and does not exit to user space. For ports where a write alone has no effect.
 */
#include "vmm/kvm/kvm.h"

#include <sys/ioctl.h>

#define RING_ENTRIES ((GUEST_PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

void kvm_coalesced_map(struct kvm *kvm, void *run)
{
	int page = kvm_check(kvm, KVM_CAP_COALESCED_MMIO);

	if (page && (size_t)(page + 1) * GUEST_PAGE_SIZE <= kvm->run_size && kvm_check(kvm, KVM_CAP_COALESCED_PIO))
		kvm->coalesced = (void *)((char *)run + (size_t)page * GUEST_PAGE_SIZE);
}

void kvm_coalesced_port(struct kvm *kvm, uint64_t port, uint32_t size)
{
	struct kvm_coalesced_mmio_zone zone = {.addr = port, .size = size, .pio = 1};

	if (kvm->coalesced)
		ioctl(kvm->vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone);
}

/* `first` advances after an entry was written to the bus: if the ring is empty, all writes have taken effect. */
void kvm_coalesced_flush(struct kvm *kvm, struct bus *pio)
{
	struct kvm_coalesced_mmio_ring *ring = kvm->coalesced;

	if (!ring || __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE))
		return;
	pthread_mutex_lock(&kvm->coalesced_lock);
	for (uint32_t at = ring->first; at != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
	     at = (at + 1) % RING_ENTRIES) {
		const struct kvm_coalesced_mmio *write = &ring->coalesced_mmio[at];

		bus_write(pio, write->phys_addr, write->data, write->len);
		__atomic_store_n(&ring->first, (at + 1) % RING_ENTRIES, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&kvm->coalesced_lock);
}
