/* SPDX-License-Identifier: MIT */
/*
 * THE receive line, host port → receiveq:
 *
 *   read → parse → filter → MTU → offloads → [program] → hash → steer →
 *   pop → copy → push → publish
 *
 * The frame is read into private memory: what judges it (filter, hash) must
 * not look at bytes the driver can change (U-63), and the receiveq is known
 * only after the hash.  From there it is copied once, into the buffers.
 *
 * Where frames end: every frame read is counted once, in rx_packets or in the
 * rx_drop_* that names the reason.
 */
#include "worker.h"

#include <errno.h>
#include <string.h>

#include "filter.h"
#include "offload.h"
#include "stats.h"

#define VLAN_TAG 4u

enum place { PLACED, NO_BUFFERS, DROPPED };

/* The header of the frame as the driver negotiated it, into private memory (U-03: no old bytes). */
static uint32_t build_header(const struct vnet_worker *w, const struct vnet_slot *slot,
			     uint32_t buffers, struct virtio_net_hdr_v1_hash *header)
{
	*header = (struct virtio_net_hdr_v1_hash){
		.v1 = slot->shown,
		.hash_value_low = (uint16_t)slot->hash_value,
		.hash_value_high = (uint16_t)(slot->hash_value >> 16),
		.hash_report = slot->hash_report,
	};
	header->v1.num_buffers = (uint16_t)buffers;
	return w->policy->header_length;
}

static void copy_frame(struct vnet_worker *w, const struct vnet_slot *slot, uint32_t chains)
{
	struct virtio_net_hdr_v1_hash header;
	uint32_t length = build_header(w, slot, chains, &header);
	const struct iovec *iov = w->scratch.pieces.iov;

	vnet_mem_write(iov, 0, &header, length);
	vnet_mem_write(iov, length, slot->frame, slot->len);
}

/* Every buffer but the last is filled to the brim (NET-RX-02). */
static void push_chains(struct vnet_worker *w, struct vnet_vring *vr, uint32_t chains,
			uint32_t need)
{
	for (uint32_t i = 0; i < chains; i++) {
		const struct vnet_chain *chain = &w->scratch.chains[i];
		uint32_t part = chain->write_bytes < need ? chain->write_bytes : need;

		vr->ops->push(vr, chain->head, part);
		need -= part;
	}
}

/* Buffers no driver may offer: all that were popped go back with len 0, the frame is lost (U-55). */
static enum place bad_buffer(struct vnet_worker *w, struct vnet_pair *pair, uint32_t chains)
{
	push_chains(w, &pair->receiveq, chains, 0);
	vnet_count(&pair->stats.rx_drop_bad_buffer, 1);
	return DROPPED;
}

static enum place unfit(struct vnet_worker *w, struct vnet_pair *pair, uint32_t chains)
{
	pair->receiveq.ops->rewind(&pair->receiveq, w->scratch.chains, chains);
	vnet_count(&pair->stats.rx_drop_too_big, 1);
	return DROPPED;
}

/* Is the chain just popped one that a receiveq may hold? */
static bool usable(const struct vnet_worker *w, const struct vnet_chain *chain, uint32_t chains)
{
	if (VNET_GUARD(RX_DIRECTION, chain->readable))
		return false;
	return !VNET_GUARD(RX_HEADER_FITS,
			   chains == 1 && chain->write_bytes < w->policy->header_length);
}

/* Reserve buffers until the frame fits, then fill and stage them: all or nothing (OUR-RX-20). */
static enum place place(struct vnet_worker *w, struct vnet_pair *pair, const struct vnet_slot *slot)
{
	struct vnet_vring *vr = &pair->receiveq;
	struct vnet_chain *chains = w->scratch.chains;
	uint64_t need = (uint64_t)w->policy->header_length + slot->len, room = 0;
	uint32_t n = 0;

	w->scratch.pieces.count = 0;
	while (room < need) {
		int got;

		if (n && VNET_GUARD(RX_NO_MERGE, !w->policy->merge_rx))
			return unfit(w, pair, n);
		if (n == VNET_CHAIN_MAX || n == vr->size)
			return unfit(w, pair, n);
		got = vr->ops->pop(vr, w->mem, &w->scratch.pieces, &chains[n]);
		if (got == -EPIPE) {
			vnet_count_shared(&pair->stats.rx_drop_queue_off, 1);
			return DROPPED;
		}
		if (got == -ENOSPC)
			return unfit(w, pair, n);
		if (VNET_GUARD(RX_OVERRUN, !got)) {
			vr->ops->rewind(vr, chains, n);
			return NO_BUFFERS;
		}
		n++;
		if (got == -EBADMSG || !usable(w, &chains[n - 1], n))
			return bad_buffer(w, pair, n);
		room += chains[n - 1].write_bytes;
	}
	copy_frame(w, slot, n);
	push_chains(w, vr, n, (uint32_t)need);
	vnet_count(&pair->stats.rx_packets, 1);
	vnet_count(&pair->stats.rx_bytes, slot->len);
	vnet_count(&pair->stats.rx_csum_completed, slot->csum_completed);
	return PLACED;
}

