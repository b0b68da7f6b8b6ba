/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host devices that another process has found and opened: attached by who may open nothing, in either way, and what
 * becomes of descriptors that are missing, or too many. And the parameters by which they come.
 */
#include "tests/unit/vfio_bench.h"
#include "vfio/given.h"
#include "vmm/machine/given_json.h"

#define BDF "0000:01:00.0"
#define SIBLING "0000:01:00.1"

static struct vfio_bench b;
static struct vfio_given given;

/* From here on, this process could open nothing by itself. */
static void open_device(const char *bdf, enum vfio_want backend)
{
	b.fake->no_rights = false;
	CHECK_EQ(vfio_given_open(&b.fake->sys, bdf, backend, &given, &b.err), 0);
	b.fake->no_rights = true;
}

static int attach(enum vfio_want backend, struct vfio_device **ret)
{
	const struct vfio_device_options options = {.device = "a name of the machine's own", .given = &given, .backend = backend};
	int rc = vfio_device_open(b.space, &options, ret, &b.err);

	vfio_given_close(&given);
	return rc;
}

static void begin(void)
{
	int group;

	bench_init(&b);
	group = fake_group(b.fake);
	fake_device(b.fake, BDF, group, fake_iommu(b.fake, true));
	fake_device(b.fake, SIBLING, group, 0);
	bench_space(&b, NULL);
}

static void end(void)
{
	b.fake->no_rights = false;
	bench_done(&b);
}

static void attach_by(enum vfio_want backend, const char *name)
{
	struct vfio_device *device;

	begin();
	open_device(BDF, backend);
	CHECK_EQ(given.count, 2);
	CHECK_EQ(attach(backend, &device), 0);
	CHECK_STR(device->backend->name, name);
	CHECK_STR(device->host.name, BDF);
	CHECK(fake_mapped(b.fake, &b.fake->devices[0], 0, LOW_SIZE));
	vfio_device_close(device);
	end();
}

static void is_attached_by_iommufd(void)
{
	attach_by(VFIO_WANT_AUTO, "iommufd");
	attach_by(VFIO_WANT_IOMMUFD, "iommufd");
}

static void is_attached_by_its_group(void)
{
	attach_by(VFIO_WANT_LEGACY, "legacy");
}

/* Where there is no iommufd, who opens chooses the group, and the machine does so, too. */
static void takes_the_group_without_iommufd(void)
{
	struct vfio_device *device;

	begin();
	b.fake->no_iommufd = true;
	open_device(BDF, VFIO_WANT_AUTO);
	CHECK_EQ(attach(VFIO_WANT_AUTO, &device), 0);
	CHECK_STR(device->backend->name, "legacy");
	vfio_device_close(device);
	b.fake->no_rights = false;
	CHECK_EQ(vfio_given_open(&b.fake->sys, BDF, VFIO_WANT_IOMMUFD, &given, &b.err), -ENOENT);
	CHECK_HAS(b.err.text, "this kernel has no iommufd");
	end();
}

/* A group that the machine has cannot be opened again, and need not be. */
static void shares_a_group(void)
{
	struct vfio_device *first, *second;

	begin();
	open_device(BDF, VFIO_WANT_LEGACY);
	CHECK_EQ(attach(VFIO_WANT_LEGACY, &first), 0);
	open_device(SIBLING, VFIO_WANT_LEGACY);
	CHECK_EQ(given.count, 1);
	CHECK_EQ(attach(VFIO_WANT_LEGACY, &second), 0);
	CHECK(first->container == second->container);
	vfio_device_close(second);
	vfio_device_close(first);
	end();
}

/* Another process has the group: nothing is opened in place of what is missing. */
static void lacks_a_group_of_another_process(void)
{
	struct vfio_device *device;
	char path[64];
	int other;

	begin();
	snprintf(path, sizeof(path), "/dev/vfio/%d", 0);
	other = fake_open(b.fake, path);
	open_device(BDF, VFIO_WANT_LEGACY);
	b.fake->no_rights = false;
	CHECK_EQ(attach(VFIO_WANT_LEGACY, &device), -EBUSY);
	CHECK_HAS(b.err.text, "/dev/vfio/0 is in use by another process");
	vfio_sys_close(&b.fake->sys, &other);
	end();
}

