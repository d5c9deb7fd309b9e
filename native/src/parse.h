/* SPDX-License-Identifier: MIT */
/*
 * Frame bytes → struct vnet_flow.  A total function: any bytes of any length
 * give a flow, and nothing past the length given is ever read.
 */
#ifndef PYVNET_PARSE_H
#define PYVNET_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "pyvnet/frame_rules.h"

/*
 * What hashing, filtering and offloads need to know of a frame.  Addresses and ports are
 * copied in network byte order, source before destination, laid out as the hash input wants them.
 */
struct vnet_flow {
	uint8_t l3; /* 0 none (no hash), 4, 6 */
	uint8_t l4; /* 0 none, IPPROTO_TCP, IPPROTO_UDP; set only if both ports are in the frame */
	uint8_t kind; /* l3, l4 and extension headers again: VNET_FLOW_* */
	uint8_t vlan_count; /* tags skipped, 0 … 2 */
	uint16_t outer_tpid; /* TPID and TCI of the outermost tag; 0 without tag */
	uint16_t outer_tci;
	uint16_t l4_offset; /* of the transport header in the frame; 0 if l4 is */
	bool has_ex_addresses; /* a home address or a routing header of type 2 was found */
	uint8_t reserved;
	uint8_t ports[4]; /* source, destination; 0 if l4 is */
	uint8_t addresses[32]; /* meaningful are 8 bytes of IPv4, all of IPv6, none without l3 */
	/*
	 * Meaningful only if there are any: the home address if valid, else the source; the routing
	 * header's address if valid, else the destination (U-22).
	 */
	uint8_t ex_addresses[32];
};

/**
 * vnet_parse() - read the headers of one Ethernet frame
 * @frame:	first byte of the destination MAC; private memory
 * @len:	bytes in the frame; may be 0
 * @flow:	everything that is meaningful is filled
 */
void vnet_parse(const uint8_t *frame, uint32_t len, struct vnet_flow *flow);

/**
 * vnet_parse_batch() - the same for @n frames, whose headers are asked for ahead
 * Frames that nobody has touched yet cost a wait for memory each; here the waits overlap.
 */
void vnet_parse_batch(const uint8_t *const *frames, const uint32_t *lens, uint32_t n,
		      struct vnet_flow *flows);

#endif
