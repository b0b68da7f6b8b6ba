/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/jail: what a program behind the door finds, that nothing is left behind it, and that each of its system calls may
 * fail. The jails are real ones: of this user, or of another one if this is root.
 */
#include "vmm/jail/jail.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#define FAULT EIO
#define GOOD 42

/* ---- calls that fail ---- */

static const char *failed_call;
static unsigned int calls, fail_at;

static bool fails(const char *name)
{
	if (!fail_at || ++calls != fail_at)
		return false;
	failed_call = name;
	errno = FAULT;
	return true;
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define CALL(type, name, parameters, arguments)                              \
	type name parameters                                                 \
	{                                                                    \
		return fails(#name) ? (type)-1 : REAL(name) arguments;       \
	}

CALL(int, mount, (const char *from, const char *to, const char *type, unsigned long flags, const void *data),
     (from, to, type, flags, data))
CALL(int, umount2, (const char *path, int flags), (path, flags))
CALL(int, unshare, (int flags), (flags))
CALL(int, setns, (int fd, int type), (fd, type))
CALL(int, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds))
CALL(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
CALL(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
CALL(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
CALL(int, mknodat, (int fd, const char *path, mode_t mode, dev_t device), (fd, path, mode, device))
CALL(int, fchownat, (int fd, const char *path, uid_t uid, gid_t gid, int flags), (fd, path, uid, gid, flags))
CALL(int, setrlimit, (__rlimit_resource_t resource, const struct rlimit *limit), (resource, limit))
CALL(pid_t, fork, (void), ())
CALL(int, fchdir, (int fd), (fd))
CALL(int, chdir, (const char *path), (path))

int open(const char *path, int flags, ...)
{
	return fails("open") ? -1 : REAL(open)(path, flags, 0600);
}

/* As the C library does, these read arguments that the caller may have left out. */
#define READS_ALL __attribute__((no_sanitize("address", "undefined")))

READS_ALL int prctl(int option, ...)
{
	unsigned long words[4];
	va_list list;

	va_start(list, option);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = va_arg(list, unsigned long);
	va_end(list);
	if (fails("prctl"))
		return -1;
	return REAL(prctl)(option, words[0], words[1], words[2], words[3]);
}

READS_ALL long syscall(long number, ...)
{
	long words[6];
	va_list list;

	va_start(list, number);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = va_arg(list, long);
	va_end(list);
	/* Without these the thread has more to drop, and a kernel has no Landlock. */
	if (number != SYS_capget && !(number == SYS_landlock_create_ruleset && !words[0]) && fails("syscall"))
		return -1;
	return REAL(syscall)(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

/* ---- jails ---- */

static char base[64];  /* with the folders in it */
static char dir[80], allowed[80];
static struct jail_options options;
static struct jail_folder folders[1];
static bool root;

static void begin(void)
{
	root = geteuid() == 0;
	fail_at = 0;
	strcpy(base, "/tmp/test_jail.XXXXXX");
	CHECK(mkdtemp(base));
	chmod(base, 0755);
	snprintf(dir, sizeof(dir), "%s/jail", base);
	snprintf(allowed, sizeof(allowed), "%s/allowed", base);
	CHECK_EQ(mkdir(dir, 0755), 0);
	CHECK_EQ(mkdir(allowed, 0755), 0);
	options = (struct jail_options){.config = {.dir = dir, .uid = root ? 12345 : 0, .gid = root ? 12345 : 0}};
}

static void allow(void)
{
	folders[0].path = strdup(allowed);
	options.allowed = folders;
	options.allowed_count = 1;
}

/* Removes them; false: something was left in the jail. */
static bool end(void)
{
	bool empty = rmdir(dir) == 0;

	if (options.allowed_count)
		free(folders[0].path);
	rmdir(allowed);
	rmdir(base);
	return empty;
}

static void (*before_the_door)(struct jail *jail);

/* In a jail: enters, closes the door, and gives up its rights; then calls fn, whose value is the exit code. */
static int in_jail(int (*fn)(void), char *text, size_t size)
{
	const struct jail_machine machine = {0};
	struct jail *jail;
	struct err err = {""};
	int lines[2], status, code = 0;
	ssize_t len;
	pid_t pid;

	CHECK_EQ(pipe(lines), 0);
	pid = REAL(fork)();
	if (pid == 0) {
		int kvm = REAL(open)("/dev/null", O_RDWR);

		dup2(lines[1], STDERR_FILENO);
		if (jail_enter(&options, &machine, &jail, &code, &err))
			_exit(err.text[0] ? (dprintf(STDERR_FILENO, "%s\n", err.text), 2) : code);
		if (before_the_door)
			before_the_door(jail);
		if (jail_close(jail, &err)) {
			dprintf(STDERR_FILENO, "%s\n", err.text);
			_exit(2);
		}
		jail_leave(jail);
		jail_confine(jail);
		jail_confine(jail); /* does no harm */
		fail_at = 0;
		close(kvm);
		_exit(fn());
	}
	close(lines[1]);
	for (size_t used = 0; (len = read(lines[0], text + used, size - 1 - used)) > 0; used += (size_t)len)
		text[used + (size_t)len] = 0;
	close(lines[0]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* fn finds what it should; the line that failed is shown. */
static void holds(int (*fn)(void))
{
	char text[1024] = "";
	int code = in_jail(fn, text, sizeof(text));

	if (code != GOOD)
		printf("# code %d: %s\n", code, text);
	CHECK_EQ(code, GOOD);
}

#define MUST(cond)                                                                   \
	do {                                                                         \
		if (!(cond)) {                                                       \
			dprintf(STDERR_FILENO, "line %d: %s (%m)\n", __LINE__, #cond); \
			return 1;                                                    \
		}                                                                    \
	} while (0)

/* The call fails, with one of these errors if they are not 0. */
#define DENIED(call, a, b) MUST((call) < 0 && (!(a) || errno == (a) || errno == (b)))

/* ---- what is there ---- */

static size_t count_entries(const char *path)
{
	DIR *opened = opendir(path);
	struct dirent *entry;
	size_t count = 0;

	while (opened && (entry = readdir(opened)))
		count += entry->d_name[0] != '.';
	if (opened)
		closedir(opened);
	return opened ? count : SIZE_MAX;
}

static int sees_nothing_else(void)
{
	MUST(count_entries("/") == 2); /* dev and proc */
	MUST(count_entries("/dev") == 0);
	MUST(count_entries("/proc") == 1);
	MUST(access("/proc/self/maps", R_OK) == 0);
	DENIED(open("/etc/passwd", O_RDONLY), ENOENT, 0);
	DENIED(open("../../../../etc/passwd", O_RDONLY), ENOENT, 0);
	DENIED(open("/proc/1/status", O_RDONLY), ENOENT, 0);
	DENIED(open("/dev/new", O_RDWR | O_CREAT, 0600), EROFS, EACCES);
	DENIED(open(dir, O_RDONLY), ENOENT, 0);
	return GOOD;
}

static void shows_the_folder_and_nothing_of_the_host(void)
{
	begin();
	holds(sees_nothing_else);
	CHECK(end());
}

static int sees_allowed(void)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/file", allowed);
	MUST(access(path, R_OK) == 0);
	snprintf(path, sizeof(path), "%s/../../../etc/passwd", allowed);
	DENIED(open(path, O_RDONLY), ENOENT, 0);
	snprintf(path, sizeof(path), "%s/link", allowed);
	DENIED(open(path, O_RDONLY), ENOENT, 0);
	return GOOD;
}

static void shows_an_allowed_folder_under_its_path(void)
{
	char path[100];

	begin();
	allow();
	snprintf(path, sizeof(path), "%s/file", allowed);
	close(REAL(open)(path, O_RDWR | O_CREAT, 0644));
	snprintf(path, sizeof(path), "%s/link", allowed);
	CHECK_EQ(symlink("/etc/passwd", path), 0);
	holds(sees_allowed);
	unlink(path);
	snprintf(path, sizeof(path), "%s/file", allowed);
	unlink(path);
	CHECK(end());
}

static int kept_fd;

static int opens_again(void)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", kept_fd);
	MUST(open(path, O_RDONLY) >= 0);
	DENIED(open(path, O_RDWR), EACCES, 0);
	return GOOD;
}

static void an_open_file_can_be_opened_again_in_the_same_way(void)
{
	char path[100];

	begin();
	snprintf(path, sizeof(path), "%s/file", base);
	close(REAL(open)(path, O_RDWR | O_CREAT, 0666));
	chmod(path, 0666);
	kept_fd = REAL(open)(path, O_PATH | O_CLOEXEC);
	CHECK(kept_fd >= 0);
	holds(opens_again);
	close(kept_fd);
	unlink(path);
	CHECK(end());
}

/* ---- what can be done ---- */

static bool status_says(const char *line)
{
	char text[4096] = "";
	int fd = open("/proc/self/status", O_RDONLY);
	ssize_t len = read(fd, text, sizeof(text) - 1);

	close(fd);
	return len > 0 && strstr(text, line);
}

static int has_no_rights(void)
{
	struct rlimit limit;

	MUST(status_says("CapPrm:\t0000000000000000"));
	MUST(status_says("CapEff:\t0000000000000000"));
	MUST(status_says("CapBnd:\t0000000000000000"));
	MUST(status_says("NoNewPrivs:\t1"));
	MUST(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
	MUST(!root || (getuid() == 12345 && geteuid() == 12345 && getgid() == 12345 && getgroups(0, NULL) == 0));
	DENIED(setuid(0), EPERM, EINVAL);
	DENIED(mount("x", "/", "tmpfs", 0, NULL), EPERM, 0);
	DENIED(umount2("/dev", MNT_DETACH), EPERM, 0);
	DENIED(mknodat(AT_FDCWD, "/node", S_IFCHR | 0600, 0x103), EPERM, EACCES);
	DENIED(sethostname("x", 1), EPERM, 0);
	DENIED(chroot("/proc"), EPERM, 0);
	MUST(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0);
	MUST(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max == 100);
	MUST(getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_max == 4096);
	return GOOD;
}

static void has_no_rights_and_keeps_its_limits(void)
{
	begin();
	options.config.nofile = 100;
	options.config.fsize = 4096;
	holds(has_no_rights);
	CHECK(end());
}

static struct sockaddr_in tcp;
static struct sockaddr_un abstract;

static int reaches_nobody(void)
{
	int tcp_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char *words[] = {(char *)"/program", NULL};

	DENIED(connect(tcp_fd, (struct sockaddr *)&tcp, sizeof(tcp)), 0, 0);
	DENIED(connect(unix_fd, (struct sockaddr *)&abstract, sizeof(abstract)), 0, 0);
	DENIED(kill(getppid() ?: 1, 0), EPERM, ESRCH);
	DENIED(execv("/program", words), 0, 0);
	return GOOD;
}

static int listener(int family, struct sockaddr *address, socklen_t len)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(bind(fd, address, len) == 0 && listen(fd, 4) == 0);
	CHECK(getsockname(fd, address, &len) == 0);
	return fd;
}

static void reaches_no_other_process(void)
{
	int a, b;

	begin();
	tcp = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	abstract = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(abstract.sun_path + 1, sizeof(abstract.sun_path) - 1, "test_jail/%d", getpid());
	a = listener(AF_INET, (struct sockaddr *)&tcp, sizeof(tcp));
	b = listener(AF_UNIX, (struct sockaddr *)&abstract, sizeof(abstract));
	holds(reaches_nobody);
	close(a);
	close(b);
	CHECK(end());
}

static int is_first(void)
{
	MUST(getpid() == 1);
	DENIED(kill(2, 0), ESRCH, 0);
	return GOOD;
}

static void has_numbers_of_its_own(void)
{
	begin();
	options.config.pid = true;
	holds(is_first);
	CHECK(end());
}

/* A thread that was there before the door was closed. */
static pthread_barrier_t closed;
static struct jail *its_jail;

static bool thread_says(const char *line)
{
	char path[64], text[4096] = "";
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)gettid());
	fd = open(path, O_RDONLY);
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	return len > 0 && strstr(text, line);
}

static bool shares_the_network(void)
{
	char path[64], ours[64] = "", main_one[64] = "";

	snprintf(path, sizeof(path), "/proc/self/task/%d/ns/net", (int)gettid());
	return readlink(path, ours, sizeof(ours) - 1) > 0 && readlink("/proc/self/ns/net", main_one, sizeof(main_one) - 1) > 0 &&
	       strcmp(ours, main_one) == 0;
}

static void *waits_for_the_door(void *opaque)
{
	bool *fine = opaque;

	pthread_barrier_wait(&closed);
	*fine = thread_says("NoNewPrivs:\t0") && !shares_the_network();
	jail_confine(its_jail);
	*fine &= thread_says("CapPrm:\t0000000000000000") && thread_says("NoNewPrivs:\t1") && shares_the_network() &&
		 (!root || thread_says("Uid:\t12345\t12345\t12345\t12345"));
	*fine &= pthread_kill(pthread_self(), 0) == 0 && open("/etc/passwd", O_RDONLY) < 0;
	return NULL;
}

static pthread_t earlier;
static bool earlier_is_fine;

static void start_earlier(struct jail *jail)
{
	its_jail = jail;
	pthread_barrier_init(&closed, NULL, 2);
	pthread_create(&earlier, NULL, waits_for_the_door, &earlier_is_fine);
}

static int confines_the_earlier_one(void)
{
	pthread_barrier_wait(&closed);
	MUST(pthread_kill(earlier, 0) == 0);
	pthread_join(earlier, NULL);
	MUST(earlier_is_fine);
	return GOOD;
}

static void confines_a_thread_that_was_there_before(void)
{
	begin();
	before_the_door = start_earlier;
	holds(confines_the_earlier_one);
	before_the_door = NULL;
	CHECK(end());
}

/* ---- bad input ---- */

static void refuses(const char *sentence)
{
	char text[1024] = "";

	CHECK_EQ(in_jail(sees_nothing_else, text, sizeof(text)), 2);
	if (!strstr(text, sentence))
		printf("# %s\n", text);
	CHECK(strstr(text, sentence));
}

static void refuses_links_in_the_folder(void)
{
	char path[100];

	begin();
	snprintf(path, sizeof(path), "%s/dev", dir);
	CHECK_EQ(symlink("/tmp", path), 0);
	refuses("dev in it is no folder");
	unlink(path);
	CHECK(end());
}

static void refuses_a_folder_that_the_user_cannot_enter(void)
{
	begin();
	if (!root)
		SKIP("this is not root");
	chmod(dir, 0700);
	refuses("user 12345 may not enter the folder");
	CHECK(end());
}

static void refuses_what_is_not_there(void)
{
	begin();
	options.config.dir = (char *)"/nowhere/jail";
	refuses("--jail /nowhere/jail: the folder: No such file");
	options.config.dir = (char *)"/";
	refuses("--jail /: it is the root");
	options.config.dir = dir;
	options.config.netns = (char *)"/nowhere/netns";
	refuses("--jail netns=/nowhere/netns: No such file");
	options.config.netns = (char *)"/proc/self/status";
	refuses("--jail netns=/proc/self/status: no network namespace");
	options.config.netns = NULL;
	options.config.cgroup = (char *)"/tmp/x";
	refuses("--jail cgroup=/tmp/x: no control group of version 2");
	CHECK(end());
}

/* ---- faults ---- */

static int nothing(void)
{
	return GOOD;
}

/* Whichever call fails: one line that names the option, and nothing is left. */
static void one_call_fails(bool more)
{
	char text[1024];
	unsigned int n = 0;
	int code;

	do {
		begin();
		options.config.pid = more;
		if (more)
			allow();
		calls = 0;
		fail_at = ++n;
		text[0] = 0;
		code = in_jail(nothing, text, sizeof(text));
		fail_at = 0;
		if (code != GOOD && (code > 2 || (!strstr(text, "--jail") && !strstr(text, "--allow")) ||
				     strchr(text, '\n') != text + strlen(text) - 1))
			printf("# call %u: code %d: %s\n", n, code, text);
		CHECK(code == GOOD || code == 1 || code == 2);
		CHECK(code == GOOD || (strchr(text, '\n') == text + strlen(text) - 1));
		CHECK(code == GOOD || strstr(text, "--jail") || strstr(text, "--allow"));
		CHECK(end());
	} while (code != GOOD);
	CHECK(n > 30);
}

static void each_call_may_fail(void)
{
	one_call_fails(false);
}

static void each_call_of_a_larger_jail_may_fail(void)
{
	one_call_fails(true);
}

/* ---- the keeper ---- */


static int dies(void)
{
	kill(getpid(), SIGKILL);
	return 1;
}

static void the_keeper_tells_by_which_signal_it_ended(void)
{
	char text[1024] = "";

	begin();
	CHECK_EQ(in_jail(dies, text, sizeof(text)), 128 + SIGKILL);
	CHECK(end());
}

static void no_jail_changes_nothing(void)
{
	const struct jail_machine machine = {0};
	struct jail_options none = {0};
	struct jail *jail = (struct jail *)1;
	struct err err;
	int code;

	CHECK_EQ(jail_enter(&none, &machine, &jail, &code, &err), 0);
	CHECK(!jail);
	CHECK_EQ(jail_close(NULL, &err), 0);
	jail_confine(NULL);
	jail_destroy(NULL);
}

TEST_MAIN(TEST(no_jail_changes_nothing), TEST(shows_the_folder_and_nothing_of_the_host),
	  TEST(shows_an_allowed_folder_under_its_path), TEST(an_open_file_can_be_opened_again_in_the_same_way), TEST(has_no_rights_and_keeps_its_limits),
	  TEST(reaches_no_other_process), TEST(has_numbers_of_its_own),
	  TEST(confines_a_thread_that_was_there_before), TEST(refuses_links_in_the_folder),
	  TEST(refuses_a_folder_that_the_user_cannot_enter), TEST(refuses_what_is_not_there), TEST(each_call_may_fail),
	  TEST(each_call_of_a_larger_jail_may_fail), TEST(the_keeper_tells_by_which_signal_it_ended))