/* Remember to publish; a ring that broke under the frame is out of reach from now on. */
static void after_place(struct vnet_worker *w, struct vnet_pair *pair)
{
	if (pair->receiveq.staged_count && !pair->dirty) {
		pair->dirty = true;
		pair->next_dirty = w->dirty;
		w->dirty = pair;
	}
	if (pair->receiveq.running)
		return;
	atomic_fetch_and(&w->engine->rx_active[pair->index / 64],
			 ~(UINT64_C(1) << (pair->index % 64)));
	vnet_count(&pair->stats.rings_broken, 1);
	vnet_worker_ring_broke(w);
}

/*
 * In automatic mode a frame whose receiveq is off goes to another that runs
 * (NET-MQ-07), under RSS it is dropped (NET-RSS-03, U-11).
 */
static uint32_t reachable(struct vnet_worker *w, uint32_t queue)
{
	const struct vnet_policy *policy = w->policy;
	uint32_t pairs = policy->steering.pairs;

	if (vnet_rx_active(w->engine, queue) || policy->steering.mode != VNET_STEER_AUTOMATIC)
		return queue;
	for (uint32_t i = 1; i < pairs; i++) {
		uint32_t other = (queue + i) % pairs;

		if (other < w->engine->pair_count && vnet_rx_active(w->engine, other))
			return other;
	}
	return queue;
}

/* Give the frame to the worker that owns its receiveq; the reader goes on with a fresh slot. */
static void hand_off(struct vnet_worker *w, struct vnet_pair *from, struct vnet_pair *to)
{
	uint32_t fresh = vnet_queue_take(&w->engine->slots.free);

	if (fresh != VNET_SLOT_NONE && vnet_queue_put(&to->owner->inbound, from->slot)) {
		from->slot = fresh;
		w->wake_due |= UINT64_C(1) << (to->owner->number % 64);
		return;
	}
	if (fresh != VNET_SLOT_NONE)
		vnet_queue_put(&w->engine->slots.free, fresh);
	vnet_count_shared(&to->stats.rx_drop_handoff, 1);
}

/* Return: false if the frame stays in the slot, waiting for buffers */
static bool deliver(struct vnet_worker *w, struct vnet_pair *pair, struct vnet_slot *slot)
{
	struct vnet_pair *to;
	bool one_to_one;

	slot->queue = (uint16_t)reachable(w, slot->queue);
	if (VNET_GUARD(RX_QUEUE_RUNNING, slot->queue >= w->engine->pair_count ||
						 !vnet_rx_active(w->engine, slot->queue))) {
		vnet_count_shared(&pair->stats.rx_drop_queue_off, 1);
		return true;
	}
	to = &w->engine->pairs[slot->queue];
	if (to->owner != w) {
		hand_off(w, pair, to);
		return true;
	}
	one_to_one = w->policy->steering.mode == VNET_STEER_AUTOMATIC && to == pair;
	if (place(w, to, slot) == NO_BUFFERS) {
		if (one_to_one)
			return false;
		vnet_count(&to->stats.rx_drop_overruns, 1);
	}
	after_place(w, to);
	return true;
}

/* GSO frames are cut to size by whoever receives them, so they may be longer (NET-CFG-05, U-51). */
static bool too_long(const struct vnet_policy *policy, const struct vnet_slot *slot,
		     const struct virtio_net_hdr_v1 *header, const struct vnet_flow *flow)
{
	return policy->mtu && header->gso_type == VIRTIO_NET_HDR_GSO_NONE &&
	       slot->len >
		       (uint64_t)policy->mtu + VNET_ETHERNET_HEADER + VLAN_TAG * flow->vlan_count;
}

/*
 * What the host asks of the driver goes on if the driver agreed to it; else it
 * is done here (checksum) or the frame is lost (segmentation): OUR-OFL-05.
 */
static bool offloads_allowed(const struct vnet_policy *policy, struct vnet_slot *slot,
			     struct virtio_net_hdr_v1 *header, const struct vnet_flow *flow)
{
	switch (vnet_offload_receive(policy->rx_offloads, header, slot->frame, slot->len, flow,
				     &slot->shown)) {
	case VNET_OFFLOAD_COMPLETED:
		memcpy(slot->header, header, sizeof(*header));
		slot->csum_completed = 1;
		return true;
	case VNET_OFFLOAD_AS_IT_IS:
		return true;
	default:
		return false;
	}
}

