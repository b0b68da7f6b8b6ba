/* SPDX-License-Identifier: Apache-2.0 */
/* What the handler of SIGSYS says about a system call. It may be called in a signal handler. */
#pragma once

#include "core/util.h"

/* Its name; "?" for a number that the filters do not know. */
const char *seccomp_call_name(unsigned int call);

/* An argument (0 to 5) of the call that raised the signal; context is the handler's. */
uint64_t seccomp_call_argument(const void *context, unsigned int index);
