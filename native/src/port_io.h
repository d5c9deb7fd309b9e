/* SPDX-License-Identifier: MIT */
/*
 * What a worker reads and writes frames with: slots that frames are read into,
 * pages that short frames are sent from, and an io_uring they are registered
 * with, which knows the queues of the host port by their index.  Nobody else
 * touches them, and no frame stays in them longer than its batch.
 *
 * Without an io_uring ports read and write one frame after the other.
 */
#ifndef PYVNET_PORT_IO_H
#define PYVNET_PORT_IO_H

#include "handoff.h"
#include "port.h"
#include "uring.h"

#define VNET_TX_PAGE 2048u
/* No multiple of 4096, as VNET_SLOT_STRIDE: else all pages want the same sets of the cache. */
#define VNET_TX_STRIDE (VNET_TX_PAGE + 128u)

struct vnet_port_io {
	uint8_t *base; /* slots, then transmit pages; they become real when first used */
	struct vnet_slot *slots[VNET_BATCH];
	struct vnet_uring uring;
	struct vnet_uring_refusal refusal; /* of the io_uring, if one was wanted */
};

/**
 * vnet_port_io_init()
 * @fds:	queues of the host port
 * @wanted:	VNET_IO_AUTO: with an io_uring if it is to be had
 * Return: 0; -ENOMEM; -errno of a refused io_uring that had to be
 */
int vnet_port_io_init(struct vnet_port_io *io, const int *fds, uint32_t fd_count,
		      enum vnet_io wanted);
/** vnet_port_io_fini() - harmless on one that is all zeros */
void vnet_port_io_fini(struct vnet_port_io *io);

/*
 * Fewer frames at once are cheaper without: the io_uring's own call costs as much as some of theirs.
 * One core of an EPYC (Zen 3, a guest with Linux 6.18), ns for each of n frames of 64 bytes:
 *	n	1	2	3	4	5	6	8	16	32	64
 *	io_uring writes	1239	877	800	715	693	661	633	587	561	532	write() 679, writev() 813
 *	io_uring reads	1506	1089	972	894	843	815	774	774	757	751	read() 816-897
 * A read that finds nothing: 313 by itself, 400 in an io_uring.
 */
#define VNET_URING_WORTH 6u

/** vnet_port_io_batches() - is a batch of @n frames worth giving to the io_uring there is? */
static inline bool vnet_port_io_batches(const struct vnet_port_io *io, uint32_t n)
{
	return n >= VNET_URING_WORTH && io->uring.fd >= 0;
}

/** vnet_tx_page() - VNET_TX_PAGE bytes, @i below VNET_TX_BATCH */
static inline uint8_t *vnet_tx_page(const struct vnet_port_io *io, uint32_t i)
{
	return io->base + VNET_BATCH * VNET_SLOT_STRIDE + i * VNET_TX_STRIDE;
}

#endif
