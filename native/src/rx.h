/* SPDX-License-Identifier: MIT */
/* Between the two files of the receive line: rx.c decides, rx_place.c fills buffers. */
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

/** vnet_rx_flush() - publish what was placed, notify, and wake workers that were given frames */
void vnet_rx_flush(struct vnet_worker *w);

#endif
