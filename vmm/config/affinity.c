/* SPDX-License-Identifier: Apache-2.0 */
/* See affinity.h. */
#include "vmm/config/affinity.h"

const struct option_key affinity_key = {"cpus", OPTION_STRING, .help = "0-3"};

/* Digits up to a character of ends, or the end of the text. False: there are none, or the number is not below limit. */
static bool affinity_parse_number(const char **text, size_t limit, const char *ends, size_t *ret)
{
	char *end;
	unsigned long number;

	if (**text < '0' || **text > '9')
		return false;
	number = strtoul(*text, &end, 10);
	if ((*end && !strchr(ends, *end)) || number >= limit)
		return false;
	*text = end;
	*ret = number;
	return true;
}

/* "0-3,8" up to end. */
static bool affinity_parse_list(const char *text, const char *end, size_t limit, cpu_set_t *ret)
{
	size_t first, last;

	CPU_ZERO(ret);
	do {
		if (!affinity_parse_number(&text, limit, "-,=", &first))
			return false;
		last = first;
		if (*text == '-' && (text++, !affinity_parse_number(&text, limit, ",=", &last)))
			return false;
		if (last < first)
			return false;
		for (; first <= last; first++)
			CPU_SET(first, ret);
	} while (text < end && *text++ == ',');
	return text == end;
}

/* The vCPUs that a text is for, all without a "=", and their CPUs. */
static bool affinity_parse(const char *text, size_t vcpu_limit, size_t limit, cpu_set_t *vcpus, cpu_set_t *cpus)
{
	const char *equals = strchr(text, '=');

	memset(vcpus, 0xff, sizeof(*vcpus));
	if (equals && !affinity_parse_list(text, equals, vcpu_limit, vcpus))
		return false;
	text = equals ? equals + 1 : text;
	return affinity_parse_list(text, text + strlen(text), limit, cpus);
}

static int affinity_check_item(const char *text, unsigned int vcpus, unsigned int host_cpus, cpu_set_t *named,
			       struct err *err)
{
	cpu_set_t these, both, cpus;

	if (!affinity_parse(text, CPU_SETSIZE, CPU_SETSIZE, &these, &cpus))
		return err_set(err, -EINVAL, "--cpu-affinity %.100s: not a list of CPUs; write one like 0-3,8 or 0=2", text);
	if (strchr(text, '=') && !affinity_parse(text, vcpus, CPU_SETSIZE, &these, &cpus))
		return err_set(err, -EINVAL, "--cpu-affinity %.100s: the machine has vCPUs 0 to %u", text, vcpus - 1);
	if (!affinity_parse(text, CPU_SETSIZE, host_cpus, &these, &cpus))
		return err_set(err, -EINVAL, "--cpu-affinity %.100s: this host has CPUs 0 to %u", text, host_cpus - 1);
	CPU_AND(&both, &these, named);
	if (CPU_COUNT(&both))
		return err_set(err, -EINVAL, "--cpu-affinity %.100s: an earlier one is for the same vCPU; leave one out", text);
	CPU_OR(named, named, &these);
	return 0;
}

int affinity_check(const struct affinity_options *options, unsigned int vcpus, unsigned int host_cpus, struct err *err)
{
	cpu_set_t named;
	int code = 0;

	CPU_ZERO(&named);
	for (size_t i = 0; i < options->count && !code; i++)
		code = affinity_check_item(options->items[i].text, vcpus, MIN(host_cpus, CPU_SETSIZE), &named, err);
	return code;
}

bool affinity_of(const struct affinity_options *options, unsigned int vcpu, cpu_set_t *ret)
{
	cpu_set_t vcpus;

	for (size_t i = 0; i < options->count; i++)
		if (affinity_parse(options->items[i].text, CPU_SETSIZE, CPU_SETSIZE, &vcpus, ret) && CPU_ISSET(vcpu, &vcpus))
			return true;
	return false;
}
