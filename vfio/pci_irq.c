/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interrupts of a passed-through function. It is in one of four modes; INTx is the default.
 *
 *	mode    entered when                     the device kicks        which reaches the guest by
 *	INTx    on the bus, MSI and MSI-X off    one eventfd             the line; the guest's EOI kicks another eventfd,
 *	                                                                 which unmasks the interrupt in the device
 *	MSI     the guest enables MSI            an eventfd a vector     the vector's message
 *	MSI-X   the guest enables MSI-X          an eventfd a vector,    the vector's message
 *	                                         from its first unmask on
 *
 * A vector that the guest masks is disconnected from its message; an interrupt stays in the eventfd meanwhile. If the
 * kernel cannot add MSI-X vectors while others are enabled (VFIO_IRQ_INFO_NORESIZE), all are disabled for a moment and
 * then signalled once: an interrupt too many does no harm, one too few does.
 */
#include "vfio/pci_internal.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* Logs once that a mode could not be entered: the guest may try as often as it likes. Lock held. */
static void vfio_pci_irq_complain(struct vfio_pci *pci, const char *what, int code)
{
	if (!pci->irqs.complained)
		log_warn(pci->machine.log, "vfio %s: %s: %s; the guest gets no such interrupt", pci->device->host.name,
			 what, code < 0 ? strerrordesc_np(-code) : "not as many vectors as the guest wants");
	pci->irqs.complained = true;
}

/* ---- INTx ---- */

/* The guest has ended an interrupt and the device takes no eventfd for that: unmask it here. A device that does not
 * know that call either (mtty) unmasks by itself. */
static void vfio_pci_irq_on_resample(void *opaque, uint32_t events)
{
	struct vfio_pci *pci = opaque;

	pthread_mutex_lock(&pci->irqs.lock);
	if (pci->irqs.mode == VFIO_MODE_INTX && eventfd_drain(pci->irqs.resample_fd))
		vfio_irq_unmask(pci->device, VFIO_PCI_INTX_IRQ_INDEX);
	pthread_mutex_unlock(&pci->irqs.lock);
}

static void vfio_pci_irq_intx_stop(struct vfio_pci *pci)
{
	struct vfio_pci_irqs *irqs = &pci->irqs;
	struct irq_line *line = pci->function.intx;

	if (irqs->trigger_fd < 0)
		return;
	vfio_irq_disable(pci->device, VFIO_PCI_INTX_IRQ_INDEX);
	event_source_remove(take_ptr(irqs->resample));
	line->ops->unwire(line, irqs->trigger_fd);
	fd_close(&irqs->trigger_fd);
	fd_close(&irqs->resample_fd);
}

static int vfio_pci_irq_intx_wire(struct vfio_pci *pci)
{
	struct vfio_pci_irqs *irqs = &pci->irqs;
	struct irq_line *line = pci->function.intx;
	int ret;

	irqs->trigger_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	irqs->resample_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (irqs->trigger_fd < 0 || irqs->resample_fd < 0)
		return -errno;
	ret = line->ops->wire(line, irqs->trigger_fd, irqs->resample_fd, NULL);
	if (ret < 0)
		return ret;
	return vfio_irq_trigger(pci->device, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &irqs->trigger_fd);
}

static int vfio_pci_irq_intx_start(struct vfio_pci *pci)
{
	struct vfio_pci_irqs *irqs = &pci->irqs;
	int ret = vfio_pci_irq_intx_wire(pci);

	if (ret >= 0 && vfio_irq_unmask_by(pci->device, VFIO_PCI_INTX_IRQ_INDEX, irqs->resample_fd) < 0)
		ret = event_loop_watch(pci->machine.loop, irqs->resample_fd, EPOLLIN, vfio_pci_irq_on_resample, pci,
				       &irqs->resample, NULL);
	if (ret >= 0)
		return 0;
	if (irqs->trigger_fd >= 0)
		pci->function.intx->ops->unwire(pci->function.intx, irqs->trigger_fd);
	vfio_irq_disable(pci->device, VFIO_PCI_INTX_IRQ_INDEX);
	fd_close(&irqs->trigger_fd);
	fd_close(&irqs->resample_fd);
	return ret;
}

