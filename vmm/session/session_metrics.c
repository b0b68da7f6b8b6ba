/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metrics of a session: those of its process, its migration and its machine (machine/machine_metrics.h). See
 * session_internal.h.
 *
 * Memory is read from /proc/self/statm, which the kernel keeps as counters. smaps_rollup would know more, but walks the
 * page tables of all guest memory, and the event loop would wait for it.
 */
#include "vmm/session/session_internal.h"

#include "core/errand.h"
#include "core/monotonic.h"
#include "vmm/machine/machine_metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>

struct session_metrics {
	int statm_fd; /* -1: not opened yet, or it cannot be */
	uint64_t page; /* bytes */
	struct session_metrics_file *file; /* or NULL */
};

static int session_metrics_open_statm(void)
{
	return errand_open("/proc/self/statm", O_RDONLY | O_CLOEXEC, 0);
}

int session_metrics_open(struct session *session, struct err *err)
{
	session->metrics = malloc(sizeof(*session->metrics));
	if (!session->metrics)
		return err_sys(err, -ENOMEM, "metrics");
	*session->metrics = (struct session_metrics){
		.statm_fd = session->jail ? session_metrics_open_statm() : -1, /* a jail has no /proc */
		.page = (uint64_t)sysconf(_SC_PAGESIZE),
	};
	return session_metrics_file_open(session, &session->metrics->file, err);
}

void session_metrics_last(struct session *session)
{
	if (session->metrics && session->machine && !session->abandoned)
		session_metrics_file_write(session->metrics->file);
}

void session_metrics_done(struct session *session)
{
	if (!session->metrics)
		return;
	session_metrics_file_close(session->metrics->file);
	fd_close(&session->metrics->statm_fd);
	free(take_ptr(session->metrics));
}

static double session_metrics_seconds(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void session_metrics_usage(struct metrics *metrics)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage))
		return;
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_process_cpu_seconds_total",
		      "Time of the host's CPUs; user includes the guest's");
	metrics_add_real(metrics, metrics_labels({"mode", "user"}), session_metrics_seconds(usage.ru_utime));
	metrics_add_real(metrics, metrics_labels({"mode", "system"}), session_metrics_seconds(usage.ru_stime));
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_process_page_faults_total",
		      "Page faults of the process; major ones waited for storage");
	metrics_add(metrics, metrics_labels({"kind", "minor"}), (uint64_t)usage.ru_minflt);
	metrics_add(metrics, metrics_labels({"kind", "major"}), (uint64_t)usage.ru_majflt);
}

/* "size resident shared ...", in pages. */
static void session_metrics_memory(struct session_metrics *from, struct metrics *metrics)
{
	unsigned long long resident, shared;
	char text[128];
	ssize_t n;

	if (from->statm_fd < 0)
		from->statm_fd = session_metrics_open_statm(); /* not before, for the guest would start later */
	n = pread(from->statm_fd, text, sizeof(text) - 1, 0);
	text[MAX(n, 0)] = 0;
	if (sscanf(text, "%*u %llu %llu", &resident, &shared) != 2 || shared > resident)
		return;
	metrics_begin(metrics, METRICS_GAUGE, "mvmm_process_memory_bytes",
		      "Memory that is present: private, or shared with files (a snapshot's memory) and shared memory");
	metrics_add(metrics, metrics_labels({"kind", "private"}), (resident - shared) * from->page);
	metrics_add(metrics, metrics_labels({"kind", "shared"}), shared * from->page);
}

static void session_metrics_migration(const struct session *session, struct metrics *metrics)
{
	const struct migration_report *report = outgoing_report(session->outgoing);

	if (report->state == MIGRATION_NONE)
		return;
	metrics_one(metrics, METRICS_GAUGE, "mvmm_migration_round", "Rounds of the migration, or of the last one",
		    report->progress.round);
	metrics_one(metrics, METRICS_GAUGE, "mvmm_migration_sent_bytes", "Bytes that it has sent", report->progress.sent);
	metrics_one(metrics, METRICS_GAUGE, "mvmm_migration_left_bytes", "Bytes of guest memory that are left",
		    report->progress.left);
	metrics_one(metrics, METRICS_GAUGE, "mvmm_migration_throttle_percent", "Of its time for which the guest is stopped",
		    report->progress.throttle);
	metrics_begin(metrics, METRICS_GAUGE, "mvmm_migration_predicted_downtime_seconds", "If it switched over now");
	metrics_add_real(metrics, NULL, (double)report->progress.predicted / 1e9);
}

static void session_metrics_about(const struct session *session, const char *state, struct metrics *metrics)
{
	metrics_begin(metrics, METRICS_GAUGE, "mvmm_info", "1; the labels tell what this is");
	metrics_add(metrics, metrics_labels({"version", MVMM_VERSION}, {"state", state}), 1);
	metrics_begin(metrics, METRICS_GAUGE, "mvmm_uptime_seconds", "Since the machine was made");
	metrics_add_real(metrics, NULL, (double)((monotonic_ns() - session->started_ns) / 1000000) / 1e3);
	metrics_one(metrics, METRICS_COUNTER, "mvmm_log_lost_total", "Lines of the log that were left out or that nobody read",
		    log_lost(&session->log));
	metrics_one(metrics, METRICS_GAUGE, "mvmm_vcpus", "CPUs of the guest", session->config->cpus);
	metrics_one(metrics, METRICS_GAUGE, "mvmm_memory_bytes", "Memory of the guest", session->config->memory.size);
}

int session_metrics_get(const struct session *session, const char *state, json_t **ret, struct err *err)
{
	struct metrics metrics;

	metrics_init(&metrics);
	session_metrics_about(session, state, &metrics);
	session_metrics_usage(&metrics);
	session_metrics_memory(session->metrics, &metrics);
	session_metrics_migration(session, &metrics);
	session_events_metrics(session, &metrics);
	machine_metrics(session->machine, &metrics);
	return metrics_take(&metrics, ret, err);
}
