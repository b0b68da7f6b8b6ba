/* SPDX-License-Identifier: Apache-2.0 */
/* devices/msix: which vector is live when, and that no kick is lost or doubled by masking. */
#include "devices/msix.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <sys/eventfd.h>

/* ---- an interrupt controller that writes down what it delivers ---- */

struct recorded {
	struct msi_vector vector;
	bool connected;
	struct msi_message message;
	struct recorded *next;
};

static struct {
	struct msi_controller msi;
	struct recorded *vectors;
	unsigned int created, destroyed, connects, disconnects, delivered;
	struct msi_message last;
	int fail_create, fail_connect;
	/* what the owner was told */
	unsigned int used, on, off;
	unsigned int used_index;
	int used_fd, refuse;
	bool call_back;
} r;

static struct msix *msix;
static struct pci_function function;

static int rec_create(struct msi_controller *msi, struct msi_vector **ret, struct err *err)
{
	struct recorded *v;

	if (r.fail_create)
		return err_set(err, r.fail_create, "told to fail");
	v = calloc(1, sizeof(*v));
	v->vector.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	v->next = r.vectors;
	r.vectors = v;
	r.created++;
	*ret = &v->vector;
	return 0;
}

static void rec_destroy(struct msi_controller *msi, struct msi_vector *vector)
{
	struct recorded *v = container_of(vector, struct recorded, vector), **link = &r.vectors;

	CHECK(!v->connected);
	while (*link != v)
		link = &(*link)->next;
	*link = v->next;
	close(v->vector.fd);
	free(v);
	r.destroyed++;
}

static int rec_connect(struct msi_controller *msi, struct msi_vector *vector, const struct msi_message *message,
		       struct err *err)
{
	struct recorded *v = container_of(vector, struct recorded, vector);

	if (r.fail_connect)
		return err_set(err, r.fail_connect, "told to fail");
	v->connected = true;
	v->message = *message;
	r.connects++;
	return 0;
}

static void rec_disconnect(struct msi_controller *msi, struct msi_vector *vector)
{
	CHECK(container_of(vector, struct recorded, vector)->connected);
	container_of(vector, struct recorded, vector)->connected = false;
	r.disconnects++;
}

static const struct msi_controller_ops rec_ops = {rec_create, rec_destroy, rec_connect, rec_disconnect};

/* Delivers what is kicked and connected; returns how many messages that were. */
static unsigned int pump(void)
{
	unsigned int before = r.delivered;

	for (struct recorded *v = r.vectors; v; v = v->next)
		if (v->connected && eventfd_drain(v->vector.fd)) {
			r.last = v->message;
			r.delivered++;
		}
	return r.delivered - before;
}

static int own_used(void *opaque, unsigned int index, int fd)
{
	r.used++;
	r.used_index = index;
	r.used_fd = fd;
	if (r.call_back)
		CHECK(msix_vector_fd(msix, (index + 1) % 8) >= 0);
	return r.refuse;
}

static void own_enabled(void *opaque, bool on)
{
	r.on += on;
	r.off += !on;
	CHECK_EQ(msix_enabled(msix), on);
}

static const struct msix_ops own_ops = {own_used, own_enabled};

static void open_msix(unsigned int vectors)
{
	struct msix_config config = {
		.vectors = vectors, .table_bar = 1, .pba_bar = 1, .pba_offset = 0x8000, .msi = &r.msi, .ops = &own_ops};

	memset(&r, 0, sizeof(r));
	memset(&function, 0, sizeof(function));
	r.msi.ops = &rec_ops;
	pci_function_init(&function, NULL, "x", 1, 2, 3, 4);
	CHECK_EQ(msix_create(&function, &config, &msix, NULL), 0);
}

static void close_msix(void)
{
	msix_destroy(msix);
	CHECK_EQ(r.created, r.destroyed);
}

static void control(uint16_t value)
{
	uint8_t data[2];

	put_le16(data, value);
	pci_config_write(&function, 0x42, data, 2);
	msix_config_written(msix);
}

