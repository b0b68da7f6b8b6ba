/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of Firecracker's API, of every table. Always: what is refused comes with a sentence, what is accepted is written
 * as something that reads as the same, and all memory is given back.
 */
#include "vmm/api/firecracker/face.h"
#include "tests/fuzz/fuzz.h"

static const struct body *const tables[] = {
	&fc_machine_config, &fc_machine_config_update, &fc_boot_source, &fc_drive, &fc_drive_update, &fc_net, &fc_net_update,
	&fc_vsock, &fc_balloon, &fc_balloon_update, &fc_entropy, &fc_serial, &fc_logger, &fc_metrics, &fc_action, &fc_vm, &fc_snapshot_create,
	&fc_snapshot_load,
};

/* A member that may be left out but not be null is written with its default. */
static void check_write(const struct body *table, const union face_body *body)
{
	json_t *first = body_write(table, body), *second;
	union face_body again;

	MUST(first);
	body_init(table, &again);
	MUST(body_read(table, first, &again, NULL) == 0);
	second = body_write(table, &again);
	MUST(json_equal(first, second));
	json_decref(first);
	json_decref(second);
	body_done(table, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct body *table = tables[size ? data[0] % ARRAY_SIZE(tables) : 0];
	union face_body body;
	struct err err = {""};
	int code;

	if (size < 1)
		return 0;
	body_init(table, &body);
	code = body_read_text(table, (const char *)data + 1, size - 1, &body, &err);
	MUST(!code || (code == -EINVAL && err.text[0]));
	if (!code)
		check_write(table, &body);
	body_done(table, &body);
	return 0;
}

static size_t draw_value(unsigned int *seed, const struct body_member *member, char *text, size_t room)
{
	static const char *const plain[] = {"true", "false", "null", "3", "300", "-1", "1.5", "[]", "{}", "\"x\""};

	if (member->kind == BODY_WORD && draw(seed, 2))
		return (size_t)snprintf(text, room, "\"%s\"", member->words[0]);
	if (member->kind == BODY_LIST && draw(seed, 2))
		return (size_t)snprintf(text, room, "[{\"iface_id\":\"a\",\"host_dev_name\":\"b\"}]");
	if (member->kind == BODY_OBJECT && draw(seed, 2))
		return (size_t)snprintf(text, room, "{\"%s\":{\"size\":%u,\"refill_time\":1}}", member->object->members[0].name,
					draw(seed, 9));
	return (size_t)snprintf(text, room, "%s", plain[draw(seed, ARRAY_SIZE(plain))]);
}

/* Half of the time an object with some of the members of a table. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	char text[1024] = "{";
	size_t used = 1, which = draw(&seed, ARRAY_SIZE(tables));

	if (draw(&seed, 2) || max_size < sizeof(text) + 1)
		return LLVMFuzzerMutate(data, size, max_size);
	for (size_t i = 0; i < tables[which]->count; i++) {
		const struct body_member *member = &tables[which]->members[i];

		if (draw(&seed, 3) == 0)
			continue;
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s\"%s\":", used > 1 ? "," : "", member->name);
		used += draw_value(&seed, member, text + used, sizeof(text) - used);
	}
	used += (size_t)snprintf(text + used, sizeof(text) - used, "}");
	data[0] = (uint8_t)which;
	memcpy(data + 1, text, used);
	return used + 1;
}
