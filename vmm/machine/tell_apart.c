/* SPDX-License-Identifier: Apache-2.0 */
/* See tell_apart.h. */
#include "vmm/machine/tell_apart.h"

#include "vmm/machine/machine_internal.h"

static struct virtio_device *tell_apart_find(const struct machine *machine, const char *id)
{
	for (size_t i = 0; i < machine->virtio_count; i++)
		if (strcmp(virtio_transport_device(machine->virtio[i])->id, id) == 0)
			return virtio_transport_device(machine->virtio[i]);
	return NULL;
}

/* The saved state has the address that the guest's driver had set or read. */
static void tell_apart_set_macs(struct machine *machine)
{
	for (size_t i = 0; i < machine->config->net_count; i++) {
		const struct net_config *net = &machine->config->nets[i];
		struct virtio_device *device = tell_apart_find(machine, net->id);

		if (net->new_mac && device)
			virtio_net_set_mac(device, net->mac);
	}
}

int machine_identify(struct machine *machine, struct err *err)
{
	const struct machine_identity *before = machine->host.identity;

	if (!before || !before->known)
		return vmgenid_renew(machine->vmgenid, err);
	vmclock_set_generation(machine->vmclock, before->generation);
	return vmgenid_set(machine->vmgenid, before->generation_id, err);
}

void machine_leave_identity(const struct machine *machine)
{
	struct machine_identity *identity = machine->host.identity;

	if (!identity || !machine->started)
		return;
	identity->known = true;
	identity->generation = vmclock_generation(machine->vmclock);
	vmgenid_get(machine->vmgenid, identity->generation_id);
}

int machine_tell_apart(struct machine *machine, struct err *err)
{
	int ret = vmgenid_renew(machine->vmgenid, err) ?: vmclock_disrupt(machine->vmclock, err);

	if (ret < 0)
		return ret;
	tell_apart_set_macs(machine);
	power_notify(machine->power, POWER_NEW_GENERATION);
	return 0;
}
