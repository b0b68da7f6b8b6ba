/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast vmm/snapshot/memory_file.c writes memory: content, content in every second page, and next to none, beside
 * dd of the same bytes. The best of five each.
 *
 *	memory_file FOLDER [MIB]     files of MIB (1024) are made in FOLDER, for example on a tmpfs, and removed
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>

#include "core/monotonic.h"
#include "vmm/snapshot/memory_file.h"

#define PAGE 4096u
#define RUNS 5

static char *memory;
static uint64_t size;

static void fill(size_t step)
{
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	madvise(memory, size, MADV_HUGEPAGE);
	for (uint64_t at = 0; at < size; at += step)
		for (size_t i = 0; i < PAGE; i += 8)
			*(uint64_t *)(memory + at + i) = (at + i) * 0x9e3779b97f4a7c15u;
}

/* ms, with the sums; 0: it failed. */
static double write_once(const char *path, uint64_t *written)
{
	struct guest_memory *guest = guest_memory_create();
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct memory_file_options options = {.memory = guest, .fd = fd, .cancel_fd = -1};
	struct memory_file *file = NULL;
	struct memory_file_stats stats;
	struct snapshot_bytes sums;
	struct err err;
	uint64_t begin;
	int code = guest_memory_add(guest, &(struct guest_region){.size = size, .host = memory, .fd = -1}, &err);

	begin = monotonic_ns();
	code = code ?: memory_file_create(&options, &file, &err) ?: memory_file_write_all(file, &err) ?:
	       memory_file_finish(file, &sums, &err);
	begin = monotonic_ns() - begin;
	if (code) {
		fprintf(stderr, "%s: %s\n", path, err.text);
		return 0;
	}
	memory_file_get_stats(file, &stats);
	*written = stats.pages * PAGE;
	memory_file_destroy(file);
	guest_memory_destroy(guest);
	close(fd);
	return (double)begin / 1e6;
}

static void measure(const char *name, const char *path)
{
	double best = 1e9;
	uint64_t written = 0;

	for (int run = 0; run < RUNS; run++) {
		double ms = write_once(path, &written);

		best = MIN(best, ms);
	}
	printf("%s: %.3f ms for %llu MiB, %.2f GB/s\n", name, best, (unsigned long long)(written >> 20),
	       (double)written / best / 1e6);
	fflush(stdout);
	munmap(memory, size);
}

static void measure_dd(const char *path)
{
	char command[PATH_MAX * 3];

	snprintf(command, sizeof(command),
		 "for i in 1 2 3 4 5; do LC_ALL=C dd if='%s' of='%s.dd' bs=1M 2>&1 | tail -n 1; rm '%s.dd'; done | "
		 "sed 's/^[^,]*,[^,]*, /dd: /' | sort -n -k 2 | head -n 1", path, path, path);
	if (system(command))
		fprintf(stderr, "dd failed\n");
}

int main(int argc, char **argv)
{
	char path[PATH_MAX];

	size = MIB(argc > 2 ? strtoull(argv[2], NULL, 10) : 1024);
	if (argc < 2 || !size) {
		fprintf(stderr, "usage: memory_file FOLDER [MIB]\n");
		return 1;
	}
	snprintf(path, sizeof(path), "%s/memory_file.%d", argv[1], (int)getpid());
	fill(PAGE);
	measure("content", path);
	measure_dd(path);
	fill(2 * PAGE);
	measure("every second page", path);
	size /= 2;
	fill(align_up(size / 3, PAGE));
	measure("idle, half of the size", path);
	unlink(path);
	return 0;
}
