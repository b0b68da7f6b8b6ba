/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person asks of a migration: `mvmm migrate` fills it in from its options, sends it over the control socket as an object,
 * and the machine reads it there.
 */
#pragma once

#include "vmm/migration/loop.h"

#include <jansson.h>

#define MIGRATION_MAX_STREAMS 16u
#define MIGRATION_DEFAULT_DOWNTIME 300000000ull    /* ns */
#define MIGRATION_DEFAULT_TIMEOUT 600000000000ull
#define MIGRATION_DEFAULT_DEVICE_RATE MIB(100)

enum migration_compress { MIGRATION_PLAIN, MIGRATION_ZSTD };
/* Disks whose content goes along, for the others are where the target finds them. */
enum migration_copy { MIGRATION_COPY_NONE, MIGRATION_COPY_WRITABLE, MIGRATION_COPY_ALL };

struct migration_request {
	char *to;           /* "tcp:HOST[:PORT]", "unix:PATH"; "fd" when the descriptor comes along */
	uint64_t device_rate; /* bytes a second that a host device is taken to give after it stopped, where it gave none before */
	unsigned int streams; /* 0: chosen */
	enum migration_compress compress;
	enum migration_copy copy_disks;
	char *tls; /* a folder, or NULL */
	struct migration_goal goal;
};

/* The words of `compress`, of `copy_disks` and of goal.on_timeout, in their order; they end with NULL. */
extern const char *const migration_compress_words[], *const migration_copy_words[], *const migration_timeout_words[];

/* The strings are the request's. */
void migration_request_done(struct migration_request *request);

/* As the parameters of the method Migrate; NULL when there is no memory. */
json_t *migration_request_to_json(const struct migration_request *request);

/*
 * The way back; what is not given has its default. NULL, or the name of the parameter that makes no sense; the request is
 * empty then.
 */
const char *migration_request_from_json(const json_t *parameters, struct migration_request *ret);
