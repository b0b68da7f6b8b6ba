/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See vcpu.h.
 *
 * A signal with an empty handler makes a vCPU leave KVM_RUN; kvm_run.immediate_exit closes the race between checking
 * for a request and entering the kernel. The handler is global to the process, and installed with the first set.
 */
#include "vmm/kvm/vcpu.h"

#include "core/counter.h"
#include "core/monotonic.h"
#include "core/probe.h"
#include "core/thread.h"
#include "vmm/config/affinity.h"
#include "vmm/kvm/guest_cpu.h"
#include "vmm/kvm/kvm_stats.h"
#include "vmm/kvm/vcpu_arch.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#define KICK_SIGNAL (SIGRTMIN + 1)

struct vcpu_counts {
	uint64_t exits[VCPU_EXITS];
} __attribute__((aligned(COUNTER_LINE)));

struct vcpu {
	struct vcpu_set *set;
	unsigned int index;
	int fd;
	struct kvm_run *run;
	struct vcpu_counts *counts;
	pthread_t thread;
	bool has_thread;
	bool entered; /* KVM_RUN was called */
	bool settled; /* all threads are confined: what the guest has written may be looked at */
	struct vcpu_timer timer;
	bool loaded; /* or tried to */
	unsigned int warmed_up; /* the last of the set's warm_ups that this vCPU has done */
};

struct vcpu_set {
	struct vcpu_config config;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	unsigned int pauses;  /* vcpu_set_pause without vcpu_set_resume */
	unsigned int outside; /* vCPUs that wait in vcpu_park() */
	unsigned int threads;
	unsigned int warm_ups;
	bool stop;
	/* read without the lock: pauses or stop is not zero */
	bool attention;
	struct vcpu *vcpus;
	struct vcpu_counts *counts; /* of each vCPU */
	int *stats_fds;             /* the same; KVM's statistics, or -1 */
	struct vcpu_tsc_rates tsc;
	struct vcpu_arch *arch; /* created by the first save or load */
};

/* What a vCPU does after an exit. */
enum step { STEP_ON, STEP_PARK };

static void vcpu_on_kick(int sig)
{
	(void)sig;
}

static enum step vcpu_exit_io(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	struct bus *pio = vcpu->set->config.pio;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	PROBE(vcpu_io, vcpu->index, run->io.port, run->io.size, run->io.direction == KVM_EXIT_IO_OUT);
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(pio, run->io.port, data, run->io.size);
		else
			bus_read(pio, run->io.port, data, run->io.size);
	}
	return STEP_ON;
}

