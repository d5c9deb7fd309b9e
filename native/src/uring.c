/* SPDX-License-Identifier: MIT */
/* See uring.h. */
#define _GNU_SOURCE
#include "uring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pyvnet/vnet.h"
#include "test_hooks.h"

/* linux/io_uring.h of later kernels */
#ifndef IORING_SETUP_SUBMIT_ALL
#define IORING_SETUP_SUBMIT_ALL (1U << 7)
#endif
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif

#define RUN_TRIES 16u /* of a system call that fails for the moment */
#define PROBE_OPS 64u

static int sys_setup(uint32_t entries, struct io_uring_params *params)
{
	if (VNET_FAILS(VNET_FAIL_URING)) {
		errno = EPERM;
		return -1;
	}
	return (int)syscall(__NR_io_uring_setup, entries, params);
}

static int sys_register(const struct vnet_uring *u, uint32_t operation, const void *argument,
			uint32_t count)
{
	if (argument && VNET_FAILS(VNET_FAIL_URING)) {
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(__NR_io_uring_register, u->fd, operation, argument, count);
}

static int sys_enter(const struct vnet_uring *u, uint32_t submit, uint32_t wait, uint32_t flags)
{
	if (VNET_FAILS(VNET_FAIL_URING_ENTER)) {
		errno = EAGAIN;
		return -1;
	}
	return (int)syscall(__NR_io_uring_enter, u->fd, submit, wait, flags, NULL, (size_t)0);
}

/* What older kernels do not know is left out: they do without, or a batch takes another call. */
static int setup(uint32_t entries, struct io_uring_params *params)
{
	static const uint32_t wishes[] = { IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN, 0 };
	int fd = -1;

	for (size_t i = 0; fd < 0 && i < sizeof(wishes) / sizeof(wishes[0]); i++) {
		*params = (struct io_uring_params){ .flags = wishes[i] };
		fd = sys_setup(entries, params);
		if (fd < 0 && errno != EINVAL)
			break;
	}
	return fd;
}

static void *map(struct vnet_uring *u, uint32_t which, size_t size, uint64_t offset)
{
	void *at = VNET_FAILS(VNET_FAIL_MMAP) ?
			   MAP_FAILED :
			   mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
				u->fd, (off_t)offset);

	if (at == MAP_FAILED)
		return NULL;
	u->maps[which] = (struct iovec){ at, size };
	return at;
}

