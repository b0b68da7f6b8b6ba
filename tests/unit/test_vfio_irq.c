/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/pci_irq.c and vfio/irq.c: how a device's interrupts reach the guest, in every mode and between them. */
#include "tests/unit/vfio_pci_bench.h"

#define MSI 0x50u
#define MSIX 0x70u
#define VECTORS 8u
#define TABLE 0x2000u
#define PBA 0x3000u
#define WIDE_MASKED (PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT)
#define INTX_IRQ (&p.fake->irqs[VFIO_PCI_INTX_IRQ_INDEX])
#define MSI_IRQ (&p.fake->irqs[VFIO_PCI_MSI_IRQ_INDEX])
#define MSIX_IRQ (&p.fake->irqs[VFIO_PCI_MSIX_IRQ_INDEX])

static struct pci_bench p;

/* A device that has all three: MSI of 8 vectors, 64 bits and masks, MSI-X of 8. */
static void setup(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(16), FAKE_REGION_RWM);
	fake_pci_msi(p.fake, MSI, WIDE_MASKED, 3);
	fake_pci_msix(p.fake, MSIX, VECTORS, TABLE, PBA);
}

static void start(void)
{
	pb_start(&p);
	pb_cfg_write(&p, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static const char *mode(void)
{
	struct vfio_pci_info info;

	vfio_pci_get_info(p.pci, &info);
	return info.interrupts;
}

static unsigned int vectors(void)
{
	struct vfio_pci_info info;

	vfio_pci_get_info(p.pci, &info);
	return info.vectors;
}

static bool fire(unsigned int index, unsigned int vector)
{
	return fake_pci_fire(p.fake, index, vector);
}

/* ---- what the guest does ---- */

static void msi_on(unsigned int log2_vectors, uint32_t data)
{
	pb_cfg_write(&p, MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee01000);
	pb_cfg_write(&p, MSI + PCI_MSI_ADDRESS_HI, 4, 0);
	pb_cfg_write(&p, MSI + PCI_MSI_DATA_64, 2, data);
	pb_cfg_write(&p, MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | log2_vectors << 4);
}

static void msi_off(void)
{
	pb_cfg_write(&p, MSI + PCI_MSI_FLAGS, 2, 0);
}

static void msix_control(uint16_t control)
{
	pb_cfg_write(&p, MSIX + PCI_MSIX_FLAGS, 2, control);
}

static void msix_mask(unsigned int vector, bool masked)
{
	pb_mmio_write(&p, pb_bar(&p, 0) + TABLE + vector * 16 + PCI_MSIX_ENTRY_VECTOR_CTRL, masked);
}

/* Vector n carries the data 0x60 + n. */
static void msix_use(unsigned int vector)
{
	uint64_t entry = pb_bar(&p, 0) + TABLE + vector * 16;

	pb_mmio_write(&p, entry, 0xfee00000);
	pb_mmio_write(&p, entry + 4, 0);
	pb_mmio_write(&p, entry + 8, 0x60 + vector);
	msix_mask(vector, false);
}

/* ---- INTx ---- */

static void intx_works(void)
{
	CHECK_STR(mode(), "INTx");
	CHECK_EQ(vectors(), 1);
	CHECK(INTX_IRQ->enabled && INTX_IRQ->fds[0] == p.trigger_fd);
	CHECK(fire(VFIO_PCI_INTX_IRQ_INDEX, 0));
	CHECK(eventfd_drain(p.trigger_fd));
	/* Masked from then on, until the guest has ended it. */
	CHECK(!fire(VFIO_PCI_INTX_IRQ_INDEX, 0));
	CHECK(!eventfd_drain(p.trigger_fd));
}

static void intx_by_eventfds(void)
{
	setup();
	start();
	intx_works();
	CHECK_EQ(INTX_IRQ->unmask_fd, p.resample_fd);
	eventfd_kick(p.resample_fd);
	/* The kick is the device's to see, not the event loop's. */
	pb_pump(&p);
	CHECK(fake_pci_poll_unmask(p.fake));
	CHECK(eventfd_drain(p.trigger_fd));
	pb_done(&p);
}

static void intx_by_calls(void)
{
	int watched, copy;

	setup();
	watched = bench_watched();
	INTX_IRQ->no_unmask_fd = true;
	start();
	intx_works();
	CHECK(INTX_IRQ->unmask_fd < 0);
	pb_pump(&p);
	CHECK(!eventfd_drain(p.trigger_fd));
	eventfd_kick(p.resample_fd);
	pb_pump(&p);
	CHECK(eventfd_drain(p.trigger_fd));
	/* Into another mode and back, with a kick that comes too late. */
	eventfd_kick(p.resample_fd);
	CHECK_EQ(bench_watched(), watched + 1);
	copy = dup(p.resample_fd);
	msi_on(0, 0x40);
	CHECK_EQ(bench_watched(), watched);
	close(copy);
	pb_pump(&p);
	msi_off();
	intx_works();
	eventfd_kick(p.resample_fd);
	pb_pump(&p);
	CHECK(eventfd_drain(p.trigger_fd));
	pb_done(&p);
}

/* As mtty: it does not mask by itself and knows no unmask. */
static void intx_without_masks(void)
{
	setup();
	INTX_IRQ->flags = VFIO_IRQ_INFO_EVENTFD;
	INTX_IRQ->no_unmask = INTX_IRQ->no_unmask_fd = true;
	start();
	for (int i = 0; i < 3; i++) {
		CHECK(fire(VFIO_PCI_INTX_IRQ_INDEX, 0));
		CHECK(eventfd_drain(p.trigger_fd));
		eventfd_kick(p.resample_fd);
		pb_pump(&p);
	}
	pb_done(&p);
}

static void no_intx(void)
{
	setup();
	INTX_IRQ->count = 0;
	start();
	CHECK_STR(mode(), "none");
	CHECK_EQ(pb_cfg(&p, PCI_INTERRUPT_PIN, 1), 0);
	msi_on(0, 0x40);
	CHECK_STR(mode(), "MSI");
	msi_off();
	CHECK_STR(mode(), "none");
	pb_done(&p);
}

static void intx_refused(void)
{
	setup();
	p.refuse_wire = true;
	start();
	CHECK_STR(mode(), "none");
	CHECK_EQ(INTX_IRQ->enabled, 0);
	CHECK_LOGGED(&p, "INTx: ", 1);
	/* It is tried again when its turn comes. */
	p.refuse_wire = false;
	msi_on(0, 0x40);
	msi_off();
	intx_works();
	pb_done(&p);
}

/* ---- MSI ---- */

static void msi_messages(void)
{
	setup();
	start();
	msi_on(2, 0x40);
	CHECK_STR(mode(), "MSI");
	CHECK_EQ(vectors(), 4);
	CHECK_EQ(MSI_IRQ->enabled, 4);
	CHECK_EQ(INTX_IRQ->enabled, 0);
	for (unsigned int i = 0; i < 4; i++) {
		CHECK(fire(VFIO_PCI_MSI_IRQ_INDEX, i));
		CHECK_EQ(rig_delivered(&p.rig, 0x40 + i), 1);
	}
	/* Data and address change while it runs, nothing is set up anew. */
	pb_cfg_write(&p, MSI + PCI_MSI_DATA_64, 2, 0x80);
	pb_cfg_write(&p, MSI + PCI_MSI_ADDRESS_HI, 4, 1);
	CHECK(fire(VFIO_PCI_MSI_IRQ_INDEX, 3));
	CHECK_EQ(rig_delivered(&p.rig, 0x43), 0);
	CHECK_EQ(rig_delivered(&p.rig, 0x83), 1);
	CHECK_EQ(p.rig.vectors[0].message.address, 0x1fee01000);
	CHECK_EQ(MSI_IRQ->enables, 1);
	/* The device's own registers are the kernel's. */
	CHECK_EQ(get_le16(p.fake->config + MSI + PCI_MSI_DATA_64), 0);
	CHECK_EQ(pb_cfg(&p, MSI + PCI_MSI_FLAGS, 2), WIDE_MASKED | 3 << 1 | PCI_MSI_FLAGS_ENABLE | 2 << 4);
	pb_done(&p);
}

static void msi_masks(void)
{
	setup();
	start();
	pb_cfg_write(&p, MSI + PCI_MSI_MASK_64, 4, 1 << 1);
	msi_on(1, 0x40);
	CHECK(fire(VFIO_PCI_MSI_IRQ_INDEX, 0) && fire(VFIO_PCI_MSI_IRQ_INDEX, 1));
	CHECK_EQ(rig_delivered(&p.rig, 0x40), 1);
	CHECK_EQ(rig_delivered(&p.rig, 0x41), 0);
	/* What came meanwhile comes then. */
	pb_cfg_write(&p, MSI + PCI_MSI_MASK_64, 4, 1 << 0);
	CHECK_EQ(rig_delivered(&p.rig, 0x41), 1);
	CHECK(fire(VFIO_PCI_MSI_IRQ_INDEX, 0));
	CHECK_EQ(rig_delivered(&p.rig, 0x40), 0);
	pb_cfg_write(&p, MSI + PCI_MSI_MASK_64, 1, 0);
	CHECK_EQ(rig_delivered(&p.rig, 0x40), 1);
	CHECK_EQ(MSI_IRQ->enables, 1);
	pb_done(&p);
}

/* 32 bits, no masks: what follows the data is no register of it. */
static void msi_narrow(void)
{
	pb_init(&p);
	fake_pci_msi(p.fake, MSI, 0, 1);
	pb_start(&p);
	pb_cfg_write(&p, MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee02003);
	pb_cfg_write(&p, MSI + PCI_MSI_DATA_32, 2, 0x31);
	pb_cfg_write(&p, MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 1 << 4);
	CHECK_EQ(MSI_IRQ->enabled, 2);
	CHECK_EQ(p.rig.vectors[0].message.address, 0xfee02000);
	CHECK_EQ(p.rig.vectors[0].message.data, 0x30);
	CHECK_EQ(p.rig.vectors[1].message.data, 0x31);
	pb_cfg_write(&p, MSI + PCI_MSI_MASK_32, 4, 0xffffffff);
	CHECK_EQ(get_le32(p.fake->config + MSI + PCI_MSI_MASK_32), 0xffffffff);
	CHECK(fire(VFIO_PCI_MSI_IRQ_INDEX, 1));
	CHECK_EQ(rig_delivered(&p.rig, 0x31), 1);
	pb_done(&p);
}

static void msi_fewer(void)
{
	setup();
	MSI_IRQ->available = 2;
	start();
	msi_on(3, 0x40);
	CHECK_STR(mode(), "MSI");
	CHECK_EQ(MSI_IRQ->enabled, 2);
	CHECK(fire(VFIO_PCI_MSI_IRQ_INDEX, 1));
	CHECK_EQ(rig_delivered(&p.rig, 0x41), 1);
	/* More than the device has is all that it has. */
	msi_off();
	MSI_IRQ->available = 0;
	msi_on(7, 0x40);
	CHECK_STR(mode(), "MSI");
	CHECK_EQ(MSI_IRQ->enabled, 8);
	pb_done(&p);
}

/* ---- MSI-X ---- */

static void msix_lazily(void)
{
	setup();
	start();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	CHECK_STR(mode(), "MSI-X");
	CHECK_EQ(vectors(), 0);
	CHECK_EQ(MSIX_IRQ->enabled, 1);
	CHECK_EQ(MSIX_IRQ->fds[0], -1);
	msix_use(3);
	CHECK_EQ(vectors(), 1);
	CHECK(MSIX_IRQ->fds[3] >= 0 && MSIX_IRQ->fds[2] == -1);
	CHECK(fire(VFIO_PCI_MSIX_IRQ_INDEX, 3));
	CHECK_EQ(rig_delivered(&p.rig, 0x63), 1);
	/* Masked: what fires stays, shows as pending, and comes at the unmask; the device is not told. */
	msix_mask(3, true);
	CHECK(fire(VFIO_PCI_MSIX_IRQ_INDEX, 3));
	CHECK_EQ(rig_delivered(&p.rig, 0x63), 0);
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 0) + PBA), 1 << 3);
	msix_mask(3, false);
	CHECK_EQ(rig_delivered(&p.rig, 0x63), 1);
	/* The same for all of them at once. */
	msix_use(0);
	msix_control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	CHECK(fire(VFIO_PCI_MSIX_IRQ_INDEX, 0));
	CHECK_EQ(rig_delivered(&p.rig, 0x60), 0);
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	CHECK_EQ(rig_delivered(&p.rig, 0x60), 1);
	CHECK_EQ(MSIX_IRQ->enables, 1);
	/* Neither table nor pending bits of the device itself were touched. */
	CHECK_EQ(p.fake->regions[0].reads + p.fake->regions[0].writes, 0);
	msix_control(0);
	intx_works();
	pb_done(&p);
}

