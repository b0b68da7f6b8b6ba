/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/machine/host_devices: devices go, because somebody asks, the guest lets go, the host wants one back, or the machine
 * ends. Whoever asks is answered exactly once, and no DMA is left.
 */
#include "tests/unit/host_devices_rig.h"

#include <poll.h>
#include <sys/resource.h>

/* ---- going ---- */

static void the_guest_is_asked_and_lets_it_go(void)
{
	start(2);
	ask("b", &t.first);
	CHECK_EQ(asked_for(), 1u << SLOT_B);
	pb_pump(&t.p);
	CHECK_EQ(t.first.answers, 0);
	CHECK_EQ(identity(SLOT_B), NVME);
	eject(SLOT_B);
	ANSWERED(t.first, 0);
	CHECK_EQ(identity(SLOT_B), NOTHING);
	CHECK_EQ(identity(SLOT_A), NVME);
	CHECK_EQ(host_devices_count(t.devices), 1);
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "b");
	CHECK_EQ(t.pauses, 1); /* the vCPUs did not look at the bus meanwhile */
	CHECK(!t.p.base.fake->devices[1].fd);
	/* Its id and its place are free. */
	CHECK_EQ(add(1), 0);
	CHECK_EQ(appeared(), 1u << SLOT_B);
	done();
	CHECK_EQ(t.gone, 1);
	ANSWERED(t.first, 0);
}

static void one_that_is_not_there_cannot_go(void)
{
	start(1);
	CHECK_EQ(remove_device("b", false, 1000, &t.first), -ENOENT);
	SAYS("b: no host device with this id; mvmm info lists them");
	CHECK_EQ(remove_device("b", true, 1000, &t.first), -ENOENT);
	CHECK_EQ(t.first.answers, 0);
	CHECK_EQ(asked_for(), 0);
	done();
}

static void a_guest_that_does_nothing_keeps_it(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	wait_for_answer(&t.first);
	ANSWERED(t.first, -ETIMEDOUT);
	SAYS("the guest has not ejected it, and it stays; --force removes it anyway");
	/* It is there, and works: its BAR is mapped when the guest decodes it. */
	CHECK_EQ(identity(SLOT_A), NVME);
	rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	CHECK_EQ(t.p.maps, 1);
	CHECK_EQ(t.gone + t.pauses, 0);
	/* It can be asked for again. */
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	ask("a", &t.second);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	eject(SLOT_A);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.p.maps, 0);
	CHECK_EQ(t.gone, 1);
	done();
	ANSWERED(t.first, -ETIMEDOUT);
}

static void a_guest_that_is_late_lets_it_go_all_the_same(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	wait_for_answer(&t.first);
	eject(SLOT_A);
	CHECK_EQ(identity(SLOT_A), NOTHING);
	CHECK_EQ(t.gone, 1);
	done();
	ANSWERED(t.first, -ETIMEDOUT);
}

static void one_caller_waits_at_a_time(void)
{
	start(1);
	ask("a", &t.first);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	CHECK_EQ(remove_device("a", false, 1000, &t.second), -EBUSY);
	SAYS("a: the guest has already been asked");
	CHECK_EQ(asked_for(), 0);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	CHECK_EQ(t.second.answers, 0);
	done();
}

static void force_asks_nobody_and_tells_the_guest(void)
{
	start(1);
	CHECK_EQ(remove_device("a", true, 1000, &t.first), 0);
	ANSWERED(t.first, 0);
	CHECK_EQ(identity(SLOT_A), NOTHING);
	CHECK_EQ(t.gone, 1);
	/* So that its driver lets go. The next device does not come where that is to happen. */
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	CHECK_EQ(add(1), 0);
	CHECK_EQ(identity(SLOT_B), NVME);
	eject(SLOT_A);
	CHECK_EQ(identity(SLOT_B), NVME);
	done();
	ANSWERED(t.first, 0);
}

static void force_answers_who_waits_too(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	CHECK_EQ(remove_device("a", true, 1000, &t.second), 0);
	ANSWERED(t.first, 0);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.gone, 1);
	/* Neither the time nor the guest, which has seen the question, bring anything more. */
	poll(NULL, 0, 5);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.gone, 1);
	done();
}

static void a_guest_may_let_go_what_nobody_asked_for(void)
{
	start(2);
	eject(SLOT_A);
	CHECK_EQ(identity(SLOT_A), NOTHING);
	CHECK_EQ(host_devices_count(t.devices), 1);
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "a");
	/* Nor is it a matter when there is nothing. */
	eject(SLOT_A);
	eject(3);
	CHECK_EQ(t.gone, 1);
	CHECK_EQ(identity(SLOT_B), NVME);
	done();
}

