/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The BARs of a passed-through function, and its expansion ROM. Part of pci.h.
 *
 * Accesses to a BAR are trapped; the parts that can be mapped are memory above that while the BAR is present. The pages
 * of the MSI-X table and of its pending bits are never mapped.
 *
 * The kernel revokes what this process has mapped of a device when the device stops responding there: memory decoding
 * off, D3hot, a reset. An access by the guest then fails in KVM_RUN, and maps for other devices (peer to peer) never
 * come back. Therefore all maps are gone before that, and are made again after it.
 */
#include "vfio/pci_internal.h"

#include "core/errand.h"

#include <fcntl.h>
#include <sys/stat.h>

#define PAGE 4096ull
#define MAX_ROM MIB(16)

/*
 * Whether the guest reaches the BAR: it is decoded, and the function is in D0 and not fenced. Everything that the guest
 * gets of a BAR depends on this. Without map_lock it is an answer for one access.
 */
static bool vfio_pci_bar_present(const struct vfio_pci_bar *bar)
{
	const struct vfio_pci *pci = bar->pci;

	return pci->function.bars[bar->index].addr != PCI_UNMAPPED && !pci->power && !pci->held && !pci->fenced;
}

/* ---- Trapped accesses ---- */

static bool vfio_pci_bar_in_table(const struct vfio_pci_bar *bar, uint64_t offset, uint64_t *within)
{
	const struct vfio_pci *pci = bar->pci;

	*within = offset - pci->msix_config.table_offset;
	return pci->msix && bar->index == pci->msix_config.table_bar && offset >= pci->msix_config.table_offset &&
	       *within < msix_table_size(pci->msix);
}

static bool vfio_pci_bar_in_pba(const struct vfio_pci_bar *bar, uint64_t offset, uint64_t *within)
{
	const struct vfio_pci *pci = bar->pci;

	*within = offset - pci->msix_config.pba_offset;
	return pci->msix && bar->index == pci->msix_config.pba_bar && offset >= pci->msix_config.pba_offset &&
	       *within < msix_pba_size(pci->msix);
}

static void vfio_pci_bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct vfio_pci_bar *bar = opaque;
	uint64_t within;

	if (!vfio_pci_bar_present(bar))
		memset(data, 0xff, len);
	else if (vfio_pci_bar_in_table(bar, offset, &within))
		msix_table_read(bar->pci->msix, within, data, len);
	else if (vfio_pci_bar_in_pba(bar, offset, &within))
		msix_pba_read(bar->pci->msix, within, data, len);
	else if (vfio_region_read(&bar->region, offset, data, len) < 0)
		memset(data, 0xff, len);
}

static void vfio_pci_bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct vfio_pci_bar *bar = opaque;
	uint64_t within;

	if (!vfio_pci_bar_present(bar))
		return;
	if (vfio_pci_bar_in_table(bar, offset, &within))
		msix_table_write(bar->pci->msix, within, data, len);
	else if (!vfio_pci_bar_in_pba(bar, offset, &within))
		vfio_region_write(&bar->region, offset, data, len);
}

const struct bus_ops vfio_pci_bar_ops = {.read = vfio_pci_bar_read, .write = vfio_pci_bar_write};

/* ---- The expansion ROM: read when the guest first reads it ---- */

static void vfio_pci_bar_load_rom(struct vfio_pci_bar *bar)
{
	uint64_t size = bar->pci->function.bars[PCI_ROM_BAR].size;
	uint8_t *rom = malloc(size);

	if (!rom)
		return;
	memset(rom, 0xff, size);
	if (vfio_region_read(&bar->region, 0, rom, MIN(size, bar->region.size)) < 0)
		log_warn(bar->pci->machine.log, "vfio %s: its ROM cannot be read; use rom=FILE or rom=off",
			 bar->pci->device->host.name);
	bar->rom = rom;
}

static void vfio_pci_bar_rom_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct vfio_pci_bar *bar = opaque;

	pthread_mutex_lock(&bar->pci->map_lock);
	if (!bar->rom && vfio_pci_bar_present(bar))
		vfio_pci_bar_load_rom(bar);
	if (bar->rom && vfio_pci_bar_present(bar))
		memcpy(data, bar->rom + offset, len);
	else
		memset(data, 0xff, len);
	pthread_mutex_unlock(&bar->pci->map_lock);
}

