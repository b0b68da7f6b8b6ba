/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_cgroup.h. */
#include "vmm/jail/jail_cgroup.h"

#include "vmm/jail/jail_file.h"
#include "vmm/jail/jail_io.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#define PERIOD_US 100000u
#define TRIES 100 /* 10 ms apart */
#define TRIES_TO_LEAVE 20 /* a group that others may use */
#define FILE_SIZE 8192 /* of a file of limits */

static int jail_cgroup_failed(const struct jail_config *config, int code, const char *what, struct err *err)
{
	if (code == -EACCES || code == -EPERM)
		return err_set(err, -EACCES,
			       "--jail cgroup=%.200s: no permission to %s; name a group that was delegated to you, such as "
			       "one below that of: systemd-run --user --scope -p Delegate=yes", config->cgroup, what);
	return err_sys(err, code, "--jail cgroup=%.200s: %s", config->cgroup, what);
}

/* ---- where the groups are ---- */

/* The mount of the groups' file system, into path (PATH_MAX). */
static int jail_cgroup_find_mount(const struct jail_config *config, char *path, struct err *err)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	while (mounts && !found && getline(&line, &size, mounts) > 0)
		found = strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %*s %4095s", path) == 1;
	free(line);
	if (mounts)
		fclose(mounts);
	return found ? 0 : err_set(err, -ENOENT, "--jail cgroup=%.200s: no cgroup2 is mounted here; mount it, or leave cgroup= "
				   "out", config->cgroup);
}

