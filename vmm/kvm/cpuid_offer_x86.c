/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers the guest's CPU to another host (see guest_cpu.h): the CPUID table, entry by entry, and
 * IA32_ARCH_CAPABILITIES, by which a guest decides which faults of processors it works around. The target host compares
 * each word of feature bits with what it supports, and also the width of addresses, the layout of the extended state,
 * and the performance counters. Names, caches and topology need no support by the host, and are not compared.
 */
#include "vmm/kvm/cpuid_hide_x86.h"
#include "vmm/kvm/cpuid_x86.h"

#include <stdio.h>

#define FIELDS 7u /* of an entry: function, index, flags, eax, ebx, ecx, edx */

/* ---- writing ---- */

static void cpuid_offer_write_host(const struct guest_cpu *model, json_t *offer)
{
	char name[CPUID_HOST_NAME];

	cpuid_host_name(model, name);
	if (name[0])
		json_object_set_new(offer, "host", json_string(name));
}

int guest_cpu_write(const struct guest_cpu *model, json_t **ret, struct err *err)
{
	json_t *entries = json_array();

	for (uint32_t i = 0; i < model->cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &model->cpuid->entries[i];
		const uint32_t values[FIELDS] = {e->function, e->index, e->flags, e->eax, e->ebx, e->ecx, e->edx};
		json_t *entry = json_array();

		for (unsigned int n = 0; n < FIELDS; n++)
			json_array_append_new(entry, json_integer(values[n]));
		json_array_append_new(entries, entry);
	}
	*ret = json_pack("{s:s, s:o}", "architecture", "x86-64", "cpuid", entries);
	if (*ret && model->has_capabilities)
		json_object_set_new(*ret, "arch_capabilities", json_integer((json_int_t)model->capabilities));
	if (*ret && model->strict)
		json_object_set_new(*ret, "strict", json_true());
	if (*ret && !model->forced)
		cpuid_offer_write_host(model, *ret);
	return *ret ? 0 : err_sys(err, -ENOMEM, "CPU");
}

/* ---- reading ---- */

static int cpuid_offer_read_entry(const json_t *entry, struct kvm_cpuid_entry2 *ret)
{
	uint32_t values[FIELDS];

	if (json_array_size(entry) != FIELDS)
		return -EBADMSG;
	for (unsigned int n = 0; n < FIELDS; n++) {
		const json_t *value = json_array_get(entry, n);

		if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > UINT32_MAX)
			return -EBADMSG;
		values[n] = (uint32_t)json_integer_value(value);
	}
	if (values[2] & ~(uint32_t)KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
		return -EBADMSG;
	*ret = (struct kvm_cpuid_entry2){
		.function = values[0], .index = values[1], .flags = values[2],
		.eax = values[3], .ebx = values[4], .ecx = values[5], .edx = values[6],
	};
	return 0;
}

static int cpuid_offer_read_table(const json_t *offered, struct guest_cpu *model, struct err *err)
{
	const char *architecture = json_string_value(json_object_get(offered, "architecture"));
	const json_t *entries = json_object_get(offered, "cpuid");
	size_t count = json_array_size(entries);

	if (!architecture || strcmp(architecture, "x86-64") != 0)
		return err_set(err, -ENOTSUP, "the guest's CPU is a %.20s, this host's an x86-64",
			       architecture ?: "(nothing)");
	if (!count || count > CPUID_MAX_ENTRIES)
		return err_set(err, -EBADMSG, "%zu entries of CPUID, not 1 to %u", count, CPUID_MAX_ENTRIES);
	for (size_t i = 0; i < count; i++) {
		struct kvm_cpuid_entry2 entry;

		if (cpuid_offer_read_entry(json_array_get(entries, i), &entry))
			return err_set(err, -EBADMSG, "entry %zu of CPUID is invalid", i);
		if (cpuid_find(model, entry.function, entry.index))
			return err_set(err, -EBADMSG, "leaf 0x%x.%u of CPUID twice", entry.function, entry.index);
		model->cpuid->entries[model->cpuid->nent++] = entry;
	}
	return 0;
}

