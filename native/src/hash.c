/* SPDX-License-Identifier: MIT */
/*
 * Choice of the hash type and the Toeplitz hash itself.
 *
 * A report value is the type's bit number plus one, so the type is chosen as a
 * report value and looked up in hash_types; types that no report value stands
 * for are never met.
 */
#include "hash.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#include "pyvnet/toeplitz.h"
#include "pyvnet/virtio_abi.h"

#define PROTO_TCP 6u

/* The extended types follow the plain ones in the same order. */
#define REPORT_EX_DISTANCE (VIRTIO_NET_HASH_REPORT_IPv6_EX - VIRTIO_NET_HASH_REPORT_IPv6)
static_assert(VIRTIO_NET_HASH_REPORT_TCPv6 + REPORT_EX_DISTANCE == VIRTIO_NET_HASH_REPORT_TCPv6_EX,
	      "TCP_EX");
static_assert(VIRTIO_NET_HASH_REPORT_UDPv6 + REPORT_EX_DISTANCE == VIRTIO_NET_HASH_REPORT_UDPv6_EX,
	      "UDP_EX");
/* The last input byte finds its whole window in the key. */
static_assert(VNET_HASH_INPUT_MAX - 1 + 5 <= VNET_RSS_KEY_SIZE, "key size");

void vnet_toeplitz_init(struct vnet_toeplitz *t, const uint8_t *key)
{
	for (uint32_t position = 0; position < VNET_HASH_INPUT_MAX; position++) {
		const uint64_t window = vnet_toeplitz_window(key, position);
		uint32_t *table = t->table[position];

		/* The hash is linear: a byte with several bits is made of its lowest bit and the rest. */
		table[0] = 0;
		for (uint32_t byte = 1; byte < 256; byte++) {
			const uint32_t rest = byte & (byte - 1);

			if (rest)
				table[byte] = table[rest] ^ table[byte ^ rest];
			else
				table[byte] = vnet_toeplitz_step(window, (uint8_t)byte);
		}
	}
}

static bool enabled(uint32_t hash_types, uint32_t report)
{
	return report != VIRTIO_NET_HASH_REPORT_NONE && hash_types >> (report - 1) & 1u;
}

/* "Hash calculation for incoming packets", IPv4 (NET-HASH-05) */
static uint32_t choose_ipv4(uint32_t types, const struct vnet_flow *flow)
{
	if (flow->l4) {
		const uint32_t l4 = flow->l4 == PROTO_TCP ? VIRTIO_NET_HASH_REPORT_TCPv4 :
							    VIRTIO_NET_HASH_REPORT_UDPv4;

		if (enabled(types, l4))
			return l4;
	}
	if (enabled(types, VIRTIO_NET_HASH_REPORT_IPv4))
		return VIRTIO_NET_HASH_REPORT_IPv4;
	return VIRTIO_NET_HASH_REPORT_NONE;
}

/*
 * "Hash calculation for incoming packets", IPv6 without and with extension
 * header (NET-HASH-06, NET-HASH-07).
 *
 * The standard's order with extension headers is TCP_EX, UDP_EX, IP_EX and only
 * then the plain types, so IP_EX wins over TCPv6 (U-58); without, the EX types
 * do not apply (U-19).  With VNET_STEER_F_EX_TYPES_ALWAYS they apply to every
 * IPv6 packet, and both L4 types come before both L3 types.
 */
