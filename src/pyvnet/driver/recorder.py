# SPDX-License-Identifier: MIT
"""Somebody who writes down what a driver sees: a capture, for one.

The driver knows of hash and queue what the device told it, and of what decides
them what it commanded itself; both go to the recorder in the order they came.
Frames that are in the rings when a command is answered are read before its
effect is told, for the device placed them by what held then.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from pyvnet.spec.ctrl import CtrlClass, MqCommand
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import HDR_V1_SIZE, NetHdr
from pyvnet.spec.rss import HashConfig, RssConfig, ShortPayloadError

if TYPE_CHECKING:
    from pyvnet.driver.receive import Receiver

_CLASS_AND_COMMAND: Final = 2


class Recorder(Protocol):
    """What a driver tells; queues are pair numbers, frames begin with their destination MAC."""

    def received(self, queue: int, data: bytes, header: NetHdr, *, reported: bool) -> None:
        """A frame came by a receiveq; ``reported``: its header has the hash fields."""

    def sent(self, queue: int, data: bytes, header: NetHdr | None) -> None:
        """A frame was put on a transmitq; None: with less than a header."""

    def steered(
        self, hash_types: int, key: bytes, indirection_table: tuple[int, ...], unclassified: int
    ) -> None:
        """This decides hash and receiveq from now on; no table: automatic steering."""


class Recording:
    """What one recorder is told between a negotiation and the reset."""

    def __init__(self, recorder: Recorder, features: Feature) -> None:
        self._recorder = recorder
        self._features = features
        self._reported = bool(features & Feature.HASH_REPORT)
        self._now: tuple[int, bytes, tuple[int, ...], int] = (0, b"", (), 0)
        recorder.steered(*self._now)

    def received(self, queue: int, data: bytes, header: NetHdr) -> None:
        """A frame came."""
        if data:
            self._recorder.received(queue, data, header, reported=self._reported)

    def sent(self, queue: int, data: bytes, head: bytes) -> None:
        """A frame went, with these bytes in front."""
        header = NetHdr.unpack(head) if len(head) >= HDR_V1_SIZE else None
        if data:
            self._recorder.sent(queue, data, header)

    def commanded(self, request: bytes, receiver: Receiver | None) -> None:
        """The device obeyed a command."""
        now = self._after(request)
        if now == self._now:
            return
        if receiver is not None:
            receiver.look()
        self._now = now
        types, key, table, unclassified = now
        hashed = table or self._reported
        self._recorder.steered(types if hashed else 0, key, table, unclassified)

    def _after(self, request: bytes) -> tuple[int, bytes, tuple[int, ...], int]:
        if len(request) < _CLASS_AND_COMMAND or request[0] != CtrlClass.MQ:
            return self._now
        types, key, table, unclassified = self._now
        payload = request[_CLASS_AND_COMMAND:]
        with suppress(ShortPayloadError):  # obeyed or not, it says nothing
            if request[1] == MqCommand.RSS_CONFIG:
                rss, _ = RssConfig.parse(payload)
                return rss.hash_types, rss.key, rss.indirection_table, rss.unclassified_queue
            if request[1] == MqCommand.HASH_CONFIG:
                config, _ = HashConfig.parse(payload)
                return config.hash_types, config.key, table, unclassified
        if request[1] == MqCommand.VQ_PAIRS_SET:
            return types, key, (), 0
        return self._now
