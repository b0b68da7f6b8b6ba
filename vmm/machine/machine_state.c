/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a machine (machine_save and machine_load of machine.h): a section for each part that has state:
 * u8 length of its name, name, u32 length (little-endian), and the part's record or records.
 *
 * A load finds sections by name; each must be there exactly once, but for what no guest has used. It loads the time
 * first; then the vCPUs, whose local APICs must be loaded when a device raises an interrupt; then the devices; and last
 * the interrupt controllers, since the devices must set their lines before pending interrupts are loaded.
 */
#include "vmm/machine/machine_internal.h"

#include <stdio.h>

#define MAX_SECTIONS (MACHINE_MAX_CPUS + 2 * PCI_DEVICES + 16)
#define MAX_SECTION_NAME 63u

/* ---- the parts, in the order of loading ---- */

enum part_kind { PART_CLOCK, PART_VCPU, PART_TABLE, PART_VIRTIO, PART_HOST };

struct part {
	char name[MAX_SECTION_NAME + 1];
	enum part_kind kind;
	unsigned int index;
	const struct state_table *table; /* with object, of PART_TABLE */
	void *object;
	bool optional; /* it need not be there: it is as it was made */
	bool unused;   /* and so it is */
};

struct part_list {
	struct part parts[MAX_SECTIONS];
	size_t count;
};

static struct part *machine_state_add_part(struct part_list *list, enum part_kind kind, const char *name)
{
	struct part *part = &list->parts[list->count++];

	*part = (struct part){.kind = kind};
	snprintf(part->name, sizeof(part->name), "%s", name);
	return part;
}

static void machine_state_add_table(struct part_list *list, const char *name, const struct state_table *table,
				    void *object)
{
	struct part *part = machine_state_add_part(list, PART_TABLE, name);

	part->table = table;
	part->object = object;
}

static void machine_state_add_numbered(struct part_list *list, enum part_kind kind, const char *name,
				       unsigned int index)
{
	machine_state_add_part(list, kind, name)->index = index;
}

static void machine_state_list_parts(struct machine *machine, struct part_list *list)
{
	char name[MAX_SECTION_NAME + 1];

	list->count = 0;
	machine_state_add_part(list, PART_CLOCK, "clock");
	for (unsigned int i = 0; i < vcpu_set_count(machine->vcpus); i++) {
		snprintf(name, sizeof(name), "vcpu%u", i);
		machine_state_add_numbered(list, PART_VCPU, name, i);
	}
	machine_state_add_table(list, "serial", &serial_state, machine->serial);
	machine_state_add_table(list, "rtc", &rtc_state, machine->rtc);
	machine_state_add_table(list, "i8042", &i8042_state, machine->i8042);
	list->parts[list->count - 1].optional = true;
	list->parts[list->count - 1].unused = i8042_is_new(machine->i8042);
	if (machine->has_pit)
		machine_state_add_table(list, "pit", &pit_state, &machine->kvm);
	machine_state_add_table(list, "power", &power_state, machine->power);
	machine_state_add_table(list, "vmgenid", &vmgenid_state, machine->vmgenid);
	machine_state_add_table(list, "vmclock", &vmclock_state, machine->vmclock);
	machine_state_add_table(list, "pci", &pci_bus_state, machine->pci);
	for (unsigned int i = 0; i < machine->virtio_count; i++) {
		snprintf(name, sizeof(name), "device/%s", machine_virtio(machine, i)->id);
		machine_state_add_numbered(list, PART_VIRTIO, name, i);
	}
	for (unsigned int i = 0; i < host_devices_count(machine->host_devices); i++) {
		struct vfio_pci_info info;

		host_devices_info(machine->host_devices, i, &info);
		snprintf(name, sizeof(name), "device/%s", info.id);
		machine_state_add_numbered(list, PART_HOST, name, i);
	}
	machine_state_add_table(list, "irqchip", &irqchip_state, &machine->kvm);
}

/* ---- save ---- */

