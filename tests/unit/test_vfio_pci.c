/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vfio/pci.c and vfio/pci_reset.c: the life of a passed-through function. What the device says by itself, how it is
 * reset, and every call to the kernel failing from its opening to its end.
 */
#include "tests/unit/vfio_pci_bench.h"
#include "vfio/pci_reset.h"

#include <sys/resource.h>

#define MSI 0x50u
#define MSIX 0x70u
#define TABLE 0x2000u
#define ERR_IRQ (&p.fake->irqs[VFIO_PCI_ERR_IRQ_INDEX])
#define REQ_IRQ (&p.fake->irqs[VFIO_PCI_REQ_IRQ_INDEX])

static struct pci_bench p;

static void describe(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(16), FAKE_REGION_RWM);
	fake_pci_bar(p.fake, 2, PCI_BASE_ADDRESS_MEM_TYPE_64, KIB(64), FAKE_REGION_RWM);
	fake_pci_bar(p.fake, 4, PCI_BASE_ADDRESS_SPACE_IO, 64, FAKE_REGION_RW);
	fake_pci_area(p.fake, 2, 0, KIB(8));
	fake_pci_area(p.fake, 2, KIB(16), KIB(8));
	fake_pci_cap(p.fake, 0x40, PCI_CAP_ID_PM);
	fake_pci_msi(p.fake, MSI, PCI_MSI_FLAGS_64BIT, 1);
	fake_pci_msix(p.fake, MSIX, 4, TABLE, 0x3000);
	p.fake->regions[PCI_ROM_BAR] = (struct fake_region){.size = KIB(64), .flags = VFIO_REGION_INFO_FLAG_READ};
	p.options.rom = true;
	*ERR_IRQ = *REQ_IRQ = (struct fake_irq){.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE, .count = 1};
}

static void msix_use(unsigned int vector)
{
	uint64_t entry = pb_bar(&p, 0) + TABLE + vector * 16;

	pb_mmio_write(&p, entry, 0xfee00000);
	pb_mmio_write(&p, entry + 8, 0x60 + vector);
	pb_mmio_write(&p, entry + 12, 0);
}

