/* SPDX-License-Identifier: Apache-2.0 */
/* See memory.h. */
#include "vmm/machine/memory.h"

#include "boot/layout_x86.h"
#include "core/prefault.h"

#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

struct ram {
	struct guest_memory *memory;
	char *host;        /* the guest's bytes, size of them */
	void *reservation; /* the whole mapping; host is an aligned address in it */
	size_t reserved;
	uint64_t size;
	uint64_t low; /* bytes below the hole */
	uint64_t page_size;
	int fd;       /* memfd, or -1 */
	struct guest_file base[2]; /* of the regions, if the content comes from somewhere */
	bool has_base;
};

static uint64_t memory_page_size(enum hugepages hugepages)
{
	return hugepages == HUGEPAGES_1G ? GIB(1) : hugepages == HUGEPAGES_2M ? MIB(2) : GUEST_PAGE_SIZE;
}

static int memory_no_memory(const struct memory_config *config, int code, struct err *err)
{
	const char *size = config->hugepages == HUGEPAGES_1G ? "1G" : "2M";
	unsigned long long mib = config->size >> 20;

	if (config->hugepages != HUGEPAGES_NONE && (code == -ENOMEM || code == -ENOSPC))
		return err_set(err, code, "--memory %lluM,hugepages=%s: not enough huge pages are reserved; write "
					  "their number to /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
			       mib, size, (unsigned long long)(memory_page_size(config->hugepages) >> 10));
	if (config->hugepages != HUGEPAGES_NONE && (code == -ENODEV || code == -EINVAL))
		return err_set(err, code, "--memory %lluM,hugepages=%s: this host has no huge pages of that size; "
					  "leave hugepages out or write another size", mib, size);
	return err_sys(err, code, "--memory %lluM", mib);
}

/* Creates the memfd. It reserves huge pages now, so that a lack of them is an error and not a SIGBUS later. */
static int memory_make_memfd(const struct memory_config *config, struct ram *ram, struct err *err)
{
	unsigned int flags = MFD_CLOEXEC;

	if (config->hugepages == HUGEPAGES_2M)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	else if (config->hugepages == HUGEPAGES_1G)
		flags |= MFD_HUGETLB | MFD_HUGE_1GB;
	ram->fd = memfd_create("mvmm-ram", flags);
	if (ram->fd < 0)
		return memory_no_memory(config, -errno, err);
	if (ftruncate(ram->fd, (off_t)config->size) < 0)
		return memory_no_memory(config, -errno, err);
	return 0;
}

/* Reserves address space, aligned for huge pages. */
static int memory_reserve(struct ram *ram, uint64_t align, struct err *err)
{
	ram->reserved = ram->size + align;
	ram->reservation = mmap(NULL, ram->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram->reservation == MAP_FAILED) {
		ram->reservation = NULL;
		return err_sys(err, -errno, "--memory %lluM: address space", (unsigned long long)(ram->size >> 20));
	}
	ram->host = (char *)(uintptr_t)align_up((uintptr_t)ram->reservation, align);
	return 0;
}

static int memory_back(const struct memory_config *config, bool shared, struct ram *ram, struct err *err)
{
	int flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
	int ret = shared ? memory_make_memfd(config, ram, err) : 0;

	if (ret < 0)
		return ret;
	if (config->hugepages == HUGEPAGES_NONE)
		flags |= MAP_NORESERVE;
	else if (!shared)
		flags |= MAP_HUGETLB | (config->hugepages == HUGEPAGES_1G ? MAP_HUGE_1GB : MAP_HUGE_2MB);
	if (mmap(ram->host, ram->size, PROT_READ | PROT_WRITE, flags, ram->fd, 0) == MAP_FAILED)
		return memory_no_memory(config, -errno, err);
	if (config->hugepages == HUGEPAGES_NONE)
		madvise(ram->host, ram->size, MADV_HUGEPAGE);
	return 0;
}

/* ---- from a source ---- */

/* Also the page size of what the file is made of. */
static int memory_check_file(const struct memory_config *config, bool shared, int fd, struct ram *ram, struct err *err)
{
	uint64_t wanted = memory_page_size(config->hugepages);
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return err_sys(err, -errno, "memory file");
	if ((uint64_t)st.st_size != ram->size)
		return err_set(err, -EINVAL, "the memory file has %llu bytes, but the machine has %llu bytes of memory",
			       (unsigned long long)st.st_size, (unsigned long long)ram->size);
	if (shared)
		return err_set(err, -ENOTSUP, "the machine's memory is shared=on, but a memory file is mapped "
			       "privately; use --memory-mode copy");
	ram->page_size = fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : GUEST_PAGE_SIZE;
	if (config->hugepages != HUGEPAGES_NONE && ram->page_size != wanted)
		return err_set(err, -ENOTSUP, "the machine's memory has hugepages=%s, but the memory file is not on "
			       "hugetlbfs with pages of that size; use --memory-mode copy",
			       wanted == GIB(1) ? "1G" : "2M");
	return 0;
}

