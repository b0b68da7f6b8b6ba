/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_options.h. */
#include "vmm/config/jail_options.h"

#define KEY(member) .offset = offsetof(struct jail_config, member)
#define MAX_ID 4294967294u /* the last one means "none" to the kernel */

const struct option_key jail_keys[JAIL_KEYS] = {
	{"dir", OPTION_STRING, KEY(dir), .help = "DIR", .required = true},
	{"uid", OPTION_UINT, KEY(uid), .min = 1, .max = MAX_ID, .help = "N"},
	{"gid", OPTION_UINT, KEY(gid), .min = 1, .max = MAX_ID, .help = "N"},
	{"netns", OPTION_STRING, KEY(netns), .help = "FILE"},
	{"cgroup", OPTION_STRING, KEY(cgroup), .help = "DIR"},
	{"cpu", OPTION_UINT, KEY(cpu), .min = 1, .max = 100000, .help = "N"},
	{"memory", OPTION_SIZE, KEY(memory), .min = MIB(1), .max = INT64_MAX, .help = "SIZE"},
	{"io", OPTION_SIZE, KEY(io), .min = KIB(4), .max = INT64_MAX, .help = "SIZE"},
	{"io-weight", OPTION_UINT, KEY(io_weight), .min = 1, .max = 10000, .help = "N"},
	{"pid", OPTION_BOOL, KEY(pid)},
	{"nofile", OPTION_UINT, KEY(nofile), .min = 64, .max = 1u << 30, .help = "N"},
	{"fsize", OPTION_SIZE, KEY(fsize), .min = 1, .max = INT64_MAX, .help = "SIZE"},
};
const struct option_key jail_allow_key = {"path", OPTION_STRING, .help = "DIR"};

int jail_options_check(const struct jail_options *options, struct err *err)
{
	const struct jail_config *jail = &options->config;
	const char *limit;

	if (!jail->dir)
		return 0;
	if (!jail->uid != !jail->gid)
		return err_set(err, -EINVAL, "--jail %s=%u: write uid=N and gid=N, both or none", jail->uid ? "uid" : "gid",
			       jail->uid ?: jail->gid);
	limit = jail->cpu ? "cpu" : jail->memory ? "memory" : jail->io ? "io" : jail->io_weight ? "io-weight" : NULL;
	if (limit && !jail->cgroup)
		return err_set(err, -EINVAL, "--jail %s=: is a limit of a control group; add cgroup=GROUP", limit);
	return 0;
}
