/* SPDX-License-Identifier: MIT */
/*
 * A Toeplitz kernel of pyvnet over batches of 32 inputs that stay in the first-level cache.
 *
 *	toeplitz KERNEL SECONDS
 *
 * KERNEL: "best", or a name that `pyvnet caps` lists.
 */
#include <string.h>

#include "hash_inputs.h"
#include "hash_kernel.h"
#include "pyvnet/vnet.h"

struct context {
	struct vnet_toeplitz toeplitz;
	struct vnet_hash_ipv4 v4;
	struct vnet_hash_ipv6 v6;
};

static uint32_t all(void *context, uint32_t length)
{
	struct context *c = context;
	uint32_t values[INPUTS], sum = 0;

	if (length == SHORT_INPUT)
		c->toeplitz.kernel->ipv4(&c->toeplitz, &c->v4, values);
	else
		c->toeplitz.kernel->ipv6(&c->toeplitz, &c->v6, values);
	for (uint32_t i = 0; i < INPUTS; i++)
		sum ^= values[i];
	return sum;
}

static void fill(struct context *c, struct hash_inputs *in)
{
	struct vnet_steering steering = { 0 };

	memcpy(steering.key, in->key, KEY_SIZE);
	vnet_toeplitz_init(&c->toeplitz, &steering);
	c->v4.count = c->v6.count = INPUTS;
	for (uint32_t i = 0; i < INPUTS; i++) {
		memcpy(&c->v4.addresses[i], in->bytes[i], 8);
		memcpy(&c->v4.ports[i], in->bytes[i] + 8, 4);
		c->v6.addresses[i] = in->bytes[i];
		memcpy(&c->v6.ports[i], in->bytes[i] + 32, 4);
	}
}

int main(int argc, char **argv)
{
	static struct hash_inputs inputs;
	static struct context context;

	if (argc != 3) {
		fprintf(stderr, "usage: toeplitz best|KERNEL SECONDS\n");
		return 1;
	}
	if (vnet_hash_select(strcmp(argv[1], "best") ? argv[1] : NULL)) {
		fprintf(stderr, "no kernel %s here; pyvnet caps lists what this CPU can run\n",
			argv[1]);
		return 1;
	}
	hash_inputs_make(&inputs);
	fill(&context, &inputs);
	hash_print(all, &context, atof(argv[2]));
	return 0;
}
