/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest finds when it boots: its kernel, its command line and its tables. Parts of machine_create; see
 * machine_internal.h.
 */
#include "vmm/machine/machine_internal.h"

#include "boot/acpi.h"
#include "boot/layout_x86.h"
#include "boot/mptable.h"
#include "vmm/machine/machine_files.h"

#include <stdio.h>

#define DEVICE_PARAMETER 48u /* bytes of a virtio device on the command line */
_Static_assert(MAX_VIRTIO <= LAYOUT_VIRTIO_MMIO_DEVICES, "all may be on MMIO");

/* By which name to open a file of the configuration; NULL: by path. */
static const char *machine_boot_find(struct machine *machine, const char *path)
{
	return path ? machine_files_find(machine->host.files, NULL, path) : NULL;
}

int machine_boot_open_image(struct machine *machine, struct err *err)
{
	const char *kernel = machine->config->kernel, *file = machine_boot_find(machine, kernel);
	struct err why;

	machine_boot_find(machine, machine->config->initrd);
	if (!machine->host.incoming)
		return boot_image_open(kernel, file, &machine->image, err);
	if (kernel && boot_image_open(kernel, file, &machine->image, &why) < 0)
		log_warn(machine->host.log, "%s; a reboot will end the machine", why.text);
	return 0;
}

/* ---- the command line ---- */

/* The default: the console, and options for a fast boot (the crypto self-tests are 40 to 70 % of the work of Debian's
 * kernels until /init). */
static void machine_boot_default_cmdline(const struct machine *machine, char *line, size_t size)
{
	const struct machine_config *config = machine->config;
	const char *console = config->serial.kind == PORT_NONE && machine->host.console_out >= 0 ? "hvc0" : "ttyS0";

	snprintf(line, size, "console=%s reboot=acpi panic=1 cryptomgr.notests%s", console,
		 !config->initrd && config->disk_count ? " root=/dev/vda rw" : "");
}

/*
 * Names the virtio devices on MMIO for a kernel without ACPI. They come first: what follows " -- " is init's. A kernel with
 * ACPI has bound them by its tables when it reads this, and logs for each that its page is taken.
 */
static int machine_boot_cmdline(const struct machine *machine, char **ret, struct err *err)
{
	size_t size = machine->virtio_count * DEVICE_PARAMETER, used = 0;
	char fallback[256], *line;

	machine_boot_default_cmdline(machine, fallback, sizeof(fallback));
	size += strlen(machine->config->cmdline ?: fallback) + 1;
	line = malloc(size);
	if (!line)
		return err_sys(err, -ENOMEM, "--cmdline");
	for (size_t i = 0; machine->config->transport == TRANSPORT_MMIO && i < machine->virtio_count; i++) {
		unsigned int slot = virtio_transport_slot(machine->virtio[i]);

		used += (size_t)snprintf(line + used, size - used, "virtio_mmio.device=4K@0x%llx:%u ",
					 (unsigned long long)layout_virtio_mmio(slot), layout_virtio_mmio_gsi(slot));
	}
	snprintf(line + used, size - used, "%s", machine->config->cmdline ?: fallback);
	*ret = line;
	return 0;
}

/* ---- the tables ---- */

static int machine_boot_write_tables(const struct machine *machine, struct err *err)
{
	const struct machine_config *config = machine->config;
	uint32_t apic_ids[MACHINE_MAX_CPUS];
	struct acpi_config acpi = {
		.cpus = config->cpus,
		.apic_ids = apic_ids,
		.pci_mem64 = machine->windows.mem64,
		.pci_mem64_size = machine->windows.mem64_size,
		.serial = true,
		.keyboard = config->transport == TRANSPORT_MMIO,
		.timer = machine->has_timer,
		.hotplug = machine->hotplug,
	};

	for (unsigned int i = 0; i < config->cpus; i++)
		apic_ids[i] = guest_cpu_apic_id(machine->guest_cpu, i);
	for (size_t i = 0; config->transport == TRANSPORT_MMIO && i < machine->virtio_count; i++)
		acpi.virtio_mmio |= 1u << virtio_transport_slot(machine->virtio[i]);
	return acpi_build(&acpi, machine->memory, err) ?: mptable_build(config->cpus, apic_ids, machine->memory, err);
}

int machine_boot_load(struct machine *machine, struct err *err)
{
	const struct machine_config *config = machine->config;
	_cleanup_(free_ptr) char *line = NULL;
	struct boot_config boot = {
		.image = machine->image,
		.rsdp = LAYOUT_ACPI,
		.initrd = config->initrd,
		.initrd_file = machine_boot_find(machine, config->initrd),
	};
	int ret;

	if (machine->host.incoming)
		return 0;
	ret = machine_boot_cmdline(machine, &line, err);
	boot.cmdline = line;
	ret = ret ?: boot_load(&boot, machine->memory, &machine->entry, err);
	ret = ret ?: machine_boot_write_tables(machine, err);
	return ret ?: machine_identify(machine, err);
}
