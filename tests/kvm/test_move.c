/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that move, or do not: the guest goes on in the second machine and judges, or in the first. And the dirty log by
 * itself, with a guest that writes known pages.
 */
#include "core/monotonic.h"
#include "tests/kvm/move_rig.h"
#include "tests/unit/few_threads.h"
#include "tests/unit/offer_text.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

static void guest_goes_on(const char *options)
{
	boot("travel", options);
	pass_time(SECOND / 5);
	move();
	machine_destroy(take_ptr(here->machine));
	CHECK_EQ(machine_start(there->machine, &err), 0);
	CHECK(!machine_paused(there->machine));
	pass_time(SECOND / 5);
	type(there, 'e');
	CHECK(wait_for(there, NULL, 120 * SECOND));
	CHECK_EQ(machine_end(there->machine), MACHINE_OFF);
	check_good(there);
}

static void one_vcpu_moves(void)
{
	guest_goes_on("--cpus 1");
}

static void four_vcpus_move(void)
{
	guest_goes_on("--cpus 4 --balloon on");
}

/* Who runs the guest has the disk; the size of it is looked at before. */
static void a_disk_goes_along(void)
{
	char path[] = "/tmp/mvmm-move-XXXXXX", options[128];
	_cleanup_(fd_close) int fd = mkostemp(path, O_CLOEXEC);

	CHECK_EQ(ftruncate(fd, MIB(4)), 0);
	snprintf(options, sizeof(options), "--cpus 2 --disk %s,id=root", path);
	boot("travel", options);
	move();
	CHECK_EQ(machine_lock_disks(there->machine, &err), -EBUSY);
	CHECK(strstr(err.text, "--disk root: in use by"));
	machine_unlock_disks(here->machine);
	CHECK_EQ(machine_lock_disks(there->machine, &err), 0);
	CHECK_EQ(machine_lock_disks(here->machine, &err), -EBUSY);
	CHECK_EQ(machine_start(there->machine, &err), 0);
	type(there, 'e');
	CHECK(wait_for(there, NULL, 120 * SECOND));
	check_good(there);
	unlink(path);
}

/* ---- storage that hangs ---- */

/* Puts a full pipe in place of the open file: a write to it waits until somebody reads from *drain. */
static void hang_writes_to(const char *path, int *drain)
{
	char link[64], target[64], full[4096];
	int ends[2];

	CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(ends[1], full, sizeof(full)) > 0)
		;
	CHECK_EQ(fcntl(ends[1], F_SETFL, 0), 0);
	for (int fd = 3; fd < 1024; fd++) {
		ssize_t len;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		len = readlink(link, target, sizeof(target) - 1);
		target[MAX(len, 0)] = 0;
		if (strcmp(target, path) == 0)
			CHECK_EQ(dup3(ends[1], fd, O_CLOEXEC), fd);
	}
	close(ends[1]);
	*drain = ends[0];
}

/* Pauses until the guest has a request that does not end. */
static int pause_while_it_hangs(void)
{
	int code;

	for (int tries = 0; tries < 600; tries++) {
		int64_t deadline = monotonic_ms() + 30;

		while ((code = machine_pause(here->machine, deadline, &err)) == -EINPROGRESS)
			pass_time(SECOND / 1000);
		if (code)
			return code;
		machine_resume(here->machine);
		pass_time(SECOND / 10);
	}
	return 0;
}