static enum step vcpu_exit_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct bus *mmio = vcpu->set->config.mmio;

	PROBE(vcpu_mmio, vcpu->index, run->mmio.phys_addr, run->mmio.len, run->mmio.is_write);
	if (run->mmio.is_write)
		bus_write(mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		bus_read(mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	return STEP_ON;
}

static enum step vcpu_tell(struct vcpu *vcpu, enum vcpu_event event)
{
	vcpu->set->config.event(vcpu->set->config.opaque, event);
	return STEP_PARK;
}

static bool vcpu_lost_memory(const struct vcpu *vcpu, bool fault)
{
	const struct vcpu_config *config = &vcpu->set->config;

	return config->memory_lost && config->memory_lost(config->opaque, fault);
}

static enum step vcpu_exit_shutdown(struct vcpu *vcpu)
{
	if (vcpu_lost_memory(vcpu, false))
		return STEP_PARK;
	log_info(vcpu->set->config.log, "vCPU %u: the guest reset the machine by a triple fault", vcpu->index);
	return vcpu_tell(vcpu, VCPU_SHUTDOWN);
}

static enum step vcpu_exit_event(struct vcpu *vcpu)
{
	return vcpu_tell(vcpu, VCPU_SHUTDOWN);
}

static enum step vcpu_exit_entry(struct vcpu *vcpu)
{
	log_error(vcpu->set->config.log, "vCPU %u cannot enter the guest: hardware reason 0x%llx", vcpu->index,
		  (unsigned long long)vcpu->run->fail_entry.hardware_entry_failure_reason);
	return vcpu_tell(vcpu, VCPU_FAILED);
}

static enum step vcpu_exit_internal(struct vcpu *vcpu)
{
	if (vcpu_lost_memory(vcpu, false))
		return STEP_PARK;
	log_error(vcpu->set->config.log, "vCPU %u: KVM internal error, suberror %u%s", vcpu->index,
		  vcpu->run->internal.suberror,
		  vcpu->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION ?
			  " (an instruction that it cannot emulate)" : "");
	return vcpu_tell(vcpu, VCPU_FAILED);
}

static enum step vcpu_exit_nothing(struct vcpu *vcpu)
{
	return STEP_ON;
}

/* The processor's state may be lost. */
static enum step vcpu_exit_notify(struct vcpu *vcpu)
{
	if (!(vcpu->run->notify.flags & KVM_NOTIFY_CONTEXT_INVALID))
		return STEP_ON;
	log_error(vcpu->set->config.log, "vCPU %u: the guest took no interrupt for too long, and its state is lost", vcpu->index);
	return vcpu_tell(vcpu, VCPU_FAILED);
}

static const struct vcpu_exit_kind {
	enum step (*fn)(struct vcpu *vcpu);
	enum vcpu_exit counted;
} exits[] = {
	[KVM_EXIT_IO] = {vcpu_exit_io, VCPU_EXIT_IO},
	[KVM_EXIT_MMIO] = {vcpu_exit_mmio, VCPU_EXIT_MMIO},
	[KVM_EXIT_IRQ_WINDOW_OPEN] = {vcpu_exit_nothing, VCPU_EXIT_WINDOW},
	[KVM_EXIT_SHUTDOWN] = {vcpu_exit_shutdown, VCPU_EXIT_SHUTDOWN},
	[KVM_EXIT_FAIL_ENTRY] = {vcpu_exit_entry, VCPU_EXIT_FAILED},
	[KVM_EXIT_INTR] = {vcpu_exit_nothing, VCPU_EXIT_KICKED},
	[KVM_EXIT_INTERNAL_ERROR] = {vcpu_exit_internal, VCPU_EXIT_FAILED},
	[KVM_EXIT_SYSTEM_EVENT] = {vcpu_exit_event, VCPU_EXIT_SHUTDOWN},
	[KVM_EXIT_NOTIFY] = {vcpu_exit_notify, VCPU_EXIT_NOTIFY},
};

const char *const vcpu_exit_names[VCPU_EXITS] = {
	[VCPU_EXIT_IO] = "io", [VCPU_EXIT_MMIO] = "mmio", [VCPU_EXIT_WINDOW] = "irq_window", [VCPU_EXIT_KICKED] = "kicked",
	[VCPU_EXIT_NOTIFY] = "notify",
	[VCPU_EXIT_SHUTDOWN] = "shutdown", [VCPU_EXIT_FAILED] = "failed", [VCPU_EXIT_OTHER] = "other",
};

static void vcpu_count(struct vcpu *vcpu, enum vcpu_exit reason)
{
	counter_add(&vcpu->counts->exits[reason], 1);
}

/* Whether what the guest has written may be looked at; may wait for it. */
static bool vcpu_settle(struct vcpu *vcpu)
{
	return vcpu->settled || (vcpu->settled = thread_settle());
}

static enum step vcpu_handle_exit(struct vcpu *vcpu)
{
	uint32_t reason = vcpu->run->exit_reason;

	PROBE(vcpu_exit, vcpu->index, reason);
	if (!vcpu_settle(vcpu))
		return STEP_PARK;
	kvm_coalesced_flush(vcpu->set->config.kvm, vcpu->set->config.pio);
	if (reason < ARRAY_SIZE(exits) && exits[reason].fn) {
		vcpu_count(vcpu, exits[reason].counted);
		return exits[reason].fn(vcpu);
	}
	vcpu_count(vcpu, VCPU_EXIT_OTHER);
	log_error(vcpu->set->config.log, "vCPU %u: unknown exit reason %u of KVM_RUN", vcpu->index, reason);
	return vcpu_tell(vcpu, VCPU_FAILED);
}

/* Calls KVM_RUN without entering the guest, if requested: see vcpu_set_warm_up. Lock held; dropped meanwhile. */
static void vcpu_warm_up(struct vcpu *vcpu)
{
	struct vcpu_set *set = vcpu->set;

	if (vcpu->warmed_up == set->warm_ups || vcpu->entered)
		return;
	vcpu->warmed_up = set->warm_ups;
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&set->lock);
	ioctl(vcpu->fd, KVM_RUN, 0);
	pthread_mutex_lock(&set->lock);
}

