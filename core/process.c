/* SPDX-License-Identifier: Apache-2.0 */
/* See process.h. */
#include "core/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

#include "core/util.h"

#define MOST 8
#define ABOVE 16 /* the child's descriptors: a copy from here on is not overwritten before the child gets it */

extern char **environ;

/* The child's descriptors; it gets no other, also none that was handed to us without CLOEXEC. */
static int process_hand_over(posix_spawn_file_actions_t *actions, const int *fds, size_t count, int words_fd)
{
	int code = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

	code = code ?: posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_WRONLY, 0);
	code = code ?: words_fd < 0 ? posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_WRONLY, 0)
				    : posix_spawn_file_actions_adddup2(actions, words_fd, 2);
	for (size_t i = 0; !code && i < count; i++)
		code = posix_spawn_file_actions_adddup2(actions, fds[i], 3 + (int)i);
	return code ?: posix_spawn_file_actions_addclosefrom_np(actions, 3 + (int)count);
}

static void process_signals(posix_spawnattr_t *attributes)
{
	static const int kept_away[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT}, ignored[] = {SIGPIPE, SIGXFSZ};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(kept_away); i++)
		sigaddset(&set, kept_away[i]);
	posix_spawnattr_setsigmask(attributes, &set);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		sigaddset(&set, ignored[i]);
	posix_spawnattr_setsigdefault(attributes, &set);
	posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
}

static int process_spawn(const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int code;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	process_signals(&attributes);
	code = process_hand_over(&actions, fds, count, words_fd);
	code = code ?: posix_spawnp(pid, argv[0], &actions, &attributes, (char *const *)(uintptr_t)argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -code;
}

int process_start(const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid)
{
	int moved[MOST + 1] = {0}, code = 0;
	size_t n = 0;

	for (; !code && n < count + (words_fd >= 0); n += !code) {
		moved[n] = fcntl(n < count ? fds[n] : words_fd, F_DUPFD_CLOEXEC, ABOVE);
		code = moved[n] < 0 ? -errno : 0;
	}
	code = code ?: process_spawn(argv, moved, count, words_fd < 0 ? -1 : moved[count], pid);
	while (n)
		close(moved[--n]);
	return code;
}
