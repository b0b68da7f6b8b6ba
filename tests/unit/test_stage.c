/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/jail/stage and json_stage: a process that parses and holds nothing, and what becomes of one that fails or lies. */
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/test.h"
#include "vmm/jail/json_stage.h"

static struct err err;
static struct state_buffer answer;

static int say(struct state_buffer *out, const char *text)
{
	return state_buffer_add(out, text, strlen(text));
}

/* Asks a new stage; afterwards no process is left. answer has what it says, and a zero. */
static int ask_with(const struct stage_options *given, const char *text)
{
	struct stage_options options = *given;
	struct stage *stage = NULL;
	int code;

	options.most_text = options.most_text ?: 1000;
	options.most_answer = options.most_answer ?: 1000;
	options.wait_ms = options.wait_ms ?: 60000;
	state_buffer_free(&answer);
	err.text[0] = 0;
	CHECK_EQ(stage_create(&options, &stage, &err), 0);
	code = stage_ask(stage, text, strlen(text), &err) ?: stage_answer(stage, &answer, &err);
	stage_destroy(stage);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
	CHECK_EQ(state_buffer_add(&answer, "", 1), 0);
	return code;
}

static int ask(int (*parse)(const void *, size_t, struct state_buffer *, struct err *), enum seccomp_mode mode)
{
	return ask_with(&(struct stage_options){.parse = parse, .seccomp = mode}, "text");
}

/* ---- what a stage does ---- */

static int repeat(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	return state_buffer_add(out, text, len) ?: state_buffer_add(out, text, len);
}

static void it_answers(void)
{
	CHECK_EQ(ask(repeat, SECCOMP_ON), 0);
	CHECK_STR((char *)answer.data, "texttext");
	CHECK_EQ(ask(repeat, SECCOMP_OFF), 0);
	CHECK_STR((char *)answer.data, "texttext");
}

static int refuse(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	return err_set(e, -EBADMSG, "not %.*s\x1b[31m\r\n", (int)len, (const char *)text);
}

static void it_says_what_is_wrong_and_nothing_that_a_terminal_heeds(void)
{
	CHECK_EQ(ask(refuse, SECCOMP_ON), -EBADMSG);
	CHECK_STR(err.text, "not text?[31m?");
}

/* Which descriptors are open, and whether a capability is left. */
static int look_around(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};
	char open[100] = "";

	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			snprintf(open + strlen(open), sizeof(open) - strlen(open), "%d ", fd);
	syscall(SYS_capget, &header, data);
	if (data[0].effective || data[0].permitted || data[1].permitted)
		say(out, "capabilities ");
	if (dup(3) >= 0 || fcntl(3, F_DUPFD, 100) >= 0)
		say(out, "one more ");
	return say(out, open);
}

static void it_holds_nothing_but_its_socket(void)
{
	int kept[20];

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		kept[i] = open("/dev/null", O_RDONLY); /* none is close-on-exec */
	CHECK_EQ(ask(look_around, SECCOMP_OFF), 0);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		close(kept[i]);
	CHECK_STR((char *)answer.data, "3 ");
}

static int open_a_file(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	return open("/etc/passwd", O_RDONLY) < 0 ? -1 : say(out, "opened");
}

static void a_call_that_it_must_not_make_ends_it_and_is_named(void)
{
	CHECK_EQ(ask(open_a_file, SECCOMP_ON), -EBADMSG);
	CHECK_STR(err.text, "thread mvmm-stage made the system call openat (257), which its filter does not allow; the machine ends; "
			    "--seccomp log allows it and logs it");
	CHECK_EQ(ask(open_a_file, SECCOMP_LOG), -EBADMSG); /* no descriptor is to be had */
	CHECK_STR(err.text, "");
}

static int send_a_descriptor(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	return (int)syscall(SYS_sendmsg, 3, NULL, 0);
}

static int wait_for_a_descriptor(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	return (int)syscall(SYS_recvmsg, 3, NULL, 0);
}

