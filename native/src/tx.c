/* SPDX-License-Identifier: MIT */
/*
 * THE transmit line, transmitq → host port, a batch at a time:
 *
 *   pop → copy → check → write → push → publish
 *
 * A frame that fits is copied once, header and all, into one of the worker's
 * transmit pages.  There it is judged, the header of our own making takes the
 * place of the driver's (so hash fields, num_buffers and garbage end here,
 * U-54), and from there it goes to the host port.  A longer one goes from the
 * driver's buffers as it lies, behind our header and, of a frame to be
 * segmented, a copy of its first bytes: what the kernel sees of those is what
 * was looked at.
 *
 * Frames leave in the order of their chains.  Where the host port is full, the
 * chains behind are given back to the ring.
 *
 * Every chain popped is counted once, in tx_packets or a tx_drop_*, and comes
 * back with len 0: nothing was written into it.
 */
#include "worker.h"

#include <errno.h>
#include <string.h>

#include "capture.h"
#include "mutants.h"
#include "offload.h"
#include "parse.h"
#include "sigbus.h"
#include "stats.h"

#define PIECES_MAX 1024u /* IOV_MAX */

static_assert(VNET_TX_BATCH <= VNET_POP_MAX, "a batch is one burst");
static_assert(VNET_TX_PAGE >= sizeof(struct virtio_net_hdr_v1_hash) + VNET_OFFLOAD_HEAD,
	      "what is judged fits a page");

/*
 * Two pieces made one.  A frame of VNET_FRAME_MAX bytes in so many pieces has a pair of
 * neighbours this small: were every second pair larger, it would be longer than that.
 * It is alone in its batch, for all its pieces are in hand.
 */
static_assert((uint64_t)(PIECES_MAX / 2) * (VNET_BOUNCE + 1) > VNET_FRAME_MAX, "VNET_BOUNCE");

static uint32_t join_two(struct vnet_tx_batch *b, struct iovec *iov, uint32_t count)
{
	for (uint32_t i = 1; i + 1 < count; i++) {
		size_t size = iov[i].iov_len + iov[i + 1].iov_len;

		if (size > sizeof(b->bounce))
			continue;
		vnet_mem_read(&iov[i], 0, b->bounce, (uint32_t)size);
		iov[i] = (struct iovec){ b->bounce, size };
		memmove(&iov[i + 1], &iov[i + 2], (count - i - 2) * sizeof(*iov));
		return count - 1;
	}
	return count;
}

/* @front, then the chain's pieces from @skip bytes on, wherever the driver cut it (VIO-SPL-01). */
static void assemble(struct vnet_worker *w, const struct vnet_chain *chain, struct iovec front,
		     uint32_t skip)
{
	struct vnet_tx_batch *b = &w->scratch.tx;
	struct iovec *iov = &b->iov[b->iov_count];
	uint32_t count = 1;

	iov[0] = front;
	for (uint32_t i = 0; i < chain->readable; i++) {
		struct iovec piece = w->scratch.pieces.iov[chain->first + i];

		if (skip >= piece.iov_len) {
			skip -= (uint32_t)piece.iov_len;
			continue;
		}
		iov[count++] =
			(struct iovec){ (uint8_t *)piece.iov_base + skip, piece.iov_len - skip };
		skip = 0;
	}
	if (count > PIECES_MAX)
		count = join_two(b, iov, count);
	b->frames[b->count] = (struct vnet_tx_frame){ iov, count, false };
	b->iov_count += count;
}

static bool judge_asking(const struct vnet_worker *w, const struct virtio_net_hdr_v1 *header,
			 uint8_t *to, const uint8_t *head, uint32_t head_len, uint32_t len)
{
	struct virtio_net_hdr_v1 clean;
	struct vnet_flow flow;

	if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE)
		vnet_parse(head, head_len, &flow);
	if (!vnet_offload_clean(w->policy->tx_offloads, header, head, head_len, len, &flow, &clean))
		return false;
	memcpy(to, &clean, sizeof(clean));
	return true;
}

/*
 * OUR-TX-12: judge the driver's header at @from, and write the one for the host port to @to.
 * @head:	the frame's first @head_len bytes of @len; all of these in private memory
 */
static inline bool judge(const struct vnet_worker *w, const uint8_t *from, uint8_t *to,
			 const uint8_t *head, uint32_t head_len, uint32_t len)
{
	struct virtio_net_hdr_v1 header;

	memcpy(&header, from, sizeof(header));
	if (VNET_MUTANT(TX_HEADER_PASSED_ON)) {
		memmove(to, from, sizeof(header));
		return true;
	}
	if (header.flags > 3 && VNET_MUTANT(TX_UNKNOWN_FLAGS_REFUSED))
		return false;
	if (header.csum_start && VNET_MUTANT(TX_DEAD_FIELDS_USED))
		header.flags |= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (vnet_offload_asked(&header))
		return judge_asking(w, &header, to, head, head_len, len);
	memset(to, 0, sizeof(header));
	return true;
}

