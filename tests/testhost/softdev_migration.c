/* SPDX-License-Identifier: Apache-2.0 */
/*
 * softdev's migration states without a guest: every arc between them, and a state saved from one device and restored
 * into another one. Run by tests/testhost/cases/softdev-migration.sh.
 *
 *	softdev_migration arcs FLAGS DEVICE	each state to each other one; FLAGS is what the device must offer
 *	softdev_migration move FROM TO		a device at work, by PRE_COPY and P2P; then whole states compared
 *	softdev_migration time DEVICE		how long saving takes
 *	softdev_migration fail DEVICE		failures that are ordered, and the way back
 *
 * Prints "name=value" words and exits 0, or says what is wrong and exits 1.
 */
#include "tests/testhost/softdev_drive.h"
#include "vfio/vfio_uapi.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define SIZE MIB(4) /* of memory */
#define ROOM MIB(80)

struct probe {
	struct log log;
	struct guest_memory *memory;
	struct vfio_space *space;
	uint8_t *host;
	struct vfio_device *devices[2];
	struct vfio_region bars[2];
	struct err err;
};

static const char *const names[VFIO_UAPI_STATES] = {
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
};

static bool saves(uint32_t state)
{
	return state == VFIO_DEVICE_STATE_STOP_COPY || state == VFIO_UAPI_STATE_PRE_COPY ||
	       state == VFIO_UAPI_STATE_PRE_COPY_P2P;
}

/* ---- The device's states ---- */

/* 0 or -errno; *fd is the new session's descriptor, or -1. */
static int set_state(const struct vfio_device *device, uint32_t state, int *fd)
{
	struct vfio_device_feature_mig_state arg = {.device_state = state, .data_fd = -1};
	int rc = vfio_device_feature(device, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &arg,
				     sizeof(arg));

	*fd = rc < 0 ? -1 : arg.data_fd;
	return rc;
}

/* For arcs that begin no session. */
static int go(const struct vfio_device *device, uint32_t state)
{
	int fd, rc = set_state(device, state, &fd);

	if (rc < 0 || fd >= 0)
		return fail("to %s: %s", names[state], rc < 0 ? strerrordesc_np(-rc) : "a session that should not be");
	return 0;
}

static uint32_t get_state(const struct vfio_device *device)
{
	struct vfio_device_feature_mig_state arg = {0};

	if (vfio_device_feature(device, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &arg,
				sizeof(arg)) < 0)
		return VFIO_DEVICE_STATE_ERROR;
	return arg.device_state;
}

static uint64_t data_size(const struct vfio_device *device)
{
	uint64_t size = 0;

	vfio_device_feature(device, VFIO_DEVICE_FEATURE_GET, VFIO_UAPI_FEATURE_MIG_DATA_SIZE, &size, sizeof(size));
	return size;
}

static int reset(const struct vfio_device *device)
{
	return vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_RESET, NULL);
}

/* ---- Every arc ---- */

/* The table of <linux/vfio.h> in short: two arcs are closed, and RESUMING is left by a whole state or by a reset. */
static int expected(uint32_t flags, uint32_t from, uint32_t to)
{
	bool p2p = flags & VFIO_MIGRATION_P2P, precopy = flags & VFIO_UAPI_MIGRATION_PRE_COPY;

	if (to == VFIO_DEVICE_STATE_ERROR || (to == VFIO_DEVICE_STATE_RUNNING_P2P && !p2p) ||
	    (to == VFIO_UAPI_STATE_PRE_COPY && !precopy) || (to == VFIO_UAPI_STATE_PRE_COPY_P2P && !(p2p && precopy)))
		return -EINVAL;
	if (from == VFIO_DEVICE_STATE_RESUMING && to != from)
		return -EINVAL;
	return from == VFIO_DEVICE_STATE_STOP_COPY && saves(to) && to != from ? -EINVAL : 0;
}

