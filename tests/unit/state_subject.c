/* SPDX-License-Identifier: Apache-2.0 */
/* See state_subject.h. */
#include "tests/unit/state_subject.h"

#include "tests/unit/test.h"

void *subject_comes_back(const struct state_subject *subject, void *busy)
{
	struct state_buffer first = {0}, second = {0};
	struct err err = {""};
	void *fresh;

	CHECK_EQ(subject->save(busy, &first, &err), 0);
	fresh = subject->make();
	if (subject->load(fresh, first.data, first.len, &err) < 0) {
		printf("# %s\n", err.text);
		CHECK(!"it loads");
	}
	CHECK_EQ(subject->save(fresh, &second, &err), 0);
	CHECK_EQ(second.len, first.len);
	CHECK_EQ(memcmp(second.data, first.data, first.len), 0);
	state_buffer_free(&first);
	state_buffer_free(&second);
	return fresh;
}

/* Exactly len bytes, so that a sanitizer sees a look beyond them. */
static int load_copy(const struct state_subject *subject, const uint8_t *data, size_t len, size_t at, uint8_t flip)
{
	uint8_t *copy = malloc(len ?: 1);
	void *fresh = subject->make();
	struct err err;
	int ret;

	CHECK(copy);
	memcpy(copy, data, len);
	if (flip)
		copy[at] ^= flip;
	ret = subject->load(fresh, copy, len, &err);
	free(copy);
	if (ret == 0)
		subject->use(fresh);
	else
		CHECK(strlen(err.text) > 0);
	subject->drop(fresh);
	return ret;
}

/* Every byte of a short record, and every so manieth of a long one. */
static size_t step(size_t at, size_t len)
{
	return at < 256 || len - at < 64 ? 1 : 1 + len / 256;
}

void subject_survives(const struct state_subject *subject, void *busy)
{
	static const uint8_t flips[] = {0x01, 0x80, 0xff}; /* one for each byte, in turn */
	size_t newer = subject->newer ? subject->newer(busy) : 0;
	struct state_buffer buffer = {0};

	CHECK_EQ(subject->save(busy, &buffer, NULL), 0);
	for (size_t len = 0; len < buffer.len; len += step(len, buffer.len))
		CHECK((load_copy(subject, buffer.data, len, 0, 0) < 0) != (newer && len == buffer.len - newer));
	for (size_t at = 0; at < buffer.len; at += step(at, buffer.len))
		load_copy(subject, buffer.data, buffer.len, at, flips[at % ARRAY_SIZE(flips)]);
	state_buffer_free(&buffer);
}
