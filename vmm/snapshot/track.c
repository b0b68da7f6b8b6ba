/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See track.h. Other users of the dirty sources, a migration or a live snapshot, collect for themselves; the observer
 * sees what they are told.
 */
#include "vmm/snapshot/track.h"

#include "vmm/migration/zero.h"

enum track_by { TRACK_NOTHING, TRACK_SOURCES, TRACK_OWN };

struct track {
	struct guest_memory *memory;
	struct dirty_set *dirty;
	struct dirty_observer observer;
	bool mapped; /* memory is mapped privately from the file of the snapshot `restored` */
	uint8_t restored[16];
	struct page_set *changed; /* since `since`; NULL: the sources are off */
	bool counts;              /* changed is complete: there was a snapshot since */
	uint8_t since[16];
	/* of the snapshot that is being taken */
	bool busy;
	bool keeps;    /* the sources stay on after it */
	bool switched; /* the sources were turned on for it */
	bool live;
	enum track_by by;
	struct page_set *taken, *own;
	uint8_t parent[16];
};

static void track_saw(struct dirty_observer *observer, uint64_t gpa, uint64_t size, const unsigned long *bitmap)
{
	page_set_add(container_of(observer, struct track, observer)->changed, gpa, size, bitmap);
}

static bool track_is_mapped(const struct guest_memory *memory)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);

	for (size_t i = 0; i < count; i++)
		if (!regions[i].base || regions[i].base->fd < 0)
			return false;
	return count;
}

int track_create(struct guest_memory *memory, struct dirty_set *dirty, const uint8_t *restored, struct track **ret,
		 struct err *err)
{
	struct track *track = calloc(1, sizeof(*track));

	if (!track)
		return err_sys(err, -ENOMEM, "snapshot");
	*track = (struct track){.memory = memory, .dirty = dirty, .observer = {track_saw}};
	track->mapped = restored && track_is_mapped(memory);
	if (track->mapped)
		memcpy(track->restored, restored, sizeof(track->restored));
	*ret = track;
	return 0;
}

/* ---- the sources ---- */

/* A source that stands still during a migration would do so as long as the machine runs. */
static int track_check_sources(const struct track *track, struct err *err)
{
	for (const struct dirty_source *source = track->dirty->first; source; source = source->next)
		if (source->halts)
			return err_set(err, -ENOTSUP, "--track: %s cannot tell what it writes, and would stand still; run the machine "
				       "with a socket for it, or leave --track out", source->name);
	return 0;
}

static int track_switch_on(struct track *track, struct err *err)
{
	int code = track_check_sources(track, err);

	if (code)
		return code;
	code = page_set_create(track->memory, false, &track->changed, err) ?: dirty_set_start(track->dirty, err);
	if (code) {
		page_set_destroy(take_ptr(track->changed));
		return err_prefix(err, code, "tracking what the guest writes");
	}
	track->dirty->observer = &track->observer;
	track->switched = true;
	track->counts = false;
	return 0;
}

static void track_switch_off(struct track *track)
{
	if (!track->changed)
		return;
	track->dirty->observer = NULL;
	dirty_set_stop(track->dirty);
	page_set_destroy(take_ptr(track->changed));
	track->counts = false;
}

bool track_on(const struct track *track)
{
	return track->changed;
}

void track_destroy(struct track *track)
{
	if (!track)
		return;
	track_abort(track);
	track_switch_off(track);
	free(track);
}

/* ---- a snapshot ---- */

static int track_choose(struct track *track, bool diff, struct err *err)
{
	track->by = !diff ? TRACK_NOTHING : track->counts ? TRACK_SOURCES : TRACK_OWN;
	memset(track->parent, 0, sizeof(track->parent));
	if (track->by == TRACK_SOURCES)
		memcpy(track->parent, track->since, sizeof(track->parent));
	if (track->by == TRACK_OWN)
		memcpy(track->parent, track->restored, sizeof(track->parent));
	if (track->by == TRACK_OWN && !track->mapped)
		return err_set(err, -ENOTSUP, "--diff: nobody has kept track of what the guest has changed since its last "
					      "snapshot; take one with --track, and diffs after it");
	return 0;
}

