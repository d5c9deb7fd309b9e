/* SPDX-License-Identifier: MIT */
/* The SIGBUS handler and its registry; theory in sigbus.h. */
#define _GNU_SOURCE
#include "sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest_mem.h"
#include "test_hooks.h"

#define ENTRIES 16384u /* about as many regions as a process may have mapped */
#define PREVIOUS_MAX 8u

struct entry {
	_Atomic uint32_t version; /* odd while the rest changes */
	_Atomic(struct vnet_mem *) mem; /* NULL: free */
	_Atomic uintptr_t at;
	_Atomic size_t size;
	_Atomic size_t page;
};

struct found {
	struct vnet_mem *mem;
	uintptr_t at;
	size_t size, page;
};

static struct entry entries[ENTRIES];
static _Atomic uint32_t used; /* entries beyond were never taken */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* who changes, not who reads */

/* Whom we found in our place, each once: [0] when we first came, [latest] when we last looked. */
static struct sigaction previous[PREVIOUS_MAX];
static uint32_t previous_count;
static _Atomic uint32_t latest;

/*
 * Initial-exec: a handler may not be the one to allocate a thread's variables.
 * passing: how often this thread is in pass_on(): handlers that pass on to
 * each other in a circle come back to us.
 */
#define SIGNAL_SAFE_TLS _Thread_local __attribute__((tls_model("initial-exec")))
static SIGNAL_SAFE_TLS volatile sig_atomic_t is_worker;
static SIGNAL_SAFE_TLS volatile sig_atomic_t passing;
static SIGNAL_SAFE_TLS volatile uint32_t faults;

static bool find(uintptr_t address, struct found *found)
{
	uint32_t count = atomic_load(&used);

	for (uint32_t i = 0; i < count; i++) {
		struct entry *entry = &entries[i];
		uint32_t version = atomic_load(&entry->version);

		*found = (struct found){ atomic_load(&entry->mem), atomic_load(&entry->at),
					 atomic_load(&entry->size), atomic_load(&entry->page) };
		if (!(version & 1) && version == atomic_load(&entry->version) && found->mem &&
		    address - found->at < found->size)
			return true;
	}
	return false;
}

/* The bare system call: a sanitizer would take the mapping for a write to all of it. */
static bool map_zeros(uintptr_t at, size_t size)
{
	return !VNET_FAILS(VNET_FAIL_MMAP) &&
	       (uintptr_t)syscall(SYS_mmap, at, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
				  0) == at;
}

static bool replace(uintptr_t address)
{
	struct found f;

	if (!find(address, &f))
		return false;
	/* A host that counts every page promised may refuse a large region, and still grant one page. */
	if (!map_zeros(f.at, f.size) && !map_zeros(address & ~(uintptr_t)(f.page - 1), f.page))
		return false;
	vnet_mem_lose(f.mem);
	faults++;
	return true;
}

static void end_by_default(int number, const siginfo_t *info)
{
	const struct sigaction action = { .sa_handler = SIG_DFL };

	sigaction(number, &action, NULL);
	/* A fault comes again as we return; what somebody sent does not. */
	if (info->si_code != BUS_ADRERR && info->si_code != BUS_ADRALN &&
	    info->si_code != BUS_OBJERR && info->si_code != BUS_MCEERR_AR)
		raise(number);
}

static void pass_on(int number, siginfo_t *info, void *context)
{
	const struct sigaction *to = &previous[passing ? 0 : atomic_load(&latest)];

	if (to->sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	if (passing > 1 || to->sa_handler == SIG_DFL || to->sa_handler == SIG_IGN) {
		end_by_default(number, info);
		return;
	}
	passing++;
	if (to->sa_flags & SA_SIGINFO)
		to->sa_sigaction(number, info, context);
	else
		to->sa_handler(number);
	passing--;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	bool is_fault = info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR;
	int error = errno;

	if (!(is_fault && VNET_GUARD(MEMORY_LOST, replace((uintptr_t)info->si_addr))) &&
	    !(info->si_code == SI_TKILL && is_worker && !passing))
		pass_on(number, info, context);
	errno = error;
}

/* Return: where @action is kept, to be passed on to */
static uint32_t remember(const struct sigaction *action)
{
	for (uint32_t i = 0; i < previous_count; i++) {
		if (previous[i].sa_sigaction == action->sa_sigaction)
			return i;
	}
	if (previous_count == PREVIOUS_MAX)
		return atomic_load(&latest);
	previous[previous_count] = *action;
	return previous_count++;
}

int vnet_sigbus_install(void)
{
	struct sigaction now, ours = { .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	int error = 0;

	ours.sa_sigaction = on_sigbus;
	sigemptyset(&ours.sa_mask);
	pthread_mutex_lock(&lock);
	if (sigaction(SIGBUS, NULL, &now)) {
		error = -errno;
	} else if (now.sa_sigaction != on_sigbus) {
		atomic_store(&latest, remember(&now));
		error = sigaction(SIGBUS, &ours, NULL) ? -errno : 0;
	}
	pthread_mutex_unlock(&lock);
	return error;
}

static void set(struct entry *entry, struct vnet_mem *mem, uintptr_t at, size_t size, size_t page)
{
	atomic_fetch_add(&entry->version, 1);
	atomic_store(&entry->mem, mem);
	atomic_store(&entry->at, at);
	atomic_store(&entry->size, size);
	atomic_store(&entry->page, page);
	atomic_fetch_add(&entry->version, 1);
}

int vnet_sigbus_watch(struct vnet_mem *mem, const void *at, size_t size, size_t page)
{
	uint32_t i = 0;

	pthread_mutex_lock(&lock);
	while (i < ENTRIES && atomic_load(&entries[i].mem))
		i++;
	if (i < ENTRIES)
		set(&entries[i], mem, (uintptr_t)at, size, page);
	if (i >= atomic_load(&used) && i < ENTRIES)
		atomic_store(&used, i + 1);
	pthread_mutex_unlock(&lock);
	return i < ENTRIES ? (int)i : -ENOMEM;
}

void vnet_sigbus_forget(uint32_t i)
{
	pthread_mutex_lock(&lock);
	set(&entries[i], NULL, 0, 0, 0);
	pthread_mutex_unlock(&lock);
}

uint32_t vnet_sigbus_faults(void)
{
	return faults;
}

void vnet_sigbus_worker(void)
{
	is_worker = 1;
}
