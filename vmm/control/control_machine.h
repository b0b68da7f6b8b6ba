/* SPDX-License-Identifier: Apache-2.0 */
/* The interface io.mvmm.Machine: the operations of a machine, for `mvmm pause`, `info` and others. */
#pragma once

#include "vmm/control/control.h"
#include "vmm/machine/operations.h"

/* Serves the interface on listen_fd, which is consumed. machine must outlive the server. */
int control_machine_create(const struct operated *machine, struct event_loop *loop, int *listen_fd,
			   const struct log *log, struct control **ret, struct err *err);
