/* SPDX-License-Identifier: Apache-2.0 */
/* How softdev_probe.c and softdev_migration.c drive a softdev (softdev/regs.h) through its descriptor. */
#pragma once

#include "tests/testhost/softdev/regs.h"
#include "vfio/region.h"

#include <linux/pci_regs.h>
#include <stdarg.h>
#include <stdio.h>

_printf_(1, 2) static inline int fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	printf("failed: ");
	vprintf(fmt, args);
	printf("\n");
	va_end(args);
	return -1;
}

/* Writes to a file of the device's folder in /sys, by which it is told to be slow or to fail. */
static inline int softdev_order(const char *device, const char *knob, const char *value)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", device, knob);
	f = fopen(path, "we");
	if (!f || fputs(value, f) < 0)
		return fail("%s", path);
	return fclose(f);
}

/* Lets the device master the bus and gives its BAR. -ENODEV when it is no softdev. */
static inline int softdev_prepare(const struct vfio_device *device, struct vfio_region *bar, struct err *err)
{
	uint8_t command[2] = {PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY}, identity[4] = {0};
	struct vfio_region config;
	uint64_t magic = 0;
	int rc = vfio_region_get(device, VFIO_PCI_CONFIG_REGION_INDEX, &config, err);

	if (rc == 0)
		rc = vfio_region_get(device, VFIO_PCI_BAR0_REGION_INDEX, bar, err);
	if (rc == 0)
		rc = vfio_region_write(&config, PCI_COMMAND, command, sizeof(command));
	if (rc == 0)
		rc = vfio_region_read(&config, PCI_VENDOR_ID, identity, sizeof(identity));
	if (rc == 0)
		rc = vfio_region_read(bar, 8 * SOFTDEV_REG_MAGIC, &magic, sizeof(magic));
	if (rc == 0 && (get_le16(identity) != SOFTDEV_VENDOR || magic != SOFTDEV_MAGIC))
		rc = err_set(err, -ENODEV, "%s: not a softdev", device->host.name);
	return rc;
}

static inline uint64_t softdev_get(const struct vfio_region *bar, enum softdev_reg reg)
{
	uint64_t value = 0;

	vfio_region_read(bar, 8 * reg, &value, sizeof(value));
	return value;
}

static inline int softdev_set(const struct vfio_region *bar, enum softdev_reg reg, uint64_t value)
{
	return vfio_region_write(bar, 8 * reg, &value, sizeof(value));
}

static inline void softdev_start(const struct vfio_region *bar, uint32_t command, uint64_t gpa, uint64_t len,
				 uint64_t seed, uint64_t passes)
{
	softdev_set(bar, SOFTDEV_REG_ADDRESS, gpa);
	softdev_set(bar, SOFTDEV_REG_LENGTH, len);
	softdev_set(bar, SOFTDEV_REG_SEED, seed);
	softdev_set(bar, SOFTDEV_REG_PASSES, passes);
	softdev_set(bar, SOFTDEV_REG_COMMAND, command);
}

/* One pass; its end is waited for. */
static inline enum softdev_status softdev_run(const struct vfio_region *bar, uint32_t command, uint64_t gpa,
					      uint64_t len, uint64_t seed)
{
	enum softdev_status status = SOFTDEV_BUSY;

	softdev_start(bar, command, gpa, len, seed, 1);
	for (int i = 0; i < 50000 && status == SOFTDEV_BUSY; i++) {
		status = (enum softdev_status)softdev_get(bar, SOFTDEV_REG_STATUS);
		if (status == SOFTDEV_BUSY)
			usleep(200);
	}
	return status;
}

/* What the range of an endless pattern holds that has come so far; before the first pass it was zero. */
static inline void softdev_progress(uint64_t seed, uint64_t pass, uint64_t position, uint8_t *out, uint64_t len)
{
	softdev_pattern(seed, pass, 0, out, position);
	if (pass)
		softdev_pattern(seed, pass - 1, position, out + position, len - position);
}
