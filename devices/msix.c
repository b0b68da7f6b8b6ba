/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See msix.h.
 *
 * A vector is live when MSI-X is enabled and neither the function nor the vector is masked. Only msix_update_vector()
 * connects and disconnects vectors, to match that. Kicks are not read here: without a connection they stay in the
 * vector's eventfd, and poll(2) on it gives the pending bit.
 */
#include "devices/msix.h"

#include "core/state.h"

#include <poll.h>
#include <pthread.h>

#define CAP_SIZE PCI_CAP_MSIX_SIZEOF
#define CONTROL_WRITABLE (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)
#define PBA_WORD 64u /* pending bits come in words of 8 bytes */
#define BITMAP_BYTES (MSIX_MAX_VECTORS / 8)

struct vector {
	struct msi_vector *irq; /* created on first use */
	bool connected;
};

/* The bitmaps have a bit for each vector, in words of 8 bytes. */
struct msix_state {
	uint32_t table_len, used_len, pending_len; /* bytes */
	uint8_t table[MSIX_MAX_VECTORS * MSIX_TABLE_ENTRY];
	uint8_t used[BITMAP_BYTES];    /* msix_ops.used was called */
	uint8_t pending[BITMAP_BYTES]; /* only for saving: a kick is in the eventfd */
};

struct msix {
	struct pci_function *function;
	unsigned int cap;
	struct msix_config config;
	pthread_mutex_t lock; /* recursive: ops may call back */
	bool on, masked;      /* the control word's two bits */
	bool complained;
	struct msix_state state;
	struct vector vectors[];
};

static uint8_t *msix_entry(struct msix *msix, unsigned int index)
{
	return msix->state.table + index * MSIX_TABLE_ENTRY;
}

