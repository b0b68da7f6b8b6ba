/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a running machine count: exits, KVM's statistics, queues, disks, network cards, balloon. */
#pragma once

#include "vmm/machine/machine.h"
#include "vmm/machine/metrics.h"

/* Adds the families of the machine. On the loop's thread; waits for no other thread and for no storage. */
void machine_metrics(const struct machine *machine, struct metrics *metrics);