static void guest_runs(void)
{
	pb_cfg_write(&p, PCI_ROM_ADDRESS, 4, 0xc8000000 | PCI_ROM_ADDRESS_ENABLE);
	pb_cfg_write(&p, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	pb_mmio(&p, 0xc8000000);
	pb_cfg_write(&p, MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE);
	pb_cfg_write(&p, MSI + PCI_MSI_FLAGS, 2, 0);
	pb_cfg_write(&p, MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	msix_use(0);
	msix_use(2);
	pb_cfg(&p, 0x44, 2);
	pb_cfg_write(&p, 0x44, 2, 0);
}

static struct vfio_pci_info info(void)
{
	struct vfio_pci_info ret;

	vfio_pci_get_info(p.pci, &ret);
	return ret;
}

static void tells_what_it_is(void)
{
	describe();
	pb_start(&p);
	CHECK_EQ(info().mapped_bars, 0);
	guest_runs();
	CHECK_STR(info().id, "dut");
	CHECK_EQ(info().devfn, DEVFN);
	CHECK_EQ(info().vendor, 0x1b36);
	CHECK_EQ(info().product, 0x0010);
	CHECK_STR(info().interrupts, "MSI-X");
	CHECK_EQ(info().vectors, 2);
	CHECK_EQ(info().mapped_bars, 1 << 0 | 1 << 2);
	CHECK(!info().fenced && info().device);
	CHECK_EQ(p.maps, 3);
	pb_done(&p);
}

static void an_error_fences(void)
{
	describe();
	pb_start(&p);
	guest_runs();
	CHECK(fake_pci_fire(p.fake, VFIO_PCI_ERR_IRQ_INDEX, 0));
	CHECK(!info().fenced);
	pb_pump(&p);
	CHECK(info().fenced);
	CHECK_LOGGED(&p, "an error that it cannot recover from", 1);
	/* No memory of it is left in the guest, no interrupt comes, no DMA goes. */
	CHECK_EQ(p.maps, 0);
	CHECK_STR(info().interrupts, "none");
	CHECK(!fake_pci_fire(p.fake, VFIO_PCI_MSIX_IRQ_INDEX, 0));
	CHECK_EQ(get_le16(p.fake->config + PCI_COMMAND), 0);
	/* It reads as ones everywhere, and what is written goes nowhere. */
	CHECK_EQ(pb_cfg(&p, PCI_VENDOR_ID, 4), 0xffffffff);
	CHECK_EQ(pb_mmio(&p, 0xc8000000), 0xffffffff);
	pb_cfg_write(&p, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	CHECK_EQ(get_le16(p.fake->config + PCI_COMMAND), 0);
	pb_cfg_write(&p, MSIX + PCI_MSIX_FLAGS, 2, 0);
	CHECK_STR(info().interrupts, "none");
	/* Once is enough. */
	CHECK(fake_pci_fire(p.fake, VFIO_PCI_ERR_IRQ_INDEX, 0));
	pb_pump(&p);
	CHECK_LOGGED(&p, "an error that it cannot recover from", 1);
	CHECK_EQ(p.wanted, 0);
	pb_done(&p);
}

/* What the guest had mapped before reads as ones where it was. */
static void fenced_memory(void)
{
	uint64_t bar0, bar2;
	unsigned int writes;
	uint8_t byte = 0;

	describe();
	pb_start(&p);
	guest_runs();
	bar0 = pb_bar(&p, 0);
	bar2 = pb_bar(&p, 2);
	writes = p.fake->regions[0].writes + p.fake->regions[2].writes + p.fake->regions[4].writes;
	fake_pci_fire(p.fake, VFIO_PCI_ERR_IRQ_INDEX, 0);
	pb_pump(&p);
	CHECK_EQ(pb_mmio(&p, bar0 + 0x100), 0xffffffff);
	CHECK_EQ(pb_mmio(&p, bar0 + TABLE), 0xffffffff);
	CHECK_EQ(pb_mmio(&p, bar0 + 0x3000), 0xffffffff);
	CHECK_EQ(pb_mmio(&p, bar2 + 0x9000), 0xffffffff);
	pb_mmio_write(&p, bar0 + 0x100, 0);
	pb_mmio_write(&p, bar0 + TABLE + 16 + 12, 0);
	bus_write(p.rig.pio, 0x1000, &byte, 1);
	CHECK_EQ(p.fake->regions[0].writes + p.fake->regions[2].writes + p.fake->regions[4].writes, writes);
	CHECK_EQ(p.fake->irqs[VFIO_PCI_MSIX_IRQ_INDEX].enabled, 0);
	pb_done(&p);
}

/* The kernel asks again every few seconds; each is passed on, and nothing changes for the guest. */
static void the_host_wants_it_back(void)
{
	int watched, copies[2];

	describe();
	watched = bench_watched();
	pb_start(&p);
	guest_runs();
	for (unsigned int i = 1; i <= 2; i++) {
		CHECK(fake_pci_fire(p.fake, VFIO_PCI_REQ_IRQ_INDEX, 0));
		pb_pump(&p);
		CHECK_EQ(p.wanted, i);
	}
	pb_pump(&p);
	CHECK_EQ(p.wanted, 2);
	CHECK(!info().fenced);
	CHECK_EQ(p.maps, 3);
	/* Nobody listens any more when it is gone, even if somebody still holds the eventfds. */
	CHECK_EQ(bench_watched(), watched + 2);
	copies[0] = dup(ERR_IRQ->fds[0]);
	copies[1] = dup(REQ_IRQ->fds[0]);
	vfio_device_close(vfio_pci_remove(take_ptr(p.pci)));
	CHECK_EQ(ERR_IRQ->enabled + REQ_IRQ->enabled, 0);
	CHECK_EQ(bench_watched(), watched);
	close(copies[0]);
	close(copies[1]);
	pb_done(&p);
}

/* ---- resets ---- */

static void check_reset(enum vfio_want want, const char *how, const char *said)
{
	CHECK_EQ(pb_create(&p, want), 0);
	vfio_pci_reset(p.base.space);
	CHECK_STR(info().reset, how);
	CHECK_EQ(p.fake->hot_resets, strcmp(how, "bus") == 0);
	CHECK_LOGGED(&p, said ? said : " reset", said ? 1 : 0);
}

static void reset(void)
{
	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++) {
		/* By itself: the kernel does that when it is opened. */
		pb_init(&p);
		p.fake->can_hot_reset = true;
		check_reset(want, "function", NULL);
		pb_done(&p);
		/* Not at all. */
		pb_init(&p);
		p.device->flags = VFIO_DEVICE_FLAGS_PCI;
		check_reset(want, "none", "it has no reset (No such device); it starts in the state that its last user left");
		pb_done(&p);
		/* With its bus, which is all ours: two functions of its own group. */
		pb_init(&p);
		p.device->flags = VFIO_DEVICE_FLAGS_PCI;
		p.fake->can_hot_reset = true;
		p.fake->dependent_count = 2;
		p.fake->dependents[1].devfn = 1;
		check_reset(want, "bus", NULL);
		pb_done(&p);
		/* With somebody else's device on it. */
		pb_init(&p);
		p.device->flags = VFIO_DEVICE_FLAGS_PCI;
		p.fake->can_hot_reset = true;
		p.fake->dependent_count = 2;
		p.fake->dependents[1].group = fake_group(p.base.fake);
		p.fake->dependents[1].devfn = 0x09;
		check_reset(want, "none", "0000:01:01.1 is not this guest's; it is not reset");
		pb_done(&p);
		/* That one belongs to this guest, too. */
		pb_init(&p);
		p.device->flags = VFIO_DEVICE_FLAGS_PCI;
		p.fake->can_hot_reset = true;
		p.fake->dependent_count = 2;
		p.fake->dependents[1].group = fake_group(p.base.fake);
		fake_device(p.base.fake, "0000:01:01.1", p.fake->dependents[1].group, p.device->iommu);
		{
			struct vfio_device *other;

			bench_space(&p.base, NULL);
			CHECK_EQ(bench_open(&p.base, "0000:01:01.1", want, &other), 0);
			check_reset(want, "bus", NULL);
			vfio_device_close(other);
		}
		pb_done(&p);
		/* The kernel refuses in the end. */
		pb_init(&p);
		p.device->flags = VFIO_DEVICE_FLAGS_PCI;
		p.fake->can_hot_reset = true;
		p.fake->dependent_count = 1;
		p.fake->refuse_hot_reset = -EPERM;
		check_reset(want, "none", "it has no reset (Operation not permitted)");
		pb_done(&p);
	}
}

/* A second function beside the first, in a group of its own: neither has a reset, and both go with their bus. */
#define SIBLING "0000:01:00.1"

static struct fake_device *sibling;

static void two_functions(void)
{
	struct fake_device *both[2];

	pb_init(&p);
	sibling = fake_device(p.base.fake, SIBLING, fake_group(p.base.fake), p.device->iommu);
	fake_pci(sibling);
	both[0] = p.device;
	both[1] = sibling;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		both[i]->flags = VFIO_DEVICE_FLAGS_PCI;
		both[i]->pci->can_hot_reset = true;
		both[i]->pci->dependent_count = 2;
		for (size_t k = 0; k < ARRAY_SIZE(both); k++) {
			both[i]->pci->dependents[k].group = both[k]->group;
			both[i]->pci->dependents[k].devfn = (uint8_t)k;
		}
	}
	bench_space(&p.base, NULL);
}

static unsigned int hot_resets(void)
{
	return p.device->pci->hot_resets + sibling->pci->hot_resets;
}

/* Two that come together are reset together, once, and both know it. */
static void a_set_is_reset_once(void)
{
	struct vfio_device *other;

	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++) {
		two_functions();
		CHECK_EQ(pb_create(&p, want), 0);
		CHECK_EQ(bench_open(&p.base, SIBLING, want, &other), 0);
		vfio_pci_reset(p.base.space);
		CHECK_EQ(hot_resets(), 1);
		CHECK_STR(info().reset, "bus");
		CHECK_STR(other->reset, "bus");
		vfio_pci_reset(p.base.space);
		CHECK_EQ(hot_resets(), 1);
		CHECK_LOGGED(&p, "reset", 0);
		vfio_device_close(other);
		pb_done(&p);
	}
}

