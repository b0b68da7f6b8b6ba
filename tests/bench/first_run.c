/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a program takes from exec to its first KVM_RUN:
 *
 *	first_run COMMAND [ARG...]
 *	first_run --count N COMMAND [ARG...]   N of them, one after the other; {n} in an argument is the number, from 1
 *	first_run --spare COMMAND [ARG...]     the first one after SIGUSR1
 *
 * writes microseconds to descriptor 3 and ends the program there; for --count a line for each and then the time of all, as they stay
 * in their KVM_RUN until the last one has come; for --spare the line "armed" when the signal has come, and then CLOCK_MONOTONIC's
 * nanoseconds at KVM_RUN. A seccomp filter hands the KVM_RUN ioctl, and nothing else, to this process, so that the program runs at
 * full speed and on as many threads as it likes. A KVM_RUN that is told not to enter the guest (immediate_exit) does not count.
 * Exit status 1 when the program ended before, with its own output above.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 120000

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "first_run: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The filter's listener: whoever has it hears of every KVM_RUN from now on. */
static int install_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KVM_RUN, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void send_fd(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(socket, &message, 0) != 1)
		fail("cannot pass the listener");
}

static int receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd = -1;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
		fail("no listener came");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

struct program {
	int listener;
	pid_t pid;
	int64_t *began; /* microseconds, written by the child just before its exec */
};

/* The arguments with {n} replaced; not freed. */
static char **arguments(char **argv, int count, int n)
{
	char **ret = calloc((size_t)count + 1, sizeof(*ret));

	for (int i = 0; ret && i < count; i++) {
		const char *at = strstr(argv[i], "{n}");

		ret[i] = argv[i];
		if (at && asprintf(&ret[i], "%.*s%d%s", (int)(at - argv[i]), argv[i], n, at + 3) < 0)
			fail("arguments");
	}
	return ret;
}

static void start(struct program *program, char **argv)
{
	int sockets[2];
	char byte;

	program->began = mmap(NULL, sizeof(*program->began), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (program->began == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		fail("cannot begin");
	program->pid = fork();
	if (program->pid == 0) {
		sigset_t none;
		int listener;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		listener = install_filter();
		if (listener < 0)
			fail("no seccomp filter");
		send_fd(sockets[1], listener);
		if (read(sockets[1], &byte, 1) != 1)
			_exit(1);
		close(listener);
		*program->began = now_us();
		execvp(argv[0], argv);
		fail(argv[0]);
	}
	program->listener = receive_fd(sockets[0]);
	if (write(sockets[0], "", 1) != 1)
		fail("the child is gone");
	close(sockets[0]);
	close(sockets[1]);
}

/* With their children, which become ours: a jailed machine is a child of the program that was started, and ends with it. */
static void end(const struct program *programs, int count)
{
	for (int i = 0; i < count; i++)
		if (programs[i].pid)
			kill(programs[i].pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0) {
		/* The next machine of a name finds it free. */
	}
}

/* Whether this KVM_RUN enters the guest. Looks at the vCPU's page that the caller shares with the kernel. */
static int enters(const struct seccomp_notif *notification)
{
	int pidfd = (int)syscall(SYS_pidfd_open, notification->pid, 0x80 /* PIDFD_THREAD */), ret = 1;
	int vcpu = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, (int)notification->data.args[0], 0);
	const struct kvm_run *run = vcpu < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, vcpu, 0);

	if (run != MAP_FAILED) {
		ret = !run->immediate_exit;
		munmap((void *)(uintptr_t)run, 4096);
	}
	close(vcpu);
	close(pidfd);
	return ret;
}

/* Takes one notification: when it came (ns) if it is the KVM_RUN that is waited for, or 0 and lets it go on. */
static int64_t take(int listener, int counts)
{
	struct seccomp_notif notification = {0};
	struct seccomp_notif_resp go_on = {.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notification) < 0)
		return 0;
	if (counts && enters(&notification))
		return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	go_on.id = notification.id;
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &go_on);
	return 0;
}

/* Nanoseconds at KVM_RUN. signal_fd: those before its signal do not count; -1: all do. 0: it ended before, or took too long. */
static int64_t await(struct program *program, int signal_fd)
{
	struct pollfd fds[] = {{.fd = program->listener, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
	int64_t at = 0, until = now_us() + TIMEOUT_MS * 1000ll;

	while (!at && now_us() < until) {
		if (poll(fds, 2, TIMEOUT_MS) < 1)
			break;
		if (fds[1].revents) {
			dprintf(3, "armed\n");
			fds[1].fd = -1;
		}
		/* POLLHUP: the last process with the filter has ended. */
		if (fds[0].revents & POLLIN)
			at = take(program->listener, fds[1].fd < 0);
		else if (fds[0].revents)
			break;
	}
	return at;
}

static int run(char **argv, int argc, int count)
{
	struct program *programs = calloc((unsigned int)count, sizeof(*programs));
	int64_t first = 0, at = 0;

	for (int i = 0; i < count; i++) {
		start(&programs[i], arguments(argv, argc, i + 1));
		at = await(&programs[i], -1) / 1000;
		if (!at)
			break;
		first = i ? first : *programs[i].began;
		dprintf(3, "%lld\n", (long long)(at - *programs[i].began));
	}
	if (at && count > 1)
		dprintf(3, "%lld\n", (long long)(at - first));
	end(programs, count);
	return at ? 0 : 1;
}

static int run_spare(char **argv, int argc)
{
	struct program program;
	sigset_t armed;
	int64_t at;

	sigemptyset(&armed);
	sigaddset(&armed, SIGUSR1);
	sigprocmask(SIG_BLOCK, &armed, NULL);
	start(&program, arguments(argv, argc, 1));
	at = await(&program, signalfd(-1, &armed, SFD_CLOEXEC));
	end(&program, 1);
	if (at)
		dprintf(3, "%lld\n", (long long)at);
	return at ? 0 : 1;
}

int main(int argc, char **argv)
{
	int spare = argc > 2 && strcmp(argv[1], "--spare") == 0;
	int count = argc > 3 && strcmp(argv[1], "--count") == 0 ? atoi(argv[2]) : 0;
	int options = spare ? 1 : count > 0 ? 2 : 0, status;

	if (argc < 2 || (!options && argv[1][0] == '-')) {
		fprintf(stderr, "usage: first_run [--count N | --spare] COMMAND [ARG...]\n");
		return 2;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	status = spare ? run_spare(argv + 2, argc - 2) : run(argv + 1 + options, argc - 1 - options, count ?: 1);
	if (status)
		fprintf(stderr, "first_run: %s ended without KVM_RUN, or took too long\n", argv[1 + options]);
	return status;
}
