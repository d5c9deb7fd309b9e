/* SPDX-License-Identifier: MIT */
/*
 * Reading of headers for hashing, filtering and offloads.
 *
 * Every byte may come from a stranger.  Each function takes the end of what it
 * may read and checks the distance to it before it reads; a distance is always
 * end minus offset with offset ≤ end, so no sum can wrap.  Multi-byte fields
 * are put together from bytes or copied, never loaded through a cast pointer.
 *
 * What does not fit the rules makes the flow poorer, it is no error: without a
 * whole IP header there is no hash, without ports there is no L4 type.  The
 * length of the frame counts, not the length fields of IP, and no checksum is
 * verified (U-24, U-29).
 */
#include "parse.h"

#include <stddef.h>
#include <string.h>

#include "mutants.h"
#include "pyvnet/frame_rules.h"

/* Frames asked for before the first is read: what a core keeps in flight. */
#define AHEAD 8u
#define HEADERS 58u /* Ethernet, IPv6, ports */

/* Walk along an IPv6 extension header chain; its limits are sums over the packet (U-21). */
struct walk {
	const uint8_t *frame;
	uint32_t offset; /* ≤ end */
	uint32_t end;    /* of what counts: the frame's or the window's */
	uint32_t headers;
	uint32_t options;
	bool home_found; /* the first valid one wins (U-22) */
	bool rh2_found;
};

static uint16_t load_be16(const uint8_t *p)
{
	return (uint16_t)((uint32_t)p[0] << 8 | p[1]);
}

/*
 * Skip the Ethernet header and its tags (U-25).
 * Return: EtherType of the payload, which begins at @offset; 0 if the frame
 * ends before it.  The TPID of a third tag is returned like any EtherType that
 * is not IP.
 */
static uint16_t parse_ethernet(const uint8_t *frame, uint32_t len, uint32_t *offset,
			       struct vnet_flow *flow)
{
	uint32_t at = ETHERTYPE_OFFSET;
	uint16_t type;

	if (len < ETHERTYPE_OFFSET + 2)
		return 0;
	type = load_be16(frame + at);
	at += 2;
	while (is_vlan_tpid(type) && flow->vlan_count < VNET_PARSE_MAX_VLAN &&
	       !VNET_MUTANT(TAG_NOT_SKIPPED)) {
		if (len - at < 2)
			return 0;
		if (flow->vlan_count == 0) {
			flow->outer_tpid = type;
			flow->outer_tci = load_be16(frame + at);
		}
		flow->vlan_count++;
		at += 2;
		if (len - at < 2)
			return 0;
		type = load_be16(frame + at);
		at += 2;
	}
	*offset = at;
	return type;
}

static void parse_l4(const uint8_t *frame, uint32_t offset, uint32_t end, uint8_t protocol,
		     struct vnet_flow *flow)
{
	if (protocol != PROTO_TCP && protocol != PROTO_UDP)
		return;
	if (end - offset < PORTS_SIZE)
		return;
	flow->l4 = protocol;
	flow->kind |= protocol == PROTO_TCP ? VNET_FLOW_TCP : VNET_FLOW_UDP;
	flow->l4_offset = (uint16_t)offset;
	memcpy(flow->ports, frame + offset, PORTS_SIZE);
}

static void parse_ipv4(const uint8_t *frame, uint32_t offset, uint32_t len, struct vnet_flow *flow)
{
	const uint8_t *ip = frame + offset;
	uint32_t size;

	if (len - offset < IPV4_MIN_SIZE || ip[0] >> 4 != 4)
		return;
	size = (ip[0] & 0xfu) * 4;
	if (size < IPV4_MIN_SIZE || size > len - offset)
		return;
	flow->l3 = 4;
	flow->kind = VNET_FLOW_IPV4;
	memcpy(flow->addresses, ip + 12, 8);
	if (size != IPV4_MIN_SIZE && VNET_MUTANT(IP_OPTIONS_NOT_SKIPPED))
		size = IPV4_MIN_SIZE;
	if ((load_be16(ip + 6) & IPV4_MORE_FRAGMENTS_OR_OFFSET) && !VNET_MUTANT(FRAGMENT_PORTS))
		return; /* U-23: the first fragment too, or its fellows would go elsewhere */
	parse_l4(frame, offset + size, len, ip[9], flow);
}