/* All memory may be unpinned then: neither the guest nor the loop waits for that, and nothing else comes or goes. */
static void the_guest_runs_while_a_device_is_closed(void)
{
	start(2);
	t.close_fd = eventfd(0, EFD_CLOEXEC);
	ask("b", &t.first);
	ejects(SLOT_B);
	pb_pump(&t.p);
	CHECK_EQ(t.pauses, 1);
	CHECK_EQ(t.paused, 0);
	CHECK_EQ(identity(SLOT_B), NOTHING);
	CHECK_EQ(host_devices_count(t.devices), 1);
	CHECK_EQ(t.first.answers + t.gone, 0);
	CHECK_EQ(remove_device("b", true, 1000, &t.second), -EBUSY);
	SAYS("b: the device b is being removed; try again when it is gone");
	CHECK_EQ(remove_device("a", true, 1000, &t.second), -EBUSY);
	CHECK_EQ(begin_adding(&configs[2], &t.second), -EBUSY);
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", &t.p.base.err), -EBUSY);
	CHECK(host_devices_release(t.devices, 0, 4096) != 0);
	/* What is ejected meanwhile leaves as the next one. */
	ejects(SLOT_A);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_A), NVME);
	eventfd_kick(t.close_fd);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.second.answers, 0);
	CHECK_EQ(t.gone, 2);
	CHECK_EQ(t.pauses, 2);
	CHECK_EQ(host_devices_count(t.devices), 0);
	CHECK_EQ(host_devices_release(t.devices, 0, 4096), 0);
	close(t.close_fd);
	done();
}

/* A vCPU may map another device's BAR while one leaves. */
static void bars_are_mapped_while_a_device_is_closed(void)
{
	start(2);
	t.close_fd = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(host_devices_remove(t.devices, "b", true, 0, answer, &t.first, &t.p.base.err), 0);
	for (unsigned int i = 0; i < 20; i++)
		rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, i & 1 ? PCI_COMMAND_MEMORY : 0);
	eventfd_kick(t.close_fd);
	for (unsigned int i = 0; i < 20; i++)
		rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, i & 1 ? PCI_COMMAND_MEMORY : 0);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.p.maps, 1);
	close(t.close_fd);
	done();
}

static void the_end_waits_for_a_device_that_is_closed(void)
{
	start(2);
	t.close_fd = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(host_devices_remove(t.devices, "b", true, 0, answer, &t.first, &t.p.base.err), 0);
	ejects(SLOT_A);
	eventfd_kick(t.close_fd);
	destroy();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 2);
	CHECK_EQ(fake_left(t.p.base.fake), 0);
	close(t.close_fd);
	done();
}

/* An eject that the loop has not seen when its device is taken by force, or where none was. */
static void an_eject_is_none_of_the_next_one_there(void)
{
	start(1);
	ejects(SLOT_A);
	CHECK_EQ(remove_device("a", true, 1000, &t.first), 0);
	CHECK_EQ(add(1), 0);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_A), NVME);
	ejects(SLOT_B);
	CHECK_EQ(add(0), 0);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_B), NVME);
	CHECK_EQ(t.gone, 1);
	done();
}

/* ---- with a blocker ---- */

static void a_blocker_stops_adding_and_removing(void)
{
	start(2);
	ask("a", &t.first);
	asked_for();
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	CHECK_EQ(remove_device("b", false, 1000, &t.second), -EBUSY);
	SAYS("b: the machine is being migrated");
	CHECK_EQ(remove_device("a", true, 1000, &t.second), -EBUSY);
	CHECK_EQ(asked_for(), 0);
	eject(SLOT_A);
	eject(SLOT_B);
	CHECK_EQ(identity(SLOT_A), NVME);
	CHECK_EQ(identity(SLOT_B), NVME);
	CHECK_EQ(t.first.answers + t.gone, 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	CHECK_EQ(t.first.answers + t.gone, 0);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.second.answers, 0);
	CHECK_EQ(t.gone, 2);
	CHECK_EQ(host_devices_count(t.devices), 0);
	done();
}

static void a_callers_time_runs_with_a_blocker(void)
{
	start(1);
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	wait_for_answer(&t.first);
	ANSWERED(t.first, -ETIMEDOUT);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	pb_pump(&t.p);
	CHECK_EQ(identity(SLOT_A), NVME);
	done();
}

