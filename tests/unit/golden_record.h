/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden records as files: golden/records/PART-NUMBER.txt, hexadecimal, "5a*4096" is 4096 times 5a. test_golden_records.c
 * says what they are for.
 */
#pragma once

#include "core/state.h"
#include "tests/unit/test.h"

#include <stdlib.h>

#define GOLDEN_WORDS 16u /* on a line */

/* A part: begin makes a fresh one, fill gives it values everywhere. */
struct golden_subject {
	const char *name;
	void (*begin)(void);
	void (*fill)(void);
	int (*save)(struct state_buffer *out, struct err *err);
	int (*load)(const void *data, size_t len, struct err *err);
	void (*end)(void);
};

/* ---- files ---- */

static inline void golden_path(const char *part, unsigned int number, char path[512])
{
	snprintf(path, 512, "%s/golden/records/%s-%u.txt", TESTS_UNIT, part, number);
}

static inline void golden_add_word(struct state_buffer *to, const char *word)
{
	size_t digits = strcspn(word, "*");
	unsigned long times = word[digits] ? strtoul(word + digits + 1, NULL, 10) : 1;
	unsigned int byte;

	CHECK(digits % 2 == 0);
	while (times--)
		for (size_t i = 0; i < digits; i += 2) {
			CHECK_EQ(sscanf(word + i, "%2x", &byte), 1);
			CHECK_EQ(state_buffer_add(to, &(uint8_t){(uint8_t)byte}, 1), 0);
		}
}

/* False: there is no such file. */
static inline bool golden_read(const char *part, unsigned int number, struct state_buffer *to)
{
	char path[512], line[1024];
	FILE *file;

	golden_path(part, number, path);
	file = fopen(path, "r");
	if (!file)
		return false;
	to->len = 0;
	while (fgets(line, sizeof(line), file)) {
		char *save = NULL;

		if (line[0] == '#')
			continue;
		for (char *word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save))
			golden_add_word(to, word);
	}
	fclose(file);
	return true;
}

/* How often the byte at `at` comes in a row. */
static inline size_t golden_run_of(const struct state_buffer *from, size_t at)
{
	size_t len = 1;

	while (at + len < from->len && from->data[at + len] == from->data[at])
		len++;
	return len;
}

static inline void golden_write(const char *part, unsigned int number, const struct state_buffer *from)
{
	char path[512];
	FILE *file;

	golden_path(part, number, path);
	file = fopen(path, "w");
	CHECK(file);
	fprintf(file, "# SPDX-License-Identifier: Apache-2.0\n# A golden record, see tests/unit/test_golden_records.c.\n");
	for (size_t at = 0, words = 1, len; at < from->len; at += len, words++) {
		len = golden_run_of(from, at);
		if (len < 4)
			len = 1;
		fprintf(file, "%02x", from->data[at]);
		if (len > 1)
			fprintf(file, "*%zu", len);
		fprintf(file, "%s", words % GOLDEN_WORDS && at + len < from->len ? " " : "\n");
	}
	CHECK_EQ(fclose(file), 0);
	printf("# written: %s\n", path);
}

/* ---- the check ---- */

static inline void golden_save(const struct golden_subject *subject, struct state_buffer *to)
{
	struct err err = {""};

	to->len = 0;
	if (subject->save(to, &err))
		printf("# %s: %s\n", subject->name, err.text);
	CHECK(to->len);
}

static inline void golden_load(const struct golden_subject *subject, unsigned int number, const struct state_buffer *from)
{
	struct err err = {""};

	subject->begin();
	if (subject->load(from->data, from->len, &err)) {
		printf("# %s-%u.txt: %s\n", subject->name, number, err.text);
		CHECK(!"an old record loads");
	}
}

static inline bool golden_same(const struct state_buffer *a, const struct state_buffer *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static inline void golden_expect_same(const struct golden_subject *subject, unsigned int last, const struct state_buffer *golden,
			const struct state_buffer *now)
{
	if (last && golden_same(golden, now))
		return;
	if (getenv("MVMM_WRITE_GOLDEN")) {
		golden_write(subject->name, last + 1, now);
		return;
	}
	printf("# %s: it is not saved as in golden/records/%s-%u.txt: if its record was changed on purpose, see "
	       "tests/unit/test_golden_records.c\n", subject->name, subject->name, last);
	CHECK(!"a record is as it was");
}

/* All of a part's files load; the last one comes back. */
static inline void golden_check(const struct golden_subject *subject)
{
	struct state_buffer golden = {0}, now = {0};
	unsigned int last = 0;

	for (; golden_read(subject->name, last + 1, &golden); last++) {
		golden_load(subject, last + 1, &golden);
		golden_save(subject, &now);
		subject->end();
	}
	if (!last) {
		subject->begin();
		subject->fill();
		golden_save(subject, &now);
		subject->end();
	}
	golden_expect_same(subject, last, &golden, &now);
	state_buffer_free(&golden);
	state_buffer_free(&now);
}
