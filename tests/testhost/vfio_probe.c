/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vfio/ and iommu/ on a real kernel, without a guest: run by tests/testhost/cases/vfio-containers.sh.
 *
 *	vfio_probe attach BACKEND DEVICE...   attaches all devices with 256 MiB of anonymous memory and 256 MiB of memfd,
 *	                                      prints what became of each, collects dirty pages, closes, and compares
 *	                                      what the process holds with what it held before
 *	vfio_probe faults BACKEND DEVICE...   the same life with less memory, once for every place where the kernel can
 *	                                      be told to fail (fail_nth), and then once more without; all calls but the
 *	                                      one that enables the device
 *	vfio_probe faults-enable ...          that one too
 *	vfio_probe rate BACKEND DEVICE...     maps 1 GiB by guest memory and by the bare ioctl in turns, once fresh and once
 *	                                      there already, and tells the GiB/s of each; for tests/bench/run vfio
 *
 * Prints "name=value" words and exits 0, or says what is wrong and exits 1.
 */
#include "core/bitmap.h"
#include "vfio/device.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define MAX_DEVICES 8

/* What this process holds of the kernel. */
struct holdings {
	long fds, pinned_kib, locked_kib;
};

struct probe {
	struct log log;
	struct guest_memory *memory;
	struct dirty_set dirty;
	struct vfio_space *space;
	struct vfio_device *devices[MAX_DEVICES];
	struct err err;
	uint64_t size; /* of each of the two regions */
	void *host[2];
	int memfd;
};

static long status_kib(const char *name)
{
	char line[256];
	long value = -1;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			value = atol(line + strlen(name));
	if (f)
		fclose(f);
	return value;
}

static struct holdings holdings(void)
{
	struct holdings h = {.pinned_kib = status_kib("VmPin:"), .locked_kib = status_kib("VmLck:")};
	DIR *dir = opendir("/proc/self/fd");

	while (dir && readdir(dir))
		h.fds++;
	if (dir)
		closedir(dir);
	return h;
}

static int compare(const struct holdings *before, const char *when)
{
	struct holdings now = holdings();

	if (now.fds == before->fds && now.pinned_kib == before->pinned_kib && now.locked_kib == before->locked_kib)
		return 0;
	printf("%s: %ld descriptors (%ld before), %ld KiB pinned (%ld), %ld KiB locked (%ld)\n", when, now.fds, before->fds,
	       now.pinned_kib, before->pinned_kib, now.locked_kib, before->locked_kib);
	return -1;
}

/* ---- Failing on demand ---- */

/* Passes every call on to the kernel with a budget: the call in which it is used up has met a failure. */
struct failing_sys {
	struct vfio_sys sys;
	int control; /* /proc/thread-self/fail-nth, or -1 */
	unsigned int left;
	bool met;
};

static struct failing_sys failing = {.control = -1};
static bool fail_enable;

static void arm(void)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%u", failing.left);

	if (failing.control >= 0 && failing.left && pwrite(failing.control, text, (size_t)n, 0) < 0)
		failing.left = 0;
}

static void disarm(void)
{
	char text[16] = "";

	if (failing.control < 0 || !failing.left)
		return;
	/* Reading it may be what fails. */
	while (pread(failing.control, text, sizeof(text) - 1, 0) < 0)
		failing.met = true;
	failing.left = (unsigned int)atoi(text);
	failing.met |= !failing.left;
	if (pwrite(failing.control, "0", 1, 0) < 0)
		failing.met = true;
}

static int failing_open(const struct vfio_sys *sys, const char *path, int flags)
{
	int fd;

	arm();
	fd = vfio_sys_host()->ops->open(sys, path, flags);
	disarm();
	return fd;
}

static int failing_ioctl(const struct vfio_sys *sys, int fd, unsigned long request, void *arg)
{
	/* Enabling a PCI function runs ACPI methods, and failing those brings the kernel's ACPI down, not VFIO. */
	bool spare = !fail_enable && (request == VFIO_UAPI_BIND || request == VFIO_GROUP_GET_DEVICE_FD);
	int rc;

	if (!spare)
		arm();
	rc = vfio_sys_host()->ops->ioctl(sys, fd, request, arg);
	if (!spare)
		disarm();
	return rc;
}

