/* SPDX-License-Identifier: MIT */
/*
 * Frames on their way: slots, the pool they come from, and the one inbound
 * queue of every worker.
 *
 * Theory
 *   Every ring has one owner.  A frame is read by the owner of the host port
 *   queue it arrived on; where steering chooses a receiveq of another worker,
 *   the frame is copied into a slot from the pool, which is put into that
 *   worker's inbound queue: what it was read into is registered with the
 *   reader's io_uring, and needed again at once.
 *   Slots are made once, so many per worker; when none is free, or the inbound
 *   queue is full, the frame is dropped and counted (rx_drop_handoff).  Beside
 *   the pool each pair has slots of its own, for frames that wait for buffers.
 *
 *   Both the pool and the inbound queues are bounded queues of slot numbers
 *   after Vyukov: every cell carries a sequence number that says whose turn it
 *   is, so producers and consumers only meet in one compare-and-swap each.
 */
#ifndef PYVNET_HANDOFF_H
#define PYVNET_HANDOFF_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "port.h"
#include "pyvnet/vnet.h"

#define VNET_SLOT_NONE UINT32_MAX

/*
 * One frame in private memory, behind what is known of it.  The port's header ends where the
 * frame begins, so that one read fills both; copies go as far as the frame does.
 */
struct vnet_slot {
	uint32_t len; /* bytes of the frame, without header */
	uint32_t hash_value;
	uint16_t hash_report;
	uint16_t queue; /* the receiveq it was steered to */
	struct virtio_net_hdr_v1 shown; /* what the driver is told of it */
	uint8_t csum_completed;         /* its checksum was finished here */
	uint8_t reserved[3];
	uint32_t policy; /* serial of the one it was judged by, if it came from another worker */
	uint8_t header[VNET_PORT_HDR];
	uint8_t frame[VNET_FRAME_MAX + 1]; /* one more, so that a longer frame shows */
};

/* From the header to the end: what one read may fill. */
#define VNET_SLOT_ROOM (sizeof(struct vnet_slot) - offsetof(struct vnet_slot, header))

/*
 * From one slot to the next: whole cache lines, and no multiple of 4096, so that the first
 * lines of slots side by side lie in different sets of the cache.
 */
#define VNET_SLOT_STRIDE ((sizeof(struct vnet_slot) + 63) & ~(size_t)63)
static_assert(VNET_SLOT_STRIDE % 4096, "VNET_SLOT_STRIDE");

struct vnet_cell {
	_Atomic uint32_t sequence;
	uint32_t value;
};

struct vnet_queue {
	_Alignas(64) _Atomic uint32_t tail;
	_Alignas(64) _Atomic uint32_t head;
	_Alignas(64) uint32_t mask;
	struct vnet_cell *cells;
};

struct vnet_slots {
	uint8_t *base;
	uint32_t count;
	struct vnet_queue free;
};

/** vnet_queue_init() - @capacity is rounded up to a power of two. Return: 0 or -ENOMEM */
int vnet_queue_init(struct vnet_queue *q, uint32_t capacity);
void vnet_queue_free(struct vnet_queue *q);
/** vnet_queue_put() - any thread. Return: false when full */
bool vnet_queue_put(struct vnet_queue *q, uint32_t value);
/** vnet_queue_take() - any thread. Return: VNET_SLOT_NONE when empty */
uint32_t vnet_queue_take(struct vnet_queue *q);
/** vnet_queue_ready() - is something in it?  Exact for its consumer, a hint for anybody else */
bool vnet_queue_ready(struct vnet_queue *q);

/**
 * vnet_slots_init() - reserve slots; their pages become real when first used
 * @kept:	the first so many, which belong to pairs
 * @count:	those behind them are the pool
 */
int vnet_slots_init(struct vnet_slots *slots, uint32_t kept, uint32_t count);
void vnet_slots_free(struct vnet_slots *slots);

/** vnet_slot_start() - where a port's header begins, with the frame behind it: VNET_SLOT_ROOM bytes */
static inline uint8_t *vnet_slot_start(struct vnet_slot *slot)
{
	return (uint8_t *)slot + offsetof(struct vnet_slot, header);
}

/** vnet_slot_copy() - a frame and all that is known of it */
static inline void vnet_slot_copy(struct vnet_slot *to, const struct vnet_slot *from)
{
	memcpy(to, from, offsetof(struct vnet_slot, frame) + from->len);
}

/** vnet_slot_label() - where a frame for another worker goes, and by which policy */
static inline void vnet_slot_label(struct vnet_slot *slot, uint32_t queue, uint32_t policy)
{
	slot->queue = (uint16_t)queue;
	slot->policy = policy;
}

static inline struct vnet_slot *vnet_slot(const struct vnet_slots *slots, uint32_t number)
{
	return (struct vnet_slot *)(void *)(slots->base + VNET_SLOT_STRIDE * number);
}

#endif
