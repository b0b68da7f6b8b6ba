/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See machine.h. machine_create makes the parts of a machine in the order that is fastest: memory slots, interrupt
 * controllers, vCPUs. Work that can wait is done after the guest has started.
 */
#include "vmm/machine/machine_internal.h"

#include "boot/layout_x86.h"
#include "core/thread.h"
#include "vmm/machine/machine_offer.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- end ---- */

static void machine_create_on_power(void *opaque, enum power_event event)
{
	machine_end_for(opaque, event == POWER_OFF ? MACHINE_OFF : MACHINE_REBOOT);
}

static void machine_create_on_reset(void *opaque)
{
	machine_end_for(opaque, MACHINE_REBOOT);
}

static void machine_create_on_panic(void *opaque, bool loaded)
{
	struct machine *machine = opaque;

	/* A guest with a crash kernel continues in that. */
	if (!loaded)
		machine_end_for(machine, MACHINE_PANIC);
}

static void machine_create_on_vcpu(void *opaque, enum vcpu_event event)
{
	machine_end_for(opaque, event == VCPU_SHUTDOWN ? MACHINE_REBOOT : MACHINE_FAILED);
}

static bool machine_create_memory_lost(void *opaque, bool fault)
{
	const struct machine *machine = opaque;

	return machine->host.memory_lost && machine->host.memory_lost(machine->host.opaque, fault);
}

/* ---- parts ---- */

/* AUTO: no part needs a descriptor, and private memory is better for host devices: it gets huge pages on every host,
 * shared memory on few. */
static bool machine_create_is_shared(const struct machine_config *config)
{
	return config->memory.shared == TOGGLE_ON;
}

static int machine_create_memory(struct machine *machine, struct err *err)
{
	const struct machine_config *config = machine->config;
	int ret;

	machine->memory = guest_memory_create();
	machine->mmio = bus_create();
	machine->pio = bus_create();
	if (!machine->memory || !machine->mmio || !machine->pio)
		return err_sys(err, -ENOMEM, "machine");
	ret = ram_create(&config->memory, machine_create_is_shared(config), machine->host.ram_source, machine->memory,
			 machine->host.log, &machine->ram, err);
	if (ret == 0 && machine->host.incoming)
		ret = machine_offer_check_memory(machine->host.incoming, machine->memory, err);
	if (ret == 0)
		ret = kvm_add_memory(&machine->kvm, machine->memory, err);
	/* Sources are added at the head. Guest memory is collected last: sources that are removed report to it. */
	if (ret == 0)
		ret = dirty_set_add(&machine->dirty, guest_memory_dirty_source(machine->memory), err);
	return ret < 0 ? ret : dirty_set_add(&machine->dirty, kvm_dirty_source(&machine->kvm), err);
}

static int machine_create_intx_create(void *opaque, unsigned int root_pin, struct irq_line **ret, struct err *err)
{
	struct machine *machine = opaque;
	struct irq_line *line = malloc(sizeof(*line));

	if (!line)
		return err_sys(err, -ENOMEM, "interrupt line");
	irqchip_line(machine->irqchip, LAYOUT_GSI_PCI + root_pin, line);
	*ret = line;
	return 0;
}

static void machine_create_intx_destroy(void *opaque, struct irq_line *line)
{
	free(line);
}

/* The 64-bit window starts above RAM and ends at most at the limit of the CPU's physical addresses. */
static struct pci_windows machine_create_windows_of(const struct machine *machine)
{
	unsigned int bits = MIN(guest_cpu_phys_bits(machine->guest_cpu), 46u);
	uint64_t limit = 1ull << bits, start = align_up(ram_end(machine->ram), GIB(1));
	uint64_t size = limit > start ? MIN(limit - start, GIB(4096)) : 0;

