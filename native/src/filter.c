/* SPDX-License-Identifier: MIT */
#include "filter.h"

#include <string.h>

#include "mutants.h"

#define ETHERTYPE_8021Q 0x8100u
#define ETHERTYPE_8021AD 0x88a8u
#define VID_MASK 0x0fffu
#define GROUP_BIT 1u

static const uint8_t broadcast[VNET_MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

/* Binary search: a table holds up to VNET_FILTER_MACS addresses. */
static bool contains(const uint8_t *table, uint32_t count, const uint8_t *mac)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = memcmp(mac, table + (size_t)middle * VNET_MAC_SIZE, VNET_MAC_SIZE);

		if (!order)
			return true;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return false;
}

/*
 * Only the outermost tag counts, and only where it names a VLAN: priority tags
 * (vid 0) are as untagged, 0x9100 is skipped for hashing but is no tag of the
 * standards (U-35).
 */
static bool vlan_passes(const struct vnet_filter *f, const struct vnet_flow *flow)
{
	uint32_t vid = flow->outer_tci & VID_MASK;

	if (flow->outer_tpid && !vid && VNET_MUTANT(PRIORITY_TAG_FILTERED))
		return false;
	if (flow->outer_tpid != ETHERTYPE_8021Q && flow->outer_tpid != ETHERTYPE_8021AD)
		return true;
	return !vid || (f->vlans[vid / 64] >> (vid % 64) & 1);
}

bool vnet_filter_judge(const struct vnet_filter *f, const uint8_t *frame, uint32_t len,
		       const struct vnet_flow *flow)
{
	/* Without a destination nobody asked for it: a runt of this kind is for promiscuous eyes. */
	if (len < VNET_MAC_SIZE)
		return false;
	if ((f->modes & VNET_FILTER_VLAN) && !vlan_passes(f, flow))
		return false;
	if (!memcmp(frame, broadcast, VNET_MAC_SIZE))
		return !(f->modes & VNET_FILTER_NOBCAST);
	if (frame[0] & GROUP_BIT) {
		if (f->modes & VNET_FILTER_NOMULTI)
			return false;
		return (f->modes & (VNET_FILTER_ALLMULTI | VNET_FILTER_MULTI_OVERFLOW)) ||
		       contains(f->multicast, f->multicast_count, frame);
	}
	if (f->modes & VNET_FILTER_NOUNI)
		return false;
	return (f->modes & (VNET_FILTER_ALLUNI | VNET_FILTER_UNI_OVERFLOW)) ||
	       !memcmp(frame, f->mac, VNET_MAC_SIZE) ||
	       contains(f->unicast, f->unicast_count, frame);
}
