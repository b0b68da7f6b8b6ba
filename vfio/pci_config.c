/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The config space of a passed-through function. Each bit is either the device's, behind the kernel's own
 * virtualization (vfio_pci_config.c in Linux), or emulated: the identity, BARs, command register, interrupt line, the
 * list of capabilities, MSI and MSI-X. The identity is read from the config region at the start; a VFIO device need not
 * have sysfs files for it.
 *
 * A table says which capabilities the guest sees, and why; the others are hidden.
 */
#include "vfio/pci_internal.h"

/* How a capability is passed on. */
enum cap_rule { CAP_HIDE, CAP_PASS, CAP_EXPRESS, CAP_MSI, CAP_MSIX };

struct cap_entry {
	uint16_t id;
	enum cap_rule rule;
	const char *why;
};

static const struct cap_entry caps[] = {
	{PCI_CAP_ID_PM, CAP_PASS, "the kernel controls the power states"},
	{PCI_CAP_ID_VPD, CAP_PASS, "the kernel carries out each access"},
	{PCI_CAP_ID_MSI, CAP_MSI, "the guest's messages are not the host's"},
	{PCI_CAP_ID_VNDR, CAP_PASS, "drivers look for their device's own"},
	{PCI_CAP_ID_SSVID, CAP_PASS, "identity"},
	{PCI_CAP_ID_EXP, CAP_EXPRESS, "shown as integrated into the root complex: there is no link to a port"},
	{PCI_CAP_ID_MSIX, CAP_MSIX, "the table is the guest's, not the device's"},
	{PCI_CAP_ID_SATA, CAP_PASS, "an index and data pair of the device's own"},
	{PCI_CAP_ID_AF, CAP_PASS, "the kernel carries out the reset"},
};

static const struct cap_entry extended_caps[] = {
	{PCI_EXT_CAP_ID_ERR, CAP_PASS, "drivers read it; the kernel guards its masks"},
	{PCI_EXT_CAP_ID_DSN, CAP_PASS, "identity"},
	{PCI_EXT_CAP_ID_VNDR, CAP_PASS, "drivers look for their device's own"},
	{PCI_EXT_CAP_ID_DVSEC, CAP_PASS, "drivers look for their device's own"},
	/* Hidden, among others: SR-IOV, ARI, resizable BARs (controlled by the host), ATS, PRI, PASID (the guest has no
	 * IOMMU), ACS, L1 substates, LTR (no port above). */
};

static enum cap_rule vfio_pci_config_rule_of(const struct cap_entry *table, size_t count, uint16_t id)
{
	for (size_t i = 0; i < count; i++)
		if (table[i].id == id)
			return table[i].rule;
	return CAP_HIDE;
}

/* Emulates [offset, offset + len) with the bytes in function.config; the guest may write the bits of writable, which
 * are those of the first four bytes. */
static void vfio_pci_config_emulate(struct vfio_pci *pci, unsigned int offset, unsigned int len, uint32_t writable)
{
	memset(pci->emulated + offset, 0xff, len);
	for (unsigned int i = 0; i < len; i++)
		pci->function.wmask[offset + i] = i < 4 ? (uint8_t)(writable >> (8 * i)) : 0;
}

/* The bytes of a capability that its rule needs. */
static unsigned int vfio_pci_config_cap_length(uint8_t id, const uint8_t *cap)
{
	uint16_t flags = get_le16(cap + 2);

	if (id == PCI_CAP_ID_MSIX)
		return 12;
	if (id == PCI_CAP_ID_EXP)
		return (flags & PCI_EXP_FLAGS_VERS) > 1 ? 0x3c : 0x14;
	if (id == PCI_CAP_ID_MSI)
		return (flags & PCI_MSI_FLAGS_64BIT ? 14 : 10) + (flags & PCI_MSI_FLAGS_MASKBIT ? 10 : 0);
	return 2;
}