	return (struct pci_windows){
		.ecam = LAYOUT_ECAM,
		.mem32 = LAYOUT_PCI_MEM32,
		.mem32_size = LAYOUT_PCI_MEM32_SIZE,
		.mem64 = start,
		.mem64_size = align_down(size, GIB(1)),
		.io = LAYOUT_PCI_IO,
		.io_size = LAYOUT_PCI_IO_SIZE,
	};
}

static int machine_create_pci(struct machine *machine, struct err *err)
{
	static const struct pci_intx_ops intx = {
		.create = machine_create_intx_create, .destroy = machine_create_intx_destroy,
	};
	const struct pci_bus_config config = {
		.windows = machine->windows = machine_create_windows_of(machine),
		.mmio = machine->mmio,
		.pio = machine->pio,
		.intx = &intx,
		.intx_opaque = machine,
		.log = machine->host.log,
	};
	int ret = pci_bus_create(&config, &machine->pci, err);

	return ret < 0 ? ret : pci_ports_add(machine->pci, machine->pio, LAYOUT_PCI_PORTS, err);
}

static void machine_create_pause_vcpus(void *opaque)
{
	struct machine *machine = opaque;

	if (!machine->vcpus)
		return;
	vcpu_set_pause(machine->vcpus);
	vcpu_set_wait(machine->vcpus, -1);
}

static void machine_create_resume_vcpus(void *opaque)
{
	struct machine *machine = opaque;

	if (machine->vcpus)
		vcpu_set_resume(machine->vcpus);
}

static bool machine_create_guest_runs(void *opaque)
{
	return machine_plug_may_go_on(opaque);
}

static int machine_create_slots(struct machine *machine, struct err *err)
{
	const struct slots_config config = {
		.pci = machine->pci,
		.mask = machine->hotplug,
		.power = machine->power,
		.loop = machine->host.loop,
		.log = machine->host.log,
		.pause_vcpus = machine_create_pause_vcpus,
		.resume_vcpus = machine_create_resume_vcpus,
		.guest_runs = machine_create_guest_runs,
		.opaque = machine,
	};

	return slots_create(&config, &machine->slots, err);
}

static uint64_t machine_create_guest_ns(void *opaque)
{
	return clock_guest_ns(((struct machine *)opaque)->clock);
}

static int machine_create_platform(struct machine *machine, struct err *err)
{
	const struct power_config power = {
		.pio = machine->pio,
		.port = LAYOUT_POWER,
		.irq = &machine->power_irq,
		.sci = &machine->sci,
		.now = machine_create_guest_ns,
		.event = machine_create_on_power,
		.opaque = machine,
	};
	const struct i8042_config keyboard = {
		.pio = machine->pio, .irq = &machine->keyboard_irq, .reset = machine_create_on_reset, .opaque = machine,
	};
	int ret;

	irqchip_line(machine->irqchip, LAYOUT_GSI_KEYBOARD, &machine->keyboard_irq);
	irqchip_line(machine->irqchip, LAYOUT_GSI_COM1, &machine->serial_irq);
	irqchip_line(machine->irqchip, LAYOUT_GSI_RTC, &machine->rtc_irq);
	irqchip_line(machine->irqchip, LAYOUT_GSI_GED, &machine->power_irq);
	irqchip_line(machine->irqchip, LAYOUT_GSI_SCI, &machine->sci);
	ret = serial_create(machine->pio, LAYOUT_COM1, &machine->serial_irq, machine->host.serial_in,
			    machine->host.serial_out, machine->host.loop, machine->host.log, &machine->serial, err);
	if (ret == 0)
		ret = rtc_create(machine->pio, &machine->rtc_irq, machine->host.loop, &machine->rtc, err);
	ret = ret ?: i8042_create(&keyboard, &machine->i8042, err);
	if (ret == 0)
		ret = pvpanic_create(machine->pio, LAYOUT_PVPANIC, machine_create_on_panic, machine, &machine->pvpanic,
				     err);
	ret = ret ?: power_create(&power, &machine->power, err);
	ret = ret ?: vmgenid_create(machine->memory, LAYOUT_VMGENID, &machine->vmgenid, err);
	return ret ?: vmclock_create(machine->memory, LAYOUT_VMCLOCK, &machine->vmclock, err);
}

