/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See stage.h. On the socket: u64 length and the text; then '+' and the answer, or '!' and why there is none; its end is
 * the end of the answer. A call that the filter does not allow is such a reason, too.
 */
#include "vmm/jail/stage.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/monotonic.h"
#include "vmm/jail/confine.h"

#define SECONDS 2 /* of a processor */
#define ANSWER "+"
#define REFUSAL "!"

enum { SOCKET = 3 };

struct stage {
	struct stage_options options;
	int socket;
	pid_t pid;
	int64_t deadline;
};

/* ---- in the stage ---- */

static void stage_limit(const struct stage_options *options)
{
	const struct {
		int what;
		rlim_t limit;
	} limits[] = {
		{RLIMIT_CPU, SECONDS},
		{RLIMIT_CORE, 0},
		{RLIMIT_FSIZE, 0},
		{RLIMIT_NOFILE, 0}, /* no more of them */
		{RLIMIT_AS, options->memory ?: RLIM_INFINITY},
	};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		setrlimit(limits[i].what, &(struct rlimit){limits[i].limit, limits[i].limit});
}

/* Whether nothing is left but the socket. What ends the machine is for the machine to hear. */
static bool stage_give_up(const struct stage_options *options, int socket)
{
	sigset_t set;

	thread_signals(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	prctl(PR_SET_NAME, "mvmm-stage");
	if (dup2(socket, SOCKET) != SOCKET || close_range(0, SOCKET - 1, 0) < 0 || close_range(SOCKET + 1, UINT32_MAX, 0) < 0)
		return false;
	stage_limit(options);
	return confine_process(options->seccomp, THREAD_STAGE, SOCKET, REFUSAL) == 0;
}

static bool stage_get(void *to, size_t len)
{
	ssize_t n;

	for (size_t at = 0; at < len; at += (size_t)n) {
		n = read(SOCKET, (char *)to + at, len - at);
		if (n <= 0)
			return false;
	}
	return true;
}

static void stage_put(const void *data, size_t len)
{
	ssize_t n;

	for (size_t at = 0; at < len; at += (size_t)n) {
		n = write(SOCKET, (const char *)data + at, len - at);
		if (n <= 0)
			return;
	}
}

static void stage_run(const struct stage_options *options)
{
	struct state_buffer answer = {0};
	struct err err = {""};
	uint64_t len;
	char *text;

	if (!stage_get(&len, sizeof(len)) || len > options->most_text)
		return;
	text = malloc(len + 1);
	if (!text || !stage_get(text, len))
		return;
	if (state_buffer_add(&answer, ANSWER, 1) == 0 && options->parse(text, len, &answer, &err) == 0) {
		stage_put(answer.data, answer.len);
	} else {
		stage_put(REFUSAL, 1);
		stage_put(err.text, strlen(err.text));
	}
}

/* ---- who asks ---- */

int stage_create(const struct stage_options *options, struct stage **ret, struct err *err)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	_cleanup_(fd_close) int theirs = -1;
	int ends[2];

	if (!stage)
		return err_sys(err, -ENOMEM, "a process that parses");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		free(stage);
		return err_sys(err, -errno, "a process that parses: socket");
	}
	*stage = (struct stage){.options = *options, .socket = ends[0]};
	theirs = ends[1];
	stage->pid = fork();
	if (stage->pid == 0) {
		if (stage_give_up(options, theirs))
			stage_run(options);
		syscall(SYS_exit_group, 0);
	}
	if (stage->pid < 0) {
		int code = err_sys(err, -errno, "a process that parses: fork");

		stage_destroy(stage);
		return code;
	}
	*ret = stage;
	return 0;
}

void stage_destroy(struct stage *stage)
{
	if (!stage)
		return;
	fd_close(&stage->socket);
	if (stage->pid > 0) {
		kill(stage->pid, SIGKILL);
		waitpid(stage->pid, NULL, 0);
	}
	free(stage);
}

