/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of Firecracker's face share: what was put, a request on its way, and how it ends. They stand on each
 * other in this order: bodies.c (what bodies are), face.c (this), face_counts.c and face_metrics.c (lines of metrics), face_config.c
 * (what was put as a struct machine_config), face_before.c and face_after.c (requests before and after the start),
 * face_plug.c and face_host.c (devices that come and go), face_snapshot.c, face_extra.c (beside Firecracker's),
 * face_full.c (all as one object: GET /vm/config and the configuration file), face_paths.c (which request is which),
 * firecracker.c (server and life).
 */
#pragma once

#include "vmm/api/firecracker/bodies.h"
#include "vmm/api/firecracker/firecracker_line.h"
#include "vmm/api/http.h"
#include "vmm/machine/operations.h"

#define FACE_MAX_DEVICES 30u /* of a kind */
#define FACE_MAX_PASSED 2u
#define FACE_LATER 1         /* what a request that is replied to later returns */

struct face_drive {
	struct fc_drive body;
	char name[MACHINE_MAX_NAME + 1]; /* mvmm's id of it: drives and interfaces of clients may have the same */
	int fd; /* the image, until the start; -1: none */
};

struct face_net {
	struct fc_net body;
	char name[MACHINE_MAX_NAME + 1];
	int fd; /* the tap; as above */
};

struct face_host {
	struct fc_host_device body;
	char name[MACHINE_MAX_NAME + 1];
};

/* Requests of a path, since the last line of metrics. */
#define FACE_MAX_COUNTERS 48u
struct face_counter {
	const char *group, *name; /* "put_api_requests", "drive" */
	uint64_t count, fails;
};

enum face_phase { FACE_BEFORE, FACE_STARTING, FACE_AFTER };

struct face {
	const struct firecracker_options *options;
	struct event_loop *loop;
	const struct operated *operated;
	struct log *log;
	enum face_phase phase;
	struct fc_machine_config machine;
	struct fc_boot_source boot; /* nothing is given until it is put; so the next ones */
	int kernel_fd, initrd_fd;
	struct face_drive drives[FACE_MAX_DEVICES];
	size_t drive_count;
	struct face_net nets[FACE_MAX_DEVICES];
	size_t net_count;
	struct face_host hosts[FACE_MAX_DEVICES];
	size_t host_count;
	unsigned int names; /* how many were made */
	struct fc_vsock vsock;
	bool has_balloon, has_entropy;
	bool configured; /* something of the machine was put: no snapshot can be loaded any more */
	struct fc_balloon balloon;
	struct fc_entropy entropy;
	struct fc_serial serial;
	struct fc_logger logger;
	struct fc_metrics metrics;
	struct face_metrics *lines; /* or NULL */
	struct face_counter counters[FACE_MAX_COUNTERS];
	size_t counter_count;
	uint64_t deprecated_calls;
	json_t *counted; /* what devices have, at the last line of metrics; or NULL */
};

union face_body {
	body_set given;
	struct fc_machine_config machine;
	struct fc_boot_source boot;
	struct fc_drive drive;
	struct fc_drive_update drive_update;
	struct fc_net net;
	struct fc_net_update net_update;
	struct fc_vsock vsock;
	struct fc_balloon balloon;
	struct fc_balloon_update balloon_update;
	struct fc_entropy entropy;
	struct fc_serial serial;
	struct fc_logger logger;
	struct fc_metrics metrics;
	struct fc_action_body action;
	struct fc_vm vm;
	struct fc_host_device host;
	struct fc_snapshot_create create;
	struct fc_snapshot_load load;
};

struct face_request;

/* 0: done; FACE_LATER: face_finish comes later; -errno: err has the text for the client. */
typedef int face_fn(struct face_request *request, struct err *err);

struct face_request {
	struct face *face;
	struct http_call *call;
	const struct body *table; /* of the body, or NULL */
	union face_body body;
	char id[256];   /* of the path, "": none */
	json_t *reply;  /* its body, or NULL */
	char *text;     /* the same, as text */
	bool deprecated;
	struct face_counter *counter; /* or NULL */
	int64_t begun_us;
	char name[MACHINE_MAX_NAME + 1]; /* mvmm's, of a device that comes */
	int fd; /* of a device that comes, or of its new image; -1: none */
	int passed[FACE_MAX_PASSED]; /* descriptors that came with it; -1: used */
	size_t passed_count;
};

/* Replies to it, and frees it. A request without a call (of the configuration file) is not replied to. */
void face_finish(struct face_request *request, int code, const struct err *err);

/* Frees it without a reply. */
void face_free(struct face_request *request);

struct face_drive *face_find_drive(struct face *face, const char *id);
struct face_net *face_find_net(struct face *face, const char *id);
struct face_host *face_find_host(struct face *face, const char *id);
/* Makes mvmm's id: "drive-rootfs" of "drive" and "rootfs". */
void face_name(struct face *face, const char *kind, const char *id, char name[MACHINE_MAX_NAME + 1]);

/* Opens a file; -errno with the text of Rust's standard library, "No such file or directory (os error 2)". */
int face_open(const char *path, int flags, int *ret, struct err *err);

/*
 * The file of a request: the next descriptor that came with it (SCM_RIGHTS), so that who asks has opened it and path only
 * names it; or else it is opened.
 */
int face_file(struct face_request *request, const char *path, int flags, int *ret, struct err *err);
/* That descriptor; -1: none. */
int face_take_passed(struct face_request *request);

/* A limit of theirs as one of ours; unit: ops or bytes. Not given: none. */
struct rate face_rate(const struct fc_token_bucket *bucket, bool given, bool ops);
/* The keys of what a limiter has: "bandwidth=1M/100ms,ops=off"; prefix "" or "rx-"; ops: "ops" or "packets". */
void face_limits(const struct fc_rate_limiter *limiter, const char *prefix, const char *ops, char text[400]);

/* Closes what was opened for a start: the machine has its own. */
void face_close_files(struct face *face);

/* All zero but for descriptors and defaults. */
void face_init(struct face *face);
void face_done(struct face *face);
