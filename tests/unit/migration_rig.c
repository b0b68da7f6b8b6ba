/* SPDX-License-Identifier: Apache-2.0 */
/* See migration_rig.h. */
#include "tests/unit/migration_rig.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include "core/bitmap.h"
#include "core/irq.h"
#include "core/monotonic.h"
#include "tests/unit/fake_vfio.h"
#include "tests/unit/migration_proxy.h"
#include "vfio/device.h"

#define LOW_SIZE MIB(5)
#define HIGH_SIZE MIB(3)
#define HIGH GIB(4)
#define DEVICES 2
#define DISK (MIB(4) + 512)
#define GRANULES (DISK / DISK_GRANULE + 1)

struct rig;

struct fake {
	struct rig *rig;
	struct guest_memory *memory;
	struct dirty_set dirty;
	struct dirty_source failing;
	void *low, *high;
	pthread_t thread;
	pthread_mutex_t lock; /* held while the guest writes */
	bool running, over, owns_disk;
	/* host devices */
	struct vfio_space *space;
	struct vfio_device *devices[DEVICES];
	struct vfio_migration *group[DEVICES];
	struct fake_migration *inside[DEVICES];
	/* a disk of its own */
	int disk_fd;
	unsigned long changed[GRANULES / BITS_PER_LONG + 1];
	struct disk_copy copy;
	struct disk_target arriving;
};

struct rig {
	const struct rig_options *options;
	struct rig_result *result;
	struct fake source, target;
	struct fake_kernel *kernel; /* with the devices of both; NULL: there are none */
	pthread_mutex_t lock;
	/* under lock */
	unsigned int running;
	struct fake *disk; /* who has it */
	int full_fd;       /* of /dev/full */
	uint64_t stopped_sum;
	uint64_t stopped_at; /* ns; the source's last pause */
	bool over;           /* the source's run */
	unsigned int flushing; /* atomic */
	char front[108], back[108]; /* where the source connects to with a proxy, and where the target listens */
};

const char *rig_failure_text(enum rig_failure failure)
{
	static const char *const names[RIG_FAILURES] = {
		"nothing", "offer", "track", "collect", "pause", "save", "create", "try", "load", "lock", "start",
	};

	return names[failure];
}

static bool has_ended(struct rig *rig)
{
	bool over;

	pthread_mutex_lock(&rig->lock);
	over = rig->over;
	pthread_mutex_unlock(&rig->lock);
	return over;
}

/* A target that is not dead: its keep-alives go on. */
static void hang_at(struct rig *rig, enum rig_failure at)
{
	bool runs = rig->source.running;

	while (at != RIG_NONE && rig->options->hang == at && !has_ended(rig) && (runs || !rig->source.running))
		usleep(1000);
}

static int fails(struct rig *rig, enum rig_failure at, struct err *err)
{
	hang_at(rig, at);
	return rig->options->fail == at ? err_set(err, -EIO, "%s fails", rig_failure_text(at)) : 0;
}

/* ---- a machine ---- */

struct sums {
	uint64_t memory, disk;
};

static uint64_t disk_sum(const struct fake *fake)
{
	uint64_t sum = 14695981039346656037ull, *words = mmap(NULL, DISK, PROT_READ, MAP_SHARED, fake->disk_fd, 0);

	for (size_t i = 0; words != MAP_FAILED && i < DISK / 8; i++)
		sum = (sum ^ words[i]) * 1099511628211ull;
	munmap(words, DISK);
	return sum;
}

static uint64_t memory_sum(const struct fake *fake)
{
	const uint64_t *words[] = {fake->low, fake->high};
	const size_t sizes[] = {LOW_SIZE, HIGH_SIZE};
	uint64_t sum = 14695981039346656037ull;

	for (int i = 0; i < 2; i++)
		for (size_t w = 0; w < sizes[i] / 8; w++)
			sum = (sum ^ words[i][w]) * 1099511628211ull;
	return sum;
}

static struct sums sums_of(const struct fake *fake)
{
	return (struct sums){memory_sum(fake), disk_sum(fake)};
}

static bool same(struct sums a, struct sums b)
{
	return a.memory == b.memory && a.disk == b.disk;
}

/* As a disk does: first it is written, then said so. */
static void write_disk(struct fake *fake, uint64_t sector, uint64_t number)
{
	if (pwrite(fake->disk_fd, &number, sizeof(number), (off_t)(sector * 512)) == sizeof(number))
		bitmap_set(fake->changed, sector * 512 / DISK_GRANULE);
}

