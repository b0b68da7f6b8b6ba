/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden records: saved states of every part of a machine, as files (golden_record.h), that this version and every later
 * one loads. Those of a part have the numbers 1, 2 and so on. All of them load; the last one is saved again byte for byte.
 * When a part's record gets another form, this fails, and
 *
 *	MVMM_WRITE_GOLDEN=1 build/tests/unit/test_golden_records
 *
 * writes the next file: what the last one becomes when it is loaded and saved. The older ones stay as they are.
 */
#include "devices/platform.h"
#include "tests/unit/fake_kvm.h"
#include "tests/unit/golden_record.h"
#include "tests/unit/state_devices.h"
#include "vmm/kvm/clock.h"
#include "vmm/kvm/guest_cpu.h"
#include "vmm/kvm/irqchip.h"
#include "vmm/kvm/vcpu_arch.h"

#include <linux/serial_reg.h>
#include <linux/virtio_mmio.h>
#include <sys/ioctl.h>
#include <time.h>

#define COM1 0x3f8
#define POWER 0x600

/* ---- KVM ---- */

#define CPUS 2u

static struct kvm kvm;
static struct guest_cpu *cpu;
static struct vcpu_set *vcpus;
static struct clock *timekeeper;
static const struct log quiet = {.fd = -1};

static void end_kvm(void)
{
	clock_destroy(take_ptr(timekeeper));
	vcpu_set_destroy(take_ptr(vcpus));
	guest_cpu_destroy(take_ptr(cpu));
	kvm_close(&kvm);
	fake_kvm_reset();
}

static void begin_kvm(bool intel)
{
	static const uint32_t msrs[] = {0x4b564d01, 0x48e, 0xc0000082, 0x4b564d00, 0x480, 0x3a, 0x10a, 0x277};
	const struct vcpu_config config = {.kvm = &kvm, .count = CPUS, .log = &quiet};

	fake_kvm_reset();
	fake_kvm.intel = intel;
	fake_kvm.shadow_stacks = true;
	memcpy(fake_kvm.msr_list, msrs, sizeof(msrs));
	fake_kvm.msr_count = ARRAY_SIZE(msrs);
	CHECK_EQ(kvm_open(&kvm, NULL), 0);
	CHECK_EQ(kvm_create_vm(&kvm, NULL), 0);
	CHECK_EQ(guest_cpu_create(&kvm, CPUS, NULL, &cpu, NULL), 0);
	CHECK_EQ(vcpu_set_create(&config, cpu, NULL, &vcpus, NULL), 0);
	CHECK_EQ(clock_create(&kvm, vcpus, false, &quiet, &timekeeper, NULL), 0);
}

static void begin_intel(void)
{
	begin_kvm(true);
}

static void begin_amd(void)
{
	begin_kvm(false);
}

/* Bytes that differ from each other. */
static void count_up(void *to, size_t len, uint8_t first)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)to)[i] = (uint8_t)(first + i * 7);
}

static void fill_segment(struct kvm_segment *segment, uint16_t selector)
{
	*segment = (struct kvm_segment){.base = 0x1000ull * selector, .limit = 0xfffff, .selector = selector, .type = 11,
					.present = 1, .dpl = 3, .db = 0, .s = 1, .l = 1, .g = 1, .avl = 1};
}

static void fill_sregs(struct kvm_sregs2 *sregs)
{
	struct kvm_segment *const segments[] = {&sregs->cs, &sregs->ds, &sregs->es, &sregs->fs, &sregs->gs, &sregs->ss,
						&sregs->tr, &sregs->ldt};

	for (uint16_t i = 0; i < ARRAY_SIZE(segments); i++)
		fill_segment(segments[i], (uint16_t)(0x10 + 8 * i));
	sregs->ldt.unusable = 1;
	sregs->gdt = (struct kvm_dtable){.base = 0xffff800000001000, .limit = 0x7f};
	sregs->idt = (struct kvm_dtable){.base = 0xfffffe0000000000, .limit = 0xfff};
	sregs->cr0 = 0x80050033;
	sregs->cr2 = 0x7fff12345678;
	sregs->cr3 = 0x10ac000;
	sregs->cr4 = 0x3706f0;
	sregs->cr8 = 3;
	sregs->efer = 0x1d01;
	sregs->apic_base = 0xfee00d00;
	sregs->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	count_up(sregs->pdptrs, sizeof(sregs->pdptrs), 11);
}