/* ---- virtio devices, in the order of the configuration ---- */

static int machine_create_plug(struct machine *machine, struct virtio_device *device, struct err *err)
{
	const struct machine_offer *incoming = machine->host.incoming;
	int devfn = incoming ? machine_offer_devfn(incoming, device->id, err) : -1;

	if (incoming && devfn < 0) {
		device->ops->destroy(device);
		return devfn;
	}
	return machine_plug(machine, device, devfn, err);
}

static int machine_create_disk(struct machine *machine, const struct disk_config *disk, struct err *err)
{
	struct virtio_device *device;
	int ret = machine_disks_make(machine, disk, &device, err);

	return ret < 0 ? ret : machine_create_plug(machine, device, err);
}

static int machine_create_net(struct machine *machine, const struct net_config *net, struct err *err)
{
	struct virtio_device *device;
	int ret = machine_make_net(machine, net, &device, err);

	return ret < 0 ? ret : machine_create_plug(machine, device, err);
}

static int machine_create_vsock(struct machine *machine, struct err *err)
{
	const struct virtio_vsock_options options = {
		.id = "vsock",
		.cid = machine->config->vsock.cid,
		.socket = machine->config->vsock.socket,
		.dirty = &machine->dirty,
	};
	struct virtio_device *device;
	int ret = virtio_vsock_create(&options, machine->memory, machine->host.loop, machine->host.log, &device, err);

	return ret < 0 ? ret : machine_create_plug(machine, device, err);
}

static int machine_create_console(struct machine *machine, struct err *err)
{
	bool reads = machine->host.console_in >= 0;
	_cleanup_(fd_close) int in_fd = reads ? fcntl(machine->host.console_in, F_DUPFD_CLOEXEC, 3) : -1;
	_cleanup_(fd_close) int out_fd = fcntl(machine->host.console_out, F_DUPFD_CLOEXEC, 3);
	struct virtio_device *device;
	int ret;

	if ((reads && in_fd < 0) || out_fd < 0)
		return err_sys(err, -errno, "--console");
	ret = virtio_console_create("console", &in_fd, &out_fd, machine->memory, machine->host.loop, machine->host.log,
				    &device, err);
	return ret < 0 ? ret : machine_create_plug(machine, device, err);
}

static int machine_create_rng(struct machine *machine, struct err *err)
{
	struct virtio_device *device;
	int ret = virtio_rng_create("rng", machine->memory, machine->host.loop, machine->host.log, &device, err);

	return ret < 0 ? ret : machine_create_plug(machine, device, err);
}

static int machine_create_balloon(struct machine *machine, struct err *err)
{
	struct virtio_device *device;
	int ret = virtio_balloon_create("balloon", machine->memory, machine->host.loop, machine->host.log, &device,
					err);

	if (ret == 0)
		ret = machine_create_plug(machine, device, err);
	if (ret == 0)
		machine->balloon = device;
	return ret;
}

static int machine_create_virtio(struct machine *machine, struct err *err)
{
	const struct machine_config *config = machine->config;
	int ret = 0;

	ret = ret ?: machine_disks_begin(machine, err);
	for (size_t i = 0; i < config->disk_count && ret == 0; i++)
		ret = machine_create_disk(machine, &config->disks[i], err);
	for (size_t i = 0; i < config->net_count && ret == 0; i++)
		ret = machine_create_net(machine, &config->nets[i], err);
	if (ret == 0 && config->vsock.cid)
		ret = machine_create_vsock(machine, err);
	if (ret == 0 && machine->host.console_out >= 0)
		ret = machine_create_console(machine, err);
	return ret;
}

/* Those that are connected to nothing. */
static int machine_create_own_virtio(struct machine *machine, struct err *err)
{
	int ret = machine_create_rng(machine, err);

	return ret == 0 && machine->config->balloon ? machine_create_balloon(machine, err) : ret;
}

