/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_kvm.h. */
#include "tests/unit/fake_kvm.h"

#include "core/err.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define MSR_TSC 0x10u
#define MSR_FEATURE_CONTROL 0x3au
#define MSR_VMX_FIRST 0x480u
#define MSR_VMX_LAST 0x493u
#define MSR_DEADLINE 0x6e0u
#define EFER_SVME (1ull << 12)
#define MAX_FDS 1024
#define MAX_RUNS 64u
#define NS 1000000000ull

enum kind { NOTHING, SYSTEM, VM, VCPU, DEVICE };

struct fake_kvm fake_kvm;
static enum kind kinds[MAX_FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t inodes[MAX_FDS]; /* a descriptor that was closed and is another file now is none of ours */

/* ---- descriptors ---- */

static int fake_kvm_descriptor(enum kind kind)
{
	struct stat st;
	int fd = memfd_create("fake-kvm", MFD_CLOEXEC);

	if (fd < 0 || fd >= MAX_FDS || ftruncate(fd, FAKE_KVM_RUN_SIZE) || fstat(fd, &st))
		abort();
	kinds[fd] = kind;
	inodes[fd] = st.st_ino;
	return fd;
}

static enum kind fake_kvm_kind(int fd)
{
	struct stat st;

	if (fd < 0 || fd >= MAX_FDS || !kinds[fd])
		return NOTHING;
	if (fstat(fd, &st) || st.st_ino != inodes[fd])
		kinds[fd] = NOTHING;
	return kinds[fd];
}

unsigned int fake_kvm_open(void)
{
	unsigned int count = 0;

	for (int fd = 0; fd < MAX_FDS; fd++)
		count += fake_kvm_kind(fd) != NOTHING;
	return count;
}

int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return strcmp(path, "/dev/kvm") == 0 ? fake_kvm_descriptor(SYSTEM) :
	       (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* ---- state ---- */

static const struct kvm_nested_state *nested_of(const struct fake_vcpu *vcpu)
{
	return (const struct kvm_nested_state *)vcpu->nested;
}

static void fake_kvm_forget_nested(struct fake_vcpu *vcpu)
{
	struct kvm_nested_state *nested = (struct kvm_nested_state *)vcpu->nested;

	*nested = (struct kvm_nested_state){.size = sizeof(*nested)};
	if (fake_kvm.intel) {
		nested->format = KVM_STATE_NESTED_FORMAT_VMX;
		nested->hdr.vmx.vmxon_pa = nested->hdr.vmx.vmcs12_pa = UINT64_MAX;
	} else {
		nested->format = KVM_STATE_NESTED_FORMAT_SVM;
		nested->flags = KVM_STATE_NESTED_GIF_SET;
	}
}

void fake_kvm_reset(void)
{
	for (int fd = 0; fd < MAX_FDS; fd++)
		if (fake_kvm_kind(fd) != NOTHING)
			close(fd);
	for (unsigned int i = 0; i < FAKE_KVM_VCPUS; i++)
		if (fake_kvm.vcpus[i].run)
			munmap(fake_kvm.vcpus[i].run, FAKE_KVM_RUN_SIZE);
	memset(&fake_kvm, 0, sizeof(fake_kvm));
	memset(kinds, 0, sizeof(kinds));
	for (size_t i = 0; i < FAKE_KVM_CAPS; i++)
		fake_kvm.caps[i] = 1;
	fake_kvm.caps[KVM_CAP_XSAVE2] = 0;
	fake_kvm.caps[KVM_CAP_MAX_VCPUS] = FAKE_KVM_VCPUS;
	fake_kvm.caps[KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2] = 0;
	fake_kvm.caps[KVM_CAP_COALESCED_MMIO] = 0;
	fake_kvm.caps[KVM_CAP_SYS_ATTRIBUTES] = 0;
	fake_kvm.caps[KVM_CAP_ADJUST_CLOCK] = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	fake_kvm.offsets = true;
	fake_kvm.ratio_bits = 32;
	fake_kvm.host_khz = 2000000;
	fake_kvm.host_ns = 5 * NS;
	fake_kvm.host_tsc = 10000000000000ull;
	fake_kvm.realtime = 1700000000 * NS;
}

void fake_kvm_fail(unsigned int n, int error)
{
	fake_kvm_fail_request(0, n, error);
}

unsigned int fake_kvm_count(unsigned long request)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < MIN(fake_kvm.call_count, FAKE_KVM_CALLS); i++)
		count += fake_kvm.calls[i].request == request;
	return count;
}

