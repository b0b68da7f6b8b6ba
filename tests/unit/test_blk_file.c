/* SPDX-License-Identifier: Apache-2.0 */
/* devices/virtio/blk_file.c: what cannot be a disk is told in one sentence, and nobody else has the disk meanwhile. */
#include "devices/virtio/blk_internal.h"
#include "tests/unit/test.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int lock_error; /* of every attempt to lock a file; 0: the kernel decides */

/* In the place of the C library's. */
int fcntl(int fd, int cmd, ...)
{
	int (*real)(int fd, int cmd, ...) = (int (*)(int fd, int cmd, ...))dlsym(RTLD_NEXT, "fcntl64");
	va_list list;
	void *argument;

	va_start(list, cmd);
	argument = va_arg(list, void *);
	va_end(list);
	if (cmd != F_OFD_SETLK || !lock_error)
		return real(fd, cmd, argument);
	errno = lock_error;
	return -1;
}

struct image {
	char dir[64], path[96];
	struct virtio_blk_options options;
};

static void make_image(struct image *image, off_t size)
{
	int fd;

	snprintf(image->dir, sizeof(image->dir), "%.40s/blkXXXXXX", getenv("TMPDIR") ?: "/tmp");
	CHECK(mkdtemp(image->dir));
	snprintf(image->path, sizeof(image->path), "%s/image", image->dir);
	fd = open(image->path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, size) == 0);
	close(fd);
	image->options = (struct virtio_blk_options){.id = "disk0", .path = image->path, .queues = 1};
}

static void remove_image(struct image *image)
{
	unlink(image->path);
	rmdir(image->dir);
}

/* What virtio_blk_create says to options; the path in it is replaced by PATH. */
static const char *complaint(const struct virtio_blk_options *options)
{
	static char text[700];
	struct guest_memory *memory = guest_memory_create();
	struct virtio_device *device = NULL;
	struct err err = {"nothing"};
	char *at;

	if (virtio_blk_create(options, memory, NULL, &device, &err) == 0)
		device->ops->destroy(device);
	guest_memory_destroy(memory);
	snprintf(text, sizeof(text), "%s", err.text);
	while ((at = strstr(text, options->path))) {
		memmove(at + 4, at + strlen(options->path), strlen(at + strlen(options->path)) + 1);
		memcpy(at, "PATH", 4);
	}
	return text;
}

static void says_what_is_wrong(void)
{
	struct image image;
	char path[128];
	uid_t user = geteuid();

	make_image(&image, 0);
	CHECK_STR(complaint(&image.options), "nothing"); /* a placeholder */
	CHECK_EQ(truncate(image.path, 4096), 0);
	CHECK_STR(complaint(&image.options), "nothing");
	image.options.queues = 65;
	CHECK_STR(complaint(&image.options), "--disk PATH: queues=65: a disk has 1 to 64");
	image.options.queues = 1;
	image.options.serial = "123456789012345678901";
	CHECK_STR(complaint(&image.options), "--disk PATH: serial=123456789012345678901: at most 20 characters");
	image.options.serial = NULL;
	CHECK_EQ(chmod(image.path, 0444) | chmod(image.dir, 0755), 0);
	if (user == 0)
		CHECK_EQ(seteuid(65534), 0);
	CHECK_STR(complaint(&image.options),
		  "--disk PATH: no permission to write it; add readonly=on, or change its owner or mode");
	image.options.readonly = true;
	CHECK_STR(complaint(&image.options), "nothing");
	CHECK_EQ(seteuid(user), 0);
	CHECK_EQ(chmod(image.path, 0), 0);
	if (user == 0)
		CHECK_EQ(seteuid(65534), 0);
	CHECK_STR(complaint(&image.options),
		  "--disk PATH: no permission to read it; change its owner or mode");
	CHECK_EQ(seteuid(user), 0);
	image.options.below = "/none";
	CHECK_STR(complaint(&image.options), "--disk PATH: a link or .. in it leads out of /none");
	image.options.below = NULL;
	image.options.path = image.dir;
	CHECK_STR(complaint(&image.options),
		  "--disk PATH: it is a directory; name an image file or a block device");
	image.options.path = "/dev/null";
	CHECK_STR(complaint(&image.options),
		  "--disk PATH: it is neither a file nor a block device; name one of those");
	snprintf(path, sizeof(path), "%s/none", image.dir);
	image.options.path = path;
	CHECK_STR(complaint(&image.options), "--disk PATH: no such file; 'truncate -s 10G PATH' makes an empty disk");
	remove_image(&image);
}