static void storage_that_hangs_is_not_waited_for(void)
{
	char path[] = "/tmp/mvmm-move-XXXXXX", options[128], answer[4096];
	_cleanup_(fd_close) int drain = -1;
	int code;

	close(mkostemp(path, O_CLOEXEC));
	CHECK_EQ(truncate(path, MIB(4)), 0);
	snprintf(options, sizeof(options), "--cpus 1 --disk %s", path);
	prepare("disk", options);
	hang_writes_to(path, &drain);
	CHECK_EQ(machine_start(here->machine, &err), 0);
	CHECK_EQ(pause_while_it_hangs(), -ETIMEDOUT);
	CHECK_STR(err.text, "cannot be paused: disk0: its storage has not completed its requests");
	CHECK(!machine_paused(here->machine));
	CHECK_EQ(pause_while_it_hangs(), -ETIMEDOUT);
	/* No request was cancelled, and it can be ended when the storage answers. */
	CHECK_EQ(machine_settle(here->machine, &err), -EINPROGRESS);
	while (read(drain, answer, sizeof(answer)) > 0)
		;
	for (int tries = 0; (code = machine_settle(here->machine, &err)) == -EINPROGRESS && tries < 10000; tries++)
		pass_time(SECOND / 1000);
	CHECK_EQ(code, 0);
	close_side(here);
	unlink(path);
}

/* The offer of a machine, changed by fn, is refused with a sentence that has these words in it. */
static void refused_when(void (*fn)(json_t *offer), const char *words)
{
	struct machine_offer *offer = NULL;
	struct machine_host host = {.loop = loop, .serial_in = -1, .serial_out = -1, .console_in = -1, .console_out = -1};
	char *text;
	json_t *root;
	int code;

	CHECK_EQ(machine_offer(here->machine, MIGRATION_COPY_NONE, &text, &err), 0);
	root = json_loads(text, 0, NULL);
	free(text);
	fn(root);
	text = json_dumps(root, 0);
	json_decref(root);
	open_side(there);
	CHECK_EQ(offer_parse(text, strlen(text), &offer, &err), 0);
	free(text);
	CHECK_EQ(machine_offer_config(offer, &there->config, &err), 0);
	CHECK_EQ(machine_config_finish(&there->config, &err), 0);
	host.incoming = offer;
	code = machine_create(&there->config, &host, &there->machine, &err);
	code = code ?: machine_offer_check(offer, there->machine, &err);
	machine_offer_destroy(offer);
	if (code >= 0 || !strstr(err.text, words))
		printf("# %d, \"%s\"\n", code, err.text);
	CHECK(code < 0 && strstr(err.text, words));
	close_side(there);
}

static json_t *first_device(json_t *offer)
{
	return json_array_get(json_object_get(offer, "devices"), 0);
}

static void other_disk(json_t *offer)
{
	json_object_set_new(first_device(offer), "size", json_integer(12345678));
}

static void other_kind(json_t *offer)
{
	json_object_set_new(first_device(offer), "kind", json_string("net"));
}

static void more_features(json_t *offer)
{
	json_object_set_new(first_device(offer), "features", json_integer(1ll << 50 | 1ll << 51));
}

static void another_device(json_t *offer)
{
	json_array_append_new(json_object_get(offer, "devices"),
			      json_pack("{s:s, s:s, s:i, s:i, s:i}", "id", "x", "kind", "rng", "slot", 30, "features", 0, "size", 0));
}

static void renamed_device(json_t *offer)
{
	json_object_set_new(first_device(offer), "id", json_string("else"));
}

static void other_memory(json_t *offer)
{
	json_object_set_new(json_array_get(json_object_get(offer, "memory"), 0), "size", json_integer(4096));
}

static void faster_counter(json_t *offer)
{
	json_object_set_new(offer, "tsc_khz", json_integer(3 * json_integer_value(json_object_get(offer, "tsc_khz"))));
}

static bool scales_counters(void)
{
	_cleanup_(fd_close) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	return ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
}

static void no_cpu(json_t *offer)
{
	json_object_set_new(offer, "cpu", json_object());
}

/* Leaf 7 with every feature there could be, of another host. */
static void more_cpu(json_t *offer)
{
	json_t *cpu = json_object_get(offer, "cpu"), *table = json_object_get(cpu, "cpuid");

	json_object_set_new(cpu, "host", json_string("another"));
	for (size_t i = 0; i < json_array_size(table); i++) {
		json_t *entry = json_array_get(table, i);

		if (json_integer_value(json_array_get(entry, 0)) == 7 && json_integer_value(json_array_get(entry, 1)) == 0)
			json_array_set_new(entry, 4, json_integer(UINT32_MAX));
	}
}

