/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The /init of the guest that tests/bench/run boots: its first act is to write a mark to the console, which the kernel
 * has opened for it. Then it sleeps for good; with TICK it writes one more each 10 ms. No libc.
 */
#include <sys/syscall.h>
#include <time.h>

#ifdef TICK
#define TICKS 1
#else
#define TICKS 0
#endif

static long call(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

void _start(void);
void _start(void)
{
	const struct timespec moment = {.tv_nsec = 10000000};

	call(SYS_write, 1, (long)"\1", 1, 0);
	while (TICKS) {
		call(SYS_nanosleep, (long)&moment, 0, 0, 0);
		call(SYS_write, 1, (long)"\1", 1, 0);
	}
	for (;;)
		call(SYS_pause, 0, 0, 0, 0);
}
