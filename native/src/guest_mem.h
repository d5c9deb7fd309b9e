/* SPDX-License-Identifier: MIT */
/*
 * Guest memory: the only place that turns guest addresses into pointers, and
 * the only door through which guest memory is read to be judged, or written.
 *
 * Theory
 *   A table is immutable: built once, mapped once, shared by reference count.
 *   Regions that touch each other in guest addresses are mapped side by side
 *   into one reservation of host addresses (a *run*), whatever their order in
 *   the file, so a ring or a buffer that straddles them needs no special case
 *   (CVE-2018-1059).  Around every run lies an inaccessible page.  Regions
 *   that touch but cannot be laid side by side (page offsets differ) stay two
 *   runs: buffers across them are cut in two pieces, rings there are refused.
 *
 *   A guest word is copied once into private memory and judged there; it is
 *   never read again.  The loads below are the only reads of such words; each
 *   ends in a compiler barrier so that no copy is ever "optimised" back into a
 *   second load.
 *
 *   Every store goes through vnet_mem_write() or vnet_mem_store*(): that is
 *   where dirty logging will hook in.  What the kernel reads or writes through
 *   an iovec (payload) is data nobody judges.
 *
 *   The file behind a region is the peer's, who may cut it off at any time.  An
 *   access finds zeros then and the table is marked (sigbus.h); the kernel's own
 *   access ends in EFAULT, and whoever made the call marks it.
 */
#ifndef PYVNET_GUEST_MEM_H
#define PYVNET_GUEST_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "pyvnet/virtio_abi.h"
#include "pyvnet/vnet.h"
#include "test_hooks.h"

struct vnet_run {
	uint64_t gpa;
	uint64_t size;
	uint8_t *host;
};

struct vnet_mem {
	_Atomic uint32_t refs;
	uint32_t run_count;
	struct vnet_run runs[VNET_MAX_REGIONS]; /* those behind run_count are empty */
	uint32_t map_count; /* reservations to unmap */
	struct iovec maps[VNET_MAX_REGIONS];
	uint32_t watch_count; /* entries of sigbus.h */
	uint32_t watches[VNET_MAX_REGIONS];
	uint64_t serial; /* no two tables of a process have the same */
	_Atomic uint32_t lost;
};

/** vnet_mem_get() - take another reference */
struct vnet_mem *vnet_mem_get(struct vnet_mem *mem);

/** vnet_mem_lose() - some of the table's memory has gone; async-signal-safe */
static inline void vnet_mem_lose(struct vnet_mem *mem)
{
	atomic_store_explicit(&mem->lost, 1, memory_order_relaxed);
}

/** vnet_mem_lost() - has some of it gone? */
static inline bool vnet_mem_lost(const struct vnet_mem *mem)
{
	return mem && atomic_load_explicit(&mem->lost, memory_order_relaxed);
}

/**
 * vnet_mem_pointer() - one contiguous range
 * Return: host address of @gpa, NULL unless all @len bytes lie in one run
 */
void *vnet_mem_pointer(const struct vnet_mem *mem, uint64_t gpa, uint64_t len);

/**
 * vnet_mem_map() - a range as pieces, across runs that touch
 * @near:	number of the run to look in first, and the one it was found in; below VNET_MAX_REGIONS
 * @len:	not 0
 * Return: pieces written to @iov; -EFAULT: part of it is in no region; -ENOSPC: more than @capacity
 */
int vnet_mem_map(const struct vnet_mem *mem, uint32_t *near, uint64_t gpa, uint64_t len,
		 struct iovec *iov, uint32_t capacity);

static inline void vnet_mem_barrier(void)
{
	__asm__ __volatile__("" ::: "memory");
}

/* Of the cache: what crosses from one core to another at a time. */
#define VNET_MEM_LINE 64u

/* A line that will be read; any address will do. */
static inline void vnet_mem_prefetch(const void *at)
{
	__builtin_prefetch(at);
}

/* A line that will be written, to be owned by then. */
static inline void vnet_mem_prefetch_write(const void *at)
{
#ifdef __x86_64__
	/* Compilers want to be told that the CPU has it; one that has not takes it for a no-op. */
	__asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)at));
#else
	__builtin_prefetch(at, 1);
#endif
}

/* @part bytes, a constant, from the front and as many from the end. */
static inline void vnet_mem_copy_ends(uint8_t *to, const uint8_t *from, uint32_t len, uint32_t part)
{
	memcpy(to, from, part);
	memcpy(to + len - part, from + len - part, part);
}

/*
 * memcpy() for frames: most are a few lines long, and no call is worth its while for them.
 * What front and end have in common is copied twice; nothing beyond the end is touched.
 */
