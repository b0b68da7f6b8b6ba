/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first process of the test host: makes a machine out of a bare kernel, runs one command and
 * reports how it ended. Started by the kernel as init= with the build machine's / as its root,
 * read-only over 9p; see tests/testhost/enter, which prepares the job and reads the report.
 *
 * The job is a folder, named by the kernel's command line (init=agent -- FOLDER):
 *	argv, env	NUL-separated
 *	cwd		where to run it
 *	setup		a shell script to run first, its output goes to the kernel's console; may be missing
 *	merged		present when standard error is to go where standard output goes
 *	winsize		present when it runs on a terminal, /dev/hvc0: "ROWS COLUMNS" of it
 *
 * Three ports of the first virtio device, a serial one, lead out: standard output, standard error, and the report, which is
 * "up", then "exit STATUS" or "fail REASON". A write to a port returns when the other side has
 * taken it, so what was written before "exit" has arrived before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT_OUT "/dev/vport0p1"
#define PORT_ERR "/dev/vport0p2"
#define PORT_REPORT "/dev/vport0p3"

static const char *job_folder;
static int report_fd = -1;

static void write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, size);
		if (n < 0 && errno != EINTR)
			return;
		if (n > 0) {
			data += n;
			size -= n;
		}
	}
}

static __attribute__((noreturn)) void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

__attribute__((format(printf, 1, 2))) static void report(const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	strcat(line, "\n");
	/* the kernel's console has it too, for the time before the port is there */
	fputs(line, stderr);
	if (report_fd >= 0)
		write_all(report_fd, line, strlen(line));
}

#define fail(format, ...)                                   \
	do {                                                \
		report("fail " format __VA_OPT__(,) __VA_ARGS__); \
		power_off();                                \
	} while (0)

/* -- the machine */

struct mount_entry {
	const char *type, *target, *options;
	unsigned long flags;
};

/* What every Linux has mounted; relative to the new root. The order is that of nesting. */
static const struct mount_entry mounts[] = {
	{ "proc", "proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "sysfs", "sys", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "cgroup2", "sys/fs/cgroup", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "debugfs", "sys/kernel/debug", "", 0 },
	{ "tracefs", "sys/kernel/tracing", "", 0 },
	{ "devtmpfs", "dev", "", MS_NOSUID },
	{ "devpts", "dev/pts", "ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC },
	{ "tmpfs", "dev/shm", "mode=1777", MS_NOSUID | MS_NODEV },
	{ "mqueue", "dev/mqueue", "", 0 },
	{ "hugetlbfs", "dev/hugepages", "", 0 },
	{ "tmpfs", "run", "mode=0755", MS_NOSUID | MS_NODEV },
};

static void mount_or_fail(const char *type, const char *target, const char *options, unsigned long flags)
{
	if (mount(type, target, type, flags, options) < 0)
		fail("mount %s on %s: %s", type, target, strerror(errno));
}

/* A root like the build machine's, where every write goes to memory. */
static void make_root(void)
{
	mount_or_fail("tmpfs", "/run", "mode=0755,size=75%", 0);
	mkdir("/run/upper", 0755);
	mkdir("/run/work", 0755);
	mkdir("/run/root", 0755);
	mount_or_fail("overlay", "/run/root", "lowerdir=/,upperdir=/run/upper,workdir=/run/work,index=off,xino=off",
		      0);
	if (chdir("/run/root") < 0)
		fail("chdir to the new root: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].target, 0755);
		mount_or_fail(mounts[i].type, mounts[i].target, mounts[i].options, mounts[i].flags);
	}
	/* the old root ends up under the new one and is let go */
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		fail("pivot_root: %s", strerror(errno));
	if (symlink("/proc/self/fd", "/dev/fd") < 0 || symlink("fd/0", "/dev/stdin") < 0 ||
	    symlink("fd/1", "/dev/stdout") < 0 || symlink("fd/2", "/dev/stderr") < 0)
		fail("links in /dev: %s", strerror(errno));
}

static void lo_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		fail("lo up: %s", strerror(errno));
	close(fd);
}

static int open_port(const char *path)
{
	/* ports appear shortly after the device itself */
	for (int i = 0; i < 5000; i++) {
		int fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		usleep(1000);
	}
	fail("open %s: %s", path, strerror(errno));
}

/* -- the job */

static void job_path(char *path, const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", job_folder, name);
}

static bool job_has(const char *name)
{
	char path[PATH_MAX];

	job_path(path, name);
	return access(path, F_OK) == 0;
}

/* The whole file with a NUL behind it, NULL when there is none. */
static char *job_read(const char *name, size_t *size)
{
	char path[PATH_MAX], *text;
	struct stat st;

	job_path(path, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) < 0 || !(text = calloc(1, st.st_size + 1)) || read(fd, text, st.st_size) != st.st_size)
		fail("read %s: %s", path, strerror(errno));
	close(fd);
	*size = st.st_size;
	return text;
}

/* The NUL-separated strings of a file as a vector that ends in NULL. */
static char **job_strings(const char *name)
{
	size_t size, count = 0;
	char *text = job_read(name, &size);

	if (!text)
		fail("the job has no %s", name);
	char **strings = calloc(size + 2, sizeof(*strings));
	if (!strings)
		fail("no memory for %s", name);
	for (char *p = text; p < text + size; p += strlen(p) + 1)
		strings[count++] = p;
	return strings;
}

