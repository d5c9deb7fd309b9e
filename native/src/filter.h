/* SPDX-License-Identifier: MIT */
/*
 * The filter stage of the receive line: RX modes, MAC and VLAN tables decide
 * before steering (U-44).  None of their features is offered yet, so the only
 * policy is to pass everything: what a device in promiscuous mode does, which
 * is the mode after reset (U-31).
 */
#ifndef PYVNET_FILTER_H
#define PYVNET_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#include "parse.h"
#include "policy.h"

/** vnet_filter_passes() - may the driver see this frame? */
static inline bool vnet_filter_passes(const struct vnet_policy *policy, const uint8_t *frame,
				      uint32_t len, const struct vnet_flow *flow)
{
	(void)frame;
	(void)len;
	(void)flow;
	return policy->filter_mode == VNET_FILTER_PASS_ALL;
}

#endif
