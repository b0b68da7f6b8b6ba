/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pci.h: the saved state of a passed-through function: the emulated parts of the PCI function and of MSI-X, and the
 * pending vectors of MSI.
 *
 * A load writes the device's command register twice. First it enables decoding, because BARs are mapped for other
 * devices too, and the kernel maps none of a device that does not decode. It enables bus mastering only when everything
 * else is loaded.
 */
#include "vfio/pci.h"

#include "vfio/pci_internal.h"

struct vfio_pci_state {
	bool msix;
	uint32_t msi_pending;
};

static int vfio_pci_state_collect(void *object, void *into, struct err *err)
{
	struct vfio_pci *pci = object;

	*(struct vfio_pci_state *)into = (struct vfio_pci_state){pci->msix, vfio_pci_msi_pending(pci)};
	return 0;
}

static int vfio_pci_state_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	bool here = ((const struct vfio_pci *)object)->msix, there = ((const struct vfio_pci_state *)loaded)->msix;

	return here == there ? 0 : err_set(err, -EBADMSG, "it %s MSI-X", there ? "had" : "had no");
}

/* The config space has been loaded. */
static int vfio_pci_state_loaded(void *object, const void *loaded, struct err *err)
{
	struct vfio_pci *pci = object;
	uint32_t pending = ((const struct vfio_pci_state *)loaded)->msi_pending;

	if (pci->irqs.msi_cap)
		vfio_pci_msi_written(pci);
	vfio_pci_irq_update(pci);
	if (pending & vfio_pci_msi_live(pci))
		return err_set(err, -EBADMSG, "a pending message is not masked");
	vfio_pci_msi_kick(pci, pending);
	return 0;
}

static const struct state_field fields[] = {
	STATE_BOOL(struct vfio_pci_state, msix, 1),
	STATE_UINT(struct vfio_pci_state, msi_pending, 1),
};

static const struct state_table pci_state = {
	.name = "vfio-pci", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_APART(struct vfio_pci_state),
	.collect = vfio_pci_state_collect, .judge = vfio_pci_state_judge, .loaded = vfio_pci_state_loaded,
};

int vfio_pci_save(struct vfio_pci *pci, struct state_buffer *out, struct err *err)
{
	size_t start = out->len;
	int ret = 0;

	if (pci->fenced)
		return err_set(err, -EIO, "vfio %s: the device has failed and was taken from the guest", pci->id);
	ret = state_save(&pci_function_state, &pci->function, out, err);
	if (ret == 0)
		ret = state_save(&pci_state, pci, out, err);
	if (ret == 0 && pci->msix)
		ret = state_save(&msix_state, pci->msix, out, err);
	if (ret == 0)
		return 0;
	out->len = start;
	return err_prefix(err, ret, "vfio %s", pci->id);
}

static int vfio_pci_state_write_command(struct vfio_pci *pci, uint16_t command, struct err *err)
{
	uint8_t bytes[2];
	int ret;

	put_le16(bytes, command);
	ret = vfio_region_write(&pci->config, PCI_COMMAND, bytes, sizeof(bytes));
	return ret < 0 ? err_sys(err, ret, "its command register") : 0;
}

static int vfio_pci_state_load(struct vfio_pci *pci, const uint8_t *data, size_t len, struct err *err)
{
	int ret = vfio_pci_state_write_command(pci, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, err);

	if (ret == 0)
		ret = state_load_first(&pci_function_state, &pci->function, &data, &len, err);
	if (ret == 0)
		ret = state_load_first(&pci_state, pci, &data, &len, err);
	if (ret == 0 && pci->msix)
		ret = state_load_first(&msix_state, pci->msix, &data, &len, err);
	if (ret == 0 && len)
		ret = err_set(err, -EBADMSG, "%zu bytes too many", len);
	if (ret == 0 && !vfio_pci_irq_as_wanted(pci))
		ret = err_set(err, -EIO, "the host does not give the interrupts that the guest uses");
	return ret < 0 ? ret : vfio_pci_state_write_command(pci, get_le16(pci->function.config + PCI_COMMAND), err);
}

int vfio_pci_load(struct vfio_pci *pci, const void *data, size_t len, struct err *err)
{
	int ret = vfio_pci_state_load(pci, data, len, err);

	return ret < 0 ? err_prefix(err, ret, "vfio %s", pci->id) : 0;
}

void vfio_pci_kick(struct vfio_pci *pci)
{
	if (pci->msix)
		msix_kick(pci->msix);
	vfio_pci_msi_kick(pci, vfio_pci_msi_live(pci));
	vfio_pci_intx_kick(pci);
}
