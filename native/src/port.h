/* SPDX-License-Identifier: MIT */
/*
 * Host ports: where frames come from and go to, behind one table of operations.
 * Every port carries struct virtio_net_hdr_v1 (12 bytes) in front of a frame,
 * whatever header the driver negotiated; rx.c and tx.c translate.
 *
 * Errors are -errno.  -EAGAIN: nothing now, the fd will say when.
 * -ENODEV: this port queue is gone for good.  Anything else concerns one
 * frame: EIO from a tap means that it is down, not that it is gone.
 */
#ifndef PYVNET_PORT_H
#define PYVNET_PORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "pyvnet/virtio_abi.h"
#include "pyvnet/vnet.h"

#define VNET_PORT_HDR sizeof(struct virtio_net_hdr_v1)

/*
 * Frames that cross the border to the kernel at once.  A call costs about a
 * frame's worth: rows 2 and 3 of bench/ have 3 % more frames a second with 64
 * than with 32, row 1 no more than 1 %.  Slots to read into are pinned, 64 KiB
 * each, so no more of those than pay.
 */
#define VNET_BATCH 32u
#define VNET_TX_BATCH 64u

struct vnet_port_io; /* what a worker reads and writes frames with (port_io.h) */
struct vnet_port_queue;
struct vnet_slot;

/* One frame with its header to be sent; its pieces stay until send() is back. */
struct vnet_tx_frame {
	const struct iovec *iov;
	uint32_t count;
	bool registered; /* one piece only, in a transmit page of the io it is sent with */
};

struct vnet_port_ops {
	/*
	 * Read whole frames with their headers, each to its slot's header and frame.
	 * @slots:	@n of them; those of @io, in order, unless it is one alone
	 * @lengths:	bytes of each; -EMSGSIZE: it was cut off and is lost; else -errno: none is here
	 * Return: how many lengths say something; -errno when there is no frame at all
	 */
	int (*recv)(struct vnet_port_queue *pq, struct vnet_port_io *io,
		    struct vnet_slot *const *slots, int32_t *lengths, uint32_t n);
	/*
	 * Read one whole frame with its header, part after part.  NULL: this port does not.
	 * Return: its bytes; -EMSGSIZE and -EFAULT: it is lost, being cut off or a part being out of
	 * reach; -errno when there is none
	 */
	int (*recv_parts)(const struct vnet_port_queue *pq, const struct iovec *parts,
			  uint32_t count);
	/*
	 * Write whole frames with their headers, in their order.
	 * @results:	0 or -errno of each that was tried; only the last may be -EAGAIN: the port is full
	 * Return: how many were tried, nothing behind them was sent
	 */
	uint32_t (*send)(struct vnet_port_queue *pq, struct vnet_port_io *io,
			 const struct vnet_tx_frame *frames, int32_t *results, uint32_t n);
	/* Let frames come to this queue, or no more. */
	int (*attach)(struct vnet_port_queue *pq, bool on);
	/* Say what frames may ask of us from now on: VNET_OFFLOAD_*, for all queues of the port. */
	int (*set_offloads)(struct vnet_port_queue *pq, uint32_t offloads);
};

struct vnet_port_queue {
	const struct vnet_port_ops *ops; /* NULL: this pair has no host port queue */
	int fd;
	uint32_t index; /* of its pair; its place among the files of an io_uring */
	bool attached;
	bool gone;
	_Atomic bool no_nowait; /* a batch was refused: the kernel is too old for it */
	_Atomic bool room_known; /* tap: its send buffer was looked at */
	_Atomic bool sends_each; /* tap: it may be full, so frames are sent one by one */
	uint64_t credit; /* null port: frames still to make */
	uint32_t serial; /* null port: flow of the next frame */
};

extern const struct vnet_port_ops vnet_port_tap;
extern const struct vnet_port_ops vnet_port_pair;
extern const struct vnet_port_ops vnet_port_null;

/** vnet_port_ops_of() - Return: the table of a type, NULL if there is none */
const struct vnet_port_ops *vnet_port_ops_of(uint32_t type);

#endif
