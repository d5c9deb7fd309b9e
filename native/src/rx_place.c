/* SPDX-License-Identifier: MIT */
/*
 * The end of the receive line: pop → copy → push → publish.
 *
 * Theory
 *   Buffers of one receiveq are popped for many frames at once, the *window*:
 *   their cache lines are on their way while the first of them are filled.
 *   Frames take chains from its front; what is left at the end goes back as if
 *   never popped.  A frame gets all the buffers it needs or none (OUR-RX-20).
 */
#include "rx.h"

#include <errno.h>

#include "capture.h"
#include "mutants.h"
#include "stats.h"

enum place { PLACED, NO_BUFFERS, DROPPED };

/* Chains in hand: pushed ≤ begin ≤ at ≤ have, as places in w->scratch.chains. */
struct window {
	struct vnet_worker *w;
	struct vnet_pair *pair;
	uint32_t pushed; /* those before are staged */
	uint32_t begin;  /* the first one of the frame in hand */
	uint32_t at;     /* the next one to take */
	uint32_t have;
	uint32_t wanted; /* frames still to come, this one among them */
	uint64_t used, bytes, csum_completed, too_big, bad_buffer, queue_off;
	uint32_t lens[VNET_CHAIN_MAX];
};

/* Give the driver what frames before this one filled. */
static void push(struct window *win)
{
	struct vnet_vring *vr = &win->pair->receiveq;
	uint32_t n = win->begin - win->pushed;

	vr->ops->push_burst(vr, &win->w->scratch.chains[win->pushed], &win->lens[win->pushed], n);
	win->pushed = win->begin;
	win->used += n;
}

static void give_back(struct window *win, uint32_t from)
{
	struct vnet_vring *vr = &win->pair->receiveq;

	if (win->have > from)
		vr->ops->rewind(vr, &win->w->scratch.chains[from], win->have - from);
	win->have = win->at = from;
}

/* Nothing is in hand: begin again at the front. */
static void rewind_window(struct window *win)
{
	push(win);
	give_back(win, win->begin);
	win->pushed = win->begin = win->at = win->have = 0;
	win->w->scratch.pieces.count = 0;
}

/* How many chains to pop: one a frame, or what is missing of a long frame by the size of its last buffer. */
static uint32_t appetite(const struct window *win, uint64_t missing)
{
	uint64_t n = win->wanted;

	if (win->at != win->begin) {
		uint32_t last = win->w->scratch.chains[win->at - 1].write_bytes;

		n = missing / (last ? last : 1) + 1;
	}
	return n < VNET_POP_MAX ? (uint32_t)n : VNET_POP_MAX;
}

/* Return: as pop_burst(); -ENOSPC: more than this frame may have */
static int pop_more(struct window *win, uint64_t missing)
{
	struct vnet_worker *w = win->w;
	struct vnet_vring *vr = &win->pair->receiveq;
	uint32_t most = appetite(win, missing);
	int got;

	if (win->at == win->begin)
		rewind_window(win);
	push(win); /* a ring that breaks in pop_burst() publishes what it was given */
	if (most > VNET_CHAIN_MAX - win->have)
		most = VNET_CHAIN_MAX - win->have;
	if (!most)
		return -ENOSPC;
	got = vr->ops->pop_burst(vr, w->mem, &w->scratch.pieces, &w->scratch.chains[win->have],
				 most);
	if (got > 0)
		win->have += (uint32_t)got;
	return got;
}

/*
 * The header of a frame as the driver negotiated it (U-03: no old bytes), in words: a CPU waits for
 * what was stored in small pieces and is loaded in larger ones a moment later.
 */
struct front {
	uint64_t words[2];
	uint32_t report; /* in a header of 20 bytes only, as the upper half of the second word */
};

static inline struct front make_front(const struct vnet_slot *slot, uint32_t buffers)
{
	struct front f;
	uint16_t csum_offset = slot->shown.csum_offset;

	static_assert(offsetof(struct virtio_net_hdr_v1, csum_offset) == 8, "csum_offset");
	static_assert(offsetof(struct virtio_net_hdr_v1, num_buffers) == 10, "num_buffers");
	static_assert(offsetof(struct virtio_net_hdr_v1_hash, hash_value_low) == 12, "hash_value");
	static_assert(offsetof(struct virtio_net_hdr_v1_hash, hash_report) == 16, "hash_report");
	memcpy(&f.words[0], &slot->shown, sizeof(f.words[0]));
	f.words[1] = csum_offset | (buffers & 0xffff) << 16 | (uint64_t)slot->hash_value << 32;
	f.report = slot->hash_report;
	VNET_MUTATE(front, f.words, &f.report);
	return f;
}