static int stage_wait(const struct stage *stage, short events, struct err *err)
{
	struct pollfd socket = {.fd = stage->socket, .events = events};

	if (poll(&socket, 1, monotonic_left(stage->deadline)) == 0)
		return err_set(err, -ETIMEDOUT, "the process that parses it did not answer in %u s", stage->options.wait_ms / 1000);
	return 0;
}

static int stage_send(const struct stage *stage, const void *data, size_t len, struct err *err)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = send(stage->socket, (const char *)data + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		int code = n < 0 && errno == EAGAIN ? stage_wait(stage, POLLOUT, err) : 0;

		if (code)
			return code;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return 0; /* it has ended; its answer says why */
		at += (size_t)MAX(n, 0);
	}
	return 0;
}

bool stage_was_asked(const struct stage *stage)
{
	return stage->deadline;
}

int stage_ask(struct stage *stage, const void *text, size_t len, struct err *err)
{
	const uint64_t size = len;

	if (len > stage->options.most_text)
		return err_set(err, -EBADMSG, "%zu bytes, more than %zu", len, stage->options.most_text);
	stage->deadline = monotonic_ms() + stage->options.wait_ms;
	return stage_send(stage, &size, sizeof(size), err) ?: stage_send(stage, text, len, err);
}

/* All that it says, up to its end. */
static int stage_receive(const struct stage *stage, struct state_buffer *all, struct err *err)
{
	char part[KIB(16)];

	for (;;) {
		ssize_t n = recv(stage->socket, part, sizeof(part), MSG_DONTWAIT);
		int code = n < 0 && errno == EAGAIN ? stage_wait(stage, POLLIN, err) : 0;

		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return 0;
		if (n < 0 && !code && errno != EAGAIN && errno != EINTR)
			code = err_sys(err, -errno, "the process that parses it");
		if (!code && n > 0 && all->len + (size_t)n > stage->options.most_answer + 1)
			code = err_set(err, -EBADMSG, "the process that parses it answers with more than %zu bytes",
				       stage->options.most_answer);
		if (!code && n > 0 && state_buffer_add(all, part, (size_t)n))
			code = err_sys(err, -ENOMEM, "the answer of the process that parses it");
		if (code)
			return code;
	}
}

/* How it has ended; one that has closed its socket is about to. */
static int stage_without_answer(struct stage *stage, struct err *err)
{
	int status = 0;
	pid_t pid;

	while (!(pid = waitpid(stage->pid, &status, WNOHANG)) && monotonic_ms() < stage->deadline)
		poll(NULL, 0, 1);
	stage->pid = pid ? 0 : stage->pid;
	if (pid > 0 && WIFSIGNALED(status))
		return err_set(err, -EPIPE, "the process that parses it was ended by signal %d (%s)", WTERMSIG(status),
			       sigdescr_np(WTERMSIG(status)) ?: "?");
	return err_set(err, -EPIPE, "the process that parses it ended without an answer");
}

/* In its own words, of which only what can be shown; a line may have an end. */
static int stage_refused(const struct state_buffer *all, struct err *err)
{
	int len = (int)MIN(all->len - 1, sizeof(err->text) - 1);

	len -= len && all->data[len] == '\n';
	for (int i = 1; i <= len; i++)
		if (all->data[i] < ' ' || all->data[i] > '~')
			all->data[i] = '?';
	return err_set(err, -EBADMSG, "%.*s", len, (const char *)all->data + 1);
}

int stage_answer(struct stage *stage, struct state_buffer *answer, struct err *err)
{
	struct state_buffer all = {0};
	int code = stage_receive(stage, &all, err);

	if (!code && !all.len)
		code = stage_without_answer(stage, err);
	else if (!code && all.data[0] != ANSWER[0])
		code = stage_refused(&all, err);
	else if (!code)
		code = all.len > 1 ? state_buffer_add(answer, all.data + 1, all.len - 1) : 0;
	state_buffer_free(&all);
	return code;
}
