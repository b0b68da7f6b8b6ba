/* SPDX-License-Identifier: Apache-2.0 */
/* See json_stage.h. */
#include "vmm/jail/json_stage.h"

#include "vmm/config/plain_json.h"
#include "vmm/config/value_list.h"

#define ANSWER MIB(4) /* bytes; a number takes up to nine, and two in the text */
#define WAIT_MS 20000

static int json_stage_load(const void *text, size_t len, json_t **ret, struct err *err)
{
	json_error_t error;
	json_t *root;

	if (len > JSON_STAGE_TEXT)
		return err_set(err, -EBADMSG, "%zu bytes, more than %llu", len, (unsigned long long)JSON_STAGE_TEXT);
	root = plain_json_read(text, len) ?: json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (!root)
		return err_set(err, -EBADMSG, "line %d, column %d: %s", error.line, error.column, error.text);
	*ret = root;
	return 0;
}

/* In the stage. */
static int json_stage_run(const void *text, size_t len, struct state_buffer *answer, struct err *err)
{
	json_t *root;

	return json_stage_load(text, len, &root, err) ?: value_list_write(root, answer, err);
}

int json_stage_create(enum seccomp_mode seccomp, struct stage **ret, struct err *err)
{
	const struct stage_options options = {
		.parse = json_stage_run, .most_text = JSON_STAGE_TEXT, .most_answer = ANSWER, .memory = MVMM_STAGE_MEMORY,
		.wait_ms = WAIT_MS, .seccomp = seccomp,
	};

	json_object_seed(0); /* it may open a file, which the stage may not */
	return stage_create(&options, ret, err);
}

int json_stage_ask(struct stage *stage, const void *text, size_t len, struct err *err)
{
	return stage ? stage_ask(stage, text, len, err) : 0;
}

int json_stage_parse(struct stage *stage, const void *text, size_t len, json_t **ret, struct err *err)
{
	struct state_buffer answer = {0};
	int code;

	if (!stage)
		return json_stage_load(text, len, ret, err);
	code = stage_was_asked(stage) ? 0 : stage_ask(stage, text, len, err);
	code = code ?: stage_answer(stage, &answer, err);
	code = code ?: value_list_read(answer.data, answer.len, ret, err);
	state_buffer_free(&answer);
	return code;
}
