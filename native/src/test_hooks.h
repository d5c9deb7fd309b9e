/* SPDX-License-Identifier: MIT */
/*
 * What tests may do to the engine, compiled in with -DVNET_TEST_HOOKS=1 only:
 *
 *   guards    switch one named guard off, to show that the test which relies
 *             on it fails without it;
 *   flip      change a guest word right after the engine read it, to show
 *             that nothing is read twice;
 *   fail      let the n-th allocation, mapping, fd … fail, to show that every
 *             path unwinds.
 *
 * In the shipped build a guard is its condition and the other two are nothing.
 */
#ifndef PYVNET_TEST_HOOKS_H
#define PYVNET_TEST_HOOKS_H

#include <stdbool.h>
#include <stdint.h>

#define VNET_GUARD_NAMES(X)    \
	X(AVAIL_INDEX)         \
	X(HEAD_RANGE)          \
	X(HEAD_IN_USE)         \
	X(NEXT_RANGE)          \
	X(CHAIN_LOOP)          \
	X(CHAIN_BYTES)         \
	X(ZERO_LENGTH)         \
	X(DIRECTION)           \
	X(INDIRECT_NEGOTIATED) \
	X(INDIRECT_NEXT)       \
	X(INDIRECT_NESTED)     \
	X(INDIRECT_LENGTH)     \
	X(INDIRECT_LOOP)       \
	X(INDIRECT_NEXT_RANGE) \
	X(BUFFER_ADDRESS)      \
	X(RING_ADDRESS)        \
	X(RING_ALIGNMENT)      \
	X(REGION_OVERLAP)      \
	X(REGION_WRAP)         \
	X(REGION_FILE_SIZE)    \
	X(MEMORY_LOST)         \
	X(NOTIFY_KIND)         \
	X(KICK_LOST)           \
	X(RX_HEADER_FITS)      \
	X(RX_DIRECTION)        \
	X(RX_NO_MERGE)         \
	X(RX_OVERRUN)          \
	X(RX_QUEUE_RUNNING)    \
	X(RX_PORT_SHORT)       \
	X(RX_MTU)              \
	X(TX_FRAME_SHORT)      \
	X(TX_FRAME_LONG)       \
	X(TX_DIRECTION)        \
	X(OFFLOAD_CSUM)        \
	X(OFFLOAD_RANGE)       \
	X(OFFLOAD_TYPE)        \
	X(OFFLOAD_GSO_CSUM)    \
	X(OFFLOAD_GSO_SIZE)    \
	X(OFFLOAD_GSO_FRAME)   \
	X(CTRL_LENGTH)         \
	X(POLICY_QUEUE)        \
	X(POLICY_MASK)         \
	X(POLICY_FILTER)       \
	X(POLICY_TABLE)        \
	X(POLICY_OFFLOADS)

#define VNET_GUARD_ENUM(name) VNET_GUARD_##name,
enum vnet_guard { VNET_GUARD_NAMES(VNET_GUARD_ENUM) VNET_GUARD_COUNT };

enum vnet_fail_site {
	VNET_FAIL_ALLOC,
	VNET_FAIL_MMAP,
	VNET_FAIL_FD,
	VNET_FAIL_EPOLL,
	VNET_FAIL_THREAD,
	VNET_FAIL_PORT_SEND,
	VNET_FAIL_PORT_ATTACH,
	VNET_FAIL_PORT_OFFLOADS,
	VNET_FAIL_URING, /* making and registering */
	VNET_FAIL_URING_ENTER, /* running a batch */
	VNET_FAIL_BATCH_FULL, /* one frame of a batch finds no room */
	VNET_FAIL_SETTLE, /* waiting for programs of the old steering map */
	VNET_FAIL_COUNT,
};

#if VNET_TEST_HOOKS

bool vnet_test_guard_on(enum vnet_guard guard);
void vnet_test_after_read(const void *host, uint32_t len);
bool vnet_test_fails(enum vnet_fail_site site);

#define VNET_GUARD(name, condition) (vnet_test_guard_on(VNET_GUARD_##name) && (condition))
#define VNET_AFTER_READ(host, len) vnet_test_after_read(host, len)
#define VNET_FAILS(site) vnet_test_fails(site)

#else

#define VNET_GUARD(name, condition) (condition)
#define VNET_AFTER_READ(host, len) ((void)0)
#define VNET_FAILS(site) false

#endif

#endif
