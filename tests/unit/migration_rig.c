/* SPDX-License-Identifier: Apache-2.0 */
/* See migration_rig.h. */
#include "tests/unit/migration_machine.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "core/irq.h"
#include "tests/unit/migration_proxy.h"

const char *rig_failure_text(enum rig_failure failure)
{
	static const char *const names[RIG_FAILURES] = {
		"nothing", "offer", "track", "collect", "pause", "save", "create", "try", "load", "lock", "start",
	};

	return names[failure];
}

static void fill(uint64_t *words, size_t size)
{
	for (size_t i = 0; i < size / 8; i++)
		words[i] = (i + 1) * 0x9e3779b97f4a7c15ull;
}

static void do_tell(void *opaque, const struct migration_report *report)
{
	((struct rig *)opaque)->result->tells++;
}

/* ---- both sides ---- */

struct side {
	struct rig *rig;
	struct migration_source *source;
	struct migration_target *target;
	int cancel_fd;
	const char *to;
};

static void *run_source(void *opaque)
{
	struct side *side = opaque;

	struct rig *rig = side->rig;

	if (rig->options->play)
		rig->options->play(side->to);
	else
		migration_source_run(side->source, &rig->result->source);
	pthread_mutex_lock(&rig->lock);
	rig->over = true;
	pthread_mutex_unlock(&rig->lock);
	return NULL;
}

static void *run_target(void *opaque)
{
	struct side *side = opaque;

	struct err *err = &side->rig->result->target_err;

	side->rig->result->target = migration_target_meet(side->target, err) ?: migration_target_run(side->target, err);
	migration_target_destroy(take_ptr(side->target)); /* as its process would end */
	return NULL;
}

static void *canceller(void *opaque)
{
	struct side *side = opaque;
	const struct rig_options *options = side->rig->options;

	usleep((useconds_t)(options->cancel_us ?: options->end_us));
	if (options->cancel_us)
		migration_source_cancel(side->source, "enough", NULL);
	else
		eventfd_kick(side->cancel_fd);
	return NULL;
}

static void run_both(struct side *side)
{
	pthread_t threads[3];
	bool cancels = side->rig->options->cancel_us || side->rig->options->end_us;

	pthread_create(&threads[0], NULL, run_target, side);
	pthread_create(&threads[1], NULL, run_source, side);
	if (cancels)
		pthread_create(&threads[2], NULL, canceller, side);
	pthread_join(threads[1], NULL);
	/* A source that never came leaves the target waiting. */
	if (side->rig->result->source.state != MIGRATION_DONE && !side->rig->target.memory && !side->rig->options->play)
		eventfd_kick(side->cancel_fd);
	pthread_join(threads[0], NULL);
	if (cancels)
		pthread_join(threads[2], NULL);
}

static void migrate(struct rig *rig)
{
	struct side side = {.rig = rig, .cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	struct migration_request request = rig->options->request;
	unsigned int silence_ms = rig->options->silence_ms ?: rig->options->stall ? 1300 : 0;
	const struct migration_source_config source = {
		.request = &request, .ops = &fake_source_ops, .machine = &rig->source, .tell = do_tell, .opaque = rig,
		.silence_ms = silence_ms,
	};
	struct address from;
	struct migration_target_config target = {
		.from = &from, .ops = &fake_target_ops, .opaque = rig, .cancel_fd = side.cancel_fd, .silence_ms = silence_ms,
	};
	char to[128], listen_at[128];
	int pair[2] = {-1, -1};
	struct err err = {""};
	int code;

	snprintf(listen_at, sizeof(listen_at), "unix:%s", rig->back);
	snprintf(to, sizeof(to), "unix:%s", rig->options->cut_after ? rig->front : rig->back);
	if (rig->options->by_fd) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return;
		snprintf(to, sizeof(to), "fd");
		snprintf(listen_at, sizeof(listen_at), "fd:%d", pair[1]);
	}
	side.to = request.to = to;
	code = address_parse(listen_at, true, &from, &err) ?: migration_target_create(&target, &side.target, &err);
	code = code ?: migration_source_create(&source, &pair[0], &side.source, &err);
	if (!code)
		run_both(&side);
	else
		snprintf(rig->result->source.text, sizeof(rig->result->source.text), "%.500s", err.text);
	migration_source_destroy(side.source);
	migration_target_destroy(side.target);
	fd_close(&side.cancel_fd);
}

void rig_run(const struct rig_options *options, struct rig_result *result)
{
	struct rig rig = {.options = options, .result = result, .full_fd = open("/dev/full", O_RDWR | O_CLOEXEC)};
	struct proxy *proxy = NULL;

	*result = (struct rig_result){.target = -1};
	snprintf(rig.front, sizeof(rig.front), "/tmp/mvmm-rig-%d-front", getpid());
	snprintf(rig.back, sizeof(rig.back), "/tmp/mvmm-rig-%d-back", getpid());
	pthread_mutex_init(&rig.lock, NULL);
	if (options->devices) {
		rig.kernel = fake_new();
		describe_devices(&rig.source, &rig);
		describe_devices(&rig.target, &rig);
		order_failure(&rig);
	}
	fake_create(&rig.source, &rig);
	fill(rig.source.low, LOW_SIZE);
	fill(rig.source.high, HIGH_SIZE / 2); /* the rest is zero */
	for (uint64_t i = 0; i < DISK / 512 && options->disks; i += i % 2000 < 1000 ? 1 : 1000) /* in part a hole */
		write_disk(&rig.source, i, i + 1);
	if (options->devices && open_devices(&rig.source, NULL))
		return;
	take_disk(&rig.source, NULL);
	set_running(&rig.source, true);
	usleep(2000);
	if (options->cut_after)
		proxy = proxy_open(rig.front, rig.back, options->cut_after, options->stall,
				   options->drips);
	migrate(&rig);
	while (__atomic_load_n(&rig.flushing, __ATOMIC_ACQUIRE))
		usleep(1000);
	result->passed = proxy_close(proxy);
	result->source_runs = rig.source.running;
	result->target_runs = rig.target.running;
	result->disk_free = !rig.disk;
	result->devices_right = rig.target.running ? devices_are(&rig.target, VFIO_DEVICE_STATE_RUNNING) :
				devices_are(&rig.source, rig.source.running ? VFIO_DEVICE_STATE_RUNNING :
									      VFIO_DEVICE_STATE_STOP_COPY);
	fake_destroy(&rig.source);
	fake_destroy(&rig.target);
	result->devices_right &= !rig.kernel || fake_left(rig.kernel) == 0;
	if (rig.kernel)
		fake_free(rig.kernel);
	unlink(rig.back);
	fd_close(&rig.full_fd);
}
