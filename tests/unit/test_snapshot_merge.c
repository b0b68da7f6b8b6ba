/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/merge and memory_reader: a snapshot with its diffs merged is what a full one of the last moment would be,
 * whatever is damaged is found, and whichever call fails, there is all of the new folder or nothing.
 */
#include "tests/unit/file_faults.h"
#include "tests/unit/snapshot_rig.h"
#include "vmm/snapshot/description.h"
#include "vmm/snapshot/file_copy.h"
#include "vmm/snapshot/merge.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct snapshot_rig base, first, second, model;
static struct err err;
static unsigned int ticks, cancel_at;

static int on_tick(void *opaque, uint64_t done, uint64_t total, struct err *ret)
{
	CHECK(done <= total);
	return ++ticks == cancel_at ? err_set(ret, -ECANCELED, "cancelled") : 0;
}

static int merge(const char *to, const char *const *folders, size_t count, bool replace)
{
	const struct snapshot_merge request = {folders, count, to, replace, false, {on_tick, NULL}};

	err.text[0] = 0;
	ticks = 0;
	return snapshot_merge(&request, &err);
}

static int merge_named(const char *to, const char *a, const char *b, const char *c)
{
	const char *folders[] = {rig_path(a), rig_path(b), rig_path(c ?: "none")};

	return merge(rig_path(to), folders, c ? 3 : 2, false);
}

/* The pages of a diff, laid over the model of what the merged memory must be. */
static void fill(struct snapshot_rig *rig, unsigned int page, uint8_t byte)
{
	rig_fill(rig, page, byte);
	rig_fill(&model, page, byte);
}

/*
 * Three snapshots: base 1, diffs 2 and 3. Pages that only one has, that all have, that become zero, in the last chunk,
 * which is short, and in one that is a hole in the base.
 */
static void begin(void)
{
	rig_mkdir();
	rig_init(&model, 3, 0);
	rig_init(&base, 1, 0);
	rig_init(&first, 2, 1);
	rig_init(&second, 3, 2);
	for (unsigned int page = 0; page < 20; page++)
		fill(&base, page, (uint8_t)(0x10 + page));
	fill(&base, RIG_PAGES - 1, 0x77);
	fill(&first, 3, 0x23);
	fill(&first, 5, 0);
	fill(&first, 6, 0x26);
	fill(&first, 700, 0x70);
	fill(&first, RIG_PAGES - 2, 0x22);
	fill(&second, 3, 0x33);
	fill(&second, 4, 0x34);
	fill(&second, 6, 0);
	fill(&second, RIG_PAGES - 1, 0);
	second.state.paused = false;
	rig_finish(&base);
	rig_finish(&first);
	rig_finish(&second);
	rig_finish(&model);
	CHECK_EQ(rig_write(&base, rig_path("base"), RIG_EXTRA, &err), 0);
	CHECK_EQ(rig_write(&first, rig_path("first"), 0, &err), 0);
	CHECK_EQ(rig_write(&second, rig_path("second"), 0, &err), 0);
}

static void end(void)
{
	rig_done(&base);
	rig_done(&first);
	rig_done(&second);
	rig_done(&model);
	rig_rmdir();
}

static int verify(const char *path)
{
	struct snapshot *snapshot;
	const struct snapshot_progress progress = {on_tick, NULL};
	int code;

	err.text[0] = 0;
	ticks = 0;
	CHECK_EQ(snapshot_open_as(path, NULL, SNAPSHOT_ANY_KIND, &snapshot, &err), 0);
	code = snapshot_verify(snapshot, &progress, &err);
	snapshot_close(snapshot);
	return code;
}

static void check_memory(const struct snapshot *snapshot)
{
	static uint8_t memory[RIG_MEMORY];

	CHECK_EQ(pread(snapshot->memory_fd, memory, sizeof(memory), 0), RIG_MEMORY);
	CHECK(memcmp(memory, model.memory, sizeof(memory)) == 0);
	CHECK(memcmp(snapshot->state->sums.data, model.sums, sizeof(model.sums)) == 0);
}