static void table(unsigned int index, unsigned int reg, uint32_t value)
{
	uint8_t data[4];

	put_le32(data, value);
	msix_table_write(msix, index * 16 + reg, data, 4);
}

static uint64_t pba(void)
{
	uint8_t data[8];

	msix_pba_read(msix, 0, data, 8);
	return get_le64(data);
}

static void kick(unsigned int index)
{
	int fd = msix_vector_fd(msix, index);

	CHECK(fd >= 0);
	eventfd_kick(fd);
}

#define ON PCI_MSIX_FLAGS_ENABLE
#define MASKALL PCI_MSIX_FLAGS_MASKALL
#define CTRL PCI_MSIX_ENTRY_VECTOR_CTRL

/* ---- tests ---- */

static void looks_as_the_specification_says(void)
{
	uint8_t data[16], want[16] = {[12] = 1};

	open_msix(65);
	CHECK_EQ(function.config[0x40], PCI_CAP_ID_MSIX);
	CHECK_EQ(get_le16(function.config + 0x42), 64);
	CHECK_EQ(get_le32(function.config + 0x44), 1);
	CHECK_EQ(get_le32(function.config + 0x48), 0x8001);
	CHECK_EQ(msix_table_size(msix), 65 * 16);
	CHECK_EQ(msix_pba_size(msix), 16);
	control(0xffff);
	CHECK_EQ(get_le16(function.config + 0x42), 0xc040);
	for (unsigned int i = 0; i < 65; i++) {
		msix_table_read(msix, i * 16, data, 8);
		msix_table_read(msix, i * 16 + 8, data + 8, 8);
		CHECK_EQ(memcmp(data, want, 16), 0);
	}
	/* reserved bits stay zero, 8 bytes at once work */
	memset(data, 0xff, sizeof(data));
	msix_table_write(msix, 8, data, 8);
	msix_table_read(msix, 8, data, 8);
	CHECK_EQ(get_le64(data), 0x1ffffffff);
	CHECK_EQ(r.created, 0);
	close_msix();
	msix_destroy(NULL);
}

static void any_access_is_harmless(void)
{
	uint8_t data[8], zero[8] = {0};

	open_msix(3);
	control(ON);
	for (unsigned int len = 1; len <= 8; len++)
		for (unsigned int at = 0; at < 200; at++) {
			memset(data, (int)(at + len), sizeof(data));
			msix_table_write(msix, at, data, len);
			msix_table_read(msix, at, data, len);
			if (at >= 48)
				CHECK_EQ(memcmp(data, zero, len), 0);
			memset(data, 0xff, len);
			msix_pba_read(msix, at, data, len);
			CHECK_EQ(memcmp(data, zero, len), 0);
		}
	msix_table_read(msix, UINT64_MAX, data, 8);
	msix_table_write(msix, UINT64_MAX - 7, data, 8);
	msix_pba_read(msix, UINT64_MAX - 7, data, 8);
	CHECK_EQ(msix_vector_fd(msix, 3), -EINVAL);
	close_msix();
}

static void refuses_impossible_layouts(void)
{
	static const struct msix_config bad[] = {
		{.vectors = 0, .pba_bar = 1},
		{.vectors = 2049, .pba_bar = 1},
		{.vectors = 1, .table_bar = 6},
		{.vectors = 1, .pba_bar = 6},
		{.vectors = 1, .table_offset = 4, .pba_bar = 1},
		{.vectors = 1, .pba_bar = 1, .pba_offset = 12},
		{.vectors = 2, .pba_offset = 24},
	};
	static const struct msix_config good = {.vectors = 2, .pba_offset = 32};

	memset(&function, 0, sizeof(function));
	pci_function_init(&function, NULL, "x", 1, 2, 3, 4);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(msix_create(&function, &bad[i], &msix, NULL), -EINVAL);
	CHECK_EQ(function.config[PCI_CAPABILITY_LIST], 0);
	CHECK_EQ(msix_adopt(&function, 0x3c, &good, &msix, NULL), -EINVAL);
	CHECK_EQ(msix_adopt(&function, 0xf8, &good, &msix, NULL), -EINVAL);
	while (pci_add_capability(&function, PCI_CAP_ID_VNDR, 16) > 0)
		;
	CHECK_EQ(msix_create(&function, &good, &msix, NULL), -ENOSPC);
	CHECK_EQ(msix_adopt(&function, 0x60, &good, &msix, NULL), 0);
	CHECK_EQ(get_le16(function.config + 0x62), 1);
	CHECK_EQ(get_le32(function.wmask + 0x60), 0xc0000000);
	msix_destroy(msix);
}

