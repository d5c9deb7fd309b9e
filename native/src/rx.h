/* SPDX-License-Identifier: MIT */
/*
 * Among the files of the receive line: rx.c decides, rx_place.c fills buffers, rx_direct.c has
 * long frames read into them.
 */
#ifndef PYVNET_RX_H
#define PYVNET_RX_H

#include "worker.h"

/**
 * vnet_rx_place() - put frames into the buffers of one receiveq, in their order
 * @pair:	owned by @w
 * @n:		VNET_BATCH at most
 * Every frame done with is counted; nothing is published yet (vnet_rx_flush()).
 * Return: how many are done with, placed or lost; the one behind them found no buffers
 */
uint32_t vnet_rx_place(struct vnet_worker *w, struct vnet_pair *pair,
		       struct vnet_slot *const *slots, uint32_t n);

/** vnet_rx_placed() - remember to publish what was pushed to a receiveq, or that it broke meanwhile */
void vnet_rx_placed(struct vnet_worker *w, struct vnet_pair *pair);

/**
 * vnet_rx_write_header() - the header of a frame as the driver negotiated it
 * @buffers:	chains it lies in
 * @iov:	where their pieces begin
 * Return: its length
 */
uint32_t vnet_rx_write_header(const struct vnet_worker *w, const struct vnet_slot *slot,
			      uint32_t buffers, const struct iovec *iov);

/** vnet_rx_flush() - publish what was placed, notify, and wake workers that were given frames */
void vnet_rx_flush(struct vnet_worker *w);

/**
 * vnet_rx_take_read() - begin a batch with the frames just read into the worker's slots
 * @count:	of w->scratch.rx.lengths
 * @whole:	how many of them are in the batch; the others were counted
 * Return: how many there were
 */
uint32_t vnet_rx_take_read(struct vnet_worker *w, struct vnet_pair *pair, uint32_t count,
			   uint32_t *whole);

/**
 * vnet_rx_judge() - parse → filter → MTU → offloads → hash → steer
 * Looks no further into a frame than VNET_RX_HEAD, but to complete its checksum.
 * Return: how many of the batch the driver may see; the others were counted
 */
uint32_t vnet_rx_judge(struct vnet_worker *w, struct vnet_pair *pair, uint32_t n);

/** vnet_rx_process() - a batch all the way */
void vnet_rx_process(struct vnet_worker *w, struct vnet_pair *pair, uint32_t n);

/* A frame's headers, as parse.h and offload.h know them: the window, and what is looked at behind it. */
#define VNET_RX_HEAD (VNET_PARSE_WINDOW + 128u)

enum vnet_direct {
	VNET_DIRECT_NOT, /* nothing was read: go the way of all frames */
	VNET_DIRECT_NONE, /* there is no frame */
	VNET_DIRECT_FRAME, /* one was read and is done with */
};

/** vnet_rx_direct() - read a frame, most of it into the buffers of its receiveq; if vnet_rx_direct_due() */
enum vnet_direct vnet_rx_direct(struct vnet_worker *w, struct vnet_pair *pair);

/* Shorter frames are read faster in batches, into memory that is registered. */
#define VNET_DIRECT_WORTH 4096u

/** vnet_rx_direct_due() - may the next frame be long, and is its way known before it is read? (U-63) */
static inline bool vnet_rx_direct_due(const struct vnet_worker *w, const struct vnet_pair *pair)
{
	const struct vnet_policy *policy = w->policy;

	return pair->rx_length >= VNET_DIRECT_WORTH && !pair->held && pair->port.ops->recv_parts &&
	       pair->port.attached && policy->steering.mode == VNET_STEER_AUTOMATIC &&
	       pair->index < policy->steering.pairs && !policy->mtu &&
	       (policy->filter.modes & VNET_FILTER_PROMISC) &&
	       (policy->rx_offloads & VNET_OFFLOAD_CSUM) && !w->capture &&
	       vnet_rx_active(w->engine, pair->index);
}

#endif
