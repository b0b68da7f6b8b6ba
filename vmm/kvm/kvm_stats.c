/* SPDX-License-Identifier: Apache-2.0 */
/* See kvm_stats.h. A file of statistics is a header, the descriptors of all values, and the values. */
#include "vmm/kvm/kvm_stats.h"

#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define MAX_STATS 512u /* of one file; Linux 6 has about 60 */
#define MAX_VALUES 4096u

int kvm_stats_open(int fd)
{
	int stats = ioctl(fd, KVM_GET_STATS_FD, 0);

	return stats < 0 ? -1 : stats;
}

/* The descriptors of a file, each with its name behind it. */
struct kvm_stats_file {
	struct kvm_stats_header header;
	size_t stride; /* of the descriptors, bytes */
	char *descriptors;
};

static bool kvm_stats_read_all(int fd, void *to, size_t len, off_t offset)
{
	return pread(fd, to, len, offset) == (ssize_t)len;
}

/* False: this kernel has none, or others than those that api.rst describes. The caller frees the descriptors. */
static bool kvm_stats_describe(int fd, struct kvm_stats_file *file)
{
	struct kvm_stats_header *header = &file->header;

	if (!kvm_stats_read_all(fd, header, sizeof(*header), 0) || !header->name_size ||
	    header->name_size > KVM_STATS_NAME || header->num_desc > MAX_STATS)
		return false;
	file->stride = sizeof(struct kvm_stats_desc) + header->name_size;
	file->descriptors = malloc(header->num_desc * file->stride);
	return file->descriptors &&
	       kvm_stats_read_all(fd, file->descriptors, header->num_desc * file->stride, header->desc_offset);
}

static bool kvm_stats_get(const struct kvm_stats_file *file, unsigned int index, struct kvm_stats_desc *desc,
			  char name[KVM_STATS_NAME])
{
	const char *at = file->descriptors + index * file->stride;
	uint32_t type;

	memcpy(desc, at, sizeof(*desc));
	snprintf(name, KVM_STATS_NAME, "%.*s", (int)file->header.name_size, at + sizeof(*desc));
	type = desc->flags & KVM_STATS_TYPE_MASK;
	return desc->size == 1 && !(desc->offset % sizeof(uint64_t)) && desc->offset / sizeof(uint64_t) < MAX_VALUES &&
	       (type == KVM_STATS_TYPE_CUMULATIVE || type == KVM_STATS_TYPE_INSTANT || type == KVM_STATS_TYPE_PEAK);
}

static enum kvm_stats_type kvm_stats_type_of(const struct kvm_stats_desc *desc)
{
	uint32_t type = desc->flags & KVM_STATS_TYPE_MASK;

	return type == KVM_STATS_TYPE_CUMULATIVE ? KVM_STATS_COUNTER : type == KVM_STATS_TYPE_PEAK ? KVM_STATS_PEAK :
	       KVM_STATS_GAUGE;
}

/* Adds the values of one file to sums, or keeps the larger ones of peaks. */
static void kvm_stats_add(const struct kvm_stats_file *file, int fd, uint64_t *values, uint64_t *sums)
{
	char name[KVM_STATS_NAME];
	struct kvm_stats_desc desc;
	ssize_t len = fd < 0 ? 0 : pread(fd, values, MAX_VALUES * sizeof(*values), file->header.data_offset);

	for (unsigned int i = 0; i < file->header.num_desc; i++) {
		uint64_t value;

		if (!kvm_stats_get(file, i, &desc, name) || desc.offset + (ssize_t)sizeof(value) > len)
			continue;
		value = values[desc.offset / sizeof(value)];
		sums[i] = kvm_stats_type_of(&desc) == KVM_STATS_PEAK ? MAX(sums[i], value) : sums[i] + value;
	}
}

void kvm_stats_each(const int *fds, size_t count, void (*fn)(void *opaque, const struct kvm_stat *stat), void *opaque)
{
	_cleanup_(free_ptr) uint64_t *values = calloc(MAX_VALUES + MAX_STATS, sizeof(*values));
	uint64_t *sums = values ? values + MAX_VALUES : NULL;
	struct kvm_stats_file file = {.descriptors = NULL};
	char name[KVM_STATS_NAME];
	struct kvm_stats_desc desc;
	size_t first = 0;

	while (first < count && fds[first] < 0)
		first++;
	if (values && first < count && kvm_stats_describe(fds[first], &file)) {
		for (size_t i = first; i < count; i++)
			kvm_stats_add(&file, fds[i], values, sums);
		for (unsigned int i = 0; i < file.header.num_desc; i++)
			if (kvm_stats_get(&file, i, &desc, name))
				fn(opaque, &(struct kvm_stat){name, kvm_stats_type_of(&desc), sums[i]});
	}
	free(file.descriptors);
}
