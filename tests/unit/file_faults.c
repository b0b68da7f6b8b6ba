/* SPDX-License-Identifier: Apache-2.0 */
/* See file_faults.h. */
#include "tests/unit/file_faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NEEDS_SPACE = 1, WAITS = 2 };

const char *faults_call;
static bool armed;
static unsigned int calls, fail_at;
static int fail_error;

void faults_begin(unsigned int n, int error)
{
	faults_call = NULL;
	calls = 0;
	fail_at = n;
	fail_error = error;
	armed = true;
}

bool faults_end(void)
{
	armed = false;
	return faults_call;
}

unsigned int faults_open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

static bool fails(const char *name, int kind)
{
	if (!armed || (fail_error == ENOSPC && !(kind & NEEDS_SPACE)) || (fail_error == EINTR && !(kind & WAITS)))
		return false;
	if (++calls != fail_at)
		return false;
	if (fail_error == FAULTS_KILL)
		kill(getpid(), SIGKILL);
	faults_call = name;
	errno = fail_error;
	return true;
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
/* A call without an optional argument. */
#define CALL(kind, type, name, parameters, arguments)               \
	type name parameters                                        \
	{                                                           \
		return fails(#name, kind) ? (type)-1 : REAL(name) arguments; \
	}

CALL(NEEDS_SPACE, int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
CALL(WAITS, int, flock, (int fd, int operation), (fd, operation))
CALL(0, int, fstat, (int fd, struct stat *st), (fd, st))
CALL(0, int, fstatat, (int fd, const char *path, struct stat *st, int flags), (fd, path, st, flags))
CALL(NEEDS_SPACE, int, renameat2, (int a, const char *from, int b, const char *to, unsigned int flags),
     (a, from, b, to, flags))
CALL(NEEDS_SPACE, int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
CALL(NEEDS_SPACE, int, fsync, (int fd), (fd))
CALL(NEEDS_SPACE | WAITS, ssize_t, write, (int fd, const void *data, size_t len), (fd, data, len))
CALL(NEEDS_SPACE | WAITS, ssize_t, pwrite, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at))
CALL(WAITS, ssize_t, pread, (int fd, void *data, size_t len, off_t at), (fd, data, len, at))
CALL(0, off_t, lseek, (int fd, off_t at, int whence), (fd, at, whence))
CALL(NEEDS_SPACE, int, ftruncate, (int fd, off_t len), (fd, len))
CALL(0, ssize_t, getrandom, (void *data, size_t len, unsigned int flags), (data, len, flags))
CALL(NEEDS_SPACE, ssize_t, copy_file_range, (int from, off_t *in, int to, off_t *out, size_t len, unsigned int flags),
     (from, in, to, out, len, flags))

static mode_t mode_of(int flags, va_list list)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list list;
	mode_t mode;

	va_start(list, flags);
	mode = mode_of(flags, list);
	va_end(list);
	return fails("open", flags & O_CREAT ? NEEDS_SPACE : 0) ? -1 : REAL(open)(path, flags, mode);
}

int openat(int fd, const char *path, int flags, ...)
{
	va_list list;
	mode_t mode;

	va_start(list, flags);
	mode = mode_of(flags, list);
	va_end(list);
	return fails("openat", flags & O_CREAT ? NEEDS_SPACE : 0) ? -1 : REAL(openat)(fd, path, flags, mode);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	return fails("ioctl", 0) ? -1 : REAL(ioctl)(fd, request, argument);
}
