/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm disk set` and `mvmm net set`: limits of a running machine's devices, and the cable of a network card. */
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/config/config.h"

#define PATIENCE_MS 10000 /* for a reply */

/* As the machine reads it; only the machine knows whether it has the device. */
static int cli_limits_check(const char *option, const char *id, const char *limits, struct err *err)
{
	_cleanup_(machine_config_done) struct machine_config config;
	struct machine_limits ignored;
	char text[160], dashed[16], *words[] = {dashed, text};
	int code;

	machine_config_init(&config);
	snprintf(dashed, sizeof(dashed), "--%s", option);
	snprintf(text, sizeof(text), "%s,id=%.100s", strcmp(option, "net") == 0 ? "passt" : "path=x", id);
	code = machine_name_check(id, err);
	if (code)
		return err_prefix(err, code, "%.60s", id);
	code = options_parse(&machine_options, &config, ARRAY_SIZE(words), words, NULL, 0, err);
	return code ?: machine_config_set_limits(&config, id, limits, &ignored, err);
}

static int cli_limits_call(const char *name, const char *id, const char *limits, struct err *err)
{
	json_t *parameters = json_pack("{s:s, s:s}", "id", id, "limits", limits);

	if (parameters)
		return command_call(name, "SetLimits", parameters, NULL, 0, PATIENCE_MS, NULL, err);
	err_set(err, -EINVAL, "%s set: not UTF-8; write KEY=RATE", id);
	return EXIT_BAD_INPUT;
}

/* operands: the machine's name, the device's id, and the limits. */
static int cli_limits_change(const char *option, const char *const operands[3], struct err *err)
{
	return cli_limits_check(option, operands[1], operands[2], err) ? EXIT_BAD_INPUT :
	       cli_limits_call(operands[0], operands[1], operands[2], err);
}

static int cli_limits_set_link(const char *const operands[3], const char *text, size_t len, struct err *err)
{
	bool up = len == 2 && memcmp(text, "on", 2) == 0;

	if (!up && (len != 3 || memcmp(text, "off", 3) != 0)) {
		err_set(err, -EINVAL, "%s: link=%.*s: unknown value; write one of off, on", operands[1],
			(int)MIN(len, 60u), text);
		return EXIT_BAD_INPUT;
	}
	return command_call(operands[0], "SetLink", json_pack("{s:s, s:b}", "id", operands[1], "up", up), NULL, 0,
			    PATIENCE_MS, NULL, err);
}

/* link=on|off is taken out; the rest are limits. */
static int cli_limits_change_net(const char *option, const char *const operands[3], struct err *err)
{
	const char *keys = operands[2], *link = strncmp(keys, "link=", 5) == 0 ? keys : strstr(keys, ",link=");
	const char *value = link ? strchr(link, '=') + 1 : NULL, *after = value ? value + strcspn(value, ",") : NULL;
	_cleanup_(free_ptr) char *rest = NULL;
	int code = EXIT_OFF;

	if (!link)
		return cli_limits_change(option, operands, err);
	if (link == keys && *after)
		after++;
	if (asprintf(&rest, "%.*s%s", (int)(link - keys), keys, after) < 0) {
		rest = NULL;
		err_sys(err, -ENOMEM, "%s", operands[1]);
		return EXIT_FAILED;
	}
	if (*rest)
		code = cli_limits_change(option, (const char *const[]){operands[0], operands[1], rest}, err);
	return code ?: cli_limits_set_link(operands, value, strcspn(value, ","), err);
}

static int cli_limits_run(const struct command *command, const char *option, int argc, char *const *argv, struct err *err)
{
	const char *operands[3];
	int code;

	if (!command_parse_plain(command, argc, argv, operands, 3, &code, err))
		return code;
	return (strcmp(option, "net") == 0 ? cli_limits_change_net : cli_limits_change)(option, operands, err);
}

static int cli_limits_run_disk(int argc, char *const *argv, struct err *err)
{
	return cli_limits_run(&command_disk_set, "disk", argc, argv, err);
}

static int cli_limits_run_net(int argc, char *const *argv, struct err *err)
{
	return cli_limits_run(&command_net_set, "net", argc, argv, err);
}

#define RATES                                                                                      \
	"RATE is SIZE or N a second, as 10M or 500; SIZE/TIME at once and again after that time,\n" \
	"as 50M/1s; +BURST after it for once, as 10M+1G; or off. Limits that are not named stay.\n"

const struct command command_disk_set = {
	.name = "disk set",
	.operands = "NAME DISK KEY=RATE[,KEY=RATE]",
	.summary = "Limit what a disk of a running machine reads and writes",
	.text = "KEY is bandwidth or ops, of reads and writes together.\n" RATES,
	.options = &command_plain_options,
	.run = cli_limits_run_disk,
};

const struct command command_net_set = {
	.name = "net set",
	.operands = "NAME ID link=on|off|KEY=RATE[,...]",
	.summary = "Limit a network card of a running machine, or plug its cable in or out",
	.text = "KEY is rx-bandwidth, rx-packets, tx-bandwidth or tx-packets: to the guest and from it.\n" RATES,
	.options = &command_plain_options,
	.run = cli_limits_run_net,
};
