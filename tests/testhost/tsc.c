/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints the frequency of this machine's time-stamp counter in kHz, which is that of the emulated
 * processors too. Run by tests/testhost/enter: the emulated kernel cannot measure it well, and on a
 * loaded machine not at all.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct sample {
	uint64_t tsc, ns;
};

/* Both clocks at one moment: of many pairs the one that was read quickest. */
static struct sample sample(void)
{
	struct sample best = { 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		struct timespec now;
		uint64_t before = __rdtsc();
		clock_gettime(CLOCK_MONOTONIC_RAW, &now);
		uint64_t after = __rdtsc();
		if (after - before < least) {
			least = after - before;
			best.tsc = before + (after - before) / 2;
			best.ns = (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
		}
	}
	return best;
}

int main(void)
{
	struct sample start = sample();
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	struct sample end = sample();

	printf("%.0f\n", (end.tsc - start.tsc) * 1e6 / (end.ns - start.ns));
	return 0;
}