/*
 * The PCI devices for hot plug: the highest ones, eight more than there are host devices, and the lowest ones, where disks
 * and network cards are from the start. Each costs the guest an ACPI object and a log line at boot.
 */
static uint32_t machine_create_hotplug_slots(const struct machine_config *config)
{
	size_t low = config->transport == TRANSPORT_PCI ? MIN(config->disk_count + config->net_count, PCI_DEVICES - 2) : 0;

	return ~0u << (PCI_DEVICES - 8 - MIN(config->vfio_count, PCI_DEVICES - 9)) | (uint32_t)((1ull << low) - 1) << 1;
}

/* ---- vCPUs ---- */

static int machine_create_vcpus(struct machine *machine, struct err *err)
{
	const struct vcpu_config config = {
		.kvm = &machine->kvm,
		.count = machine->config->cpus,
		.mmio = machine->mmio,
		.pio = machine->pio,
		.log = machine->host.log,
		.event = machine_create_on_vcpu, .affinity = &machine->config->affinity,
		.memory_lost = machine_create_memory_lost,
		.opaque = machine,
		.tsc_khz = machine->host.incoming ? machine->host.incoming->tsc_khz : 0,
	};
	const struct boot_entry *entry = machine->host.incoming ? NULL : &machine->entry;
	int ret = vcpu_set_create(&config, machine->guest_cpu, entry, &machine->vcpus, err);

	if (ret < 0)
		return ret;
	/* Index registers: a write has no effect until the next access to the data port, which exits. */
	kvm_coalesced_port(&machine->kvm, LAYOUT_PCI_PORTS, sizeof(uint32_t));
	kvm_coalesced_port(&machine->kvm, LAYOUT_RTC, sizeof(uint8_t));
	ret = clock_create(&machine->kvm, machine->vcpus, machine->config->clock == CLOCK_RUN, machine->host.log,
			   &machine->clock, err);
	if (ret == 0 && machine->host.ram_source)
		clock_expect_long_ago(machine->clock);
	return ret;
}

static int machine_create_check_cpus(const struct machine *machine, struct err *err)
{
	int most = kvm_check(&machine->kvm, KVM_CAP_MAX_VCPUS);

	if (most && machine->config->cpus > (unsigned int)most)
		return err_set(err, -EINVAL, "--cpus %u: this host's KVM gives a machine at most %d",
			       machine->config->cpus, most);
	return 0;
}

/* ---- all parts ---- */

typedef int part_fn(struct machine *machine, struct err *err);

static int machine_create_open_kvm(struct machine *machine, struct err *err)
{
	return kvm_open_ahead(&machine->kvm, machine->host.kvm_ahead, err);
}

static int machine_create_vm(struct machine *machine, struct err *err)
{
	int ret = kvm_create_vm(&machine->kvm, err);

	return ret < 0 ? ret : machine_create_check_cpus(machine, err);
}

static int machine_create_irqchip(struct machine *machine, struct err *err)
{
	return irqchip_create(&machine->kvm, &machine->irqchip, err);
}

/*
 * A guest that has no kvmclock, or was told not to use it, needs a PIT and a timer; nobody else pays for them. A kernel for MMIO
 * may know nothing of KVM, and neither of ACPI.
 */
static int machine_create_pit(struct machine *machine, struct err *err)
{
	const char *cmdline = machine->config->cmdline;

	machine->has_timer = !guest_cpu_has_kvmclock(machine->guest_cpu) || (cmdline && strstr(cmdline, "no-kvmclock"));
	machine->has_pit = machine->has_timer || machine->config->transport == TRANSPORT_MMIO;
	return machine->has_pit ? irqchip_create_pit(&machine->kvm, err) : 0;
}

/*
 * KVM_GET_SUPPORTED_CPUID executes CPUID a hundred times; if this host is a virtual machine, each of them is an exit.
 * A thread therefore makes the CPU, in parallel with the VM and its memory. A guest that has run on this very host needs
 * neither.
 */
