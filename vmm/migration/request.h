/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the user asks of a migration. `mvmm migrate` fills it in from its options and sends it as an object over the
 * control socket, where the machine reads it.
 */
#pragma once

#include "vmm/config/options.h"
#include "vmm/migration/loop.h"

#include <jansson.h>

#define MIGRATION_MAX_STREAMS 16u
#define MIGRATION_DEFAULT_DOWNTIME 300000000ull    /* ns */
#define MIGRATION_DEFAULT_TIMEOUT 600000000000ull
#define MIGRATION_LEAST_LIMIT 1000000000ull        /* the smallest default of downtime_limit */
#define MIGRATION_DEFAULT_DEVICE_RATE MIB(100)

enum migration_compress { MIGRATION_PLAIN, MIGRATION_ZSTD };
/* Disks whose contents are copied; the target has access to the others. */
enum migration_copy { MIGRATION_COPY_NONE, MIGRATION_COPY_WRITABLE, MIGRATION_COPY_ALL };

struct migration_request {
	char *to;           /* "tcp:HOST[:PORT]", "unix:PATH", or "fd" with a descriptor that is passed separately */
	uint64_t device_rate; /* bytes a second, assumed for a stopped host device that provided no state before */
	unsigned int streams; /* 0: automatic */
	enum migration_compress compress;
	enum migration_copy copy_disks;
	char *tls;      /* a folder, or NULL */
	char *tls_peer; /* the name in the target's certificate, or NULL: the host of `to` */
	uint64_t downtime_limit; /* ns, not below the downtime; 0: the default of migration_request_limit */
	struct migration_goal goal;
};

/* The members: their names as parameters of Migrate, their offsets, defaults and limits; for every reader. */
enum migration_key {
	MIGRATION_KEY_TO, MIGRATION_KEY_DOWNTIME, MIGRATION_KEY_DOWNTIME_LIMIT, MIGRATION_KEY_TIMEOUT,
	MIGRATION_KEY_ON_TIMEOUT, MIGRATION_KEY_BANDWIDTH, MIGRATION_KEY_DEVICE_RATE, MIGRATION_KEY_THROTTLE_MAX,
	MIGRATION_KEY_STREAMS, MIGRATION_KEY_COMPRESS, MIGRATION_KEY_COPY_DISKS, MIGRATION_KEY_TLS,
	MIGRATION_KEY_TLS_PEER, MIGRATION_KEYS
};
extern const struct option_key migration_request_keys[MIGRATION_KEYS];

/* The words of `compress`, `copy_disks` and goal.on_timeout, in the order of the enums, with a NULL at the end. */
extern const char *const migration_compress_words[], *const migration_copy_words[], *const migration_timeout_words[];

/*
 * How long (ns) the guest may be paused before the target is told to run it; then it continues here. predicted: for
 * MIGRATION_STOP_AND_COPY, where the user has accepted a longer downtime.
 */
uint64_t migration_request_limit(const struct migration_request *request, uint64_t predicted);

/* Frees the strings. */
void migration_request_done(struct migration_request *request);

/* The parameters of the method Migrate; NULL if there is no memory. */
json_t *migration_request_to_json(const struct migration_request *request);

/*
 * Parses such parameters; missing ones get their defaults. Returns NULL, or the name of an invalid or unknown
 * parameter, valid as long as these; the request is then empty.
 */
const char *migration_request_from_json(const json_t *parameters, struct migration_request *ret);