/* The absolute path of the group, without a slash at its end. */
static int jail_cgroup_find_path(const struct jail_config *config, char **ret, struct err *err)
{
	char mounted[PATH_MAX] = "", *path;
	int code = config->cgroup[0] == '/' ? 0 : jail_cgroup_find_mount(config, mounted, err);
	size_t len;

	if (code)
		return code;
	if (asprintf(&path, "%s%s%s", mounted, *mounted ? "/" : "", config->cgroup) < 0)
		return err_sys(err, -ENOMEM, "--jail cgroup=");
	for (len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
		path[len - 1] = 0;
	*ret = path;
	return 0;
}

/* ---- the group ---- */

/* A file of the controller is there if the group above gives it to its groups. */
static int jail_cgroup_enable(const struct jail_cgroup *group, const struct jail_config *config, const char *controller,
			      const char *file, struct err *err)
{
	char text[16];

	if (faccessat(group->fd, file, F_OK, 0) == 0)
		return 0;
	snprintf(text, sizeof(text), "+%s", controller);
	jail_file_write(group->above, "cgroup.subtree_control", text);
	if (faccessat(group->fd, file, F_OK, 0) == 0)
		return 0;
	return err_set(err, -ENOTSUP, "--jail cgroup=%.200s,%s=: the group above it does not give it the %s controller; write "
		       "+%s into the cgroup.subtree_control of that group", config->cgroup, controller, controller, controller);
}

/* The files of limits, in the order of `before`, and what stands around the number. */
static const struct {
	const char *controller, *file, *ahead, *behind;
} jail_cgroup_files[JAIL_CGROUP_FILES] = {
	{"cpu", "cpu.max", "", " 100000"},
	{"memory", "memory.max", "", ""},
	{"io", "io.weight", "default ", ""},
	{"io", "io.max", NULL, NULL}, /* of each device, when they are known: jail_io.h */
};

/* What a group that was there has, to be given back; of the others than io.max, the first line is changed alone. */
static int jail_cgroup_remember(struct jail_cgroup *group, const struct jail_config *config, size_t index, struct err *err)
{
	const char *file = jail_cgroup_files[index].file;
	char text[FILE_SIZE];
	int code = jail_file_read(group->fd, file, text, sizeof(text));

	if (code)
		return jail_cgroup_failed(config, code, file, err);
	if (jail_cgroup_files[index].ahead)
		text[strcspn(text, "\n")] = 0;
	group->before[index] = strdup(text);
	return group->before[index] ? 0 : err_sys(err, -ENOMEM, "--jail cgroup=");
}

static int jail_cgroup_limit(struct jail_cgroup *group, const struct jail_config *config, size_t index, uint64_t number,
			     struct err *err)
{
	const char *file = jail_cgroup_files[index].file, *ahead = jail_cgroup_files[index].ahead;
	int code = jail_cgroup_enable(group, config, jail_cgroup_files[index].controller, file, err);
	char text[48];

	if (!code && !group->made)
		code = jail_cgroup_remember(group, config, index, err);
	if (code || !ahead)
		return code;
	snprintf(text, sizeof(text), "%s%llu%s", ahead, (unsigned long long)number, jail_cgroup_files[index].behind);
	code = jail_file_write(group->fd, file, text);
	return code ? jail_cgroup_failed(config, code, file, err) : 0;
}

static int jail_cgroup_limit_all(struct jail_cgroup *group, const struct jail_config *config, struct err *err)
{
	const uint64_t numbers[JAIL_CGROUP_FILES] = {
		(uint64_t)config->cpu * (PERIOD_US / 100), config->memory, config->io_weight, config->io,
	};
	int code = 0;

	for (size_t i = 0; i < JAIL_CGROUP_FILES && !code; i++)
		code = numbers[i] ? jail_cgroup_limit(group, config, i, numbers[i], err) : 0;
	return code;
}

static int jail_cgroup_open(struct jail_cgroup *group, const struct jail_config *config, char *path, struct err *err)
{
	char *slash = strrchr(path, '/');
	struct statfs fs;

	if (!slash[1] || strcmp(slash + 1, ".") == 0 || strcmp(slash + 1, "..") == 0)
		return err_set(err, -EINVAL, "--jail cgroup=%.200s: not the name of a group", config->cgroup);
	group->name = strdup(slash + 1);
	if (!group->name)
		return err_sys(err, -ENOMEM, "--jail cgroup=");
	*slash = 0;
	group->above = open(slash == path ? "/" : path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (group->above < 0)
		return err_sys(err, -errno, "--jail cgroup=%.200s: the group above it, %.200s", config->cgroup, path);
	if (fstatfs(group->above, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
		return err_set(err, -EINVAL, "--jail cgroup=%.200s: no control group of version 2; write its path below the mount "
			       "of cgroup2", config->cgroup);
	group->made = mkdirat(group->above, group->name, 0755) == 0;
	if (!group->made && errno != EEXIST)
		return jail_cgroup_failed(config, -errno, "make the group", err);
	group->fd = openat(group->above, group->name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return group->fd < 0 ? jail_cgroup_failed(config, -errno, "open the group", err) : 0;
}

int jail_cgroup_make(struct jail_cgroup *group, const struct jail_config *config, struct err *err)
{
	_cleanup_(free_ptr) char *path = NULL;
	int code;

	*group = (struct jail_cgroup){.fd = -1, .above = -1};
	if (!config->cgroup)
		return 0;
	code = jail_cgroup_find_path(config, &path, err);
	code = code ?: jail_cgroup_open(group, config, path, err);
	code = code ?: jail_cgroup_limit_all(group, config, err);
	if (code)
		jail_cgroup_remove(group, false);
	return code;
}

int jail_cgroup_join(const struct jail_cgroup *group, const struct jail_config *config, struct err *err)
{
	int code = group->fd < 0 ? 0 : jail_file_write(group->fd, "cgroup.procs", "0");

	return code ? jail_cgroup_failed(config, code, "move the machine into it", err) : 0;
}

static bool jail_cgroup_remove_made(const struct jail_cgroup *group)
{
	return unlinkat(group->above, group->name, AT_REMOVEDIR) == 0 || errno == ENOENT;
}

static bool jail_cgroup_is_populated(const struct jail_cgroup *group)
{
	char events[FILE_SIZE];

	return jail_file_read(group->fd, "cgroup.events", events, sizeof(events)) == 0 && strstr(events, "populated 1");
}

/*
 * Another machine in it keeps the limits, and the last one gives back what it has found. What others have in it keeps its own
 * ones if the machine was never there.
 */
static bool jail_cgroup_give_back(const struct jail_cgroup *group, bool joined)
{
	if (joined && jail_cgroup_is_populated(group))
		return false;
	for (size_t i = 0; i < JAIL_CGROUP_FILES; i++)
		if (group->before[i] && !jail_cgroup_files[i].ahead)
			jail_io_give_back(group->fd, group->before[i]);
		else if (group->before[i])
			jail_file_write(group->fd, jail_cgroup_files[i].file, group->before[i]);
	return true;
}

bool jail_cgroup_remove(struct jail_cgroup *group, bool joined)
{
	const struct timespec moment = {.tv_nsec = 10000000};
	bool made = group->made, done = !made && group->fd < 0;

	if (made)
		jail_file_write(group->fd, "cgroup.kill", "1");
	for (int tries = 0; !done && tries < (made ? TRIES : TRIES_TO_LEAVE); tries++) {
		if (tries)
			nanosleep(&moment, NULL);
		done = made ? jail_cgroup_remove_made(group) : jail_cgroup_give_back(group, joined);
	}
	jail_cgroup_done(group);
	return done || !made;
}

void jail_cgroup_done(struct jail_cgroup *group)
{
	fd_close(&group->fd);
	fd_close(&group->above);
	free(take_ptr(group->name));
	for (size_t i = 0; i < JAIL_CGROUP_FILES; i++)
		free(take_ptr(group->before[i]));
	group->made = false;
}
