/* SPDX-License-Identifier: MIT */
/* Making and unmaking an engine, and what concerns it as a whole: policy, memory, events, counters. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "stats.h"
#include "worker.h"

#define DEFAULT_SLOTS 64u
#define DRAIN_SPINS 1000u
#define DRAIN_MAX 4096u /* frames read from a tap queue before it is detached */

static void *zalloc_aligned(size_t count, size_t size)
{
	void *p = VNET_FAILS(VNET_FAIL_ALLOC) ? NULL : aligned_alloc(64, count * size);

	return p ? memset(p, 0, count * size) : NULL;
}

static_assert(sizeof(struct vnet_pair) % 64 == 0 && sizeof(struct vnet_worker) % 64 == 0 &&
		      sizeof(struct vnet_engine) % 64 == 0,
	      "aligned_alloc");

/* What holds before a driver comes: one pair, nothing hashed or filtered, 12-byte header (NET-MQ-02). */
static int default_policy(struct vnet_policy **policy)
{
	const struct vnet_policy_config config = {
		.steering.pairs = 1,
		.header_length = sizeof(struct virtio_net_hdr_v1),
		.port_queues = 1,
		.filter.modes = VNET_FILTER_PROMISC, /* U-31 */
	};

	return vnet_policy_create(&config, policy);
}

static int init_pair(struct vnet_engine *e, const struct vnet_engine_config *config, uint32_t i)
{
	struct vnet_pair *pair = &e->pairs[i];
	int error;

	pair->index = i;
	pair->owner = &e->workers[i % e->worker_count];
	pair->rx_batch = pair->rx_chains = 1;
	for (uint32_t j = 0; j < VNET_BATCH; j++)
		pair->hold[j] = vnet_slot(&e->slots, i * VNET_BATCH + j);
	pair->port.fd = -1;
	if (i >= config->port_count)
		return 0;
	error = vnet_fd_dup(config->port_fds[i], &pair->port.fd);
	if (error)
		return error;
	pair->port.ops = vnet_port_ops_of(config->port_type);
	pair->port.index = i;
	pair->port.attached = true;
	return 0;
}

static int init_workers(struct vnet_engine *e, const struct vnet_engine_config *config,
			uint32_t inbound)
{
	for (uint32_t i = 0; i < e->worker_count; i++) {
		int cpu = config->worker_cpus ? config->worker_cpus[i] : -1;
		int error = vnet_worker_init(&e->workers[i], e, i, inbound, cpu);

		if (error)
			return error;
	}
	return 0;
}

/*
 * Watch the host port queues while an error can still be told: what changes
 * later changes an entry of the epoll set, which needs nothing that may lack.
 */
static int command_watch(struct vnet_worker *w, struct vnet_command *command)
{
	int error = 0;

	(void)command;
	for (uint32_t i = w->number; !error && i < w->engine->pair_count;
	     i += w->engine->worker_count)
		error = vnet_worker_update_port(&w->engine->pairs[i]);
	return error;
}

static int init(struct vnet_engine *e, const struct vnet_engine_config *config)
{
	uint32_t per_worker = config->handoff_slots ? config->handoff_slots : DEFAULT_SLOTS;
	uint32_t moving = e->worker_count > 1 ? per_worker * e->worker_count : 0;
	int error;

	sem_init(&e->done, 0, 0);
	pthread_mutex_init(&e->control, NULL);
	e->pairs = zalloc_aligned(e->pair_count, sizeof(*e->pairs));
	e->workers = zalloc_aligned(e->worker_count, sizeof(*e->workers));
	/* Before anything may fail: destroying a half-made engine closes what is not -1. */
	for (uint32_t i = 0; e->pairs && i < e->pair_count; i++)
		e->pairs[i].port.fd = -1;
	if (!e->pairs || !e->workers)
		return -ENOMEM;
	e->event_fd = VNET_FAILS(VNET_FAIL_FD) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->event_fd < 0)
		return errno ? -errno : -EMFILE;
	error = default_policy(&e->policy);
	if (!error)
		error = vnet_slots_init(&e->slots, e->pair_count * VNET_BATCH, moving);
	for (uint32_t i = 0; !error && i < e->pair_count; i++)
		error = init_pair(e, config, i);
	if (!error)
		error = init_workers(e, config, per_worker);
	if (!error) {
		struct vnet_command command = { .run = command_watch };

		error = vnet_workers_run(e, &command);
	}
	if (!error)
		error = vnet_engine_set_policy(e, e->policy);
	return error;
}