static void locks_its_file(void)
{
	int ready[2], done[2], status;
	struct virtio_device *first;
	struct guest_memory *memory = guest_memory_create();
	char expected[128], byte = 0;
	struct image image;
	pid_t pid;

	make_image(&image, 4096);
	CHECK(pipe(ready) == 0 && pipe(done) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		status = virtio_blk_create(&image.options, memory, NULL, &first, NULL);
		_exit(status || write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1);
	}
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	snprintf(expected, sizeof(expected),
		 "--disk PATH: in use by test_blk_file (pid %d); stop that first, or give each machine a disk of its own",
		 (int)pid);
	CHECK_STR(complaint(&image.options), expected);
	image.options.readonly = true;
	CHECK_STR(complaint(&image.options), expected);
	CHECK_EQ(write(done[1], &byte, 1), 1);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	/* Any number may read, none of them may write meanwhile; not in the same process either. */
	CHECK_EQ(virtio_blk_create(&image.options, memory, NULL, &first, NULL), 0);
	CHECK_STR(complaint(&image.options), "nothing");
	image.options.readonly = false;
	CHECK(strstr(complaint(&image.options), "in use by"));
	first->ops->destroy(first);
	CHECK_STR(complaint(&image.options), "nothing");
	guest_memory_destroy(memory);
	close(ready[0]);
	close(ready[1]);
	close(done[0]);
	close(done[1]);
	remove_image(&image);
}

/* A disk whose guest moves is open on both sides, and locked on one. */
static void hands_its_lock_over(void)
{
	struct guest_memory *memory = guest_memory_create();
	struct virtio_device *from, *to;
	struct image image;
	struct err err;

	make_image(&image, 4096);
	CHECK_EQ(virtio_blk_create(&image.options, memory, NULL, &from, NULL), 0);
	image.options.unlocked = true;
	CHECK_EQ(virtio_blk_create(&image.options, memory, NULL, &to, &err), 0);
	image.options.unlocked = false;
	CHECK_EQ(virtio_blk_lock(to, &err), -EBUSY);
	CHECK(strstr(err.text, "in use by test_blk_file"));
	virtio_blk_unlock(from);
	CHECK_EQ(virtio_blk_lock(to, &err), 0);
	CHECK_EQ(virtio_blk_lock(from, &err), -EBUSY);
	CHECK(strstr(complaint(&image.options), "in use by"));
	virtio_blk_unlock(to);
	CHECK_EQ(virtio_blk_lock(from, &err), 0);
	to->ops->destroy(to);
	CHECK(strstr(complaint(&image.options), "in use by"));
	from->ops->destroy(from);
	guest_memory_destroy(memory);
	remove_image(&image);
}

/* A file system without locks, or a server that does not answer: the disk is not used as if it were locked. */
static void what_cannot_be_locked_is_not_used(void)
{
	struct guest_memory *memory = guest_memory_create();
	struct virtio_device *disk;
	struct image image;
	struct err err;

	make_image(&image, 4096);
	lock_error = ENOLCK;
	CHECK_STR(complaint(&image.options), "--disk PATH: cannot be locked (No locks available); lock=off uses it without "
					     "a lock, if you take care that nothing else writes it");
	lock_error = EIO;
	CHECK(strstr(complaint(&image.options), "cannot be locked (Input/output error)"));
	image.options.unlocked = true;
	CHECK_EQ(virtio_blk_create(&image.options, memory, NULL, &disk, NULL), 0);
	CHECK_EQ(virtio_blk_lock(disk, &err), -EIO);
	disk->ops->destroy(disk);
	image.options.unlocked = false;
	image.options.lockless = true;
	CHECK_STR(complaint(&image.options), "nothing");
	lock_error = 0;
	CHECK_EQ(virtio_blk_create(&image.options, memory, NULL, &disk, NULL), 0);
	CHECK_STR(complaint(&image.options), "nothing");
	CHECK_STR(virtio_blk_guard(disk), "it has lock=off");
	disk->ops->destroy(disk);
	image.options.readonly = true;
	CHECK_EQ(virtio_blk_create(&image.options, memory, NULL, &disk, NULL), 0);
	CHECK(!virtio_blk_guard(disk));
	disk->ops->destroy(disk);
	guest_memory_destroy(memory);
	remove_image(&image);
}

