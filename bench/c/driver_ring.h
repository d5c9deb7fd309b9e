/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of a split ring, in poll mode: a ring and one buffer for
 * each of its descriptors in shared memory.  An address the device is told is
 * the address here, so one memory region with guest address = user address
 * describes all of it.
 *
 * Buffers are numbered as their descriptors.  Of a fresh ring all belong to
 * the driver.  ring_offer() + ring_publish() give buffers to the device,
 * ring_reap() takes them back; each belongs to one side at a time.
 */
#ifndef BENCH_DRIVER_RING_H
#define BENCH_DRIVER_RING_H

#include <errno.h>
#include <linux/memfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define RING_DESC_WRITE 2u
#define RING_NO_INTERRUPT 1u /* avail.flags */
#define RING_NO_NOTIFY 1u    /* used.flags */
#define RING_LINE 64u

struct ring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct ring_elem {
	uint32_t id;
	uint32_t len;
};

/* Memory the device maps: fd, from offset 0, `size` bytes, here at `base`. */
struct ring_mem {
	uint8_t *base;
	size_t size;
	size_t taken;
	int fd;
	bool huge;
};

struct ring {
	struct ring_desc *desc;
	uint16_t *avail; /* flags, idx, ring[size], used_event */
	uint16_t *used;  /* flags, idx, ring[size] of ring_elem, avail_event */
	struct ring_elem *used_ring;
	uint8_t *buffers;
	uint32_t stride;    /* from buffer to buffer */
	uint32_t room;      /* bytes a buffer holds */
	uint16_t size;      /* a power of two */
	uint16_t offered;   /* next free entry of the available ring */
	uint16_t published; /* what the device was shown */
	uint16_t reaped;    /* next entry of the used ring */
	uint16_t desc_flags;
	uint16_t fresh; /* buffers from here on were never offered by ring_free() */
	bool event_idx;
	uint64_t kicks; /* how often the device had to be woken */
	int kick_fd;
	int call_fd;
};

/*
 * ring_mem_open() - shared memory of at least `size` bytes, zeroed.
 *
 * Huge pages if there are enough free ones, else ordinary ones, all touched.
 * Return: 0, or -1 with errno set.
 */
static inline int ring_mem_open(struct ring_mem *m, size_t size)
{
	const size_t huge = 2u << 20;

	memset(m, 0, sizeof(*m));
	m->size = (size + huge - 1) & ~(huge - 1);
	for (int tries = 0; tries < 2; tries++) {
		m->huge = tries == 0;
		m->fd = memfd_create("bench-guest", MFD_CLOEXEC | (m->huge ? MFD_HUGETLB : 0));
		if (m->fd < 0)
			continue;
		if (ftruncate(m->fd, (off_t)m->size) == 0) {
			m->base = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_POPULATE, m->fd, 0);
			if (m->base != MAP_FAILED)
				return 0;
		}
		close(m->fd);
	}
	return -1;
}

static inline void ring_mem_close(struct ring_mem *m)
{
	munmap(m->base, m->size);
	close(m->fd);
}

/* A piece of it on cache lines of its own; ends the program when it is used up. */
static inline void *ring_mem_take(struct ring_mem *m, size_t bytes, size_t align)
{
	size_t at = (m->taken + align - 1) & ~(align - 1);

	if (at + bytes > m->size) {
		fprintf(stderr, "driver_ring: %zu bytes of guest memory are too few\n", m->size);
		exit(1);
	}
	m->taken = at + ((bytes + RING_LINE - 1) & ~(size_t)(RING_LINE - 1));
	return m->base + at;
}

/* Bytes of memory a ring takes, for ring_mem_open(). */
static inline size_t ring_bytes(uint16_t size, uint32_t room)
{
	return (size_t)size * (room + 2 * RING_LINE + 32u) + 16384;
}

/*
 * ring_init() - a ring of `size` buffers of `room` bytes.
 * @writable: the device writes them (a receiveq).
 *
 * Without calls: the used ring is polled.  Return: 0, or -1 with errno set.
 */
