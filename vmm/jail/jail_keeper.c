/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_keeper.h. */
#include "vmm/jail/jail_keeper.h"

#include <sys/prctl.h>
#include <sys/wait.h>

#define BY_SIGNAL 128

static const int jail_keeper_relayed[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

/* The machine is told by the kernel when the keeper is gone; if that has happened already, nobody is told. */
static int jail_keeper_begin_machine(const struct jail_keeper *keeper, pid_t before, struct err *err)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return err_sys(err, -errno, "--jail: a tie to the process that started it");
	if (getppid() != before && getppid() != 0) /* 0: it is in another namespace */
		return err_set(err, -ESRCH, "--jail: the process that started it has ended");
	sigprocmask(SIG_SETMASK, &keeper->before, NULL);
	return 0;
}

pid_t jail_keeper_fork(struct jail_keeper *keeper, struct err *err)
{
	pid_t ours = getpid(), pid;

	sigemptyset(&keeper->signals);
	for (size_t i = 0; i < ARRAY_SIZE(jail_keeper_relayed); i++)
		sigaddset(&keeper->signals, jail_keeper_relayed[i]);
	sigaddset(&keeper->signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &keeper->signals, &keeper->before);
	pid = fork();
	if (pid < 0)
		return err_sys(err, -errno, "--jail: a process for the machine");
	return pid ? pid : jail_keeper_begin_machine(keeper, ours, err);
}

/* What a terminal sends, it sends to both processes. */
static void jail_keeper_relay(pid_t machine, const siginfo_t *info)
{
	if (info->si_code <= 0)
		kill(machine, info->si_signo);
}

int jail_keeper_wait(struct jail_keeper *keeper, pid_t machine)
{
	siginfo_t info;
	int status;

	for (;;) {
		pid_t ended = waitpid(machine, &status, WNOHANG);

		if (ended == machine)
			break;
		if (ended < 0 && errno != EINTR)
			return BY_SIGNAL;
		if (sigwaitinfo(&keeper->signals, &info) > 0 && info.si_signo != SIGCHLD)
			jail_keeper_relay(machine, &info);
	}
	sigprocmask(SIG_SETMASK, &keeper->before, NULL);
	return WIFEXITED(status) ? WEXITSTATUS(status) : BY_SIGNAL + WTERMSIG(status);
}
