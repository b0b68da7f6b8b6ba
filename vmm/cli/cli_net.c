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

static const struct command net_add;

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
	const char *operands[2];
	int code;

	return command_parse_plain(&net_add, argc, argv, operands, 2, &code, err) ?
	       cli_net_add(operands[0], operands[1], err) : code;
}

/* ---- the commands ---- */

static const struct command net_add = {
	.name = "net add", .operands = "NAME tap=NAME|fd=N[,KEY=VALUE]...",
	.options = &command_plain_options, .run = cli_net_run_add,
	.summary = "Add a network card to a running machine",
	.text = "The card is written as for mvmm run --net. The tap is opened with your rights and passed to the machine.\n",
};

static const struct command *const subcommands[] = {&net_add, &command_net_remove, &command_net_set};

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
	.options = &command_plain_options,
	.run = cli_net_run,
};
