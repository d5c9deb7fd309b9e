/* SPDX-License-Identifier: MIT */
/*
 * Choice of the hash type, and batches of flows sorted for the kernels.
 *
 * A report value is the type's bit number plus one, so the type is chosen as a
 * report value; types that no report value stands for are never met.  The
 * choice depends on little of a flow, its kind, so it is made for every kind
 * when the policy is.
 */
#include "hash.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "hash_kernel.h"
#include "mutants.h"
#include "pyvnet/virtio_abi.h"

/* The extended types follow the plain ones in the same order. */
#define REPORT_EX_DISTANCE (VIRTIO_NET_HASH_REPORT_IPv6_EX - VIRTIO_NET_HASH_REPORT_IPv6)
static_assert(VIRTIO_NET_HASH_REPORT_TCPv6 + REPORT_EX_DISTANCE == VIRTIO_NET_HASH_REPORT_TCPv6_EX,
	      "TCP_EX");
static_assert(VIRTIO_NET_HASH_REPORT_UDPv6 + REPORT_EX_DISTANCE == VIRTIO_NET_HASH_REPORT_UDPv6_EX,
	      "UDP_EX");
/* The last input byte finds its whole window in the key. */
static_assert(VNET_HASH_INPUT_MAX - 1 + 5 <= VNET_RSS_KEY_SIZE, "key size");
static_assert(VNET_HASH_BATCH % VNET_HASH_GROUP == 0, "groups");

static bool enabled(uint32_t hash_types, uint32_t report)
{
	return report != VIRTIO_NET_HASH_REPORT_NONE && hash_types >> (report - 1) & 1u;
}