static int machine_state_save_part(struct machine *machine, const struct part *part, struct state_buffer *out,
				   struct err *err)
{
	switch (part->kind) {
	case PART_CLOCK:
		return clock_save(machine->clock, out, err);
	case PART_VCPU:
		return vcpu_set_save(machine->vcpus, part->index, out, err);
	case PART_VIRTIO:
		return virtio_transport_save(machine->virtio[part->index], out, err);
	case PART_HOST:
		return vfio_pci_save(host_devices_pci(machine->host_devices, part->index), out, err);
	case PART_TABLE:
		return state_save(part->table, part->object, out, err);
	}
	return -EINVAL;
}

static int machine_state_save_section(struct machine *machine, const struct part *part, struct state_buffer *out,
				      struct err *err)
{
	uint8_t name_len = (uint8_t)strlen(part->name), none[4] = {0};
	size_t body;
	int ret = state_buffer_add(out, &name_len, 1);

	ret = ret ?: state_buffer_add(out, part->name, name_len);
	ret = ret ?: state_buffer_add(out, none, sizeof(none));
	if (ret < 0)
		return err_sys(err, ret, "%s", part->name);
	body = out->len;
	ret = machine_state_save_part(machine, part, out, err);
	if (ret == 0)
		put_le32(out->data + body - 4, (uint32_t)(out->len - body));
	return ret;
}

int machine_save(struct machine *machine, struct state_buffer *out, struct err *err)
{
	_cleanup_(free_ptr) struct part_list *list = calloc(1, sizeof(*list));
	size_t start = out->len;
	int ret = 0;

	if (!list)
		return err_sys(err, -ENOMEM, "state");
	if (!machine->paused)
		return err_set(err, -EBUSY, "the machine is not paused");
	ret = machine_check_disks(machine, err);
	machine_state_list_parts(machine, list);
	for (size_t i = 0; i < list->count && ret == 0; i++)
		if (!list->parts[i].unused)
			ret = machine_state_save_section(machine, &list->parts[i], out, err);
	if (ret < 0)
		out->len = start;
	return ret;
}

/* ---- load ---- */

struct section {
	char name[MAX_SECTION_NAME + 1];
	const uint8_t *data;
	size_t len;
	bool taken;
};

struct section_list {
	struct section sections[MAX_SECTIONS];
	size_t count;
};

static struct section *machine_state_find_section(struct section_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->sections[i].name, name) == 0)
			return &list->sections[i];
	return NULL;
}

static int machine_state_cut_off(struct err *err)
{
	return err_set(err, -EBADMSG, "the machine's state is truncated");
}

/* Reads the next section's name and bounds, and advances data past the section. */
static int machine_state_read_section(const uint8_t **data, size_t *len, struct section *ret, struct err *err)
{
	size_t name_len = **data, head = 1 + name_len + 4;

	if (!name_len || name_len > MAX_SECTION_NAME || *len < head)
		return machine_state_cut_off(err);
	memcpy(ret->name, *data + 1, name_len);
	ret->name[name_len] = 0;
	for (size_t i = 0; i < name_len; i++)
		if (ret->name[i] <= ' ' || ret->name[i] > '~')
			return err_set(err, -EBADMSG, "a section of the machine's state has an invalid name");
	ret->len = get_le32(*data + head - 4);
	ret->data = *data + head;
	ret->taken = false;
	if (ret->len > *len - head)
		return machine_state_cut_off(err);
	*data += head + ret->len;
	*len -= head + ret->len;
	return 0;
}

static int machine_state_read_sections(const uint8_t *data, size_t len, struct section_list *list, struct err *err)
{
	list->count = 0;
	while (len) {
		struct section *section = &list->sections[list->count];
		int ret = list->count < MAX_SECTIONS ? machine_state_read_section(&data, &len, section, err) :
			  err_set(err, -EBADMSG, "more than %u sections", MAX_SECTIONS);

		if (ret < 0)
			return ret;
		if (machine_state_find_section(list, section->name))
			return err_set(err, -EBADMSG, "%s: twice in the machine's state", section->name);
		list->count++;
	}
	return 0;
}

/*
 * A trial does not load parts that a second load would not replace completely. It saves them instead, which takes about
 * as long; failures do not matter.
 */
static void machine_state_try_part(struct machine *machine, const struct part *part)
{
	struct state_buffer scratch = {0};
	struct err err;

	machine_state_save_part(machine, part, &scratch, &err);
	state_buffer_free(&scratch);
}

