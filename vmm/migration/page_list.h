/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages of guest memory that are still to be sent: first all pages, then what the dirty sources report. Used by one
 * thread.
 *
 * In the first pass over memory, each part is collected right before its pages are sent: sources may begin with
 * everything dirty (core/dirty.h), and write-protecting a log is cheapest in parts, right after it was read. After the
 * first pass, a collect reads everything at once. A page is taken off the list right before it is read; a later write
 * to it is reported later.
 */
#pragma once

#include "core/dirty.h"
#include "core/guest_memory.h"
#include "vmm/migration/memory_sender.h"
#include "vmm/migration/page_set.h"

struct page_list;

/*
 * Memory's regions must not change while the list exists. only: the pages that are listed at first (copied), instead of
 * all; there is no first pass then. NULL: all.
 */
int page_list_create(const struct guest_memory *memory, struct dirty_set *dirty, const struct page_set *only,
		     struct page_list **ret, struct err *err);
/* NULL is fine. */
void page_list_destroy(struct page_list *list);

/* Listed bytes. */
uint64_t page_list_left(const struct page_list *list);

/*
 * Adds what was written since the last call. Does nothing before the first page was sent, because all pages are listed
 * anyway. After a failure no dirty page is lost: the pages concerned are listed.
 */
int page_list_collect(struct page_list *list, struct err *err);

/*
 * What to send next: in the first pass the current part, then all regions. *count marks, 0 if nothing is listed. The
 * sender clears the bits and calls this again.
 */
#define PAGE_LIST_MAX_MARKS 64u /* guest memory has at most that many regions */
int page_list_marks(struct page_list *list, struct memory_marks marks[PAGE_LIST_MAX_MARKS], size_t *count, struct err *err);
