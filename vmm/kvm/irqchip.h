/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interrupt controllers, which live in the kernel, and the two ways to them of core/irq.h: level lines on a GSI and
 * message vectors by eventfd. irqchip_x86.c implements it for the in-kernel IOAPIC and local APICs.
 */
#pragma once

#include "core/irq.h"
#include "vmm/kvm/kvm.h"

struct irqchip;

/* Makes the controllers in the VM; before any vCPU. kvm outlives the irqchip. */
int irqchip_create(struct kvm *kvm, struct irqchip **ret, struct err *err);
/* Every vector has been destroyed. NULL is fine. */
void irqchip_destroy(struct irqchip *irqchip);

/* Fills in a line on gsi. Several lines may share a GSI, which is high while any of them is. Lives as long as its
 * owner; lower it before it goes. */
void irqchip_line(struct irqchip *irqchip, uint32_t gsi, struct irq_line *line);

/* Where message vectors come from. */
struct msi_controller *irqchip_msi(struct irqchip *irqchip);

/*
 * From hold to release message vectors are not connected, but wait for it, and what kicks them stays in their eventfds. One
 * table of routes then does for all of them. Who gives up in between does not release, but destroys the vectors; so does who is
 * told by release that some of them could not be connected.
 */
void irqchip_begin_route_changes(struct irqchip *irqchip);
int irqchip_commit_route_changes(struct irqchip *irqchip, struct err *err);

/* Saved state of the controllers that vCPUs share, of a struct kvm *: loaded after the vCPUs and after every device has
 * raised the lines that it holds high (irqchip_state_x86.c). */
struct state_table;
extern const struct state_table irqchip_state;