static void needs_rights_to_open(void)
{
	begin();
	b.fake->no_rights = true;
	CHECK_EQ(vfio_given_open(&b.fake->sys, BDF, VFIO_WANT_AUTO, &given, &b.err), -EACCES);
	CHECK_HAS(b.err.text, "--vfio " BDF ": no right to open /dev/iommu");
	CHECK_EQ(vfio_given_open(&b.fake->sys, "0000:09:00.0", VFIO_WANT_AUTO, &given, &b.err), -ENODEV);
	end();
}

/* ---- the parameters ---- */

static const char *read_text(const char *text, size_t fds)
{
	json_t *parameters = json_loads(text, 0, NULL);
	int passed[4];
	const char *bad;

	CHECK(parameters && fds <= ARRAY_SIZE(passed));
	for (size_t i = 0; i < fds; i++)
		passed[i] = memfd_create("passed", MFD_CLOEXEC);
	given = (struct vfio_given){.count = 0};
	bad = given_json_read(parameters, passed, fds, &given);
	for (size_t i = 0; i < fds; i++)
		CHECK_EQ(passed[i], -1);
	json_decref(parameters);
	return bad;
}

#define DEVICE(more) "\"device\":{\"name\":\"" BDF "\",\"path\":\"/sys/d\"" more "}"

static void parameters_are_what_was_written(void)
{
	const struct vfio_given before = {.host = {.name = BDF, .path = "/sys/bus/pci/devices/" BDF, .group = 7, .cdev = "/dev/vfio/devices/vfio3"},
					  .files = {{"/dev/iommu", 1}, {"/dev/vfio/devices/vfio3", 1}}, .count = 2};
	json_t *parameters = json_object();
	char *text;

	given_json_write(&before, parameters);
	text = json_dumps(parameters, 0);
	CHECK(!read_text(text, 2));
	CHECK_EQ(given.count, 2);
	CHECK_STR(given.files[1].path, before.files[1].path);
	CHECK_STR(given.host.name, before.host.name);
	CHECK_STR(given.host.path, before.host.path);
	CHECK_STR(given.host.cdev, before.host.cdev);
	CHECK_EQ(given.host.group, 7);
	CHECK(!given.host.mdev && !given.host.noiommu && !given.host.driver[0]);
	vfio_given_close(&given);
	free(text);
	json_decref(parameters);
}

static void parameters_are_checked(void)
{
	CHECK(!read_text("{}", 0)); /* nothing was passed: refused by the machine */
	CHECK_EQ(given.count, 0);
	CHECK_STR(read_text("{" DEVICE("") "}", 1), "files");
	CHECK_STR(read_text("{\"files\":[\"a\"]," DEVICE("") "}", 2), "files");
	CHECK_STR(read_text("{\"files\":[\"a\",1]," DEVICE("") "}", 2), "files");
	CHECK_STR(read_text("{\"files\":[\"a\",\"b\",\"c\",\"d\"]," DEVICE("") "}", 4), "files");
	CHECK_STR(read_text("{\"files\":[\"0123456789012345678901234567890123456789012345678901234567890123456789\"]," DEVICE("") "}", 1),
		  "files");
	CHECK_STR(read_text("{\"files\":[\"a\"]}", 1), "device");
	CHECK_STR(read_text("{\"files\":[\"a\"],\"device\":{\"name\":\"x\"}}", 1), "device");
	CHECK_STR(read_text("{\"files\":[\"a\"],\"device\":{\"name\":\"x\",\"path\":\"/etc/x\"}}", 1), "device");
	CHECK_STR(read_text("{\"files\":[\"a\"]," DEVICE(",\"group\":-2") "}", 1), "device");
	CHECK_STR(read_text("{\"files\":[\"a\"]," DEVICE(",\"group\":4294967296") "}", 1), "device");
	CHECK(!read_text("{\"files\":[\"a\"]," DEVICE("") "}", 1));
	CHECK_EQ(given.host.group, -1);
	CHECK_EQ(vfio_given_take(&given, "b"), -EBUSY);
	CHECK(vfio_given_take(&given, "a") >= 0);
	CHECK_EQ(vfio_given_take(&given, "a"), -EBUSY);
}

TEST_MAIN(TEST(is_attached_by_iommufd), TEST(is_attached_by_its_group), TEST(takes_the_group_without_iommufd),
	  TEST(shares_a_group), TEST(lacks_a_group_of_another_process), TEST(needs_rights_to_open),
	  TEST(parameters_are_what_was_written), TEST(parameters_are_checked))
