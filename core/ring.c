/* SPDX-License-Identifier: Apache-2.0 */
/* See ring.h. */
#include "core/ring.h"

#include "core/thread.h"

#define MOST 16u /* restrictions */

/* Tries the set-up flags from best to least; EINVAL: the kernel does not know them. */
static int ring_init(struct io_uring *ring, unsigned int entries)
{
	static const unsigned int flags[] = {
		IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN,
		IORING_SETUP_R_DISABLED,
	};
	int code = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(flags) && code == -EINVAL; i++)
		code = io_uring_queue_init(entries, ring, flags[i]);
	return code;
}

static struct io_uring_restriction ring_allow_register(unsigned int op)
{
	return (struct io_uring_restriction){.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = (uint8_t)op};
}

static int ring_restrict(struct io_uring *ring, const struct ring_rules *rules, bool fixed)
{
	struct io_uring_restriction list[MOST];
	unsigned int count = 0;

	list[count++] = ring_allow_register(IORING_REGISTER_ENABLE_RINGS);
	list[count++] = ring_allow_register(IORING_REGISTER_RING_FDS);
	list[count++] = ring_allow_register(IORING_UNREGISTER_RING_FDS);
	if (rules->replaced)
		list[count++] = ring_allow_register(IORING_REGISTER_FILES_UPDATE);
	/* Without EXT_ARG, timeouts are operations, which have no file. */
	if (fixed && ring->features & IORING_FEAT_EXT_ARG)
		list[count++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
							      .sqe_flags = IOSQE_FIXED_FILE};
	for (size_t i = 0; i < rules->op_count && count < MOST; i++)
		list[count++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP,
							      .sqe_op = rules->ops[i]};
	return io_uring_register_restrictions(ring, list, count);
}

struct ring_creation {
	struct io_uring *ring;
	unsigned int entries;
	const struct ring_rules *rules;
	bool fixed;
};

static int ring_do_create(void *argument)
{
	struct ring_creation *creation = argument;
	const struct ring_rules *rules = creation->rules;
	int code = ring_init(creation->ring, creation->entries);

	if (code)
		return code;
	creation->fixed = rules->files && !io_uring_register_files(creation->ring, rules->files, (unsigned int)rules->file_count);
	code = ring_restrict(creation->ring, rules, creation->fixed);
	if (code)
		io_uring_queue_exit(creation->ring);
	return code;
}

int ring_create(struct io_uring *ring, unsigned int entries, const struct ring_rules *rules, bool *fixed)
{
	struct ring_creation creation = {.ring = ring, .entries = entries, .rules = rules};
	int code = thread_call(ring_do_create, &creation);

	if (!code)
		*fixed = creation.fixed;
	return code;
}

static int ring_do_probe(void *argument)
{
	return io_uring_setup(0, argument);
}

int ring_probe(void)
{
	struct io_uring_params params = {0};

	return thread_call(ring_do_probe, &params);
}

int ring_enable(struct io_uring *ring)
{
	int code = io_uring_enable_rings(ring);

	if (code < 0)
		return code;
	io_uring_register_ring_fd(ring);
	return 0;
}