/* ---- A life ---- */

static int add_region(struct probe *p, int i, uint64_t gpa)
{
	struct guest_region region = {.gpa = gpa, .size = p->size, .fd = i ? p->memfd : -1};

	p->host[i] = mmap(NULL, p->size, PROT_READ | PROT_WRITE, i ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, region.fd, 0);
	if (p->host[i] == MAP_FAILED)
		return -errno;
	region.host = p->host[i];
	return guest_memory_add(p->memory, &region, &p->err);
}

static int begin(struct probe *p, const struct vfio_sys *sys, uint64_t size)
{
	struct vfio_space_options options = {.sys = sys, .log = &p->log, .dirty = &p->dirty};

	p->log = (struct log){.fd = 2, .level = LOG_WARN};
	p->size = size;
	p->memfd = memfd_create("guest", MFD_CLOEXEC);
	p->memory = guest_memory_create();
	if (p->memfd < 0 || !p->memory || ftruncate(p->memfd, (off_t)size) < 0)
		return -ENOMEM;
	options.memory = p->memory;
	if (add_region(p, 0, 0) < 0 || add_region(p, 1, GIB(4)) < 0)
		return -ENOMEM;
	return vfio_space_create(&options, &p->space, &p->err);
}

static void end(struct probe *p)
{
	for (int i = MAX_DEVICES; i--;)
		vfio_device_close(p->devices[i]);
	vfio_space_destroy(p->space);
	guest_memory_destroy(p->memory);
	munmap(p->host[0], p->size);
	munmap(p->host[1], p->size);
	close(p->memfd);
}

static enum vfio_want backend_of(const char *name)
{
	return strcmp(name, "legacy") == 0 ? VFIO_WANT_LEGACY : strcmp(name, "iommufd") == 0 ? VFIO_WANT_IOMMUFD : VFIO_WANT_AUTO;
}

