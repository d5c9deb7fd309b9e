/* SPDX-License-Identifier: MIT */
/* Workers and their epoll sets: making them, waking them, commanding them; theory in worker.h, loop.c is what they do. */
#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "test_hooks.h"

/* No false sharing: what others write is on lines of its own, and so are counters. */
static_assert(offsetof(struct vnet_worker, command) % 64 == 0 &&
		      offsetof(struct vnet_worker, sleeping) % 64 == 0 &&
		      offsetof(struct vnet_worker, inbound) % 64 == 0 &&
		      offsetof(struct vnet_pair, stats) % 64 == 0,
	      "cache lines");

#define WAIT_LOOKS 1000u /* some 20 us */
#define CPUS_MAX 8192u /* as many as Linux can be built for */

static int watch(int epoll_fd, int operation, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };

	if (operation != EPOLL_CTL_DEL && VNET_FAILS(VNET_FAIL_EPOLL))
		return -ENOSPC;
	return epoll_ctl(epoll_fd, operation, fd, &event) ? -errno : 0;
}

int vnet_worker_update_port(struct vnet_pair *pair)
{
	uint32_t want = 0;
	int operation, error;

	if (!pair->port.ops)
		return 0;
	if (pair->port.attached && !pair->port.gone) {
		/* Errors of the fd are always reported; with nothing else to wait for it stays in the set for them. */
		want = EPOLLRDHUP | (pair->rx_waits ? 0u : (uint32_t)EPOLLIN) |
		       (pair->tx_waits ? (uint32_t)EPOLLOUT : 0u);
	}
	if (want == pair->interest)
		return 0;
	operation = !want ? EPOLL_CTL_DEL : pair->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	error = watch(pair->owner->epoll_fd, operation, pair->port.fd, want,
		      vnet_event_token(VNET_SOURCE_PORT, pair->index));
	if (!error)
		pair->interest = want;
	return error;
}

int vnet_worker_watch_kick(struct vnet_pair *pair, const struct vnet_vring *vr, int kick_fd,
			   bool on)
{
	enum vnet_source source = vr == &pair->receiveq ? VNET_SOURCE_RX_KICK : VNET_SOURCE_TX_KICK;
	bool edge = vnet_fd_is_eventfd(kick_fd);
	int error;

	if (on && edge)
		vnet_fd_drain(kick_fd); /* old kicks: whoever begins to watch looks at the ring */
	error = watch(pair->owner->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, kick_fd,
		      EPOLLIN | (edge ? (uint32_t)EPOLLET : 0u),
		      vnet_event_token(source, pair->index) |
			      vnet_event_token(edge ? VNET_SOURCE_EDGE : VNET_SOURCE_WAKE, 0));

	/* A set of such sets that is too deep, or goes in a circle. */
	return error == -ELOOP || error == -EINVAL ? -EPERM : error;
}

void vnet_worker_report(struct vnet_engine *engine)
{
	const uint64_t one = 1;

	if (write(engine->event_fd, &one, sizeof(one)) < 0)
		return; /* already readable */
}

/* Each table is reported once, by whoever is first to see that it is lost. */
void vnet_worker_check_memory(struct vnet_worker *w)
{
	struct vnet_engine *e = w->engine;
	uint64_t reported = atomic_load_explicit(&e->lost_serial, memory_order_relaxed);

	if (!vnet_mem_lost(w->mem))
		return;
	while (reported < w->mem->serial) {
		if (!atomic_compare_exchange_weak(&e->lost_serial, &reported, w->mem->serial))
			continue;
		atomic_store(&e->lost_unreported, 1);
		vnet_worker_report(e);
		return;
	}
}

void vnet_worker_ring_broke(struct vnet_worker *w)
{
	vnet_worker_check_memory(w);
	vnet_worker_report(w->engine);
}

void vnet_worker_port_gone(struct vnet_pair *pair)
{
	if (pair->port.gone)
		return;
	pair->port.gone = true;
	pair->tx_waits = false;
	pair->tx_ready = true; /* what waited for the port is dropped and counted */
	vnet_worker_update_port(pair);
	vnet_worker_mark(pair);
	atomic_store(&pair->gone_unreported, 1);
	vnet_worker_report(pair->owner->engine);
}

