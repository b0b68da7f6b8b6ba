/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host devices of a machine (--vfio): the address space that they share, and each device from sysfs to the guest's
 * bus. Devices are also added and removed while the guest runs, in the machine's slots (slots.h). KVM is behind struct
 * host_devices_ops.
 */
#pragma once

#include "core/event_loop.h"
#include "devices/pci.h"
#include "vfio/given.h"
#include "vfio/pci.h"
#include "vmm/config/config.h"
#include "vmm/machine/machine_files.h"
#include "vmm/machine/slots.h"

struct host_devices;

/*
 * Implemented by the machine; opaque is host_devices_machine's. The first three are called on the loop's thread or,
 * while a device is added or removed, on a worker; the others on the loop's thread, except map.
 */
struct host_devices_ops {
	/* Registers a VFIO descriptor with KVM, or removes it (KVM_DEV_VFIO_FILE_ADD and _DEL). */
	int (*add_file)(void *opaque, int fd, struct err *err);
	void (*remove_file)(void *opaque, int fd);
	/* Devices are about to pin all bytes of guest memory: 0, or why the host has no room for them. */
	int (*need_memory)(void *opaque, uint64_t bytes, struct err *err);
	struct vfio_map_ops map; /* any thread */
	void (*gone)(void *opaque, const char *id); /* a device was removed */
};

struct host_devices_machine {
	const struct host_devices_ops *ops;
	void *opaque;
	const struct vfio_sys *sys; /* NULL: the kernel */
	struct guest_memory *memory;
	struct dirty_set *dirty;
	struct pci_bus *pci;
	struct slots *slots; /* outlives them */
	const struct machine_files *files; /* descriptors that were passed: of a device, its ROM; or NULL */
	/* The devfn that a device of the configuration has in the guest, or -errno. NULL: any free slot. */
	int (*slot_for)(void *opaque, const char *id, struct err *err);
	struct msi_controller *msi;
	struct event_loop *loop;
	const struct log *log;
};

/* The way of a device's backend=. */
enum vfio_want host_devices_want(enum vfio_backend backend);

/* Opens all devices of the configuration. */
int host_devices_create(const struct machine_config *config, const struct host_devices_machine *machine,
			struct host_devices **ret, struct err *err);
/* The vCPUs have been destroyed before. NULL is fine. */
void host_devices_destroy(struct host_devices *devices);

/* Callbacks for an addition, on the loop's thread. */
struct host_devices_reply {
	/* Each second: what is done with guest memory ("prefault" or "map"), and how far that is. */
	void (*progress)(void *opaque, const struct vfio_progress *progress);
	slots_done_fn *done;
	void *opaque;
};

/*
 * Adds a device while the guest runs. A worker opens it and maps the guest's memory, which may take minutes; then the
 * device is put on the bus, the guest is notified and done is called. config stays valid until then. If
 * host_devices_destroy comes before that, done gets -ECANCELED. The loop's thread. -EEXIST: the id is in use; -ENOSPC:
 * no free slot; -EBUSY: slots_check_free; done is not called then. given: who has opened it, which stays valid as config
 * does; NULL: it is opened here.
 */
int host_devices_add(struct host_devices *devices, const struct vfio_config *config, struct vfio_given *given,
		     const struct host_devices_reply *reply, struct err *err);

/*
 * Asks the guest to eject a device. done is called on the loop's thread when the device has been removed (code 0, err
 * NULL), or after timeout_ms (-ETIMEDOUT and the message; the device stays). force: takes the device away at once, even
 * if the guest uses it. The guest runs while a worker closes the device, which may take seconds: with the last one, all
 * memory is unpinned. -ENOENT; -EBUSY: the guest has already been asked, or slots_check_free; done is not called
 * then.
 */
int host_devices_remove(struct host_devices *devices, const char *id, bool force, unsigned int timeout_ms,
			slots_done_fn *done, void *opaque, struct err *err);

/* The devices' functions, in no order. */
struct vfio_pci *host_devices_pci(const struct host_devices *devices, size_t index);

/* For mvmm info. */
size_t host_devices_count(const struct host_devices *devices);
void host_devices_info(const struct host_devices *devices, size_t index, struct vfio_pci_info *info);

/* slots_set_blocker of the machine's slots. */
int host_devices_set_blocker(struct host_devices *devices, const char *why, struct err *err);

/* Disconnects a device from the guest, which then reads all ones from it. The loop's thread. */
void host_devices_cut_off(struct host_devices *devices, size_t index);

/* For the balloon: nonzero if this guest memory must not be returned to the host, which is logged once. */
int host_devices_release(void *devices, uint64_t gpa, uint64_t len);