/* What fires before its vector is in use comes when it is: whether the device can have it added or not. */
static void msix_early(void)
{
	for (int fixed = 0; fixed < 2; fixed++) {
		setup();
		MSIX_IRQ->flags |= fixed ? VFIO_IRQ_INFO_NORESIZE : 0;
		start();
		msix_control(PCI_MSIX_FLAGS_ENABLE);
		CHECK(!fire(VFIO_PCI_MSIX_IRQ_INDEX, 0) && !fire(VFIO_PCI_MSIX_IRQ_INDEX, 3));
		msix_use(0);
		CHECK_EQ(rig_delivered(&p.rig, 0x60), 1);
		msix_use(3);
		CHECK_EQ(rig_delivered(&p.rig, 0x63), 1);
		CHECK_EQ(rig_delivered(&p.rig, 0x60), fixed);
		pb_done(&p);
	}
}

/* A kernel that cannot add vectors: all go down, come back, and are kicked once for what they may have missed. */
static void msix_noresize(void)
{
	setup();
	MSIX_IRQ->flags |= VFIO_IRQ_INFO_NORESIZE;
	start();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	msix_use(0);
	CHECK_EQ(MSIX_IRQ->enables, 1);
	CHECK_EQ(rig_delivered(&p.rig, 0x60), 0);
	msix_use(2);
	CHECK_EQ(MSIX_IRQ->enables, 2);
	CHECK_EQ(MSIX_IRQ->enabled, 3);
	CHECK_EQ(rig_delivered(&p.rig, 0x60), 1);
	msix_use(1);
	CHECK_EQ(MSIX_IRQ->enables, 2);
	for (unsigned int i = 0; i < 3; i++) {
		rig_delivered(&p.rig, 0x60 + i);
		CHECK(fire(VFIO_PCI_MSIX_IRQ_INDEX, i));
		CHECK_EQ(rig_delivered(&p.rig, 0x60 + i), 1);
	}
	CHECK_EQ(vectors(), 3);
	pb_done(&p);
}

