/* SPDX-License-Identifier: Apache-2.0 */
/* See firecracker_line.h. */
#include "vmm/api/firecracker/firecracker_line.h"

#include "vmm/api/firecracker/bodies.h"
#include "vmm/config/number.h"

#include <ctype.h>
#include <stdio.h>

#define BAD_ARGUMENTS 153
#define BAD_LEVEL 152
#define FAILED 1

enum line_kind { LINE_FLAG, LINE_TEXT, LINE_NUMBER, LINE_IGNORED, LINE_REFUSED };

/* IGNORED: only reported by Firecracker. REFUSED: mvmm does not have it. */
static const struct line_option {
	const char *name;
	enum line_kind kind;
	size_t offset;
	bool takes_value;
	const char *help;
} options[] = {
#define AT(member) offsetof(struct firecracker_options, member)
	{"api-sock", LINE_TEXT, AT(api_sock), true, "Path to unix domain socket used by the API."},
	{"id", LINE_TEXT, AT(id), true, "MicroVM unique identifier."},
	{"config-file", LINE_TEXT, AT(config_file), true, "Path to a file that contains the microVM configuration in JSON format."},
	{"no-api", LINE_FLAG, AT(no_api), false, "Start a microVM without an active API socket; needs --config-file."},
	{"log-path", LINE_TEXT, AT(log_path), true, "Path to a fifo or a file for the log."},
	{"level", LINE_TEXT, AT(level), true, "The logger level."},
	{"module", LINE_TEXT, AT(module), true, "Accepted; mvmm has no modules."},
	{"show-level", LINE_FLAG, AT(show_level), false, "Output the level in the logs."},
	{"show-log-origin", LINE_FLAG, AT(show_log_origin), false, "Accepted; mvmm does not log source lines."},
	{"metrics-path", LINE_TEXT, AT(metrics_path), true, "Path to a fifo or a file for the metrics."},
	{"enable-pci", LINE_FLAG, AT(enable_pci), false, "Virtio devices on PCI instead of MMIO."},
	{"no-seccomp", LINE_FLAG, 0, false, "No filters of system calls. Not recommended."},
	{"http-api-max-payload-size", LINE_NUMBER, AT(max_body), true, "Http API request payload max size, in bytes."},
	{"start-time-us", LINE_IGNORED, 0, true, "Ignored."},
	{"start-time-cpu-us", LINE_IGNORED, 0, true, "Ignored."},
	{"parent-cpu-time-us", LINE_IGNORED, 0, true, "Ignored."},
	{"boot-timer", LINE_REFUSED, 0, false, "Not supported."},
	{"metadata", LINE_REFUSED, 0, true, "Not supported."},
	{"mmds-size-limit", LINE_IGNORED, 0, true, "Ignored; mvmm has no MMDS."},
	{"seccomp-filter", LINE_IGNORED, 0, true, "Ignored; mvmm has filters of its own for the calls that it makes."},
	{"snapshot-version", LINE_REFUSED, 0, false, "Not supported."},
	{"describe-snapshot", LINE_REFUSED, 0, true, "Not supported."},
	{"version", LINE_FLAG, 0, false, "Print the binary version number."},
	{"help", LINE_FLAG, 0, false, "Show this."},
};

struct line {
	struct firecracker_options *options;
	uint32_t given; /* a bit each */
};
_Static_assert(ARRAY_SIZE(options) <= 32, "a bit each");

static const struct line_option *firecracker_line_find(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (strncmp(word, "--", 2) == 0 && strcmp(word + 2, options[i].name) == 0)
			return &options[i];
	return NULL;
}

static bool firecracker_line_given(const struct line *line, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return line->given >> i & 1;
	return false;
}

static int firecracker_line_set(struct line *line, const struct line_option *option, const char *value, struct err *err)
{
	void *field = (char *)line->options + option->offset;
	uint64_t number;
	int code;

	switch (option->kind) {
	case LINE_FLAG:
		if (option->offset)
			*(bool *)field = true;
		return 0;
	case LINE_TEXT:
		*(const char **)field = value;
		return 0;
	case LINE_NUMBER:
		code = number_parse_uint(value, 1, MIB(64), &number, err);
		if (!code)
			*(size_t *)field = number;
		return code ? err_prefix(err, code, "Arguments parsing error: --%s %.60s", option->name, value) : 0;
	case LINE_IGNORED:
		return 0;
	case LINE_REFUSED:
		return err_set(err, -EOPNOTSUPP, "Arguments parsing error: --%s: mvmm does not have that; leave it out", option->name);
	}
	return -EINVAL;
}

