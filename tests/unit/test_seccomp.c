/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/jail/seccomp: each row of the table, by running the filter as the kernel does, and what the kernel then does, in
 * child processes that enter the filters of a machine's threads.
 */
#include "vmm/jail/seccomp.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "seccomp_filters.h"
#include "tests/unit/test.h"
#include "vmm/jail/seccomp_compile.h"

#define NEWEST 469u /* of seccomp_calls_x86.h */
#define NONE (SECCOMP_RET_ERRNO | ENOSYS)

/* ---- the kernel's machine, for the instructions that a filter has ---- */

static uint32_t run(const struct sock_fprog *program, const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (size_t at = 0; at < program->len; at++) {
		const struct sock_filter *insn = &program->filter[at];

		switch (insn->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			CHECK(insn->k % 4 == 0 && insn->k < sizeof(*data));
			memcpy(&a, (const char *)data + insn->k, sizeof(a));
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= insn->k;
			break;
		case BPF_JMP | BPF_JA:
			at += insn->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			at += a == insn->k ? insn->jt : insn->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			at += a >= insn->k ? insn->jt : insn->jf;
			break;
		case BPF_RET | BPF_K:
			return insn->k;
		default:
			CHECK(!"an instruction that no filter has");
		}
	}
	CHECK(!"the end of a filter");
	return 0;
}

static uint32_t ask(enum thread_kind kind, const struct seccomp_data *data)
{
	return run(&filters[kind], data);
}

/* What the table says, by looking at each row. */
static uint32_t expected(enum thread_kind kind, const struct seccomp_data *data)
{
	if (data->nr < 0 || (uint32_t)data->nr > NEWEST)
		return NONE;
	for (size_t i = 0; i < seccomp_table_size; i++) {
		const struct seccomp_row *row = &seccomp_table[i];
		bool holds = true;

		if (row->call != data->nr || !(row->kinds >> kind & 1))
			continue;
		for (size_t k = 0; k < SECCOMP_TESTS; k++)
			holds &= ((uint32_t)data->args[row->tests[k].argument] & row->tests[k].mask) == row->tests[k].value;
		if (holds)
			return row->absent ? NONE : SECCOMP_RET_ALLOW;
	}
	return SECCOMP_RET_TRAP;
}

static struct seccomp_data call_of(const struct seccomp_row *row)
{
	struct seccomp_data data = {.nr = row->call, .arch = AUDIT_ARCH_X86_64};

	for (size_t k = 0; k < SECCOMP_TESTS; k++)
		if (row->tests[k].mask)
			data.args[row->tests[k].argument] |= row->tests[k].value;
	return data;
}

/* Each row allows what it says, to its kinds, whatever the upper halves are; one wrong bit of an argument is as the table says. */
static void check_row(const struct seccomp_row *row, enum thread_kind kind)
{
	struct seccomp_data data = call_of(row);

	CHECK_EQ(ask(kind, &data), expected(kind, &data));
	if (row->kinds >> kind & 1)
		CHECK_EQ(ask(kind, &data), row->absent ? NONE : SECCOMP_RET_ALLOW);
	for (size_t k = 0; k < SECCOMP_TESTS && row->tests[k].mask; k++) {
		for (unsigned int bit = 0; bit < 32; bit++) {
			data = call_of(row);
			data.args[row->tests[k].argument] ^= 1u << bit;
			CHECK_EQ(ask(kind, &data), expected(kind, &data));
		}
	}
}

static void every_row_allows_what_it_says_and_nothing_else(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++)
		for (size_t i = 0; i < seccomp_table_size; i++)
			check_row(&seccomp_table[i], (enum thread_kind)kind);
}

static void a_call_without_a_row_is_trapped_and_a_newer_one_is_unknown(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		for (int nr = 0; nr < 2000; nr++) {
			struct seccomp_data data = {.nr = nr, .arch = AUDIT_ARCH_X86_64, .args = {0x5a5a5a5a, 0x5a5a5a5a, 0x5a5a5a5a}};

			CHECK_EQ(ask((enum thread_kind)kind, &data), expected((enum thread_kind)kind, &data));
		}
	}
}