static bool chain_allowed(const struct vnet_worker *w, const struct vnet_chain *chain)
{
	uint32_t header = w->policy->header_length;

	if (VNET_GUARD(TX_DIRECTION, chain->writable))
		return false;
	if (VNET_GUARD(TX_FRAME_SHORT, chain->read_bytes < header + VNET_ETHERNET_HEADER))
		return false;
	return !VNET_GUARD(TX_FRAME_LONG, chain->read_bytes - header > VNET_FRAME_MAX);
}

static uint32_t head_of(uint32_t len)
{
	return len < VNET_OFFLOAD_HEAD ? len : VNET_OFFLOAD_HEAD;
}

/* The whole of it into @page; our header ends where the driver's did. */
static inline bool prepare_short(struct vnet_worker *w, const struct vnet_chain *chain,
				 uint8_t *page)
{
	struct vnet_tx_batch *b = &w->scratch.tx;
	uint32_t length = w->policy->header_length, frame = chain->read_bytes - length;
	const struct iovec *pieces = &w->scratch.pieces.iov[chain->first];
	struct iovec *iov = &b->iov[b->iov_count];
	uint8_t *front = page + length - VNET_PORT_HDR;

	if (chain->readable == 1)
		vnet_mem_read_piece(pieces->iov_base, page, chain->read_bytes);
	else
		vnet_mem_read_pieces(pieces, 0, page, chain->read_bytes);
	VNET_MUTATE(sent, pieces, chain->readable, page, length, &frame);
	if (!judge(w, page, front, page + length, head_of(frame), frame))
		return false;
	*iov = (struct iovec){ front, VNET_PORT_HDR + frame };
	b->frames[b->count] = (struct vnet_tx_frame){ iov, 1, true };
	b->iov_count++;
	return true;
}

/* Header and, where segments are asked for, the frame's first bytes into @page; the rest as it lies. */
static bool prepare_long(struct vnet_worker *w, const struct vnet_chain *chain, uint8_t *page)
{
	uint32_t length = w->policy->header_length, frame = chain->read_bytes - length, head = 0;
	const struct iovec *iov = &w->scratch.pieces.iov[chain->first];

	vnet_mem_read(iov, 0, page, VNET_PORT_HDR);
	if (page[offsetof(struct virtio_net_hdr_v1, gso_type)] != VIRTIO_NET_HDR_GSO_NONE) {
		head = head_of(frame);
		vnet_mem_read(iov, length, page + VNET_PORT_HDR, head);
	}
	if (!judge(w, page, page, page + VNET_PORT_HDR, head, frame))
		return false;
	assemble(w, chain, (struct iovec){ page, VNET_PORT_HDR + head }, length + head);
	return true;
}

/* The commonest chain: a frame in one piece that fits a page.  No check finds anything in it. */
static inline bool is_common(const struct vnet_worker *w, const struct vnet_chain *chain)
{
	const uint32_t least = w->policy->header_length + VNET_ETHERNET_HEADER;

	return chain->readable == 1 && !chain->writable &&
	       chain->read_bytes - least <= VNET_TX_PAGE - least;
}

/* Return: it has a frame to give */
static __attribute__((noinline)) bool prepare_other(struct vnet_worker *w,
						    const struct vnet_chain *chain, uint8_t *page)
{
	if (vnet_chain_malformed(chain) || !chain_allowed(w, chain))
		return false;
	return chain->read_bytes <= VNET_TX_PAGE ? prepare_short(w, chain, page) :
						   prepare_long(w, chain, page);
}

/*
 * Make a frame of every chain that has one to give.
 * Return: false if memory went away under a copy: nobody knows what is whole
 */
static bool prepare(struct vnet_worker *w, uint32_t chains)
{
	struct vnet_tx_batch *b = &w->scratch.tx;
	uint32_t faults = vnet_sigbus_faults();

	b->count = b->iov_count = 0;
	for (uint32_t i = 0; i < chains; i++) {
		const struct vnet_chain *chain = &b->chains[i];
		uint8_t *page = vnet_tx_page(&w->io, i);

		if (is_common(w, chain) ? prepare_short(w, chain, page) :
					  prepare_other(w, chain, page))
			b->chain_of[b->count++] = i;
	}
	return faults == vnet_sigbus_faults();
}

/* Frames of a pair whose own host port queue is detached leave through another (U-12). */
static struct vnet_port_queue *port_of(struct vnet_worker *w, struct vnet_pair *pair)
{
	uint32_t attached = w->policy->port_queues < w->engine->port_count ?
				    w->policy->port_queues :
				    w->engine->port_count;

	return pair->index < attached ? &pair->port :
					&w->engine->pairs[pair->index % attached].port;
}

