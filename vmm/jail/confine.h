/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process of its own gives up when it is prepared, before it reads what a stranger says: the stage, mvmm-tls,
 * mvmm-resolve.
 */
#pragma once

#include "vmm/jail/seccomp.h"

/* The mode that --seccomp's word stands for. */
enum seccomp_mode confine_mode(const char *word);

/*
 * The process, which has one thread, loses its capabilities and is prepared for filters. The line of a call that is not
 * allowed goes to fd, behind prefix, which is not copied. Without filters in the kernel, *mode becomes SECCOMP_OFF: a
 * machine that is to have some has said so. -errno: the process must not go on.
 */
int confine_prepare(enum seccomp_mode *mode, int fd, const char *prefix);
/* The same, and it gets the filter of kind. */
int confine_process(enum seccomp_mode mode, enum thread_kind kind, int fd, const char *prefix);
