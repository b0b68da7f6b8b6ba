/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See seccomp_compile.h. A program is written from its end to its beginning, since a jump only goes forward: the place
 * that it leads to is known. ioctl(2) is tested first, since KVM_RUN is the call of which there are most, and the kernel
 * remembers which calls are allowed whatever their arguments are. The others are found by a binary search, which keeps
 * the time short in which the kernel finds that out. Each instruction costs each thread's start 0.1 us: returns are shared
 * by all that are near enough, and the tests of a call's arguments stand where the search ends.
 */
#include "vmm/jail/seccomp_compile.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#define FARTHEST 255u /* where a conditional jump leads to */
#define FEW 3u        /* calls that are compared one after the other */

/* A place in the program, as a distance from its end; 0: none. */
typedef size_t place;

enum action { ALLOW, TRAP, MISSING, KILL, ACTIONS };

/* Where a jump leads to: to an end of the program, or on. */
struct target {
	enum action action;
	place at; /* or 0: the action */
};

struct compiler {
	const struct seccomp_row *rows;
	size_t row_count;
	enum thread_kind kind;
	struct sock_filter code[SECCOMP_MOST]; /* from its end on */
	place here; /* of the instruction that was written last, plus 1 */
	place returns[ACTIONS]; /* the nearest of each */
	bool full;
};

static const uint32_t actions[ACTIONS] = {
	[ALLOW] = SECCOMP_RET_ALLOW, [TRAP] = SECCOMP_RET_TRAP, [MISSING] = SECCOMP_RET_ERRNO | ENOSYS,
	[KILL] = SECCOMP_RET_KILL_PROCESS,
};

static place seccomp_compile_put(struct compiler *c, struct sock_filter insn)
{
	if (c->here == SECCOMP_MOST) {
		c->full = true;
		return c->here;
	}
	c->code[c->here++] = insn;
	return c->here;
}

/* The distance of target from the instruction that is written next. */
static uint32_t seccomp_compile_distance(const struct compiler *c, place target)
{
	return (uint32_t)(c->here - target);
}

/* Whether a jump reaches it, when there is up to one more instruction before the jump. */
static bool seccomp_compile_reaches(const struct compiler *c, place target)
{
	return target && seccomp_compile_distance(c, target) + 1 <= FARTHEST;
}

static place seccomp_compile_near(struct compiler *c, struct target target)
{
	place at = target.at ?: c->returns[target.action];

	if (seccomp_compile_reaches(c, at))
		return at;
	if (target.at)
		return seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, seccomp_compile_distance(c, at)));
	return c->returns[target.action] =
		       seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, actions[target.action]));
}

static struct target seccomp_compile_jump(struct compiler *c, uint16_t test, uint32_t value, struct target to_yes,
					  struct target to_no)
{
	place yes = seccomp_compile_near(c, to_yes), no = seccomp_compile_near(c, to_no);

	return (struct target){
		.at = seccomp_compile_put(c, (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, value,
									  (uint8_t)seccomp_compile_distance(c, yes),
									  (uint8_t)seccomp_compile_distance(c, no))),
	};
}

static struct target seccomp_compile_load(struct compiler *c, size_t offset)
{
	return (struct target){.at = seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset))};
}

/* The low half of an argument; this machine is little-endian. */
static struct target seccomp_compile_load_argument(struct compiler *c, unsigned int argument)
{
	return seccomp_compile_load(c, offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t));
}

/* ---- the rows of a call ---- */

static bool seccomp_compile_applies(const struct compiler *c, const struct seccomp_row *row)
{
	return row->kinds >> c->kind & 1;
}

/* What only compares one whole argument, and which one. */
static bool seccomp_compile_is_simple(const struct seccomp_row *row, unsigned int *argument)
{
	*argument = row->tests[0].argument;
	return row->tests[0].mask == UINT32_MAX && !row->tests[1].mask;
}

static struct target seccomp_compile_test(struct compiler *c, const struct seccomp_test *test, struct target yes,
					  struct target no)
{
	seccomp_compile_jump(c, BPF_JEQ, test->value, yes, no);
	if (test->mask != UINT32_MAX)
		seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, test->mask));
	return seccomp_compile_load_argument(c, test->argument);
}

/* The tests of all rows of a call, the last one first; in the program, that of the table's first row comes first. */
static struct target seccomp_compile_rows(struct compiler *c, uint32_t call)
{
	const struct target allow = {.action = ALLOW};
	struct target next = {.action = TRAP};
	unsigned int loaded = UINT32_MAX, argument; /* loaded: what the tests behind this place compare */

	for (size_t i = c->row_count; i-- > 0;) {
		const struct seccomp_test *tests = c->rows[i].tests;
		bool simple = seccomp_compile_is_simple(&c->rows[i], &argument);

		if (c->rows[i].call != call || !seccomp_compile_applies(c, &c->rows[i]))
			continue;
		if (loaded != UINT32_MAX && (!simple || argument != loaded))
			next = seccomp_compile_load_argument(c, loaded);
		if (simple)
			next = seccomp_compile_jump(c, BPF_JEQ, tests[0].value, allow, next);
		else if (tests[1].mask)
			next = seccomp_compile_test(c, &tests[0], seccomp_compile_test(c, &tests[1], allow, next), next);
		else
			next = seccomp_compile_test(c, &tests[0], allow, next);
		loaded = simple ? argument : UINT32_MAX;
	}
	return loaded == UINT32_MAX ? next : seccomp_compile_load_argument(c, loaded);
}