static void vfio_pci_bar_rom_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
}

static int vfio_pci_bar_read_rom_file(struct vfio_pci_bar *bar, int fd, const char *path, uint64_t *size, struct err *err)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, -errno, "rom=%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > MAX_ROM)
		return err_set(err, -EINVAL, "rom=%s: a ROM is a file of 1 byte to 16 MiB", path);
	for (*size = KIB(2); *size < (uint64_t)st.st_size; *size <<= 1) {
	}
	bar->rom = malloc(*size);
	if (!bar->rom)
		return err_sys(err, -ENOMEM, "rom=%s", path);
	memset(bar->rom, 0xff, *size);
	if (pread(fd, bar->rom, (size_t)st.st_size, 0) != st.st_size)
		return err_set(err, -EIO, "rom=%s: cannot be read completely", path);
	return 0;
}

static int vfio_pci_bar_find_rom_file(struct vfio_pci_bar *bar, const struct vfio_pci_options *options, uint64_t *size,
				      struct err *err)
{
	_cleanup_(fd_close) int own = options->rom_fd ? -1 : errand_open(options->rom_file, O_RDONLY | O_CLOEXEC, 0);

	return vfio_pci_bar_read_rom_file(bar, options->rom_fd ? *options->rom_fd : own, options->rom_file, size, err);
}

int vfio_pci_bar_init_rom(struct vfio_pci *pci, const struct vfio_pci_options *options, struct err *err)
{
	static const struct bus_ops rom_ops = {.read = vfio_pci_bar_rom_read, .write = vfio_pci_bar_rom_write};
	struct vfio_pci_bar *bar = &pci->bars[PCI_ROM_BAR];
	uint64_t size = 0;
	int ret;

	if (options->rom_file) {
		ret = vfio_pci_bar_find_rom_file(bar, options, &size, err);
		if (ret < 0)
			return ret;
	} else if (options->rom && bar->region.size) {
		for (size = KIB(2); size < bar->region.size && size < MAX_ROM; size <<= 1) {
		}
	}
	if (size)
		pci_set_bar(&pci->function, PCI_ROM_BAR, PCI_BAR_MEM32, false, size, &rom_ops, bar);
	return 0;
}

/* ---- Mapped parts ---- */

/* map_lock held, as for every access to mapped. */
static void vfio_pci_bar_unmap(struct vfio_pci_bar *bar)
{
	const struct vfio_pci_machine *machine = &bar->pci->machine;

	for (size_t i = 0; i < bar->region.area_count; i++) {
		if (!(bar->mapped >> i & 1))
			continue;
		pthread_mutex_lock(machine->space_lock);
		vfio_space_unmap_bar(bar->pci->device->space, &bar->pieces[i]);
		pthread_mutex_unlock(machine->space_lock);
		machine->map->unmap(machine->map_opaque, bar->pieces[i].gpa);
	}
	bar->mapped = 0;
}

static void vfio_pci_bar_map(struct vfio_pci_bar *bar, uint64_t gpa)
{
	const struct vfio_pci_machine *machine = &bar->pci->machine;

	for (size_t i = 0; i < bar->region.area_count; i++) {
		const struct vfio_area *area = &bar->region.areas[i];
		struct err err;

		/* A BAR smaller than a page is alone in its page, but must start it. */
		if (!area->host || (gpa + area->offset) % PAGE)
			continue;
		if (machine->map->map(machine->map_opaque, gpa + area->offset, area->size, area->host, &err) < 0) {
			if (!bar->complained)
				log_warn(machine->log, "vfio %s: BAR %u is not mapped and will be slow: %s",
					 bar->pci->device->host.name, bar->index, err.text);
			bar->complained = true;
			continue;
		}
		bar->pieces[i] = (struct vfio_bar){
			.device = bar->pci->device, .region = bar->index, .offset = area->offset,
			.gpa = gpa + area->offset, .size = area->size, .host = area->host,
		};
		bar->mapped |= 1u << i;
		pthread_mutex_lock(machine->space_lock);
		vfio_space_map_bar(bar->pci->device->space, &bar->pieces[i]);
		pthread_mutex_unlock(machine->space_lock);
	}
}

