/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm net`: network cards of a running machine come and go. A tap is opened here, with the rights of the user, and passed
 * to the machine, which opens none for others.
 */
#include <stdio.h>

#include "devices/virtio/virtio.h"
#include "vmm/cli/command.h"
#include "vmm/config/config.h"
#include "vmm/config/config_json.h"

#define PATIENCE_MS 30000 /* for a reply */

struct net_options {
	bool force, help;
	unsigned int timeout;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key seconds = {"seconds", OPTION_UINT, .value = 30, .min = 1, .max = 86400,
					  .help = "SECONDS"};

#define FIELD(member) .plain = true, .offset = offsetof(struct net_options, member)
#define HELP {"help", NULL, "show this", &flag, 1, FIELD(help)}

static const struct option plain_options[] = {HELP};
static const struct option remove_options[] = {
	{"force", NULL, "take it away at once, even if the guest uses it", &flag, 1, FIELD(force)},
	{"timeout", "SECONDS", "how long to wait for the guest to release it, 30 by default", &seconds, 1,
	 FIELD(timeout)},
	HELP,
};
static const struct option_table plain_table = {plain_options, ARRAY_SIZE(plain_options)};
static const struct option_table remove_table = {remove_options, ARRAY_SIZE(remove_options)};

static const struct command net_add, net_remove;

static bool cli_net_begin(const struct command *command, int argc, char *const *argv, struct net_options *given,
			  const char **operands, size_t count, int *code, struct err *err)
{
	*given = (struct net_options){.timeout = (unsigned int)seconds.value};
	return command_parse_all(command, given, offsetof(struct net_options, help), argc, argv, operands, count, code,
				 err);
}

/* ---- add ---- */

struct queues {
	int fds[MACHINE_MAX_QUEUES_NET];
	size_t count;
};

static void cli_net_close(struct queues *queues)
{
	while (queues->count)
		fd_close(&queues->fds[--queues->count]);
}

/* A tap that was handed in is known by its name from then on. */
static int cli_net_take(struct net_config *net, struct queues *ret, struct err *err)
{
	char name[16];
	int code = virtio_net_name_tap(net->fd, name, err);

	if (code)
		return err_prefix(err, code, "--net fd=%d", net->fd);
	ret->fds[ret->count++] = take_fd(&net->fd);
	net->kind = NET_TAP;
	net->target = strdup(name);
	return net->target ? 0 : err_sys(err, -ENOMEM, "--net");
}

static int cli_net_open(struct net_config *net, struct queues *ret, struct err *err)
{
	int code;

	net->queues = net->queues ?: 1;
	if (net->kind == NET_FD)
		return cli_net_take(net, ret, err);
	if (net->kind == NET_PASST)
		return err_set(err, -EINVAL, "--net passt: only mvmm run has that; write tap=NAME");
	code = virtio_net_open_tap(net->target, net->queues, ret->fds, err);
	ret->count = code ? 0 : net->queues;
	return code;
}

static int cli_net_call_add(const char *machine, const struct machine_config *config, const struct queues *queues,
			    struct err *err)
{
	json_t *root = NULL, *reply = NULL;
	int code = config_json_write(&machine_options, config, &root, err);

	if (!code)
		code = command_call(machine, "AddNet", json_pack("{s:O}", "net", json_array_get(json_object_get(root, "net"), 0)),
				    queues->fds, queues->count, PATIENCE_MS, &reply, err);
	if (!code)
		printf("%s was added; its id is %s\n", config->nets[0].target,
		       json_string_value(json_object_get(reply, "id")));
	json_decref(root);
	json_decref(reply);
	return code;
}

/* The text is parsed as mvmm run does it, so that it means the same. */
static int cli_net_add(const char *machine, const char *text, struct err *err)
{
	_cleanup_(cli_net_close) struct queues queues = {.count = 0};
	_cleanup_(machine_config_done) struct machine_config config;
	char option[] = "--net", *words[] = {option, (char *)text};

	machine_config_init(&config);
	if (options_parse(&machine_options, &config, ARRAY_SIZE(words), words, NULL, 0, err) ||
	    cli_net_open(&config.nets[0], &queues, err))
		return EXIT_BAD_INPUT;
	return cli_net_call_add(machine, &config, &queues, err);
}

static int cli_net_run_add(int argc, char *const *argv, struct err *err)
{
	struct net_options given;
	const char *operands[2];
	int code;

	return cli_net_begin(&net_add, argc, argv, &given, operands, 2, &code, err) ?
	       cli_net_add(operands[0], operands[1], err) : code;
}

/* ---- remove ---- */

static int cli_net_run_remove(int argc, char *const *argv, struct err *err)
{
	struct net_options given;
	const char *operands[2];
	int code;

	if (!cli_net_begin(&net_remove, argc, argv, &given, operands, 2, &code, err))
		return code;
	return command_call(operands[0], "RemoveNet", json_pack("{s:s, s:b, s:i}", "id", operands[1], "force", given.force,
								"timeout", (int)given.timeout),
			    NULL, 0, (int)given.timeout * 1000 + PATIENCE_MS, NULL, err);
}

/* ---- the commands ---- */

static const struct command net_add = {
	.name = "net add", .operands = "NAME tap=NAME|fd=N[,KEY=VALUE]...", .options = &plain_table, .run = cli_net_run_add,
	.summary = "Add a network card to a running machine",
	.text = "The card is written as for mvmm run --net. The tap is opened with your rights and passed to the machine.\n",
};
static const struct command net_remove = {
	.name = "net remove", .operands = "NAME ID", .options = &remove_table, .run = cli_net_run_remove,
	.summary = "Ask the guest to release a network card, and remove it",
};

static const struct command *const subcommands[] = {&net_add, &net_remove, &command_net_set};

static int cli_net_run(int argc, char *const *argv, struct err *err)
{
	return command_run_sub(&command_net, subcommands, ARRAY_SIZE(subcommands), argc, argv, err);
}

const struct command command_net = {
	.name = "net",
	.operands = "add|remove|set",
	.summary = "Add, remove and limit network cards of a running machine",
	.text = "  add NAME tap=NAME|fd=N               add a network card\n"
		"  remove NAME ID                       ask the guest to release a card, and remove it\n"
		"  set NAME ID link=on|off|KEY=RATE,... plug its cable in or out, or limit it\n",
	.options = &plain_table,
	.run = cli_net_run,
};
