/* SPDX-License-Identifier: Apache-2.0 */
/* core/state: what is saved is loaded again, byte for byte; every byte of a record broken in turn is survived. */
#include "core/state.h"
#include "tests/unit/test.h"

#include <pthread.h>

struct inner {
	uint16_t a;
	bool on;
};

struct outer {
	uint8_t u8;
	uint64_t u64;
	uint8_t bytes[5];
	struct inner inner[3];
	uint32_t late; /* since version 2 */
};

static int judge_inner(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	return ((const struct inner *)loaded)->a > 100 ? err_set(err, -EINVAL, "a is over 100") : 0;
}

static const struct state_field inner_fields[] = {STATE_UINT(struct inner, a, 1), STATE_BOOL(struct inner, on, 1)};
static const struct state_table inner_table = {
	.name = "inner", .version = 1, .oldest = 1, STATE_FIELDS(inner_fields), .size = sizeof(struct inner),
	.judge = judge_inner,
};
static const struct state_field outer_fields[] = {
	STATE_UINT(struct outer, u8, 1), STATE_UINT(struct outer, u64, 1), STATE_BYTES(struct outer, bytes, 1),
	STATE_ARRAY(struct outer, inner, 1, &inner_table), STATE_UINT(struct outer, late, 2),
};
static const struct state_table outer_v2 = {.name = "outer", .version = 2, .oldest = 1, STATE_FIELDS(outer_fields)};
static const struct state_table outer_v1 = {
	.name = "outer", .version = 1, .oldest = 1, .fields = outer_fields, .field_count = ARRAY_SIZE(outer_fields) - 1,
};

static const struct outer sample = {
	.u8 = 7, .u64 = 0x1122334455667788, .bytes = "abcd", .inner = {{1, true}, {2, false}, {3, true}}, .late = 9,
};

static void comes_back_byte_for_byte(void)
{
	struct outer from = sample, to = {0};
	struct state_buffer first = {0}, second = {0};

	CHECK_EQ(state_save(&outer_v2, &from, &first, NULL), 0);
	CHECK_EQ(state_load(&outer_v2, &to, first.data, first.len, NULL), 0);
	CHECK_EQ(memcmp(&to, &from, sizeof(to)), 0);
	CHECK_EQ(state_save(&outer_v2, &to, &second, NULL), 0);
	CHECK_EQ(second.len, first.len);
	CHECK_EQ(memcmp(second.data, first.data, first.len), 0);
	state_buffer_free(&first);
	state_buffer_free(&second);
}

static void loads_an_older_record(void)
{
	struct outer from = sample, to = {.late = 5};
	struct state_buffer buffer = {0};
	struct err err;

	CHECK_EQ(state_save(&outer_v1, &from, &buffer, NULL), 0);
	CHECK_EQ(state_load(&outer_v2, &to, buffer.data, buffer.len, &err), 0);
	CHECK_EQ(to.late, 5);
	CHECK_EQ(to.u64, from.u64);
	buffer.len = 0;
	CHECK_EQ(state_save(&outer_v2, &from, &buffer, NULL), 0);
	CHECK_EQ(state_load(&outer_v1, &to, buffer.data, buffer.len, &err), -EBADMSG);
	CHECK_STR(err.text, "outer: version 2, this program knows 1 to 1");
	state_buffer_free(&buffer);
}

static void tells_where_a_value_is_bad(void)
{
	struct outer from = sample, to;
	struct state_buffer buffer = {0};
	struct err err;

	from.inner[1].a = 101;
	CHECK_EQ(state_save(&outer_v2, &from, &buffer, NULL), 0);
	CHECK_EQ(state_load(&outer_v2, &to, buffer.data, buffer.len, &err), -EINVAL);
	CHECK_STR(err.text, "outer: inner: inner: a is over 100");
	state_buffer_free(&buffer);
}

