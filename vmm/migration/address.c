/* SPDX-License-Identifier: Apache-2.0 */
/* See address.h. */
#include "vmm/migration/address.h"

#include <arpa/inet.h>
#include <stdio.h>

#define FORMS "write tcp:HOST[:PORT], unix:PATH or fd:N"

/* Parses len characters as a number from min to max; -1 if they are not. */
static long address_parse_number(const char *text, size_t len, long min, long max)
{
	long value = 0;

	if (!len || len > 9)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (text[i] - '0');
	}
	return value >= min && value <= max ? value : -1;
}

/* Returns the end of HOST and sets *host and *len; NULL if the brackets are wrong. */
static const char *address_split_host(const char *text, const char **host, size_t *len)
{
	const char *end;

	if (*text == '[') {
		end = strchr(text, ']');
		if (!end)
			return NULL;
		*host = text + 1;
		*len = (size_t)(end - *host);
		return *len && (!end[1] || end[1] == ':') ? end + 1 : NULL;
	}
	end = strchrnul(text, ':');
	*host = text;
	*len = (size_t)(end - text);
	return end;
}

static int address_parse_tcp(const char *text, bool listening, struct address *address, struct err *err)
{
	const char *host, *rest, *port = ADDRESS_PORT;
	struct in6_addr in6;
	size_t len;

	rest = address_split_host(text, &host, &len);
	if (!rest)
		return err_set(err, -EINVAL, "tcp:%.100s: write an IPv6 address in brackets, such as tcp:[fe80::1]:%s",
			       text, ADDRESS_PORT);
	if (strchr(rest, ':') && strchr(rest + 1, ':'))
		return err_set(err, -EINVAL, "tcp:%.100s: more than one colon; write an IPv6 address in brackets, such "
			       "as tcp:[%.60s]", text, text);
	if (len > ADDRESS_MAX_HOST)
		return err_set(err, -EINVAL, "tcp:%.60s...: a host name has at most %u characters", text, ADDRESS_MAX_HOST);
	if (!len && !listening)
		return err_set(err, -EINVAL, "tcp:%.100s: the host is missing; write tcp:HOST[:PORT]", text);
	memcpy(address->host, host, len);
	if (*text == '[' && inet_pton(AF_INET6, address->host, &in6) != 1 && !strchr(address->host, '%'))
		return err_set(err, -EINVAL, "tcp:%.100s: %.60s is not an IPv6 address", text, address->host);
	if (*rest == ':') {
		port = rest + 1;
		if (address_parse_number(port, strlen(port), 1, 65535) < 0)
			return err_set(err, -EINVAL, "tcp:%.100s: the port is a number from 1 to 65535; without one it is %s",
				       text, ADDRESS_PORT);
	}
	snprintf(address->port, sizeof(address->port), "%s", port);
	snprintf(address->text, sizeof(address->text), *text == '[' ? "tcp:[%s]:%s" : "tcp:%s:%s", address->host, port);
	return 0;
}

static int address_parse_unix(const char *text, struct address *address, struct err *err)
{
	if (!*text)
		return err_set(err, -EINVAL, "unix: the path is missing; write unix:PATH");
	if (strlen(text) >= sizeof(address->path))
		return err_set(err, -EINVAL, "unix:%.60s...: the path has more than %zu characters", text,
			       sizeof(address->path) - 1);
	memcpy(address->path, text, strlen(text));
	snprintf(address->text, sizeof(address->text), "unix:%s", text);
	return 0;
}

static int address_parse_fd(const char *text, struct address *address, struct err *err)
{
	long fd = address_parse_number(text, strlen(text), 3, 999999);

	if (fd < 0)
		return err_set(err, -EINVAL, "fd:%.60s: not the number of a descriptor, 3 or more", text);
	address->fd = (int)fd;
	snprintf(address->text, sizeof(address->text), "fd:%ld", fd);
	return 0;
}

int address_parse(const char *text, bool listening, struct address *ret, struct err *err)
{
	struct address address = {.fd = -1};
	int code;

	if (strncmp(text, "tcp:", 4) == 0) {
		address.kind = ADDRESS_TCP;
		code = address_parse_tcp(text + 4, listening, &address, err);
	} else if (strncmp(text, "unix:", 5) == 0) {
		address.kind = ADDRESS_UNIX;
		code = address_parse_unix(text + 5, &address, err);
	} else if (strncmp(text, "fd:", 3) == 0) {
		address.kind = ADDRESS_FD;
		code = address_parse_fd(text + 3, &address, err);
	} else {
		code = err_set(err, -EINVAL, "%.100s: not an address; " FORMS, text);
	}
	if (!code)
		*ret = address;
	return code;
}

static bool address_in6_is_local(const struct in6_addr *in6)
{
	return IN6_IS_ADDR_LOOPBACK(in6) || (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
}

/* Where a connected socket leads to, or a listening one is bound. What is no socket is refused later. */
static bool address_socket_is_local(int fd)
{
	struct sockaddr_storage name = {.ss_family = AF_UNSPEC};
	socklen_t len = sizeof(name);

	if (getpeername(fd, (struct sockaddr *)&name, &len) < 0) {
		len = sizeof(name);
		if (getsockname(fd, (struct sockaddr *)&name, &len) < 0)
			return true;
	}
	if (name.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&name)->sin_addr.s_addr) >> 24 == 127;
	if (name.ss_family == AF_INET6)
		return address_in6_is_local(&((struct sockaddr_in6 *)&name)->sin6_addr);
	return true;
}

bool address_is_local(const struct address *address)
{
	struct in6_addr in6;
	struct in_addr in4;

	if (address->kind == ADDRESS_FD)
		return address_socket_is_local(address->fd);
	if (address->kind == ADDRESS_UNIX)
		return true;
	if (inet_pton(AF_INET, address->host, &in4) == 1)
		return ntohl(in4.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, address->host, &in6) == 1)
		return address_in6_is_local(&in6);
	return strcmp(address->host, "localhost") == 0;
}
