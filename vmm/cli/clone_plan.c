/* SPDX-License-Identifier: Apache-2.0 */
/* See clone.h. Each clone is an `mvmm restore` whose command line is that of `mvmm clone`, with its number in it. */
#include "vmm/cli/clone.h"

#include "vmm/cli/command.h"
#include "vmm/session/arrival_config.h"
#include "vmm/session/restore_disks.h"

#include <stdio.h>

/* ---- words ---- */

/* text with the number for each "{n}". The caller's; NULL: no memory. */
static char *clone_plan_fill_text(const char *text, unsigned int n)
{
	char *filled = NULL;
	size_t size;
	FILE *out = open_memstream(&filled, &size);

	if (!out)
		return NULL;
	for (const char *hole; (hole = strstr(text, "{n}")); text = hole + 3)
		fprintf(out, "%.*s%u", (int)(hole - text), text, n);
	fputs(text, out);
	return fclose(out) ? NULL : filled;
}

void clone_plan_free(char **words)
{
	for (size_t i = 0; words && words[i]; i++)
		free(words[i]);
	free(words);
}

char **clone_plan_fill(const struct clone_plan *plan, unsigned int n)
{
	char **words = calloc(plan->count + 1, sizeof(*words));

	for (size_t i = 0; words && i < plan->count; i++) {
		words[i] = clone_plan_fill_text(plan->words[i], n);
		if (!words[i]) {
			clone_plan_free(words);
			return NULL;
		}
	}
	return words;
}

const char *clone_plan_name(char *const *words)
{
	for (size_t i = 0; words[i] && words[i + 1]; i++)
		if (strcmp(words[i], "--name") == 0)
			return words[i + 1];
	return "";
}

void clone_plan_done(struct clone_plan *plan)
{
	clone_plan_free(take_ptr(plan->words));
}

static int clone_plan_add(struct clone_plan *plan, const char *word)
{
	char **words = reallocarray(plan->words, plan->count + 2, sizeof(*words));

	if (!words)
		return -ENOMEM;
	plan->words = words;
	words[plan->count] = strdup(word);
	words[plan->count + 1] = NULL;
	return words[plan->count++] ? 0 : -ENOMEM;
}

static int clone_plan_add_option(struct clone_plan *plan, const char *name, const char *value)
{
	return clone_plan_add(plan, name) ?: clone_plan_add(plan, value);
}

static int clone_plan_add_fd(struct clone_plan *plan, const char *name, const char *before, int fd)
{
	char value[120];

	snprintf(value, sizeof(value), "%s/proc/self/fd/%d", before, fd);
	return clone_plan_add_option(plan, name, value);
}

static int clone_plan_add_source(struct clone_plan *plan, const struct clone_source *source)
{
	char before[80];
	int code;

	if (source->folder)
		return clone_plan_add_option(plan, "--from", source->folder);
	code = clone_plan_add_fd(plan, "--state", "", source->state) ?:
	       clone_plan_add_fd(plan, "--memory", "", source->memory);
	for (size_t i = 0; i < source->disk_count && !code; i++) {
		snprintf(before, sizeof(before), "%s=", source->disks[i].id);
		code = clone_plan_add_fd(plan, "--disk-from", before, source->disks[i].fd);
	}
	return code;
}

/* The words of the command line that mvmm restore knows, too, but for the name. They have been parsed before. */
static int clone_plan_add_rest(struct clone_plan *plan, int argc, char *const *argv)
{
	int code = 0;

	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0 && !code;) {
		const char *name = argv[i] + 2, *nearest;
		size_t len = strcspn(name, "=");
		const struct option *option = strncmp(argv[i], "--", 2) != 0 ? NULL :
					      option_lookup(&cli_clone_options, name, len, &nearest);
		int words = option && option->keys[0].kind != OPTION_FLAG && !name[len] ? 2 : 1;

		if (option && strcmp(option->name, "name") != 0 &&
		    option_lookup(command_restore.options, name, len, &nearest))
			for (int k = 0; k < words && !code; k++)
				code = clone_plan_add(plan, argv[i + k]);
		i += words;
	}
	return code;
}

/* ---- what two clones cannot both use ---- */

static int clone_plan_refuse(const char *option, const char *id, const char *value, struct err *err)
{
	return err_set(err, -EINVAL, "--%s %s%s%s: the clones cannot share it; write {n} in it, which stands for the number of "
		       "each", option, id, *id ? "=" : "", value);
}

