/* SPDX-License-Identifier: MIT */
/*
 * vnet_parse() and vnet_hash_flow() over any bytes.
 *
 * Input: hash types and order (2 bytes), a place to cut (2 bytes), the frame.
 *
 * Held to be true:
 *   1. no byte before or behind the frame is read: it lies at the end of its
 *      block, at any alignment, and the flow depends on nothing else;
 *   2. every field is in its range, and without meaning zero, addresses excepted;
 *   3. the same frame gives the same flow;
 *   4. a cut frame gives a poorer flow, never another one: addresses, the
 *      extension header and ports once found stay as they are;
 *   5. nothing beyond the first 1024 bytes matters;
 *   6. the report's type is enabled and fits the flow; report NONE has value 0;
 *   7. the value is the one of the Toeplitz hash done bit by bit.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "pyvnet/toeplitz.h"
#include "pyvnet/virtio_abi.h"

#define OPTIONS_SIZE 4u
#define ORDER_BIT 0x8000u
#define ALL_HASH_TYPES 0x1ffu
#define MARGIN 16u

#define CHECK(condition)                                                                \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                        \
		}                                                                       \
	} while (0)

/* Microsoft's verification key. */
static const uint8_t KEY[VNET_RSS_KEY_SIZE] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
	0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
	0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

static const uint8_t ZEROS[16];

static uint32_t addresses_size(const struct vnet_flow *f)
{
	return f->l3 == 4 ? 8 : f->l3 == 6 ? 32 : 0;
}

static int has_extensions(const struct vnet_flow *f)
{
	return (f->kind & VNET_FLOW_EXTENSIONS) != 0;
}

/* The addresses the types for extension headers hash. */
static const uint8_t *ex_addresses(const struct vnet_flow *f)
{
	return f->has_ex_addresses ? f->ex_addresses : f->addresses;
}

/* All bytes in front of the addresses, and of those what is meaningful. */
static int same(const struct vnet_flow *a, const struct vnet_flow *b)
{
	return !memcmp(a, b, offsetof(struct vnet_flow, addresses)) &&
	       !memcmp(a->addresses, b->addresses, addresses_size(a)) &&
	       (!a->has_ex_addresses || !memcmp(a->ex_addresses, b->ex_addresses, 32));
}

/* Parse a copy that ends where its block ends. */
static void parse_copy(const uint8_t *frame, uint32_t len, uint32_t shift, uint8_t fill,
		       struct vnet_flow *flow)
{
	uint8_t *block = malloc(MARGIN + shift + len);

	CHECK(block);
	memset(block, fill, MARGIN + shift);
	if (len)
		memcpy(block + MARGIN + shift, frame, len);
	memset(flow, fill, sizeof(*flow));
	vnet_parse(block + MARGIN + shift, len, flow);
	free(block);
}

static void check_ranges(const struct vnet_flow *f)
{
	CHECK(f->l3 == 0 || f->l3 == 4 || f->l3 == 6);
	CHECK(f->l4 == 0 || ((f->l4 == 6 || f->l4 == 17) && f->l3));
	CHECK(!has_extensions(f) || f->l3 == 6);
	CHECK(!f->has_ex_addresses || has_extensions(f));
	CHECK(!(f->kind & VNET_FLOW_IPV4) == (f->l3 != 4));
	CHECK(!(f->kind & VNET_FLOW_IPV6) == (f->l3 != 6));
	CHECK((f->kind & VNET_FLOW_L4) == (f->l4 == 6  ? VNET_FLOW_TCP :
					   f->l4 == 17 ? VNET_FLOW_UDP :
							 0));
	CHECK(f->vlan_count <= VNET_PARSE_MAX_VLAN);
	CHECK((f->vlan_count > 0) == (f->outer_tpid != 0));
	CHECK(f->vlan_count || !f->outer_tci);
	CHECK(f->l4 || !memcmp(f->ports, ZEROS, sizeof(f->ports)));
	CHECK(f->l4 ? f->l4_offset >= 14 + 20 : !f->l4_offset);
}