/* The second one comes while the first is at work: it is not reset, which is said, until it comes without the first. */
static void a_set_with_one_at_work_is_left_alone(void)
{
	struct vfio_device *other;

	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++) {
		two_functions();
		if (want == VFIO_WANT_LEGACY)
			sibling->group = p.device->pci->dependents[1].group = sibling->pci->dependents[1].group = p.device->group;
		CHECK_EQ(pb_create(&p, want), 0);
		vfio_pci_reset(p.base.space);
		p.device->pci->hot_resets = 0;
		CHECK_EQ(bench_open(&p.base, SIBLING, want, &other), 0);
		vfio_pci_reset(p.base.space);
		CHECK_EQ(hot_resets(), 0);
		CHECK_STR(other->reset, "none");
		CHECK_LOGGED(&p, "vfio " SIBLING ": it can only be reset with its bus, on which " BDF " is in use by this guest", 1);
		vfio_device_close(other);
		/* A function that the kernel resets by itself is at work as well. */
		vfio_device_close(vfio_pci_remove(take_ptr(p.pci)));
		p.device->flags |= VFIO_DEVICE_FLAGS_RESET;
		CHECK_EQ(pb_create(&p, want), 0);
		vfio_pci_reset(p.base.space);
		CHECK_STR(info().reset, "function");
		CHECK_EQ(bench_open(&p.base, SIBLING, want, &other), 0);
		vfio_pci_reset(p.base.space);
		CHECK_EQ(hot_resets(), 0);
		CHECK_STR(other->reset, "none");
		vfio_device_close(other);
		/* When both come together it does no harm to it. */
		vfio_device_close(vfio_pci_remove(take_ptr(p.pci)));
		CHECK_EQ(pb_create(&p, want), 0);
		CHECK_EQ(bench_open(&p.base, SIBLING, want, &other), 0);
		vfio_pci_reset(p.base.space);
		CHECK_EQ(hot_resets(), 1);
		CHECK_STR(other->reset, "bus");
		CHECK_STR(info().reset, "function");
		vfio_device_close(other);
		pb_done(&p);
	}
}

