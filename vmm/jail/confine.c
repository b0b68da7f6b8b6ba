/* SPDX-License-Identifier: Apache-2.0 */
/* See confine.h. */
#include "vmm/jail/confine.h"

#include <linux/capability.h>
#include <sys/syscall.h>

enum seccomp_mode confine_mode(const char *word)
{
	return strcmp(word, "on") == 0 ? SECCOMP_ON : strcmp(word, "log") == 0 ? SECCOMP_LOG : SECCOMP_OFF;
}

int confine_prepare(enum seccomp_mode *mode, int fd, const char *prefix)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {0};
	int code;

	if (syscall(SYS_capset, &header, none) < 0)
		return -errno;
	code = seccomp_prepare(*mode, fd, prefix, NULL);
	if (code != -ENOSYS)
		return code;
	*mode = SECCOMP_OFF;
	return 0;
}

int confine_process(enum seccomp_mode mode, enum thread_kind kind, int fd, const char *prefix)
{
	return confine_prepare(&mode, fd, prefix) ?: seccomp_enter(mode, kind);
}
