/* SPDX-License-Identifier: Apache-2.0 */
/* See jail.h. */
#include "vmm/jail/jail.h"

#include "vmm/jail/jail_cgroup.h"
#include "vmm/jail/jail_file.h"
#include "vmm/jail/jail_io.h"
#include "vmm/jail/jail_keeper.h"
#include "vmm/jail/jail_network.h"
#include "vmm/jail/jail_rights.h"
#include "vmm/jail/jail_root.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define EXIT_UNCONFINED 1

struct jail {
	const struct jail_options *options;
	struct jail_root root;
	struct jail_cgroup group;
	struct jail_rights rights;
	struct jail_keeper keeper;
	struct jail_network network;
	int netns_fd; /* the network of the user's choice, or -1 */
};

/* ---- the keeper's part, before and after ---- */

static int jail_check_user(const struct jail_config *config, struct err *err)
{
	if (config->uid && geteuid() != 0)
		return err_set(err, -EPERM, "--jail uid=%u: only root can become another user; leave uid= and gid= out",
			       config->uid);
	return 0;
}

static int jail_open_netns(struct jail *jail, struct err *err)
{
	const char *path = jail->options->config.netns;

	jail->netns_fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) : -1;
	if (path && jail->netns_fd < 0)
		return err_sys(err, -errno, "--jail netns=%.200s", path);
	if (path && ioctl(jail->netns_fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return err_set(err, -EINVAL, "--jail netns=%.200s: no network namespace; name the file of one, such as "
			       "/run/netns/NAME", path);
	return 0;
}

/* A user namespace in which this user is who he was, and may make the others. */
static int jail_unshare_user(struct err *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char map[40];
	int code;

	if (unshare(CLONE_NEWUSER) < 0)
		return err_sys(err, -errno, "--jail: this host gives ordinary users no user namespaces; start it as root, or "
			       "allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or "
			       "kernel.apparmor_restrict_unprivileged_userns)");
	code = jail_file_write(AT_FDCWD, "/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	code = code ?: jail_file_write(AT_FDCWD, "/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	code = code ?: jail_file_write(AT_FDCWD, "/proc/self/gid_map", map);
	return code ? err_sys(err, code, "--jail: the user namespace") : 0;
}

/* The new process is the first one of a namespace of process numbers. */
static int jail_prepare(struct jail *jail, const struct jail_machine *machine, struct err *err)
{
	const struct jail_config *config = &jail->options->config;
	int code = jail_check_user(config, err);

	code = code ?: jail_open_netns(jail, err);
	code = code ?: jail_cgroup_make(&jail->group, config, err);
	code = code ?: jail_root_make(&jail->root, jail->options, machine->host_devices, err);
	if (!code && geteuid() != 0)
		code = jail_unshare_user(err);
	if (!code && config->pid && unshare(CLONE_NEWPID) < 0)
		code = err_sys(err, -errno, "--jail pid=on");
	return code || config->netns ? code : jail_network_open(&jail->network, err);
}

static void jail_remove(struct jail *jail, bool ran)
{
	if (!jail_cgroup_remove(&jail->group, ran))
		fprintf(stderr, "mvmm: --jail cgroup=%s: the group is still in use and stays\n", jail->options->config.cgroup);
	jail_network_done(&jail->network);
	jail_root_remove(&jail->root);
	fd_close(&jail->netns_fd);
	free(jail);
}

/* ---- the machine's part, while it has one thread ---- */

static int jail_limit(int resource, uint64_t most, const char *key, struct err *err)
{
	const struct rlimit limit = {.rlim_cur = most, .rlim_max = most};

	return setrlimit(resource, &limit) < 0 ? err_sys(err, -errno, "--jail %s=%llu", key, (unsigned long long)most) : 0;
}

/* Pinned memory is limited once the right to exceed the limit is gone. The control group counts it all the same. */
static int jail_set_limits(const struct jail *jail, const struct jail_machine *machine, struct err *err)
{
	const struct jail_config *config = &jail->options->config;
	int code = config->nofile ? jail_limit(RLIMIT_NOFILE, config->nofile, "nofile", err) : 0;

	if (!code && config->fsize)
		code = jail_limit(RLIMIT_FSIZE, config->fsize, "fsize", err);
	if (!code && machine->host_devices && geteuid() == 0)
		code = jail_limit(RLIMIT_MEMLOCK, RLIM_INFINITY, "memlock", err);
	return code ?: jail_limit(RLIMIT_CORE, 0, "core", err);
}

static int jail_begin(struct jail *jail, const struct jail_machine *machine, struct err *err)
{
	const char *netns = jail->options->config.netns;
	int code = jail_cgroup_join(&jail->group, &jail->options->config, err);

	code = code ?: jail_set_limits(jail, machine, err);
	if (!code && unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
		code = err_sys(err, -errno, "--jail: namespaces");
	if (!code && netns && setns(jail->netns_fd, CLONE_NEWNET) < 0)
		code = err_sys(err, -errno, "--jail netns=%.200s: only root can enter it", netns);
	fd_close(&jail->netns_fd);
	return code ?: jail_root_mount(&jail->root, err);
}

static int jail_split(struct jail *jail, const struct jail_machine *machine, struct jail **ret, int *exit_code,
		      struct err *err)
{
	pid_t pid = jail_keeper_fork(&jail->keeper, err);
	int code;

	if (pid > 0) {
		jail_network_make(&jail->network);
		*exit_code = jail_keeper_wait(&jail->keeper, pid);
		jail_remove(jail, true);
		return 1;
	}
	code = pid < 0 ? (int)pid : jail_begin(jail, machine, err);
	if (code) {
		pid < 0 ? jail_remove(jail, false) : jail_destroy(jail);
		return code;
	}
	*ret = jail;
	return 0;
}

int jail_enter(struct jail_options *options, const struct jail_machine *machine, struct jail **ret, int *code,
	       struct err *err)
{
	struct jail *jail;
	int failed;

	*ret = NULL;
	failed = jail_root_find_allowed(options, err);
	if (failed || !options->config.dir)
		return failed;
	jail = calloc(1, sizeof(*jail));
	if (!jail)
		return err_sys(err, -ENOMEM, "--jail");
	jail->options = options;
	jail->rights.config = &options->config;
	jail->netns_fd = jail->rights.ruleset_fd = jail->rights.netns_fd = jail->root.host_fd = jail->root.root_fd = jail->root.dev_fd = -1;
	jail->network.keeper_fd = jail->network.machine_fd = jail->group.fd = jail->group.above = -1;
	failed = jail_prepare(jail, machine, err);
	if (failed) {
		jail_remove(jail, false);
		return failed;
	}
	return jail_split(jail, machine, ret, code, err);
}

/* ---- the door ---- */

int jail_close(struct jail *jail, struct err *err)
{
	int code;

	if (!jail)
		return 0;
	code = jail_io_limit(jail->group.fd, &jail->options->config, err);
	jail_cgroup_done(&jail->group);
	code = code ?: jail_root_enter(&jail->root, err);
	code = code ?: jail_network_take(&jail->network, &jail->rights.netns_fd, err);
	code = code ?: jail_rights_prepare(&jail->rights, err);
	if (!code && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		code = err_sys(err, -errno, "--jail: dumpable");
	return code;
}

static _Noreturn void jail_end(const struct err *err)
{
	dprintf(STDERR_FILENO, "mvmm: %s\n", err->text);
	_exit(EXIT_UNCONFINED);
}

void jail_leave(const struct jail *jail)
{
	struct err err;

	if (jail && jail_root_leave(&jail->root, &err))
		jail_end(&err);
}

void jail_confine(const struct jail *jail)
{
	struct err err;

	if (jail && jail_rights_drop(&jail->rights, &err))
		jail_end(&err);
}

void jail_destroy(struct jail *jail)
{
	if (!jail)
		return;
	jail_cgroup_done(&jail->group);
	jail_network_done(&jail->network);
	jail_rights_done(&jail->rights);
	jail_root_done(&jail->root);
	fd_close(&jail->netns_fd);
	free(jail);
}
