/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that move, inside one process and without a network: a tiny guest runs, is followed by the dirty log, paused,
 * saved; a second machine is made of the first one's offer, gets its memory and its state, and the guest goes on there and
 * judges. And the dirty log by itself, with a guest that writes known pages.
 */
#include "tests/unit/test.h"
#include "core/bitmap.h"
#include "core/monotonic.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/machine/tell_apart.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define SECOND 1000000000ull

/* One machine with its serial port's two ends. */
struct side {
	struct machine_config config;
	struct machine *machine;
	int in[2], out[2]; /* pipes: what is typed, what is printed */
	struct event_source *source;
	char printed[4096];
	size_t len;
	const char *awaited;
	bool open;
};

static struct event_loop *loop;
static struct event_source *timer;
static bool late;
static struct machine_identity identity; /* of here's machine, if a case keeps it */
static struct err err;
static const struct log quiet = {.fd = STDERR_FILENO, .level = LOG_WARN, .prefix = "# "};
/* Both are given back when the next case begins. */
static struct side sides[2], *here = &sides[0], *there = &sides[1];

/* Threads that can still be started; -1: any number. */
static int threads_to_come = -1;

/* In the place of the C library's. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *opaque), void *opaque)
{
	__typeof__(pthread_create) *real = (__typeof__(pthread_create) *)dlsym(RTLD_NEXT, "pthread_create");

	if (!threads_to_come)
		return EAGAIN;
	threads_to_come -= threads_to_come > 0;
	return real(thread, attr, fn, opaque);
}

/* ---- a machine and what it says ---- */

static void on_timer(void *opaque, uint32_t events)
{
	late = true;
	event_loop_stop(loop);
}

static void on_output(void *opaque, uint32_t events)
{
	struct side *side = opaque;
	ssize_t n = read(side->out[0], side->printed + side->len, sizeof(side->printed) - 1 - side->len);

	if (n > 0)
		side->len += (size_t)n;
	side->printed[side->len] = 0;
	if (side->awaited && strstr(side->printed, side->awaited))
		event_loop_stop(loop);
}

static void show_printed(const struct side *side)
{
	for (const char *line = side->printed, *end; *line; line = *end ? end + 1 : end) {
		end = strchrnul(line, '\n');
		printf("# printed: %.*s\n", (int)(end - line), line);
	}
}

/* Runs the loop until the guest prints the text (NULL: until the machine ends), or for as long. */
static bool wait_for(struct side *side, const char *text, uint64_t ns)
{
	bool there_yet;

	side->awaited = text;
	late = false;
	event_timer_set(timer, ns, 0);
	do {
		if (text && strstr(side->printed, text))
			break;
		event_loop_run(loop);
	} while (!late && (text || machine_end(side->machine) == MACHINE_RUNNING) && !(text && strstr(side->printed, text)));
	event_timer_set(timer, 0, 0);
	there_yet = text ? strstr(side->printed, text) != NULL : machine_end(side->machine) != MACHINE_RUNNING;
	if (!there_yet)
		show_printed(side);
	return there_yet;
}

static void pass_time(uint64_t ns)
{
	late = false;
	event_timer_set(timer, ns, 0);
	while (!late)
		event_loop_run(loop);
}

static void type(struct side *side, char c)
{
	CHECK_EQ(write(side->in[1], &c, 1), 1);
}

static void forget_output(struct side *side)
{
	side->len = 0;
	side->printed[0] = 0;
}

