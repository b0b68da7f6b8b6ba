/* SPDX-License-Identifier: Apache-2.0 */
/* See report_options.h. */
#include "vmm/config/report_options.h"

static const char *const level_words[] = {
	[REPORT_INFO] = "info", [REPORT_ERROR] = "error", [REPORT_WARNING] = "warning", [REPORT_DEBUG] = "debug", NULL,
};

const struct option_key report_log_keys[REPORT_LOG_KEYS] = {
	{"to", OPTION_STRING, .offset = offsetof(struct report_log, to), .help = "FILE|journald"},
	{"level", OPTION_WORD, .offset = offsetof(struct report_log, level), .words = level_words},
};

const struct option_key report_metrics_keys[REPORT_METRICS_KEYS] = {
	{"to", OPTION_STRING, .offset = offsetof(struct report_metrics, to), .help = "FILE", .required = true},
	{"every", OPTION_TIME, .offset = offsetof(struct report_metrics, every), .value = 10000000000, .min = 100000000,
	 .max = 86400000000000, .help = "TIME"},
};

int report_options_check(const struct report_options *options, bool verbose, bool quiet, struct err *err)
{
	if (options->log.level != REPORT_INFO && (verbose || quiet))
		return err_set(err, -EINVAL, "--%s: cannot be combined with --log level=%s; leave one out",
			       verbose ? "verbose" : "quiet", level_words[options->log.level]);
	if (verbose && quiet)
		return err_set(err, -EINVAL, "--quiet: cannot be combined with --verbose; leave one out");
	return 0;
}

enum log_level report_options_level(const struct report_options *options, bool verbose, bool quiet)
{
	static const enum log_level levels[] = {
		[REPORT_INFO] = LOG_INFO, [REPORT_ERROR] = LOG_ERROR, [REPORT_WARNING] = LOG_WARN, [REPORT_DEBUG] = LOG_DEBUG,
	};

	return verbose ? LOG_DEBUG : quiet ? LOG_ERROR : levels[options->log.level];
}
