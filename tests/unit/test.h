/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The unit tests' harness: a table of cases, TAP on stdout. CHECK fails the case and goes on to the next one; SKIP ends
 * one that cannot run here and says why.
 *
 *	static void adds_up(void) { CHECK(1 + 1 == 2); }
 *	TEST_MAIN(TEST(adds_up))
 */
#pragma once

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct test_case {
	const char *name;
	void (*fn)(void);
};

extern jmp_buf test_failed;
extern const char *test_skipped; /* why the running case cannot run */

#define TEST(fn) {#fn, fn}

#define CHECK(cond)                                                                      \
	do {                                                                             \
		if (!(cond)) {                                                           \
			printf("# %s:%d: not true: %s\n", __FILE__, __LINE__, #cond);    \
			longjmp(test_failed, 1);                                         \
		}                                                                        \
	} while (0)

#define CHECK_EQ(a, b)                                                                            \
	do {                                                                                      \
		long long a_ = (long long)(a), b_ = (long long)(b);                               \
		if (a_ != b_) {                                                                   \
			printf("# %s:%d: %s is %lld (0x%llx), not %lld (0x%llx)\n", __FILE__, __LINE__, #a, a_, \
			       (unsigned long long)a_, b_, (unsigned long long)b_);               \
			longjmp(test_failed, 1);                                                  \
		}                                                                                 \
	} while (0)

#define CHECK_STR(a, b)                                                                            \
	do {                                                                                       \
		const char *a_ = (a), *b_ = (b);                                                   \
		if (strcmp(a_, b_) != 0) {                                                         \
			printf("# %s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #a, a_, b_); \
			longjmp(test_failed, 1);                                                   \
		}                                                                                  \
	} while (0)

#define SKIP(why)                        \
	do {                             \
		test_skipped = (why);    \
		longjmp(test_failed, 1); \
	} while (0)

#define TEST_MAIN(...)                                                                        \
	jmp_buf test_failed;                                                                  \
	const char *test_skipped;                                                             \
	int main(void)                                                                        \
	{                                                                                     \
		static const struct test_case cases[] = {__VA_ARGS__};                        \
		const int count = sizeof(cases) / sizeof(cases[0]);                           \
		static int i, failed;                                                         \
		setvbuf(stdout, NULL, _IOLBF, 0);                                             \
		printf("1..%d\n", count);                                                     \
		for (i = 0; i < count; i++) {                                                 \
			test_skipped = NULL;                                                  \
			if (setjmp(test_failed) == 0) {                                       \
				cases[i].fn();                                                \
				printf("ok %d - %s\n", i + 1, cases[i].name);                 \
			} else if (test_skipped) {                                            \
				printf("ok %d - %s # SKIP %s\n", i + 1, cases[i].name, test_skipped); \
			} else {                                                              \
				printf("not ok %d - %s\n", i + 1, cases[i].name);             \
				failed++;                                                     \
			}                                                                     \
		}                                                                             \
		return failed ? 1 : 0;                                                        \
	}
