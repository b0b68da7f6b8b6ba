/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See irqchip.h.
 *
 * GSIs 0 to 23 are the IOAPIC's pins, the others are messages. KVM replaces the routing table as a whole, so we keep a
 * copy of it here. A vector gets a GSI when it is first connected, and keeps it. KVM waits for a grace period whenever
 * the table is replaced; while the machine's state is loaded, the table is therefore written once for all vectors, or
 * not at all.
 */
#include "vmm/kvm/irqchip.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define PINS 24u
#define FIRST_MSI PINS
#define MAX_GSI 4096u /* KVM_MAX_IRQ_ROUTES */

struct irqchip {
	struct msi_controller msi;
	struct kvm *kvm;
	pthread_mutex_t lock;
	unsigned int high[PINS];     /* the number of lines on the pin that are high */
	bool taken[MAX_GSI];         /* the GSI belongs to a vector */
	uint32_t end;                /* of those that ever did */
	struct msi_message messages[MAX_GSI];
	struct kvm_irq_routing *routing; /* room for MAX_GSI entries */
	bool deferred;               /* between irqchip_begin_route_changes and irqchip_commit_route_changes */
	bool changed;                /* meanwhile: KVM's table is not this one */
	struct vector *pending;      /* connected by irqchip_commit_route_changes */
};

struct vector {
	struct msi_vector base;
	uint32_t gsi; /* 0: none yet */
	bool connected;
	struct vector *next; /* pending */
};

static const struct msi_controller_ops msi_ops;

int irqchip_create(struct kvm *kvm, struct irqchip **ret, struct err *err)
{
	struct irqchip *irqchip;

	if (ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return err_sys(err, -errno, "KVM_CREATE_IRQCHIP");
	irqchip = calloc(1, sizeof(*irqchip));
	if (irqchip)
		irqchip->routing = calloc(1,
					  sizeof(*irqchip->routing) + MAX_GSI * sizeof(irqchip->routing->entries[0]));
	if (!irqchip || !irqchip->routing) {
		free(irqchip);
		return err_sys(err, -ENOMEM, "interrupt routing");
	}
	irqchip->msi.ops = &msi_ops;
	irqchip->kvm = kvm;
	pthread_mutex_init(&irqchip->lock, NULL);
	*ret = irqchip;
	return 0;
}

int irqchip_create_pit(struct kvm *kvm, struct err *err)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	struct kvm_reinject_control ticks = {.pit_reinject = 0};

	if (ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_sys(err, -errno, "KVM_CREATE_PIT2");
	/* What was missed while the guest was paused is not made up for. */
	return ioctl(kvm->vm_fd, KVM_REINJECT_CONTROL, &ticks) < 0 ? err_sys(err, -errno, "KVM_REINJECT_CONTROL") : 0;
}

void irqchip_destroy(struct irqchip *irqchip)
{
	if (!irqchip)
		return;
	pthread_mutex_destroy(&irqchip->lock);
	free(irqchip->routing);
	free(irqchip);
}

/* ---- lines ---- */

static void irqchip_line_set(struct irq_line *line, bool level)
{
	struct irqchip *irqchip = line->opaque;
	struct kvm_irq_level arg = {.irq = line->gsi, .level = level};

	pthread_mutex_lock(&irqchip->lock);
	if (line->level != level) {
		unsigned int before = irqchip->high[line->gsi];

		line->level = level;
		irqchip->high[line->gsi] = level ? before + 1 : before - 1;
		if (!before || !irqchip->high[line->gsi])
			ioctl(irqchip->kvm->vm_fd, KVM_IRQ_LINE, &arg);
	}
	pthread_mutex_unlock(&irqchip->lock);
}

static int irqchip_irqfd(struct irqchip *irqchip, uint32_t gsi, int fd, int resample_fd, uint32_t flags)
{
	struct kvm_irqfd arg = {.fd = (uint32_t)fd, .gsi = gsi, .flags = flags};

	if (resample_fd >= 0) {
		arg.flags |= KVM_IRQFD_FLAG_RESAMPLE;
		arg.resamplefd = (uint32_t)resample_fd;
	}
	return ioctl(irqchip->kvm->vm_fd, KVM_IRQFD, &arg) < 0 ? -errno : 0;
}

static int irqchip_line_wire(struct irq_line *line, int trigger_fd, int resample_fd, struct err *err)
{
	int ret = irqchip_irqfd(line->opaque, line->gsi, trigger_fd, resample_fd, 0);

	return ret < 0 ? err_sys(err, ret, "KVM_IRQFD for GSI %u", line->gsi) : 0;
}

static void irqchip_line_unwire(struct irq_line *line, int trigger_fd)
{
	irqchip_irqfd(line->opaque, line->gsi, trigger_fd, -1, KVM_IRQFD_FLAG_DEASSIGN);
}

void irqchip_line(struct irqchip *irqchip, uint32_t gsi, struct irq_line *line)
{
	static const struct irq_line_ops ops = {.set = irqchip_line_set, .wire = irqchip_line_wire,
						.unwire = irqchip_line_unwire};

	*line = (struct irq_line){.ops = &ops, .opaque = irqchip, .gsi = gsi};
}

/* ---- messages ---- */

struct msi_controller *irqchip_msi(struct irqchip *irqchip)
{
	return &irqchip->msi;
}

static struct irqchip *irqchip_of(struct msi_controller *msi)
{
	return container_of(msi, struct irqchip, msi);
}

/* Writes the whole table: the pins as on a PC, and the message GSIs that are taken. Lock held. */
static int irqchip_write_routing(struct irqchip *irqchip)
{
	struct kvm_irq_routing *table = irqchip->routing;

	table->nr = 0;
	for (uint32_t pin = 0; pin < PINS; pin++)
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = pin,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC, .pin = pin},
		};
	for (uint32_t gsi = FIRST_MSI; gsi < irqchip->end && table->nr < MAX_GSI; gsi++) {
		const struct msi_message *message = &irqchip->messages[gsi];

		if (!irqchip->taken[gsi])
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (uint32_t)message->address,
				  .address_hi = (uint32_t)(message->address >> 32),
				  .data = message->data},
		};
	}
	return ioctl(irqchip->kvm->vm_fd, KVM_SET_GSI_ROUTING, table) < 0 ? -errno : 0;
}

