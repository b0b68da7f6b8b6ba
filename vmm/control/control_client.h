/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of the control socket: what `mvmm ps`, `info`, `stop`, `pause`, `migrate` and others call machines with. */
#pragma once

#include "core/err.h"
#include "vmm/config/config.h"

#include <jansson.h>

struct control_client {
	int fd;
	char name[MACHINE_MAX_NAME + 1]; /* the machine's, for messages */
};

/* Connects to the machine. -ENOENT when none of this name runs; err then names the nearest that does. */
int control_client_open(const char *name, struct control_client *ret, struct err *err);
/* Connects to the one machine that runs; -ENOENT when there is none, -EINVAL when there are several. */
int control_client_open_only(struct control_client *ret, struct err *err);
void control_client_close(struct control_client *client);

/*
 * Calls a method of io.mvmm.Machine and waits for the answer up to timeout_ms (-1: for ever). parameters (taken over)
 * may be NULL, and so may ret; else *ret is the caller's. An error that the machine answers becomes -EREMOTEIO and its
 * sentence; -ETIMEDOUT when nothing came.
 */
int control_client_call(struct control_client *client, const char *method, json_t *parameters, int timeout_ms,
			json_t **ret, struct err *err);

/* What happens while a long call is under way. */
struct control_watch {
	void (*progress)(void *opaque, const json_t *parameters);
	void (*wake)(void *opaque); /* wake_fd is readable */
	int wake_fd;                /* -1: none */
	void *opaque;
};

/* As control_client_call with no limit of time, telling how it goes; a descriptor goes along unless it is -1. */
int control_client_follow(struct control_client *client, const char *method, json_t *parameters, int fd,
			  const struct control_watch *watch, json_t **ret, struct err *err);

/* Waits until the machine is gone: 0, or -ETIMEDOUT. */
int control_client_wait_end(struct control_client *client, int timeout_ms);