/* The chains up to the one at hand have their frame. */
static inline void filled(struct window *win, const struct vnet_slot *slot)
{
	win->begin = win->at;
	win->bytes += slot->len;
	win->csum_completed += slot->csum_completed;
}

uint32_t vnet_rx_write_header(const struct vnet_worker *w, const struct vnet_slot *slot,
			      uint32_t buffers, const struct iovec *iov)
{
	struct front front = make_front(slot, buffers);

	if (w->policy->header_length == sizeof(struct virtio_net_hdr_v1)) {
		vnet_mem_write(iov, 0, &front, sizeof(struct virtio_net_hdr_v1));
		return sizeof(struct virtio_net_hdr_v1);
	}
	vnet_mem_write(iov, 0, &front, sizeof(struct virtio_net_hdr_v1_hash));
	return sizeof(struct virtio_net_hdr_v1_hash);
}

/* Fill the chains taken.  Every buffer but the last is filled to the brim (NET-RX-02). */
static void fill(struct window *win, const struct vnet_slot *slot)
{
	const struct vnet_chain *chains = win->w->scratch.chains;
	const struct iovec *iov = &win->w->scratch.pieces.iov[chains[win->begin].first];
	uint32_t length = vnet_rx_write_header(win->w, slot, win->at - win->begin, iov);
	uint32_t need = length + slot->len;

	vnet_mem_write(iov, length, slot->frame, slot->len);
	for (uint32_t i = win->begin; i < win->at; i++) {
		win->lens[i] = chains[i].write_bytes < need ? chains[i].write_bytes : need;
		need -= win->lens[i];
	}
	VNET_MUTATE(lens, &chains[win->begin], &win->lens[win->begin], win->at - win->begin,
		    length);
	filled(win, slot);
}

/* Is the chain just taken one that a receiveq may hold? */
static bool usable(const struct window *win, const struct vnet_chain *chain)
{
	if (vnet_chain_malformed(chain) || VNET_GUARD(RX_DIRECTION, chain->readable))
		return false;
	return !VNET_GUARD(RX_HEADER_FITS,
			   win->at - win->begin == 1 &&
				   chain->write_bytes < win->w->policy->header_length);
}

/* Buffers no driver may offer: all that were taken go back with len 0, the frame is lost (U-55). */
static enum place bad_buffer(struct window *win)
{
	for (; win->begin < win->at; win->begin++)
		win->lens[win->begin] = 0;
	win->bad_buffer++;
	return DROPPED;
}

/* The buffers are the next frame's. */
static enum place unfit(struct window *win)
{
	win->at = win->begin;
	win->too_big++;
	return DROPPED;
}

/* The commonest chain takes all of the frame in one piece, and there is nothing to find fault with. */
static inline bool place_short(struct window *win, const struct vnet_slot *slot)
{
	const struct vnet_worker *w = win->w;
	const struct vnet_chain *chain = &w->scratch.chains[win->at];
	uint32_t length = w->policy->header_length;
	struct front front;
	uint8_t *to;

	if (win->at >= win->have || chain->readable || chain->writable != 1 ||
	    chain->write_bytes < (uint64_t)length + slot->len)
		return false;
	to = w->scratch.pieces.iov[chain->first].iov_base;
	front = make_front(slot, 1);
	vnet_mem_store64(to, front.words[0]);
	if (length == sizeof(struct virtio_net_hdr_v1)) {
		vnet_mem_store32(to + sizeof(uint64_t), (uint32_t)front.words[1]);
	} else {
		vnet_mem_store64(to + sizeof(uint64_t), front.words[1]);
		vnet_mem_store32(to + sizeof(front.words), front.report);
	}
	vnet_mem_copy(to + length, slot->frame, slot->len);
	win->lens[win->at++] = length + slot->len;
	VNET_MUTATE(lens, chain, &win->lens[win->at - 1], 1, length);
	filled(win, slot);
	return true;
}

/* Take chains until the frame fits, then fill them: all or nothing. */
static enum place place(struct window *win, const struct vnet_slot *slot)
{
	const struct vnet_worker *w = win->w;
	uint64_t need = (uint64_t)w->policy->header_length + slot->len, room = 0;

