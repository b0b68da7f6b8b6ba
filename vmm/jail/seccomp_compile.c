/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See seccomp_compile.h. A program is written from its end to its beginning, since a jump only goes forward: the place
 * that it leads to is known. ioctl(2) is tested first, since KVM_RUN is the call of which there are most, and the kernel
 * remembers which calls are allowed whatever their arguments are. The others are found by a binary search, which keeps
 * the time short in which the kernel finds that out.
 */
#include "vmm/jail/seccomp_compile.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#define FARTHEST 255u /* where a conditional jump leads to */

/* A place in the program, as a distance from its end. */
typedef size_t place;

struct compiler {
	const struct seccomp_row *rows;
	size_t row_count;
	enum thread_kind kind;
	struct sock_filter code[SECCOMP_MOST]; /* from its end on */
	place here; /* of the instruction that was written last, plus 1 */
	bool full;
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

static place seccomp_compile_return(struct compiler *c, uint32_t action)
{
	return seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

/* The distance of target from the instruction that is written next. */
static uint32_t seccomp_compile_distance(const struct compiler *c, place target)
{
	return (uint32_t)(c->here - target);
}

/* A place near enough from which target is reached, when there are up to two more instructions before the jump. */
static place seccomp_compile_near(struct compiler *c, place target)
{
	if (seccomp_compile_distance(c, target) + 2 <= FARTHEST)
		return target;
	return seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, seccomp_compile_distance(c, target)));
}

static place seccomp_compile_jump(struct compiler *c, uint16_t test, uint32_t value, place yes, place no)
{
	yes = seccomp_compile_near(c, yes);
	no = seccomp_compile_near(c, no);
	return seccomp_compile_put(c, (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, value,
								    (uint8_t)seccomp_compile_distance(c, yes),
								    (uint8_t)seccomp_compile_distance(c, no)));
}

static place seccomp_compile_load(struct compiler *c, size_t offset)
{
	return seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/* The low half of an argument; this machine is little-endian. */
static place seccomp_compile_load_argument(struct compiler *c, unsigned int argument)
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

static place seccomp_compile_test(struct compiler *c, const struct seccomp_test *test, place yes, place no)
{
	place at = seccomp_compile_jump(c, BPF_JEQ, test->value, yes, no);

	if (test->mask != UINT32_MAX)
		seccomp_compile_put(c, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, test->mask));
	at = seccomp_compile_load_argument(c, test->argument);
	return at;
}

/* The tests of all rows of a call, the last one first; in the program, that of the table's first row comes first. */
static place seccomp_compile_rows(struct compiler *c, uint32_t call)
{
	place allow = seccomp_compile_return(c, SECCOMP_RET_ALLOW), next = seccomp_compile_return(c, SECCOMP_RET_TRAP);
	unsigned int loaded = UINT32_MAX, argument; /* loaded: what the tests behind this place compare */

	for (size_t i = c->row_count; i-- > 0;) {
		const struct seccomp_test *tests = c->rows[i].tests;
		bool simple = seccomp_compile_is_simple(&c->rows[i], &argument);

		if (c->rows[i].call != call || !seccomp_compile_applies(c, &c->rows[i]))
			continue;
		if (loaded != UINT32_MAX && (!simple || argument != loaded))
			next = seccomp_compile_load_argument(c, loaded);
		allow = seccomp_compile_near(c, allow);
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

struct returns {
	place allow, trap, missing;
};

static place seccomp_compile_call(struct compiler *c, uint32_t call, const struct returns *returns)
{
	bool any = false;

	for (size_t i = 0; i < c->row_count; i++) {
		const struct seccomp_row *row = &c->rows[i];

		if (row->call != call || !seccomp_compile_applies(c, row))
			continue;
		if (row->absent)
			return returns->missing;
		if (!row->tests[0].mask)
			return returns->allow;
		any = true;
	}
	return any ? seccomp_compile_rows(c, call) : returns->trap;
}

/* Calls from start to the start of the next range have the same target. */
struct range {
	uint32_t start;
	place target;
};

/* ret has room for all calls and those above last. */
static size_t seccomp_compile_ranges(struct compiler *c, uint32_t last, struct range *ret)
{
	const struct returns returns = {
		.allow = seccomp_compile_return(c, SECCOMP_RET_ALLOW),
		.trap = seccomp_compile_return(c, SECCOMP_RET_TRAP),
		.missing = seccomp_compile_return(c, SECCOMP_RET_ERRNO | ENOSYS),
	};
	size_t count = 0;

	for (uint32_t call = 0; call <= last + 1; call++) {
		place target = call > last ? returns.missing : seccomp_compile_call(c, call, &returns);

		if (!count || ret[count - 1].target != target)
			ret[count++] = (struct range){call, target};
	}
	return count;
}

static place seccomp_compile_search(struct compiler *c, const struct range *ranges, size_t count)
{
	size_t half = count / 2;
	place low, high;

	if (count == 1)
		return ranges[0].target;
	high = seccomp_compile_search(c, ranges + half, count - half);
	low = seccomp_compile_search(c, ranges, half);
	return seccomp_compile_jump(c, BPF_JGE, ranges[half].start, high, low);
}

static void seccomp_compile_all(struct compiler *c, struct range *ranges, uint32_t last)
{
	place search = seccomp_compile_search(c, ranges, seccomp_compile_ranges(c, last, ranges));
	place ioctls = seccomp_compile_rows(c, SYS_ioctl), begin, kill;

	seccomp_compile_jump(c, BPF_JEQ, SYS_ioctl, ioctls, search);
	begin = seccomp_compile_load(c, offsetof(struct seccomp_data, nr));
	kill = seccomp_compile_return(c, SECCOMP_RET_KILL_PROCESS);
	seccomp_compile_jump(c, BPF_JEQ, AUDIT_ARCH_X86_64, begin, kill);
	seccomp_compile_load(c, offsetof(struct seccomp_data, arch));
}

bool seccomp_compile(const struct seccomp_row *rows, size_t count, enum thread_kind kind, uint32_t last,
		     struct seccomp_code *ret)
{
	struct compiler *c = calloc(1, sizeof(*c));
	struct range *ranges = calloc((size_t)last + 2, sizeof(*ranges));
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
