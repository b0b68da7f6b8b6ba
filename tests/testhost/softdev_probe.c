/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vfio/ and iommu/ on softdev (tests/testhost/softdev), without a guest: the device writes memory by DMA, and what the
 * trackers report of it is held against what is known to have been written. Run by tests/testhost/cases/softdev.sh.
 *
 *	softdev_probe BACKEND log|nolog DEVICE...
 *
 * nolog: leave the devices' own DMA logs alone, so that the IOMMU has to tell. Where nobody can tell for one of the
 * devices, everything has to be reported. Prints "name=value" words and exits 0, or says what is wrong and exits 1.
 */
#include "core/bitmap.h"
#include "tests/testhost/softdev_drive.h"
#include "vfio/irq.h"

#include <dirent.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#define MAX_DEVICES 8
#define SIZE MIB(16) /* of each of the two regions of memory */
#define PAGES (SIZE / GUEST_PAGE_SIZE)

struct memory_part {
	uint64_t gpa;
	uint8_t *host;
	uint8_t *shadow;         /* what it must hold */
	unsigned long *expected; /* what must be reported */
};

struct probe {
	struct log log;
	struct guest_memory *memory;
	struct dirty_set dirty;
	struct vfio_space *space;
	struct vfio_device *devices[MAX_DEVICES];
	struct vfio_region bars[MAX_DEVICES];
	size_t count;
	struct memory_part parts[2];
	bool uncovered; /* of one device nobody tells what it writes */
	uint64_t random;
	struct err err;
	int memfd;
};

/* ---- What the kernel is asked on the way ---- */

static struct {
	struct vfio_sys sys;
	unsigned int attach_einval, hwpt_dirty, hwpt_plain;
} spy;

static int spying_ioctl(const struct vfio_sys *sys, int fd, unsigned long request, void *arg)
{
	int rc = vfio_sys_host()->ops->ioctl(sys, fd, request, arg);

	if (request == VFIO_UAPI_ATTACH)
		spy.attach_einval += rc == -EINVAL;
	if (request == IOMMUFD_UAPI_HWPT_ALLOC && rc == 0) {
		const struct iommufd_uapi_hwpt_alloc *cmd = arg;

		*(cmd->flags & IOMMUFD_UAPI_HWPT_DIRTY_TRACKING ? &spy.hwpt_dirty : &spy.hwpt_plain) += 1;
	}
	return rc;
}

static long open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	long n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static long status_kib(const char *name)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	long value = -1;

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			value = atol(line + strlen(name));
	if (f)
		fclose(f);
	return value;
}

/* ---- A life ---- */

static int add_part(struct probe *p, int i)
{
	struct memory_part *part = &p->parts[i];
	struct guest_region region = {.gpa = i ? GIB(4) : 0, .size = SIZE, .fd = i ? p->memfd : -1};

	part->gpa = region.gpa;
	part->host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, i ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, region.fd,
			  0);
	part->shadow = calloc(1, SIZE);
	part->expected = calloc(bitmap_longs(PAGES), sizeof(*part->expected));
	if (part->host == MAP_FAILED || !part->shadow || !part->expected)
		return -ENOMEM;
	region.host = part->host;
	return guest_memory_add(p->memory, &region, &p->err);
}

static int begin(struct probe *p)
{
	struct vfio_space_options options = {.sys = &spy.sys, .log = &p->log, .dirty = &p->dirty};
	int rc;

	p->log = (struct log){.fd = 2, .level = LOG_WARN};
	p->random = 1;
	p->memfd = memfd_create("guest", MFD_CLOEXEC);
	p->memory = options.memory = guest_memory_create();
	if (p->memfd < 0 || !p->memory || ftruncate(p->memfd, SIZE) < 0)
		return err_set(&p->err, -ENOMEM, "memory");
	rc = add_part(p, 0);
	if (rc == 0)
		rc = add_part(p, 1);
	if (rc == 0)
		rc = dirty_set_add(&p->dirty, guest_memory_dirty_source(p->memory), &p->err);
	return rc < 0 ? rc : vfio_space_create(&options, &p->space, &p->err);
}

