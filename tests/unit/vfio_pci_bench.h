/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of passed-through PCI functions have in common: vfio_bench.h with one device that has an inside, a
 * PCI root for it, an event loop that runs when it is told to, an INTx line that remembers its eventfds, and a
 * hypervisor that writes maps into the fake kernel's journal.
 */
#pragma once

#include "tests/unit/fake_pci.h"
#include "tests/unit/pci_rig.h"
#include "tests/unit/vfio_bench.h"
#include "vfio/pci.h"

#include <dirent.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define BDF "0000:01:00.0"
#define DEVFN PCI_DEVFN(1, 0) /* of the guest */

struct pci_bench {
	struct vfio_bench base;
	struct pci_rig rig;
	struct event_loop *loop;
	int stop_fd;
	struct event_source *stop;
	pthread_mutex_t lock;
	struct fake_device *device;
	struct fake_pci *fake;
	struct vfio_pci *pci;
	struct vfio_pci_options options;
	unsigned int wanted; /* how often the host has asked for the device */
	unsigned int maps;           /* that exist */
	void *host;                  /* of the last map */
	bool refuse_map, refuse_wire;
	int trigger_fd, resample_fd; /* of the line, or -1 */
	int fds;                     /* of this process, before */
};

static inline int bench_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* Descriptors that event loops of this process watch. One that was closed counts while a copy of it is open. */
static inline int bench_watched(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++) {
		char path[64], line[256];
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
		file = fopen(path, "re");
		while (file && fgets(line, sizeof(line), file))
			count += strncmp(line, "tfd:", 4) == 0;
		if (file)
			fclose(file);
	}
	return count;
}

static inline int pb_map(void *opaque, uint64_t gpa, uint64_t size, void *host, struct err *err)
{
	struct pci_bench *p = opaque;

	if (p->refuse_map)
		return err_set(err, -EINVAL, "no slot");
	fake_note(p->base.fake, "map", gpa);
	fake_note(p->base.fake, "size", size);
	p->maps++;
	p->host = host;
	return 0;
}

static inline void pb_unmap(void *opaque, uint64_t gpa)
{
	struct pci_bench *p = opaque;

	fake_note(p->base.fake, "unmap", gpa);
	p->maps--;
}

static inline void pb_wanted(void *opaque, struct vfio_pci *pci)
{
	((struct pci_bench *)opaque)->wanted++;
}

static inline int pb_wire(struct irq_line *line, int trigger_fd, int resample_fd, struct err *err)
{
	struct pci_bench *p = line->opaque;

	if (p->refuse_wire)
		return err_set(err, -EBUSY, "no wire");
	p->trigger_fd = trigger_fd;
	p->resample_fd = resample_fd;
	return 0;
}

static inline void pb_unwire(struct irq_line *line, int trigger_fd)
{
	struct pci_bench *p = line->opaque;

	if (trigger_fd == p->trigger_fd)
		p->trigger_fd = p->resample_fd = -1;
}

static inline void pb_level(struct irq_line *line, bool level)
{
}

static inline void pb_on_stop(void *opaque, uint32_t events)
{
	struct pci_bench *p = opaque;

	eventfd_drain(p->stop_fd);
	event_loop_stop(p->loop);
}

/* Lets the loop handle what is ready. */
static inline void pb_pump(struct pci_bench *p)
{
	eventfd_kick(p->stop_fd);
	event_loop_run(p->loop);
}

/* The device stands in p->device and p->fake, to be described further. */
static inline void pb_init(struct pci_bench *p)
{
	static const struct irq_line_ops line_ops = {.set = pb_level, .wire = pb_wire, .unwire = pb_unwire};

	memset(p, 0, sizeof(*p));
	p->fds = bench_fds();
	bench_init(&p->base);
	rig_open(&p->rig);
	p->rig.line = (struct irq_line){.ops = &line_ops, .opaque = p};
	p->trigger_fd = p->resample_fd = -1;
	CHECK_EQ(event_loop_create(&p->loop, NULL), 0);
	p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK_EQ(event_loop_watch(p->loop, p->stop_fd, EPOLLIN, pb_on_stop, p, &p->stop, NULL), 0);
	pthread_mutex_init(&p->lock, NULL);
	p->device = fake_device(p->base.fake, BDF, fake_group(p->base.fake), fake_iommu(p->base.fake, true));
	p->fake = fake_pci(p->device);
	p->options = (struct vfio_pci_options){.id = "dut", .devfn = -1};
}

