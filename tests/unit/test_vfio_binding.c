/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/binding.c: which functions can be passed through, and giving them to VFIO and back. */
#include "tests/unit/vfio_bench.h"
#include "vfio/binding.h"

#define UUID "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

static struct fake_kernel *fake;
static int iommu;
static struct err err;
static char told[1024]; /* "name driver, " for each that changed hands */

static void on_told(void *opaque, const char *name, const char *driver)
{
	size_t n = strlen(told);

	snprintf(told + n, sizeof(told) - n, "%s%s %s", n ? ", " : "", name, driver);
}

static void setup(void)
{
	fake = fake_new();
	iommu = fake_iommu(fake, true);
	told[0] = 0;
	err.text[0] = 0;
}

static void done(void)
{
	CHECK_EQ(fake_left(fake), 0);
	fake_free(fake);
}

/* A function with a driver of the host. */
static struct fake_device *add(const char *bdf, int group, const char *driver, uint32_t class_code)
{
	struct fake_device *device = fake_device(fake, bdf, group, iommu);

	snprintf(device->driver, sizeof(device->driver), "%s", driver);
	snprintf(device->native, sizeof(device->native), "%s", strstr(driver, "vfio") ? "nvme" : driver);
	device->class_code = class_code;
	device->vendor = 0x8086;
	device->product = 0x10c9;
	return device;
}

static int bind(const char *spec, bool group)
{
	return vfio_binding_bind(&fake->sys, spec, group, on_told, NULL, &err);
}

static int unbind(const char *spec, bool group)
{
	return vfio_binding_unbind(&fake->sys, spec, group, on_told, NULL, &err);
}

/* ---- the list ---- */

static char listed[2048];

static void on_listed(void *opaque, const struct vfio_function *f)
{
	static const char *const verdicts[] = {"ready", "else", "shared", "used", "bridge", "noiommu"};
	size_t n = strlen(listed);

	snprintf(listed + n, sizeof(listed) - n, "%s %s\n", f->host.name + 5, verdicts[f->fitness]);
	CHECK_EQ(f->vendor, 0x8086);
	CHECK_EQ(f->device, 0x10c9);
	if (strcmp(f->host.name, "0000:01:00.0") == 0) {
		CHECK_EQ(f->vfs, 2);
		CHECK_EQ(f->total_vfs, 7);
		CHECK_EQ(f->class_code, 0x020000);
		CHECK_STR(f->parent, "");
	} else {
		CHECK_EQ(f->total_vfs, 0);
		CHECK_STR(f->parent, strcmp(f->host.name, "0000:01:10.0") == 0 ? "0000:01:00.0" : "");
	}
}

static void on_mdev(void *opaque, const char *name)
{
	snprintf(listed, sizeof(listed), "%s", name);
}

static void lists_with_verdicts(void)
{
	struct fake_device *device;
	int group, fd;
	char path[32];

	setup();
	group = fake_group(fake);
	device = add("0000:01:00.0", group, "igb", 0x020000);
	device->vfs = 2;
	device->total_vfs = 7;
	device = add("0000:01:10.0", fake_group(fake), "vfio-pci", 0x020000);
	snprintf(device->physfn, sizeof(device->physfn), "0000:01:00.0");
	add("0000:02:00.0", fake_group(fake), "", 0x010802);
	/* A group shared with a host driver, and one shared with what does not matter. */
	group = fake_group(fake);
	add("0000:03:00.0", group, "vfio-pci", 0x010802);
	add("0000:03:00.1", group, "ahci", 0x010601);
	group = fake_group(fake);
	add("0000:04:00.0", group, "mlx5_vfio_pci", 0x020000);
	add("0000:04:00.1", group, "", 0x020000);
	add("0000:04:00.2", group, "pci-stub", 0x020000);
	add("0000:00:1c.0", group, "pcieport", 0x060400);
	/* Somebody has the group open. */
	group = fake_group(fake);
	add("0000:05:00.0", group, "vfio-pci", 0x010802);
	snprintf(path, sizeof(path), "/dev/vfio/%d", group);
	fd = fake_open(fake, path);
	CHECK(fd >= 0);
	/* No IOMMU: no group, or one that is made up. */
	add("0000:06:00.0", -1, "e1000e", 0x020000);
	group = fake_group(fake);
	fake->groups[group].noiommu = true;
	add("0000:07:00.0", group, "vfio-pci", 0x020000);
	fake_mdev(fake, UUID, fake_group(fake));
	listed[0] = 0;
	CHECK_EQ(vfio_binding_each(&fake->sys, on_listed, NULL, &err), 0);
	CHECK_STR(listed, "00:1c.0 bridge\n01:00.0 else\n01:10.0 ready\n02:00.0 else\n03:00.0 shared\n03:00.1 else\n"
			  "04:00.0 ready\n04:00.1 else\n04:00.2 else\n05:00.0 used\n06:00.0 noiommu\n07:00.0 noiommu\n");
	CHECK_EQ(vfio_binding_each_mdev(&fake->sys, on_mdev, NULL, &err), 0);
	CHECK_STR(listed, UUID);
	fake->sys.ops->close(&fake->sys, fd);
	done();
}

