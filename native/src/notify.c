/* SPDX-License-Identifier: MIT */
/* Notifications from and to files of a peer; theory in notify.h. */
#define _GNU_SOURCE
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "test_hooks.h"

#define DRAIN_BYTES 4096u /* of a flood in a pipe or socket, per look */

int vnet_fd_dup(int fd, int *copy)
{
	errno = 0;
	*copy = VNET_FAILS(VNET_FAIL_FD) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (*copy >= 0)
		return 0;
	return errno ? -errno : -EMFILE;
}

/* An eventfd is an inode of no type. */
static bool can_notify(mode_t type)
{
	return !type || type == S_IFIFO || type == S_IFSOCK;
}

static int take(int fd, int *copy, bool *socket)
{
	struct stat st;

	*copy = -1;
	*socket = false;
	if (fd < 0)
		return 0;
	if (fstat(fd, &st))
		return -errno;
	if (VNET_GUARD(NOTIFY_KIND, !can_notify(st.st_mode & S_IFMT)))
		return -EPERM;
	*socket = S_ISSOCK(st.st_mode);
	return vnet_fd_dup(fd, copy);
}

int vnet_kick_take(int fd, int *copy)
{
	bool socket;

	return take(fd, copy, &socket);
}

bool vnet_fd_is_eventfd(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && !(st.st_mode & S_IFMT);
}

int vnet_notifier_take(int fd, struct vnet_notifier *notifier)
{
	return take(fd, &notifier->fd, &notifier->socket);
}

void vnet_fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The flag is the peer's, and asked each time; as a rule it spares us the dearer question. */
static bool has_room(int fd)
{
	struct pollfd room = { .fd = fd, .events = POLLOUT };

	return fcntl(fd, F_GETFL) & O_NONBLOCK ||
	       (poll(&room, 1, 0) > 0 && (room.revents & POLLOUT));
}

void vnet_notifier_signal(const struct vnet_notifier *notifier)
{
	const uint64_t one = 1;

	if (notifier->socket) {
		send(notifier->fd, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL);
		return;
	}
	/* Workers, who alone come here, block SIGPIPE. */
	if (notifier->fd >= 0 && has_room(notifier->fd) &&
	    write(notifier->fd, &one, sizeof(one)) < 0)
		return;
}

/* Another ring may have the same file and have emptied it since: read without waiting. */
static ssize_t read_now(int fd, void *to, size_t size)
{
	struct pollfd data = { .fd = fd, .events = POLLIN };
	struct iovec iov = { to, size };
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	/* Kernels before 6.5 know RWF_NOWAIT of eventfds only. */
	if (n < 0 && errno == EOPNOTSUPP)
		n = recv(fd, to, size, MSG_DONTWAIT);
	if (n < 0 && errno == ENOTSOCK) {
		errno = EAGAIN;
		n = poll(&data, 1, 0) > 0 ? read(fd, to, size) : -1;
	}
	return n;
}

bool vnet_fd_drain(int fd)
{
	uint8_t sink[DRAIN_BYTES];
	ssize_t n = read_now(fd, sink, sizeof(sink));

	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}