static __attribute__((noreturn)) void exec_job(char **argv)
{
	char **env = job_strings("env");
	size_t size;
	char *cwd = job_read("cwd", &size);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	environ = env;
	if (cwd && chdir(cwd) < 0)
		fprintf(stderr, "enter: %s: %s, running in /\n", cwd, strerror(errno));
	execvp(argv[0], argv);
	fprintf(stderr, "enter: %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* The last line of what setup said on its standard error, in place. */
static const char *last_line(int fd)
{
	static char text[4096];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	while (n > 0 && text[n - 1] == '\n')
		text[--n] = 0;
	const char *line = strrchr(text, '\n');
	return line ? line + 1 : text;
}

static void run_setup(void)
{
	char path[PATH_MAX];
	int status;

	if (!job_has("setup"))
		return;
	job_path(path, "setup");
	int err = open("/run/setup", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(err, 2);
		exec_job((char *[]){ "bash", "-eu", path, NULL });
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		fail("setup: %s", strerror(errno));
	if (status != 0)
		fail("setup of the devices ended with status %d: %s", WEXITSTATUS(status), last_line(err));
	close(err);
}

/* On the terminal, with job control. */
static pid_t start_on_terminal(char **argv)
{
	struct winsize winsize = { .ws_row = 24, .ws_col = 80 };
	size_t size;
	char *text = job_read("winsize", &size);
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	setsid();
	int fd = open("/dev/hvc0", O_RDWR);
	if (fd < 0 || ioctl(fd, TIOCSCTTY, 1) < 0)
		_exit(126);
	unsigned short rows, columns;
	if (text && sscanf(text, "%hu %hu", &rows, &columns) == 2 && rows > 0 && columns > 0)
		winsize = (struct winsize){ .ws_row = rows, .ws_col = columns };
	ioctl(fd, TIOCSWINSZ, &winsize);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	exec_job(argv);
}

static pid_t start_command(char **argv, int out, int err)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	setsid();
	int null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	dup2(out, 1);
	dup2(err, 2);
	if (null > 2)
		close(null);
	exec_job(argv);
}

/* Moves what is in the pipe to the port; false when there is nothing more for now. */
static bool forward(struct pollfd *from, int port)
{
	static char buffer[65536];
	ssize_t n = read(from->fd, buffer, sizeof(buffer));

	if (n > 0)
		write_all(port, buffer, n);
	else if (n == 0 || errno != EAGAIN)
		from->fd = -1;
	return n > 0;
}

/* Reaps everything that ended; true when PID was among it. */
static bool reap(pid_t pid, int *status)
{
	bool ended = false;
	int s;

	for (pid_t p; (p = waitpid(-1, &s, WNOHANG)) > 0;)
		if (p == pid) {
			*status = WIFSIGNALED(s) ? 128 + WTERMSIG(s) : WEXITSTATUS(s);
			ended = true;
		}
	return ended;
}

static int run(char **argv)
{
	int out_pipe[2], err_pipe[2], status = 0;
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	int child_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (child_fd < 0 || pipe2(out_pipe, O_CLOEXEC) < 0 || pipe2(err_pipe, O_CLOEXEC) < 0)
		fail("pipes: %s", strerror(errno));
	fcntl(out_pipe[0], F_SETFL, O_NONBLOCK);
	fcntl(err_pipe[0], F_SETFL, O_NONBLOCK);

	int out_port = open_port(PORT_OUT), err_port = open_port(PORT_ERR);
	int err = job_has("merged") ? out_pipe[1] : err_pipe[1];
	pid_t pid = job_has("winsize") ? start_on_terminal(argv) : start_command(argv, out_pipe[1], err);
	if (pid < 0)
		fail("fork: %s", strerror(errno));
	close(out_pipe[1]);
	close(err_pipe[1]);

	struct pollfd fds[] = { { .fd = child_fd, .events = POLLIN },
				{ .fd = out_pipe[0], .events = POLLIN },
				{ .fd = err_pipe[0], .events = POLLIN } };
	for (bool ended = false; !ended;) {
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[1].revents)
			forward(&fds[1], out_port);
		if (fds[2].revents)
			forward(&fds[2], err_port);
		if (fds[0].revents) {
			struct signalfd_siginfo info;
			while (read(child_fd, &info, sizeof(info)) > 0)
				;
			ended = reap(pid, &status);
		}
	}
	/*
	 * What it wrote before it ended is in the pipes, 64 KiB each at most; whoever else holds them
	 * open is not waited for.
	 */
	for (int i = 0; i < 4 && fds[1].fd >= 0 && forward(&fds[1], out_port); i++)
		;
	for (int i = 0; i < 4 && fds[2].fd >= 0 && forward(&fds[2], err_port); i++)
		;
	return status;
}

int main(int argc, char **argv)
{
	if (argc != 2 || getpid() != 1) {
		fputs("agent: this is the init of the test host, started by tests/testhost/enter\n", stderr);
		return 2;
	}
	job_folder = argv[1];

	make_root();
	report_fd = open_port(PORT_REPORT);
	sethostname("testhost", 8);
	lo_up();
	report("up");
	run_setup();
	int status = run(job_strings("argv"));
	sync();
	report("exit %d", status);
	power_off();
}
