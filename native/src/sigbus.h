/* SPDX-License-Identifier: MIT */
/*
 * Guest memory that goes away under its mapping.
 *
 * Theory
 *   A front-end may cut off the file of a region after it was mapped, or hand
 *   over a sparse one whose file system is full.  The next access is then
 *   SIGBUS, which nothing but the access itself can foretell.
 *
 *   Where regions lie is kept in a registry that a signal handler can read.
 *   The handler puts zeros in the place of the whole region, so that every
 *   region faults at most once (page by page, a guest could make more mappings
 *   than a process may have), marks the table as lost, and the access goes on.
 *   The worker reports the loss after the batch: the table is of no use to
 *   anybody any more, and its front-end is to be dropped.
 *
 *   Only workers touch guest memory, and the table a worker touches is not
 *   unmapped meanwhile: the entry a handler finds for its own fault is stable.
 *   Any other may change as it looks; that shows in the entry's version.
 *
 *   SIGBUS belongs to the process, and others want it too: Python's
 *   faulthandler, a sanitizer, another build of this very engine.  A fault that
 *   is not ours goes to whoever had the signal before; a handler that came later
 *   and stands before ours is overtaken when the next table is made.  One
 *   that reports, restores ours and raises the signal anew (faulthandler
 *   does) is seen by that: the access is then simply made again.
 */
#ifndef PYVNET_SIGBUS_H
#define PYVNET_SIGBUS_H

#include <stddef.h>
#include <stdint.h>

struct vnet_mem;

/** vnet_sigbus_install() - be the first to hear of SIGBUS. Return: 0 or -errno */
int vnet_sigbus_install(void);

/**
 * vnet_sigbus_watch() - register one mapped region, in whole pages of its file
 * @page:	their size, in bytes
 * Return: number of the entry; -ENOMEM: there are too many
 */
int vnet_sigbus_watch(struct vnet_mem *mem, const void *at, size_t size, size_t page);

/** vnet_sigbus_forget() - before the region is unmapped */
void vnet_sigbus_forget(uint32_t entry);

/** vnet_sigbus_faults() - how often the calling thread found zeros instead of what was there */
uint32_t vnet_sigbus_faults(void);

/** vnet_sigbus_worker() - the calling thread touches guest memory */
void vnet_sigbus_worker(void);

#endif