/* Values are told in JSON. Firecracker, too, ends if one is not UTF-8. */
static bool firecracker_line_is_text(const char *value)
{
	json_t *text = json_string(value);
	bool is = text;

	json_decref(text);
	return is;
}

static int firecracker_line_words(struct line *line, int argc, char *const *argv, struct err *err)
{
	int code = 0;

	for (int i = 0; i < argc && !code && strcmp(argv[i], "--") != 0; i++) {
		const struct line_option *option = firecracker_line_find(argv[i]);
		uint32_t bit = option ? 1u << (option - options) : 0;

		if (!option)
			return err_set(err, -EINVAL, "Arguments parsing error: Found argument '%.60s' which wasn't expected, or isn't "
				       "valid in this context; --help lists them", argv[i]);
		if (line->given & bit)
			return err_set(err, -EINVAL, "Arguments parsing error: The argument '%s' was provided more than once.",
				       option->name);
		line->given |= bit;
		if (option->takes_value && (i + 1 == argc || strncmp(argv[i + 1], "--", 2) == 0))
			return err_set(err, -EINVAL, "Arguments parsing error: The argument '%s' requires a value, but none was "
				       "supplied.", option->name);
		if (option->takes_value && !firecracker_line_is_text(argv[i + 1]))
			return err_set(err, -EINVAL, "Arguments parsing error: The value of '%s' is not UTF-8; write another one.",
				       option->name);
		code = firecracker_line_set(line, option, option->takes_value ? argv[i + 1] : NULL, err);
		i += option->takes_value;
	}
	return code;
}

static int firecracker_line_check_id(const char *id, struct err *err)
{
	size_t len = strlen(id);

	for (const char *c = id; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-')
			return err_set(err, -EINVAL, "Invalid instance ID: InvalidChar: '%.80s'; write letters, digits and dashes", id);
	if (len == 0 || len > FIRECRACKER_MAX_ID)
		return err_set(err, -EINVAL, "Invalid instance ID: InvalidLength: %zu; write 1 to %u characters", len, FIRECRACKER_MAX_ID);
	return 0;
}

static int firecracker_line_check(struct line *line, struct err *err)
{
	if (line->options->no_api && !line->options->config_file)
		return err_set(err, -EINVAL, "Arguments parsing error: Argument 'config-file' required, but not found; --no-api needs it");
	if (firecracker_line_given(line, "no-seccomp") && firecracker_line_given(line, "seccomp-filter"))
		return err_set(err, -EINVAL, "Arguments parsing error: Argument 'no-seccomp' cannot be used together with argument "
			       "'seccomp-filter'.");
	if (firecracker_line_given(line, "no-seccomp"))
		line->options->seccomp = SECCOMP_OFF;
	return 0;
}

static int firecracker_line_check_level(const char *level, struct err *err)
{
	struct fc_logger logger;
	json_t *value = json_pack("{s:s*}", "level", level);
	int code;

	body_init(&fc_logger, &logger);
	code = value ? body_read(&fc_logger, value, &logger, err) : err_sys(err, -ENOMEM, "--level");
	json_decref(value);
	return code ? err_prefix(err, code, "Invalid logger level: %.60s", level) : 0;
}

static void firecracker_line_print_help(void)
{
	printf("Firecracker v" FIRECRACKER_VERSION "\n\nThe API of Firecracker, by mvmm " MVMM_VERSION ".\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		printf("  --%s%s\n          %s\n", options[i].name, options[i].takes_value ? " VALUE" : "", options[i].help);
}

bool firecracker_line(int argc, char *const *argv, struct firecracker_options *ret, int *code, struct err *err)
{
	struct line line = {.options = ret};

	*ret = (struct firecracker_options){
		.api_sock = FIRECRACKER_SOCKET, .id = "anonymous-instance", .max_body = 51200, .seccomp = MVMM_SECCOMP,
	};
	*code = BAD_ARGUMENTS;
	if (firecracker_line_words(&line, argc, argv, err))
		return false;
	*code = 0;
	if (firecracker_line_given(&line, "help")) {
		firecracker_line_print_help();
		return false;
	}
	if (firecracker_line_given(&line, "version")) {
		printf("Firecracker v" FIRECRACKER_VERSION "\n\n");
		return false;
	}
	*code = BAD_ARGUMENTS;
	if (firecracker_line_check(&line, err))
		return false;
	*code = FAILED;
	if (firecracker_line_check_id(ret->id, err))
		return false;
	*code = BAD_LEVEL;
	return !ret->level || firecracker_line_check_level(ret->level, err) == 0;
}
