/* SPDX-License-Identifier: MIT */
/*
 * Frame bytes → struct vnet_flow.  A total function: any bytes of any length
 * give a flow, and nothing past the length given is ever read.
 */
#ifndef PYVNET_PARSE_H
#define PYVNET_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* Limits summed over one packet (U-21). */
#define VNET_PARSE_MAX_VLAN 2u
#define VNET_PARSE_MAX_HEADERS 16u
#define VNET_PARSE_MAX_OPTIONS 64u
#define VNET_PARSE_WINDOW 1024u

/*
 * What hashing, filtering and offloads need to know of a frame.  Addresses and ports are
 * copied in network byte order, laid out as the hash input wants them.
 */
struct vnet_flow {
	uint8_t l3;          /* 0 none (no hash), 4, 6 */
	uint8_t l4; /* 0 none, IPPROTO_TCP, IPPROTO_UDP; set only if both ports are in the frame */
	bool has_extensions; /* IPv6: at least one extension header was seen (U-20) */
	uint8_t vlan_count; /* tags skipped, 0 … 2 */
	uint16_t outer_tpid; /* TPID and TCI of the outermost tag; 0 without tag */
	uint16_t outer_tci;
	uint8_t saddr[16]; /* IPv4: first 4 bytes */
	uint8_t daddr[16];
	uint8_t saddr_ex[16]; /* IPv6: home address if valid, else saddr (U-22) */
	uint8_t daddr_ex[16]; /* IPv6: routing header type 2 address if valid, else daddr */
	uint8_t ports[4]; /* source, destination; valid if l4 != 0 */
	uint16_t l4_offset; /* of the transport header in the frame; 0 if l4 is */
};

/**
 * vnet_parse() - read the headers of one Ethernet frame
 * @frame:	first byte of the destination MAC; private memory
 * @len:	bytes in the frame; may be 0
 * @flow:	filled completely
 */
void vnet_parse(const uint8_t *frame, uint32_t len, struct vnet_flow *flow);

#endif
