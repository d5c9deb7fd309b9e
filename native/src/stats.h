/* SPDX-License-Identifier: MIT */
/*
 * Counters: struct vnet_pair_stats, written by the pair's owner, read by
 * anyone.  vnet_count() is for the owner; where another worker must count
 * (it dropped a frame that was meant for the pair) vnet_count_shared() is used
 * by everyone who touches that counter.
 */
#ifndef PYVNET_STATS_H
#define PYVNET_STATS_H

#include <stdint.h>

static inline void vnet_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline void vnet_count_shared(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

#endif