static void it_neither_takes_nor_gives_descriptors(void)
{
	CHECK_EQ(ask(send_a_descriptor, SECCOMP_ON), -EBADMSG);
	CHECK(strstr(err.text, "sendmsg (46)"));
	CHECK_EQ(ask(wait_for_a_descriptor, SECCOMP_ON), -EBADMSG);
	CHECK(strstr(err.text, "recvmsg (47)"));
}

/* ---- what goes wrong ---- */

static int crash(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	abort();
}

static int leave(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	syscall(SYS_exit_group, 0);
	return 0;
}

static int say_nothing(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	char c;

	for (;;)
		if (read(3, &c, 1) == 0) /* only when nobody waits any more */
			return 0;
}

static int run_for_ever(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	for (volatile bool ever = true; ever;)
		;
	return 0;
}

static int say_too_much(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	for (int i = 0; i < 1001; i++)
		say(out, "x");
	return 0;
}

static void a_crash_is_one_line(void)
{
	CHECK_EQ(ask(crash, SECCOMP_OFF), -EPIPE);
	CHECK_STR(err.text, "the process that parses it was ended by signal 6 (Aborted)");
	CHECK_EQ(ask(leave, SECCOMP_ON), -EPIPE);
	CHECK_STR(err.text, "the process that parses it ended without an answer");
}

static void silence_has_an_end(void)
{
	const struct stage_options options = {.parse = say_nothing, .wait_ms = 1000, .seccomp = SECCOMP_ON};

	CHECK_EQ(ask_with(&options, "text"), -ETIMEDOUT);
	CHECK_STR(err.text, "the process that parses it did not answer in 1 s");
}

static void time_of_a_processor_has_an_end(void)
{
	CHECK_EQ(ask(run_for_ever, SECCOMP_ON), -EPIPE);
	CHECK_STR(err.text, "the process that parses it was ended by signal 9 (Killed)");
}

static void an_answer_has_a_length(void)
{
	CHECK_EQ(ask(say_too_much, SECCOMP_ON), -EBADMSG);
	CHECK_STR(err.text, "the process that parses it answers with more than 1000 bytes");
	CHECK_EQ(ask_with(&(struct stage_options){.parse = say_too_much, .most_answer = 1001}, "text"), 0);
	CHECK_EQ(ask_with(&(struct stage_options){.parse = repeat, .most_text = 3}, "text"), -EBADMSG);
	CHECK_STR(err.text, "4 bytes, more than 3");
}

static int take_memory(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	void *memory = mmap(NULL, MIB(64), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return say(out, memory == MAP_FAILED ? "no" : "yes");
}

static void memory_has_an_end(void)
{
	CHECK_EQ(ask_with(&(struct stage_options){.parse = take_memory, .memory = MIB(1)}, "text"), 0);
	CHECK_STR((char *)answer.data, "no");
	CHECK_EQ(ask(take_memory, SECCOMP_ON), 0);
	CHECK_STR((char *)answer.data, "yes");
}

static void one_that_is_not_asked_leaves_nothing_behind(void)
{
	const struct stage_options options = {.parse = repeat, .most_text = 1, .most_answer = 1, .wait_ms = 1000};
	struct stage *stage = NULL;

	CHECK_EQ(stage_create(&options, &stage, &err), 0);
	CHECK(!stage_was_asked(stage));
	stage_destroy(stage);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
}

static void it_ends_with_who_has_made_it(void)
{
	const struct stage_options options = {.parse = repeat, .most_text = 1, .most_answer = 1, .wait_ms = 1000};
	struct stage *stage = NULL;
	pid_t pid;

	CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	pid = fork();
	if (pid == 0)
		syscall(SYS_exit_group, stage_create(&options, &stage, NULL) ? 1 : 0);
	CHECK(pid > 0);
	for (int left = 2; left; left--) { /* the stage's process has become ours */
		int status = -1;

		CHECK(waitpid(-1, &status, 0) > 0);
		CHECK_EQ(status, 0);
	}
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
}

/* ---- JSON ---- */

static int parse_in(enum seccomp_mode mode, const char *text, json_t **ret)
{
	struct stage *stage = NULL;
	int code;

	CHECK_EQ(json_stage_create(mode, &stage, &err), 0);
	code = json_stage_parse(stage, text, strlen(text), ret, &err);
	stage_destroy(stage);
	return code;
}

static void json_is_the_same_as_without(void)
{
	static const char *const texts[] = {
		"{\"a\":[1,-2,9007199254740993,true,false,null,\"\"],\"b\":{\"c\":\"text\"}}", "[]", "{}",
		"[ 1.5 , \"\\u00e9\\n\" ]", "{\"a\":{\"a\":{\"a\":[[[]]]}}}",
	};
	json_t *here, *there;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CHECK_EQ(json_stage_parse(NULL, texts[i], strlen(texts[i]), &here, &err), 0);
		CHECK_EQ(parse_in(SECCOMP_ON, texts[i], &there), 0);
		CHECK(json_equal(here, there));
		json_decref(here);
		json_decref(there);
	}
}

