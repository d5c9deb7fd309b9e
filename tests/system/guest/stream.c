// SPDX-License-Identifier: MIT
/*
 * stream send ADDRESS PORT	standard input to a TCP connection
 * stream receive PORT		a TCP connection to standard output; says "ready" on standard error
 * stream echo PORT		datagrams back to their senders, after a "ready"
 *
 * IPv4 and IPv6; IPv4 appears mapped.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[256 * 1024];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void copy(int from, int to)
{
	ssize_t got;

	while ((got = read(from, buffer, sizeof(buffer))) > 0)
		for (ssize_t at = 0, done; at < got; at += done) {
			done = write(to, buffer + at, (size_t)(got - at));
			if (done < 0)
				die("write");
		}
	if (got < 0)
		die("read");
}

static int bound(int type, const char *port)
{
	struct sockaddr_in6 address = {
		.sin6_family = AF_INET6,
		.sin6_port = htons((uint16_t)strtoul(port, NULL, 10)),
	};
	int fd = socket(AF_INET6, type, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("bind");
	return fd;
}

static int connected(const char *text, const char *port)
{
	struct sockaddr_in6 address = {
		.sin6_family = AF_INET6,
		.sin6_port = htons((uint16_t)strtoul(port, NULL, 10)),
	};
	char mapped[INET6_ADDRSTRLEN];
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	snprintf(mapped, sizeof(mapped), "%s%s", strchr(text, ':') ? "" : "::ffff:", text);
	if (inet_pton(AF_INET6, mapped, &address.sin6_addr) != 1) {
		fprintf(stderr, "%s is no address\n", text);
		exit(2);
	}
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die("connect");
	return fd;
}

static void receive(const char *port)
{
	int listening = bound(SOCK_STREAM, port), fd;

	if (listen(listening, 1))
		die("listen");
	fputs("ready\n", stderr);
	fd = accept(listening, NULL, NULL);
	if (fd < 0)
		die("accept");
	copy(fd, STDOUT_FILENO);
}

static void echo(const char *port)
{
	struct sockaddr_storage from;
	int fd = bound(SOCK_DGRAM, port);

	fputs("ready\n", stderr);
	for (;;) {
		socklen_t length = sizeof(from);
		ssize_t got =
			recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &length);

		if (got < 0 ||
		    sendto(fd, buffer, (size_t)got, 0, (struct sockaddr *)&from, length) < 0)
			die("echo");
	}
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "send")) {
		copy(STDIN_FILENO, connected(argv[2], argv[3]));
	} else if (argc == 3 && !strcmp(argv[1], "receive")) {
		receive(argv[2]);
	} else if (argc == 3 && !strcmp(argv[1], "echo")) {
		echo(argv[2]);
	} else {
		fputs("usage: stream send ADDRESS PORT | receive PORT | echo PORT\n", stderr);
		return 2;
	}
	return 0;
}