/* An endpoint on the root bus is integrated into the root complex (PCIe base 7.5.3.2): no link registers. */
static void vfio_pci_config_show_express(struct vfio_pci *pci, unsigned int at)
{
	uint8_t *config = pci->function.config;
	uint16_t flags = get_le16(config + at + PCI_EXP_FLAGS);
	uint16_t type = (flags & PCI_EXP_FLAGS_TYPE) >> 4;

	if (type == PCI_EXP_TYPE_ENDPOINT || type == PCI_EXP_TYPE_LEG_END) {
		put_le16(config + at + PCI_EXP_FLAGS,
			 (uint16_t)((flags & ~(PCI_EXP_FLAGS_TYPE | PCI_EXP_FLAGS_SLOT)) | PCI_EXP_TYPE_RC_END << 4));
		memset(config + at + PCI_EXP_LNKCAP, 0, 8);
		vfio_pci_config_emulate(pci, at + PCI_EXP_LNKCAP, 8, 0);
		if ((flags & PCI_EXP_FLAGS_VERS) > 1) {
			memset(config + at + PCI_EXP_LNKCAP2, 0, 8);
			vfio_pci_config_emulate(pci, at + PCI_EXP_LNKCAP2, 8, 0);
		}
	}
	vfio_pci_config_emulate(pci, at + PCI_EXP_FLAGS, 2, 0);
}

