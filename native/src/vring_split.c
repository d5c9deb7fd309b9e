/* SPDX-License-Identifier: MIT */
/*
 * The split virtqueue ("Split Virtqueues") behind vring.h.
 *
 * Every word the driver can write is read once: avail.idx when what it showed
 * before is used up, an avail entry when it is popped, a descriptor when the
 * walk reaches it, used_event when used.idx has been published.
 *
 * A walk is bounded before it begins: by the queue size in the descriptor
 * table, by the table's length in an indirect table, by VNET_CHAIN_MAX pieces.
 */
#include <errno.h>

#include "mutants.h"
#include "vring.h"

/* Where a walk stands. */
struct walk {
	struct vnet_vring *vr;
	const struct vnet_mem *mem;
	struct vnet_pieces *pieces;
	struct vnet_chain *chain;
	uint64_t read_bytes, write_bytes;
	bool malformed;
	enum vnet_break reason; /* with -EPIPE */
};

static int split_map(struct vnet_vring *vr, const struct vnet_mem *mem)
{
	uint64_t size = vr->size;
	uint8_t *desc = vnet_mem_pointer(mem, vr->desc_gpa, size * sizeof(struct virtq_desc));
	uint8_t *avail = vnet_mem_pointer(mem, vr->avail_gpa, 6 + 2 * size);
	uint8_t *used = vnet_mem_pointer(mem, vr->used_gpa, 6 + 8 * size);

	if (VNET_GUARD(RING_ADDRESS, !desc || !avail || !used))
		return -EINVAL;
	if (VNET_GUARD(RING_ALIGNMENT,
		       (vr->desc_gpa & 15) || (vr->avail_gpa & 1) || (vr->used_gpa & 3)))
		return -EINVAL;
	vr->desc_table = (const struct virtq_desc *)(void *)desc;
	vr->avail = (const uint16_t *)(void *)avail;
	vr->used = (uint16_t *)(void *)used;
	vr->used_ring = (struct virtq_used_elem *)(void *)(used + 4);
	vr->avail_event = (uint16_t *)(void *)(used + 4 + 8 * size);
	return 0;
}

static int broken(struct walk *w, enum vnet_break reason)
{
	w->reason = reason;
	return -EPIPE;
}

/* One buffer of a chain.  A malformed one is not looked at: no address of it is resolved. */
static int add_buffer(struct walk *w, const struct virtq_desc *desc)
{
	bool writable = desc->flags & VIRTQ_DESC_F_WRITE;
	uint64_t *bytes = writable ? &w->write_bytes : &w->read_bytes;
	struct vnet_pieces *p = w->pieces;
	int n;

	if (VNET_GUARD(ZERO_LENGTH, !desc->len) ||
	    VNET_GUARD(DIRECTION, !writable && w->chain->writable))
		w->malformed = true;
	*bytes += desc->len;
	if (VNET_GUARD(CHAIN_BYTES, *bytes > UINT32_MAX))
		w->malformed = true;
	if (w->malformed)
		return 0;
	n = vnet_mem_map(w->mem, &w->vr->last_run, desc->addr, desc->len, &p->iov[p->count],
			 VNET_CHAIN_MAX - p->count);
	if (n == -ENOSPC && w->chain->first)
		return n; /* alone it may fit: too much is in hand already */
	if (n < 0)
		return broken(w,
			      n == -EFAULT ? VNET_BREAK_DESC_ADDRESS : VNET_BREAK_CHAIN_TOO_LONG);
	p->count += (uint32_t)n;
	if (writable)
		w->chain->writable = (uint16_t)(w->chain->writable + n);
	else
		w->chain->readable = (uint16_t)(w->chain->readable + n);
	return 0;
}

