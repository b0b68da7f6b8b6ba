/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h. One port: a read returns the supported events, a write reports events (QEMU's docs/specs/pvpanic,
 * which guests' drivers follow).
 */
#include "devices/platform.h"

#define PANICKED 0x1u
#define CRASH_LOADED 0x2u /* the guest continues with its crash kernel */

struct pvpanic {
	struct bus *pio;
	uint16_t port;
	void (*panicked)(void *opaque, bool loaded);
	void *opaque;
};

static void pvpanic_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	*(uint8_t *)data = PANICKED | CRASH_LOADED;
}

static void pvpanic_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	const struct pvpanic *pvpanic = opaque;
	uint8_t events = *(const uint8_t *)data;

	if (events & CRASH_LOADED)
		pvpanic->panicked(pvpanic->opaque, true);
	else if (events & PANICKED)
		pvpanic->panicked(pvpanic->opaque, false);
}

static const struct bus_ops pvpanic_ops = {pvpanic_read, pvpanic_write};

int pvpanic_create(struct bus *pio, uint16_t port, void (*panicked)(void *opaque, bool loaded), void *opaque,
		   struct pvpanic **ret, struct err *err)
{
	struct pvpanic *pvpanic = calloc(1, sizeof(*pvpanic));
	int code;

	if (!pvpanic)
		return err_sys(err, -ENOMEM, "pvpanic");
	*pvpanic = (struct pvpanic){pio, port, panicked, opaque};
	code = bus_add(pio, port, 1, &pvpanic_ops, pvpanic, "pvpanic", err);
	if (code < 0) {
		free(pvpanic);
		return code;
	}
	*ret = pvpanic;
	return 0;
}

void pvpanic_destroy(struct pvpanic *pvpanic)
{
	if (!pvpanic)
		return;
	bus_remove(pvpanic->pio, pvpanic->port);
	free(pvpanic);
}
