/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pci.h. Here: the function's construction and end, its BARs, and what the device says by itself.
 *
 * A BAR is always there to be trapped; the parts of it that can be mapped are laid over that as memory while the guest
 * has the BAR decoded. The pages of the MSI-X table and of its pending bits are never mapped.
 */
#include "vfio/pci_internal.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#define PAGE 4096ull
#define MAX_ROM MIB(16)

static struct vfio_pci *vfio_pci_of(struct pci_function *function)
{
	return container_of(function, struct vfio_pci, function);
}

/* ---- BARs: what is trapped ---- */

static bool vfio_pci_in_table(const struct vfio_pci_bar *bar, uint64_t offset, uint64_t *within)
{
	const struct vfio_pci *pci = bar->pci;

	*within = offset - pci->msix_config.table_offset;
	return pci->msix && bar->index == pci->msix_config.table_bar && offset >= pci->msix_config.table_offset &&
	       *within < msix_table_size(pci->msix);
}

static bool vfio_pci_in_pba(const struct vfio_pci_bar *bar, uint64_t offset, uint64_t *within)
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

	if (bar->pci->fenced)
		memset(data, 0xff, len);
	else if (vfio_pci_in_table(bar, offset, &within))
		msix_table_read(bar->pci->msix, within, data, len);
	else if (vfio_pci_in_pba(bar, offset, &within))
		msix_pba_read(bar->pci->msix, within, data, len);
	else if (vfio_region_read(&bar->region, offset, data, len) < 0)
		memset(data, 0xff, len);
}

static void vfio_pci_bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct vfio_pci_bar *bar = opaque;
	uint64_t within;

	if (bar->pci->fenced)
		return;
	if (vfio_pci_in_table(bar, offset, &within))
		msix_table_write(bar->pci->msix, within, data, len);
	else if (!vfio_pci_in_pba(bar, offset, &within))
		vfio_region_write(&bar->region, offset, data, len);
}

const struct bus_ops vfio_pci_bar_ops = {.read = vfio_pci_bar_read, .write = vfio_pci_bar_write};

/* ---- the expansion ROM: read once, when the guest first looks at it ---- */

static void vfio_pci_load_rom(struct vfio_pci_bar *bar)
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

static void vfio_pci_rom_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct vfio_pci_bar *bar = opaque;

	pthread_mutex_lock(&bar->pci->map_lock);
	if (!bar->rom && !bar->pci->fenced)
		vfio_pci_load_rom(bar);
	if (bar->rom && !bar->pci->fenced)
		memcpy(data, bar->rom + offset, len);
	else
		memset(data, 0xff, len);
	pthread_mutex_unlock(&bar->pci->map_lock);
}

static void vfio_pci_rom_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
}

