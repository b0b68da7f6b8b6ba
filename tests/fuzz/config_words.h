/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the fuzzers of the command line and of the JSON file: options, keys and values that mean something, drawn from
 * the table itself, and what must be true of a configuration that was accepted.
 */
#pragma once

#include "tests/fuzz/fuzz.h"
#include "vmm/config/config.h"

#include <stdio.h>

/* Text that goes behind `key=`, right or nearly so. buf holds 64 characters. */
static inline const char *draw_value(unsigned int *seed, const struct option_key *key, char *buf)
{
	static const char *const odd[] = {"", "on", "off", "0", "1", "4095", "512M", "3G", "9T", "18446744073709551615", "-1",
					  "/x", "a,b", "a=b", "52:54:00:12:34:56", "pty", "host", "-avx", "auto"};

	if (key->words && draw(seed, 4)) {
		unsigned int count = 0;

		while (key->words[count])
			count++;
		return key->words[draw(seed, count)];
	}
	if (draw(seed, 4))
		return odd[draw(seed, ARRAY_SIZE(odd))];
	snprintf(buf, 64, "%u%c", draw(seed, 1u << draw(seed, 24)), "\0KMGTQ"[draw(seed, 6)]);
	return buf;
}

static inline void check_config(const struct machine_config *config)
{
	MUST(config->kernel && *config->kernel);
	MUST(machine_name_check(config->name, NULL) == 0);
	MUST(config->cpus >= 1 && config->cpus <= MACHINE_MAX_CPUS);
	MUST(config->memory.size >= MACHINE_MIN_MEMORY && config->memory.size <= MACHINE_MAX_MEMORY);
	MUST(config->memory.size % (config->memory.hugepages == HUGEPAGES_1G ? GIB(1) :
				    config->memory.hugepages == HUGEPAGES_2M ? MIB(2) : KIB(4)) == 0);
	MUST(machine_config_pci_devices(config) <= MACHINE_MAX_PCI_DEVICES);
	MUST(config->serial.kind != PORT_AUTO && config->console.kind != PORT_AUTO);
	MUST(config->vsock.cid == 0 || config->vsock.cid >= 3);
	for (size_t i = 0; i < config->disk_count; i++) {
		MUST(config->disks[i].path && *config->disks[i].path);
		MUST(config->disks[i].queues <= MACHINE_MAX_QUEUES_DISK);
		MUST(machine_name_check(config->disks[i].id, NULL) == 0);
		for (size_t j = 0; j < i; j++)
			MUST(strcmp(config->disks[i].id, config->disks[j].id) != 0);
	}
	for (size_t i = 0; i < config->net_count; i++) {
		MUST(config->nets[i].kind == NET_PASST || (config->nets[i].kind == NET_TAP && config->nets[i].target) ||
		     (config->nets[i].kind == NET_FD && config->nets[i].fd >= 0));
		MUST(config->nets[i].queues <= MACHINE_MAX_QUEUES_NET);
	}
	for (size_t i = 0; i < config->vfio_count; i++)
		MUST(config->vfios[i].device || config->vfios[i].fd >= 0);
}