/* Writes numbers that grow, here and there. */
static void *guest(void *opaque)
{
	struct fake *fake = opaque;
	uint64_t number = 1, seed = 88172645463325252ull;
	bool over = false;

	while (!over) {
		pthread_mutex_lock(&fake->lock);
		over = fake->over;
		for (int i = 0; i < 50 && fake->running && !fake->rig->options->idle; i++) {
			uint64_t gpa;

			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			gpa = seed % ((LOW_SIZE + HIGH_SIZE) / 8) * 8;
			gpa = gpa < LOW_SIZE ? gpa : gpa - LOW_SIZE + HIGH;
			*(volatile uint64_t *)guest_memory_at(fake->memory, gpa, 8) = number++;
			guest_memory_dirty(fake->memory, gpa, 8);
			if (i == 0 && fake->rig->options->disks)
				write_disk(fake, seed % (DISK / 512), number);
		}
		pthread_mutex_unlock(&fake->lock);
		usleep(500);
	}
	return NULL;
}

static void set_running(struct fake *fake, bool running)
{
	struct rig *rig = fake->rig;

	pthread_mutex_lock(&fake->lock);
	pthread_mutex_lock(&rig->lock);
	rig->running += running - fake->running;
	rig->result->most_running = MAX(rig->result->most_running, rig->running);
	pthread_mutex_unlock(&rig->lock);
	fake->running = running;
	pthread_mutex_unlock(&fake->lock);
}

static int start_nothing(struct dirty_source *source, struct err *err)
{
	return fails(container_of(source, struct fake, failing)->rig, RIG_TRACK, err);
}

static void stop_nothing(struct dirty_source *source)
{
}

static int collect_nothing(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err)
{
	return fails(container_of(source, struct fake, failing)->rig, RIG_COLLECT, err);
}

static const struct dirty_source_ops failing_ops = {start_nothing, stop_nothing, collect_nothing};