static void end(struct probe *p)
{
	for (size_t i = p->count; i--;)
		vfio_device_close(p->devices[i]);
	vfio_space_destroy(p->space);
	dirty_set_remove(&p->dirty, guest_memory_dirty_source(p->memory));
	guest_memory_destroy(p->memory);
	for (int i = 0; i < 2; i++) {
		munmap(p->parts[i].host, SIZE);
		free(p->parts[i].shadow);
		free(p->parts[i].expected);
	}
	close(p->memfd);
}

static int open_device(struct probe *p, struct vfio_device_options *options)
{
	struct vfio_device **device = &p->devices[p->count];
	int rc = vfio_device_open(p->space, options, device, &p->err);

	if (rc < 0)
		return rc;
	p->count++;
	p->uncovered |= vfio_device_coverage(*device) == VFIO_COVERAGE_NONE;
	printf("device=%s hwpt=%u tracks=%d coverage=%s\n", (*device)->host.name, vfio_device_ids(*device).hwpt,
	       host_iommu_tracks_dirty((*device)->iommu), vfio_coverage_name(vfio_device_coverage(*device)));
	return softdev_prepare(*device, &p->bars[p->count - 1], &p->err);
}

/* ---- Driving the devices ---- */

static void expect(struct memory_part *part, uint64_t offset, uint64_t len)
{
	for (uint64_t page = offset / GUEST_PAGE_SIZE; len && page <= (offset + len - 1) / GUEST_PAGE_SIZE; page++)
		bitmap_set(part->expected, page);
}

/* The device writes a range, and what has to come of it is noted. */
static int write_range(struct probe *p, size_t device, struct memory_part *part, uint64_t offset, uint64_t len)
{
	uint64_t seed = ++p->random * 0x9e3779b97f4a7c15ull;

	if (softdev_run(&p->bars[device], SOFTDEV_PATTERN, part->gpa + offset, len, seed) != SOFTDEV_DONE)
		return fail("%s: DMA to 0x%llx", p->devices[device]->host.name,
			    (unsigned long long)(part->gpa + offset));
	softdev_pattern(seed, 0, 0, part->shadow + offset, len);
	expect(part, offset, len);
	return 0;
}

static uint64_t pick(struct probe *p, uint64_t limit)
{
	return softdev_word(7, 0, p->random++) % limit;
}

static int write_some(struct probe *p, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		uint64_t len = 1 + pick(p, 3 * GUEST_PAGE_SIZE);

		if (write_range(p, i % p->count, &p->parts[pick(p, 2)], pick(p, SIZE - len), len) < 0)
			return -1;
	}
	return 0;
}

/* ---- Holding the reports against it ---- */

static int collect(struct probe *p, const struct memory_part *part, unsigned long *bitmap)
{
	memset(bitmap, 0, bitmap_longs(PAGES) * sizeof(*bitmap));
	if (dirty_set_collect(&p->dirty, part->gpa, SIZE, bitmap, &p->err) < 0)
		return fail("collect: %s", p->err.text);
	return 0;
}

static int compare(const struct memory_part *part, const unsigned long *bitmap, bool all, const char *when)
{
	unsigned int missing = 0, extra = 0;

	for (uint64_t i = 0; i < PAGES; i++) {
		bool want = all || bitmap_test(part->expected, i);

		missing += want && !bitmap_test(bitmap, i);
		extra += !want && bitmap_test(bitmap, i);
	}
	return missing || extra ? fail("%s: memory at 0x%llx: missing=%u extra=%u", when,
				       (unsigned long long)part->gpa, missing, extra) : 0;
}