/* A reset that the kernel refuses is tried once for the set, and said of each. */
static void a_refused_reset_is_said_of_each(void)
{
	struct vfio_device *other;

	two_functions();
	p.device->pci->refuse_hot_reset = sibling->pci->refuse_hot_reset = -EPERM;
	p.base.fake->counted = VFIO_DEVICE_PCI_HOT_RESET;
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), 0);
	CHECK_EQ(bench_open(&p.base, SIBLING, VFIO_WANT_IOMMUFD, &other), 0);
	vfio_pci_reset(p.base.space);
	CHECK_EQ(p.base.fake->count, 1);
	CHECK_LOGGED(&p, "vfio " BDF ": it has no reset (Operation not permitted); it starts in the state that its last user left", 1);
	CHECK_LOGGED(&p, "vfio " SIBLING ": it has no reset (Operation not permitted)", 1);
	CHECK_STR(info().reset, "none");
	CHECK_STR(other->reset, "none");
	vfio_device_close(other);
	pb_done(&p);
}

/* ---- every call fails ---- */

/* True when the nth call was reached. A device that is there after all works, or says what does not. */
static bool live(enum vfio_want want, unsigned int n, int code)
{
	bool reached;
	int rc;

	describe();
	p.base.fake->fail_at = n;
	p.base.fake->fail_errno = code;
	rc = pb_create(&p, want);
	if (rc < 0) {
		CHECK(p.base.err.text[0] && !p.pci);
		CHECK(!strstr(p.base.err.text, "Success"));
		CHECK(!p.device->fd && !p.base.space->devices);
	} else {
		bool told;

		CHECK(p.pci);
		guest_runs();
		told = fake_pci_fire(p.fake, VFIO_PCI_REQ_IRQ_INDEX, 0);
		pb_pump(&p);
		CHECK_EQ(p.wanted, told);
		told = fake_pci_fire(p.fake, VFIO_PCI_ERR_IRQ_INDEX, 0);
		pb_pump(&p);
		CHECK_EQ(info().fenced, told);
		CHECK(!told || p.maps == 0);
		vfio_device_close(vfio_pci_remove(take_ptr(p.pci)));
	}
	CHECK(!pci_bus_function(p.rig.bus, DEVFN));
	reached = p.base.fake->calls >= n;
	CHECK(reached || rc == 0);
	pb_done(&p);
	return reached;
}

