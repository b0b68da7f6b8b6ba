/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vfio/pci_state.c: what this process holds of a passed-through function goes to another host, whose kernel is another
 * fake one. Interrupts that wait are not lost, in any mode; BARs are mapped where the guest had them.
 */
#include "tests/unit/golden_record.h"
#include "tests/unit/state_subject.h"
#include "tests/unit/vfio_pci_bench.h"

#define MSI 0x50u
#define MSIX 0x70u
#define VECTORS 8u
#define TABLE 0x2000u
#define PBA 0x3000u
#define WIDE_MASKED (PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT)
#define IRQ(b, kind) (&(b)->fake->irqs[VFIO_PCI_##kind##_IRQ_INDEX])

/* The source and the target; what a case changes in the next target's device. */
static struct pci_bench p, q;
static void (*differ)(struct pci_bench *b);
static bool q_lives;

/* MSI of 8 vectors, 64 bits and masks, MSI-X of 8, and a BAR that can be mapped but for the table's page. */
static void setup(struct pci_bench *b)
{
	pb_init(b);
	fake_pci_bar(b->fake, 0, 0, KIB(16), FAKE_REGION_RWM);
	fake_pci_bar(b->fake, 2, PCI_BASE_ADDRESS_MEM_TYPE_64, KIB(64), FAKE_REGION_RWM);
	fake_pci_msi(b->fake, MSI, WIDE_MASKED, 3);
	fake_pci_msix(b->fake, MSIX, VECTORS, TABLE, PBA);
	*IRQ(b, ERR) = (struct fake_irq){.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE, .count = 1};
}

static void drop(void *object)
{
	bool lives = q_lives;

	q_lives = false;
	if (lives)
		pb_done(&q);
}

static void *make(void)
{
	drop(&q);
	setup(&q);
	if (differ)
		differ(&q);
	pb_start(&q);
	q_lives = true;
	fake_journal(q.base.fake);
	return &q;
}

static int save(void *object, struct state_buffer *out, struct err *err)
{
	return vfio_pci_save(((struct pci_bench *)object)->pci, out, err);
}

static int load(void *object, const void *data, size_t len, struct err *err)
{
	return vfio_pci_load(((struct pci_bench *)object)->pci, data, len, err);
}

static void use(void *object)
{
	struct pci_bench *b = object;

	vfio_pci_kick(b->pci);
	for (unsigned int at = 0; at < 256; at += 4)
		pb_cfg_write(b, at, 4, pb_cfg(b, at, 4));
	for (unsigned int i = 0; i < VECTORS; i++)
		fake_pci_fire(b->fake, VFIO_PCI_MSIX_IRQ_INDEX, i);
	for (unsigned int i = 0; i < 0x4000; i += 64)
		pb_mmio_write(b, pb_bar(b, 0) + i, pb_mmio(b, pb_bar(b, 0) + i));
}

static const struct state_subject subject = {make, save, load, use, drop};