static void fill_events(struct kvm_vcpu_events *events)
{
	*events = (struct kvm_vcpu_events){
		.exception = {.injected = 1, .nr = 14, .has_error_code = 1, .pending = 1, .error_code = 6},
		.interrupt = {.injected = 1, .nr = 0xec, .soft = 1, .shadow = KVM_X86_SHADOW_INT_STI},
		.nmi = {.injected = 1, .pending = 2, .masked = 1}, .sipi_vector = 0x99,
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM,
		.smi = {.smm = 1, .pending = 1, .smm_inside_nmi = 1, .latched_init = 1}, .triple_fault.pending = 1,
		.exception_has_payload = 1, .exception_payload = 0x7fff12345000,
	};
}

static void fill_nested(struct kvm_nested_state *nested)
{
	if (fake_kvm.intel) {
		nested->flags = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_MTF_PENDING;
		nested->hdr.vmx = (struct kvm_vmx_nested_state_hdr){
			.vmxon_pa = 0x7000, .vmcs12_pa = 0x8000, .smm.flags = KVM_STATE_NESTED_SMM_VMXON,
			.flags = KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE, .preemption_timer_deadline = 0x123456789a};
	} else {
		nested->flags = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_GIF_SET;
		nested->hdr.svm.vmcb_pa = 0x9000;
	}
	nested->size = sizeof(*nested) + 4096;
	count_up((char *)nested + sizeof(*nested), 64, 77);
}

static void fill_vcpu(void)
{
	struct fake_vcpu *vcpu = fake_kvm_vcpu(0);

	count_up(&vcpu->regs, sizeof(vcpu->regs), 1);
	vcpu->regs.rflags = 0x246;
	fill_sregs(&vcpu->sregs);
	vcpu->xcrs.nr_xcrs = 1;
	vcpu->xcrs.xcrs[0].value = 0x2e7;
	count_up(vcpu->xsave.base.region, 512, 3);
	vcpu->xsave.base.region[128] = 0x2e7;
	vcpu->xsave.base.region[300] = 0x5555aaaa;
	count_up(vcpu->debugregs.db, sizeof(vcpu->debugregs.db), 5);
	vcpu->debugregs.dr6 = 0xffff0ff0;
	vcpu->debugregs.dr7 = 0x455;
	vcpu->mp_state.mp_state = KVM_MP_STATE_HALTED;
	fill_events(&vcpu->events);
	fill_nested((struct kvm_nested_state *)vcpu->nested);
	for (unsigned int i = 0; i < fake_kvm.msr_count; i++)
		*fake_kvm_msr(vcpu, fake_kvm.msr_list[i]) = 0x123456789abcdef0 + i;
	*fake_kvm_msr(vcpu, 0x3a) = 5;
	*fake_kvm_msr(vcpu, 0x6e0) = 0x1122334455;
	for (size_t at = 0; at < sizeof(vcpu->lapic.regs); at += 16)
		put_le32((uint8_t *)vcpu->lapic.regs + at, (uint32_t)(at * 0x01010101));
	put_le32((uint8_t *)vcpu->lapic.regs + 0x320, 2 << 17 | 0xec); /* its timer has a deadline */
	vcpu->ssp = 0x7ffff7ffe000;
}

static int save_vcpu(struct state_buffer *out, struct err *err)
{
	return vcpu_set_save(vcpus, 0, out, err);
}

static int load_vcpu(const void *data, size_t len, struct err *err)
{
	return vcpu_set_load(vcpus, 0, false, data, len, err);
}

static void fill_chips(void)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct kvm_pic_state *pic = &fake_kvm.chips[i].chip.pic;

		count_up(pic, 4, (uint8_t)(9 + i));
		pic->priority_add = (uint8_t)(5 + i);
		pic->irq_base = (uint8_t)(0x30 + 8 * i);
		memset(&pic->read_reg_select, 1, 3);
		pic->init_state = (uint8_t)(2 + i);
		memset(&pic->auto_eoi, 1, 4);
		pic->elcr = i ? 0x0e : 0x20;
		pic->elcr_mask = i ? 0xde : 0xf8;
	}
	fake_kvm.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic = (struct kvm_ioapic_state){.ioregsel = 0x11, .id = 2, .irr = 0x900010};
	for (uint32_t i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		fake_kvm.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl[i].bits = 0x0300000000018930 + i;
}

static int save_chips(struct state_buffer *out, struct err *err)
{
	return state_save(&irqchip_state, &kvm, out, err);
}

static int load_chips(const void *data, size_t len, struct err *err)
{
	return state_load(&irqchip_state, &kvm, data, len, err);
}