static void check_prefix(const struct vnet_flow *cut, const struct vnet_flow *whole)
{
	CHECK(cut->vlan_count <= whole->vlan_count);
	if (cut->l3) {
		CHECK(cut->l3 == whole->l3);
		CHECK(!memcmp(cut->addresses, whole->addresses, addresses_size(cut)));
		CHECK(!has_extensions(cut) || has_extensions(whole));
		for (uint32_t at = 0; at < 32 && cut->has_ex_addresses; at += 16)
			CHECK(!memcmp(cut->ex_addresses + at, cut->addresses + at, 16) ||
			      !memcmp(cut->ex_addresses + at, whole->ex_addresses + at, 16));
	}
	if (cut->l4)
		CHECK(same(cut, whole));
}

static uint32_t hash_slowly(const uint8_t *input, uint32_t size)
{
	uint32_t hash = 0;

	for (uint32_t i = 0; i < size; i++)
		hash ^= vnet_toeplitz_step(vnet_toeplitz_window(KEY, i), input[i]);
	return hash;
}

static void check_hash(uint32_t types, uint32_t flags, const struct vnet_flow *f)
{
	struct vnet_steering steering = { .hash_types = types, .flags = flags };
	struct vnet_toeplitz toeplitz;
	uint8_t input[VNET_HASH_INPUT_MAX];
	uint32_t size = addresses_size(f);
	struct vnet_hash hash;
	uint32_t report;

	memcpy(steering.key, KEY, sizeof(KEY));
	vnet_toeplitz_init(&toeplitz, &steering);
	hash = vnet_hash_flow(&toeplitz, f);
	report = hash.report;
	if (report == VIRTIO_NET_HASH_REPORT_NONE) {
		CHECK(!hash.value);
		return;
	}
	CHECK(report <= VIRTIO_NET_HASH_REPORT_UDPv6_EX);
	CHECK(types >> (report - 1) & 1);
	CHECK((f->l3 == 4) == (report <= VIRTIO_NET_HASH_REPORT_UDPv4));
	CHECK(report < VIRTIO_NET_HASH_REPORT_IPv6_EX || has_extensions(f) || flags);
	memcpy(input, report < VIRTIO_NET_HASH_REPORT_IPv6_EX ? f->addresses : ex_addresses(f),
	       size);
	if (report % 3 != 1) { /* of three types each, IP, TCP, UDP */
		CHECK(f->l4 == (report % 3 == 2 ? 6 : 17));
		memcpy(input + size, f->ports, 4);
		size += 4;
	}
	CHECK(hash.value == hash_slowly(input, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vnet_flow whole, again, cut;
	uint32_t options, place, len;
	const uint8_t *frame;

	if (size < OPTIONS_SIZE || size > 65536)
		return 0;
	options = (uint32_t)data[0] | (uint32_t)data[1] << 8;
	place = (uint32_t)data[2] | (uint32_t)data[3] << 8;
	frame = data + OPTIONS_SIZE;
	len = (uint32_t)(size - OPTIONS_SIZE);

	parse_copy(frame, len, 0, 0x00, &whole);
	check_ranges(&whole);
	parse_copy(frame, len, 1 + (place & 7), 0xff, &again);
	CHECK(same(&whole, &again));
	if (len > VNET_PARSE_WINDOW) {
		parse_copy(frame, VNET_PARSE_WINDOW, 0, 0x60, &again);
		CHECK(same(&whole, &again));
	}
	parse_copy(frame, place % (len + 1), 0, 0x60, &cut);
	check_ranges(&cut);
	check_prefix(&cut, &whole);
	check_hash(options & ALL_HASH_TYPES, options & ORDER_BIT ? VNET_STEER_F_EX_TYPES_ALWAYS : 0,
		   &whole);
	check_hash(ALL_HASH_TYPES, 0, &cut);
	return 0;
}