void fake_kvm_fail_request(unsigned long request, unsigned int n, int error)
{
	pthread_mutex_lock(&lock);
	fake_kvm.fail_at = n;
	fake_kvm.fail_request = request;
	fake_kvm.fail_errno = error;
	fake_kvm.failed = 0;
	pthread_mutex_unlock(&lock);
}

int fake_kvm_find(unsigned int from, unsigned long request, uint64_t argument)
{
	for (unsigned int i = from; i < fake_kvm.call_count && i < FAKE_KVM_CALLS; i++)
		if (fake_kvm.calls[i].request == request &&
		    (argument == UINT64_MAX || fake_kvm.calls[i].argument == argument))
			return (int)i;
	return -1;
}

static struct fake_vcpu *fake_kvm_vcpu_of(int fd)
{
	for (unsigned int i = 0; i < FAKE_KVM_VCPUS; i++)
		if (fake_kvm.vcpus[i].fd == fd && fake_kvm.vcpus[i].run)
			return &fake_kvm.vcpus[i];
	abort();
}

struct fake_vcpu *fake_kvm_vcpu(unsigned int index)
{
	for (unsigned int i = 0; i < FAKE_KVM_VCPUS; i++)
		if (fake_kvm.vcpus[i].run && fake_kvm_kind(fake_kvm.vcpus[i].fd) == VCPU && !index--)
			return &fake_kvm.vcpus[i];
	abort();
}

uint64_t *fake_kvm_msr(struct fake_vcpu *vcpu, uint32_t index)
{
	unsigned int i = 0;

	while (i < FAKE_KVM_MSRS && vcpu->msrs[i].index && vcpu->msrs[i].index != index)
		i++;
	if (i == FAKE_KVM_MSRS)
		abort();
	vcpu->msrs[i].index = index;
	return (uint64_t *)&vcpu->msrs[i].data;
}

static uint64_t scaled(const struct fake_vcpu *vcpu)
{
	unsigned __int128 ratio = ((unsigned __int128)vcpu->tsc_khz << fake_kvm.ratio_bits) / fake_kvm.host_khz;

	return vcpu->tsc_khz == fake_kvm.host_khz ? fake_kvm.host_tsc :
	       (uint64_t)(ratio * fake_kvm.host_tsc >> fake_kvm.ratio_bits);
}

uint64_t fake_kvm_tsc(const struct fake_vcpu *vcpu)
{
	return scaled(vcpu) + (uint64_t)vcpu->tsc_offset;
}

uint64_t fake_kvm_clock(void)
{
	return fake_kvm.host_ns + (uint64_t)fake_kvm.kvmclock_offset;
}

void fake_kvm_pass(uint64_t ns)
{
	fake_kvm.host_ns += ns;
	fake_kvm.realtime += ns;
	fake_kvm.host_tsc += (uint64_t)((unsigned __int128)ns * fake_kvm.host_khz / 1000000);
}

/* ---- calls of a vCPU; 0 or more, or -errno ---- */

static bool fake_kvm_has_msr(uint32_t index)
{
	bool has = index == MSR_TSC || index == MSR_DEADLINE || index == 0x1a0 || index == 0x2ff;

	for (unsigned int i = 0; i < fake_kvm.msr_count; i++)
		has |= fake_kvm.msr_list[i] == index;
	return has;
}

