/* SPDX-License-Identifier: MIT */
/*
 * A virtqueue as its one owner sees it: the complete surface behind which the
 * ring formats are siblings.  The format is chosen once, when a ring starts.
 *
 *   pop       copy the next available chain out of guest memory
 *   pop_burst the same for many at once, their cache lines asked for before they are read
 *   ready     how many are there
 *   rewind    give back the chains popped last, as if never popped
 *   push      stage a used element; the driver does not see it yet.  Chains are pushed in
 *             the order they were popped
 *   publish   make everything staged visible at once
 *   arm       ask for notifications, then look again
 *   disarm    ask for silence
 *
 * Malformed is one chain (returned with len 0 and counted); broken is the ring
 * itself: it stops, its err fd is signalled once, and nothing of it is touched
 * again until it is started anew.
 *
 * Chains in front of one that breaks the ring are good: a burst ends before it,
 * and the ring breaks at the next pop.
 *
 * Theory of the pace
 *   What the driver wrote lies in its core's cache, and a line takes some 100 ns
 *   to cross over.  So nothing is waited for one by one: avail entries are read
 *   in a run, then the descriptors of all of them are on their way, then the
 *   buffers, then the used entries to be written; what is looked at has been
 *   asked for a batch earlier.
 */
#ifndef PYVNET_VRING_H
#define PYVNET_VRING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "guest_mem.h"
#include "notify.h"
#include "pyvnet/vnet.h"

/* Pieces of host memory one chain, or the chains of one merged frame, may have (IOV_MAX). */
#define VNET_CHAIN_MAX 1024u

/* Chains of one burst. */
#define VNET_POP_MAX 64u

struct vnet_chain {
	uint16_t head;
	uint16_t
		first; /* where its pieces begin in the owner's list; of a malformed one there are none */
	uint16_t readable; /* pieces the device may read, first in the list … */
	uint16_t writable; /* … and pieces it may write, behind them */
	uint32_t read_bytes;
	uint32_t write_bytes;
};

/* Pieces of the chains in hand, reserved by the owner. */
struct vnet_pieces {
	struct iovec iov[VNET_CHAIN_MAX];
	uint32_t count;
};

struct vnet_vring;

struct vnet_vring_ops {
	/* Resolve the ring's addresses in @mem. -EINVAL: outside it, or misaligned. */
	int (*map)(struct vnet_vring *vr, const struct vnet_mem *mem);
	/* Stand where the ring says it was left, for those who did not keep it. */
	void (*take_position)(struct vnet_vring *vr);
	/* 1: @chain filled, pieces appended; 0: none available; -EBADMSG: malformed, only
	 * chain->head is valid, push it with len 0; -ENOSPC: not popped, no room behind the
	 * pieces in hand; -EPIPE: broken */
	int (*pop)(struct vnet_vring *vr, const struct vnet_mem *mem, struct vnet_pieces *pieces,
		   struct vnet_chain *chain);
	/* The next @count chains at most, VNET_POP_MAX in any case.
	 * Return: how many, malformed ones among them (vnet_chain_malformed()); 0: none available;
	 * -ENOSPC: no room for the first behind the pieces in hand; -EPIPE: broken */
	int (*pop_burst)(struct vnet_vring *vr, const struct vnet_mem *mem,
			 struct vnet_pieces *pieces, struct vnet_chain *chains, uint32_t count);
	/* How many chains there are to pop, looked up if fewer than @wanted are known of. */
	uint32_t (*ready)(struct vnet_vring *vr, uint32_t wanted);
	void (*rewind)(struct vnet_vring *vr, const struct vnet_chain *chains, uint32_t count);
	void (*push)(struct vnet_vring *vr, uint16_t head, uint32_t len);
	/* @lens: one each, NULL: all 0 */
	void (*push_burst)(struct vnet_vring *vr, const struct vnet_chain *chains,
			   const uint32_t *lens, uint32_t count);
	/* Return: does the driver want a notification? */
	bool (*publish)(struct vnet_vring *vr);
	/* Ask for a notification of chains beyond those seen. Return: are there such already? */
	bool (*arm)(struct vnet_vring *vr);
	void (*disarm)(struct vnet_vring *vr);
};

extern const struct vnet_vring_ops vnet_vring_split;

struct vnet_vring {
	const struct vnet_vring_ops *ops; /* NULL: never started */
	bool running;
	bool event_idx;
	bool indirect;
	bool disabled; /* by the front-end: runs, but carries nothing (U-42) */
	uint16_t size_mask;
	uint32_t size;
	uint32_t index;
	uint64_t desc_gpa, avail_gpa, used_gpa;

	const struct virtq_desc *desc_table;
	const uint16_t *avail; /* flags, idx, ring[size], used_event */
	uint16_t *used; /* flags, idx */
	struct virtq_used_elem *used_ring;
	uint16_t *avail_event;

	uint16_t next_avail;
	uint16_t avail_idx; /* last value read; entries up to it are ours to pop */
	uint16_t next_used; /* next used entry to stage */
	uint16_t used_idx; /* last value published */
	uint32_t last_run; /* of the memory table: where the last buffer lay, a hint */
	uint32_t doomed; /* enum vnet_break: what the next pop finds behind the chains in hand */

	/*
	 * Chains go back in the order they came.  So it takes no more than numbers, from 1 on, to
	 * know whose a head is: the device's, if the chain it was popped as was not published yet.
	 * The same head twice is a broken ring.
	 */
	uint64_t *popped_as; /* by head; 0: never, or rewound */
	uint64_t popped, published;

	int kick_fd; /* -1: none, or at its end: the owner looks by itself */
	struct vnet_notifier call, err;
	_Atomic uint32_t broken; /* enum vnet_break */
	_Atomic uint32_t unreported; /* an event is due */
};

/**
 * vnet_vring_start() - check a ring and make it ready for its owner
 * Takes the fds of @config by duplication.
 * Return: 0, -EINVAL, -ENOMEM, errno of dup
 */
int vnet_vring_start(struct vnet_vring *vr, const struct vnet_queue_config *config,
		     const struct vnet_mem *mem);

/** vnet_vring_move() - other addresses for a running ring. Return: 0; -EINVAL, and the old ones stay */
int vnet_vring_move(struct vnet_vring *vr, const struct vnet_mem *mem, uint64_t desc_table,
		    uint64_t avail_ring, uint64_t used_ring);

/** vnet_vring_set_calls() - other call and err fds, taken by duplication. Return: 0 or -errno */
int vnet_vring_set_calls(struct vnet_vring *vr, int call_fd, int err_fd);

/** vnet_vring_stop() - publish nothing more, close the fds, free; harmless when stopped */
void vnet_vring_stop(struct vnet_vring *vr);

/** vnet_vring_break() - stop a ring that cannot be trusted; signals err_fd once */
void vnet_vring_break(struct vnet_vring *vr, enum vnet_break reason);

/** vnet_vring_notify() - tell the driver; never blocks */
void vnet_vring_notify(const struct vnet_vring *vr);

static inline bool vnet_vring_in_use(const struct vnet_vring *vr, uint16_t head)
{
	return vr->popped_as[head] > vr->published;
}

/* How many used elements are staged. */
static inline uint16_t vnet_vring_staged(const struct vnet_vring *vr)
{
	return (uint16_t)(vr->next_used - vr->used_idx);
}

static inline bool vnet_chain_malformed(const struct vnet_chain *chain)
{
	return !(chain->readable | chain->writable);
}

#endif