static bool map_rings(struct vnet_uring *u, const struct io_uring_params *p)
{
	size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	uint8_t *rings = map(u, 0, sq > cq ? sq : cq, IORING_OFF_SQ_RING);
	uint32_t *order;

	u->sqes = map(u, 1, p->sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	if (!rings || !u->sqes)
		return false;
	u->sq_mask = p->sq_entries - 1;
	u->cq_mask = p->cq_entries - 1;
	u->sq_tail = (uint32_t *)(void *)(rings + p->sq_off.tail);
	u->cq_head = (uint32_t *)(void *)(rings + p->cq_off.head);
	u->cq_tail = (uint32_t *)(void *)(rings + p->cq_off.tail);
	u->cqes = (struct io_uring_cqe *)(void *)(rings + p->cq_off.cqes);
	/* Requests are run in the order they lie in, so this is said once. */
	order = (uint32_t *)(void *)(rings + p->sq_off.array);
	for (uint32_t i = 0; i < p->sq_entries; i++)
		order[i] = i;
	return true;
}

static bool probe(const struct vnet_uring *u)
{
	static const uint8_t needed[] = { IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED,
					  IORING_OP_WRITEV };
	union {
		struct io_uring_probe probe;
		uint8_t room[sizeof(struct io_uring_probe) +
			     PROBE_OPS * sizeof(struct io_uring_probe_op)];
	} answer = { 0 };

	if (sys_register(u, IORING_REGISTER_PROBE, &answer, PROBE_OPS) < 0)
		return false;
	errno = EOPNOTSUPP;
	for (size_t i = 0; i < sizeof(needed); i++) {
		if (answer.probe.last_op < needed[i] ||
		    !(answer.probe.ops[needed[i]].flags & IO_URING_OP_SUPPORTED))
			return false;
	}
	return true;
}

/* Return: enum vnet_uring_step where it was refused, with errno; VNET_URING_NONE: all is done */
static enum vnet_uring_step build(struct vnet_uring *u, uint32_t entries,
				  const struct iovec *buffer, const int *fds, uint32_t fd_count)
{
	struct io_uring_params params;

	u->fd = setup(entries, &params);
	if (u->fd < 0)
		return VNET_URING_SETUP;
	if (!(params.features & IORING_FEAT_SINGLE_MMAP)) {
		errno = EOPNOTSUPP;
		return VNET_URING_PROBE;
	}
	if (!map_rings(u, &params))
		return VNET_URING_MAP;
	if (!probe(u))
		return VNET_URING_PROBE;
	if (sys_register(u, IORING_REGISTER_BUFFERS, buffer, 1) < 0)
		return VNET_URING_BUFFERS;
	if (sys_register(u, IORING_REGISTER_FILES, fds, fd_count) < 0)
		return VNET_URING_FILES;
	return VNET_URING_NONE;
}

bool vnet_uring_init(struct vnet_uring *u, uint32_t entries, const struct iovec *buffer,
		     const int *fds, uint32_t fd_count, struct vnet_uring_refusal *refusal)
{
	*u = (struct vnet_uring){ .fd = -1 };
	*refusal = (struct vnet_uring_refusal){ 0 };
	errno = 0;
	refusal->step = build(u, entries, buffer, fds, fd_count);
	if (!refusal->step)
		return true;
	refusal->error = errno ? errno : ENOMEM;
	vnet_uring_fini(u);
	return false;
}

void vnet_uring_fini(struct vnet_uring *u)
{
	if (u->fd < 0)
		return;
	/* Closing alone lets go of them some time later, and a tap queue would stay in use until then. */
	sys_register(u, IORING_UNREGISTER_FILES, NULL, 0);
	sys_register(u, IORING_UNREGISTER_BUFFERS, NULL, 0);
	for (size_t i = 0; i < sizeof(u->maps) / sizeof(u->maps[0]); i++) {
		if (u->maps[i].iov_base)
			munmap(u->maps[i].iov_base, u->maps[i].iov_len);
	}
	close(u->fd);
	*u = (struct vnet_uring){ .fd = -1 };
}

static struct io_uring_sqe *prepare(struct vnet_uring *u, uint8_t operation, uint32_t file,
				    const void *at, uint32_t len, uint32_t result)
{
	struct io_uring_sqe *sqe = &u->sqes[(u->sq_end + u->prepared++) & u->sq_mask];

	*sqe = (struct io_uring_sqe){
		.opcode = operation,
		.flags = IOSQE_FIXED_FILE,
		.fd = (int32_t)file,
		.addr = (uint64_t)(uintptr_t)at,
		.len = len,
		.rw_flags = RWF_NOWAIT,
		.user_data = result,
	};
	return sqe;
}

void vnet_uring_read_fixed(struct vnet_uring *u, uint32_t file, void *to, uint32_t len,
			   uint32_t result)
{
	prepare(u, IORING_OP_READ_FIXED, file, to, len, result);
}

void vnet_uring_write_fixed(struct vnet_uring *u, uint32_t file, const void *from, uint32_t len,
			    uint32_t result)
{
	prepare(u, IORING_OP_WRITE_FIXED, file, from, len, result);
}

void vnet_uring_writev(struct vnet_uring *u, uint32_t file, const struct iovec *iov, uint32_t count,
		       uint32_t result)
{
	prepare(u, IORING_OP_WRITEV, file, iov, count, result);
}

/* Return: requests that have ended since the last look */
static uint32_t reap(struct vnet_uring *u, int32_t *results, uint32_t count)
{
	uint32_t head = *u->cq_head, tail = __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE);
	uint32_t ended = tail - head;

	for (; head != tail; head++) {
		const struct io_uring_cqe *cqe = &u->cqes[head & u->cq_mask];

		if (cqe->user_data < count)
			results[cqe->user_data] = cqe->res;
	}
	/* Release: the entries are read before the kernel fills them again. */
	__atomic_store_n(u->cq_head, head, __ATOMIC_RELEASE);
	return ended;
}

void vnet_uring_run(struct vnet_uring *u, int32_t *results, uint32_t count)
{
	uint32_t begin = u->sq_end, left = u->prepared, ended = 0, tries = 0;

	for (uint32_t i = 0; i < count; i++)
		results[i] = -EAGAIN;
	u->sq_end += left;
	u->prepared = 0;
	/* Release: requests before the tail that shows them. */
	__atomic_store_n(u->sq_tail, u->sq_end, __ATOMIC_RELEASE);
	while (left && tries < RUN_TRIES) {
		int taken = sys_enter(u, left, 0, 0);

		/* Interrupted, or short of memory, or of room for completions, which is made here. */
		if (taken <= 0)
			tries++;
		else
			left -= (uint32_t)taken;
		ended += reap(u, results, count);
	}
	if (left) { /* taken back: the kernel looks at the queue in its calls only */
		u->sq_end -= left;
		__atomic_store_n(u->sq_tail, u->sq_end, __ATOMIC_RELEASE);
	}
	while (ended != u->sq_end - begin) {
		sys_enter(u, 0, u->sq_end - begin - ended, IORING_ENTER_GETEVENTS);
		ended += reap(u, results, count);
	}
}
