# SPDX-License-Identifier: MIT
"""A capture written frame by frame, each with its hash, its queue and what they mean."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from pyvnet.capture import blocks
from pyvnet.capture.blocks import Option, PacketFlag
from pyvnet.capture.output import Output, Rotation
from pyvnet.capture.source import CaptureError
from pyvnet.capture.words import Steering, frame_comment
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from pyvnet.spec.net_hdr import NetHdr

APPLICATION: Final = "pyvnet"
_BUFFER: Final = 64 * 1024
_DIRECTION: Final = PacketFlag.INBOUND | PacketFlag.OUTBOUND
_log = logging.getLogger("pyvnet.capture")


@dataclass(slots=True)
class _Interface:
    number: int
    name: str
    description: str
    frames: int = 0
    drops: int = 0


def failure_text(path: os.PathLike[str], error: Exception) -> str:
    """How logs and status tell that a capture ended."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"capture {os.fspath(path)} stopped: {reason}"


def cannot_write(path: str | os.PathLike[str], error: OSError) -> CaptureError:
    """The error to raise where not even the beginning of a capture could be written."""
    reason = f"{os.fspath(path)}: cannot write a capture ({error.strerror})"
    return CaptureError(f"{reason}; make room, or choose another place")


def device_of(interface: str) -> str:
    """Whose interface it is, by its name: ``vm1`` of ``vm1:rx0``."""
    return interface.rpartition(":")[0]