/* Waits outside the guest while there are pauses, or until the set is stopped. False: the thread must end. */
static bool vcpu_park(struct vcpu *vcpu, bool until_stop)
{
	struct vcpu_set *set = vcpu->set;
	bool stop;

	/* A guest that has never left may have written to such a port, too. */
	if (vcpu->entered && vcpu_settle(vcpu))
		kvm_coalesced_flush(set->config.kvm, set->config.pio);
	pthread_mutex_lock(&set->lock);
	set->outside++;
	pthread_cond_broadcast(&set->changed);
	while (!set->stop && (set->pauses || until_stop)) {
		pthread_cond_wait(&set->changed, &set->lock);
		vcpu_warm_up(vcpu);
	}
	set->outside--;
	stop = set->stop;
	__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&set->lock);
	return !stop;
}

/* Completes a pending exit (as a read whose result KVM has not taken yet) before the vCPU is paused. An instruction may
 * exit more than once: handles its exits until KVM_RUN returns only because of immediate_exit. */
static enum step vcpu_complete_exit(struct vcpu *vcpu)
{
	enum step step = STEP_ON;

	do
		__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
	while (ioctl(vcpu->fd, KVM_RUN, 0) == 0 && (step = vcpu_handle_exit(vcpu)) == STEP_ON);
	return step;
}

static void *vcpu_run_vcpu(void *opaque)
{
	struct vcpu *vcpu = opaque;
	struct vcpu_set *set = vcpu->set;
	enum step step = STEP_ON;
	bool alive = true;

	while (alive) {
		bool wanted = __atomic_load_n(&set->attention, __ATOMIC_ACQUIRE);

		if (step == STEP_ON && wanted && vcpu->entered)
			step = vcpu_complete_exit(vcpu);
		if (step == STEP_PARK || wanted) {
			alive = vcpu_park(vcpu, step == STEP_PARK);
			continue;
		}
		vcpu->entered = true;
		if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
			step = vcpu_handle_exit(vcpu);
		} else if (errno == EINTR || errno == EAGAIN) {
			vcpu_count(vcpu, VCPU_EXIT_KICKED);
		} else if (errno == EFAULT && vcpu_lost_memory(vcpu, true)) {
			step = STEP_PARK;
		} else {
			log_error(set->config.log, "vCPU %u: KVM_RUN: %s", vcpu->index, strerrordesc_np(errno));
			step = vcpu_tell(vcpu, VCPU_FAILED);
		}
	}
	return NULL;
}

/* reset: no state will be loaded. */
static int vcpu_create_vcpu(struct vcpu *vcpu, const struct guest_cpu *model, bool reset,
			    const struct boot_entry *entry, struct err *err)
{
	struct kvm *kvm = vcpu->set->config.kvm;
	void *run;
	int ret;

	vcpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)guest_cpu_apic_id(model, vcpu->index));
	if (vcpu->fd < 0)
		return err_sys(err, -errno, "KVM_CREATE_VCPU");
	run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return err_sys(err, -errno, "shared page of the vCPU");
	vcpu->run = run;
	if (vcpu->index == 0)
		kvm_coalesced_map(kvm, run);
	vcpu->set->stats_fds[vcpu->index] = kvm_stats_open(vcpu->fd);
	vcpu->set->tsc.told = vcpu->set->config.tsc_khz;
	ret = vcpu_arch_set_tsc(kvm, vcpu->fd, guest_cpu_stable_tsc(model), &vcpu->set->tsc, err);
	if (ret == 0)
		ret = guest_cpu_apply(model, vcpu->fd, vcpu->index, vcpu->set->tsc.told, err);
	return ret < 0 || !reset ? ret : vcpu_arch_reset(kvm, vcpu->fd, entry, err);
}

static void vcpu_set_free(struct vcpu_set *set)
{
	free(set->stats_fds);
	free(set->counts);
	free(set->vcpus);
	free(set);
}

static struct vcpu_set *vcpu_set_alloc(unsigned int count)
{
	struct vcpu_set *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	set->vcpus = calloc(count, sizeof(*set->vcpus));
	set->counts = counter_alloc(count, sizeof(*set->counts));
	set->stats_fds = malloc(count * sizeof(*set->stats_fds));
	if (!set->vcpus || !set->counts || !set->stats_fds) {
		vcpu_set_free(set);
		return NULL;
	}
	memset(set->stats_fds, 0xff, count * sizeof(*set->stats_fds)); /* -1 */
	return set;
}

