/* SPDX-License-Identifier: MIT */
/*
 * A second reading of "Virtqueue Descriptor Table": slow, plain, over the
 * guest image as a flat array, to compare the real walk with.
 */
#ifndef PYVNET_FUZZ_RING_MODEL_H
#define PYVNET_FUZZ_RING_MODEL_H

#include "guest_image.h"

#include <errno.h>

#include "vring.h"

struct model {
	int result; /* as of pop() */
	uint64_t bytes[2]; /* readable, writable */
	bool malformed;
	uint32_t buffers;
};

struct model_desc {
	uint64_t addr, len;
	uint16_t flags, next;
};

static inline uint64_t model_word(uint32_t layout, uint64_t gpa, uint32_t words)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < words; i++)
		value |= (uint64_t)image_peek(layout, gpa + 2 * i) << (16 * i);
	return value;
}

static inline struct model_desc model_desc(uint32_t layout, uint64_t gpa)
{
	return (struct model_desc){ model_word(layout, gpa, 4), model_word(layout, gpa + 8, 2),
				    image_peek(layout, gpa + 12), image_peek(layout, gpa + 14) };
}

static inline bool model_inside(uint32_t layout, uint64_t gpa, uint64_t len)
{
	if (len > IMAGE_BYTES)
		return false;
	for (uint64_t i = 0; i < len; i++) {
		if (image_offset(layout, gpa + i) < 0)
			return false;
	}
	return true;
}

/* Return: false if the ring is broken by it */
static inline bool model_buffer(struct model *m, uint32_t layout, const struct model_desc *desc)
{
	uint32_t writable = desc->flags & VIRTQ_DESC_F_WRITE ? 1 : 0;

	if (!desc->len || (!writable && m->bytes[1]) || m->bytes[writable] + desc->len > UINT32_MAX)
		m->malformed = true;
	m->bytes[writable] += desc->len;
	m->buffers++;
	return m->malformed || model_inside(layout, desc->addr, desc->len);
}

static inline bool model_table(struct model *m, uint32_t layout, const struct model_desc *table)
{
	uint64_t entries = table->len / 16, i = 0;

	if (!entries || table->len % 16 || entries > 65536 || table->flags & VIRTQ_DESC_F_NEXT)
		return false;
	for (uint64_t seen = 0; seen < entries; seen++) {
		struct model_desc desc = model_desc(layout, table->addr + 16 * i);

		if (!model_inside(layout, table->addr + 16 * i, 16) ||
		    desc.flags & VIRTQ_DESC_F_INDIRECT || !model_buffer(m, layout, &desc))
			return false;
		if (!(desc.flags & VIRTQ_DESC_F_NEXT))
			return true;
		i = desc.next;
		if (i >= entries)
			return false;
	}
	return false; /* a loop */
}

static inline bool model_chain(struct model *m, const struct vnet_vring *vr, uint32_t layout,
			       uint64_t i)
{
	for (uint32_t seen = 0; seen < vr->size && i < vr->size; seen++) {
		struct model_desc desc = model_desc(layout, vr->desc_gpa + 16 * i);

		if (desc.flags & VIRTQ_DESC_F_INDIRECT)
			return vr->indirect && model_table(m, layout, &desc);
		if (!model_buffer(m, layout, &desc))
			return false;
		if (!(desc.flags & VIRTQ_DESC_F_NEXT))
			return true;
		i = desc.next;
	}
	return false;
}

/* May so many buffers, each in two pieces at most, be more than a list of pieces takes? */
static inline bool model_too_long(const struct model *m, uint32_t before)
{
	return before + 2 * m->buffers > VNET_CHAIN_MAX;
}

/* What the next pop() has to say, apart from VNET_BREAK_CHAIN_TOO_LONG and -ENOSPC. */
static inline struct model model_pop(const struct vnet_vring *vr, uint32_t layout)
{
	struct model m = { .result = 0 };
	uint16_t idx = vr->avail_idx, head;

	if (idx == vr->next_avail)
		idx = image_peek(layout, vr->avail_gpa + 2);
	if (idx == vr->next_avail)
		return m;
	head = image_peek(layout, vr->avail_gpa + 4 + 2 * (vr->next_avail % vr->size));
	/* What a burst saw behind its chains is remembered, whatever the guest made of it since. */
	if (vr->doomed || (uint16_t)(idx - vr->next_avail) > vr->size || head >= vr->size ||
	    vnet_vring_in_use(vr, head) || !model_chain(&m, vr, layout, head))
		m.result = -EPIPE;
	else
		m.result = m.malformed ? -EBADMSG : 1;
	return m;
}

/* Stand behind the chain that model_pop() spoke of; @vr is a copy, and so is its popped_as. */
static inline void model_advance(struct vnet_vring *vr, uint32_t layout, uint16_t head)
{
	if (vr->avail_idx == vr->next_avail)
		vr->avail_idx = image_peek(layout, vr->avail_gpa + 2);
	vr->next_avail++;
	vr->popped_as[head] = ++vr->popped;
}

#endif
