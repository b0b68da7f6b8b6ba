/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Static probes for tracers (USDT): PROBE(name, arguments...) is one nop, and a note in the program's file that tells
 * bpftrace, perf or gdb where it is and where its arguments are. docs/tracing.md lists them; tests/unit/probes.sh checks
 * that. The notes follow the format that SystemTap defines (.note.stapsdt, version 3). They are not loaded.
 *
 * An argument is a number or a pointer, of up to four; computing it is the only cost of a probe that nobody uses.
 */
#pragma once

#include <stdint.h>

/* The base by which a tracer finds out that the file was prelinked; one for the whole program. */
#define PROBE_BASE                                                             \
	".ifndef _.stapsdt.base\n"                                             \
	".pushsection .stapsdt.base, \"aG\", \"progbits\", .stapsdt.base, comdat\n" \
	".weak _.stapsdt.base\n"                                               \
	".hidden _.stapsdt.base\n"                                             \
	"_.stapsdt.base: .space 1\n"                                           \
	".size _.stapsdt.base, 1\n"                                            \
	".popsection\n"                                                        \
	".endif\n"

/* The descriptor: address of the nop, base, no semaphore; provider, name, arguments. "?": it goes where its function goes. */
#define PROBE_TEXT(name, arguments)                  \
	"990: nop\n"                                 \
	".pushsection .note.stapsdt, \"?\", \"note\"\n" \
	".balign 4\n"                                \
	".4byte 992f - 991f, 994f - 993f, 3\n"       \
	"991: .asciz \"stapsdt\"\n"                  \
	"992: .balign 4\n"                           \
	"993: .8byte 990b, _.stapsdt.base, 0\n"      \
	".asciz \"mvmm\"\n"                          \
	".asciz \"" #name "\"\n"                     \
	".asciz \"" arguments "\"\n"                 \
	"994: .balign 4\n"                           \
	".popsection\n" PROBE_BASE

/* Each in a register, in memory or a constant, as eight bytes without sign. */
#define PROBE_ARGUMENT(value) "nor"((uint64_t)(value))

#define PROBE_1(name, a) __asm__ volatile(PROBE_TEXT(name, "8@%0") ::PROBE_ARGUMENT(a))
#define PROBE_2(name, a, b) \
	__asm__ volatile(PROBE_TEXT(name, "8@%0 8@%1") ::PROBE_ARGUMENT(a), PROBE_ARGUMENT(b))
#define PROBE_3(name, a, b, c) \
	__asm__ volatile(PROBE_TEXT(name, "8@%0 8@%1 8@%2") ::PROBE_ARGUMENT(a), PROBE_ARGUMENT(b), PROBE_ARGUMENT(c))
#define PROBE_4(name, a, b, c, d)                                                                                 \
	__asm__ volatile(PROBE_TEXT(name, "8@%0 8@%1 8@%2 8@%3") ::PROBE_ARGUMENT(a), PROBE_ARGUMENT(b), \
			 PROBE_ARGUMENT(c), PROBE_ARGUMENT(d))

#define PROBE_PICK(_1, _2, _3, _4, picked, ...) picked
#define PROBE(name, ...) PROBE_PICK(__VA_ARGS__, PROBE_4, PROBE_3, PROBE_2, PROBE_1)(name, __VA_ARGS__)
