/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_rights.h. glibc's setuid(2) and its like change all threads, one after the other; here each changes itself. */
#include "vmm/jail/jail_rights.h"

#include "vmm/jail/jail_fds.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* ---- Landlock (Documentation/userspace-api/landlock.rst), with the layouts of version 6 ---- */

struct landlock_rules {
	uint64_t files, net, scoped;
};

struct __attribute__((packed)) landlock_beneath {
	uint64_t files;
	int32_t folder;
};

#define VERSION_FLAG 1u
#define ERRATA_FLAG 2u
#define ERRATUM_SIGNALS 2
#define RULE_BENEATH 1u
#define SCOPED_SIGNALS 2ull
#define FILES_EXECUTE 1ull
#define FILES_WRITE 2ull
#define FILES_READ 4ull
#define FILES_TRUNCATE (1ull << 14)

/* The rights that each version knows, from the first one on. */
static const struct landlock_rules known[] = {
	{.files = 0x1fff},
	{.files = 0x3fff},
	{.files = 0x7fff},
	{.files = 0x7fff, .net = 3},
	{.files = 0xffff, .net = 3},
	{.files = 0xffff, .net = 3, .scoped = 3},
};

/* What is not known to the kernel may not be asked for. A network of the user's choice is there to be used. */
static int jail_rights_rules(const struct jail_config *config, struct landlock_rules *rules)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_FLAG);

	if (version < 1)
		return -1;
	*rules = known[MIN((size_t)version, ARRAY_SIZE(known)) - 1];
	if (config->netns)
		rules->net = 0;
	/* Before that was mended, the rule came between the threads of one process, too. */
	if (!(syscall(SYS_landlock_create_ruleset, NULL, 0, ERRATA_FLAG) & ERRATUM_SIGNALS))
		rules->scoped &= ~SCOPED_SIGNALS;
	return 0;
}

static int jail_rights_make_ruleset(const struct landlock_rules *rules, int *ret)
{
	_cleanup_(fd_close) int fd = (int)syscall(SYS_landlock_create_ruleset, rules, sizeof(*rules), 0);
	_cleanup_(fd_close) int root = fd < 0 ? -1 : open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct landlock_beneath all = {.files = rules->files & ~FILES_EXECUTE, .folder = root};

	if (root < 0 || syscall(SYS_landlock_add_rule, fd, RULE_BENEATH, &all, 0) < 0)
		return -errno;
	*ret = take_fd(&fd);
	return 0;
}

struct jail_rights_files {
	int ruleset;
	const struct landlock_rules *rules;
};

/*
 * A file that is open may be opened again, by /proc/self/fd, for a reboot of the guest: in the same way, whatever its
 * path was. One without a path, such as a memfd, cannot be named in a rule.
 */
static int jail_rights_add_file(void *opaque, int fd, const struct stat *st)
{
	const struct jail_rights_files *files = opaque;
	int flags = fcntl(fd, F_GETFL);
	bool written = !(flags & O_PATH) && (flags & O_ACCMODE) != O_RDONLY;
	const struct landlock_beneath one = {
		.files = files->rules->files & (FILES_READ | (written ? FILES_WRITE | FILES_TRUNCATE : 0)), .folder = fd,
	};

	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return 0;
	if (syscall(SYS_landlock_add_rule, files->ruleset, RULE_BENEATH, &one, 0) < 0)
		return errno == EBADFD || errno == EBADF ? 0 : -errno;
	return 0;
}

int jail_rights_prepare(struct jail_rights *rights, struct err *err)
{
	struct landlock_rules rules;
	int code;

	if (jail_rights_rules(rights->config, &rules) < 0)
		return 0;
	code = jail_rights_make_ruleset(&rules, &rights->ruleset_fd) ?:
	       jail_fds_each(jail_rights_add_file, &(struct jail_rights_files){rights->ruleset_fd, &rules});
	return code ? err_sys(err, code, "--jail: the rules of Landlock") : 0;
}

void jail_rights_done(struct jail_rights *rights)
{
	fd_close(&rights->ruleset_fd);
	fd_close(&rights->netns_fd);
}

/* ---- dropping ---- */

static bool jail_rights_has_any(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	return syscall(SYS_capget, &header, data) < 0 || data[0].permitted || data[1].permitted;
}

/* What a program that is executed could get. */
static int jail_rights_drop_bounds(void)
{
	for (int capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++) {
		/* EINVAL: there is no such one, nor a higher one. */
	}
	return errno != EINVAL ? -errno : prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ? -errno : 0;
}

static int jail_rights_drop_user(const struct jail_config *config)
{
	if (!config->uid)
		return 0;
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, config->gid, config->gid, config->gid) < 0 ||
	    syscall(SYS_setresuid, config->uid, config->uid, config->uid) < 0)
		return -errno;
	/* The change of the user has undone it. */
	return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
}

static int jail_rights_drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {0};

	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

static int jail_rights_restrict(const struct jail_rights *rights)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	if (rights->ruleset_fd < 0)
		return 0;
	return syscall(SYS_landlock_restrict_self, rights->ruleset_fd, 0) < 0 ? -errno : 0;
}

/*
 * A namespace is a thread's own; what is open stays open: taps, sockets. Capabilities go last: a thread that has none has
 * been here, or was started by one that has.
 */
int jail_rights_drop(const struct jail_rights *rights, struct err *err)
{
	int code;

	if (!jail_rights_has_any())
		return 0;
	code = rights->netns_fd >= 0 && setns(rights->netns_fd, CLONE_NEWNET) < 0 ? -errno : 0;
	code = code ?: jail_rights_drop_bounds();
	code = code ?: jail_rights_restrict(rights);
	code = code ?: jail_rights_drop_user(rights->config);
	code = code ?: jail_rights_drop_capabilities();
	return code ? err_sys(err, code, "--jail: giving up rights") : 0;
}