static inline int ring_init(struct ring *r, struct ring_mem *m, uint16_t size, uint32_t room,
			    bool writable, bool event_idx)
{
	memset(r, 0, sizeof(*r));
	r->size = size;
	r->room = room;
	r->event_idx = event_idx;
	r->desc_flags = writable ? RING_DESC_WRITE : 0;
	r->desc = ring_mem_take(m, sizeof(*r->desc) * size, 4096);
	r->avail = ring_mem_take(m, 6u + 2u * size, RING_LINE);
	r->used = ring_mem_take(m, 6u + sizeof(*r->used_ring) * size, RING_LINE);
	r->used_ring = (struct ring_elem *)(void *)(r->used + 2);
	/* An odd number of lines: buffers spread over the sets of the caches. */
	r->stride = (((room + RING_LINE - 1) / RING_LINE) | 1u) * RING_LINE;
	r->buffers = ring_mem_take(m, (size_t)r->stride * size, RING_LINE);
	for (uint32_t i = 0; i < size; i++)
		r->desc[i] = (struct ring_desc){ (uint64_t)(uintptr_t)(r->buffers + i * r->stride),
						 room, r->desc_flags, 0 };
	r->avail[0] = (uint16_t)(event_idx ? 0 : RING_NO_INTERRUPT);
	r->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return r->kick_fd < 0 || r->call_fd < 0 ? -1 : 0;
}

static inline void ring_close(struct ring *r)
{
	close(r->kick_fd);
	close(r->call_fd);
}

static inline uint8_t *ring_buffer(const struct ring *r, uint32_t id)
{
	return r->buffers + (size_t)id * r->stride;
}

/* How many entries of the used ring were not reaped yet. */
static inline uint16_t ring_ready(const struct ring *r)
{
	return (uint16_t)(__atomic_load_n(&r->used[1], __ATOMIC_ACQUIRE) - r->reaped);
}

/* Buffers the device holds, reaped ones not. */
static inline uint16_t ring_out(const struct ring *r)
{
	return (uint16_t)(r->offered - r->reaped);
}

/*
 * ring_reap() - take back up to `max` buffers.
 * @out: ids, and for a receiveq how many bytes the device wrote.
 *
 * Return: how many.
 */
static inline uint32_t ring_reap(struct ring *r, struct ring_elem *out, uint32_t max)
{
	uint32_t n = ring_ready(r);

	n = n < max ? n : max;
	for (uint32_t i = 0; i < n; i++)
		out[i] = r->used_ring[(uint16_t)(r->reaped + i) & (r->size - 1)];
	r->reaped = (uint16_t)(r->reaped + n);
	return n;
}

/*
 * ring_free() - up to `max` buffers to send with: those never used, then what came back.
 *
 * For a ring whose buffers all went out this way.  Return: how many.
 */
static inline uint32_t ring_free(struct ring *r, struct ring_elem *out, uint32_t max)
{
	uint32_t n = 0;

	while (r->fresh < r->size && n < max)
		out[n++].id = r->fresh++;
	return n ? n : ring_reap(r, out, max);
}

/* Line up buffer `id` with `len` bytes (of a receiveq: its room); not seen by the device yet. */
static inline void ring_offer(struct ring *r, uint32_t id, uint32_t len)
{
	if (r->desc[id].len != len)
		r->desc[id].len = len;
	r->avail[2 + (r->offered & (r->size - 1))] = (uint16_t)id;
	r->offered++;
}

/* Show the device what was lined up, and wake it if it asked for that. */
static inline void ring_publish(struct ring *r)
{
	uint16_t before = r->published;
	bool kick;

	if (before == r->offered)
		return;
	__atomic_store_n(&r->avail[1], r->offered, __ATOMIC_RELEASE);
	r->published = r->offered;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* index before the look at the suppression */
	if (r->event_idx) {
		const uint16_t *event = r->used + 2 + 4u * r->size;
		uint16_t at = __atomic_load_n(event, __ATOMIC_RELAXED);

		kick = (uint16_t)(r->offered - at - 1) < (uint16_t)(r->offered - before);
	} else {
		kick = !(__atomic_load_n(&r->used[0], __ATOMIC_RELAXED) & RING_NO_NOTIFY);
	}
	if (kick) {
		const uint64_t one = 1;

		r->kicks++;
		if (write(r->kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			perror("driver_ring: kick");
	}
}

/* Ask for a call with the next used buffer, or for none (as a fresh ring). */
static inline void ring_calls(struct ring *r, bool wanted)
{
	if (r->event_idx) {
		uint16_t at = (uint16_t)(wanted ? r->reaped : r->reaped - 1);

		__atomic_store_n(&r->avail[2 + r->size], at, __ATOMIC_RELAXED);
	} else {
		__atomic_store_n(&r->avail[0], (uint16_t)(wanted ? 0 : RING_NO_INTERRUPT),
				 __ATOMIC_RELAXED);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the caller looks at the used ring again */
}

/* Give the device every buffer of a fresh receiveq. */
static inline void ring_fill(struct ring *r)
{
	for (uint32_t i = 0; i < r->size; i++)
		ring_offer(r, i, r->room);
	ring_publish(r);
}

#endif
