/* SPDX-License-Identifier: MIT */
/* See port_io.h. */
#define _GNU_SOURCE
#include "port_io.h"

#include <errno.h>
#include <sys/mman.h>

#include "test_hooks.h"

#define IO_SIZE ((size_t)VNET_BATCH * (VNET_SLOT_STRIDE + VNET_TX_STRIDE))

int vnet_port_io_init(struct vnet_port_io *io)
{
	uint8_t *base = VNET_FAILS(VNET_FAIL_MMAP) ?
				MAP_FAILED :
				mmap(NULL, IO_SIZE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return -ENOMEM;
	io->base = base;
	for (uint32_t i = 0; i < VNET_BATCH; i++)
		io->slots[i] = (struct vnet_slot *)(void *)(base + i * VNET_SLOT_STRIDE);
	return 0;
}

void vnet_port_io_fini(struct vnet_port_io *io)
{
	if (io->base)
		munmap(io->base, IO_SIZE);
	io->base = NULL;
}