static bool msix_live(struct msix *msix, unsigned int index)
{
	return msix->on && !msix->masked &&
	       !(msix_entry(msix, index)[PCI_MSIX_ENTRY_VECTOR_CTRL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static bool msix_bit(const uint8_t *bits, unsigned int index)
{
	return bits[index / 8] >> index % 8 & 1;
}

static void msix_set_used(struct msix *msix, unsigned int index)
{
	msix->state.used[index / 8] |= (uint8_t)(1u << index % 8);
}

static void msix_complain(struct msix *msix, unsigned int index, const struct err *err)
{
	if (!msix->complained)
		log_warn(msix->config.log, "%s: MSI-X vector %u: %s", msix->function->name, index, err->text);
	msix->complained = true;
}

/* Lock held. */
static int msix_need_vector(struct msix *msix, unsigned int index)
{
	struct msi_controller *msi = msix->config.msi;
	struct err err = {"no vector"};
	int ret;

	if (msix->vectors[index].irq)
		return 0;
	ret = msi->ops->create(msi, &msix->vectors[index].irq, &err);
	if (ret < 0)
		msix_complain(msix, index, &err);
	return ret;
}

/* Connects or disconnects the vector as necessary; moved: its message has changed. Lock held. */
static void msix_update_vector(struct msix *msix, unsigned int index, bool moved)
{
	struct msi_controller *msi = msix->config.msi;
	struct vector *vector = &msix->vectors[index];
	const uint8_t *e = msix_entry(msix, index);
	struct msi_message message = {get_le64(e), get_le32(e + PCI_MSIX_ENTRY_DATA)};
	struct err err = {"not connected"};

	if (!msix_live(msix, index)) {
		if (vector->connected)
			msi->ops->disconnect(msi, vector->irq);
		vector->connected = false;
		return;
	}
	if ((vector->connected && !moved) || msix_need_vector(msix, index) < 0)
		return;
	if (!msix_bit(msix->state.used, index) && msix->config.ops && msix->config.ops->used &&
	    msix->config.ops->used(msix->config.opaque, index, vector->irq->fd))
		return;
	msix_set_used(msix, index);
	if (msi->ops->connect(msi, vector->irq, &message, &err) == 0) {
		vector->connected = true;
		return;
	}
	if (vector->connected)
		msi->ops->disconnect(msi, vector->irq);
	vector->connected = false;
	msix_complain(msix, index, &err);
}

/* Applies the control word's bits. Lock held. */
static void msix_set_control(struct msix *msix, bool on, bool masked)
{
	const struct msix_ops *ops = msix->config.ops;
	bool was_on = msix->on;

	if (on == was_on && masked == msix->masked)
		return;
	__atomic_store_n(&msix->on, on, __ATOMIC_RELEASE);
	msix->masked = masked;
	if (on && !was_on && ops && ops->enabled)
		ops->enabled(msix->config.opaque, true);
	for (unsigned int i = 0; i < msix->config.vectors; i++)
		msix_update_vector(msix, i, false);
	if (!on)
		memset(msix->state.used, 0, sizeof(msix->state.used));
	if (!on && was_on && ops && ops->enabled)
		ops->enabled(msix->config.opaque, false);
}

void msix_config_written(struct msix *msix)
{
	uint16_t control;

	pthread_mutex_lock(&msix->lock);
	control = get_le16(msix->function->config + msix->cap + PCI_MSIX_FLAGS);
	msix_set_control(msix, control & PCI_MSIX_FLAGS_ENABLE, control & PCI_MSIX_FLAGS_MASKALL);
	pthread_mutex_unlock(&msix->lock);
}

static void msix_mask_table(struct msix *msix)
{
	memset(msix->state.table, 0, msix_table_size(msix));
	for (unsigned int i = 0; i < msix->config.vectors; i++)
		msix_entry(msix, i)[PCI_MSIX_ENTRY_VECTOR_CTRL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

/* ---- the table and the pending bits ---- */

uint64_t msix_table_size(const struct msix *msix)
{
	return (uint64_t)msix->config.vectors * MSIX_TABLE_ENTRY;
}

uint64_t msix_pba_size(const struct msix *msix)
{
	return align_up(msix->config.vectors, PBA_WORD) / 8;
}

void msix_table_read(struct msix *msix, uint64_t offset, void *data, unsigned int len)
{
	uint64_t size = msix_table_size(msix);

	memset(data, 0, len);
	if (offset >= size)
		return;
	pthread_mutex_lock(&msix->lock);
	memcpy(data, msix->state.table + offset, MIN(len, size - offset));
	pthread_mutex_unlock(&msix->lock);
}

void msix_table_write(struct msix *msix, uint64_t offset, const void *data, unsigned int len)
{
	unsigned int index = (unsigned int)(offset / MSIX_TABLE_ENTRY);
	uint8_t before[MSIX_TABLE_ENTRY], *e;

	if ((len != 4 && len != 8) || offset % len || offset >= msix_table_size(msix))
		return;
	pthread_mutex_lock(&msix->lock);
	e = msix_entry(msix, index);
	memcpy(before, e, sizeof(before));
	memcpy(msix->state.table + offset, data, len);
	put_le32(e + PCI_MSIX_ENTRY_VECTOR_CTRL,
		 get_le32(e + PCI_MSIX_ENTRY_VECTOR_CTRL) & PCI_MSIX_ENTRY_CTRL_MASKBIT);
	msix_update_vector(msix, index, memcmp(before, e, PCI_MSIX_ENTRY_VECTOR_CTRL) != 0);
	pthread_mutex_unlock(&msix->lock);
}

/* The pending bits of the 64 vectors from first on. Lock held. */
static uint64_t msix_pending_word(const struct msix *msix, unsigned int first)
{
	struct pollfd fds[PBA_WORD];
	unsigned int count = 0;
	uint64_t bits = 0;

	for (; count < PBA_WORD && first + count < msix->config.vectors; count++) {
		const struct vector *vector = &msix->vectors[first + count];

		/* poll skips a descriptor of -1 */
		fds[count] = (struct pollfd){.fd = vector->irq && !vector->connected ? vector->irq->fd : -1,
					     .events = POLLIN};
	}
	if (poll(fds, count, 0) <= 0)
		return 0;
	for (unsigned int i = 0; i < count; i++)
		bits |= (uint64_t)(fds[i].fd >= 0 && fds[i].revents & POLLIN) << i;
	return bits;
}

void msix_pba_read(struct msix *msix, uint64_t offset, void *data, unsigned int len)
{
	uint64_t size = msix_pba_size(msix);
	uint8_t *out = data;

	memset(data, 0, len);
	pthread_mutex_lock(&msix->lock);
	for (uint64_t at = offset & ~7ull; at < size && at < offset + len; at += 8) {
		uint8_t word[8];

		put_le64(word, msix_pending_word(msix, (unsigned int)at * 8));
		for (unsigned int i = 0; i < 8; i++)
			if (at + i >= offset && at + i < offset + len)
				out[at + i - offset] = word[i];
	}
	pthread_mutex_unlock(&msix->lock);
}

/* ---- vectors for the owner ---- */

int msix_vector_fd(struct msix *msix, unsigned int index)
{
	int ret;

	if (index >= msix->config.vectors)
		return -EINVAL;
	pthread_mutex_lock(&msix->lock);
	ret = msix_need_vector(msix, index);
	if (ret == 0) {
		msix_update_vector(msix, index, false);
		ret = msix->vectors[index].irq->fd;
	}
	pthread_mutex_unlock(&msix->lock);
	return ret;
}

bool msix_enabled(const struct msix *msix)
{
	return __atomic_load_n(&msix->on, __ATOMIC_ACQUIRE);
}

/* ---- saved state ---- */

static int msix_collect(void *object, void *state, struct err *err)
{
	for (unsigned int i = 0; i < ((struct msix *)object)->config.vectors; i += PBA_WORD)
		put_le64(((struct msix_state *)state)->pending + i / 8, msix_pending_word(object, i));
	return 0;
}

/* The control word in the config space, which is loaded before. */
static uint16_t msix_control(const struct msix *msix)
{
	return get_le16(msix->function->config + msix->cap + PCI_MSIX_FLAGS);
}

static int msix_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct msix *msix = object;
	const struct msix_state *state = loaded;

	if (msix->on)
		return err_set(err, -EBUSY, "it is in use");
	if (state->table_len != msix_table_size(msix) || state->used_len != msix_pba_size(msix) ||
	    state->pending_len != state->used_len)
		return err_set(err, -EBADMSG, "%u vectors, not %u", state->table_len / MSIX_TABLE_ENTRY,
			       msix->config.vectors);
	for (unsigned int i = 0; i < state->used_len * 8; i++) {
		if (i >= msix->config.vectors && (msix_bit(state->used, i) || msix_bit(state->pending, i)))
			return err_set(err, -EBADMSG, "there is no vector %u", i);
		if (msix_bit(state->used, i) && !(msix_control(msix) & PCI_MSIX_FLAGS_ENABLE))
			return err_set(err, -EBADMSG, "vector %u is in use while MSI-X is off", i);
		if (i < msix->config.vectors &&
		    get_le32(state->table + i * MSIX_TABLE_ENTRY + PCI_MSIX_ENTRY_VECTOR_CTRL) &
			    ~PCI_MSIX_ENTRY_CTRL_MASKBIT)
			return err_set(err, -EBADMSG, "vector %u has invalid bits", i);
	}
	return 0;
}

/* Restores a vector: tells the owner if it is in use, connects it if it is live, kicks it if it is pending. */
static int msix_load_vector(struct msix *msix, unsigned int index, bool used, bool pending, struct err *err)
{
	struct vector *vector = &msix->vectors[index];
	const struct msix_ops *ops = msix->config.ops;

	if ((used || pending) && msix_need_vector(msix, index) < 0)
		return err_set(err, -EMFILE, "vector %u cannot be created", index);
	if (used && !msix_bit(msix->state.used, index) && ops && ops->used &&
	    ops->used(msix->config.opaque, index, vector->irq->fd))
		return err_set(err, -EIO, "vector %u cannot be used", index);
	if (used)
		msix_set_used(msix, index);
	if (used && msix_live(msix, index) && !vector->connected)
		return err_set(err, -EIO, "vector %u cannot be connected", index);
	if (pending)
		eventfd_kick(vector->irq->fd);
	return 0;
}

/* The owner has not been told of any vector yet. */
static int msix_loaded(void *object, const void *loaded, struct err *err)
{
	struct msix *msix = object;
	const struct msix_state *state = loaded;
	uint16_t control = msix_control(msix);
	int ret = 0;

	memset(msix->state.used, 0, sizeof(msix->state.used));
	msix_set_control(msix, control & PCI_MSIX_FLAGS_ENABLE, control & PCI_MSIX_FLAGS_MASKALL);
	for (unsigned int i = 0; i < msix->config.vectors && ret == 0; i++)
		ret = msix_load_vector(msix, i, msix_bit(state->used, i), msix_bit(state->pending, i), err);
	return ret;
}

static const struct state_field fields[] = {
	STATE_SOME_BYTES(struct msix_state, table, 1, table_len),
	STATE_SOME_BYTES(struct msix_state, used, 1, used_len),
	STATE_SOME_BYTES(struct msix_state, pending, 1, pending_len),
};

const struct state_table msix_state = {
	.name = "msix", .version = 1, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct msix, state),
	STATE_LOCK(struct msix, lock), .collect = msix_collect, .judge = msix_judge, .loaded = msix_loaded,
};

void msix_kick(struct msix *msix)
{
	pthread_mutex_lock(&msix->lock);
	for (unsigned int i = 0; i < msix->config.vectors; i++)
		if (msix->vectors[i].connected)
			eventfd_kick(msix->vectors[i].irq->fd);
	pthread_mutex_unlock(&msix->lock);
}

/* ---- construction ---- */

static int msix_check_config(const struct pci_function *function, unsigned int cap, const struct msix_config *c,
			     struct err *err)
{
	uint64_t table = (uint64_t)c->vectors * MSIX_TABLE_ENTRY, pba = align_up(c->vectors, PBA_WORD) / 8;

	if (!c->vectors || c->vectors > MSIX_MAX_VECTORS)
		return err_set(err, -EINVAL, "%s: %u MSI-X vectors, 1 to %u are possible", function->name, c->vectors,
			       MSIX_MAX_VECTORS);
	if (cap < PCI_STD_HEADER_SIZEOF || cap + CAP_SIZE > 256 || c->table_bar > 5 || c->pba_bar > 5 ||
	    c->table_offset % 8 || c->pba_offset % 8 ||
	    (c->table_bar == c->pba_bar && ranges_overlap(c->table_offset, table, c->pba_offset, pba)))
		return err_set(err, -EINVAL, "%s: the place of the MSI-X table is invalid", function->name);
	return 0;
}

int msix_adopt(struct pci_function *function, unsigned int cap, const struct msix_config *config, struct msix **ret,
	       struct err *err)
{
	uint8_t *at = function->config + cap, *wmask = function->wmask + cap;
	pthread_mutexattr_t recursive;
	struct msix *msix;
	int code = msix_check_config(function, cap, config, err);

	if (code < 0)
		return code;
	msix = calloc(1, sizeof(*msix) + config->vectors * sizeof(msix->vectors[0]));
	if (!msix)
		return err_sys(err, -ENOMEM, "%s: MSI-X", function->name);
	msix->function = function;
	msix->cap = cap;
	msix->config = *config;
	msix->state.table_len = (uint32_t)msix_table_size(msix);
	msix->state.used_len = msix->state.pending_len = (uint32_t)msix_pba_size(msix);
	msix_mask_table(msix);
	put_le16(at + PCI_MSIX_FLAGS, (uint16_t)(config->vectors - 1));
	put_le32(at + PCI_MSIX_TABLE, config->table_offset | config->table_bar);
	put_le32(at + PCI_MSIX_PBA, config->pba_offset | config->pba_bar);
	memset(wmask, 0, CAP_SIZE);
	put_le16(wmask + PCI_MSIX_FLAGS, CONTROL_WRITABLE);
	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&msix->lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
	*ret = msix;
	return 0;
}

int msix_create(struct pci_function *function, const struct msix_config *config, struct msix **ret, struct err *err)
{
	int cap, code = msix_check_config(function, PCI_STD_HEADER_SIZEOF, config, err);

	if (code < 0)
		return code;
	cap = pci_add_capability(function, PCI_CAP_ID_MSIX, CAP_SIZE);
	if (cap < 0)
		return err_set(err, cap, "%s: no room for the MSI-X capability", function->name);
	return msix_adopt(function, (unsigned int)cap, config, ret, err);
}

void msix_destroy(struct msix *msix)
{
	if (!msix)
		return;
	for (unsigned int i = 0; i < msix->config.vectors; i++) {
		struct vector *vector = &msix->vectors[i];
		struct msi_controller *msi = msix->config.msi;

		if (vector->connected)
			msi->ops->disconnect(msi, vector->irq);
		if (vector->irq)
			msi->ops->destroy(msi, vector->irq);
	}
	pthread_mutex_destroy(&msix->lock);
	free(msix);
}
