/* SPDX-License-Identifier: MIT */
/*
 * io_uring by raw system calls, as much of it as batches of frames need.
 *
 * Theory
 *   Requests are prepared, then all run by one system call, which is left when
 *   all of them have ended: nothing is in flight between two batches.  So
 *   buffers and files may go at any time outside one, and one results table of
 *   the size of a batch is enough, whatever order the kernel ends them in.
 *
 *   Every request carries RWF_NOWAIT: it is done or refused on the spot, by the
 *   calling thread, and never handed to a kernel thread.  What is refused says
 *   -EAGAIN.
 *
 *   Files and the one buffer are registered: that is what makes a batch cheaper
 *   than so many read() and write().  The buffer is ours (port_io.h), not the
 *   guest's, who could take his pages from under the registration.
 *
 *   The ring is not bound to the thread that made it.
 */
#ifndef PYVNET_URING_H
#define PYVNET_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct io_uring_sqe;
struct io_uring_cqe;

struct vnet_uring {
	int fd; /* -1: none */
	uint32_t prepared; /* requests not yet given to the kernel */
	uint32_t sq_mask, cq_mask;
	uint32_t sq_end; /* our copy of the tail of the submission queue */
	uint32_t *sq_tail, *cq_head, *cq_tail;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	struct iovec maps[2]; /* rings, requests */
};

/* Where io_uring was refused, and why. */
struct vnet_uring_refusal {
	uint32_t step; /* enum vnet_uring_step */
	int error; /* errno, 0: not refused */
};

/**
 * vnet_uring_init() - a ring with its buffer and files
 * @entries:	requests of a batch at most; a power of two
 * @buffer:	what fixed requests read and write in; stays until vnet_uring_fini()
 * @fds:	the files requests name by their place here
 * Return: was all of it allowed; if not there is no ring and @refusal says why
 */
bool vnet_uring_init(struct vnet_uring *u, uint32_t entries, const struct iovec *buffer,
		     const int *fds, uint32_t fd_count, struct vnet_uring_refusal *refusal);

/** vnet_uring_fini() - let go of files and buffer before it returns; harmless without a ring */
void vnet_uring_fini(struct vnet_uring *u);

/*
 * Prepare one request: @file is a place among the fds, @result the place of its
 * outcome in the results of vnet_uring_run().  Iovecs stay until then.
 */
void vnet_uring_read_fixed(struct vnet_uring *u, uint32_t file, void *to, uint32_t len,
			   uint32_t result);
void vnet_uring_write_fixed(struct vnet_uring *u, uint32_t file, const void *from, uint32_t len,
			    uint32_t result);
void vnet_uring_writev(struct vnet_uring *u, uint32_t file, const struct iovec *iov, uint32_t count,
		       uint32_t result);

/**
 * vnet_uring_run() - do all that was prepared, in its order, and wait for its end
 * @results:	one each: bytes, or -errno; -EAGAIN too for what the kernel did not take
 * @count:	of @results
 */
void vnet_uring_run(struct vnet_uring *u, int32_t *results, uint32_t count);

#endif
