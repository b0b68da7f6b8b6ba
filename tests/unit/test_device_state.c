/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of every virtio device as the machine saves it, function and queues included: untouched and busy ones come
 * back byte for byte, broken records are survived, and another kind's record is refused. What a guest
 * reads of each does not depend on the machine that built it.
 */
#include "tests/unit/state_devices.h"
#include "tests/unit/state_subject.h"
#include "tests/unit/test.h"

static struct state_devices d;
static unsigned int kind;

static void *make(void)
{
	state_devices_make(&d, kind);
	return &d;
}

static int save(void *object, struct state_buffer *out, struct err *err)
{
	return virtio_transport_save(d.pci, out, err);
}

static int load(void *object, const void *data, size_t len, struct err *err)
{
	return virtio_transport_load(d.pci, data, len, err);
}

static void use(void *object)
{
	state_devices_use(&d);
}

static void drop(void *object)
{
}

static size_t newer(void *object)
{
	struct virtio_device *device = virtio_transport_device(d.pci);
	struct state_buffer own = {0};
	size_t len;

	if (!device->ops->state || device->ops->state->oldest)
		return 0;
	CHECK_EQ(state_save(device->ops->state, device, &own, NULL), 0);
	len = own.len;
	state_buffer_free(&own);
	return len;
}

static const struct state_subject subject = {make, save, load, use, drop, newer};

static void fresh_ones_come_back(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		make();
		virtio_transport_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		subject_comes_back(&subject, &d);
	}
	state_devices_close(&d);
}

static void busy_ones_come_back_and_go_on(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		make();
		state_devices_bring_up(&d);
		CHECK(virtio_transport_device(d.pci)->active);
		virtio_transport_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		subject_comes_back(&subject, &d);
		CHECK(virtio_transport_device(d.pci)->active);
		use(&d);
		CHECK(!virtio_transport_device(d.pci)->active);
	}
	state_devices_close(&d);
}

static void any_record_is_survived(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		make();
		state_devices_bring_up(&d);
		virtio_transport_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		subject_survives(&subject, &d);
	}
	state_devices_close(&d);
}

static void another_kinds_record_is_refused(void)
{
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		struct state_buffer buffer = {0};

		make();
		virtio_transport_drain(d.pci, VIRTIO_NO_DEADLINE, NULL);
		CHECK_EQ(save(&d, &buffer, NULL), 0);
		for (unsigned int i = 1; i < state_device_count; i++) {
			state_devices_make(&d, (kind + i) % state_device_count);
			CHECK_EQ(load(&d, buffer.data, buffer.len, NULL), -EBADMSG);
		}
		state_buffer_free(&buffer);
	}
	state_devices_close(&d);
}

/* ---- what the guest reads ---- */

static void describe_rows(char **text, size_t *size, const char *what, const uint8_t *bytes, unsigned int len)
{
	FILE *out = open_memstream(text, size);

	for (unsigned int at = 0; at < len; at++) {
		if (at % 16 == 0)
			fprintf(out, "%s%s %02x", at ? "\n" : "", what, at);
		fprintf(out, " %02x", bytes[at]);
	}
	fprintf(out, "\n");
	fclose(out);
}

/* Reads the next lines of the file as expected: those of text. */
static void golden_expect(FILE *golden, const char *name, const char *text)
{
	char line[128];

	for (size_t len; *text; text += len) {
		len = strcspn(text, "\n") + 1;
		CHECK(fgets(line, sizeof(line), golden));
		if (strncmp(line, text, len) != 0 || line[len])
			printf("# %s: instead of %s# it reads %.*s", name, line, (int)len, text);
		CHECK(strncmp(line, text, len) == 0 && !line[len]);
	}
}

static void golden_device(FILE *golden, const char *name)
{
	struct virtio_device *device = virtio_transport_device(d.pci);
	uint8_t function[256], config[256];
	char line[64], *text;
	size_t size;

	CHECK(fgets(line, sizeof(line), golden));
	line[strcspn(line, "\n")] = 0;
	CHECK_STR(line, name);
	for (unsigned int i = 0; i < sizeof(function); i++)
		function[i] = (uint8_t)rig_cfg(&d.rig, STATE_SLOT, i, 1);
	memset(config, 0, sizeof(config));
	if (device->ops->config_read)
		device->ops->config_read(device, 0, config, sizeof(config));
	describe_rows(&text, &size, "function", function, sizeof(function));
	golden_expect(golden, name, text);
	free(text);
	describe_rows(&text, &size, "config", config, device->config_size);
	if (device->config_size)
		golden_expect(golden, name, text);
	free(text);
	for (unsigned int i = device->config_size; i < sizeof(config); i++)
		CHECK_EQ(config[i], 0);
}

static void the_guest_reads_the_same_whoever_built_it(void)
{
	FILE *golden = fopen(TESTS_UNIT "/golden/virtio-devices.txt", "r");

	CHECK(golden);
	state_devices_open(&d);
	for (kind = 0; kind < state_device_count; kind++) {
		make();
		golden_device(golden, state_device_names[kind]);
	}
	state_devices_close(&d);
	CHECK_EQ(fgetc(golden), EOF);
	fclose(golden);
}

TEST_MAIN(TEST(fresh_ones_come_back), TEST(busy_ones_come_back_and_go_on), TEST(any_record_is_survived),
	  TEST(another_kinds_record_is_refused),
	  TEST(the_guest_reads_the_same_whoever_built_it))