/* Every combination of the three bits, entered from every other one, with a kick before and one after. */
static void every_state_from_every_other(void)
{
	for (unsigned int from = 0; from < 8; from++)
		for (unsigned int to = 0; to < 8; to++) {
			bool was = (from & 5) == 1 && !(from & 2), is = (to & 5) == 1 && !(to & 2);

			open_msix(2);
			table(1, PCI_MSIX_ENTRY_LOWER_ADDR, 0xfee01000);
			table(1, PCI_MSIX_ENTRY_DATA, 0x41);
			table(1, CTRL, from >> 2);
			control((uint16_t)((from & 1 ? ON : 0) | (from & 2 ? MASKALL : 0)));
			kick(1);
			CHECK_EQ(pba(), was ? 0 : 2);
			CHECK_EQ(pump(), was);
			control((uint16_t)((to & 1 ? ON : 0) | (to & 2 ? MASKALL : 0)));
			table(1, CTRL, to >> 2);
			CHECK_EQ(pba(), was || is ? 0 : 2);
			CHECK_EQ(pump(), is && !was);
			kick(1);
			kick(1);
			CHECK_EQ(pba(), is ? 0 : 2);
			CHECK_EQ(pump(), is);
			/* looking does not take it away */
			CHECK_EQ(pba(), is ? 0 : 2);
			control(ON);
			table(1, CTRL, 0);
			CHECK_EQ(pump(), !is);
			CHECK_EQ(pump(), 0);
			CHECK_EQ(pba(), 0);
			CHECK(r.last.address == 0xfee01000 && r.last.data == 0x41);
			close_msix();
		}
}

static void makes_vectors_when_needed(void)
{
	open_msix(8);
	control(ON);
	CHECK(r.on == 1 && r.created == 0 && r.used == 0);
	table(5, CTRL, 0);
	CHECK(r.created == 1 && r.used == 1 && r.used_index == 5 && r.connects == 1);
	CHECK_EQ(r.used_fd, msix_vector_fd(msix, 5));
	/* masking later on is no news to the owner */
	table(5, CTRL, 1);
	table(5, CTRL, 0);
	control(ON | MASKALL);
	control(ON);
	CHECK(r.created == 1 && r.used == 1 && r.connects == 3 && r.disconnects == 2);
	/* writing the same again is none to the controller */
	control(ON);
	table(5, CTRL, 0);
	CHECK(r.connects == 3);
	/* a new message is */
	table(5, PCI_MSIX_ENTRY_DATA, 7);
	CHECK(r.connects == 4 && r.disconnects == 2);
	kick(5);
	CHECK(pump() == 1 && r.last.data == 7);
	/* off and on: used again, the same descriptor */
	control(0);
	CHECK(r.off == 1 && r.disconnects == 3);
	control(ON);
	CHECK(r.on == 2 && r.used == 2 && r.created == 1);
	/* asked for before it is unmasked */
	CHECK(msix_vector_fd(msix, 0) >= 0);
	CHECK(r.created == 2 && r.used == 2 && r.connects == 5);
	close_msix();
}