static inline void vnet_mem_copy(void *to, const void *from, uint32_t len)
{
	if (len - 16 > 128 - 16) {
		/* Told how long it is at most, gcc makes it a string instruction, slow to begin. */
		__asm__("" : "+r"(len));
		memcpy(to, from, len);
	} else if (len > 64) {
		vnet_mem_copy_ends(to, from, len, 64);
	} else if (len > 32) {
		vnet_mem_copy_ends(to, from, len, 32);
	} else {
		vnet_mem_copy_ends(to, from, len, 16);
	}
}

void vnet_mem_read_pieces(const struct iovec *iov, uint32_t skip, void *to, uint32_t len);
void vnet_mem_write_pieces(const struct iovec *iov, uint32_t skip, const void *from, uint32_t len);

/** vnet_mem_read_piece() - copy @len bytes out of one piece */
static inline void vnet_mem_read_piece(const void *from, void *to, uint32_t len)
{
	vnet_mem_copy(to, from, len);
	vnet_mem_barrier();
	VNET_AFTER_READ(from, len);
}

/** vnet_mem_read() - copy out of a piece list, from @skip bytes into it; the list holds that much */
static inline void vnet_mem_read(const struct iovec *iov, uint32_t skip, void *to, uint32_t len)
{
	if (!len || skip >= iov->iov_len || len > iov->iov_len - skip) {
		vnet_mem_read_pieces(iov, skip, to, len);
		return;
	}
	if (__builtin_constant_p(len))
		memcpy(to, (const uint8_t *)iov->iov_base + skip, len);
	else
		vnet_mem_copy(to, (const uint8_t *)iov->iov_base + skip, len);
	vnet_mem_barrier();
	VNET_AFTER_READ((const uint8_t *)iov->iov_base + skip, len);
}

/** vnet_mem_write() - copy into a piece list, from @skip bytes into it; the list holds that much */
static inline void vnet_mem_write(const struct iovec *iov, uint32_t skip, const void *from,
				  uint32_t len)
{
	if (!len || skip >= iov->iov_len || len > iov->iov_len - skip)
		vnet_mem_write_pieces(iov, skip, from, len);
	else if (__builtin_constant_p(len))
		memcpy((uint8_t *)iov->iov_base + skip, from, len);
	else
		vnet_mem_copy((uint8_t *)iov->iov_base + skip, from, len);
}

static inline uint16_t vnet_mem_load16(const uint16_t *word)
{
	uint16_t value = __atomic_load_n(word, __ATOMIC_RELAXED);

	VNET_AFTER_READ(word, 2);
	return value;
}

/* Acquire: pairs with the driver's write barrier before avail.idx. */
static inline uint16_t vnet_mem_load16_acquire(const uint16_t *word)
{
	uint16_t value = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	VNET_AFTER_READ(word, 2);
	return value;
}

/* Sequentially consistent: pairs with the driver's full barrier before it sleeps. */
static inline uint16_t vnet_mem_load16_seq(const uint16_t *word)
{
	uint16_t value = __atomic_load_n(word, __ATOMIC_SEQ_CST);

	VNET_AFTER_READ(word, 2);
	return value;
}

/* An indirect table may lie at any address, so this copies bytes. */
static inline void vnet_mem_load_desc(struct virtq_desc *to, const void *from)
{
	uint64_t words[2];

	memcpy(words, from, sizeof(words));
	/* Whoever uses them uses these: where they came from is out of the compiler's sight. */
	__asm__ __volatile__("" : "+r"(words[0]), "+r"(words[1]));
	to->addr = words[0];
	to->len = (uint32_t)words[1];
	to->flags = (uint16_t)(words[1] >> 32);
	to->next = (uint16_t)(words[1] >> 48);
	VNET_AFTER_READ(from, sizeof(words));
}

/* A word out of a register, to any address. */
static inline void vnet_mem_store32(void *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void vnet_mem_store64(void *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void vnet_mem_store16(uint16_t *word, uint16_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/* Release: pairs with the driver's read barrier after used.idx. */
static inline void vnet_mem_store16_release(uint16_t *word, uint16_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* An exchange is a full barrier: what follows is not read before this is seen. */
static inline void vnet_mem_store16_seq(uint16_t *word, uint16_t value)
{
	(void)__atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
}

static inline void vnet_mem_store_used(struct virtq_used_elem *elem, uint32_t id, uint32_t len)
{
	const uint64_t both = id | (uint64_t)len << 32;

	/* 4-aligned, so this may be two stores; used.idx is what makes them count. */
	memcpy(elem, &both, sizeof(both));
}

#endif