static bool same_text(const char *path, const char *text)
{
	char got[64] = "";
	_cleanup_(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);

	return pread(fd, got, sizeof(got), 0) == (ssize_t)strlen(text) && strcmp(got, text) == 0;
}

static void the_result_is_a_full_one_of_the_last_moment(void)
{
	struct snapshot *snapshot;
	struct stat st;
	json_t *root;

	begin();
	CHECK_EQ(merge_named("all", "base", "first", "second"), 0);
	CHECK_EQ(verify(rig_path("all")), 0);
	CHECK_EQ(snapshot_open(rig_path("all"), &snapshot, &err), 0);
	CHECK(memcmp(snapshot->state->id, second.state.id, 16) == 0);
	CHECK_EQ(snapshot->state->created_ns, second.state.created_ns);
	CHECK(!snapshot->state->paused);
	CHECK(!snapshot_state_is_diff(snapshot->state));
	check_memory(snapshot);
	CHECK_EQ(snapshot_description_read(snapshot->state, NULL, &root, &err), 0);
	CHECK(json_is_null(json_object_get(root, "parent")));
	json_decref(root);
	CHECK_EQ(fstat(snapshot->memory_fd, &st), 0);
	CHECK(st.st_blocks * 512 <= 32 * SNAPSHOT_PAGE);
	CHECK(same_text(rig_path("all/kernel"), "k"));
	CHECK(access(rig_path("all/disks/disk0"), F_OK) < 0); /* the disk of the first moment is not that of the last */
	snapshot_close(snapshot);
	end();
}

static void step_by_step_it_is_the_same(void)
{
	struct snapshot *snapshot;

	begin();
	CHECK_EQ(merge_named("one", "base", "first", NULL), 0);
	CHECK_EQ(merge_named("two", "one", "second", NULL), 0);
	CHECK_EQ(snapshot_open(rig_path("two"), &snapshot, &err), 0);
	check_memory(snapshot);
	snapshot_close(snapshot);
	CHECK_EQ(merge_named("diffs", "first", "second", NULL), 0);
	CHECK_EQ(verify(rig_path("diffs")), 0);
	CHECK_EQ(snapshot_open_as(rig_path("diffs"), NULL, SNAPSHOT_ANY_KIND, &snapshot, &err), 0);
	CHECK(memcmp(snapshot->state->parent, base.state.id, 16) == 0);
	CHECK(snapshot_state_has_page(snapshot->state, 5) && snapshot_state_has_page(snapshot->state, 4) &&
	      !snapshot_state_has_page(snapshot->state, 7));
	snapshot_close(snapshot);
	CHECK_EQ(merge_named("three", "base", "diffs", NULL), 0);
	CHECK_EQ(snapshot_open(rig_path("three"), &snapshot, &err), 0);
	check_memory(snapshot);
	snapshot_close(snapshot);
	end();
}

static bool refused(const char *a, const char *b, const char *c, int code, const char *what)
{
	int got = merge_named("all", a, b, c);

	if (got != code || !strstr(err.text, what))
		printf("# %d, \"%s\"\n", got, err.text);
	return got == code && strstr(err.text, what) && rig_names() == 3;
}

static void the_order_is_that_of_the_moments(void)
{
	const char *folders[] = {rig_path("base"), rig_path("first")};

	begin();
	CHECK(refused("base", "second", NULL, -EINVAL, "second: a diff of 02020202-0202-0202-0202-020202020202, but "));
	CHECK(refused("base", "second", "first", -EINVAL, "in the order in which they were taken"));
	CHECK(refused("first", "base", NULL, -EINVAL, "base: not a diff; write the full snapshot first"));
	CHECK(refused("base", "base", NULL, -EINVAL, "not a diff"));
	CHECK(refused("base", "none", NULL, -ENOENT, "none: "));
	CHECK_EQ(merge(rig_path("first"), folders, 2, false), -ENOENT); /* paths of another test's folder */
	folders[0] = rig_path("base");
	folders[1] = rig_path("first");
	CHECK_EQ(merge(rig_path("second"), folders, 2, false), -EEXIST);
	CHECK_EQ(merge(rig_path("second"), folders, 2, true), 0);
	folders[1] = rig_path("second");
	CHECK_EQ(merge(rig_path("base"), folders, 1, true), -EINVAL);
	end();
}