/* One round: exactly the pages that were written are reported, and memory holds what it must, byte for byte. */
static int check(struct probe *p, const char *when)
{
	static unsigned long bitmap[PAGES / BITS_PER_LONG];

	for (int i = 0; i < 2; i++) {
		struct memory_part *part = &p->parts[i];

		if (collect(p, part, bitmap) < 0 || compare(part, bitmap, p->uncovered, when) < 0)
			return -1;
		memset(part->expected, 0, bitmap_longs(PAGES) * sizeof(*part->expected));
		if (memcmp(part->host, part->shadow, SIZE) != 0)
			return fail("%s: memory at 0x%llx is not what was written", when,
				    (unsigned long long)part->gpa);
	}
	return 0;
}

/* All that SET_IRQS can be asked with nothing behind it. */
static int check_irqs(const struct vfio_device *device)
{
	for (uint32_t i = 0; i < 6 * 64; i++) {
		struct vfio_irq_set set = {.argsz = sizeof(set), .flags = i / 6, .index = i % 6};

		vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_SET_IRQS, &set);
		set.count = 1;
		if ((set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK) != VFIO_IRQ_SET_DATA_NONE &&
		    vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_SET_IRQS, &set) >= 0)
			return fail("interrupts set up from nothing: index %u, flags 0x%x", set.index, set.flags);
	}
	return 0;
}

/* The device's own memory and the message at the end of a job. */
static int check_copy(struct probe *p, size_t device)
{
	struct memory_part *low = &p->parts[0], *high = &p->parts[1];
	uint64_t len = softdev_get(&p->bars[device], SOFTDEV_REG_STORE);
	_cleanup_(fd_close) int event = eventfd(0, EFD_CLOEXEC);
	struct pollfd poll_event = {.fd = event, .events = POLLIN};

	if (softdev_run(&p->bars[device], SOFTDEV_LOAD, low->gpa, len, 0) != SOFTDEV_DONE)
		return fail("load");
	if (vfio_irq_trigger(p->devices[device], VFIO_PCI_MSI_IRQ_INDEX, 0, 1, &event) < 0)
		return fail("MSI");
	softdev_start(&p->bars[device], SOFTDEV_STORE | SOFTDEV_INTERRUPT, high->gpa + 999, len, 0, 1);
	if (poll(&poll_event, 1, 10000) != 1 || softdev_get(&p->bars[device], SOFTDEV_REG_STATUS) != SOFTDEV_DONE)
		return fail("no message at the end of the job");
	vfio_irq_disable(p->devices[device], VFIO_PCI_MSI_IRQ_INDEX);
	memcpy(high->shadow + 999, low->shadow, len);
	expect(high, 999, len);
	return check(p, "after a copy by the device");
}

static uint64_t copy_reported(struct memory_part *part, const unsigned long *bitmap)
{
	uint64_t copied = 0;

	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t at = page * GUEST_PAGE_SIZE;

		if (!bitmap_test(bitmap, page))
			continue;
		copied++;
		memcpy(part->shadow + at, part->host + at, GUEST_PAGE_SIZE);
	}
	return copied;
}

/*
 * As a migration does: copies the pages that are reported while the devices write all the time, and at the end there
 * must be no difference. The content is known too: by how far each device has come.
 */
