/* SPDX-License-Identifier: MIT */
/*
 * vnet_parse() and vnet_hash_flow() over any bytes.
 *
 * Input: hash types and order (2 bytes), a place to cut (2 bytes), the frame.
 *
 * Held to be true:
 *   1. no byte before or behind the frame is read: it lies at the end of its
 *      block, at any alignment, and the flow depends on nothing else;
 *   2. every field is in its range, and what has no meaning is zero;
 *   3. the same frame gives the same flow;
 *   4. a cut frame gives a poorer flow, never another one: addresses, the
 *      extension header and ports once found stay as they are;
 *   5. nothing beyond the first 1024 bytes matters;
 *   6. the report's type is enabled and fits the flow; report NONE has value 0;
 *   7. the value is the one of the Toeplitz hash done bit by bit.
 */
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

/* Comparison of all bytes is meant: vnet_parse() fills the padding too. */
static int same(const struct vnet_flow *a, const struct vnet_flow *b)
{
	return !memcmp(a, b, sizeof(*a));
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
	CHECK(!f->has_extensions || f->l3 == 6);
	CHECK(f->vlan_count <= VNET_PARSE_MAX_VLAN);
	CHECK((f->vlan_count > 0) == (f->outer_tpid != 0));
	CHECK(f->vlan_count || !f->outer_tci);
	CHECK(f->l4 || !memcmp(f->ports, ZEROS, sizeof(f->ports)));
	CHECK(f->l4 ? f->l4_offset >= 14 + 20 : !f->l4_offset);
	if (f->l3 != 6) {
		CHECK(!memcmp(f->saddr_ex, ZEROS, 16) && !memcmp(f->daddr_ex, ZEROS, 16));
		CHECK(!memcmp(f->saddr + 4, ZEROS, 12) && !memcmp(f->daddr + 4, ZEROS, 12));
	}
	if (f->l3 == 0)
		CHECK(!memcmp(f->saddr, ZEROS, 4) && !memcmp(f->daddr, ZEROS, 4));
	if (!f->has_extensions)
		CHECK(f->l3 != 6 ||
		      (!memcmp(f->saddr_ex, f->saddr, 16) && !memcmp(f->daddr_ex, f->daddr, 16)));
}

static void check_prefix(const struct vnet_flow *cut, const struct vnet_flow *whole)
{
	CHECK(cut->vlan_count <= whole->vlan_count);
	if (cut->l3) {
		CHECK(cut->l3 == whole->l3);
		CHECK(!memcmp(cut->saddr, whole->saddr, 16));
		CHECK(!memcmp(cut->daddr, whole->daddr, 16));
		CHECK(!cut->has_extensions || whole->has_extensions);
		CHECK(!memcmp(cut->saddr_ex, cut->saddr, 16) ||
		      !memcmp(cut->saddr_ex, whole->saddr_ex, 16) || cut->l3 == 4);
		CHECK(!memcmp(cut->daddr_ex, cut->daddr, 16) ||
		      !memcmp(cut->daddr_ex, whole->daddr_ex, 16) || cut->l3 == 4);
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
	const struct vnet_steering steering = { .hash_types = types, .flags = flags };
	static struct vnet_toeplitz toeplitz;
	uint8_t input[VNET_HASH_INPUT_MAX];
	uint32_t size = f->l3 == 4 ? 4 : 16;
	struct vnet_hash hash;
	uint32_t report;

	if (!toeplitz.table[0][1])
		vnet_toeplitz_init(&toeplitz, KEY);
	hash = vnet_hash_flow(&steering, &toeplitz, f);
	report = hash.report;
	if (report == VIRTIO_NET_HASH_REPORT_NONE) {
		CHECK(!hash.value);
		return;
	}
	CHECK(report <= VIRTIO_NET_HASH_REPORT_UDPv6_EX);
	CHECK(types >> (report - 1) & 1);
	CHECK((f->l3 == 4) == (report <= VIRTIO_NET_HASH_REPORT_UDPv4));
	CHECK(report < VIRTIO_NET_HASH_REPORT_IPv6_EX || f->has_extensions || flags);
	memcpy(input, report < VIRTIO_NET_HASH_REPORT_IPv6_EX ? f->saddr : f->saddr_ex, size);
	memcpy(input + size, report < VIRTIO_NET_HASH_REPORT_IPv6_EX ? f->daddr : f->daddr_ex,
	       size);
	size *= 2;
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