static void list_that_fails(void)
{
	setup();
	add("0000:01:00.0", fake_group(fake), "igb", 0x020000);
	fake->fail_at = 1;
	fake->fail_errno = -EACCES;
	CHECK_EQ(vfio_binding_each(&fake->sys, on_listed, NULL, &err), -EACCES);
	CHECK_HAS(err.text, "/sys/bus/pci/devices");
	fake->calls = 0;
	CHECK_EQ(vfio_binding_each_mdev(&fake->sys, on_mdev, NULL, &err), -EACCES);
	CHECK_HAS(err.text, "/sys/bus/mdev/devices");
	done();
}

/* ---- one function ---- */

static void there_and_back(void)
{
	struct fake_device *device;

	setup();
	device = add("0000:01:00.0", fake_group(fake), "nvme", 0x010802);
	CHECK_EQ(bind("01:00.0", false), 0);
	CHECK_STR(device->driver, "vfio-pci");
	CHECK_STR(told, "0000:01:00.0 vfio-pci");
	/* Again is nothing to do. */
	CHECK_EQ(bind("01:00.0", false), 0);
	CHECK_STR(told, "0000:01:00.0 vfio-pci");
	told[0] = 0;
	CHECK_EQ(unbind("01:00.0", false), 0);
	CHECK_STR(device->driver, "nvme");
	CHECK_STR(device->override, "");
	CHECK_STR(told, "0000:01:00.0 nvme");
	CHECK_EQ(unbind("01:00.0", false), 0);
	CHECK_STR(told, "0000:01:00.0 nvme");
	/* One that has no driver of its own. */
	device->driver[0] = device->native[0] = told[0] = 0;
	CHECK_EQ(bind("01:00.0", false), 0);
	CHECK_EQ(unbind("01:00.0", false), 0);
	CHECK_STR(told, "0000:01:00.0 vfio-pci, 0000:01:00.0 ");
	done();
}

static void refused(void)
{
	struct fake_device *device;

	setup();
	device = add("0000:01:00.0", fake_group(fake), "nvme", 0x010802);
	add("0000:00:1c.0", fake_group(fake), "pcieport", 0x060400);
	fake_mdev(fake, UUID, fake_group(fake));
	CHECK_EQ(bind("00:1c.0", false), -EINVAL);
	CHECK_HAS(err.text, "0000:00:1c.0 is a bridge");
	CHECK_EQ(bind(UUID, false), -EINVAL);
	CHECK_HAS(err.text, "which needs no bind");
	CHECK_EQ(unbind(UUID, true), -EINVAL);
	CHECK_EQ(bind("0f:00.0", false), -ENODEV);
	CHECK_EQ(bind("nonsense", false), -EINVAL);
	/* The module is not there: what to type, and all as before. */
	fake->no_vfio_pci = true;
	CHECK_EQ(bind("01:00.0", false), -ENODEV);
	CHECK_HAS(err.text, "modprobe vfio-pci");
	CHECK_STR(device->driver, "nvme");
	CHECK_STR(device->override, "");
	/* The driver does not let go. */
	fake->no_vfio_pci = false;
	device->stuck = true;
	CHECK_EQ(bind("01:00.0", false), -EBUSY);
	CHECK_HAS(err.text, "/sys/bus/pci/drivers/nvme/unbind");
	CHECK_STR(device->driver, "nvme");
	CHECK_STR(device->override, "");
	fake->no_rights = true;
	CHECK_EQ(bind("01:00.0", false), -EACCES);
	CHECK_HAS(err.text, "driver_override: run it as root");
	CHECK_STR(told, "");
	done();
	/* No group, and the group is asked for. */
	setup();
	add("0000:01:00.0", -1, "nvme", 0x010802);
	CHECK_EQ(bind("01:00.0", true), -ENODEV);
	CHECK_HAS(err.text, "leave --group out");
	done();
}

