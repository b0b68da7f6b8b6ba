/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that another process brings in, page by page, when it is touched: restore with --memory-mode uffd=SOCKET. The
 * handler listens on SOCKET and gets one message, as Firecracker's handlers do: a JSON array of regions,
 *
 *	[{"base_host_virt_addr":N,"size":N,"offset":N,"page_size":N,"page_size_kib":N}]
 *
 * all in bytes (page_size_kib, too), offset in the snapshot's memory file, together with a userfaultfd (SCM_RIGHTS). It
 * serves the page faults, and UFFD_EVENT_REMOVE, after which a page is zero (the balloon gave it back). It keeps the
 * connection open as long as it serves.
 *
 * The machine has a reference of its own to the userfaultfd, without which the kernel would fill missing pages with
 * zeros. When the handler closes the connection or dies, or has brought no page for 10 s while one is waited for, the
 * memory is replaced by one that cannot be read. So no vCPU runs any more, and the machine ends through its guard.
 */
#pragma once

#include "vmm/snapshot/memory_guard.h"

struct memory_uffd;

struct memory_uffd_options {
	const char *socket;   /* copied */
	uint64_t page_size;   /* of the host's pages that the memory has; 0: 4 KiB */
	unsigned int silence; /* ms without a page; 0: 10 s */
};

/*
 * Opens a userfaultfd and connects to the handler. -EPERM: no right to a userfaultfd for faults in the kernel, which KVM
 * needs; err says what gives it.
 */
int memory_uffd_create(const struct memory_uffd_options *options, struct memory_uffd **ret, struct err *err);

/* The fill of a struct ram_source with on_touch, whose opaque is the memory_uffd: sends the message. */
int memory_uffd_fill(void *opaque, void *host, uint64_t size, struct err *err);

/* After fill: starts the thread that watches the handler, before anybody touches the memory. guard has started. */
int memory_uffd_watch(struct memory_uffd *uffd, struct memory_guard *guard, struct err *err);
/* The thread ends, and one that is started now, and has what rights there are now, goes on. */
int memory_uffd_renew(struct memory_uffd *uffd, struct err *err);
/* Stops it, when nobody touches the memory any more and before it is unmapped. NULL is fine. */
void memory_uffd_unwatch(struct memory_uffd *uffd);

/* After the memory is unmapped. NULL is fine. */
void memory_uffd_destroy(struct memory_uffd *uffd);

/* Whether this process can have a userfaultfd; err says what is missing. For doctor. */
int memory_uffd_check(struct err *err);
