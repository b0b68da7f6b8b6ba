/* SPDX-License-Identifier: Apache-2.0 */
/* See dirty.h. */
#include "core/dirty.h"

int dirty_set_add(struct dirty_set *set, struct dirty_source *source, struct err *err)
{
	if (set->started) {
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
	if (set->started)
		source->ops->stop(source);
}

int dirty_set_start(struct dirty_set *set, struct err *err)
{
	struct dirty_source *source, *undo;

	if (set->started)
		return 0;
	for (source = set->first; source; source = source->next) {
		int ret = source->ops->start(source, err);

		if (ret < 0) {
			for (undo = set->first; undo != source; undo = undo->next)
				undo->ops->stop(undo);
			return err_prefix(err, ret, "%s", source->name);
		}
	}
	set->started = true;
	return 0;
}

void dirty_set_stop(struct dirty_set *set)
{
	struct dirty_source *source;

	if (!set->started)
		return;
	for (source = set->first; source; source = source->next)
		source->ops->stop(source);
	set->started = false;
}

int dirty_set_collect(struct dirty_set *set, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err)
{
	struct dirty_source *source;

	for (source = set->first; source; source = source->next) {
		int ret = source->ops->collect(source, gpa, size, bitmap, err);

		if (ret < 0)
			return err_prefix(err, ret, "%s", source->name);
	}
	return 0;
}