static bool clone_plan_same(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

static int clone_plan_compare_disks(const struct machine_config *a, const struct machine_config *b, struct err *err)
{
	for (size_t i = 0; i < a->disk_count; i++)
		if (!a->disks[i].readonly && clone_plan_same(a->disks[i].path, b->disks[i].path))
			return clone_plan_refuse("disk", a->disks[i].id, a->disks[i].path, err);
	return 0;
}

static int clone_plan_compare_nets(const struct machine_config *a, const struct machine_config *b, struct err *err)
{
	for (size_t i = 0; i < a->net_count; i++)
		if (clone_plan_same(a->nets[i].target, b->nets[i].target))
			return clone_plan_refuse("net", a->nets[i].id, a->nets[i].target, err);
	return 0;
}

static int clone_plan_compare_vsock(const struct machine_config *a, const struct machine_config *b, struct err *err)
{
	if (!a->vsock.cid)
		return 0;
	if (clone_plan_same(a->vsock.socket, b->vsock.socket))
		return clone_plan_refuse("vsock", "", a->vsock.socket, err);
	if (!a->vsock.socket && a->vsock.cid == b->vsock.cid)
		return err_set(err, -EINVAL, "--vsock: the clones cannot share CID %u of the kernel's vhost-vsock; write "
			       "--vsock cid=10{n},kernel, in which {n} stands for the number of each", a->vsock.cid);
	return 0;
}

static int clone_plan_compare_port(const char *option, const struct port_config *a, const struct port_config *b,
				   struct err *err)
{
	return clone_plan_same(a->path, b->path) ? clone_plan_refuse(option, "", a->path, err) : 0;
}

static int clone_plan_compare(const struct machine_config *a, const struct machine_config *b, struct err *err)
{
	return clone_plan_compare_disks(a, b, err) ?: clone_plan_compare_nets(a, b, err) ?:
	       clone_plan_compare_vsock(a, b, err) ?:
	       clone_plan_compare_port("serial", &a->serial, &b->serial, err) ?:
	       clone_plan_compare_port("console", &a->console, &b->console, err);
}

/* Host devices are not in the configurations: most are plugged in later. */
static int clone_plan_check_vfios(const struct clone_options *given, struct err *err)
{
	for (size_t i = 0; i < given->restore.here.vfio_count && given->count > 1; i++)
		if (!strstr(given->restore.here.vfios[i].text, "{n}"))
			return clone_plan_refuse("vfio", "", given->restore.here.vfios[i].text, err);
	return 0;
}

/* ---- checks ---- */

static int clone_plan_configure(const struct clone_plan *plan, unsigned int n, const struct machine_offer *offer,
				struct machine_config *config, struct err *err)
{
	char **words = clone_plan_fill(plan, n);
	struct restore_options options = {0};
	int code = words ? 0 : err_sys(err, -ENOMEM, "clone %u", n);

	options_init(command_restore.options, &options);
	if (!code) /* after "mvmm restore" */
		code = options_parse(command_restore.options, &options, (int)plan->count - 2, words + 2, NULL, 0, err) ?:
		       cli_restore_check(&options, err);
	if (!code) {
		struct arrival_options here = options.here;

		here.vfio_count = 0;
		code = arrival_config_restore(offer, &here, config, err) ?:
		       restore_disks_check_options(config, &options, err);
	}
	options_done(command_restore.options, &options);
	clone_plan_free(words);
	return code;
}

/* The first two stand for all. */
static int clone_plan_check(const struct clone_plan *plan, unsigned int count, const struct machine_offer *offer,
			    struct err *err)
{
	struct machine_config first, second;
	int code;

	machine_config_init(&first);
	machine_config_init(&second);
	code = clone_plan_configure(plan, 1, offer, &first, err);
	if (!code && (first.serial.kind == PORT_STDIO || first.console.kind == PORT_STDIO))
		code = err_set(err, -EINVAL, "--%s stdio: clones run in the background; write a file, a socket, pty or none",
			       first.serial.kind == PORT_STDIO ? "serial" : "console");
	if (!code && count > 1)
		code = clone_plan_configure(plan, 2, offer, &second, err) ?: clone_plan_compare(&first, &second, err);
	machine_config_done(&first);
	machine_config_done(&second);
	return code;
}

/* ---- the snapshot ---- */

static int clone_plan_read_offer(const struct clone_source *source, struct machine_offer **ret, struct err *err)
{
	char state[32], memory[32];
	struct snapshot *snapshot;
	int code;

	snprintf(state, sizeof(state), "/proc/self/fd/%d", source->state);
	snprintf(memory, sizeof(memory), "/proc/self/fd/%d", source->memory);
	code = source->folder ? snapshot_open(source->folder, &snapshot, err) :
				snapshot_open_files(state, memory, &snapshot, err);
	if (code)
		return code;
	code = arrival_config_read(snapshot->state, NULL, ret, err);
	snapshot_close(snapshot);
	return code;
}

/* NAME-{n}, unless it has the number somewhere else. */
static int clone_plan_add_name(struct clone_plan *plan, const struct clone_options *given,
			       const struct machine_offer *offer)
{
	const char *prefix = given->restore.here.name ?: json_string_value(json_object_get(offer->config, "name")) ?: "clone";
	_cleanup_(free_ptr) char *name = NULL;

	if (asprintf(&name, "%s%s", prefix, strstr(prefix, "{n}") ? "" : "-{n}") < 0) {
		name = NULL;
		return -ENOMEM;
	}
	return clone_plan_add_option(plan, "--name", name);
}

static int clone_plan_write(struct clone_plan *plan, int argc, char *const *argv, const struct clone_options *given,
			    const struct clone_source *source, const struct machine_offer *offer)
{
	char ready[12];
	int code = clone_plan_add_option(plan, "mvmm", "restore") ?: clone_plan_add_source(plan, source);

	snprintf(ready, sizeof(ready), "%d", CLONE_READY_FD);
	code = code ?: clone_plan_add_name(plan, given, offer) ?: clone_plan_add_rest(plan, argc, argv);
	if (!code && !given->restore.here.serial)
		code = clone_plan_add_option(plan, "--serial", "none");
	return code ?: clone_plan_add_option(plan, "--ready-fd", ready);
}

int clone_plan_make(int argc, char *const *argv, const struct clone_options *given, const struct clone_source *source,
		    struct clone_plan *ret, struct err *err)
{
	struct machine_offer *offer;
	int code = clone_plan_read_offer(source, &offer, err);

	if (code)
		return code;
	*ret = (struct clone_plan){0};
	code = clone_plan_write(ret, argc, argv, given, source, offer);
	code = code ? err_sys(err, code, "clone") :
		      clone_plan_check_vfios(given, err) ?: clone_plan_check(ret, given->count, offer, err);
	machine_offer_destroy(offer);
	if (code)
		clone_plan_done(ret);
	return code;
}
