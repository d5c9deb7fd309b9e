# SPDX-License-Identifier: MIT
"""One client of the broker: what it may ask for, what it holds, and its end.

Whatever the broker keeps for a client is here, bounded, and closed when the
client goes.  Of a tap that is one queue, to attach programs by; of a program or
a map, the very fd the client got.

What a client may ask for is the operator's word (``Policy``), never the
client's: which taps by name, into which bridges, how many queues.

Never does: act on a descriptor, a path or an interface that a client names,
unless it was made here for that client.
"""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version as release_of
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.daemon.helper import programs, protocol, taps
from pyvnet.errors import FrontendError, HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

OBJECTS_MAX: Final = 32  # of a client
TAPS_MAX: Final = 64  # of all, those included that live on by their clients' descriptors


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator lets clients ask for: names are patterns as of fnmatch(3)."""

    taps: tuple[str, ...]
    bridges: tuple[str, ...]
    queues: int
    owner: int
    made: set[str] = field(default_factory=set)  # taps there may still be


@dataclass(frozen=True, slots=True)
class Held:
    """Something made for a client: its kind (tap, program, map), the fd kept, its name."""

    kind: str
    fd: int
    name: str = ""


class Answer(NamedTuple):
    """What to send; ``after`` is closed when that is done, or has failed."""

    message: dict[str, Any]
    fds: tuple[int, ...]
    after: ExitStack


class Client:
    """The requests of one client, answered; it knows of no socket."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._greeted = False
        self._held: dict[int, Held] = {}
        self._next = 1
        self._handlers: dict[str, Callable[..., Answer]] = {
            "hello": self._hello,
            "make-tap": self._make_tap,
            "load-steering": self._load_steering,
            "make-map": self._make_map,
            "load-program": self._load_program,
            "attach": self._attach,
            "status": self._status,
            "close": self._close_object,
        }

    def answer(self, data: bytes) -> Answer:
        """Carry out a request.

        Raises:
            FrontendError: the client does not keep to the protocol.
            HostError, UsageError: it cannot be done; nothing has changed.
        """
        operation, values = protocol.read_request(data)
        if not self._greeted and operation != "hello":
            raise FrontendError("hello comes first")
        return self._handlers[operation](**{k.replace("-", "_"): v for k, v in values.items()})

    def close(self) -> None:
        """Let go of everything."""
        while self._held:
            _, held = self._held.popitem()
            os.close(held.fd)

    # Requests, by the table of protocol.py.

    def _hello(self, version: int) -> Answer:
        if version != protocol.VERSION:
            raise FrontendError(f"version {version} is asked for, {protocol.VERSION} is spoken")
        self._greeted = True
        return _said(version=protocol.VERSION, release=release_of("pyvnet"))

    def _make_tap(
        self, queues: int, name: str | None, mtu: int | None, bridge: str | None
    ) -> Answer:
        self._room_for(1)
        policy = self._policy
        if name is not None and not _matches(name, policy.taps):
            raise UsageError(f"tap {name!r} is not among those that may be made (--allow-tap)")
        if bridge is not None and not _matches(bridge, policy.bridges):
            raise UsageError(f"bridge {bridge!r} is not among the allowed ones (--allow-bridge)")
        if queues > policy.queues:
            raise UsageError(f"{queues} queues are asked for, {policy.queues} are allowed")
        policy.made.intersection_update([tap for tap in policy.made if taps.exists(tap)])
        if len(policy.made) >= TAPS_MAX:
            raise HostError(f"{TAPS_MAX} taps are there, which are the most", cure="close some")
        with ExitStack() as undo:
            tap = taps.make(taps.TapWish(queues, name, mtu, bridge, policy.owner), undo)
            policy.made.add(tap.name)
            # To attach programs by; the other queues are the client's alone.
            number = self._keep("tap", os.dup(tap.fds[0]), tap.name)
            return Answer({"object": number, "name": tap.name}, tap.fds, undo.pop_all())

    def _load_steering(self) -> Answer:
        self._room_for(2)
        program, map_ = programs.load_steering()
        numbers = {"program": self._keep("program", program), "map": self._keep("map", map_)}
        return Answer(numbers, (program, map_), ExitStack())

    def _make_map(
        self,
        type: int,  # noqa: A002 - the protocol's word
        key_size: int,
        value_size: int,
        entries: int,
        flags: int | None,
    ) -> Answer:
        self._room_for(1)
        map_ = programs.make_map(type, key_size, value_size, entries, flags or 0)
        return Answer({"object": self._keep("map", map_)}, (map_,), ExitStack())

    def _load_program(self, code: str, maps: list[Any], license: str) -> Answer:  # noqa: A002
        self._room_for(1)
        try:
            instructions = base64.b64decode(code, validate=True)
        except (binascii.Error, ValueError):
            raise FrontendError("load-program: code is not base64") from None
        fds = [self._find(number, "map").fd for number in maps]
        program = programs.load_checked(instructions, fds, license)
        return Answer({"object": self._keep("program", program)}, (program,), ExitStack())

    def _attach(self, tap: int, program: int | None) -> Answer:
        queue = self._find(tap, "tap").fd
        taps.attach_steering(queue, -1 if program is None else self._find(program, "program").fd)
        return _said()

    def _status(self) -> Answer:
        listed = [
            {"object": number, "kind": held.kind} | ({"name": held.name} if held.name else {})
            for number, held in self._held.items()
        ]
        return _said(objects=listed)

    def _close_object(self, object: int) -> Answer:  # noqa: A002 - the protocol's word
        held = self._find(object)
        del self._held[object]
        os.close(held.fd)
        return _said()

    # What it holds.

    def _room_for(self, count: int) -> None:
        if len(self._held) + count > OBJECTS_MAX:
            raise HostError(
                f"{len(self._held)} objects are held, and {OBJECTS_MAX} are the most",
                cure="close some first",
            )

    def _keep(self, kind: str, fd: int, name: str = "") -> int:
        number, self._next = self._next, self._next + 1
        self._held[number] = Held(kind, fd, name)
        return number

    def _find(self, number: object, kind: str = "") -> Held:
        held = self._held.get(number) if type(number) is int else None
        if held is None or (kind and held.kind != kind):
            raise UsageError(f"there is no {kind or 'object'} {number!r} on this connection")
        return held


def _said(**values: Any) -> Answer:
    return Answer(values, (), ExitStack())


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
