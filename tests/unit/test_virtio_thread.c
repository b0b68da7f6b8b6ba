/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices/virtio/virtio_thread: a thread is there from its first resume on; it parks, goes on and ends; and what was only
 * prepared costs nothing and holds nothing up.
 */
#include "devices/virtio/virtio_thread.h"
#include "core/irq.h"
#include "core/monotonic.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <poll.h>
#include <sys/eventfd.h>

static struct virtio_thread thread;
static unsigned int rounds; /* atomic */
static int wake_fd;

static void *work(void *opaque)
{
	struct pollfd wait = {.fd = wake_fd, .events = POLLIN};

	for (;;) {
		if (virtio_thread_asked(&thread) && !virtio_thread_park(&thread))
			return NULL;
		__atomic_add_fetch(&rounds, 1, __ATOMIC_SEQ_CST);
		if (!virtio_thread_asked(&thread))
			poll(&wait, 1, -1);
		eventfd_drain(wake_fd);
	}
}

static unsigned int threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void begin(void)
{
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rounds = 0;
	virtio_thread_prepare(&thread, THREAD_DISK, wake_fd, work, NULL, "a name that is too long");
}

static void end(void)
{
	virtio_thread_stop(&thread);
	close(wake_fd);
}

static void await_rounds(unsigned int wanted)
{
	int64_t until = monotonic_ms() + 20000;

	while (__atomic_load_n(&rounds, __ATOMIC_SEQ_CST) < wanted && monotonic_ms() < until)
		usleep(1000);
	CHECK(rounds >= wanted);
}

static void what_is_prepared_is_no_thread_yet(void)
{
	unsigned int before = threads();

	begin();
	CHECK_EQ(threads(), before);
	virtio_thread_pause(&thread);
	CHECK_EQ(virtio_thread_wait(&thread, monotonic_ms()), 0);
	CHECK_EQ(threads(), before);
	end();
	CHECK_EQ(rounds, 0);
}

static void the_first_resume_starts_it(void)
{
	unsigned int before = threads();
	char name[16];

	begin();
	CHECK_EQ(virtio_thread_resume(&thread), 0);
	CHECK_EQ(threads(), before + 1);
	CHECK_EQ(pthread_getname_np(thread.id, name, sizeof(name)), 0);
	CHECK_STR(name, "a name that is ");
	await_rounds(1);
	for (unsigned int i = 0; i < 100; i++) {
		virtio_thread_pause(&thread);
		CHECK_EQ(virtio_thread_wait(&thread, monotonic_ms() + 20000), 0);
		CHECK_EQ(virtio_thread_resume(&thread), 0);
	}
	CHECK_EQ(threads(), before + 1);
	end();
	CHECK_EQ(threads(), before);
}

static void a_thread_that_was_not_prepared_is_none(void)
{
	unsigned int before = threads();

	thread = (struct virtio_thread){0};
	CHECK_EQ(virtio_thread_resume(&thread), 0);
	CHECK_EQ(threads(), before);
	begin();
	end();
	CHECK_EQ(virtio_thread_resume(&thread), 0); /* of a device that was reset */
	CHECK_EQ(threads(), before);
	virtio_thread_stop(&thread);
}

TEST_MAIN(TEST(what_is_prepared_is_no_thread_yet), TEST(the_first_resume_starts_it),
	  TEST(a_thread_that_was_not_prepared_is_none))
