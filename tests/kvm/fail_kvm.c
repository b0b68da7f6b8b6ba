/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library for LD_PRELOAD that lets one ioctl of KVM fail: the n-th after the file that FAIL_KVM names exists, which has n in it
 * (0: none). Then, and at the process' end, it writes how many there were into that file with ".done" behind its name, and
 * which one failed. KVM_RUN is not counted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long count, wanted, failed;
static int armed;

static void tell(void)
{
	const char *path = getenv("FAIL_KVM");
	char done[4096];
	FILE *file;

	snprintf(done, sizeof(done), "%s.done", path ? path : "");
	file = path && armed ? fopen(done, "we") : NULL;
	if (!file)
		return;
	fprintf(file, "%lu 0x%lx\n", count, failed);
	fclose(file);
}

static void arm(void)
{
	const char *path = getenv("FAIL_KVM");
	FILE *file = path ? fopen(path, "re") : NULL;

	if (!file)
		return;
	armed = fscanf(file, "%lu", &wanted) == 1;
	fclose(file);
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
