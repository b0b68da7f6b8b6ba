/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts: a level line or a message, raised by a call or by an eventfd that the hypervisor listens to.
 * vmm/kvm/irqchip_x86.c implements these tables with KVM; tests record the calls.
 */
#pragma once

#include "core/err.h"

/* One source of a line: several irq_line may share a GSI, and the line is high while one of them is high. */
struct irq_line;

struct irq_line_ops {
	/* Raises or lowers this source. Any thread. */
	void (*set)(struct irq_line *line, bool level);
	/*
	 * Connects trigger_fd (an eventfd) to the source. resample_fd >= 0: level; a kick raises the line, the guest's
	 * EOI lowers it and kicks resample_fd. resample_fd -1: each kick is an edge. Neither descriptor is owned.
	 */
	int (*wire)(struct irq_line *line, int trigger_fd, int resample_fd, struct err *err);
	void (*unwire)(struct irq_line *line, int trigger_fd);
};

struct irq_line {
	const struct irq_line_ops *ops;
	void *opaque; /* the implementer's */
	uint32_t gsi;
	bool level; /* of the last set() */
};

static inline void irq_line_set(struct irq_line *line, bool level)
{
	if (line)
		line->ops->set(line, level);
}

/* The write of a message-signalled interrupt, as programmed by the guest (PCI 3.0 section 6.8). */
struct msi_message {
	uint64_t address;
	uint32_t data;
};

/*
 * One message interrupt. While it is connected, a kick of its eventfd delivers the message. Otherwise kicks stay in the
 * eventfd, and the next connect delivers the message once.
 */
struct msi_vector;
struct msi_controller;

struct msi_controller_ops {
	int (*create)(struct msi_controller *msi, struct msi_vector **ret, struct err *err);
	void (*destroy)(struct msi_controller *msi, struct msi_vector *vector);
	/* Connects the eventfd to message, or changes the message of a connected one. */
	int (*connect)(struct msi_controller *msi, struct msi_vector *vector, const struct msi_message *message,
		       struct err *err);
	void (*disconnect)(struct msi_controller *msi, struct msi_vector *vector);
};

struct msi_controller {
	const struct msi_controller_ops *ops;
};

/* The first member of the implementation's struct. */
struct msi_vector {
	int fd; /* the eventfd; owned by the vector */
};

/* Kicks an eventfd. */
static inline void eventfd_kick(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, so the eventfd is readable already. */
	}
}

/* Empties a non-blocking eventfd; true if it had been kicked. */
static inline bool eventfd_drain(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count);
}
