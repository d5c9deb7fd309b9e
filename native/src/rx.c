/* SPDX-License-Identifier: MIT */
/*
 * THE receive line, host port → receiveq:
 *
 *   read → parse → filter → MTU → offloads → [program] → hash → steer →
 *   pop → copy → push → publish
 *
 * Frames go along it in batches, step by step: what one step of a frame waits
 * for is on its way while the frames before it are looked at.  From pop on it
 * is rx_place.c.
 *
 * A frame is read into private memory: what judges it (filter, hash) must
 * not look at bytes the driver can change (U-63), and the receiveq is known
 * only after the hash.  From there it is copied once, into the buffers.
 *
 * Slots that frames are read into are the worker's and needed again for the
 * next batch.  A frame that has to wait is copied into the pair's own slots, in
 * order (the *hold*, U-43), and no other is read before those are placed; one
 * for another worker's receiveq is copied into a slot of the pool.  So batches
 * are no longer than what the receiveq seems to have room for.
 *
 * Long frames may spare that copy: rx_direct.c.
 *
 * Where frames end: every frame read is counted once, in rx_packets or in the
 * rx_drop_* that names the reason.
 */
#include "rx.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "filter.h"
#include "offload.h"
#include "stats.h"

#define VLAN_TAG 4u

/*
 * In automatic mode a frame whose receiveq is off goes to another that runs
 * (NET-MQ-07), under RSS it is dropped (NET-RSS-03, U-11).
 */
static uint32_t reachable(struct vnet_worker *w, uint32_t queue)
{
	const struct vnet_steering *s = &w->policy->steering;
	bool automatic = s->mode == VNET_STEER_AUTOMATIC;

	if (vnet_rx_active(w->engine, queue) || VNET_SPOILT(QUEUE_CHOICE_MIXED_UP, !automatic))
		return queue;
	for (uint32_t i = 1; i < s->pairs; i++) {
		uint32_t other = (queue + i) % s->pairs;

		if (other < w->engine->pair_count && vnet_rx_active(w->engine, other))
			return other;
	}
	return queue;
}

/* Give frames to the worker that owns their receiveq. */
static void hand_off(struct vnet_worker *w, struct vnet_pair *to, struct vnet_slot *const *slots,
		     uint32_t n)
{
	struct vnet_slots *pool = &w->engine->slots;
	uint32_t lost = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t fresh = vnet_queue_take(&pool->free);

		if (fresh == VNET_SLOT_NONE) {
			lost++;
			continue;
		}
		vnet_slot_copy(vnet_slot(pool, fresh), slots[i]);
		vnet_slot_label(vnet_slot(pool, fresh), to->index, w->policy->serial);
		if (!vnet_queue_put(&to->owner->inbound, fresh)) {
			vnet_queue_put(&pool->free, fresh);
			lost++;
		}
	}
	w->wake_due |= UINT64_C(1) << (to->owner->number % 64);
	if (lost)
		vnet_count_shared(&to->stats.rx_drop_handoff, lost);
}

/*
 * No buffers and nobody else to take the frames: poll the host port again once
 * the driver kicks, unless buffers came meanwhile.
 * @slots:	in the hold already, if anything is
 */
static void hold(struct vnet_pair *pair, struct vnet_slot *const *slots, uint32_t n)
{
	for (uint32_t i = 0, j = 0; i < n; i++) {
		struct vnet_slot *before = pair->hold[i];

		if (!pair->held) {
			vnet_slot_copy(before, slots[i]);
			continue;
		}
		while (pair->hold[j] != slots[i])
			j++;
		pair->hold[i] = pair->hold[j];
		pair->hold[j] = before;
	}
	pair->held = n;
	pair->rx_waits = !pair->receiveq.ops->arm(&pair->receiveq);
	vnet_worker_update_port(pair);
}

/* Frames that find no buffers are lost. */
static void place_all(struct vnet_worker *w, struct vnet_pair *pair, struct vnet_slot *const *slots,
		      uint32_t n)
{
	uint32_t done = vnet_rx_place(w, pair, slots, n);

	for (; done < n; done += vnet_rx_place(w, pair, &slots[done], n - done)) {
		vnet_count(&pair->stats.rx_drop_overruns, 1);
		done++;
	}
}

