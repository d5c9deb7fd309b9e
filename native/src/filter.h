/* SPDX-License-Identifier: MIT */
/*
 * The filter stage of the receive line: RX modes, MAC and VLAN tables decide
 * before steering (U-44), over the frame in private memory (U-63).
 *
 * Order ("Packet Receive Filtering", U-34, U-35):
 *   1. promiscuous: everything passes;
 *   2. VLAN: a frame whose outermost tag names a VLAN that is not in the table
 *      is dropped, whatever its destination;
 *   3. destination: broadcast, multicast, unicast; a NO* mode beats its ALL*,
 *      and each speaks for its own class only.
 */
#ifndef PYVNET_FILTER_H
#define PYVNET_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#include "parse.h"
#include "pyvnet/vnet.h"

#define VNET_MAC_SIZE 6u

/**
 * vnet_filter_judge() - steps 2 and 3
 * @filter:	tables sorted bytewise (vnet_policy_create())
 * @flow:	what vnet_parse() found in the frame
 */
bool vnet_filter_judge(const struct vnet_filter *filter, const uint8_t *frame, uint32_t len,
		       const struct vnet_flow *flow);

/** vnet_filter_passes() - may the driver see this frame? */
static inline bool vnet_filter_passes(const struct vnet_filter *filter, const uint8_t *frame,
				      uint32_t len, const struct vnet_flow *flow)
{
	return (filter->modes & VNET_FILTER_PROMISC) || vnet_filter_judge(filter, frame, len, flow);
}

#endif
