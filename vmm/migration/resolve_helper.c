/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mvmm-resolve: looks up the addresses of a host. Started by vmm/migration/resolve.c, which ends it when it takes too
 * long.
 *
 *	mvmm-resolve HOST on|off|log
 *
 * The last word is that of --seccomp: it has no capabilities and a filter of system calls when it asks.
 *
 * Writes to descriptor 3 a line for each address, in numbers, in the order in which they are to be tried (RFC 6724); or
 * "!" and the reason.
 */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

#include "vmm/jail/confine.h"

enum { REPLY = 3 };

static int resolve_helper_tell(const struct addrinfo *list)
{
	char text[NI_MAXHOST];
	int told = 0;

	for (const struct addrinfo *each = list; each; each = each->ai_next)
		if (getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) == 0)
			told += dprintf(REPLY, "%s\n", text) > 0;
	return told ? 0 : 1;
}

int main(int argc, char **argv)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	int code;

	if (argc != 3) {
		dprintf(REPLY, "!mvmm-resolve is started by mvmm");
		return 2;
	}
	if (confine_process(confine_mode(argv[2]), THREAD_RESOLVE, REPLY, "!")) {
		dprintf(REPLY, "!mvmm-resolve cannot be confined");
		return 1;
	}
	code = getaddrinfo(argv[1], NULL, &hints, &list);
	if (code) {
		dprintf(REPLY, "!%s", gai_strerror(code));
		return 1;
	}
	code = resolve_helper_tell(list);
	freeaddrinfo(list);
	return code;
}