static void fill_pit(void)
{
	for (uint8_t i = 0; i < 3; i++)
		fake_kvm.pit.channels[i] = (struct kvm_pit_channel_state){
			.count = 0x10000 - i, .latched_count = (uint16_t)(0x1234 + i), .count_latched = i, .status_latched = 1,
			.status = 0xb4, .read_state = 3, .write_state = 4, .write_latch = 0x5a, .rw_mode = 3,
			.mode = i ? 2 : 0xff, .bcd = 1, .gate = 1};
	fake_kvm.pit.flags = KVM_PIT_FLAGS_SPEAKER_DATA_ON;
}

static int save_pit(struct state_buffer *out, struct err *err)
{
	return state_save(&pit_state, &kvm, out, err);
}

static int load_pit(const void *data, size_t len, struct err *err)
{
	return state_load(&pit_state, &kvm, data, len, err);
}

static void fill_clock(void)
{
	fake_kvm_pass(1234567890);
	CHECK_EQ(clock_pause(timekeeper, NULL), 0);
}

static int save_clock(struct state_buffer *out, struct err *err)
{
	return clock_save(timekeeper, out, err);
}

static int load_clock(const void *data, size_t len, struct err *err)
{
	return clock_load(timekeeper, data, len, err);
}

static void kvm_records_load(void)
{
	static const struct golden_subject subjects[] = {
		{"vcpu-intel", begin_intel, fill_vcpu, save_vcpu, load_vcpu, end_kvm},
		{"vcpu-amd", begin_amd, fill_vcpu, save_vcpu, load_vcpu, end_kvm},
		{"irqchip", begin_intel, fill_chips, save_chips, load_chips, end_kvm},
		{"pit", begin_intel, fill_pit, save_pit, load_pit, end_kvm},
		{"clock", begin_intel, fill_clock, save_clock, load_clock, end_kvm},
	};

	for (size_t i = 0; i < ARRAY_SIZE(subjects); i++)
		golden_check(&subjects[i]);
}

/* ---- the platform ---- */

static struct bus *pio;
static struct event_loop *loop;
static struct serial *serial;
static struct rtc *rtc;
static struct power *power;
static struct i8042 *i8042;
static struct irq_line line;

static void line_set(struct irq_line *l, bool level)
{
	l->level = level;
}

static void power_event(void *opaque, enum power_event event)
{
}

static uint64_t guest_ns(void *opaque)
{
	return 123456789000;
}

static void begin_platform(void)
{
	static const struct irq_line_ops ops = {.set = line_set};
	struct power_config config = {.port = POWER, .event = power_event, .now = guest_ns, .irq = &line, .sci = &line};

	line.ops = &ops;
	pio = config.pio = bus_create();
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(serial_create(pio, COM1, &line, -1, -1, loop, NULL, &serial, NULL), 0);
	CHECK_EQ(rtc_create(pio, &line, loop, &rtc, NULL), 0);
	CHECK_EQ(power_create(&config, &power, NULL), 0);
	CHECK_EQ(i8042_create(&(struct i8042_config){.pio = pio, .irq = &line}, &i8042, NULL), 0);
}

static void end_platform(void)
{
	i8042_destroy(i8042);
	power_destroy(power);
	rtc_destroy(rtc);
	serial_destroy(serial);
	event_loop_destroy(loop);
	bus_destroy(pio);
}

static void out8(uint64_t port, uint8_t value)
{
	CHECK(bus_write(pio, port, &value, 1));
}

