/* SPDX-License-Identifier: MIT */
/*
 * The split ring against any ring memory and any order of its verbs.
 *
 * Input: options (layout, queue size, place, features, bases), up to 2 KiB of
 * guest memory beginning with descriptor table, avail ring and used ring, then steps
 * of the device (receive, transmit, bursts, publish, arm …) mixed with writes of the
 * guest and memory swaps.
 *
 * Held to be true:
 *   1. no access outside the regions (ASan, guard pages), no store but to the
 *      used ring and to buffers the driver made writable (guest_image.h);
 *   2. every popped head is below the queue size and not in the device's hands
 *      already; it is given back once, by push or by rewind;
 *   3. pieces lie inside the regions, readable before writable, and add up;
 *   4. used.idx is what was published, a used element what was pushed;
 *   5. what pop() makes of a chain, and pop_burst() of many, is what a second,
 *      plain reading of the standard makes of it (ring_model.h): a burst ends
 *      only where that has no further chain, or no room for it;
 *   6. a ring that broke stays broken: its verbs say so, not a byte of guest
 *      memory changes any more, err_fd is signalled exactly once.
 */
#include "guest_image.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>

#include "ring_model.h"
#include "vring.h"

#define STEPS_MAX 96u
#define QUEUE_MAX 32u

static struct {
	struct vnet_vring vr;
	struct vnet_pieces pieces;
	struct vnet_chain chains[VNET_CHAIN_MAX];
	bool held[QUEUE_MAX];   /* popped, not yet published */
	uint16_t staged[QUEUE_MAX];
	uint32_t staged_count;
	uint32_t layout;
	uint16_t published;     /* used.idx by our own count */
	int err_fd;
	bool broken;
	uint8_t after[FILE_BYTES];
} fuzz = { .err_fd = -1 };

static bool signalled(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count) && count == 1;
}

static void broke(void)
{
	CHECK(!fuzz.vr.running && atomic_load(&fuzz.vr.broken) != VNET_BREAK_NONE);
	CHECK(signalled(fuzz.err_fd));
	fuzz.broken = true;
	memcpy(fuzz.after, image.file, FILE_BYTES);
}

/* A chain in hand: its pieces begin at @first, and are as expected. */
static void check_chain(const struct vnet_chain *chain, const struct model *expected,
			uint32_t first)
{
	const struct iovec *iov = &fuzz.pieces.iov[first];
	uint32_t count = chain->readable + chain->writable;
	uint64_t bytes[2] = { 0, 0 };

	CHECK(chain->head < fuzz.vr.size && !fuzz.held[chain->head]);
	fuzz.held[chain->head] = true;
	CHECK(!count == (expected->result == -EBADMSG));
	if (!count)
		return;
	CHECK(chain->first == first && first + count <= VNET_CHAIN_MAX);
	for (uint32_t i = 0; i < count; i++)
		bytes[i >= chain->readable] += iov[i].iov_len;
	CHECK(bytes[0] == chain->read_bytes && bytes[1] == chain->write_bytes);
	CHECK(bytes[0] == expected->bytes[0] && bytes[1] == expected->bytes[1]);
	image_allow_pieces(fuzz.layout, &iov[chain->readable], chain->writable);
}

/* Of a chain with more pieces than there is room for the model knows the end, not where the room ended. */
static bool agrees(int got, const struct model *expected, uint32_t first)
{
	if (got == expected->result || !model_too_long(expected, first))
		return got == expected->result;
	return first ? got == -ENOSPC :
		       got == -EPIPE && atomic_load(&fuzz.vr.broken) == VNET_BREAK_CHAIN_TOO_LONG;
}

/* Return: what pop() said, after everything it said was checked */
static int pop(uint32_t n)
{
	struct vnet_vring *vr = &fuzz.vr;
	struct vnet_chain *chain = &fuzz.chains[n];
	uint32_t first = fuzz.pieces.count, count = 0;
	struct model expected = model_pop(vr, fuzz.layout);
	int got = vr->ops->pop(vr, image.mem[fuzz.layout], &fuzz.pieces, chain);

	CHECK(agrees(got, &expected, first));
	if (got == -EPIPE)
		broke();
	if (got == 1 || got == -EBADMSG) {
		check_chain(chain, &expected, first);
		count = chain->readable + chain->writable;
	}
	CHECK(fuzz.pieces.count == first + count);
	return got;
}

