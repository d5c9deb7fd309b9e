/* SPDX-License-Identifier: MIT */
/*
 * The steering program's map, as the device writes it.
 *
 * Why no frame sees a mixture.  The program loads @active once and reads
 * nothing but that slot.  publish() writes a slot that is not active, then
 * stores its number with release order: whoever reads the new number reads a
 * slot that is complete.  (In the program the order comes from the address,
 * which is worked out from @active.)  What remains is a program that loaded the
 * old number and is still running: its slot must not be written again before
 * it has ended.  Programs run inside an RCU read-side section, and
 * MEMBARRIER_CMD_GLOBAL is synchronize_rcu() for everybody, without privilege.
 * So after settle() nobody reads anything but the active slot, and each of the
 * others may be written once before the next settle().
 *
 * Where only one CPU is online the kernel does not wait at all: the section
 * runs with bottom halves off, so it is over when somebody else runs.
 *
 * There is no lock: one thread publishes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/membarrier.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hash_kernel.h"
#include "policy.h"
#include "pyvnet/vnet.h"
#include "test_hooks.h"

static_assert(VNET_STEERING_KINDS == VNET_FLOW_KINDS, "kinds");
static_assert(VNET_STEERING_INPUT == VNET_HASH_INPUT_MAX, "input");

static uint8_t protocol(uint8_t number)
{
	uint32_t is = VNET_STEERING_EXTENSION;

	if (number == PROTO_TCP)
		return VNET_FLOW_TCP;
	if (number == PROTO_UDP)
		return VNET_FLOW_UDP;
	if (!is_extension(number))
		return 0;
	is |= extension_size(number, 1) - extension_size(number, 0);
	if (number == PROTO_HOPOPTS || number == PROTO_DSTOPTS)
		is |= VNET_STEERING_OPTIONS;
	if (number == PROTO_DSTOPTS)
		is |= VNET_STEERING_DESTINATION;
	if (number == PROTO_ROUTING)
		is |= VNET_STEERING_ROUTING;
	if (number == PROTO_FRAGMENT)
		is |= VNET_STEERING_LAST;
	return (uint8_t)is;
}

static void fill(struct vnet_steering_slot *slot, const struct vnet_policy *policy)
{
	slot->steering = policy->steering;
	memcpy(slot->choice, policy->toeplitz.choice, sizeof(slot->choice));
	slot->zero = 0;
	for (uint32_t number = 0; number < sizeof(slot->protocols); number++)
		slot->protocols[number] = protocol((uint8_t)number);
	vnet_hash_fill_tables(slot->toeplitz, policy->steering.key);
}

int vnet_steering_map_publish(void *map, uint64_t size, const struct vnet_policy *policy)
{
	struct vnet_steering_map *m = map;
	_Atomic uint32_t *active;
	uint32_t next;

	if (size < sizeof(*m) || m->magic != VNET_STEERING_MAP_MAGIC ||
	    m->layout != VNET_STEERING_MAP_LAYOUT)
		return -EINVAL;
	active = (_Atomic uint32_t *)&m->active;
	next = (atomic_load_explicit(active, memory_order_relaxed) + 1) % VNET_STEERING_SLOTS;
	fill(&m->slots[next], policy);
	atomic_store_explicit(active, next, memory_order_release);
	return 0;
}

int vnet_steering_settle(void)
{
	if (VNET_FAILS(VNET_FAIL_SETTLE))
		return -EINVAL;
	return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) ? -errno : 0;
}
