/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See helpers.h. Each request is one message with its descriptors, and each has one reply. Nobody waits for ever: not the
 * keeper for a helper that cannot end, since the kernel keeps it, nor who asks for a keeper that does not reply.
 */
#include "core/helpers.h"

#include <pthread.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/monotonic.h"
#include "core/process.h"
#include "core/thread.h"

#define MOST_FDS 9
#define MOST_WORDS 16
#ifndef HELPERS_REPLY_MS
#define HELPERS_REPLY_MS 10000 /* for a reply: a program is read from its disk, */
#endif
#define HELPERS_END_MS 2000 /* and for the end of a process that was killed */

enum helpers_op { HELPERS_START, HELPERS_REAP, HELPERS_KILL };

struct request {
	uint32_t op;
	int32_t pid;
	uint32_t word_count, fd_count; /* fd_count: with that for its stderr, which comes last */
	uint32_t has_stderr;
	char words[4096]; /* each ends with a zero */
};

struct reply {
	int32_t code, status;
};

struct helpers {
	int socket;
	pid_t keeper;
	pthread_mutex_t lock; /* held from a request to its reply */
};

/* False: it has not ended in time, as one that waits for a device. It is not reaped. */
static bool helpers_wait_end(pid_t pid, int *status)
{
	int64_t deadline = monotonic_ms() + HELPERS_END_MS;
	pid_t ended;

	while ((ended = waitpid(pid, status, WNOHANG)) == 0 && monotonic_ms() < deadline)
		poll(NULL, 0, 1);
	return ended != 0;
}

/* ---- the keeper ---- */

struct keeper {
	const struct helper_rule *rules;
	size_t rule_count;
	int socket;
	pid_t children[HELPERS_MOST];
};

static bool helpers_rule_holds(const struct helper_rule *rule, const char *const *argv, size_t count)
{
	bool holds = rule->count == count;

	for (size_t i = 0; holds && i < count; i++)
		holds = !rule->words[i] || strcmp(rule->words[i], argv[i]) == 0;
	return holds;
}

/* Splits the request's words; false: they are not what the request says. */
static bool helpers_split(struct request *request, const char *argv[MOST_WORDS + 1])
{
	char *at = request->words, *end = request->words + sizeof(request->words);

	if (!request->word_count || request->word_count > MOST_WORDS)
		return false;
	for (uint32_t i = 0; i < request->word_count; i++) {
		size_t len = strnlen(at, (size_t)(end - at));

		if (at + len == end)
			return false;
		argv[i] = at;
		at += len + 1;
	}
	argv[request->word_count] = NULL;
	return true;
}

static pid_t *helpers_find(struct keeper *keeper, pid_t pid)
{
	for (size_t i = 0; i < HELPERS_MOST; i++)
		if (keeper->children[i] == pid)
			return &keeper->children[i];
	return NULL;
}

static int helpers_do_start(struct keeper *keeper, struct request *request, const int *fds, size_t fd_count)
{
	const char *argv[MOST_WORDS + 1];
	pid_t *place = helpers_find(keeper, 0);
	bool allowed = false;
	size_t own = request->has_stderr ? 1 : 0;
	int code;

	if (!helpers_split(request, argv) || fd_count != request->fd_count || fd_count < own)
		return -EINVAL;
	for (size_t i = 0; !allowed && i < keeper->rule_count; i++)
		allowed = helpers_rule_holds(&keeper->rules[i], argv, request->word_count);
	if (!allowed)
		return -EPERM;
	if (!place)
		return -EAGAIN;
	code = process_start(argv, fds, fd_count - own, own ? fds[fd_count - 1] : -1, place);
	if (code)
		*place = 0;
	return code ?: *place;
}

static int helpers_do_reap(struct keeper *keeper, const struct request *request, int32_t *status)
{
	pid_t *place = request->pid > 0 ? helpers_find(keeper, request->pid) : NULL;
	bool ended;

	if (!place)
		return -ESRCH;
	if (request->op == HELPERS_KILL)
		kill(*place, SIGKILL);
	ended = request->op == HELPERS_KILL ? helpers_wait_end(*place, status) : waitpid(*place, status, WNOHANG) == *place;
	if (ended)
		*place = 0;
	return ended;
}

static struct reply helpers_answer(struct keeper *keeper, struct request *request, const int *fds, size_t fd_count)
{
	struct reply reply = {0};

	reply.code = request->op == HELPERS_START ? helpers_do_start(keeper, request, fds, fd_count) :
						    helpers_do_reap(keeper, request, &reply.status);
	return reply;
}

/* Receives one request; false: there is none any more. */
static bool helpers_receive(int socket, struct request *request, int fds[MOST_FDS], size_t *fd_count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
	} control;
	struct iovec iov = {request, sizeof(*request)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

	*fd_count = 0;
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		*fd_count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), *fd_count * sizeof(int));
	}
	if (n > 0 && n < (ssize_t)sizeof(*request))
		memset((char *)request + n, 0, sizeof(*request) - (size_t)n);
	return n > 0;
}

/* In the process of its own. The helpers end by the end of their sockets, or here. */
static void helpers_keep(struct keeper *keeper)
{
	struct request request;
	int fds[MOST_FDS];
	size_t fd_count;

	while (helpers_receive(keeper->socket, &request, fds, &fd_count)) {
		struct reply reply = helpers_answer(keeper, &request, fds, fd_count);

		while (fd_count)
			close(fds[--fd_count]);
		if (send(keeper->socket, &reply, sizeof(reply), MSG_NOSIGNAL) < 0)
			break;
	}
	for (size_t i = 0; i < HELPERS_MOST; i++)
		if (keeper->children[i])
			kill(keeper->children[i], SIGKILL);
}