static void open_side(struct side *side)
{
	memset(side, 0, sizeof(*side));
	machine_config_init(&side->config);
	CHECK_EQ(pipe2(side->in, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(pipe2(side->out, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(event_loop_watch(loop, side->out[0], EPOLLIN, on_output, side, &side->source, &err), 0);
	side->open = true;
}

static void make(struct side *side, const struct machine_offer *incoming)
{
	const struct machine_host host = {
		.loop = loop, .log = &quiet, .serial_in = side->in[0], .serial_out = side->out[1], .console_in = -1,
		.console_out = -1, .incoming = incoming, .identity = &identity,
	};
	int code = machine_create(&side->config, &host, &side->machine, &err);

	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
}

static void close_side(struct side *side)
{
	if (!side->open)
		return;
	machine_destroy(take_ptr(side->machine));
	machine_config_done(&side->config);
	event_source_remove(side->source);
	for (int end = 0; end < 2; end++) {
		fd_close(&side->in[end]);
		fd_close(&side->out[end]);
	}
	side->open = false;
}

static void begin(void)
{
	if (access("/dev/kvm", R_OK | W_OK))
		SKIP("/dev/kvm is missing or may not be used");
	close_side(here);
	close_side(there);
	identity.known = false;
	event_loop_destroy(loop);
	CHECK_EQ(event_loop_create(&loop, &err), 0);
	CHECK_EQ(event_loop_timer(loop, on_timer, NULL, &timer, &err), 0);
	open_side(here);
}

/* A machine with this guest and these options. */
static void prepare(const char *guest, const char *options)
{
	static char line[512];
	char *words[32];
	int count = 0, code;

	begin();
	snprintf(line, sizeof(line), "--kernel %s/guest_%s --memory 32M --name mover %s", GUESTS, guest, options);
	for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
		words[count++] = word;
	code = options_parse(&machine_options, &here->config, count, words, NULL, 0, &err);
	code = code ?: machine_config_finish(&here->config, &err);
	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
	make(here, NULL);
}

/* Starts one and waits until the guest is ready. */
static void boot(const char *guest, const char *options)
{
	prepare(guest, options);
	CHECK_EQ(machine_start(here->machine, &err), 0);
	CHECK(wait_for(here, "ready", 60 * SECOND));
}

/* ---- memory ---- */

static size_t count_bits(const unsigned long *bitmap, size_t pages)
{
	size_t count = 0;

	for (size_t i = 0; i < bitmap_longs(pages); i++)
		count += (size_t)__builtin_popcountl(bitmap[i]);
	return count;
}

/* Copies what was written to one region since the last time, or all of it; how many pages were written. */
static size_t copy_region(const struct guest_region *from, const struct guest_region *to, bool all)
{
	size_t pages = from->size / GUEST_PAGE_SIZE, count;
	unsigned long *bitmap = calloc(bitmap_longs(pages), sizeof(*bitmap));
	int code = dirty_set_collect(machine_dirty(here->machine), from->gpa, from->size, bitmap, &err);

	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
	for (size_t page = 0; page < pages; page++)
		if (all || bitmap_test(bitmap, page))
			memcpy((char *)to->host + page * GUEST_PAGE_SIZE, (char *)from->host + page * GUEST_PAGE_SIZE,
			       GUEST_PAGE_SIZE);
	count = count_bits(bitmap, pages);
	free(bitmap);
	return count;
}

static size_t copy_memory(bool all)
{
	size_t count, same, pages = 0;
	const struct guest_region *from = guest_memory_regions(machine_memory(here->machine), &count);
	const struct guest_region *to = guest_memory_regions(machine_memory(there->machine), &same);

	CHECK_EQ(count, same);
	for (size_t i = 0; i < count; i++) {
		CHECK(from[i].gpa == to[i].gpa && from[i].size == to[i].size);
		pages += copy_region(&from[i], &to[i], all);
	}
	return pages;
}

/* The guest writes all the time, if only it gets a processor. */
static void copy_what_is_written(void)
{
	int tries = 600;

	do {
		pass_time(SECOND / 20);
	} while (!copy_memory(false) && --tries);
	CHECK(tries);
}

static bool memory_is_the_same(void)
{
	size_t count;
	const struct guest_region *from = guest_memory_regions(machine_memory(here->machine), &count);
	const struct guest_region *to = guest_memory_regions(machine_memory(there->machine), &count);
	bool same = true;

	for (size_t i = 0; i < count; i++)
		for (uint64_t at = 0; at < from[i].size; at += GUEST_PAGE_SIZE)
			if (memcmp((char *)from[i].host + at, (char *)to[i].host + at, GUEST_PAGE_SIZE) != 0) {
				printf("# page 0x%llx differs\n", (unsigned long long)(from[i].gpa + at));
				same = false;
			}
	return same;
}

/* ---- state ---- */

/* The count that a local APIC's timer has come to goes on by itself: register 0x390 of each. */
static void forget_timer_counts(struct state_buffer *state)
{
	static const char field[] = "\5lapic\2\0\4\0\0"; /* name, kind, 1024 bytes */
	uint8_t *at = state->data, *end = state->data + state->len;

	while ((at = memmem(at, (size_t)(end - at), field, sizeof(field) - 1))) {
		at += sizeof(field) - 1;
		memset(at + 0x390, 0, 4);
	}
}

static bool states_are_the_same(struct state_buffer *a, struct state_buffer *b)
{
	size_t at = 0;

	forget_timer_counts(a);
	forget_timer_counts(b);
	if (a->len != b->len)
		printf("# %zu bytes and %zu\n", a->len, b->len);
	while (at < MIN(a->len, b->len) && a->data[at] == b->data[at])
		at++;
	if (at == a->len && at == b->len)
		return true;
	for (size_t i = at > 200 ? at - 200 : 0; i < at; i++)
		putchar(a->data[i] > ' ' && a->data[i] <= '~' ? a->data[i] : '.');
	printf(" < byte %zu differs\n", at);
	return false;
}

static struct state_buffer save(struct side *side)
{
	struct state_buffer state = {0};
	int code = machine_save(side->machine, &state, &err);

	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
	return state;
}

static void load(struct side *side, const struct state_buffer *state)
{
	int code = machine_load(side->machine, state->data, state->len, &err);

	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
}

/* What a side says of its machine, but for the memory that this process uses at the time. */
static json_t *offer_of(const struct side *side)
{
	json_t *root;
	char *text;

	CHECK_EQ(machine_offer(side->machine, MIGRATION_COPY_NONE, &text, &err), 0);
	root = json_loads(text, 0, NULL);
	free(text);
	CHECK(json_object_del(root, "used") == 0);
	return root;
}

/* What the second machine says of itself is what the first one says. */
static void check_offers(void)
{
	json_t *first = offer_of(here), *second = offer_of(there);

	CHECK(json_equal(first, second));
	json_decref(first);
	json_decref(second);
}

/* The second machine, as the first one's offer describes it. */
static void make_there(void)
{
	struct machine_offer *offer = NULL;
	char *text = NULL;
	int code = machine_offer(here->machine, MIGRATION_COPY_NONE, &text, &err);

	open_side(there);
	code = code ?: machine_offer_parse(text, strlen(text), &offer, &err);
	code = code ?: machine_offer_config(offer, &there->config, &err);
	code = code ?: machine_config_finish(&there->config, &err);
	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
	make(there, offer);
	code = machine_offer_check(offer, there->machine, &err);
	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
	CHECK(machine_paused(there->machine));
	machine_offer_destroy(offer);
	free(text);
}

static void pause_side(struct side *side)
{
	int code;

	while ((code = machine_pause(side->machine, -1, NULL)) == -EINPROGRESS)
		;
	CHECK_EQ(code, 0);
}

/* Moves the guest: memory while it runs, then the rest. Leaves the first machine paused and the second one ready to start. */
static void move(void)
{
	struct state_buffer first, again, loaded;

	make_there();
	CHECK_EQ(dirty_set_start(machine_dirty(here->machine), &err), 0);
	copy_memory(true);
	for (int round = 0; round < 3; round++)
		copy_what_is_written();
	pause_side(here);
	first = save(here);
	again = save(here);
	CHECK(states_are_the_same(&first, &again));
	copy_memory(false);
	CHECK(memory_is_the_same());
	dirty_set_stop(machine_dirty(here->machine));
	load(there, &first);
	check_offers();
	loaded = save(there);
	CHECK(states_are_the_same(&first, &loaded));
	CHECK(memory_is_the_same());
	state_buffer_free(&first);
	state_buffer_free(&again);
	state_buffer_free(&loaded);
}

/* What the guest found when it judged itself. */
static void check_good(struct side *side)
{
	pass_time(SECOND / 50);
	if (!strstr(side->printed, "good\n"))
		show_printed(side);
	CHECK(strstr(side->printed, "good\n"));
}

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

/* ---- the cases ---- */

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
	CHECK_EQ(machine_offer_parse(text, strlen(text), &offer, &err), 0);
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
	boot("travel", "--cpus 2");
	for (int i = 0; i < 5; i++) {
		pass_time(SECOND / 20);
		move();
		close_side(here);
		CHECK_EQ(machine_start(there->machine, &err), 0);
		pass_time(SECOND / 20);
		here = there;
		there = here == &sides[0] ? &sides[1] : &sides[0];
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
	close_side(here);
	event_loop_destroy(take_ptr(loop));
}

/* ---- clones ---- */

/* What a guest says of itself. */
struct identity {
	char id[33];
	uint64_t generation, disruption, time;
	uint32_t sequence, events;
};

static uint64_t host_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

/* Asks it. The time that it computes is the true one, but for what the rate of a counter may be off. */
static struct identity ask(struct side *side)
{
	uint64_t before = host_time();
	struct identity ret = {0};
	const char *at;

	forget_output(side);
	type(side, 'p');
	CHECK(wait_for(side, " end\n", 60 * SECOND));
	at = strstr(side->printed, "id ");
	CHECK(at && sscanf(at, "id %32s generation %lx disruption %lx sequence %x events %x time %lx", ret.id, &ret.generation,
			   &ret.disruption, &ret.sequence, &ret.events, &ret.time) == 6);
	if (ret.time < before - SECOND / 100 || ret.time > host_time() + SECOND / 100)
		printf("# %lld ns after the question, which took %llu\n", (long long)(ret.time - before),
		       (unsigned long long)(host_time() - before));
	CHECK(ret.time >= before - SECOND / 100 && ret.time <= host_time() + SECOND / 100);
	CHECK_EQ(ret.sequence % 2, 0);
	return ret;
}

/* Away for a while; clone: it comes back as another machine. */
static struct identity go_away(bool clone)
{
	move();
	machine_destroy(take_ptr(here->machine));
	pass_time(SECOND / 3);
	if (clone)
		CHECK_EQ(machine_tell_apart(there->machine, &err), 0);
	CHECK_EQ(machine_start(there->machine, &err), 0);
	return ask(there);
}

static void a_machine_that_moves_is_the_same(void)
{
	struct identity before, after;

	boot("clone", "");
	before = ask(here);
	CHECK_EQ(before.events, 0);
	CHECK_EQ(before.sequence, 2);
	pause_side(here);
	pass_time(SECOND / 3);
	machine_resume(here->machine);
	after = ask(here);
	CHECK_STR(after.id, before.id);
	CHECK(after.generation == before.generation && after.disruption == before.disruption);
	CHECK_EQ(after.events, 8); /* the time is another one */
	CHECK_EQ(after.sequence, 4);
	after = go_away(false);
	CHECK_STR(after.id, before.id);
	CHECK(after.generation == before.generation && after.disruption == before.disruption);
	CHECK_EQ(after.events, 8);
	CHECK_EQ(after.sequence, 6);
}

static void a_restored_machine_is_another_one(void)
{
	struct identity before, after;

	boot("clone", "--clock run");
	before = ask(here);
	after = go_away(true);
	CHECK(strcmp(after.id, before.id) != 0 && strlen(after.id) == 32);
	CHECK(after.generation != before.generation && after.disruption != before.disruption);
	CHECK_EQ(after.events, 8 | 4);
}

/* But a guest that reboots is still the clone that it was. */
static void every_start_has_an_id_of_its_own(void)
{
	struct identity first, second, again;

	boot("clone", "");
	first = ask(here);
	CHECK(strcmp(first.id, "00000000000000000000000000000000") != 0);
	boot("clone", "");
	CHECK(strcmp(ask(here).id, first.id) != 0);
	second = go_away(true);
	machine_destroy(take_ptr(there->machine));
	there->config.kernel = strdup(GUESTS "/guest_clone");
	make(there, NULL);
	CHECK_EQ(machine_start(there->machine, &err), 0);
	forget_output(there);
	CHECK(wait_for(there, "ready", 60 * SECOND));
	again = ask(there);
	CHECK_STR(again.id, second.id);
	CHECK(again.generation == second.generation && again.generation);
	CHECK_EQ(again.events, 0);
}

TEST_MAIN(TEST(one_vcpu_moves), TEST(four_vcpus_move), TEST(a_disk_goes_along),
	  TEST(a_target_that_differs_is_refused), TEST(the_first_machine_can_go_on), TEST(a_target_without_threads_is_refused),
	  TEST(a_pause_hits_string_instructions), TEST(there_and_back_again), TEST(nonsense_is_not_loaded),
	  TEST(the_log_reports_what_a_guest_writes), TEST(storage_that_hangs_is_not_waited_for),
	  TEST(ranges_may_lie_anywhere),
	  TEST(a_machine_that_moves_is_the_same), TEST(a_restored_machine_is_another_one),
	  TEST(every_start_has_an_id_of_its_own))
