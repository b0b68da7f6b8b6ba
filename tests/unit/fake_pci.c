/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_pci.h: regions, interrupts and resets, with the rules of drivers/vfio/pci. */
#include "tests/unit/fake_internal.h"

#include "core/irq.h"

#include <stdio.h>
#include <sys/mman.h>

/* ---- describing ---- */

struct fake_pci *fake_pci(struct fake_device *device)
{
	struct fake_pci *pci = calloc(1, sizeof(*pci));

	if (!pci)
		fake_die("memory");
	device->pci = pci;
	put_le32(pci->config + PCI_VENDOR_ID, 0x00101b36);
	put_le32(pci->config + PCI_CLASS_REVISION, 0x01080202);
	pci->config[PCI_INTERRUPT_PIN] = 1;
	pci->regions[VFIO_PCI_CONFIG_REGION_INDEX] = (struct fake_region){.size = 4096, .flags = FAKE_REGION_RW};
	pci->irqs[VFIO_PCI_INTX_IRQ_INDEX] = (struct fake_irq){
		.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED, .count = 1};
	return pci;
}

void fake_pci_bar(struct fake_pci *pci, unsigned int bar, uint32_t low, uint64_t size, uint32_t flags)
{
	pci->regions[bar] = (struct fake_region){.size = size, .flags = flags};
	put_le32(pci->config + PCI_BASE_ADDRESS_0 + 4 * bar, 0xabc00000 | low);
}

void fake_pci_area(struct fake_pci *pci, unsigned int bar, uint64_t offset, uint64_t size)
{
	struct fake_region *region = &pci->regions[bar];

	if (region->area_count == FAKE_AREAS)
		fake_die("areas");
	region->areas[region->area_count].offset = offset;
	region->areas[region->area_count++].size = size;
}

unsigned int fake_pci_cap(struct fake_pci *pci, unsigned int at, uint8_t id)
{
	unsigned int link = PCI_CAPABILITY_LIST;

	while (pci->config[link])
		link = pci->config[link] + 1u;
	pci->config[link] = (uint8_t)at;
	pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	pci->config[at] = id;
	return at;
}

unsigned int fake_pci_ext_cap(struct fake_pci *pci, unsigned int at, uint16_t id)
{
	unsigned int link = 256;

	while (at > 256 && PCI_EXT_CAP_NEXT(get_le32(pci->config + link)))
		link = PCI_EXT_CAP_NEXT(get_le32(pci->config + link));
	if (at > 256)
		put_le32(pci->config + link, get_le32(pci->config + link) | at << 20);
	put_le32(pci->config + at, 0x10000u | id);
	return at;
}

unsigned int fake_pci_msi(struct fake_pci *pci, unsigned int at, uint16_t flags, unsigned int log2_vectors)
{
	fake_pci_cap(pci, at, PCI_CAP_ID_MSI);
	put_le16(pci->config + at + PCI_MSI_FLAGS, (uint16_t)(flags | log2_vectors << 1));
	pci->irqs[VFIO_PCI_MSI_IRQ_INDEX] = (struct fake_irq){.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE,
							      .count = 1u << log2_vectors};
	return at;
}

unsigned int fake_pci_msix(struct fake_pci *pci, unsigned int at, unsigned int vectors, uint32_t table, uint32_t pba)
{
	fake_pci_cap(pci, at, PCI_CAP_ID_MSIX);
	put_le16(pci->config + at + PCI_MSIX_FLAGS, (uint16_t)(vectors - 1));
	put_le32(pci->config + at + PCI_MSIX_TABLE, table);
	put_le32(pci->config + at + PCI_MSIX_PBA, pba);
	pci->irqs[VFIO_PCI_MSIX_IRQ_INDEX] = (struct fake_irq){.flags = VFIO_IRQ_INFO_EVENTFD, .count = vectors};
	return at;
}

/* ---- the journal ---- */

