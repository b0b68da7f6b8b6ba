/* SPDX-License-Identifier: Apache-2.0 */
/* See seccomp.h. */
#include "vmm/jail/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "vmm/jail/seccomp_call.h"
#include "vmm/jail/seccomp_compile.h"
#include "seccomp_filters.h"

/* For the handler, which has no other way to it. */
static struct {
	int fd;
	const char *prefix;
	struct sigaction old; /* restores the terminal */
	int status;
	enum seccomp_mode mode;
} trapped = {.fd = STDERR_FILENO, .prefix = "", .status = SECCOMP_EXIT, .mode = MVMM_SECCOMP};

static void seccomp_on_trap(int signal, siginfo_t *info, void *context)
{
	unsigned int call = (unsigned int)info->si_syscall;
	char thread[16] = "", request[32] = "", line[200];
	int len;

	prctl(PR_GET_NAME, thread);
	if (call == SYS_ioctl)
		snprintf(request, sizeof(request), ", request 0x%x", (unsigned int)seccomp_call_argument(context, 1));
	len = snprintf(line, sizeof(line), "%sthread %s made the system call %s (%u%s), which its filter does not allow; the "
		       "machine ends; --seccomp log allows it and logs it\n", trapped.prefix, thread, seccomp_call_name(call),
		       call, request);
	if (write(trapped.fd, line, (size_t)len) < 0) {
		/* There is nobody to tell. */
	}
	if (!(trapped.old.sa_flags & SA_SIGINFO) && trapped.old.sa_handler != SIG_DFL && trapped.old.sa_handler != SIG_IGN)
		trapped.old.sa_handler(signal);
	syscall(SYS_exit_group, trapped.status);
}

static bool seccomp_has(uint32_t action)
{
	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

void seccomp_set_exit(int status)
{
	trapped.status = status;
}

int seccomp_prepare(enum seccomp_mode mode, int fd, const char *prefix, struct err *err)
{
	struct sigaction action = {.sa_sigaction = seccomp_on_trap, .sa_flags = SA_SIGINFO};

	trapped.mode = mode;
	if (mode == SECCOMP_OFF)
		return 0;
	if (!seccomp_has(mode == SECCOMP_LOG ? SECCOMP_RET_LOG : SECCOMP_RET_TRAP))
		return err_set(err, -ENOSYS, "--seccomp %s: this kernel has no filters of system calls (CONFIG_SECCOMP_FILTER); "
			       "--seccomp off does without", mode == SECCOMP_LOG ? "log" : "on");
	trapped.fd = fd;
	trapped.prefix = prefix;
	sigfillset(&action.sa_mask);
	sigaction(SIGSYS, &action, &trapped.old);
	return 0;
}

enum seccomp_mode seccomp_mode(void)
{
	return trapped.mode;
}

/* The number of this process is not known when the filters are made, nor is the mode. */
static void seccomp_adapt(struct sock_filter *insn, enum seccomp_mode mode)
{
	if (insn->code == (BPF_JMP | BPF_JEQ | BPF_K) && insn->k == SECCOMP_OWN_PID)
		insn->k = (uint32_t)getpid();
	if (insn->code == (BPF_RET | BPF_K) && insn->k == SECCOMP_RET_TRAP && mode == SECCOMP_LOG)
		insn->k = SECCOMP_RET_LOG;
}

/* SPEC_ALLOW: this process runs no code of strangers (docs/threat-model.md). */
int seccomp_enter(enum seccomp_mode mode, enum thread_kind kind)
{
	struct sock_filter insns[SECCOMP_MOST];
	struct sock_fprog filter = filters[kind];

	if (mode == SECCOMP_OFF)
		return 0;
	memcpy(insns, filter.filter, filter.len * sizeof(insns[0]));
	for (size_t i = 0; i < filter.len; i++)
		seccomp_adapt(&insns[i], mode);
	filter.filter = insns;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter) < 0 ? -errno : 0;
}