static void survives_every_cut_and_every_broken_byte(void)
{
	struct outer from = sample, to;
	struct state_buffer buffer = {0};
	uint8_t *copy;

	CHECK_EQ(state_save(&outer_v2, &from, &buffer, NULL), 0);
	for (size_t len = 0; len < buffer.len; len++) {
		copy = malloc(len ?: 1);
		memcpy(copy, buffer.data, len);
		CHECK(state_load(&outer_v2, &to, copy, len, NULL) < 0);
		free(copy);
	}
	copy = malloc(buffer.len);
	for (size_t at = 0; at < buffer.len; at++)
		for (int bit = 0; bit < 8; bit++) {
			memcpy(copy, buffer.data, buffer.len);
			copy[at] ^= (uint8_t)(1 << bit);
			state_load(&outer_v2, &to, copy, buffer.len, NULL);
		}
	free(copy);
	CHECK_EQ(state_buffer_add(&buffer, "x", 1), 0);
	CHECK_EQ(state_load(&outer_v2, &to, buffer.data, buffer.len, NULL), -EBADMSG);
	state_buffer_free(&buffer);
}

/* An array of which some is there, and an object with a struct of its own. */

struct some {
	uint32_t inner_count, byte_count;
	struct inner inner[4];
	uint8_t bytes[8];
};

struct live {
	int unsaved;
	pthread_mutex_t lock;
	struct some some;
	int loads;
};

static bool locked(struct live *live)
{
	if (pthread_mutex_trylock(&live->lock))
		return true;
	pthread_mutex_unlock(&live->lock);
	return false;
}

static int judge_some(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	CHECK(locked((struct live *)object));
	return ((const struct some *)loaded)->inner_count == 3 ? err_set(err, -EINVAL, "three are too many") : 0;
}

static int some_loaded(void *object, const void *state, struct err *err)
{
	struct live *live = object;

	CHECK(locked(live));
	CHECK_EQ(memcmp(&live->some, state, sizeof(live->some)), 0);
	live->loads++;
	return 0;
}

static const struct state_field some_fields[] = {
	STATE_LIST(struct some, inner, 1, inner_count, &inner_table), STATE_SOME_BYTES(struct some, bytes, 1, byte_count),
};
static const struct state_table some_table = {
	.name = "some", .version = 1, .oldest = 1, STATE_FIELDS(some_fields), STATE_IN(struct live, some),
	STATE_LOCK(struct live, lock), .judge = judge_some, .loaded = some_loaded,
};

static void part_of_an_array_comes_back(void)
{
	for (uint32_t count = 0; count <= 4; count += 2) {
		struct live from = {
			.some = {count, 2 * count, {{1, true}, {2, false}, {3, true}, {4, true}}, "abcdefg"},
		};
		struct live to = {.unsaved = 5};
		struct state_buffer first = {0}, second = {0};

		CHECK_EQ(state_save(&some_table, &from, &first, NULL), 0);
		CHECK_EQ(state_load(&some_table, &to, first.data, first.len, NULL), 0);
		CHECK(to.unsaved == 5 && to.loads == 1);
		CHECK_EQ(to.some.inner_count, count);
		CHECK_EQ(to.some.byte_count, 2 * count);
		CHECK_EQ(memcmp(to.some.inner, from.some.inner, count * sizeof(to.some.inner[0])), 0);
		CHECK_EQ(memcmp(to.some.bytes, from.some.bytes, 2 * count), 0);
		CHECK_EQ(state_save(&some_table, &to, &second, NULL), 0);
		CHECK_EQ(second.len, first.len);
		CHECK_EQ(memcmp(second.data, first.data, first.len), 0);
		state_buffer_free(&first);
		state_buffer_free(&second);
	}
}

static void more_than_an_array_holds_is_refused(void)
{
	static const struct state_field narrow_fields[] = {
		{"inner", STATE_KIND_TABLE, 1, offsetof(struct some, inner), sizeof(struct inner), 1, &inner_table, true,
		 offsetof(struct some, inner_count)},
		{"bytes", STATE_KIND_BYTES, 1, offsetof(struct some, bytes), 8, 1, NULL, true,
		 offsetof(struct some, byte_count)},
	};
	static const struct state_table narrow = {.name = "some", .version = 1, .oldest = 1, STATE_FIELDS(narrow_fields)};
	struct live from = {.some = {2, 1, {{1, true}, {2, false}}, "a"}};
	struct some to = {0};
	struct state_buffer buffer = {0};
	struct err err;

	CHECK_EQ(state_save(&some_table, &from, &buffer, NULL), 0);
	CHECK_EQ(state_load(&narrow, &to, buffer.data, buffer.len, &err), -EBADMSG);
	CHECK_STR(err.text, "some: inner: more than 1 elements");
	state_buffer_free(&buffer);
}

