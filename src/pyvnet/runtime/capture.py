# SPDX-License-Identifier: MIT
"""A capture of a running device: a thread between the engine's copies and the file.

Theory of operation
    Workers hand copies over without waiting (``native/src/capture.h``); what
    the thread takes are blocks of the file already, so it is busy with
    writing only and holds Python's lock for little of the time.

    Beside frames it tells what decided about them: the engine says of each
    frame by which policy it was judged, and where that changes the next frame
    gets the new steering as a second comment, in each file of a rotation anew.

    Where the medium refuses, the thread stops the capture, and the device goes
    on; the event loop hears of it once.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from pyvnet.capture.blocks import (
    Option,
    interface_description,
    interface_statistics,
    section_header,
)
from pyvnet.capture.output import Output, Rotation
from pyvnet.capture.source import CaptureError
from pyvnet.capture.words import Steering
from pyvnet.capture.writer import APPLICATION, cannot_write, failure_text
from pyvnet.datapath.capture import EngineCapture
from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from pyvnet.datapath.engine import Engine

_log = logging.getLogger("pyvnet")

_PATIENCE_MS: Final = 20  # a frame is in the file that much later
_NO_POLICY: Final = 0  # no policy has this serial


class DeviceCapture:
    """Writes all frames of an engine's queues to a file until it is stopped.

    Args:
        engine: the data plane; stop the capture before it closes.
        path: of the file, created or overwritten, for its owner only.
        name: what the device is called in names of interfaces, such as ``vm1:rx0``.
        snap_length: bytes kept of each frame, 0 for all.
        rotation: begin another file when one is full.
        ended: called in the capture's thread if it ends by itself.

    Raises CaptureError if the file cannot be written, UsageError if the engine is
    captured already.
    """

    def __init__(
        self,
        engine: Engine,
        path: str | os.PathLike[str],
        *,
        name: str,
        snap_length: int = 0,
        rotation: Rotation | None = None,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        if snap_length < 0:
            raise UsageError(f"snapshot length {snap_length}; 0 keeps whole frames")
        self.failure: str | None = None
        self._engine = engine
        self._name = name
        self._snap_length = snap_length
        self._ended = ended
        self._stopping = False
        self._told = ""  # the steering, in the file being written
        self._judged = _NO_POLICY
        self._started_ns = time.time_ns()
        self._before = [engine.statistics(pair) for pair in range(engine.pairs)]
        try:
            self._output = Output(path, self._begin, rotation)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._capture = EngineCapture(engine, snap_length=snap_length)
        except (HostError, UsageError):
            self._output.close()
            raise
        self._counts = [(0, 0)] * (2 * engine.pairs)
        self._thread = threading.Thread(target=self._run, name="pyvnet-capture", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Frames are captured."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Write what was handed over so far, and counts, and close the file; harmless twice."""
        if not self._stopping:
            self._capture.stop()
            self._stopping = True
            self._capture.wake()
            self._thread.join()
            self._counts = [self._capture.counts(i) for i in range(2 * self._engine.pairs)]
            self._capture.close()

    def status(self) -> dict[str, Any]:
        """Plain JSON types.

        ``lost`` are frames that found no room in the hand-over, or on a medium that refused.
        """
        if not self._stopping:
            self._counts = [self._capture.counts(i) for i in range(2 * self._engine.pairs)]
        frames, lost = (sum(column) for column in zip(*self._counts, strict=True))
        if self.failure:
            frames, lost = self._output.frames, lost + frames - self._output.frames
        state = "failed" if self.failure else "running" if self.running else "stopped"
        reason = {"failure": self.failure} if self.failure else {}
        return {
            "state": state,
            "file": str(self._output.current),
            "files": self._output.files,
            "frames": frames,
            "lost": lost,
            **reason,
        }

    # In the capture's thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._capture.wait(_PATIENCE_MS)
                self._drain()
            self._drain()
            self._output.write(self._end())
        except (OSError, CaptureError) as error:
            self.failure = failure_text(self._output.path, error)
        finally:
            self._output.close()
        if self.failure is not None:
            self._ended()

    def _drain(self) -> None:
        """Write all that there is now."""
        room = self._output.room
        while True:
            said = self._steering()
            comment = "" if said == self._told else said
            batch = self._capture.take(self._judged, comment, room)
            if batch.frames:
                self._output.write(batch.blocks, batch.frames)
                self._told = said
            if not batch.waiting:
                return
            if batch.policy != self._judged:
                self._judged = batch.policy
            elif not self._output.fits(batch.waiting):
                self._output.rotate(self._end())
            room = max(self._output.room, batch.waiting)  # it fits by now

    def _steering(self) -> str:
        """What frames are judged by, in the words of a comment."""
        policy = self._engine.policy_of(self._judged)
        if policy is None:  # what holds before a driver comes
            return Steering(0, b"").as_comment()
        table = policy.indirection_table if policy.mode == "rss" else ()
        return Steering(
            policy.hash_types,
            policy.key,
            table,
            policy.unclassified_queue if table else 0,
            policy.ex_types_always,
        ).as_comment()

    def _begin(self) -> bytes:
        self._told = ""
        described = [section_header(APPLICATION)]
        for pair in range(self._engine.pairs):
            for way, words in (("rx", "towards the driver"), ("tx", "from the driver")):
                text = f"queue pair {pair} of {self._name}, {words}"
                name = f"{self._name}:{way}{pair}"
                described.append(interface_description(name, text, self._snap_length))
        return b"".join(described)

    def _end(self) -> bytes:
        """Counts of every interface since the capture began; its drops are the device's."""
        now = time.time_ns()
        counted = []
        for interface in range(2 * self._engine.pairs):
            pair, transmit = divmod(interface, 2)
            stats, before = self._engine.statistics(pair), self._before[pair]
            frames, lost = self._capture.counts(interface)
            drops = stats.rx_drops - before.rx_drops
            passed = stats.rx_packets - before.rx_packets
            if transmit:
                drops = stats.tx_drops - before.tx_drops
                passed = stats.tx_packets - before.tx_packets
            counts = (
                (Option.ISB_IFRECV, passed + drops),
                (Option.ISB_IFDROP, drops),
                (Option.ISB_OSDROP, lost),
                (Option.ISB_USRDELIV, frames),
            )
            counted.append(interface_statistics(interface, now, self._started_ns, counts))
        return b"".join(counted)