static int vfio_pci_read_rom_file(struct vfio_pci_bar *bar, const char *path, uint64_t *size, struct err *err)
{
	_cleanup_(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
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
		return err_set(err, -EIO, "rom=%s: cannot be read whole", path);
	return 0;
}

static int vfio_pci_init_rom(struct vfio_pci *pci, const struct vfio_pci_options *options, struct err *err)
{
	static const struct bus_ops rom_ops = {.read = vfio_pci_rom_read, .write = vfio_pci_rom_write};
	struct vfio_pci_bar *bar = &pci->bars[PCI_ROM_BAR];
	uint64_t size = 0;
	int ret;

	if (options->rom_file) {
		ret = vfio_pci_read_rom_file(bar, options->rom_file, &size, err);
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

/* ---- BARs: what is mapped ---- */

/* map_lock held, as by all that touches mapped. */
static void vfio_pci_unmap_bar(struct vfio_pci_bar *bar)
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

static void vfio_pci_map_bar(struct vfio_pci_bar *bar, uint64_t gpa)
{
	const struct vfio_pci_machine *machine = &bar->pci->machine;

	for (size_t i = 0; i < bar->region.area_count; i++) {
		const struct vfio_area *area = &bar->region.areas[i];
		struct err err;

		/* A BAR below a page can share its page with nothing else, but it must begin it. */
		if (!area->host || (gpa + area->offset) % PAGE)
			continue;
		if (machine->map->map(machine->map_opaque, gpa + area->offset, area->size, area->host, &err) < 0) {
			log_warn(machine->log, "vfio %s: BAR %u is not mapped and will be slow: %s",
				 bar->pci->device->host.name, bar->index, err.text);
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

static void vfio_pci_bar_moved(struct pci_function *function, unsigned int index, uint64_t old)
{
	struct vfio_pci *pci = vfio_pci_of(function);
	struct vfio_pci_bar *bar = &pci->bars[index];
	uint64_t addr = function->bars[index].addr;

	if (function->bars[index].kind == PCI_BAR_IO || index == PCI_ROM_BAR)
		return;
	pthread_mutex_lock(&pci->map_lock);
	vfio_pci_unmap_bar(bar);
	if (addr != PCI_UNMAPPED && !pci->fenced)
		vfio_pci_map_bar(bar, addr);
	pthread_mutex_unlock(&pci->map_lock);
}

static int vfio_pci_get_regions(struct vfio_pci *pci, struct err *err)
{
	int ret = vfio_region_get(pci->device, VFIO_PCI_CONFIG_REGION_INDEX, &pci->config, err);

	for (unsigned int i = 0; i < PCI_BARS; i++)
		pci->bars[i] = (struct vfio_pci_bar){.pci = pci, .index = i};
	for (unsigned int i = 0; i < PCI_BARS && ret == 0; i++)
		ret = vfio_region_get(pci->device, VFIO_PCI_BAR0_REGION_INDEX + i, &pci->bars[i].region, err);
	return ret;
}

static int vfio_pci_check_msix_layout(const struct vfio_pci *pci, struct err *err)
{
	const struct msix_config *msix = &pci->msix_config;
	uint64_t table = pci->bars[msix->table_bar].region.size, pba = pci->bars[msix->pba_bar].region.size;
	uint64_t table_size = (uint64_t)msix->vectors * MSIX_TABLE_ENTRY, pba_size = (msix->vectors + 63) / 64 * 8;

	if (msix->table_offset > table || table_size > table - msix->table_offset || msix->pba_offset > pba ||
	    pba_size > pba - msix->pba_offset)
		return err_set(err, -EINVAL, "its MSI-X table lies outside of its BAR");
	return 0;
}

static void vfio_pci_map_regions(struct vfio_pci *pci)
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

/* ---- what the device says by itself ---- */

void vfio_pci_cut_off(struct vfio_pci *pci)
{
	static const uint8_t command[2] = {0};

	pthread_mutex_lock(&pci->map_lock);
	pci->fenced = true;
	for (unsigned int i = 0; i < PCI_ROM_BAR; i++)
		vfio_pci_unmap_bar(&pci->bars[i]);
	pthread_mutex_unlock(&pci->map_lock);
	vfio_pci_irq_update(pci);
	/* No DMA either, as far as it still listens. */
	vfio_region_write(&pci->config, PCI_COMMAND, command, sizeof(command));
}

static void vfio_pci_on_error(void *opaque, uint32_t events)
{
	struct vfio_pci *pci = opaque;

	if (!eventfd_drain(pci->error_fd) || pci->fenced)
		return;
	log_error(pci->machine.log, "vfio %s: an error that it cannot recover from; it is cut off, the guest goes on",
		  pci->device->host.name);
	vfio_pci_cut_off(pci);
	pci->machine.events->failed(pci->machine.events_opaque, pci);
}

static void vfio_pci_on_request(void *opaque, uint32_t events)
{
	struct vfio_pci *pci = opaque;

	/* The kernel kicks every few seconds until the device is let go; the owner tells once. */
	if (eventfd_drain(pci->request_fd))
		pci->machine.events->wanted(pci->machine.events_opaque, pci);
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

/* ---- its life ---- */

static const struct pci_function_ops function_ops = {
	.config_read = vfio_pci_config_read,
	.config_write = vfio_pci_config_write,
	.bar_moved = vfio_pci_bar_moved,
};

/* From an opened device to one that could go on the bus. */
static int vfio_pci_prepare(struct vfio_pci *pci, const struct vfio_pci_options *options, struct err *err)
{
	int ret;

	if (!(pci->device->flags & VFIO_DEVICE_FLAGS_PCI))
		return err_set(err, -EINVAL, "it is no PCI device");
	ret = vfio_pci_get_regions(pci, err);
	if (ret < 0)
		return ret;
	vfio_irq_get(pci->device, VFIO_PCI_INTX_IRQ_INDEX, &pci->irqs.intx);
	vfio_irq_get(pci->device, VFIO_PCI_MSI_IRQ_INDEX, &pci->irqs.msi);
	vfio_irq_get(pci->device, VFIO_PCI_MSIX_IRQ_INDEX, &pci->irqs.msix);
	pci_function_init(&pci->function, &function_ops, pci->id, 0, 0, 0, 0);
	pci->function.ours = pci->emulated;
	ret = vfio_pci_config_init(pci, err);
	if (ret == 0 && pci->msix_cap)
		ret = vfio_pci_check_msix_layout(pci, err);
	if (ret == 0)
		ret = vfio_pci_init_rom(pci, options, err);
	if (ret == 0)
		ret = vfio_pci_irq_init(pci, err);
	if (ret < 0)
		return ret;
	vfio_pci_map_regions(pci);
	ret = vfio_pci_listen_to(pci, VFIO_PCI_ERR_IRQ_INDEX, &pci->error_fd, vfio_pci_on_error, &pci->error, err);
	return ret < 0 ? ret : vfio_pci_listen_to(pci, VFIO_PCI_REQ_IRQ_INDEX, &pci->request_fd, vfio_pci_on_request,
						  &pci->request, err);
}

/* Everything but the device itself. */
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
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		if (pci->bars[i].region.device)
			vfio_region_unmap(&pci->bars[i].region);
		free(pci->bars[i].rom);
	}
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
		err_prefix(err, code, "vfio %s", pci->device->host.name);
		vfio_pci_take_apart(pci);
		return code;
	}
	vfio_pci_irq_update(pci);
	pci->reset = pci->device->flags & VFIO_DEVICE_FLAGS_RESET ? "function" : "none";
	*device = NULL;
	*ret = pci;
	return 0;
}

void vfio_pci_destroy(struct vfio_pci *pci)
{
	struct vfio_device *device;
	pthread_mutex_t *lock;

	if (!pci)
		return;
	device = pci->device;
	lock = pci->machine.space_lock;
	vfio_pci_take_apart(pci);
	pthread_mutex_lock(lock);
	vfio_device_close(device);
	pthread_mutex_unlock(lock);
}

void vfio_pci_get_info(struct vfio_pci *pci, struct vfio_pci_info *info)
{
	static const char *const modes[] = {
		[VFIO_MODE_NONE] = "none", [VFIO_MODE_INTX] = "INTx", [VFIO_MODE_MSI] = "MSI",
		[VFIO_MODE_MSIX] = "MSI-X",
	};

	*info = (struct vfio_pci_info){
		.id = pci->id, .device = pci->device, .devfn = pci->function.devfn, .reset = pci->reset,
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