static bool fake_kvm_set_msr(struct fake_vcpu *vcpu, uint32_t index, uint64_t value)
{
	bool virtualizes = fake_kvm.intel && nested_of(vcpu)->hdr.vmx.vmxon_pa != UINT64_MAX;

	if (!fake_kvm_has_msr(index) || (virtualizes && index >= MSR_VMX_FIRST && index <= MSR_VMX_LAST))
		return false;
	if (index == MSR_TSC) {
		vcpu->tsc_offset = (int64_t)(value - scaled(vcpu));
		return true;
	}
	if (index == MSR_FEATURE_CONTROL && !value)
		fake_kvm_forget_nested(vcpu);
	*fake_kvm_msr(vcpu, index) = value;
	return true;
}

static int fake_kvm_msrs(struct fake_vcpu *vcpu, struct kvm_msrs *msrs, bool set)
{
	for (uint32_t i = 0; i < msrs->nmsrs; i++) {
		struct kvm_msr_entry *entry = &msrs->entries[i];

		if (set ? !fake_kvm_set_msr(vcpu, entry->index, entry->data) : !fake_kvm_has_msr(entry->index))
			return (int)i;
		if (!set)
			entry->data = entry->index == MSR_TSC ? fake_kvm_tsc(vcpu) : *fake_kvm_msr(vcpu, entry->index);
	}
	return (int)msrs->nmsrs;
}

static int fake_kvm_get_nested(const struct fake_vcpu *vcpu, struct kvm_nested_state *ret)
{
	if (ret->size < nested_of(vcpu)->size)
		return -E2BIG;
	memcpy(ret, vcpu->nested, nested_of(vcpu)->size);
	return 0;
}

/* Intel: allowed by the feature control; AMD: by EFER. */
static int fake_kvm_set_nested(struct fake_vcpu *vcpu, const struct kvm_nested_state *from)
{
	bool allowed = fake_kvm.intel ? *fake_kvm_msr(vcpu, MSR_FEATURE_CONTROL) & 4 : vcpu->sregs.efer & EFER_SVME;
	bool on = fake_kvm.intel ? from->hdr.vmx.vmxon_pa != UINT64_MAX : from->flags != KVM_STATE_NESTED_GIF_SET;

	if (from->size < sizeof(*from) || from->size > sizeof(vcpu->nested) || (on && !allowed) ||
	    from->format != (fake_kvm.intel ? KVM_STATE_NESTED_FORMAT_VMX : KVM_STATE_NESTED_FORMAT_SVM))
		return -EINVAL;
	memcpy(vcpu->nested, from, from->size);
	return 0;
}

static int fake_kvm_one_reg(struct fake_vcpu *vcpu, const struct kvm_one_reg *reg, bool set)
{
	uint64_t *value = (uint64_t *)(uintptr_t)reg->addr;

	if (reg->id != FAKE_KVM_REG_SSP || !fake_kvm.shadow_stacks)
		return -EINVAL;
	*(set ? &vcpu->ssp : value) = *(set ? value : &vcpu->ssp);
	return 0;
}

static int fake_kvm_offset(struct fake_vcpu *vcpu, unsigned long request, const struct kvm_device_attr *attr)
{
	int64_t *value = (int64_t *)(uintptr_t)attr->addr;

	if (!fake_kvm.offsets || attr->group != KVM_VCPU_TSC_CTRL || attr->attr != KVM_VCPU_TSC_OFFSET)
		return -ENXIO;
	if (request == KVM_GET_DEVICE_ATTR)
		*value = vcpu->tsc_offset;
	if (request == KVM_SET_DEVICE_ATTR)
		vcpu->tsc_offset = *value;
	return 0;
}

