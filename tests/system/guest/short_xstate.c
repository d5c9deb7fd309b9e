// SPDX-License-Identifier: MIT
/*
 * Does what user-mode Linux does on a CPU whose extended state is longer than it
 * thinks: writes a traced child's state back short.  Prints the outcome.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	static char area[65536] __attribute__((aligned(64)));
	struct iovec state = { .iov_base = area, .iov_len = sizeof(area) };
	pid_t child = fork();
	long answer;

	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	ptrace(PTRACE_GETREGSET, child, (void *)NT_X86_XSTATE, &state);
	state.iov_len -= 64;
	errno = 0;
	answer = ptrace(PTRACE_SETREGSET, child, (void *)NT_X86_XSTATE, &state);
	puts(answer ? strerror(errno) : "written");
	ptrace(PTRACE_CONT, child, NULL, NULL);
	waitpid(child, NULL, 0);
	return 0;
}
