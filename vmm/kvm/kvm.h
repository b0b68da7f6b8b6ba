/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM in the kernel: /dev/kvm opened and found able, the VM, its memory slots and the addresses that kick
 * eventfds. Follows Documentation/virt/kvm/api.rst and linux/kvm.h.
 *
 * Order matters for the start: memory slots before the irqchip (a slot added later waits for a grace period of 4 to
 * 10 ms), then the irqchip, then the vCPUs.
 */
#pragma once

#include "core/bus.h"
#include "core/guest_memory.h"

#include <linux/kvm.h>
#include <pthread.h>

#define KVM_SLOTS 512u

struct kvm_slot {
	uint64_t gpa, size; /* size 0: free */
	void *host;
	bool ram;            /* guest memory, which is logged while somebody tracks */
	unsigned long *kept; /* kvm_dirty.c's: pages that were read from the log and not asked for yet */
};

struct kvm {
	int fd;           /* /dev/kvm */
	int vm_fd;
	int vfio_fd;      /* KVM_DEV_TYPE_VFIO, or -1 until somebody needs it */
	size_t run_size;  /* bytes of a vCPU's shared page */
	struct guest_memory_listener listener;
	struct kvm_coalesced_mmio_ring *coalesced; /* shared with the kernel; NULL: there is none */
	pthread_mutex_t coalesced_lock;
	pthread_mutex_t lock;
	/* under lock */
	struct kvm_slot slots[KVM_SLOTS];
	bool tracking;   /* writes to guest memory are logged */
	bool manual_log; /* reading the log does not clear it */
	unsigned long *log; /* room for the log of the largest slot, while tracking */
	size_t log_longs;
	struct dirty_source dirty;
};

/* Opens /dev/kvm; then the VM can be made. kvm_close undoes both, also when they failed half-way. */
int kvm_open(struct kvm *kvm, struct err *err);
int kvm_create_vm(struct kvm *kvm, struct err *err);
void kvm_close(struct kvm *kvm);

/* KVM_CHECK_EXTENSION: the extension's value, 0 when the kernel lacks it; for this VM, and for this host's KVM, which needs no
 * VM. */
int kvm_check(const struct kvm *kvm, int extension);
int kvm_check_host(const struct kvm *kvm, int extension);

/* Listens to memory: every region becomes a slot. */
int kvm_add_memory(struct kvm *kvm, struct guest_memory *memory, struct err *err);

/* Maps host bytes that are not guest memory (a device's BAR) at gpa; all page multiples. Any thread. */
int kvm_map(struct kvm *kvm, uint64_t gpa, uint64_t size, void *host, struct err *err);
/* Ends the mapping that starts at gpa. */
void kvm_unmap(struct kvm *kvm, uint64_t gpa);

/* Tells KVM of a descriptor that VFIO uses (KVM_DEV_VFIO_FILE), so that it keeps caches coherent as the device needs
 * it, and that it is no longer used. One thread at a time. */
int kvm_vfio_add(struct kvm *kvm, int fd, struct err *err);
void kvm_vfio_remove(struct kvm *kvm, int fd);

/* The dirty source of what vCPUs write, and the kernel for them (kvm_dirty.c). It reports ranges within one region. */
struct dirty_source *kvm_dirty_source(struct kvm *kvm);

/* For kvm_dirty.c, lock held: makes slot what s says, size bytes long (0: gone), logged if that is called for. */
int kvm_set_slot(struct kvm *kvm, unsigned int slot, const struct kvm_slot *s, uint64_t size);
/* ... and before a slot is logged: room for its log. What a slot keeps is freed with it. -ENOMEM. */
int kvm_make_room(struct kvm *kvm, struct kvm_slot *slot);

/*
 * Coalesced port writes (kvm_coalesced.c). map finds the VM's ring in the shared pages of any vCPU; without a ring every write
 * exits to user space. flush writes what the ring has to pio; call it after each KVM_RUN, before anything else.
 */
void kvm_coalesced_map(struct kvm *kvm, void *run);
void kvm_coalesced_port(struct kvm *kvm, uint64_t port, uint32_t size);
void kvm_coalesced_flush(struct kvm *kvm, struct bus *pio);

/* Eventfds on the buses go through KVM from now on. */
int kvm_attach_buses(struct kvm *kvm, struct bus *mmio, struct bus *pio, struct err *err);