/* Return: what pop_burst() said, after everything it said was checked */
static int pop_burst(uint32_t count)
{
	struct vnet_vring *vr = &fuzz.vr, model = *vr;
	uint64_t popped_as[QUEUE_MAX];
	struct model expected;
	uint32_t first = 0;
	int got;

	memcpy(popped_as, vr->popped_as, vr->size * sizeof(*popped_as));
	model.popped_as = popped_as;
	fuzz.pieces.count = 0;
	got = vr->ops->pop_burst(vr, image.mem[fuzz.layout], &fuzz.pieces, fuzz.chains, count);
	CHECK(got <= (int)count);
	for (int i = 0; i < got; i++) {
		const struct vnet_chain *chain = &fuzz.chains[i];

		expected = model_pop(&model, fuzz.layout);
		CHECK(expected.result == 1 || expected.result == -EBADMSG);
		check_chain(chain, &expected, first);
		first += chain->readable + chain->writable;
		model_advance(&model, fuzz.layout, chain->head);
	}
	CHECK(fuzz.pieces.count == first);
	expected = model_pop(&model, fuzz.layout);
	if (got <= 0)
		CHECK(agrees(got, &expected, 0));
	else if (
		got <
		(int)count) /* it ended there for a reason; of a broken ring it is told next time */
		CHECK(!expected.result || model_too_long(&expected, first) ||
		      (expected.result == -EPIPE && vr->doomed));
	if (got == -EPIPE)
		broke();
	return got;
}

static void push(uint16_t head, uint32_t len)
{
	struct vnet_vring *vr = &fuzz.vr;
	const struct virtq_used_elem *elem = &vr->used_ring[vr->next_used & vr->size_mask];

	vr->ops->push(vr, head, len);
	CHECK(elem->id == head && elem->len == len);
	fuzz.staged[fuzz.staged_count++] = head;
}

/* Chains of a burst are done with, the first @count of them. */
static void push_burst(uint32_t count, const uint32_t *lens)
{
	struct vnet_vring *vr = &fuzz.vr;
	uint16_t at = vr->next_used;

	vr->ops->push_burst(vr, fuzz.chains, lens, count);
	CHECK(vr->next_used == (uint16_t)(at + count));
	for (uint32_t i = 0; i < count; i++, at++) {
		const struct virtq_used_elem *elem = &vr->used_ring[at & vr->size_mask];

		CHECK(elem->id == fuzz.chains[i].head && elem->len == (lens ? lens[i] : 0));
		fuzz.staged[fuzz.staged_count++] = fuzz.chains[i].head;
	}
}

/* The chains @from … @end - 1, which are the last ones popped. */
static void rewind_from(uint32_t from, uint32_t end)
{
	for (uint32_t i = from; i < end; i++)
		fuzz.held[fuzz.chains[i].head] = false;
	fuzz.vr.ops->rewind(&fuzz.vr, &fuzz.chains[from], end - from);
}

/* rx.c's place(): reserve until @need bytes fit, then fill; or give all back. */
static void receive(uint32_t need)
{
	static const uint8_t frame[4096];
	uint32_t n = 0, room = 0;
	int got = 1;

	fuzz.pieces.count = 0;
	while (room < need && n < fuzz.vr.size) {
		got = pop(n);
		if (got != 1)
			break;
		if (fuzz.chains[n++].readable) {
			got = -EBADMSG;
			break;
		}
		room += fuzz.chains[n - 1].write_bytes < need ? fuzz.chains[n - 1].write_bytes :
								need;
	}
	if (fuzz.broken)
		return;
	if (got ==
	    -EBADMSG) { /* the one that is bad is behind those counted, or is the last of them */
		uint32_t count = n && fuzz.chains[n - 1].readable ? n : n + 1;

		for (uint32_t i = 0; i < count; i++)
			push(fuzz.chains[i].head, 0);
		return;
	}
	if (room < need) {
		rewind_from(0, n);
		return;
	}
	vnet_mem_write(fuzz.pieces.iov, 0, frame, need);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t part =
			fuzz.chains[i].write_bytes < need ? fuzz.chains[i].write_bytes : need;

		push(fuzz.chains[i].head, part);
		need -= part;
	}
}

/* tx.c's transmit() and the control queue: read some, answer some, or not now. */
static void transmit(uint32_t answer, bool not_now)
{
	uint8_t bytes[256];
	int got;

	fuzz.pieces.count = 0;
	got = pop(0);
	if (got == -EBADMSG)
		push(fuzz.chains[0].head, 0);
	if (got != 1)
		return;
	if (not_now) {
		rewind_from(0, 1);
		return;
	}
	vnet_mem_read(fuzz.pieces.iov, 0, bytes,
		      fuzz.chains[0].read_bytes < sizeof(bytes) ? fuzz.chains[0].read_bytes :
								  sizeof(bytes));
	if (answer > fuzz.chains[0].write_bytes)
		answer = fuzz.chains[0].write_bytes;
	if (answer)
		vnet_mem_write(&fuzz.pieces.iov[fuzz.chains[0].readable], 0, bytes, answer);
	push(fuzz.chains[0].head, answer);
}

/* tx.c's carry(): many at once, of which the first so many are done with; or answered each. */
static void burst(uint32_t count, uint32_t done, bool answer)
{
	static const uint8_t bytes[64];
	uint32_t lens[VNET_POP_MAX];
	int got = pop_burst(count);

	if (got <= 0)
		return;
	done = done < (uint32_t)got ? done : (uint32_t)got;
	for (uint32_t i = 0; i < done; i++) {
		const struct vnet_chain *chain = &fuzz.chains[i];

		lens[i] = chain->write_bytes < sizeof(bytes) ? chain->write_bytes : sizeof(bytes);
		if (answer && chain->writable)
			vnet_mem_write(&fuzz.pieces.iov[chain->first + chain->readable], 0, bytes,
				       lens[i]);
	}
	push_burst(done, answer ? lens : NULL);
	rewind_from(done, (uint32_t)got);
}