/* ---- the host wants one back; one fails ---- */

/* The kernel repeats the request as long as somebody waits for the device, and so does this, with ever fewer lines. */
static void the_guest_is_asked_as_long_as_the_host_waits(void)
{
	start(1);
	host_wants(0);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	CHECK_LOGGED(&t.p, "vfio a: the host wants it back; asking the guest to eject it", 1);
	host_wants(0);
	CHECK_LOGGED(&t.p, "the guest has read the request and keeps the device; it is asked again; "
			     "mvmm vfio remove NAME a --force takes it away", 1);
	for (unsigned int i = 3; i <= 100; i++) {
		CHECK_EQ(asked_for(), 1u << SLOT_A);
		host_wants(0);
	}
	CHECK_LOGGED(&t.p, "wants it back", 7);
	host_wants(0);
	for (unsigned int i = 102; i <= 128; i++)
		host_wants(0);
	CHECK_LOGGED(&t.p, "the guest has not read the request; it is asked again", 1);
	eject(SLOT_A);
	CHECK_EQ(t.gone, 1);
	done();
}

/* A caller is no host: he asks again, and when his time is over the host still wants it. */
static void the_host_waits_longer_than_a_caller(void)
{
	start(1);
	host_wants(0);
	asked_for();
	CHECK_EQ(remove_device("a", false, 1, &t.first), 0);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	host_wants(0);
	CHECK_EQ(remove_device("a", false, 1, &t.second), -EBUSY);
	wait_for_answer(&t.first);
	ANSWERED(t.first, -ETIMEDOUT);
	destroy();
	CHECK_EQ(t.gone, 1);
	done();
}

/* The target has the device: a guest that ejects it here would lose it there. */
static void a_guest_that_moves_is_asked_afterwards(void)
{
	start(2);
	ask("b", &t.first); /* not read yet */
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	CHECK_EQ(asked_for(), 0);
	host_wants(0);
	host_wants(0);
	CHECK_EQ(asked_for(), 0);
	CHECK_LOGGED(&t.p, "vfio a: the host wants it back; the guest is asked after the migration", 1);
	CHECK_LOGGED(&t.p, "wants it back", 1);
	CHECK_EQ(slots_check_present(t.slots, &t.p.base.err), 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	CHECK_EQ(asked_for(), 1u << SLOT_A | 1u << SLOT_B);
	eject(SLOT_A);
	eject(SLOT_B);
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 2);
	done();
}

static void a_device_that_was_ejected_meanwhile_does_not_move(void)
{
	start(1);
	CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
	eject(SLOT_A);
	CHECK_EQ(slots_check_present(t.slots, &t.p.base.err), -EBUSY);
	SAYS("vfio a: the guest has ejected it meanwhile; migrate again, without it");
	host_wants(0);
	CHECK_EQ(asked_for(), 0);
	CHECK_EQ(host_devices_set_blocker(t.devices, NULL, NULL), 0);
	settle();
	CHECK_EQ(t.gone, 1);
	done();
}

static void the_host_and_a_caller_may_want_the_same_one(void)
{
	start(1);
	ask("a", &t.first);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	host_wants(0);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	CHECK_EQ(remove_device("a", false, 1, &t.second), -EBUSY);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 1);
	done();
}

