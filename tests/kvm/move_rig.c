/* SPDX-License-Identifier: Apache-2.0 */
/* See move_rig.h. */
#include "tests/kvm/move_rig.h"
#include "tests/unit/offer_text.h"

#include <fcntl.h>
#include <sys/epoll.h>

struct event_loop *loop;
static struct event_source *timer;
static bool late;
struct machine_identity identity;
struct err err;
static const struct log quiet = {.fd = STDERR_FILENO, .level = LOG_WARN, .prefix = "# "};
static struct side sides[2];
struct side *here = &sides[0], *there = &sides[1];

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

bool wait_for(struct side *side, const char *text, uint64_t ns)
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

void pass_time(uint64_t ns)
{
	late = false;
	event_timer_set(timer, ns, 0);
	while (!late)
		event_loop_run(loop);
}

void type(struct side *side, char c)
{
	CHECK_EQ(write(side->in[1], &c, 1), 1);
}

void forget_output(struct side *side)
{
	side->len = 0;
	side->printed[0] = 0;
}

void open_side(struct side *side)
{
	memset(side, 0, sizeof(*side));
	machine_config_init(&side->config);
	CHECK_EQ(pipe2(side->in, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(pipe2(side->out, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(event_loop_watch(loop, side->out[0], EPOLLIN, on_output, side, &side->source, &err), 0);
	side->open = true;
}

void make(struct side *side, const struct machine_offer *incoming)
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

void close_side(struct side *side)
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

void end(void)
{
	close_side(here);
	close_side(there);
	event_loop_destroy(take_ptr(loop));
}

static void begin(void)
{
	if (access("/dev/kvm", R_OK | W_OK))
		SKIP("/dev/kvm is missing or may not be used");
	end();
	identity.known = false;
	CHECK_EQ(event_loop_create(&loop, &err), 0);
	CHECK_EQ(event_loop_timer(loop, on_timer, NULL, &timer, &err), 0);
	open_side(here);
}

void prepare(const char *guest, const char *options)
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

void boot(const char *guest, const char *options)
{
	prepare(guest, options);
	CHECK_EQ(machine_start(here->machine, &err), 0);
	CHECK(wait_for(here, "ready", 60 * SECOND));
}

/* ---- memory ---- */

size_t count_bits(const unsigned long *bitmap, size_t pages)
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

struct state_buffer save(struct side *side)
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

void make_there(void)
{
	struct machine_offer *offer = NULL;
	char *text = NULL;
	int code = machine_offer(here->machine, MIGRATION_COPY_NONE, &text, &err);

	open_side(there);
	code = code ?: offer_parse(text, strlen(text), &offer, &err);
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

void pause_side(struct side *side)
{
	int code;

	while ((code = machine_pause(side->machine, -1, NULL)) == -EINPROGRESS)
		;
	CHECK_EQ(code, 0);
}

void move(void)
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

void check_good(struct side *side)
{
	pass_time(SECOND / 50);
	if (!strstr(side->printed, "good\n"))
		show_printed(side);
	CHECK(strstr(side->printed, "good\n"));
}
