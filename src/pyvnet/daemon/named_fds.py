# SPDX-License-Identifier: MIT
"""Descriptors handed over by name: LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES (sd_listen_fds(3)).

Who made them had the right to, and this process need not: systemd, from a
socket unit or its fd store, or ``pyvnet helper``.  A device asks for its own
by the word ``named``; the names carry its name:

===============  ================================================
``--fd``         ``vhost-DEVICE``: one socket
``--tap-fds``    ``tap-DEVICE``: one per queue
``--bpf-fds``    ``bpf-program-DEVICE`` and ``bpf-map-DEVICE``:
                 one each, or neither where none could be loaded
===============  ================================================

A name that nobody asks for is an error: somebody meant something by it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pyvnet.daemon.options import NAMED_FD, NAMED_FDS, DeviceOptions
from pyvnet.daemon.readers import nearest
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

_FIRST: Final = 3  # SD_LISTEN_FDS_START
_MAX: Final = 4096
_CURE: Final = "`pyvnet helper` and systemd hand descriptors over by name"


def resolve(
    devices: Iterable[DeviceOptions], environment: MutableMapping[str, str]
) -> tuple[DeviceOptions, ...]:
    """Give the devices that asked for named descriptors their numbers.

    They are closed on exec from now on, and the variables are gone.

    Raises:
        UsageError: none were handed to this process, a name is missing, comes too
            often, or is nobody's.
    """
    asking = tuple(devices)
    if not any(map(_asks, asking)):
        return asking
    given = _take(environment)
    known: list[str] = []
    resolved = tuple(_resolved(device, given, known) for device in asking)
    for name in given:
        if name not in known:
            raise UsageError(
                f"{name!r} was handed over and nothing asks for it{nearest(name, known)}"
            )
    return resolved


def _asks(device: DeviceOptions) -> bool:
    return device.fd == NAMED_FD or NAMED_FDS in (device.tap_fds, device.bpf_fds)


def _take(environment: MutableMapping[str, str]) -> dict[str, tuple[int, ...]]:
    pid, count, names = (
        environment.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if not pid or not count:
        raise UsageError(f"no descriptors were handed over (LISTEN_FDS is not set): {_CURE}")
    if pid != str(os.getpid()):
        raise UsageError(f"descriptors were handed to process {pid} (LISTEN_PID), which is not us")
    listed = names.split(":")
    if not count.isascii() or not count.isdigit() or not 0 < int(count[:5]) <= _MAX:
        raise UsageError(f"LISTEN_FDS is {count!r}, not a number from 1 to {_MAX}")
    if len(listed) != int(count):
        raise UsageError(f"{count} descriptors were handed over with {len(listed)} names")
    given: dict[str, tuple[int, ...]] = {}
    for fd, name in enumerate(listed, _FIRST):
        try:
            os.set_inheritable(fd, False)  # noqa: FBT003
        except OSError:
            raise UsageError(f"fd {fd} was said to be handed over and is not open") from None
        given[name] = (*given.get(name, ()), fd)
    return given


def _resolved(
    device: DeviceOptions, given: dict[str, tuple[int, ...]], known: list[str]
) -> DeviceOptions:
    changes: dict[str, Any] = {}

    def take(prefix: str) -> tuple[int, ...]:
        name = f"{prefix}-{device.name}"
        known.append(name)
        return given.get(name, ())

    if device.fd == NAMED_FD:
        (changes["fd"],) = _exactly_one("fd", f"vhost-{device.name}", take("vhost"))
    if device.tap_fds == NAMED_FDS:
        changes["tap_fds"] = take("tap")
        if not changes["tap_fds"]:
            raise UsageError(f"tap-fds: nothing is called 'tap-{device.name}': {_CURE}")
    if device.bpf_fds == NAMED_FDS:
        program, map_ = take("bpf-program"), take("bpf-map")
        changes["bpf_fds"] = None
        if program or map_:
            changes["bpf_fds"] = (
                *_exactly_one("bpf-fds", f"bpf-program-{device.name}", program),
                *_exactly_one("bpf-fds", f"bpf-map-{device.name}", map_),
            )
    device = replace(device, **changes)
    for problem in device.problems():
        raise UsageError(problem)
    return device


def _exactly_one(option: str, name: str, fds: tuple[int, ...]) -> tuple[int, ...]:
    if len(fds) != 1:
        found = f"{len(fds)} descriptors are called" if fds else "nothing is called"
        raise UsageError(f"{option}: {found} {name!r}: {_CURE}")
    return fds