static int walk(const struct vfio_device *device, uint32_t flags, uint32_t from, uint32_t to)
{
	bool begins = from != to && (to == VFIO_DEVICE_STATE_RESUMING || (saves(to) && !saves(from)));
	_cleanup_(fd_close) int first = -1;
	_cleanup_(fd_close) int second = -1;
	int want = expected(flags, from, to), rc = reset(device);

	if (rc == 0)
		rc = set_state(device, from, &first);
	if (rc < 0 || get_state(device) != from)
		return fail("to %s: %s", names[from], strerrordesc_np(-rc));
	rc = set_state(device, to, &second);
	if (rc != want)
		return fail("%s to %s: %d, not %d", names[from], names[to], rc, want);
	if (rc == 0 && get_state(device) != to)
		return fail("%s to %s: it is in %u", names[from], names[to], get_state(device));
	if (rc == 0 && begins != (second >= 0))
		return fail("%s to %s: %s session", names[from], names[to], begins ? "no" : "a");
	return 0;
}

static int run_arcs(struct probe *p, uint32_t flags)
{
	struct vfio_device_feature_migration offered = {0};
	const struct vfio_device *device = p->devices[0];
	unsigned int arcs = 0;
	int rc = vfio_device_feature(device, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_MIGRATION, &offered,
				     sizeof(offered));

	printf("flags=%llu\n", rc < 0 ? 0ull : (unsigned long long)offered.flags);
	if (!flags)
		return rc == -ENOTTY ? 0 : fail("migration is offered");
	if (offered.flags != flags)
		return fail("other flags are offered");
	for (uint32_t from = VFIO_DEVICE_STATE_STOP; from < VFIO_UAPI_STATES; from++) {
		if (expected(flags, VFIO_DEVICE_STATE_RUNNING, from) < 0)
			continue;
		for (uint32_t to = 0; to < VFIO_UAPI_STATES; to++, arcs++)
			if (walk(device, flags, from, to) < 0)
				return -1;
	}
	printf("arcs=%u\n", arcs);
	return reset(device);
}

/* ---- A state on its way ---- */

struct stream {
	uint8_t *data;
	size_t len;
};

/* Reads until the end of the stream (0) or until there is nothing for now (-ENOMSG), in pieces of an odd size. */
static int drain(int fd, struct stream *s)
{
	for (;;) {
		ssize_t n = read(fd, s->data + s->len, MIN(ROOM - s->len, 70001u));

		if (n <= 0)
			return n < 0 ? -errno : 0;
		s->len += (size_t)n;
	}
}

/* The whole state of a device in STOP, which it is in afterwards. */
static int save_stopped(const struct vfio_device *device, struct stream *s)
{
	_cleanup_(fd_close) int fd = -1;
	uint64_t size = data_size(device);
	int rc = set_state(device, VFIO_DEVICE_STATE_STOP_COPY, &fd);

	s->len = 0;
	if (rc == 0)
		rc = drain(fd, s);
	if (rc < 0)
		return fail("save: %s", strerrordesc_np(-rc));
	if (s->len != size)
		return fail("%zu bytes of state, %llu were announced", s->len, (unsigned long long)size);
	return go(device, VFIO_DEVICE_STATE_STOP);
}

/* Leaves the device in STOP, or says why not by -errno. */
static int restore(const struct vfio_device *device, const struct stream *s)
{
	_cleanup_(fd_close) int fd = -1;
	int unused, rc = set_state(device, VFIO_DEVICE_STATE_RESUMING, &fd);

	for (size_t at = 0; rc == 0 && at < s->len;) {
		ssize_t n = write(fd, s->data + at, MIN(s->len - at, 12347u));

		if (n <= 0)
			rc = n < 0 ? -errno : -EIO;
		else
			at += (size_t)n;
	}
	/* The session outlives its descriptor. */
	fd_close(&fd);
	return rc < 0 ? rc : set_state(device, VFIO_DEVICE_STATE_STOP, &unused);
}

static int ask(int fd, uint64_t initial, uint64_t dirty, uint32_t flags)
{
	struct vfio_uapi_precopy_info info = {.argsz = sizeof(info)};

	if (ioctl(fd, VFIO_UAPI_PRECOPY_INFO, &info) < 0)
		return fail("precopy info: %s", strerrordesc_np(errno));
	if (info.initial_bytes != initial || info.dirty_bytes != dirty || info.flags != flags)
		return fail("precopy info: initial %llu (not %llu), dirty %llu (not %llu), flags %u (not %u)",
			    (unsigned long long)info.initial_bytes, (unsigned long long)initial,
			    (unsigned long long)info.dirty_bytes, (unsigned long long)dirty, info.flags, flags);
	return 0;
}