static int machine_state_load_part(struct machine *machine, const struct part *part, const struct section *from,
				   bool trial, struct err *err)
{
	if (trial && part->kind != PART_VCPU) {
		machine_state_try_part(machine, part);
		return 0;
	}
	switch (part->kind) {
	case PART_CLOCK:
		return clock_load(machine->clock, from->data, from->len, err);
	case PART_VCPU:
		return machine->vcpus_loaded ? 0 : vcpu_set_load(machine->vcpus, part->index, trial, from->data, from->len, err);
	case PART_VIRTIO:
		return virtio_transport_load(machine->virtio[part->index], from->data, from->len, err);
	case PART_HOST:
		return vfio_pci_load(host_devices_pci(machine->host_devices, part->index), from->data, from->len, err);
	case PART_TABLE:
		return state_load(part->table, part->object, from->data, from->len, err);
	}
	return -EINVAL;
}

static int machine_state_load_parts(struct machine *machine, const struct part_list *parts,
				    struct section_list *sections, bool trial, struct err *err)
{
	for (size_t i = 0; i < parts->count; i++) {
		struct section *section = machine_state_find_section(sections, parts->parts[i].name);
		int ret;

		if (!section && parts->parts[i].optional)
			continue;
		if (!section)
			return err_set(err, -EBADMSG, "%s is missing in the machine's state", parts->parts[i].name);
		section->taken = true;
		ret = machine_state_load_part(machine, &parts->parts[i], section, trial, err);
		if (ret < 0)
			return ret;
	}
	for (size_t i = 0; i < sections->count; i++)
		if (!sections->sections[i].taken)
			return err_set(err, -EBADMSG, "the state has %s, this machine does not",
				       sections->sections[i].name);
	return 0;
}

static int machine_state_load(struct machine *machine, const void *data, size_t len, bool trial, struct err *err)
{
	_cleanup_(free_ptr) struct part_list *parts = calloc(1, sizeof(*parts));
	_cleanup_(free_ptr) struct section_list *sections = calloc(1, sizeof(*sections));
	int ret;

	if (!parts || !sections)
		return err_sys(err, -ENOMEM, "state");
	if (!machine->paused || machine->started)
		return err_set(err, -EBUSY, "the machine is not waiting for its state");
	ret = machine_state_read_sections(data, len, sections, err);
	if (ret < 0)
		return ret;
	machine_state_list_parts(machine, parts);
	if (trial)
		return machine_state_load_parts(machine, parts, sections, trial, err);
	irqchip_begin_route_changes(machine->irqchip);
	ret = machine_state_load_parts(machine, parts, sections, trial, err);
	ret = ret ?: clock_hold(machine->clock, err);
	return ret < 0 ? ret : irqchip_commit_route_changes(machine->irqchip, err);
}

int machine_load(struct machine *machine, const void *data, size_t len, struct err *err)
{
	int ret = machine_state_load(machine, data, len, false, err);

	machine->loaded = ret == 0;
	return ret;
}

int machine_load_trial(struct machine *machine, const void *data, size_t len, struct err *err)
{
	int ret = machine_state_load(machine, data, len, true, err);

	if (ret == 0)
		vcpu_set_warm_up(machine->vcpus);
	return ret;
}

int machine_load_vcpus(struct machine *machine, const void *data, size_t len, struct err *err)
{
	_cleanup_(free_ptr) struct part_list *parts = calloc(1, sizeof(*parts));
	_cleanup_(free_ptr) struct section_list *sections = calloc(1, sizeof(*sections));
	int ret;

	if (!parts || !sections)
		return err_sys(err, -ENOMEM, "state");
	ret = machine_state_read_sections(data, len, sections, err);
	machine_state_list_parts(machine, parts);
	for (size_t i = 0; i < parts->count && ret == 0; i++) {
		struct section *section = machine_state_find_section(sections, parts->parts[i].name);

		if (section && parts->parts[i].kind == PART_VCPU)
			ret = machine_state_load_part(machine, &parts->parts[i], section, false, err);
		else if (section)
			machine_state_try_part(machine, &parts->parts[i]);
	}
	machine->vcpus_loaded = ret == 0;
	if (ret == 0)
		vcpu_set_warm_up(machine->vcpus);
	return ret;
}
