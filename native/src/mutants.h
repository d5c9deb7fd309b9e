/* SPDX-License-Identifier: MIT */
/*
 * Deliberate faults, compiled in with -DVNET_TEST_HOOKS=1 only and switched on
 * one at a time, by name: a device with one of them is wrong in one way a
 * driver can see, and the conformance suite is shown to see it
 * (tests/conformance_suite/mutants.py says which requirement each breaks).
 *
 *   VNET_MUTANT(NAME)        is this fault on?  A constant false in the shipped build.  Asked last
 *                            of a condition, and only where the answer makes a difference: a
 *                            driver that never comes by cannot see the fault, and is known by it
 *   VNET_SPOILT(NAME, cond)  the condition, or with this fault its contrary
 *   VNET_MUTATE(what, …)     spoil a result; of the faults that take more than a condition
 */
#ifndef PYVNET_MUTANTS_H
#define PYVNET_MUTANTS_H

#include <stdbool.h>
#include <stdint.h>

#define VNET_MUTANT_NAMES(X)          \
	/* what is read of a frame */ \
	X(ADDRESSES_SWAPPED)          \
	X(PORTS_SWAPPED)              \
	X(INNER_PACKET_HASHED)        \
	X(TAG_NOT_SKIPPED)            \
	X(IP_OPTIONS_NOT_SKIPPED)     \
	X(FRAGMENT_PORTS)             \
	X(EXTENSIONS_NOT_SKIPPED)     \
	X(HOME_ADDRESS_IGNORED)       \
	X(ROUTING_ADDRESS_IGNORED)    \
	X(EX_ADDRESSES_FOR_ALL)       \
	/* which hash type it gets */ \
	X(L3_BEFORE_L4)               \
	X(NOTHING_TO_FALL_BACK_TO)    \
	X(UDP_BY_TCP_TYPE)            \
	X(EX_WITHOUT_EXTENSION)       \
	X(PLAIN_BEFORE_EX)            \
	/* hash and report */         \
	X(REPORT_IS_TYPE_BIT)         \
	X(REPORT_PLAIN_FOR_EX)        \
	X(REPORT_L3_ONLY)             \
	X(REPORT_WITHOUT_HASH)        \
	X(HASH_NOT_SHOWN)             \
	X(HASH_BIG_ENDIAN)            \
	/* the receiveq */            \
	X(TABLE_MODULO_QUEUES)        \
	X(TABLE_UPPER_BITS)           \
	X(UNCLASSIFIED_BY_TABLE)      \
	X(AUTOMATIC_BEYOND_PAIRS)     \
	X(QUEUE_CHOICE_MIXED_UP)      \
	/* received frames */         \
	X(NUM_BUFFERS_ZERO)           \
	X(NUM_BUFFERS_ONE)            \
	X(HEADER_PADDING_DIRTY)       \
	X(DATA_VALID_ALWAYS)          \
	X(USED_LEN_WITHOUT_HEADER)    \
	X(USED_LEN_OF_BUFFER)         \
	X(BUFFERS_NOT_FULL)           \
	X(BUFFERS_LOST)               \
	X(FRAME_CUT)                  \
	X(CSUM_NOT_COMPLETED)         \
	X(GSO_SIZE_LOST)              \
	X(GSO_HDR_LEN_LOST)           \
	X(GSO_ECN_LOST)               \
	X(GSO_WITHOUT_CSUM)           \
	X(CSUM_START_FROM_IP)         \
	X(PRIORITY_TAG_FILTERED)      \
	X(BURST_NOT_HASHED)           \
	/* sent frames */             \
	X(TX_HEADER_12_FOR_20)        \
	X(TX_HEADER_IN_OWN_BUFFER)    \
	X(TX_HEADER_PASSED_ON)        \
	X(TX_UNKNOWN_FLAGS_REFUSED)   \
	X(TX_DEAD_FIELDS_USED)        \
	X(TX_FRAME_CUT)               \
	/* rings */                   \
	X(USED_ID_WRONG)              \
	X(USED_LEN_OF_SENT)           \
	X(USED_OUT_OF_ORDER)          \
	X(USED_INDEX_MODULO_SIZE)     \
	X(USED_FLAGS_BEYOND_ONE)      \
	X(USED_FLAGS_WITH_EVENT_IDX)  \
	X(AVAIL_EVENT_LEFT_BEHIND)    \
	X(NO_INTERRUPT_IGNORED)       \
	X(EVENT_IDX_IGNORED)          \
	X(EVENT_ALWAYS)               \
	X(EVENT_NEVER)                \
	X(EVENT_ONE_LATE)             \
	X(DESCRIPTORS_CLEARED)        \
	X(THREE_DESCRIPTORS_AT_MOST)  \
	X(INDIRECT_WRITE_FLAG_JUDGED) \
	X(INDIRECT_ALONE_ONLY)

#define VNET_MUTANT_ENUM(name) VNET_MUTANT_##name,
enum vnet_mutant { VNET_MUTANT_NAMES(VNET_MUTANT_ENUM) VNET_MUTANT_COUNT };

#if VNET_TEST_HOOKS

struct iovec;
struct virtio_net_hdr_v1;
struct vnet_chain;
struct vnet_flow;
struct vnet_slot;
struct vnet_vring;
struct vnet_worker;

bool vnet_test_mutant_on(enum vnet_mutant mutant);

/* Each as the line has it, at the moment it is made. */
void vnet_mutate_flow(const uint8_t *frame, uint32_t len, struct vnet_flow *flow);
void vnet_mutate_front(uint64_t *words, uint32_t *report);
void vnet_mutate_lens(const struct vnet_chain *chains, uint32_t *lens, uint32_t n, uint32_t header);
void vnet_mutate_room(struct vnet_worker *w, uint32_t chain, uint64_t missing);
void vnet_mutate_length(const struct vnet_slot *slot, uint64_t len);
void vnet_mutate_gso(struct virtio_net_hdr_v1 *header);
void vnet_mutate_sent(const struct iovec *pieces, uint32_t count, uint8_t *page, uint32_t header,
		      uint32_t *frame);
void vnet_mutate_used(struct vnet_vring *vr, const struct vnet_chain *chains, const uint32_t *lens,
		      uint32_t count);

#define VNET_MUTANT(name) vnet_test_mutant_on(VNET_MUTANT_##name)
#define VNET_SPOILT(name, condition) ((condition) != VNET_MUTANT(name))
#define VNET_MUTATE(what, ...) vnet_mutate_##what(__VA_ARGS__)

#else

#define VNET_MUTANT(name) false
#define VNET_SPOILT(name, condition) (condition)
#define VNET_MUTATE(what, ...) ((void)0)

#endif

#endif
