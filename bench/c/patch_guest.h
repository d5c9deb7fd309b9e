/* SPDX-License-Identifier: MIT */
/*
 * A device made in this process and the driver of its two rings: receive
 * buffers hold any frame, or are a page each and merged.
 */
#ifndef PYVNET_BENCH_PATCH_GUEST_H
#define PYVNET_BENCH_PATCH_GUEST_H

#include "device_ring.h"
#include "pyvnet/virtio_abi.h"
#include "tcp_pair.h"

#define GUEST_RING 256u
#define GUEST_RING_GSO 16u /* of whole buffers: those of a longer ring do not stay in the cache */
#define GUEST_FRAME (TCP_PAIR_HDR + 1518)
#define GUEST_FRAME_GSO (TCP_PAIR_HDR + VNET_FRAME_MAX)
#define GUEST_PAGE 4096

struct guest {
	struct vnet_engine *engine;
	struct ring_mem memory;
	struct ring receive, transmit;
	bool merge;
	uint16_t free_count, free[GUEST_RING]; /* last in, first out: those lie in the cache */
};

static inline void guest_check(int error, const char *what)
{
	errno = -error;
	if (error < 0)
		tcp_pair_fail(what, "");
}

static inline void guest_policy(struct guest *g, bool gso)
{
	const uint64_t guest =
		VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6;
	const uint64_t host = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6;
	const struct vnet_policy_config config = {
		.steering.pairs = 1,
		.header_length = TCP_PAIR_HDR,
		.merge_rx = g->merge,
		.port_queues = 1,
		.guest_offloads = gso ? guest : 0,
		.host_offloads = gso ? host : 0,
		.filter.modes = VNET_FILTER_PROMISC,
	};
	struct vnet_policy *policy;

	guest_check(vnet_policy_create(&config, &policy), "making a policy");
	guest_check(vnet_engine_set_policy(g->engine, policy), "setting a policy");
	vnet_policy_put(policy);
}

static inline void guest_rings(struct guest *g, uint32_t receive, uint32_t transmit)
{
	uint16_t size = receive == GUEST_FRAME_GSO ? GUEST_RING_GSO : GUEST_RING;

	if (ring_mem_open(&g->memory, ring_bytes(size, receive) + ring_bytes(GUEST_RING, transmit)))
		tcp_pair_fail("making guest memory", "");
	if (ring_init(&g->receive, &g->memory, size, receive, true, true) ||
	    ring_init(&g->transmit, &g->memory, GUEST_RING, transmit, false, true))
		tcp_pair_fail("making a ring", "");
	guest_check(device_set_memory(g->engine, &g->memory), "describing guest memory");
}

/** guest_open() - a device with both rings running and all receive buffers offered */
static inline void guest_open(struct guest *g, const struct vnet_engine_config *config, bool gso,
			      bool merge)
{
	const uint32_t frame = gso ? GUEST_FRAME_GSO : GUEST_FRAME;

	g->merge = merge;
	guest_check(vnet_engine_create(config, &g->engine), "making a device");
	guest_rings(g, merge ? GUEST_PAGE : frame, frame);
	guest_policy(g, gso);
	guest_check(device_start_ring(g->engine, &g->receive, 0), "starting a ring");
	guest_check(device_start_ring(g->engine, &g->transmit, 1), "starting a ring");
	ring_fill(&g->receive);
	for (uint16_t i = 0; i < GUEST_RING; i++)
		g->free[g->free_count++] = i;
}

/** guest_reclaim() - take back what was sent */
static inline void guest_reclaim(struct guest *g)
{
	struct ring_elem done[GUEST_RING];
	uint32_t n = ring_reap(&g->transmit, done, GUEST_RING);

	while (n)
		g->free[g->free_count++] = (uint16_t)done[--n].id;
}

#endif