static int cpuid_offer_read_capabilities(const json_t *offered, struct guest_cpu *model, struct err *err)
{
	const json_t *value = json_object_get(offered, "arch_capabilities");

	if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
		return err_set(err, -EBADMSG, "arch_capabilities is no number");
	model->has_capabilities = value;
	model->capabilities = (uint64_t)json_integer_value(value);
	return 0;
}

/* ---- comparing ---- */

static uint32_t cpuid_offer_word(const struct guest_cpu *model, uint32_t leaf, uint32_t index, enum cpuid_reg reg)
{
	struct kvm_cpuid_entry2 *entry = cpuid_find(model, leaf, index);

	return entry ? *cpuid_reg(entry, reg) : 0;
}

/* The names of missing features in one text; features that do not fit are only counted. */
struct missing {
	char text[360];
	unsigned int named, more;
};

static void cpuid_offer_miss_named(struct missing *missing, const char *name)
{
	size_t used = strlen(missing->text);

	if (used + strlen(name) + 3 > sizeof(missing->text)) {
		missing->more++;
		return;
	}
	snprintf(missing->text + used, sizeof(missing->text) - used, "%s%s", missing->named++ ? ", " : "", name);
}

static void cpuid_offer_miss(struct missing *missing, uint32_t leaf, uint32_t index, enum cpuid_reg reg,
			     unsigned int bit)
{
	static const char *const regs[] = {"EAX", "EBX", "ECX", "EDX"};
	char name[64];

	snprintf(name, sizeof(name), "bit %u of CPUID leaf 0x%x.%u %s", bit, leaf, index, regs[reg]);
	for (size_t i = 0; i < cpuid_feature_count; i++) {
		const struct cpuid_feature *feature = &cpuid_features[i];

		if (feature->leaf == leaf && feature->index == index && feature->reg == reg && feature->bit == bit)
			snprintf(name, sizeof(name), "%s", feature->name);
	}
	cpuid_offer_miss_named(missing, name);
}

/* Words of feature bits; bits that depend on the guest's own settings or its topology are ignored. */
static const struct {
	uint32_t leaf, index;
	enum cpuid_reg reg;
	uint32_t ignored;
} words[] = {
	{1, 0, ECX, 1u << 27 | 1u << 31}, {1, 0, EDX, 1u << 28}, {6, 0, EAX, 0}, {7, 0, EBX, 0}, {7, 0, ECX, 1u << 4},
	{7, 0, EDX, 0}, {7, 1, EAX, 0}, {7, 1, EBX, 0}, {7, 1, ECX, 0}, {7, 1, EDX, 0}, {7, 2, EDX, 0},
	{0xd, 0, EAX, 0}, {0xd, 0, EDX, 0}, {0xd, 1, EAX, 0}, {0xd, 1, ECX, 0}, {0xd, 1, EDX, 0}, {0x12, 0, EAX, 0},
	{0x12, 0, EBX, 0}, {0x14, 0, EBX, 0}, {0x14, 0, ECX, 0}, {0x40000001, 0, EAX, 0}, {0x80000001, 0, ECX, 0},
	{0x80000001, 0, EDX, 0},
	{0x80000007, 0, EDX, 0}, {0x80000008, 0, EBX, 0}, {0x8000000a, 0, EDX, 0}, {0x80000021, 0, EAX, 0},
	{0x80000022, 0, EAX, 0}, {0xc0000001, 0, EDX, 0},
};

/* The bits of IA32_ARCH_CAPABILITIES. A weakness is a bit that a processor sets if it has the fault. */
static const struct {
	const char *name;
	uint8_t bit;
	bool weakness;
} capabilities[] = {
	{"RDCL_NO", 0}, {"IBRS_ALL", 1}, {"RSBA", 2, true}, {"SKIP_L1DFL_VMENTRY", 3}, {"SSB_NO", 4}, {"MDS_NO", 5},
	{"IF_PSCHANGE_MC_NO", 6}, {"TSX_CTRL", 7}, {"TAA_NO", 8}, {"MCU_CONTROL", 9}, {"MISC_PACKAGE_CTLS", 10},
	{"ENERGY_FILTERING_CTL", 11}, {"DOITM", 12}, {"SBDR_SSDP_NO", 13}, {"FBSDP_NO", 14}, {"PSDP_NO", 15},
	{"FB_CLEAR", 17}, {"FB_CLEAR_CTRL", 18}, {"RRSBA", 19, true}, {"BHI_NO", 20}, {"XAPIC_DISABLE_STATUS", 21},
	{"OVERCLOCKING_STATUS", 23}, {"PBRSB_NO", 24}, {"GDS_CTRL", 25}, {"GDS_NO", 26}, {"RFDS_NO", 27},
	{"RFDS_CLEAR", 28}, {"IGN_UMONITOR_SUPPORT", 29}, {"MON_UMON_MITG_SUPPORT", 30}, {"ITS_NO", 62},
};