	while (room < need) {
		uint32_t taken = win->at - win->begin;

		if (taken && !w->policy->merge_rx && VNET_MUTANT(FRAME_CUT)) {
			VNET_MUTATE(length, slot, room - w->policy->header_length);
			break;
		}
		if (taken && VNET_GUARD(RX_NO_MERGE, !w->policy->merge_rx))
			return unfit(win);
		if (taken == win->pair->receiveq.size)
			return unfit(win);
		if (win->at >= win->have) {
			int got = pop_more(win, need - room);

			if (got == -EPIPE) {
				win->pushed = win->begin = win->at = win->have;
				win->queue_off++;
				return DROPPED;
			}
			if (got == -ENOSPC && !win->begin)
				return unfit(win);
			if (got == -ENOSPC) { /* too much is in hand, but not for this frame */
				rewind_window(win);
				room = 0;
				continue;
			}
			if (!got && taken && VNET_MUTANT(BUFFERS_LOST))
				return bad_buffer(win);
			if (VNET_GUARD(RX_OVERRUN, !got))
				return NO_BUFFERS;
		}
		win->at++;
		if (!usable(win, &w->scratch.chains[win->at - 1]))
			return bad_buffer(win);
		VNET_MUTATE(room, win->w, win->at - 1, need - room);
		room += w->scratch.chains[win->at - 1].write_bytes;
	}
	fill(win, slot);
	return PLACED;
}

/* Of @done frames those that were not lost are in their buffers. */
static void count(const struct window *win, uint32_t done)
{
	struct vnet_pair_stats *stats = &win->pair->stats;
	uint64_t packets = done - win->too_big - win->bad_buffer - win->queue_off;

	if (packets)
		win->pair->rx_chains = (uint32_t)((win->used + packets - 1) / packets);
	vnet_count(&stats->rx_packets, packets);
	vnet_count(&stats->rx_bytes, win->bytes);
	if (win->csum_completed)
		vnet_count(&stats->rx_csum_completed, win->csum_completed);
	if (win->too_big)
		vnet_count(&stats->rx_drop_too_big, win->too_big);
	if (win->bad_buffer)
		vnet_count(&stats->rx_drop_bad_buffer, win->bad_buffer);
	if (win->queue_off)
		vnet_count_shared(&stats->rx_drop_queue_off, win->queue_off);
}

/* A ring that broke under a frame is out of reach from now on. */
void vnet_rx_placed(struct vnet_worker *w, struct vnet_pair *pair)
{
	if (vnet_vring_staged(&pair->receiveq) && !pair->dirty) {
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

/* Return: how many are done with */
static inline uint32_t place_all(struct window *win, struct vnet_slot *const *slots, uint32_t n)
{
	uint32_t done = 0;

	for (; done < n; done++) {
		win->wanted = n - done;
		if (!place_short(win, slots[done]) && place(win, slots[done]) == NO_BUFFERS)
			break;
	}
	return done;
}

/* The same while somebody captures. */
static __attribute__((noinline)) uint32_t place_captured(struct window *win,
							 struct vnet_slot *const *slots, uint32_t n)
{
	uint32_t done = 0;

	for (; done < n; done++) {
		enum place how = PLACED;

		win->wanted = n - done;
		if (!place_short(win, slots[done]))
			how = place(win, slots[done]);
		if (how == NO_BUFFERS)
			break;
		if (how == PLACED)
			vnet_capture_rx(win->w, win->pair, slots[done]);
	}
	return done;
}

uint32_t vnet_rx_place(struct vnet_worker *w, struct vnet_pair *pair,
		       struct vnet_slot *const *slots, uint32_t n)
{
	struct window win;
	uint32_t done;

	win.w = w;
	win.pair = pair;
	win.pushed = win.begin = win.at = win.have = 0;
	win.used = win.bytes = win.csum_completed = 0;
	win.too_big = win.bad_buffer = win.queue_off = 0;
	w->scratch.pieces.count = 0;
	done = w->capture ? place_captured(&win, slots, n) : place_all(&win, slots, n);
	push(&win);
	give_back(&win, win.begin);
	count(&win, done);
	vnet_rx_placed(w, pair);
	return done;
}

void vnet_rx_flush(struct vnet_worker *w)
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