/* Where a home address, or that of a routing header, goes; the other one is as in the base header. */
static uint8_t *ex_addresses(struct vnet_flow *flow)
{
	if (!flow->has_ex_addresses)
		memcpy(flow->ex_addresses, flow->addresses, sizeof(flow->ex_addresses));
	flow->has_ex_addresses = true;
	return flow->ex_addresses;
}

/*
 * Count the options of a Hop-by-Hop or Destination Options header that lies
 * wholly inside, and take the home address out of the latter.  A malformed
 * option ends the header's options, not the walk.
 * Return: false when the packet has more options than are looked at
 */
static bool walk_options(struct walk *walk, uint32_t size, bool destination, struct vnet_flow *flow)
{
	const uint8_t *header = walk->frame + walk->offset;
	uint32_t at = 2;

	while (at < size) {
		const uint8_t type = header[at];
		uint32_t length;

		if (walk->options == VNET_PARSE_MAX_OPTIONS)
			return false;
		walk->options++;
		if (type == OPTION_PAD1) {
			at++;
			continue;
		}
		if (size - at < 2)
			break;
		length = header[at + 1];
		at += 2;
		if (length > size - at)
			break;
		if (destination && type == OPTION_HOME_ADDRESS && length == ADDRESS_SIZE &&
		    !walk->home_found && !VNET_MUTANT(HOME_ADDRESS_IGNORED)) {
			memcpy(ex_addresses(flow), header + at, ADDRESS_SIZE);
			walk->home_found = true;
		}
		at += length;
	}
	return true;
}

static void walk_routing(struct walk *walk, struct vnet_flow *flow)
{
	const uint8_t *header = walk->frame + walk->offset;

	if (!is_rh2(header) || walk->rh2_found || VNET_MUTANT(ROUTING_ADDRESS_IGNORED))
		return;
	memcpy(ex_addresses(flow) + ADDRESS_SIZE, header + RH2_ADDRESS_OFFSET, ADDRESS_SIZE);
	walk->rh2_found = true;
}

/*
 * Return: the protocol that follows the chain at walk->offset; PROTO_NONE when
 * the chain is cut off, too long or leads into a fragment.  What was seen
 * before that stays in the flow: the header that ends the walk counts as an
 * extension header only if it lies wholly inside.
 */
static uint8_t walk_extensions(struct walk *walk, uint8_t protocol, struct vnet_flow *flow)
{
	while (is_extension(protocol)) {
		const uint8_t *header = walk->frame + walk->offset;
		const uint32_t left = walk->end - walk->offset;
		uint32_t size;

		if (walk->headers == VNET_PARSE_MAX_HEADERS)
			return PROTO_NONE;
		walk->headers++;
		if (left < EXTENSION_MIN_SIZE)
			return PROTO_NONE;
		size = extension_size(protocol, header[1]);
		if (size > left)
			return PROTO_NONE;
		flow->kind |= VNET_FLOW_EXTENSIONS;
		if (protocol == PROTO_FRAGMENT)
			return PROTO_NONE; /* U-23 */
		if (protocol == PROTO_ROUTING)
			walk_routing(walk, flow);
		if (protocol == PROTO_HOPOPTS || protocol == PROTO_DSTOPTS) {
			if (!walk_options(walk, size, protocol == PROTO_DSTOPTS, flow))
				return PROTO_NONE;
		}
		protocol = header[0];
		walk->offset += size;
	}
	return protocol;
}