static void what_is_not_judged_well_never_reaches_the_object(void)
{
	struct live from = {.some = {3, 1, {{1, true}}, "a"}}, to = {0}, untouched = {0};
	struct state_buffer buffer = {0};
	struct err err;

	CHECK_EQ(state_save(&some_table, &from, &buffer, NULL), 0);
	CHECK_EQ(state_load(&some_table, &to, buffer.data, buffer.len, &err), -EINVAL);
	CHECK_STR(err.text, "some: three are too many");
	for (size_t len = 0; len < buffer.len; len++)
		CHECK(state_load(&some_table, &to, buffer.data, len, NULL) < 0);
	CHECK_EQ(memcmp(&to, &untouched, sizeof(to)), 0);
	state_buffer_free(&buffer);
}

static void records_lie_one_behind_the_other(void)
{
	struct outer from = sample, to = {0};
	struct live other = {.some = {1, 1, {{1, true}}, "a"}}, back = {0};
	struct state_buffer buffer = {0};
	const uint8_t *at;
	size_t len;

	CHECK_EQ(state_save(&outer_v2, &from, &buffer, NULL), 0);
	CHECK_EQ(state_save(&some_table, &other, &buffer, NULL), 0);
	at = buffer.data;
	len = buffer.len;
	CHECK_EQ(state_load_first(&some_table, &back, &at, &len, NULL), -EBADMSG);
	CHECK(at == buffer.data && len == buffer.len);
	CHECK_EQ(state_load_first(&outer_v2, &to, &at, &len, NULL), 0);
	CHECK_EQ(state_load_first(&some_table, &back, &at, &len, NULL), 0);
	CHECK_EQ(len, 0);
	CHECK_EQ(to.late, from.late);
	CHECK_EQ(back.some.inner_count, 1);
	state_buffer_free(&buffer);
}

/* A struct that is older than a field, and an object whose state is elsewhere. */

struct counter {
	int32_t value;
	uint32_t late; /* since version 2 */
};

struct holder {
	char pad[8];
	struct counter counter;
};

static const struct state_field counter_fields[] = {
	STATE_UINT_AS("count", struct counter, value, 1), STATE_UINT(struct counter, late, 2),
};
static const struct state_table holder_v2 = {
	.name = "counter", .version = 2, .oldest = 1, STATE_FIELDS(counter_fields), STATE_IN(struct holder, counter),
};

static int collect_digits(void *object, void *state, struct err *err)
{
	((struct counter *)state)->value = atoi(object);
	return *(char *)object ? 0 : err_set(err, -EBUSY, "no digits");
}

static int digits_loaded(void *object, const void *state, struct err *err)
{
	sprintf(object, "%d", ((const struct counter *)state)->value);
	return 0;
}

static const struct state_table digits_v1 = {
	.name = "counter", .version = 1, .oldest = 1, .fields = counter_fields, .field_count = 1,
	STATE_APART(struct counter), .collect = collect_digits, .loaded = digits_loaded,
};

static void a_state_may_be_elsewhere(void)
{
	char from[16] = "-12", to[16] = "7", none[16] = "";
	struct holder holder = {.counter = {1, 5}};
	struct state_buffer buffer = {0};
	struct err err;

	CHECK_EQ(state_save(&digits_v1, none, &buffer, &err), -EBUSY);
	CHECK_STR(err.text, "counter: no digits");
	CHECK_EQ(buffer.len, 0);
	CHECK_EQ(state_save(&digits_v1, from, &buffer, NULL), 0);
	CHECK_EQ(state_load(&digits_v1, to, buffer.data, buffer.len, NULL), 0);
	CHECK_STR(to, "-12");
	CHECK_EQ(state_load(&holder_v2, &holder, buffer.data, buffer.len, NULL), 0);
	CHECK_EQ(holder.counter.value, -12);
	CHECK_EQ(holder.counter.late, 5);
	state_buffer_free(&buffer);
}

TEST_MAIN(TEST(comes_back_byte_for_byte), TEST(loads_an_older_record), TEST(tells_where_a_value_is_bad),
	  TEST(survives_every_cut_and_every_broken_byte), TEST(a_state_may_be_elsewhere),
	  TEST(part_of_an_array_comes_back), TEST(more_than_an_array_holds_is_refused),
	  TEST(what_is_not_judged_well_never_reaches_the_object), TEST(records_lie_one_behind_the_other))
