/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a passed-through function (pci*.c) share; only they include it. */
#pragma once

#include "vfio/irq.h"
#include "vfio/pci_machine.h"
#include "vfio/region.h"

/* How the device interrupts now. */
enum vfio_mode { VFIO_MODE_NONE, VFIO_MODE_INTX, VFIO_MODE_MSI, VFIO_MODE_MSIX };

#define VFIO_MAX_MSI 32u

struct vfio_pci_irqs {
	pthread_mutex_t lock; /* nests inside the bus's and msix's */
	enum vfio_mode mode;
	struct vfio_irq intx, msi, msix;
	/* INTx */
	int trigger_fd, resample_fd;
	struct event_source *resample; /* watched when the device takes no unmask eventfd */
	/* MSI */
	unsigned int msi_cap; /* its offset in config space, or 0 */
	unsigned int msi_count;
	struct msi_vector *msi_vectors[VFIO_MAX_MSI];
	/* MSI-X */
	bool msix_on;              /* by the guest */
	int *msix_fds;             /* the eventfd of each vector in use, -1 for the others */
	unsigned int msix_enabled; /* vectors that the device was enabled with */
	unsigned int msix_used;
	bool complained;
};

/* A BAR, or the ROM. */
struct vfio_pci_bar {
	struct vfio_pci *pci;
	unsigned int index;
	struct vfio_region region;
	struct vfio_bar pieces[VFIO_REGION_AREAS]; /* where its areas are in the guest */
	unsigned int mapped;                       /* bit n: pieces[n] is mapped */
	uint8_t *rom;                              /* the ROM's bytes once read */
	bool complained;                           /* that it is slow */
};

struct vfio_pci {
	struct pci_function function;
	struct vfio_device *device;
	struct vfio_pci_machine machine;
	char *id;
	struct vfio_region config;
	uint8_t emulated[PCI_CONFIG_SIZE]; /* bits that come from function.config, not from the device */
	struct vfio_pci_bar bars[PCI_BARS];
	struct msix *msix;
	unsigned int msix_cap; /* or 0; as the next three */
	unsigned int pm_cap, express_cap, af_cap;
	struct msix_config msix_config;
	struct vfio_pci_irqs irqs;
	pthread_mutex_t map_lock; /* to change the next three, and of the BARs' mapped */
	bool fenced;
	bool held;     /* a config write is under way after which the kernel may have revoked what was mapped */
	uint8_t power; /* the device's power state: 0 for D0, 3 for D3hot, also if it does not respond */
	int error_fd, request_fd;
	struct event_source *error, *request;
};

/* ---- pci_bar.c ---- */

/* The trapped accesses to a BAR; opaque is the struct vfio_pci_bar. */
extern const struct bus_ops vfio_pci_bar_ops;
/* The regions behind config space and BARs. */
int vfio_pci_bar_get_regions(struct vfio_pci *pci, struct err *err);
/* -EINVAL: the MSI-X table lies outside of its BAR. */
int vfio_pci_bar_check_msix(const struct vfio_pci *pci, struct err *err);
/* The device's own ROM if it is shown, or a file in its place (NULL: none). */
int vfio_pci_bar_init_rom(struct vfio_pci *pci, const struct vfio_pci_options *options, struct err *err);
/* Maps into this process the parts that the guest can have mapped. */
void vfio_pci_bar_map_regions(struct vfio_pci *pci);
/* pci_function_ops.bar_moved. */
void vfio_pci_bar_moved(struct pci_function *function, unsigned int index, uint64_t old);
/* pci_function_ops.avoid: where other devices would not reach a BAR. */
uint64_t vfio_pci_bar_avoid(struct pci_function *function, uint64_t addr, uint64_t size);
/* Unmaps the BARs from the guest for good. */
void vfio_pci_bar_fence(struct vfio_pci *pci);
/* Unmaps the BARs before the device stops responding; release maps again what is present in this power state. */
void vfio_pci_bar_hold(struct vfio_pci *pci);
void vfio_pci_bar_release(struct vfio_pci *pci, uint8_t power);
/* Fine at any stage of the construction. */
void vfio_pci_bar_done(struct vfio_pci *pci);

/* ---- pci_config.c ---- */

/* Fills in function.config and what is emulated from the device's own config space, BARs and capabilities. */
int vfio_pci_config_init(struct vfio_pci *pci, struct err *err);
void vfio_pci_config_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len);
void vfio_pci_config_write(struct pci_function *function, unsigned int offset, const void *data, unsigned int len);

/* ---- pci_irq.c ---- */

/* Sets up MSI-X; after vfio_pci_config_init. */
int vfio_pci_irq_init(struct vfio_pci *pci, struct err *err);
/* Disables the interrupts and frees everything. */
void vfio_pci_irq_done(struct vfio_pci *pci);
/* Enters the mode that the guest's registers select: after the function was put on the bus or fenced. */
void vfio_pci_irq_update(struct vfio_pci *pci);
/* The guest wrote into the MSI capability. */
void vfio_pci_msi_written(struct vfio_pci *pci);
/* Whether the mode is the one that the guest's registers select; VFIO_MODE_NONE if that could not be entered. */
bool vfio_pci_irq_as_wanted(struct vfio_pci *pci);
/* MSI vectors, bit n for vector n: those that are masked and pending; and those to signal. */
uint32_t vfio_pci_msi_pending(struct vfio_pci *pci);
void vfio_pci_msi_kick(struct vfio_pci *pci, uint32_t vectors);
/* Signals the line unless the guest has disabled it. */
void vfio_pci_intx_kick(struct vfio_pci *pci);
/* The MSI vectors that are not masked. */
uint32_t vfio_pci_msi_live(struct vfio_pci *pci);
extern const struct msix_ops vfio_pci_msix_ops;