static void other_ways_into_the_kernel_are_closed(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		const struct seccomp_data i386 = {.nr = SYS_read, .arch = AUDIT_ARCH_I386};
		const struct seccomp_data x32 = {.nr = 0x40000000 | SYS_read, .arch = AUDIT_ARCH_X86_64};

		CHECK_EQ(ask((enum thread_kind)kind, &i386), SECCOMP_RET_KILL_PROCESS);
		CHECK_EQ(ask((enum thread_kind)kind, &x32), NONE);
	}
}

/* What the rows must not say: whoever adds one that does has to change this, too. */
static void only_the_starter_opens_makes_sockets_and_starts_threads(void)
{
	static const int kept[] = {SYS_open, SYS_openat2, SYS_clone, SYS_io_uring_setup, SYS_memfd_create, SYS_seccomp, SYS_unlink,
				   SYS_rename};
	static const int shared[] = {SYS_openat, SYS_socket, SYS_connect, SYS_bind}; /* with the program that asks name services */
	static const int nobody[] = {SYS_execve, SYS_execveat, SYS_fork, SYS_vfork, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev,
				     SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_setns, SYS_unshare, SYS_bpf, SYS_init_module,
				     SYS_kexec_load, SYS_pkey_mprotect, SYS_personality, SYS_setuid, SYS_keyctl, SYS_perf_event_open,
				     SYS_pidfd_getfd, SYS_open_by_handle_at, SYS_iopl, SYS_modify_ldt, SYS_msgget, SYS_shmget};

	for (size_t i = 0; i < seccomp_table_size; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(kept); k++)
			CHECK(seccomp_table[i].call != kept[k] || seccomp_table[i].kinds == 1u << THREAD_STARTER);
		for (size_t k = 0; k < ARRAY_SIZE(shared); k++)
			CHECK(seccomp_table[i].call != shared[k] ||
			      !(seccomp_table[i].kinds & ~(1u << THREAD_STARTER | 1u << THREAD_RESOLVE)));
		for (size_t k = 0; k < ARRAY_SIZE(nobody); k++)
			CHECK(seccomp_table[i].call != nobody[k]);
	}
}

static void no_row_makes_memory_executable(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		/* A name service's module is mapped from its file. */
		const unsigned int flags = MAP_PRIVATE | (kind == THREAD_RESOLVE ? MAP_ANONYMOUS : 0);
		const struct seccomp_data map = {.nr = SYS_mmap, .arch = AUDIT_ARCH_X86_64, .args = {0, 4096, PROT_READ | PROT_EXEC, flags}};
		const struct seccomp_data change = {.nr = SYS_mprotect, .arch = AUDIT_ARCH_X86_64, .args = {0, 4096, PROT_EXEC}};

		CHECK_EQ(ask((enum thread_kind)kind, &map), SECCOMP_RET_TRAP);
		CHECK_EQ(ask((enum thread_kind)kind, &change), SECCOMP_RET_TRAP);
	}
}

static void every_row_has_a_reason_and_no_row_is_hidden_by_another(void)
{
	for (size_t i = 0; i < seccomp_table_size; i++) {
		CHECK(seccomp_table[i].reason && seccomp_table[i].reason[0] && seccomp_table[i].name && seccomp_table[i].kinds);
		for (size_t k = 0; k < i; k++)
			CHECK(seccomp_table[i].call != seccomp_table[k].call || seccomp_table[i].kinds & ~seccomp_table[k].kinds ||
			      (seccomp_table[k].tests[0].mask &&
			       memcmp(seccomp_table[i].tests, seccomp_table[k].tests, sizeof(seccomp_table[i].tests)) != 0));
	}
}

/* ---- the kernel's part ---- */

static unsigned long filter_flags;