int vnet_engine_create(const struct vnet_engine_config *config, struct vnet_engine **engine)
{
	struct vnet_engine *e;
	int error;

	if (!config->pairs || config->pairs > VNET_MAX_PAIRS || !config->workers ||
	    config->workers > config->pairs || !config->port_count ||
	    config->port_count > config->pairs || config->handoff_slots > 4096 ||
	    config->io > VNET_IO_URING || config->poll_us > VNET_POLL_US_MAX ||
	    !vnet_port_ops_of(config->port_type))
		return -EINVAL;
	e = zalloc_aligned(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->pair_count = config->pairs;
	e->worker_count = config->workers;
	e->port_count = config->port_count;
	e->attached = config->port_count;
	e->io = config->io;
	e->poll_us = config->poll_us;
	e->pin_guest_memory = config->pin_guest_memory != 0;
	e->offloads = UINT32_MAX; /* nobody knows what its maker asked for */
	e->event_fd = -1;
	error = init(e, config);
	if (config->info)
		vnet_engine_info(e, config->info);
	if (error) {
		vnet_engine_destroy(e);
		return error;
	}
	*engine = e;
	return 0;
}

void vnet_engine_destroy(struct vnet_engine *e)
{
	if (!e)
		return;
	for (uint32_t i = 0; e->workers && i < e->worker_count; i++)
		vnet_worker_stop(&e->workers[i]);
	for (uint32_t i = 0; e->workers && i < e->worker_count; i++)
		vnet_worker_fini(&e->workers[i]);
	for (uint32_t i = 0; e->pairs && i < e->pair_count; i++) {
		vnet_vring_stop(&e->pairs[i].receiveq);
		vnet_vring_stop(&e->pairs[i].transmitq);
		if (e->pairs[i].port.fd >= 0)
			close(e->pairs[i].port.fd);
	}
	vnet_vring_stop(&e->controlq);
	vnet_slots_free(&e->slots);
	if (e->event_fd >= 0)
		close(e->event_fd);
	vnet_mem_put(e->ctrl_mem);
	vnet_policy_put(e->policy);
	sem_destroy(&e->done);
	pthread_mutex_destroy(&e->control);
	free(e->pairs);
	free(e->workers);
	free(e);
}

static int command_policy(struct vnet_worker *w, struct vnet_command *command)
{
	struct vnet_policy *old = w->policy;

	w->policy = vnet_policy_get(command->answer);
	vnet_policy_put(old);
	for (uint32_t i = w->number; i < w->engine->pair_count; i += w->engine->worker_count) {
		w->engine->pairs[i].rx_waits = false; /* a frame held is judged anew */
		vnet_worker_update_port(&w->engine->pairs[i]);
	}
	return 0;
}

static int command_drain(struct vnet_worker *w, struct vnet_command *command)
{
	(void)command;
	vnet_rx_inbound(w, w->inbound.mask + 1);
	return 0;
}

/* A port that is gone takes no orders, which is no reason to refuse the driver's. */
static int command_attach(struct vnet_worker *w, struct vnet_command *command)
{
	struct vnet_pair *pair = &w->engine->pairs[command->pair];
	int error = pair->port.gone ? -ENODEV : pair->port.ops->attach(&pair->port, true);

	if (error && error != -ENODEV)
		return error;
	if (error)
		vnet_worker_port_gone(pair);
	pair->port.attached = true;
	error = vnet_worker_update_port(pair);
	if (error) {
		pair->port.attached = false;
		pair->port.ops->attach(&pair->port, false);
	}
	return error;
}

/*
 * Frames of a queue that goes belong to rings of other workers: drain no faster
 * than these place them.  Only a pace: an owner that does not keep up costs
 * counted frames, not the command.
 */
static void await_inbound(const struct vnet_worker *w)
{
	const struct vnet_engine *e = w->engine;

	for (uint32_t i = 0; i < e->worker_count; i++) {
		for (uint32_t spins = 0; i != w->number && spins < DRAIN_SPINS &&
					 vnet_queue_ready(&e->workers[i].inbound);
		     spins++)
			sched_yield();
	}
}

/* What the queue holds is placed first; what arrives between the last look and the ioctl is lost (U-62). */
static int command_detach(struct vnet_worker *w, struct vnet_command *command)
{
	struct vnet_pair *pair = &w->engine->pairs[command->pair];
	uint32_t drained = 0, n;

	do {
		n = pair->port.gone ? 0 : vnet_rx_burst(w, pair, VNET_BURST / 2);
		drained += n;
		await_inbound(w);
	} while (n && drained < DRAIN_MAX);
	pair->port.ops->attach(&pair->port, false);
	pair->port.attached = false;
	pair->tx_waits = false;
	pair->tx_ready = true;
	return vnet_worker_update_port(pair);
}

/* Grow from the tail, shrink from the tail: the kernel renumbers around a hole. */
static int attach_ports(struct vnet_engine *e, uint32_t wanted)
{
	struct vnet_command command = { .run = command_attach };
	uint32_t before = e->attached;

	while (e->attached < wanted) {
		int error;

		command.pair = e->attached;
		error = vnet_worker_run(e->pairs[command.pair].owner, &command);
		if (!error) {
			e->attached++;
			continue;
		}
		command.run = command_detach;
		while (e->attached > before) {
			command.pair = --e->attached;
			vnet_worker_run(e->pairs[command.pair].owner, &command);
		}
		return error;
	}
	return 0;
}

static void detach_ports(struct vnet_engine *e, uint32_t wanted)
{
	struct vnet_command command = { .run = command_detach };

	while (e->attached > wanted) {
		command.pair = --e->attached;
		vnet_worker_run(e->pairs[command.pair].owner, &command);
	}
}

/* Queue 0 speaks for the port and is never detached; a port that is gone has nothing to be told. */
static int tell_offloads(struct vnet_engine *e, uint32_t offloads)
{
	struct vnet_port_queue *port = &e->pairs[0].port;
	int error;

	if (offloads == e->offloads)
		return 0;
	error = port->ops->set_offloads(port, offloads);
	if (error && error != -ENODEV)
		return error;
	e->offloads = offloads;
	return 0;
}

/* Let every worker judge by @policy, then flush what was steered before. */
static void swap_policy(struct vnet_engine *e, struct vnet_policy *policy)
{
	struct vnet_command command = { .run = command_policy, .answer = policy };

	vnet_workers_run(e, &command);
	command.run = command_drain;
	vnet_workers_run(e, &command);
}

/*
 * No frame may ask for more than its policy allows: what the new policy does
 * not allow is taken back before the swap, what it adds is asked for behind it.
 * Frames the host port holds already are looked at one by one (rx.c).
 * Return: 0; -errno of the port, with the old policy and its offloads in force
 */
static int change_policy(struct vnet_engine *e, struct vnet_policy *policy)
{
	uint32_t before = e->offloads;
	int error = tell_offloads(e, before & policy->rx_offloads);

	if (error)
		return error;
	swap_policy(e, policy);
	error = tell_offloads(e, policy->rx_offloads);
	if (error) {
		swap_policy(e, e->policy);
		tell_offloads(e, before);
	}
	return error;
}

int vnet_engine_set_policy(struct vnet_engine *e, struct vnet_policy *policy)
{
	uint32_t wanted = policy->port_queues < e->port_count ? policy->port_queues : e->port_count;
	uint32_t attached;
	int error;

	if (policy->steering.mode == VNET_STEER_AUTOMATIC && policy->steering.pairs > e->pair_count)
		return -EINVAL;
	pthread_mutex_lock(&e->control);
	attached = e->attached;
	error = attach_ports(e, wanted);
	if (!error)
		error = change_policy(e, policy);
	if (!error) {
		struct vnet_policy *old = e->policy;

		e->policy = vnet_policy_get(policy);
		vnet_policy_put(old);
		attached = wanted;
	}
	detach_ports(e, attached);
	pthread_mutex_unlock(&e->control);
	return error;
}

static void remap(struct vnet_worker *w, struct vnet_pair *pair, struct vnet_vring *vr)
{
	if (!vr->running || !vr->ops->map(vr, w->mem))
		return;
	vnet_vring_break(vr, VNET_BREAK_RING_ADDRESS);
	vnet_worker_report(w->engine);
	if (!pair)
		return;
	vnet_count(&pair->stats.rings_broken, 1);
	if (vr == &pair->receiveq) {
		atomic_fetch_and(&w->engine->rx_active[pair->index / 64],
				 ~(UINT64_C(1) << (pair->index % 64)));
		pair->rx_waits = false; /* no kick of this ring will end the wait */
		vnet_worker_update_port(pair);
	}
}

static int command_memory(struct vnet_worker *w, struct vnet_command *command)
{
	struct vnet_mem *old = w->mem;

	w->mem = vnet_mem_get(command->answer);
	for (uint32_t i = w->number; i < w->engine->pair_count; i += w->engine->worker_count) {
		remap(w, &w->engine->pairs[i], &w->engine->pairs[i].receiveq);
		remap(w, &w->engine->pairs[i], &w->engine->pairs[i].transmitq);
	}
	if (!w->number)
		remap(w, NULL, &w->engine->controlq);
	vnet_mem_put(old);
	return 0;
}

int vnet_engine_set_memory(struct vnet_engine *e, struct vnet_mem *mem)
{
	struct vnet_command command = { .run = command_memory, .answer = mem };

	pthread_mutex_lock(&e->control);
	vnet_workers_run(e, &command);
	atomic_store(&e->lost_unreported, 0); /* that table is nobody's any more */
	pthread_mutex_unlock(&e->control);
	return 0;
}

int vnet_engine_stats(struct vnet_engine *e, uint32_t pair, struct vnet_pair_stats *stats)
{
	const uint64_t *from;
	uint64_t *to = (uint64_t *)stats;

	if (pair >= e->pair_count)
		return -EINVAL;
	from = (const uint64_t *)&e->pairs[pair].stats;
	for (size_t i = 0; i < sizeof(*stats) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	return 0;
}

void vnet_engine_info(const struct vnet_engine *e, struct vnet_engine_info *info)
{
	bool tap = e->pairs && e->pairs[0].port.ops == &vnet_port_tap;

	*info = (struct vnet_engine_info){ .workers = e->worker_count, .poll_us = e->poll_us };
	snprintf(info->hash_kernel, sizeof(info->hash_kernel), "%s", vnet_hash_kernel_name());
	for (uint32_t i = 0; e->workers && i < e->worker_count; i++) {
		const struct vnet_port_io *io = &e->workers[i].io;

		info->uring_workers += tap && io->base && io->uring.fd >= 0;
		if (!info->uring_step) {
			info->uring_errno = (uint32_t)io->refusal.error;
			info->uring_step = io->refusal.step;
		}
	}
}

int vnet_engine_event_fd(const struct vnet_engine *e)
{
	return e->event_fd;
}

static bool ring_event(struct vnet_vring *vr, uint32_t index, struct vnet_event *event)
{
	if (!atomic_exchange(&vr->unreported, 0))
		return false;
	*event = (struct vnet_event){ VNET_EVENT_RING_BROKEN, index, atomic_load(&vr->broken), 0 };
	return true;
}

static bool find_event(struct vnet_engine *e, struct vnet_event *event)
{
	if (atomic_exchange(&e->lost_unreported, 0)) {
		*event = (struct vnet_event){ VNET_EVENT_MEMORY_LOST, 0, 0, 0 };
		return true;
	}
	for (uint32_t i = 0; i < e->pair_count; i++) {
		struct vnet_pair *pair = &e->pairs[i];

		if (ring_event(&pair->receiveq, 2 * i, event) ||
		    ring_event(&pair->transmitq, 2 * i + 1, event))
			return true;
		if (atomic_exchange(&pair->gone_unreported, 0)) {
			*event = (struct vnet_event){ VNET_EVENT_PORT_GONE, i, ENODEV, 0 };
			return true;
		}
	}
	return ring_event(&e->controlq, e->controlq.index, event);
}

int vnet_engine_next_event(struct vnet_engine *e, struct vnet_event *event)
{
	bool found;

	pthread_mutex_lock(&e->control);
	found = find_event(e, event);
	if (!found) {
		/* Silence the fd, then look again: an event may have come between. */
		vnet_fd_drain(e->event_fd);
		found = find_event(e, event);
	}
	pthread_mutex_unlock(&e->control);
	return found;
}