static void every_call_fails(void)
{
	static const int codes[] = {-ENOMEM, -EINVAL, -EBUSY, -ENOTTY, -EIO, -ENOSPC};

	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++)
		for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
			unsigned int n = 1;

			while (live(want, n, codes[i]))
				n++;
			printf("# %s: %u calls failed, each once\n", strerrorname_np(-codes[i]), n - 1);
			CHECK(n > 60);
		}
}

/* This process runs out of descriptors, one earlier each time: said in words, or a device without INTx. */
static void no_descriptors(void)
{
	struct rlimit old, limit;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (unsigned int room = 0;; room++) {
		int rc, next;
		bool whole;

		describe();
		bench_space(&p.base, NULL);
		next = dup(p.stop_fd);
		close(next);
		limit = (struct rlimit){.rlim_cur = (rlim_t)next + room, .rlim_max = old.rlim_max};
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
		rc = pb_create(&p, VFIO_WANT_IOMMUFD);
		CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
		if (rc < 0)
			CHECK_HAS(p.base.err.text, "Too many open files");
		whole = rc == 0 && strcmp(info().interrupts, "INTx") == 0;
		CHECK_LOGGED(&p, "INTx: Too many open files", rc == 0 && !whole);
		pb_done(&p);
		if (whole) {
			CHECK(room >= 4);
			return;
		}
	}
}

/* The bus is full, or the window: the device is as it was. */
static void no_place(void)
{
	describe();
	p.options.devfn = PCI_DEVFN(0, 0);
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EBUSY);
	CHECK_HAS(p.base.err.text, "vfio " BDF ": ");
	p.options.devfn = -1;
	fake_pci_bar(p.fake, 2, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, GIB(512), FAKE_REGION_RW);
	p.fake->regions[2].area_count = 0;
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -ENOSPC);
	CHECK_HAS(p.base.err.text, "no room for BAR 2");
	fake_pci_bar(p.fake, 2, PCI_BASE_ADDRESS_MEM_TYPE_64, KIB(64), FAKE_REGION_RWM);
	pb_start(&p);
	pb_done(&p);
}

TEST_MAIN(TEST(tells_what_it_is), TEST(an_error_fences), TEST(fenced_memory), TEST(the_host_wants_it_back), TEST(reset),
	  TEST(a_set_is_reset_once), TEST(a_set_with_one_at_work_is_left_alone), TEST(a_refused_reset_is_said_of_each),
	  TEST(every_call_fails), TEST(no_descriptors), TEST(no_place))
