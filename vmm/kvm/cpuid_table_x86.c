/* SPDX-License-Identifier: Apache-2.0 */
/* See cpuid_table_x86.h. */
#include "vmm/kvm/cpuid_table_x86.h"

struct guest_cpu *cpuid_alloc(unsigned int cpus)
{
	struct guest_cpu *model = calloc(1, sizeof(*model));

	if (!model)
		return NULL;
	model->cpus = cpus;
	model->cpuid = calloc(1, sizeof(*model->cpuid) + CPUID_MAX_ENTRIES * sizeof(model->cpuid->entries[0]));
	if (!model->cpuid)
		free(take_ptr(model));
	return model;
}

void guest_cpu_destroy(struct guest_cpu *model)
{
	if (!model)
		return;
	free(model->cpuid);
	free(model);
}

struct kvm_cpuid_entry2 *cpuid_find(const struct guest_cpu *model, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < model->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *entry = &model->cpuid->entries[i];

		if (entry->function == function && entry->index == index)
			return entry;
	}
	return NULL;
}

uint32_t *cpuid_reg(struct kvm_cpuid_entry2 *entry, enum cpuid_reg reg)
{
	uint32_t *const regs[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};

	return regs[reg];
}