/* It outlives the signals that end a machine, and holds nothing but its socket. */
static void helpers_run(struct keeper *keeper, bool apart)
{
	sigset_t all;

	if (apart && unshare(CLONE_NEWNS) < 0)
		return;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setpgid(0, 0);
	prctl(PR_SET_NAME, "mvmm-helpers");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (dup2(keeper->socket, 3) != 3)
		return;
	keeper->socket = 3;
	close_range(0, 2, 0);
	close_range(4, UINT32_MAX, 0);
	helpers_keep(keeper);
}

/* ---- who asks ---- */

int helpers_create(const struct helper_rule *rules, size_t count, bool apart, struct helpers **ret, struct err *err)
{
	struct helpers *helpers = calloc(1, sizeof(*helpers));
	_cleanup_(fd_close) int theirs = -1;
	int ends[2];

	if (!helpers)
		return err_sys(err, -ENOMEM, "helpers");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		free(helpers);
		return err_sys(err, -errno, "helpers: socket");
	}
	helpers->socket = ends[0];
	theirs = ends[1];
	pthread_mutex_init(&helpers->lock, NULL);
	helpers->keeper = fork();
	if (helpers->keeper == 0) {
		helpers_run(&(struct keeper){.rules = rules, .rule_count = count, .socket = theirs}, apart);
		syscall(SYS_exit_group, 0);
	}
	if (helpers->keeper < 0) {
		int code = err_sys(err, -errno, "helpers: fork");

		helpers_destroy(helpers);
		return code;
	}
	*ret = helpers;
	return 0;
}

void helpers_destroy(struct helpers *helpers)
{
	int status;

	if (!helpers)
		return;
	fd_close(&helpers->socket);
	if (helpers->keeper > 0)
		helpers_wait_end(helpers->keeper, &status);
	pthread_mutex_destroy(&helpers->lock);
	free(helpers);
}

/* After one that is late, none can be told from the next: nobody is asked any more. */
static bool helpers_receive_reply(struct helpers *helpers, struct reply *reply)
{
	struct pollfd answered = {.fd = helpers->socket, .events = POLLIN};
	int64_t deadline = monotonic_ms() + HELPERS_REPLY_MS;
	int n;

	do {
		n = poll(&answered, 1, monotonic_left(deadline));
	} while (n < 0 && errno == EINTR);
	if (n == 1 && recv(helpers->socket, reply, sizeof(*reply), MSG_DONTWAIT) == (ssize_t)sizeof(*reply))
		return true;
	fd_close(&helpers->socket);
	return false;
}

static int helpers_ask(struct helpers *helpers, const struct request *request, const int *fds, struct reply *reply)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)request, sizeof(*request)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	bool done;

	if (fds && request->fd_count) {
		control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(request->fd_count * sizeof(int)),
						  .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), fds, request->fd_count * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(request->fd_count * sizeof(int));
	}
	pthread_mutex_lock(&helpers->lock);
	done = sendmsg(helpers->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(*request) &&
	       helpers_receive_reply(helpers, reply);
	pthread_mutex_unlock(&helpers->lock);
	return done ? 0 : -ECONNRESET;
}

static int helpers_ask_start(struct helpers *helpers, const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid)
{
	struct request request = {.op = HELPERS_START, .has_stderr = words_fd >= 0};
	struct reply reply;
	int all[MOST_FDS] = {0}, code;
	size_t used = 0;

	if (count + request.has_stderr > MOST_FDS)
		return -E2BIG;
	for (; argv[request.word_count]; request.word_count++) {
		size_t len = strlen(argv[request.word_count]) + 1;

		if (request.word_count == MOST_WORDS || len > sizeof(request.words) - used)
			return -E2BIG;
		memcpy(request.words + used, argv[request.word_count], len);
		used += len;
	}
	for (size_t i = 0; i < count; i++)
		all[i] = fds[i];
	request.fd_count = (uint32_t)count + request.has_stderr;
	if (words_fd >= 0)
		all[count] = words_fd;
	code = helpers_ask(helpers, &request, all, &reply);
	if (code || reply.code < 0)
		return code ?: reply.code;
	*pid = reply.code;
	return 0;
}

int helpers_start(const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid)
{
	struct helpers *helpers = thread_helpers();

	if (helpers)
		return helpers_ask_start(helpers, argv, fds, count, words_fd, pid);
	return thread_is_confined() ? -EPERM : process_start(argv, fds, count, words_fd, pid);
}

bool helpers_reap(pid_t pid, int *status)
{
	struct helpers *helpers = thread_helpers();
	struct reply reply;

	if (!helpers)
		return waitpid(pid, status, WNOHANG) == pid;
	if (helpers_ask(helpers, &(struct request){.op = HELPERS_REAP, .pid = pid}, NULL, &reply) || reply.code <= 0)
		return false;
	*status = reply.status;
	return true;
}

void helpers_kill(pid_t pid)
{
	struct helpers *helpers = thread_helpers();
	struct reply reply;
	int status;

	if (helpers) {
		helpers_ask(helpers, &(struct request){.op = HELPERS_KILL, .pid = pid}, NULL, &reply);
	} else {
		kill(pid, SIGKILL);
		helpers_wait_end(pid, &status);
	}
}
