/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What code that has taken over a thread of a machine may try: a child process stands in for each kind of thread, behind
 * its filter, and makes one call, the arguments of which would be right. None succeeds: the process ends by its filter.
 */
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "tests/unit/test.h"
#include "vmm/jail/seccomp.h"

#define ALL ((1u << THREAD_KINDS) - 1)
#define STARTER (1u << THREAD_STARTER)
#define GUESTS (ALL & ~STARTER)
#define STAGE (1u << THREAD_STAGE)
#define TLS (1u << THREAD_TLS)
#define RESOLVE (1u << THREAD_RESOLVE)
#define ADDRESS(x) (long)(uintptr_t)(x)

static char page[8192] __attribute__((aligned(4096)));
static struct sockaddr_un peer = {.sun_family = AF_UNIX, .sun_path = "/tmp/socket"};
static struct io_uring_params ring;
static struct rlimit limit = {1 << 20, 1 << 20};
static struct iovec iov = {page, sizeof(page)};
static struct { uint64_t flags, mode, resolve; } how;
static struct { uint64_t args[11]; } clone_args = {{CLONE_VM, 0, 0, 0, SIGCHLD}};

/* From which kinds of threads each is tried. */
static const struct escape {
	const char *what;
	unsigned int kinds;
	long call, args[6];
} escapes[] = {
	{"read a file of the host", GUESTS & ~RESOLVE, SYS_openat, {AT_FDCWD, ADDRESS("/etc/passwd"), O_RDONLY}},
	{"the same, the old way", GUESTS, SYS_open, {ADDRESS("/etc/passwd"), O_RDONLY}},
	{"the same, the new way", GUESTS, SYS_openat2, {AT_FDCWD, ADDRESS("/etc/passwd"), ADDRESS(&how), sizeof(how)}},
	{"write a file of the host", GUESTS, SYS_creat, {ADDRESS("/tmp/mvmm-escape"), 0600}},
	{"open another process's memory", GUESTS, SYS_openat, {AT_FDCWD, ADDRESS("/proc/1/mem"), O_RDWR}},
	{"open by a handle", ALL, SYS_open_by_handle_at, {AT_FDCWD, ADDRESS(page), O_RDONLY}},
	{"find the handle", ALL, SYS_name_to_handle_at, {AT_FDCWD, ADDRESS("/"), ADDRESS(page), ADDRESS(page), 0}},
	{"remove a file", GUESTS, SYS_unlink, {ADDRESS("/tmp/mvmm-escape")}},
	{"rename a file", ALL, SYS_rename, {ADDRESS("/tmp/a"), ADDRESS("/tmp/b")}},
	{"make a link", ALL, SYS_symlink, {ADDRESS("/etc/passwd"), ADDRESS("/tmp/mvmm-escape")}},
	{"make a device", ALL, SYS_mknodat, {AT_FDCWD, ADDRESS("/tmp/mvmm-escape"), 020600, 0x0801}},
	{"give away a file", ALL, SYS_chown, {ADDRESS("/tmp"), 0, 0}},
	{"an attribute of a file", ALL, SYS_setxattr, {ADDRESS("/tmp"), ADDRESS("user.a"), ADDRESS(page), 1, 0}},
	{"run a program", ALL, SYS_execve, {ADDRESS("/bin/sh"), 0, 0}},
	{"run a program by its descriptor", ALL, SYS_execveat, {3, ADDRESS(""), 0, 0, AT_EMPTY_PATH}},
	{"fork", ALL, SYS_fork, {0}},
	{"vfork", ALL, SYS_vfork, {0}},
	{"clone a process", ALL, SYS_clone, {SIGCHLD}},
	{"clone a thread into a namespace", ALL, SYS_clone, {0x3d0f00 | CLONE_NEWUSER}},
	{"clone a thread", GUESTS, SYS_clone, {0x3d0f00}},
	{"clone, the new way", GUESTS, SYS_clone3, {ADDRESS(&clone_args), sizeof(clone_args)}},
	{"leave a namespace", ALL, SYS_setns, {3, 0}},
	{"make a namespace", ALL, SYS_unshare, {CLONE_NEWUSER}},
	{"mount", ALL, SYS_mount, {ADDRESS("none"), ADDRESS("/tmp"), ADDRESS("tmpfs"), 0, 0}},
	{"mount, the new way", ALL, SYS_fsopen, {ADDRESS("tmpfs"), 0}},
	{"move a mount", ALL, SYS_move_mount, {3, ADDRESS(""), AT_FDCWD, ADDRESS("/tmp"), 4}},
	{"unmount", ALL, SYS_umount2, {ADDRESS("/tmp"), 2 /* MNT_DETACH */}},
	{"another root", ALL, SYS_pivot_root, {ADDRESS("/tmp"), ADDRESS("/tmp")}},
	{"chroot", ALL, SYS_chroot, {ADDRESS("/tmp")}},
	{"another folder", ALL, SYS_chdir, {ADDRESS("/")}},
	{"trace the parent", ALL, SYS_ptrace, {PTRACE_ATTACH, 1, 0, 0}},
	{"read another process", ALL, SYS_process_vm_readv, {1, ADDRESS(&iov), 1, ADDRESS(&iov), 1, 0}},
	{"write another process", ALL, SYS_process_vm_writev, {1, ADDRESS(&iov), 1, ADDRESS(&iov), 1, 0}},
	{"another process's descriptor", ALL, SYS_pidfd_getfd, {3, 0, 0}},
	{"another process", ALL, SYS_pidfd_open, {1, 0}},
	{"signal another process", ALL, SYS_kill, {1, SIGKILL}},
	{"signal all processes", ALL, SYS_kill, {-1, SIGKILL}},
	{"signal another's thread", ALL, SYS_tgkill, {1, 1, SIGKILL}},
	{"signal any thread", ALL, SYS_tkill, {1, SIGKILL}},
	{"signal with a value", ALL, SYS_rt_sigqueueinfo, {1, SIGKILL, ADDRESS(page)}},
	{"a network", GUESTS & ~RESOLVE, SYS_socket, {AF_INET, SOCK_STREAM, 0}},
	{"packets of all kinds", ALL, SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
	{"the kernel's crypto", ALL, SYS_socket, {AF_ALG, SOCK_SEQPACKET, 0}},
	{"the host's virtual machines", ALL, SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
	{"another machine's socket", GUESTS & ~RESOLVE, SYS_connect, {3, ADDRESS(&peer), sizeof(peer)}},
	{"an address", GUESTS & ~RESOLVE, SYS_bind, {3, ADDRESS(&peer), sizeof(peer)}},
	{"listen", GUESTS, SYS_listen, {3, 1}},
	{"accept", TLS | RESOLVE, SYS_accept4, {3, 0, 0, 0}},
	{"write a file of the host, as its reader", RESOLVE, SYS_openat, {AT_FDCWD, ADDRESS("/tmp/mvmm-escape"), O_WRONLY | O_CREAT, 0600}},
	{"the same, a file that is there", RESOLVE, SYS_openat, {AT_FDCWD, ADDRESS("/etc/passwd"), O_RDWR}},
	{"the same, emptied", RESOLVE, SYS_openat, {AT_FDCWD, ADDRESS("/etc/passwd"), O_RDONLY | O_TRUNC}},
	{"a key of the certificates again", TLS, SYS_openat, {AT_FDCWD, ADDRESS("/etc/passwd"), O_RDONLY}},
	{"the terminal", TLS | RESOLVE, SYS_ioctl, {0, TCGETS, ADDRESS(page)}},
	{"another option of a socket", TLS, SYS_setsockopt, {3, SOL_SOCKET, SO_REUSEADDR, ADDRESS(page), 4}},
	{"memory that is executable", ALL, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
	{"memory that becomes executable", ALL, SYS_mprotect, {ADDRESS(page), 4096, PROT_READ | PROT_EXEC}},
	{"the same, with a key", ALL, SYS_pkey_mprotect, {ADDRESS(page), 4096, PROT_READ | PROT_EXEC, -1}},
	{"reading is executing", ALL, SYS_personality, {0x0400000}},
	{"shared memory that is executable", ALL, SYS_shmat, {0, 0, 0100000 /* SHM_EXEC */}},
	{"pages of another order", ALL, SYS_remap_file_pages, {ADDRESS(page), 4096, 0, 0, 0}},
	{"a file that is not one", GUESTS, SYS_memfd_create, {ADDRESS("escape"), 0}},
	{"page faults of its own", GUESTS, SYS_userfaultfd, {O_CLOEXEC}},
	{"a ring that no filter sees", GUESTS, SYS_io_uring_setup, {8, ADDRESS(&ring)}},
	{"rings of the old kind", ALL, SYS_io_setup, {8, ADDRESS(page)}},
	{"a ring's rights", ALL, SYS_io_uring_register, {3, IORING_REGISTER_PERSONALITY, 0, 0}},
	{"a ring's buffers", ALL, SYS_io_uring_register, {3, IORING_REGISTER_BUFFERS, ADDRESS(&iov), 1}},
	{"keys to a terminal", ALL, SYS_ioctl, {0, TIOCSTI, ADDRESS(page)}},
	{"a terminal's keyboard", ALL, SYS_ioctl, {0, 0x541c, ADDRESS(page)}},
	{"an interface's address", ALL, SYS_ioctl, {3, 0x8916 /* SIOCSIFADDR */, ADDRESS(page)}},
	{"another virtual machine", GUESTS, SYS_ioctl, {3, KVM_CREATE_VM, 0}},
	{"other code of KVM", ALL, SYS_ioctl, {3, (long)KVM_CREATE_PIT, 0}},
	{"a guest's debugger", ALL, SYS_ioctl, {3, (long)KVM_SET_GUEST_DEBUG, ADDRESS(page)}},
	{"a process group's descriptor", ALL, SYS_fcntl, {0, F_SETOWN, 1}},
	{"a pipe's size", ALL, SYS_fcntl, {0, F_SETPIPE_SZ, 1 << 20}},
	{"seals", ALL, SYS_fcntl, {0, F_ADD_SEALS, 0}},
	{"more of everything", ALL, SYS_prlimit64, {0, RLIMIT_NOFILE, ADDRESS(&limit), 0}},
	{"another process's limits", ALL, SYS_prlimit64, {1, RLIMIT_NOFILE, 0, ADDRESS(&limit)}},
	{"another user", ALL, SYS_setuid, {0}},
	{"other groups", ALL, SYS_setgroups, {0, 0}},
	{"capabilities", ALL, SYS_capset, {ADDRESS(page), ADDRESS(page)}},
	{"a weaker filter", GUESTS, SYS_seccomp, {0, 0, 0}},
	{"dumps", ALL, SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0}},
	{"who may trace", ALL, SYS_prctl, {0x59616d61, -1, 0, 0, 0}},
	{"the end of the parent", ALL, SYS_prctl, {PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0}},
	{"another segment", ALL, SYS_modify_ldt, {1, ADDRESS(page), 16}},
	{"ports of the host", ALL, SYS_ioperm, {0, 1024, 1}},
	{"all ports of the host", ALL, SYS_iopl, {3}},
	{"the kernel's programs", ALL, SYS_bpf, {0, ADDRESS(page), 64}},
	{"the kernel's counters", ALL, SYS_perf_event_open, {ADDRESS(page), 0, -1, -1, 0}},
	{"the kernel's keys", ALL, SYS_keyctl, {0, 0, 0, 0, 0}},
	{"a module", ALL, SYS_finit_module, {3, ADDRESS(""), 0}},
	{"another kernel", ALL, SYS_kexec_file_load, {3, 3, 0, ADDRESS(""), 0}},
	{"a reboot of the host", ALL, SYS_reboot, {0xfee1dead, 672274793, 0x89abcdef, 0}},
	{"the host's name", ALL, SYS_sethostname, {ADDRESS("escape"), 6}},
	{"the host's clock", ALL, SYS_settimeofday, {ADDRESS(page), 0}},
	{"the host's log", ALL, SYS_syslog, {3, ADDRESS(page), sizeof(page)}},
	{"swap", ALL, SYS_swapon, {ADDRESS("/tmp"), 0}},
	{"messages to others", ALL, SYS_msgget, {0, 01600}},
	{"memory with others", ALL, SYS_shmget, {0, 4096, 01600}},
	{"a fan of files", ALL, SYS_fanotify_init, {0, 0}},
	{"others' threads' processors", GUESTS, SYS_sched_setaffinity, {1, 8, ADDRESS(page)}},
	{"a descriptor from the peer", STAGE, SYS_recvmsg, {0, ADDRESS(page), 0}},
	{"a descriptor for the peer", STAGE, SYS_sendmsg, {0, ADDRESS(page), 0}},
	{"its own descriptor again", STAGE, SYS_dup, {0}},
	{"the same, otherwise", STAGE, SYS_fcntl, {0, F_DUPFD_CLOEXEC, 3}},
	{"what a file is", STAGE, SYS_newfstatat, {AT_FDCWD, ADDRESS("/etc/passwd"), ADDRESS(page), 0}},
	{"any device", STAGE, SYS_ioctl, {0, (long)KVM_CHECK_EXTENSION, 0}},
	{"its own limits", STAGE, SYS_prlimit64, {0, RLIMIT_AS, 0, ADDRESS(&limit)}},
	{"its own signals", STAGE, SYS_rt_sigaction, {SIGSYS, 0, ADDRESS(page), 8}},
	{"others' priority", ALL, SYS_setpriority, {0, 1, -20}},
};

static void be_child(const struct escape *escape, enum thread_kind kind)
{
	const long *args = escape->args;
	int silent = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (seccomp_prepare(SECCOMP_ON, silent, "", NULL) || seccomp_enter(SECCOMP_ON, kind))
		_exit(99);
	syscall(escape->call, args[0], args[1], args[2], args[3], args[4], args[5]);
	syscall(SYS_exit_group, errno == ENOSYS ? 38 : 0);
}

static bool is_held(const struct escape *escape, enum thread_kind kind)
{
	int status = 0;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid)
		be_child(escape, kind);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (status == SECCOMP_EXIT << 8)
		return true;
	printf("# %s, from a thread of kind %u: ended with 0x%x\n", escape->what, kind, (unsigned int)status);
	return false;
}

static void nothing_leads_out_of_a_thread(void)
{
	unsigned int lost = 0;

	for (size_t i = 0; i < ARRAY_SIZE(escapes); i++)
		for (unsigned int kind = 0; kind < THREAD_KINDS; kind++)
			if (escapes[i].kinds >> kind & 1)
				lost += !is_held(&escapes[i], (enum thread_kind)kind);
	CHECK_EQ(lost, 0);
}

TEST_MAIN(TEST(nothing_leads_out_of_a_thread))