struct cpu_job {
	pthread_t thread;
	struct machine *machine;
	struct err err;
	int code;
};

static const char *machine_create_cpu_remedy(const struct machine *machine)
{
	return machine->host.ram_source ? "restore it on a host that has them, or mask them before the guest boots: mvmm "
					  "run --cpu host,-FEATURE" :
	       "mvmm receive --force-cpu runs the guest nevertheless";
}

static void *machine_create_make_guest_cpu(void *opaque)
{
	struct cpu_job *job = opaque;
	struct machine *machine = job->machine;
	const struct machine_config *config = machine->config;

	if (machine->host.incoming)
		job->code = guest_cpu_adopt(&machine->kvm, machine->guest_cpu, config->force_cpu,
					    machine_create_cpu_remedy(machine), machine->host.log, &job->err);
	else
		job->code = guest_cpu_create(&machine->kvm, config->cpus, &config->cpu, &machine->guest_cpu, &job->err);
	return NULL;
}

static int machine_create_begin_guest_cpu(struct machine *machine, struct err *err)
{
	const struct machine_offer *incoming = machine->host.incoming;
	struct cpu_job *job;
	int ret = incoming ? guest_cpu_read(machine->config->cpus, incoming->cpu, &machine->guest_cpu, err) : 0;

	if (ret < 0)
		return ret;
	if (incoming && guest_cpu_known(machine->guest_cpu))
		return guest_cpu_adopt(&machine->kvm, machine->guest_cpu, false, "", machine->host.log, err);
	job = calloc(1, sizeof(*job));
	if (!job)
		return err_sys(err, -ENOMEM, "CPU model");
	job->machine = machine;
	ret = thread_start(&job->thread, THREAD_CPU_MODEL, machine_create_make_guest_cpu, job, "cpu model");
	if (ret < 0) {
		free(job);
		return err_sys(err, ret, "CPU model");
	}
	machine->cpu_job = job;
	return 0;
}

static int machine_create_finish_guest_cpu(struct machine *machine, struct err *err)
{
	_cleanup_(free_ptr) struct cpu_job *job = take_ptr(machine->cpu_job);

	if (!job)
		return 0;
	pthread_join(job->thread, NULL);
	if (job->code < 0 && err)
		*err = job->err;
	return job->code;
}

static int machine_create_bind_guest_cpu(struct machine *machine, struct err *err)
{
	return guest_cpu_bind(&machine->kvm, machine->guest_cpu, &machine->config->cpu, err);
}

static int machine_create_attach_buses(struct machine *machine, struct err *err)
{
	return kvm_attach_buses(&machine->kvm, machine->mmio, machine->pio, err);
}

/* As late as possible: helper processes have set themselves up meanwhile. */
static int machine_create_await_networks(struct machine *machine, struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < machine->virtio_count && ret == 0; i++) {
		struct virtio_device *device = virtio_transport_device(machine->virtio[i]);

		if (device->type == VIRTIO_ID_NET)
			ret = virtio_net_ready(device, err);
	}
	return ret;
}

/* Starts the threads of an incoming guest now and not during its downtime. */
static int machine_create_threads(struct machine *machine, struct err *err)
{
	return machine->host.incoming ? vcpu_set_start(machine->vcpus, true, err) : 0;
}

static int machine_create_await_state(struct machine *machine, struct err *err)
{
	return machine->host.incoming ? machine_pause_devices(machine, err) : 0;
}