/* Called without the lock. */
static int fake_kvm_run(struct fake_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	int ret = -EINTR;

	if (__atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE))
		return -EINTR;
	pthread_mutex_lock(&lock);
	fake_kvm.in_guest++;
	fake_kvm.most_in_guest = MAX(fake_kvm.most_in_guest, fake_kvm.in_guest);
	vcpu->runs++;
	pthread_mutex_unlock(&lock);
	if (fake_kvm.guest)
		ret = fake_kvm.guest(vcpu, run);
	else
		while (!__atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE))
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	pthread_mutex_lock(&lock);
	fake_kvm.in_guest--;
	pthread_mutex_unlock(&lock);
	return ret;
}

#define GIVE(member) (memcpy(arg, &vcpu->member, sizeof(vcpu->member)), 0)
#define TAKE(member) (memcpy(&vcpu->member, arg, sizeof(vcpu->member)), 0)

static int fake_kvm_call_vcpu(struct fake_vcpu *vcpu, unsigned long request, void *arg)
{
	switch (request) {
	case KVM_GET_REGS:
		return GIVE(regs);
	case KVM_SET_REGS:
		return TAKE(regs);
	case KVM_GET_SREGS:
		*(struct kvm_sregs *)arg = (struct kvm_sregs){0};
		memcpy(arg, &vcpu->sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
		return 0;
	case KVM_SET_SREGS:
		memcpy(&vcpu->sregs, arg, offsetof(struct kvm_sregs, interrupt_bitmap));
		return 0;
	case KVM_GET_SREGS2:
		return GIVE(sregs);
	case KVM_SET_SREGS2:
		return TAKE(sregs);
	case KVM_GET_LAPIC:
		return GIVE(lapic);
	case KVM_SET_LAPIC:
		return TAKE(lapic);
	case KVM_GET_MP_STATE:
		return GIVE(mp_state);
	case KVM_SET_MP_STATE:
		return TAKE(mp_state);
	case KVM_GET_VCPU_EVENTS:
		return GIVE(events);
	case KVM_SET_VCPU_EVENTS:
		return TAKE(events);
	case KVM_GET_DEBUGREGS:
		return GIVE(debugregs);
	case KVM_SET_DEBUGREGS:
		return TAKE(debugregs);
	case KVM_GET_XCRS:
		return GIVE(xcrs);
	case KVM_SET_XCRS:
		return TAKE(xcrs);
	case KVM_GET_XSAVE:
		return GIVE(xsave.base);
	case KVM_GET_XSAVE2:
		memcpy(arg, &vcpu->xsave, (size_t)fake_kvm.caps[KVM_CAP_XSAVE2]);
		return 0;
	case KVM_SET_XSAVE:
		memcpy(&vcpu->xsave, arg, MAX((size_t)fake_kvm.caps[KVM_CAP_XSAVE2], sizeof(struct kvm_xsave)));
		return 0;
	case KVM_GET_MSRS:
	case KVM_SET_MSRS:
		return fake_kvm_msrs(vcpu, arg, request == KVM_SET_MSRS);
	case KVM_GET_ONE_REG:
	case KVM_SET_ONE_REG:
		return fake_kvm_one_reg(vcpu, arg, request == KVM_SET_ONE_REG);
	case KVM_GET_NESTED_STATE:
		return fake_kvm_get_nested(vcpu, arg);
	case KVM_SET_NESTED_STATE:
		return fake_kvm_set_nested(vcpu, arg);
	case KVM_HAS_DEVICE_ATTR:
	case KVM_GET_DEVICE_ATTR:
	case KVM_SET_DEVICE_ATTR:
		return fake_kvm_offset(vcpu, request, arg);
	case KVM_GET_TSC_KHZ:
		return (int)vcpu->tsc_khz;
	case KVM_SET_TSC_KHZ:
		vcpu->tsc_khz = (unsigned int)(uintptr_t)arg;
		return 0;
	case KVM_SET_CPUID2:
	case KVM_KVMCLOCK_CTRL:
	case KVM_ENABLE_CAP:
		return 0;
	default:
		return -ENOTTY;
	}
}

/* ---- calls of a VM and of the system ---- */

static int fake_kvm_new_vcpu(int vm, unsigned int id)
{
	for (unsigned int i = 0; i < FAKE_KVM_VCPUS; i++) {
		struct fake_vcpu *vcpu = &fake_kvm.vcpus[i];

		if (vcpu->run && fake_kvm_kind(vcpu->fd) == VCPU)
			continue;
		if (vcpu->run)
			munmap(vcpu->run, FAKE_KVM_RUN_SIZE);
		*vcpu = (struct fake_vcpu){.fd = fake_kvm_descriptor(VCPU), .vm = vm, .id = id,
					   .tsc_khz = fake_kvm.host_khz};
		vcpu->run = mmap(NULL, FAKE_KVM_RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
		if (vcpu->run == MAP_FAILED)
			abort();
		fake_kvm_forget_nested(vcpu);
		return vcpu->fd;
	}
	return -EINVAL;
}

static int fake_kvm_set_clock(const struct kvm_clock_data *data)
{
	uint64_t passed = data->flags & KVM_CLOCK_REALTIME && fake_kvm.realtime > data->realtime ?
			  fake_kvm.realtime - data->realtime : 0;

	fake_kvm.kvmclock_offset = (int64_t)(data->clock + passed - fake_kvm.host_ns);
	return 0;
}

static int fake_kvm_get_clock(struct kvm_clock_data *data)
{
	*data = (struct kvm_clock_data){
		.clock = fake_kvm_clock(), .realtime = fake_kvm.realtime, .host_tsc = fake_kvm.host_tsc,
		.flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC,
	};
	return 0;
}

static int fake_kvm_chip(struct kvm_irqchip *chip, bool set)
{
	uint32_t id = chip->chip_id;

	if (id >= ARRAY_SIZE(fake_kvm.chips))
		return -EINVAL;
	if (set)
		fake_kvm.chips[id] = *chip;
	else
		chip->chip = fake_kvm.chips[id].chip;
	return 0;
}

static int fake_kvm_call_vm(int fd, unsigned long request, void *arg)
{
	switch (request) {
	case KVM_CREATE_VCPU:
		return fake_kvm_new_vcpu(fd, (unsigned int)(uintptr_t)arg);
	case KVM_GET_CLOCK:
		return fake_kvm_get_clock(arg);
	case KVM_SET_CLOCK:
		return fake_kvm_set_clock(arg);
	case KVM_GET_IRQCHIP:
	case KVM_SET_IRQCHIP:
		return fake_kvm_chip(arg, request == KVM_SET_IRQCHIP);
	case KVM_GET_PIT2:
		memcpy(arg, &fake_kvm.pit, sizeof(fake_kvm.pit));
		return 0;
	case KVM_SET_PIT2:
		memcpy(&fake_kvm.pit, arg, sizeof(fake_kvm.pit));
		return 0;
	case KVM_CREATE_PIT2:
	case KVM_REINJECT_CONTROL:
	case KVM_GET_DIRTY_LOG:
	case KVM_SET_IDENTITY_MAP_ADDR:
	case KVM_SET_TSS_ADDR:
	case KVM_SET_USER_MEMORY_REGION:
	case KVM_CREATE_IRQCHIP:
	case KVM_IRQ_LINE:
	case KVM_IRQFD:
	case KVM_IOEVENTFD:
	case KVM_SET_GSI_ROUTING:
	case KVM_REGISTER_COALESCED_MMIO:
	case KVM_ENABLE_CAP:
		return 0;
	default:
		return -ENOTTY;
	}
}

static int fake_kvm_supported(struct kvm_cpuid2 *table)
{
	if (table->nent < fake_kvm.cpuid_count)
		return -E2BIG;
	table->nent = fake_kvm.cpuid_count;
	memcpy(table->entries, fake_kvm.cpuid, fake_kvm.cpuid_count * sizeof(fake_kvm.cpuid[0]));
	return 0;
}

static int fake_kvm_list_msrs(struct kvm_msr_list *list)
{
	list->nmsrs = fake_kvm.msr_count;
	memcpy(list->indices, fake_kvm.msr_list, fake_kvm.msr_count * sizeof(fake_kvm.msr_list[0]));
	return 0;
}

static int fake_kvm_call_system(unsigned long request, void *arg)
{
	switch (request) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_CREATE_VM:
		return fake_kvm_descriptor(VM);
	case KVM_GET_VCPU_MMAP_SIZE:
		return FAKE_KVM_RUN_SIZE;
	case KVM_GET_SUPPORTED_CPUID:
		return fake_kvm_supported(arg);
	case KVM_GET_DEVICE_ATTR:
		*(uint64_t *)(uintptr_t)((struct kvm_device_attr *)arg)->addr = fake_kvm.xsave_parts;
		return 0;
	case KVM_GET_MSR_INDEX_LIST:
		return fake_kvm_list_msrs(arg);
	default:
		return -ENOTTY;
	}
}

/* ---- the call ---- */

static void fake_kvm_record(int fd, unsigned long request, void *arg)
{
	struct fake_call *call = &fake_kvm.calls[MIN(fake_kvm.call_count, FAKE_KVM_CALLS - 1)];

	if (request == KVM_RUN && fake_kvm.run_count++ >= MAX_RUNS)
		return;
	fake_kvm.call_count++;
	*call = (struct fake_call){.request = request, .fd = fd};
	if (request == KVM_CHECK_EXTENSION)
		call->argument = (uintptr_t)arg;
	if (request == KVM_ENABLE_CAP)
		call->argument = ((struct kvm_enable_cap *)arg)->cap;
	if ((request == KVM_GET_MSRS || request == KVM_SET_MSRS) && ((struct kvm_msrs *)arg)->nmsrs)
		call->argument = ((struct kvm_msrs *)arg)->entries[0].index;
}

static bool fake_kvm_fails(unsigned long request)
{
	if (!fake_kvm.fail_at || (fake_kvm.fail_request && request != fake_kvm.fail_request) || --fake_kvm.fail_at)
		return false;
	fake_kvm.failed = request;
	return true;
}

static int fake_kvm_call(enum kind kind, int fd, unsigned long request, void *arg)
{
	if (request == KVM_CHECK_EXTENSION)
		return (uintptr_t)arg < FAKE_KVM_CAPS ? fake_kvm.caps[(uintptr_t)arg] : 0;
	switch (kind) {
	case SYSTEM:
		return fake_kvm_call_system(request, arg);
	case VM:
		return fake_kvm_call_vm(fd, request, arg);
	case VCPU:
		return fake_kvm_call_vcpu(fake_kvm_vcpu_of(fd), request, arg);
	default:
		return -ENOTTY;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	struct fake_vcpu *runs = NULL;
	enum kind kind;
	va_list args;
	void *arg;
	int ret;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	pthread_mutex_lock(&lock);
	kind = fake_kvm_kind(fd);
	if (kind == NOTHING) {
		pthread_mutex_unlock(&lock);
		return (int)syscall(SYS_ioctl, fd, request, arg);
	}
	fake_kvm_record(fd, request, arg);
	if (fake_kvm_fails(request))
		ret = -fake_kvm.fail_errno;
	else if (request == KVM_RUN)
		runs = fake_kvm_vcpu_of(fd), ret = 0;
	else
		ret = fake_kvm_call(kind, fd, request, arg);
	pthread_mutex_unlock(&lock);
	if (runs)
		ret = fake_kvm_run(runs);
	if (ret < 0)
		errno = -ret;
	return ret < 0 ? -1 : ret;
}