static void cpuid_offer_miss_capability(struct missing *missing, unsigned int bit, bool here)
{
	char name[80];

	snprintf(name, sizeof(name), "bit %u of IA32_ARCH_CAPABILITIES", bit);
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (capabilities[i].bit == bit)
			snprintf(name, sizeof(name), "%s%s", capabilities[i].name,
				 here ? " (a weakness that the guest does not know of)" : "");
	cpuid_offer_miss_named(missing, name);
}

/* What the guest relies on and is not so here. A guest that does not see the register relies on nothing in it. */
static void cpuid_offer_check_capabilities(const struct guest_cpu *guest, const struct guest_cpu *host,
					   struct missing *missing)
{
	uint64_t weak = 0, lacking, unknown;

	if (!(cpuid_offer_word(guest, 7, 0, EDX) >> 29 & 1))
		return;
	if (!guest->has_capabilities) {
		cpuid_offer_miss_named(missing, "IA32_ARCH_CAPABILITIES, which the source does not tell");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		weak |= (uint64_t)capabilities[i].weakness << capabilities[i].bit;
	lacking = guest->capabilities & ~host->capabilities & ~weak;
	unknown = host->capabilities & ~guest->capabilities & weak;
	for (uint64_t bits = lacking | unknown; bits; bits &= bits - 1) {
		unsigned int bit = (unsigned int)__builtin_ctzll(bits);

		cpuid_offer_miss_capability(missing, bit, unknown >> bit & 1);
	}
}

static int cpuid_offer_check_features(const struct guest_cpu *guest, const struct guest_cpu *host, const char *remedy,
				      struct err *err)
{
	struct missing missing = {.text = ""};
	char more[32] = "";

	cpuid_offer_check_capabilities(guest, host, &missing);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		uint32_t lacking = cpuid_offer_word(guest, words[i].leaf, words[i].index, words[i].reg) &
				   ~cpuid_offer_word(host, words[i].leaf, words[i].index, words[i].reg) &
				   ~words[i].ignored;

		for (; lacking; lacking &= lacking - 1)
			cpuid_offer_miss(&missing, words[i].leaf, words[i].index, words[i].reg,
					 (unsigned int)__builtin_ctz(lacking));
	}
	if (!missing.named)
		return 0;
	if (missing.more)
		snprintf(more, sizeof(more), " and %u more", missing.more);
	return err_set(err, -EINVAL, "this host's CPU or its KVM lacks features of the guest's CPU: %s%s; %s", missing.text,
		       more, remedy);
}

static int cpuid_offer_check_vendor(const struct guest_cpu *guest, const struct guest_cpu *host, struct err *err)
{
	static const enum cpuid_reg order[] = {EBX, EDX, ECX};
	char names[2][13] = {"", ""};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		put_le32(names[0] + 4 * i, cpuid_offer_word(guest, 0, 0, order[i]));
		put_le32(names[1] + 4 * i, cpuid_offer_word(host, 0, 0, order[i]));
	}
	for (size_t i = 0; i < 12; i++)
		for (size_t who = 0; who < 2; who++)
			if (names[who][i] < ' ' || names[who][i] > '~')
				names[who][i] = '?';
	return strcmp(names[0], names[1]) == 0 ? 0 :
	       err_set(err, -EINVAL, "the guest has a CPU of %s, this host's is of %s", names[0], names[1]);
}

