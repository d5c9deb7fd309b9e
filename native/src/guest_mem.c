/* SPDX-License-Identifier: MIT */
/* Guest memory tables; theory in guest_mem.h. */
#define _GNU_SOURCE
#include "guest_mem.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "sigbus.h"

#define HUGETLBFS_MAGIC_NUMBER 0x958458f6

/* A region on its way into the table: pages are the file's (hugetlbfs has larger ones). */
struct pending {
	struct vnet_region region;
	uint64_t page;
};

static int compare_gpa(const void *a, const void *b)
{
	const struct pending *left = a, *right = b;

	return (left->region.gpa > right->region.gpa) - (left->region.gpa < right->region.gpa);
}

static int check_region(struct pending *p)
{
	const struct vnet_region *r = &p->region;
	struct stat st;
	struct statfs fs;
	uint64_t end;

	if (!r->size)
		return -EINVAL;
	if (VNET_GUARD(REGION_WRAP, __builtin_add_overflow(r->gpa, r->size, &end) ||
					    __builtin_add_overflow(r->mmap_offset, r->size, &end)))
		return -EINVAL;
	if (fstat(r->fd, &st) || fstatfs(r->fd, &fs))
		return -errno;
	end = r->mmap_offset + r->size;
	/* Bytes past the end of the file would be SIGBUS for the whole process. */
	if (VNET_GUARD(REGION_FILE_SIZE, !S_ISREG(st.st_mode) || end > (uint64_t)st.st_size))
		return -EINVAL;
	p->page = (uint64_t)sysconf(_SC_PAGESIZE);
	if ((uint64_t)fs.f_type == HUGETLBFS_MAGIC_NUMBER)
		p->page = (uint64_t)fs.f_bsize;
	return 0;
}

/* May b be laid right behind a, in one reservation of a's run? */
static bool joins(const struct pending *a, const struct pending *b)
{
	uint64_t mask = (a->page > b->page ? a->page : b->page) - 1;

	return a->region.gpa + a->region.size == b->region.gpa && !(b->region.gpa & mask) &&
	       !(b->region.mmap_offset & mask) &&
	       ((a->region.gpa ^ a->region.mmap_offset) & mask) == 0;
}

static void *reserve(struct vnet_mem *mem, uint64_t size, uint64_t page)
{
	/* One guard page either side, and room to align to the file's page. */
	uint64_t total;
	uint8_t *base;

	if (__builtin_add_overflow(size, 4 * page, &total))
		return NULL;
	base = VNET_FAILS(VNET_FAIL_MMAP) ?
		       MAP_FAILED :
		       mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			    0);
	if (base == MAP_FAILED)
		return NULL;
	mem->maps[mem->map_count++] = (struct iovec){ base, total };
	return (uint8_t *)(((uintptr_t)base + 2 * page - 1) & ~(uintptr_t)(page - 1));
}

static int map_region(struct vnet_mem *mem, const struct pending *p, uint8_t *at, uint64_t skip)
{
	uint64_t size = (p->region.size + skip + p->page - 1) & ~(p->page - 1);
	int entry;

	if (VNET_FAILS(VNET_FAIL_MMAP))
		return -ENOMEM;
	if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		 p->region.fd, (off_t)(p->region.mmap_offset - skip)) == MAP_FAILED)
		return -errno;
	entry = vnet_sigbus_watch(mem, at, size, p->page);
	if (entry < 0)
		return entry;
	mem->watches[mem->watch_count++] = (uint32_t)entry;
	return 0;
}

/* Map pending[0 … count-1], which join, as one run. */
static int map_run(struct vnet_mem *mem, const struct pending *first, uint32_t count)
{
	const struct vnet_region *last = &first[count - 1].region;
	uint64_t size = last->gpa + last->size - first->region.gpa;
	uint64_t page = first->page, lead;
	uint8_t *base;

	for (uint32_t i = 0; i < count; i++)
		page = first[i].page > page ? first[i].page : page;
	lead = first->region.mmap_offset & (page - 1);
	base = reserve(mem, size + lead, page);
	if (!base)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t into = first[i].region.gpa - first->region.gpa;
		int error = map_region(mem, &first[i], i ? base + lead + into : base, i ? 0 : lead);

		if (error)
			return error;
	}
	mem->runs[mem->run_count++] = (struct vnet_run){ first->region.gpa, size, base + lead };
	return 0;
}

static int map_all(struct vnet_mem *mem, const struct pending *pending, uint32_t count)
{
	uint32_t first = 0;

	for (uint32_t i = 1; i <= count; i++) {
		int error;

		if (i < count && joins(&pending[i - 1], &pending[i]))
			continue;
		error = map_run(mem, &pending[first], i - first);
		if (error)
			return error;
		first = i;
	}
	return 0;
}