/* The same for frames of another pair's host port queue.  Return: how many found buffers */
static uint64_t place_strays(struct vnet_worker *w, struct vnet_pair *to,
			     struct vnet_slot *const *slots, uint32_t n)
{
	uint64_t before = to->stats.rx_packets, placed;

	place_all(w, to, slots, n);
	placed = to->stats.rx_packets - before;
	if (w->policy->steering.mode == VNET_STEER_RSS)
		vnet_count(&to->stats.rx_resteered, placed);
	return placed;
}

/* Return: how many are done with; those behind them wait for buffers */
static uint32_t deliver(struct vnet_worker *w, struct vnet_pair *pair, uint32_t queue,
			struct vnet_slot *const *slots, uint32_t n)
{
	struct vnet_pair *to;

	queue = reachable(w, queue);
	if (VNET_GUARD(RX_QUEUE_RUNNING,
		       queue >= w->engine->pair_count || !vnet_rx_active(w->engine, queue))) {
		vnet_count_shared(&pair->stats.rx_drop_queue_off, n);
		return n;
	}
	to = &w->engine->pairs[queue];
	if (to->owner != w)
		hand_off(w, to, slots, n);
	else if (to != pair)
		place_strays(w, to, slots, n);
	else if (w->policy->steering.mode == VNET_STEER_AUTOMATIC)
		return vnet_rx_place(w, to, slots, n);
	else
		place_all(w, to, slots, n);
	return n;
}

/*
 * Of the frames in @left, a bit each: those that go to the same receiveq as the first, in their order.
 * Return: how many, taken out of @left
 */
static uint32_t next_run(struct vnet_slot *const *slots, uint64_t *left, struct vnet_slot **run)
{
	uint16_t queue = slots[__builtin_ctzll(*left)]->queue;
	uint32_t count = 0;

	static_assert(VNET_BATCH < 64, "a bit for each");
	for (uint64_t rest = *left; rest; rest &= rest - 1) {
		struct vnet_slot *slot = slots[__builtin_ctzll(rest)];

		if (slot->queue != queue)
			continue;
		run[count++] = slot;
		*left &= ~(rest & -rest);
	}
	return count;
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

static void parse(struct vnet_rx_batch *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		b->frames[i] = b->slots[i]->frame;
		b->lens[i] = b->slots[i]->len;
	}
	vnet_parse_batch(b->frames, b->lens, n, b->flows);
}

/* MTU → offloads. Return: the counter of frames lost for the same reason; NULL: the driver may see it */
static uint64_t *verdict(const struct vnet_policy *policy, struct vnet_pair_stats *stats,
			 struct vnet_slot *slot, const struct vnet_flow *flow)
{
	struct virtio_net_hdr_v1 header;

	memcpy(&header, slot->header, sizeof(header));
	if (VNET_GUARD(RX_MTU, too_long(policy, slot, &header, flow)))
		return &stats->rx_drop_mtu;
	if (!offloads_allowed(policy, slot, &header, flow))
		return &stats->rx_drop_offload;
	return NULL;
}

/* Nothing is asked for, and it is short enough whatever tags it has: no verdict needs more. */
static bool is_plain(const struct vnet_policy *policy, const struct vnet_slot *slot)
{
	const uint8_t *header = slot->header;

	return !(header[offsetof(struct virtio_net_hdr_v1, flags)] |
		 header[offsetof(struct virtio_net_hdr_v1, gso_type)]) &&
	       (!policy->mtu || slot->len <= policy->mtu);
}

/*
 * parse → filter → MTU → offloads: frames the driver may not see leave the batch.
 * A frame is parsed only if somebody asks for what is found there.
 * Return: how many are left, with a flow each if it is hashed
 */
static uint32_t judge(struct vnet_worker *w, struct vnet_pair *pair, uint32_t n)
{
	const struct vnet_policy *policy = w->policy;
	bool filtered = !(policy->filter.modes & VNET_FILTER_PROMISC);
	bool parsed = filtered || policy->wants_hash;
	struct vnet_rx_batch *b = &w->scratch.rx;
	uint32_t left = 0;

	if (parsed)
		parse(b, n);
	for (uint32_t i = 0; i < n; i++) {
		struct vnet_slot *slot = b->slots[i];
		struct vnet_flow *flow = &b->flows[i];
		uint64_t *drop = NULL;

		if (filtered &&
		    !vnet_filter_passes(&policy->filter, slot->frame, slot->len, flow)) {
			drop = &pair->stats.rx_drop_filtered;
		} else if (is_plain(policy, slot)) {
			slot->shown = (struct virtio_net_hdr_v1){ 0 };
		} else {
			if (!parsed)
				vnet_parse(slot->frame, slot->len, flow);
			drop = verdict(policy, &pair->stats, slot, flow);
		}
		if (drop) {
			vnet_count(drop, 1);
			continue;
		}
		b->slots[left] = slot;
		if (parsed && left != i)
			b->flows[left] = *flow;
		left++;
	}
	return left;
}