/* The table is read where it lies, entry by entry, each entry once. */
static int load_indirect(struct walk *w, uint64_t table, uint32_t i, struct virtq_desc *desc)
{
	const void *at = vnet_mem_pointer(w->mem, table + 16ull * i, sizeof(*desc));
	struct iovec iov[2];

	if (at) {
		vnet_mem_load_desc(desc, at);
		return 0;
	}
	/* An entry at an odd address may straddle two runs. */
	if (vnet_mem_map(w->mem, &w->vr->last_run, table + 16ull * i, sizeof(*desc), iov, 2) < 0)
		return broken(w, VNET_BREAK_DESC_ADDRESS);
	vnet_mem_read(iov, 0, desc, sizeof(*desc));
	return 0;
}

static int walk_indirect(struct walk *w, const struct virtq_desc *indirect)
{
	uint32_t total = indirect->len / sizeof(struct virtq_desc), i = 0, seen = 0;

	if ((indirect->flags & VIRTQ_DESC_F_WRITE) && VNET_MUTANT(INDIRECT_WRITE_FLAG_JUDGED))
		return broken(w, VNET_BREAK_INDIRECT);
	if (VNET_GUARD(INDIRECT_NEGOTIATED, !w->vr->indirect) ||
	    VNET_GUARD(INDIRECT_NEXT, indirect->flags & VIRTQ_DESC_F_NEXT) ||
	    VNET_GUARD(INDIRECT_LENGTH,
		       !total || indirect->len % sizeof(struct virtq_desc) || total > 65536))
		return broken(w, VNET_BREAK_INDIRECT);
	for (;;) {
		struct virtq_desc desc;
		int error;

		if (VNET_GUARD(INDIRECT_LOOP, seen++ >= total))
			return broken(w, VNET_BREAK_DESC_LOOP);
		error = load_indirect(w, indirect->addr, i, &desc);
		if (error)
			return error;
		if (VNET_GUARD(INDIRECT_NESTED, desc.flags & VIRTQ_DESC_F_INDIRECT))
			return broken(w, VNET_BREAK_INDIRECT);
		error = add_buffer(w, &desc);
		if (error)
			return error;
		if (!(desc.flags & VIRTQ_DESC_F_NEXT))
			return 0;
		i = desc.next;
		if (VNET_GUARD(INDIRECT_NEXT_RANGE, i >= total))
			return broken(w, VNET_BREAK_DESC_INDEX);
	}
}

/* @desc: the chain's first descriptor, and room for the others */
static int walk_chain(struct walk *w, struct virtq_desc *desc)
{
	const struct vnet_vring *vr = w->vr;
	uint32_t seen = 1;

	for (;;) {
		int error;

		if (seen > 1 && (desc->flags & VIRTQ_DESC_F_INDIRECT) &&
		    VNET_MUTANT(INDIRECT_ALONE_ONLY))
			return broken(w, VNET_BREAK_INDIRECT);
		if (desc->flags &
		    VIRTQ_DESC_F_INDIRECT) /* its WRITE flag means nothing (VIO-SPL-05) */
			return walk_indirect(w, desc);
		error = add_buffer(w, desc);
		if (error)
			return error;
		if (!(desc->flags & VIRTQ_DESC_F_NEXT) ||
		    (seen > 2 && VNET_MUTANT(THREE_DESCRIPTORS_AT_MOST)))
			return 0;
		if (VNET_GUARD(NEXT_RANGE, desc->next >= vr->size))
			return broken(w, VNET_BREAK_DESC_INDEX);
		if (VNET_GUARD(CHAIN_LOOP, seen++ >= vr->size))
			return broken(w, VNET_BREAK_DESC_LOOP);
		vnet_mem_load_desc(desc, &vr->desc_table[desc->next]);
	}
}

/* Return: how many entries are available */
static int peek_avail(struct vnet_vring *vr)
{
	uint16_t ahead;

	if (vr->next_avail == vr->avail_idx)
		vr->avail_idx = vnet_mem_load16_acquire(&vr->avail[1]);
	ahead = (uint16_t)(vr->avail_idx - vr->next_avail);
	/* Each time: next_avail may have gone back behind an index that was in reach when it was read. */
	if (VNET_GUARD(AVAIL_INDEX, ahead > vr->size)) {
		vnet_vring_break(vr, VNET_BREAK_AVAIL_INDEX);
		return -EPIPE;
	}
	return ahead;
}