void fake_note(struct fake_kernel *fake, const char *word, uint64_t number)
{
	size_t room = sizeof(fake->journal) - fake->journal_len;
	int n = snprintf(fake->journal + fake->journal_len, room, "%s%s %llx", fake->journal_len ? ", " : "", word,
			 (unsigned long long)number);

	if (n < 0 || (size_t)n >= room)
		fake_die("journal");
	fake->journal_len += (size_t)n;
}

const char *fake_journal(struct fake_kernel *fake)
{
	static char last[sizeof(fake->journal)];

	memcpy(last, fake->journal, sizeof(last));
	fake->journal[0] = 0;
	fake->journal_len = 0;
	return last;
}

/* ---- regions ---- */

static int region_info(const struct fake_pci *pci, struct vfio_region_info *info)
{
	const struct fake_region *region = &pci->regions[info->index];
	struct vfio_region_info_cap_sparse_mmap *sparse = (void *)(info + 1);
	uint32_t need = sizeof(*info);

	if (info->index >= VFIO_PCI_NUM_REGIONS || info->index == VFIO_PCI_VGA_REGION_INDEX)
		return -EINVAL;
	info->flags = region->flags;
	info->size = region->size;
	info->offset = (uint64_t)info->index << FAKE_REGION_SHIFT;
	info->cap_offset = 0;
	if (!region->area_count)
		return 0;
	info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
	need += (uint32_t)(sizeof(*sparse) + region->area_count * sizeof(sparse->areas[0]));
	if (info->argsz < need) {
		info->argsz = need;
		return 0;
	}
	info->argsz = need;
	info->cap_offset = sizeof(*info);
	*sparse = (struct vfio_region_info_cap_sparse_mmap){
		.header = {.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1}, .nr_areas = region->area_count + region->more_areas};
	for (unsigned int i = 0; i < region->area_count; i++) {
		sparse->areas[i].offset = region->areas[i].offset;
		sparse->areas[i].size = region->areas[i].size;
	}
	return 0;
}

static struct fake_region *region_at(struct fake_pci *pci, uint64_t *offset, size_t len)
{
	unsigned int index = (unsigned int)(*offset >> FAKE_REGION_SHIFT);

	*offset &= (1ull << FAKE_REGION_SHIFT) - 1;
	if (!pci || index >= VFIO_PCI_NUM_REGIONS || *offset > pci->regions[index].size ||
	    len > pci->regions[index].size - *offset)
		return NULL;
	return &pci->regions[index];
}

/* A byte of a BAR or a ROM says which one it is. */
static uint8_t pattern(uint64_t offset)
{
	return (uint8_t)(offset * 7 + 1);
}

ssize_t fake_region_read(struct fake_kernel *fake, struct fake_device *device, void *buf, size_t len, uint64_t offset)
{
	struct fake_region *region = region_at(device->pci, &offset, len);
	uint8_t *out = buf;

	if (!region || region->refuse)
		return region ? region->refuse : -EINVAL;
	region->reads++;
	if (region == &device->pci->regions[VFIO_PCI_CONFIG_REGION_INDEX])
		memcpy(buf, device->pci->config + offset, len);
	else
		for (size_t i = 0; i < len; i++)
			out[i] = pattern(offset + i);
	return (ssize_t)len;
}

static unsigned int find_cap(const struct fake_pci *pci, uint8_t id)
{
	unsigned int at = pci->config[PCI_CAPABILITY_LIST];

	while (at && pci->config[at] != id)
		at = pci->config[at + 1];
	return at;
}

static uint8_t power_of(const struct fake_pci *pci)
{
	unsigned int pm = find_cap(pci, PCI_CAP_ID_PM);

	return pm ? pci->config[pm + PCI_PM_CTRL] & PCI_PM_CTRL_STATE_MASK : 0;
}

bool fake_decodes(const struct fake_device *device)
{
	return !device->pci || (device->pci->config[PCI_COMMAND] & PCI_COMMAND_MEMORY && power_of(device->pci) < 3);
}