/* ---- which call it is ---- */

/* Calls from start to the start of the next range end alike; or there is one, whose arguments are tested. */
struct range {
	uint32_t start;
	bool tested;
	enum action action; /* unless it is tested */
};

static struct range seccomp_compile_range(const struct compiler *c, uint32_t call)
{
	struct range range = {.start = call, .action = TRAP};

	for (size_t i = 0; i < c->row_count; i++) {
		const struct seccomp_row *row = &c->rows[i];

		if (row->call != call || !seccomp_compile_applies(c, row))
			continue;
		if (row->absent || !row->tests[0].mask)
			return (struct range){.start = call, .action = row->absent ? MISSING : ALLOW};
		range.tested = true;
	}
	return range;
}

/* ret has room for all calls and those above last, and for where the numbers end: as if there were two of these. */
static size_t seccomp_compile_ranges(const struct compiler *c, uint32_t last, struct range *ret)
{
	size_t count = 0;

	for (uint32_t call = 0; call <= last; call++) {
		struct range range = seccomp_compile_range(c, call);

		if (call == SYS_ioctl)
			continue;
		if (!count || range.tested || ret[count - 1].tested || ret[count - 1].action != range.action)
			ret[count++] = range;
	}
	ret[count++] = (struct range){.start = last + 1, .action = MISSING};
	ret[count] = (struct range){.start = last + 3};
	return count;
}

static struct target seccomp_compile_range_end(struct compiler *c, const struct range *range)
{
	return range->tested ? seccomp_compile_rows(c, range->start) : (struct target){.action = range->action};
}

/* Whether all ranges but a few, which are of one call each, end alike, and how. */
static bool seccomp_compile_are_few(const struct range *ranges, size_t count, enum action *rest)
{
	size_t tests = 0;
	bool any = false;

	for (size_t i = 0; i < count; i++) {
		if (ranges[i + 1].start - ranges[i].start == 1 || (any && ranges[i].action != *rest))
			continue;
		*rest = ranges[i].action;
		any = true;
	}
	for (size_t i = 0; i < count && any; i++) {
		bool differs = ranges[i].tested || ranges[i].action != *rest;

		if (differs && ranges[i + 1].start - ranges[i].start != 1)
			return false;
		tests += differs;
	}
	return any && tests <= FEW;
}

static struct target seccomp_compile_few(struct compiler *c, const struct range *ranges, size_t count, enum action rest)
{
	struct target next = {.action = rest};

	for (size_t i = count; i-- > 0;)
		if (ranges[i].tested || ranges[i].action != rest)
			next = seccomp_compile_jump(c, BPF_JEQ, ranges[i].start, seccomp_compile_range_end(c, &ranges[i]), next);
	return next;
}

/* The kernel tries all numbers when a filter is installed, so both parts shall have as many of them. */
static size_t seccomp_compile_half(const struct range *ranges, size_t count)
{
	uint32_t middle = ranges[0].start + (ranges[count].start - ranges[0].start) / 2;
	size_t half = 1;

	while (half + 1 < count && ranges[half].start < middle)
		half++;
	return half;
}

static struct target seccomp_compile_search(struct compiler *c, const struct range *ranges, size_t count)
{
	size_t half = seccomp_compile_half(ranges, count);
	struct target low, high;
	enum action rest = TRAP;

	if (count == 1)
		return seccomp_compile_range_end(c, &ranges[0]);
	if (seccomp_compile_are_few(ranges, count, &rest))
		return seccomp_compile_few(c, ranges, count, rest);
	high = seccomp_compile_search(c, ranges + half, count - half);
	low = seccomp_compile_search(c, ranges, half);
	return seccomp_compile_jump(c, BPF_JGE, ranges[half].start, high, low);
}

static void seccomp_compile_all(struct compiler *c, struct range *ranges, uint32_t last)
{
	struct target ioctls = seccomp_compile_rows(c, SYS_ioctl), search, begin;

	search = seccomp_compile_search(c, ranges, seccomp_compile_ranges(c, last, ranges));
	seccomp_compile_jump(c, BPF_JEQ, SYS_ioctl, ioctls, search);
	begin = seccomp_compile_load(c, offsetof(struct seccomp_data, nr));
	seccomp_compile_jump(c, BPF_JEQ, AUDIT_ARCH_X86_64, begin, (struct target){.action = KILL});
	seccomp_compile_load(c, offsetof(struct seccomp_data, arch));
}

bool seccomp_compile(const struct seccomp_row *rows, size_t count, enum thread_kind kind, uint32_t last,
		     struct seccomp_code *ret)
{
	struct compiler *c = calloc(1, sizeof(*c));
	struct range *ranges = calloc((size_t)last + 3, sizeof(*ranges));
	bool fits = c && ranges;

	if (fits) {
		c->rows = rows;
		c->row_count = count;
		c->kind = kind;
		seccomp_compile_all(c, ranges, last);
		fits = !c->full;
		ret->count = c->here;
		for (size_t i = 0; i < c->here; i++)
			ret->insns[i] = c->code[c->here - 1 - i];
	}
	free(ranges);
	free(c);
	return fits;
}
