/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/migration/address: where a migration goes, as people write it, and what they are told when that is nowhere. */
#include "tests/unit/test.h"
#include "vmm/migration/address.h"

#include <netinet/in.h>
#include <sys/socket.h>

static void reads_every_form(void)
{
	static const struct {
		const char *text;
		bool listening;
		enum address_kind kind;
		const char *host, *port, *path, *shown;
	} cases[] = {
		{"tcp:10.0.0.7", false, ADDRESS_TCP, "10.0.0.7", "7150", "", "tcp:10.0.0.7:7150"},
		{"tcp:there:1", false, ADDRESS_TCP, "there", "1", "", "tcp:there:1"},
		{"tcp:there:65535", true, ADDRESS_TCP, "there", "65535", "", "tcp:there:65535"},
		{"tcp:[::1]", false, ADDRESS_TCP, "::1", "7150", "", "tcp:[::1]:7150"},
		{"tcp:[fe80::1%eth0]:99", false, ADDRESS_TCP, "fe80::1%eth0", "99", "", "tcp:[fe80::1%eth0]:99"},
		{"tcp:", true, ADDRESS_TCP, "", "7150", "", "tcp::7150"},
		{"tcp::80", true, ADDRESS_TCP, "", "80", "", "tcp::80"},
		{"unix:/run/x", false, ADDRESS_UNIX, "", "", "/run/x", "unix:/run/x"},
		{"unix:a:b", true, ADDRESS_UNIX, "", "", "a:b", "unix:a:b"},
	};
	struct address address;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_EQ(address_parse(cases[i].text, cases[i].listening, &address, NULL), 0);
		CHECK_EQ(address.kind, cases[i].kind);
		CHECK_STR(address.host, cases[i].host);
		CHECK_STR(address.port, cases[i].port);
		CHECK_STR(address.path, cases[i].path);
		CHECK_STR(address.text, cases[i].shown);
	}
	CHECK_EQ(address_parse("fd:7", false, &address, NULL), 0);
	CHECK_EQ(address.kind, ADDRESS_FD);
	CHECK_EQ(address.fd, 7);
}

static void says_what_to_write_instead(void)
{
	static char long_path[140] = "unix:/", long_host[300] = "tcp:";
	static const struct {
		const char *text, *words;
	} cases[] = {
		{"", "write tcp:HOST[:PORT], unix:PATH or fd:N"},
		{"10.0.0.7", "10.0.0.7: not an address; write tcp:HOST"},
		{"tcp:", "tcp:: the host is missing"},
		{"tcp::7150", "the host is missing"},
		{"tcp:a:0", "a number from 1 to 65535; without one it is 7150"},
		{"tcp:a:65536", "a number from 1 to 65535"},
		{"tcp:a:", "a number from 1 to 65535"},
		{"tcp:a:1x", "a number from 1 to 65535"},
		{"tcp:a:99999999999999999999", "a number from 1 to 65535"},
		{"tcp:fe80::1", "more than one colon; write an IPv6 address in brackets"},
		{"tcp:[fe80::1", "write an IPv6 address in brackets"},
		{"tcp:[]:1", "write an IPv6 address in brackets"},
		{"tcp:[::1]x", "write an IPv6 address in brackets"},
		{"tcp:[zz]", "zz is not an IPv6 address"},
		{"unix:", "the path is missing"},
		{"fd:", "not the number of a descriptor, 3 or more"},
		{"fd:2", "not the number of a descriptor, 3 or more"},
		{"fd:-1", "not the number of a descriptor"},
		{long_path, "more than 107 characters"},
		{long_host, "at most 255 characters"},
	};
	struct address address = {.fd = 77};

	memset(long_path + 6, 'x', sizeof(long_path) - 7);
	memset(long_host + 4, 'x', sizeof(long_host) - 5);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err = {""};

		CHECK_EQ(address_parse(cases[i].text, false, &address, &err), -EINVAL);
		if (!strstr(err.text, cases[i].words))
			printf("# %s: %s\n", cases[i].text, err.text);
		CHECK(strstr(err.text, cases[i].words));
		CHECK_EQ(address.fd, 77);
	}
}

static void knows_what_leaves_the_host(void)
{
	static const struct {
		const char *text;
		bool local;
	} cases[] = {{"tcp:127.0.0.1", true}, {"tcp:127.9.9.9:1", true}, {"tcp:localhost", true}, {"tcp:[::1]", true},
		     {"unix:/x", true}, {"fd:5", true}, {"tcp:10.0.0.1", false}, {"tcp:[fe80::1]", false}, {"tcp:host", false},
		     {"tcp:128.0.0.1", false}, {"tcp:", false}};
	struct address address;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_EQ(address_parse(cases[i].text, true, &address, NULL), 0);
		CHECK_EQ(address_is_local(&address), cases[i].local);
	}
}

/* A socket that was handed in shows where it is. */
static void knows_it_of_sockets(void)
{
	static const struct {
		uint32_t address;
		bool local;
	} cases[] = {{INADDR_LOOPBACK, true}, {INADDR_ANY, false}};
	struct address address = {.kind = ADDRESS_FD};
	struct sockaddr_in6 every = {.sin6_family = AF_INET6};
	int pair[2];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(cases[i].address)};

		address.fd = socket(AF_INET, SOCK_STREAM, 0);
		CHECK_EQ(bind(address.fd, (struct sockaddr *)&name, sizeof(name)) | listen(address.fd, 1), 0);
		CHECK_EQ(address_is_local(&address), cases[i].local);
		close(address.fd);
	}
	address.fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (address.fd >= 0 && bind(address.fd, (struct sockaddr *)&every, sizeof(every)) == 0)
		CHECK(!address_is_local(&address));
	close(address.fd);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	address.fd = pair[0];
	CHECK(address_is_local(&address));
	close(pair[0]);
	close(pair[1]);
}

TEST_MAIN(TEST(knows_it_of_sockets), TEST(reads_every_form), TEST(says_what_to_write_instead), TEST(knows_what_leaves_the_host))
