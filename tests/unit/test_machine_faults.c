/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole machine on a KVM of the tests' own: a run, a reboot, and a move with both sides in this process. Each call of KVM
 * fails once, at each place: then there is a sentence, nothing is left behind (descriptors, threads, mappings), and exactly one
 * guest goes on.
 */
#include "tests/boot_images.h"
#include "tests/unit/fake_kvm.h"
#include "tests/unit/test.h"
#include "vmm/machine/machine.h"
#include "tests/unit/offer_text.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#define SECOND 1000000000ull
#define POWER 0x600
#define MOST_REQUESTS 64u
#define MOST_RUNS 3u /* of KVM_RUN: they are too many, and alike */

/* One machine. */
struct side {
	struct machine_config config;
	struct machine *machine;
	bool open;
};

static struct side sides[2], *const here = &sides[0], *const there = &sides[1];
static struct event_loop *loop;
static struct event_source *timer;
static bool late;
static struct err err;
static char image[] = "/tmp/mvmm-faults-XXXXXX", logged_path[] = "/tmp/mvmm-faults-log-XXXXXX";
static struct log sink = {.level = LOG_WARN};

/* ---- what a guest does ---- */

static enum { RUN_ON, POWER_DOWN, RESET } wish;

/* The first vCPU writes a register of the power device, if that is wanted; else a guest runs until it is interrupted. */
static int guest(struct fake_vcpu *vcpu, struct kvm_run *run)
{
	while (!__atomic_load_n(&run->immediate_exit, __ATOMIC_ACQUIRE)) {
		bool reset = __atomic_load_n(&wish, __ATOMIC_ACQUIRE) == RESET;

		if (vcpu->id == 0 && __atomic_load_n(&wish, __ATOMIC_ACQUIRE) != RUN_ON) {
			run->exit_reason = KVM_EXIT_IO;
			run->io.direction = KVM_EXIT_IO_OUT;
			run->io.size = 1;
			run->io.count = 1;
			run->io.port = reset ? POWER + 2 : POWER + 21;
			run->io.data_offset = 4096;
			((uint8_t *)run)[4096] = reset ? 1 : 5 << 2 | 0x20;
			return 0;
		}
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
	return -EINTR;
}

/* ---- machines ---- */

static void on_timer(void *opaque, uint32_t events)
{
	late = true;
	event_loop_stop(loop);
}

static unsigned int count_in(const char *folder)
{
	DIR *dir = opendir(folder);
	unsigned int count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* A thread that was joined is in /proc for a moment longer. */
static bool threads_are(unsigned int count)
{
	for (int i = 0; i < 2000 && count_in("/proc/self/task") != count; i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	return count_in("/proc/self/task") == count;
}

/* Mappings of guest memory and of vCPUs: those that are a memory file's or huge. */
static unsigned int count_mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned int count = 0;

	CHECK(file);
	while (fgets(line, sizeof(line), file))
		count += strstr(line, "memfd:") != NULL;
	fclose(file);
	return count;
}

static void write_image(void)
{
	uint8_t file[IMAGES_ELF_SIZE];
	int fd = mkostemp(image, O_CLOEXEC);

	images_make_elf(file);
	CHECK(fd >= 0 && write(fd, file, sizeof(file)) == (ssize_t)sizeof(file));
	close(fd);
	sink.fd = mkostemp(logged_path, O_CLOEXEC);
	CHECK(sink.fd >= 0);
	unlink(logged_path);
}

static bool something_was_logged(void)
{
	struct stat st;

	CHECK_EQ(fstat(sink.fd, &st), 0);
	return st.st_size > 0;
}

static void configure(struct side *side)
{
	static char line[128];
	char *words[16];
	int count = 0;

	snprintf(line, sizeof(line), "--kernel %s --memory 32M --cpus 2 --cpu host,-kvmclock --name faults", image);
	for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
		words[count++] = word;
	machine_config_init(&side->config);
	CHECK_EQ(options_parse(&machine_options, &side->config, count, words, NULL, 0, &err), 0);
	CHECK_EQ(machine_config_finish(&side->config, &err), 0);
	side->open = true;
}

static int make(struct side *side, const struct machine_offer *incoming)
{
	const struct machine_host host = {
		.loop = loop, .log = &sink, .serial_in = -1, .serial_out = -1, .console_in = -1, .console_out = -1,
		.incoming = incoming,
	};

	return machine_create(&side->config, &host, &side->machine, &err);
}

static int pause_machine(struct side *side)
{
	int code;

	do
		code = machine_pause(side->machine, -1, &err);
	while (code == -EINPROGRESS);
	return code;
}

static void end_machine(struct side *side)
{
	while (side->machine && machine_settle(side->machine, &err) == -EINPROGRESS)
		;
	machine_destroy(take_ptr(side->machine));
}

static void close_side(struct side *side)
{
	if (!side->open)
		return;
	end_machine(side);
	machine_config_done(&side->config);
	side->open = false;
}

static void begin(void)
{
	static const struct kvm_cpuid_entry2 leaves[] = {
		{.function = 0, .eax = 0xd}, {.function = 1, .edx = 1}, {.function = 0x40000000, .eax = 0x40000001},
		{.function = 0x40000001, .eax = 9}, {.function = 0x80000000, .eax = 0x80000008},
		{.function = 0x80000008, .eax = 40},
	};

	fake_kvm_reset();
	fake_kvm.guest = guest;
	memcpy(fake_kvm.cpuid, leaves, sizeof(leaves));
	fake_kvm.cpuid_count = ARRAY_SIZE(leaves);
	fake_kvm.msr_list[0] = 0xc0000082;
	fake_kvm.msr_count = 1;
	err.text[0] = 0;
	CHECK_EQ(ftruncate(sink.fd, 0), 0);
	__atomic_store_n(&wish, RUN_ON, __ATOMIC_RELEASE);
}

static void open_loop(void)
{
	if (loop)
		return;
	write_image();
	CHECK_EQ(event_loop_create(&loop, &err), 0);
	CHECK_EQ(event_loop_timer(loop, on_timer, NULL, &timer, &err), 0);
}

/* Until the machine has ended. */
static enum machine_end wait_for_end(struct side *side)
{
	late = false;
	event_timer_set(timer, 60 * SECOND, 0);
	while (!late && machine_end(side->machine) == MACHINE_RUNNING)
		event_loop_run(loop);
	event_timer_set(timer, 0, 0);
	CHECK(!late);
	return machine_end(side->machine);
}

/* ---- which calls there are ---- */

static struct {
	unsigned long request;
	unsigned int count;
} requests[MOST_REQUESTS];
static unsigned int request_count;

/* Those of the good run that was recorded. */
static void list_requests(void)
{
	request_count = 0;
	CHECK(fake_kvm.call_count < FAKE_KVM_CALLS);
	for (unsigned int i = 0; i < fake_kvm.call_count; i++) {
		unsigned long request = fake_kvm.calls[i].request;
		unsigned int at = 0;

		while (at < request_count && requests[at].request != request)
			at++;
		if (at < request_count)
			continue;
		CHECK(request_count < MOST_REQUESTS);
		requests[at].request = request;
		requests[at].count = fake_kvm_count(request);
		if (request == KVM_RUN)
			requests[at].count = MIN(requests[at].count, MOST_RUNS);
		request_count++;
	}
}

/* ---- a run, and a reboot ---- */

/* A life from nothing to its end. 0: the guest ended it so; -errno: it did not begin. */
static int live(int how, enum machine_end *end)
{
	int code;

	configure(here);
	code = make(here, NULL);
	code = code ?: machine_start(here->machine, &err);
	if (code == 0) {
		__atomic_store_n(&wish, how, __ATOMIC_RELEASE);
		*end = wait_for_end(here);
	}
	close_side(here);
	return code;
}

static void check_nothing_is_left(unsigned int files, unsigned int tasks, unsigned int maps)
{
	CHECK_EQ(fake_kvm_open(), 0);
	CHECK_EQ(count_in("/proc/self/fd"), files);
	CHECK(threads_are(tasks));
	/* the fake's own, which the next vCPU takes over */
	CHECK(count_mappings() <= maps + FAKE_KVM_VCPUS);
}

/* It began and the guest ended it; or it did not begin, with a sentence; or it ended as failed, with a line in the log. */
static void check_life(int code, enum machine_end end, enum machine_end wanted)
{
	if (code)
		printf("# ioctl 0x%lx failed: %s\n", fake_kvm.failed, err.text);
	CHECK(code <= 0);
	CHECK(code == 0 || err.text[0]);
	CHECK(code < 0 || end == wanted || (end == MACHINE_FAILED && something_was_logged()));
}

static unsigned int fds, threads, mappings;

static void remember_what_is_there(void)
{
	fds = count_in("/proc/self/fd");
	threads = count_in("/proc/self/task");
	mappings = count_mappings();
}

static bool life_fails(unsigned int request, unsigned int n, int how)
{
	enum machine_end end = MACHINE_RUNNING;
	int code;

	begin();
	fake_kvm_fail_request(requests[request].request, n, EIO);
	code = live(how, &end);
	check_nothing_is_left(fds, threads, mappings);
	check_life(code, end, how == RESET ? MACHINE_REBOOT : MACHINE_OFF);
	return code < 0;
}

static void each_call_of_a_life_may_fail(void)
{
	unsigned int calls = 0, failures = 0;
	enum machine_end end = MACHINE_RUNNING;

	open_loop();
	begin();
	CHECK_EQ(live(POWER_DOWN, &end), 0);
	CHECK_EQ(end, MACHINE_OFF);
	CHECK(fake_kvm.most_in_guest <= 2);
	list_requests();
	remember_what_is_there();
	for (unsigned int i = 0; i < request_count; i++)
		for (unsigned int n = 1; n <= requests[i].count; n++, calls++)
			failures += life_fails(i, n, calls % 2 ? POWER_DOWN : RESET);
	printf("# %u calls, %u of them needed\n", calls, failures);
	CHECK(failures > 15);
}

/* ---- a move ---- */

/* The offer, the other machine, a trial, the pause, the state: until the guest may run there. */
static int move(bool *asked)
{
	struct machine_offer *offer = NULL;
	struct state_buffer trial = {0}, state = {0};
	char *text = NULL;
	int code = machine_offer(here->machine, MIGRATION_COPY_NONE, &text, &err);

	code = code ?: offer_parse(text, strlen(text), &offer, &err);
	if (code == 0) {
		configure(there);
		code = make(there, offer);
	}
	code = code ?: dirty_set_start(machine_dirty(here->machine), &err);
	code = code ?: pause_machine(here);
	if (code == 0) {
		code = machine_save(here->machine, &trial, &err);
		machine_resume(here->machine);
	}
	code = code ?: machine_load_trial(there->machine, trial.data, trial.len, &err);
	code = code ?: pause_machine(here);
	code = code ?: machine_save(here->machine, &state, &err);
	code = code ?: machine_load(there->machine, state.data, state.len, &err);
	*asked = code == 0;
	free(text);
	machine_offer_destroy(offer);
	state_buffer_free(&trial);
	state_buffer_free(&state);
	return code;
}

static uint64_t runs_of(const struct side *side, bool first)
{
	uint64_t runs = 0;
	int vm = fake_kvm_vcpu(0)->vm;

	for (unsigned int i = 0; i < FAKE_KVM_VCPUS; i++)
		if (fake_kvm.vcpus[i].run && (fake_kvm.vcpus[i].vm == vm) == first)
			runs += fake_kvm.vcpus[i].runs;
	return side ? runs : 0;
}

/* The guest goes on there if all has gone well, else here; and ends. */
static void go_on(int code)
{
	struct side *runs = code ? here : there;
	uint64_t other = code ? 0 : runs_of(here, true);

	if (code) {
		end_machine(there);
		dirty_set_stop(machine_dirty(here->machine));
		machine_resume(here->machine);
	} else {
		CHECK_EQ(machine_start(there->machine, &err), 0);
	}
	__atomic_store_n(&wish, POWER_DOWN, __ATOMIC_RELEASE);
	wait_for_end(runs);
	if (!code)
		CHECK_EQ(runs_of(here, true), other);
}

/* request 0: none fails. */
static bool move_fails(unsigned long request, unsigned int n)
{
	enum machine_end end;
	bool moved = false;
	int code;

	begin();
	configure(here);
	CHECK_EQ(make(here, NULL), 0);
	CHECK_EQ(machine_start(here->machine, &err), 0);
	if (request)
		fake_kvm_fail_request(request, n, EIO);
	else
		fake_kvm.call_count = 0;
	code = move(&moved);
	CHECK(code <= 0 && (!code || err.text[0]));
	CHECK(fake_kvm.failed || !code);
	go_on(code);
	end = machine_end(code ? here->machine : there->machine);
	CHECK(end == MACHINE_OFF || (end == MACHINE_FAILED && something_was_logged()));
	close_side(there);
	close_side(here);
	return code < 0;
}

static void each_call_of_a_move_may_fail(void)
{
	unsigned int calls = 0, failures = 0;

	open_loop();
	CHECK(!move_fails(0, 0));
	list_requests();
	remember_what_is_there();
	for (unsigned int i = 0; i < request_count; i++)
		for (unsigned int n = 1; n <= requests[i].count; n++, calls++) {
			failures += move_fails(requests[i].request, n);
			check_nothing_is_left(fds, threads, mappings);
		}
	printf("# %u calls, %u of them needed\n", calls, failures);
	CHECK(failures > 50);
	event_loop_destroy(take_ptr(loop));
	fake_kvm_reset();
	unlink(image);
	fd_close(&sink.fd);
}

TEST_MAIN(TEST(each_call_of_a_life_may_fail), TEST(each_call_of_a_move_may_fail))