/* Opens the device and puts it on the bus; what failed is in p->base.err. */
static inline int pb_create(struct pci_bench *p, enum vfio_want want)
{
	static const struct vfio_map_ops map_ops = {pb_map, pb_unmap};
	struct vfio_pci_machine machine = {
		.bus = p->rig.bus, .msi = &p->rig.msi, .loop = p->loop, .log = &p->base.log, .map = &map_ops, .map_opaque = p,
		.wanted = pb_wanted, .wanted_opaque = p, .space_lock = &p->lock,
	};
	struct vfio_device *device = NULL;
	int rc;

	if (!p->base.space)
		bench_space(&p->base, NULL);
	rc = bench_open(&p->base, BDF, want, &device);
	if (rc == 0)
		rc = vfio_pci_create(&device, &p->options, &machine, &p->pci, &p->base.err);
	vfio_device_close(device);
	return rc;
}

/* With a device that is known to be fine. */
static inline void pb_start(struct pci_bench *p)
{
	int rc = pb_create(p, VFIO_WANT_IOMMUFD);

	if (rc < 0)
		printf("# %s\n", p->base.err.text);
	CHECK_EQ(rc, 0);
}

/* Takes all down; nothing may be left of it, in the kernel or here. */
static inline void pb_done(struct pci_bench *p)
{
	vfio_device_close(vfio_pci_remove(p->pci));
	CHECK_EQ(p->maps, 0);
	CHECK_EQ(p->base.fake->detached_masters, 0);
	CHECK_EQ(p->trigger_fd, -1);
	for (unsigned int i = 0; i < RIG_VECTORS; i++)
		CHECK(!p->rig.vectors[i].used);
	rig_close(&p->rig);
	event_source_remove(p->stop);
	close(p->stop_fd);
	event_loop_destroy(p->loop);
	pthread_mutex_destroy(&p->lock);
	bench_done(&p->base);
	CHECK_EQ(bench_fds(), p->fds);
}

/* The guest's config space. */
static inline uint32_t pb_cfg(struct pci_bench *p, unsigned int offset, unsigned int len)
{
	return rig_cfg(&p->rig, DEVFN, offset, len);
}

static inline void pb_cfg_write(struct pci_bench *p, unsigned int offset, unsigned int len, uint32_t value)
{
	rig_cfg_write(&p->rig, DEVFN, offset, len, value);
}

static inline uint32_t pb_mmio(struct pci_bench *p, uint64_t addr)
{
	uint8_t data[4];

	bus_read(p->rig.mmio, addr, data, sizeof(data));
	return get_le32(data);
}

static inline void pb_mmio_write(struct pci_bench *p, uint64_t addr, uint32_t value)
{
	uint8_t data[4];

	put_le32(data, value);
	bus_write(p->rig.mmio, addr, data, sizeof(data));
}

/* Where a memory BAR is by its register. */
static inline uint64_t pb_bar(struct pci_bench *p, unsigned int bar)
{
	uint32_t low = pb_cfg(p, PCI_BASE_ADDRESS_0 + 4 * bar, 4);
	uint64_t high = low & PCI_BASE_ADDRESS_MEM_TYPE_64 ? pb_cfg(p, PCI_BASE_ADDRESS_0 + 4 * bar + 4, 4) : 0;

	return high << 32 | (low & ~0xfu);
}

/* The line of the log that has text, or a failure that shows the log. */
#define CHECK_LOGGED(p, text, times) CHECK_EQ(bench_logged(&(p)->base, (text)), (times))
