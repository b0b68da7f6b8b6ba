/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm migrate`: starts the migration of a machine and shows its progress; cancels it, shows its status, resolves it.
 * The machine does the work; if this command dies, the migration continues. A machine that has no network gets its
 * connections from here.
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "vmm/cli/command.h"
#include "vmm/control/control_client.h"
#include "vmm/migration/address.h"
#include "vmm/migration/connector.h"
#include "vmm/migration/request.h"

#define PATIENCE_MS 10000 /* for replies that do not wait for a migration */
#define LINE_SECONDS 1.0  /* between two lines without a terminal */

static const char *const resolve_words[] = {"continue", "end", NULL};
enum resolve { RESOLVE_NO = -1, RESOLVE_CONTINUE, RESOLVE_END };

struct migrate_options {
	struct migration_request request;
	bool copy_disks, copy_readonly, json, status, cancel, yes, help;
	enum resolve resolve;
};

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key resolve = {"resolve", OPTION_WORD, .value = UINT32_MAX, .words = resolve_words};

#define FIELD(member) .plain = true, .offset = offsetof(struct migrate_options, member)
#define REQUEST(key) &migration_request_keys[MIGRATION_KEY_##key], 1, FIELD(request)

static const struct option options[] = {
	{"to", "tcp:HOST[:PORT]|unix:PATH|fd:N", "the address where mvmm receive waits; port 7150 by default",
	 REQUEST(TO)},
	{"downtime", "TIME", "how long the guest may be paused; 300ms by default", REQUEST(DOWNTIME)},
	{"downtime-limit", "TIME",
	 "when a pause that lasts longer than expected is given up; by default twice the downtime, at least 1s",
	 REQUEST(DOWNTIME_LIMIT)},
	{"bandwidth", "RATE", "the most bytes a second to send, such as 100M; no limit by default", REQUEST(BANDWIDTH)},
	{"device-rate", "RATE", "device state a second to expect of a device with unknown rate; 100M by default",
	 REQUEST(DEVICE_RATE)},
	{"throttle-max", "PERCENT", "the most of its time for which a guest that writes too fast is stopped; 80 by default",
	 REQUEST(THROTTLE_MAX)},
	{"streams", "N", "connections for memory; by default one for each CPU, at most 4", REQUEST(STREAMS)},
	{"compress", "zstd|none", "compress memory; none by default", REQUEST(COMPRESS)},
	{"copy-disks", NULL, "copy writable disks to the target; others must be on shared storage", &flag, 1,
	 FIELD(copy_disks)},
	{"copy-readonly", NULL, "with --copy-disks: copy read-only disks too", &flag, 1, FIELD(copy_readonly)},
	{"tls", "DIR", "encrypt with TLS and the certificates in this folder", REQUEST(TLS)},
	{"tls-peer", "NAME", "the host name that the target's certificate must be for; that of --to by default", REQUEST(TLS_PEER)},
	{"timeout", "TIME", "how long to wait until the rest fits into the downtime; 10m by default", REQUEST(TIMEOUT)},
	{"on-timeout", "cancel|stop-and-copy",
	 "what happens then: cancel (the default), or pause the guest and send the rest",
	 REQUEST(ON_TIMEOUT)},
	{"json", NULL, "print an object at the end; also with --status", &flag, 1, FIELD(json)},
	{"status", NULL, "show the progress, or the result of the last migration", &flag, 1, FIELD(status)},
	{"cancel", NULL, "cancel the migration; the guest continues here", &flag, 1, FIELD(cancel)},
	{"resolve", "continue|end", "after a lost reply: continue the guest here, or end it because it runs there",
	 &resolve, 1, FIELD(resolve)},
	{"yes", NULL, "with --resolve continue: you are sure that the guest does not run there", &flag, 1, FIELD(yes)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

/* ---- progress, for the user ---- */

struct show {
	struct control_client *client;
	struct connector *connector; /* or NULL */
	bool terminal, quiet, cancelled;
	int signal_fd, wake_fd;
	double shown_at; /* seconds, in the machine's time */
	long long shown_round;
};

static double cli_migrate_number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static const char *cli_migrate_word(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

static const char *cli_migrate_bytes(const json_t *object, const char *key, char *buf)
{
	return migration_format_bytes((uint64_t)MAX(cli_migrate_number(object, key), 0.0), buf);
}

static void cli_migrate_print_progress(FILE *to, const json_t *progress)
{
	char sent[24], left[24], dirty[24], rate[24], disk[24], device[24];

	if (!cli_migrate_number(progress, "round")) {
		fprintf(to, "%s", cli_migrate_word(progress, "state"));
		return;
	}
	fprintf(to, "round %.0f: %s sent, %s left, dirtying %s/s, sending %s/s", cli_migrate_number(progress, "round"),
		cli_migrate_bytes(progress, "sent", sent), cli_migrate_bytes(progress, "left", left),
		cli_migrate_bytes(progress, "dirty_rate", dirty), cli_migrate_bytes(progress, "send_rate", rate));
	if (cli_migrate_number(progress, "disk_sent"))
		fprintf(to, ", disks %s left", cli_migrate_bytes(progress, "disk_left", disk));
	if (cli_migrate_number(progress, "device"))
		fprintf(to, ", devices %s", cli_migrate_bytes(progress, "device", device));
	if (cli_migrate_number(progress, "throttle"))
		fprintf(to, ", throttled %.0f %%", cli_migrate_number(progress, "throttle"));
	if (cli_migrate_number(progress, "predicted"))
		fprintf(to, ", downtime %.1f ms", cli_migrate_number(progress, "predicted") * 1e3);
	if (cli_migrate_number(progress, "eta"))
		fprintf(to, ", ETA %.0f s", cli_migrate_number(progress, "eta"));
	if (cli_migrate_word(progress, "reason")[0])
		fprintf(to, " (%s)", cli_migrate_word(progress, "reason"));
}

/* One line that is overwritten on a terminal; else a line for each round and second. */
static void cli_migrate_on_progress(void *opaque, const json_t *parameters)
{
	const json_t *progress = json_object_get(parameters, "migration");
	struct show *show = opaque;
	long long round = (long long)cli_migrate_number(progress, "round");

	if (show->quiet)
		return;
	if (!show->terminal && round == show->shown_round &&
	    cli_migrate_number(progress, "elapsed") < show->shown_at + LINE_SECONDS)
		return;
	show->shown_round = round;
	show->shown_at = cli_migrate_number(progress, "elapsed");
	if (show->terminal)
		fputs("\r\33[K", stderr);
	cli_migrate_print_progress(stderr, progress);
	if (!show->terminal)
		putc('\n', stderr);
	fflush(stderr);
}

static void cli_migrate_end_line(const struct show *show)
{
	if (show->terminal && !show->quiet)
		fputs("\r\33[K", stderr);
}

static void cli_migrate_print_summary(const char *to, const json_t *result)
{
	char sent[24], disks[24];

	printf("migrated to %s in %.2f s: %.0f round%s, %s sent", to, cli_migrate_number(result, "elapsed"),
	       cli_migrate_number(result, "round"),
	       cli_migrate_number(result, "round") == 1 ? "" : "s", cli_migrate_bytes(result, "sent", sent));
	if (cli_migrate_number(result, "disk_sent"))
		printf(", %s of it from disks", cli_migrate_bytes(result, "disk_sent", disks));
	printf("%s%s\n", cli_migrate_word(result, "reason")[0] ? "; " : "", cli_migrate_word(result, "reason"));
	if (json_is_true(json_object_get(result, "paused"))) {
		printf("it was paused and stays paused; it could not be resumed for %.2f ms\n",
		       cli_migrate_number(result, "downtime") * 1e3);
		return;
	}
	printf("downtime %.2f ms, predicted %.2f ms%s; no CPU ran for %.2f ms\n",
	       cli_migrate_number(result, "downtime") * 1e3, cli_migrate_number(result, "predicted") * 1e3,
	       json_is_true(json_object_get(result, "device_assumed")) ? " with an assumed rate of host devices" : "",
	       cli_migrate_number(result, "stall") * 1e3);
}

static void cli_migrate_print_json(const json_t *object)
{
	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
}

/* ---- calls ---- */

/* Ctrl-C cancels the migration and continues to wait: the reply to the call says whether that worked. */
static void cli_migrate_on_signal(struct show *show)
{
	struct signalfd_siginfo info;
	struct err err = {""};

	if (read(show->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	cli_migrate_end_line(show);
	fprintf(stderr, "cancelling\n");
	control_client_call_beside(show->client->name, "MigrationCancel", NULL, PATIENCE_MS, &err);
	if (err.text[0])
		fprintf(stderr, "mvmm: %s\n", err.text);
	show->cancelled = true;
}

/* A signal, or the machine asks for a connection. */
static void cli_migrate_on_wake(void *opaque)
{
	struct show *show = opaque;

	cli_migrate_on_signal(show);
	if (show->connector && !connector_serve(show->connector))
		epoll_ctl(show->wake_fd, EPOLL_CTL_DEL, connector_fd(show->connector), NULL);
}

static int cli_migrate_watch(struct show *show, struct err *err)
{
	const int fds[] = {show->signal_fd, show->connector ? connector_fd(show->connector) : -1};

	show->wake_fd = epoll_create1(EPOLL_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		struct epoll_event event = {.events = EPOLLIN};

		if (fds[i] >= 0 && epoll_ctl(show->wake_fd, EPOLL_CTL_ADD, fds[i], &event) < 0)
			return err_sys(err, -errno, "epoll");
	}
	return 0;
}

/* Makes *path, which may not exist yet, absolute, for another process. */
static int cli_migrate_make_absolute(char **path, struct err *err)
{
	_cleanup_(free_ptr) char *cwd = NULL;
	char *absolute;

	if (**path == '/')
		return 0;
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&absolute, "%s/%s", cwd, *path) < 0)
		return err_sys(err, cwd ? -ENOMEM : -errno, "%s", *path);
	free(*path);
	*path = absolute;
	return 0;
}

/* Checks the address and makes its path absolute; *fd is the descriptor to pass, or -1. */
static int cli_migrate_prepare(struct migration_request *request, int *fd, struct err *err)
{
	struct address address;
	int code = address_parse(request->to, false, &address, err);
	char *path;

	if (code)
		return err_prefix(err, code, "--to");
	if (request->tls_peer && !request->tls)
		return err_set(err, -EINVAL, "--tls-peer %.100s: needs --tls DIR, which checks certificates",
			       request->tls_peer);
	if (!request->tls && !address_is_local(&address))
		fprintf(stderr, "mvmm: the guest's memory will cross the network unencrypted; --tls DIR encrypts it\n");
	if (request->tls) {
		code = cli_migrate_make_absolute(&request->tls, err);
		if (code)
			return err_prefix(err, code, "--tls");
	}
	*fd = address.kind == ADDRESS_FD ? address.fd : -1;
	if (address.kind != ADDRESS_UNIX)
		return 0;
	path = strdup(address.path);
	code = path ? cli_migrate_make_absolute(&path, err) : err_sys(err, -ENOMEM, "--to");
	if (!code) {
		free(take_ptr(request->to));
		code = asprintf(&request->to, "unix:%s", path) < 0 ? err_sys(err, -ENOMEM, "--to") : 0;
	}
	free(path);
	return code;
}

/* *fd: the descriptor to pass; a machine that has no network asks there for connections. */
static int cli_migrate_begin(struct show *show, const struct migration_request *request, int *fd, struct err *err)
{
	struct address to;
	const struct dialer_options dialing = {.to = &to, .cancel_fd = -1, .tls = request->tls, .tls_peer = request->tls_peer};
	int code = *fd >= 0 ? 0 : address_parse(request->to, false, &to, err);

	if (!code && *fd < 0)
		code = connector_create(&dialing, fd, &show->connector, err);
	return code ?: cli_migrate_watch(show, err);
}

static int cli_migrate_follow(struct show *show, struct migrate_options *given, int fd, json_t **answer, struct err *err)
{
	_cleanup_(fd_close) int own_fd = -1;
	struct control_watch watch = {cli_migrate_on_progress, cli_migrate_on_wake, -1, show};
	int code;

	show->signal_fd = command_watch_signals();
	code = cli_migrate_begin(show, &given->request, &fd, err);
	if (show->connector)
		own_fd = fd;
	watch.wake_fd = show->wake_fd;
	code = code ?: control_client_follow(show->client, "Migrate", migration_request_to_json(&given->request), &fd, 1, &watch,
					     answer, err);
	cli_migrate_end_line(show);
	fd_close(&show->signal_fd);
	fd_close(&show->wake_fd);
	return code;
}

static int cli_migrate_migrate(struct control_client *client, struct migrate_options *given, int fd, struct err *err)
{
	struct show show = {.client = client, .terminal = isatty(STDERR_FILENO), .quiet = given->json, .signal_fd = -1,
			    .wake_fd = -1};
	json_t *answer;
	int code = cli_migrate_follow(&show, given, fd, &answer, err);

	connector_destroy(show.connector);
	if (code)
		return show.cancelled ? EXIT_SIGNAL + SIGINT : EXIT_FAILED;
	if (given->json)
		cli_migrate_print_json(json_object_get(answer, "migration"));
	else
		cli_migrate_print_summary(given->request.to, json_object_get(answer, "migration"));
	json_decref(answer);
	control_client_wait_end(client, PATIENCE_MS); /* its name is free then */
	return EXIT_OFF;
}

static int cli_migrate_tell_status(struct control_client *client, bool json, struct err *err)
{
	json_t *answer, *status;

	if (control_client_call(client, "MigrationStatus", NULL, PATIENCE_MS, &answer, err))
		return EXIT_FAILED;
	status = json_object_get(answer, "migration");
	if (json) {
		cli_migrate_print_json(status);
	} else {
		printf("%s\n", cli_migrate_word(status, "state"));
		if (cli_migrate_number(status, "round")) {
			cli_migrate_print_progress(stdout, status);
			putchar('\n');
		}
		if (cli_migrate_word(status, "text")[0])
			printf("%s\n", cli_migrate_word(status, "text"));
	}
	json_decref(answer);
	return EXIT_OFF;
}

static int cli_migrate_ask(struct control_client *client, struct migrate_options *given, int fd, struct err *err)
{
	json_t *choice;

	if (given->status)
		return cli_migrate_tell_status(client, given->json, err);
	if (given->cancel)
		return control_client_call(client, "MigrationCancel", NULL, PATIENCE_MS, NULL, err) ? EXIT_FAILED :
												      EXIT_OFF;
	if (given->resolve == RESOLVE_NO)
		return cli_migrate_migrate(client, given, fd, err);
	choice = json_pack("{s:b, s:b}", "continue", given->resolve == RESOLVE_CONTINUE, "yes", given->yes);
	return control_client_call(client, "MigrationResolve", choice, PATIENCE_MS, NULL, err) ? EXIT_FAILED : EXIT_OFF;
}

static int cli_migrate_check(const struct migrate_options *given, struct err *err)
{
	unsigned int verbs = !!given->request.to + given->status + given->cancel + (given->resolve != RESOLVE_NO);

	if (given->copy_readonly && !given->copy_disks)
		return err_set(err, -EINVAL, "--copy-readonly: needs --copy-disks");
	if (given->yes && given->resolve != RESOLVE_CONTINUE)
		return err_set(err, -EINVAL, "--yes: needs --resolve continue");
	if (given->request.downtime_limit && given->request.downtime_limit < given->request.goal.downtime)
		return err_set(err, -EINVAL, "--downtime-limit: is below --downtime; give at least %.3g s",
			       (double)given->request.goal.downtime / 1e9);
	if (verbs == 1)
		return 0;
	return verbs ? err_set(err, -EINVAL, "migrate: give only one of --to, --status, --cancel and --resolve") :
		       err_set(err, -EINVAL,
			       "--to is missing; write --to tcp:HOST, where mvmm receive --from tcp: waits");
}

static int cli_migrate_run_with(struct migrate_options *given, int argc, char *const *argv, struct err *err)
{
	struct control_client client;
	const char *name;
	int fd = -1, code;

	if (!command_parse(&command_migrate, given, offsetof(struct migrate_options, help), argc, argv, &name, 1, &code,
			   err))
		return code;
	given->request.copy_disks = !given->copy_disks ? MIGRATION_COPY_NONE :
				    given->copy_readonly ? MIGRATION_COPY_ALL : MIGRATION_COPY_WRITABLE;
	if (cli_migrate_check(given, err) || (given->request.to && cli_migrate_prepare(&given->request, &fd, err)))
		return EXIT_BAD_INPUT;
	code = name ? control_client_open(name, &client, err) : control_client_open_only(&client, err);
	if (code)
		return code == -EINVAL ? EXIT_BAD_INPUT : EXIT_FAILED;
	code = cli_migrate_ask(&client, given, fd, err);
	control_client_close(&client);
	return code;
}

static int cli_migrate_run(int argc, char *const *argv, struct err *err)
{
	struct migrate_options given;
	int code;

	options_init(&table, &given);
	code = cli_migrate_run_with(&given, argc, argv, err);
	options_done(&table, &given);
	return code;
}

const struct command command_migrate = {
	.name = "migrate",
	.operands = "[NAME]",
	.summary = "Move a running machine to another host",
	.text = "NAME may be omitted if only one machine runs. Ctrl-C cancels, and the guest continues here.\n",
	.options = &table,
	.run = cli_migrate_run,
};
