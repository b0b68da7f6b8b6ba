/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DSDT of the x86 machine (ACPI 6.4 chapters 5, 6 and 19; PCI firmware specification 3.3): the PCIe host bridge,
 * the serial port, clock and panic notifier, the generation ID, vmclock, and the generic event device for PCI hot plug
 * and for what changes in a restored machine. All machines have the same bytes; the differences are in the record that
 * acpi_x86.c writes.
 *
 * The numbers are those of layout_x86.h and devices/platform.h; tests/unit/test_boot_acpi.c compares them.
 */
#define ECAM            0xE0000000
#define ECAM_SIZE       0x00100000
#define MEM32           0xC0000000
#define MEM32_LAST      0xDFFFFFFF
#define MEM32_SIZE      0x20000000
#define PCI_IO          0x1000
#define PCI_IO_LAST     0xFFFF
#define PCI_IO_SIZE     0xF000
#define PCI_PORTS       0xCF8
#define COM1_PORT       0x3F8
#define COM1_GSI        4
#define KEYBOARD_PORT   0x60
#define KEYBOARD_COMMAND 0x64
#define KEYBOARD_GSI    1
#define RTC_PORT        0x70
#define RTC_GSI         8
#define PVPANIC_PORT    0x505
#define POWER_PORT      0x600
#define POWER_SIZE      32
#define POWER_EVENTS    16
#define GED_GSI         9
#define VMCLOCK         0x000FE000
#define VMCLOCK_SIZE    0x00001000
#define VMGENID         0x000FF000
#define RECORD          0x000FFF00
#define RECORD_SIZE     28

