/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a restore takes at least: makes the VM of a small guest, maps its memory file privately, sets the state of its vCPU and of its
 * interrupt chips by the calls that KVM has for that, and calls KVM_RUN. No checks of files, no devices, no control socket.
 *
 *	bare_restore save STATE               writes the state that `run` sets: that of a vCPU after its reset
 *	bare_restore run STATE MEMORY [work]  up to KVM_RUN; `work`: with the ioeventfds and irqfds of a disk and a network
 *	bare_restore spare STATE MEMORY [work]  the same in two halves: the second one when a byte comes on standard input
 *
 * tests/bench/snapshot.py measures mvmm restore beside it. The guest is not run to any purpose.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_MSRS 512
#define MSRS_A_CALL 128
#define MAX_CPUID 256
#define MAX_XSAVE 16384
#define HUGE_PAGE 0x200000ul
#define PINS 24
#define VECTORS 3           /* of the disk's queue, the network's two */
#define DOORBELLS 0xd0003000ul
#define KVM_HOLE 0xfeffc000ul /* four pages of Intel's real mode */

struct state {
	uint32_t cpuid_count, msr_count, xsave_len;
	struct kvm_cpuid_entry2 cpuid[MAX_CPUID];
	struct kvm_msr_entry msrs[MAX_MSRS];
	uint8_t xsave[MAX_XSAVE];
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp_state;
	struct kvm_irqchip chips[3];
	struct kvm_clock_data clock;
	int64_t tsc_offset;
};

static int kvm, vm, vcpu;
static struct state state;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "bare_restore: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int call(int fd, unsigned long request, void *arg, const char *name)
{
	int ret = ioctl(fd, request, arg);

	if (ret < 0)
		fail(name);
	return ret;
}

#define CALL(fd, request, arg) call(fd, request, arg, #request)

/* ---- the VM ---- */

static void make_vm(void)
{
	uint64_t identity = KVM_HOLE;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		fail("/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		fail("KVM_CREATE_VM");
	CALL(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	CALL(vm, KVM_SET_TSS_ADDR, (void *)(KVM_HOLE + 0x1000));
}

static void make_irqchip(void)
{
	CALL(vm, KVM_CREATE_IRQCHIP, NULL);
}

static void make_vcpu(void)
{
	struct kvm_coalesced_mmio_zone zones[] = {{.addr = 0xcf8, .size = 4, .pio = 1}, {.addr = 0x70, .size = 1, .pio = 1}};
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[MAX_CPUID];
	} cpuid = {.head.nent = state.cpuid_count};
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		fail("KVM_CREATE_VCPU");
	if (mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0) == MAP_FAILED)
		fail("kvm_run");
	memcpy(cpuid.entries, state.cpuid, sizeof(state.cpuid));
	CALL(vcpu, KVM_SET_CPUID2, &cpuid);
	for (int i = 0; i < 2; i++)
		CALL(vm, KVM_REGISTER_COALESCED_MMIO, &zones[i]);
}

/* Address space for the memory, aligned for huge pages. */
static void *reserve(size_t size)
{
	char *host = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (host == MAP_FAILED)
		fail("mmap");
	return host + (-(uintptr_t)host & (HUGE_PAGE - 1));
}

static void map_memory(void *host, int fd, size_t size)
{
	if (mmap(host, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED)
		fail("memory file");
}

static void add_slot(void *host, size_t size)
{
	struct kvm_userspace_memory_region region = {.memory_size = size, .userspace_addr = (uintptr_t)host};

	CALL(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* ---- a disk's and a network's ways into and out of KVM ---- */

static void set_routes(int vectors)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entries[PINS + VECTORS];
	} routes = {.head.nr = (uint32_t)(PINS + vectors)};

	for (uint32_t pin = 0; pin < PINS; pin++)
		routes.entries[pin] = (struct kvm_irq_routing_entry){
			.gsi = pin, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {KVM_IRQCHIP_IOAPIC, pin}};
	for (uint32_t i = PINS; i < routes.head.nr; i++)
		routes.entries[i] = (struct kvm_irq_routing_entry){
			.gsi = i, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {.address_lo = 0xfee00000, .data = 0x40 + i - PINS}};
	CALL(vm, KVM_SET_GSI_ROUTING, &routes);
}

static void wire(void)
{
	for (uint32_t i = 0; i < VECTORS; i++) {
		struct kvm_irqfd out = {.fd = (uint32_t)eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .gsi = PINS + i};
		struct kvm_ioeventfd in = {.addr = DOORBELLS + 4 * i, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

		CALL(vm, KVM_IRQFD, &out);
		CALL(vm, KVM_IOEVENTFD, &in);
	}
}

/* ---- registers ---- */

static uint32_t msrs_call(unsigned long request, struct kvm_msr_entry *entries, uint32_t count)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[MSRS_A_CALL];
	} msrs = {.head.nmsrs = count < MSRS_A_CALL ? count : MSRS_A_CALL};
	int done;

	memcpy(msrs.entries, entries, msrs.head.nmsrs * sizeof(*entries));
	done = ioctl(vcpu, request, &msrs);
	if (done < 0)
		fail("MSRs");
	memcpy(entries, msrs.entries, (size_t)done * sizeof(*entries));
	return (uint32_t)done;
}

static void set_tsc_offset(void)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&state.tsc_offset};

	if (ioctl(vcpu, KVM_SET_DEVICE_ATTR, &attr) < 0 && errno != ENXIO)
		fail("KVM_VCPU_TSC_OFFSET");
}