static int check_follow(struct probe *p)
{
	static unsigned long bitmap[PAGES / BITS_PER_LONG];
	uint64_t len = MIB(1) / 4 - 4321, copied = 0;

	for (size_t i = 0; i < p->count; i++) {
		softdev_set(&p->bars[i], SOFTDEV_REG_INTERVAL, 20);
		softdev_start(&p->bars[i], SOFTDEV_PATTERN, p->parts[i % 2].gpa + MIB(4) + i * MIB(1) + 99, len, i, 0);
	}
	for (int round = 0; round < 40; round++) {
		if (round == 39)
			for (size_t i = 0; i < p->count; i++)
				softdev_set(&p->bars[i], SOFTDEV_REG_COMMAND, SOFTDEV_STOP);
		for (int i = 0; i < 2; i++) {
			struct memory_part *part = &p->parts[i];

			if (collect(p, part, bitmap) < 0)
				return -1;
			copied += copy_reported(part, bitmap);
		}
		usleep(5000);
	}
	for (size_t i = 0; i < p->count; i++) {
		uint64_t pass = softdev_get(&p->bars[i], SOFTDEV_REG_PASS);
		uint64_t position = softdev_get(&p->bars[i], SOFTDEV_REG_POSITION);
		_cleanup_(free_ptr) uint8_t *want = calloc(1, len);

		softdev_progress(i, pass, position, want, len);
		if (memcmp(want, p->parts[i % 2].host + MIB(4) + i * MIB(1) + 99, len) != 0)
			return fail("%s: pass %llu, position %llu is not what it wrote", p->devices[i]->host.name,
				    (unsigned long long)pass, (unsigned long long)position);
		if (!pass)
			return fail("%s: not one pass is done", p->devices[i]->host.name);
		printf("followed=%s passes=%llu\n", p->devices[i]->host.name, (unsigned long long)pass);
	}
	printf("copied=%llu\n", (unsigned long long)copied);
	return check(p, "after following");
}

static int run(struct probe *p)
{
	/* What was written before does not count. */
	for (size_t i = 0; i < p->count; i++)
		if (write_range(p, i, &p->parts[0], i * GUEST_PAGE_SIZE, 1) < 0)
			return -1;
	if (dirty_set_start(&p->dirty, &p->err) < 0)
		return fail("start: %s", p->err.text);
	memset(p->parts[0].expected, 0, bitmap_longs(PAGES) * sizeof(unsigned long));
	if (check(p, "after the start") < 0)
		return -1;
	for (int round = 0; round < 3; round++)
		if (write_some(p, 40) < 0 || check(p, "after a round") < 0 || check(p, "asked again") < 0)
			return -1;
	for (size_t i = 0; i < p->count; i++)
		if (check_irqs(p->devices[i]) < 0 || check_copy(p, i) < 0)
			return -1;
	return check_follow(p);
}

int main(int argc, char **argv)
{
	static struct vfio_sys_ops ops;
	struct probe p = {0};
	struct vfio_device_options options = {0};
	long files, pinned = status_kib("VmPin:"), locked = status_kib("VmLck:");
	int rc;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 4 || argc - 3 > MAX_DEVICES) {
		fprintf(stderr, "usage: softdev_probe iommufd|legacy log|nolog DEVICE...\n");
		return 2;
	}
	ops = *vfio_sys_host()->ops;
	ops.ioctl = spying_ioctl;
	spy.sys.ops = &ops;
	files = open_files();
	options.backend = strcmp(argv[1], "legacy") == 0 ? VFIO_WANT_LEGACY : VFIO_WANT_IOMMUFD;
	options.no_device_log = strcmp(argv[2], "nolog") == 0;
	rc = begin(&p);
	for (int i = 3; rc == 0 && i < argc; i++) {
		options.device = argv[i];
		rc = open_device(&p, &options);
	}
	printf("attach_einval=%u hwpt_dirty=%u hwpt_plain=%u\n", spy.attach_einval, spy.hwpt_dirty, spy.hwpt_plain);
	if (rc < 0)
		fail("%s", p.err.text);
	else
		rc = run(&p);
	dirty_set_stop(&p.dirty);
	end(&p);
	if (open_files() != files || status_kib("VmPin:") != pinned || status_kib("VmLck:") != locked)
		rc = fail("left at the end: %ld files, %ld KiB pinned, %ld KiB locked", open_files() - files,
			  status_kib("VmPin:") - pinned, status_kib("VmLck:") - locked);
	if (rc == 0)
		printf("exact\n");
	return rc < 0;
}
