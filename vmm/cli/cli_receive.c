/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm receive`: waits for a machine from `mvmm migrate` and runs it. */
#include "vmm/cli/command.h"
#include "vmm/session/session.h"

static const struct option_key flag = {"flag", OPTION_FLAG};
static const struct option_key from = {"from", OPTION_STRING, .help = "ADDRESS"};
static const struct option_key name = {"name", OPTION_STRING, .help = "NAME"};
static const struct option_key folder = {"folder", OPTION_STRING, .help = "FILE"};
static const struct option_key port = {"port", OPTION_STRING, .help = "stdio|pty|none|FILE"};
static const struct option_key seccomp = {"seccomp", OPTION_WORD, .words = seccomp_words, .value = MVMM_SECCOMP};
static const struct option_key override = {"override", OPTION_STRING, .help = "ID=VALUE"};

#define FIELD(member) .plain = true, .offset = offsetof(struct receive_options, member)
#define LIST(array, counter)                                                      \
	FIELD(array), .count_offset = offsetof(struct receive_options, counter), \
	.item_size = sizeof(struct arrival_override)

static const struct option options[] = {
	{"from", "tcp:[ADDR][:PORT]|unix:PATH|fd:N", "the address to wait on; port 7150 by default", &from, 1,
	 FIELD(from)},
	{"name", "NAME", "the machine's name on this host; as on the source by default", &name, 1, FIELD(here.name)},
	{"disk", "ID=PATH", "the file or block device of this disk on this host; may be repeated", &override, 1,
	 LIST(here.disks, here.disk_count)},
	{"disk-dir", "DIR", "disks that --disk does not name are those in this folder that the source names", &folder, 1,
	 FIELD(disk_dir)},
	{"net", "ID=tap=NAME|passt[=SOCKET]", "what this network card is connected to on this host; may be repeated",
	 &override, 1, LIST(here.nets, here.net_count)},
	{"vfio", "ID=BDF", "the device of this host for this id; may be repeated", &override, 1,
	 LIST(here.vfios, here.vfio_count)},
	{"vsock", "SOCKET|kernel|cid=N,socket=SOCKET|cid=N,kernel",
	 "the UNIX socket of the machine's vsock on this host, or the kernel's vhost-vsock; and another CID", &folder, 1,
	 FIELD(here.vsock)},
	{"kernel", "FILE", "the kernel that a reboot of the guest boots; without it a reboot ends the machine", &folder,
	 1, FIELD(here.kernel)},
	{"initrd", "FILE", "the initial ramdisk for that", &folder, 1, FIELD(here.initrd)},
	{"serial", "stdio|file=PATH|socket=PATH|pty|none", "the first serial port; by default stdio, if the console does not use it",
	 &port, 1, FIELD(here.serial)},
	{"console", "PATH|pty|stdio|none", "the machine's virtio console, if it has one; pty by default", &port, 1,
	 FIELD(here.console)},
	{"tls", "DIR", "encrypt with TLS and the certificates in this folder", &folder, 1, FIELD(tls)},
	{"tls-peer", "NAME", "the host name that the source's certificate must be for; any by default", &name, 1,
	 FIELD(tls_peer)},
	{"insecure", NULL, "wait on a network address without TLS: whoever reaches it can send a machine", &flag, 1,
	 FIELD(insecure)},
	AFFINITY_OPTION(receive_options, here.affinity),
	JAIL_OPTIONS(receive_options, here.jail),
	REPORT_OPTIONS(receive_options, here.report),
	{"seccomp", "on|off|log", "allow each thread only the system calls that it needs, or log the others; " MVMM_SECCOMP_TEXT " by default",
	 &seccomp, 1, FIELD(here.seccomp)},
	{"force-cpu", NULL, "accept a guest that relies on features or bits that this host's CPU lacks; it may fail", &flag, 1,
	 FIELD(here.force_cpu)},
	{"verbose", NULL, "say more", &flag, 1, FIELD(here.verbose)},
	{"quiet", NULL, "say nothing but errors", &flag, 1, FIELD(here.quiet)},
	{"help", NULL, "show this", &flag, 1, FIELD(help)},
};

static const struct option_table table = {options, ARRAY_SIZE(options)};

static int cli_receive_run_with(struct receive_options *given, int argc, char *const *argv, struct err *err)
{
	int code;

	if (!command_parse(&command_receive, given, offsetof(struct receive_options, help), argc, argv, NULL, 0, &code,
			   err))
		return code;
	if (!given->from) {
		err_set(err, -EINVAL, "--from is missing; write --from tcp: --tls DIR to wait on every address");
		return EXIT_BAD_INPUT;
	}
	if (report_options_check(&given->here.report, given->here.verbose, given->here.quiet, err))
		return EXIT_BAD_INPUT;
	return session_receive(given, err);
}

static int cli_receive_run(int argc, char *const *argv, struct err *err)
{
	struct receive_options given;
	int code;

	options_init(&table, &given);
	code = cli_receive_run_with(&given, argc, argv, err);
	options_done(&table, &given);
	return code;
}

const struct command command_receive = {
	.name = "receive",
	.operands = "",
	.summary = "Wait for a machine from another host and run it",
	.text = "The source sends the configuration; options name each disk, network card and host device of this host that it\n"
		"uses, and nothing else is used. mvmm info shows the IDs.\n",
	.options = &table,
	.run = cli_receive_run,
};
