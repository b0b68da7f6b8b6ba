/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to ask which pages were written: 1 GiB, of which every hundredth page was.
 *
 *	dirty_collect ROUNDS					by a vCPU (KVM's log) and by this process (guest memory's own marks); and
 *								how long the vCPU takes to write
 *	dirty_collect ROUNDS vhost				by the kernel's vhost-net, whose bits are set here in its place
 *	dirty_collect ROUNDS log|nolog DEVICE			by a softdev (tests/testhost/softdev): its own log, or the IOMMU's
 *
 * Prints a line a round: microseconds, and how much of them is the kernel's own, in its ioctls: ioctl(2) is taken over here and
 * looks at the clock.
 */
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/bitmap.h"
#include "devices/virtio/vhost.h"
#include "tests/testhost/softdev_drive.h"
#include "vmm/kvm/kvm.h"

#define SIZE GIB(1)
#define FIRST MIB(16)
#define STEP 100u /* pages */
#define CODE 0x1000u

/* 32 bit, flat, without paging: 1: mov %eax,(%edi); add %ebx,%edi; cmp %ecx,%edi; jb 1b; hlt */
static const uint8_t code[] = {0x89, 0x07, 0x01, 0xdf, 0x39, 0xcf, 0x72, 0xf8, 0xf4};

static struct guest_memory *memory;
static struct kvm kvm;
static struct kvm_run *run;
static uint8_t *host;
static int vcpu;
static uint64_t in_kernel; /* ns of ioctls */
static unsigned long *vhost_log;
static struct err err;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int ioctl(int fd, unsigned long request, ...)
{
	uint64_t begin = now();
	va_list list;
	void *arg;
	int ret;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	ret = (int)syscall(SYS_ioctl, fd, request, arg);
	in_kernel += now() - begin;
	if (request == VHOST_SET_LOG_BASE)
		vhost_log = (unsigned long *)(uintptr_t)*(uint64_t *)arg;
	return ret;
}

static void give_up(const char *what, const char *why)
{
	fprintf(stderr, "dirty_collect: %s: %s\n", what, why);
	exit(1);
}