static void vfio_pci_config_show_msi(struct vfio_pci *pci, unsigned int at)
{
	uint8_t *config = pci->function.config;
	uint16_t flags = get_le16(config + at + PCI_MSI_FLAGS);
	bool wide = flags & PCI_MSI_FLAGS_64BIT;

	put_le16(config + at + PCI_MSI_FLAGS, flags & ~(PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE));
	memset(config + at + PCI_MSI_ADDRESS_LO, 0, wide ? 10 : 6);
	vfio_pci_config_emulate(pci, at + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	vfio_pci_config_emulate(pci, at + PCI_MSI_ADDRESS_LO, 4, ~3u);
	if (wide)
		vfio_pci_config_emulate(pci, at + PCI_MSI_ADDRESS_HI, 4, ~0u);
	vfio_pci_config_emulate(pci, at + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 2, 0xffff);
	if (flags & PCI_MSI_FLAGS_MASKBIT) {
		unsigned int mask = at + (wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32);

		memset(config + mask, 0, 8);
		vfio_pci_config_emulate(pci, mask, 8, 0);
		memset(pci->function.wmask + mask, 0xff, 4);
	}
	pci->irqs.msi_cap = at;
}

/* Reads where table and pending bits are; msix_adopt handles the control word. */
static int vfio_pci_config_show_msix(struct vfio_pci *pci, unsigned int at, struct err *err)
{
	const uint8_t *config = pci->function.config;
	uint32_t table = get_le32(config + at + PCI_MSIX_TABLE), pba = get_le32(config + at + PCI_MSIX_PBA);

	if ((table & PCI_MSIX_TABLE_BIR) >= PCI_ROM_BAR || (pba & PCI_MSIX_PBA_BIR) >= PCI_ROM_BAR)
		return err_set(err, -EINVAL, "its MSI-X table is in no BAR");
	pci->msix_config = (struct msix_config){
		.vectors = (get_le16(config + at + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u,
		.table_bar = table & PCI_MSIX_TABLE_BIR,
		.table_offset = table & PCI_MSIX_TABLE_OFFSET,
		.pba_bar = pba & PCI_MSIX_PBA_BIR,
		.pba_offset = pba & PCI_MSIX_PBA_OFFSET,
		.msi = pci->machine.msi,
		.ops = &vfio_pci_msix_ops,
		.opaque = pci,
		.log = pci->machine.log,
	};
	pci->msix_cap = at;
	vfio_pci_config_emulate(pci, at + PCI_MSIX_FLAGS, 10, 0);
	return 0;
}

/* Keeps where the capabilities are, shown or not, through which a guest stops the device: see vfio_pci_config_stops. */
static void vfio_pci_config_note_cap(struct vfio_pci *pci, uint8_t id, unsigned int at)
{
	if (id == PCI_CAP_ID_PM)
		pci->pm_cap = at;
	else if (id == PCI_CAP_ID_EXP)
		pci->express_cap = at;
	else if (id == PCI_CAP_ID_AF)
		pci->af_cap = at;
}

/* Walks the list and removes the hidden capabilities. */
static int vfio_pci_config_init_caps(struct vfio_pci *pci, struct err *err)
{
	uint8_t *config = pci->function.config;
	unsigned int at = config[PCI_CAPABILITY_LIST] & ~3u, link = PCI_CAPABILITY_LIST;
	bool has_chain = get_le16(config + PCI_STATUS) & PCI_STATUS_CAP_LIST;

	config[link] = 0;
	vfio_pci_config_emulate(pci, PCI_CAPABILITY_LIST, 1, 0);
	/* What is emulated has been visited already: a circular list ends there. */
	while (has_chain && at >= PCI_STD_HEADER_SIZEOF && !pci->emulated[at]) {
		uint8_t id = config[at], next = config[at + 1] & (uint8_t)~3u;
		enum cap_rule rule = vfio_pci_config_rule_of(caps, ARRAY_SIZE(caps), id);
		int ret = 0;

		if (at + vfio_pci_config_cap_length(id, config + at) > PCI_CFG_SPACE_SIZE)
			rule = CAP_HIDE;
		vfio_pci_config_emulate(pci, at, 2, 0);
		if (rule != CAP_HIDE) {
			config[link] = (uint8_t)at;
			link = at + 1;
			config[link] = 0;
		} else {
			log_debug(pci->machine.log, "vfio %s: capability 0x%02x is not shown", pci->device->host.name,
				  id);
			config[at] = config[at + 1] = 0;
		}
		if (rule == CAP_EXPRESS)
			vfio_pci_config_show_express(pci, at);
		else if (rule == CAP_MSI)
			vfio_pci_config_show_msi(pci, at);
		else if (rule == CAP_MSIX)
			ret = vfio_pci_config_show_msix(pci, at, err);
		if (ret < 0)
			return ret;
		vfio_pci_config_note_cap(pci, id, at);
		at = next;
	}
	return 0;
}

/* The same for extended capabilities. The first one must stay: if it is hidden, it loses only its ID. */
static void vfio_pci_config_init_extended_caps(struct vfio_pci *pci)
{
	uint8_t *config = pci->function.config;
	unsigned int at = PCI_CFG_SPACE_SIZE, link = 0;

	while (at >= PCI_CFG_SPACE_SIZE && at <= PCI_CONFIG_SIZE - 4 && !pci->emulated[at]) {
		uint32_t header = get_le32(config + at);
		unsigned int next = PCI_EXT_CAP_NEXT(header);
		bool shown = vfio_pci_config_rule_of(extended_caps, ARRAY_SIZE(extended_caps),
						     PCI_EXT_CAP_ID(header)) == CAP_PASS;

		if (!header || header == 0xffffffff)
			break;
		vfio_pci_config_emulate(pci, at, 4, 0);
		if (!shown)
			log_debug(pci->machine.log, "vfio %s: extended capability 0x%04x is not shown",
				  pci->device->host.name, PCI_EXT_CAP_ID(header));
		put_le32(config + at, shown ? header & 0xfffff : at == PCI_CFG_SPACE_SIZE ? 0xffff : 0);
		if (shown || at == PCI_CFG_SPACE_SIZE) {
			if (link)
				put_le32(config + link, (get_le32(config + link) & 0xfffff) | at << 20);
			link = at;
		}
		at = next;
	}
}

/* low is the device's register. */
static int vfio_pci_config_init_bar(struct vfio_pci *pci, unsigned int index, uint32_t low, struct err *err)
{
	struct vfio_pci_bar *bar = &pci->bars[index];
	enum pci_bar_kind kind = PCI_BAR_MEM32;
	uint64_t size = bar->region.size;

	if (!size)
		return 0;
	if (low & PCI_BASE_ADDRESS_SPACE_IO)
		kind = PCI_BAR_IO;
	else if ((low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64)
		kind = PCI_BAR_MEM64;
	if (!is_power_of_two(size))
		return err_set(err, -EINVAL, "BAR %u has %llu bytes, which is not a power of two", index,
			       (unsigned long long)size);
	if (pci_set_bar(&pci->function, index, kind, low & PCI_BASE_ADDRESS_MEM_PREFETCH, size, &vfio_pci_bar_ops,
			bar) < 0)
		return err_set(err, -EINVAL, "BAR %u of %llu bytes is invalid", index, (unsigned long long)size);
	return 0;
}

/* Emulates the header except status, cache line, latency and BIST. The device gets writes to the command too. */
static void vfio_pci_config_init_header(struct vfio_pci *pci)
{
	uint8_t *config = pci->function.config;

	config[PCI_HEADER_TYPE] &= 0x7f; /* passed through alone, whatever else the device has */
	vfio_pci_config_emulate(pci, PCI_VENDOR_ID, 4, 0);
	put_le16(config + PCI_COMMAND, 0);
	vfio_pci_config_emulate(pci, PCI_COMMAND, 2,
				PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INVALIDATE |
					PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	vfio_pci_config_emulate(pci, PCI_CLASS_REVISION, 4, 0);
	vfio_pci_config_emulate(pci, PCI_HEADER_TYPE, 1, 0);
	memset(config + PCI_BASE_ADDRESS_0, 0, 24);
	vfio_pci_config_emulate(pci, PCI_BASE_ADDRESS_0, 24, 0);
	vfio_pci_config_emulate(pci, PCI_CARDBUS_CIS, 8, 0);
	memset(config + PCI_ROM_ADDRESS, 0, 4);
	vfio_pci_config_emulate(pci, PCI_ROM_ADDRESS, 4, 0);
	vfio_pci_config_emulate(pci, PCI_INTERRUPT_LINE, 2, 0xff);
	config[PCI_INTERRUPT_LINE] = 0;
}

static void vfio_pci_config_init_power(struct vfio_pci *pci)
{
	if (pci->pm_cap)
		pci->power = pci->function.config[pci->pm_cap + PCI_PM_CTRL] & PCI_PM_CTRL_STATE_MASK;
}

int vfio_pci_config_init(struct vfio_pci *pci, struct err *err)
{
	struct pci_function *function = &pci->function;
	uint64_t size = MIN(pci->config.size, (uint64_t)PCI_CONFIG_SIZE);
	uint8_t bars[24];
	int ret;

	memset(function->wmask, 0, sizeof(function->wmask));
	memset(function->config, 0, sizeof(function->config));
	if (size < PCI_STD_HEADER_SIZEOF)
		return err_set(err, -EINVAL, "it has no config space");
	ret = vfio_region_read(&pci->config, 0, function->config, size);
	if (ret < 0)
		return err_sys(err, ret, "read its config space");
	if (get_le32(function->config) == 0xffffffff)
		return err_set(err, -EIO, "it does not answer: its config space reads as ones");
	if ((function->config[PCI_HEADER_TYPE] & 0x7f) != PCI_HEADER_TYPE_NORMAL)
		return err_set(err, -EINVAL,
			       "it is a bridge; pass the devices behind it through, not the bridge itself");
	if (!pci->irqs.intx.count)
		function->config[PCI_INTERRUPT_PIN] = 0;
	/* Emulates zeros behind the end of the device's config space. */
	memset(pci->emulated, 0, sizeof(pci->emulated));
	vfio_pci_config_emulate(pci, (unsigned int)size, PCI_CONFIG_SIZE - (unsigned int)size, 0);
	memcpy(bars, function->config + PCI_BASE_ADDRESS_0, sizeof(bars));
	vfio_pci_config_init_header(pci);
	for (unsigned int i = 0; i < PCI_ROM_BAR && ret == 0; i += function->bars[i].kind == PCI_BAR_MEM64 ? 2 : 1)
		ret = vfio_pci_config_init_bar(pci, i, get_le32(bars + 4 * i), err);
	if (ret == 0)
		ret = vfio_pci_config_init_caps(pci, err);
	if (ret == 0 && size > PCI_CFG_SPACE_SIZE)
		vfio_pci_config_init_extended_caps(pci);
	vfio_pci_config_init_power(pci);
	return ret;
}

/* ---- Accesses ---- */

/* Once it is fenced, nothing lets it decode or do DMA again. */
static int vfio_pci_config_set_command(struct vfio_pci *pci, uint16_t command)
{
	uint8_t bytes[2];
	int ret = 0;

	put_le16(bytes, command);
	pthread_mutex_lock(&pci->map_lock);
	if (!pci->fenced)
		ret = vfio_region_write(&pci->config, PCI_COMMAND, bytes, sizeof(bytes));
	pthread_mutex_unlock(&pci->map_lock);
	return ret;
}

static uint8_t vfio_pci_config_power(const struct vfio_pci *pci)
{
	uint8_t control[2];

	if (!pci->pm_cap)
		return 0;
	if (vfio_region_read(&pci->config, pci->pm_cap + PCI_PM_CTRL, control, sizeof(control)) < 0)
		return 3;
	return control[0] & PCI_PM_CTRL_STATE_MASK;
}

/* After a hold. Back in D0, or after a reset, the device may have an older command register. */
static void vfio_pci_config_release(struct vfio_pci *pci)
{
	uint8_t power = vfio_pci_config_power(pci);

	if (!power && vfio_pci_config_set_command(pci, get_le16(pci->function.config + PCI_COMMAND)) < 0)
		power = 3;
	vfio_pci_bar_release(pci, power);
}

/* Whether an access has the byte with the power state, and another one than the BARs follow. */
static bool vfio_pci_config_other_power(const struct vfio_pci *pci, unsigned int offset, const uint8_t *data,
					unsigned int len)
{
	unsigned int at = pci->pm_cap + PCI_PM_CTRL;

	return pci->pm_cap && at >= offset && at - offset < len &&
	       (data[at - offset] & PCI_PM_CTRL_STATE_MASK) != pci->power;
}

static bool vfio_pci_config_all_emulated(const struct vfio_pci *pci, unsigned int offset, unsigned int len)
{
	for (unsigned int i = 0; i < len; i++)
		if (pci->emulated[offset + i] != 0xff)
			return false;
	return true;
}

void vfio_pci_config_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len)
{
	struct vfio_pci *pci = container_of(function, struct vfio_pci, function);
	uint8_t device[4], ours[4], *out = data;

	pci_config_read(function, offset, ours, len);
	if (vfio_pci_config_all_emulated(pci, offset, len) || pci->fenced ||
	    vfio_region_read(&pci->config, offset, device, len) < 0)
		memset(device, 0xff, len);
	for (unsigned int i = 0; i < len; i++) {
		uint8_t mask = pci->emulated[offset + i];

		out[i] = pci->fenced ? 0xff : (uint8_t)((device[i] & ~mask) | (ours[i] & mask));
	}
	/* The host has reset it: the guest sees that here, and will not ask for D0. */
	if (!pci->fenced && vfio_pci_config_other_power(pci, offset, out, len)) {
		vfio_pci_bar_hold(pci);
		vfio_pci_config_release(pci);
	}
}

/*
 * Writes the device's bits to the device, which keeps its value of the emulated ones. Emulated bytes before and after
 * them are not touched: vfio_pci_config_set_command writes the command register, beside the status.
 */
static void vfio_pci_config_forward(struct vfio_pci *pci, unsigned int offset, const uint8_t *data, unsigned int len)
{
	uint8_t device[4];

	for (; len && pci->emulated[offset] == 0xff; offset++, data++)
		len--;
	while (len && pci->emulated[offset + len - 1] == 0xff)
		len--;
	if (!len || vfio_region_read(&pci->config, offset, device, len) < 0)
		return;
	for (unsigned int i = 0; i < len; i++) {
		uint8_t mask = pci->emulated[offset + i];

		device[i] = (uint8_t)((device[i] & mask) | (data[i] & ~mask));
	}
	if (vfio_region_write(&pci->config, offset, device, len) < 0)
		log_debug(pci->machine.log, "vfio %s: config write of %u bytes at 0x%x refused", pci->device->host.name,
			  len, offset);
}

/*
 * The guest writes the command register. The device decodes from before the guest can reach it until after the guest
 * cannot any more: while the BARs change, it has the bits of both values. If it does not take them, it has no BARs.
 */
static void vfio_pci_config_write_command(struct vfio_pci *pci, unsigned int offset, const void *data, unsigned int len)
{
	uint8_t *config = pci->function.config, after[8];
	const uint8_t *wmask = pci->function.wmask;
	uint16_t old = get_le16(config + PCI_COMMAND), now, both;

	memcpy(after, config, sizeof(after));
	memcpy(after + offset, data, len);
	now = get_le16(after + PCI_COMMAND) & get_le16(wmask + PCI_COMMAND);
	both = old | now;
	if (both != old && vfio_pci_config_set_command(pci, both) < 0)
		vfio_pci_bar_release(pci, 3);
	pci_config_write(&pci->function, offset, data, len);
	if (now != both)
		vfio_pci_config_set_command(pci, now);
}

/* Whether a write sets one of these bits of the byte at reg. */
static bool vfio_pci_config_sets(unsigned int offset, const uint8_t *data, unsigned int len, unsigned int reg,
				 uint8_t bits)
{
	return reg >= offset && reg - offset < len && data[reg - offset] & bits;
}

/*
 * Whether a write changes the power state or resets the function: the kernel then revokes the maps of its BARs. A
 * device that took no command may take this one.
 */
static bool vfio_pci_config_stops(const struct vfio_pci *pci, unsigned int offset, const uint8_t *data,
				  unsigned int len)
{
	return vfio_pci_config_other_power(pci, offset, data, len) ||
	       (pci->power && ranges_overlap(offset, len, PCI_COMMAND, 2)) ||
	       (pci->express_cap && vfio_pci_config_sets(offset, data, len, pci->express_cap + PCI_EXP_DEVCTL + 1,
							 PCI_EXP_DEVCTL_BCR_FLR >> 8)) ||
	       (pci->af_cap && vfio_pci_config_sets(offset, data, len, pci->af_cap + PCI_AF_CTRL, PCI_AF_CTRL_FLR));
}

void vfio_pci_config_write(struct pci_function *function, unsigned int offset, const void *data, unsigned int len)
{
	struct vfio_pci *pci = container_of(function, struct vfio_pci, function);
	bool stops;

	if (pci->fenced)
		return;
	stops = vfio_pci_config_stops(pci, offset, data, len);
	if (stops)
		vfio_pci_bar_hold(pci);
	if (ranges_overlap(offset, len, PCI_COMMAND, 2))
		vfio_pci_config_write_command(pci, offset, data, len);
	else
		pci_config_write(function, offset, data, len);
	vfio_pci_config_forward(pci, offset, data, len);
	if (stops)
		vfio_pci_config_release(pci);
	if (pci->msix)
		msix_config_written(pci->msix);
	if (pci->irqs.msi_cap && ranges_overlap(offset, len, pci->irqs.msi_cap, 24))
		vfio_pci_msi_written(pci);
}