/* Too many vectors: the one that cannot be had is missing, those that run go on. */
static void msix_too_many(void)
{
	for (int fixed = 0; fixed < 2; fixed++) {
		setup();
		MSIX_IRQ->flags |= fixed ? VFIO_IRQ_INFO_NORESIZE : 0;
		MSIX_IRQ->available = 2;
		start();
		msix_control(PCI_MSIX_FLAGS_ENABLE);
		msix_use(0);
		msix_use(1);
		msix_use(2);
		CHECK_EQ(vectors(), 2);
		CHECK_EQ(MSIX_IRQ->enabled, 2);
		CHECK_LOGGED(&p, "MSI-X: ", 1);
		for (unsigned int i = 0; i < 2; i++) {
			rig_delivered(&p.rig, 0x60 + i);
			CHECK(fire(VFIO_PCI_MSIX_IRQ_INDEX, i));
			CHECK_EQ(rig_delivered(&p.rig, 0x60 + i), 1);
		}
		/* When there are more it gets one, at the guest's next touch. */
		MSIX_IRQ->available = 0;
		msix_use(2);
		CHECK(fire(VFIO_PCI_MSIX_IRQ_INDEX, 2));
		CHECK_EQ(rig_delivered(&p.rig, 0x62), 1);
		pb_done(&p);
	}
}

