/* SPDX-License-Identifier: MIT */
/*
 * Hash batches of frames with one kernel: for builds that the extension is not,
 * with sanitizers, with emulated instructions, for another CPU.
 *
 *	hash_frames              names of the kernels that can run, a line each
 *	hash_frames KERNEL       batches from standard input, hashes to standard output
 *
 * A batch: key, hash types, flags, number of frames; of each frame its length
 * and bytes.  The answer: a value and a report per frame.  All numbers are 32
 * bits in the machine's order.  Frames and flows end where their blocks end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash_kernel.h"
#include "pyvnet/vnet.h"

static uint32_t number(void)
{
	uint32_t value;

	if (fread(&value, sizeof(value), 1, stdin) != 1)
		exit(3);
	return value;
}

static void *block(size_t size)
{
	void *bytes = malloc(size);

	if (!bytes)
		exit(4);
	return bytes;
}

static void answer(const struct vnet_toeplitz *t, const struct vnet_flow *flows, uint32_t n)
{
	struct vnet_hash *hashes = block(n * sizeof(*hashes));

	vnet_hash_batch(t, flows, n, hashes);
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t both[2] = { hashes[i].value, hashes[i].report };

		fwrite(both, sizeof(both), 1, stdout);
	}
	free(hashes);
}

static void batch(const struct vnet_steering *steering, uint32_t n)
{
	static struct vnet_toeplitz toeplitz;
	struct vnet_flow *flows = block(n * sizeof(*flows));
	uint32_t *lengths = block(n * sizeof(*lengths));
	uint8_t **frames = block(n * sizeof(*frames));

	for (uint32_t i = 0; i < n; i++) {
		lengths[i] = number();
		frames[i] = block(lengths[i]);
		if (fread(frames[i], 1, lengths[i], stdin) != lengths[i])
			exit(3);
	}
	vnet_toeplitz_init(&toeplitz, steering);
	vnet_parse_batch((const uint8_t *const *)frames, lengths, n, flows);
	answer(&toeplitz, flows, n);
	for (uint32_t i = 0; i < n; i++)
		free(frames[i]);
	free(frames);
	free(lengths);
	free(flows);
}

int main(int argc, char **argv)
{
	struct vnet_steering steering;

	if (argc < 2) {
		for (uint32_t i = 0; vnet_hash_kernels[i]; i++) {
			if (!vnet_hash_kernels[i]->lacks())
				puts(vnet_hash_kernels[i]->name);
		}
		return 0;
	}
	if (vnet_hash_select(argv[1]))
		return 2;
	memset(&steering, 0, sizeof(steering));
	while (fread(steering.key, sizeof(steering.key), 1, stdin) == 1) {
		steering.hash_types = number();
		steering.flags = number();
		batch(&steering, number());
	}
	return 0;
}
