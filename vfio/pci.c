/* SPDX-License-Identifier: Apache-2.0 */
/* See pci.h. This file creates and destroys the function, and handles the device's error and request interrupts. */
#include "vfio/pci.h"

#include "vfio/pci_internal.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

/* ---- Error and request ---- */

void vfio_pci_cut_off(struct vfio_pci *pci)
{
	static const uint8_t command[2] = {0};

	vfio_pci_bar_fence(pci);
	vfio_pci_irq_update(pci);
	/* Stops its DMA too, if the device still responds. */
	vfio_region_write(&pci->config, PCI_COMMAND, command, sizeof(command));
}

static void vfio_pci_on_error(void *opaque, uint32_t events)
{
	struct vfio_pci *pci = opaque;

	if (!eventfd_drain(pci->error_fd) || pci->fenced)
		return;
	log_error(pci->machine.log, "vfio %s: an error that it cannot recover from; it is cut off, the guest runs on",
		  pci->device->host.name);
	vfio_pci_cut_off(pci);
}

static void vfio_pci_on_request(void *opaque, uint32_t events)
{
	struct vfio_pci *pci = opaque;

	/* The kernel signals it every few seconds until the device is released; the owner reports it once. */
	if (eventfd_drain(pci->request_fd))
		pci->machine.wanted(pci->machine.wanted_opaque, pci);
}

static int vfio_pci_listen_to(struct vfio_pci *pci, uint32_t index, int *fd, event_fn *fn, struct event_source **source,
			      struct err *err)
{
	struct vfio_irq irq;
	int ret;

	vfio_irq_get(pci->device, index, &irq);
	if (!irq.count)
		return 0;
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (*fd < 0)
		return err_sys(err, -errno, "eventfd");
	ret = event_loop_watch(pci->machine.loop, *fd, EPOLLIN, fn, pci, source, err);
	if (ret < 0)
		return ret;
	ret = vfio_irq_trigger(pci->device, index, 0, 1, fd);
	return ret < 0 ? err_sys(err, ret, "eventfd of interrupt index %u", index) : 0;
}

/* ---- Life cycle ---- */

static const struct pci_function_ops function_ops = {
	.config_read = vfio_pci_config_read,
	.config_write = vfio_pci_config_write,
	.bar_moved = vfio_pci_bar_moved,
	.avoid = vfio_pci_bar_avoid,
};

/* Makes an opened device ready for the bus. */
static int vfio_pci_prepare(struct vfio_pci *pci, const struct vfio_pci_options *options, struct err *err)
{
	int ret;

	if (!(pci->device->flags & VFIO_DEVICE_FLAGS_PCI))
		return err_set(err, -EINVAL, "it is not a PCI device");
	ret = vfio_pci_bar_get_regions(pci, err);
	if (ret < 0)
		return ret;
	vfio_irq_get(pci->device, VFIO_PCI_INTX_IRQ_INDEX, &pci->irqs.intx);
	vfio_irq_get(pci->device, VFIO_PCI_MSI_IRQ_INDEX, &pci->irqs.msi);
	vfio_irq_get(pci->device, VFIO_PCI_MSIX_IRQ_INDEX, &pci->irqs.msix);
	pci_function_init(&pci->function, &function_ops, pci->id, 0, 0, 0, 0);
	pci->function.ours = pci->emulated;
	ret = vfio_pci_config_init(pci, err);
	if (ret == 0 && pci->msix_cap)
		ret = vfio_pci_bar_check_msix(pci, err);
	if (ret == 0)
		ret = vfio_pci_bar_init_rom(pci, options, err);
	if (ret == 0)
		ret = vfio_pci_irq_init(pci, err);
	if (ret < 0)
		return ret;
	vfio_pci_bar_map_regions(pci);
	ret = vfio_pci_listen_to(pci, VFIO_PCI_ERR_IRQ_INDEX, &pci->error_fd, vfio_pci_on_error, &pci->error, err);
	return ret < 0 ? ret : vfio_pci_listen_to(pci, VFIO_PCI_REQ_IRQ_INDEX, &pci->request_fd, vfio_pci_on_request,
						  &pci->request, err);
}

