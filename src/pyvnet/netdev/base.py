# SPDX-License-Identifier: MIT
"""What every host side of the wire offers.

The engine duplicates the fds it is given.  It is the one that reads, writes,
attaches and detaches; a ``NetDevice`` makes the fds, and puts the host back as
it was when it closes.  Close the engine first: while it holds duplicates, an
interface cannot go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class NetDevice(Protocol):
    """A host port: one queue per queue pair of the device."""

    @property
    def kind(self) -> Literal["tap", "pair", "null"]:
        """How the engine must talk to the fds (``enum vnet_port_type``)."""

    @property
    def queues(self) -> int:
        """Number of queues, known before ``open()``."""

    @property
    def fds(self) -> tuple[int, ...]:
        """One nonblocking fd per queue, index = queue; empty unless open.

        They stay the device's: duplicate what must outlive ``close()``.
        """

    def open(self) -> None:
        """Make the fds, with every queue attached; on failure nothing is left behind.

        Raises:
            HostError: what the host lacks, and the cure.
            UsageError: it is open already, or was asked for the impossible.
        """

    def close(self) -> None:
        """Close the fds and undo what ``open()`` did; harmless to repeat.

        Raises:
            HostError: something could not be put back; the fds are closed all the same.
        """

    def set_carrier(self, *, on: bool) -> None:
        """Plug the host's end of the cable in or out, where there is one."""

    def watch_carrier(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(plugged)`` in the running loop: as it is found, then at each change.

        It ends with ``close()``.  A port without a cable never calls.

        Raises:
            HostError: the host does not tell.
            UsageError: it is not open.
        """

    def send(self, frame: bytes) -> None:
        """Hand a frame (from the destination MAC address on) to the host.

        Raises:
            BlockingIOError: there is no room for it now.
            HostError: it does not go.
        """

    def describe(self) -> dict[str, Any]:
        """What status output shows of it: ``kind``, ``queues`` and more, ready for JSON."""

    def __enter__(self) -> Self:
        """Open it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
