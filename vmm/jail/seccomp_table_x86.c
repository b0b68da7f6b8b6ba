/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls of each kind of thread, and of each of our processes, and why. What is not in this table is trapped. The names are those of Linux;
 * a row that has tests allows the call only with these arguments.
 *
 * A thread that the guest drives (vCPU, disk, network, loop) opens no file, makes no socket and starts no thread: the
 * starter does that for it (core/starter.h). Whatever another thread may do, the starter may, too: a machine is made
 * again on it at a reboot. It never reads what a guest has written.
 */
#include "vmm/jail/seccomp_table.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <linux/userfaultfd.h>
#include <linux/vfio.h>
#include <linux/vhost.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "iommu/iommufd_uapi.h"
#include "vfio/vfio_uapi.h"

#define NEW_USERFAULTFD 0xaa00u      /* USERFAULTFD_IOC_NEW of linux/userfaultfd.h since Linux 6.1 */
#define PAGEMAP_IOC_SCAN 0xc0606610u /* of linux/fs.h since Linux 6.7 */

/* ---- kinds ---- */

#define ONE(kind) (1u << THREAD_##kind)
#define STARTER ONE(STARTER)
#define TLS ONE(TLS)
#define RESOLVE ONE(RESOLVE)
#define HELPERS (TLS | RESOLVE)
#define ALL (UINT32_MAX & ~(ONE(STAGE) | HELPERS)) /* threads of a machine */
#define EACH UINT32_MAX
#define MAIN (ONE(MAIN) | STARTER)
#define VCPU (ONE(VCPU) | STARTER)
#define DISK (ONE(DISK) | STARTER)
#define NET (ONE(NET) | STARTER)
#define LOOP (ONE(LOOP) | STARTER)
#define MEMORY (ONE(MEMORY) | STARTER)
#define CPU_MODEL (ONE(CPU_MODEL) | STARTER)
#define DEVICE (ONE(DEVICE) | STARTER)
#define MIGRATION (ONE(MIGRATION) | STARTER)
#define SNAPSHOT (ONE(SNAPSHOT) | STARTER)
#define MOVERS (MIGRATION | SNAPSHOT)
#define REGISTERS (MAIN | VCPU) /* a device's registers, its start and its end */
#define FILES (MAIN | MEMORY | MOVERS)

/* ---- arguments ---- */

#define IS(argument, value) {argument, UINT32_MAX, value}
#define WITHOUT(argument, bits) {argument, bits, 0}
#define ONLY(argument, bits) {argument, ~(uint32_t)(bits), 0}
#define NUMBER(name) SYS_##name

