/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See resolve.h. The helper writes to descriptor 3: a line for each address, in numbers, or "!" and why there is none.
 */
#include "vmm/migration/resolve.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>

#include "core/helpers.h"
#include "vmm/jail/seccomp.h"
#include "vmm/migration/helper.h"
#include "vmm/migration/socket.h"

#define HELPER "mvmm-resolve"
#define MAX_REPLY 1024 /* bytes; more than RESOLVE_MAX addresses take */

/* ---- numbers ---- */

static bool resolve_ip4(const char *host, uint16_t port, struct resolved *ret)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		return false;
	*ret = (struct resolved){.len = sizeof(address)};
	memcpy(&ret->address, &address, sizeof(address));
	return true;
}

/* The scope behind %, RFC 4007 section 11: the name of an interface, or its number. 0: there is no such interface. */
static uint32_t resolve_scope(const char *text)
{
	uint32_t index = if_nametoindex(text);
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	return index ?: *text >= '0' && *text <= '9' && !*end && number <= UINT32_MAX ? (uint32_t)number : 0;
}

static bool resolve_ip6(const char *host, uint16_t port, struct resolved *ret)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	size_t len = strcspn(host, "%");
	char text[INET6_ADDRSTRLEN];

	if (len >= sizeof(text))
		return false;
	memcpy(text, host, len);
	text[len] = 0;
	if (inet_pton(AF_INET6, text, &address.sin6_addr) != 1)
		return false;
	if (host[len])
		address.sin6_scope_id = resolve_scope(host + len + 1);
	if (host[len] && !address.sin6_scope_id)
		return false;
	*ret = (struct resolved){.len = sizeof(address)};
	memcpy(&ret->address, &address, sizeof(address));
	return true;
}

static bool resolve_numbers(const char *host, uint16_t port, struct resolved *ret)
{
	return resolve_ip4(host, port, ret) || resolve_ip6(host, port, ret);
}

bool resolve_write(const struct sockaddr_storage *address, char text[RESOLVE_TEXT])
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
	char interface[IF_NAMESIZE];
	size_t len;

	if (address->ss_family == AF_INET)
		return inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, RESOLVE_TEXT);
	if (address->ss_family != AF_INET6 || !inet_ntop(AF_INET6, &in6->sin6_addr, text, RESOLVE_TEXT))
		return false;
	len = strlen(text);
	if (in6->sin6_scope_id && if_indextoname(in6->sin6_scope_id, interface))
		snprintf(text + len, RESOLVE_TEXT - len, "%%%s", interface);
	else if (in6->sin6_scope_id)
		snprintf(text + len, RESOLVE_TEXT - len, "%%%u", in6->sin6_scope_id);
	return true;
}

/* In both families it lies at the same place. */
uint16_t resolve_port(const struct sockaddr_storage *address)
{
	return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

/* ---- names ---- */

/* Reads until the helper closes its end. */
static int resolve_read(const struct resolve_options *options, int fd, char reply[MAX_REPLY], struct err *err)
{
	size_t have = 0;
	ssize_t n = 1;
	int code = 0;

	while (n > 0 && have < MAX_REPLY - 1) {
		code = socket_wait(fd, POLLIN, options->cancel_fd, options->deadline, err);
		if (code)
			return code;
		n = read(fd, reply + have, MAX_REPLY - 1 - have);
		have += (size_t)MAX(n, 0);
	}
	reply[have] = 0;
	return 0;
}

static int resolve_ask(const struct resolve_options *options, char reply[MAX_REPLY], struct err *err)
{
	_cleanup_(fd_close) int ours = -1;
	int ends[2], code;
	char path[PATH_MAX];
	const char *const argv[] = {path, options->host, seccomp_words[seccomp_mode()], NULL};
	pid_t pid;

	if (options->helper)
		snprintf(path, sizeof(path), "%s", options->helper);
	else
		helper_find(HELPER, path);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, -errno, "%s", options->host);
	ours = ends[0];
	code = helpers_start(argv, &ends[1], 1, -1, &pid);
	close(ends[1]);
	if (code)
		return err_set(err, code, "%s: names are looked up by %s, which cannot be started (%s); write the host's "
			       "address in numbers", options->host, path, strerrordesc_np(-code));
	code = resolve_read(options, ours, reply, err);
	helpers_kill(pid);
	return code == -ETIMEDOUT ? err_set(err, code, "%s: no name service answers", options->host) : code;
}

static int resolve_name(const struct resolve_options *options, uint16_t port, struct resolved *ret, struct err *err)
{
	char reply[MAX_REPLY], *rest = reply;
	int code = resolve_ask(options, reply, err), count = 0;

	if (code)
		return code;
	for (char *line; count < RESOLVE_MAX && reply[0] != '!' && (line = strsep(&rest, "\n"));)
		count += resolve_numbers(line, port, &ret[count]);
	if (count)
		return count;
	reply[strcspn(reply, "\n")] = 0;
	return err_set(err, -ENOENT, "%s: %.200s", options->host, reply[0] == '!' ? reply + 1 : "no address was found");
}

int resolve(const struct resolve_options *options, struct resolved ret[RESOLVE_MAX], struct err *err)
{
	uint16_t port = (uint16_t)strtoul(options->port, NULL, 10);

	if (!*options->host)
		return resolve_ip4("0.0.0.0", port, &ret[0]) + resolve_ip6("::", port, &ret[1]);
	return resolve_numbers(options->host, port, &ret[0]) ? 1 : resolve_name(options, port, ret, err);
}