static void fill_serial(void)
{
	out8(COM1 + UART_LCR, UART_LCR_DLAB);
	out8(COM1 + UART_DLL, 1);
	out8(COM1 + UART_DLM, 2);
	out8(COM1 + UART_LCR, UART_LCR_WLEN8);
	out8(COM1 + UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	out8(COM1 + UART_SCR, 0x5a);
	out8(COM1 + UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
	serial_feed(serial, "typed and not yet read", 22);
	out8(COM1 + UART_IER, UART_IER_RDI | UART_IER_THRI);
}

static int save_serial(struct state_buffer *out, struct err *err)
{
	return state_save(&serial_state, serial, out, err);
}

static int load_serial(const void *data, size_t len, struct err *err)
{
	return state_load(&serial_state, serial, data, len, err);
}

/* A time that is being set. */
static void fill_rtc(void)
{
	static const uint8_t values[][2] = {{0x0b, 0x82}, {RTC_CENTURY, 0x19}, {9, 0x99}, {8, 6}, {7, 0x15}, {4, 0x23},
					    {2, 0x59}, {0, 0x58}, {1, 0x11}, {3, 0x22}, {5, 0x12}, {0x40, 0x77}};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		out8(RTC_PORT, values[i][0]);
		out8(RTC_PORT + 1, values[i][1]);
	}
}

static int save_rtc(struct state_buffer *out, struct err *err)
{
	return state_save(&rtc_state, rtc, out, err);
}

static int load_rtc(const void *data, size_t len, struct err *err)
{
	return state_load(&rtc_state, rtc, data, len, err);
}

static void fill_power(void)
{
	const uint8_t control[2] = {0, 5 << 2}, enable[2] = {0, 1};

	CHECK(bus_write(pio, POWER + POWER_PM1_CONTROL, control, 2));
	CHECK(bus_write(pio, POWER + POWER_PM1_ENABLE, enable, 2));
	power_button(power);
	power_pci_added(power, 20);
	power_pci_remove(power, 31);
}

static int save_power(struct state_buffer *out, struct err *err)
{
	return state_save(&power_state, power, out, err);
}

static int load_power(const void *data, size_t len, struct err *err)
{
	return state_load(&power_state, power, data, len, err);
}

/* Keys that are not read yet, and commands that wait for their bytes. */
static void fill_i8042(void)
{
	out8(0x64, 0x60);
	out8(0x60, 0x45);
	CHECK(i8042_ctrl_alt_del(i8042));
	out8(0x60, 0xed);
	out8(0x64, 0xab);
	out8(0x64, 0xd1);
}

static int save_i8042(struct state_buffer *out, struct err *err)
{
	return state_save(&i8042_state, i8042, out, err);
}

static int load_i8042(const void *data, size_t len, struct err *err)
{
	return state_load(&i8042_state, i8042, data, len, err);
}

static struct virtio_driver *ram;
static struct vmgenid *vmgenid;
static struct vmclock *vmclock;

static void begin_generation(void)
{
	ram = driver_create(KIB(64), false);
	CHECK_EQ(vmgenid_create(ram->memory, DRIVER_RAM_BASE, &vmgenid, NULL), 0);
	CHECK_EQ(vmclock_create(ram->memory, DRIVER_RAM_BASE + KIB(4), &vmclock, NULL), 0);
}

static void end_generation(void)
{
	vmclock_destroy(vmclock);
	vmgenid_destroy(vmgenid);
	driver_destroy(ram);
}

static void fill_generation(void)
{
	CHECK_EQ(vmclock_disrupt(vmclock, NULL), 0);
	vmclock_publish(vmclock, &(struct vmclock_time){.counter = 5, .counter_hz = 1000000000, .realtime_ns = 7});
}

static int save_vmgenid(struct state_buffer *out, struct err *err)
{
	return state_save(&vmgenid_state, vmgenid, out, err);
}

static int load_vmgenid(const void *data, size_t len, struct err *err)
{
	return state_load(&vmgenid_state, vmgenid, data, len, err);
}

static int save_vmclock(struct state_buffer *out, struct err *err)
{
	return state_save(&vmclock_state, vmclock, out, err);
}

static int load_vmclock(const void *data, size_t len, struct err *err)
{
	return state_load(&vmclock_state, vmclock, data, len, err);
}

static void platform_records_load(void)
{
	static const struct golden_subject subjects[] = {
		{"serial", begin_platform, fill_serial, save_serial, load_serial, end_platform},
		{"rtc", begin_platform, fill_rtc, save_rtc, load_rtc, end_platform},
		{"i8042", begin_platform, fill_i8042, save_i8042, load_i8042, end_platform},
		{"power", begin_platform, fill_power, save_power, load_power, end_platform},
		{"vmgenid", begin_generation, fill_generation, save_vmgenid, load_vmgenid, end_generation},
		{"vmclock", begin_generation, fill_generation, save_vmclock, load_vmclock, end_generation},
	};

	for (size_t i = 0; i < ARRAY_SIZE(subjects); i++)
		golden_check(&subjects[i]);
}

/* ---- PCI ---- */

static struct state_devices devices;
static unsigned int kind;

/* A network's thread sends the packet in its second queue in its own time. */
static void await_network(void)
{
	const struct vring_used *used = driver_at(devices.ram, virtio_transport_device(devices.pci)->queues[1].setup.used);

	for (unsigned int i = 0; i < 100000 && !__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE); i++)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void fill_device(void)
{
	state_devices_make(&devices, kind);
	state_devices_bring_up(&devices);
	CHECK(virtio_transport_device(devices.pci)->active);
	if (virtio_transport_device(devices.pci)->type == VIRTIO_ID_NET)
		await_network();
	virtio_transport_drain(devices.pci, VIRTIO_NO_DEADLINE, NULL);
}

/* The one before has left its rings in the guest's memory. */
static void begin_device(void)
{
	fill_device();
	state_devices_make(&devices, kind);
	virtio_transport_drain(devices.pci, VIRTIO_NO_DEADLINE, NULL);
}

static int save_device(struct state_buffer *out, struct err *err)
{
	return virtio_transport_save(devices.pci, out, err);
}

static int load_device(const void *data, size_t len, struct err *err)
{
	return virtio_transport_load(devices.pci, data, len, err);
}

static void end_device(void)
{
}

static int save_bus(struct state_buffer *out, struct err *err)
{
	return state_save(&pci_bus_state, devices.rig.bus, out, err);
}

static int load_bus(const void *data, size_t len, struct err *err)
{
	return state_load(&pci_bus_state, devices.rig.bus, data, len, err);
}

static void pci_records_load(void)
{
	const struct golden_subject bus = {"pci", begin_device, fill_device, save_bus, load_bus, end_device};

	state_devices_open(&devices);
	kind = 0;
	golden_check(&bus);
	for (; kind < state_device_count; kind++) {
		char name[64];
		const struct golden_subject device = {name, begin_device, fill_device, save_device, load_device, end_device};

		snprintf(name, sizeof(name), "device-%s", state_device_names[kind]);
		golden_check(&device);
	}
	state_devices_close(&devices);
}

/* ---- virtio on MMIO ---- */

#define PAGE_AT 0xe0101000ull

static struct bus *mmio;
static struct virtio_transport *transport;

static int line_wire(struct irq_line *l, int trigger_fd, int resample_fd, struct err *err)
{
	return 0;
}

static void line_unwire(struct irq_line *l, int trigger_fd)
{
}

static void begin_mmio(void)
{
	static const struct irq_line_ops ops = {.wire = line_wire, .unwire = line_unwire};
	struct virtio_mmio_config config = {.addr = PAGE_AT, .slot = 1, .line = {.ops = &ops}};
	struct virtio_device *device;

	ram = driver_create(KIB(64), false);
	mmio = config.mmio = bus_create();
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "mmio", NULL), 0);
	CHECK_EQ(virtio_rng_create("rng", ram->memory, loop, NULL, &device, NULL), 0);
	CHECK_EQ(virtio_mmio_create(device, &config, &transport, NULL), 0);
}