bool fake_masters(const struct fake_device *device)
{
	return device->pci && device->pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

void fake_masters_off(struct fake_device *device)
{
	if (device->pci)
		device->pci->config[PCI_COMMAND] &= (uint8_t)~PCI_COMMAND_MASTER;
}

void fake_pci_was_reset(struct fake_kernel *fake, struct fake_device *device)
{
	unsigned int pm = device->pci ? find_cap(device->pci, PCI_CAP_ID_PM) : 0;

	fake_revoke(fake, device);
	if (pm)
		device->pci->config[pm + PCI_PM_CTRL] &= (uint8_t)~PCI_PM_CTRL_STATE_MASK;
}

static void power_written(struct fake_kernel *fake, struct fake_device *device, uint8_t old)
{
	struct fake_pci *pci = device->pci;
	uint8_t *control = pci->config + find_cap(pci, PCI_CAP_ID_PM) + PCI_PM_CTRL;

	if (pci->stuck && old == 3)
		*control |= 3;
	fake_note(fake, "power", power_of(pci));
	if (power_of(pci) == 3 && old < 3)
		pci->asleep_command = get_le16(pci->config + PCI_COMMAND);
	else if (old == 3 && power_of(pci) < 3)
		put_le16(pci->config + PCI_COMMAND, pci->asleep_command);
}

/* A reset bit of a capability has no memory. */
static void reset_written(struct fake_kernel *fake, struct fake_device *device, unsigned int cap, unsigned int at,
			  uint8_t bit)
{
	if (!cap || !(device->pci->config[cap + at] & bit))
		return;
	device->pci->config[cap + at] &= (uint8_t)~bit;
	fake_note(fake, "function reset", cap);
	fake_pci_was_reset(fake, device);
}

static void config_written(struct fake_kernel *fake, struct fake_device *device, uint64_t offset, size_t len,
			   uint8_t power)
{
	struct fake_pci *pci = device->pci;

	if (offset == PCI_COMMAND && len == 2)
		fake_note(fake, "command", get_le16(pci->config + PCI_COMMAND));
	if (power_of(pci) != power)
		power_written(fake, device, power);
	if (!fake_decodes(device))
		fake_revoke(fake, device);
	reset_written(fake, device, find_cap(pci, PCI_CAP_ID_EXP), PCI_EXP_DEVCTL + 1, PCI_EXP_DEVCTL_BCR_FLR >> 8);
	reset_written(fake, device, find_cap(pci, PCI_CAP_ID_AF), PCI_AF_CTRL, PCI_AF_CTRL_FLR);
}

ssize_t fake_region_write(struct fake_kernel *fake, struct fake_device *device, const void *buf, size_t len,
			  uint64_t offset)
{
	struct fake_region *region = region_at(device->pci, &offset, len);

	if (!region || region->refuse)
		return region ? region->refuse : -EINVAL;
	region->writes++;
	region->written_at = offset;
	region->written = 0;
	memcpy(&region->written, buf, MIN(len, sizeof(region->written)));
	if (region == &device->pci->regions[VFIO_PCI_CONFIG_REGION_INDEX]) {
		uint8_t power = power_of(device->pci);

		memcpy(device->pci->config + offset, buf, len);
		config_written(fake, device, offset, len, power);
	}
	return (ssize_t)len;
}

int fake_region_mmap(struct fake_kernel *fake, struct fake_device *device, void *addr, size_t len, int prot, int flags,
		     uint64_t offset, void **ret)
{
	struct fake_region *region = region_at(device->pci, &offset, 0);
	bool inside = region && !region->area_count && len <= align_up(region->size, 4096) - offset;
	void *p;

	for (unsigned int i = 0; region && i < region->area_count; i++)
		inside |= offset >= region->areas[i].offset &&
			  offset + len <= region->areas[i].offset + region->areas[i].size;
	if (!inside || !len || (len | offset) % 4096 || !(region->flags & VFIO_REGION_INFO_FLAG_MMAP) ||
	    device->pci->no_mmap)
		return -EINVAL;
	p = mmap(addr, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (flags & MAP_FIXED), -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	fake->mapped_bytes += len;
	*ret = p;
	return 0;
}

/* ---- interrupts ---- */

static void irq_off(struct fake_irq *irq)
{
	irq->enabled = 0;
	irq->masked = irq->pending = false;
	irq->unmask_fd = -1;
	for (unsigned int i = 0; i < FAKE_VECTORS; i++)
		irq->fds[i] = -1;
}

void fake_irqs_off(struct fake_pci *pci)
{
	for (unsigned int i = 0; pci && i < VFIO_PCI_NUM_IRQS; i++)
		irq_off(&pci->irqs[i]);
}

/* INTx, MSI and MSI-X: one at a time. */
static bool other_mode(const struct fake_pci *pci, uint32_t index)
{
	for (uint32_t i = VFIO_PCI_INTX_IRQ_INDEX; i <= VFIO_PCI_MSIX_IRQ_INDEX; i++)
		if (i != index && index <= VFIO_PCI_MSIX_IRQ_INDEX && pci->irqs[i].enabled)
			return true;
	return false;
}

static int trigger(struct fake_pci *pci, const struct vfio_irq_set *set)
{
	struct fake_irq *irq = &pci->irqs[set->index];
	const int32_t *fds = (const void *)set->data;

	if (set->flags & VFIO_IRQ_SET_DATA_NONE) {
		if (set->count || (set->index <= VFIO_PCI_MSIX_IRQ_INDEX && !irq->enabled))
			return -EINVAL;
		irq_off(irq);
		return 0;
	}
	if (other_mode(pci, set->index) || !set->count)
		return -EINVAL;
	if (irq->enabled && irq->flags & VFIO_IRQ_INFO_NORESIZE && set->start + set->count > irq->enabled)
		return -EINVAL;
	if (!irq->enabled && irq->available && set->start + set->count > irq->available)
		return (int)irq->available;
	if (irq->enabled && irq->available && set->start + set->count > irq->available)
		return -ENOSPC;
	if (!irq->enabled) {
		irq_off(irq);
		irq->enables++;
	}
	irq->enabled = MAX(irq->enabled, set->start + set->count);
	for (uint32_t i = 0; i < set->count; i++) {
		uint64_t bit = 1ull << (set->start + i);

		irq->fds[set->start + i] = fds[i];
		if (fds[i] >= 0 && irq->waiting & bit) {
			irq->waiting &= ~bit;
			eventfd_kick(fds[i]);
		}
	}
	return 0;
}

static void unmask(struct fake_pci *pci)
{
	struct fake_irq *irq = &pci->irqs[VFIO_PCI_INTX_IRQ_INDEX];

	irq->masked = false;
	if (irq->pending)
		fake_pci_fire(pci, VFIO_PCI_INTX_IRQ_INDEX, 0);
}

static int set_irqs(struct fake_pci *pci, const struct vfio_irq_set *set)
{
	struct fake_irq *irq = &pci->irqs[set->index];
	uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;

	if (set->index >= VFIO_PCI_NUM_IRQS || set->start + set->count > irq->count || set->count > FAKE_VECTORS ||
	    set->argsz < sizeof(*set) + (set->flags & VFIO_IRQ_SET_DATA_EVENTFD ? set->count * sizeof(int32_t) : 0))
		return -EINVAL;
	if (action == VFIO_IRQ_SET_ACTION_TRIGGER)
		return trigger(pci, set);
	if (action != VFIO_IRQ_SET_ACTION_UNMASK || set->index != VFIO_PCI_INTX_IRQ_INDEX || irq->no_unmask)
		return -ENOTTY;
	if (!irq->enabled)
		return -EINVAL;
	if (set->flags & VFIO_IRQ_SET_DATA_NONE) {
		unmask(pci);
		return 0;
	}
	if (irq->no_unmask_fd)
		return -ENOTTY;
	irq->unmask_fd = *(const int32_t *)(const void *)set->data;
	return 0;
}

bool fake_pci_fire(struct fake_pci *pci, unsigned int index, unsigned int vector)
{
	struct fake_irq *irq = &pci->irqs[index];

	if (vector >= irq->enabled || irq->fds[vector] < 0) {
		irq->waiting |= index == VFIO_PCI_MSIX_IRQ_INDEX ? 1ull << vector : 0;
		return false;
	}
	if (irq->flags & VFIO_IRQ_INFO_AUTOMASKED) {
		irq->pending = irq->masked;
		if (irq->masked)
			return false;
		irq->masked = true;
	}
	eventfd_kick(irq->fds[vector]);
	return true;
}

bool fake_pci_poll_unmask(struct fake_pci *pci)
{
	struct fake_irq *irq = &pci->irqs[VFIO_PCI_INTX_IRQ_INDEX];

	if (irq->unmask_fd < 0 || !eventfd_drain(irq->unmask_fd))
		return false;
	unmask(pci);
	return true;
}

/* ---- resets ---- */

/* The device's id where the asking one's iommufd has it, 0 where it only owns it, or not that either. */
static uint32_t dependent_id(const struct fake_kernel *fake, const struct fake_device *device, uint8_t devfn, bool owned)
{
	char name[16];

	snprintf(name, sizeof(name), "0000:01:%02x.%x", devfn >> 3, devfn & 7);
	for (int i = 0; i < FAKE_MAX; i++)
		if (strcmp(fake->devices[i].name, name) == 0 && fake->devices[i].ctx == device->ctx)
			return fake->devices[i].devid;
	return owned ? 0 : VFIO_UAPI_DEVID_NOT_OWNED;
}

static int hot_reset_info(struct fake_kernel *fake, struct fake_device *device, struct vfio_pci_hot_reset_info *info)
{
	const struct fake_pci *pci = device->pci;

	if (!pci->can_hot_reset)
		return -ENODEV;
	info->flags = device->ctx ? VFIO_UAPI_HOT_RESET_DEV_ID | VFIO_UAPI_HOT_RESET_OWNED : 0;
	info->count = pci->dependent_count;
	if (info->argsz < sizeof(*info) + info->count * sizeof(info->devices[0]))
		return -ENOSPC;
	for (unsigned int i = 0; i < pci->dependent_count; i++) {
		int group = pci->dependents[i].group;
		bool owned = group == device->group;

		for (int k = 0; k < FAKE_MAX; k++)
			owned |= device->ctx && fake->devices[k].group == group && fake->devices[k].ctx == device->ctx;
		info->devices[i] = (struct vfio_pci_dependent_device){.bus = 1, .devfn = pci->dependents[i].devfn};
		info->devices[i].group_id = !device->ctx ? (uint32_t)group :
					    dependent_id(fake, device, pci->dependents[i].devfn, owned);
		if (!owned)
			info->flags &= ~VFIO_UAPI_HOT_RESET_OWNED;
	}
	return 0;
}

static int hot_reset(struct fake_kernel *fake, struct fake_device *device, const struct vfio_pci_hot_reset *reset)
{
	struct fake_pci *pci = device->pci;

	for (unsigned int i = 0; i < pci->dependent_count; i++) {
		bool owned = false;

		for (uint32_t k = 0; k < reset->count; k++)
			owned |= fake->groups[pci->dependents[i].group].opened == reset->group_fds[k];
		for (int k = 0; device->ctx && k < FAKE_MAX; k++)
			owned |= fake->devices[k].group == pci->dependents[i].group && fake->devices[k].ctx == device->ctx;
		if (!owned)
			return -EINVAL;
	}
	if (pci->refuse_hot_reset)
		return pci->refuse_hot_reset;
	pci->hot_resets++;
	return 0;
}

int fake_pci_ioctl(struct fake_kernel *fake, struct fake_device *device, unsigned long request, void *arg)
{
	struct vfio_irq_info *info = arg;

	switch (request) {
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(device->pci, arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		if (info->index >= VFIO_PCI_NUM_IRQS)
			return -EINVAL;
		info->flags = device->pci->irqs[info->index].flags;
		info->count = device->pci->irqs[info->index].count;
		return 0;
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(device->pci, arg);
	case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
		return hot_reset_info(fake, device, arg);
	case VFIO_DEVICE_PCI_HOT_RESET:
		return hot_reset(fake, device, arg);
	}
	return -ENOTTY;
}