int vnet_mem_create(const struct vnet_region *regions, uint32_t count, struct vnet_mem **out)
{
	static _Atomic uint64_t serial;
	struct pending pending[VNET_MAX_REGIONS];
	struct vnet_mem *mem;
	int error = vnet_sigbus_install();

	if (error)
		return error;

	if (!count || count > VNET_MAX_REGIONS)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		pending[i].region = regions[i];
		error = check_region(&pending[i]);
		if (error)
			return error;
	}
	qsort(pending, count, sizeof(pending[0]), compare_gpa);
	for (uint32_t i = 1; i < count; i++) {
		const struct vnet_region *before = &pending[i - 1].region;

		if (VNET_GUARD(REGION_OVERLAP, before->gpa + before->size > pending[i].region.gpa))
			return -EINVAL;
	}
	mem = VNET_FAILS(VNET_FAIL_ALLOC) ? NULL : calloc(1, sizeof(*mem));
	if (!mem)
		return -ENOMEM;
	mem->refs = 1;
	mem->serial = atomic_fetch_add(&serial, 1) + 1;
	error = map_all(mem, pending, count);
	if (error) {
		vnet_mem_put(mem);
		return error;
	}
	*out = mem;
	return 0;
}

struct vnet_mem *vnet_mem_get(struct vnet_mem *mem)
{
	if (mem)
		atomic_fetch_add_explicit(&mem->refs, 1, memory_order_relaxed);
	return mem;
}

void vnet_mem_put(struct vnet_mem *mem)
{
	if (!mem || atomic_fetch_sub_explicit(&mem->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < mem->watch_count; i++)
		vnet_sigbus_forget(mem->watches[i]);
	for (uint32_t i = 0; i < mem->map_count; i++)
		munmap(mem->maps[i].iov_base, mem->maps[i].iov_len);
	free(mem);
}

static const struct vnet_run *find_run(const struct vnet_mem *mem, uint64_t gpa)
{
	for (uint32_t i = 0; i < mem->run_count; i++) {
		if (gpa - mem->runs[i].gpa < mem->runs[i].size)
			return &mem->runs[i];
	}
	return NULL;
}

void *vnet_mem_pointer(const struct vnet_mem *mem, uint64_t gpa, uint64_t len)
{
	const struct vnet_run *run = mem ? find_run(mem, gpa) : NULL;

	if (!run || len > run->size - (gpa - run->gpa))
		return NULL;
	return run->host + (gpa - run->gpa);
}

/* As find_run(), for those who stay in one run mostly. */
static const struct vnet_run *find_near(const struct vnet_mem *mem, uint32_t *near, uint64_t gpa)
{
	const struct vnet_run *run = &mem->runs[*near];

	if (gpa - run->gpa < run->size)
		return run;
	run = find_run(mem, gpa);
	if (run)
		*near = (uint32_t)(run - mem->runs);
	return run;
}

int vnet_mem_map(const struct vnet_mem *mem, uint32_t *near, uint64_t gpa, uint64_t len,
		 struct iovec *iov, uint32_t capacity)
{
	uint32_t pieces = 0;

	while (len) {
		const struct vnet_run *run = find_near(mem, near, gpa);
		uint64_t offset, part;

		if (!run)
			return -EFAULT;
		if (pieces == capacity)
			return -ENOSPC;
		offset = gpa - run->gpa;
		part = run->size - offset;
		if (!VNET_GUARD(BUFFER_ADDRESS, part < len))
			part = len; /* the whole rest; otherwise it goes on in the run that touches, if any */
		iov[pieces++] = (struct iovec){ run->host + offset, part };
		gpa += part;
		len -= part;
	}
	return (int)pieces;
}

void vnet_mem_read_pieces(const struct iovec *iov, uint32_t skip, void *to, uint32_t len)
{
	uint8_t *at = to;

	for (; len; iov++) {
		size_t part;

		if (skip >= iov->iov_len) {
			skip -= (uint32_t)iov->iov_len;
			continue;
		}
		part = iov->iov_len - skip < len ? iov->iov_len - skip : len;
		memcpy(at, (uint8_t *)iov->iov_base + skip, part);
		vnet_mem_barrier();
		VNET_AFTER_READ((uint8_t *)iov->iov_base + skip, (uint32_t)part);
		at += part;
		len -= (uint32_t)part;
		skip = 0;
	}
}

void vnet_mem_write_pieces(const struct iovec *iov, uint32_t skip, const void *from, uint32_t len)
{
	const uint8_t *at = from;

	for (; len; iov++) {
		size_t part;

		if (skip >= iov->iov_len) {
			skip -= (uint32_t)iov->iov_len;
			continue;
		}
		part = iov->iov_len - skip < len ? iov->iov_len - skip : len;
		memcpy((uint8_t *)iov->iov_base + skip, at, part);
		at += part;
		len -= (uint32_t)part;
		skip = 0;
	}
}
