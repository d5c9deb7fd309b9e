/* SPDX-License-Identifier: MIT */
/*
 * What a worker does all day.
 *
 * Theory
 *   A round looks at every pair that may have something to do, and at nothing
 *   else: pairs are marked when epoll says something of them, when a command
 *   was run, and stay marked while there is work, or while their transmitq is
 *   looked at without a kick.  A mark costs a look at memory; the host port is
 *   asked only if epoll announced frames, if the last burst was a full one, or
 *   if it is the port that had frames last (one system call a round).
 *
 *   Without work a worker looks on for poll_us, and only then asks for kicks
 *   and sleeps.  Drivers whose rings are looked at are asked for silence.
 *   A worker that looked on in vain sleeps at once the next times, ever
 *   longer, until looking on pays again: so frames that come one by one from
 *   afar cost no idle processor, nor does a driver that wants this very
 *   processor to go on.
 *
 *   Nothing is lost between looking and sleeping: kicks are asked for, then the
 *   ring is looked at again (vring arm); `sleeping` is set, then the inbound
 *   queue is looked at again, and so is the command, which is put before the wake
 *   fd is written: its edge may have been taken by a round that had looked already.
 *   Host port queues are watched by level.  Eventfds are watched by edge: every
 *   write is an event, and nothing is gained by reading them.
 *
 *   While there is work epoll is asked as well, without waiting, after as
 *   many frames as one burst has or a few rounds: so new work waits no longer
 *   for its turn than a burst of each busy pair.
 */
#ifndef PYVNET_LOOP_H
#define PYVNET_LOOP_H

#include "worker.h"

/* Whose event it is. */
enum vnet_source {
	VNET_SOURCE_WAKE,
	VNET_SOURCE_PORT,
	VNET_SOURCE_RX_KICK,
	VNET_SOURCE_TX_KICK,
	VNET_SOURCE_EDGE = 8, /* a kick fd watched by edge: tells each kick once, unread */
};

static inline uint64_t vnet_event_token(enum vnet_source source, uint32_t pair)
{
	return (uint64_t)source << 32 | pair;
}

/** vnet_pause_cpu() - between two looks at what another processor writes */
static inline void vnet_pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/** vnet_worker_main() - the thread */
void *vnet_worker_main(void *worker);

#endif