static bool readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) == 1;
}

#define RECORD (16 + GUEST_PAGE_SIZE)

/* PRE_COPY until nothing is left of it; the store is written meanwhile, and set up anew. */
static int precopy(struct probe *p, const char *path, int fd, struct stream *s)
{
	uint64_t store = softdev_get(&p->bars[0], SOFTDEV_REG_STORE), whole = store / GUEST_PAGE_SIZE * RECORD;

	if (ask(fd, 16 + whole, 0, 0) < 0 || !readable(fd) || drain(fd, s) != -ENOMSG)
		return fail("the initial bytes");
	if (ask(fd, 0, 0, 0) < 0 || readable(fd) || s->len != 16 + whole)
		return fail("the end of the initial bytes");
	if (softdev_run(&p->bars[0], SOFTDEV_LOAD, MIB(2), 3 * GUEST_PAGE_SIZE - 5, 0) != SOFTDEV_DONE)
		return fail("load");
	if (ask(fd, 0, 3 * RECORD, 0) < 0 || !readable(fd) || drain(fd, s) != -ENOMSG ||
	    s->len != 16 + whole + 3 * RECORD)
		return fail("the dirty bytes");
	if (softdev_order(path, "reinit", "1") < 0 || ask(fd, whole, 0, VFIO_UAPI_PRECOPY_REINIT) < 0 ||
	    ask(fd, whole, 0, 0) < 0)
		return fail("reinit");
	return drain(fd, s) == -ENOMSG ? 0 : fail("the initial bytes again");
}

/* The engine rests where peers cannot be told from memory, and what is written to a stopped device is refused. */
static int check_states(struct probe *p, int fd, struct stream *s)
{
	const struct vfio_device *device = p->devices[0];
	const struct vfio_region *bar = &p->bars[0];
	uint64_t moved, size;

	softdev_set(bar, SOFTDEV_REG_INTERVAL, 100);
	softdev_start(bar, SOFTDEV_PATTERN, MIB(3), MIB(1) - 77, 5, 0);
	for (int i = 0; i < 5000 && softdev_get(bar, SOFTDEV_REG_PASS) < 2; i++)
		usleep(2000);
	if (go(device, VFIO_UAPI_STATE_PRE_COPY_P2P) < 0)
		return -1;
	moved = softdev_get(bar, SOFTDEV_REG_MOVED);
	usleep(20000);
	if (softdev_get(bar, SOFTDEV_REG_MOVED) != moved || !moved)
		return fail("the engine works in PRE_COPY_P2P");
	size = data_size(device) + s->len;
	if (go(device, VFIO_DEVICE_STATE_STOP_COPY) < 0)
		return -1;
	if (softdev_set(bar, SOFTDEV_REG_COMMAND, SOFTDEV_STOP) != -EIO)
		return fail("a stopped device takes a command");
	if (!readable(fd) || drain(fd, s) != 0 || s->len != size)
		return fail("the end of the state: %zu bytes, not %zu", s->len, (size_t)size);
	return 0;
}

/* The job goes on in the other device as if nothing had been; its memory is the same. */
static int check_goes_on(struct probe *p)
{
	const struct vfio_region *bar = &p->bars[1];
	uint64_t pass = softdev_get(&p->bars[0], SOFTDEV_REG_PASS), position;
	_cleanup_(free_ptr) uint8_t *want = calloc(1, MIB(1));

	if (memcmp(want, p->host + MIB(3), MIB(1)) == 0 || !pass)
		return fail("the first device has done nothing");
	if (go(p->devices[1], VFIO_DEVICE_STATE_RUNNING_P2P) < 0 || go(p->devices[1], VFIO_DEVICE_STATE_RUNNING) < 0)
		return -1;
	for (int i = 0; i < 5000 && softdev_get(bar, SOFTDEV_REG_PASS) < pass + 2; i++)
		usleep(2000);
	softdev_set(bar, SOFTDEV_REG_COMMAND, SOFTDEV_STOP);
	pass = softdev_get(bar, SOFTDEV_REG_PASS);
	position = softdev_get(bar, SOFTDEV_REG_POSITION);
	softdev_progress(5, pass, position, want, MIB(1) - 77);
	if (memcmp(want, p->host + MIB(3), MIB(1)) != 0)
		return fail("pass %llu, position %llu is not what the two wrote", (unsigned long long)pass,
			    (unsigned long long)position);
	printf("passes=%llu\n", (unsigned long long)pass);
	return 0;
}