/* In the place of the C library's. It reads arguments that the caller may have left out, as that does. */
__attribute__((no_sanitize("address", "undefined"))) long syscall(long number, ...)
{
	long words[6];
	va_list list;

	va_start(list, number);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_seccomp && words[0] == SECCOMP_SET_MODE_FILTER)
		filter_flags = (unsigned long)words[1];
	return ((__typeof__(syscall) *)dlsym(RTLD_NEXT, "syscall"))(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

/* In a child that enters the filter of kind: fn, and then the end. Returns the status; said has what it wrote to stderr. */
static char said[1024];

static int child(enum seccomp_mode mode, enum thread_kind kind, int (*fn)(void))
{
	int ends[2], status;
	ssize_t n;
	pid_t pid;

	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		prctl(PR_SET_NAME, "under-test");
		if (seccomp_prepare(mode, ends[1], "mvmm: ", NULL) || seccomp_enter(mode, kind))
			_exit(99);
		syscall(SYS_exit_group, fn());
	}
	close(ends[1]);
	n = read(ends[0], said, sizeof(said) - 1);
	said[n > 0 ? n : 0] = 0;
	close(ends[0]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static int do_nothing(void)
{
	return 7;
}

static int do_getppid(void)
{
	return (int)syscall(SYS_getppid) > 0 ? 8 : 9;
}

static int do_what_is_new(void)
{
	return syscall(600) == -1 && errno == ENOSYS ? 7 : 9;
}

static int do_signal_ourselves(void)
{
	return (int)syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), 0) == 0 ? 7 : 9;
}

static int do_signal_our_parent(void)
{
	return (int)syscall(SYS_tgkill, 1, 1, 0);
}

static int do_signal_our_parent_otherwise(void)
{
	return (int)syscall(SYS_kill, 1, SIGTERM);
}

static void each_kind_goes_on_with_what_is_allowed(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		CHECK_EQ(child(SECCOMP_ON, (enum thread_kind)kind, do_nothing), 7 << 8);
		CHECK_STR(said, "");
		CHECK_EQ(child(SECCOMP_ON, (enum thread_kind)kind, do_what_is_new), 7 << 8);
		CHECK_EQ(child(SECCOMP_ON, (enum thread_kind)kind, do_signal_ourselves),
			 kind <= THREAD_STARTER ? 7 << 8 : SECCOMP_EXIT << 8);
	}
}

static int do_tell_the_flags(void)
{
	return (int)filter_flags;
}

static void no_filter_makes_the_processor_slower(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++)
		CHECK_EQ(child(SECCOMP_ON, (enum thread_kind)kind, do_tell_the_flags), SECCOMP_FILTER_FLAG_SPEC_ALLOW << 8);
}

static void what_is_not_allowed_ends_the_process_with_a_line(void)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		CHECK_EQ(child(SECCOMP_ON, (enum thread_kind)kind, do_getppid), SECCOMP_EXIT << 8);
		CHECK_STR(said, "mvmm: thread under-test made the system call getppid (110), which its filter does not allow; the machine "
				"ends; --seccomp log allows it and logs it\n");
		CHECK_EQ(child(SECCOMP_ON, (enum thread_kind)kind, do_signal_our_parent), SECCOMP_EXIT << 8);
		CHECK_EQ(child(SECCOMP_ON, (enum thread_kind)kind, do_signal_our_parent_otherwise), SECCOMP_EXIT << 8);
	}
}

static void with_log_and_off_it_is_done(void)
{
	CHECK_EQ(child(SECCOMP_LOG, THREAD_DISK, do_getppid), 8 << 8);
	CHECK_EQ(child(SECCOMP_OFF, THREAD_DISK, do_getppid), 8 << 8);
}

TEST_MAIN(TEST(every_row_allows_what_it_says_and_nothing_else),
	  TEST(a_call_without_a_row_is_trapped_and_a_newer_one_is_unknown), TEST(other_ways_into_the_kernel_are_closed),
	  TEST(only_the_starter_opens_makes_sockets_and_starts_threads), TEST(no_row_makes_memory_executable),
	  TEST(every_row_has_a_reason_and_no_row_is_hidden_by_another), TEST(each_kind_goes_on_with_what_is_allowed),
	  TEST(no_filter_makes_the_processor_slower),
	  TEST(what_is_not_allowed_ends_the_process_with_a_line), TEST(with_log_and_off_it_is_done))