/* Maps or unmaps it, as it is present. */
static void vfio_pci_bar_update(struct vfio_pci_bar *bar)
{
	const struct pci_bar *decoded = &bar->pci->function.bars[bar->index];

	if (decoded->kind == PCI_BAR_IO || bar->index == PCI_ROM_BAR)
		return;
	if (!vfio_pci_bar_present(bar))
		vfio_pci_bar_unmap(bar);
	else if (!bar->mapped)
		vfio_pci_bar_map(bar, decoded->addr);
}

static void vfio_pci_bar_update_all(struct vfio_pci *pci)
{
	for (unsigned int i = 0; i < PCI_BARS; i++)
		if (pci->function.bars[i].kind != PCI_BAR_NONE)
			vfio_pci_bar_update(&pci->bars[i]);
}

uint64_t vfio_pci_bar_avoid(struct pci_function *function, uint64_t addr, uint64_t size)
{
	const struct vfio_device *device = container_of(function, struct vfio_pci, function)->device;

	return device->no_p2p ? 0 : vfio_space_avoid(device->space, addr, size);
}

void vfio_pci_bar_moved(struct pci_function *function, unsigned int index, uint64_t old)
{
	struct vfio_pci *pci = container_of(function, struct vfio_pci, function);

	pthread_mutex_lock(&pci->map_lock);
	vfio_pci_bar_update(&pci->bars[index]);
	pthread_mutex_unlock(&pci->map_lock);
}

void vfio_pci_bar_hold(struct vfio_pci *pci)
{
	pthread_mutex_lock(&pci->map_lock);
	pci->held = true;
	vfio_pci_bar_update_all(pci);
	pthread_mutex_unlock(&pci->map_lock);
}

void vfio_pci_bar_release(struct vfio_pci *pci, uint8_t power)
{
	pthread_mutex_lock(&pci->map_lock);
	pci->held = false;
	pci->power = power;
	vfio_pci_bar_update_all(pci);
	pthread_mutex_unlock(&pci->map_lock);
}

int vfio_pci_bar_get_regions(struct vfio_pci *pci, struct err *err)
{
	int ret = vfio_region_get(pci->device, VFIO_PCI_CONFIG_REGION_INDEX, &pci->config, err);

	for (unsigned int i = 0; i < PCI_BARS; i++)
		pci->bars[i] = (struct vfio_pci_bar){.pci = pci, .index = i};
	for (unsigned int i = 0; i < PCI_BARS && ret == 0; i++)
		ret = vfio_region_get(pci->device, VFIO_PCI_BAR0_REGION_INDEX + i, &pci->bars[i].region, err);
	return ret;
}

int vfio_pci_bar_check_msix(const struct vfio_pci *pci, struct err *err)
{
	const struct msix_config *msix = &pci->msix_config;
	uint64_t table = pci->bars[msix->table_bar].region.size, pba = pci->bars[msix->pba_bar].region.size;
	uint64_t table_size = (uint64_t)msix->vectors * MSIX_TABLE_ENTRY, pba_size = (msix->vectors + 63) / 64 * 8;

	if (msix->table_offset > table || table_size > table - msix->table_offset || msix->pba_offset > pba ||
	    pba_size > pba - msix->pba_offset)
		return err_set(err, -EINVAL, "its MSI-X table lies outside of its BAR");
	return 0;
}

void vfio_pci_bar_map_regions(struct vfio_pci *pci)
{
	const struct msix_config *msix = &pci->msix_config;

	if (pci->msix) {
		vfio_region_exclude(&pci->bars[msix->table_bar].region, msix->table_offset, msix_table_size(pci->msix));
		vfio_region_exclude(&pci->bars[msix->pba_bar].region, msix->pba_offset, msix_pba_size(pci->msix));
	}
	for (unsigned int i = 0; i < PCI_ROM_BAR; i++)
		if (pci->function.bars[i].kind == PCI_BAR_MEM32 || pci->function.bars[i].kind == PCI_BAR_MEM64)
			vfio_region_map(&pci->bars[i].region);
}

void vfio_pci_bar_fence(struct vfio_pci *pci)
{
	pthread_mutex_lock(&pci->map_lock);
	pci->fenced = true;
	vfio_pci_bar_update_all(pci);
	pthread_mutex_unlock(&pci->map_lock);
}

void vfio_pci_bar_done(struct vfio_pci *pci)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		if (pci->bars[i].region.device)
			vfio_region_unmap(&pci->bars[i].region);
		free(pci->bars[i].rom);
	}
}
