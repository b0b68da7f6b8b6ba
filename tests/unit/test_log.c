/* SPDX-License-Identifier: Apache-2.0 */
/* core/log: a call site that repeats itself is limited for each device, and a reader that does not read costs lines. */
#include "core/log.h"
#include "core/nowait.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/thread.h"

static int reader;
static char text[200000];

static struct log begin(void)
{
	struct log log = {.level = LOG_INFO, .prefix = "mvmm: "};
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	CHECK_EQ(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	reader = ends[0];
	log.fd = ends[1];
	log_open(&log);
	CHECK(log.state);
	CHECK_EQ(fcntl(log.fd, F_GETFL) & O_NONBLOCK, 0); /* others write there, too */
	return log;
}

/* What was written since the last call. */
static const char *hear(void)
{
	ssize_t n = read(reader, text, sizeof(text) - 1);

	text[MAX(n, 0)] = 0;
	return text;
}

static void end(struct log *log)
{
	log_close(log);
	CHECK(!log->state);
	close(log->fd);
	close(reader);
}

static unsigned int count(const char *line)
{
	unsigned int found = 0;

	for (const char *at = text; (at = strstr(at, line)); at++)
		found++;
	return found;
}

static void speak(const struct log *log, const char *device, unsigned int i)
{
	log_warn(log, "%s: command %u", device, i);
}

static void repetition_is_limited_for_each_device(void)
{
	struct log log = begin();

	for (unsigned int i = 0; i < 1000; i++) {
		speak(&log, "net0", i);
		speak(&log, "net1", i);
	}
	log_info(&log, "something else");
	hear();
	CHECK_EQ(count("net0: command"), 10);
	CHECK_EQ(count("net1: command"), 10);
	CHECK_EQ(count("mvmm: something else\n"), 1);
	log_close(&log);
	hear();
	CHECK_STR(text, "mvmm: 1980 more lines were left out\n");
	end(&log);
}

/* Whatever a guest can make a device say, and however many devices it has. */
static void all_together_is_limited(void)
{
	struct log log = begin();
	char device[32];
	size_t heard = 0;

	for (unsigned int i = 0; i < 20000; i++) {
		snprintf(device, sizeof(device), "device%u", i);
		speak(&log, device, i);
		if (i % 500 == 0)
			heard += strlen(hear());
	}
	heard += strlen(hear());
	CHECK(heard < KIB(200));
	end(&log);
}

static void nobody_waits_for_the_reader(void)
{
	struct log log = begin();
	char device[32];

	CHECK_EQ(fcntl(log.fd, F_SETPIPE_SZ, 8192), 8192);
	for (unsigned int i = 0; i < 1000; i++) {
		snprintf(device, sizeof(device), "device%u", i);
		speak(&log, device, i);
	}
	hear();
	CHECK(strlen(text) > 0 && strlen(text) <= 8192);
	log_info(&log, "again");
	hear();
	CHECK(strstr(text, "lines were lost here: nobody read them\nmvmm: again\n"));
	end(&log);
}

static void only_what_stays_the_same_is_opened_again(void)
{
	_cleanup_(fd_close) int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	_cleanup_(fd_close) int slave = -1, again = -1, file = memfd_create("log", MFD_CLOEXEC);

	CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	again = nowait_reopen(slave);
	CHECK(again >= 0 && fcntl(again, F_GETFL) & O_NONBLOCK);
	CHECK_EQ(nowait_reopen(master), -1);
	CHECK_EQ(nowait_reopen(file), -1);
}

/* ---- files and the journal ---- */

static void *speak_elsewhere(void *opaque)
{
	log_warn(opaque, "disk0: %s", "a\nb\x1b[2J");
	return NULL;
}

static void a_file_tells_time_machine_and_thread(void)
{
	struct log log = {.level = LOG_WARN, .prefix = "mvmm: "};
	char path[80], before[64], who[64], said[64];
	pthread_t thread;
	FILE *file;

	snprintf(path, sizeof(path), "%.40s/logXXXXXX", getenv("TMPDIR") ?: "/tmp");
	close(mkstemp(path));
	CHECK_EQ(log_to_file(&log, path, NULL), 0);
	log_open(&log);
	log_error(&log, "first");
	log_set_machine(&log, "web");
	log_info(&log, "not so important");
	CHECK_EQ(thread_start(&thread, THREAD_LOOP, speak_elsewhere, &log, "disk0-q%d", 3), 0);
	pthread_join(thread, NULL);
	log_close(&log);
	CHECK_EQ(log.fd, -1);
	/* Another one appends. */
	CHECK_EQ(log_to_file(&log, path, NULL), 0);
	log_open(&log);
	log_warn(&log, "last");
	log_close(&log);
	file = fopen(path, "re");
	CHECK(file);
	CHECK_EQ(fscanf(file, "%63s %63s %63[^\n]\n", before, who, said), 3);
	CHECK_EQ(strlen(before), strlen("2026-11-30T12:00:00.000000Z"));
	CHECK_STR(who, "mvmm[main]");
	CHECK_STR(said, "first");
	CHECK_EQ(fscanf(file, "%63s %63s %63[^\n]\n", before, who, said), 3);
	CHECK_STR(who, "web[disk0-q3]");
	CHECK_STR(said, "warning: disk0: a?b?[2J");
	CHECK_EQ(fscanf(file, "%63s %63s %63[^\n]\n", before, who, said), 3);
	CHECK_STR(said, "warning: last");
	CHECK(fgetc(file) == EOF);
	fclose(file);
	unlink(path);
}

static void a_file_that_cannot_be_written_is_named(void)
{
	struct log log = {.level = LOG_WARN};
	struct err err;

	CHECK_EQ(log_to_file(&log, "/nowhere/log", &err), -ENOENT);
	CHECK_STR(err.text, "/nowhere/log: No such file or directory");
	CHECK_EQ(log.form, LOG_PLAIN);
}

/* The journal's end of a socket pair that keeps datagrams whole. */
static void the_journal_gets_fields(void)
{
	struct log log = {.level = LOG_DEBUG, .prefix = "mvmm: ", .form = LOG_JOURNAL};
	char text_of_it[2000];
	int ends[2];
	ssize_t n;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	log.fd = ends[0];
	log_open(&log);
	log_set_machine(&log, "web");
	log_warn(&log, "disk0: a\nPRIORITY=0");
	n = recv(ends[1], text_of_it, sizeof(text_of_it) - 1, 0);
	CHECK(n > 0);
	text_of_it[n] = 0;
	CHECK_STR(text_of_it, "SYSLOG_IDENTIFIER=mvmm\nPRIORITY=4\nMVMM_MACHINE=web\nMVMM_THREAD=main\n"
			      "MESSAGE=disk0: a?PRIORITY=0\n");
	/* A journal that does not read: lines are lost, nobody waits, and the next one tells how many. */
	CHECK_EQ(log_lost(&log), 0);
	for (unsigned int i = 0; i < 400; i++) {
		char device[24];

		snprintf(device, sizeof(device), "device%u", i);
		speak(&log, device, i);
	}
	CHECK(log_lost(&log) > 100);
	while (recv(ends[1], text_of_it, sizeof(text_of_it) - 1, 0) > 0)
		;
	log_error(&log, "again");
	n = recv(ends[1], text_of_it, sizeof(text_of_it) - 1, 0);
	text_of_it[MAX(n, 0)] = 0;
	CHECK(strstr(text_of_it, "MESSAGE=") && strstr(text_of_it, "lines were lost here"));
	log_close(&log);
	close(ends[1]);
}

/* Before and after the log goes to another file, which has all of what is not limited. */
static void brackets_name_instance_thread_and_level(void)
{
	struct log log = begin();
	int ends[2], year, day;
	char rest[64];

	log.brackets = true;
	log_set_machine(&log, "web-1");
	log_warn(&log, "a\nb");
	CHECK_EQ(sscanf(hear(), "%4d-%*2d-%2dT%*2d:%*2d:%*2d.%*9d %60[^\n]", &year, &day, rest), 3);
	CHECK_STR(rest, "[web-1:main] a?b");
	CHECK_EQ(pipe(ends), 0);
	close(log.fd);
	close(reader);
	reader = ends[0];
	CHECK_EQ(fcntl(reader, F_SETFL, O_NONBLOCK), 0);
	log_move(&log, &ends[1]);
	log.show_level = true;
	for (unsigned int i = 0; i < 100; i++)
		log_each(&log, LOG_INFO, "request %u", i);
	hear();
	CHECK_EQ(count(" [web-1:main:INFO] request "), 100);
	CHECK_EQ(log_lost(&log), 0);
	log_close(&log);
	CHECK_EQ(log.fd, -1);
	close(reader);
}

TEST_MAIN(TEST(brackets_name_instance_thread_and_level), TEST(a_file_tells_time_machine_and_thread), TEST(a_file_that_cannot_be_written_is_named),
	  TEST(the_journal_gets_fields), TEST(repetition_is_limited_for_each_device), TEST(all_together_is_limited), TEST(nobody_waits_for_the_reader),
	  TEST(only_what_stays_the_same_is_opened_again))
