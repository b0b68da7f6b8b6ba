/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest memory are still to be sent: at first all of them, then what the dirty sources report. One thread.
 *
 * In the first pass over memory each part is collected right before its pages are sent, for sources may begin with everything
 * dirty (core/dirty.h) and a log that was just read is cheapest to write-protect in parts. After that a collect reads all at
 * once. A page is taken off the list right before it is read: what is written to it later is reported later.
 */
#pragma once

#include "core/dirty.h"
#include "core/guest_memory.h"
#include "vmm/migration/memory_sender.h"

struct page_list;

/* Memory keeps its regions as long as the list lives. */
int page_list_create(const struct guest_memory *memory, struct dirty_set *dirty, struct page_list **ret, struct err *err);
/* NULL is fine. */
void page_list_destroy(struct page_list *list);

/* Bytes on the list. */
uint64_t page_list_left(const struct page_list *list);

/*
 * Adds what was written since; without effect before the first page was sent, when all are on the list anyway.
 * What fails has not lost a bit: the pages concerned are on the list.
 */
int page_list_collect(struct page_list *list, struct err *err);

/*
 * What is to be sent next: in the first pass the part that was reached, else all regions; *count marks, none when the list is
 * empty. Who sends clears the bits, and comes back here.
 */
#define PAGE_LIST_MAX_MARKS 64u /* as many as guest memory has regions */
int page_list_marks(struct page_list *list, struct memory_marks marks[PAGE_LIST_MAX_MARKS], size_t *count, struct err *err);