/* Whoever reads a snapshot keeps it, and his own result is no other's place. */
static void what_is_read_is_not_replaced(void)
{
	const char *folders[2];

	begin();
	folders[0] = rig_path("base");
	folders[1] = rig_path("first");
	CHECK_EQ(merge(rig_path("base"), folders, 2, true), -EBUSY);
	CHECK(strstr(err.text, "mapped by a machine or read"));
	CHECK_EQ(verify(rig_path("base")), 0);
	CHECK_EQ(rig_names(), 3);
	end();
}

static void damage_is_found(void)
{
	static const off_t places[] = {0, 5000, 20 * SNAPSHOT_PAGE - 1, RIG_MEMORY - 1, (off_t)MIB(2) + 77};

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		rig_flip(rig_path("base/memory"), places[i]);
		CHECK_EQ(verify(rig_path("base")), -EBADMSG);
		CHECK(strstr(err.text, "memory is damaged: the 2 MiB at offset"));
		CHECK(refused("base", "first", NULL, -EBADMSG, "memory is damaged: the 2 MiB at offset"));
		rig_flip(rig_path("base/memory"), places[i]);
		CHECK_EQ(verify(rig_path("base")), 0);
	}
	rig_flip(rig_path("first/memory"), 5 * SNAPSHOT_PAGE);
	CHECK(refused("base", "first", NULL, -EBADMSG, "first: memory is damaged"));
	rig_flip(rig_path("first/memory"), 5 * SNAPSHOT_PAGE);
	/* Data that becomes a hole. */
	rig_cut(rig_path("base/memory"), 0);
	rig_cut(rig_path("base/memory"), RIG_MEMORY);
	CHECK_EQ(verify(rig_path("base")), -EBADMSG);
	CHECK(refused("base", "first", NULL, -EBADMSG, "memory is damaged"));
	rig_flip(rig_path("second/machine.json"), 3);
	CHECK(refused("first", "second", NULL, -EBADMSG, "machine.json is not what"));
	end();
}

/* Sums that fit to bytes that no diff can have. */
static void a_page_outside_a_diff_is_found(void)
{
	rig_mkdir();
	rig_init(&first, 2, 1);
	rig_fill(&first, 9, 1);
	rig_fill(&first, 700, 1);
	rig_finish(&first);
	CHECK_EQ(rig_write(&first, rig_path("first"), 0, &err), 0);
	CHECK_EQ(verify(rig_path("first")), 0);
	CHECK_EQ(ticks, 3);
	first.pages[1] = 0;
	CHECK_EQ(rig_write(&first, rig_path("first"), RIG_REPLACE, &err), 0);
	CHECK_EQ(verify(rig_path("first")), -EBADMSG); /* its sum is that of page 9, which was not written */
	first.pages[1] = 2;
	CHECK_EQ(rig_write(&first, rig_path("more"), 0, &err), 0);
	first.pages[1] = 4;
	memset(first.memory + 10 * SNAPSHOT_PAGE, 0, SNAPSHOT_PAGE);
	CHECK_EQ(rig_write(&first, rig_path("first"), RIG_REPLACE, &err), 0);
	CHECK_EQ(rename(rig_path("more/memory"), rig_path("first/memory")), 0);
	CHECK_EQ(verify(rig_path("first")), -EBADMSG);
	CHECK(strstr(err.text, "the page at offset 36864 is not in this diff"));
	rig_done(&first);
	rig_rmdir();
}

static void a_disk_of_another_size_is_found(void)
{
	begin();
	CHECK_EQ(verify(rig_path("base")), 0);
	CHECK_EQ(verify(rig_path("first")), 0); /* has none */
	rig_cut(rig_path("base/disks/disk0"), 65535);
	CHECK_EQ(verify(rig_path("base")), -EBADMSG);
	CHECK(strstr(err.text, "disks/disk0 has 65535 bytes, the disk had 65536"));
	end();
}