/* Nobody waits for a port queue of somebody else: what it does not take is lost. Return: frames done with */
static uint32_t send_frames(struct vnet_worker *w, struct vnet_pair *pair)
{
	struct vnet_port_queue *port = port_of(w, pair);
	struct vnet_tx_batch *b = &w->scratch.tx;
	uint32_t done = 0;

	while (done < b->count) {
		done += port->ops->send(port, &w->io, &b->frames[done], &b->results[done],
					b->count - done);
		if (b->results[done - 1] == -EAGAIN && port == &pair->port) {
			done--;
			break;
		}
	}
	return done;
}

/* Frames of memory that went away are not sent. Return: how many they are */
static uint32_t lose_frames(struct vnet_worker *w)
{
	struct vnet_tx_batch *b = &w->scratch.tx;

	for (uint32_t i = 0; i < b->count; i++)
		b->results[i] = -EFAULT;
	return b->count;
}

/*
 * The first @count chains of the batch are done with, and @sent frames, all that they had to give:
 * back they go, each counted once.
 */
static void settle(struct vnet_worker *w, struct vnet_pair *pair, uint32_t sent, uint32_t count)
{
	const struct vnet_tx_batch *b = &w->scratch.tx;
	uint64_t refused = 0, bytes = 0;

	for (uint32_t i = 0; i < sent; i++) {
		if (!b->results[i]) {
			bytes += b->chains[b->chain_of[i]].read_bytes;
			continue;
		}
		refused++;
		if (b->results[i] == -EFAULT)
			vnet_mem_lose(w->mem); /* the file behind it was cut off */
	}
	if (w->capture)
		vnet_capture_tx(w, pair, sent);
	vnet_count(&pair->stats.tx_packets, sent - refused);
	vnet_count(&pair->stats.tx_bytes, bytes - (sent - refused) * w->policy->header_length);
	vnet_count(&pair->stats.tx_drop_malformed, count - sent);
	vnet_count(&pair->stats.tx_drop_port, refused);
	pair->transmitq.ops->push_burst(&pair->transmitq, b->chains, NULL, count);
}

/* Return: chains done with; fewer than @chains: the host port is full, the others are the ring's again */
static uint32_t carry(struct vnet_worker *w, struct vnet_pair *pair, uint32_t chains)
{
	struct vnet_tx_batch *b = &w->scratch.tx;
	struct vnet_vring *vr = &pair->transmitq;
	uint32_t sent, count;

	if (vr->disabled) {
		vnet_count(&pair->stats.tx_drop_queue_off, chains);
		vr->ops->push_burst(vr, b->chains, NULL, chains);
		return chains;
	}
	sent = prepare(w, chains) ? send_frames(w, pair) : lose_frames(w);
	count = sent < b->count ? b->chain_of[sent] : chains;
	settle(w, pair, sent, count);
	vr->ops->rewind(vr, &b->chains[count], chains - count);
	return count;
}

static void finish(struct vnet_worker *w, struct vnet_pair *pair, bool was_running)
{
	struct vnet_vring *vr = &pair->transmitq;

	if (vr->ops->publish(vr)) {
		vnet_vring_notify(vr);
		vnet_count(&pair->stats.tx_notifications, 1);
	}
	if (was_running && !vr->running) {
		vnet_count(&pair->stats.rings_broken, 1);
		vnet_worker_ring_broke(w);
	}
}

bool vnet_tx_arm(struct vnet_pair *pair)
{
	struct vnet_vring *vr = &pair->transmitq;

	pair->tx_ready = false;
	if (!vr->running || pair->tx_waits)
		return false;
	pair->tx_armed = true;
	pair->tx_ready = vr->ops->arm(vr);
	return pair->tx_ready;
}

uint32_t vnet_tx_burst(struct vnet_worker *w, struct vnet_pair *pair, uint32_t budget)
{
	struct vnet_vring *vr = &pair->transmitq;
	bool was_running = vr->running;
	uint32_t taken = 0;

	if (!was_running || pair->tx_waits) {
		pair->tx_ready = false;
		return 0;
	}
	if (pair->tx_armed) {
		vr->ops->disarm(vr);
		pair->tx_armed = false;
	}
	while (taken < budget) {
		uint32_t most = budget - taken < VNET_TX_BATCH ? budget - taken : VNET_TX_BATCH,
			 done;
		int got;

		w->scratch.pieces.count = 0;
		got = vr->ops->pop_burst(vr, w->mem, &w->scratch.pieces, w->scratch.tx.chains,
					 most);
		if (got <= 0) {
			pair->tx_ready = pair->tx_ready && !got;
			break;
		}
		done = carry(w, pair, (uint32_t)got);
		taken += done;
		if (done < (uint32_t)got) {
			pair->tx_ready = false;
			pair->tx_waits = true;
			vnet_worker_update_port(pair);
			break;
		}
	}
	finish(w, pair, was_running);
	return taken;
}
