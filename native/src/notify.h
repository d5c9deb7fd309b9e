/* SPDX-License-Identifier: MIT */
/*
 * Kick, call and err fds: files of a peer that means us no good.
 *
 * Theory
 *   Eventfds, pipes and sockets can notify, whatever their flags: those are
 *   shared with the peer, who may change them at any time, so none is set, and
 *   none is kept in mind: each write asks first.  A peer that takes O_NONBLOCK
 *   away and fills an eventfd just between the two still makes its worker wait.  Files
 *   of other kinds are refused: to write 8 bytes to them with our rights is not a
 *   notification.
 *
 *   A kick fd at its end (closed far end, an error that stays) is readable for
 *   ever.  It is let go of, and its ring is looked at from time to time, as one
 *   that came without a kick fd (loop.c).
 */
#ifndef PYVNET_NOTIFY_H
#define PYVNET_NOTIFY_H

#include <stdbool.h>

/* A call or err fd: written to, without ever waiting or raising a signal. */
struct vnet_notifier {
	int fd; /* -1: nobody listens */
	bool socket;
};

/** vnet_fd_dup() - close-on-exec duplicate. Return: 0; -errno, @copy is -1 then */
int vnet_fd_dup(int fd, int *copy);

/** vnet_kick_take() - duplicate a peer's kick fd; -1 stays -1. Return: 0; -EPERM: it cannot notify; -errno */
int vnet_kick_take(int fd, int *copy);

/** vnet_fd_is_eventfd() - or another file of no type: none that ends, or has to be emptied */
bool vnet_fd_is_eventfd(int fd);

/** vnet_notifier_take() - as vnet_kick_take(), for an fd to write to */
int vnet_notifier_take(int fd, struct vnet_notifier *notifier);

/** vnet_notifier_signal() - write one notification; a full file holds one that is still pending */
void vnet_notifier_signal(const struct vnet_notifier *notifier);

/** vnet_fd_close() - close and forget; harmless on -1 */
void vnet_fd_close(int *fd);

/** vnet_fd_drain() - consume what made an fd readable. Return: false: nothing more will come from it */
bool vnet_fd_drain(int fd);

#endif