/* "Hash calculation for incoming packets", IPv4 (NET-HASH-05) */
static uint32_t choose_ipv4(uint32_t types, uint32_t l4)
{
	if (l4) {
		const uint32_t report = l4 == VNET_FLOW_TCP ? VIRTIO_NET_HASH_REPORT_TCPv4 :
							      VIRTIO_NET_HASH_REPORT_UDPv4;

		if (enabled(types, report) &&
		    !(enabled(types, VIRTIO_NET_HASH_REPORT_IPv4) && VNET_MUTANT(L3_BEFORE_L4)))
			return report;
		if (types && !enabled(types, report) && VNET_MUTANT(NOTHING_TO_FALL_BACK_TO))
			return VIRTIO_NET_HASH_REPORT_NONE;
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
static uint32_t choose_ipv6(uint32_t types, bool always, bool has_extensions, uint32_t l4)
{
	const bool extended =
		always || has_extensions || (types && VNET_MUTANT(EX_WITHOUT_EXTENSION));
	uint32_t report = VIRTIO_NET_HASH_REPORT_NONE;

	if (l4)
		report = l4 == VNET_FLOW_TCP ? VIRTIO_NET_HASH_REPORT_TCPv6 :
					       VIRTIO_NET_HASH_REPORT_UDPv6;
	if (extended && enabled(types, report) && VNET_MUTANT(PLAIN_BEFORE_EX))
		return report;
	if (l4 && extended && enabled(types, report + REPORT_EX_DISTANCE))
		return report + REPORT_EX_DISTANCE;
	if (extended && !always && enabled(types, VIRTIO_NET_HASH_REPORT_IPv6_EX))
		return VIRTIO_NET_HASH_REPORT_IPv6_EX;
	if (enabled(types, report))
		return report;
	if (always && enabled(types, VIRTIO_NET_HASH_REPORT_IPv6_EX))
		return VIRTIO_NET_HASH_REPORT_IPv6_EX;
	if (enabled(types, VIRTIO_NET_HASH_REPORT_IPv6))
		return VIRTIO_NET_HASH_REPORT_IPv6;
	return VIRTIO_NET_HASH_REPORT_NONE;
}

/* Return: the entry of vnet_toeplitz.choice for flows of @kind */
static uint8_t choose(const struct vnet_steering *s, uint32_t kind)
{
	const bool always = s->flags & VNET_STEER_F_EX_TYPES_ALWAYS;
	uint32_t l4 = kind & VNET_FLOW_L4;
	uint32_t report = VIRTIO_NET_HASH_REPORT_NONE, choice;

	if (s->hash_types && l4 == VNET_FLOW_UDP && VNET_MUTANT(UDP_BY_TCP_TYPE))
		l4 = VNET_FLOW_TCP;
	if (kind & VNET_FLOW_IPV4)
		report = choose_ipv4(s->hash_types, l4);
	else if (kind & VNET_FLOW_IPV6)
		report = choose_ipv6(s->hash_types, always, kind & VNET_FLOW_EXTENSIONS, l4);
	if (report == VIRTIO_NET_HASH_REPORT_NONE)
		return 0;
	choice = report | (kind & VNET_FLOW_IPV4 ? CHOICE_IPV4 : CHOICE_IPV6);
	if (report >= VIRTIO_NET_HASH_REPORT_IPv6_EX)
		choice |= CHOICE_EX;
	if (report != VIRTIO_NET_HASH_REPORT_IPv4 && report != VIRTIO_NET_HASH_REPORT_IPv6 &&
	    report != VIRTIO_NET_HASH_REPORT_IPv6_EX)
		choice |= CHOICE_PORTS;
	return (uint8_t)choice;
}

void vnet_toeplitz_init(struct vnet_toeplitz *t, const struct vnet_steering *steering)
{
	t->kernel = vnet_hash_kernel();
	t->kernel->expand(t, steering->key);
	for (uint32_t kind = 0; kind < VNET_FLOW_KINDS; kind++)
		t->choice[kind] = choose(steering, kind);
}

static const uint8_t *addresses6(const struct vnet_flow *flow, uint8_t choice)
{
	const bool extended = flow->has_ex_addresses &&
			      ((choice & CHOICE_EX) || VNET_MUTANT(EX_ADDRESSES_FOR_ALL));

	return extended ? flow->ex_addresses : flow->addresses;
}

/* Zero where ports do not count. */
static inline uint64_t ports(const struct vnet_flow *flow, uint32_t choice)
{
	uint32_t loaded;

	memcpy(&loaded, flow->ports, sizeof(loaded));
	return choice & CHOICE_PORTS ? loaded : 0;
}

static void run_ipv4(const struct vnet_toeplitz *t, struct vnet_hash_ipv4 *v4, uint32_t *values)
{
	for (uint32_t i = v4->count; i % VNET_HASH_GROUP; i++)
		v4->addresses[i] = v4->ports[i] = 0;
	t->kernel->ipv4(t, v4, values);
}

static void run_ipv6(const struct vnet_toeplitz *t, struct vnet_hash_ipv6 *v6, uint32_t *values)
{
	static const uint8_t nowhere[sizeof(((struct vnet_flow *)NULL)->addresses)];

	for (uint32_t i = v6->count; i % VNET_HASH_GROUP; i++) {
		v6->addresses[i] = nowhere;
		v6->ports[i] = 0;
	}
	t->kernel->ipv6(t, v6, values);
}

/*
 * The common batch, at most VNET_HASH_BATCH flows: all hash the same of IPv4, and nothing has to
 * be sorted.  Return: false: it is none, and nothing is done
 */
static bool hash_same(const struct vnet_toeplitz *t, const struct vnet_flow *flows, uint32_t n,
		      struct vnet_hash *out)
{
	const uint32_t choice = t->choice[flows[0].kind];
	uint32_t values[VNET_HASH_BATCH];
	struct vnet_hash_ipv4 v4;

	if (!(choice & CHOICE_IPV4))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		if (t->choice[flows[i].kind] != choice)
			return false;
		memcpy(&v4.addresses[i], flows[i].addresses, sizeof(uint64_t));
		v4.ports[i] = ports(&flows[i], choice);
	}
	v4.count = n;
	run_ipv4(t, &v4, values);
	for (uint32_t i = 0; i < n; i++)
		out[i] = (struct vnet_hash){ values[i], choice & CHOICE_REPORT };
	return true;
}

static void hash_mixed(const struct vnet_toeplitz *t, const struct vnet_flow *flows, uint32_t n,
		       struct vnet_hash *out)
{
	uint32_t values[VNET_HASH_BATCH];
	struct vnet_hash_ipv4 v4;
	struct vnet_hash_ipv6 v6;

	v4.count = v6.count = 0;
	/* Written whether it counts or not, and kept if it does: which one it is cannot be guessed. */
	for (uint32_t i = 0; i < n; i++) {
		const struct vnet_flow *flow = &flows[i];
		const uint8_t choice = t->choice[flow->kind];

		out[i] = (struct vnet_hash){ .report = choice & CHOICE_REPORT };
		memcpy(&v4.addresses[v4.count], flow->addresses, sizeof(uint64_t));
		v6.addresses[v6.count] = addresses6(flow, choice);
		v4.ports[v4.count] = v6.ports[v6.count] = ports(flow, choice);
		v4.index[v4.count] = v6.index[v6.count] = (uint8_t)i;
		v4.count += (choice & CHOICE_IPV4) != 0;
		v6.count += (choice & CHOICE_IPV6) != 0;
	}
	if (v4.count) {
		run_ipv4(t, &v4, values);
		for (uint32_t i = 0; i < v4.count; i++)
			out[v4.index[i]].value = values[i];
	}
	if (v6.count) {
		run_ipv6(t, &v6, values);
		for (uint32_t i = 0; i < v6.count; i++)
			out[v6.index[i]].value = values[i];
	}
}

void vnet_hash_batch(const struct vnet_toeplitz *t, const struct vnet_flow *flows, uint32_t n,
		     struct vnet_hash *out)
{
	for (uint32_t done = 0; done < n; done += VNET_HASH_BATCH) {
		const uint32_t some = n - done < VNET_HASH_BATCH ? n - done : VNET_HASH_BATCH;

		if (!hash_same(t, flows + done, some, out + done))
			hash_mixed(t, flows + done, some, out + done);
	}
}
