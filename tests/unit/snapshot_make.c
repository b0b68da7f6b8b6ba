/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a snapshot of a small machine that never ran, for tests of the commands on snapshots:
 *
 *	snapshot_make DIR ID PARENT [PAGE=BYTE]... [escapes]
 *
 * ID and PARENT are the bytes of which the ids are made; PARENT 0: a full snapshot.
 * With escapes, its time of creation is what a terminal would obey.
 */
#include "tests/unit/snapshot_rig.h"

jmp_buf test_failed;

int main(int argc, char **argv)
{
	static struct snapshot_rig rig;
	struct err err = {""};
	static bool escapes; /* a longjmp keeps it */

	if (argc < 4 || setjmp(test_failed))
		return 2;
	rig_init(&rig, (uint8_t)strtoul(argv[2], NULL, 0), (uint8_t)strtoul(argv[3], NULL, 0));
	for (int i = 4; i < argc; i++) {
		char *byte;
		unsigned long page = strtoul(argv[i], &byte, 0);

		escapes |= strcmp(argv[i], "escapes") == 0;
		if (escapes)
			continue;
		if (page >= RIG_PAGES || *byte != '=')
			return 2;
		rig_fill(&rig, (unsigned int)page, (uint8_t)strtoul(byte + 1, NULL, 0));
	}
	rig_finish(&rig);
	if (escapes)
		memcpy(strstr(rig.description, "2026-01-01T00:00:00Z"), "\\u001b[31mred\\u009bm", 20);
	if (rig_write(&rig, argv[1], RIG_EXTRA, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	rig_done(&rig);
	return 0;
}
