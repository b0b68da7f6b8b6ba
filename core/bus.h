/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus: which device answers an MMIO or port address, and which eventfds a write kicks.
 *
 * A lookup takes no lock; all vCPUs may look up at once. A lock inside serialises changes. Only the owner of a device
 * removes its range. A device is freed only while no vCPU runs.
 */
#pragma once

#include "core/err.h"

struct bus;

struct bus_ops {
	/*
	 * offset is relative to the range; len is 1, 2, 4 or 8; the access is inside the range. data is little-endian.
	 */
	void (*read)(void *opaque, uint64_t offset, void *data, unsigned int len);
	void (*write)(void *opaque, uint64_t offset, const void *data, unsigned int len);
};

/* A write that kicks an eventfd: of len bytes (0: any length; whatever is written) to addr, and then only of value. */
struct bus_kick {
	uint64_t addr;
	unsigned int len;
	uint32_t value;
	int fd; /* not owned */
};

/* Lets the hypervisor kick an eventfd without leaving the kernel (KVM_IOEVENTFD). */
struct bus_eventfd_ops {
	int (*attach)(void *opaque, const struct bus_kick *kick);
	void (*detach)(void *opaque, const struct bus_kick *kick);
};

struct bus *bus_create(void);
void bus_destroy(struct bus *bus);

/* Attaches all eventfds through ops, those attached before included. At most once, before any vCPU runs. */
int bus_set_eventfd_ops(struct bus *bus, const struct bus_eventfd_ops *ops, void *opaque, struct err *err);

/*
 * Adds [base, base + size). name is not copied. -EEXIST: the range overlaps another; -ENOSPC: more than 1024 ranges;
 * -EINVAL: the range is empty or wraps.
 */
int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *opaque, const char *name,
	    struct err *err);

/* Removes the range that starts at base, if there is one. */
void bus_remove(struct bus *bus, uint64_t base);

/* False: no device answers. A read then returns all ones and a write is ignored, as on real hardware. */
bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int len);
bool bus_write(struct bus *bus, uint64_t addr, const void *data, unsigned int len);

/* Without bus_eventfd_ops, bus_write kicks it. The address need not belong to a range. detach: what was attached. */
int bus_attach_eventfd(struct bus *bus, const struct bus_kick *kick, struct err *err);
void bus_detach_eventfd(struct bus *bus, const struct bus_kick *kick);
