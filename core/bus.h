/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus: who answers an MMIO or a port address, and which eventfds are kicked by a write.
 *
 * Look-ups take no lock and may come from every vCPU at once; changes are serialised inside. A range is removed only
 * by whoever owns the device behind it, and a device is freed only while no vCPU runs.
 */
#pragma once

#include "core/err.h"

struct bus;

struct bus_ops {
	/* offset counts from the start of the range; len is 1, 2, 4 or 8 and the access lies within the range. data is
	 * little-endian. */
	void (*read)(void *opaque, uint64_t offset, void *data, unsigned int len);
	void (*write)(void *opaque, uint64_t offset, const void *data, unsigned int len);
};

/* Lets the hypervisor kick an eventfd without leaving the kernel (KVM_IOEVENTFD). */
struct bus_eventfd_ops {
	int (*attach)(void *opaque, uint64_t addr, unsigned int len, int fd);
	void (*detach)(void *opaque, uint64_t addr, unsigned int len, int fd);
};

struct bus *bus_create(void);
void bus_destroy(struct bus *bus);

/* From now on eventfds go through ops; those attached before are handed over. At most once, before anything runs. */
int bus_set_eventfd_ops(struct bus *bus, const struct bus_eventfd_ops *ops, void *opaque, struct err *err);

/*
 * Adds [base, base + size). name is kept, not copied. -EEXIST when the range overlaps one that is there, -ENOSPC beyond
 * 1024 ranges, -EINVAL when it is empty or wraps.
 */
int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *opaque, const char *name,
	    struct err *err);

/* Removes the range that starts at base; no effect when there is none. */
void bus_remove(struct bus *bus, uint64_t base);

/* False when nobody answers: data then reads as all ones, a write is lost, as on real hardware. */
bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int len);
bool bus_write(struct bus *bus, uint64_t addr, const void *data, unsigned int len);

/*
 * A write of len bytes (0: of any length) to addr kicks fd (not owned). Where the hypervisor cannot do that, bus_write
 * does it. The address need not belong to a range.
 */
int bus_attach_eventfd(struct bus *bus, uint64_t addr, unsigned int len, int fd, struct err *err);
void bus_detach_eventfd(struct bus *bus, uint64_t addr, unsigned int len, int fd);
