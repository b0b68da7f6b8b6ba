/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/resolve and mvmm-resolve: an address in numbers needs nobody; a name is looked up by a program whose reply is not
 * trusted, and which is not waited for longer than allowed.
 */
#include "vmm/migration/resolve.h"
#include "core/monotonic.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct resolved found[RESOLVE_MAX];
static struct err err;
static char script[64];

static int look_up(const char *host, const char *helper, int cancel_fd, int ms)
{
	const struct resolve_options options = {
		.host = host, .port = "7150", .helper = helper, .cancel_fd = cancel_fd, .deadline = monotonic_ms() + ms,
	};

	memset(found, 0, sizeof(found));
	err.text[0] = 0;
	return resolve(&options, found, &err);
}

static const char *text(size_t i)
{
	static char bytes[RESOLVE_TEXT];

	return resolve_write(&found[i].address, bytes) ? bytes : "";
}

/* A helper of the test's own. */
static const char *helper(const char *commands)
{
	FILE *file;
	int fd;

	strcpy(script, "/tmp/test_resolve.XXXXXX");
	fd = mkstemp(script);
	CHECK(fd >= 0 && fchmod(fd, 0700) == 0);
	file = fdopen(fd, "w");
	fprintf(file, "#!/bin/sh\n%s\n", commands);
	fclose(file);
	return script;
}

static void numbers_need_nobody(void)
{
	static const struct {
		const char *host, *text;
		int family;
		socklen_t len;
	} cases[] = {
		{"127.0.0.1", "127.0.0.1", AF_INET, sizeof(struct sockaddr_in)},
		{"::1", "::1", AF_INET6, sizeof(struct sockaddr_in6)},
		{"fe80::1%lo", "fe80::1%lo", AF_INET6, sizeof(struct sockaddr_in6)},
		{"fe80::1%4000000", "fe80::1%4000000", AF_INET6, sizeof(struct sockaddr_in6)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_EQ(look_up(cases[i].host, "/nowhere", -1, 0), 1);
		CHECK_EQ(found[0].address.ss_family, cases[i].family);
		CHECK_EQ(found[0].len, cases[i].len);
		CHECK_STR(text(0), cases[i].text);
		CHECK_EQ(resolve_port(&found[0].address), 7150);
	}
	CHECK_EQ(((struct sockaddr_in6 *)&found[0].address)->sin6_scope_id, 4000000);
	CHECK_EQ(look_up("fe80::1%lo", "/nowhere", -1, 0), 1);
	CHECK_EQ(((struct sockaddr_in6 *)&found[0].address)->sin6_scope_id, if_nametoindex("lo"));
	CHECK_EQ(look_up("", "/nowhere", -1, 0), 2);
	CHECK_STR(text(0), "0.0.0.0");
	CHECK_STR(text(1), "::");
}

static void a_name_is_looked_up(void)
{
	int count = look_up("localhost", MVMM_RESOLVE, -1, 20000);

	CHECK(count > 0);
	for (int i = 0; i < count; i++)
		CHECK(strcmp(text((size_t)i), "127.0.0.1") == 0 || strcmp(text((size_t)i), "::1") == 0);
	CHECK_EQ(look_up("no.such.host.invalid", MVMM_RESOLVE, -1, 20000), -ENOENT);
	CHECK(strncmp(err.text, "no.such.host.invalid: ", 22) == 0 && strlen(err.text) > 22);
}

static void a_reply_is_read_with_care(void)
{
	int count;

	CHECK_EQ(look_up("h", helper("echo 10.0.0.1 >&3; echo nonsense >&3; echo ::5 >&3"), -1, 20000), 2);
	CHECK_STR(text(0), "10.0.0.1");
	CHECK_STR(text(1), "::5");
	unlink(script);
	CHECK_EQ(look_up("h", helper("while echo 10.0.0.1; do :; done >&3"), -1, 20000), RESOLVE_MAX);
	unlink(script);
	count = look_up("h", helper("echo '!nobody knows it' >&3"), -1, 20000);
	CHECK_EQ(count, -ENOENT);
	CHECK_STR(err.text, "h: nobody knows it");
	unlink(script);
	CHECK_EQ(look_up("h", helper("exit 0"), -1, 20000), -ENOENT);
	CHECK_STR(err.text, "h: no address was found");
	unlink(script);
}

static void a_name_service_is_not_waited_for_for_ever(void)
{
	int cancel_fd = eventfd(1, EFD_CLOEXEC);

	CHECK_EQ(look_up("h", helper("sleep 100"), -1, 50), -ETIMEDOUT);
	CHECK_STR(err.text, "h: no name service answers");
	CHECK_EQ(look_up("h", script, cancel_fd, 20000), -ECANCELED);
	unlink(script);
	close(cancel_fd);
	CHECK(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
}

static void without_the_helper_numbers_are_advised(void)
{
	CHECK_EQ(look_up("h", "/nowhere", -1, 20000), -ENOENT);
	CHECK(strstr(err.text, "h: names are looked up by /nowhere, which cannot be started"));
	CHECK(strstr(err.text, "; write the host's address in numbers"));
}

TEST_MAIN(TEST(numbers_need_nobody), TEST(a_name_is_looked_up), TEST(a_reply_is_read_with_care),
	  TEST(a_name_service_is_not_waited_for_for_ever), TEST(without_the_helper_numbers_are_advised))
