/* SPDX-License-Identifier: MIT */
/*
 * What a worker reads and writes frames with: slots that frames are read into
 * and pages that short frames are sent from.  Nobody else touches them, and no
 * frame stays in them longer than its batch.
 */
#ifndef PYVNET_PORT_IO_H
#define PYVNET_PORT_IO_H

#include "handoff.h"
#include "port.h"

#define VNET_TX_PAGE 2048u
/* No multiple of 4096, as VNET_SLOT_STRIDE: else all pages want the same sets of the cache. */
#define VNET_TX_STRIDE (VNET_TX_PAGE + 128u)

struct vnet_port_io {
	uint8_t *base; /* slots, then transmit pages; they become real when first used */
	struct vnet_slot *slots[VNET_BATCH];
};

/** vnet_port_io_init() - Return: 0 or -ENOMEM */
int vnet_port_io_init(struct vnet_port_io *io);
/** vnet_port_io_fini() - harmless on one that is all zeros */
void vnet_port_io_fini(struct vnet_port_io *io);

/** vnet_tx_page() - VNET_TX_PAGE bytes, @i below VNET_BATCH */
static inline uint8_t *vnet_tx_page(const struct vnet_port_io *io, uint32_t i)
{
	return io->base + VNET_BATCH * VNET_SLOT_STRIDE + i * VNET_TX_STRIDE;
}

#endif