DefinitionBlock ("", "DSDT", 2, "MVMM", "MVMMDSDT", 1)
{
	/* struct acpi_record of acpi_x86.c */
	OperationRegion (CONF, SystemMemory, RECORD, RECORD_SIZE)
	Field (CONF, AnyAcc, NoLock, Preserve)
	{
		M64B, 64, /* the PCI window above RAM: its start */
		M64S, 64, /* and its size, 0 for none */
		COMP, 32, /* 1: the machine has the serial port */
		HOTP, 32, /* bit d: hot plug of device d of the PCI bus */
		KEYB, 32  /* 1: the keyboard controller is to be looked for */
	}

	/* The power device from POWER_GED_EVENTS on; reading EVTS, UP or DOWN clears it */
	OperationRegion (POWR, SystemIO, POWER_PORT, POWER_EVENTS)
	Field (POWR, DWordAcc, NoLock, WriteAsZeros)
	{
		Offset (4),
		EVTS, 32,
		UP, 32,
		DOWN, 32
	}

	Name (_S5, Package () { 5, 0, 0, 0 })

	Scope (_SB)
	{
		/* Linux uses the ECAM only if a motherboard resource reserves it */
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, ECAM, ECAM_SIZE)
				IO (Decode16, POWER_PORT, POWER_PORT, 1, POWER_SIZE)
				IO (Decode16, PCI_PORTS, PCI_PORTS, 1, 8)
			})
		}

		Device (COM1)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 1)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, COM1_PORT, COM1_PORT, 1, 8)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { COM1_GSI }
			})
			Method (_STA)
			{
				If (COMP) { Return (0x0F) }
				Return (0)
			}
		}

		If (KEYB)
		{
			Device (KBC)
			{
				Name (_HID, EisaId ("PNP0303"))
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, KEYBOARD_PORT, KEYBOARD_PORT, 1, 1)
					IO (Decode16, KEYBOARD_COMMAND, KEYBOARD_COMMAND, 1, 1)
					Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { KEYBOARD_GSI }
				})
			}
		}

		Device (RTC)
		{
			Name (_HID, EisaId ("PNP0B00"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, RTC_PORT, RTC_PORT, 1, 2)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { RTC_GSI }
			})
		}

		Device (PEVT)
		{
			Name (_HID, "QEMU0001")
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, PVPANIC_PORT, PVPANIC_PORT, 1, 1)
			})
		}

		/* Virtual Machine Generation ID, Microsoft 2012 */
		Device (VGEN)
		{
			Name (_HID, "MVMM0001")
			Name (_CID, "VM_Gen_Counter")
			Name (_DDN, "VM_Gen_Counter")
			Name (ADDR, Package () { VMGENID, 0 })
		}

		/* Linux: include/uapi/linux/vmclock-abi.h */
		Device (VCLK)
		{
			Name (_HID, "AMZNC10C")
			Name (_CID, "VMCLOCK")
			Name (_DDN, "VMCLOCK")
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadOnly, VMCLOCK, VMCLOCK_SIZE)
			})
		}

		/* The line stays high until EVTS is read */
		Device (GED)
		{
			Name (_HID, "ACPI0013")
			Name (_CRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { GED_GSI }
			})
			Method (_EVT, 1, Serialized)
			{
				Local0 = EVTS
				If (Local0 & 2)
				{
					^^PCI0.TELL (UP, 1)   /* device check */
					^^PCI0.TELL (DOWN, 3) /* eject request */
				}
				If (Local0 & 4) { Notify (^^VGEN, 0x80) }
				If (Local0 & 8) { Notify (^^VCLK, 0x80) }
			}
		}
	}

	Device (_SB.PCI0)
	{
		Name (_HID, EisaId ("PNP0A08"))
		Name (_CID, EisaId ("PNP0A03"))
		Name (_UID, 0)
		Name (_SEG, 0)
		Name (_BBN, 0)

		Name (LOWR, ResourceTemplate ()
		{
			WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0, 0, 1)
			WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
				0, PCI_IO, PCI_IO_LAST, 0, PCI_IO_SIZE)
			DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
				0, MEM32, MEM32_LAST, 0, MEM32_SIZE)
		})
		Name (HIGR, ResourceTemplate ()
		{
			QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
				0, 0, 0, 0, 1, , , M64)
		})
		CreateQWordField (HIGR, M64._MIN, HMIN)
		CreateQWordField (HIGR, M64._MAX, HMAX)
		CreateQWordField (HIGR, M64._LEN, HLEN)
		Method (_CRS, 0, Serialized)
		{
			If (!M64S) { Return (LOWR) }
			HMIN = M64B
			HMAX = M64B + M64S - 1
			HLEN = M64S
			Return (ConcatenateResTemplate (LOWR, HIGR))
		}

		/* The guest controls the PCIe capabilities; there is no native hot plug, PME or AER */
		Method (_OSC, 4, Serialized)
		{
			CreateDWordField (Arg3, 0, CDW1)
			CreateDWordField (Arg3, 8, CDW3)
			If (Arg0 != ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
			{
				CDW1 |= 0x04
				Return (Arg3)
			}
			If (Arg1 != 1) { CDW1 |= 0x08 }
			If (CDW3 & ~0x10) { CDW1 |= 0x10 }
			CDW3 &= 0x10
			Return (Arg3)
		}

		/* Device d, pin p: GSI 16 + (d + p) % 4. Linux assumes active low for these GSIs; KVM ignores it. */
		Name (_PRT, Package ()
		{
			Package () { 0x0000FFFF, 0, 0, 16 }, Package () { 0x0000FFFF, 1, 0, 17 },
			Package () { 0x0000FFFF, 2, 0, 18 }, Package () { 0x0000FFFF, 3, 0, 19 },
			Package () { 0x0001FFFF, 0, 0, 17 }, Package () { 0x0001FFFF, 1, 0, 18 },
			Package () { 0x0001FFFF, 2, 0, 19 }, Package () { 0x0001FFFF, 3, 0, 16 },
			Package () { 0x0002FFFF, 0, 0, 18 }, Package () { 0x0002FFFF, 1, 0, 19 },
			Package () { 0x0002FFFF, 2, 0, 16 }, Package () { 0x0002FFFF, 3, 0, 17 },
			Package () { 0x0003FFFF, 0, 0, 19 }, Package () { 0x0003FFFF, 1, 0, 16 },
			Package () { 0x0003FFFF, 2, 0, 17 }, Package () { 0x0003FFFF, 3, 0, 18 },
			Package () { 0x0004FFFF, 0, 0, 16 }, Package () { 0x0004FFFF, 1, 0, 17 },
			Package () { 0x0004FFFF, 2, 0, 18 }, Package () { 0x0004FFFF, 3, 0, 19 },
			Package () { 0x0005FFFF, 0, 0, 17 }, Package () { 0x0005FFFF, 1, 0, 18 },
			Package () { 0x0005FFFF, 2, 0, 19 }, Package () { 0x0005FFFF, 3, 0, 16 },
			Package () { 0x0006FFFF, 0, 0, 18 }, Package () { 0x0006FFFF, 1, 0, 19 },
			Package () { 0x0006FFFF, 2, 0, 16 }, Package () { 0x0006FFFF, 3, 0, 17 },
			Package () { 0x0007FFFF, 0, 0, 19 }, Package () { 0x0007FFFF, 1, 0, 16 },
			Package () { 0x0007FFFF, 2, 0, 17 }, Package () { 0x0007FFFF, 3, 0, 18 },
			Package () { 0x0008FFFF, 0, 0, 16 }, Package () { 0x0008FFFF, 1, 0, 17 },
			Package () { 0x0008FFFF, 2, 0, 18 }, Package () { 0x0008FFFF, 3, 0, 19 },
			Package () { 0x0009FFFF, 0, 0, 17 }, Package () { 0x0009FFFF, 1, 0, 18 },
			Package () { 0x0009FFFF, 2, 0, 19 }, Package () { 0x0009FFFF, 3, 0, 16 },
			Package () { 0x000AFFFF, 0, 0, 18 }, Package () { 0x000AFFFF, 1, 0, 19 },
			Package () { 0x000AFFFF, 2, 0, 16 }, Package () { 0x000AFFFF, 3, 0, 17 },
			Package () { 0x000BFFFF, 0, 0, 19 }, Package () { 0x000BFFFF, 1, 0, 16 },
			Package () { 0x000BFFFF, 2, 0, 17 }, Package () { 0x000BFFFF, 3, 0, 18 },
			Package () { 0x000CFFFF, 0, 0, 16 }, Package () { 0x000CFFFF, 1, 0, 17 },
			Package () { 0x000CFFFF, 2, 0, 18 }, Package () { 0x000CFFFF, 3, 0, 19 },
			Package () { 0x000DFFFF, 0, 0, 17 }, Package () { 0x000DFFFF, 1, 0, 18 },
			Package () { 0x000DFFFF, 2, 0, 19 }, Package () { 0x000DFFFF, 3, 0, 16 },
			Package () { 0x000EFFFF, 0, 0, 18 }, Package () { 0x000EFFFF, 1, 0, 19 },
			Package () { 0x000EFFFF, 2, 0, 16 }, Package () { 0x000EFFFF, 3, 0, 17 },
			Package () { 0x000FFFFF, 0, 0, 19 }, Package () { 0x000FFFFF, 1, 0, 16 },
			Package () { 0x000FFFFF, 2, 0, 17 }, Package () { 0x000FFFFF, 3, 0, 18 },
			Package () { 0x0010FFFF, 0, 0, 16 }, Package () { 0x0010FFFF, 1, 0, 17 },
			Package () { 0x0010FFFF, 2, 0, 18 }, Package () { 0x0010FFFF, 3, 0, 19 },
			Package () { 0x0011FFFF, 0, 0, 17 }, Package () { 0x0011FFFF, 1, 0, 18 },
			Package () { 0x0011FFFF, 2, 0, 19 }, Package () { 0x0011FFFF, 3, 0, 16 },
			Package () { 0x0012FFFF, 0, 0, 18 }, Package () { 0x0012FFFF, 1, 0, 19 },
			Package () { 0x0012FFFF, 2, 0, 16 }, Package () { 0x0012FFFF, 3, 0, 17 },
			Package () { 0x0013FFFF, 0, 0, 19 }, Package () { 0x0013FFFF, 1, 0, 16 },
			Package () { 0x0013FFFF, 2, 0, 17 }, Package () { 0x0013FFFF, 3, 0, 18 },
			Package () { 0x0014FFFF, 0, 0, 16 }, Package () { 0x0014FFFF, 1, 0, 17 },
			Package () { 0x0014FFFF, 2, 0, 18 }, Package () { 0x0014FFFF, 3, 0, 19 },
			Package () { 0x0015FFFF, 0, 0, 17 }, Package () { 0x0015FFFF, 1, 0, 18 },
			Package () { 0x0015FFFF, 2, 0, 19 }, Package () { 0x0015FFFF, 3, 0, 16 },
			Package () { 0x0016FFFF, 0, 0, 18 }, Package () { 0x0016FFFF, 1, 0, 19 },
			Package () { 0x0016FFFF, 2, 0, 16 }, Package () { 0x0016FFFF, 3, 0, 17 },
			Package () { 0x0017FFFF, 0, 0, 19 }, Package () { 0x0017FFFF, 1, 0, 16 },
			Package () { 0x0017FFFF, 2, 0, 17 }, Package () { 0x0017FFFF, 3, 0, 18 },
			Package () { 0x0018FFFF, 0, 0, 16 }, Package () { 0x0018FFFF, 1, 0, 17 },
			Package () { 0x0018FFFF, 2, 0, 18 }, Package () { 0x0018FFFF, 3, 0, 19 },
			Package () { 0x0019FFFF, 0, 0, 17 }, Package () { 0x0019FFFF, 1, 0, 18 },
			Package () { 0x0019FFFF, 2, 0, 19 }, Package () { 0x0019FFFF, 3, 0, 16 },
			Package () { 0x001AFFFF, 0, 0, 18 }, Package () { 0x001AFFFF, 1, 0, 19 },
			Package () { 0x001AFFFF, 2, 0, 16 }, Package () { 0x001AFFFF, 3, 0, 17 },
			Package () { 0x001BFFFF, 0, 0, 19 }, Package () { 0x001BFFFF, 1, 0, 16 },
			Package () { 0x001BFFFF, 2, 0, 17 }, Package () { 0x001BFFFF, 3, 0, 18 },
			Package () { 0x001CFFFF, 0, 0, 16 }, Package () { 0x001CFFFF, 1, 0, 17 },
			Package () { 0x001CFFFF, 2, 0, 18 }, Package () { 0x001CFFFF, 3, 0, 19 },
			Package () { 0x001DFFFF, 0, 0, 17 }, Package () { 0x001DFFFF, 1, 0, 18 },
			Package () { 0x001DFFFF, 2, 0, 19 }, Package () { 0x001DFFFF, 3, 0, 16 },
			Package () { 0x001EFFFF, 0, 0, 18 }, Package () { 0x001EFFFF, 1, 0, 19 },
			Package () { 0x001EFFFF, 2, 0, 16 }, Package () { 0x001EFFFF, 3, 0, 17 },
			Package () { 0x001FFFFF, 0, 0, 19 }, Package () { 0x001FFFFF, 1, 0, 16 },
			Package () { 0x001FFFFF, 2, 0, 17 }, Package () { 0x001FFFFF, 3, 0, 18 }
		})

		/* The devices with hot plug; bit d of UP and DOWN is device d */
		If (HOTP & 0x00000002)
		{ Device (S01) { Name (_ADR, 0x00010000) Name (_SUN, 1) Method (_EJ0, 1) { DOWN = 0x00000002 } } }
		If (HOTP & 0x00000004)
		{ Device (S02) { Name (_ADR, 0x00020000) Name (_SUN, 2) Method (_EJ0, 1) { DOWN = 0x00000004 } } }
		If (HOTP & 0x00000008)
		{ Device (S03) { Name (_ADR, 0x00030000) Name (_SUN, 3) Method (_EJ0, 1) { DOWN = 0x00000008 } } }
		If (HOTP & 0x00000010)
		{ Device (S04) { Name (_ADR, 0x00040000) Name (_SUN, 4) Method (_EJ0, 1) { DOWN = 0x00000010 } } }
		If (HOTP & 0x00000020)
		{ Device (S05) { Name (_ADR, 0x00050000) Name (_SUN, 5) Method (_EJ0, 1) { DOWN = 0x00000020 } } }
		If (HOTP & 0x00000040)
		{ Device (S06) { Name (_ADR, 0x00060000) Name (_SUN, 6) Method (_EJ0, 1) { DOWN = 0x00000040 } } }
		If (HOTP & 0x00000080)
		{ Device (S07) { Name (_ADR, 0x00070000) Name (_SUN, 7) Method (_EJ0, 1) { DOWN = 0x00000080 } } }
		If (HOTP & 0x00000100)
		{ Device (S08) { Name (_ADR, 0x00080000) Name (_SUN, 8) Method (_EJ0, 1) { DOWN = 0x00000100 } } }
		If (HOTP & 0x00000200)
		{ Device (S09) { Name (_ADR, 0x00090000) Name (_SUN, 9) Method (_EJ0, 1) { DOWN = 0x00000200 } } }
		If (HOTP & 0x00000400)
		{ Device (S0A) { Name (_ADR, 0x000A0000) Name (_SUN, 10) Method (_EJ0, 1) { DOWN = 0x00000400 } } }
		If (HOTP & 0x00000800)
		{ Device (S0B) { Name (_ADR, 0x000B0000) Name (_SUN, 11) Method (_EJ0, 1) { DOWN = 0x00000800 } } }
		If (HOTP & 0x00001000)
		{ Device (S0C) { Name (_ADR, 0x000C0000) Name (_SUN, 12) Method (_EJ0, 1) { DOWN = 0x00001000 } } }
		If (HOTP & 0x00002000)
		{ Device (S0D) { Name (_ADR, 0x000D0000) Name (_SUN, 13) Method (_EJ0, 1) { DOWN = 0x00002000 } } }
		If (HOTP & 0x00004000)
		{ Device (S0E) { Name (_ADR, 0x000E0000) Name (_SUN, 14) Method (_EJ0, 1) { DOWN = 0x00004000 } } }
		If (HOTP & 0x00008000)
		{ Device (S0F) { Name (_ADR, 0x000F0000) Name (_SUN, 15) Method (_EJ0, 1) { DOWN = 0x00008000 } } }
		If (HOTP & 0x00010000)
		{ Device (S10) { Name (_ADR, 0x00100000) Name (_SUN, 16) Method (_EJ0, 1) { DOWN = 0x00010000 } } }
		If (HOTP & 0x00020000)
		{ Device (S11) { Name (_ADR, 0x00110000) Name (_SUN, 17) Method (_EJ0, 1) { DOWN = 0x00020000 } } }
		If (HOTP & 0x00040000)
		{ Device (S12) { Name (_ADR, 0x00120000) Name (_SUN, 18) Method (_EJ0, 1) { DOWN = 0x00040000 } } }
		If (HOTP & 0x00080000)
		{ Device (S13) { Name (_ADR, 0x00130000) Name (_SUN, 19) Method (_EJ0, 1) { DOWN = 0x00080000 } } }
		If (HOTP & 0x00100000)
		{ Device (S14) { Name (_ADR, 0x00140000) Name (_SUN, 20) Method (_EJ0, 1) { DOWN = 0x00100000 } } }
		If (HOTP & 0x00200000)
		{ Device (S15) { Name (_ADR, 0x00150000) Name (_SUN, 21) Method (_EJ0, 1) { DOWN = 0x00200000 } } }
		If (HOTP & 0x00400000)
		{ Device (S16) { Name (_ADR, 0x00160000) Name (_SUN, 22) Method (_EJ0, 1) { DOWN = 0x00400000 } } }
		If (HOTP & 0x00800000)
		{ Device (S17) { Name (_ADR, 0x00170000) Name (_SUN, 23) Method (_EJ0, 1) { DOWN = 0x00800000 } } }
		If (HOTP & 0x01000000)
		{ Device (S18) { Name (_ADR, 0x00180000) Name (_SUN, 24) Method (_EJ0, 1) { DOWN = 0x01000000 } } }
		If (HOTP & 0x02000000)
		{ Device (S19) { Name (_ADR, 0x00190000) Name (_SUN, 25) Method (_EJ0, 1) { DOWN = 0x02000000 } } }
		If (HOTP & 0x04000000)
		{ Device (S1A) { Name (_ADR, 0x001A0000) Name (_SUN, 26) Method (_EJ0, 1) { DOWN = 0x04000000 } } }
		If (HOTP & 0x08000000)
		{ Device (S1B) { Name (_ADR, 0x001B0000) Name (_SUN, 27) Method (_EJ0, 1) { DOWN = 0x08000000 } } }
		If (HOTP & 0x10000000)
		{ Device (S1C) { Name (_ADR, 0x001C0000) Name (_SUN, 28) Method (_EJ0, 1) { DOWN = 0x10000000 } } }
		If (HOTP & 0x20000000)
		{ Device (S1D) { Name (_ADR, 0x001D0000) Name (_SUN, 29) Method (_EJ0, 1) { DOWN = 0x20000000 } } }
		If (HOTP & 0x40000000)
		{ Device (S1E) { Name (_ADR, 0x001E0000) Name (_SUN, 30) Method (_EJ0, 1) { DOWN = 0x40000000 } } }
		If (HOTP & 0x80000000)
		{ Device (S1F) { Name (_ADR, 0x001F0000) Name (_SUN, 31) Method (_EJ0, 1) { DOWN = 0x80000000 } } }

		/* Notify the devices in mask Arg0 of event Arg1 */
		Method (TELL, 2)
		{
			If (Arg0 & 0x00000002) { Notify (S01, Arg1) }
			If (Arg0 & 0x00000004) { Notify (S02, Arg1) }
			If (Arg0 & 0x00000008) { Notify (S03, Arg1) }
			If (Arg0 & 0x00000010) { Notify (S04, Arg1) }
			If (Arg0 & 0x00000020) { Notify (S05, Arg1) }
			If (Arg0 & 0x00000040) { Notify (S06, Arg1) }
			If (Arg0 & 0x00000080) { Notify (S07, Arg1) }
			If (Arg0 & 0x00000100) { Notify (S08, Arg1) }
			If (Arg0 & 0x00000200) { Notify (S09, Arg1) }
			If (Arg0 & 0x00000400) { Notify (S0A, Arg1) }
			If (Arg0 & 0x00000800) { Notify (S0B, Arg1) }
			If (Arg0 & 0x00001000) { Notify (S0C, Arg1) }
			If (Arg0 & 0x00002000) { Notify (S0D, Arg1) }
			If (Arg0 & 0x00004000) { Notify (S0E, Arg1) }
			If (Arg0 & 0x00008000) { Notify (S0F, Arg1) }
			If (Arg0 & 0x00010000) { Notify (S10, Arg1) }
			If (Arg0 & 0x00020000) { Notify (S11, Arg1) }
			If (Arg0 & 0x00040000) { Notify (S12, Arg1) }
			If (Arg0 & 0x00080000) { Notify (S13, Arg1) }
			If (Arg0 & 0x00100000) { Notify (S14, Arg1) }
			If (Arg0 & 0x00200000) { Notify (S15, Arg1) }
			If (Arg0 & 0x00400000) { Notify (S16, Arg1) }
			If (Arg0 & 0x00800000) { Notify (S17, Arg1) }
			If (Arg0 & 0x01000000) { Notify (S18, Arg1) }
			If (Arg0 & 0x02000000) { Notify (S19, Arg1) }
			If (Arg0 & 0x04000000) { Notify (S1A, Arg1) }
			If (Arg0 & 0x08000000) { Notify (S1B, Arg1) }
			If (Arg0 & 0x10000000) { Notify (S1C, Arg1) }
			If (Arg0 & 0x20000000) { Notify (S1D, Arg1) }
			If (Arg0 & 0x40000000) { Notify (S1E, Arg1) }
			If (Arg0 & 0x80000000) { Notify (S1F, Arg1) }
		}
	}
}