/* ---- groups ---- */

static struct fake_device *members[5];

/* A bridge, one that is VFIO's already, and three of the host's. */
static void setup_group(void)
{
	static const struct { const char *bdf, *driver; uint32_t class_code; } table[] = {
		{"0000:00:1c.0", "pcieport", 0x060400}, {"0000:01:00.0", "igb", 0x020000},
		{"0000:01:00.1", "vfio-pci", 0x010802}, {"0000:01:00.2", "", 0x0c0330},
		{"0000:01:00.3", "ahci", 0x010601},
	};
	int group;

	setup();
	group = fake_group(fake);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		members[i] = add(table[i].bdf, group, table[i].driver, table[i].class_code);
}

static void check_drivers(const char *expected)
{
	char all[128] = "";

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		size_t n = strlen(all);

		snprintf(all + n, sizeof(all) - n, "%s%s", i ? " " : "", members[i]->driver[0] ? members[i]->driver : "-");
	}
	CHECK_STR(all, expected);
}

#define BEFORE "pcieport igb vfio-pci - ahci"

static void whole_group(void)
{
	setup_group();
	CHECK_EQ(bind("01:00.0", true), 0);
	check_drivers("pcieport vfio-pci vfio-pci vfio-pci vfio-pci");
	CHECK_STR(told, "0000:01:00.0 vfio-pci, 0000:01:00.2 vfio-pci, 0000:01:00.3 vfio-pci");
	CHECK_EQ(unbind("01:00.3", true), 0);
	check_drivers("pcieport igb nvme - ahci");
	done();
}

/* One member fails: those before it go back and that is told, the one that was VFIO's before stays. */
static void group_with_a_failing_member(void)
{
	setup_group();
	members[4]->stuck = true;
	CHECK_EQ(bind("01:00.0", true), -EBUSY);
	CHECK_HAS(err.text, "drivers/ahci/unbind");
	check_drivers(BEFORE);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		CHECK_STR(members[i]->override, "");
	CHECK_STR(told, "0000:01:00.0 vfio-pci, 0000:01:00.2 vfio-pci, 0000:01:00.2 , 0000:01:00.0 igb");
	done();
	/* The first of them: nothing has changed yet. */
	setup_group();
	members[1]->stuck = true;
	CHECK_EQ(bind("01:00.2", true), -EBUSY);
	check_drivers(BEFORE);
	CHECK_STR(told, "");
	done();
}

/* Every call to the kernel fails once: either all are bound, or all are as they were. */
static void every_call_fails(void)
{
	static const int codes[] = {-EIO, -ENOMEM, -EBUSY, -ENODEV, -EACCES};

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		for (unsigned int n = 1;; n++) {
			bool reached;
			int rc;

			setup_group();
			fake->fail_at = n;
			fake->fail_errno = codes[i];
			rc = bind("01:00.0", true);
			reached = fake->calls >= n;
			if (rc < 0) {
				CHECK(err.text[0]);
				check_drivers(BEFORE);
				for (size_t k = 0; k < ARRAY_SIZE(members); k++)
					CHECK_STR(members[k]->override, "");
			} else {
				check_drivers("pcieport vfio-pci vfio-pci vfio-pci vfio-pci");
			}
			CHECK(reached || rc == 0);
			done();
			if (!reached) {
				CHECK(n > 40);
				break;
			}
		}
}

TEST_MAIN(TEST(lists_with_verdicts), TEST(list_that_fails), TEST(there_and_back), TEST(refused), TEST(whole_group),
	  TEST(group_with_a_failing_member), TEST(every_call_fails))
