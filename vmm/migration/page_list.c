/* SPDX-License-Identifier: Apache-2.0 */
/* See page_list.h. One bitmap for each region; its bits are counted on each query. */
#include "vmm/migration/page_list.h"

#include "core/bitmap.h"

#define PART MIB(64) /* collected at once in the first pass; a multiple of the bits of a long */

struct piece {
	uint64_t gpa, size, pages;
	uint64_t part, seen; /* pages: the first pass is in [part, seen) and has collected up to seen */
	unsigned long *bits; /* in listed */
};

struct page_list {
	struct dirty_set *dirty;
	struct page_set *listed;
	struct piece *pieces;
	size_t count;
	bool begun;     /* what to send was asked for */
	bool through;   /* the first pass is complete */
};

void page_list_destroy(struct page_list *list)
{
	if (!list)
		return;
	page_set_destroy(list->listed);
	free(list->pieces);
	free(list);
}

static int page_list_make_pieces(struct page_list *list)
{
	const struct memory_marks *regions = page_set_regions(list->listed, &list->count);

	list->pieces = calloc(MAX(list->count, 1u), sizeof(*list->pieces));
	for (size_t i = 0; list->pieces && i < list->count; i++)
		list->pieces[i] = (struct piece){
			.gpa = regions[i].gpa, .size = regions[i].size, .pages = regions[i].size / GUEST_PAGE_SIZE,
			.bits = regions[i].bitmap,
		};
	return list->pieces ? 0 : -ENOMEM;
}

int page_list_create(const struct guest_memory *memory, struct dirty_set *dirty, const struct page_set *only,
		     struct page_list **ret, struct err *err)
{
	struct page_list *list = calloc(1, sizeof(*list));
	int code = list ? page_set_create(memory, !only, &list->listed, err) : -ENOMEM;

	code = code ?: page_list_make_pieces(list);
	if (code) {
		page_list_destroy(list);
		return err_sys(err, -ENOMEM, "the list of pages");
	}
	if (only)
		page_set_join(list->listed, only);
	list->begun = list->through = only;
	list->dirty = dirty;
	*ret = list;
	return 0;
}

uint64_t page_list_left(const struct page_list *list)
{
	return page_set_count(list->listed) * GUEST_PAGE_SIZE;
}

/* Collects [first, first + count) of a piece; first is a multiple of the bits of a long. */
static int page_list_collect_part(struct page_list *list, struct piece *piece, uint64_t first, uint64_t count,
				  struct err *err)
{
	int code = dirty_set_collect(list->dirty, piece->gpa + first * GUEST_PAGE_SIZE, count * GUEST_PAGE_SIZE,
				     &piece->bits[first / BITS_PER_LONG], err);

	if (code)
		bitmap_set_range(piece->bits, first, count); /* bits may be lost */
	return code;
}

int page_list_collect(struct page_list *list, struct err *err)
{
	int code = 0;

	if (!list->begun)
		return 0;
	list->through = true;
	for (size_t i = 0; !code && i < list->count; i++)
		code = page_list_collect_part(list, &list->pieces[i], 0, list->pieces[i].pages, err);
	return code;
}

/* In the first pass of a piece: collects and returns its current part; false when the pass is complete. */
static bool page_list_next_part(struct page_list *list, struct piece *piece, struct memory_marks *mark, int *code,
				struct err *err)
{
	*code = 0;
	if (bitmap_is_blank(&piece->bits[piece->part / BITS_PER_LONG], bitmap_longs(piece->seen - piece->part))) {
		piece->part = piece->seen;
		piece->seen += MIN(PART / GUEST_PAGE_SIZE, piece->pages - piece->seen);
		if (piece->part == piece->seen)
			return false;
		*code = page_list_collect_part(list, piece, piece->part, piece->seen - piece->part, err);
	}
	*mark = (struct memory_marks){
		.gpa = piece->gpa + piece->part * GUEST_PAGE_SIZE,
		.size = (piece->seen - piece->part) * GUEST_PAGE_SIZE,
		.bitmap = &piece->bits[piece->part / BITS_PER_LONG],
	};
	return true;
}

int page_list_marks(struct page_list *list, struct memory_marks marks[PAGE_LIST_MAX_MARKS], size_t *count,
		    struct err *err)
{
	int code;

	*count = 0;
	list->begun = true;
	for (size_t i = 0; !list->through && i < list->count; i++) {
		if (!page_list_next_part(list, &list->pieces[i], &marks[0], &code, err))
			continue;
		*count = !code;
		return code;
	}
	list->through = true;
	for (size_t i = 0; i < list->count; i++) {
		struct piece *piece = &list->pieces[i];

		if (!bitmap_is_blank(piece->bits, bitmap_longs(piece->pages)))
			marks[(*count)++] = (struct memory_marks){piece->gpa, piece->size, piece->bits};
	}
	return 0;
}
