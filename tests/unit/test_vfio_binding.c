/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/binding.c: which functions can be passed through, and giving them to VFIO and back. */
#include "tests/unit/vfio_bench.h"
#include "vfio/binding.h"
#include "vfio/variant.h"

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

static int bind_to(const char *spec, bool group, const char *driver)
{
	return vfio_binding_bind(&fake->sys, spec, group, driver, on_told, NULL, &err);
}

static int bind(const char *spec, bool group)
{
	return bind_to(spec, group, NULL);
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
	/* It is there and does not take the function. */
	fake->no_vfio_pci = false;
	device->choosy = true;
	CHECK_EQ(bind("01:00.0", false), -ENODEV);
	CHECK_HAS(err.text, "0000:01:00.0: vfio-pci does not take it");
	CHECK_STR(device->driver, "nvme");
	CHECK_STR(device->override, "");
	device->choosy = false;
	/* The driver does not let go. */
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

/* ---- drivers for some devices ---- */

#define ALIASES                                                                                        \
	"# Aliases extracted from modules themselves.\n"                                               \
	"alias pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_core\n"                                       \
	"alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n"                                                 \
	"alias vfio_pci:v000015B3d*sv*sd*bc*sc*i* lax_vfio_pci\n"                                    \
	"alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci\n"                              \
	"alias vfio_pci:v000019E5d0000A251sv*sd*bc*sc*i* hisi_acc_vfio_pci\n"                          \
	"alias vfio_pci:v000015B3d0000101Esv*sd*bc03sc*i* other_vfio_pci\n"

/* A virtual function that a driver of its own can migrate. */
static struct fake_device *add_vf(const char *bdf, int group)
{
	struct fake_device *device = add(bdf, group, "mlx5_core", 0x020000);

	device->vendor = 0x15b3;
	device->product = 0x101e;
	return device;
}

static void the_modules_name_the_driver(void)
{
	struct fake_device *device, *other;

	setup();
	device = add_vf("0000:01:00.2", fake_group(fake));
	other = add("0000:02:00.0", fake_group(fake), "nvme", 0x010802);
	fake->alias = ALIASES;
	fake->variant = "mlx5_vfio_pci";
	CHECK_EQ(bind("01:00.2", false), 0);
	CHECK_STR(device->driver, "mlx5_vfio_pci");
	CHECK_STR(device->override, "mlx5_vfio_pci");
	CHECK_STR(told, "0000:01:00.2 mlx5_vfio_pci");
	CHECK_EQ(bind("02:00.0", false), 0);
	CHECK_STR(other->driver, "vfio-pci");
	CHECK_EQ(unbind("01:00.2", false), 0);
	CHECK_STR(device->driver, "mlx5_core");
	CHECK_STR(device->override, "");
	done();
}

/* A driver that is built in is named in another file of the kernel's. */
static void drivers_built_in_are_found(void)
{
	static const char modinfo[] = "vfio_pci.alias=vfio_pci:v*d*sv*sd*bc*sc*i*\0mlx5_vfio_pci.license=GPL\0"
				      "mlx5_vfio_pci.alias=vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*";
	char module[VFIO_DRIVER_NAME];

	setup();
	add_vf("0000:01:00.2", fake_group(fake));
	fake->modinfo = modinfo;
	fake->modinfo_size = sizeof(modinfo);
	CHECK_EQ(vfio_variant_find(&fake->sys, "0000:01:00.2", module, &err), 0);
	CHECK_STR(module, "mlx5_vfio_pci");
	/* Broken files name nothing. */
	fake->modinfo_size = 60;
	fake->alias = "alias\nalias vfio_pci:v*\nvfio_pci:\nalias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci";
	CHECK_EQ(vfio_variant_find(&fake->sys, "0000:01:00.2", module, &err), 0);
	CHECK_STR(module, "vfio_pci");
	done();
}

static void a_driver_can_be_asked_for(void)
{
	struct fake_device *device;

	setup();
	device = add_vf("0000:01:00.2", fake_group(fake));
	fake->alias = ALIASES;
	/* The kernel's own is not loaded: nothing is touched, and both ways out are named. */
	CHECK_EQ(bind("01:00.2", false), -ENODEV);
	CHECK_HAS(err.text, "mlx5_vfio_pci, is not loaded; load it with 'modprobe mlx5_vfio_pci', or use --driver vfio-pci");
	CHECK_STR(device->driver, "mlx5_core");
	CHECK_STR(device->override, "");
	CHECK_EQ(bind_to("01:00.2", false, "vfio_pci"), 0);
	CHECK_STR(device->driver, "vfio-pci");
	/* It stays with a VFIO driver unless another one is asked for. */
	fake->variant = "mlx5_vfio_pci";
	CHECK_EQ(bind("01:00.2", false), 0);
	CHECK_STR(device->driver, "vfio-pci");
	CHECK_EQ(bind_to("01:00.2", false, "mlx5-vfio-pci"), 0);
	CHECK_STR(device->driver, "mlx5_vfio_pci");
	CHECK_STR(told, "0000:01:00.2 vfio-pci, 0000:01:00.2 mlx5_vfio_pci");
	CHECK_EQ(bind_to("01:00.2", false, "mlx5-vfio-pci"), 0);
	/* What is no driver of VFIO, or not there. */
	CHECK_EQ(bind_to("01:00.2", false, "igb"), -EINVAL);
	CHECK_HAS(err.text, "--driver igb: not a driver of VFIO");
	CHECK_EQ(bind_to("01:00.2", false, "xe-vfio-pci"), -ENODEV);
	CHECK_HAS(err.text, "driver xe-vfio-pci is not loaded; load it with 'modprobe xe-vfio-pci'");
	CHECK_STR(device->driver, "mlx5_vfio_pci");
	/* One that does not take it leaves it with the VFIO driver that it had. */
	fake->variant = "xe-vfio-pci";
	device->choosy = true;
	CHECK_EQ(bind_to("01:00.2", false, "xe-vfio-pci"), -ENODEV);
	CHECK_STR(device->override, "mlx5_vfio_pci");
	done();
}

static void a_function_in_use_is_left_alone(void)
{
	struct fake_device *device;
	char path[32];
	int group, fd;

	setup();
	group = fake_group(fake);
	device = add("0000:01:00.2", group, "vfio-pci", 0x020000);
	fake->variant = "mlx5_vfio_pci";
	snprintf(path, sizeof(path), "/dev/vfio/%d", group);
	fd = fake_open(fake, path);
	CHECK_EQ(bind_to("01:00.2", false, "mlx5_vfio_pci"), -EBUSY);
	CHECK_HAS(err.text, "0000:01:00.2: a process uses it through vfio-pci");
	CHECK_STR(device->driver, "vfio-pci");
	fake->sys.ops->close(&fake->sys, fd);
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

/* Those that had another VFIO driver get it again. */
static void a_group_goes_back_to_its_vfio_drivers(void)
{
	setup_group();
	fake->variant = "mlx5_vfio_pci";
	members[4]->stuck = true;
	CHECK_EQ(bind_to("01:00.0", true, "mlx5_vfio_pci"), -EBUSY);
	check_drivers(BEFORE);
	CHECK_STR(members[2]->override, "vfio-pci");
	CHECK_STR(members[1]->override, "");
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

TEST_MAIN(TEST(lists_with_verdicts), TEST(list_that_fails), TEST(there_and_back), TEST(refused), TEST(the_modules_name_the_driver),
	  TEST(drivers_built_in_are_found), TEST(a_driver_can_be_asked_for), TEST(a_function_in_use_is_left_alone), TEST(whole_group),
	  TEST(group_with_a_failing_member), TEST(a_group_goes_back_to_its_vfio_drivers), TEST(every_call_fails))