static void one_that_is_cut_off_reads_as_ones(void)
{
	struct vfio_pci_info info;

	start(1);
	rig_cfg_write(&t.p.rig, PCI_DEVFN(SLOT_A, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	CHECK_EQ(t.p.maps, 1);
	host_devices_cut_off(t.devices, 0);
	CHECK_EQ(identity(SLOT_A), 0xffffffff);
	CHECK_EQ(t.p.maps, 0);
	host_devices_info(t.devices, 0, &info);
	CHECK(info.fenced);
	CHECK_EQ(t.gone, 0);
	/* It is there all the same, and goes as others do. */
	ask("a", &t.first);
	eject(SLOT_A);
	ANSWERED(t.first, 0);
	done();
}

/* ---- the end ---- */

static void who_waits_is_answered_by_the_end(void)
{
	start(2);
	ask("a", &t.first);
	destroy();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "a"); /* and b will be there for the next machine */
	done();
}

static void what_the_host_wants_goes_with_the_end(void)
{
	start(2);
	host_wants(1);
	destroy();
	CHECK_EQ(t.gone, 1);
	CHECK_STR(t.last_gone, "b");
	done();
}

/* Blocked, or not seen by the loop yet: the guest has let it go before it ended. */
static void what_was_let_go_does_not_come_again(void)
{
	for (unsigned int blocked = 0; blocked <= 1; blocked++) {
		start(2);
		if (blocked)
			CHECK_EQ(host_devices_set_blocker(t.devices, "the machine is being migrated", NULL), 0);
		ejects(SLOT_A);
		destroy();
		CHECK_EQ(t.gone, 1);
		CHECK_STR(t.last_gone, "a");
		done();
	}
}

/* No descriptor is left for a caller's time: nobody was asked, and he may try again. */
static void no_descriptor_for_the_time(void)
{
	struct rlimit old, none;

	start(1);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){.rlim_max = old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(remove_device("a", false, 1000, &t.first), -EMFILE);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK_EQ(asked_for(), 0);
	ask("a", &t.second);
	CHECK_EQ(asked_for(), 1u << SLOT_A);
	eject(SLOT_A);
	ANSWERED(t.second, 0);
	CHECK_EQ(t.first.answers, 0);
	done();
}

static void without_a_thread_the_loop_closes_it(void)
{
	struct rlimit old, none;
	int rc;

	start(1);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){.rlim_max = old.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	rc = host_devices_remove(t.devices, "a", true, 0, answer, &t.first, &t.p.base.err);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK_EQ(rc, 0);
	CHECK_EQ(t.first.answers, 0);
	settle();
	ANSWERED(t.first, 0);
	CHECK_EQ(t.gone, 1);
	done();
}

/* The guest has its devices at work: memory decoded, DMA on. */
static void at_work(unsigned int slot)
{
	rig_cfg_write(&t.p.rig, PCI_DEVFN(slot, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* Each device may write into guest memory and into the other one until its DMA ends. */
static void all_dma_ends_before_anything_is_unmapped(void)
{
	const char *journal, *unmap;

	start(2);
	at_work(SLOT_A);
	at_work(SLOT_B);
	fake_journal(t.p.base.fake);
	destroy();
	journal = fake_journal(t.p.base.fake);
	unmap = strstr(journal, "unmap");
	CHECK(unmap && !strstr(unmap, "command"));
	CHECK_EQ(strncmp(journal, "command 2, command 2, ", 22), 0);
	CHECK_EQ(t.p.base.fake->detached_masters, 0);
	done();
}

static void dma_ends_before_a_device_leaves(void)
{
	for (int force = 0; force < 2; force++) {
		start(1);
		at_work(SLOT_A);
		CHECK_EQ(remove_device("a", force, 600000, &t.first), 0);
		if (!force)
			eject(SLOT_A);
		pb_pump(&t.p);
		CHECK_EQ(host_devices_count(t.devices), 0);
		CHECK_EQ(t.p.base.fake->detached_masters, 0);
		done();
	}
}

TEST_MAIN(TEST(the_guest_is_asked_and_lets_it_go), TEST(one_that_is_not_there_cannot_go),
	  TEST(a_guest_that_does_nothing_keeps_it), TEST(a_guest_that_is_late_lets_it_go_all_the_same),
	  TEST(one_caller_waits_at_a_time), TEST(force_asks_nobody_and_tells_the_guest), TEST(force_answers_who_waits_too),
	  TEST(a_guest_may_let_go_what_nobody_asked_for), TEST(an_eject_is_none_of_the_next_one_there),
	  TEST(a_blocker_stops_adding_and_removing), TEST(a_callers_time_runs_with_a_blocker),
	  TEST(the_guest_is_asked_as_long_as_the_host_waits), TEST(the_host_waits_longer_than_a_caller),
	  TEST(a_guest_that_moves_is_asked_afterwards), TEST(a_device_that_was_ejected_meanwhile_does_not_move),
	  TEST(the_host_and_a_caller_may_want_the_same_one), TEST(one_that_is_cut_off_reads_as_ones),
	  TEST(all_dma_ends_before_anything_is_unmapped), TEST(dma_ends_before_a_device_leaves),
	  TEST(who_waits_is_answered_by_the_end), TEST(what_the_host_wants_goes_with_the_end),
	  TEST(what_was_let_go_does_not_come_again), TEST(no_descriptor_for_the_time),
	  TEST(the_guest_runs_while_a_device_is_closed), TEST(bars_are_mapped_while_a_device_is_closed),
	  TEST(the_end_waits_for_a_device_that_is_closed), TEST(without_a_thread_the_loop_closes_it))