static uint32_t irqchip_free_gsi(const struct irqchip *irqchip)
{
	uint32_t gsi = FIRST_MSI;

	while (gsi < MAX_GSI && irqchip->taken[gsi])
		gsi++;
	return gsi;
}

/* Routes the vector's GSI to message and allocates a GSI if the vector has none. The table is written now or by
 * irqchip_commit_route_changes. Lock held. */
static int irqchip_route(struct irqchip *irqchip, struct vector *vector, const struct msi_message *message)
{
	uint32_t gsi = vector->gsi ?: irqchip_free_gsi(irqchip);
	struct msi_message old;
	int ret;

	if (gsi == MAX_GSI)
		return -ENOSPC;
	old = irqchip->messages[gsi];
	if (vector->gsi && old.address == message->address && old.data == message->data)
		return 0;
	irqchip->messages[gsi] = *message;
	irqchip->taken[gsi] = true;
	irqchip->changed = irqchip->deferred;
	irqchip->end = MAX(irqchip->end, gsi + 1);
	ret = irqchip->deferred ? 0 : irqchip_write_routing(irqchip);
	if (ret < 0) {
		irqchip->messages[gsi] = old;
		irqchip->taken[gsi] = vector->gsi != 0;
		return ret;
	}
	vector->gsi = gsi;
	return 0;
}

/* The link to vector in the list of pending vectors, or the last link. Lock held. */
static struct vector **irqchip_find_pending(struct irqchip *irqchip, const struct vector *vector)
{
	struct vector **link = &irqchip->pending;

	while (*link && *link != vector)
		link = &(*link)->next;
	return link;
}