/* The parts in their order. Those that come late need what only the request brings to a machine that is prepared. */
static const struct part {
	part_fn *make;
	bool late;
} parts[] = {
	{machine_boot_open_image, true},
	{machine_create_open_kvm, false},
	{machine_create_begin_guest_cpu, false},
	{machine_create_vm, false},
	{machine_create_memory, false},
	{machine_create_irqchip, false},
	{machine_create_platform, false},
	{machine_create_finish_guest_cpu, false},
	{machine_create_bind_guest_cpu, false},
	{machine_create_pit, false},
	{machine_create_pci, false},
	{machine_create_slots, false},
	{machine_create_virtio, true},
	{machine_create_own_virtio, false},
	{machine_boot_load, true},
	{machine_host_devices_create, true},
	{machine_create_attach_buses, false},
	{machine_create_vcpus, false},
	{machine_create_threads, false},
	{machine_create_await_networks, true},
	{machine_limits_begin, true},
	{machine_create_await_state, true},
};

static int machine_create_parts(struct machine *machine, bool early, bool late, struct err *err)
{
	int code = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts) && code == 0; i++)
		if (parts[i].late ? late : early)
			code = parts[i].make(machine, err);
	return code;
}

static int machine_create_begin(const struct machine_config *config, const struct machine_host *host, bool late,
				struct machine **ret, struct err *err)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	int code;

	if (!machine)
		return err_sys(err, -ENOMEM, "machine");
	machine->config = config;
	machine->host = *host;
	machine->hotplug = host->incoming ? host->incoming->hotplug : machine_create_hotplug_slots(config);
	machine->kvm.fd = machine->kvm.vm_fd = machine->kvm.vfio_fd = machine->kvm.stats_fd = -1;
	machine->disk_stop_fd = -1;
	code = machine_create_parts(machine, true, late, err);
	if (code < 0) {
		machine_destroy(machine);
		return code;
	}
	machine->host.ram_source = NULL;
	*ret = machine;
	return 0;
}

int machine_create(const struct machine_config *config, const struct machine_host *host, struct machine **ret,
		   struct err *err)
{
	int code = machine_create_begin(config, host, true, ret, err);

	if (code == 0)
		(*ret)->host.incoming = NULL;
	return code;
}

int machine_prepare(const struct machine_config *config, const struct machine_host *host, struct machine **ret,
		    struct err *err)
{
	return machine_create_begin(config, host, false, ret, err);
}

int machine_complete(struct machine *machine, const struct machine_host *host, struct err *err)
{
	int code;

	machine->host = *host;
	machine_serial_fds(machine, host->serial_in, host->serial_out);
	code = machine_create_parts(machine, false, true, err);
	machine->host.incoming = NULL;
	machine->host.ram_source = NULL;
	return code;
}

void machine_destroy(struct machine *machine)
{
	if (!machine)
		return;
	machine_leave_identity(machine);
	machine_create_finish_guest_cpu(machine, NULL);
	clock_destroy(machine->clock);
	vcpu_set_destroy(take_ptr(machine->vcpus));
	while (machine->dirty.users)
		dirty_set_stop(&machine->dirty);
	if (machine->balloon)
		virtio_balloon_set_release(machine->balloon, NULL, NULL);
	host_devices_destroy(machine->host_devices);
	machine_plug_end(machine);
	while (machine->virtio_count)
		virtio_transport_destroy(machine->virtio[--machine->virtio_count]);
	machine_disks_end(machine);
	slots_destroy(machine->slots);
	event_source_remove(machine->button_timer);
	vmclock_destroy(machine->vmclock);
	vmgenid_destroy(machine->vmgenid);
	power_destroy(machine->power);
	pvpanic_destroy(machine->pvpanic);
	i8042_destroy(machine->i8042);
	rtc_destroy(machine->rtc);
	serial_destroy(machine->serial);
	pci_bus_destroy(machine->pci);
	guest_cpu_destroy(machine->guest_cpu);
	irqchip_destroy(machine->irqchip);
	if (machine->ram)
		guest_memory_unlisten(machine->memory, &machine->kvm.listener);
	ram_destroy(machine->ram);
	guest_memory_destroy(machine->memory);
	bus_destroy(machine->mmio);
	bus_destroy(machine->pio);
	kvm_close(&machine->kvm);
	boot_image_close(machine->image);
	free(machine);
}
