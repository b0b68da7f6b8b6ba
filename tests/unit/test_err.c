/* SPDX-License-Identifier: Apache-2.0 */
/* core/err and core/log: sentences are built, prefixed and cut, and never overrun. */
#include "core/err.h"
#include "core/log.h"
#include "tests/unit/test.h"

static void says_what_it_is_told(void)
{
	struct err err;

	CHECK_EQ(err_set(&err, -EINVAL, "bad size %u", 3u), -EINVAL);
	CHECK_STR(err.text, "bad size 3");
	CHECK_EQ(err_sys(&err, -ENOENT, "open %s", "x"), -ENOENT);
	CHECK_STR(err.text, "open x: No such file or directory");
	CHECK_EQ(err_prefix(&err, -ENOENT, "--disk %s", "x"), -ENOENT);
	CHECK_STR(err.text, "--disk x: open x: No such file or directory");
}

static void takes_null(void)
{
	CHECK_EQ(err_set(NULL, -EIO, "x"), -EIO);
	CHECK_EQ(err_sys(NULL, -EIO, "x"), -EIO);
	CHECK_EQ(err_prefix(NULL, -EIO, "x"), -EIO);
}

static void cuts_what_does_not_fit(void)
{
	char big[2048];
	struct err err;

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	err_set(&err, -EIO, "%s", big);
	CHECK_EQ(strlen(err.text), sizeof(err.text) - 1);
	err_prefix(&err, -EIO, "%s", big);
	CHECK_EQ(strlen(err.text), sizeof(err.text) - 1);
	err_prefix(&err, -EIO, "short");
	CHECK_EQ(strncmp(err.text, "short: xx", 9), 0);
}

static void logs_whole_lines(void)
{
	int pipefd[2];
	char buf[4096];
	struct log log = {.level = LOG_INFO, .prefix = "mvmm: "};
	char big[2048];
	ssize_t n;

	CHECK_EQ(pipe(pipefd), 0);
	log.fd = pipefd[1];
	log_debug(&log, "dropped");
	log_warn(&log, "disk %d", 7);
	n = read(pipefd[0], buf, sizeof(buf));
	CHECK_EQ(n, 22);
	CHECK_EQ(memcmp(buf, "mvmm: warning: disk 7\n", 22), 0);
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	log_error(&log, "%s", big);
	n = read(pipefd[0], buf, sizeof(buf));
	CHECK(n > 100 && n < 1100);
	CHECK_EQ(buf[n - 1], '\n');
	log_error(NULL, "silent");
	close(pipefd[0]);
	close(pipefd[1]);
}

TEST_MAIN(TEST(says_what_it_is_told), TEST(takes_null), TEST(cuts_what_does_not_fit), TEST(logs_whole_lines))