static void fake_create(struct fake *fake, struct rig *rig)
{
	struct fake_migration *const inside[DEVICES] = {fake->inside[0], fake->inside[1]};

	*fake = (struct fake){.rig = rig, .inside = {inside[0], inside[1]}, .failing = {.name = "log", .ops = &failing_ops}};
	fake->low = mmap(NULL, LOW_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fake->high = mmap(NULL, HIGH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fake->memory = guest_memory_create();
	guest_memory_add(fake->memory, &(struct guest_region){0, LOW_SIZE, fake->low, -1, 0}, NULL);
	guest_memory_add(fake->memory, &(struct guest_region){HIGH, HIGH_SIZE, fake->high, -1, 0}, NULL);
	dirty_set_add(&fake->dirty, guest_memory_dirty_source(fake->memory), NULL);
	dirty_set_add(&fake->dirty, &fake->failing, NULL);
	fake->disk_fd = memfd_create("disk", MFD_CLOEXEC);
	if (ftruncate(fake->disk_fd, DISK) < 0)
		abort();
	pthread_mutex_init(&fake->lock, NULL);
	pthread_create(&fake->thread, NULL, guest, fake);
}

static void close_devices(struct fake *fake);

static void fake_destroy(struct fake *fake)
{
	if (!fake->memory)
		return;
	close_devices(fake);
	pthread_mutex_lock(&fake->lock);
	fake->over = true;
	pthread_mutex_unlock(&fake->lock);
	pthread_join(fake->thread, NULL);
	guest_memory_destroy(fake->memory);
	munmap(fake->low, LOW_SIZE);
	munmap(fake->high, HIGH_SIZE);
	fd_close(&fake->disk_fd);
	pthread_mutex_destroy(&fake->lock);
}

static void fill(uint64_t *words, size_t size)
{
	for (size_t i = 0; i < size / 8; i++)
		words[i] = (i + 1) * 0x9e3779b97f4a7c15ull;
}

/* ---- its host devices ---- */

#define BUS(fake) ((fake) == &(fake)->rig->source ? 1 : 2)

static void describe_devices(struct fake *fake, struct rig *rig)
{
	static const uint32_t flags[DEVICES] = {
		VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_UAPI_MIGRATION_PRE_COPY,
		VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
	};
	char name[32];

	for (int i = 0; i < DEVICES; i++) {
		struct fake_device *device;

		snprintf(name, sizeof(name), "0000:0%d:0%d.0", fake == &rig->source ? 1 : 2, i);
		device = fake_device(rig->kernel, name, fake_group(rig->kernel), fake_iommu(rig->kernel, true));
		fake_migrates(device, flags[i]);
		fake->inside[i] = &device->migration;
	}
}

static int open_devices(struct fake *fake, struct err *err)
{
	const struct vfio_space_options options = {
		.sys = &fake->rig->kernel->sys, .memory = fake->memory, .dirty = &fake->dirty,
	};
	int code = vfio_space_create(&options, &fake->space, err);
	char name[32];

	for (int i = 0; i < DEVICES && !code; i++) {
		snprintf(name, sizeof(name), "0000:0%d:0%d.0", BUS(fake), i);
		code = vfio_device_open(fake->space, &(struct vfio_device_options){.device = name}, &fake->devices[i], err);
		code = code ?: vfio_migration_create(fake->devices[i], &fake->group[i], err);
	}
	return code;
}

static void close_devices(struct fake *fake)
{
	for (int i = 0; i < DEVICES; i++) {
		vfio_migration_destroy(fake->group[i]);
		vfio_device_close(fake->devices[i]);
	}
	vfio_space_destroy(fake->space);
}

/* What becomes of a device after the whole: in this state, with what was in it, and never reset. */
static bool devices_are(const struct fake *fake, uint32_t state)
{
	const struct rig *rig = fake->rig;
	bool right = true;

	for (int i = 0; i < DEVICES && rig->kernel; i++)
		right &= fake->inside[i]->state == state && !vfio_migration_was_reset(fake->group[i]) &&
			 memcmp(fake->inside[i]->inside, rig->source.inside[i]->inside, FAKE_INSIDE) == 0;
	return right;
}

static size_t do_devices(void *opaque, struct vfio_migration *const **ret)
{
	struct fake *fake = opaque;

	*ret = fake->group;
	return fake->rig->kernel ? DEVICES : 0;
}

static int start_devices(void *opaque, struct err *err)
{
	struct fake *fake = opaque;
	int code = 0;

	for (int i = 0; i < DEVICES && !code; i++)
		code = vfio_migration_start(fake->group[i], err);
	if (code)
		vfio_migration_group_run(fake->group, DEVICES, NULL);
	return code;
}

static int stop_devices(void *opaque, struct err *err)
{
	struct fake *fake = opaque;

	return fake->running ? err_set(err, -EINVAL, "the guest runs") : vfio_migration_group_stop(fake->group, DEVICES, err);
}

static void run_devices(void *opaque)
{
	struct fake *fake = opaque;

	vfio_migration_group_run(fake->group, DEVICES, NULL);
}

static uint64_t no_untold(void *opaque)
{
	return 0;
}

static size_t target_devices(void *opaque, struct vfio_migration *const **ret)
{
	return do_devices(&((struct rig *)opaque)->target, ret);
}

static void fail_arc(struct fake_migration *inside, uint32_t to, uint32_t into)
{
	inside->fail_to = to;
	inside->fail_into = into;
	inside->fail_errno = -EIO;
	inside->fail_times = 1;
}

static void order_failure(struct rig *rig)
{
	struct fake_migration *first = rig->source.inside[0];

	if (rig->options->fail == RIG_DEVICE_START)
		fail_arc(first, VFIO_UAPI_STATE_PRE_COPY, VFIO_DEVICE_STATE_RUNNING);
	else if (rig->options->fail == RIG_DEVICE_STOP)
		fail_arc(first, VFIO_DEVICE_STATE_STOP_COPY, VFIO_UAPI_STATE_PRE_COPY_P2P);
	else if (rig->options->fail == RIG_DEVICE_READ)
		rig->source.inside[1]->fail_read = -EIO;
	else if (rig->options->fail == RIG_DEVICE_WRITE)
		rig->target.inside[0]->fail_write = -EIO;
	else if (rig->options->fail == RIG_DEVICE_STATE)
		rig->source.inside[1]->inside[FAKE_INSIDE - 1] = 0;
}

/* ---- its disk ---- */

static int take_disk(struct fake *fake, struct err *err)
{
	struct rig *rig = fake->rig;
	int code = 0;

	pthread_mutex_lock(&rig->lock);
	if (rig->disk && rig->disk != fake)
		code = err_set(err, -EBUSY, "somebody else has the disk");
	else
		rig->disk = fake;
	pthread_mutex_unlock(&rig->lock);
	return code;
}

static void leave_disk(struct fake *fake)
{
	struct rig *rig = fake->rig;

	pthread_mutex_lock(&rig->lock);
	if (rig->disk == fake)
		rig->disk = NULL;
	pthread_mutex_unlock(&rig->lock);
}

/* ---- the disk that goes along ---- */

static void collect_disk(void *opaque, unsigned long *bitmap)
{
	bitmap_take(((struct fake *)opaque)->changed, 0, GRANULES, bitmap);
}

static size_t do_disks(void *opaque, const struct disk_copy **ret)
{
	struct fake *fake = opaque;
	int fd = fake->rig->options->fail == RIG_DISK_READ ? -1 : fake->disk_fd;

	fake->copy = (struct disk_copy){.id = "disk0", .fd = fd, .size = DISK, .collect = collect_disk, .opaque = fake};
	*ret = &fake->copy;
	return fake->rig->options->disks;
}

static size_t target_disks(void *opaque, const struct disk_target **ret)
{
	struct rig *rig = opaque;
	int fd = rig->options->fail == RIG_DISK_WRITE ? rig->full_fd : rig->target.disk_fd;

	rig->target.arriving = (struct disk_target){.id = "disk0", .fd = fd, .size = DISK};
	*ret = &rig->target.arriving;
	return rig->options->disks;
}

/* ---- the source's ---- */

static int do_begin(void *opaque, char **offer, struct err *err)
{
	struct fake *fake = opaque;
	int code = fails(fake->rig, RIG_OFFER, err);

	if (!code)
		*offer = strdup("{\"fake\":1}");
	return code;
}

static void do_end(void *opaque)
{
}

static struct guest_memory *do_memory(void *opaque)
{
	return ((struct fake *)opaque)->memory;
}

static struct dirty_set *do_dirty(void *opaque)
{
	return &((struct fake *)opaque)->dirty;
}

static int do_track(void *opaque, struct err *err)
{
	return dirty_set_start(do_dirty(opaque), err);
}

static void do_untrack(void *opaque)
{
	dirty_set_stop(do_dirty(opaque));
}

static void do_throttle(void *opaque, unsigned int percent)
{
}

static int do_save(void *opaque, struct state_buffer *out, struct err *err)
{
	struct fake *fake = opaque;
	struct sums sums = sums_of(fake);

	return fails(fake->rig, RIG_SAVE, err) ?: state_buffer_add(out, &sums, sizeof(sums));
}

static void do_resume(void *opaque)
{
	struct fake *fake = opaque;
	struct rig_result *result = fake->rig->result;

	result->stood = MAX(result->stood, monotonic_ns() - fake->rig->stopped_at);
	set_running(fake, true);
}

/* Its devices take their time; at the deadline it is given up. */
static int stop_slowly(struct rig *rig, int64_t deadline, struct err *err)
{
	uint64_t takes = rig->result->pauses >= rig->options->slow_pause ? rig->options->pause_us * 1000ull : 0;
	uint64_t stops = rig->stopped_at + takes, gives_up = (uint64_t)deadline * 1000000;

	while (monotonic_ns() < MIN(stops, gives_up))
		usleep(500);
	return monotonic_ns() < stops ? err_set(err, -ETIMEDOUT, "cannot be paused: a device is slow") : 0;
}

static int do_pause(void *opaque, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state, struct err *err)
{
	struct fake *fake = opaque;
	struct rig *rig = fake->rig;
	int code = fails(rig, RIG_PAUSE, err);

	if (code)
		return code;
	set_running(fake, false);
	rig->result->pauses++;
	rig->result->flushed = false;
	rig->stopped_at = monotonic_ns();
	code = stop_slowly(rig, deadline, err);
	*stopped_at = monotonic_ns();
	code = code ?: state ? do_save(fake, state, err) : 0;
	if (code)
		do_resume(fake);
	return code;
}

/* ---- the disk that both use ---- */

static struct rig *flushed_rig; /* flush has a descriptor only */

static int flush(int fd)
{
	struct rig *rig = flushed_rig;
	bool paused = !rig->source.running;
	int mode = rig->options->flush;

	__atomic_add_fetch(&rig->result->flushes, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&rig->flushing, 1, __ATOMIC_RELAXED);
	usleep(rig->options->flush_us);
	while (mode == RIG_FLUSH_HANGS && !has_ended(rig))
		usleep(1000);
	rig->result->flushed = paused;
	__atomic_sub_fetch(&rig->flushing, 1, __ATOMIC_RELEASE);
	errno = EIO;
	return mode == RIG_FLUSH_FAILS || (mode == RIG_LAST_FLUSH_FAILS && paused) ? -1 : 0;
}

static size_t do_shared_disks(void *opaque, struct disk_shared ret[WIRE_MAX_DISKS])
{
	struct fake *fake = opaque;

	flushed_rig = fake->rig;
	ret[0] = (struct disk_shared){.id = "disk1", .fd = fake->disk_fd, .flush = flush};
	return fake->rig->options->shared;
}

static void do_unlock(void *opaque)
{
	leave_disk(opaque);
}

static int do_lock(void *opaque, struct err *err)
{
	return take_disk(opaque, err);
}

static const struct migration_machine_ops machine_ops = {
	.begin = do_begin, .end = do_end, .memory = do_memory, .dirty = do_dirty, .track = do_track, .untrack = do_untrack,
	.throttle = do_throttle, .pause = do_pause, .resume = do_resume, .save = do_save, .unlock_disks = do_unlock,
	.lock_disks = do_lock, .devices = do_devices, .start_devices = start_devices, .stop_devices = stop_devices,
	.run_devices = run_devices, .untold = no_untold, .disks = do_disks,
	.shared_disks = do_shared_disks,
};

static void do_tell(void *opaque, const struct migration_report *report)
{
	((struct rig *)opaque)->result->tells++;
}

/* ---- the target's ---- */

static int do_create(void *opaque, const char *offer, size_t len, char **ready, struct err *err)
{
	struct rig *rig = opaque;
	int code = fails(rig, RIG_CREATE, err);

	if (code)
		return code;
	if (len != strlen("{\"fake\":1}") || strcmp(offer, "{\"fake\":1}") != 0)
		return err_set(err, -EBADMSG, "not what was offered");
	fake_create(&rig->target, rig);
	code = rig->kernel ? open_devices(&rig->target, err) : 0;
	*ready = strdup("{}");
	return code;
}

static struct guest_memory *target_memory(void *opaque)
{
	return ((struct rig *)opaque)->target.memory;
}

static int do_try(void *opaque, const void *state, size_t len, struct err *err)
{
	struct rig *rig = opaque;

	rig->result->tries++;
	hang_at(rig, RIG_TRY);
	return len == sizeof(struct sums) ? fails(rig, RIG_TRY, err) : err_set(err, -EBADMSG, "no state to be tried");
}

static int do_load(void *opaque, const void *state, size_t len, struct err *err)
{
	struct rig *rig = opaque;
	struct sums sums = {0};

	if (len == sizeof(sums))
		memcpy(&sums, state, len);
	if (sums.memory != memory_sum(&rig->target))
		return err_set(err, -EBADMSG, "memory is not what it was");
	if (rig->options->disks && sums.disk != disk_sum(&rig->target))
		return err_set(err, -EBADMSG, "the disk is not what it was");
	return fails(rig, RIG_LOAD, err);
}

static int do_start(void *opaque, struct err *err)
{
	struct rig *rig = opaque;
	int code = fails(rig, RIG_LOCK, err) ?: take_disk(&rig->target, err);

	if (code)
		return code;
	code = fails(rig, RIG_START, err);
	if (code) {
		leave_disk(&rig->target);
		return code;
	}
	if (rig->kernel)
		code = vfio_migration_group_run(rig->target.group, DEVICES, err);
	if (code) {
		leave_disk(&rig->target);
		return code;
	}
	rig->result->same = same(sums_of(&rig->source), sums_of(&rig->target));
	set_running(&rig->target, true);
	return 0;
}

static const struct migration_arrival_ops arrival_ops = {
	.create = do_create, .memory = target_memory, .devices = target_devices, .disks = target_disks,
	.try = do_try, .load = do_load,
	.start = do_start,
};

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

	side->rig->result->target = migration_target_run(side->target, &side->rig->result->target_err);
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
		.request = &request, .ops = &machine_ops, .machine = &rig->source, .tell = do_tell, .opaque = rig,
		.silence_ms = silence_ms,
	};
	struct address from;
	struct migration_target_config target = {
		.from = &from, .ops = &arrival_ops, .opaque = rig, .cancel_fd = side.cancel_fd, .silence_ms = silence_ms,
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
