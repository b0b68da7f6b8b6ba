/* SPDX-License-Identifier: Apache-2.0 */
/* An offer from its text, as a target reads it without a stage. */
#pragma once

#include "vmm/jail/json_stage.h"
#include "vmm/machine/machine_offer.h"

static inline int offer_parse(const char *text, size_t len, struct machine_offer **ret, struct err *why)
{
	json_t *root;

	return json_stage_parse(NULL, text, len, &root, why) ?: machine_offer_read(root, ret, why);
}
