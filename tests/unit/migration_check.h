/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests that use migration_rig.h: a plain migration, and what must be true after each, however it went. */
#pragma once

#include "tests/unit/migration_rig.h"
#include "tests/unit/test.h"

static struct rig_result result;

static struct rig_options plain(void)
{
	return (struct rig_options){.request = {.streams = 2, .goal = {.downtime = 300000000, .timeout = 60000000000}}};
}

/* What must be true in the end, however it went. */
static void check_one_runs(void)
{
	CHECK(result.most_running <= 1);
	switch (result.source.state) {
	case MIGRATION_DONE:
		CHECK(result.target_runs && !result.source_runs);
		CHECK(result.same);
		CHECK_EQ(result.target, 0);
		break;
	case MIGRATION_FAILED:
		CHECK(result.source_runs && !result.target_runs);
		CHECK(result.target != 0);
		CHECK(result.source.text[0]);
		break;
	default:
		CHECK_EQ(result.source.state, MIGRATION_UNRESOLVED);
		CHECK(!result.source_runs);
		CHECK(strstr(result.source.text, "--resolve"));
		break;
	}
	CHECK(result.devices_right);
	CHECK(!result.disk_free || (result.source.state == MIGRATION_UNRESOLVED && !result.target_runs));
}

static void run(const struct rig_options *options)
{
	rig_run(options, &result);
	check_one_runs();
}

/* Both users read the same words, whoever's fault it is. */
static void fails_with(struct rig_options *options, const char *words)
{
	run(options);
	if (!strstr(result.source.text, words) || !strstr(result.target_err.text, words))
		printf("# %s: state %d, source \"%s\", target \"%s\"\n", words, result.source.state, result.source.text,
		       result.target_err.text);
	CHECK_EQ(result.source.state, MIGRATION_FAILED);
	CHECK(strstr(result.source.text, words));
	CHECK(strstr(result.target_err.text, words));
}
