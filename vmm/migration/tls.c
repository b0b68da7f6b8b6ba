/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See tls.h. The helper gets the connection as descriptor 3 and one end of a socket pair as 4. It reports with one
 * message on 5: "k" (the kernel does TLS), "p" (use the pair), or an errno and a message.
 */
#include "vmm/migration/tls.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "core/errand.h"
#include "core/helpers.h"
#include "vmm/jail/seccomp.h"
#include "vmm/migration/helper.h"

#define HELPER "mvmm-tls"
#define LOOK_MS 5
#define GRACE_MS 500 /* for a helper to send remaining data */

struct tls {
	pid_t pid; /* 0: reaped, or not started */
	int socket, pair, report;
	bool moving; /* it may have data to send */
};

static int tls_start_helper(struct tls *tls, const struct tls_options *options, struct err *err)
{
	_cleanup_(fd_close) int their_end = -1;
	_cleanup_(fd_close) int their_report = -1;
	const char *const side = options->side == WIRE_SOURCE ? "source" : "target";
	char path[PATH_MAX];
	const char *const argv[] = {path, side, options->folder, options->peer ?: "", seccomp_words[seccomp_mode()], NULL};
	int pair[2], report[2], code;

	if (errand_socketpair(SOCK_STREAM, pair) < 0)
		return err_sys(err, -errno, "--tls: socket");
	tls->pair = pair[0];
	their_end = pair[1];
	if (errand_socketpair(SOCK_SEQPACKET, report) < 0)
		return err_sys(err, -errno, "--tls: socket");
	tls->report = report[0];
	their_report = report[1];
	if (options->helper)
		snprintf(path, sizeof(path), "%s", options->helper);
	else
		helper_find(HELPER, path);
	code = helpers_start(argv, (int[]){tls->socket, their_end, their_report}, 3, -1, &tls->pid);
	return code ? err_sys(err, code, "--tls: start %s", path) : 0;
}

int tls_start(const struct tls_options *options, int *fd, struct tls **ret, struct err *err)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	int code;

	if (!tls)
		return err_sys(err, -ENOMEM, "--tls");
	*tls = (struct tls){.socket = take_fd(fd), .pair = -1, .report = -1};
	code = tls_start_helper(tls, options, err);
	if (code) {
		tls_destroy(tls);
		return code;
	}
	*ret = tls;
	return 0;
}

int tls_report_fd(const struct tls *tls)
{
	return tls->report;
}

int tls_finish(struct tls *tls, int *fd, struct err *err)
{
	char report[512] = "";
	ssize_t n = recv(tls->report, report, sizeof(report) - 1, 0);
	char *words;
	long code;

	fd_close(&tls->report);
	if (n == 1 && report[0] == 'k') {
		*fd = take_fd(&tls->socket);
		fd_close(&tls->pair);
		return 0;
	}
	fd_close(&tls->socket);
	if (n == 1 && report[0] == 'p') {
		*fd = take_fd(&tls->pair);
		tls->moving = true;
		return 0;
	}
	code = strtol(report, &words, 10);
	if (n <= 0 || *words != ' ' || code >= 0 || code < -4095)
		return err_set(err, -ECONNRESET, "--tls: " HELPER " ended without a report");
	words[strcspn(words, "\n")] = 0;
	return err_set(err, (int)code, "--tls: %s", words + 1);
}

/* Waits a while if it may have something to send. */
static bool tls_has_ended(const struct tls *tls)
{
	int status;

	for (int waited = 0; tls->moving && waited < GRACE_MS; waited += LOOK_MS) {
		if (helpers_reap(tls->pid, &status))
			return true;
		poll(NULL, 0, LOOK_MS);
	}
	return false;
}

void tls_destroy(struct tls *tls)
{
	if (!tls)
		return;
	fd_close(&tls->socket);
	fd_close(&tls->pair);
	fd_close(&tls->report);
	if (tls->pid > 0 && !tls_has_ended(tls))
		helpers_kill(tls->pid);
	free(tls);
}
