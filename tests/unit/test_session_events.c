/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/session/session_events: each watcher is told each event once, whoever comes and goes meanwhile; and they are counted. */
#include "tests/unit/test.h"
#include "vmm/machine/machine_internal.h"
#include "vmm/session/session_events.c"

static struct machine machine;
static struct machine_config config = {.name = (char *)"vm"};
static struct session session;

/* What a watcher has heard: "event member=value;". */
struct listener {
	struct event_watcher watcher;
	char heard[600];
	bool leaves; /* when it hears something */
};

static void hear(void *opaque, const json_t *event)
{
	struct listener *listener = opaque;
	size_t len = strlen(listener->heard);
	const char *key;
	json_t *value;

	CHECK_STR(json_string_value(json_object_get(event, "name")), "vm");
	CHECK_EQ(strlen(json_string_value(json_object_get(event, "time"))), strlen("2026-11-30T12:00:00.000000Z"));
	len += (size_t)snprintf(listener->heard + len, sizeof(listener->heard) - len, "%s",
				json_string_value(json_object_get(event, "event")));
	json_object_foreach((json_t *)event, key, value) {
		char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));

		if (strcmp(key, "name") != 0 && strcmp(key, "time") != 0 && strcmp(key, "event") != 0)
			len += (size_t)snprintf(listener->heard + len, sizeof(listener->heard) - len, " %s=%s", key, text);
		free(text);
	}
	snprintf(listener->heard + len, sizeof(listener->heard) - len, ";");
	if (listener->leaves)
		session_events_unwatch(&session, &listener->watcher);
}

static void begin(void)
{
	machine = (struct machine){0};
	session = (struct session){.config = &config, .machine = &machine};
}

static struct listener *listen_to(struct listener *listener)
{
	*listener = (struct listener){.watcher = {.event = hear, .opaque = listener}};
	CHECK_EQ(session_events_watch(&session, "running", &listener->watcher, NULL), 0);
	return listener;
}

static void the_state_comes_first(void)
{
	struct listener one, other;

	begin();
	session_event(&session, SESSION_PAUSED, NULL);
	listen_to(&one);
	session_event_device(&session, SESSION_DEVICE_ADDED, "disk0");
	listen_to(&other);
	session_event(&session, SESSION_RESUMED, NULL);
	CHECK_STR(one.heard, "state state=\"running\";device-added id=\"disk0\";resumed;");
	CHECK_STR(other.heard, "state state=\"running\";resumed;");
	session_events_unwatch(&session, &other.watcher);
	session_events_unwatch(&session, &other.watcher);
	session_event(&session, SESSION_BUTTON, NULL);
	CHECK_STR(one.heard, "state state=\"running\";device-added id=\"disk0\";resumed;power-button;");
	CHECK_STR(other.heard, "state state=\"running\";resumed;");
	CHECK_EQ(session.events.counts[SESSION_PAUSED], 1);
	CHECK_EQ(session.events.counts[SESSION_BUTTON], 1);
}

static void one_that_leaves_while_it_is_told_keeps_nobody_from_hearing(void)
{
	struct listener listeners[3];

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(listeners); i++)
		listen_to(&listeners[i])->heard[0] = 0;
	listeners[1].leaves = true;
	session_event(&session, SESSION_PAUSED, NULL);
	session_event(&session, SESSION_RESUMED, NULL);
	CHECK_STR(listeners[0].heard, "paused;resumed;");
	CHECK_STR(listeners[1].heard, "paused;");
	CHECK_STR(listeners[2].heard, "paused;resumed;");
}

static void an_end_has_its_reason(void)
{
	static const char *const heard[] = {
		[MACHINE_OFF] = "ended reason=\"off\";", [MACHINE_REBOOT] = "ended reason=\"reboot\";",
		[MACHINE_PANIC] = "ended reason=\"panic\";", [MACHINE_STOPPED] = "ended reason=\"stopped\";",
		[MACHINE_FAILED] = "ended reason=\"failed\";",
	};
	struct listener listener;

	begin();
	listen_to(&listener);
	for (enum machine_end end = MACHINE_OFF; end <= MACHINE_FAILED; end++) {
		listener.heard[0] = 0;
		machine.end = end;
		session_events_ended(&session);
		CHECK_STR(listener.heard, heard[end]);
	}
	listener.heard[0] = 0;
	session.gone = true;
	session_events_ended(&session);
	session.gone = false;
	session.machine = NULL; /* the next life could not be made */
	session_events_ended(&session);
	CHECK_STR(listener.heard, "ended reason=\"moved\";ended reason=\"failed\";");
}

static void long_operations_have_states(void)
{
	struct migration_report migration = {.state = MIGRATION_FAILED, .text = "no way"};
	struct snapshot_report snapshot = {.phase = SNAPSHOT_PAUSED};
	const struct virtio_blk_health health = {.failed = 3, .last = "read at offset 0: Input/output error"};
	struct listener listener;

	begin();
	listen_to(&listener)->heard[0] = 0;
	session_events_migration(&session, &migration);
	migration = (struct migration_report){.state = MIGRATION_DONE, .downtime = 25000000};
	session_events_migration(&session, &migration);
	session_events_snapshot(&session, &snapshot);
	snapshot = (struct snapshot_report){.phase = SNAPSHOT_DONE, .pause = 1500000, .id = {1, 2}};
	session_events_snapshot(&session, &snapshot);
	session_events_disk(&session, "disk0", &health);
	CHECK_STR(listener.heard,
		  "migration state=\"failed\" text=\"no way\";migration state=\"done\" downtime=0.025;"
		  "snapshot state=\"paused\";"
		  "snapshot state=\"done\" id=\"01020000-0000-0000-0000-000000000000\" pause=0.0015;"
		  "disk-error id=\"disk0\" failed=3 last=\"read at offset 0: Input/output error\";");
}

static void each_event_is_documented(void)
{
	static char document[KIB(64)];
	FILE *file = fopen(TESTS_UNIT "/../../docs/control.md", "re");
	const char *table;

	CHECK(file && fread(document, 1, sizeof(document) - 1, file) > 1000);
	fclose(file);
	table = strstr(document, "| event | when |");
	CHECK(table);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char first[40], second[40], alone[40];

		snprintf(alone, sizeof(alone), "\n| %s | ", names[i]);
		snprintf(first, sizeof(first), "\n| %s, ", names[i]);
		snprintf(second, sizeof(second), ", %s | ", names[i]);
		if (!strstr(table, alone) && !strstr(table, first) && !strstr(table, second)) {
			printf("# %s is not in docs/control.md\n", names[i]);
			CHECK(false);
		}
	}
}

TEST_MAIN(TEST(each_event_is_documented), TEST(the_state_comes_first), TEST(one_that_leaves_while_it_is_told_keeps_nobody_from_hearing),
	  TEST(an_end_has_its_reason), TEST(long_operations_have_states))