static void it_can_be_cancelled(void)
{
	begin();
	for (cancel_at = 1; cancel_at < 4; cancel_at++)
		CHECK(refused("base", "first", NULL, -ECANCELED, "cancelled"));
	cancel_at = 2;
	CHECK_EQ(verify(rig_path("base")), -ECANCELED);
	cancel_at = 0;
	end();
}

static void each_call_fails_once(void)
{
	static const int errors[] = {EIO, ENOSPC, EINTR};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		unsigned int failed = 0, before;
		bool more = true;

		begin();
		before = faults_open_files();
		for (unsigned int n = 1; more; n++) {
			int code;

			faults_begin(n, errors[i]);
			code = merge_named("all", "base", "first", "second");
			more = faults_end();
			failed += code != 0;
			CHECK(!code == !err.text[0]);
			CHECK_EQ(rig_names(), code ? 3 : 4);
			CHECK_EQ(faults_open_files(), before);
			if (code)
				continue;
			CHECK_EQ(verify(rig_path("all")), 0);
			rig_remove("all");
		}
		CHECK(errors[i] == EINTR || failed >= (errors[i] == EIO ? 30 : 5));
		end();
	}
}

static void each_call_of_verifying_fails_once(void)
{
	const unsigned int before = (begin(), faults_open_files());
	struct snapshot *snapshot;
	unsigned int failed = 0;
	bool more = true;

	CHECK_EQ(snapshot_open(rig_path("base"), &snapshot, &err), 0);
	for (unsigned int n = 1; more; n++) {
		int code;

		err.text[0] = 0;
		faults_begin(n, EIO);
		code = snapshot_verify(snapshot, NULL, &err);
		more = faults_end();
		CHECK_EQ(code, more ? -EIO : 0);
		CHECK(!code == !err.text[0]);
		failed += more;
	}
	CHECK(failed >= 6);
	snapshot_close(snapshot);
	CHECK_EQ(faults_open_files(), before);
	end();
}

/* ---- copies of files ---- */

static int make_file(const char *name)
{
	int fd = open(rig_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	return fd;
}

static void a_copy_is_sparse_and_the_same(void)
{
	static const off_t at[] = {0, 40960, (off_t)MIB(40)};
	int from, to, code;
	char byte = 0;
	struct stat st;

	rig_mkdir();
	from = make_file("from");
	CHECK_EQ(ftruncate(from, (off_t)MIB(60) + 11), 0);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		CHECK_EQ(pwrite(from, "abc", 3, at[i]), 3);
	for (unsigned int n = 0; n < 64; n++) {
		int error = n % 2 ? EXDEV : EIO; /* EXDEV: the kernel does not copy between two file systems */

		to = make_file("to");
		faults_begin(n / 2, error);
		code = file_copy(from, to, NULL, &err);
		if (faults_end())
			CHECK_EQ(code, error == EXDEV && strcmp(faults_call, "copy_file_range") == 0 ? 0 : -error);
		else
			CHECK_EQ(code, 0);
		CHECK(code || (fstat(to, &st) == 0 && st.st_size == (off_t)MIB(60) + 11 && st.st_blocks * 512 < (off_t)MIB(1)));
		for (size_t i = 0; !code && i < ARRAY_SIZE(at); i++)
			CHECK(pread(to, &byte, 1, at[i] + 2) == 1 && byte == 'c');
		close(to);
	}
	to = make_file("to");
	code = file_copy_reflink(from, to);
	CHECK(code == 0 || code == -EOPNOTSUPP);
	close(to);
	close(from);
	rig_rmdir();
}

TEST_MAIN(TEST(the_result_is_a_full_one_of_the_last_moment), TEST(step_by_step_it_is_the_same),
	  TEST(the_order_is_that_of_the_moments), TEST(what_is_read_is_not_replaced), TEST(damage_is_found),
	  TEST(a_page_outside_a_diff_is_found), TEST(a_disk_of_another_size_is_found), TEST(it_can_be_cancelled),
	  TEST(each_call_fails_once), TEST(each_call_of_verifying_fails_once),
	  TEST(a_copy_is_sparse_and_the_same))