class Writer:
    """Writes a pcapng file; as a context manager it is closed at the end.

    A medium that refuses (disk full) ends the capture and nothing else: it is
    logged once, `failure` says why, and `add` does nothing from then on.  One
    thread at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        snap_length: int = 0,
        rotation: Rotation | None = None,
        comment: str = "",
        name: str = "driver",
    ) -> None:
        """Create or overwrite the file at ``path``; a new one is for its owner only.

        ``snap_length``: bytes kept of each frame, 0 for all.  ``comment``:
        on the section, what the capture is about.  ``name``: of the driver that
        captures, for the names of its interfaces, such as ``vm1:rx0``.  Raises CaptureError when
        the file cannot be opened, UsageError for a negative length.
        """
        if snap_length < 0:
            message = f"snapshot length {snap_length}; 0 keeps whole frames"
            raise UsageError(message)
        self.failure: str | None = None
        self._name = name
        self._snap_length = snap_length
        self._comment = comment
        self._interfaces: dict[str, _Interface] = {}
        self._steering: dict[str, Steering] = {}  # by device
        self._steering_told: dict[str, Steering] = {}
        self._pending = bytearray()
        self._started_ns = time.time_ns()
        try:
            self._output = Output(path, self._begin, rotation)
        except OSError as error:
            raise cannot_write(path, error) from error

    @property
    def closed(self) -> bool:
        """Nothing more is written: `close` was called, or the medium refused."""
        return self._output.closed

    def interface(self, name: str, description: str = "") -> None:
        """Describe an interface before its first frame; `add` does without a description."""
        self._interface(name, description)

    def steering(self, steering: Steering, device: str | None = None) -> None:
        """Say what decides hash and receiveq of the frames that follow.

        ``device``: of those whose interface is called so up to its last colon; None: of all
        that nothing is said of by name.
        """
        self._steering["" if device is None else f"{device}:"] = steering

    def add(  # noqa: PLR0913 - one keyword per thing a block can say
        self,
        interface: str,
        data: bytes,
        *,
        timestamp_ns: int | None = None,
        queue: int | None = None,
        hash_value: int | None = None,
        hash_report: int | None = None,
        flags: int = 0,
        comment: str | None = None,
        drops: int = 0,
        packet_id: int | None = None,
    ) -> None:
        """Write one frame, from its destination MAC on.

        ``interface``: its name, such as ``vm1:rx0``; described when it is new.
        ``timestamp_ns``: since 1970, default now.  ``queue``: number of the
        queue pair.  ``hash_report`` 0: no hash, whatever ``hash_value`` is;
        None: nobody said.  ``flags``: `PacketFlag`.  ``comment``: default is
        made of report, hash and queue; "" for none.  ``drops``: frames of this
        interface that should have been here since its last one.
        """
        if self.closed:
            return
        kept = data[: self._snap_length] if self._snap_length else data
        now = time.time_ns() if timestamp_ns is None else timestamp_ns
        if comment is None:
            sent = flags & _DIRECTION == PacketFlag.OUTBOUND
            comment = frame_comment(queue, hash_value, hash_report, transmit=sent)
        options = blocks.packet_options(
            flags=flags,
            hash_value=None if hash_report == 0 else hash_value,
            drops=drops,
            packet_id=packet_id,
            queue=queue,
            comments=(comment,),
        )
        described = self._interface(interface)
        described.frames += 1
        described.drops += drops
        self._append(described, now, kept, options, len(data))

    # What a driver tells (`pyvnet.driver.recorder.Recorder`).

    def received(
        self, queue: int, data: bytes, header: NetHdr, *, reported: bool, name: str | None = None
    ) -> None:
        """Write a frame that came by a receiveq; ``reported``: its header has the hash fields."""
        value, report = (header.hash_value, header.hash_report) if reported else (None, None)
        self.add(
            f"{name or self._name}:rx{queue}",
            data,
            queue=queue,
            hash_value=value,
            hash_report=report,
            flags=PacketFlag.INBOUND | blocks.header_flags(header.flags, header.gso_type),
            comment=frame_comment(queue, value, report, header),
        )

    def sent(
        self, queue: int, data: bytes, header: NetHdr | None, *, name: str | None = None
    ) -> None:
        """Write a frame that was put on a transmitq."""
        asked = blocks.header_flags(header.flags, header.gso_type) if header else PacketFlag.NONE
        self.add(
            f"{name or self._name}:tx{queue}",
            data,
            queue=queue,
            flags=PacketFlag.OUTBOUND | asked,
            comment=frame_comment(queue, header=header, transmit=True),
        )

    def steered(
        self,
        hash_types: int,
        key: bytes,
        indirection_table: tuple[int, ...],
        unclassified: int,
        *,
        name: str | None = None,
    ) -> None:
        """Remember what decides hash and receiveq from now on."""
        steering = Steering(hash_types, key, indirection_table, unclassified)
        self.steering(steering, name or self._name)

    def named(self, name: str) -> NamedWriter:
        """One of several drivers that write into the same file."""
        return NamedWriter(self, name)

    def flush(self) -> None:
        """Hand all frames so far to the kernel."""
        if self.closed or not self._pending:
            return
        pending, self._pending = self._pending, bytearray()
        try:
            self._output.write(bytes(pending))
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Write counts of every interface and close the file; harmless when closed."""
        if self.closed:
            return
        self._pending += self._end()
        self.flush()
        self._output.close()

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, whatever happened."""
        self.close()

    def _interface(self, name: str, description: str = "") -> _Interface:
        known = self._interfaces.get(name)
        if known is None:
            known = _Interface(len(self._interfaces), name, description)
            self._interfaces[name] = known
            self._pending += self._described(known)
        return known

    def _described(self, interface: _Interface) -> bytes:
        return blocks.interface_description(
            interface.name, interface.description, self._snap_length
        )

    def _append(
        self,
        interface: _Interface,
        timestamp_ns: int,
        data: bytes,
        options: list[bytes],
        original: int,
    ) -> None:
        device = device_of(interface.name)
        steering = self._steering.get(f"{device}:", self._steering.get(""))

        def encoded() -> bytes:
            told = []
            if steering is not None and steering != self._steering_told.get(device):
                told = [blocks.text_option(Option.COMMENT, steering.as_comment())]
            return blocks.enhanced_packet(
                interface.number, timestamp_ns, data, [*options, *told], original_length=original
            )

        block = encoded()
        if not self._output.fits(len(self._pending) + len(block)):
            self._rotate()
            block = encoded()  # every file tells of the steering
        if self.closed:
            return
        if steering is not None:
            self._steering_told[device] = steering
        self._pending += block
        if len(self._pending) >= _BUFFER:
            self.flush()

    def _rotate(self) -> None:
        self.flush()
        if self.closed:
            return
        try:
            self._output.rotate(self._end())
        except (OSError, CaptureError) as error:
            self._fail(error)

    def _begin(self) -> bytes:
        """What every file begins with; interfaces keep their numbers."""
        self._steering_told = {}
        described = [self._described(interface) for interface in self._interfaces.values()]
        return blocks.section_header(APPLICATION, self._comment) + b"".join(described)

    def _end(self) -> bytes:
        now = time.time_ns()
        return b"".join(
            blocks.interface_statistics(
                interface.number,
                now,
                self._started_ns,
                ((Option.ISB_OSDROP, interface.drops), (Option.ISB_USRDELIV, interface.frames)),
            )
            for interface in self._interfaces.values()
        )

    def _fail(self, error: Exception) -> None:
        self._output.close()
        self.failure = failure_text(self._output.path, error)
        _log.error("%s", self.failure)


class NamedWriter:
    """A driver's share of a `Writer`: its interfaces are called after it."""

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer = writer
        self._name = name

    def received(self, queue: int, data: bytes, header: NetHdr, *, reported: bool) -> None:
        """As of the writer."""
        self._writer.received(queue, data, header, reported=reported, name=self._name)

    def sent(self, queue: int, data: bytes, header: NetHdr | None) -> None:
        """As of the writer."""
        self._writer.sent(queue, data, header, name=self._name)

    def steered(
        self, hash_types: int, key: bytes, indirection_table: tuple[int, ...], unclassified: int
    ) -> None:
        """As of the writer."""
        self._writer.steered(hash_types, key, indirection_table, unclassified, name=self._name)
