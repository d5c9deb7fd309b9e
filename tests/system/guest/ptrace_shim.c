// SPDX-License-Identifier: MIT
/*
 * Preloaded into user-mode Linux: register sets of full length, whatever the CPU has.
 *
 * The kernel takes the extended state of a traced process (PTRACE_SETREGSET,
 * NT_X86_XSTATE) only as a whole; user-mode Linux keeps a buffer of fixed
 * length, which is too short on a CPU with AMX, and gives up.  Here the short
 * state is laid over the full one that the process has, and that is written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define XSAVE_AREA 65536

static long (*real)(enum __ptrace_request request, ...);

__attribute__((constructor)) static void find_real(void)
{
	*(void **)&real = dlsym(RTLD_NEXT, "ptrace");
}

static long set_xstate(pid_t pid, const struct iovec *given)
{
	static __thread char area[XSAVE_AREA] __attribute__((aligned(64)));
	struct iovec full = { .iov_base = area, .iov_len = sizeof(area) };

	if (real(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &full) ||
	    given->iov_len >= full.iov_len)
		return real(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, given);
	memcpy(area, given->iov_base, given->iov_len);
	return real(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &full);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	pid_t pid;
	void *address, *data;

	va_start(rest, request);
	pid = va_arg(rest, pid_t);
	address = va_arg(rest, void *);
	data = va_arg(rest, void *);
	va_end(rest);
	if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
		return set_xstate(pid, data);
	return real(request, pid, address, data);
}