int track_begin(struct track *track, const struct snapshot_request *request, struct err *err)
{
	int code = track_choose(track, request->diff, err);

	if (code)
		return code;
	track->live = request->live;
	track->keeps = request->track || (request->diff && track->by == TRACK_SOURCES);
	track->switched = false;
	if (!track->changed && (track->keeps || (track->live && track->by == TRACK_OWN)))
		code = track_switch_on(track, err);
	if (!code && track->changed)
		code = page_set_create(track->memory, false, &track->taken, err);
	if (!code && track->by == TRACK_OWN)
		code = page_set_create(track->memory, false, &track->own, err);
	track->busy = true;
	if (code)
		track_abort(track);
	return code;
}

const uint8_t *track_parent(const struct track *track)
{
	return track->parent;
}

/* Collects everything; the observer keeps it. */
static int track_collect(struct track *track, struct err *err)
{
	struct page_set *scratch;
	size_t count;
	const struct memory_marks *regions;
	int code = page_set_create(track->memory, false, &scratch, err);

	if (code)
		return code;
	regions = page_set_regions(scratch, &count);
	for (size_t i = 0; !code && i < count; i++)
		code = dirty_set_collect(track->dirty, regions[i].gpa, regions[i].size, regions[i].bitmap, err);
	page_set_destroy(scratch);
	return code;
}

/* Sources that have just been turned on may begin with everything (core/dirty.h). */
int track_settle(struct track *track, struct err *err)
{
	int code;

	if (!track->changed || track->live)
		return 0;
	track->dirty->rounds_follow = true;
	code = track_collect(track, err);
	track->dirty->rounds_follow = false;
	return code;
}

static int track_find_own(struct track *track, struct err *err)
{
	size_t count, sets;
	const struct guest_region *regions = guest_memory_regions(track->memory, &count);
	const struct memory_marks *own = page_set_regions(track->own, &sets);
	struct zero_map *map;
	int code = zero_map_create(track->memory, &map, err);

	if (code)
		return code;
	page_set_clear(track->own);
	for (size_t i = 0; i < count; i++)
		zero_map_own(map, &regions[i], 0, regions[i].size / GUEST_PAGE_SIZE, own[i].bitmap);
	zero_map_destroy(map);
	return 0;
}

int track_first(struct track *track, const struct page_set **ret, struct err *err)
{
	int code = 0;

	/* What was written until the sources are clean is this process's own. */
	if (track->by == TRACK_OWN) {
		code = track_collect(track, err) ?: track_find_own(track, err);
		page_set_clear(track->changed);
		page_set_join(track->changed, track->own);
	}
	*ret = track->by == TRACK_NOTHING ? NULL : track->changed;
	return code;
}

int track_take(struct track *track, const struct page_set **ret, struct err *err)
{
	bool by_own = track->by == TRACK_OWN && !track->live;
	int code = track->changed && !track->live ? track_collect(track, err) : 0;

	code = code ?: by_own ? track_find_own(track, err) : 0;
	if (code)
		return code;
	if (track->changed) {
		struct page_set *empty = track->taken;

		track->taken = track->changed;
		track->changed = empty;
	}
	*ret = track->by == TRACK_NOTHING ? NULL : by_own ? track->own : track->taken;
	return 0;
}

/* ---- its end ---- */

static void track_end(struct track *track)
{
	page_set_destroy(take_ptr(track->taken));
	page_set_destroy(take_ptr(track->own));
	track->busy = false;
}

void track_commit(struct track *track, const uint8_t id[16])
{
	if (!track->busy)
		return;
	track_end(track);
	if (!track->keeps)
		track_switch_off(track);
	track->counts = track->changed;
	memcpy(track->since, id, sizeof(track->since));
}

void track_abort(struct track *track)
{
	if (!track->busy)
		return;
	if (track->switched)
		track_switch_off(track);
	else if (track->changed && track->taken)
		page_set_join(track->changed, track->taken);
	track_end(track);
}
