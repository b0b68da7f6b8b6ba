/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of a machine that another host sends, for this host. The source is not trusted: no file, device,
 * interface, socket or program of this host is used because the source names it. The options of mvmm receive name
 * them, or --disk-dir names the folder in which the source may choose its disks. Called by session_receive.c, and by
 * session_restore.c for a machine from a snapshot.
 */
#pragma once

#include "vmm/jail/json_stage.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/session/session.h"
#include "vmm/snapshot/state_file.h"

/*
 * Makes config (with its defaults) from the offer and the options, and finishes it. Disks in --disk-dir get
 * disk_config.below; kernel and initrd are those of the options, or NULL. -EACCES: the message lists what the options
 * must name; -EBADMSG: the offer is invalid; -EINVAL: the options are.
 */
int arrival_config_make(const struct machine_offer *offer, struct receive_options *options,
			struct machine_config *config, struct err *err);

/* The offer in a snapshot, for arrival_config_restore. Errors as those of snapshot_description_read. */
int arrival_config_read(const struct snapshot_state *state, struct stage *stage, struct machine_offer **ret, struct err *err);

/*
 * The same from a snapshot, which only root or this user can have written: what the options do not name is used as the
 * snapshot names it, but for kernel and initrd.
 */
int arrival_config_restore(const struct machine_offer *offer, const struct arrival_options *options,
			   struct machine_config *config, struct err *err);