static void start(void)
{
	differ = NULL;
	setup(&p);
	pb_start(&p);
	pb_cfg_write(&p, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void finish(void)
{
	drop(&q);
	pb_done(&p);
}

static const char *mode(struct pci_bench *b)
{
	struct vfio_pci_info info;

	vfio_pci_get_info(b->pci, &info);
	return info.interrupts;
}

static void msix_mask(struct pci_bench *b, unsigned int vector, bool masked)
{
	pb_mmio_write(b, pb_bar(b, 0) + TABLE + vector * 16 + PCI_MSIX_ENTRY_VECTOR_CTRL, masked);
}

/* Vector n carries the data 0x60 + n. */
static void msix_use(unsigned int vector)
{
	uint64_t entry = pb_bar(&p, 0) + TABLE + vector * 16;

	pb_mmio_write(&p, entry, 0xfee00000);
	pb_mmio_write(&p, entry + 8, 0x60 + vector);
	msix_mask(&p, vector, false);
}

/* 0 and 1 can deliver, 3 is masked and has fired meanwhile, the others have never been used. */
static void msix_busy(void)
{
	pb_cfg_write(&p, MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	msix_use(0);
	msix_use(1);
	msix_use(3);
	msix_mask(&p, 3, true);
	CHECK(fake_pci_fire(p.fake, VFIO_PCI_MSIX_IRQ_INDEX, 3));
}

static void msi_on(uint32_t masked)
{
	pb_cfg_write(&p, MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee01000);
	pb_cfg_write(&p, MSI + PCI_MSI_DATA_64, 2, 0x40);
	pb_cfg_write(&p, MSI + PCI_MSI_MASK_64, 4, masked);
	pb_cfg_write(&p, MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 2 << 4);
}

static void an_idle_function_moves(void)
{
	start();
	subject_comes_back(&subject, &p);
	CHECK_STR(mode(&q), "INTx");
	CHECK(!eventfd_drain(q.trigger_fd));
	vfio_pci_kick(q.pci); /* one that may have been on its way */
	CHECK(eventfd_drain(q.trigger_fd));
	CHECK(fake_pci_fire(q.fake, VFIO_PCI_INTX_IRQ_INDEX, 0));
	CHECK(eventfd_drain(q.trigger_fd));
	pb_cfg_write(&q, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	vfio_pci_kick(q.pci);
	CHECK(!eventfd_drain(q.trigger_fd));
	finish();
}

static void msix_goes_on(void)
{
	start();
	msix_busy();
	subject_comes_back(&subject, &p);
	CHECK_STR(mode(&q), "MSI-X");
	for (unsigned int i = 0; i < VECTORS; i++)
		CHECK_EQ(fake_pci_fire(q.fake, VFIO_PCI_MSIX_IRQ_INDEX, i), i == 0 || i == 1 || i == 3);
	CHECK_EQ(rig_delivered(&q.rig, 0x60), 1);
	CHECK_EQ(rig_delivered(&q.rig, 0x61), 1);
	CHECK_EQ(rig_delivered(&q.rig, 0x63), 0);
	vfio_pci_kick(q.pci); /* those that may have been on their way */
	CHECK_EQ(rig_delivered(&q.rig, 0x60), 1);
	CHECK_EQ(rig_delivered(&q.rig, 0x61), 1);
	finish();
}

static void a_masked_vectors_interrupt_is_not_lost(void)
{
	start();
	msix_busy();
	subject_comes_back(&subject, &p);
	CHECK_EQ(pb_mmio(&q, pb_bar(&q, 0) + PBA), 1 << 3);
	vfio_pci_kick(q.pci);
	CHECK_EQ(rig_delivered(&q.rig, 0x63), 0);
	msix_mask(&q, 3, false);
	CHECK_EQ(rig_delivered(&q.rig, 0x63), 1);
	finish();
}

static void msi_goes_on(void)
{
	start();
	msi_on(1 << 2);
	CHECK(fake_pci_fire(p.fake, VFIO_PCI_MSI_IRQ_INDEX, 2));
	subject_comes_back(&subject, &p);
	CHECK_STR(mode(&q), "MSI");
	CHECK_EQ(IRQ(&q, MSI)->enabled, 4);
	CHECK_EQ(rig_delivered(&q.rig, 0x42), 0);
	vfio_pci_kick(q.pci);
	for (unsigned int i = 0; i < 4; i++)
		CHECK_EQ(rig_delivered(&q.rig, 0x40 + i), i != 2);
	pb_cfg_write(&q, MSI + PCI_MSI_MASK_64, 4, 0);
	CHECK_EQ(rig_delivered(&q.rig, 0x42), 1);
	finish();
}

static void bars_are_mapped_where_the_guest_had_them(void)
{
	uint64_t moved = RIG_MEM64 + GIB(2);

	start();
	pb_cfg_write(&p, PCI_BASE_ADDRESS_2, 4, (uint32_t)moved);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_3, 4, (uint32_t)(moved >> 32));
	pb_cfg_write(&p, PCI_INTERRUPT_LINE, 1, 9);
	subject_comes_back(&subject, &p);
	CHECK_EQ(q.maps, p.maps);
	CHECK_EQ(pb_bar(&q, 2), moved);
	CHECK_EQ(pb_cfg(&q, PCI_INTERRUPT_LINE, 1), 9);
	CHECK(strstr(fake_journal(q.base.fake), "map 280000000, size 10000"));
	finish();
}

/* BARs of a device that does not decode cannot be mapped for others; one that masters the bus too early writes. */
static void the_device_decodes_first_and_masters_last(void)
{
	const char *journal, *decode, *map, *master;

	start();
	subject_comes_back(&subject, &p);
	journal = fake_journal(q.base.fake);
	decode = strstr(journal, "command 3");
	map = strstr(journal, "map");
	master = strstr(journal, "command 6");
	if (!decode || !map || !master)
		printf("# %s\n", journal);
	CHECK(decode && map && master && decode < map && map < master);
	CHECK_EQ(get_le16(q.fake->config + PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	finish();
}

static void is_refused(int code, const char *text)
{
	struct state_buffer buffer = {0};
	struct err err = {""};
	int ret;

	CHECK_EQ(vfio_pci_save(p.pci, &buffer, NULL), 0);
	make();
	ret = vfio_pci_load(q.pci, buffer.data, buffer.len, &err);
	state_buffer_free(&buffer);
	if (!strstr(err.text, text))
		printf("# %s\n", err.text);
	CHECK(strstr(err.text, text));
	CHECK_EQ(ret, code);
	CHECK(!(get_le16(q.fake->config + PCI_COMMAND) & PCI_COMMAND_MASTER));
	drop(&q);
}

static void other_vendor(struct pci_bench *b)
{
	b->fake->config[PCI_VENDOR_ID]++;
}

static void other_bar(struct pci_bench *b)
{
	fake_pci_bar(b->fake, 2, PCI_BASE_ADDRESS_MEM_TYPE_64, KIB(32), FAKE_REGION_RWM);
}

static void few_vectors(struct pci_bench *b)
{
	IRQ(b, MSIX)->available = 2;
}

static void no_msi(struct pci_bench *b)
{
	IRQ(b, MSI)->count = 0;
}

static void another_device_is_refused(void)
{
	start();
	differ = other_vendor;
	is_refused(-EBADMSG, "vfio dut: pci-function: another device");
	differ = other_bar;
	is_refused(-EBADMSG, "BAR 2 had 65536 bytes, and has 32768 here");
	finish();
}

static void interrupts_that_cannot_be_had_are_an_error(void)
{
	start();
	msix_busy();
	differ = few_vectors;
	is_refused(-EIO, "vector 3 cannot be used");
	pb_cfg_write(&p, MSIX + PCI_MSIX_FLAGS, 2, 0);
	msi_on(0);
	differ = no_msi;
	is_refused(-EIO, "the host does not give the interrupts that the guest uses");
	finish();
}

static void a_device_that_has_failed_is_not_saved(void)
{
	struct state_buffer buffer = {0};
	struct err err;

	start();
	CHECK(fake_pci_fire(p.fake, VFIO_PCI_ERR_IRQ_INDEX, 0));
	pb_pump(&p);
	CHECK_EQ(vfio_pci_save(p.pci, &buffer, &err), -EIO);
	CHECK_EQ(buffer.len, 0);
	finish();
}

static void any_record_is_survived(void)
{
	start();
	msix_busy();
	subject_survives(&subject, &p);
	pb_cfg_write(&p, MSIX + PCI_MSIX_FLAGS, 2, 0);
	msi_on(1 << 2);
	CHECK(fake_pci_fire(p.fake, VFIO_PCI_MSI_IRQ_INDEX, 2));
	subject_survives(&subject, &p);
	finish();
}

/* ---- the golden record ---- */

static struct pci_bench *golden_bench;

static void golden_begin(void)
{
	differ = NULL;
	golden_bench = make();
}

static void golden_fill(void)
{
	start();
	msix_busy();
	golden_bench = &p;
}

static int golden_save_bench(struct state_buffer *out, struct err *err)
{
	return save(golden_bench, out, err);
}

static int golden_load_bench(const void *data, size_t len, struct err *err)
{
	return load(golden_bench, data, len, err);
}

static void golden_end(void)
{
	if (golden_bench == &p)
		pb_done(&p);
	drop(&q);
}

static void golden_records_load(void)
{
	golden_check(&(struct golden_subject){"device-vfio", golden_begin, golden_fill, golden_save_bench, golden_load_bench,
					      golden_end});
}

TEST_MAIN(TEST(an_idle_function_moves), TEST(msix_goes_on), TEST(a_masked_vectors_interrupt_is_not_lost),
	  TEST(msi_goes_on), TEST(bars_are_mapped_where_the_guest_had_them),
	  TEST(the_device_decodes_first_and_masters_last), TEST(another_device_is_refused),
	  TEST(interrupts_that_cannot_be_had_are_an_error), TEST(a_device_that_has_failed_is_not_saved),
	  TEST(any_record_is_survived), TEST(golden_records_load))
