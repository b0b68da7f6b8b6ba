/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/memory_room: what a host and the control groups of a process can still give, from files of a made-up /proc and /sys. */
#include "tests/unit/test.h"
#include "vmm/machine/memory_room.h"

#include "core/util.h"

#include <stdlib.h>
#include <unistd.h>

static char root[32];

/* Writes the file and the folders that it is in. */
static void put(const char *path, const char *text)
{
	char command[512];

	snprintf(command, sizeof(command), "f=%s%s; mkdir -p ${f%%/*} && printf '%s' >$f", root, path, text);
	CHECK_EQ(system(command), 0);
}

static void begin(void)
{
	snprintf(root, sizeof(root), "/tmp/mvmm-test-XXXXXX");
	CHECK(mkdtemp(root));
	put("/proc/meminfo", "MemTotal: 9000 kB\\nMemFree: 10 kB\\nMemAvailable:    3000 kB\\nSwapTotal: 50 kB\\nSwapFree: 24 kB\\n");
}

static void end(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", root);
	CHECK_EQ(system(command), 0);
}

static void a_host_alone(void)
{
	begin();
	CHECK_EQ(memory_room(root), 3024 * 1024);
	put("/proc/self/cgroup", "4:memory:/x\\n"); /* version 1 is not asked */
	CHECK_EQ(memory_room(root), 3024 * 1024);
	put("/proc/self/cgroup", "0::/\\n");
	CHECK_EQ(memory_room(root), 3024 * 1024);
	end();
	CHECK_EQ(memory_room(root), UINT64_MAX);
}

/* The narrowest of all groups, of which one may have no limit; caches are let go of. */
static void the_narrowest_group(void)
{
	begin();
	put("/proc/self/cgroup", "0::/vm/one\\n");
	put("/sys/fs/cgroup/vm/one/memory.max", "max\\n");
	put("/sys/fs/cgroup/vm/one/memory.current", "500\\n");
	CHECK_EQ(memory_room(root), 3024 * 1024);
	put("/sys/fs/cgroup/vm/memory.max", "1048576\\n");
	put("/sys/fs/cgroup/vm/memory.current", "1000000\\n");
	CHECK_EQ(memory_room(root), 48576);
	put("/sys/fs/cgroup/vm/memory.stat", "anon 5\\ninactive_file 300\\nactive_file 20\\nfile 7000\\n");
	CHECK_EQ(memory_room(root), 48576 + 320);
	put("/sys/fs/cgroup/vm/memory.swap.max", "7\\n");
	put("/sys/fs/cgroup/vm/memory.swap.current", "2\\n");
	CHECK_EQ(memory_room(root), 48576 + 320 + 5);
	put("/sys/fs/cgroup/memory.max", "4096\\n"); /* the group that a container takes for the outermost */
	put("/sys/fs/cgroup/memory.current", "5000\\n");
	CHECK_EQ(memory_room(root), 0);
	put("/sys/fs/cgroup/memory.current", "4000\\n");
	CHECK_EQ(memory_room(root), 96);
	put("/proc/self/cgroup", "0::/\\n");
	CHECK_EQ(memory_room(root), 96);
	end();
}

static void what_a_process_has(void)
{
	begin();
	CHECK_EQ(memory_used(root), 0);
	put("/proc/self/status", "Name:\tx\\nVmRSS:\t    12 kB\\nRssAnon:\t  5 kB\\nRssFile:\t  7 kB\\nVmSwap:\t     3 kB\\n");
	CHECK_EQ(memory_used(root), 15 * 1024);
	CHECK_EQ(memory_own(root), 8 * 1024);
	end();
	CHECK(memory_used("") > KIB(100) && memory_used("") < memory_room(""));
}

TEST_MAIN(TEST(a_host_alone), TEST(the_narrowest_group), TEST(what_a_process_has))
