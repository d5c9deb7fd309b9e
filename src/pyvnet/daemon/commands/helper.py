# SPDX-License-Identifier: MIT
"""``pyvnet helper``: make what a device needs privilege for, hand it over, and be gone.

Exit status: 0 handed over (of a command: the command's); 1 it could not be
made, or not be handed over, and nothing is left; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from pyvnet.daemon.helper.made import Named
    from pyvnet.daemon.helper.taps import TapWish

_QUEUES: Final = 4
_MOST_QUEUES: Final = 16
_BPF_FDS: Final = 2

_DESCRIPTION: Final = """\
Make the tap and the steering program a device needs privilege for, and hand their
descriptors to a process that has none.  To be run as root, in one of three ways:

  pyvnet helper --user USER [what] -- COMMAND ...
      becomes USER, with no capability left and no_new_privs, and executes COMMAND
      with the descriptors open from 3 on and LISTEN_FDS, LISTEN_PID and
      LISTEN_FDNAMES set, which `pyvnet serve --tap-fds named --bpf-fds named` reads.

  pyvnet helper --fdstore [what]
      sends them to $NOTIFY_SOCKET (FDSTORE=1, FDNAME=...) and ends: systemd, from
      ExecStartPre=+, hands them to the service it starts next.  Any other launcher
      may listen there too: a datagram per name, the descriptors beside it.

  pyvnet helper --serve PATH --user USER [what may be asked for]
      stays, and makes them for USER alone as `pyvnet serve --helper PATH` asks.

What is made goes with the last descriptor of it, whoever dies and when.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "helper",
        help="make tap and steering program for a device without privileges",
        usage="pyvnet helper (--user USER [options] -- COMMAND ... | --fdstore [options]"
        " | --serve PATH --user USER [options])",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    way = parser.add_argument_group("to whom")
    way.add_argument("--user", metavar="USER[:GROUP]", help="whom the descriptors are for")
    way.add_argument("--fdstore", action="store_true", help="send them to $NOTIFY_SOCKET")
    way.add_argument("--serve", metavar="PATH", help="stay, and answer USER at this socket")
    way.add_argument("words", metavar="COMMAND", nargs="*", help="executed as USER")
    what = parser.add_argument_group("what")
    what.add_argument("--name", default="net0", help="the device's name (net0)")
    what.add_argument("--tap", metavar="NAME", help="the tap's name (vnet0, vnet1 ...)")
    what.add_argument("--queues", metavar="N", type=int, help=f"its queues ({_QUEUES})")
    what.add_argument("--mtu", metavar="N", type=int, help="its MTU, in bytes")
    what.add_argument("--bridge", metavar="NAME", help="make it a port of this bridge")
    what.add_argument("--netns", metavar="NAME", help="network namespace it is to be in")
    what.add_argument(
        "--owner", metavar="USER", help="who may attach more queues to it (nobody but root)"
    )
    what.add_argument("--persist", action="store_true", help="the tap stays when all have gone")
    what.add_argument("--no-steering", action="store_true", help="make no steering program")
    asked = parser.add_argument_group(
        "what may be asked for at --serve, beside --netns, --owner, and --queues as the most"
    )
    asked.add_argument(
        "--allow-tap",
        metavar="PATTERN",
        action="append",
        default=[],
        help="names a tap may have, such as 'vm*' (none but automatic ones); may be repeated",
    )
    asked.add_argument(
        "--allow-bridge",
        metavar="PATTERN",
        action="append",
        default=[],
        help="bridges it may become a port of (none); may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Do it; returns the exit status, unless a command was executed."""
    _check(args)
    if args.serve is not None:
        from pyvnet.daemon.helper import broker

        args.queues = _MOST_QUEUES if args.queues is None else args.queues
        return broker.run(args)
    if args.fdstore:
        return _store(args)
    return _execute(args)


def _check(args: argparse.Namespace) -> None:
    from pyvnet.daemon.helper import made

    ways = [bool(args.words), args.fdstore, args.serve is not None]
    if sum(ways) != 1:
        raise UsageError("one of `-- COMMAND`, --fdstore and --serve is needed (--help has more)")
    if args.fdstore and args.user:
        raise UsageError("--user is for a command and for --serve; systemd knows whom it starts")
    if not args.fdstore and not args.user:
        raise UsageError("--user is missing: whom the descriptors are for")
    made.check_device_name(args.name)


def _execute(args: argparse.Namespace) -> int:
    from pyvnet.daemon.helper import handover, privileges

    who = privileges.user(args.user)
    wish = _wish(args)
    handover.reserve(wish.queues + _BPF_FDS)
    with ExitStack() as undo:
        handover.execute(args.words, who, _make(args, wish, undo), os.environ)
    raise AssertionError  # not reached: it was executed, or an error was raised


def _store(args: argparse.Namespace) -> int:
    from pyvnet.daemon.helper import handover, made, taps

    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        raise HostError(
            "NOTIFY_SOCKET is not set",
            cure="--fdstore is for ExecStartPre=+ of a unit with NotifyAccess=exec and"
            " FileDescriptorStoreMax=",
        )
    wish = _wish(args)
    names = made.names(args.name)
    with handover.Store(address) as store, ExitStack() as undo:
        store.forget(names)
        if args.tap is not None:
            with made.visit(args.netns):
                taps.wait_until_gone(args.tap)
        store.keep(_make(args, wish, undo))
        # This process's own descriptors end with it; the others, and a tap to stay, stay.
        undo.pop_all()
    return 0


def _wish(args: argparse.Namespace) -> TapWish:
    from pyvnet.daemon.helper import privileges, taps

    wish = taps.TapWish(
        queues=_QUEUES if args.queues is None else args.queues,
        name=args.tap,
        mtu=args.mtu,
        bridge=args.bridge,
        owner=taps.ROOT if args.owner is None else privileges.user(args.owner).uid,
        persist=args.persist,
    )
    wish.check()
    return wish


def _make(args: argparse.Namespace, wish: TapWish, undo: ExitStack) -> Named:
    from pyvnet.daemon.helper import made

    steering = not args.no_steering
    named, tap, reason = made.make(args.name, wish, undo, netns=args.netns, steering=steering)
    if reason:
        print(f"pyvnet helper: {tap}: no steering program: {reason}", file=sys.stderr)
    return named