static int irqchip_wire(struct irqchip *irqchip, struct vector *vector, struct err *err)
{
	int ret = irqchip_irqfd(irqchip, vector->gsi, vector->base.fd, -1, 0);

	if (ret < 0)
		return err_sys(err, ret, "KVM_IRQFD for GSI %u", vector->gsi);
	vector->connected = true;
	return 0;
}

void irqchip_begin_route_changes(struct irqchip *irqchip)
{
	pthread_mutex_lock(&irqchip->lock);
	irqchip->deferred = true;
	pthread_mutex_unlock(&irqchip->lock);
}

int irqchip_commit_route_changes(struct irqchip *irqchip, struct err *err)
{
	int ret;

	pthread_mutex_lock(&irqchip->lock);
	irqchip->deferred = false;
	ret = irqchip->changed ? irqchip_write_routing(irqchip) : 0;
	irqchip->changed = false;
	if (ret < 0)
		err_sys(err, ret, "routes of interrupt messages");
	while (irqchip->pending) {
		struct vector *vector = irqchip->pending;

		irqchip->pending = take_ptr(vector->next);
		ret = ret ?: irqchip_wire(irqchip, vector, err);
	}
	pthread_mutex_unlock(&irqchip->lock);
	return ret;
}

static int irqchip_msi_create(struct msi_controller *msi, struct msi_vector **ret, struct err *err)
{
	struct vector *vector = calloc(1, sizeof(*vector));

	if (!vector)
		return err_sys(err, -ENOMEM, "interrupt vector");
	vector->base.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vector->base.fd < 0) {
		int code = -errno;

		free(vector);
		return err_sys(err, code, "interrupt vector");
	}
	*ret = &vector->base;
	return 0;
}

static void irqchip_msi_disconnect(struct msi_controller *msi, struct msi_vector *base)
{
	struct irqchip *irqchip = irqchip_of(msi);
	struct vector *vector = container_of(base, struct vector, base), **pending;

	pthread_mutex_lock(&irqchip->lock);
	pending = irqchip_find_pending(irqchip, vector);
	if (*pending)
		*pending = take_ptr(vector->next);
	if (vector->connected)
		irqchip_irqfd(irqchip, vector->gsi, base->fd, -1, KVM_IRQFD_FLAG_DEASSIGN);
	vector->connected = false;
	pthread_mutex_unlock(&irqchip->lock);
}

static void irqchip_msi_destroy(struct msi_controller *msi, struct msi_vector *base)
{
	struct irqchip *irqchip = irqchip_of(msi);
	struct vector *vector = container_of(base, struct vector, base);

	irqchip_msi_disconnect(msi, base);
	/* The route may stay until the table is next written: it has no irqfd any more. */
	if (vector->gsi) {
		pthread_mutex_lock(&irqchip->lock);
		irqchip->taken[vector->gsi] = false;
		pthread_mutex_unlock(&irqchip->lock);
	}
	fd_close(&base->fd);
	free(vector);
}

static int irqchip_msi_connect(struct msi_controller *msi, struct msi_vector *base, const struct msi_message *message,
			       struct err *err)
{
	struct irqchip *irqchip = irqchip_of(msi);
	struct vector *vector = container_of(base, struct vector, base);
	int ret;

	pthread_mutex_lock(&irqchip->lock);
	ret = irqchip_route(irqchip, vector, message);
	if (ret < 0)
		err_sys(err, ret, "route of an interrupt message");
	else if (irqchip->deferred && !vector->connected)
		*irqchip_find_pending(irqchip, vector) = vector;
	else if (!vector->connected)
		ret = irqchip_wire(irqchip, vector, err);
	pthread_mutex_unlock(&irqchip->lock);
	return ret;
}

static const struct msi_controller_ops msi_ops = {
	.create = irqchip_msi_create,
	.destroy = irqchip_msi_destroy,
	.connect = irqchip_msi_connect,
	.disconnect = irqchip_msi_disconnect,
};