/* The store of the second device by its own DMA, against what the first one was given. */
static int check_store(struct probe *p)
{
	uint64_t store = softdev_get(&p->bars[1], SOFTDEV_REG_STORE);
	_cleanup_(free_ptr) uint8_t *want = malloc(store);

	memcpy(want, p->host, store);
	memcpy(want, p->host + MIB(2), 3 * GUEST_PAGE_SIZE - 5);
	memset(p->host, 0, store);
	if (softdev_run(&p->bars[1], SOFTDEV_STORE, 0, store, 0) != SOFTDEV_DONE || memcmp(p->host, want, store) != 0)
		return fail("the store did not come over");
	return 0;
}

/* Saved, restored and saved again, byte for byte; and what is no state is refused. */
static int check_again(struct probe *p, struct stream *s)
{
	_cleanup_(free_ptr) uint8_t *room = malloc(ROOM);
	struct stream again = {.data = room};
	int rc;

	if (go(p->devices[1], VFIO_DEVICE_STATE_STOP) < 0 || save_stopped(p->devices[1], s) < 0)
		return -1;
	if (reset(p->devices[0]) < 0 || restore(p->devices[0], s) < 0 || save_stopped(p->devices[0], &again) < 0)
		return fail("restore");
	if (again.len != s->len || memcmp(again.data, s->data, s->len) != 0)
		return fail("the state is another one after the way");
	for (size_t cut = 1; cut <= s->len; cut = cut * 3 + 1) {
		again.len = s->len - cut;
		rc = reset(p->devices[0]) < 0 ? 0 : restore(p->devices[0], &again);
		if (rc != -EINVAL || get_state(p->devices[0]) != VFIO_DEVICE_STATE_RESUMING)
			return fail("a state without its last %zu bytes: %d", cut, rc);
	}
	for (size_t at = 0; at < 24; at++) {
		again.len = s->len;
		again.data[at] ^= 0x5a;
		rc = reset(p->devices[0]) < 0 ? 0 : restore(p->devices[0], &again);
		again.data[at] ^= 0x5a;
		if (rc != -EINVAL)
			return fail("a state with another byte %zu: %d", at, rc);
	}
	return reset(p->devices[0]);
}

static int run_move(struct probe *p, const char *path, struct stream *s)
{
	uint64_t store = softdev_get(&p->bars[0], SOFTDEV_REG_STORE);
	_cleanup_(fd_close) int fd = -1;

	softdev_pattern(1, 0, 0, p->host, store);
	softdev_pattern(2, 0, 0, p->host + MIB(2), 3 * GUEST_PAGE_SIZE);
	if (softdev_run(&p->bars[0], SOFTDEV_LOAD, 0, store, 0) != SOFTDEV_DONE)
		return fail("load");
	if (vfio_device_feature(p->devices[0], VFIO_DEVICE_FEATURE_SET, VFIO_UAPI_FEATURE_PRECOPY_INFO_V2, NULL, 0) < 0)
		return fail("precopy info, version 2");
	if (set_state(p->devices[0], VFIO_UAPI_STATE_PRE_COPY, &fd) < 0)
		return fail("to PRE_COPY");
	if (precopy(p, path, fd, s) < 0 || check_states(p, fd, s) < 0)
		return -1;
	if (restore(p->devices[1], s) < 0)
		return fail("restore into the other device");
	printf("moved=%zu\n", s->len);
	if (check_goes_on(p) < 0 || check_store(p) < 0 || go(p->devices[0], VFIO_DEVICE_STATE_STOP) < 0)
		return -1;
	return read(fd, s->data, 1) < 0 && errno == ENODEV ? check_again(p, s) : fail("an ended session is read");
}

