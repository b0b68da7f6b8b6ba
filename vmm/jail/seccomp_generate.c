/* SPDX-License-Identifier: Apache-2.0 */
/* Part of the build: writes the filters of all kinds of threads, made from the table, as C. */
#include <stdio.h>

#include "vmm/jail/seccomp_compile.h"

static const uint32_t known[] = {
#define CALL(number, name) number,
#include "vmm/jail/seccomp_calls_x86.h"
};

static bool seccomp_generate_filter(enum thread_kind kind)
{
	static struct seccomp_code code;

	if (!seccomp_compile(seccomp_table, seccomp_table_size, kind, known[ARRAY_SIZE(known) - 1], &code))
		return false;
	printf("static const struct sock_filter filter_%u[] = {\n", kind);
	for (size_t i = 0; i < code.count; i++)
		printf("\t{0x%x, %u, %u, 0x%x},\n", code.insns[i].code, code.insns[i].jt, code.insns[i].jf, code.insns[i].k);
	printf("};\n");
	return true;
}

int main(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++)
		if (!seccomp_generate_filter((enum thread_kind)kind))
			return 1;
	printf("static const struct sock_fprog filters[] = {\n");
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++)
		printf("\t{sizeof(filter_%u) / sizeof(filter_%u[0]), (struct sock_filter *)(uintptr_t)filter_%u},\n", kind, kind, kind);
	printf("};\n");
	return fflush(stdout) != 0;
}
