/* SPDX-License-Identifier: Apache-2.0 */
/* The client of the control socket, for `mvmm ps`, `info`, `stop`, `pause`, `migrate` and others. */
#pragma once

#include "core/err.h"
#include "vmm/config/config.h"

#include <jansson.h>

struct control_client {
	int fd;
	char name[MACHINE_MAX_NAME + 1]; /* the machine's, for messages */
};

/* Connects to the machine. -ENOENT if none of this name runs; err then has the most similar name. */
int control_client_open(const char *name, struct control_client *ret, struct err *err);
/* Connects to the only running machine; -ENOENT if there is none, -EINVAL if there are several. */
int control_client_open_only(struct control_client *ret, struct err *err);
void control_client_close(struct control_client *client);

/*
 * Calls a method of io.mvmm.Machine and waits up to timeout_ms for the reply (-1: no limit). Takes parameters, which
 * may be NULL. ret may be NULL; else *ret is the caller's. An error reply is -EREMOTEIO with its text, -ENOSPC if
 * it is NoSpace; -ETIMEDOUT if there was no reply.
 */
int control_client_call(struct control_client *client, const char *method, json_t *parameters, int timeout_ms,
			json_t **ret, struct err *err);

/* The same with descriptors, up to CONTROL_MAX_FDS of control.h. */
int control_client_pass(struct control_client *client, const char *method, json_t *parameters, const int *fds,
			size_t fd_count, int timeout_ms, json_t **ret, struct err *err);

/* The same over a connection of its own, while another one waits for its reply. */
int control_client_call_beside(const char *machine, const char *method, json_t *parameters, int timeout_ms,
			       struct err *err);

/* Callbacks during a long call. */
struct control_watch {
	void (*progress)(void *opaque, const json_t *parameters);
	void (*wake)(void *opaque); /* wake_fd is readable */
	int wake_fd;                /* -1: none */
	void *opaque;
};

/* As control_client_call without a timeout and with progress; passes descriptors, up to CONTROL_MAX_FDS of control.h. */
int control_client_follow(struct control_client *client, const char *method, json_t *parameters, const int *fds,
			  size_t fd_count, const struct control_watch *watch, json_t **ret, struct err *err);

/*
 * The same for a caller that waits by itself, for several machines: ask sends the request, next reads one reply when the
 * descriptor is readable; *continues: another one follows. The other arguments and errors are those of call.
 */
int control_client_ask(struct control_client *client, const char *method, json_t *parameters, int timeout_ms,
		       struct err *err);
int control_client_next(struct control_client *client, int timeout_ms, json_t **ret, bool *continues, struct err *err);

/* Waits until the machine has ended: 0, or -ETIMEDOUT. */
int control_client_wait_end(struct control_client *client, int timeout_ms);