/*
 * Buffers are used in the order they came, so used.idx tells both positions; a
 * driver that begins anew has zeroed it (4.1.5.1.3).  One that lies stands where
 * avail.idx is out of reach, or gets what it asked for.
 */
static void split_take_position(struct vnet_vring *vr)
{
	vr->used_idx = vnet_mem_load16(&vr->used[1]);
	vr->next_used = vr->next_avail = vr->avail_idx = vr->used_idx;
}

/*
 * The commonest chain: one buffer, not indirect, in one piece where the last one lay.
 * None of the checks of a walk finds anything in it.
 */
static inline bool take_short(const struct vnet_run *run, struct vnet_pieces *pieces,
			      struct vnet_chain *chain, uint16_t head,
			      const struct virtq_desc *desc)
{
	uint64_t offset = desc->addr - run->gpa, len = desc->len;
	uint32_t first = pieces->count;
	uint8_t *at;

	/* Of length 0, len - 1 is more than anything. */
	if ((desc->flags & (VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_INDIRECT)) || offset >= run->size ||
	    len - 1 >= run->size - offset || first == VNET_CHAIN_MAX)
		return false;
	at = run->host + offset;
	pieces->iov[first] = (struct iovec){ at, len };
	pieces->count = first + 1;
	chain->head = head;
	chain->first = (uint16_t)first;
	if (desc->flags & VIRTQ_DESC_F_WRITE) {
		chain->readable = 0;
		chain->writable = 1;
		chain->read_bytes = 0;
		chain->write_bytes = desc->len;
		vnet_mem_prefetch_write(at);
		vnet_mem_prefetch_write(at + VNET_MEM_LINE);
	} else {
		chain->readable = 1;
		chain->writable = 0;
		chain->read_bytes = desc->len;
		chain->write_bytes = 0;
		vnet_mem_prefetch(at);
		vnet_mem_prefetch(at + (len < VNET_MEM_LINE ? len - 1 : VNET_MEM_LINE));
	}
	return true;
}

/*
 * Any other chain.  Out of the common one's way, and its registers.
 * Return: 0; -ENOSPC and -EPIPE with the pieces as they were, @w->reason saying why
 */
static __attribute__((noinline)) int take_long(struct walk *w, uint16_t head,
					       struct virtq_desc desc)
{
	struct vnet_chain *chain = w->chain;
	int error;

	*chain = (struct vnet_chain){ .head = head, .first = (uint16_t)w->pieces->count };
	w->read_bytes = w->write_bytes = 0;
	w->malformed = false;
	error = walk_chain(w, &desc);
	if (error || w->malformed) {
		w->pieces->count = chain->first;
		chain->readable = chain->writable = 0;
	} else {
		chain->read_bytes = (uint32_t)w->read_bytes;
		chain->write_bytes = (uint32_t)w->write_bytes;
	}
	return error;
}

/*
 * Read the heads of the next chains.  What will be read and written behind them is asked for:
 * descriptors, used entries.
 * Return: how many are in order, now the device's; fewer than @count: @w->reason is what is wrong
 * with the one behind them
 */
static uint32_t claim(struct walk *w, uint16_t *heads, uint32_t count)
{
	const uint32_t elems = VNET_MEM_LINE / sizeof(struct virtq_used_elem);
	struct vnet_vring *vr = w->vr;
	const uint16_t *ring = vr->avail + 2;
	const uint32_t size = vr->size, mask = vr->size_mask;
	uint32_t n, at = vr->next_avail;

	for (n = 0; n < count; n++) {
		uint16_t head = vnet_mem_load16(&ring[at++ & mask]);

		if (VNET_GUARD(HEAD_RANGE, head >= size)) {
			w->reason = VNET_BREAK_DESC_INDEX;
			break;
		}
		if (VNET_GUARD(HEAD_IN_USE, vnet_vring_in_use(vr, head))) {
			w->reason = VNET_BREAK_HEAD_IN_USE;
			break;
		}
		vnet_mem_prefetch(&vr->desc_table[head]);
		vr->popped_as[head] = vr->popped + n + 1;
		heads[n] = head;
	}
	vr->popped += n;
	for (uint32_t i = 0; i < n; i += elems)
		vnet_mem_prefetch_write(&vr->used_ring[(vr->next_used + i) & mask]);
	return n;
}

