/* SPDX-License-Identifier: MIT */
/*
 * Host ports: where frames come from and go to, behind one table of operations.
 * Every port carries struct virtio_net_hdr_v1 (12 bytes) in front of a frame,
 * whatever header the driver negotiated; rx.c and tx.c translate.
 *
 * Results are counts or -errno.  -EAGAIN: nothing now, the fd will say when.
 * -ENODEV: this port queue is gone for good.  Anything else concerns one
 * frame: EIO from a tap means that it is down, not that it is gone.
 */
#ifndef PYVNET_PORT_H
#define PYVNET_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "pyvnet/virtio_abi.h"
#include "pyvnet/vnet.h"

#define VNET_PORT_HDR sizeof(struct virtio_net_hdr_v1)

struct vnet_port_queue;

struct vnet_port_ops {
	/* Read one whole frame with its header. Return: bytes; -EMSGSIZE: it was cut off and is lost */
	int (*recv)(struct vnet_port_queue *pq, void *buf, size_t capacity);
	/* Write one whole frame with its header. Return: 0 */
	int (*send)(struct vnet_port_queue *pq, const struct iovec *iov, int count);
	/* Let frames come to this queue, or no more. */
	int (*attach)(struct vnet_port_queue *pq, bool on);
	/* Say what frames may ask of us from now on: VNET_OFFLOAD_*, for all queues of the port. */
	int (*set_offloads)(struct vnet_port_queue *pq, uint32_t offloads);
};

struct vnet_port_queue {
	const struct vnet_port_ops *ops; /* NULL: this pair has no host port queue */
	int fd;
	bool attached;
	bool gone;
	uint64_t credit; /* null port: frames still to make */
	uint32_t serial; /* null port: flow of the next frame */
};

extern const struct vnet_port_ops vnet_port_tap;
extern const struct vnet_port_ops vnet_port_pair;
extern const struct vnet_port_ops vnet_port_null;

/** vnet_port_ops_of() - Return: the table of a type, NULL if there is none */
const struct vnet_port_ops *vnet_port_ops_of(uint32_t type);

#endif
