/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a tiny guest begins: the PVH entry (32-bit protected mode, start info in ebx), from there to long mode on page
 * tables of its own that map the first 4 GiB, then guest_main(). When that returns, the machine is switched off.
 * ap_start is where other vCPUs begin (real mode, page 8), down the same road to ap_main().
 */
	.section .note.pvh, "a", @note
	.align 4
	.long 4, 4, 18		/* name size, value size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long pvh_start

	.section .text
	.code32
	.globl pvh_start
pvh_start:
	cld
	movl	$stack_top, %esp
	movl	%ebx, %edi		/* start info, kept through to guest_main's first argument */
	/* One PDPT of four 1 GiB steps, each a page directory of 2 MiB pages. */
	movl	$pd, %eax
	orl	$3, %eax
	movl	$pdpt, %edx
	movl	$4, %ecx
1:	movl	%eax, (%edx)
	addl	$4096, %eax
	addl	$8, %edx
	loop	1b
	movl	$pd, %edx
	movl	$0x83, %eax
	movl	$2048, %ecx
2:	movl	%eax, (%edx)
	addl	$0x200000, %eax
	addl	$8, %edx
	loop	2b
	movl	$pdpt, %eax
	orl	$3, %eax
	movl	%eax, pml4
	movl	$long_start, %esi
go_long:
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000001, %eax
	movl	%eax, %cr0
	lgdt	gdt_pointer
	pushl	$8
	pushl	%esi
	lret

	.code64
long_start:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movq	$stack_top, %rsp
	movl	%edi, %edi
	call	guest_main
	movw	$0x600, %dx		/* sleep control: S5 */
	movb	$0x34, %al
	outb	%al, %dx
3:	hlt
	jmp	3b

ap_long:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$1, %eax		/* a stack for each of 16 */
	lock xaddl %eax, ap_count
	andl	$15, %eax
	shll	$12, %eax
	leaq	ap_stack_top(%rax), %rsp
	call	ap_main
4:	cli
	hlt
	jmp	4b

	/* Copied to 0x8000, page 8. */
	.code16
	.globl ap_start, ap_end
ap_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	0x8000 + (ap_gdt_pointer - ap_start)
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$24, $ap_protected
ap_gdt_pointer:
	.word	4 * 8 - 1
	.long	gdt
ap_end:

	.code32
ap_protected:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movl	$ap_stack_top, %esp
	movl	$ap_long, %esi
	jmp	go_long

	.section .data
	.align 8
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* 64-bit code */
	.quad	0x00cf93000000ffff	/* data */
	.quad	0x00cf9b000000ffff	/* 32-bit code */
gdt_pointer:
	.word	4 * 8 - 1
	.long	gdt

	.align 4
ap_count:
	.long	0

	.section .bss
	.align 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4 * 4096
	.skip 8192
stack_top:
	.skip 4096
ap_stack_top:
	.skip	15 * 4096
	.section .note.GNU-stack, "", @progbits