static uint32_t choose_ipv6(uint32_t types, bool always, const struct vnet_flow *flow)
{
	const bool extended = always || flow->has_extensions;
	uint32_t l4 = VIRTIO_NET_HASH_REPORT_NONE;

	if (flow->l4)
		l4 = flow->l4 == PROTO_TCP ? VIRTIO_NET_HASH_REPORT_TCPv6 :
					     VIRTIO_NET_HASH_REPORT_UDPv6;
	if (l4 && extended && enabled(types, l4 + REPORT_EX_DISTANCE))
		return l4 + REPORT_EX_DISTANCE;
	if (extended && !always && enabled(types, VIRTIO_NET_HASH_REPORT_IPv6_EX))
		return VIRTIO_NET_HASH_REPORT_IPv6_EX;
	if (enabled(types, l4))
		return l4;
	if (always && enabled(types, VIRTIO_NET_HASH_REPORT_IPv6_EX))
		return VIRTIO_NET_HASH_REPORT_IPv6_EX;
	if (enabled(types, VIRTIO_NET_HASH_REPORT_IPv6))
		return VIRTIO_NET_HASH_REPORT_IPv6;
	return VIRTIO_NET_HASH_REPORT_NONE;
}

/*
 * Contribution of @size bytes, a multiple of 4, that stand at @position of the
 * hash input.  Four lookups a turn: a loop of single ones is half as fast.
 */
static inline uint32_t hash_bytes(const struct vnet_toeplitz *t, uint32_t position,
				  const uint8_t *bytes, uint32_t size)
{
	uint32_t hash = 0;

	for (uint32_t i = 0; i < size; i += 4) {
		const uint32_t (*table)[256] = &t->table[position + i];

		hash ^= table[0][bytes[i]] ^ table[1][bytes[i + 1]] ^ table[2][bytes[i + 2]] ^
			table[3][bytes[i + 3]];
	}
	return hash;
}

static uint32_t hash_ipv4(const struct vnet_toeplitz *t, const struct vnet_flow *flow, bool l4)
{
	uint32_t hash = hash_bytes(t, 0, flow->saddr, 4) ^ hash_bytes(t, 4, flow->daddr, 4);

	if (l4)
		hash ^= hash_bytes(t, 8, flow->ports, 4);
	return hash;
}

static uint32_t hash_ipv6(const struct vnet_toeplitz *t, const uint8_t *saddr, const uint8_t *daddr,
			  const uint8_t *ports)
{
	uint32_t hash = hash_bytes(t, 0, saddr, 16) ^ hash_bytes(t, 16, daddr, 16);

	if (ports)
		hash ^= hash_bytes(t, 32, ports, 4);
	return hash;
}

struct vnet_hash vnet_hash_flow(const struct vnet_steering *steering, const struct vnet_toeplitz *t,
				const struct vnet_flow *flow)
{
	const bool always = steering->flags & VNET_STEER_F_EX_TYPES_ALWAYS;
	uint32_t report = VIRTIO_NET_HASH_REPORT_NONE;
	uint32_t value = 0;

	if (flow->l3 == 4)
		report = choose_ipv4(steering->hash_types, flow);
	else if (flow->l3 == 6)
		report = choose_ipv6(steering->hash_types, always, flow);

	switch (report) {
	case VIRTIO_NET_HASH_REPORT_IPv4:
		value = hash_ipv4(t, flow, false);
		break;
	case VIRTIO_NET_HASH_REPORT_TCPv4:
	case VIRTIO_NET_HASH_REPORT_UDPv4:
		value = hash_ipv4(t, flow, true);
		break;
	case VIRTIO_NET_HASH_REPORT_IPv6:
		value = hash_ipv6(t, flow->saddr, flow->daddr, NULL);
		break;
	case VIRTIO_NET_HASH_REPORT_TCPv6:
	case VIRTIO_NET_HASH_REPORT_UDPv6:
		value = hash_ipv6(t, flow->saddr, flow->daddr, flow->ports);
		break;
	case VIRTIO_NET_HASH_REPORT_IPv6_EX:
		value = hash_ipv6(t, flow->saddr_ex, flow->daddr_ex, NULL);
		break;
	case VIRTIO_NET_HASH_REPORT_TCPv6_EX:
	case VIRTIO_NET_HASH_REPORT_UDPv6_EX:
		value = hash_ipv6(t, flow->saddr_ex, flow->daddr_ex, flow->ports);
		break;
	default:
		break;
	}
	return (struct vnet_hash){ .value = value, .report = (uint16_t)report };
}
