/* SPDX-License-Identifier: Apache-2.0 */
/* The log of a session: opened as --log says, before anything else of the session, by who closes it. See session_internal.h. */
#include "vmm/session/session_internal.h"

#include "vmm/config/report_options.h"

bool session_log_open(struct session *session, const struct report_options *report, bool verbose, bool quiet,
		      struct err *err)
{
	int code = 0;

	session->report = report;
	session->log.level = report_options_level(report, verbose, quiet);
	if (report->log.to && strcmp(report->log.to, "journald") == 0)
		code = log_to_journal(&session->log, err);
	else if (report->log.to)
		code = log_to_file(&session->log, report->log.to, err);
	if (code) {
		err_prefix(err, code, "--log");
		return false;
	}
	log_open(&session->log);
	return true;
}

/* What programs of this session's say, and what is said after its end, goes to the same file. */
void session_log_live(struct session *session)
{
	if (session->log.brackets) /* its lines name an instance, and go where its clients want them */
		return;
	log_set_machine(&session->log, session->config->name);
	if (session->log.form == LOG_FILE && dup2(session->log.fd, STDERR_FILENO) < 0)
		log_warn(&session->log, "--log: stderr: %m");
}