static void set_vcpu(void)
{
	state.clock.flags = 0;
	CALL(vm, KVM_SET_CLOCK, &state.clock);
	set_tsc_offset();
	CALL(vcpu, KVM_SET_SREGS2, &state.sregs);
	CALL(vcpu, KVM_SET_REGS, &state.regs);
	CALL(vcpu, KVM_SET_XSAVE, state.xsave);
	CALL(vcpu, KVM_SET_XCRS, &state.xcrs);
	for (uint32_t at = 0; at < state.msr_count;)
		at += msrs_call(KVM_SET_MSRS, state.msrs + at, state.msr_count - at) ?: 1;
	CALL(vcpu, KVM_SET_LAPIC, &state.lapic);
	CALL(vcpu, KVM_SET_DEBUGREGS, &state.debugregs);
	CALL(vcpu, KVM_SET_MP_STATE, &state.mp_state);
	CALL(vcpu, KVM_SET_VCPU_EVENTS, &state.events);
}

static void set_chips(void)
{
	for (int i = 0; i < 3; i++)
		CALL(vm, KVM_SET_IRQCHIP, &state.chips[i]);
}

/* ---- save ---- */

static void get_cpuid(void)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[MAX_CPUID];
	} cpuid = {.head.nent = MAX_CPUID};

	CALL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	state.cpuid_count = cpuid.head.nent;
	memcpy(state.cpuid, cpuid.entries, sizeof(state.cpuid));
}

static void get_msr(uint32_t index)
{
	struct kvm_msr_entry *entry = &state.msrs[state.msr_count];

	*entry = (struct kvm_msr_entry){.index = index};
	/* Counters that run, and what no guest sees. */
	if (index == 0x10 || index == 0x6e0 || (index >> 8) == 0x400000 || state.msr_count == MAX_MSRS)
		return;
	if (msrs_call(KVM_GET_MSRS, entry, 1) == 1 && msrs_call(KVM_SET_MSRS, entry, 1) == 1)
		state.msr_count++;
}

static void get_msrs(void)
{
	struct {
		struct kvm_msr_list head;
		uint32_t indices[MAX_MSRS];
	} list = {.head.nmsrs = MAX_MSRS};

	CALL(kvm, KVM_GET_MSR_INDEX_LIST, &list);
	for (uint32_t i = 0; i < list.head.nmsrs; i++)
		get_msr(list.head.indices[i]);
}

static void get_tsc_offset(void)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&state.tsc_offset};

	ioctl(vcpu, KVM_GET_DEVICE_ATTR, &attr);
}

static void get_state(void)
{
	CALL(vcpu, KVM_GET_MP_STATE, &state.mp_state);
	CALL(vcpu, KVM_GET_VCPU_EVENTS, &state.events);
	CALL(vcpu, KVM_GET_REGS, &state.regs);
	CALL(vcpu, KVM_GET_SREGS2, &state.sregs);
	CALL(vcpu, KVM_GET_XSAVE2, state.xsave);
	CALL(vcpu, KVM_GET_XCRS, &state.xcrs);
	CALL(vcpu, KVM_GET_LAPIC, &state.lapic);
	CALL(vcpu, KVM_GET_DEBUGREGS, &state.debugregs);
	CALL(vm, KVM_GET_CLOCK, &state.clock);
	get_tsc_offset();
	get_msrs();
	for (uint32_t i = 0; i < 3; i++) {
		state.chips[i].chip_id = i;
		CALL(vm, KVM_GET_IRQCHIP, &state.chips[i]);
	}
}

static int save(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	make_vm();
	if (ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2) > MAX_XSAVE)
		fail("extended state");
	make_irqchip();
	get_cpuid();
	make_vcpu();
	get_state();
	if (fd < 0 || write(fd, &state, sizeof(state)) != sizeof(state))
		fail(path);
	return 0;
}

/* ---- run ---- */

static void read_state(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, &state, sizeof(state)) != sizeof(state))
		fail(path);
	close(fd);
}

static int run(int waits, const char *state_path, const char *memory_path, int work)
{
	int memory = open(memory_path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *host;
	char byte;

	if (memory < 0 || fstat(memory, &st) < 0)
		fail(memory_path);
	read_state(state_path);
	make_vm();
	host = reserve((size_t)st.st_size);
	if (!waits)
		map_memory(host, memory, (size_t)st.st_size);
	add_slot(host, (size_t)st.st_size);
	make_irqchip();
	make_vcpu();
	if (waits && read(STDIN_FILENO, &byte, 1) != 1)
		fail("standard input");
	if (waits)
		map_memory(host, memory, (size_t)st.st_size);
	set_vcpu();
	set_routes(work ? VECTORS : 0);
	if (work)
		wire();
	set_chips();
	ioctl(vcpu, KVM_RUN, 0);
	return 0;
}

int main(int argc, char **argv)
{
	int work = argc == 5 && strcmp(argv[4], "work") == 0;

	if (argc == 3 && strcmp(argv[1], "save") == 0)
		return save(argv[2]);
	if ((argc == 4 || work) && strcmp(argv[1], "run") == 0)
		return run(0, argv[2], argv[3], work);
	if ((argc == 4 || work) && strcmp(argv[1], "spare") == 0)
		return run(1, argv[2], argv[3], work);
	fprintf(stderr, "usage: bare_restore save STATE | run STATE MEMORY [work] | spare STATE MEMORY [work]\n");
	return 2;
}
