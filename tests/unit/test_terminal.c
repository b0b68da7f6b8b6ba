/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/terminal: raw while it lasts, given back however the program ends, and the keys kept for the person. */
#include "vmm/session/terminal.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>

static struct event_loop *loop;
static struct terminal *terminal;

static void leave(void *opaque)
{
	event_loop_stop(loop);
}

/* The guest: says what it was typed, in brackets; 'c' makes the program crash, 'a' abort. */
static void guest(void *opaque, uint32_t events)
{
	char text[200] = "[", key;
	size_t len = 1;

	while (len < sizeof(text) - 1 && read(terminal_in(terminal), &key, 1) == 1) {
		if (key == 'c')
			raise(SIGSEGV);
		if (key == 'a')
			abort();
		text[len++] = key == 1 ? 'A' : key;
	}
	text[len++] = ']';
	if (write(terminal_out(terminal), text, len) < 0 && errno != EAGAIN)
		_exit(9);
}

static void child(void)
{
	const struct rlimit no_core = {0, 0};
	struct event_source *source;

	setrlimit(RLIMIT_CORE, &no_core);
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL); /* a background job ignores some of them */
	if (event_loop_create(&loop, NULL) || terminal_open(loop, leave, NULL, &terminal, NULL) ||
	    event_loop_watch(loop, terminal_in(terminal), EPOLLIN, guest, NULL, &source, NULL))
		_exit(1);
	if (write(terminal_out(terminal), "up", 2) < 0)
		_exit(2);
	event_loop_run(loop);
	terminal_close(terminal);
	_exit(7);
}

/* Reads from the terminal until text came. */
static bool expect(int fd, const char *text)
{
	char seen[1000] = "";
	size_t len = 0;

	while (len < sizeof(seen) - 1) {
		struct timeval limit = {.tv_sec = 10};
		fd_set set;

		FD_ZERO(&set);
		FD_SET(fd, &set);
		if (select(fd + 1, &set, NULL, NULL, &limit) <= 0 || read(fd, seen + len, 1) != 1)
			break;
		seen[++len] = 0;
		if (strstr(seen, text))
			return true;
	}
	printf("# \"%s\" is not in what came: %s\n", text, seen);
	return false;
}

static bool is_raw(int fd)
{
	struct termios mode;

	return tcgetattr(fd, &mode) == 0 && !(mode.c_lflag & (ICANON | ECHO | ISIG));
}

static bool is_found(int fd)
{
	struct termios mode;

	return tcgetattr(fd, &mode) == 0 && mode.c_lflag & ICANON && mode.c_lflag & ECHO && mode.c_lflag & ISIG;
}

/* A program with a terminal of its own. The slave is held open, so that its modes outlive the program. */
static pid_t begin(int *fd, int *slave)
{
	pid_t pid = forkpty(fd, NULL, NULL, NULL);

	if (pid == 0)
		child();
	CHECK(pid > 0);
	*slave = open(ptsname(*fd), O_RDWR | O_NOCTTY);
	CHECK(expect(*fd, "up"));
	CHECK(is_raw(*fd));
	return pid;
}

static int end(pid_t pid, int fd, int slave)
{
	int status;
	bool found;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	found = is_found(fd);
	close(fd);
	close(slave);
	CHECK(found);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void put(int fd, const char *keys)
{
	CHECK_EQ(write(fd, keys, strlen(keys)), (ssize_t)strlen(keys));
}

static void keys_reach_the_guest(void)
{
	int fd, slave;
	pid_t pid = begin(&fd, &slave);

	put(fd, "hello\003\032\r");
	CHECK(expect(fd, "[hello\003\032\r]"));
	put(fd, "\001\001");
	CHECK(expect(fd, "[A]"));
	put(fd, "\001b");
	CHECK(expect(fd, "[Ab]"));
	put(fd, "\001h");
	CHECK(expect(fd, "Ctrl-A x: end the machine"));
	put(fd, "z\001");
	CHECK(expect(fd, "[z]"));
	put(fd, "x");
	CHECK_EQ(end(pid, fd, slave), 7);
}

static void leaving_is_heard_when_the_guest_is_not_listening(void)
{
	char lots[4096];
	int fd, slave;
	pid_t pid = begin(&fd, &slave);

	memset(lots, 'y', sizeof(lots) - 1);
	lots[sizeof(lots) - 1] = 0;
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	for (int i = 0; i < 40; i++) {
		ssize_t n = write(fd, lots, sizeof(lots) - 1); /* the program's answers are not read either */

		if (n < 0)
			usleep(1000);
	}
	CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
	put(fd, "\001x");
	CHECK_EQ(end(pid, fd, slave), 7);
}

static void given_back_after_a_crash(void)
{
	const int deadly[] = {SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGRTMIN, SIGRTMAX};
	int fd, slave;
	pid_t pid = begin(&fd, &slave);

	put(fd, "c");
	CHECK_EQ(end(pid, fd, slave), -SIGSEGV);
	pid = begin(&fd, &slave);
	put(fd, "a");
	CHECK_EQ(end(pid, fd, slave), -SIGABRT);
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
		pid = begin(&fd, &slave);
		kill(pid, deadly[i]);
		CHECK_EQ(end(pid, fd, slave), -deadly[i]);
	}
}

static void given_back_while_stopped(void)
{
	int fd, slave, status;
	pid_t pid = begin(&fd, &slave);

	kill(pid, SIGTSTP);
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	CHECK(is_found(fd));
	kill(pid, SIGCONT);
	CHECK_EQ(waitpid(pid, &status, WCONTINUED), pid);
	put(fd, "k");
	CHECK(expect(fd, "[k]"));
	CHECK(is_raw(fd));
	put(fd, "\001x");
	CHECK_EQ(end(pid, fd, slave), 7);
}

static void hanging_up_is_leaving(void)
{
	int fd, slave, status;
	pid_t pid = begin(&fd, &slave);

	close(slave);
	close(fd);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGHUP : WEXITSTATUS(status) == 7);
}

static void a_pipe_is_taken_as_it_is(void)
{
	int ends[2], saved = dup(STDIN_FILENO);

	CHECK_EQ(pipe(ends), 0);
	CHECK_EQ(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(terminal_open(loop, leave, NULL, &terminal, NULL), 0);
	CHECK_EQ(terminal_in(terminal), STDIN_FILENO);
	CHECK(terminal_out(terminal) >= 0);
	terminal_close(terminal);
	terminal_close(NULL);
	event_loop_destroy(loop);
	CHECK_EQ(fcntl(STDIN_FILENO, F_GETFD), 0);
	CHECK_EQ(dup2(saved, STDIN_FILENO), STDIN_FILENO);
	close(saved);
	close(ends[0]);
	close(ends[1]);
}

TEST_MAIN(TEST(keys_reach_the_guest), TEST(leaving_is_heard_when_the_guest_is_not_listening),
	  TEST(given_back_after_a_crash), TEST(given_back_while_stopped), TEST(hanging_up_is_leaving),
	  TEST(a_pipe_is_taken_as_it_is))
