/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden records of vCPUs on a real KVM (see tests/unit/test_golden_records.c): whatever the processor, one that is masked to a
 * baseline loads them, and has them then. The baseline has no XSAVE, so that the extended state is that of x87 and SSE, and the
 * record has those MSRs alone that every processor has in long mode.
 *
 *	MVMM_WRITE_GOLDEN=1 build/tests/kvm/test_golden
 *
 * writes the next file with the state of a vCPU here.
 */
#include "tests/unit/golden_record.h"
#include "tests/unit/test.h"
#include "vmm/kvm/guest_cpu.h"
#include "vmm/kvm/irqchip.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vcpu_record_x86.h"

#include <sys/ioctl.h>
#include <unistd.h>

#define PART "vcpu-baseline"
#define XMM_END 416u /* of the extended state: control words, x87 and XMM registers */
#define MXCSR_MASK 28u

static const struct log quiet = {.fd = -1};
static struct kvm kvm;
static struct irqchip *irqchip;
static struct guest_cpu *cpu;
static struct vcpu_set *vcpus;
static struct vcpu_record golden, loaded;
static struct err err;

/* Of those of SYSENTER, AMD's processors keep 32 bits. */
static const struct kvm_msr_entry msrs[] = {
	{.index = 0x174, .data = 0x10}, {.index = 0x175, .data = 0x7ff01000}, {.index = 0x176, .data = 0x7ff02000},
	{.index = 0x277, .data = 0x0407050600070106}, {.index = 0x2ff, .data = 0x806}, /* PAT, MTRRs */
	{.index = 0xc0000081, .data = 0x0023001000000000}, {.index = 0xc0000082, .data = 0xffffffff80001000},
	{.index = 0xc0000083, .data = 0xffffffff80002000}, {.index = 0xc0000084, .data = 0x47700},
	{.index = 0xc0000102, .data = 0x00007ffff7ffe000}, /* SYSCALL, GS */
};

static void check_ok(int code)
{
	if (code < 0)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
}

/* ---- a vCPU ---- */

static void end(void)
{
	vcpu_set_destroy(take_ptr(vcpus));
	guest_cpu_destroy(take_ptr(cpu));
	irqchip_destroy(take_ptr(irqchip));
	if (kvm.fd)
		kvm_close(&kvm);
	kvm.fd = 0;
}

/* entry: NULL: a state will be loaded. */
static void begin(const struct boot_entry *entry)
{
	static char masked[][32] = {"xsave", "vmx", "svm", "spec_ctrl", "ssbd", "arch_capabilities", "shstk", "ibt"};
	char *names[ARRAY_SIZE(masked)];
	const struct cpu_config chosen = {.masked = names, .masked_count = ARRAY_SIZE(names)};
	const struct vcpu_config config = {.kvm = &kvm, .count = 1, .log = &quiet};

	if (access("/dev/kvm", R_OK | W_OK))
		SKIP("/dev/kvm is missing or may not be used");
	for (size_t i = 0; i < ARRAY_SIZE(masked); i++)
		names[i] = masked[i];
	end();
	check_ok(kvm_open(&kvm, &err));
	check_ok(kvm_create_vm(&kvm, &err));
	check_ok(irqchip_create(&kvm, &irqchip, &err));
	check_ok(guest_cpu_create(&kvm, 1, &chosen, &cpu, &err));
	check_ok(vcpu_set_create(&config, cpu, entry, &vcpus, &err));
}

/* ---- records ---- */

/* Copies the record to the object, or back. */
static int on_loaded(void *object, const void *state, struct err *e)
{
	memcpy(object, state, sizeof(struct vcpu_record));
	return 0;
}

static int on_save(void *object, void *state, struct err *e)
{
	memcpy(state, object, sizeof(struct vcpu_record));
	return 0;
}

static const struct state_table table = {
	.name = VCPU_RECORD_NAME, .version = VCPU_RECORD_VERSION, .oldest = VCPU_RECORD_OLDEST,
	STATE_FIELDS(vcpu_record_fields), STATE_APART(struct vcpu_record), .collect = on_save, .loaded = on_loaded,
};

static const struct kvm_msr_entry *find_msr(const struct vcpu_record *record, uint32_t index)
{
	for (uint32_t i = 0; i < record->msr_count; i++)
		if (record->msrs[i].index == index)
			return &record->msrs[i];
	return NULL;
}

/* What this vCPU has. */
static void read_vcpu(struct vcpu_record *ret)
{
	struct state_buffer saved = {0};

	check_ok(vcpu_set_save(vcpus, 0, &saved, &err));
	check_ok(state_load(&table, ret, saved.data, saved.len, &err));
	state_buffer_free(&saved);
}

/* ---- writing ---- */

