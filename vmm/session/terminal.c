/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See terminal.h.
 *
 * Keys are read from stdin on the loop's thread and passed to the guest's port through a pipe. When the pipe is full,
 * keys are dropped, so that Ctrl-A x always works. Signal handlers need the terminal's modes; therefore this file has a
 * global variable.
 */
#include "vmm/session/terminal.h"

#include "core/nowait.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <termios.h>

#define ESCAPE 0x01 /* Ctrl-A */

struct terminal {
	struct event_source *source;
	void (*leave)(void *opaque);
	void *opaque;
	int pipe_in;      /* where keys go */
	int in_fd;        /* the guest's end of the pipe, or stdin */
	int out_fd;       /* stdout, or our own open file description of it */
	bool in_escape;   /* Ctrl-A was the last key */
	sigset_t caught; /* of these, old_actions has what was found */
	struct sigaction old_actions[NSIG];
};

static struct {
	volatile sig_atomic_t raw_wanted;
	struct termios found, raw;
} modes;

/* Every signal ends the program at once if nobody handles it, but for these. SIGKILL cannot be caught. */
static const int harmless[] = {SIGKILL, SIGSTOP, SIGCHLD, SIGURG, SIGWINCH, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU};

/* In the background, a process that changes the terminal's mode is stopped. */
static bool terminal_in_foreground(void)
{
	return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static void terminal_apply(const struct termios *mode)
{
	int saved = errno;

	if (modes.raw_wanted && terminal_in_foreground())
		tcsetattr(STDIN_FILENO, TCSANOW, mode);
	errno = saved;
}

static void terminal_on_deadly(int signal)
{
	terminal_apply(&modes.found);
	raise(signal); /* SA_RESETHAND: this time it is deadly */
}

static void terminal_on_stop(int signal)
{
	terminal_apply(&modes.found);
	raise(SIGSTOP);
}

static void terminal_on_continue(int signal)
{
	terminal_apply(&modes.raw);
}

/* What is ignored stays so. */
static void terminal_catch(struct terminal *terminal, int signal, void (*handler)(int signal), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, *old = &terminal->old_actions[signal];

	sigfillset(&action.sa_mask);
	if (sigaction(signal, NULL, old) < 0 || old->sa_handler == SIG_IGN || sigaction(signal, &action, NULL) < 0)
		return;
	sigaddset(&terminal->caught, signal);
}

static void terminal_catch_signals(struct terminal *terminal)
{
	sigset_t deadly;

	sigfillset(&deadly);
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++)
		sigdelset(&deadly, harmless[i]);
	sigemptyset(&terminal->caught);
	for (int i = 1; i < NSIG; i++)
		if (sigismember(&deadly, i) == 1)
			terminal_catch(terminal, i, terminal_on_deadly, SA_RESETHAND | SA_NODEFER);
	terminal_catch(terminal, SIGTSTP, terminal_on_stop, SA_RESTART);
	terminal_catch(terminal, SIGCONT, terminal_on_continue, SA_RESTART);
}

static void terminal_release_signals(struct terminal *terminal)
{
	for (int i = 1; i < NSIG; i++)
		if (sigismember(&terminal->caught, i) == 1)
			sigaction(i, &terminal->old_actions[i], NULL);
}

/* ---- keys ---- */

static void terminal_show_keys(void)
{
	static const char text[] = "\nCtrl-A x: end the machine   Ctrl-A h: this   Ctrl-A Ctrl-A: a Ctrl-A for the guest\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
		/* There is no stderr. */
	}
}

/* Handles a key. Returns how many bytes in out (2) are for the guest; sets *leave for Ctrl-A x. */
static size_t terminal_take_key(struct terminal *terminal, char key, char *out, bool *leave)
{
	size_t len = 0;

	if (!terminal->in_escape) {
		terminal->in_escape = key == ESCAPE;
		out[0] = key;
		return key != ESCAPE;
	}
	terminal->in_escape = false;
	switch (key) {
	case 'x':
		*leave = true;
		return 0;
	case 'h':
		terminal_show_keys();
		return 0;
	case ESCAPE:
		break;
	default:
		out[len++] = ESCAPE;
		break;
	}
	out[len++] = key;
	return len;
}

static void terminal_on_keys(void *opaque, uint32_t events)
{
	struct terminal *terminal = opaque;
	char keys[256], out[2 * sizeof(keys)];
	bool leave = false;
	size_t len = 0;
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	if (n <= 0 && (events & (EPOLLHUP | EPOLLERR) || (n < 0 && errno != EAGAIN && errno != EINTR))) {
		event_source_remove(take_ptr(terminal->source));
		leave = true;
	}
	for (ssize_t i = 0; i < n && !leave; i++)
		len += terminal_take_key(terminal, keys[i], out + len, &leave);
	if (len && write(terminal->pipe_in, out, len) < 0) {
		/* The pipe already has 64 KiB of unread keys; these are lost. */
	}
	if (leave)
		terminal->leave(terminal->opaque);
}

/* ---- opening and closing ---- */

static int terminal_open_keys(struct terminal *terminal, struct event_loop *loop, struct err *err)
{
	int ends[2], code;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(err, -errno, "terminal");
	terminal->in_fd = ends[0];
	terminal->pipe_in = ends[1];
	code = event_loop_watch(loop, STDIN_FILENO, EPOLLIN, terminal_on_keys, terminal, &terminal->source, err);
	if (code)
		return err_prefix(err, code, "terminal");
	modes.raw = modes.found;
	cfmakeraw(&modes.raw);
	modes.raw.c_oflag |= OPOST; /* a log line starts at the left */
	modes.raw.c_cc[VMIN] = 0;   /* a read never waits */
	modes.raw.c_cc[VTIME] = 0;
	modes.raw_wanted = 1;
	terminal_catch_signals(terminal);
	terminal_apply(&modes.raw);
	return 0;
}

int terminal_open(struct event_loop *loop, void (*leave)(void *opaque), void *opaque, struct terminal **ret,
		  struct err *err)
{
	struct terminal *terminal = calloc(1, sizeof(*terminal));
	int code = 0;

	if (!terminal)
		return err_sys(err, -ENOMEM, "terminal");
	terminal->leave = leave;
	terminal->opaque = opaque;
	terminal->pipe_in = -1;
	terminal->in_fd = STDIN_FILENO;
	if (tcgetattr(STDIN_FILENO, &modes.found) == 0) {
		terminal->in_fd = -1;
		if (terminal_in_foreground())
			code = terminal_open_keys(terminal, loop, err);
	}
	terminal->out_fd = nowait_reopen(STDOUT_FILENO);
	if (terminal->out_fd < 0)
		terminal->out_fd = STDOUT_FILENO;
	if (code) {
		terminal_close(terminal);
		return code;
	}
	*ret = terminal;
	return 0;
}

void terminal_close(struct terminal *terminal)
{
	if (!terminal)
		return;
	if (modes.raw_wanted) {
		terminal_apply(&modes.found);
		modes.raw_wanted = 0;
		terminal_release_signals(terminal);
	}
	event_source_remove(terminal->source);
	fd_close(&terminal->pipe_in);
	if (terminal->in_fd != STDIN_FILENO)
		fd_close(&terminal->in_fd);
	if (terminal->out_fd != STDOUT_FILENO)
		fd_close(&terminal->out_fd);
	free(terminal);
}

int terminal_in(const struct terminal *terminal)
{
	return terminal->in_fd;
}

int terminal_out(const struct terminal *terminal)
{
	return terminal->out_fd;
}
