/* SPDX-License-Identifier: MIT */
/* See test_hooks.h.  The verbs exist in every build and answer -ENOSYS in the shipped one. */
#include "test_hooks.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "guest_mem.h"
#include "pyvnet/vnet.h"

#if VNET_TEST_HOOKS

static _Atomic uint64_t guards_off;
static _Atomic int64_t fail_countdown[VNET_FAIL_COUNT]; /* 0: off, n: the n-th call fails */

/* One flip at a time.  Workers read while a test sets it: the lock is theirs, armed spares them it. */
static pthread_mutex_t flip_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool flip_armed;
static struct {
	uint8_t *host;
	uint32_t len;
	uint8_t value[16];
	int64_t countdown;
	uint64_t reads;
} flip;

bool vnet_test_guard_on(enum vnet_guard guard)
{
	return !(atomic_load(&guards_off) >> guard & 1);
}

bool vnet_test_fails(enum vnet_fail_site site)
{
	return atomic_load(&fail_countdown[site]) > 0 &&
	       atomic_fetch_sub(&fail_countdown[site], 1) == 1;
}

void vnet_test_after_read(const void *host, uint32_t len)
{
	const uint8_t *first = host;

	if (!atomic_load(&flip_armed))
		return;
	pthread_mutex_lock(&flip_lock);
	if (flip.host && first < flip.host + flip.len && first + len > flip.host) {
		flip.reads++;
		if (flip.countdown > 0 && flip.countdown-- == 1)
			memcpy(flip.host, flip.value, flip.len);
	}
	pthread_mutex_unlock(&flip_lock);
}

static const char *const guard_names[] = {
#define VNET_GUARD_STRING(name) #name,
	VNET_GUARD_NAMES(VNET_GUARD_STRING)
};

int vnet_test_guard_off(const char *name)
{
	atomic_store(&guards_off, 0);
	if (!name || !*name)
		return 0;
	for (unsigned int i = 0; i < VNET_GUARD_COUNT; i++) {
		if (!strcmp(name, guard_names[i])) {
			atomic_store(&guards_off, UINT64_C(1) << i);
			return 0;
		}
	}
	return -EINVAL;
}

const char *vnet_test_guard_name(uint32_t index)
{
	return index < VNET_GUARD_COUNT ? guard_names[index] : NULL;
}

int vnet_test_fail(uint32_t site, int64_t countdown)
{
	if (site >= VNET_FAIL_COUNT)
		return -EINVAL;
	atomic_store(&fail_countdown[site], countdown);
	return 0;
}

int vnet_test_flip(struct vnet_mem *mem, uint64_t gpa, uint32_t len, const uint8_t *value,
		   int64_t countdown)
{
	uint8_t *host = mem ? vnet_mem_pointer(mem, gpa, len) : NULL;

	if (len > sizeof(flip.value))
		return -EINVAL;
	pthread_mutex_lock(&flip_lock);
	flip.reads = 0;
	flip.host = host;
	flip.len = len;
	flip.countdown = countdown;
	if (host)
		memcpy(flip.value, value, len);
	atomic_store(&flip_armed, host != NULL);
	pthread_mutex_unlock(&flip_lock);
	return mem && !host ? -EFAULT : 0;
}

uint64_t vnet_test_flip_reads(void)
{
	uint64_t reads;

	pthread_mutex_lock(&flip_lock);
	reads = flip.reads;
	pthread_mutex_unlock(&flip_lock);
	return reads;
}

#else

int vnet_test_guard_off(const char *name)
{
	(void)name;
	return -ENOSYS;
}

const char *vnet_test_guard_name(uint32_t index)
{
	(void)index;
	return NULL;
}

int vnet_test_fail(uint32_t site, int64_t countdown)
{
	(void)site;
	(void)countdown;
	return -ENOSYS;
}

int vnet_test_flip(struct vnet_mem *mem, uint64_t gpa, uint32_t len, const uint8_t *value,
		   int64_t countdown)
{
	(void)mem;
	(void)gpa;
	(void)len;
	(void)value;
	(void)countdown;
	return -ENOSYS;
}

uint64_t vnet_test_flip_reads(void)
{
	return 0;
}

#endif