int vcpu_set_create(const struct vcpu_config *config, const struct guest_cpu *model, const struct boot_entry *entry,
		    struct vcpu_set **ret, struct err *err)
{
	struct sigaction action = {.sa_handler = vcpu_on_kick};
	struct vcpu_set *set = vcpu_set_alloc(config->count);

	if (!set)
		return err_sys(err, -ENOMEM, "vCPUs");
	sigaction(KICK_SIGNAL, &action, NULL);
	set->config = *config;
	pthread_mutex_init(&set->lock, NULL);
	pthread_cond_init(&set->changed, NULL);
	for (unsigned int i = 0; i < config->count; i++)
		set->vcpus[i] = (struct vcpu){.set = set, .index = i, .fd = -1, .counts = &set->counts[i]};
	for (unsigned int i = 0; i < config->count; i++) {
		int code = vcpu_create_vcpu(&set->vcpus[i], model, entry != NULL, i ? NULL : entry, err);

		if (code < 0) {
			vcpu_set_destroy(set);
			return err_prefix(err, code, "vCPU %u", i);
		}
	}
	*ret = set;
	return 0;
}

/* Makes all vCPUs leave the guest. Lock held. */
static void vcpu_kick_all(struct vcpu_set *set)
{
	__atomic_store_n(&set->attention, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < set->config.count; i++) {
		struct vcpu *vcpu = &set->vcpus[i];

		if (!vcpu->has_thread)
			continue;
		__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
		pthread_kill(vcpu->thread, KICK_SIGNAL);
	}
}

void vcpu_set_destroy(struct vcpu_set *set)
{
	if (!set)
		return;
	pthread_mutex_lock(&set->lock);
	set->stop = true;
	vcpu_kick_all(set);
	pthread_cond_broadcast(&set->changed);
	pthread_mutex_unlock(&set->lock);
	for (unsigned int i = 0; i < set->config.count; i++)
		if (set->vcpus[i].has_thread)
			pthread_join(set->vcpus[i].thread, NULL);
	for (unsigned int i = 0; i < set->config.count; i++) {
		if (set->vcpus[i].run)
			munmap(set->vcpus[i].run, set->config.kvm->run_size);
		fd_close(&set->stats_fds[i]);
		fd_close(&set->vcpus[i].fd);
	}
	pthread_cond_destroy(&set->changed);
	pthread_mutex_destroy(&set->lock);
	vcpu_arch_destroy(set->arch);
	vcpu_set_free(set);
}

struct place {
	pthread_t thread;
	cpu_set_t cpus;
};

static int vcpu_set_affinity(void *opaque)
{
	const struct place *place = opaque;

	return -pthread_setaffinity_np(place->thread, sizeof(place->cpus), &place->cpus);
}

/* A thread that runs already moves at once. */
static int vcpu_place_thread(struct vcpu *vcpu, struct err *err)
{
	const struct affinity_options *affinity = vcpu->set->config.affinity;
	struct place place = {.thread = vcpu->thread};
	int code;

	if (!affinity || !affinity_of(affinity, vcpu->index, &place.cpus))
		return 0;
	code = thread_call(vcpu_set_affinity, &place);
	return code ? err_set(err, code, "--cpu-affinity: vCPU %u cannot run on its CPUs (%s); they are offline, or the control "
			      "group of this process has others", vcpu->index, strerrordesc_np(-code)) : 0;
}

static int vcpu_start_thread(struct vcpu *vcpu, struct err *err)
{
	int ret = thread_start_kicked(&vcpu->thread, THREAD_VCPU, KICK_SIGNAL, vcpu_run_vcpu, vcpu, "vcpu%u", vcpu->index);

	vcpu->has_thread = ret == 0;
	vcpu->set->threads += ret == 0;
	return ret ? err_sys(err, ret, "vCPU thread") : vcpu_place_thread(vcpu, err);
}

int vcpu_set_start(struct vcpu_set *set, bool paused, struct err *err)
{
	int ret = 0;

	pthread_mutex_lock(&set->lock);
	set->pauses += paused;
	set->attention |= paused;
	for (unsigned int i = 0; i < set->config.count && ret == 0; i++)
		ret = vcpu_start_thread(&set->vcpus[i], err);
	pthread_mutex_unlock(&set->lock);
	return ret;
}

void vcpu_set_pause(struct vcpu_set *set)
{
	pthread_mutex_lock(&set->lock);
	set->pauses++;
	vcpu_kick_all(set);
	pthread_mutex_unlock(&set->lock);
}