#define ROW(name_, kinds_, reason_, ...) \
	{.call = NUMBER(name_), .kinds = kinds_, .tests = {__VA_ARGS__}, .name = #name_, .reason = reason_}
#define LIBC(name_, kinds_, reason_, ...) \
	{.call = NUMBER(name_), .kinds = kinds_, .tests = {__VA_ARGS__}, .libc = true, .name = #name_, .reason = reason_}
#define ABSENT(name_, kinds_, reason_) \
	{.call = NUMBER(name_), .kinds = kinds_, .absent = true, .libc = true, .name = #name_, .reason = reason_}
#define IOCTL(request, kinds_, reason_) ROW(ioctl, kinds_, #request ": " reason_, IS(1, (uint32_t)(request)))

/* Those of a thread, as the C libraries have them; one of them sets a bit that means nothing any more. */
#define THREAD_FLAGS                                                                                             \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |       \
	 CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)
#define FLOCK_ROW(operation) ROW(flock, MAIN | MOVERS, "locks of snapshots", IS(1, operation))

/* By a ring's descriptor, or by its registered one (bit 31). */
#define RING_OP(op, kinds_, reason_) ROW(io_uring_register, kinds_, reason_, {1, ~(1u << 31), op})

const struct seccomp_row seccomp_table[] = {
	/* ---- KVM ---- */
	IOCTL(KVM_RUN, VCPU, "the guest"),
	IOCTL(KVM_IRQ_LINE, REGISTERS | DISK | NET | LOOP | DEVICE, "a level-triggered interrupt"),
	IOCTL(KVM_IRQFD, REGISTERS | DEVICE, "a vector is connected to its eventfd"),
	IOCTL(KVM_SET_GSI_ROUTING, REGISTERS | DEVICE, "a vector's message"),
	IOCTL(KVM_IOEVENTFD, REGISTERS | DEVICE, "a queue's doorbell"),
	IOCTL(KVM_SET_USER_MEMORY_REGION, REGISTERS | DEVICE | MOVERS, "BARs in guest memory, dirty logs"),
	IOCTL(KVM_GET_CLOCK, REGISTERS | MOVERS, "the guest's time"),
	IOCTL(KVM_SET_CLOCK, MAIN | MOVERS, "the guest's time after a pause"),
	IOCTL(KVM_KVMCLOCK_CTRL, MAIN | MOVERS, "tells the guest's kernel of a pause"),
	IOCTL(KVM_CHECK_EXTENSION, ALL, "what this host's KVM can do"),
	IOCTL(KVM_GET_DIRTY_LOG, MAIN | MOVERS, "the guest's writes"),
	IOCTL(KVM_CLEAR_DIRTY_LOG, MAIN | MOVERS, "the guest's writes"),
	IOCTL(KVM_ENABLE_CAP, MAIN | MOVERS, "a dirty log that is cleared by parts"),
	IOCTL(KVM_GET_REGS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_REGS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_SREGS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_SREGS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_SREGS2, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_SREGS2, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_MSRS, MAIN | CPU_MODEL | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_MSRS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_MSR_INDEX_LIST, MAIN | CPU_MODEL | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_XCRS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_XCRS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_XSAVE, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_XSAVE2, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_XSAVE, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_NESTED_STATE, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_NESTED_STATE, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_ONE_REG, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_ONE_REG, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_MP_STATE, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_MP_STATE, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_VCPU_EVENTS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_VCPU_EVENTS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_LAPIC, MAIN | VCPU | MOVERS, "a vCPU's local APIC"),
	IOCTL(KVM_SET_LAPIC, MAIN | VCPU | MOVERS, "a vCPU's local APIC"),
	IOCTL(KVM_GET_DEBUGREGS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_SET_DEBUGREGS, MAIN | MOVERS, "a vCPU's state"),
	IOCTL(KVM_GET_TSC_KHZ, MAIN | MOVERS, "a vCPU's clock"),
	IOCTL(KVM_SET_TSC_KHZ, MAIN | MOVERS, "a vCPU's clock"),
	IOCTL(KVM_GET_DEVICE_ATTR, MAIN | CPU_MODEL | MOVERS, "a vCPU's clock, what the host's processors can do"),
	IOCTL(KVM_SET_DEVICE_ATTR, MAIN | DEVICE | MOVERS, "a vCPU's clock, a host device's file"),
	IOCTL(KVM_GET_IRQCHIP, MAIN | MOVERS, "the interrupt controllers' state"),
	IOCTL(KVM_SET_IRQCHIP, MAIN | MOVERS, "the interrupt controllers' state"),
	IOCTL(KVM_GET_PIT2, MAIN | MOVERS, "the timer's state"),
	IOCTL(KVM_SET_PIT2, MAIN | MOVERS, "the timer's state"),
	IOCTL(KVM_CREATE_DEVICE, MAIN | DEVICE, "KVM's device for VFIO, with the first host device"),
	IOCTL(KVM_GET_SUPPORTED_CPUID, CPU_MODEL, "what the host's processors can do"),
	IOCTL(KVM_SET_CPUID2, MAIN, "a machine is completed"),
	IOCTL(KVM_GET_STATS_FD, STARTER, "counters of a machine after a reboot"),
	IOCTL(KVM_CREATE_VM, STARTER, "a machine after a reboot"),
	IOCTL(KVM_CREATE_VCPU, STARTER, "a machine after a reboot"),
	IOCTL(KVM_CREATE_IRQCHIP, STARTER, "a machine after a reboot"),
	IOCTL(KVM_CREATE_PIT2, STARTER, "a machine after a reboot"),
	IOCTL(KVM_REINJECT_CONTROL, STARTER, "a machine after a reboot"),
	IOCTL(KVM_GET_API_VERSION, STARTER, "a machine after a reboot"),
	IOCTL(KVM_GET_VCPU_MMAP_SIZE, STARTER, "a machine after a reboot"),
	IOCTL(KVM_SET_IDENTITY_MAP_ADDR, STARTER, "a machine after a reboot"),
	IOCTL(KVM_SET_TSS_ADDR, STARTER, "a machine after a reboot"),
	IOCTL(KVM_REGISTER_COALESCED_MMIO, STARTER, "a machine after a reboot"),
	ROW(arch_prctl, CPU_MODEL, "AMX in guests", IS(0, ARCH_REQ_XCOMP_GUEST_PERM)),

	/* ---- host devices ---- */
	IOCTL(VFIO_DEVICE_SET_IRQS, REGISTERS | DEVICE | MIGRATION, "a device's vector"),
	IOCTL(VFIO_DEVICE_RESET, REGISTERS | DEVICE | MIGRATION, "the guest resets a function"),
	IOCTL(VFIO_DEVICE_PCI_HOT_RESET, REGISTERS | DEVICE | MIGRATION, "the same, with its neighbours"),
	IOCTL(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, REGISTERS | DEVICE | MIGRATION, "its neighbours; and VFIO_IOMMU_GET_INFO"),
	IOCTL(VFIO_DEVICE_FEATURE, REGISTERS | DEVICE | MOVERS, "power states, DMA logs, migration states; and VFIO_IOMMU_DIRTY_PAGES"),
	IOCTL(VFIO_UAPI_PRECOPY_INFO, MAIN | MOVERS, "how much device state is left"),
	IOCTL(VFIO_DEVICE_GET_INFO, MAIN | DEVICE, "a device is opened"),
	IOCTL(VFIO_DEVICE_GET_REGION_INFO, MAIN | DEVICE, "a device is opened"),
	IOCTL(VFIO_DEVICE_GET_IRQ_INFO, MAIN | DEVICE, "a device is opened"),
	IOCTL(VFIO_UAPI_BIND, MAIN | DEVICE, "a device is opened"),
	IOCTL(VFIO_UAPI_ATTACH, MAIN | DEVICE, "a device is opened"),
	IOCTL(VFIO_UAPI_DETACH, MAIN | DEVICE, "a device is closed"),
	IOCTL(VFIO_GROUP_GET_STATUS, MAIN | DEVICE, "a device of a group is opened"),
	IOCTL(VFIO_GROUP_GET_DEVICE_FD, MAIN | DEVICE, "a device of a group is opened"),
	IOCTL(VFIO_GROUP_SET_CONTAINER, MAIN | DEVICE, "a device of a group is opened"),
	IOCTL(VFIO_GROUP_UNSET_CONTAINER, MAIN | DEVICE, "a device of a group is closed"),
	IOCTL(VFIO_GET_API_VERSION, MAIN | DEVICE, "a device of a group is opened"),
	IOCTL(VFIO_CHECK_EXTENSION, MAIN | DEVICE, "a device of a group is opened"),
	IOCTL(VFIO_SET_IOMMU, MAIN | DEVICE, "a device of a group is opened"),
	IOCTL(VFIO_IOMMU_MAP_DMA, REGISTERS | DEVICE | MOVERS, "memory for devices, BARs for one another"),
	IOCTL(VFIO_IOMMU_UNMAP_DMA, REGISTERS | DEVICE | MOVERS, "memory for devices, BARs for one another"),
	IOCTL(IOMMUFD_UAPI_IOAS_ALLOC, MAIN | DEVICE, "a device is opened"),
	IOCTL(IOMMUFD_UAPI_IOVA_RANGES, MAIN | DEVICE, "a device is opened"),
	IOCTL(IOMMUFD_UAPI_HWPT_ALLOC, MAIN | DEVICE, "a device is opened"),
	IOCTL(IOMMUFD_UAPI_GET_HW_INFO, MAIN | DEVICE, "a device is opened"),
	IOCTL(IOMMUFD_UAPI_DESTROY, MAIN | DEVICE, "a device is closed"),
	IOCTL(IOMMUFD_UAPI_MAP, REGISTERS | DEVICE | MOVERS, "memory for devices, BARs for one another"),
	IOCTL(IOMMUFD_UAPI_MAP_FILE, REGISTERS | DEVICE | MOVERS, "memory for devices, BARs for one another"),
	IOCTL(IOMMUFD_UAPI_UNMAP, REGISTERS | DEVICE | MOVERS, "memory for devices, BARs for one another"),
	IOCTL(IOMMUFD_UAPI_SET_DIRTY, MAIN | MOVERS, "devices' writes"),
	IOCTL(IOMMUFD_UAPI_GET_DIRTY, MAIN | MOVERS, "devices' writes"),
	ROW(capget, MAIN | DEVICE, "whether all of memory can be pinned"),
	ROW(prlimit64, ALL, "how much memory can be pinned, how many files can be open, how large a stack is", IS(0, 0), IS(2, 0)),

	/* ---- networks and vsock ---- */
	IOCTL(TUNGETIFF, REGISTERS | NET | LOOP, "whether the tap is still there"),
	IOCTL(TUNSETOFFLOAD, REGISTERS | NET | LOOP, "what the guest's driver can do"),
	IOCTL(TUNSETQUEUE, REGISTERS | NET | LOOP, "the number of queues that the guest uses"),
	IOCTL(TUNSETVNETHDRSZ, REGISTERS, "the tap is as it was found"),
	IOCTL(TUNGETVNETHDRSZ, STARTER, "a tap is opened"),
	IOCTL(TUNSETIFF, STARTER, "a tap is opened"),
	IOCTL(TUNGETFEATURES, STARTER, "a tap is opened"),
	IOCTL(SIOCETHTOOL, STARTER, "a tap's offloads"),
	IOCTL(SIOCGIFMTU, STARTER, "a tap's MTU"),
	IOCTL(SIOCGIFINDEX, REGISTERS | LOOP, "whether the tap is still there"),
	IOCTL(SIOCOUTQ, MAIN | VCPU | NET | LOOP, "what passt has not read"),
	IOCTL(VHOST_SET_FEATURES, REGISTERS | LOOP | MOVERS, "vhost starts, or logs its writes"),
	IOCTL(VHOST_SET_VRING_ADDR, REGISTERS | LOOP | MOVERS, "vhost starts, or logs its writes"),
	IOCTL(VHOST_SET_LOG_BASE, REGISTERS | LOOP | MOVERS, "vhost logs its writes"),
	IOCTL(VHOST_SET_MEM_TABLE, REGISTERS | DEVICE | LOOP | MOVERS, "guest memory"),
	IOCTL(VHOST_SET_VRING_NUM, REGISTERS | LOOP | MOVERS, "vhost starts"),
	IOCTL(VHOST_SET_VRING_BASE, REGISTERS | LOOP | MOVERS, "vhost starts"),
	IOCTL(VHOST_GET_VRING_BASE, REGISTERS | LOOP | MOVERS, "vhost stops"),
	IOCTL(VHOST_SET_VRING_KICK, REGISTERS | LOOP | MOVERS, "vhost starts"),
	IOCTL(VHOST_SET_VRING_CALL, REGISTERS | LOOP | MOVERS, "a vector of a queue of vhost"),
	IOCTL(VHOST_SET_VRING_ERR, REGISTERS | LOOP | MOVERS, "vhost starts"),
	IOCTL(VHOST_SET_VRING_BUSYLOOP_TIMEOUT, REGISTERS | LOOP | MOVERS, "vhost starts"),
	IOCTL(VHOST_NET_SET_BACKEND, REGISTERS | LOOP | MOVERS, "vhost starts and stops"),
	IOCTL(VHOST_VSOCK_SET_RUNNING, REGISTERS | LOOP | MOVERS, "vhost starts and stops"),
	IOCTL(VHOST_VSOCK_SET_GUEST_CID, STARTER, "a machine after a reboot"),
	IOCTL(VHOST_SET_OWNER, STARTER, "a machine after a reboot"),
	IOCTL(VHOST_GET_FEATURES, STARTER, "a machine after a reboot"),
	ROW(wait4, REGISTERS | NET | LOOP | MIGRATION, "a helper that has ended"),

	/* ---- sockets ---- */
	ROW(accept4, MAIN | MIGRATION, "control socket, ports, vsock, migration"),
	ROW(sendmsg, MAIN | NET | MIGRATION | MEMORY | HELPERS, "sockets"),
	ROW(recvmsg, MAIN | NET | LOOP | MIGRATION | MEMORY | HELPERS, "sockets"),
	ROW(sendto, ALL | HELPERS, "sockets; messages, where stderr is one or the journal gets them", IS(4, 0)),
	ROW(recvfrom, RESOLVE, "answers of name servers"),
	ROW(sendto, RESOLVE, "the kernel's addresses"),
	ROW(sendmmsg, RESOLVE, "questions to name servers"),
	IOCTL(FIONREAD, RESOLVE, "how long an answer is"),
	ROW(recvfrom, MAIN | NET | LOOP | MIGRATION | MEMORY | TLS, "sockets", IS(4, 0)),
	ROW(shutdown, MAIN | MIGRATION | TLS, "vsock, migration"),
	ROW(getsockname, MAIN | MIGRATION | RESOLVE, "the address of a migration"),
	ROW(getpeername, MAIN | MIGRATION, "the address of a migration"),
	ROW(getsockopt, MAIN | MIGRATION | RESOLVE, "who a client is, whether a connection has come about", IS(1, SOL_SOCKET)),
	ROW(setsockopt, MIGRATION, "how long to wait for a peer or a handler of page faults", IS(1, SOL_SOCKET)),
	ROW(setsockopt, MIGRATION, "a connection that is dead", IS(1, IPPROTO_TCP)),
	ROW(setsockopt, TLS, "TLS in the kernel", IS(1, IPPROTO_TCP), IS(2, TCP_ULP)),
	ROW(setsockopt, TLS, "TLS in the kernel", IS(1, SOL_TLS)),
	ROW(setsockopt, RESOLVE, "errors of a name server", IS(1, IPPROTO_IP)),
	ROW(setsockopt, RESOLVE, "errors of a name server", IS(1, IPPROTO_IPV6)),
	ROW(setsockopt, RESOLVE, "a name service on this host", IS(1, SOL_SOCKET)),
	ROW(setsockopt, STARTER, "an address to listen at", IS(1, IPPROTO_IPV6), IS(2, IPV6_V6ONLY)),
	ROW(socket, STARTER | RESOLVE, "control socket, ports, vsock, migration, name services", IS(0, AF_UNIX)),
	ROW(socket, STARTER | RESOLVE, "migration", IS(0, AF_INET)),
	ROW(socket, STARTER | RESOLVE, "migration", IS(0, AF_INET6)),
	ROW(socket, STARTER | RESOLVE, "what becomes of a tap", IS(0, AF_NETLINK)),
	ROW(socketpair, STARTER, "helpers", IS(0, AF_UNIX)),
	ROW(pipe2, STARTER, "what a helper says", IS(1, O_CLOEXEC | O_NONBLOCK)),
	ROW(connect, STARTER | RESOLVE, "vsock, migration, name services"),
	ROW(bind, STARTER | RESOLVE, "control socket, ports, vsock, migration, the kernel's addresses"),
	ROW(listen, STARTER, "control socket, ports, vsock, migration"),

	/* ---- files ---- */
	ROW(read, EACH, "eventfds, timers, files"),
	ROW(write, EACH, "eventfds, messages, files"),
	ROW(readv, MAIN | NET | LOOP | FILES | DEVICE, "the guest's buffers"),
	ROW(writev, MAIN | NET | LOOP | FILES | DEVICE, "the guest's buffers"),
	ROW(pread64, REGISTERS | DEVICE | FILES | RESOLVE, "files, a device's config space"),
	ROW(pwrite64, REGISTERS | DEVICE | FILES, "files, a device's config space"),
	ROW(preadv, FILES, "files of snapshots"),
	ROW(pwritev, FILES, "files of snapshots"),
	ROW(lseek, FILES | RESOLVE, "holes in files"),
	ROW(close, ALL | HELPERS, "whatever was opened"),
	ROW(fallocate, FILES | VCPU, "memory and blocks that the guest gives back"),
	ROW(ftruncate, FILES, "files of snapshots"),
	ROW(utimensat, MAIN | MOVERS, "when a disk was written, as its snapshot has it"),
	ROW(fsync, MAIN | MOVERS, "files of snapshots"),
	ROW(fdatasync, MAIN | VCPU | MOVERS, "disks"),
	ROW(sync_file_range, MAIN | MOVERS, "disks that are copied"),
	ROW(fadvise64, FILES, "reading ahead"),
	ROW(copy_file_range, MAIN | MOVERS, "disks that are copied"),
	IOCTL(FICLONE, MAIN | MOVERS, "disks that are copied"),
	IOCTL(FICLONERANGE, MAIN | MOVERS, "disks that are copied"),
	IOCTL(BLKGETSIZE64, MAIN | DISK | VCPU | MOVERS, "a disk's size"),
	IOCTL(BLKSSZGET, MAIN, "a disk's size"),
	IOCTL(BLKPBSZGET, MAIN, "a disk's size"),
	IOCTL(0x80081280u, MAIN | MOVERS, "BLKGETDISKSEQ, the identity of a disk"),
	ROW(newfstatat, ALL | RESOLVE, "what a file is"),
	ROW(fstat, ALL | RESOLVE, "what a file is"),
	ROW(statx, ALL | RESOLVE, "what a file is"),
	ROW(fstatfs, FILES | VCPU | RESOLVE, "what a file system is"),
	FLOCK_ROW(1 | 4), /* LOCK_SH, LOCK_NB */
	FLOCK_ROW(2 | 4), /* LOCK_EX, LOCK_NB */
	FLOCK_ROW(8),     /* LOCK_UN */
	ROW(fcntl, ALL, "an own descriptor", IS(1, F_DUPFD_CLOEXEC)),
	ROW(fcntl, ALL | RESOLVE, "what a descriptor is", IS(1, F_GETFL)),
	ROW(fcntl, ALL | RESOLVE, "what a descriptor is", IS(1, F_GETFD)),
	ROW(fcntl, MAIN | MIGRATION | RESOLVE, "a descriptor that does not wait", IS(1, F_SETFL)),
	ROW(fcntl, ALL | RESOLVE, "a descriptor that is not inherited, also by fdopendir(3)", IS(1, F_SETFD), IS(2, FD_CLOEXEC)),
	ROW(fcntl, MAIN | MOVERS, "locks of disks", IS(1, F_OFD_SETLK)),
	ROW(dup3, STARTER, "stderr becomes the log", IS(1, 2)),
	ROW(dup2, MAIN, "stderr becomes the log", IS(1, 2)),
	ROW(open, STARTER, "files"),
	ROW(openat, STARTER, "files"),
	ROW(openat, RESOLVE, "tables and modules of name services", WITHOUT(2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)),
	ROW(openat2, STARTER, "files below a folder"),
	ROW(stat, STARTER | RESOLVE, "files"),
	ROW(lstat, STARTER | RESOLVE, "files"),
	ROW(access, STARTER | RESOLVE, "files"),
	ROW(faccessat, STARTER | RESOLVE, "files"),
	ROW(faccessat2, STARTER | RESOLVE, "files"),
	ROW(readlink, STARTER | RESOLVE, "files"),
	ROW(readlinkat, STARTER | RESOLVE, "files"),
	ROW(getdents64, MAIN | MOVERS | DEVICE, "the runtime folder, the folder of a snapshot"),
	ROW(mkdir, STARTER, "the runtime folder"),
	ROW(mkdirat, SNAPSHOT, "the runtime folder, the folder of a snapshot"),
	ROW(unlink, STARTER, "sockets, what was not finished"),
	ROW(rmdir, STARTER, "what was not finished"),
	ROW(unlinkat, SNAPSHOT, "the runtime folder, what was not finished"),
	ROW(renameat, STARTER, "the folder of a snapshot"),
	ROW(renameat2, SNAPSHOT, "the runtime folder, the folder of a snapshot"),
	ROW(linkat, STARTER, "a disk that is copied"),
	ROW(chmod, STARTER, "sockets"),
	ROW(fchmod, STARTER, "files"),
	ROW(fchdir, STARTER, "the folder of who asks"),
	ROW(getcwd, SNAPSHOT, "where paths start"),
	ROW(statfs, STARTER | RESOLVE, "files"),

	ROW(inotify_init1, STARTER, "who writes to the file of a snapshot"),
	ROW(inotify_add_watch, STARTER, "who writes to the file of a snapshot"),

	/* ---- waiting ---- */
	ROW(epoll_wait, MAIN | NET | LOOP | MIGRATION | RESOLVE, "events"),
	ROW(epoll_ctl, REGISTERS | NET | LOOP | DEVICE | MIGRATION | RESOLVE, "events"),
	ROW(epoll_create1, REGISTERS | LOOP | MIGRATION | RESOLVE, "the loop of a device"),
	ROW(eventfd2, REGISTERS | LOOP | DEVICE | MOVERS | MEMORY | RESOLVE, "queues, vectors, crews"),
	ROW(timerfd_create, REGISTERS | LOOP | DEVICE | MIGRATION | RESOLVE, "timers"),
	ROW(timerfd_settime, REGISTERS | NET | LOOP | DEVICE | MIGRATION | RESOLVE, "timers"),
	ROW(poll, ALL | HELPERS, "events with a deadline"),
	ROW(futex, ALL | HELPERS, "locks and conditions"),
	ROW(clock_nanosleep, ALL | RESOLVE, "pauses"),
	ROW(io_uring_enter, DISK | MOVERS, "requests"),
	ROW(io_uring_register, DISK | MOVERS, "a ring begins to work", IS(1, IORING_REGISTER_ENABLE_RINGS)),
	ROW(io_uring_register, DISK | MOVERS, "a ring knows its descriptor", IS(1, IORING_REGISTER_RING_FDS)),
	RING_OP(IORING_UNREGISTER_RING_FDS, DISK | MOVERS, "a ring ends"),
	RING_OP(IORING_REGISTER_FILES_UPDATE, DISK, "a disk has another image"),
	ROW(io_uring_register, STARTER, "a ring, before it is restricted", IS(1, IORING_REGISTER_FILES)),
	ROW(io_uring_register, STARTER, "a ring is restricted", IS(1, IORING_REGISTER_RESTRICTIONS)),
	ROW(io_uring_setup, STARTER, "a ring"),

	/* ---- memory ---- */
	ROW(mmap, EACH, "memory that is not executable", WITHOUT(2, PROT_EXEC)),
	ROW(mmap, RESOLVE, "modules of name services, which are files", WITHOUT(3, MAP_ANONYMOUS)),
	ROW(mprotect, ALL | HELPERS, "memory that is not executable", WITHOUT(2, PROT_EXEC)),
	ROW(munmap, EACH, "memory"),
	ROW(madvise, EACH, "memory that is given back", IS(2, MADV_DONTNEED)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "memory that is given back", IS(2, MADV_REMOVE)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "huge pages again", IS(2, MADV_HUGEPAGE)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "small pages", IS(2, MADV_NOHUGEPAGE)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "guest memory is not dumped", IS(2, MADV_DONTDUMP)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "pages before they are needed", IS(2, MADV_POPULATE_READ)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "pages before they are needed", IS(2, MADV_POPULATE_WRITE)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "pages before they are needed", IS(2, MADV_WILLNEED)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "pages that are read once", IS(2, MADV_RANDOM)),
	ROW(madvise, MAIN | MEMORY | MOVERS, "and those that are read in order again", IS(2, MADV_NORMAL)),
	ROW(mincore, FILES | DEVICE, "which pages are there"),
	ROW(memfd_create, STARTER, "guest memory"),
	ROW(userfaultfd, STARTER, "a handler of page faults"),
	IOCTL(NEW_USERFAULTFD, STARTER, "a handler of page faults"),
	IOCTL(UFFDIO_API, STARTER | MAIN | MEMORY, "a handler of page faults"),
	IOCTL(UFFDIO_REGISTER, STARTER | MAIN | MEMORY, "a handler of page faults"),
	IOCTL(UFFDIO_WAKE, STARTER | MAIN | MEMORY, "a handler of page faults is gone"),
	IOCTL(PAGEMAP_IOC_SCAN, FILES, "which pages are there"),

	/* ---- time, signals, threads ---- */
	ROW(clock_gettime, ALL | HELPERS, "a clock source that user space cannot read"),
	ROW(gettimeofday, ALL | HELPERS, "a clock source that user space cannot read"),
	ROW(time, ALL | HELPERS, "a clock source that user space cannot read"),
	ROW(getpid, ALL | HELPERS, "messages"),
	ROW(gettid, ALL | HELPERS, "messages"),
	ROW(getuid, MAIN | MOVERS | RESOLVE, "whose a file or client is"),
	ROW(geteuid, MAIN | MOVERS | RESOLVE, "whose a file or client is"),
	ROW(getrusage, MAIN, "page faults of this process"),
	ROW(tgkill, ALL, "vCPUs are asked to stop, a fatal signal", IS(0, SECCOMP_OWN_PID)),
	ROW(rt_sigaction, ALL | RESOLVE, "a fatal signal"),
	ROW(rt_sigprocmask, ALL | HELPERS, "a fatal signal, a thread that starts or ends"),
	ROW(rt_sigreturn, ALL | HELPERS, "a vCPU was asked to stop"),
	IOCTL(TCGETS, MAIN, "the terminal"),
	IOCTL(TCSETS, ALL, "the terminal is as it was, whatever ends the program"),
	IOCTL(TIOCGPGRP, ALL, "whether the terminal is ours"),
	IOCTL(TIOCGWINSZ, MAIN | VCPU, "the size of a console"),
	IOCTL(0x5441u, MAIN, "TIOCGPTPEER, the other end of a console"),
	IOCTL(TIOCGPTN, MAIN, "a port's pseudo-terminal"),
	ROW(getpgrp, ALL, "whether the terminal is ours"),
	ROW(kill, STARTER, "whether a process is there", IS(1, 0)),
	ROW(kill, ALL, "the program stops with its terminal", IS(0, SECCOMP_OWN_PID)),
	ROW(exit, ALL | HELPERS, "a thread ends"),
	ROW(exit_group, EACH, "the program ends"),
	ROW(sched_setaffinity, STARTER, "vCPUs on CPUs that were named"),
	ROW(sched_getaffinity, ALL, "how many threads are of use"),
	ROW(clone, STARTER, "threads, not processes", ONLY(0, THREAD_FLAGS | 0x400000u), {0, THREAD_FLAGS, THREAD_FLAGS}),
	ROW(prctl, STARTER, "a thread's name", IS(0, PR_SET_NAME)),
	ROW(prctl, EACH, "a thread's name", IS(0, PR_GET_NAME)),
	ROW(prctl, STARTER, "before a thread's filter", IS(0, PR_SET_NO_NEW_PRIVS)),
	ROW(seccomp, STARTER, "a thread's filter", IS(0, SECCOMP_SET_MODE_FILTER)),

	/* ---- the C library ---- */
	LIBC(brk, EACH, "malloc"),
	LIBC(mremap, EACH, "realloc"),
	LIBC(madvise, EACH, "free", IS(2, MADV_FREE)),
	LIBC(getrandom, EACH, "malloc"),
	LIBC(sched_yield, ALL | HELPERS, "locks"),
	LIBC(restart_syscall, ALL | HELPERS, "a sleep goes on after a signal"),
	LIBC(nanosleep, ALL | HELPERS, "pauses"),
	LIBC(ppoll, ALL | HELPERS, "poll"),
	LIBC(epoll_pwait, MAIN | NET | LOOP | MIGRATION, "epoll_wait"),
	LIBC(epoll_create, STARTER, "epoll_create1"),
	LIBC(set_robust_list, STARTER, "a thread starts"),
	LIBC(rseq, STARTER, "a thread starts"),
	LIBC(set_tid_address, STARTER, "a thread starts"),
	LIBC(membarrier, ALL, "a thread starts"),
	LIBC(sysinfo, MAIN | DEVICE | STARTER | RESOLVE, "how much memory there is; qsort asks before it sorts more than 1 KiB"),
	LIBC(uname, STARTER | RESOLVE, "the kernel's version"),
	ABSENT(clone3, STARTER, "its flags are in memory; clone is taken instead"),
};
const size_t seccomp_table_size = ARRAY_SIZE(seccomp_table);
