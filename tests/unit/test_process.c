/* SPDX-License-Identifier: Apache-2.0 */
/* core/process: what a helper inherits. */
#include "core/process.h"
#include "core/util.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

/* What a shell that runs script says to its descriptor 3. */
static const char *helper_says(const char *script)
{
	static char text[1000];
	const char *const argv[] = {"sh", "-c", script, NULL};
	int ends[2], status;
	size_t len = 0;
	pid_t pid;

	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	CHECK_EQ(process_start(argv, &ends[1], 1, -1, &pid), 0);
	close(ends[1]);
	for (ssize_t n; (n = read(ends[0], text + len, sizeof(text) - 1 - len)) > 0;)
		len += (size_t)n;
	text[len] = 0;
	close(ends[0]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return text;
}

static void descriptors_that_were_handed_in_stay_here(void)
{
	int inherited = fcntl(STDERR_FILENO, F_DUPFD, 40); /* as from a shell: not CLOEXEC */

	CHECK(inherited >= 40);
	CHECK_STR(helper_says("exec >&3; cd /proc/$$/fd; for i in *; do [ -e $i ] && echo $i; done"), "0\n1\n2\n3\n");
	close(inherited);
}

/* A service that is stopped sends SIGTERM to each of its processes; the helper is needed until the guest is down. */
static void the_signals_that_end_a_machine_do_not_end_it(void)
{
	CHECK_STR(helper_says("for i in TERM INT HUP QUIT; do kill -$i $$; done; echo alive >&3"), "alive\n");
}

static void a_signal_that_is_ignored_here_is_not_there(void)
{
	signal(SIGPIPE, SIG_IGN);
	CHECK_STR(helper_says("kill -PIPE $$; echo alive >&3"), "");
	signal(SIGPIPE, SIG_DFL);
}

static void what_is_not_there_cannot_be_started(void)
{
	const char *const argv[] = {"/nonexistent/helper", NULL};
	pid_t pid;

	CHECK_EQ(process_start(argv, NULL, 0, -1, &pid), -ENOENT);
}

TEST_MAIN(TEST(descriptors_that_were_handed_in_stay_here), TEST(the_signals_that_end_a_machine_do_not_end_it),
	  TEST(a_signal_that_is_ignored_here_is_not_there), TEST(what_is_not_there_cannot_be_started))