static void fill_fpu(int fd)
{
	struct kvm_fpu fpu;

	CHECK_EQ(ioctl(fd, KVM_GET_FPU, &fpu), 0);
	for (size_t i = 0; i < 8; i++)
		memset(fpu.fpr[i], (int)(0x10 + i), 10);
	for (size_t i = 0; i < 16; i++)
		memset(fpu.xmm[i], (int)(0x40 + i), 16);
	fpu.fcw = 0x37f;
	fpu.mxcsr = 0x1fa0;
	CHECK_EQ(ioctl(fd, KVM_SET_FPU, &fpu), 0);
}

static void fill(int fd)
{
	struct kvm_regs regs;
	struct kvm_debugregs debugregs = {.db = {0x1111, 0x2222, 0x3333, 0x4444}, .dr6 = 0xffff0ff0, .dr7 = 0x455};
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[ARRAY_SIZE(msrs)];
	} set = {.head.nmsrs = ARRAY_SIZE(msrs)};

	for (size_t i = 0; i < sizeof(regs) / 8; i++)
		((uint64_t *)&regs)[i] = 0x0101010101010101ull * (i + 1);
	regs.rip = 0xffffffff81000000;
	regs.rflags = 0x246;
	CHECK_EQ(ioctl(fd, KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(fd, KVM_SET_DEBUGREGS, &debugregs), 0);
	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++)
		set.entries[i] = msrs[i];
	CHECK_EQ(ioctl(fd, KVM_SET_MSRS, &set), ARRAY_SIZE(msrs));
	fill_fpu(fd);
}

/* The record of a vCPU in long mode, without what is this processor's. */
static void write_golden(unsigned int number)
{
	const struct boot_entry entry = {.protocol = BOOT_LINUX64, .entry = 0x100000, .page_tables = 0x9000, .gdt = 0x500};
	struct state_buffer out = {0};

	begin(&entry);
	fill(vcpu_set_fd(vcpus, 0));
	read_vcpu(&loaded);
	golden = loaded;
	golden.xsave_len = 4096;
	memset(golden.xsave + MXCSR_MASK, 0, 4);
	memset(golden.xsave + XMM_END, 0, 512 - XMM_END);
	golden.msr_count = 0;
	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++)
		golden.msrs[golden.msr_count++] = *find_msr(&loaded, msrs[i].index);
	check_ok(state_save(&table, &golden, &out, &err));
	golden_write(PART, number, &out);
	state_buffer_free(&out);
}

/* ---- the check ---- */

static uint32_t lapic(const struct vcpu_record *record, unsigned int offset)
{
	return get_le32((const uint8_t *)record->lapic.regs + offset);
}

static void expect_loaded(void)
{
	/* id, priorities, logical destination, spurious vector, in service, requested, timer; not how many entries it has */
	static const unsigned int regs[] = {0x20, 0x80, 0xd0, 0xe0, 0xf0, 0x100, 0x200, 0x320, 0x380, 0x3e0};

	CHECK_EQ(loaded.mp_state.mp_state, golden.mp_state.mp_state);
	CHECK(memcmp(&loaded.regs, &golden.regs, sizeof(golden.regs)) == 0);
	CHECK(memcmp(&loaded.sregs, &golden.sregs, offsetof(struct kvm_sregs2, flags)) == 0);
	CHECK(memcmp(&loaded.debugregs, &golden.debugregs, sizeof(golden.debugregs)) == 0);
	CHECK(memcmp(loaded.xsave, golden.xsave, MXCSR_MASK) == 0);
	CHECK(memcmp(loaded.xsave + MXCSR_MASK + 4, golden.xsave + MXCSR_MASK + 4, XMM_END - MXCSR_MASK - 4) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
		CHECK_EQ(lapic(&loaded, regs[i]), lapic(&golden, regs[i]));
	for (size_t i = 0; i < golden.msr_count; i++) {
		const struct kvm_msr_entry *msr = find_msr(&loaded, golden.msrs[i].index);

		CHECK(msr);
		CHECK_EQ(msr->data, golden.msrs[i].data);
	}
}

static void golden_vcpus_load_on_this_kvm(void)
{
	struct state_buffer record = {0};
	unsigned int number = 1;

	for (; golden_read(PART, number, &record); number++) {
		check_ok(state_load(&table, &golden, record.data, record.len, &err));
		for (int trial = 1; trial >= 0; trial--) {
			begin(NULL);
			check_ok(vcpu_set_load(vcpus, 0, trial, record.data, record.len, &err));
			check_ok(vcpu_set_load(vcpus, 0, false, record.data, record.len, &err));
			read_vcpu(&loaded);
			expect_loaded();
		}
	}
	state_buffer_free(&record);
	if (getenv("MVMM_WRITE_GOLDEN"))
		write_golden(number);
	else
		CHECK(number > 1);
	end();
}

TEST_MAIN(TEST(golden_vcpus_load_on_this_kvm))