void vfio_pci_intx_kick(struct vfio_pci *pci)
{
	bool off = get_le16(pci->function.config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE;

	pthread_mutex_lock(&pci->irqs.lock);
	if (pci->irqs.mode == VFIO_MODE_INTX && !off)
		eventfd_kick(pci->irqs.trigger_fd);
	pthread_mutex_unlock(&pci->irqs.lock);
}

/* ---- MSI ---- */

static uint8_t *vfio_pci_irq_msi_register(struct vfio_pci *pci, unsigned int narrow, unsigned int wide)
{
	uint8_t *cap = pci->function.config + pci->irqs.msi_cap;

	return cap + (get_le16(cap + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_64BIT ? wide : narrow);
}

static struct msi_message vfio_pci_irq_message(struct vfio_pci *pci, unsigned int vector)
{
	const uint8_t *cap = pci->function.config + pci->irqs.msi_cap;
	bool wide = get_le16(cap + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_64BIT;

	return (struct msi_message){
		.address = get_le32(cap + PCI_MSI_ADDRESS_LO) |
			   (wide ? (uint64_t)get_le32(cap + PCI_MSI_ADDRESS_HI) << 32 : 0),
		.data = (get_le16(vfio_pci_irq_msi_register(pci, PCI_MSI_DATA_32, PCI_MSI_DATA_64)) &
			 ~(pci->irqs.msi_count - 1)) | vector,
	};
}

static bool vfio_pci_irq_msi_masked(struct vfio_pci *pci, unsigned int vector)
{
	const uint8_t *cap = pci->function.config + pci->irqs.msi_cap;

	return (get_le16(cap + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_MASKBIT) &&
	       get_le32(vfio_pci_irq_msi_register(pci, PCI_MSI_MASK_32, PCI_MSI_MASK_64)) >> vector & 1;
}

/* Connects the vectors according to the message and mask registers. */
static void vfio_pci_irq_msi_connect(struct vfio_pci *pci)
{
	struct msi_controller *msi = pci->machine.msi;

	for (unsigned int i = 0; i < pci->irqs.msi_count; i++) {
		struct msi_message message = vfio_pci_irq_message(pci, i);
		int ret = 0;

		if (vfio_pci_irq_msi_masked(pci, i))
			msi->ops->disconnect(msi, pci->irqs.msi_vectors[i]);
		else
			ret = msi->ops->connect(msi, pci->irqs.msi_vectors[i], &message, NULL);
		if (ret < 0)
			vfio_pci_irq_complain(pci, "MSI", ret);
	}
}

static void vfio_pci_irq_msi_stop(struct vfio_pci *pci)
{
	struct msi_controller *msi = pci->machine.msi;

	vfio_irq_disable(pci->device, VFIO_PCI_MSI_IRQ_INDEX);
	while (pci->irqs.msi_count)
		msi->ops->destroy(msi, pci->irqs.msi_vectors[--pci->irqs.msi_count]);
}

/* Creates the vectors that the guest enabled; the device may get fewer, and then uses the first ones for all. */
static int vfio_pci_irq_msi_start(struct vfio_pci *pci)
{
	struct vfio_pci_irqs *irqs = &pci->irqs;
	uint16_t flags = get_le16(pci->function.config + irqs->msi_cap + PCI_MSI_FLAGS);
	unsigned int wanted = MIN(1u << ((flags & PCI_MSI_FLAGS_QSIZE) >> 4), MIN(irqs->msi.count, VFIO_MAX_MSI));
	int fds[VFIO_MAX_MSI], ret = 0;

	while (irqs->msi_count < wanted && ret == 0) {
		ret = pci->machine.msi->ops->create(pci->machine.msi, &irqs->msi_vectors[irqs->msi_count], NULL);
		if (ret == 0) {
			fds[irqs->msi_count] = irqs->msi_vectors[irqs->msi_count]->fd;
			irqs->msi_count++;
		}
	}
	if (ret == 0) {
		vfio_pci_irq_msi_connect(pci);
		ret = vfio_irq_trigger(pci->device, VFIO_PCI_MSI_IRQ_INDEX, 0, wanted, fds);
	}
	if (ret > 0 && (unsigned int)ret < wanted)
		ret = vfio_irq_trigger(pci->device, VFIO_PCI_MSI_IRQ_INDEX, 0, (uint32_t)ret, fds);
	if (ret != 0)
		vfio_pci_irq_msi_stop(pci);
	return ret;
}

/* ---- MSI-X ---- */

static void vfio_pci_irq_msix_forget(struct vfio_pci *pci)
{
	for (unsigned int i = 0; i < pci->msix_config.vectors; i++)
		pci->irqs.msix_fds[i] = -1;
	pci->irqs.msix_enabled = pci->irqs.msix_used = 0;
}

static void vfio_pci_irq_msix_stop(struct vfio_pci *pci)
{
	vfio_irq_disable(pci->device, VFIO_PCI_MSIX_IRQ_INDEX);
	vfio_pci_irq_msix_forget(pci);
}

/* Puts the device into MSI-X mode before any vector is used, with one vector without an eventfd. */
static int vfio_pci_irq_msix_start(struct vfio_pci *pci)
{
	int none = -1, ret = vfio_irq_trigger(pci->device, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &none);

	pci->irqs.msix_enabled = ret < 0 ? 0 : 1;
	return ret;
}

/* Disables and enables MSI-X with count vectors; if the host does not have that many, with as many as before. */
static int vfio_pci_irq_msix_enable_again(struct vfio_pci *pci, unsigned int count)
{
	struct vfio_pci_irqs *irqs = &pci->irqs;
	unsigned int before = irqs->msix_enabled;
	int ret;

	vfio_irq_disable(pci->device, VFIO_PCI_MSIX_IRQ_INDEX);
	ret = vfio_irq_trigger(pci->device, VFIO_PCI_MSIX_IRQ_INDEX, 0, count, irqs->msix_fds);
	irqs->msix_enabled = ret == 0 ? count : 0;
	if (ret != 0 && before &&
	    vfio_irq_trigger(pci->device, VFIO_PCI_MSIX_IRQ_INDEX, 0, before, irqs->msix_fds) == 0)
		irqs->msix_enabled = before;
	for (unsigned int i = 0; i < irqs->msix_enabled; i++)
		if (irqs->msix_fds[i] >= 0)
			eventfd_kick(irqs->msix_fds[i]);
	return ret;
}

static int vfio_pci_irq_msix_used(void *opaque, unsigned int index, int fd)
{
	struct vfio_pci *pci = opaque;
	struct vfio_pci_irqs *irqs = &pci->irqs;
	bool fixed = irqs->msix.flags & VFIO_IRQ_INFO_NORESIZE;
	int ret = 0;

	pthread_mutex_lock(&irqs->lock);
	if (irqs->mode != VFIO_MODE_MSIX) {
		ret = -ENODEV;
	} else if (irqs->msix_fds[index] != fd) {
		irqs->msix_fds[index] = fd;
		if (index >= irqs->msix_enabled && fixed)
			ret = vfio_pci_irq_msix_enable_again(pci, index + 1);
		else
			ret = vfio_irq_trigger(pci->device, VFIO_PCI_MSIX_IRQ_INDEX, index, 1, &fd);
		if (ret != 0) {
			irqs->msix_fds[index] = -1;
			vfio_pci_irq_complain(pci, "MSI-X", ret);
		} else {
			irqs->msix_enabled = MAX(irqs->msix_enabled, index + 1);
			irqs->msix_used++;
		}
	}
	pthread_mutex_unlock(&irqs->lock);
	return ret;
}

/* ---- Modes ---- */

static int vfio_pci_irq_none_start(struct vfio_pci *pci)
{
	return 0;
}

static void vfio_pci_irq_none_stop(struct vfio_pci *pci)
{
}

static const struct {
	int (*start)(struct vfio_pci *pci);
	void (*stop)(struct vfio_pci *pci);
	const char *name;
} modes[] = {
	[VFIO_MODE_NONE] = {vfio_pci_irq_none_start, vfio_pci_irq_none_stop, "no interrupt"},
	[VFIO_MODE_INTX] = {vfio_pci_irq_intx_start, vfio_pci_irq_intx_stop, "INTx"},
	[VFIO_MODE_MSI] = {vfio_pci_irq_msi_start, vfio_pci_irq_msi_stop, "MSI"},
	[VFIO_MODE_MSIX] = {vfio_pci_irq_msix_start, vfio_pci_irq_msix_stop, "MSI-X"},
};

/* Lock held. A mode that cannot be entered leaves the device without interrupts. */
static void vfio_pci_irq_set_mode(struct vfio_pci *pci, enum vfio_mode mode)
{
	int ret;

	if (pci->irqs.mode == mode)
		return;
	modes[pci->irqs.mode].stop(pci);
	pci->irqs.mode = VFIO_MODE_NONE;
	ret = modes[mode].start(pci);
	if (ret == 0)
		pci->irqs.mode = mode;
	else
		vfio_pci_irq_complain(pci, modes[mode].name, ret);
}

/* The mode that the guest's registers select: MSI-X if both it and MSI are on, which no guest should do. */
static enum vfio_mode vfio_pci_irq_wanted_mode(const struct vfio_pci *pci)
{
	const uint8_t *msi = pci->function.config + pci->irqs.msi_cap;

	if (pci->fenced)
		return VFIO_MODE_NONE;
	if (pci->irqs.msix_on)
		return VFIO_MODE_MSIX;
	if (pci->irqs.msi_cap && get_le16(msi + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_ENABLE)
		return VFIO_MODE_MSI;
	return pci->function.intx && pci->irqs.intx.count ? VFIO_MODE_INTX : VFIO_MODE_NONE;
}

static void vfio_pci_irq_msix_switched(void *opaque, bool on)
{
	struct vfio_pci *pci = opaque;

	pthread_mutex_lock(&pci->irqs.lock);
	pci->irqs.msix_on = on;
	vfio_pci_irq_set_mode(pci, vfio_pci_irq_wanted_mode(pci));
	pthread_mutex_unlock(&pci->irqs.lock);
}

const struct msix_ops vfio_pci_msix_ops = {.used = vfio_pci_irq_msix_used, .enabled = vfio_pci_irq_msix_switched};

void vfio_pci_msi_written(struct vfio_pci *pci)
{
	pthread_mutex_lock(&pci->irqs.lock);
	if (pci->irqs.mode == VFIO_MODE_MSI && vfio_pci_irq_wanted_mode(pci) == VFIO_MODE_MSI)
		vfio_pci_irq_msi_connect(pci);
	else
		vfio_pci_irq_set_mode(pci, vfio_pci_irq_wanted_mode(pci));
	pthread_mutex_unlock(&pci->irqs.lock);
}

bool vfio_pci_irq_as_wanted(struct vfio_pci *pci)
{
	bool ret;

	pthread_mutex_lock(&pci->irqs.lock);
	ret = pci->irqs.mode == vfio_pci_irq_wanted_mode(pci);
	pthread_mutex_unlock(&pci->irqs.lock);
	return ret;
}

static uint32_t vfio_pci_irq_masked_vectors(struct vfio_pci *pci)
{
	uint32_t masked = 0;

	for (unsigned int i = 0; i < pci->irqs.msi_count; i++)
		masked |= (uint32_t)vfio_pci_irq_msi_masked(pci, i) << i;
	return masked;
}

uint32_t vfio_pci_msi_pending(struct vfio_pci *pci)
{
	struct pollfd fds[VFIO_MAX_MSI];
	uint32_t pending = 0, masked;

	pthread_mutex_lock(&pci->irqs.lock);
	masked = vfio_pci_irq_masked_vectors(pci);
	for (unsigned int i = 0; i < pci->irqs.msi_count; i++)
		fds[i] = (struct pollfd){.fd = masked >> i & 1 ? pci->irqs.msi_vectors[i]->fd : -1, .events = POLLIN};
	if (masked && poll(fds, pci->irqs.msi_count, 0) > 0)
		for (unsigned int i = 0; i < pci->irqs.msi_count; i++)
			pending |= (uint32_t)(fds[i].fd >= 0 && fds[i].revents & POLLIN) << i;
	pthread_mutex_unlock(&pci->irqs.lock);
	return pending;
}

void vfio_pci_msi_kick(struct vfio_pci *pci, uint32_t vectors)
{
	pthread_mutex_lock(&pci->irqs.lock);
	for (unsigned int i = 0; i < pci->irqs.msi_count; i++)
		if (vectors >> i & 1)
			eventfd_kick(pci->irqs.msi_vectors[i]->fd);
	pthread_mutex_unlock(&pci->irqs.lock);
}

uint32_t vfio_pci_msi_live(struct vfio_pci *pci)
{
	uint32_t live;

	pthread_mutex_lock(&pci->irqs.lock);
	live = (uint32_t)((1ull << pci->irqs.msi_count) - 1) & ~vfio_pci_irq_masked_vectors(pci);
	pthread_mutex_unlock(&pci->irqs.lock);
	return live;
}

int vfio_pci_irq_init(struct vfio_pci *pci, struct err *err)
{
	struct vfio_pci_irqs *irqs = &pci->irqs;

	if (!pci->msix_cap)
		return 0;
	irqs->msix_fds = malloc(pci->msix_config.vectors * sizeof(int));
	if (!irqs->msix_fds)
		return err_sys(err, -ENOMEM, "MSI-X");
	vfio_pci_irq_msix_forget(pci);
	return msix_adopt(&pci->function, pci->msix_cap, &pci->msix_config, &pci->msix, err);
}

void vfio_pci_irq_done(struct vfio_pci *pci)
{
	pthread_mutex_lock(&pci->irqs.lock);
	vfio_pci_irq_set_mode(pci, VFIO_MODE_NONE);
	pthread_mutex_unlock(&pci->irqs.lock);
	msix_destroy(take_ptr(pci->msix));
	free(take_ptr(pci->irqs.msix_fds));
}

void vfio_pci_irq_update(struct vfio_pci *pci)
{
	pthread_mutex_lock(&pci->irqs.lock);
	vfio_pci_irq_set_mode(pci, vfio_pci_irq_wanted_mode(pci));
	pthread_mutex_unlock(&pci->irqs.lock);
}
