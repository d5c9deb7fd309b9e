/* SPDX-License-Identifier: MIT */
/*
 * The receive line of long frames: read from the host port straight into the
 * buffers of the receiveq, which spares a copy of every byte but the first.
 *
 * Theory
 *   Where a frame goes is known before it is read only if nothing looks at it
 *   on its way: no filter, no MTU, no choice of the receiveq (U-63), and if
 *   nothing of it has to be changed: the driver completes checksums itself.
 *   Even then what is judged lies in private memory: its header and its first
 *   bytes, as far as anybody looks, are read into a slot, the rest into the
 *   buffers.  Header and first bytes are written into those last; nothing is
 *   ever read from them (VIO-SPL-04).
 *
 *   So chains are taken for the longest frame there may be.  Those that it did
 *   not need go back.  Where there are not so many, and where the frame turns
 *   out to be short, it goes the way of all others.  Only a frame refused for
 *   its header leaves bytes in buffers that are not used.
 *
 *   Frames before it tell whether a frame may be long.
 *
 * The kernel writes by address and holds no page: a hole punched into guest
 * memory is filled again when a frame comes.
 */
#include "rx.h"

#include <errno.h>

#include "stats.h"

#define HEAD VNET_RX_HEAD
#define PIECES_MAX 128u /* of the buffers taken; more of them are no gain */

/* Chains in hand, from the front of w->scratch.chains. */
struct direct {
	struct vnet_worker *w;
	struct vnet_pair *pair;
	struct vnet_slot *slot;
	uint32_t chains;
	uint64_t room;
};

static bool is_usable(const struct direct *d, uint32_t chain)
{
	const struct vnet_chain *c = &d->w->scratch.chains[chain];

	return !vnet_chain_malformed(c) && !c->readable &&
	       (chain || c->write_bytes >= d->w->policy->header_length);
}

/* How many chains more, by the size of the last one. */
static uint32_t appetite(const struct direct *d, uint64_t wanted)
{
	uint64_t n = 1;

	if (d->chains) {
		uint32_t last = d->w->scratch.chains[d->chains - 1].write_bytes;

		n += (wanted - d->room) / (last ? last : 1);
	}
	return n < VNET_POP_MAX ? (uint32_t)n : VNET_POP_MAX;
}

/*
 * Take chains for the longest frame there may be.
 * Return: are they all there, and as they should be?
 */
static bool take_chains(struct direct *d)
{
	struct vnet_worker *w = d->w;
	struct vnet_vring *vr = &d->pair->receiveq;
	uint64_t wanted = w->policy->header_length + VNET_FRAME_MAX;

	w->scratch.pieces.count = 0;
	while (d->room < wanted && (!d->chains || w->policy->merge_rx)) {
		int got = vr->ops->pop_burst(vr, w->mem, &w->scratch.pieces,
					     &w->scratch.chains[d->chains], appetite(d, wanted));
		uint32_t end = d->chains + (got > 0 ? (uint32_t)got : 0);
		bool usable = w->scratch.pieces.count <= PIECES_MAX;

		if (got <= 0)
			break;
		for (; d->chains < end; d->chains++) {
			usable = usable && is_usable(d, d->chains);
			d->room += w->scratch.chains[d->chains].write_bytes;
		}
		if (!usable)
			return false;
	}
	return vr->running && d->room >= wanted;
}

/* Those from @from on go back, as if never taken. */
static void give_back(const struct direct *d, uint32_t from)
{
	struct vnet_vring *vr = &d->pair->receiveq;

	vr->ops->rewind(vr, &d->w->scratch.chains[from], d->chains - from);
}

/* Where the parts of a frame go, its header first.  Return: how many there are */
static uint32_t lay_out(const struct direct *d, struct iovec *parts)
{
	const struct vnet_pieces *pieces = &d->w->scratch.pieces;
	uint32_t length = d->w->policy->header_length, skip = length + HEAD, count = 0;

	parts[count++] = (struct iovec){ vnet_slot_start(d->slot), VNET_PORT_HDR + HEAD };
	for (uint32_t i = 0; i < pieces->count; i++) {
		const struct iovec *piece = &pieces->iov[i];

		if (skip >= piece->iov_len) {
			skip -= (uint32_t)piece->iov_len;
			continue;
		}
		parts[count++] =
			(struct iovec){ (uint8_t *)piece->iov_base + skip, piece->iov_len - skip };
		skip = 0;
	}
	/* One byte more than a frame may have, so that a longer one shows. */
	parts[count++] = (struct iovec){ d->slot->frame + VNET_FRAME_MAX, 1 };
	return count;
}

/* Header and first bytes, and off it goes.  Return: chains used */
static uint32_t finish(const struct direct *d)
{
	const struct iovec *iov = d->w->scratch.pieces.iov;
	const struct vnet_chain *chains = d->w->scratch.chains;
	struct vnet_vring *vr = &d->pair->receiveq;
	uint32_t need = d->w->policy->header_length + d->slot->len, used = 0;
	uint32_t lens[PIECES_MAX];

	for (; need; used++) {
		lens[used] = chains[used].write_bytes < need ? chains[used].write_bytes : need;
		need -= lens[used];
	}
	vnet_mem_write(iov, vnet_rx_write_header(d->w, d->slot, used, iov), d->slot->frame, HEAD);
	vr->ops->push_burst(vr, chains, lens, used);
	d->pair->rx_chains = used;
	vnet_count(&d->pair->stats.rx_packets, 1);
	vnet_count(&d->pair->stats.rx_bytes, d->slot->len);
	vnet_count(&d->pair->stats.rx_direct, 1);
	return used;
}

/* Return: bytes; -EMSGSIZE: one that is lost; 0 or -errno: there is none */
static int read_parts(const struct direct *d)
{
	struct iovec parts[PIECES_MAX + 2];
	int got = d->pair->port.ops->recv_parts(&d->pair->port, parts, lay_out(d, parts));

	if (got == -ENODEV)
		vnet_worker_port_gone(d->pair);
	if (got != -EFAULT)
		return got;
	vnet_mem_lose(
		d->w->mem); /* the file behind it was cut off, and the frame is gone with it */
	return -EMSGSIZE;
}

/* No buffers at all: a long frame waits where it is, and is not copied to wait here. */
static bool waits(struct vnet_pair *pair)
{
	struct vnet_vring *vr = &pair->receiveq;

	pair->rx_waits = vr->running && !vr->ops->arm(vr);
	vnet_worker_update_port(pair);
	return pair->rx_waits;
}

enum vnet_direct vnet_rx_direct(struct vnet_worker *w, struct vnet_pair *pair)
{
	struct direct d = { .w = w, .pair = pair, .slot = w->io.slots[0] };
	uint32_t used = 0, whole;
	int got;

	if (!take_chains(&d)) {
		give_back(&d, 0);
		vnet_rx_placed(w, pair);
		return !d.chains && waits(pair) ? VNET_DIRECT_NONE : VNET_DIRECT_NOT;
	}
	got = read_parts(&d);
	if (got < 0 && got != -EMSGSIZE) {
		give_back(&d, 0);
		return VNET_DIRECT_NONE;
	}
	w->scratch.rx.lengths[0] = got;
	vnet_rx_take_read(w, pair, 1, &whole);
	if (whole && d.slot->len <= HEAD) {
		give_back(&d, 0);
		vnet_rx_process(w, pair, 1);
		return VNET_DIRECT_FRAME;
	}
	if (whole && vnet_rx_judge(w, pair, 1))
		used = finish(&d);
	give_back(&d, used);
	vnet_rx_placed(w, pair);
	return VNET_DIRECT_FRAME;
}
