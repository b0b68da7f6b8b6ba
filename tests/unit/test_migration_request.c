/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/migration/request: what the user asks goes to the machine as it was, and its limits hold on either side. */
#include "vmm/migration/request.h"
#include "tests/unit/test.h"

#include <stdio.h>

#define MS 1000000ull

static struct migration_request request;

/* What the machine makes of an object; the name of what it does not take. */
static const char *read_text(const char *text)
{
	json_t *object = json_loads(text, 0, NULL);
	const char *bad;

	migration_request_done(&request);
	bad = migration_request_from_json(object, &request);
	json_decref(object);
	return bad ?: "";
}

static void defaults_are_those_of_the_command(void)
{
	CHECK_STR(read_text("{\"to\": \"tcp:a\"}"), "");
	CHECK_EQ(request.goal.downtime, 300 * MS);
	CHECK_EQ(request.goal.throttle_max, 80);
	CHECK_EQ(request.downtime_limit, 0);
}

static void what_is_sent_arrives(void)
{
	struct migration_request sent;
	json_t *object;

	CHECK_STR(read_text("{\"to\": \"tcp:a\", \"downtime\": 0.25, \"downtime_limit\": 2.5, \"throttle_max\": 0}"), "");
	sent = request;
	request = (struct migration_request){0};
	object = migration_request_to_json(&sent);
	CHECK(migration_request_from_json(object, &request) == NULL);
	json_decref(object);
	CHECK_EQ(request.goal.downtime, 250 * MS);
	CHECK_EQ(request.downtime_limit, 2500 * MS);
	CHECK_EQ(request.goal.throttle_max, 0);
	migration_request_done(&sent);
}

static void what_cannot_be_is_named(void)
{
	CHECK_STR(read_text("{\"to\": \"tcp:a\", \"throttle_max\": 100}"), "throttle_max");
	CHECK_STR(read_text("{\"to\": \"tcp:a\", \"throttle_max\": -1}"), "throttle_max");
	CHECK_STR(read_text("{\"to\": \"tcp:a\", \"downtime_limit\": -1}"), "downtime_limit");
	CHECK_STR(read_text("{\"to\": \"tcp:a\", \"downtime\": 2, \"downtime_limit\": 1.9}"), "downtime_limit");
}

/* The limits are those of the options, for they are read by one function. */
static void limits_are_those_of_the_command(void)
{
	static const struct {
		const char *member, *bad;
	} cases[] = {
		{"\"downtime\": 0", "downtime"}, {"\"downtime\": 3601", "downtime"}, {"\"downtime\": \"1s\"", "downtime"},
		{"\"downtime\": 1e300", "downtime"}, {"\"timeout\": 0.5", "timeout"}, {"\"timeout\": -1", "timeout"},
		{"\"bandwidth\": 65535", "bandwidth"}, {"\"bandwidth\": 1.5", "bandwidth"}, {"\"streams\": 17", "streams"},
		{"\"device_rate\": 0", "device_rate"}, {"\"compress\": \"lzma\"", "compress"}, {"\"tls\": \"\"", "tls"},
		{"\"copy_disks\": true", "copy_disks"}, {"\"on-timeout\": \"cancel\"", "on-timeout"},
		{"\"bandwidth\": 0, \"streams\": 0, \"tls\": null", ""}, {"\"downtime\": 0.001", ""},
		{"\"bandwidth\": 65536, \"compress\": \"zstd\", \"copy_disks\": \"all\"", ""},
	};
	char text[200];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *object;

		snprintf(text, sizeof(text), "{\"to\": \"tcp:a\", %s}", cases[i].member);
		object = json_loads(text, 0, NULL);
		migration_request_done(&request);
		CHECK_STR(migration_request_from_json(object, &request) ?: "", cases[i].bad);
		json_decref(object);
	}
	CHECK_EQ(request.compress, MIGRATION_ZSTD);
	CHECK_EQ(request.copy_disks, MIGRATION_COPY_ALL);
	CHECK_STR(read_text("{}"), "to");
}

static void a_pause_is_given_up_after_twice_the_downtime(void)
{
	read_text("{\"to\": \"tcp:a\", \"downtime\": 0.3}");
	CHECK_EQ(migration_request_limit(&request, 0), 1000 * MS);
	CHECK_EQ(migration_request_limit(&request, 60000 * MS), 1000 * MS);
	read_text("{\"to\": \"tcp:a\", \"downtime\": 2}");
	CHECK_EQ(migration_request_limit(&request, 0), 4000 * MS);
}

static void a_limit_that_was_asked_for_counts(void)
{
	read_text("{\"to\": \"tcp:a\", \"downtime\": 0.01, \"downtime_limit\": 0.02, \"on_timeout\": \"stop-and-copy\"}");
	CHECK_EQ(migration_request_limit(&request, 60000 * MS), 20 * MS);
}

static void who_accepts_a_longer_pause_has_its_double(void)
{
	read_text("{\"to\": \"tcp:a\", \"on_timeout\": \"stop-and-copy\"}");
	CHECK_EQ(migration_request_limit(&request, 60000 * MS), 120000 * MS);
	CHECK_EQ(migration_request_limit(&request, 10 * MS), 1000 * MS);
	CHECK_EQ(migration_request_limit(&request, UINT64_MAX), 2 * 86400 * 1000 * MS);
	migration_request_done(&request);
}

TEST_MAIN(TEST(defaults_are_those_of_the_command), TEST(what_is_sent_arrives), TEST(what_cannot_be_is_named),
	  TEST(limits_are_those_of_the_command),
	  TEST(a_pause_is_given_up_after_twice_the_downtime), TEST(a_limit_that_was_asked_for_counts),
	  TEST(who_accepts_a_longer_pause_has_its_double))
