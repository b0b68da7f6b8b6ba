/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm events`: prints what happens to one machine until it ends, or to all machines until a signal. Machines that start
 * meanwhile are found in the runtime folder, where this looks once a second.
 */
#include <poll.h>
#include <stdio.h>

#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"
#include "vmm/control/rundir.h"

#define MAX_MACHINES 1024u
#define PATIENCE_MS 1000 /* for the rest of a message that has begun */
#define LOOK_MS 1000

struct events_options {
	bool json, help;
};

static const struct option_key flag = {"flag", OPTION_FLAG};

static const struct option options[] = {
	{"json", NULL, "print an object a line", &flag, 1, .plain = true, .offset = offsetof(struct events_options, json)},
	{"help", NULL, "show this", &flag, 1, .plain = true, .offset = offsetof(struct events_options, help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

struct cli_events {
	bool json;
	struct control_client clients[MAX_MACHINES];
	struct pollfd polled[MAX_MACHINES + 1]; /* the last one is the signals' */
	size_t count;
};

/* ---- an event ---- */

/* "TIME NAME EVENT", and the other members as "key value". */
static void cli_events_print_line(const json_t *event)
{
	static const char *const first[] = {"time", "name", "event"};
	const char *key;
	json_t *value;

	for (size_t i = 0; i < ARRAY_SIZE(first); i++)
		printf("%s%s", i ? " " : "", json_string_value(json_object_get(event, first[i])) ?: "?");
	json_object_foreach((json_t *)event, key, value) {
		char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));

		if (strcmp(key, "time") != 0 && strcmp(key, "name") != 0 && strcmp(key, "event") != 0)
			printf(", %s %s", key, json_string_value(value) ?: text ?: "?");
		free(text);
	}
	putchar('\n');
}

/* 0; or -errno: nobody reads what is printed. */
static int cli_events_print(const struct cli_events *events, const json_t *event)
{
	if (!json_is_object(event))
		return 0;
	if (events->json) {
		json_dumpf(event, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
		putchar('\n');
	} else {
		cli_events_print_line(event);
	}
	return fflush(stdout) ? -errno : 0;
}

/* ---- machines ---- */

static int cli_events_follow(struct cli_events *events, const char *name, struct err *err)
{
	struct control_client *client = &events->clients[events->count];
	int code;

	if (events->count == MAX_MACHINES)
		return err_set(err, -EMFILE, "events: more than %u machines", MAX_MACHINES);
	code = control_client_open(name, client, err);
	if (code)
		return code;
	code = control_client_ask(client, "Events", NULL, PATIENCE_MS, err);
	if (code)
		control_client_close(client);
	else
		events->count++;
	return code;
}

static void cli_events_leave(struct cli_events *events, size_t at)
{
	control_client_close(&events->clients[at]);
	events->count--;
	memmove(&events->clients[at], &events->clients[at + 1], (events->count - at) * sizeof(events->clients[0]));
}

/* One that ends at this moment, or that refuses, is none of those that are followed. */
static int cli_events_on_machine(void *opaque, const char *name, pid_t pid)
{
	struct cli_events *events = opaque;

	for (size_t i = 0; i < events->count; i++)
		if (strcmp(events->clients[i].name, name) == 0)
			return 0;
	cli_events_follow(events, name, NULL);
	return 0;
}

/* Prints the event that the machine has sent. Its end, and an error of it, ends the connection. -errno of the output. */
static int cli_events_read(struct cli_events *events, size_t at)
{
	json_t *reply = NULL;
	bool continues = false;
	int code = control_client_next(&events->clients[at], PATIENCE_MS, &reply, &continues, NULL);

	if (!code)
		code = cli_events_print(events, json_object_get(reply, "event"));
	else
		code = 0, continues = false;
	json_decref(reply);
	if (!continues)
		cli_events_leave(events, at);
	return code;
}

/* Waits for events and prints them: 0, -ECANCELED after a signal, or -errno of the output. */
static int cli_events_wait(struct cli_events *events, int signal_fd, bool all)
{
	size_t count = events->count;
	int code = 0;

	for (size_t i = 0; i < count; i++)
		events->polled[i] = (struct pollfd){.fd = events->clients[i].fd, .events = POLLIN};
	events->polled[count] = (struct pollfd){.fd = signal_fd, .events = POLLIN};
	if (poll(events->polled, count + 1, all ? LOOK_MS : -1) < 0 && errno != EINTR)
		return -errno;
	for (size_t i = count; i-- > 0 && !code;)
		if (events->polled[i].revents)
			code = cli_events_read(events, i);
	return events->polled[count].revents ? -ECANCELED : code;
}

static int cli_events_watch(struct cli_events *events, const char *name, struct err *err)
{
	int signal_fd = command_watch_signals(), code = name ? cli_events_follow(events, name, err) : 0;

	if (code)
		return code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
	do {
		code = name ? 0 : rundir_each(cli_events_on_machine, events, err);
		code = code ?: cli_events_wait(events, signal_fd, !name);
	} while (!code && (!name || events->count));
	while (events->count)
		cli_events_leave(events, events->count - 1);
	fd_close(&signal_fd);
	return !code || code == -ECANCELED || code == -EPIPE ? EXIT_OFF : EXIT_FAILED;
}

static int cli_events_run(int argc, char *const *argv, struct err *err)
{
	struct events_options given = {0};
	struct cli_events *events;
	const char *name;
	int code;

	if (!command_parse(&command_events, &given, offsetof(struct events_options, help), argc, argv, &name, 1, &code, err))
		return code;
	events = calloc(1, sizeof(*events));
	if (!events) {
		err_sys(err, -ENOMEM, "events");
		return EXIT_FAILED;
	}
	events->json = given.json;
	code = cli_events_watch(events, name, err);
	free(events);
	return code;
}

const struct command command_events = {
	.name = "events",
	.operands = "[NAME]",
	.summary = "Print what happens to a machine, or to all machines",
	.options = &table,
	.run = cli_events_run,
};