static int open_all(struct probe *p, enum vfio_want backend, char **names)
{
	for (int i = 0; names[i]; i++) {
		struct vfio_device_options options = {.device = names[i], .backend = backend};
		int rc = vfio_device_open(p->space, &options, &p->devices[i], &p->err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Dirty pages of the low region in one round, or -errno. */
static long collect(struct probe *p)
{
	uint64_t pages = p->size / GUEST_PAGE_SIZE;
	_cleanup_(free_ptr) unsigned long *bitmap = calloc(bitmap_longs(pages), sizeof(*bitmap));
	long n = 0;
	int rc;

	if (!bitmap)
		return -ENOMEM;
	rc = dirty_set_start(&p->dirty, &p->err);
	if (rc == 0)
		rc = dirty_set_collect(&p->dirty, 0, p->size, bitmap, &p->err);
	dirty_set_stop(&p->dirty);
	for (uint64_t i = 0; i < bitmap_longs(pages); i++)
		n += __builtin_popcountl(bitmap[i]);
	return rc < 0 ? rc : n;
}

static void describe(const struct vfio_device *device)
{
	struct vfio_device_ids ids = vfio_device_ids(device);

	printf("device=%s backend=%s group=%d ioas=%u hwpt=%u iommu=%s cap=0x%llx capabilities=0x%llx ranges=%zu "
	       "coverage=%s regions=%u irqs=%u\n", device->host.name, device->backend->name, device->host.group, ids.ioas,
	       ids.hwpt, device->iommu ? host_iommu_type_name(device->iommu->type) : "-",
	       device->iommu ? (unsigned long long)device->iommu->registers.vtd.cap : 0,
	       device->iommu ? (unsigned long long)device->iommu->capabilities : 0, device->container->range_count,
	       vfio_coverage_name(vfio_device_coverage(device)), device->num_regions, device->num_irqs);
}

/* The IOMMU says it cannot track: asking all the same is what the retry without the flag is for. */
static void ask_for_tracking(const struct probe *p, const struct vfio_device *device)
{
	struct iommufd iommufd = {.sys = device->sys, .fd = p->space->iommufd};
	struct vfio_device_ids ids = vfio_device_ids(device);
	uint32_t hwpt;
	int rc;

	if (!ids.hwpt)
		return;
	rc = iommufd_hwpt_alloc(&iommufd, ids.devid, ids.ioas, IOMMUFD_UAPI_HWPT_DIRTY_TRACKING, &hwpt);
	printf("device=%s dirty_hwpt=%s\n", device->host.name, rc < 0 ? strerrorname_np(-rc) : "made");
	if (rc == 0)
		iommufd_destroy(&iommufd, hwpt);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int run_attach(enum vfio_want backend, char **names)
{
	struct holdings before = holdings(), held;
	struct probe p = {0};
	double begun = seconds();
	long pages;
	int rc = begin(&p, vfio_sys_host(), MIB(256));

	if (rc == 0)
		rc = open_all(&p, backend, names);
	if (rc < 0) {
		printf("failed: %s\n", p.err.text);
		return 1;
	}
	held = holdings();
	printf("attached_ms=%.0f pinned_kib=%ld locked_kib=%ld\n", (seconds() - begun) * 1000,
	       held.pinned_kib - before.pinned_kib, held.locked_kib - before.locked_kib);
	for (int i = 0; names[i]; i++) {
		describe(p.devices[i]);
		ask_for_tracking(&p, p.devices[i]);
	}
	pages = collect(&p);
	printf("dirty_pages=%ld of=%llu%s%s\n", pages, (unsigned long long)(p.size / GUEST_PAGE_SIZE), pages < 0 ? " " : "",
	       pages < 0 ? p.err.text : "");
	end(&p);
	return pages < 0 || compare(&before, "after close") < 0;
}

/* One life in which the nth place fails; whether that was reached, or -1 when something is left of it. */
static int fault(enum vfio_want backend, char **names, unsigned int nth, unsigned int *refused)
{
	struct holdings before = holdings();
	struct probe p = {0};
	int rc;

	failing.left = 0;
	failing.met = false;
	rc = begin(&p, &failing.sys, MIB(2));
	if (rc < 0)
		return -1;
	failing.left = nth;
	p.log.level = LOG_ERROR;
	rc = open_all(&p, backend, names);
	if (rc == 0 && collect(&p) < 0)
		rc = -1;
	if (rc < 0) {
		(*refused)++;
		if (!p.err.text[0])
			printf("fault %u: no words\n", nth);
	}
	if (rc < 0 && !failing.met)
		printf("fault %u: failed without a fault: %s\n", nth, p.err.text);
	end(&p);
	failing.left = 0;
	if ((rc < 0 && (!failing.met || !p.err.text[0])) || compare(&before, "after a fault") < 0)
		return -1;
	return failing.met;
}

static int run_faults(enum vfio_want backend, char **names)
{
	static struct vfio_sys_ops ops;
	unsigned int refused = 0, nth;
	int met = 1;

	ops = *vfio_sys_host()->ops;
	ops.open = failing_open;
	ops.ioctl = failing_ioctl;
	failing.sys.ops = &ops;
	failing.control = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (failing.control < 0) {
		printf("failed: this kernel has no fail-nth\n");
		return 1;
	}
	for (nth = 1; met > 0 && nth < 100000; nth++)
		met = fault(backend, names, nth, &refused);
	close(failing.control);
	failing.control = -1;
	printf("faults=%u refused=%u\n", nth - 2, refused);
	return met < 0 ? 1 : run_attach(backend, names);
}

/* ---- The rate of mapping ---- */

#define RATE_GPA GIB(8)
#define RATE_SIZE GIB(1)
#define RATE_TURNS 16

/* The descriptor of this process that is open on path, or -1. */
static int opened(const char *path)
{
	char name[64], target[256];
	ssize_t len;

	for (int fd = 0; fd < 64; fd++) {
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		len = readlink(name, target, sizeof(target) - 1);
		if (len > 0 && (size_t)len == strlen(path) && memcmp(target, path, (size_t)len) == 0)
			return fd;
	}
	return -1;
}

/* Seconds that the kernel alone takes for it, or negative. */
static double map_bare(const struct probe *p, void *host)
{
	const struct vfio_device *device = p->devices[0];
	struct iommufd iommufd = {.sys = device->sys, .fd = p->space->iommufd};
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map), .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
					       .vaddr = (uintptr_t)host, .iova = RATE_GPA, .size = RATE_SIZE};
	struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof(unmap), .iova = RATE_GPA, .size = RATE_SIZE};
	uint32_t ioas = vfio_device_ids(device).ioas;
	int legacy = ioas ? -1 : opened("/dev/vfio/vfio");
	double begun = seconds(), took;

	if (ioas ? iommufd_ioas_map(&iommufd, ioas, RATE_GPA, RATE_SIZE, host) < 0
		 : ioctl(legacy, VFIO_IOMMU_MAP_DMA, &map) < 0)
		return -1;
	took = seconds() - begun;
	if (ioas)
		iommufd_ioas_unmap(&iommufd, ioas, RATE_GPA, RATE_SIZE);
	else
		ioctl(legacy, VFIO_IOMMU_UNMAP_DMA, &unmap);
	return took;
}

/* The same as a machine does it. */
static double map_by_memory(struct probe *p, void *host)
{
	const struct guest_region region = {.gpa = RATE_GPA, .size = RATE_SIZE, .host = host, .fd = -1};
	double begun = seconds(), took;

	if (guest_memory_add(p->memory, &region, &p->err) < 0)
		return -1;
	took = seconds() - begun;
	guest_memory_remove(p->memory, RATE_GPA, NULL);
	return took;
}

static int run_rate(enum vfio_want backend, char **names)
{
	char *host = mmap(NULL, RATE_SIZE + MIB(2), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct probe p = {0};
	int rc = begin(&p, vfio_sys_host(), MIB(2));

	if (rc == 0)
		rc = open_all(&p, backend, names);
	if (rc < 0 || host == MAP_FAILED) {
		printf("failed: %s\n", p.err.text);
		return 1;
	}
	host = (char *)(uintptr_t)align_up((uintptr_t)host, MIB(2));
	madvise(host, RATE_SIZE, MADV_HUGEPAGE);
	for (int i = 0; i < RATE_TURNS && rc == 0; i++) {
		double took[4];

		madvise(host, RATE_SIZE, MADV_DONTNEED);
		took[2] = map_bare(&p, host);
		madvise(host, RATE_SIZE, MADV_DONTNEED);
		took[0] = map_by_memory(&p, host);
		/* The same pages for both, for how they lie in the host's memory matters; and not always the same one first. */
		for (int j = 0; j < 2; j++) {
			bool bare = (i + j) % 2;

			took[bare ? 3 : 1] = bare ? map_bare(&p, host) : map_by_memory(&p, host);
		}
		rc = MIN(MIN(took[0], took[1]), MIN(took[2], took[3])) <= 0 ? -1 : 0;
		printf("fresh_mvmm=%.3f there_mvmm=%.3f fresh_bare=%.3f there_bare=%.3f\n", 1 / took[0], 1 / took[1],
		       1 / took[2], 1 / took[3]);
	}
	end(&p);
	return rc < 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(enum vfio_want backend, char **names);
	} modes[] = {
		{"attach", run_attach}, {"faults", run_faults}, {"faults-enable", run_faults}, {"rate", run_rate},
	};
	size_t mode = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (argc > 1 && mode < ARRAY_SIZE(modes) && strcmp(argv[1], modes[mode].name) != 0)
		mode++;
	if (argc < 4 || argc - 3 > MAX_DEVICES || mode == ARRAY_SIZE(modes)) {
		fprintf(stderr, "usage: vfio_probe attach|faults|faults-enable|rate BACKEND DEVICE...\n");
		return 2;
	}
	fail_enable = strcmp(argv[1], "faults-enable") == 0;
	return modes[mode].run(backend_of(argv[2]), argv + 3);
}
