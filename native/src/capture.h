/* SPDX-License-Identifier: MIT */
/*
 * Captures: copies of frames, on their way from workers to whoever writes the file.
 *
 * Theory
 *   While there is a capture every worker has a ring of bytes, which it alone
 *   fills and one other thread empties: neither a lock nor an allocation, and
 *   nobody waits.  A frame that finds no room is counted, and the next record
 *   of its interface tells so.  Without a capture a batch costs one look at a
 *   pointer that is NULL.
 *
 *   Frames are copied when they are placed into the driver's buffers, or given
 *   to the host port; what is dropped on the way is not captured.  Frames read
 *   straight into buffers (rx_direct.c) would have to be read back from there,
 *   so all go through slots meanwhile.  A long frame that is sent from the
 *   driver's buffers is copied from there once more, behind the port's read: a
 *   driver that changes it in between sees a capture of what it changed.
 *
 *   Whoever takes frames gets them as blocks of a pcapng file, ready to be
 *   written, the earliest of all rings first.  It is woken when a ring is a
 *   quarter full, else it looks by itself after a while: so a frame costs its
 *   worker no system call.
 */
#ifndef PYVNET_CAPTURE_H
#define PYVNET_CAPTURE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "handoff.h"
#include "pyvnet/virtio_abi.h"
#include "pyvnet/vnet.h"

struct vnet_worker;
struct vnet_pair;

/* In front of a frame; records begin at multiples of 8. */
struct vnet_capture_record {
	uint32_t size;     /* with all that belongs to it; 0: the ring goes on at its front */
	uint32_t captured; /* bytes of the frame that follow */
	uint32_t len;      /* how many it had */
	uint32_t drops;    /* frames of the same interface that found no room before it */
	uint64_t time;     /* ns since 1970 */
	uint32_t policy;   /* serial of the one it was judged by */
	uint32_t hash_value;
	uint16_t hash_report;
	uint16_t pair;
	uint16_t transmit;
	uint8_t reserved[6];
	struct virtio_net_hdr_v1 header; /* what was told of it */
};

struct vnet_capture_ring {
	/* The worker's. */
	_Alignas(64) _Atomic uint64_t head; /* bytes put in, ever */
	uint64_t tail_seen;
	struct vnet_capture *capture;
	uint8_t *bytes;
	/* The taker's. */
	_Alignas(64) _Atomic uint64_t tail;
};

/* Of an interface, written by the owner of its queue. */
struct vnet_capture_counts {
	uint64_t frames, drops;
	uint32_t drops_untold;
};

struct vnet_capture {
	struct vnet_engine *engine;
	uint32_t snap_length; /* bytes of a frame that are kept */
	uint32_t ring_count, ring_size;
	uint8_t *base;
	struct vnet_capture_ring *rings;
	struct vnet_capture_counts *counts; /* interface 2 · pair + transmit */
	int wake_fd;
	_Atomic bool asleep;
};

/** vnet_capture_rx() - copy a frame that was placed in a buffer of @pair's receiveq */
void vnet_capture_rx(struct vnet_worker *w, const struct vnet_pair *pair,
		     const struct vnet_slot *slot);
/** vnet_capture_tx() - copy those of the batch's first @sent frames that the host port took */
void vnet_capture_tx(struct vnet_worker *w, const struct vnet_pair *pair, uint32_t sent);

/* capture_blocks.c */
/**
 * vnet_capture_block() - write a record as a packet block
 * @comment:	one more, "" for none
 * Return: its bytes; more than @room: nothing was written
 */
uint32_t vnet_capture_block(const struct vnet_capture_record *record, const char *comment,
			    uint8_t *to, uint32_t room);

#endif
