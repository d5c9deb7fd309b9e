# SPDX-License-Identifier: MIT
"""All that one device is given: tap queues, a steering program and its map, each with a name.

The names are those ``pyvnet serve`` asks for by ``--tap-fds named`` and
``--bpf-fds named``: ``tap-DEVICE`` once per queue, in their order,
``bpf-program-DEVICE`` and ``bpf-map-DEVICE``.

Never does: load a program of somebody else's; attach one; stay in the network
namespace it visited.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.daemon.helper import paths, programs, taps
from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

_NAME_MAX: Final = 200  # FDNAME= of sd_notify(3) takes 255 with our prefix


@dataclass(frozen=True, slots=True)
class Named:
    """Descriptors in the order they are handed over, each with its name; names repeat."""

    fds: tuple[int, ...]
    names: tuple[str, ...]


def names(device: str) -> tuple[str, str, str]:
    """What its tap queues, steering program and map are called."""
    check_device_name(device)
    return f"tap-{device}", f"bpf-program-{device}", f"bpf-map-{device}"


def check_device_name(name: str) -> None:
    """Raises UsageError for a name systemd would not carry (FDNAME= of sd_notify(3))."""
    if not 0 < len(name) <= _NAME_MAX or not name.isascii() or not name.isprintable():
        raise UsageError(f"{name!r} cannot name a descriptor: printable ASCII, {_NAME_MAX} at most")
    if ":" in name:
        raise UsageError(f"{name!r} cannot name a descriptor: it holds a colon")


def make(
    device: str, wish: taps.TapWish, undo: ExitStack, *, netns: str | None, steering: bool
) -> tuple[Named, str, str]:
    """Make everything for ``device``.

    Args:
        device: its name.
        wish: its tap.
        undo: is told how to take everything back.
        netns: where the tap is to be, as ``paths.enter_netns`` takes it; None: here.
        steering: whether it gets a steering program.

    Returns:
        The descriptors; the tap's name; and why there is no steering program, or "".

    Raises:
        HostError: the tap cannot be made.
        UsageError: it makes no sense.
    """
    of_tap, of_program, of_map = names(device)
    with visit(netns):
        tap = taps.make(wish, undo)
    named = [(fd, of_tap) for fd in tap.fds]
    reason = ""
    if steering:
        try:
            program, map_ = programs.load_steering()
        except HostError as error:
            reason = str(error)
        else:
            undo.callback(os.close, program)
            undo.callback(os.close, map_)
            named += [(program, of_program), (map_, of_map)]
    return Named(*zip(*named, strict=True)), tap.name, reason


@contextlib.contextmanager
def visit(netns: str | None) -> Iterator[None]:
    """Be in a network namespace for a while."""
    if netns is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        paths.enter_netns(netns)
        yield
    finally:
        paths.enter(home, "the namespace it came from")
        os.close(home)
