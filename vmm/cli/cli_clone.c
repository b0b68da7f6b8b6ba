/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm clone NAME|DIR --count N`: makes many machines of one snapshot. Each is an `mvmm restore`, a process of its own that
 * stays when this command has ended; its line on a pipe tells that its guest runs, and how long that took. Its messages
 * are shown until then.
 */
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "core/monotonic.h"
#include "vmm/cli/clone.h"
#include "vmm/cli/command.h"

#define JOBS_MAX 512u
#define ENDING_MS 10000 /* for those that are ended before their guests run */
#define HOPELESS 10u    /* so many failures and no success: the others would fail, too */

extern char **environ;

enum clone_state { CLONE_NONE, CLONE_STARTING, CLONE_RUNS, CLONE_FAILED };

struct clone {
	enum clone_state state;
	char *name;
	pid_t pid;
	uint64_t began;    /* ns */
	uint64_t took;     /* ns from exec to the guest; valid in RUNS */
	int ready_fd, messages_fd;
	char line[512];    /* the beginning of its last message */
	size_t len;
	bool complete;     /* the line has ended */
};

struct cloning {
	const struct clone_options *given;
	struct clone_source source;
	struct clone_plan plan;
	struct clone *clones; /* given->count */
	unsigned int *starting; /* indexes, of up to jobs */
	unsigned int jobs, started, runs, failed, active;
	int null_fd, signal_fd;
	int signal; /* that has come, or 0 */
	bool terminal;
	uint64_t began, shown, took;
};

/* ---- messages ---- */

static void cli_clone_clear_line(const struct cloning *cloning)
{
	if (cloning->terminal)
		fputs("\r\33[K", stderr);
}

static void cli_clone_show(struct cloning *cloning)
{
	const struct restore_options *given = &cloning->given->restore;
	uint64_t now = monotonic_ns();

	if (given->here.quiet || cloning->given->json || now - cloning->shown < (cloning->terminal ? 50000000ull : 1000000000ull))
		return;
	cloning->shown = now;
	cli_clone_clear_line(cloning);
	fprintf(stderr, "%u of %u run%s", cloning->runs, cloning->given->count, cloning->terminal ? "" : "\n");
	fflush(stderr);
}

/* Its last line: why it failed, or something to know. */
static void cli_clone_say(const struct cloning *cloning, struct clone *clone, const char *otherwise)
{
	const char *text = clone->len ? clone->line : otherwise;

	if (!text)
		return;
	cli_clone_clear_line(cloning);
	fprintf(stderr, "mvmm: %s: %s\n", clone->name, strncmp(text, "mvmm: ", 6) == 0 ? text + 6 : text);
	clone->len = 0;
	clone->line[0] = 0;
}

/* The last line is kept until it is known whether it is the reason of a failure. */
static void cli_clone_take_message(const struct cloning *cloning, struct clone *clone, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (clone->complete && clone->len)
			cli_clone_say(cloning, clone, NULL);
		clone->complete = text[i] == '\n';
		if (!clone->complete && clone->len + 1 < sizeof(clone->line)) {
			clone->line[clone->len++] = (char)((unsigned char)text[i] < ' ' ? ' ' : text[i]);
			clone->line[clone->len] = 0;
		}
	}
}

static void cli_clone_read_messages(const struct cloning *cloning, struct clone *clone)
{
	char text[1024];
	ssize_t n;

	while (clone->messages_fd >= 0 && (n = read(clone->messages_fd, text, sizeof(text))) >= 0) {
		if (n == 0)
			fd_close(&clone->messages_fd);
		cli_clone_take_message(cloning, clone, text, (size_t)n);
	}
}

/* ---- one process ---- */

/* To its own number: it is not closed. */
static void cli_clone_inherit(posix_spawn_file_actions_t *actions, int fd)
{
	if (fd >= 0)
		posix_spawn_file_actions_adddup2(actions, fd, fd);
}

static void cli_clone_give(const struct cloning *cloning, posix_spawn_file_actions_t *actions, int ready, int messages)
{
	posix_spawn_file_actions_adddup2(actions, cloning->null_fd, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(actions, cloning->null_fd, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(actions, messages, STDERR_FILENO);
	posix_spawn_file_actions_adddup2(actions, ready, CLONE_READY_FD);
	cli_clone_inherit(actions, cloning->source.state);
	cli_clone_inherit(actions, cloning->source.memory);
	for (size_t i = 0; i < cloning->source.disk_count; i++)
		cli_clone_inherit(actions, cloning->source.disks[i].fd);
}

static int cli_clone_spawn(const struct cloning *cloning, struct clone *clone, char **words, int ready, int messages)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int code;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	/* Terminal and Ctrl-C are this command's. */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	cli_clone_give(cloning, &actions, ready, messages);
	clone->began = monotonic_ns();
	code = -posix_spawn(&clone->pid, "/proc/self/exe", &actions, &attributes, words, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return code;
}

static int cli_clone_begin(const struct cloning *cloning, struct clone *clone, char **words)
{
	int ready[2], messages[2], code;

	if (pipe2(ready, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	code = pipe2(messages, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
	if (!code) {
		code = cli_clone_spawn(cloning, clone, words, ready[1], messages[1]);
		close(messages[1]);
		clone->messages_fd = messages[0];
	}
	close(ready[1]);
	clone->ready_fd = ready[0];
	return code;
}

static void cli_clone_fail(struct cloning *cloning, struct clone *clone, const char *otherwise)
{
	clone->state = CLONE_FAILED;
	cloning->failed++;
	cli_clone_read_messages(cloning, clone);
	cli_clone_say(cloning, clone, otherwise);
	fd_close(&clone->ready_fd);
	fd_close(&clone->messages_fd);
}

/* Too many at once for the limits of this command: the others begin when these have. */
static bool cli_clone_postpone(struct cloning *cloning, struct clone *clone, int code)
{
	if (!cloning->active || (code != -EMFILE && code != -ENFILE && code != -EAGAIN && code != -ENOMEM))
		return false;
	fd_close(&clone->ready_fd);
	fd_close(&clone->messages_fd);
	free(take_ptr(clone->name));
	cloning->jobs = cloning->active;
	cloning->started--;
	return true;
}

static void cli_clone_start(struct cloning *cloning)
{
	unsigned int n = cloning->started++;
	struct clone *clone = &cloning->clones[n];
	char **words = clone_plan_fill(&cloning->plan, n + 1);
	int code = words ? 0 : -ENOMEM;

	clone->ready_fd = clone->messages_fd = -1;
	clone->name = words ? strdup(clone_plan_name(words)) : NULL;
	code = code ?: cli_clone_begin(cloning, clone, words);
	clone_plan_free(words);
	if (code && cli_clone_postpone(cloning, clone, code))
		return;
	if (code) {
		cli_clone_fail(cloning, clone, strerrordesc_np(-code));
		return;
	}
	clone->state = CLONE_STARTING;
	cloning->starting[cloning->active++] = n;
}

/* It has ended before its guest ran. */
static void cli_clone_bury(struct cloning *cloning, struct clone *clone)
{
	char how[40];
	int status = 0;

	waitpid(clone->pid, &status, 0);
	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "ended by signal %d", WTERMSIG(status));
	else
		snprintf(how, sizeof(how), "ended with exit code %d", WEXITSTATUS(status));
	cli_clone_fail(cloning, clone, how);
}

/* False: it is still starting. */
static bool cli_clone_look(struct cloning *cloning, struct clone *clone)
{
	char line[32];
	ssize_t n;

	cli_clone_read_messages(cloning, clone);
	n = read(clone->ready_fd, line, sizeof(line) - 1);
	if (n < 0)
		return false;
	if (n == 0) {
		cli_clone_bury(cloning, clone);
		return true;
	}
	line[n] = 0;
	clone->state = CLONE_RUNS;
	clone->took = strtoull(line, NULL, 10) - clone->began;
	cloning->runs++;
	cli_clone_say(cloning, clone, NULL);
	fd_close(&clone->ready_fd);
	fd_close(&clone->messages_fd);
	return true;
}

/* ---- all of them ---- */

static void cli_clone_take_signal(struct cloning *cloning)
{
	struct signalfd_siginfo info;

	if (read(cloning->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	cloning->signal = (int)info.ssi_signo;
	for (unsigned int i = 0; i < cloning->active; i++)
		kill(cloning->clones[cloning->starting[i]].pid, SIGINT);
}

static bool cli_clone_wants_more(const struct cloning *cloning)
{
	return cloning->started < cloning->given->count && cloning->active < cloning->jobs && !cloning->signal &&
	       (cloning->runs || cloning->failed < HOPELESS);
}

/* Waits for one of those that are starting. */
static void cli_clone_wait(struct cloning *cloning, struct pollfd *fds)
{
	unsigned int kept = 0;

	fds[0] = (struct pollfd){.fd = cloning->signal_fd, .events = POLLIN};
	for (unsigned int i = 0; i < cloning->active; i++) {
		fds[1 + 2 * i] = (struct pollfd){.fd = cloning->clones[cloning->starting[i]].ready_fd, .events = POLLIN};
		fds[2 + 2 * i] = (struct pollfd){.fd = cloning->clones[cloning->starting[i]].messages_fd, .events = POLLIN};
	}
	if (poll(fds, 1 + 2 * cloning->active, cloning->signal ? ENDING_MS : -1) == 0) {
		cloning->active = 0; /* they do not end */
		return;
	}
	if (fds[0].revents)
		cli_clone_take_signal(cloning);
	for (unsigned int i = 0; i < cloning->active; i++)
		if (!(fds[1 + 2 * i].revents || fds[2 + 2 * i].revents) ||
		    !cli_clone_look(cloning, &cloning->clones[cloning->starting[i]]))
			cloning->starting[kept++] = cloning->starting[i];
	cloning->active = kept;
}

static void cli_clone_make_all(struct cloning *cloning, struct pollfd *fds)
{
	cloning->began = cloning->shown = monotonic_ns();
	for (;;) {
		while (cli_clone_wants_more(cloning))
			cli_clone_start(cloning);
		if (!cloning->active)
			break;
		cli_clone_wait(cloning, fds);
		cli_clone_show(cloning);
	}
	cloning->took = monotonic_ns() - cloning->began;
	cli_clone_clear_line(cloning);
}

/* ---- the result ---- */

static int cli_clone_compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

struct times {
	double least, median, most, all; /* seconds */
};

static struct times cli_clone_measure(const struct cloning *cloning)
{
	_cleanup_(free_ptr) uint64_t *sorted = calloc(cloning->started ?: 1, sizeof(*sorted));
	unsigned int count = 0;

	for (unsigned int i = 0; sorted && i < cloning->started; i++)
		if (cloning->clones[i].state == CLONE_RUNS)
			sorted[count++] = cloning->clones[i].took;
	if (!count)
		return (struct times){.all = (double)cloning->took / 1e9};
	qsort(sorted, count, sizeof(*sorted), cli_clone_compare_times);
	return (struct times){(double)sorted[0] / 1e9, (double)sorted[count / 2] / 1e9, (double)sorted[count - 1] / 1e9,
			      (double)cloning->took / 1e9};
}

/* Without a clone that runs there is no time to tell. */
static json_t *cli_clone_time(const struct cloning *cloning, double time)
{
	return cloning->runs ? json_real(time) : json_null();
}

static void cli_clone_print_json(const struct cloning *cloning, const struct times *times)
{
	json_t *list = json_array(), *object;

	for (unsigned int i = 0; i < cloning->started; i++) {
		const struct clone *clone = &cloning->clones[i];

		if (clone->state == CLONE_RUNS)
			json_array_append_new(list, json_pack("{s:i, s:s, s:i, s:f}", "number", (int)i + 1, "name",
							      clone->name, "pid", (int)clone->pid, "time",
							      (double)clone->took / 1e9));
	}
	object = json_pack("{s:o, s:i, s:i, s:o, s:o, s:o, s:f}", "clones", list, "running", (int)cloning->runs, "failed",
			   (int)cloning->failed, "min", cli_clone_time(cloning, times->least), "median",
			   cli_clone_time(cloning, times->median), "max", cli_clone_time(cloning, times->most), "elapsed",
			   times->all);
	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(object);
}

static void cli_clone_print(const struct cloning *cloning)
{
	struct times times = cli_clone_measure(cloning);

	if (cloning->given->json) {
		cli_clone_print_json(cloning, &times);
		return;
	}
	if (cloning->given->restore.here.quiet)
		return;
	printf("%u of %u run, after %.2f s", cloning->runs, cloning->given->count, times.all);
	if (cloning->runs)
		printf("; from exec to the guest: %.2f ms at best, median %.2f ms, at worst %.2f ms", times.least * 1e3,
		       times.median * 1e3, times.most * 1e3);
	putchar('\n');
}

static int cli_clone_conclude(const struct cloning *cloning, struct err *err)
{
	if (cloning->signal)
		return EXIT_SIGNAL + cloning->signal;
	if (cloning->runs == cloning->given->count)
		return EXIT_OFF;
	err_set(err, -EIO, "%u of %u clones do not run%s", cloning->given->count - cloning->runs, cloning->given->count,
		cloning->started < cloning->given->count ? "; the others were not tried" : "");
	return EXIT_FAILED;
}

/* ---- the command ---- */

static unsigned int cli_clone_jobs(const struct clone_options *given)
{
	cpu_set_t cpus;
	unsigned int jobs = given->jobs;

	if (!jobs)
		jobs = sched_getaffinity(0, sizeof(cpus), &cpus) < 0 ? 1 : (unsigned int)CPU_COUNT(&cpus);
	return MIN(MIN(jobs, JOBS_MAX), given->count);
}

static int cli_clone_make(struct cloning *cloning, struct err *err)
{
	_cleanup_(free_ptr) struct pollfd *fds = NULL;

	cloning->jobs = cli_clone_jobs(cloning->given);
	cloning->clones = calloc(cloning->given->count, sizeof(*cloning->clones));
	cloning->starting = calloc(cloning->jobs, sizeof(*cloning->starting));
	fds = calloc(1 + 2 * cloning->jobs, sizeof(*fds));
	cloning->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (!cloning->clones || !cloning->starting || !fds || cloning->null_fd < 0) {
		err_sys(err, -errno, "clone");
		return EXIT_FAILED;
	}
	cli_clone_make_all(cloning, fds);
	cli_clone_print(cloning);
	return cli_clone_conclude(cloning, err);
}

/* The clones live on. */
static void cli_clone_done(struct cloning *cloning)
{
	for (unsigned int i = 0; cloning->clones && i < cloning->started; i++)
		free(cloning->clones[i].name);
	free(cloning->clones);
	free(cloning->starting);
	fd_close(&cloning->null_fd);
	fd_close(&cloning->signal_fd);
	clone_plan_done(&cloning->plan);
	clone_source_close(&cloning->source);
}

static int cli_clone_run_with(struct clone_options *given, int argc, char *const *argv, struct err *err)
{
	struct cloning cloning = {.given = given, .null_fd = -1, .signal_fd = -1, .terminal = isatty(STDERR_FILENO)};
	const char *what;
	int code;

	if (!command_parse(&command_clone, given, offsetof(struct clone_options, restore.help), argc, argv, &what, 1, &code,
			   err))
		return code;
	if (!what) {
		err_set(err, -EINVAL, "nothing to clone; write the name of a machine, or the folder of a snapshot");
		return EXIT_BAD_INPUT;
	}
	cloning.signal_fd = command_watch_signals();
	code = clone_source_open(what, given, cloning.signal_fd, &cloning.source, err) ?:
	       clone_plan_make(argc, argv, given, &cloning.source, &cloning.plan, err);
	if (cloning.source.signal)
		code = EXIT_SIGNAL + cloning.source.signal;
	else
		code = code ? EXIT_BAD_INPUT : cli_clone_make(&cloning, err);
	cli_clone_done(&cloning);
	return code;
}

static int cli_clone_run(int argc, char *const *argv, struct err *err)
{
	struct clone_options given = {0};
	int code;

	options_init(&cli_clone_options, &given);
	code = cli_clone_run_with(&given, argc, argv, err);
	options_done(&cli_clone_options, &given);
	return code;
}

const struct command command_clone = {
	.name = "clone",
	.operands = "NAME|DIR",
	.summary = "Make many machines from a snapshot, or from a running machine",
	.text = "{n} in the value of an option stands for the number of each clone, from 1. What two machines cannot share (a\n"
		"writable disk, a tap, a socket) needs it. Clones run in the background until mvmm stop; Ctrl-C starts no\n"
		"more, and those that run, run on.\n",
	.options = &cli_clone_options,
	.run = cli_clone_run,
};