static void publish(void)
{
	struct vnet_vring *vr = &fuzz.vr;
	bool notify = vr->ops->publish(vr);

	CHECK(fuzz.staged_count || !notify);
	fuzz.published = (uint16_t)(fuzz.published + fuzz.staged_count);
	CHECK(vr->used_idx == fuzz.published);
	CHECK(!fuzz.staged_count || vr->used[1] == fuzz.published);
	while (fuzz.staged_count)
		fuzz.held[fuzz.staged[--fuzz.staged_count]] = false;
}

/* As engine.c's remap() does between two batches: nothing is staged then. */
static void swap_memory(uint32_t layout)
{
	struct vnet_vring *vr = &fuzz.vr;

	publish();
	fuzz.layout = layout;
	if (vr->ops->map(vr, image.mem[layout])) {
		vnet_vring_break(vr, VNET_BREAK_RING_ADDRESS);
		broke();
		return;
	}
	image_allow(layout, vr->used_gpa, 6 + 8 * vr->size);
}

static void step(struct input *in)
{
	struct vnet_vring *vr = &fuzz.vr;
	uint32_t what = take(in, 1);

	switch (what & 7) {
	case 0:
		receive(1 + (take(in, 2) & 0xfff) % 4096);
		break;
	case 1:
	case 2:
		transmit(what >> 3, (what & 7) == 2);
		break;
	case 3:
		publish();
		break;
	case 4:
	case 5:
		if (what & 8)
			burst(1 + what / 16 % 2 * 15 + what / 32, take(in, 1) % 33, what & 1);
		else if (what & 1)
			vr->ops->disarm(vr);
		else
			vr->ops->arm(vr);
		break;
	case 6: /* the guest makes more chains available, or anything at all */
		if (what & 8)
			image_poke(fuzz.layout, take(in, 2) % IMAGE_BYTES, (uint16_t)take(in, 2));
		else
			image_poke(fuzz.layout, vr->avail_gpa + 2,
				   (uint16_t)(image_peek(fuzz.layout, vr->avail_gpa + 2) +
					      (what >> 4)));
		break;
	case 7:
		swap_memory((what >> 3) % LAYOUTS);
		break;
	}
}

/* Nothing of a broken ring is touched again (6). */
static void use_broken(void)
{
	struct vnet_vring *vr = &fuzz.vr;

	CHECK(vr->ops->pop(vr, image.mem[fuzz.layout], &fuzz.pieces, &fuzz.chains[0]) == -EPIPE);
	vr->ops->push(vr, 0, 1);
	vr->ops->rewind(vr, fuzz.chains, 1);
	vr->ops->disarm(vr);
	CHECK(!vr->ops->publish(vr) && !vr->ops->arm(vr));
	vnet_vring_break(vr, VNET_BREAK_DESC_LOOP);
	CHECK(!signalled(fuzz.err_fd));
	CHECK(!memcmp(fuzz.after, image.file, FILE_BYTES));
}

static struct vnet_queue_config options(struct input *in)
{
	uint32_t flags = take(in, 1), size = 1u << (take(in, 1) % 6);
	uint64_t desc = image_ring_base(flags), avail = desc + 16ull * size;
	uint16_t base = (uint16_t)take(in, 2);

	fuzz.layout = flags % LAYOUTS;
	return (struct vnet_queue_config){
		.size = size,
		.desc_table = desc,
		.avail_ring = avail,
		.used_ring = (avail + 6 + 2 * size + 3) & ~3ull,
		.event_idx = flags >> 2 & 1,
		.indirect = flags >> 3 & 1,
		.avail_base = base,
		.used_base = flags & 16 ? (uint16_t)take(in, 2) : base,
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = fuzz.err_fd,
	};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct vnet_queue_config config;

	image_init();
	if (fuzz.err_fd < 0)
		fuzz.err_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	config = options(&in);
	image_load(fuzz.layout, &in, (uint32_t)config.desc_table, take(&in, 2) % 2048);
	memset(fuzz.held, 0, sizeof(fuzz.held));
	fuzz.staged_count = 0;
	fuzz.broken = false;
	fuzz.published = image_start(&config, fuzz.layout);
	if (vnet_vring_start(&fuzz.vr, &config, image.mem[fuzz.layout])) {
		CHECK(config.desc_table); /* it lies across a border, or misaligned */
		return 0;
	}
	CHECK(!(config.desc_table & 15));
	image_allow(fuzz.layout, config.used_ring, 6 + 8 * config.size);
	for (uint32_t i = 0; i < STEPS_MAX && in.size && !fuzz.broken; i++)
		step(&in);
	if (fuzz.broken)
		use_broken();
	else
		CHECK(!signalled(fuzz.err_fd));
	vnet_vring_stop(&fuzz.vr);
	image_check();
	return 0;
}
