/* SPDX-License-Identifier: MIT */
/* The kernel for every CPU: one lookup and xor per input byte. */
#include <stddef.h>

#include "hash_kernel.h"
#include "pyvnet/toeplitz.h"

static const char *lacks(void)
{
	return NULL;
}

void vnet_hash_fill_tables(uint32_t (*tables)[256], const uint8_t *key)
{
	for (uint32_t position = 0; position < VNET_HASH_INPUT_MAX; position++) {
		const uint64_t window = vnet_toeplitz_window(key, position);
		uint32_t *table = tables[position];

		/* The hash is linear: the upper half of the values is the lower one and their top bit. */
		table[0] = 0;
		for (uint32_t bit = 1; bit < 256; bit *= 2) {
			const uint32_t step = vnet_toeplitz_step(window, (uint8_t)bit);

			for (uint32_t rest = 0; rest < bit; rest++)
				table[bit + rest] = table[rest] ^ step;
		}
	}
}

static void expand(struct vnet_toeplitz *t, const uint8_t *key)
{
	vnet_hash_fill_tables(t->table, key);
}

/* Contribution of four bytes; four lookups a turn: a loop of single ones is half as fast. */
static inline uint32_t look_up(const struct vnet_toeplitz *t, uint32_t position,
			       const uint8_t *bytes)
{
	const uint32_t (*table)[256] = &t->table[position];

	return table[0][bytes[0]] ^ table[1][bytes[1]] ^ table[2][bytes[2]] ^ table[3][bytes[3]];
}

static void ipv4(const struct vnet_toeplitz *t, const struct vnet_hash_ipv4 *inputs,
		 uint32_t *values)
{
	for (uint32_t i = 0; i < inputs->count; i++) {
		const uint8_t *addresses = (const uint8_t *)&inputs->addresses[i];

		values[i] = look_up(t, 0, addresses) ^ look_up(t, 4, addresses + 4) ^
			    look_up(t, 8, (const uint8_t *)&inputs->ports[i]);
	}
}

static void ipv6(const struct vnet_toeplitz *t, const struct vnet_hash_ipv6 *inputs,
		 uint32_t *values)
{
	for (uint32_t i = 0; i < inputs->count; i++) {
		uint32_t value = look_up(t, 32, (const uint8_t *)&inputs->ports[i]);

		for (uint32_t at = 0; at < 32; at += 4)
			value ^= look_up(t, at, inputs->addresses[i] + at);
		values[i] = value;
	}
}

const struct vnet_hash_kernel vnet_hash_tables = {
	.name = "tables",
	.lacks = lacks,
	.expand = expand,
	.ipv4 = ipv4,
	.ipv6 = ipv6,
};
