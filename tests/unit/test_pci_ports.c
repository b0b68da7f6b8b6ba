/* SPDX-License-Identifier: Apache-2.0 */
/* devices/pci_ports: what a guest reaches by ports 0xcf8 to 0xcff, and that it is what ECAM shows. */
#include "tests/unit/pci_rig.h"
#include "tests/unit/test.h"

#define PORT 0xcf8u

static struct pci_rig rig;
static struct pci_function function;

static void begin(void)
{
	rig_open(&rig);
	memset(&function, 0, sizeof(function));
	pci_function_init(&function, NULL, "device", 0x1234, 0x5678, 0x020000, 3);
	CHECK_EQ(pci_bus_add(rig.bus, &function, PCI_DEVFN(3, 0), NULL), 0);
	CHECK_EQ(pci_ports_add(rig.bus, rig.pio, PORT, NULL), 0);
}

static void end(void)
{
	pci_bus_remove(&function);
	rig_close(&rig);
}

static void out(uint16_t port, uint32_t value, unsigned int len)
{
	uint8_t data[4];

	put_le32(data, value);
	bus_write(rig.pio, port, data, len);
}

static uint32_t in(uint16_t port, unsigned int len)
{
	uint8_t data[4] = {0};

	bus_read(rig.pio, port, data, len);
	return get_le32(data);
}

static uint32_t address(unsigned int devfn, unsigned int reg)
{
	return 1u << 31 | devfn << 8 | reg;
}

static void reads_what_ecam_reads_in_every_width(void)
{
	begin();
	out(PORT, address(PCI_DEVFN(3, 0), PCI_VENDOR_ID), 4);
	CHECK_EQ(in(PORT + 4, 4), 0x56781234);
	CHECK_EQ(in(PORT + 4, 2), 0x1234);
	CHECK_EQ(in(PORT + 6, 2), 0x5678);
	CHECK_EQ(in(PORT + 5, 1), 0x12);
	CHECK_EQ(in(PORT + 7, 1), 0x56);
	for (unsigned int reg = 0; reg < 256; reg += 4) {
		out(PORT, address(PCI_DEVFN(3, 0), reg), 4);
		CHECK_EQ(in(PORT + 4, 4), rig_cfg(&rig, PCI_DEVFN(3, 0), reg, 4));
	}
	end();
}

static void writes_what_ecam_writes(void)
{
	begin();
	out(PORT, address(PCI_DEVFN(3, 0), PCI_COMMAND), 4);
	out(PORT + 4, PCI_COMMAND_MASTER, 2);
	CHECK_EQ(rig_cfg(&rig, PCI_DEVFN(3, 0), PCI_COMMAND, 2), PCI_COMMAND_MASTER);
	out(PORT, address(PCI_DEVFN(3, 0), PCI_INTERRUPT_LINE), 4);
	out(PORT + 4, 0xa5, 1);
	CHECK_EQ(rig_cfg(&rig, PCI_DEVFN(3, 0), PCI_INTERRUPT_LINE, 1), 0xa5);
	end();
}

/* As Linux's pci_check_type1 does it. */
static void the_address_reads_as_it_was_written(void)
{
	begin();
	out(PORT + 3, 1, 1);
	CHECK_EQ(in(PORT, 4), 0);
	out(PORT, 0x80000000, 4);
	CHECK_EQ(in(PORT, 4), 0x80000000);
	out(PORT, 0xffffffff, 4);
	CHECK_EQ(in(PORT, 4), 0x80fffffc);
	out(PORT, 0, 2);
	CHECK_EQ(in(PORT, 4), 0x80fffffc);
	CHECK_EQ(in(PORT, 2), 0xffff);
	end();
}

static void nobody_answers_while_disabled_or_on_another_bus(void)
{
	begin();
	CHECK_EQ(in(PORT + 4, 4), 0xffffffff);
	out(PORT, PCI_DEVFN(3, 0) << 8, 4);
	CHECK_EQ(in(PORT + 4, 4), 0xffffffff);
	out(PORT + 4, 0, 4);
	out(PORT, 1u << 31 | 1u << 16 | PCI_DEVFN(3, 0) << 8, 4);
	CHECK_EQ(in(PORT + 4, 4), 0xffffffff);
	out(PORT, address(PCI_DEVFN(4, 0), 0), 4);
	CHECK_EQ(in(PORT + 4, 4), 0xffffffff);
	end();
}

/* What reaches beyond the last port is nobody's. */
static void an_access_that_leaves_the_ports_reads_ones(void)
{
	begin();
	out(PORT, address(PCI_DEVFN(3, 0), PCI_VENDOR_ID), 4);
	CHECK_EQ(in(PORT + 6, 4), 0xffffffff);
	CHECK_EQ(in(PORT + 2, 4), 0xffffffff);
	end();
}

static void the_ports_are_taken_once(void)
{
	begin();
	CHECK_EQ(pci_ports_add(rig.bus, rig.pio, PORT, NULL), -EEXIST);
	end();
}

TEST_MAIN(TEST(reads_what_ecam_reads_in_every_width), TEST(writes_what_ecam_writes),
	  TEST(the_address_reads_as_it_was_written), TEST(nobody_answers_while_disabled_or_on_another_bus),
	  TEST(an_access_that_leaves_the_ports_reads_ones), TEST(the_ports_are_taken_once))