static void make_vcpu(void)
{
	struct kvm_sregs sregs;

	vcpu = ioctl(kvm.vm_fd, KVM_CREATE_VCPU, 0);
	run = vcpu < 0 ? MAP_FAILED : mmap(NULL, kvm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		give_up("vCPU", strerror(errno));
	sregs.cs = (struct kvm_segment){.limit = ~0u, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
	sregs.ds = sregs.es = sregs.ss = (struct kvm_segment){
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	sregs.cr0 |= 1;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
		give_up("vCPU", strerror(errno));
}

static void make_memory(void)
{
	struct guest_region region = {.gpa = 0, .size = SIZE, .fd = -1};

	region.host = host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (host == MAP_FAILED)
		give_up("memory", strerror(errno));
	memset(host, 1, SIZE);
	memcpy(host + CODE, code, sizeof(code));
	memory = guest_memory_create();
	if (!memory || guest_memory_add(memory, &region, &err))
		give_up("memory", memory ? err.text : strerror(errno));
}

static void make_kvm(void)
{
	if (kvm_open(&kvm, &err) || kvm_create_vm(&kvm, &err) || kvm_add_memory(&kvm, memory, &err))
		give_up("KVM", err.text);
	make_vcpu();
}

/* The guest writes to its pages, and this process to those behind them; ns that the guest took. */
static uint64_t write_pages(void)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rdi = FIRST, .rbx = STEP * 4096, .rcx = SIZE};
	uint64_t begin = now(), took;

	if (ioctl(vcpu, KVM_SET_REGS, &regs) < 0 || ioctl(vcpu, KVM_RUN, 0) < 0)
		give_up("vCPU", strerror(errno));
	took = now() - begin;
	if (run->exit_reason != KVM_EXIT_HLT)
		give_up("vCPU", "the guest did not come to its end");
	for (uint64_t at = FIRST; at + 4096 < SIZE; at += STEP * 4096)
		guest_memory_dirty(memory, at + 4096, 8);
	return took;
}

enum count { ANY, WRITTEN };

/* ns that a source takes; as many pages as were written, or the figure means nothing. */
static uint64_t collect(struct dirty_source *source, unsigned long *bitmap, enum count count)
{
	const size_t written = (SIZE - FIRST + STEP * 4096 - 1) / (STEP * 4096);
	uint64_t begin, took;
	size_t found = 0;

	memset(bitmap, 0, SIZE / 4096 / 8);
	in_kernel = 0;
	begin = now();
	if (source->ops->collect(source, 0, SIZE, bitmap, &err))
		give_up(source->name, err.text);
	took = now() - begin;
	for (size_t i = 0; i < SIZE / 4096 / BITS_PER_LONG; i++)
		found += (size_t)__builtin_popcountl(bitmap[i]);
	if (count && found != written)
		give_up(source->name, "other pages than were written");
	return took;
}

/* The first time every page may be told, and caches are cold. */
static void measure_kvm(int rounds, unsigned long *bitmap)
{
	struct dirty_source *log, *own;

	make_kvm();
	log = kvm_dirty_source(&kvm);
	own = guest_memory_dirty_source(memory);
	if (log->ops->start(log, &err) || own->ops->start(own, &err))
		give_up("start", err.text);
	for (int i = -1; i < rounds; i++) {
		uint64_t marks, whole, kernel, guest;

		guest = write_pages();
		whole = collect(log, bitmap, i < 0 ? ANY : WRITTEN);
		kernel = in_kernel;
		marks = collect(own, bitmap, i < 0 ? ANY : WRITTEN);
		if (i >= 0)
			printf("kvm=%.1f share=%.2f own=%.1f guest=%.1f\n", (double)whole / 1000,
			       (double)kernel / (double)whole, (double)marks / 1000, (double)guest / 1000);
	}
}

static void measure_vhost(int rounds, unsigned long *bitmap)
{
	struct dirty_set set = {0};
	struct vhost_options options = {.path = "/dev/vhost-net", .module = "vhost_net", .instead = "do without", .memory = memory,
					.dirty = &set};
	struct vhost *vhost;

	if (vhost_open(&options, &vhost, &err) || dirty_set_start(&set, &err))
		give_up("vhost", err.text);
	for (int i = -1; i < rounds; i++) {
		uint64_t took;

		for (uint64_t at = FIRST; at < SIZE; at += STEP * 4096)
			bitmap_set(vhost_log, at / 4096);
		took = collect(set.first, bitmap, WRITTEN);
		if (i >= 0)
			printf("us=%.1f share=%.2f\n", (double)took / 1000, (double)in_kernel / (double)took);
	}
	vhost_close(vhost);
}

static void measure_device(int rounds, unsigned long *bitmap, char **words)
{
	struct vfio_device_options options = {.device = words[1], .backend = VFIO_WANT_IOMMUFD,
					      .no_device_log = strcmp(words[0], "log") != 0};
	struct dirty_set set = {0};
	struct log to = {.fd = 2, .level = LOG_WARN};
	struct vfio_space_options space_options = {.log = &to, .dirty = &set, .memory = memory};
	struct vfio_space *space;
	struct vfio_device *device;
	struct vfio_region bar;

	if (vfio_space_create(&space_options, &space, &err) || vfio_device_open(space, &options, &device, &err) ||
	    softdev_prepare(device, &bar, &err) || dirty_set_start(&set, &err))
		give_up(words[1], err.text);
	for (int i = -1; i < rounds; i++) {
		uint64_t took;

		for (uint64_t at = FIRST; at < SIZE; at += STEP * 4096)
			if (softdev_run(&bar, SOFTDEV_PATTERN, at, 8, at) != SOFTDEV_DONE)
				give_up(words[1], "it does not write");
		took = collect(set.first, bitmap, i < 0 ? ANY : WRITTEN);
		if (i >= 0)
			printf("us=%.1f share=%.2f\n", (double)took / 1000, (double)in_kernel / (double)took);
	}
	dirty_set_stop(&set);
	vfio_device_close(device);
	vfio_space_destroy(space);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 0;
	unsigned long *bitmap = malloc(SIZE / 4096 / 8);

	if (rounds < 1 || !bitmap || (argc != 2 && argc != 4 && !(argc == 3 && strcmp(argv[2], "vhost") == 0))) {
		fprintf(stderr, "usage: dirty_collect ROUNDS [vhost | log|nolog DEVICE]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_memory();
	if (argc == 2)
		measure_kvm(rounds, bitmap);
	else if (argc == 3)
		measure_vhost(rounds, bitmap);
	else
		measure_device(rounds, bitmap, argv + 2);
	return 0;
}
