/* SPDX-License-Identifier: Apache-2.0 */
/* The control method Events: what happens to the machine, for as long as the client listens. */
#pragma once

#include "vmm/control/control.h"
#include "vmm/machine/operations.h"

/* A control_fn, whose opaque is a struct operated. */
void control_events_call(void *opaque, struct control_call *call, const json_t *parameters);