static void a_target_that_differs_is_refused(void)
{
	char path[] = "/tmp/mvmm-move-XXXXXX", options[128];
	_cleanup_(fd_close) int fd = mkostemp(path, O_CLOEXEC);

	CHECK_EQ(ftruncate(fd, MIB(4)), 0);
	snprintf(options, sizeof(options), "--cpus 1 --disk %s,id=root", path);
	boot("travel", options);
	refused_when(other_disk, "root: the disk has 12345678 bytes where the guest runs, 4194304 here");
	refused_when(other_kind, "root: a net was offered, this is a disk");
	refused_when(more_features, "virtio feature bits 50, 51");
	refused_when(another_device, "3 devices were offered, this machine has 2");
	refused_when(renamed_device, "root: the offered machine has no such device");
	refused_when(other_memory, "memory has another layout");
	if (!scales_counters())
		refused_when(faster_counter, "time stamp counter runs at");
	refused_when(no_cpu, "CPU is a (nothing)");
	refused_when(more_cpu, "lacks features of the guest's CPU: ");
	unlink(path);
}

/* One for the CPU's model, and two for vCPUs. */
static void few_threads(json_t *offer)
{
	threads_to_come = 3;
}

/* The second machine's third vCPU gets no thread, which shows before anything has moved. */
static void a_target_without_threads_is_refused(void)
{
	boot("travel", "--cpus 4");
	refused_when(few_threads, "vCPU thread");
	threads_to_come = -1;
	type(here, 'e');
	CHECK(wait_for(here, NULL, 120 * SECOND));
	check_good(here);
}

/* The target did not work out: the guest goes on where it was. */
static void the_first_machine_can_go_on(void)
{
	boot("travel", "--cpus 2");
	move();
	machine_destroy(take_ptr(there->machine));
	machine_resume(here->machine);
	pass_time(SECOND / 5);
	type(here, 'e');
	CHECK(wait_for(here, NULL, 120 * SECOND));
	check_good(here);
}

/* An instruction that leaves the guest several times is finished before its vCPU rests, each time rightly. */
static void a_pause_hits_string_instructions(void)
{
	boot("strings", "--cpus 1");
	for (int i = 0; i < 200; i++) {
		pass_time(SECOND / 1000 + (uint64_t)i * 1000);
		pause_side(here);
		machine_resume(here->machine);
	}
	type(here, 'e');
	CHECK(wait_for(here, NULL, 60 * SECOND));
	check_good(here);
}

static void there_and_back_again(void)
{
	struct side *next;

	boot("travel", "--cpus 2");
	for (int i = 0; i < 5; i++) {
		pass_time(SECOND / 20);
		move();
		close_side(here);
		CHECK_EQ(machine_start(there->machine, &err), 0);
		pass_time(SECOND / 20);
		next = there;
		there = here;
		here = next;
	}
	type(here, 'e');
	CHECK(wait_for(here, NULL, 120 * SECOND));
	CHECK_EQ(machine_end(here->machine), MACHINE_OFF);
}

/* A state with any piece missing or too much is refused; the process stays. */
static void nonsense_is_not_loaded(void)
{
	struct state_buffer state;
	int code;

	boot("travel", "--cpus 1");
	pause_side(here);
	state = save(here);
	for (size_t len = 0; len < state.len; len += MAX(state.len / 23, 1)) {
		make_there();
		CHECK(machine_load(there->machine, state.data, len, &err) < 0);
		close_side(there);
	}
	for (size_t at = 3; at < state.len; at += MAX(state.len / 41, 1)) {
		state.data[at] ^= 0xff;
		make_there();
		code = machine_load(there->machine, state.data, state.len, &err);
		CHECK(code <= 0 && (!code || err.text[0]));
		close_side(there);
		state.data[at] ^= 0xff;
	}
	state_buffer_free(&state);
}

/* ---- the dirty log by itself ---- */

#define KNOWN_FIRST (MIB(16) / GUEST_PAGE_SIZE)
#define KNOWN_PAGES 2048u