/* The processor defines the offset and size of each part of the extended state, and the guest has read them. */
static int cpuid_offer_check_xsave(const struct guest_cpu *guest, const struct guest_cpu *host, struct err *err)
{
	uint64_t parts = cpuid_offer_word(guest, 0xd, 0, EAX) | (uint64_t)cpuid_offer_word(guest, 0xd, 0, EDX) << 32;

	for (uint32_t part = 2; part < 63; part++) {
		if (!(parts >> part & 1))
			continue;
		if (cpuid_offer_word(guest, 0xd, part, EAX) != cpuid_offer_word(host, 0xd, part, EAX) ||
		    cpuid_offer_word(guest, 0xd, part, EBX) != cpuid_offer_word(host, 0xd, part, EBX))
			return err_set(err, -EINVAL, "this host's CPU has another layout of the extended state (XSAVE) "
						     "than the guest's CPU: part %u", part);
	}
	return 0;
}

static int cpuid_offer_check_sizes(const struct guest_cpu *guest, const struct guest_cpu *host, struct err *err)
{
	uint32_t ours = cpuid_offer_word(host, 0xa, 0, EAX), theirs = cpuid_offer_word(guest, 0xa, 0, EAX);

	if (guest->phys_bits > host->phys_bits)
		return err_set(err, -EINVAL, "the guest has physical addresses of %u bits, this host's CPU %u",
			       guest->phys_bits, host->phys_bits);
	if ((theirs & 0xff) > (ours & 0xff) || (theirs >> 8 & 0xff) > (ours >> 8 & 0xff) ||
	    (theirs >> 16 & 0xff) > (ours >> 16 & 0xff))
		return err_set(err, -EINVAL, "the guest has performance counters that this host's KVM does not have");
	return 0;
}

static int cpuid_offer_check(struct guest_cpu *guest, const struct guest_cpu *host, bool force, const char *remedy,
			     const struct log *log, struct err *err)
{
	int ret = cpuid_offer_check_vendor(guest, host, err);
	struct err why;

	if (!ret && cpuid_offer_check_features(guest, host, remedy, &why)) {
		if (!force)
			return err_set(err, -EINVAL, "%s", why.text);
		log_warn(log, "--force-cpu: %s", why.text);
		guest->forced = true;
	}
	ret = ret ?: cpuid_offer_check_xsave(guest, host, err);
	return ret ?: cpuid_offer_check_sizes(guest, host, err);
}

static bool cpuid_offer_was_here(const struct guest_cpu *model, const json_t *offered)
{
	const char *name = json_string_value(json_object_get(offered, "host"));
	char ours[CPUID_HOST_NAME];

	if (!name)
		return false;
	cpuid_host_name(model, ours);
	return ours[0] && strcmp(name, ours) == 0;
}

int guest_cpu_read(unsigned int cpus, const json_t *offered, struct guest_cpu **ret, struct err *err)
{
	struct guest_cpu *model = cpuid_alloc(cpus);
	const struct kvm_cpuid_entry2 *sizes;
	int code = model ? 0 : err_sys(err, -ENOMEM, "CPU model");

	code = code ?: cpuid_offer_read_table(offered, model, err);
	code = code ?: cpuid_offer_read_capabilities(offered, model, err);
	if (code < 0) {
		guest_cpu_destroy(model);
		return code;
	}
	sizes = cpuid_find(model, 0x80000008, 0);
	model->phys_bits = sizes ? sizes->eax & 0xff : 36;
	model->strict = json_is_true(json_object_get(offered, "strict"));
	model->known = cpuid_offer_was_here(model, offered);
	*ret = model;
	return 0;
}

void guest_cpu_choices(const json_t *offered, struct cpu_config *config)
{
	struct guest_cpu *model;

	if (guest_cpu_read(1, offered, &model, NULL) < 0)
		return;
	config->nested = cpuid_hide_shows_nested(model);
	config->pmu = cpuid_hide_shows_pmu(model);
	guest_cpu_destroy(model);
}

bool guest_cpu_known(const struct guest_cpu *model)
{
	return model->known;
}

int guest_cpu_adopt(struct kvm *kvm, struct guest_cpu *model, bool force, const char *remedy, const struct log *log,
		    struct err *err)
{
	struct guest_cpu *host;
	int code;

	if (model->known) {
		if (cpuid_has_named(model, "amx_tile"))
			cpuid_ask_for_tiles(kvm);
		return 0;
	}
	code = guest_cpu_create(kvm, model->cpus, NULL, &host, err);
	if (code < 0)
		return code;
	code = cpuid_offer_check(model, host, force, remedy, log, err);
	guest_cpu_destroy(host);
	return code;
}