/* Heads claimed last are the driver's again. */
static void unclaim(struct vnet_vring *vr, const uint16_t *heads, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		vr->popped_as[heads[i]] = 0;
	vr->popped -= count;
}

/* Return: how many chains were taken; fewer than @count: @error is -ENOSPC or -EPIPE */
static uint32_t take_chains(struct walk *w, struct vnet_chain *chains, const uint16_t *heads,
			    uint32_t count, int *error)
{
	const struct vnet_vring *vr = w->vr;
	struct vnet_run run = w->mem->runs[vr->last_run];

	for (uint32_t n = 0; n < count; n++) {
		struct virtq_desc desc;
		int failed;

		vnet_mem_load_desc(&desc, &vr->desc_table[heads[n]]);
		if (take_short(&run, w->pieces, &chains[n], heads[n], &desc))
			continue;
		w->chain = &chains[n];
		failed = take_long(w, heads[n], desc);
		if (failed) {
			*error = failed;
			return n;
		}
		run = w->mem->runs[vr->last_run];
	}
	return count;
}

static int split_pop_burst(struct vnet_vring *vr, const struct vnet_mem *mem,
			   struct vnet_pieces *pieces, struct vnet_chain *chains, uint32_t count)
{
	struct walk w = { .vr = vr, .mem = mem, .pieces = pieces };
	uint16_t heads[VNET_POP_MAX];
	uint32_t claimed, n;
	int result;

	if (!vr->running)
		return -EPIPE;
	result = peek_avail(vr);
	if (result <= 0)
		return result;
	count = count < VNET_POP_MAX ? count : VNET_POP_MAX;
	count = count < (uint32_t)result ? count : (uint32_t)result;
	if (vr->doomed) {
		vnet_vring_break(vr, (enum vnet_break)vr->doomed);
		return -EPIPE;
	}
	claimed = claim(&w, heads, count);
	result = claimed < count ? -EPIPE : 0;
	n = take_chains(&w, chains, heads, claimed, &result);
	unclaim(vr, &heads[n], claimed - n);
	vr->next_avail = (uint16_t)(vr->next_avail + n);
	if (result == -EPIPE && n)
		vr->doomed = (uint32_t)w.reason;
	else if (result == -EPIPE)
		vnet_vring_break(vr, w.reason);
	return n ? (int)n : result;
}

static int split_pop(struct vnet_vring *vr, const struct vnet_mem *mem, struct vnet_pieces *pieces,
		     struct vnet_chain *chain)
{
	int result = split_pop_burst(vr, mem, pieces, chain, 1);

	return result == 1 && vnet_chain_malformed(chain) ? -EBADMSG : result;
}

/* An index out of reach is pop's to judge. */
static uint32_t split_ready(struct vnet_vring *vr, uint32_t wanted)
{
	uint16_t ahead = (uint16_t)(vr->avail_idx - vr->next_avail), index;

	if (ahead >= wanted || !vr->running)
		return ahead;
	index = vnet_mem_load16_acquire(&vr->avail[1]);
	if ((uint16_t)(index - vr->next_avail) > vr->size)
		return ahead;
	vr->avail_idx = index;
	return (uint16_t)(index - vr->next_avail);
}

static void split_rewind(struct vnet_vring *vr, const struct vnet_chain *chains, uint32_t count)
{
	if (!vr->running || !count)
		return;
	for (uint32_t i = 0; i < count; i++)
		vr->popped_as[chains[i].head] = 0;
	vr->popped -= count;
	vr->next_avail = (uint16_t)(vr->next_avail - count);
	vr->doomed = VNET_BREAK_NONE; /* read again, behind these */
}

