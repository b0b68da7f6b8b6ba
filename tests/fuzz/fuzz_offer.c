/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The offer of a machine that would move here. Always: what is refused comes with a sentence, what is accepted keeps the
 * limits, and its configuration can be finished or is refused. Inputs begin as an offer that is taken, in which bytes are
 * changed or one value of it is.
 */
#include "tests/fuzz/config_words.h"
#include "vmm/machine/machine_internal.h"
#include "tests/unit/offer_text.h"
#include "tests/fuzz/fuzz.h"

static const char taken[] =
	"{\"version\":1,\"config\":{\"kernel\":\"/k\",\"name\":\"m\",\"memory\":{\"size\":67108864},\"cpus\":2,"
	"\"disk\":[{\"path\":\"/a\",\"id\":\"root\",\"queues\":2}],\"net\":[{\"tap\":\"t\",\"id\":\"net0\"}],"
	"\"vfio\":[{\"device\":\"0000:01:00.0\",\"id\":\"gpu\"}]},\"memory\":[{\"gpa\":0,\"size\":67108864}],"
	"\"cpu\":{\"architecture\":\"x86-64\",\"cpuid\":[[0,0,0,1,2,3,4],[7,0,1,5,6,7,8]]},\"tsc_khz\":2000000,"
	"\"hotplug\":4278190080,\"devices\":[{\"id\":\"root\",\"kind\":\"disk\",\"slot\":1,\"features\":5,\"size\":512},"
	"{\"id\":\"gpu\",\"kind\":\"vfio\",\"slot\":30,\"features\":0,\"size\":0,\"identity\":{\"vendor\":1}}]}";

static void check_offer(const struct machine_offer *offer)
{
	MUST(offer->region_count >= 1 && offer->region_count <= OFFER_MAX_REGIONS);
	MUST(offer->device_count <= PCI_DEVICES);
	for (size_t i = 0; i < offer->device_count; i++) {
		MUST(memchr(offer->devices[i].id, 0, sizeof(offer->devices[i].id)));
		MUST(machine_offer_devfn(offer, offer->devices[i].id, NULL) == offer->devices[i].devfn);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine_config config;
	struct machine_offer *offer;
	struct err err = {""};
	int code = offer_parse((const char *)data, size, &offer, &err);

	MUST(!code || ((code == -EBADMSG || code == -ENOTSUP) && err.text[0]));
	if (code)
		return 0;
	check_offer(offer);
	machine_config_init(&config);
	code = machine_offer_config(offer, &config, &err);
	MUST(!code || (code == -EBADMSG && err.text[0]));
	if (!code) {
		machine_config_override(&config, "disk", "root=/b", &err);
		machine_config_override(&config, "net", "net0=passt", &err);
		machine_config_override(&config, "name", "n", &err);
		code = machine_config_finish(&config, &err);
		MUST(!code || (code == -EINVAL && err.text[0]));
	}
	machine_config_done(&config);
	machine_offer_destroy(offer);
	return 0;
}

/* Puts a number or a text in the place of one that begins behind a colon, a bracket or a comma. */
static size_t change_value(uint8_t *data, size_t size, size_t max_size, unsigned int *seed)
{
	static const char *const values[] = {"0", "-1", "31", "32", "4294967296", "9223372036854775807", "1e3", "null", "{}",
					     "[]", "\"\"", "\"root\"", "true", "[0,0,0,0,0,0,0]"};
	const char *value = values[draw(seed, ARRAY_SIZE(values))];
	size_t at = draw(seed, (unsigned int)size), end, len = strlen(value);

	while (at < size && !strchr(":[,", data[at]))
		at++;
	if (at >= size)
		return size;
	end = ++at;
	while (end < size && !strchr(",]}", data[end]))
		end++;
	if (size - (end - at) + len > max_size)
		return size;
	memmove(data + at + len, data + end, size - end);
	memcpy(data + at, value, len);
	return size - (end - at) + len;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	if (size < 16 || draw(&seed, 8) == 0) {
		size = MIN(sizeof(taken) - 1, max_size);
		memcpy(data, taken, size);
	}
	return draw(&seed, 2) ? change_value(data, size, max_size, &seed) : LLVMFuzzerMutate(data, size, max_size);
}