/* Types a digit and collects: exactly the pages that the guest then writes are reported, and none twice. */
static void writes_are_reported(char digit)
{
	const struct guest_region *ram = guest_memory_regions(machine_memory(here->machine), &(size_t){0});
	unsigned long bitmap[8192 / BITS_PER_LONG] = {0};

	CHECK_EQ(dirty_set_collect(machine_dirty(here->machine), ram->gpa, ram->size, bitmap, &err), 0);
	forget_output(here);
	type(here, digit);
	CHECK(wait_for(here, "written", 60 * SECOND));
	memset(bitmap, 0, sizeof(bitmap));
	CHECK_EQ(dirty_set_collect(machine_dirty(here->machine), ram->gpa, ram->size, bitmap, &err), 0);
	for (unsigned int page = 0; page < KNOWN_PAGES; page++)
		CHECK_EQ(bitmap_test(bitmap, KNOWN_FIRST + page), page % (unsigned int)(digit - '0') == 0);
	memset(bitmap, 0, sizeof(bitmap));
	CHECK_EQ(dirty_set_collect(machine_dirty(here->machine), MIB(16), KNOWN_PAGES * GUEST_PAGE_SIZE, bitmap, &err), 0);
	CHECK_EQ(count_bits(bitmap, KNOWN_PAGES), 0);
}

static void the_log_reports_what_a_guest_writes(void)
{
	unsigned long bitmap[1] = {0};

	boot("dirty", "--cpus 1");
	CHECK_EQ(dirty_set_start(machine_dirty(here->machine), &err), 0);
	writes_are_reported('7');
	writes_are_reported('3');
	writes_are_reported('1');
	dirty_set_stop(machine_dirty(here->machine));
	CHECK_EQ(dirty_set_start(machine_dirty(here->machine), &err), 0);
	writes_are_reported('9');
	/* What this process writes is told by the other source. */
	CHECK_EQ(guest_memory_write(machine_memory(here->machine), MIB(20) + 5, "x", 1), 0);
	CHECK_EQ(dirty_set_collect(machine_dirty(here->machine), MIB(20), 8 * GUEST_PAGE_SIZE, bitmap, &err), 0);
	CHECK_EQ(bitmap[0], 1);
	type(here, 'e');
	CHECK(wait_for(here, NULL, 60 * SECOND));
}

/* A range that ends and begins in the middle of words leaves its neighbours' writes where they are. */
static void ranges_may_lie_anywhere(void)
{
	unsigned long bitmap[KNOWN_PAGES / BITS_PER_LONG + 1];
	size_t found = 0;

	boot("dirty", "--cpus 1");
	CHECK_EQ(dirty_set_start(machine_dirty(here->machine), &err), 0);
	writes_are_reported('9');
	forget_output(here);
	type(here, '1');
	CHECK(wait_for(here, "written", 60 * SECOND));
	for (size_t page = 0; page < KNOWN_PAGES; page += 37) {
		size_t pages = MIN(37u, KNOWN_PAGES - page);

		memset(bitmap, 0, sizeof(bitmap));
		CHECK_EQ(dirty_set_collect(machine_dirty(here->machine), MIB(16) + page * GUEST_PAGE_SIZE,
					   pages * GUEST_PAGE_SIZE, bitmap, &err), 0);
		CHECK_EQ(count_bits(bitmap, pages), pages);
		found += pages;
	}
	CHECK_EQ(found, KNOWN_PAGES);
	end();
}

TEST_MAIN(TEST(one_vcpu_moves), TEST(four_vcpus_move), TEST(a_disk_goes_along), TEST(a_target_that_differs_is_refused),
	  TEST(the_first_machine_can_go_on), TEST(a_target_without_threads_is_refused),
	  TEST(a_pause_hits_string_instructions), TEST(there_and_back_again), TEST(nonsense_is_not_loaded),
	  TEST(the_log_reports_what_a_guest_writes), TEST(storage_that_hangs_is_not_waited_for),
	  TEST(ranges_may_lie_anywhere))
