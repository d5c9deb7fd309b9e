/* SPDX-License-Identifier: MIT */
/*
 * A guest of 16 KiB for the ring fuzzers: its memory is a memfd filled from
 * the input, once through the layout the input chose and once as the file it
 * is, so that every byte the device wrote can be accounted for afterwards.
 *
 * Two rules are kept for every target by image_check():
 *   1. bytes of the file that lie in no region never change;
 *   2. a byte that changed was allow()ed before (used ring, writable buffers)
 *      or written by the guest itself (image_poke()).
 * Bytes beyond what is mapped are guarded by guest_mem.c's inaccessible pages.
 */
#ifndef PYVNET_FUZZ_GUEST_IMAGE_H
#define PYVNET_FUZZ_GUEST_IMAGE_H

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "guest_mem.h"

#define IMAGE_BYTES 0x4000u
#define FILE_BYTES 0x8000u
#define LAYOUTS 4u

#define CHECK(condition)                                                                          \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

struct image_region {
	uint32_t gpa, size, offset;
};

/* One run off page borders; two that join, swapped in the file; two that touch and cannot join; a hole. */
static const struct image_region image_layouts[LAYOUTS][2] = {
	{ { 0, 0x4000, 0x100 } },
	{ { 0, 0x1000, 0x5000 }, { 0x1000, 0x3000, 0x1000 } },
	{ { 0, 0x1080, 0x80 }, { 0x1080, 0x2f80, 0x3040 } },
	{ { 0, 0x1000, 0x1000 }, { 0x2000, 0x1000, 0x4000 } },
};

static struct {
	int fd;
	uint8_t *file;
	uint8_t before[FILE_BYTES];
	uint8_t allowed[FILE_BYTES];
	struct vnet_mem *mem[LAYOUTS];
} image = { .fd = -1 };

/* The next bytes of the input; zeros when it has no more. */
struct input {
	const uint8_t *data;
	size_t size;
};

static inline uint32_t take(struct input *in, uint32_t bytes)
{
	uint32_t value = 0;

	for (uint32_t i = 0; i < bytes && in->size; i++, in->data++, in->size--)
		value |= (uint32_t)*in->data << (8 * i);
	return value;
}

static inline void image_init(void)
{
	if (image.fd >= 0)
		return;
	image.fd = memfd_create("pyvnet-fuzz", MFD_CLOEXEC);
	CHECK(image.fd >= 0 && !ftruncate(image.fd, FILE_BYTES));
	image.file = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, image.fd, 0);
	CHECK(image.file != MAP_FAILED);
	for (uint32_t i = 0; i < LAYOUTS; i++) {
		struct vnet_region regions[2] = { 0 };
		uint32_t count = 0;

		for (; count < 2 && image_layouts[i][count].size; count++) {
			regions[count] =
				(struct vnet_region){ .gpa = image_layouts[i][count].gpa,
						      .size = image_layouts[i][count].size,
						      .mmap_offset = image_layouts[i][count].offset,
						      .fd = image.fd };
		}
		CHECK(!vnet_mem_create(regions, count, &image.mem[i]));
	}
}

/* Where a guest byte lies in the file; -1: nowhere */
static inline int64_t image_offset(uint32_t layout, uint64_t gpa)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct image_region *r = &image_layouts[layout][i];

		if (gpa >= r->gpa && gpa - r->gpa < r->size)
			return (int64_t)(r->offset + (gpa - r->gpa));
	}
	return -1;
}

/* Where the rings begin: at 0, across the borders of the layouts, or misaligned. */
static inline uint32_t image_ring_base(uint32_t flags)
{
	return flags & 32 ? 0xf80 + (flags >> 6 & 1) : 0;
}

/* Fill the guest from @gpa on with what the input has left, @bytes at most. */
static inline void image_load(uint32_t layout, struct input *in, uint32_t gpa, uint32_t bytes)
{
	memset(image.file, 0xc5, FILE_BYTES);
	memset(image.allowed, 0, FILE_BYTES);
	for (uint32_t i = 0; i < 2; i++)
		memset(&image.file[image_layouts[layout][i].offset], 0,
		       image_layouts[layout][i].size);
	for (uint32_t end = gpa + bytes; gpa < end && in->size; gpa++) {
		int64_t at = image_offset(layout, gpa);
		uint8_t value = (uint8_t)take(in, 1);

		if (at >= 0)
			image.file[at] = value;
	}
	memcpy(image.before, image.file, FILE_BYTES);
}

/* The guest writes 16 bits. */
static inline void image_poke(uint32_t layout, uint64_t gpa, uint16_t value)
{
	for (uint32_t i = 0; i < 2; i++) {
		int64_t at = image_offset(layout, gpa + i);

		if (at >= 0)
			image.file[at] = image.before[at] = (uint8_t)(value >> (8 * i));
	}
}

static inline uint16_t image_peek(uint32_t layout, uint64_t gpa)
{
	uint16_t value = 0;

	for (uint32_t i = 0; i < 2; i++) {
		int64_t at = image_offset(layout, gpa + i);

		if (at >= 0)
			value = (uint16_t)(value | image.file[at] << (8 * i));
	}
	return value;
}

/* Where a ring is to start: its own word counts if it is told to begin at the beginning. */
static inline uint16_t image_start(const struct vnet_queue_config *config, uint32_t layout)
{
	if (config->avail_base || config->used_base)
		return config->used_base;
	return image_peek(layout, config->used_ring + 2);
}

static inline void image_allow(uint32_t layout, uint64_t gpa, uint64_t len)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct image_region *r = &image_layouts[layout][i];
		uint64_t first = gpa > r->gpa ? gpa : r->gpa;
		uint64_t end = gpa + len < r->gpa + r->size ? gpa + len : r->gpa + r->size;

		if (first < end)
			memset(&image.allowed[r->offset + (first - r->gpa)], 1, end - first);
	}
}

/* The same, for pieces the device resolved; they lie inside the table's regions or the check ends here. */
static inline void image_allow_pieces(uint32_t layout, const struct iovec *iov, uint32_t count)
{
	const struct vnet_mem *mem = image.mem[layout];

	for (uint32_t i = 0; i < count; i++) {
		uint8_t *base = iov[i].iov_base;
		bool inside = false;

		CHECK(iov[i].iov_len);
		for (uint32_t r = 0; r < mem->run_count && !inside; r++) {
			uint64_t skip = (uint64_t)(base - mem->runs[r].host);

			inside = base >= mem->runs[r].host && skip < mem->runs[r].size &&
				 iov[i].iov_len <= mem->runs[r].size - skip;
			if (inside)
				image_allow(layout, mem->runs[r].gpa + skip, iov[i].iov_len);
		}
		CHECK(inside);
	}
}

static inline void image_check(void)
{
	for (uint32_t at = 0; at < FILE_BYTES; at += 64) {
		if (!memcmp(&image.file[at], &image.before[at], 64))
			continue;
		for (uint32_t i = at; i < at + 64; i++)
			CHECK(image.allowed[i] || image.file[i] == image.before[i]);
	}
}

#endif