static void split_push_burst(struct vnet_vring *vr, const struct vnet_chain *chains,
			     const uint32_t *lens, uint32_t count)
{
	struct virtq_used_elem *ring = vr->used_ring;
	uint16_t at = vr->next_used, mask = vr->size_mask;

	if (!vr->running)
		return;
	for (uint32_t i = 0; i < count; i++, at++)
		vnet_mem_store_used(&ring[at & mask], chains[i].head, lens ? lens[i] : 0);
	VNET_MUTATE(used, vr, chains, lens, count);
	vr->next_used = at;
}

static void split_push(struct vnet_vring *vr, uint16_t head, uint32_t len)
{
	split_push_burst(vr, &(struct vnet_chain){ .head = head }, &len, 1);
}

/* "vring_need_event": did used.idx pass used_event on its way from old to new? */
static bool passed(uint16_t event, uint16_t new_idx, uint16_t old_idx)
{
	if (VNET_MUTANT(EVENT_ONE_LATE))
		event++;
	return (uint16_t)(new_idx - event - 1) < (uint16_t)(new_idx - old_idx);
}

static bool split_publish(struct vnet_vring *vr)
{
	uint16_t old = vr->used_idx;
	bool wanted;

	if (!vr->running || old == vr->next_used)
		return false;
	vr->published += vnet_vring_staged(vr);
	vr->used_idx = vr->next_used;
	/*
	 * Elements before the index: released by this store, acquired by the
	 * driver's read of used.idx.  The same store is a full barrier before
	 * used_event and avail.flags are read; it pairs with the driver's
	 * barrier between asking for an interrupt and looking at used.idx.
	 */
	if ((vr->used_idx & ~vr->size_mask) && VNET_MUTANT(USED_INDEX_MODULO_SIZE))
		vnet_mem_store16_seq(&vr->used[1], vr->used_idx & vr->size_mask);
	else
		vnet_mem_store16_seq(&vr->used[1], vr->used_idx);
	if (!vr->event_idx || VNET_MUTANT(EVENT_IDX_IGNORED))
		wanted = !(vnet_mem_load16_seq(&vr->avail[0]) & VIRTQ_AVAIL_F_NO_INTERRUPT);
	else
		wanted = passed(vnet_mem_load16_seq(&vr->avail[2 + vr->size]), vr->used_idx, old);
	if (wanted)
		return !(vr->event_idx && VNET_MUTANT(EVENT_NEVER));
	return vr->event_idx ? VNET_MUTANT(EVENT_ALWAYS) : VNET_MUTANT(NO_INTERRUPT_IGNORED);
}

static bool split_arm(struct vnet_vring *vr)
{
	if (!vr->running)
		return false;
	/* Full barrier between the request and the second look; pairs with the
	 * driver's between avail.idx and avail_event (used.flags). */
	if (vr->event_idx && VNET_MUTANT(AVAIL_EVENT_LEFT_BEHIND))
		return vnet_mem_load16_seq(&vr->avail[1]) != vr->avail_idx;
	if (vr->event_idx)
		vnet_mem_store16_seq(vr->avail_event, vr->avail_idx);
	else
		vnet_mem_store16_seq(&vr->used[0],
				     vr->used_idx && VNET_MUTANT(USED_FLAGS_BEYOND_ONE) ? 2 : 0);
	return vnet_mem_load16_seq(&vr->avail[1]) != vr->avail_idx;
}

static void split_disarm(struct vnet_vring *vr)
{
	/* With EVENT_IDX the flags stay 0 (VIO-SPL-14) and an avail_event left behind is silence. */
	if (vr->running && (!vr->event_idx || VNET_MUTANT(USED_FLAGS_WITH_EVENT_IDX)))
		vnet_mem_store16(&vr->used[0], VIRTQ_USED_F_NO_NOTIFY);
}

const struct vnet_vring_ops vnet_vring_split = {
	.map = split_map,
	.take_position = split_take_position,
	.pop = split_pop,
	.pop_burst = split_pop_burst,
	.ready = split_ready,
	.rewind = split_rewind,
	.push = split_push,
	.push_burst = split_push_burst,
	.publish = split_publish,
	.arm = split_arm,
	.disarm = split_disarm,
};