int vcpu_set_wait(struct vcpu_set *set, int64_t deadline)
{
	const struct timespec until = monotonic_deadline(deadline);
	int ret = 0;

	pthread_mutex_lock(&set->lock);
	while (set->outside < set->threads && ret == 0)
		ret = pthread_cond_clockwait(&set->changed, &set->lock, CLOCK_MONOTONIC, &until);
	ret = set->outside < set->threads ? -ret : 0;
	pthread_mutex_unlock(&set->lock);
	return ret;
}

void vcpu_set_resume(struct vcpu_set *set)
{
	pthread_mutex_lock(&set->lock);
	set->pauses--;
	__atomic_store_n(&set->attention, set->pauses > 0 || set->stop, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&set->changed);
	pthread_mutex_unlock(&set->lock);
}

void vcpu_set_warm_up(struct vcpu_set *set)
{
	pthread_mutex_lock(&set->lock);
	set->warm_ups++;
	pthread_cond_broadcast(&set->changed);
	pthread_mutex_unlock(&set->lock);
}

/* ---- for the clock, save and load ---- */

int vcpu_set_stop_timers(struct vcpu_set *set, struct err *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < set->config.count && ret == 0; i++) {
		ret = vcpu_arch_stop_timer(set->vcpus[i].fd, &set->vcpus[i].timer, err);
		if (ret < 0)
			err_prefix(err, ret, "vCPU %u", i);
	}
	if (ret < 0)
		vcpu_set_start_timers(set, set->config.log);
	return ret;
}

bool vcpu_set_start_timers(struct vcpu_set *set, const struct log *log)
{
	bool reloaded = false;
	struct err err;

	for (unsigned int i = 0; i < set->config.count; i++) {
		reloaded |= set->vcpus[i].timer.stopped && set->vcpus[i].timer.left;
		if (vcpu_arch_start_timer(set->vcpus[i].fd, &set->vcpus[i].timer, &err) < 0)
			log_warn(log, "vCPU %u: %s; it may wait for ever", i, err.text);
	}
	return reloaded;
}

/* EINVAL: the guest does not use kvmclock. */
void vcpu_set_notify_paused(struct vcpu_set *set)
{
	for (unsigned int i = 0; i < set->config.count; i++)
		ioctl(set->vcpus[i].fd, KVM_KVMCLOCK_CTRL, 0);
}

uint64_t vcpu_set_exits(const struct vcpu_set *set, unsigned int index, enum vcpu_exit reason)
{
	return counter_read(&set->counts[index].exits[reason]);
}

const int *vcpu_set_stats(const struct vcpu_set *set)
{
	return set->stats_fds;
}

unsigned int vcpu_set_count(const struct vcpu_set *set)
{
	return set->config.count;
}

int vcpu_set_fd(const struct vcpu_set *set, unsigned int index)
{
	return set->vcpus[index].fd;
}

unsigned int vcpu_set_tsc_khz(const struct vcpu_set *set)
{
	return set->tsc.told;
}

unsigned int vcpu_set_host_tsc_khz(const struct vcpu_set *set)
{
	return set->tsc.host;
}

unsigned int vcpu_set_real_tsc_khz(const struct vcpu_set *set)
{
	return set->tsc.real;
}

static int vcpu_need_arch(struct vcpu_set *set, struct err *err)
{
	return set->arch ? 0 : vcpu_arch_create(set->config.kvm, &set->arch, err);
}

int vcpu_set_save(struct vcpu_set *set, unsigned int index, struct state_buffer *out, struct err *err)
{
	int ret = vcpu_need_arch(set, err);

	if (ret == 0)
		ret = vcpu_arch_save(set->arch, set->vcpus[index].fd, &set->vcpus[index].timer, out, err);
	return ret < 0 ? err_prefix(err, ret, "vCPU %u", index) : 0;
}

int vcpu_set_load(struct vcpu_set *set, unsigned int index, bool trial, const void *data, size_t len, struct err *err)
{
	struct vcpu *vcpu = &set->vcpus[index];
	int ret = vcpu_need_arch(set, err);

	if (ret == 0)
		ret = vcpu_arch_load(set->arch, vcpu->fd, (struct vcpu_load){.trial = trial, .fresh = !vcpu->loaded},
				     &vcpu->timer, data, len, err);
	vcpu->loaded = true;
	return ret < 0 ? err_prefix(err, ret, "vCPU %u", index) : 0;
}
