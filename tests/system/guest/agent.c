// SPDX-License-Identifier: MIT
/*
 * The first process of a guest: runs what the host asks for, over a serial line.
 *
 *	host  → guest	RUN id length LF command	KILL id LF
 *	guest → host	READY LF	OUT id length LF bytes	END id status LF
 *
 * A command is given to sh -c, with its output and errors in one stream, passed
 * on as it comes.  Many run at the same time.  A command ends when the last
 * process that has its output open ends; its status is the exit status of the
 * shell, or 128 and the number of the signal.  KILL ends a command's process
 * group; END follows.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define LINE "/dev/ttyS0"
#define MAX_COMMANDS 32
#define MAX_COMMAND_LENGTH 65536u
#define MAX_HEADER 64

struct command {
	unsigned int id;
	pid_t shell;
	int output;
};

static struct command commands[MAX_COMMANDS];
static int line;

static void die(const char *what)
{
	perror(what);
	sync();
	reboot(RB_POWER_OFF);
	exit(1);
}

static void put(const void *data, size_t length)
{
	const char *next = data;

	while (length) {
		ssize_t done = write(line, next, length);

		if (done < 0 && errno != EINTR)
			die("write " LINE);
		if (done > 0) {
			next += done;
			length -= (size_t)done;
		}
	}
}

static void get(void *data, size_t length)
{
	char *next = data;

	while (length) {
		ssize_t done = read(line, next, length);

		if (done == 0 || (done < 0 && errno != EINTR))
			die("read " LINE);
		if (done > 0) {
			next += done;
			length -= (size_t)done;
		}
	}
}

static void get_header(char *header)
{
	for (size_t at = 0; at < MAX_HEADER - 1; at++) {
		get(header + at, 1);
		if (header[at] == '\n') {
			header[at] = '\0';
			return;
		}
	}
	die("a request's header");
}

static void end(unsigned int id, int status)
{
	char text[MAX_HEADER];
	int length = snprintf(text, sizeof(text), "END %u %d\n", id, status);

	put(text, (size_t)length);
}

static void shell(const char *text, int output)
{
	setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	dup2(open("/dev/null", O_RDONLY), 0);
	dup2(output, 1);
	dup2(output, 2);
	execl("/bin/sh", "sh", "-c", text, NULL);
	_exit(127);
}

static struct command *vacant(void)
{
	for (size_t i = 0; i < MAX_COMMANDS; i++)
		if (!commands[i].shell)
			return &commands[i];
	return NULL;
}

static void run(unsigned int id, const char *text)
{
	struct command *command = vacant();
	int ends[2];

	if (!command || pipe2(ends, O_CLOEXEC)) {
		end(id, 126);
		return;
	}
	command->shell = fork();
	if (command->shell == 0)
		shell(text, ends[1]);
	close(ends[1]);
	if (command->shell < 0) {
		command->shell = 0;
		close(ends[0]);
		end(id, 126);
		return;
	}
	setpgid(command->shell, command->shell);
	command->id = id;
	command->output = ends[0];
}

static void pass_on(struct command *command)
{
	char data[MAX_HEADER + 2048];
	ssize_t got = read(command->output, data + MAX_HEADER, sizeof(data) - MAX_HEADER);
	int status;

	if (got > 0) {
		int length = snprintf(data, MAX_HEADER, "OUT %u %zd\n", command->id, got);

		memmove(data + length, data + MAX_HEADER, (size_t)got);
		put(data, (size_t)(length + got));
		return;
	}
	close(command->output);
	if (waitpid(command->shell, &status, 0) < 0)
		die("waitpid");
	command->shell = 0;
	end(command->id, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void serve_request(void)
{
	static char text[MAX_COMMAND_LENGTH + 1];
	char header[MAX_HEADER];
	unsigned int id, length;

	get_header(header);
	if (sscanf(header, "RUN %u %u", &id, &length) == 2 && length <= MAX_COMMAND_LENGTH) {
		get(text, length);
		text[length] = '\0';
		run(id, text);
	} else if (sscanf(header, "KILL %u", &id) == 1) {
		for (size_t i = 0; i < MAX_COMMANDS; i++)
			if (commands[i].shell && commands[i].id == id)
				kill(-commands[i].shell, SIGKILL);
	} else {
		die("an unknown request");
	}
}

/* Orphans have nobody else; shells are waited for by name, when their output ends. */
static void reap_orphans(void)
{
	siginfo_t ended;

	for (;;) {
		ended.si_pid = 0;
		if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) || !ended.si_pid)
			return;
		for (size_t i = 0; i < MAX_COMMANDS; i++)
			if (commands[i].shell == ended.si_pid)
				return;
		waitpid(ended.si_pid, NULL, 0);
	}
}

static void serve(void)
{
	struct pollfd waits[1 + MAX_COMMANDS];

	for (;;) {
		waits[0] = (struct pollfd){ .fd = line, .events = POLLIN };
		for (size_t i = 0; i < MAX_COMMANDS; i++)
			waits[1 + i] = (struct pollfd){
				.fd = commands[i].shell ? commands[i].output : -1,
				.events = POLLIN,
			};
		if (poll(waits, 1 + MAX_COMMANDS, -1) < 0)
			continue;
		for (size_t i = 0; i < MAX_COMMANDS; i++)
			if (waits[1 + i].revents)
				pass_on(&commands[i]);
		if (waits[0].revents)
			serve_request();
		reap_orphans();
	}
}

int main(void)
{
	struct termios raw;

	if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, NULL))
		die("mount");
	setenv("PATH", "/bin", 1);
	signal(SIGPIPE, SIG_IGN);
	line = open(LINE, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (line < 0 || tcgetattr(line, &raw))
		die(LINE);
	cfmakeraw(&raw);
	if (tcsetattr(line, TCSANOW, &raw))
		die("tcsetattr " LINE);
	put("READY\n", 6);
	serve();
}