static int memory_map_file(int fd, struct ram *ram, struct err *err)
{
	int flags = MAP_PRIVATE | MAP_FIXED | (ram->page_size == GUEST_PAGE_SIZE ? MAP_NORESERVE : 0);

	if (mmap(ram->host, ram->size, PROT_READ | PROT_WRITE, flags, fd, 0) != MAP_FAILED)
		return 0;
	if (ram->page_size != GUEST_PAGE_SIZE && errno == ENOMEM)
		return err_set(err, -ENOMEM, "not enough huge pages are free for what the guest writes: a clone needs as "
			       "many as it has memory");
	return err_sys(err, -errno, "memory file");
}

/* Memory of the configured kind, and what is in it at first. */
static int memory_provide(const struct memory_config *config, bool shared, const struct ram_source *source,
			  struct ram *ram, struct err *err)
{
	bool maps = source && source->fd >= 0;
	int ret = maps ? memory_check_file(config, shared, source->fd, ram, err) : 0;

	ret = ret ?: memory_reserve(ram, MAX(ram->page_size, MIB(2)), err);
	ret = ret ?: maps ? memory_map_file(source->fd, ram, err) : memory_back(config, shared, ram, err);
	if (ret == 0)
		madvise(ram->host, ram->size, MADV_DONTDUMP);
	if (ret == 0 && source && source->fill)
		ret = source->fill(source->opaque, ram->host, ram->size, err);
	ram->has_base = source && (maps || source->on_touch);
	for (int i = 0; i < 2 && ram->has_base; i++)
		ram->base[i] = (struct guest_file){.fd = source->fd, .offset = i ? ram->low : 0};
	return ret;
}

static int memory_add_regions(struct ram *ram, struct err *err)
{
	struct guest_region low = {
		.gpa = 0, .size = ram->low, .host = ram->host, .fd = ram->fd, .page_size = ram->page_size,
		.base = ram->has_base ? &ram->base[0] : NULL,
	};
	struct guest_region high = {
		.gpa = LAYOUT_4G, .size = ram->size - ram->low, .host = ram->host + ram->low, .fd = ram->fd,
		.fd_offset = ram->low, .page_size = ram->page_size, .base = ram->has_base ? &ram->base[1] : NULL,
	};
	int ret = guest_memory_add(ram->memory, &low, err);

	if (ret < 0 || !high.size)
		return ret;
	ret = guest_memory_add(ram->memory, &high, err);
	if (ret < 0)
		guest_memory_remove(ram->memory, low.gpa, NULL);
	return ret;
}

int ram_create(const struct memory_config *config, bool shared, const struct ram_source *source,
	       struct guest_memory *memory, const struct log *log, struct ram **ret, struct err *err)
{
	struct ram *ram = calloc(1, sizeof(*ram));
	int code;

	if (!ram)
		return err_sys(err, -ENOMEM, "memory");
	*ram = (struct ram){
		.size = config->size, .low = MIN(config->size, LAYOUT_HOLE), .fd = -1,
		.page_size = memory_page_size(config->hugepages),
	};
	code = memory_provide(config, shared, source, ram, err);
	if (code == 0 && config->prefault && !(source && source->on_touch))
		code = prefault(ram->host, ram->size, "--memory prefault=on", log, err);
	if (code == 0) {
		ram->memory = memory;
		code = memory_add_regions(ram, err);
	}
	if (code < 0) {
		ram->memory = NULL;
		ram_destroy(ram);
		return code;
	}
	*ret = ram;
	return 0;
}

void ram_destroy(struct ram *ram)
{
	if (!ram)
		return;
	if (ram->memory) {
		guest_memory_remove(ram->memory, 0, NULL);
		if (ram->size > ram->low)
			guest_memory_remove(ram->memory, LAYOUT_4G, NULL);
	}
	if (ram->reservation)
		munmap(ram->reservation, ram->reserved);
	fd_close(&ram->fd);
	free(ram->base[0].gone);
	free(ram->base[1].gone);
	free(ram);
}

int ram_file(const struct ram *ram)
{
	return ram->has_base ? ram->base[0].fd : -1;
}

uint64_t ram_end(const struct ram *ram)
{
	return LAYOUT_4G + (ram->size - ram->low);
}