/* hash → steer. Return: do all go to the same receiveq? */
static bool classify(struct vnet_worker *w, const struct vnet_pair *pair, uint32_t n)
{
	static const struct vnet_hash none = { 0, VIRTIO_NET_HASH_REPORT_NONE };
	const struct vnet_policy *policy = w->policy;
	struct vnet_rx_batch *b = &w->scratch.rx;
	bool wants_hash = policy->wants_hash;
	uint32_t differ = 0, first = 0;

	if (wants_hash)
		vnet_hash_batch(&policy->toeplitz, b->flows, n, b->hashes);
	for (uint32_t i = 0; i < n; i++) {
		struct vnet_hash hash = wants_hash ? b->hashes[i] : none;
		struct vnet_slot *slot = b->slots[i];
		uint16_t queue = vnet_steer(policy, hash, pair->index);

		slot->hash_value = hash.value;
		slot->hash_report = hash.report;
		slot->queue = queue;
		first = i ? first : queue;
		differ |= queue ^ first;
	}
	return !differ;
}

uint32_t vnet_rx_judge(struct vnet_worker *w, struct vnet_pair *pair, uint32_t n)
{
	uint32_t left = judge(w, pair, n);

	classify(w, pair, left);
	return left;
}

void vnet_rx_process(struct vnet_worker *w, struct vnet_pair *pair, uint32_t n)
{
	struct vnet_slot **slots = w->scratch.rx.slots;
	uint32_t left = judge(w, pair, n), done;
	bool together = classify(w, pair, left);

	if (left && w->policy->steering.mode == VNET_STEER_AUTOMATIC) {
		done = deliver(w, pair, slots[0]->queue, slots, left);
		if (done < left) {
			hold(pair, &slots[done], left - done);
			return;
		}
	} else if (left && together) {
		deliver(w, pair, slots[0]->queue, slots, left);
	} else {
		struct vnet_slot *run[VNET_BATCH];
		uint64_t rest = (UINT64_C(1) << left) - 1;

		while (rest) {
			uint32_t count = next_run(slots, &rest, run);

			deliver(w, pair, run[0]->queue, run, count);
		}
	}
	pair->held = 0;
}

/* An average: one short frame among long ones, the end of somebody's message, changes little. */
static void remember_length(struct vnet_pair *pair, uint32_t len)
{
	pair->rx_length = pair->rx_length - pair->rx_length / 8 + len / 8;
}

uint32_t vnet_rx_take_read(struct vnet_worker *w, struct vnet_pair *pair, uint32_t count,
			   uint32_t *whole)
{
	struct vnet_rx_batch *b = &w->scratch.rx;
	uint32_t frames = 0;

	*whole = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct vnet_slot *slot = w->io.slots[i];
		int32_t n = b->lengths[i];

		if (n < 0 && n != -EMSGSIZE)
			continue;
		frames++;
		if (VNET_GUARD(RX_PORT_SHORT, n < (int32_t)VNET_PORT_HDR ||
						      (uint32_t)n - VNET_PORT_HDR > VNET_FRAME_MAX))
			continue;
		slot->len = (uint32_t)n - (uint32_t)VNET_PORT_HDR;
		slot->csum_completed = 0;
		b->slots[(*whole)++] = slot;
	}
	if (*whole)
		remember_length(pair, b->slots[*whole - 1]->len);
	vnet_count(&pair->stats.rx_port_frames, frames);
	if (frames != *whole)
		vnet_count(&pair->stats.rx_drop_port, frames - *whole);
	return frames;
}

/*
 * Read @n frames or fewer. Return: how many there were
 * @whole: how many of them are in the batch
 */
