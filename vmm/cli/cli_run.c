/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm run`: reads the configuration file and the command line, which overrides it, and runs the machine. */
#include "vmm/cli/command.h"
#include "vmm/config/config.h"
#include "vmm/config/config_json.h"
#include "vmm/session/session.h"

static int cli_run_configured(struct machine_config *config, int argc, char *const *argv, struct err *err)
{
	const char *file = options_find(argc, argv, "config");
	int code;

	if (file && config_json_load(&machine_options, config, file, err))
		return EXIT_BAD_INPUT;
	if (!command_parse(&command_run, config, offsetof(struct machine_config, help), argc, argv, NULL, 0, &code, err))
		return code;
	if (machine_config_finish(config, err))
		return EXIT_BAD_INPUT;
	return session_run(config, err);
}

static int cli_run_run(int argc, char *const *argv, struct err *err)
{
	struct machine_config config;
	int code;

	machine_config_init(&config);
	code = cli_run_configured(&config, argc, argv, err);
	machine_config_done(&config);
	return code;
}

const struct command command_run = {
	.name = "run",
	.operands = "",
	.summary = "Run a machine until it powers off",
	.text = "Sizes are numbers with K, M, G or T. A comma within a value is written twice. An option is written\n"
		"--option value or --option=value. In a terminal, Ctrl-A x ends the machine and Ctrl-A h shows the keys.\n",
	.options = &machine_options,
	.run = cli_run_run,
};
