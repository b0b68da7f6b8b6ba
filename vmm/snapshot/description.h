/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of a snapshot: a JSON object for people and tools, and for a restore the machine's offer. It is a
 * section of "state" (state_file.h), and the same bytes are the file "machine.json" of the folder.
 *
 *	{"format": 1, "experimental": true, "program": "mvmm 0.1.0", "id": "01234567-...", "parent": null or an id,
 *	 "created": "2026-01-31T12:00:00Z", "offer": {what machine_offer writes}}
 */
#pragma once

#include "vmm/jail/json_stage.h"
#include "vmm/snapshot/state_file.h"

#include <jansson.h>

/* Writes it for state (id, parent, created_ns) and an offer (JSON text). The caller frees *ret. -EINVAL, -ENOMEM. */
int snapshot_description_write(const struct snapshot_state *state, const char *offer, char **ret, struct err *err);

/*
 * Parses the one in state, in the stage; NULL: here. *ret (json_decref) has an object "offer", and the state's id and
 * parent. -EBADMSG, -ENOTSUP: another format; and as json_stage_parse.
 */
int snapshot_description_read(const struct snapshot_state *state, struct stage *stage, json_t **ret, struct err *err);
