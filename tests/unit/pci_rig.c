/* SPDX-License-Identifier: Apache-2.0 */
/* See pci_rig.h. */
#include "tests/unit/pci_rig.h"

#include <stdio.h>
#include <sys/eventfd.h>

static void need(bool ok)
{
	if (ok)
		return;
	fprintf(stderr, "pci rig: cannot be built\n");
	abort();
}

/* ---- one INTx line ---- */

static void line_set(struct irq_line *line, bool level)
{
	__atomic_store_n(&line->level, level, __ATOMIC_SEQ_CST);
}

static const struct irq_line_ops line_ops = {.set = line_set};

static int line_create(void *opaque, unsigned int root_pin, struct irq_line **ret, struct err *err)
{
	struct pci_rig *rig = opaque;

	*ret = &rig->line;
	return 0;
}

static void line_destroy(void *opaque, struct irq_line *line)
{
}

static const struct pci_intx_ops intx_ops = {line_create, line_destroy};

/* ---- messages ---- */

static int vector_create(struct msi_controller *msi, struct msi_vector **ret, struct err *err)
{
	struct pci_rig *rig = container_of(msi, struct pci_rig, msi);

	for (unsigned int i = 0; i < RIG_VECTORS; i++) {
		struct rig_vector *vector = &rig->vectors[i];

		if (vector->used)
			continue;
		*vector = (struct rig_vector){.used = true, .rig = rig};
		vector->vector.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		need(vector->vector.fd >= 0);
		*ret = &vector->vector;
		return 0;
	}
	return err_set(err, -ENOSPC, "no vector left");
}

static void vector_destroy(struct msi_controller *msi, struct msi_vector *vector)
{
	fd_close(&vector->fd);
	container_of(vector, struct rig_vector, vector)->used = false;
}

static int vector_connect(struct msi_controller *msi, struct msi_vector *vector, const struct msi_message *message,
			  struct err *err)
{
	struct rig_vector *v = container_of(vector, struct rig_vector, vector);

	v->connected = true;
	v->message = *message;
	return 0;
}

static void vector_disconnect(struct msi_controller *msi, struct msi_vector *vector)
{
	container_of(vector, struct rig_vector, vector)->connected = false;
}

static const struct msi_controller_ops msi_ops = {
	.create = vector_create,
	.destroy = vector_destroy,
	.connect = vector_connect,
	.disconnect = vector_disconnect,
};

unsigned int rig_delivered(struct pci_rig *rig, uint32_t data)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < RIG_VECTORS; i++) {
		struct rig_vector *v = &rig->vectors[i];

		if (v->used && v->connected && v->message.data == data)
			count += eventfd_drain(v->vector.fd);
	}
	return count;
}

/* ---- notifications: counted, and done by nobody, so that who looks at the eventfd sees what the bus did not ---- */

static int attach(void *opaque, const struct bus_kick *kick)
{
	struct pci_rig *rig = opaque;

	if (rig->refuse_attach)
		return -ENOSPC;
	rig->attached++;
	rig->attaches++;
	return 0;
}

static void detach(void *opaque, const struct bus_kick *kick)
{
	struct pci_rig *rig = opaque;

	rig->attached--;
	rig->detaches++;
}

static const struct bus_eventfd_ops eventfd_ops = {attach, detach};

/* ---- the whole ---- */

void rig_open(struct pci_rig *rig)
{
	struct pci_bus_config config = {
		.windows = {.ecam = RIG_ECAM, .mem32 = 0xc0000000, .mem32_size = 0x20000000, .mem64 = RIG_MEM64,
			    .mem64_size = GIB(256), .io = 0x1000, .io_size = 0xf000},
		.intx = &intx_ops,
		.intx_opaque = rig,
	};

	*rig = (struct pci_rig){.mmio = bus_create(), .pio = bus_create()};
	rig->line.ops = &line_ops;
	rig->msi.ops = &msi_ops;
	config.mmio = rig->mmio;
	config.pio = rig->pio;
	need(rig->mmio && rig->pio && bus_set_eventfd_ops(rig->mmio, &eventfd_ops, rig, NULL) == 0);
	need(pci_bus_create(&config, &rig->bus, NULL) == 0);
}

void rig_close(struct pci_rig *rig)
{
	pci_bus_destroy(rig->bus);
	bus_destroy(rig->mmio);
	bus_destroy(rig->pio);
}

uint32_t rig_cfg(struct pci_rig *rig, unsigned int devfn, unsigned int offset, unsigned int len)
{
	uint8_t data[4] = {0};

	bus_read(rig->mmio, RIG_ECAM + devfn * PCI_CONFIG_SIZE + offset, data, len);
	return get_le32(data);
}

void rig_cfg_write(struct pci_rig *rig, unsigned int devfn, unsigned int offset, unsigned int len, uint32_t value)
{
	uint8_t data[4];

	put_le32(data, value);
	bus_write(rig->mmio, RIG_ECAM + devfn * PCI_CONFIG_SIZE + offset, data, len);
}

unsigned int rig_find_cap(struct pci_rig *rig, unsigned int devfn, uint8_t id, unsigned int nth)
{
	unsigned int at = rig_cfg(rig, devfn, PCI_CAPABILITY_LIST, 1);

	for (unsigned int left = 48; at && left; left--) {
		if (rig_cfg(rig, devfn, at + PCI_CAP_LIST_ID, 1) == id && !nth--)
			return at;
		at = rig_cfg(rig, devfn, at + PCI_CAP_LIST_NEXT, 1);
	}
	return 0;
}

uint64_t rig_bar(struct pci_rig *rig, unsigned int devfn)
{
	uint64_t low = rig_cfg(rig, devfn, PCI_BASE_ADDRESS_0, 4) & ~15u;

	return (uint64_t)rig_cfg(rig, devfn, PCI_BASE_ADDRESS_1, 4) << 32 | low;
}