static int run_time(struct probe *p, struct stream *s)
{
	struct timespec a, b;

	if (go(p->devices[0], VFIO_DEVICE_STATE_STOP) < 0)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (save_stopped(p->devices[0], s) < 0)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("bytes=%zu ms=%ld\n", s->len, (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
	return 0;
}

/* What a migration has to cope with: an arc or a transfer that fails leaves a device that can go on, or be reset. */
static int run_fail(struct probe *p, const char *path, struct stream *s)
{
	const struct vfio_device *device = p->devices[0];
	_cleanup_(fd_close) int fd = -1;
	int unused;

	if (softdev_order(path, "fail_state", "5") < 0 || set_state(device, VFIO_DEVICE_STATE_STOP, &unused) != -EIO ||
	    get_state(device) != VFIO_DEVICE_STATE_RUNNING)
		return fail("to RUNNING_P2P, which fails");
	if (softdev_order(path, "fail_state", "3") < 0 ||
	    set_state(device, VFIO_DEVICE_STATE_STOP_COPY, &unused) != -EIO ||
	    get_state(device) != VFIO_DEVICE_STATE_STOP || go(device, VFIO_DEVICE_STATE_RUNNING) < 0)
		return fail("to STOP_COPY, which fails, and back");
	if (set_state(device, VFIO_UAPI_STATE_PRE_COPY, &fd) < 0 || softdev_order(path, "fail_data", "20000") < 0)
		return fail("to PRE_COPY");
	if (drain(fd, s) != -EIO || drain(fd, s) != -ENOMSG || go(device, VFIO_DEVICE_STATE_RUNNING) < 0)
		return fail("reading state, which fails once, and back");
	if (go(device, VFIO_DEVICE_STATE_STOP) < 0 || save_stopped(device, s) < 0 ||
	    softdev_order(path, "fail_data", "30000") < 0)
		return -1;
	if (restore(device, s) != -EIO || get_state(device) != VFIO_DEVICE_STATE_RESUMING || reset(device) < 0 ||
	    get_state(device) != VFIO_DEVICE_STATE_RUNNING || restore(device, s) < 0)
		return fail("writing state, which fails once, and a reset");
	return go(device, VFIO_DEVICE_STATE_RUNNING);
}

/* ---- A life ---- */

static int begin(struct probe *p, char **paths, int count)
{
	struct vfio_space_options options = {.log = &p->log};
	struct guest_region region = {.size = SIZE, .fd = -1};
	int rc;

	p->log = (struct log){.fd = 2, .level = LOG_WARN};
	p->memory = options.memory = guest_memory_create();
	p->host = region.host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!p->memory || p->host == MAP_FAILED)
		return err_set(&p->err, -ENOMEM, "memory");
	rc = guest_memory_add(p->memory, &region, &p->err);
	if (rc == 0)
		rc = vfio_space_create(&options, &p->space, &p->err);
	for (int i = 0; i < count && rc == 0; i++) {
		struct vfio_device_options device = {.device = paths[i], .backend = VFIO_WANT_IOMMUFD};

		rc = vfio_device_open(p->space, &device, &p->devices[i], &p->err);
		if (rc == 0)
			rc = softdev_prepare(p->devices[i], &p->bars[i], &p->err);
	}
	return rc;
}

int main(int argc, char **argv)
{
	struct stream stream = {.data = malloc(ROOM)};
	struct probe p = {0};
	bool failing = argc == 3 && strcmp(argv[1], "fail") == 0;
	bool arcs = argc == 4 && strcmp(argv[1], "arcs") == 0, move = argc == 4 && strcmp(argv[1], "move") == 0;
	int rc;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!arcs && !move && (argc != 3 || (!failing && strcmp(argv[1], "time") != 0))) {
		fprintf(stderr, "usage: softdev_migration arcs FLAGS DEVICE | move FROM TO | time|fail DEVICE\n");
		return 2;
	}
	rc = begin(&p, arcs ? argv + 3 : argv + 2, move ? 2 : 1);
	if (rc < 0)
		fail("%s", p.err.text);
	else if (failing)
		rc = run_fail(&p, argv[2], &stream);
	else if (arcs)
		rc = run_arcs(&p, (uint32_t)atoi(argv[2]));
	else
		rc = move ? run_move(&p, argv[2], &stream) : run_time(&p, &stream);
	for (int i = 2; i--;)
		vfio_device_close(p.devices[i]);
	vfio_space_destroy(p.space);
	guest_memory_destroy(p.memory);
	free(stream.data);
	if (rc == 0)
		printf("right\n");
	return rc < 0;
}
