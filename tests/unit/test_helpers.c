/* SPDX-License-Identifier: Apache-2.0 */
/* core/helpers: a process that starts helpers, and only those of its rules. */
#define HELPERS_REPLY_MS 300
#include "core/helpers.c"

#include <fcntl.h>

#include "tests/unit/test.h"

static const char *const shell[] = {"sh", "-c", NULL};
static const char *const fixed[] = {"true", "fixed"};
static const struct helper_rule rules[] = {{shell, 3}, {fixed, 2}};
static struct helpers *helpers;

static void begin(void)
{
	CHECK_EQ(helpers_create(rules, 2, false, &helpers, NULL), 0);
	thread_set_helpers(helpers);
}

static void end(void)
{
	thread_set_helpers(NULL);
	helpers_destroy(helpers);
}

/* The status of a helper that runs script. */
static int run(const char *script, const int *fds, size_t count, int words_fd)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	int64_t until = monotonic_ms() + 10000;
	int status = -1;
	pid_t pid = 0;

	CHECK_EQ(helpers_start(argv, fds, count, words_fd, &pid), 0);
	CHECK(pid > 0);
	while (!helpers_reap(pid, &status)) {
		CHECK(monotonic_ms() < until);
		poll(NULL, 0, 1);
	}
	return status;
}

static void a_helper_runs_and_its_end_is_told(void)
{
	begin();
	CHECK_EQ(run("exit 3", NULL, 0, -1), 3 << 8);
	CHECK_EQ(run("kill -9 $$", NULL, 0, -1), 9);
	end();
}

static void it_gets_the_descriptors(void)
{
	char text[32] = "", words[32] = "";
	int ends[2], said[2];

	begin();
	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	CHECK_EQ(pipe2(said, O_CLOEXEC), 0);
	CHECK_EQ(run("echo three >&3; echo words >&2; ls /proc/self/fd | wc -l >&3", &ends[1], 1, said[1]), 0);
	CHECK(read(ends[0], text, sizeof(text) - 1) > 0);
	CHECK(read(said[0], words, sizeof(words) - 1) > 0);
	CHECK_STR(text, "three\n5\n"); /* 0 to 3 and the folder */
	CHECK_STR(words, "words\n");
	for (int i = 0; i < 2; i++) {
		close(ends[i]);
		close(said[i]);
	}
	end();
}

static int refused(const char *const argv[])
{
	pid_t pid;

	return helpers_start(argv, NULL, 0, -1, &pid);
}

static void what_no_rule_names_is_not_started(void)
{
	begin();
	CHECK_EQ(refused((const char *const[]){"sh", "-x", "true", NULL}), -EPERM);
	CHECK_EQ(refused((const char *const[]){"sh", "-c", NULL}), -EPERM);
	CHECK_EQ(refused((const char *const[]){"sh", "-c", "true", "more", NULL}), -EPERM);
	CHECK_EQ(refused((const char *const[]){"true", "other", NULL}), -EPERM);
	CHECK_EQ(refused((const char *const[]){"/bin/sh", "-c", "true", NULL}), -EPERM);
	CHECK_EQ(refused((const char *const[]){NULL}), -EINVAL);
	end();
}

static void others_processes_are_not_theirs_to_end(void)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		pause();
		_exit(0);
	}
	begin();
	helpers_kill(pid);
	CHECK(!helpers_reap(pid, &status));
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	end();
}

static void their_number_is_bounded_and_they_end_with_who_has_made_them(void)
{
	const char *const argv[] = {"sh", "-c", "exec sleep 100", NULL};
	pid_t pids[HELPERS_MOST], more;

	begin();
	for (size_t i = 0; i < HELPERS_MOST; i++)
		CHECK_EQ(helpers_start(argv, NULL, 0, -1, &pids[i]), 0);
	CHECK_EQ(helpers_start(argv, NULL, 0, -1, &more), -EAGAIN);
	helpers_kill(pids[7]);
	CHECK_EQ(helpers_start(argv, NULL, 0, -1, &more), 0);
	end();
	for (int i = 0; kill(more, 0) == 0 && i < 5000; i++)
		poll(NULL, 0, 1);
	CHECK_EQ(kill(more, 0), -1);
}

static void without_a_process_of_their_own_helpers_are_started_here(void)
{
	const char *const argv[] = {"sh", "-c", "exec sleep 100", NULL};
	pid_t pid;
	int status;

	CHECK_EQ(helpers_start(argv, NULL, 0, -1, &pid), 0);
	CHECK(!helpers_reap(pid, &status));
	helpers_kill(pid);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), -1);
}

/* As one that waits for a file of a server that is gone: nobody waits for it for ever, and none that replies late is believed. */
static void who_starts_them_does_not_reply(void)
{
	const char *const argv[] = {"sh", "-c", "exec sleep 100", NULL};
	pid_t pid, more, keeper;
	int status;

	begin();
	keeper = helpers->keeper;
	CHECK_EQ(helpers_start(argv, NULL, 0, -1, &pid), 0);
	CHECK_EQ(kill(keeper, SIGSTOP), 0);
	helpers_kill(pid);
	CHECK_EQ(kill(keeper, SIGCONT), 0);
	CHECK(!helpers_reap(pid, &status));
	CHECK_EQ(helpers_start(argv, NULL, 0, -1, &more), -ECONNRESET);
	end();
	begin();
	keeper = helpers->keeper;
	CHECK_EQ(kill(keeper, SIGSTOP), 0);
	end();
	CHECK_EQ(kill(keeper, SIGKILL), 0);
	CHECK_EQ(waitpid(keeper, &status, 0), keeper);
}

TEST_MAIN(TEST(a_helper_runs_and_its_end_is_told), TEST(it_gets_the_descriptors), TEST(what_no_rule_names_is_not_started),
	  TEST(others_processes_are_not_theirs_to_end), TEST(their_number_is_bounded_and_they_end_with_who_has_made_them),
	  TEST(without_a_process_of_their_own_helpers_are_started_here), TEST(who_starts_them_does_not_reply))
