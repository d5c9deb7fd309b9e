# SPDX-License-Identifier: MIT
"""What needs privilege, done by a small program beside the device, so that the device needs none.

It makes taps and loads the steering program, and hands the descriptors to a
process without capabilities: once, when that is started (``handover``), or on
request, from a socket (``broker``).  A file per thing:

  - ``paths``: every path root opens, without following a link.
  - ``taps``: a tap and its queues.
  - ``made``: all that one device is given, under the names it is asked for by.
  - ``privileges``: becoming somebody who may do nothing.
  - ``handover``: to a program that is executed, or to systemd's fd store.
  - ``protocol``: the broker's messages; ``broker``, ``clients``: its side of
    them; ``request``: the device's side.

All of it runs as root, so none of it loads our C, an event loop or netlink
library, reads a configuration file, or touches a frame.  What is made lives by
its descriptors alone: whoever dies, and when, the kernel takes it back.  The one
exception is a tap asked for with ``--persist``.
"""