void vnet_worker_wake(struct vnet_worker *w)
{
	const uint64_t one = 1;

	/* The frame was put before this look; its consumer says that it sleeps before it looks. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&w->sleeping, memory_order_relaxed) &&
	    atomic_exchange(&w->sleeping, false) && write(w->wake_fd, &one, sizeof(one)) < 0)
		return;
}

bool vnet_worker_obey(struct vnet_worker *w)
{
	struct vnet_command *command = atomic_exchange(&w->command, NULL);
	int result, none = 0;

	if (!command)
		return false;
	result = command->run(w, command);
	if (result)
		atomic_compare_exchange_strong(&command->result, &none, result);
	for (uint32_t i = w->number; i < w->engine->pair_count; i += w->engine->worker_count)
		vnet_worker_mark(&w->engine->pairs[i]);
	sem_post(&w->engine->done);
	return true;
}

/* A thread begins where it is to stay.  pthread_create() says EINVAL of a CPU that is not for us. */
static int create_thread(struct vnet_worker *w, int cpu)
{
	cpu_set_t cpus[CPUS_MAX / CPU_SETSIZE];
	pthread_attr_t attributes;
	int error;

	if (cpu >= (int)CPUS_MAX)
		return ENXIO;
	pthread_attr_init(&attributes);
	if (cpu >= 0) {
		CPU_ZERO_S(sizeof(cpus), cpus);
		CPU_SET_S((size_t)cpu, sizeof(cpus), cpus);
		pthread_attr_setaffinity_np(&attributes, sizeof(cpus), cpus);
	}
	error = pthread_create(&w->thread, &attributes, vnet_worker_main, w);
	pthread_attr_destroy(&attributes);
	return error == EINVAL ? ENXIO : error;
}

/* Signals belong to the process' own threads, but for those that a thread brings upon itself. */
static int start_thread(struct vnet_worker *w, int cpu)
{
	static const int own[] = { SIGBUS, SIGSEGV, SIGILL, SIGFPE };
	sigset_t all, before;
	int error;

	if (VNET_FAILS(VNET_FAIL_THREAD))
		return -EAGAIN;
	sigfillset(&all);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(&all, own[i]);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = create_thread(w, cpu);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	w->started = !error;
	return -error;
}

/* Every worker may have to send on any queue (U-12). */
static int init_io(struct vnet_worker *w)
{
	const struct vnet_engine *e = w->engine;
	enum vnet_io wanted = (enum vnet_io)e->io;
	int fds[VNET_MAX_PAIRS];

	for (uint32_t i = 0; i < e->port_count; i++)
		fds[i] = e->pairs[i].port.fd;
	/* Other ports gain nothing by it. */
	if (wanted == VNET_IO_AUTO && e->pairs[0].port.ops != &vnet_port_tap)
		wanted = VNET_IO_PLAIN;
	return vnet_port_io_init(&w->io, fds, e->port_count, wanted);
}

int vnet_worker_init(struct vnet_worker *w, struct vnet_engine *engine, uint32_t number,
		     uint32_t inbound, int cpu)
{
	int error;

	w->engine = engine;
	w->number = number;
	w->policy = vnet_policy_get(engine->policy);
	for (uint32_t i = number; i < engine->pair_count; i += engine->worker_count)
		w->ports += engine->pairs[i].port.ops != NULL;
	w->epoll_fd = VNET_FAILS(VNET_FAIL_FD) ? -1 : epoll_create1(EPOLL_CLOEXEC);
	w->wake_fd = w->epoll_fd < 0 || VNET_FAILS(VNET_FAIL_FD) ?
			     -1 :
			     eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->epoll_fd < 0 || w->wake_fd < 0)
		return errno ? -errno : -EMFILE;
	error = vnet_queue_init(&w->inbound, inbound);
	if (!error)
		error = init_io(w);
	if (!error)
		error = watch(w->epoll_fd, EPOLL_CTL_ADD, w->wake_fd, EPOLLIN | (uint32_t)EPOLLET,
			      vnet_event_token(VNET_SOURCE_WAKE, 0));
	return error ? error : start_thread(w, cpu);
}

static int command_stop(struct vnet_worker *w, struct vnet_command *command)
{
	(void)command;
	w->stop = true;
	return 0;
}

void vnet_worker_stop(struct vnet_worker *w)
{
	struct vnet_command command = { .run = command_stop };

	if (!w->started)
		return;
	vnet_worker_run(w, &command);
	pthread_join(w->thread, NULL);
	w->started = false;
}

void vnet_worker_fini(struct vnet_worker *w)
{
	if (w->epoll_fd > 0)
		close(w->epoll_fd);
	if (w->wake_fd > 0)
		close(w->wake_fd);
	vnet_queue_free(&w->inbound);
	vnet_port_io_fini(&w->io);
	vnet_mem_put(w->mem);
	vnet_policy_put(w->policy);
}

static void post(struct vnet_worker *w, struct vnet_command *command)
{
	const uint64_t one = 1;

	atomic_store(&w->command, command);
	if (write(w->wake_fd, &one, sizeof(one)) < 0)
		return; /* the eventfd is readable already */
}

/* A worker that is awake answers sooner than this thread would fall asleep and wake. */
static void wait_done(struct vnet_engine *engine)
{
	for (unsigned int looks = 0; looks < WAIT_LOOKS; looks++) {
		if (!sem_trywait(&engine->done))
			return;
		vnet_pause_cpu();
	}
	while (sem_wait(&engine->done) && errno == EINTR)
		;
}

int vnet_worker_run(struct vnet_worker *w, struct vnet_command *command)
{
	atomic_store(&command->result, 0);
	post(w, command);
	wait_done(w->engine);
	return atomic_load(&command->result);
}

int vnet_workers_run(struct vnet_engine *engine, struct vnet_command *command)
{
	atomic_store(&command->result, 0);
	for (uint32_t i = 0; i < engine->worker_count; i++)
		post(&engine->workers[i], command);
	for (uint32_t i = 0; i < engine->worker_count; i++)
		wait_done(engine);
	return atomic_load(&command->result);
}
