# SPDX-License-Identifier: MIT
"""DPDK's testpmd on a virtio-user port: a poll-mode driver over vhost-user, without a guest."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from tests.system.program import Program

if TYPE_CHECKING:
    from pathlib import Path

# Its forwarding thread spins: it keeps to one CPU and leaves the others to the back-end.
CPU: Final = max(os.sched_getaffinity(0))
DRIVER_MAC: Final = "02:00:00:00:64:01"
_PATIENCE: Final = 120.0  # a million frames on a busy machine; a hang guard
_PROMPT: Final = r"^testpmd> "
_COUNTERS: Final = re.compile(r"\b([RT]X)-(packets|dropped): *(\d+)")
_QUEUE: Final = re.compile(
    r"RX Port= 0/Queue= *(\d+) -> .*\n *RX-packets: (\d+) *TX-packets: (\d+)"
)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """testpmd's own count since ``start``.

    ``queues`` is {queue: (received, sent)} of those that had traffic, empty with one queue.
    """

    rx_packets: int
    rx_dropped: int
    tx_packets: int
    tx_dropped: int
    queues: dict[int, tuple[int, int]]


class Testpmd:
    """``async with Testpmd(socket)``: testpmd with one port, ready for ``start()``.

    Args:
        socket: the vhost-user socket.
        queues: queue pairs.
        mode: its forwarding engine: io, txonly or rxonly.
        port: more of virtio-user's parameters, such as ``mrg_rxbuf=0``.
        arguments: more of testpmd's.
    """

    __test__ = False  # not a test class for all its name

    def __init__(
        self,
        socket: Path,
        queues: int = 1,
        mode: str = "io",
        *,
        port: str = "",
        arguments: str = "",
    ) -> None:
        self.mode = mode
        self._launched = False
        vdev = f"net_virtio_user0,path={socket},queues={queues},mac={DRIVER_MAC}"
        self.program = Program(
            [
                # Its prompt is written at once, what it prints stays in a buffer: by lines, then.
                *("stdbuf", "--output=L", "dpdk-testpmd"),
                *("--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf"),
                *("--file-prefix", f"pyvnet-{os.getpid()}-{socket.stem}"),
                *("--lcores", f"0@{CPU},1@{CPU}"),
                *("--vdev", f"{vdev},{port}" if port else vdev),
                *("--", "--interactive", "--total-num-mbufs", "4096"),
                *("--rxq", str(queues), "--txq", str(queues), "--forward-mode", mode),
                *arguments.split(),
            ]
        )

    def launch(self) -> None:
        """Start the program; with ``server=1`` it has no prompt before somebody has come."""
        if not self._launched:
            self._launched = True
            self.program.start()

    async def __aenter__(self) -> Self:
        """Start the program, unless it was, and wait for its prompt."""
        self.launch()
        await self.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the program."""
        self.program.close()

    async def ready(self) -> None:
        """Wait until the port is up and the prompt is there."""
        await self.program.expect(_PROMPT)

    async def ask(self, command: str) -> str:
        """What testpmd answers to a command."""
        before = len(self.program.output)
        self.program.send(command)
        await self.program.expect(_PROMPT)
        return self.program.output[before:]

    async def start(self) -> None:
        """Forward from now on."""
        answer = await self.ask("start")
        if "packet forwarding" not in answer:
            raise self.program.error("did not start to forward")

    async def forwarded(self) -> Forwarded:
        """Its count so far."""
        return _parse(await self.ask("show fwd stats all"))

    async def stop(self) -> Forwarded:
        """Stop forwarding; its count."""
        return _parse(await self.ask("stop"))

    async def is_up(self) -> None:
        """Wait until its link is up again."""
        async with asyncio.timeout(_PATIENCE):
            while "Link status: up" not in await self.ask("show port info 0"):
                pass  # each answer takes it a moment

    async def has_received(self, frames: int) -> None:
        """Wait until it received so many, by its own count."""
        async with asyncio.timeout(_PATIENCE):
            while (await self.forwarded()).rx_packets < frames:
                pass  # each answer takes it a moment

    async def quit(self) -> int:
        """Let it close its port and end; the exit status."""
        self.program.send("quit")
        return await self.program.end()


def _parse(text: str) -> Forwarded:
    total = text[text.index("Accumulated forward statistics") :]
    counts = {f"{way}-{what}": int(count) for way, what, count in _COUNTERS.findall(total)}
    return Forwarded(
        counts["RX-packets"],
        counts["RX-dropped"],
        counts["TX-packets"],
        counts["TX-dropped"],
        {int(queue): (int(rx), int(tx)) for queue, rx, tx in _QUEUE.findall(text)},
    )
