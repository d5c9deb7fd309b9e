/* SPDX-License-Identifier: MIT */
/*
 * Workers, and what each of them owns.
 *
 * Theory
 *   A worker is one thread around one epoll set.  It owns the queue pairs i
 *   with i % workers == its number, and nobody else touches their rings, host
 *   port queues and (but for the shared drop counters) statistics.
 *
 *   Control reaches a worker as a command: a function that the worker runs
 *   between two batches, while the control thread waits.  So memory tables and
 *   policies are swapped, and rings started and stopped, without a lock or a
 *   grace period on the frame path.
 *
 *   A worker sleeps in epoll_wait().  It is woken by a host port queue, a kick,
 *   or its wake fd (command, or frames in its inbound queue).  Before it
 *   sleeps it says so in `sleeping`, then looks once more at the inbound queue
 *   and for a command.  A producer first puts the frame, then looks at `sleeping`;
 *   a command is put first, then the wake fd is written, sleeping or not.  How
 *   it spends the time between is told in loop.h.
 *
 *   A ring without a kick fd, or whose kick fd has come to its end, is looked
 *   at in every round of its worker, and the worker does not sleep longer than
 *   a millisecond while such a ring waits for the driver.
 */
#ifndef PYVNET_WORKER_H
#define PYVNET_WORKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "handoff.h"
#include "offload.h"
#include "policy.h"
#include "port.h"
#include "port_io.h"
#include "pyvnet/vnet.h"
#include "vring.h"

#define VNET_BURST 64u /* frames of one queue before the next queue has its turn */

struct vnet_capture_ring;
struct vnet_worker;

struct vnet_pair {
	uint32_t index;
	struct vnet_worker *owner;
	struct vnet_port_queue port;
	uint32_t rx_batch;  /* frames to read at once */
	uint32_t rx_chains; /* that a frame took lately */
	uint32_t rx_length; /* of frames lately, an average */
	uint32_t held;      /* frames that wait for buffers (U-43), in the first of … */
	struct vnet_slot *hold[VNET_BATCH];
	bool rx_waits;      /* host port not polled: the driver has to kick first */
	bool tx_ready;      /* the transmitq may have chains */
	bool tx_armed;      /* the driver was asked to kick for the transmitq */
	bool tx_waits;      /* the host port was full: wait until it is writable */
	bool rx_ready;      /* the host port may have frames */
	uint32_t quiet;     /* rounds in which the transmitq was looked at in vain */
	bool dirty;         /* receiveq has staged elements: linked from the owner's dirty list */
	struct vnet_pair *next_dirty;
	uint32_t interest;  /* epoll events asked for on the host port, 0: not in the set */
	_Atomic uint32_t gone_unreported;
	struct vnet_vring receiveq;
	struct vnet_vring transmitq;
	_Alignas(64) struct vnet_pair_stats stats;
};

struct vnet_command {
	int (*run)(struct vnet_worker *w, struct vnet_command *command);
	uint32_t pair; /* which one it is about, if it is about one */
	const void *argument;
	void *answer;
	_Atomic int result; /* first error of any worker */
};

#define VNET_BOUNCE 128u /* two small pieces of a frame being sent, made one */

/* The frames being sent. */
struct vnet_tx_batch {
	struct vnet_chain chains[VNET_TX_BATCH];
	struct vnet_tx_frame frames[VNET_TX_BATCH];
	uint32_t chain_of[VNET_TX_BATCH]; /* frame → chain */
	int32_t results[VNET_TX_BATCH]; /* of each frame: 0 sent, -errno dropped */
	uint32_t count; /* frames */
	struct iovec iov[VNET_CHAIN_MAX + VNET_TX_BATCH];
	uint32_t iov_count;
	uint8_t bounce[VNET_BOUNCE];
};

/* The frames being received. */
struct vnet_rx_batch {
	int32_t lengths[VNET_BATCH];
	struct vnet_slot *slots[VNET_BATCH];
	const uint8_t *frames[VNET_BATCH];
	uint32_t lens[VNET_BATCH];
	struct vnet_flow flows[VNET_BATCH];
	struct vnet_hash hashes[VNET_BATCH];
};

/* Chains reserved for the frames being placed, and the pieces they consist of. */
struct vnet_scratch {
	struct vnet_pieces pieces;
	struct vnet_chain chains[VNET_CHAIN_MAX];
	struct vnet_tx_batch tx;
	struct vnet_rx_batch rx;
};

struct vnet_worker {
	struct vnet_engine *engine;
	struct vnet_mem *mem;
	struct vnet_policy *policy;
	struct vnet_pair *dirty;
	struct vnet_capture_ring *capture; /* NULL: nobody captures */
	uint64_t wake_due; /* workers that got frames in this round, one bit each modulo 64 */
	uint32_t number;
	bool started;
	bool stop;
	int epoll_fd, wake_fd;
	pthread_t thread;

	/* loop.c */
	uint64_t marks[VNET_PAIR_WORDS]; /* pairs that may have something to do */
	struct vnet_pair *warm;          /* the last one whose host port had frames */
	uint64_t idle_since;             /* looking on without work since then, ns; 0: not */
	uint32_t marked;                 /* how many pairs are */
	uint32_t ports;                  /* how many pairs have a host port queue */
	uint32_t rounds, frames;         /* since epoll was asked */
	uint32_t backoff, skip; /* sleeps without looking on before them: next time, now */

