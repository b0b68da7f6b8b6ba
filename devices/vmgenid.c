/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See platform.h: the virtual machine generation ID ("Virtual Machine Generation ID", Microsoft 2012), 16 random bytes in
 * guest memory. The guest's ACPI tables say where. The guest learns by a notification that they have changed, and then
 * knows that it is another machine than before: Linux reseeds its random number generator with them.
 *
 * The bytes must stay between the host and this guest, so they are never logged.
 */
#include "core/guest_memory.h"
#include "core/state.h"
#include "devices/platform.h"

#include <sys/random.h>

struct vmgenid_state {
	uint8_t id[VMGENID_BYTES];
};

struct vmgenid {
	struct guest_memory *memory;
	uint64_t gpa;
	struct vmgenid_state state;
};

int vmgenid_create(struct guest_memory *memory, uint64_t gpa, struct vmgenid **ret, struct err *err)
{
	struct vmgenid *vmgenid = calloc(1, sizeof(*vmgenid));

	if (!vmgenid)
		return err_sys(err, -ENOMEM, "generation ID");
	vmgenid->memory = memory;
	vmgenid->gpa = gpa;
	*ret = vmgenid;
	return 0;
}

void vmgenid_destroy(struct vmgenid *vmgenid)
{
	free(vmgenid);
}

int vmgenid_set(struct vmgenid *vmgenid, const uint8_t id[VMGENID_BYTES], struct err *err)
{
	if (guest_memory_write(vmgenid->memory, vmgenid->gpa, id, VMGENID_BYTES) < 0)
		return err_set(err, -EFAULT, "generation ID: no guest memory at 0x%llx",
			       (unsigned long long)vmgenid->gpa);
	memcpy(vmgenid->state.id, id, VMGENID_BYTES);
	return 0;
}

int vmgenid_renew(struct vmgenid *vmgenid, struct err *err)
{
	uint8_t id[VMGENID_BYTES];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return err_set(err, -EIO, "generation ID: the host's kernel gives no random bytes");
	return vmgenid_set(vmgenid, id, err);
}

void vmgenid_get(const struct vmgenid *vmgenid, uint8_t id[VMGENID_BYTES])
{
	memcpy(id, vmgenid->state.id, VMGENID_BYTES);
}

/* Guest memory has the bytes, too: it is saved and loaded with them. */
static const struct state_field fields[] = {
	STATE_BYTES(struct vmgenid_state, id, 1),
};

const struct state_table vmgenid_state = {
	.name = "vmgenid", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct vmgenid, state),
};
