/* SPDX-License-Identifier: Apache-2.0 */
/* See migration_machine.h. */
#include "tests/unit/migration_machine.h"

#include <stdio.h>
#include <sys/mman.h>

#include "core/monotonic.h"
#include "vmm/jail/json_stage.h"

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

/* -EIO if something is made to fail there; where it is made to hang, it does that first. */
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

void write_disk(struct fake *fake, uint64_t sector, uint64_t number)
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

void set_running(struct fake *fake, bool running)
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

void fake_create(struct fake *fake, struct rig *rig)
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

void fake_destroy(struct fake *fake)
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

/* ---- its disk ---- */

int take_disk(struct fake *fake, struct err *err)
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

static uint64_t no_untold(void *opaque)
{
	return 0;
}

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

const struct migration_machine_ops fake_source_ops = {
	.begin = do_begin, .end = do_end, .memory = do_memory, .dirty = do_dirty, .track = do_track, .untrack = do_untrack,
	.throttle = do_throttle, .pause = do_pause, .resume = do_resume, .save = do_save, .unlock_disks = do_unlock,
	.lock_disks = do_lock, .devices = do_devices, .start_devices = start_devices, .stop_devices = stop_devices,
	.run_devices = run_devices, .untold = no_untold, .disks = do_disks,
	.shared_disks = do_shared_disks,
};

/* ---- the target's ---- */

static int do_parse(void *opaque, const char *text, size_t len, json_t **ret, struct err *err)
{
	return json_stage_parse(NULL, text, len, ret, err);
}

static int do_create(void *opaque, json_t *offer, char **ready, struct err *err)
{
	struct rig *rig = opaque;
	bool same = json_object_size(offer) == 1 && json_integer_value(json_object_get(offer, "fake")) == 1;
	int code = fails(rig, RIG_CREATE, err);

	json_decref(offer);
	if (code)
		return code;
	if (!same)
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

const struct migration_arrival_ops fake_target_ops = {
	.parse = do_parse, .create = do_create, .memory = target_memory, .devices = target_devices, .disks = target_disks,
	.try = do_try, .load = do_load,
	.start = do_start,
};
