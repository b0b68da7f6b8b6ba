/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interrupt controllers in the kernel, and both kinds of core/irq.h: level lines on a GSI, and message vectors by
 * eventfd. irqchip_x86.c implements it for the in-kernel IOAPIC and local APICs.
 */
#pragma once

#include "core/irq.h"
#include "vmm/kvm/kvm.h"

struct irqchip;

/* Creates the controllers in the VM, before any vCPU. kvm outlives the irqchip. */
int irqchip_create(struct kvm *kvm, struct irqchip **ret, struct err *err);
/* Adds the counters of an 8254, and port 0x61, on GSI 0. */
int irqchip_create_pit(struct kvm *kvm, struct err *err);
/* All vectors have been destroyed before. NULL is fine. */
void irqchip_destroy(struct irqchip *irqchip);

/* Initializes a line on gsi. Several lines may share a GSI, which is high while any of them is. Lower the line before
 * its memory is freed. */
void irqchip_line(struct irqchip *irqchip, uint32_t gsi, struct irq_line *line);

/* The controller that makes message vectors. */
struct msi_controller *irqchip_msi(struct irqchip *irqchip);

/*
 * Between begin and commit, message vectors are not connected, and a kick stays in the vector's eventfd. commit writes
 * one table of routes and connects them all. After a failure, in between or of commit, destroy the vectors.
 */
void irqchip_begin_route_changes(struct irqchip *irqchip);
int irqchip_commit_route_changes(struct irqchip *irqchip, struct err *err);

/* Saved state of the controllers that all vCPUs share, of a struct kvm * (irqchip_state_x86.c): loaded after the vCPUs,
 * and after the devices, which have then raised their lines. */
struct state_table;
extern const struct state_table irqchip_state;
/* And of the PIT, of a struct kvm *. */
extern const struct state_table pit_state;