/* parse → filter → MTU → offloads → hash → steer. Return: may the driver see it? */
static bool judge(struct vnet_worker *w, struct vnet_pair *pair, struct vnet_slot *slot)
{
	const struct vnet_policy *policy = w->policy;
	struct vnet_hash hash = { 0, VIRTIO_NET_HASH_REPORT_NONE };
	struct virtio_net_hdr_v1 header;
	struct vnet_flow flow;

	vnet_parse(slot->frame, slot->len, &flow);
	if (!vnet_filter_passes(&policy->filter, slot->frame, slot->len, &flow)) {
		vnet_count(&pair->stats.rx_drop_filtered, 1);
		return false;
	}
	memcpy(&header, slot->header, sizeof(header));
	if (VNET_GUARD(RX_MTU, too_long(policy, slot, &header, &flow))) {
		vnet_count(&pair->stats.rx_drop_mtu, 1);
		return false;
	}
	if (!offloads_allowed(policy, slot, &header, &flow)) {
		vnet_count(&pair->stats.rx_drop_offload, 1);
		return false;
	}
	if (policy->wants_hash)
		hash = vnet_hash_flow(&policy->toeplitz, &flow);
	slot->hash_value = hash.value;
	slot->hash_report = hash.report;
	slot->queue = vnet_steer(policy, hash, pair->index);
	return true;
}

/* Return: 1 a frame is in the slot; 0 one was lost; -EAGAIN the host port has nothing more */
static int read_frame(struct vnet_worker *w, struct vnet_pair *pair, struct vnet_slot *slot)
{
	int32_t n;
	int got;

	/* A detached queue may still hold a frame here; reading it would answer as if it were gone. */
	if (!pair->port.attached)
		return -EAGAIN;
	got = pair->port.ops->recv(&pair->port, &w->io, &slot, &n, 1);
	if (got == -ENODEV)
		vnet_worker_port_gone(pair);
	if (got < 0)
		return -EAGAIN; /* EIO: down, EINTR: again on the next round */
	vnet_count(&pair->stats.rx_port_frames, 1);
	if (VNET_GUARD(RX_PORT_SHORT,
		       n < (int)VNET_PORT_HDR || (uint32_t)n - VNET_PORT_HDR > VNET_FRAME_MAX)) {
		vnet_count(&pair->stats.rx_drop_port, 1);
		return 0;
	}
	slot->len = (uint32_t)n - (uint32_t)VNET_PORT_HDR;
	slot->csum_completed = 0;
	return 1;
}

/*
 * No buffers and nobody else to take the frame: poll the host port again once
 * the driver kicks, unless buffers came meanwhile.
 */
static void wait_for_buffers(struct vnet_pair *pair)
{
	pair->holds_frame = true;
	pair->rx_waits = !pair->receiveq.ops->arm(&pair->receiveq);
	vnet_worker_update_port(pair);
}

static void flush(struct vnet_worker *w)
{
	struct vnet_engine *e = w->engine;

	while (w->dirty) {
		struct vnet_pair *pair = w->dirty;

		w->dirty = pair->next_dirty;
		pair->dirty = false;
		if (pair->receiveq.ops->publish(&pair->receiveq)) {
			vnet_vring_notify(&pair->receiveq);
			vnet_count(&pair->stats.rx_notifications, 1);
		}
	}
	for (uint32_t i = 0; w->wake_due && i < e->worker_count; i++) {
		if (w->wake_due >> (i % 64) & 1)
			vnet_worker_wake(&e->workers[i]);
	}
	w->wake_due = 0;
}

uint32_t vnet_rx_burst(struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget)
{
	uint32_t frames = 0;

	while (frames < budget && !pair->rx_waits) {
		struct vnet_slot *slot = vnet_slot(&w->engine->slots, pair->slot);
		int got = pair->holds_frame ? 1 : read_frame(w, pair, slot);

		if (got == -EAGAIN)
			break;
		frames++;
		if (!got)
			continue;
		pair->holds_frame = false;
		if (judge(w, pair, slot) && !deliver(w, pair, slot))
			wait_for_buffers(pair);
	}
	flush(w);
	return frames;
}

void vnet_rx_inbound(struct vnet_worker *w, uint32_t budget)
{
	struct vnet_engine *e = w->engine;

	for (uint32_t i = 0; i < budget; i++) {
		uint32_t number = vnet_queue_take(&w->inbound);
		struct vnet_slot *slot;
		struct vnet_pair *pair;

		if (number == VNET_SLOT_NONE)
			break;
		slot = vnet_slot(&e->slots, number);
		pair = &e->pairs[slot->queue];
		/* Stopped since it was steered.  A policy cannot have gone: its inbound queues empty first. */
		if (!vnet_rx_active(e, pair->index)) {
			vnet_count_shared(&pair->stats.rx_drop_queue_off, 1);
		} else {
			enum place result = place(w, pair, slot);

			if (result == NO_BUFFERS)
				vnet_count(&pair->stats.rx_drop_overruns, 1);
			if (result == PLACED)
				vnet_count(&pair->stats.rx_handoffs, 1);
			after_place(w, pair);
		}
		vnet_queue_put(&e->slots.free, number);
	}
	flush(w);
}
