/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm doctor`: checks what machines and their devices need of this host; prints the remedy if something is missing.
 */
#include <dirent.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "iommu/vfio_sys.h"
#include "vmm/cli/command.h"
#include "vmm/kvm/guest_cpu.h"
#include "vmm/snapshot/memory_uffd.h"

struct doctor_options {
	bool help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option options[] = {
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct doctor_options, help)},
};
static const struct option_table table = {options, ARRAY_SIZE(options)};

/* The result of a check: a few words, and the command that helps (NULL: ok). */
struct finding {
	char text[128];
	const char *remedy;
	bool matters; /* without it mvmm run fails; else only some functions */
};

static void cli_doctor_find_kvm(struct finding *f)
{
	_cleanup_(fd_close) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	f->matters = true;
	if (fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION) {
		snprintf(f->text, sizeof(f->text), "/dev/kvm works");
		return;
	}
	snprintf(f->text, sizeof(f->text), "/dev/kvm: %s", strerrordesc_np(errno));
	f->remedy = errno == EACCES ? "usermod -aG kvm $USER   (and log in again)" :
		    "modprobe kvm_intel || modprobe kvm_amd   (and enable virtualization in the firmware)";
}

static bool cli_doctor_offers(struct kvm *kvm, bool nested, bool pmu)
{
	const struct cpu_config wanted = {.nested = nested, .pmu = pmu};
	struct guest_cpu *cpu;

	if (guest_cpu_create(kvm, 1, &wanted, &cpu, NULL) < 0)
		return false;
	guest_cpu_destroy(cpu);
	return true;
}

/* What a guest gets only if it is asked for. */
static void cli_doctor_find_cpu(struct finding *f)
{
	struct kvm kvm;

	if (kvm_open(&kvm, NULL) == 0) {
		snprintf(f->text, sizeof(f->text), "KVM offers %s and %s, which guests get on request (--cpu)",
			 cli_doctor_offers(&kvm, true, false) ? "nested virtualization" : "no nested virtualization",
			 cli_doctor_offers(&kvm, false, true) ? "performance counters" : "no performance counters");
	} else {
		snprintf(f->text, sizeof(f->text), "what KVM offers is not known");
		f->remedy = "see KVM";
	}
	kvm_close(&kvm);
}

/* The error of an invalid call shows whether it may be used. */
static void cli_doctor_find_io_uring(struct finding *f)
{
	struct io_uring_params params = {0};
	int ret = io_uring_setup(0, &params);

	if (ret != -ENOSYS && ret != -EPERM && ret != -EACCES) {
		snprintf(f->text, sizeof(f->text), "io_uring works, which disks need");
		return;
	}
	f->matters = true;
	snprintf(f->text, sizeof(f->text), "io_uring, which disks need: %s", strerrordesc_np(-ret));
	f->remedy = ret == -ENOSYS ? "use a kernel with CONFIG_IO_URING" :
		    "sysctl kernel.io_uring_disabled=0   (in a container: allow io_uring_setup, io_uring_enter and "
		    "io_uring_register in its seccomp profile)";
}

static unsigned int cli_doctor_count_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned int count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count > 2 ? count - 2 : 0;
}

static void cli_doctor_find_iommu(struct finding *f)
{
	unsigned int groups = cli_doctor_count_entries("/sys/kernel/iommu_groups");

	snprintf(f->text, sizeof(f->text), "%u IOMMU groups", groups);
	if (!groups)
		f->remedy = "boot the host with intel_iommu=on (Intel), and enable the IOMMU in the firmware";
}

static void cli_doctor_find_file(struct finding *f, const char *path, const char *load, const char *allow)
{
	if (access(path, R_OK | W_OK) == 0) {
		snprintf(f->text, sizeof(f->text), "%s is there", path);
		return;
	}
	snprintf(f->text, sizeof(f->text), "%s: %s", path, strerrordesc_np(errno));
	f->remedy = errno == EACCES ? allow : load;
}

static void cli_doctor_find_iommufd(struct finding *f)
{
	cli_doctor_find_file(f, "/dev/iommu", "modprobe iommufd   (without it devices go through the legacy container)",
			     "chown $USER /dev/iommu   (or run mvmm as root)");
}

static void cli_doctor_find_container(struct finding *f)
{
	cli_doctor_find_file(f, "/dev/vfio/vfio", "modprobe vfio_iommu_type1   (without it devices go through iommufd)",
			     "chmod 0666 /dev/vfio/vfio");
}

static void cli_doctor_find_vfio_pci(struct finding *f)
{
	bool there = access("/sys/bus/pci/drivers/vfio-pci", F_OK) == 0;

	snprintf(f->text, sizeof(f->text), "driver vfio-pci is %sloaded", there ? "" : "not ");
	if (!there)
		f->remedy = "modprobe vfio-pci";
}

static void cli_doctor_find_memlock(struct finding *f)
{
	uint64_t limit = vfio_sys_host()->ops->locked_limit(vfio_sys_host());

	if (limit == UINT64_MAX) {
		snprintf(f->text, sizeof(f->text), "no limit on locked memory");
		return;
	}
	snprintf(f->text, sizeof(f->text), "%llu MiB may be locked; a guest with a host device needs all of its memory",
		 (unsigned long long)limit >> 20);
	if (limit < GIB(1))
		f->remedy = "ulimit -l unlimited   (for good: memlock in /etc/security/limits.conf)";
}

static unsigned long long cli_doctor_read_number(const char *path)
{
	_cleanup_(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32] = "";

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return 0;
	return strtoull(text, NULL, 10);
}

static void cli_doctor_find_hugepages(struct finding *f)
{
	unsigned long long free_2m = cli_doctor_read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
	unsigned long long free_1g = cli_doctor_read_number("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages");

	snprintf(f->text, sizeof(f->text), "%llu huge pages of 2M and %llu of 1G are free", free_2m, free_1g);
	if (!free_2m && !free_1g)
		f->remedy = "echo 512 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages   (only for --memory hugepages=2M)";
}

static void cli_doctor_find_tun(struct finding *f)
{
	cli_doctor_find_file(f, "/dev/net/tun", "modprobe tun   (only for --net tap=)",
			     "run mvmm as root, or use --net passt");
}

static void cli_doctor_find_vhost(struct finding *f)
{
	cli_doctor_find_file(f, "/dev/vhost-net", "modprobe vhost_net   (only for --net vhost=on)",
			     "chmod 0666 /dev/vhost-net");
}

static void cli_doctor_find_vsock(struct finding *f)
{
	cli_doctor_find_file(f, "/dev/vhost-vsock", "modprobe vhost_vsock   (or use --vsock cid=N,socket=PATH)",
			     "chmod 0666 /dev/vhost-vsock");
}

static void cli_doctor_find_userfaultfd(struct finding *f)
{
	struct err err;
	int code = memory_uffd_check(&err);

	snprintf(f->text, sizeof(f->text), "userfaultfd for page faults of KVM: %s",
		 code ? strerrordesc_np(-code) : "works");
	if (code)
		f->remedy = code == -EPERM ? "chmod 0666 /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1   (only for "
					     "restore --memory-mode uffd=SOCKET)" :
					     "use a kernel of 5.7 or later with CONFIG_USERFAULTFD   (only for restore "
					     "--memory-mode uffd=SOCKET)";
}

static const struct {
	const char *name;
	void (*look)(struct finding *finding);
} checks[] = {
	{"KVM", cli_doctor_find_kvm}, {"guest's CPU", cli_doctor_find_cpu}, {"io_uring", cli_doctor_find_io_uring},
	{"IOMMU", cli_doctor_find_iommu}, {"iommufd", cli_doctor_find_iommufd},
	{"VFIO container", cli_doctor_find_container}, {"VFIO driver", cli_doctor_find_vfio_pci},
	{"locked memory", cli_doctor_find_memlock}, {"huge pages", cli_doctor_find_hugepages},
	{"tap", cli_doctor_find_tun}, {"vhost-net", cli_doctor_find_vhost}, {"vhost-vsock", cli_doctor_find_vsock},
	{"userfaultfd", cli_doctor_find_userfaultfd},
};

static int cli_doctor_run(int argc, char *const *argv, struct err *err)
{
	struct doctor_options given = {0};
	int code;

	if (!command_parse(&command_doctor, &given, offsetof(struct doctor_options, help), argc, argv, NULL, 0, &code,
			   err))
		return code;
	code = EXIT_OFF;
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct finding finding = {0};

		checks[i].look(&finding);
		printf("%-15s %-3s  %s\n", checks[i].name, finding.remedy ? "--" : "ok", finding.text);
		if (finding.remedy)
			printf("%-20s %s\n", "", finding.remedy);
		if (finding.remedy && finding.matters)
			code = EXIT_FAILED;
	}
	return code;
}

const struct command command_doctor = {
	.name = "doctor",
	.operands = "",
	.summary = "Check whether this host has what machines and their devices need",
	.options = &table,
	.run = cli_doctor_run,
};