static void owners_may_refuse_and_call_back(void)
{
	open_msix(8);
	control(ON);
	r.refuse = -EIO;
	table(2, CTRL, 0);
	CHECK(r.used == 1 && r.connects == 0);
	kick(2);
	CHECK_EQ(pump(), 0);
	CHECK_EQ(pba(), 4);
	r.refuse = 0;
	r.call_back = true;
	table(2, CTRL, 0);
	CHECK(r.connects == 1 && r.created == 2);
	CHECK_EQ(pump(), 1);
	close_msix();
}

static void lives_with_failures(void)
{
	open_msix(4);
	control(ON);
	r.fail_create = -EMFILE;
	table(0, CTRL, 0);
	CHECK_EQ(msix_vector_fd(msix, 0), -EMFILE);
	r.fail_create = 0;
	r.fail_connect = -ENOSPC;
	kick(0);
	CHECK(r.connects == 0 && pba() == 1);
	r.fail_connect = 0;
	table(0, CTRL, 0);
	CHECK_EQ(pump(), 1);
	/* a message that cannot be had leaves the vector masked, not at its old message */
	r.fail_connect = -ENOSPC;
	table(0, PCI_MSIX_ENTRY_DATA, 9);
	kick(0);
	CHECK(pump() == 0 && pba() == 1);
	r.fail_connect = 0;
	table(0, PCI_MSIX_ENTRY_DATA, 10);
	CHECK(pump() == 1 && r.last.data == 10);
	close_msix();
}

static void shows_all_pending_bits(void)
{
	uint8_t data[256] = {0};
	unsigned int bits = 0;

	open_msix(2000);
	control(ON);
	for (unsigned int i = 0; i < 2000; i += 37)
		kick(i);
	for (unsigned int at = 0; at < msix_pba_size(msix); at += at % 16 ? 4 : 8)
		msix_pba_read(msix, at, data + at, at % 16 ? 4 : 8);
	for (unsigned int i = 0; i < 2000; i++) {
		CHECK_EQ(data[i / 8] >> i % 8 & 1, i % 37 == 0);
		bits += data[i / 8] >> i % 8 & 1;
	}
	CHECK_EQ(bits, 55);
	msix_pba_read(msix, 1, data, 4); /* bits 8 to 39 */
	CHECK_EQ(get_le32(data), 1u << (37 - 8));
	close_msix();
}

/* A device that kicks, counts, and waits until the interrupt for each kick has come. */
static unsigned int kicked, seen;

static void *kicker(void *opaque)
{
	int fd = *(int *)opaque;

	for (unsigned int i = 1; i <= 3000; i++) {
		__atomic_store_n(&kicked, i, __ATOMIC_SEQ_CST);
		eventfd_kick(fd);
		while (__atomic_load_n(&seen, __ATOMIC_SEQ_CST) != i)
			sched_yield();
	}
	return NULL;
}

static void loses_and_doubles_nothing_while_masking(void)
{
	pthread_t thread;
	unsigned int turn = 0;
	int fd;

	open_msix(1);
	control(ON);
	fd = msix_vector_fd(msix, 0);
	kicked = seen = 0;
	CHECK_EQ(pthread_create(&thread, NULL, kicker, &fd), 0);
	while (seen < 3000) {
		if (turn++ % 3)
			table(0, CTRL, turn & 1);
		else
			control(turn & 1 ? ON : ON | MASKALL);
		pba();
		if (pump())
			__atomic_store_n(&seen, seen + 1, __ATOMIC_SEQ_CST);
		CHECK(r.delivered <= __atomic_load_n(&kicked, __ATOMIC_SEQ_CST));
	}
	pthread_join(thread, NULL);
	CHECK_EQ(r.delivered, 3000);
	close_msix();
}

TEST_MAIN(TEST(looks_as_the_specification_says), TEST(any_access_is_harmless), TEST(refuses_impossible_layouts),
	  TEST(every_state_from_every_other), TEST(makes_vectors_when_needed), TEST(owners_may_refuse_and_call_back),
	  TEST(lives_with_failures), TEST(shows_all_pending_bits),
	  TEST(loses_and_doubles_nothing_while_masking))
