/* SPDX-License-Identifier: Apache-2.0 */
/* See seccomp_call.h. */
#include "vmm/jail/seccomp_call.h"

#include <ucontext.h>

static const char *const names[] = {
#define CALL(number, name) [number] = #name,
#include "vmm/jail/seccomp_calls_x86.h"
};

const char *seccomp_call_name(unsigned int call)
{
	return call < ARRAY_SIZE(names) && names[call] ? names[call] : "?";
}

uint64_t seccomp_call_argument(const void *context, unsigned int index)
{
	static const int registers[] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};

	return (uint64_t)((const ucontext_t *)context)->uc_mcontext.gregs[registers[index]];
}
