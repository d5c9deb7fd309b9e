/* SPDX-License-Identifier: MIT */
/*
 * What headers look like and which of them count, for whoever reads frames: the C path and the
 * steering program in the kernel.  Nothing but the freestanding <stdint.h>, and no loop.
 */
#ifndef PYVNET_FRAME_RULES_H
#define PYVNET_FRAME_RULES_H

#include <stdint.h>

#define ETHERNET_SIZE 14u
#define ETHERTYPE_OFFSET 12u
#define ETHERTYPE_IPV4 0x0800u
#define ETHERTYPE_IPV6 0x86ddu
#define ETHERTYPE_8021Q 0x8100u
#define ETHERTYPE_8021AD 0x88a8u
#define ETHERTYPE_QINQ 0x9100u
#define VLAN_TAG_SIZE 4u

#define IPV4_MIN_SIZE 20u
#define IPV4_MORE_FRAGMENTS_OR_OFFSET 0x3fffu
#define IPV6_SIZE 40u
#define ADDRESS_SIZE 16u
#define PORTS_SIZE 4u

enum {
	PROTO_HOPOPTS = 0,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_AH = 51,
	PROTO_NONE = 59,
	PROTO_DSTOPTS = 60,
	PROTO_MOBILITY = 135,
	PROTO_HIP = 139,
	PROTO_SHIM6 = 140,
};

/* A Fragment header has this size; every other header at least this one. */
#define EXTENSION_MIN_SIZE 8u

#define OPTION_PAD1 0u
#define OPTION_HOME_ADDRESS 201u

/* Routing header type 2 (RFC 6275 6.4): 8 bytes, then one address. */
#define RH2_TYPE 2u
#define RH2_HDRLEN 2u
#define RH2_SEGMENTS_LEFT 1u
#define RH2_ADDRESS_OFFSET 8u

/* Limits summed over one packet (U-21). */
#define VNET_PARSE_MAX_VLAN 2u
#define VNET_PARSE_MAX_HEADERS 16u
#define VNET_PARSE_MAX_OPTIONS 64u
#define VNET_PARSE_WINDOW 1024u

/* The kind of a flow: what the choice of the hash type depends on, as bits. */
#define VNET_FLOW_UDP 1u
#define VNET_FLOW_TCP 2u
#define VNET_FLOW_L4 (VNET_FLOW_UDP | VNET_FLOW_TCP)
#define VNET_FLOW_EXTENSIONS 4u /* IPv6: at least one extension header was seen (U-20) */
#define VNET_FLOW_IPV4 8u
#define VNET_FLOW_IPV6 16u
#define VNET_FLOW_KINDS 32u

/* The choice made for a kind: the report and what is hashed for it; 0: nothing is. */
#define CHOICE_REPORT 0x0fu
#define CHOICE_IPV4 0x10u
#define CHOICE_IPV6 0x20u
#define CHOICE_PORTS 0x40u
#define CHOICE_EX 0x80u

static inline int is_vlan_tpid(uint16_t type)
{
	return type == ETHERTYPE_8021Q || type == ETHERTYPE_8021AD || type == ETHERTYPE_QINQ;
}

static inline int is_extension(uint8_t protocol)
{
	switch (protocol) { /* U-20 */
	case PROTO_HOPOPTS:
	case PROTO_ROUTING:
	case PROTO_FRAGMENT:
	case PROTO_AH:
	case PROTO_DSTOPTS:
	case PROTO_MOBILITY:
	case PROTO_HIP:
	case PROTO_SHIM6:
		return 1;
	default: /* ESP and "no next header" too: they end the walk, and no port follows */
		return 0;
	}
}

static inline uint32_t extension_size(uint8_t protocol, uint8_t length)
{
	if (protocol == PROTO_FRAGMENT)
		return EXTENSION_MIN_SIZE;
	if (protocol == PROTO_AH)
		return (length + 2u) * 4;
	return EXTENSION_MIN_SIZE + length * 8u;
}

/* A routing header that wholly fits names the final destination (U-22): hdrlen 2 has room for it. */
static inline int is_rh2(const uint8_t *header)
{
	return header[1] == RH2_HDRLEN && header[2] == RH2_TYPE && header[3] == RH2_SEGMENTS_LEFT;
}

#endif
