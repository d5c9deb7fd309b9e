/* SPDX-License-Identifier: MIT */
/* The least io_uring that reads and writes two taps by registered files and buffers. */
#ifndef PYVNET_BENCH_TCP_URING_H
#define PYVNET_BENCH_TCP_URING_H

#include <linux/io_uring.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tcp_pair.h"

struct tcp_uring {
	int fd;
	uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask, staged;
	struct io_uring_sqe *sqes;
	const struct io_uring_cqe *cqes;
};

static inline void tcp_uring_map(struct tcp_uring *r, const struct io_uring_params *p)
{
	size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	uint8_t *rings = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);

	r->sqes = mmap(NULL, p->sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, r->fd, (off_t)IORING_OFF_SQES);
	if (rings == MAP_FAILED || (void *)r->sqes == MAP_FAILED)
		tcp_pair_fail("mapping io_uring", "");
	r->sq_tail = (uint32_t *)(void *)(rings + p->sq_off.tail);
	r->sq_array = (uint32_t *)(void *)(rings + p->sq_off.array);
	r->cq_head = (uint32_t *)(void *)(rings + p->cq_off.head);
	r->cq_tail = (uint32_t *)(void *)(rings + p->cq_off.tail);
	r->cqes = (const struct io_uring_cqe *)(const void *)(rings + p->cq_off.cqes);
	r->sq_mask = p->sq_entries - 1;
	r->cq_mask = p->cq_entries - 1;
}

/** tcp_uring_open() - a ring with @files and one buffer registered */
static inline void tcp_uring_open(struct tcp_uring *r, uint32_t entries, const int *files,
				  uint32_t count, void *buffer, size_t size)
{
	struct io_uring_params p = { 0 };
	struct iovec iov = { buffer, size };

	*r = (struct tcp_uring){ .fd = (int)syscall(SYS_io_uring_setup, entries, &p) };
	if (r->fd < 0)
		tcp_pair_fail("io_uring_setup", "allow it (sysctl kernel.io_uring_disabled)");
	tcp_uring_map(r, &p);
	if (syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_FILES, files, count) ||
	    syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &iov, 1))
		tcp_pair_fail("registering files and buffers with io_uring",
			      "raise the limit of locked memory");
}

/** tcp_uring_stage() - one read or write of a registered buffer, answered at once or with EAGAIN */
static inline void tcp_uring_stage(struct tcp_uring *r, uint8_t opcode, int file, void *at,
				   uint32_t len, uint64_t tag)
{
	uint32_t tail = *r->sq_tail + r->staged, entry = tail & r->sq_mask;

	r->sqes[entry] = (struct io_uring_sqe){
		.opcode = opcode,
		.flags = IOSQE_FIXED_FILE,
		.fd = file,
		.off = UINT64_MAX,
		.addr = (uintptr_t)at,
		.len = len,
		.rw_flags = opcode == IORING_OP_READ_FIXED ? RWF_NOWAIT : 0,
		.user_data = tag,
	};
	r->sq_array[entry] = entry;
	r->staged++;
}

/** tcp_uring_run() - do what was staged. @results: by tag */
static inline void tcp_uring_run(struct tcp_uring *r, int32_t *results)
{
	uint32_t n = r->staged, head = *r->cq_head;

	__atomic_store_n(r->sq_tail, *r->sq_tail + n, __ATOMIC_RELEASE);
	r->staged = 0;
	while (syscall(SYS_io_uring_enter, r->fd, n, n, IORING_ENTER_GETEVENTS, NULL, 0) < 0) {
		if (errno != EINTR)
			tcp_pair_fail("io_uring_enter", "");
	}
	while (n) {
		if (head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE))
			continue;
		results[r->cqes[head & r->cq_mask].user_data] = r->cqes[head & r->cq_mask].res;
		head++;
		n--;
	}
	__atomic_store_n(r->cq_head, head, __ATOMIC_RELEASE);
}

#endif
