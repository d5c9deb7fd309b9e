/* SPDX-License-Identifier: MIT */
/* Which kernels there are, which of them this CPU can run, and which one is used. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "hash_kernel.h"
#include "pyvnet/toeplitz.h"
#include "pyvnet/vnet.h"

const struct vnet_hash_kernel *const vnet_hash_kernels[] = {
#if defined(__x86_64__) || defined(VNET_HASH_EMULATED)
	&vnet_hash_vpclmul512, &vnet_hash_vpclmul256,
	&vnet_hash_pclmul,
#elif defined(__aarch64__)
	&vnet_hash_pmull,
#endif
	&vnet_hash_tables,     NULL,
};

static _Atomic(const struct vnet_hash_kernel *) selected;

static const struct vnet_hash_kernel *best(void)
{
	const struct vnet_hash_kernel *const *kernel = vnet_hash_kernels;

	while ((*kernel)->lacks())
		kernel++; /* the last one lacks nothing */
	return *kernel;
}

const struct vnet_hash_kernel *vnet_hash_kernel(void)
{
	const struct vnet_hash_kernel *kernel =
		atomic_load_explicit(&selected, memory_order_relaxed);

	if (!kernel) {
		kernel = best();
		atomic_store_explicit(&selected, kernel, memory_order_relaxed);
	}
	return kernel;
}

int vnet_hash_select(const char *name)
{
	const struct vnet_hash_kernel *found = NULL;

	if (!name || !*name) {
		atomic_store_explicit(&selected, best(), memory_order_relaxed);
		return 0;
	}
	for (uint32_t i = 0; vnet_hash_kernels[i]; i++) {
		if (!strcmp(vnet_hash_kernels[i]->name, name))
			found = vnet_hash_kernels[i];
	}
	if (!found)
		return -EINVAL;
	if (found->lacks())
		return -ENOTSUP;
	atomic_store_explicit(&selected, found, memory_order_relaxed);
	return 0;
}

const char *vnet_hash_kernel_name(void)
{
	return vnet_hash_kernel()->name;
}

int vnet_hash_kernel_info(uint32_t index, const char **name, const char **lacks)
{
	for (uint32_t i = 0; vnet_hash_kernels[i]; i++) {
		if (i != index)
			continue;
		*name = vnet_hash_kernels[i]->name;
		*lacks = vnet_hash_kernels[i]->lacks();
		return 1;
	}
	return 0;
}

static uint64_t reflect(uint64_t word)
{
	uint64_t reflected = 0;

	for (uint32_t bit = 0; bit < 64; bit++)
		reflected |= (word >> bit & 1) << (63 - bit);
	return reflected;
}

void vnet_hash_reflected_key(struct vnet_toeplitz *t, const uint8_t *key)
{
	uint64_t first = reflect(vnet_toeplitz_key_word(key, 0));

	for (uint32_t word = 0; word < VNET_HASH_WORDS; word++) {
		t->low[word] = first << 1;
		if (word < VNET_HASH_WORDS - 1) {
			const uint64_t next = reflect(vnet_toeplitz_key_word(key, word + 1));

			t->high[word] = (uint32_t)(next << 1 | first >> 63);
			first = next;
		}
	}
}