/* Frees everything except the device. */
static void vfio_pci_take_apart(struct vfio_pci *pci)
{
	event_source_remove(pci->error);
	event_source_remove(pci->request);
	if (pci->error_fd >= 0)
		vfio_irq_disable(pci->device, VFIO_PCI_ERR_IRQ_INDEX);
	if (pci->request_fd >= 0)
		vfio_irq_disable(pci->device, VFIO_PCI_REQ_IRQ_INDEX);
	fd_close(&pci->error_fd);
	fd_close(&pci->request_fd);
	vfio_pci_irq_done(pci);
	pci_bus_remove(&pci->function);
	vfio_pci_bar_done(pci);
	pthread_mutex_destroy(&pci->irqs.lock);
	pthread_mutex_destroy(&pci->map_lock);
	free(pci->id);
	free(pci);
}

int vfio_pci_create(struct vfio_device **device, const struct vfio_pci_options *options,
		    const struct vfio_pci_machine *machine, struct vfio_pci **ret, struct err *err)
{
	struct vfio_pci *pci = calloc(1, sizeof(*pci));
	int code;

	if (!pci)
		return err_sys(err, -ENOMEM, "vfio %s", (*device)->host.name);
	pci->device = *device;
	pci->machine = *machine;
	pci->error_fd = pci->request_fd = pci->irqs.trigger_fd = pci->irqs.resample_fd = -1;
	pthread_mutex_init(&pci->irqs.lock, NULL);
	pthread_mutex_init(&pci->map_lock, NULL);
	pci->id = strdup(options->id);
	code = pci->id ? vfio_pci_prepare(pci, options, err) : err_sys(err, -ENOMEM, "name");
	if (code == 0)
		code = pci_bus_add(machine->bus, &pci->function, options->devfn, err);
	if (code < 0) {
		err_prefix(err, code, "--vfio %s", pci->device->host.name);
		vfio_pci_take_apart(pci);
		return code;
	}
	vfio_pci_irq_update(pci);
	*device = NULL;
	*ret = pci;
	return 0;
}

/* A device answers a read after all that it has written before (PCI Express base specification 2.4.1). */
void vfio_pci_stop_dma(struct vfio_pci *pci)
{
	uint8_t command[2];

	if (vfio_region_read(&pci->config, PCI_COMMAND, command, sizeof(command)) < 0 ||
	    !(command[0] & PCI_COMMAND_MASTER))
		return;
	command[0] &= (uint8_t)~PCI_COMMAND_MASTER;
	if (vfio_region_write(&pci->config, PCI_COMMAND, command, sizeof(command)) == 0)
		vfio_region_read(&pci->config, PCI_COMMAND, command, sizeof(command));
}

struct vfio_device *vfio_pci_remove(struct vfio_pci *pci)
{
	struct vfio_device *device;

	if (!pci)
		return NULL;
	device = pci->device;
	vfio_pci_stop_dma(pci);
	vfio_pci_take_apart(pci);
	return device;
}

void vfio_pci_get_info(struct vfio_pci *pci, struct vfio_pci_info *info)
{
	static const char *const modes[] = {
		[VFIO_MODE_NONE] = "none", [VFIO_MODE_INTX] = "INTx", [VFIO_MODE_MSI] = "MSI",
		[VFIO_MODE_MSIX] = "MSI-X",
	};

	*info = (struct vfio_pci_info){
		.id = pci->id, .device = pci->device, .devfn = pci->function.devfn, .reset = pci->device->reset,
		.vendor = get_le16(pci->function.config + PCI_VENDOR_ID),
		.product = get_le16(pci->function.config + PCI_DEVICE_ID),
	};
	pthread_mutex_lock(&pci->irqs.lock);
	info->interrupts = modes[pci->irqs.mode];
	info->vectors = pci->irqs.mode == VFIO_MODE_INTX ? 1 : pci->irqs.mode == VFIO_MODE_MSI ? pci->irqs.msi_count :
			pci->irqs.mode == VFIO_MODE_MSIX ? pci->irqs.msix_used : 0;
	pthread_mutex_unlock(&pci->irqs.lock);
	pthread_mutex_lock(&pci->map_lock);
	info->fenced = pci->fenced;
	for (unsigned int i = 0; i < PCI_BARS; i++)
		info->mapped_bars |= pci->bars[i].mapped ? 1u << i : 0;
	pthread_mutex_unlock(&pci->map_lock);
}