	/* Written by others: not where the owner's own words are. */
	_Alignas(64) _Atomic(struct vnet_command *) command;
	_Alignas(64) _Atomic bool sleeping;
	struct vnet_queue inbound;
	struct vnet_port_io io;
	struct vnet_scratch scratch;
};

struct vnet_engine {
	uint32_t pair_count, worker_count;
	uint32_t attached; /* host port queues 0 … attached-1 */
	uint32_t port_count;
	uint32_t offloads; /* VNET_OFFLOAD_*: what the host port was told */
	uint32_t io; /* enum vnet_io: what was asked for */
	uint32_t poll_us;
	bool pin_guest_memory;
	bool captured; /* there is a capture */
	struct vnet_pair *pairs;
	struct vnet_worker *workers;
	struct vnet_slots slots;
	_Alignas(64) _Atomic uint64_t rx_active[VNET_PAIR_WORDS]; /* receiveqs that run */
	_Alignas(64) pthread_mutex_t control; /* one control verb at a time */
	sem_t done;
	int event_fd;
	struct vnet_policy *policy;
	_Atomic uint64_t lost_serial; /* of the last memory table that was reported as lost */
	_Atomic uint32_t lost_unreported;

	/* The control virtqueue, owned by worker 0 (ctrlq.c). */
	struct vnet_vring controlq;
	struct vnet_pieces ctrl_pieces;
	struct vnet_chain ctrl_chain;
	struct vnet_mem *ctrl_mem; /* keeps the pieces of the chain in hand mapped */
};

static inline bool vnet_rx_active(struct vnet_engine *e, uint32_t pair)
{
	return atomic_load_explicit(&e->rx_active[pair / 64], memory_order_relaxed) >> (pair % 64) &
	       1;
}

static inline void vnet_worker_mark(struct vnet_pair *pair)
{
	pair->owner->marks[pair->index / 64] |= UINT64_C(1) << (pair->index % 64);
}

/** vnet_worker_init() - make the fds and the inbound queue, and start the thread, on @cpu unless -1 */
int vnet_worker_init(struct vnet_worker *w, struct vnet_engine *engine, uint32_t number,
		     uint32_t inbound, int cpu);
/** vnet_worker_stop() - end the thread and join it; harmless on one never started */
void vnet_worker_stop(struct vnet_worker *w);
/** vnet_worker_fini() - release, once no worker of the engine runs: they put frames into each other's queue */
void vnet_worker_fini(struct vnet_worker *w);

/** vnet_worker_run() - run a command on one worker and wait. Return: its result */
int vnet_worker_run(struct vnet_worker *w, struct vnet_command *command);
/** vnet_workers_run() - run a command on all workers side by side and wait. Return: first error */
int vnet_workers_run(struct vnet_engine *engine, struct vnet_command *command);

/** vnet_worker_obey() - run the command that waits. Return: there was one, so anything may have changed */
bool vnet_worker_obey(struct vnet_worker *w);
/** vnet_worker_check_memory() - report a memory table that was lost; each table once */
void vnet_worker_check_memory(struct vnet_worker *w);
/**
 * vnet_worker_round() - one look at the pairs that may have something to do; never sleeps
 * Asks epoll from time to time.  Takes no command.
 * Return: frames and chains taken
 */
uint32_t vnet_worker_round(struct vnet_worker *w);

/** vnet_worker_wake() - let a worker look at its inbound queue if it sleeps */
void vnet_worker_wake(struct vnet_worker *w);

/** vnet_worker_update_port() - ask epoll for what the pair's host port queue is waited for */
int vnet_worker_update_port(struct vnet_pair *pair);
/**
 * vnet_worker_watch_kick() - watch a kick fd of a ring, or no more
 * Return: 0; -EPERM: it cannot be waited for; -errno
 */
int vnet_worker_watch_kick(struct vnet_pair *pair, const struct vnet_vring *vr, int kick_fd,
			   bool on);
/** vnet_worker_report() - an event for vnet_engine_next_event() is due */
void vnet_worker_report(struct vnet_engine *engine);
/** vnet_worker_ring_broke() - as vnet_worker_report(), of a ring; memory it lost goes first */
void vnet_worker_ring_broke(struct vnet_worker *w);
/** vnet_worker_port_gone() - the host port queue ended; its frames are over */
void vnet_worker_port_gone(struct vnet_pair *pair);

/* ctrlq.c */
/** vnet_ctrl_forget() - a command in hand will be taken again, after the next start; harmless without one */
void vnet_ctrl_forget(struct vnet_engine *engine);

/* rx.c */
/** vnet_rx_burst() - THE receive line. Return: frames taken from the host port */
uint32_t vnet_rx_burst(struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget);
/** vnet_rx_inbound() - place the frames other workers steered here */
void vnet_rx_inbound(struct vnet_worker *w, uint32_t budget);

/* tx.c */
/**
 * vnet_tx_burst() - THE transmit line
 * Asks the driver for silence, and never for kicks: whoever stops looking calls vnet_tx_arm().
 * Return: chains taken and given back; fewer than @budget: no more for now
 */
uint32_t vnet_tx_burst(struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget);
/** vnet_tx_arm() - ask for kicks before not looking. Return: chains are there already, look again */
bool vnet_tx_arm(struct vnet_pair *pair);

#endif