static void json_that_is_invalid_is_refused_with_the_same_words(void)
{
	static const char *const texts[] = {"", "{", "{\"a\":1,\"a\":2}", "[1,]", "[\"\xff\"]", "[\"\\u0000\"]"};
	struct err in_stage;
	json_t *root;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CHECK_EQ(parse_in(SECCOMP_ON, texts[i], &root), -EBADMSG);
		in_stage = err;
		CHECK_EQ(json_stage_parse(NULL, texts[i], strlen(texts[i]), &root, &err), -EBADMSG);
		CHECK(err.text[0]);
		CHECK_STR(in_stage.text, err.text);
	}
}

static void what_is_asked_in_advance_is_asked_once(void)
{
	struct stage *stage = NULL;
	json_t *root;

	CHECK_EQ(json_stage_ask(NULL, "[1]", 3, &err), 0);
	CHECK_EQ(json_stage_create(SECCOMP_ON, &stage, &err), 0);
	CHECK_EQ(json_stage_ask(stage, "[1]", 3, &err), 0);
	CHECK_EQ(json_stage_parse(stage, "[1]", 3, &root, &err), 0);
	CHECK_EQ(json_integer_value(json_array_get(root, 0)), 1);
	json_decref(root);
	stage_destroy(stage);
}

static int lie(const void *text, size_t len, struct state_buffer *out, struct err *e)
{
	return state_buffer_add(out, "o\xff\xff\xff\xff...", 8);
}

static void an_answer_that_is_garbage_is_refused(void)
{
	const struct stage_options options = {
		.parse = lie, .most_text = 100, .most_answer = 100, .wait_ms = 60000, .seccomp = SECCOMP_ON,
	};
	struct stage *stage = NULL;
	json_t *root = NULL;

	CHECK_EQ(stage_create(&options, &stage, &err), 0);
	CHECK_EQ(json_stage_parse(stage, "[1]", 3, &root, &err), -EBADMSG);
	CHECK_STR(err.text, "a list of values is damaged, or there is no memory for it");
	CHECK(!root);
	stage_destroy(stage);
}

TEST_MAIN(TEST(it_answers), TEST(it_says_what_is_wrong_and_nothing_that_a_terminal_heeds), TEST(it_holds_nothing_but_its_socket),
	  TEST(a_call_that_it_must_not_make_ends_it_and_is_named), TEST(it_neither_takes_nor_gives_descriptors), TEST(a_crash_is_one_line),
	  TEST(silence_has_an_end), TEST(time_of_a_processor_has_an_end), TEST(an_answer_has_a_length), TEST(memory_has_an_end),
	  TEST(one_that_is_not_asked_leaves_nothing_behind), TEST(it_ends_with_who_has_made_it), TEST(json_is_the_same_as_without),
	  TEST(json_that_is_invalid_is_refused_with_the_same_words), TEST(what_is_asked_in_advance_is_asked_once),
	  TEST(an_answer_that_is_garbage_is_refused))
