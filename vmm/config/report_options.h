/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options --log and --metrics of all commands that make a machine: where it reports to. They are read from the command
 * line only: whoever describes a machine, in a file or from another host, has no say in what is written on this one.
 */
#pragma once

#include "core/log.h"
#include "vmm/config/options.h"

/* The default first: with --verbose and --quiet it is another one. */
enum report_level { REPORT_INFO, REPORT_ERROR, REPORT_WARNING, REPORT_DEBUG };

struct report_options {
	struct report_log {
		char *to; /* a file, or "journald"; NULL: stderr */
		enum report_level level;
	} log;
	struct report_metrics {
		char *to;       /* a file or a FIFO; NULL: none */
		uint64_t every; /* ns */
	} metrics;
};

#define REPORT_LOG_KEYS 2
#define REPORT_METRICS_KEYS 2
extern const struct option_key report_log_keys[REPORT_LOG_KEYS], report_metrics_keys[REPORT_METRICS_KEYS];

/* The rows of a table of options whose target is a struct `type` with a struct report_options `member`. */
#define REPORT_OPTIONS(type, member)                                                                                  \
	{"log", "FILE|journald[,level=error|warning|info|debug]",                                                     \
	 "append messages to this file, or send them to systemd's journal, instead of writing them to stderr",        \
	 report_log_keys, REPORT_LOG_KEYS, .bare = true, .command_only = true,                                         \
	 .offset = offsetof(struct type, member.log)},                                                                 \
	{"metrics", "FILE[,every=TIME]",                                                                               \
	 "append what mvmm metrics --json shows to this file or FIFO, a line every 10s by default",                   \
	 report_metrics_keys, REPORT_METRICS_KEYS, .bare = true, .command_only = true,                                 \
	 .offset = offsetof(struct type, member.metrics)}

/* -EINVAL: a level is given twice; the message names the option and what to do. */
int report_options_check(const struct report_options *options, bool verbose, bool quiet, struct err *err);
/* Which lines are logged. */
enum log_level report_options_level(const struct report_options *options, bool verbose, bool quiet);
