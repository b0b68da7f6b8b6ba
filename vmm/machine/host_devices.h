/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host devices of a machine (--vfio): the address space that they share, and each of them from sysfs to the guest's
 * bus; later ones are plugged in while the guest runs, and those that the guest lets go are taken out. How one leaves
 * is a table in host_devices.c. KVM and the vCPUs are behind struct host_devices_ops.
 */
#pragma once

#include "core/event_loop.h"
#include "devices/pci.h"
#include "devices/platform.h"
#include "vfio/pci.h"
#include "vmm/config/config.h"

struct host_devices;

/* What is asked of the machine; opaque is host_devices_machine's. On the loop's thread, but for map. */
struct host_devices_ops {
	/* KVM knows the descriptors that VFIO uses (KVM_DEV_VFIO_FILE_ADD and _DEL). */
	int (*add_file)(void *opaque, int fd, struct err *err);
	void (*remove_file)(void *opaque, int fd);
	struct vfio_map_ops map; /* any thread */
	/* No vCPU runs in between. There may be no vCPUs yet, or any more. */
	void (*pause_vcpus)(void *opaque);
	void (*resume_vcpus)(void *opaque);
	void (*gone)(void *opaque, const char *id); /* a device has left for good */
};

struct host_devices_machine {
	const struct host_devices_ops *ops;
	void *opaque;
	const struct vfio_sys *sys; /* NULL: the kernel */
	struct guest_memory *memory;
	struct dirty_set *dirty;
	struct pci_bus *pci;
	uint32_t slots; /* the PCI devices that can come and go: bit d is device d */
	/* The devfn at which the guest knows a device of the configuration already, or -errno. NULL: any free slot. */
	int (*slot_for)(void *opaque, const char *id, struct err *err);
	struct msi_controller *msi;
	struct power *power;
	struct event_loop *loop;
	const struct log *log;
};

/* Opens every device of the configuration. Nothing is done where there is none. */
int host_devices_create(const struct machine_config *config, const struct host_devices_machine *machine,
			struct host_devices **ret, struct err *err);
/* The vCPUs are gone. NULL is fine. */
void host_devices_destroy(struct host_devices *devices);

/* Plugs one more in while the guest runs, and tells the guest. The loop's thread. -EEXIST: the id is taken; -ENOSPC: no
 * slot is free. */
int host_devices_add(struct host_devices *devices, const struct vfio_config *config, struct err *err);

/*
 * Asks the guest to let a device go; done is called on the loop's thread when it is out (code 0, err NULL), or when
 * timeout_ms have passed without that (-ETIMEDOUT and its sentence; the device stays). force: it is taken out at once,
 * whatever the guest does with it. -ENOENT, -EBUSY when it is on its way out already; then done is not called.
 */
typedef void host_devices_done_fn(void *opaque, int code, const struct err *err);
int host_devices_remove(struct host_devices *devices, const char *id, bool force, unsigned int timeout_ms,
			host_devices_done_fn *done, void *opaque, struct err *err);

/* The functions of the devices that there are, in no order. */
struct vfio_pci *host_devices_pci(const struct host_devices *devices, size_t index);

/* For those who tell people. */
size_t host_devices_count(const struct host_devices *devices);
void host_devices_info(const struct host_devices *devices, size_t index, struct vfio_pci_info *info);

/*
 * While held, devices neither come nor go: adding and removing are -EBUSY with why as the sentence (kept, not copied),
 * and what the guest lets go meanwhile leaves when it is over (why NULL). The loop's thread.
 */
void host_devices_set_blocker(struct host_devices *devices, const char *why);

/* The device is of no more use: the guest reads ones from it. The loop's thread. */
void host_devices_cut_off(struct host_devices *devices, size_t index);

/* Nonzero while guest memory must not be given back to the host; a line says so once. For the balloon. */
int host_devices_release(void *devices, uint64_t gpa, uint64_t len);
