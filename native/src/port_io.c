/* SPDX-License-Identifier: MIT */
/* See port_io.h. */
#define _GNU_SOURCE
#include "port_io.h"

#include <errno.h>
#include <sys/mman.h>

#include "test_hooks.h"

#define IO_SIZE ((size_t)VNET_BATCH * VNET_SLOT_STRIDE + (size_t)VNET_TX_BATCH * VNET_TX_STRIDE)

int vnet_port_io_init(struct vnet_port_io *io, const int *fds, uint32_t fd_count,
		      enum vnet_io wanted)
{
	uint8_t *base = VNET_FAILS(VNET_FAIL_MMAP) ?
				MAP_FAILED :
				mmap(NULL, IO_SIZE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	io->uring.fd = -1;
	if (base == MAP_FAILED)
		return -ENOMEM;
	io->base = base;
	for (uint32_t i = 0; i < VNET_BATCH; i++)
		io->slots[i] = (struct vnet_slot *)(void *)(base + i * VNET_SLOT_STRIDE);
	if (wanted == VNET_IO_PLAIN)
		return 0;
	/* The kernel keeps these very pages: a child must not make us copies of them. */
	madvise(base, IO_SIZE, MADV_DONTFORK);
	if (vnet_uring_init(&io->uring, VNET_TX_BATCH, &(struct iovec){ base, IO_SIZE }, fds,
			    fd_count, &io->refusal))
		return 0;
	return wanted == VNET_IO_URING ? -io->refusal.error : 0;
}

void vnet_port_io_fini(struct vnet_port_io *io)
{
	if (!io->base)
		return;
	vnet_uring_fini(&io->uring);
	munmap(io->base, IO_SIZE);
	io->base = NULL;
}