/* ---- between modes ---- */

enum guest_mode { INTX, ONE_MSI, ONE_MSIX, MODES };

static void leave(enum guest_mode from)
{
	if (from == ONE_MSI)
		msi_off();
	else if (from == ONE_MSIX)
		msix_control(0);
}

static void enter(enum guest_mode to)
{
	if (to == ONE_MSI)
		msi_on(0, 0x40);
	if (to == ONE_MSIX) {
		msix_control(PCI_MSIX_FLAGS_ENABLE);
		msix_use(0);
	}
}

static void works(enum guest_mode in)
{
	static const char *const names[] = {"INTx", "MSI", "MSI-X"};

	CHECK_STR(mode(), names[in]);
	for (unsigned int i = 0; i < MODES; i++)
		CHECK_EQ(!!p.fake->irqs[i].enabled, i == in);
	if (in == INTX) {
		CHECK(fire(VFIO_PCI_INTX_IRQ_INDEX, 0) && eventfd_drain(p.trigger_fd));
		eventfd_kick(p.resample_fd);
		CHECK(fake_pci_poll_unmask(p.fake));
	} else {
		CHECK_EQ(p.trigger_fd, -1);
		CHECK(fire(in, 0));
		CHECK_EQ(rig_delivered(&p.rig, in == ONE_MSI ? 0x40 : 0x60), 1);
	}
}

