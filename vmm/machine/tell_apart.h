/* SPDX-License-Identifier: Apache-2.0 */
/* What makes a restored machine another one than that of which the snapshot was taken, and than its other clones. */
#pragma once

#include "vmm/machine/machine.h"

/*
 * After machine_load of a machine that was restored, and before its start; not for a machine that migrates. The guest
 * gets a new generation ID and vmclock's new numbers, of which it is notified when it runs. Network cards get the MAC
 * address that was given for the restore (net_config.new_mac). The vsock device resets its connections at the start,
 * and has the CID of the configuration.
 */
int machine_tell_apart(struct machine *machine, struct err *err);
