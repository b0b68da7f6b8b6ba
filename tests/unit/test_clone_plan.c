/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/cli/clone_plan: each clone's command line is that of mvmm clone with its number in it, and what two clones cannot
 * both use is refused by the option that needs the number, before anything is started.
 */
#include "tests/unit/snapshot_rig.h"
#include "vmm/cli/clone.h"

#include <stdlib.h>

#define OFFER(config)                                                                                                   \
	"{\"version\": 1, \"tsc_khz\": 1, \"hotplug\": 0, \"cpu\": {}, \"memory\": [{\"gpa\": 0, \"size\": 4096}], " \
	"\"devices\": [], \"config\": {\"name\": \"web\"" config "}}"

static struct snapshot_rig rig;
static struct clone_options given;
static struct clone_source source;
static struct clone_plan plan;
static struct err err;

static void make(const char *offer)
{
	rig_mkdir();
	rig_init(&rig, 1, 0);
	rig_finish_with(&rig, offer);
	CHECK_EQ(rig_write(&rig, rig_path("s"), 0, &err), 0);
	source = (struct clone_source){.folder = (char *)rig_path("s"), .state = -1, .memory = -1};
}

static void unmake(void)
{
	rig_done(&rig);
	rig_rmdir();
}

/* The words of mvmm clone, without the operand. */
static int plan_for(unsigned int count, const char *const *words)
{
	int argc = 0, code;

	while (words[argc])
		argc++;
	memset(&given, 0, sizeof(given));
	options_init(&cli_clone_options, &given);
	err.text[0] = 0;
	code = options_parse(&cli_clone_options, &given, argc, (char *const *)words, NULL, 0, &err);
	given.count = count;
	code = code ?: clone_plan_make(argc, (char *const *)words, &given, &source, &plan, &err);
	options_done(&cli_clone_options, &given);
	return code;
}

#define PLAN(count, ...) plan_for(count, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* The words of clone n in one text. */
static const char *words_of(unsigned int n)
{
	static char text[1024];
	char **words = clone_plan_fill(&plan, n);

	CHECK(words);
	text[0] = 0;
	for (size_t i = 0; words[i]; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i ? " " : "", words[i]);
	clone_plan_free(words);
	return text;
}

static void check_refused(int code, const char *text)
{
	CHECK_EQ(code, -EINVAL);
	if (!strstr(err.text, text))
		printf("# %s\n", err.text);
	CHECK(strstr(err.text, text));
}

/* ---- command lines ---- */

static void the_number_is_filled_in_everywhere(void)
{
	char expected[400];

	make(OFFER(", \"disk\": [{\"path\": \"/own\", \"id\": \"root\"}]"));
	CHECK_EQ(PLAN(3, "--count", "3", "--json", "--jobs=2", "--name", "a{n}b{n}", "--disk", "root=/d{n}", "--serial=file=/l{n}",
		      "--paused", "--quiet"), 0);
	snprintf(expected, sizeof(expected), "mvmm restore --from %s --name a3b3 --disk root=/d3 --serial=file=/l3 --paused "
		 "--quiet --ready-fd 3", source.folder);
	CHECK_STR(words_of(3), expected);
	clone_plan_done(&plan);
	unmake();
}

static void names_and_ports_have_defaults_that_clones_can_share(void)
{
	make(OFFER(""));
	CHECK_EQ(PLAN(2), 0);
	CHECK(strstr(words_of(12), "--name web-12 --serial none "));
	clone_plan_done(&plan);
	CHECK_EQ(PLAN(2, "--name=other"), 0);
	CHECK(strstr(words_of(2), "--name other-2 "));
	clone_plan_done(&plan);
	unmake();
}

/* ---- what they cannot share ---- */

static void a_writable_disk_needs_the_number(void)
{
	make(OFFER(", \"disk\": [{\"path\": \"/cd\", \"id\": \"cd\", \"readonly\": true}, {\"path\": \"/own\", \"id\": \"root\"}]"));
	check_refused(PLAN(2), "--disk root=/own: the clones cannot share it; write {n} in it");
	check_refused(PLAN(2, "--disk", "root=/new"), "--disk root=/new: ");
	CHECK_EQ(PLAN(1, "--disk", "root=/new"), 0);
	clone_plan_done(&plan);
	CHECK_EQ(PLAN(2, "--disk", "root=/new{n}"), 0);
	clone_plan_done(&plan);
	unmake();
}

static void networks_sockets_and_devices_need_the_number(void)
{
	make(OFFER(", \"net\": [{\"tap\": \"tap0\", \"id\": \"net0\"}], \"vsock\": {\"cid\": 5, \"socket\": \"/run/v\"}"));
	check_refused(PLAN(2), "--net net0=tap0: the clones cannot share it");
	check_refused(PLAN(2, "--net=net0=tap=t{n}"), "--vsock /run/v: the clones cannot share it");
	check_refused(PLAN(2, "--net=net0=tap=t{n}", "--vsock=kernel"), "CID 5");
	check_refused(PLAN(2, "--net=net0=tap=t{n}", "--vsock=/v{n}", "--serial=file=/log"), "--serial /log: ");
	check_refused(PLAN(2, "--net=net0=tap=t{n}", "--vsock=/v{n}", "--vfio=0000:01:00.0"), "--vfio 0000:01:00.0: ");
	CHECK_EQ(PLAN(2, "--net=net0=tap=t{n}", "--vsock=/v{n}", "--vfio=0000:01:00.{n}", "--serial=pty"), 0);
	clone_plan_done(&plan);
	CHECK_EQ(PLAN(2, "--net=net0=passt", "--vsock=cid=10{n},kernel"), 0);
	clone_plan_done(&plan);
	unmake();
}

static void nobody_has_the_terminal(void)
{
	make(OFFER(""));
	check_refused(PLAN(1, "--serial=stdio"), "--serial stdio: clones run in the background");
	unmake();
}

static void options_of_restore_are_checked_once_before(void)
{
	make(OFFER(""));
	check_refused(PLAN(2, "--disk=none=/x{n}"), "none");
	check_refused(PLAN(2, "--from=/x"), "--from: unknown option");
	check_refused(PLAN(2, "--name=a/b"), "--name");
	check_refused(PLAN(2, "--verbose", "--quiet"), "--quiet: cannot be combined");
	check_refused(PLAN(2, "--disk-changed=none"), "--disk-changed none: the machine has no such disk");
	check_refused(PLAN(2, "--disk-from=none=/x"), "--disk-from none=/x: the machine has no such disk");
	unmake();
}

TEST_MAIN(TEST(the_number_is_filled_in_everywhere), TEST(names_and_ports_have_defaults_that_clones_can_share),
	  TEST(a_writable_disk_needs_the_number), TEST(networks_sockets_and_devices_need_the_number),
	  TEST(nobody_has_the_terminal), TEST(options_of_restore_are_checked_once_before))
