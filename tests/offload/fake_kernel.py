# SPDX-License-Identifier: MIT
"""A kernel that steers by RSS and reports, as either of two series would have it, or lies.

It goes by the Python reference, so that nothing here is compared with itself.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from pyvnet.reference import classify, steer
from pyvnet.spec.net_hdr import NetHdr

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUES = 4
TYPES = 0x3F
V11_GET, V11_SET = 0x800854E4, 0x400854E5
V12_GET, V12_AUTOMATIC, V12_REPORT_RSS, V12_RSS = 0x800454E4, 0x800454E5, 0x800854E6, 0x800854E7


@dataclass
class FakeKernel:
    """One tap of it.

    ``series`` is "v11", "v12", or "" for the kernel of today.  ``spoil`` changes what
    a reader gets: (queue, hash value, report) → the same, None for nothing at all.
    """

    series: str
    spoil: Callable[[int, int, int], tuple[int, int, int] | None] = lambda *found: found
    types: int = TYPES
    refuses: frozenset[int] = frozenset()  # requests
    asked: list[int] = field(default_factory=list)
    queues: list[int] = field(default_factory=list)
    rss: bool = False
    reports: bool = False
    hash_types: int = 0
    table: tuple[int, ...] = (0,)
    unclassified: int = 0
    key: bytes = b""

    def __enter__(self) -> Self:
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(QUEUES)]
        self.queues = [ours.fileno() for ours, _ in self._pairs]
        for fd in self.queues:
            os.set_blocking(fd, False)
        return self

    def __exit__(self, *exc: object) -> None:
        for pair in self._pairs:
            for end in pair:
                end.close()

    # --- what a Scene has --------------------------------------------------------

    def ask(self, fd: int, request: int, argument: bytes) -> bytes:
        assert fd in self.queues
        self.asked.append(request)
        known = {
            "v11": {V11_GET: self._get, V11_SET: self._set_v11},
            "v12": {
                V12_GET: self._get,
                V12_AUTOMATIC: self._automatic,
                V12_REPORT_RSS: self._report_rss,
                V12_RSS: self._rss,
            },
        }.get(self.series, {})
        if request in self.refuses or request not in known:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return known[request](argument)

    def send(self, frame: bytes) -> None:
        hashed = classify(frame, self.hash_types, self.key)
        value, report = (hashed.value, hashed.report) if self.reports else (0, 0)
        queue = steer(hashed, self.table, self.unclassified) if self.rss else 0
        found = self.spoil(queue, value, report)
        if found is not None:
            queue, value, report = found
            header = NetHdr(hash_value=value, hash_report=report).pack(20)
            self._pairs[queue % QUEUES][1].send(header + frame)

    # --- requests ----------------------------------------------------------------

    def _get(self, argument: bytes) -> bytes:
        return struct.pack("=HxxI", 3, self.types)[-len(argument) :]

    def _set_v11(self, argument: bytes) -> bytes:
        flags, types = struct.unpack_from("=HxxI", argument)
        self.reports, self.rss = bool(flags & 1), bool(flags & 2)
        if self.rss:
            self._configure(types, argument[8:])
        return argument

    def _automatic(self, argument: bytes) -> bytes:
        self.rss, self.reports = False, bool(struct.unpack("=I", argument)[0])
        return argument

    def _report_rss(self, argument: bytes) -> bytes:
        self.reports = True
        return self._rss_v12(argument)

    def _rss(self, argument: bytes) -> bytes:
        self.reports = False
        return self._rss_v12(argument)

    def _rss_v12(self, argument: bytes) -> bytes:
        self.rss = True
        self._configure(struct.unpack_from("=I", argument)[0], argument[4:])
        return argument

    def _configure(self, types: int, argument: bytes) -> None:
        if types & ~self.types:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        mask, self.unclassified = struct.unpack_from("=HH", argument)
        self.table = struct.unpack_from(f"={mask + 1}H", argument, 4)
        self.key = argument[4 + 2 * (mask + 1) :]
        self.hash_types = types