static void every_direction(void)
{
	setup();
	start();
	for (int from = 0; from < MODES; from++)
		for (int to = 0; to < MODES; to++)
			for (int overlap = 0; overlap < 2; overlap++) {
				enter(from);
				works(from);
				/* Politely, or the new one before the old one is off. */
				if (!overlap)
					leave(from);
				enter(to);
				if (overlap && from != to)
					leave(from);
				works(to);
				leave(to);
				works(INTX);
			}
	/* Both on at once: MSI-X has it, and gives it back. */
	enter(ONE_MSI);
	enter(ONE_MSIX);
	works(ONE_MSIX);
	leave(ONE_MSIX);
	works(ONE_MSI);
	pb_done(&p);
}

static void tour(void)
{
	for (int to = 0; to < MODES; to++) {
		enter(to);
		leave(to);
	}
	enter(ONE_MSI);
	enter(ONE_MSIX);
	msix_use(3);
	leave(ONE_MSI);
	leave(ONE_MSIX);
}

/* Each SET_IRQS of a tour through the modes fails once, and the tour after it is a whole one. */
static void every_call_fails(void)
{
	for (int flags = 0; flags <= VFIO_IRQ_INFO_NORESIZE; flags += VFIO_IRQ_INFO_NORESIZE)
		for (int n = 0;; n++) {
			bool failed;

			setup();
			MSIX_IRQ->flags |= (uint32_t)flags;
			p.base.fake->fail_request = VFIO_DEVICE_SET_IRQS;
			p.base.fake->fail_request_errno = -ENOSPC;
			p.base.fake->fail_after = n;
			p.base.fake->fail_times = 1;
			start();
			tour();
			failed = !p.base.fake->fail_times;
			p.base.fake->fail_times = 0;
			tour();
			for (int to = 0; to < MODES; to++) {
				enter(to);
				works(to);
				leave(to);
			}
			pb_done(&p);
			if (!failed) {
				CHECK(n > 12);
				break;
			}
		}
}

/* They all fail: the guest has no interrupt, one line says so, and all is well when they work again. */
static void all_calls_fail(void)
{
	setup();
	p.base.fake->fail_request = VFIO_DEVICE_SET_IRQS;
	p.base.fake->fail_request_errno = -EINVAL;
	p.base.fake->fail_times = 1000;
	start();
	CHECK_STR(mode(), "none");
	tour();
	CHECK_STR(mode(), "none");
	CHECK_LOGGED(&p, "the guest gets no such interrupt", 1);
	p.base.fake->fail_times = 0;
	for (int to = MODES; to--;) {
		enter(to);
		works(to);
		leave(to);
	}
	works(INTX);
	pb_done(&p);
}

/* INTx works, MSI does not: a guest that tries it again and again fills no log. */
static void a_mode_that_fails_is_told_once(void)
{
	setup();
	p.base.fake->fail_request = VFIO_DEVICE_SET_IRQS;
	p.base.fake->fail_request_errno = -ENOSPC;
	start();
	for (int i = 0; i < 10; i++) {
		p.base.fake->fail_after = 1; /* INTx is switched off */
		p.base.fake->fail_times = 1;
		msi_on(0, 0x40);
		CHECK_STR(mode(), "none");
		p.base.fake->fail_times = 0;
		msi_off();
		CHECK_STR(mode(), "INTx");
	}
	CHECK_LOGGED(&p, "the guest gets no such interrupt", 1);
	pb_done(&p);
}

TEST_MAIN(TEST(intx_by_eventfds), TEST(intx_by_calls), TEST(intx_without_masks), TEST(no_intx), TEST(intx_refused),
	  TEST(msi_messages), TEST(msi_masks), TEST(msi_narrow), TEST(msi_fewer), TEST(msix_lazily), TEST(msix_early),
	  TEST(msix_noresize), TEST(msix_too_many), TEST(every_direction), TEST(every_call_fails), TEST(all_calls_fail),
	  TEST(a_mode_that_fails_is_told_once))