static void parse_ipv6(const uint8_t *frame, uint32_t offset, uint32_t len, struct vnet_flow *flow)
{
	const uint8_t *ip = frame + offset;

	if (len - offset < IPV6_SIZE || ip[0] >> 4 != 6)
		return;
	flow->l3 = 6;
	flow->kind = VNET_FLOW_IPV6;
	memcpy(flow->addresses, ip + 8, sizeof(flow->addresses));

	/* The base header is inside the window whatever the tags: 14 + 2 · 4 + 40 bytes. */
	if (!is_extension(ip[6])) {
		parse_l4(frame, offset + IPV6_SIZE, len, ip[6], flow);
	} else {
		struct walk walk = {
			.frame = frame,
			.offset = offset + IPV6_SIZE,
			.end = len < VNET_PARSE_WINDOW ? len : VNET_PARSE_WINDOW,
		};
		const uint8_t protocol = walk_extensions(&walk, ip[6], flow);

		if (VNET_MUTANT(EXTENSIONS_NOT_SKIPPED))
			return;
		parse_l4(frame, walk.offset, walk.end, protocol, flow);
	}
}

/*
 * The commonest frame, in a straight line: IPv4 without options, no fragment, ports, no tag.
 * Return: false: it is another one, and nothing is done
 */
static inline bool parse_common(const uint8_t *frame, uint32_t len, struct vnet_flow *flow)
{
	const uint8_t *ip = frame + ETHERNET_SIZE;
	uint8_t protocol;

	if (len < ETHERNET_SIZE + IPV4_MIN_SIZE + PORTS_SIZE ||
	    load_be16(frame + ETHERTYPE_OFFSET) != ETHERTYPE_IPV4 ||
	    ip[0] != (4 << 4 | IPV4_MIN_SIZE / 4) ||
	    (load_be16(ip + 6) & IPV4_MORE_FRAGMENTS_OR_OFFSET))
		return false;
	protocol = ip[9];
	if (protocol != PROTO_TCP && protocol != PROTO_UDP)
		return false;
	flow->l3 = 4;
	flow->l4 = protocol;
	flow->kind = VNET_FLOW_IPV4 | (protocol == PROTO_TCP ? VNET_FLOW_TCP : VNET_FLOW_UDP);
	flow->vlan_count = 0;
	flow->outer_tpid = flow->outer_tci = 0;
	flow->l4_offset = ETHERNET_SIZE + IPV4_MIN_SIZE;
	flow->has_ex_addresses = false;
	flow->reserved = 0;
	memcpy(flow->ports, ip + IPV4_MIN_SIZE, PORTS_SIZE);
	memcpy(flow->addresses, ip + 12, 8);
	return true;
}

static inline void parse(const uint8_t *frame, uint32_t len, struct vnet_flow *flow)
{
	uint32_t offset = 0;

	if (parse_common(frame, len, flow)) {
		VNET_MUTATE(flow, frame, len, flow);
		return;
	}
	memset(flow, 0, offsetof(struct vnet_flow, addresses));
	switch (parse_ethernet(frame, len, &offset, flow)) {
	case ETHERTYPE_IPV4:
		parse_ipv4(frame, offset, len, flow);
		break;
	case ETHERTYPE_IPV6:
		parse_ipv6(frame, offset, len, flow);
		break;
	default: /* U-26 */
		break;
	}
	VNET_MUTATE(flow, frame, len, flow);
}

void vnet_parse(const uint8_t *frame, uint32_t len, struct vnet_flow *flow)
{
	parse(frame, len, flow);
}

/* The first and the last byte wanted of the common frames: two cache lines at most. */
static inline void prefetch(const uint8_t *frame)
{
	__builtin_prefetch(frame);
	__builtin_prefetch(frame + HEADERS - 1);
}

void vnet_parse_batch(const uint8_t *const *frames, const uint32_t *lens, uint32_t n,
		      struct vnet_flow *flows)
{
	for (uint32_t i = 0; i < n && i < AHEAD; i++)
		prefetch(frames[i]);
	for (uint32_t i = 0; i < n; i++) {
		if (i + AHEAD < n)
			prefetch(frames[i + AHEAD]);
		parse(frames[i], lens[i], &flows[i]);
	}
}
