/* SPDX-License-Identifier: Apache-2.0 */
/* See dirty.h. */
#include "core/dirty.h"

#include "core/bitmap.h"

int dirty_set_add(struct dirty_set *set, struct dirty_source *source, struct err *err)
{
	if (set->users) {
		int ret = source->ops->start(source, err);

		if (ret < 0)
			return err_prefix(err, ret, "%s", source->name);
	}
	source->next = set->first;
	set->first = source;
	return 0;
}

void dirty_set_remove(struct dirty_set *set, struct dirty_source *source)
{
	struct dirty_source **link = &set->first;

	while (*link && *link != source)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = source->next;
	if (set->users)
		source->ops->stop(source);
}

int dirty_set_start(struct dirty_set *set, struct err *err)
{
	struct dirty_source *source, *undo;

	if (set->users) {
		set->users++;
		return 0;
	}
	for (source = set->first; source; source = source->next) {
		int ret = source->ops->start(source, err);

		if (ret < 0) {
			for (undo = set->first; undo != source; undo = undo->next)
				undo->ops->stop(undo);
			return err_prefix(err, ret, "%s", source->name);
		}
	}
	set->users = 1;
	return 0;
}

void dirty_set_stop(struct dirty_set *set)
{
	struct dirty_source *source;

	if (!set->users || --set->users)
		return;
	for (source = set->first; source; source = source->next)
		source->ops->stop(source);
}

static int dirty_set_ask(struct dirty_set *set, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err)
{
	struct dirty_source *source;

	for (source = set->first; source; source = source->next) {
		int ret = source->ops->collect(source, gpa, size, bitmap, err);

		if (ret < 0)
			return err_prefix(err, ret, "%s", source->name);
	}
	return 0;
}

/* bitmap may have bits that the observer has seen before, and must not see again. */
static int dirty_set_ask_apart(struct dirty_set *set, uint64_t gpa, uint64_t size, unsigned long *bitmap,
			       struct err *err)
{
	size_t longs = bitmap_longs(size / 4096);
	_cleanup_(free_ptr) unsigned long *found = calloc(longs, sizeof(*found));
	int ret = found ? dirty_set_ask(set, gpa, size, found, err) : err_sys(err, -ENOMEM, "written pages");

	set->observer->saw(set->observer, gpa, size, ret ? NULL : found);
	for (size_t i = 0; !ret && i < longs; i++)
		if (found[i])
			bitmap[i] |= found[i];
	return ret;
}

int dirty_set_collect(struct dirty_set *set, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err)
{
	return set->observer ? dirty_set_ask_apart(set, gpa, size, bitmap, err) :
			       dirty_set_ask(set, gpa, size, bitmap, err);
}
