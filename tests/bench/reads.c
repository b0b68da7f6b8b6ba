/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the guest: how many random reads a second a block device answers. Small and static where fio would need a disk
 * of its own.
 *
 *	reads DEVICE SECONDS     4 KiB, direct, 32 at a time; prints "@@ iops N"
 */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 32
#define SIZE 4096u

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void submit(aio_context_t context, struct iocb *block, uint64_t blocks)
{
	block->aio_offset = (long long)((uint64_t)random() % blocks * SIZE);
	if (syscall(SYS_io_submit, context, 1, &block) != 1) {
		perror("io_submit");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static char buffers[DEPTH][SIZE] __attribute__((aligned(SIZE)));
	static struct iocb requests[DEPTH];
	struct io_event events[DEPTH];
	aio_context_t context = 0;
	uint64_t bytes = 0, done = 0;
	double begun, now;
	int fd = argc == 3 ? open(argv[1], O_RDONLY | O_DIRECT) : -1;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0 || bytes < SIZE || syscall(SYS_io_setup, DEPTH, &context) < 0) {
		fprintf(stderr, "usage: reads DEVICE SECONDS\n");
		return 1;
	}
	for (int i = 0; i < DEPTH; i++) {
		requests[i] = (struct iocb){.aio_data = (uint64_t)i, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd,
					    .aio_buf = (uintptr_t)buffers[i], .aio_nbytes = SIZE};
		submit(context, &requests[i], bytes / SIZE);
	}
	begun = now = seconds();
	while (now < begun + atof(argv[2])) {
		long n = syscall(SYS_io_getevents, context, 1, DEPTH, events, NULL);

		for (long i = 0; i < n; i++) {
			if (events[i].res != SIZE) {
				fprintf(stderr, "a read failed: %lld\n", events[i].res);
				return 1;
			}
			submit(context, &requests[events[i].data], bytes / SIZE);
		}
		done += (uint64_t)(n > 0 ? n : 0);
		now = seconds();
	}
	printf("@@ iops %.0f\n", (double)done / (now - begun));
	return 0;
}
