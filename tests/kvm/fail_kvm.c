/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library for LD_PRELOAD that lets one ioctl of KVM fail. FAIL_KVM names a file of two lines of 32 bytes, which it maps before
 * the program begins, so that it makes no system call of its own behind the program's filters:
 *
 *	N         the n-th from now on fails; 0: none; empty: nothing is counted yet
 *	COUNT NR  how many there were, and which one failed: written then, and at the process's end
 *
 * KVM_RUN is not counted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define LINE 32

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long count, wanted, failed;
static int armed;
static char *lines;

__attribute__((constructor)) static void at_the_start(void)
{
	const char *path = getenv("FAIL_KVM");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 2 * LINE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at != MAP_FAILED)
		lines = at;
	if (fd >= 0)
		close(fd);
}

static void tell(void)
{
	if (lines && armed)
		snprintf(lines + LINE, LINE, "%lu 0x%lx\n", count, failed);
}

static void arm(void)
{
	char line[LINE + 1] = "";

	if (lines)
		snprintf(line, sizeof(line), "%.*s", LINE, lines);
	armed = sscanf(line, "%lu", &wanted) == 1;
}

__attribute__((destructor)) static void at_the_end(void)
{
	if (!failed)
		tell();
}

int ioctl(int fd, unsigned long request, ...)
{
	__typeof__(ioctl) *real = (__typeof__(ioctl) *)dlsym(RTLD_NEXT, "ioctl");
	int fails = 0;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (_IOC_TYPE(request) == KVMIO && request != KVM_RUN) {
		pthread_mutex_lock(&lock);
		if (!armed)
			arm();
		fails = armed && ++count == wanted;
		if (fails) {
			failed = request;
			tell();
		}
		pthread_mutex_unlock(&lock);
	}
	if (!fails)
		return real(fd, request, arg);
	errno = EIO;
	return -1;
}