/* Whether the lock shows that no other host writes the disk. */
static void knows_whom_a_lock_keeps_out(void)
{
	static const struct {
		mode_t mode;
		uint32_t type;
		const char *mount, *why;
	} cases[] = {
		{S_IFREG, EXT4_SUPER_MAGIC, "", NULL},
		{S_IFREG, TMPFS_MAGIC, "", NULL},
		{S_IFBLK, TMPFS_MAGIC, "", "the lock of a block device is this host's alone"},
		{S_IFREG, NFS_SUPER_MAGIC, "40 29 0:36 / /mnt rw - nfs4 host:/x rw,vers=4.2,local_lock=none", NULL},
		{S_IFREG, NFS_SUPER_MAGIC, "40 29 0:36 / /mnt rw - nfs host:/x rw,nolock,local_lock=all",
		 "its file system is mounted without the other hosts' locks"},
		{S_IFREG, NFS_SUPER_MAGIC, "", "its file system is mounted without the other hosts' locks"},
		{S_IFREG, FUSE_SUPER_MAGIC, "", "its file system may keep locks to this host"},
		{S_IFREG, V9FS_MAGIC, "", "its file system may keep locks to this host"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *why = blk_guard_judge(cases[i].mode, cases[i].type, cases[i].mount);

		CHECK_STR(why ?: "-", cases[i].why ?: "-");
	}
}

/* What opens it by its own rights may have opened it for something else. */
static void a_descriptor_that_does_not_fit_is_refused(void)
{
	static const struct {
		int flags, direct_flags; /* -1: none */
		bool readonly, direct;
		const char *says;
	} cases[] = {
		{O_RDWR, -1, false, false, "nothing"},
		{O_RDWR | O_NONBLOCK, -1, false, false, "nothing"},
		{O_RDWR, O_RDWR | O_DIRECT, false, true, "nothing"},
		{O_RDONLY, -1, true, false, "nothing"},
		{O_RDWR, -1, true, false, "nothing"},
		{O_RDONLY, -1, false, false,
		 "its descriptor cannot be written; open it for writing, or add readonly=on"},
		{O_WRONLY, -1, false, false, "its descriptor cannot be read"},
		{O_PATH, -1, false, false, "its descriptor cannot be read"},
		{O_RDWR | O_APPEND, -1, false, false, "its descriptor only appends; open it without O_APPEND"},
		{O_RDWR | O_DIRECT, -1, false, false, "its descriptor was opened with O_DIRECT; open it without"},
		{O_RDWR, -1, false, true, "its descriptor cannot be read"},
		{O_RDWR, O_RDWR, false, true, "direct=on needs a second descriptor, opened with O_DIRECT"},
		{O_RDWR, O_RDONLY | O_DIRECT, false, true,
		 "its descriptor cannot be written; open it for writing, or add readonly=on"},
	};
	char expected[200];
	struct image image;

	make_image(&image, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct virtio_blk_passed passed = {
			.fd = open(image.path, cases[i].flags | O_CLOEXEC),
			.direct_fd = cases[i].direct_flags < 0 ? -1 : open(image.path, cases[i].direct_flags | O_CLOEXEC),
		};

		image.options.passed = &passed;
		image.options.readonly = cases[i].readonly;
		image.options.direct = cases[i].direct;
		snprintf(expected, sizeof(expected), "%s%s", strcmp(cases[i].says, "nothing") ? "--disk PATH: " : "",
			 cases[i].says);
		CHECK_STR(complaint(&image.options), expected);
		/* They are still the caller's, and wait for storage. */
		CHECK(fcntl(passed.fd, F_GETFD) >= 0);
		if (strcmp(cases[i].says, "nothing") == 0)
			CHECK_EQ(fcntl(passed.fd, F_GETFL) & O_NONBLOCK, 0);
		fd_close(&passed.fd);
		fd_close(&passed.direct_fd);
	}
	remove_image(&image);
}

static void a_descriptor_of_something_else_is_refused(void)
{
	struct virtio_blk_passed passed = {.fd = open("/dev/null", O_RDWR | O_CLOEXEC), .direct_fd = -1};
	struct image image, other;

	make_image(&image, 4096);
	make_image(&other, 4096);
	image.options.passed = &passed;
	CHECK_STR(complaint(&image.options), "--disk PATH: it is neither a file nor a block device; name one of those");
	fd_close(&passed.fd);
	CHECK_STR(complaint(&image.options), "--disk PATH: its descriptor: Bad file descriptor");
	passed.fd = open(image.path, O_RDWR | O_CLOEXEC);
	passed.direct_fd = open(other.path, O_RDWR | O_DIRECT | O_CLOEXEC);
	image.options.direct = true;
	CHECK_STR(complaint(&image.options), "--disk PATH: its descriptors are of different files");
	fd_close(&passed.fd);
	fd_close(&passed.direct_fd);
	remove_image(&image);
	remove_image(&other);
}

TEST_MAIN(TEST(a_descriptor_that_does_not_fit_is_refused), TEST(a_descriptor_of_something_else_is_refused),
	  TEST(what_cannot_be_locked_is_not_used), TEST(knows_whom_a_lock_keeps_out), TEST(says_what_is_wrong), TEST(locks_its_file), TEST(hands_its_lock_over))
