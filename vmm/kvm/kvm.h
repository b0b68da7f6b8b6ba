/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM in the kernel: opens and checks /dev/kvm, creates the VM, and manages its memory slots and ioeventfds. Follows
 * Documentation/virt/kvm/api.rst and linux/kvm.h.
 *
 * For a fast start, add memory slots before the irqchip (a slot added later waits for a grace period of 4 to 10 ms),
 * then create the irqchip, then the vCPUs.
 */
#pragma once

#include "core/bus.h"
#include "core/guest_memory.h"

#include <linux/kvm.h>
#include <pthread.h>

#define KVM_SLOTS 512u
/*
 * A region of guest memory is divided into slots of this size, or of more if there would be more than KVM_REGION_SLOTS:
 * KVM returns the dirty log of a whole slot, whatever part of it is asked for.
 */
#define KVM_SLOT_BYTES GIB(8)
#define KVM_REGION_SLOTS 128u

struct kvm_slot {
	uint64_t gpa, size; /* size 0: free */
	void *host;
	bool ram;            /* guest memory, which has a dirty log while tracking */
	unsigned long *kept; /* kvm_dirty.c: dirty pages that were read from the log and not collected yet */
};

struct kvm {
	int fd;           /* /dev/kvm */
	int vm_fd;
	int vfio_fd;      /* KVM_DEV_TYPE_VFIO, or -1 before its first use */
	int stats_fd;     /* the VM's statistics (kvm_stats.h), or -1 */
	size_t run_size;  /* bytes of a vCPU's shared page */
	struct guest_memory_listener listener;
	struct kvm_coalesced_mmio_ring *coalesced; /* shared with the kernel; NULL: no ring */
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

/* /dev/kvm, open, and a VM, made in advance by who has time for it; -1: not. */
struct kvm_ahead {
	int fd, vm_fd;
};

/* What fails is left to kvm_open and kvm_create_vm. kvm_ahead_close closes what was not taken. */
void kvm_ahead_open(struct kvm_ahead *ahead);
void kvm_ahead_close(struct kvm_ahead *ahead);

/* Opens /dev/kvm; then creates the VM. kvm_close undoes both, also after a failure. */
int kvm_open(struct kvm *kvm, struct err *err);
/* The same, and takes what was made in advance; NULL: nothing. */
int kvm_open_ahead(struct kvm *kvm, struct kvm_ahead *ahead, struct err *err);
int kvm_create_vm(struct kvm *kvm, struct err *err);
void kvm_close(struct kvm *kvm);

/* KVM_CHECK_EXTENSION: the extension's value, 0 if the kernel lacks it; for this VM, or for the host without a VM. */
int kvm_check(const struct kvm *kvm, int extension);
int kvm_check_host(const struct kvm *kvm, int extension);

/* Listens to memory: each region becomes one slot or more. */
int kvm_add_memory(struct kvm *kvm, struct guest_memory *memory, struct err *err);

/* Maps host memory that is not guest memory (a device's BAR) at gpa; all are multiples of the page size. Any thread. */
int kvm_map(struct kvm *kvm, uint64_t gpa, uint64_t size, void *host, struct err *err);
/* Removes the mapping that starts at gpa. */
void kvm_unmap(struct kvm *kvm, uint64_t gpa);

/* Registers a VFIO descriptor with KVM (KVM_DEV_VFIO_FILE), so that KVM handles cache coherency as the device needs it;
 * and removes it. One thread at a time. */
int kvm_vfio_add(struct kvm *kvm, int fd, struct err *err);
void kvm_vfio_remove(struct kvm *kvm, int fd);

/* The dirty source for writes by vCPUs, and by the kernel for them (kvm_dirty.c). A range must be in one region. */
struct dirty_source *kvm_dirty_source(struct kvm *kvm);

/* For kvm_dirty.c, lock held: sets slot to s, with size bytes (0: deletes it), with a dirty log while tracking. */
int kvm_set_slot(struct kvm *kvm, unsigned int slot, const struct kvm_slot *s, uint64_t size);
/* ... and allocates room for the log, before a slot gets one. slot->kept is freed with the slot. -ENOMEM. */
int kvm_make_room(struct kvm *kvm, struct kvm_slot *slot);

/*
 * Coalesced port writes (kvm_coalesced.c). map finds the VM's ring in the shared pages of any vCPU; without a ring,
 * each write exits to user space. flush writes the ring's entries to pio; call it first after each KVM_RUN.
 */
void kvm_coalesced_map(struct kvm *kvm, void *run);
void kvm_coalesced_port(struct kvm *kvm, uint64_t port, uint32_t size);
void kvm_coalesced_flush(struct kvm *kvm, struct bus *pio);

/* From now on, eventfds on the buses are ioeventfds of KVM. */
int kvm_attach_buses(struct kvm *kvm, struct bus *mmio, struct bus *pio, struct err *err);