static uint32_t read_frames(struct vnet_worker *w, struct vnet_pair *pair, uint32_t n,
			    uint32_t *whole)
{
	int got;

	*whole = 0;
	/* A detached queue may still hold frames here; reading it would answer as if it were gone. */
	if (!pair->port.attached)
		return 0;
	got = pair->port.ops->recv(&pair->port, &w->io, w->io.slots, w->scratch.rx.lengths, n);
	if (got == -ENODEV)
		vnet_worker_port_gone(pair);
	/* EIO: down, EINTR: again on the next round */
	return got <= 0 ? 0 : vnet_rx_take_read(w, pair, (uint32_t)got, whole);
}

/* How many frames to read: as many as there were last time, and no more than there seem to be buffers for. */
static uint32_t batch_size(const struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget)
{
	struct vnet_vring *vr = &pair->receiveq;
	uint32_t n = pair->rx_batch < budget ? pair->rx_batch : budget;

	if (n > 1 && vr->running && w->policy->steering.mode == VNET_STEER_AUTOMATIC) {
		uint32_t room = vr->ops->ready(vr, n * pair->rx_chains) / pair->rx_chains;

		n = n < room ? n : room;
	}
	return n ? n : 1;
}

/* Twice as many where the host port had as many as were asked for: it may have more. */
static void adapt(struct vnet_pair *pair, uint32_t asked, uint32_t frames)
{
	if (frames < asked)
		pair->rx_batch = frames ? frames : 1;
	else if (asked == pair->rx_batch)
		pair->rx_batch = asked < VNET_BATCH / 2 ? 2 * asked : VNET_BATCH;
}

uint32_t vnet_rx_burst(struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget)
{
	uint32_t frames = 0;

	while (frames < budget && !pair->rx_waits) {
		uint32_t asked = pair->held, n = asked, whole = asked;
		enum vnet_direct direct = VNET_DIRECT_NOT;

		if (vnet_rx_direct_due(w, pair))
			direct = vnet_rx_direct(w, pair);
		if (direct == VNET_DIRECT_NONE)
			break;
		if (direct == VNET_DIRECT_FRAME) {
			frames++;
			if (w->engine->poll_us)
				vnet_rx_flush(w); /* as below */
			continue;
		}
		if (asked) {
			memcpy(w->scratch.rx.slots, pair->hold, asked * sizeof(pair->hold[0]));
		} else {
			asked = batch_size(w, pair, budget - frames);
			n = read_frames(w, pair, asked, &whole);
			adapt(pair, asked, n);
		}
		frames += n;
		vnet_rx_process(w, pair, whole);
		if (n < asked)
			break; /* there are no more */
		/* A single one may be all that its driver waits for; who polls is in a hurry. */
		if (n == 1 && w->engine->poll_us)
			vnet_rx_flush(w);
	}
	vnet_rx_flush(w);
	return frames;
}

/* Frames of one receiveq that other workers steered here. */
static void place_inbound(struct vnet_worker *w, struct vnet_pair *pair,
			  struct vnet_slot *const *slots, uint32_t n)
{
	/* Stopped since they were steered.  A policy cannot have gone: its inbound queues empty first. */
	if (!vnet_rx_active(w->engine, pair->index)) {
		vnet_count_shared(&pair->stats.rx_drop_queue_off, n);
		return;
	}
	vnet_count(&pair->stats.rx_handoffs, place_strays(w, pair, slots, n));
}

void vnet_rx_inbound(struct vnet_worker *w, uint32_t budget)
{
	struct vnet_slots *pool = &w->engine->slots;

	while (budget) {
		struct vnet_slot *slots[VNET_BATCH], *run[VNET_BATCH];
		uint32_t numbers[VNET_BATCH], n = 0;
		uint64_t rest;

		for (; n < VNET_BATCH && n < budget; n++) {
			numbers[n] = vnet_queue_take(&w->inbound);
			if (numbers[n] == VNET_SLOT_NONE)
				break;
			slots[n] = vnet_slot(pool, numbers[n]);
			vnet_mem_prefetch(slots[n]);
			vnet_mem_prefetch(&slots[n]->frame[VNET_MEM_LINE / 2]);
		}
		if (!n)
			break;
		rest = (UINT64_C(1) << n) - 1;
		while (rest) {
			uint32_t count = next_run(slots, &rest, run);

			place_inbound(w, &w->engine->pairs[run[0]->queue], run, count);
		}
		for (uint32_t i = 0; i < n; i++)
			vnet_queue_put(&pool->free, numbers[i]);
		budget -= n;
	}
	vnet_rx_flush(w);
}