static void set_register(uint64_t offset, uint32_t value)
{
	uint8_t data[4];

	put_le32(data, value);
	CHECK(bus_write(mmio, PAGE_AT + offset, data, 4));
}

static void fill_mmio(void)
{
	set_register(VIRTIO_MMIO_STATUS, 3);
	set_register(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 7);
	set_register(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	set_register(VIRTIO_MMIO_DRIVER_FEATURES, 1);
	set_register(VIRTIO_MMIO_STATUS, 11);
	set_register(VIRTIO_MMIO_QUEUE_NUM, 16);
	set_register(VIRTIO_MMIO_QUEUE_DESC_LOW, DRIVER_RAM_BASE);
	set_register(VIRTIO_MMIO_QUEUE_AVAIL_LOW, DRIVER_RAM_BASE + KIB(4));
	set_register(VIRTIO_MMIO_QUEUE_USED_LOW, DRIVER_RAM_BASE + KIB(8));
	set_register(VIRTIO_MMIO_QUEUE_READY, 1);
	set_register(VIRTIO_MMIO_STATUS, 15);
	set_register(VIRTIO_MMIO_QUEUE_SEL, 0x1234);
	virtio_transport_device(transport)->transport->notify_queue(virtio_transport_device(transport), 0);
	virtio_transport_drain(transport, VIRTIO_NO_DEADLINE, NULL);
}

static int save_mmio(struct state_buffer *out, struct err *err)
{
	return virtio_transport_save(transport, out, err);
}

static int load_mmio(const void *data, size_t len, struct err *err)
{
	return virtio_transport_load(transport, data, len, err);
}

static void end_mmio(void)
{
	virtio_transport_destroy(transport);
	event_loop_destroy(loop);
	bus_destroy(mmio);
	driver_destroy(ram);
}

static void mmio_records_load(void)
{
	const struct golden_subject subject = {"virtio-mmio", begin_mmio, fill_mmio, save_mmio, load_mmio, end_mmio};

	golden_check(&subject);
}

TEST_MAIN(TEST(kvm_records_load), TEST(platform_records_load), TEST(pci_records_load), TEST(mmio_records_load))
