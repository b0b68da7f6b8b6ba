/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON that a stranger has written, parsed by a stage (stage.h): the description of a snapshot, and that of a machine
 * that arrives. The stage answers with a flat list of values (value_list.h), of which whoever opens what they name reads no
 * more than types and lengths. A stage that lies says nothing that the text could not have said.
 */
#pragma once

#include "vmm/jail/stage.h"

#include <jansson.h>

#define JSON_STAGE_TEXT MIB(2) /* bytes */

/* As stage_create. */
int json_stage_create(enum seccomp_mode seccomp, struct stage **ret, struct err *err);

/* Gives the stage its text in advance: json_stage_parse, with the same one, then waits for the answer. NULL: nothing. */
int json_stage_ask(struct stage *stage, const void *text, size_t len, struct err *err);

/*
 * Parses the text, in which no object has a key twice; once for each stage. NULL: here. The caller frees *ret by
 * json_decref. -EBADMSG: it is invalid; -ENOMEM; and as stage_answer.
 */
int json_stage_parse(struct stage *stage, const void *text, size_t len, json_t **ret, struct err *err);
