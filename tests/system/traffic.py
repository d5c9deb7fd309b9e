# SPDX-License-Identifier: MIT
"""Traffic of many flows into a tap while a device is reconfigured, each frame judged.

What a frame must look like at the driver is worked out beforehand, by the
reference, for every flow and configuration.  Frames carry the number of
changes that had been acknowledged when they were sent (``epoch``), so a frame
may come as its epoch says or as a later change says that had been asked for
by then, and in no other way (U-41).
"""

from __future__ import annotations

import asyncio
import mmap
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias

import pytest

from pyvnet import Device, Feature, Tap
from pyvnet.datapath.stats import PAIR_STATS_FIELDS
from pyvnet.reference import classify, steer
from pyvnet.testing.frames import (
    Ipv4,
    Ipv6,
    Vlan,
    build,
    destination_options,
    home_address,
    tcp,
    udp,
)
from tests.system import sender
from tests.system.support import DRIVER_MAC, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyvnet import RssConfig
    from pyvnet.datapath.stats import PairStats
    from pyvnet.driver import Driver
    from pyvnet.driver.receive import Frame
    from pyvnet.netdev.netns import NetNamespace

FLOWS: Final = 64
QUEUES: Final = 4
RSS: Final = (
    Feature.CTRL_VQ | Feature.RSS | Feature.HASH_REPORT | Feature.MRG_RXBUF | Feature.EVENT_IDX
)
_ETHERTYPE: Final = b"\x88\xb5"  # for experiments: no stack answers, no hash applies
_MAC: Final = ":".join(f"{byte:02x}" for byte in DRIVER_MAC)


STEERINGS: Final = ("software", "ebpf")
BY: Final = pytest.mark.parametrize("steering", STEERINGS)


def steered_by(steering: str, tap: Tap) -> Device:
    """A device of which these tests ask that it steers so."""
    return Device(netdev=tap, mac=DRIVER_MAC, steering=steering)


def tap_dropped(device: Device) -> int:
    """Frames the kernel had no room for in the tap's queues."""
    assert isinstance(device.netdev, Tap)
    return device.netdev.statistics().tx_dropped


class Place(NamedTuple):
    """Where a frame is, and what its header says of it."""

    queue: int
    hash_value: int
    hash_report: int


Places: TypeAlias = Callable[[int], Collection[Place]]


def flows() -> Iterator[bytes]:
    """A frame of each of flows without end, of few addresses and many lengths.

    TCP and UDP, IPv4 and IPv6, with a tag, with an extension header, and some not IP.
    The source addresses end with 1, 2, 3 and so on.
    """
    number = 0
    while True:
        number += 1
        kind, host = number % 8, 1 + number // 8 % 4
        payload = bytes(20 + number * 37 % 600)
        if number % 64 == 0:
            source = bytes(5) + bytes([number % 256])
            yield DRIVER_MAC + source + _ETHERTYPE + payload.ljust(46, b"\0")
            continue
        l4 = (udp if kind % 2 else tcp)(1024 + number, 4000 + kind, payload)
        four = Ipv4(f"198.18.{kind}.{host}", "198.18.9.2")
        home = [destination_options(home_address(f"2001:2::{host}"))] if kind > 5 else []
        six = Ipv6("2001:2::1", f"2001:2::{kind}:{host}", extensions=home)
        tags = [Vlan(7)] if kind in {2, 3} else []
        own = f"02:00:00:00:01:{number % 256:02x}"
        yield bytes(build(four if kind < 4 else six, l4, vlans=tags, dst=_MAC, src=own))


def place(flow: bytes, config: RssConfig, *, ex_types_always: bool = False) -> Place:
    """Where the reference puts a flow."""
    hashed = classify(flow, config.hash_types, config.key, ex_types_always=ex_types_always)
    queue = steer(hashed, config.indirection_table, config.unclassified_queue)
    return Place(queue, hashed.value, hashed.report)


def drop_reasons(totals: PairStats) -> dict[str, int]:
    """Why frames were dropped, and how many."""
    every = {name: getattr(totals, name) for name in PAIR_STATS_FIELDS if "_drop_" in name}
    return {name: count for name, count in every.items() if count}


class Traffic:
    """``async with Traffic(device, driver, netns, chosen)``: a sender that waits to be allowed.

    ``expect`` says, of one more change, where each flow's frames may be.

    Attributes:
        epoch: changes acknowledged.
        of_epoch: frames received that were sent since the last acknowledgement.
        behind: frames sent before it that were not received yet; what is lost stays among them.
        per_queue: frames received on each receiveq.
        straddling: frames received that were sent before the last acknowledgement, all told.
    """

    def __init__(
        self,
        device: Device,
        driver: Driver,
        netns: NetNamespace,
        chosen: Sequence[bytes],
        *,
        name: str = "vnet0",
        seed: int = 0,
        cpu: int | None = None,
        pace_us: int = 0,
    ) -> None:
        self._device, self._driver, self._netns = device, driver, netns
        self._chosen = chosen
        self._command = [sys.executable, "-I", "-S", sender.__file__, name, str(seed), str(pace_us)]
        if cpu is not None:
            self._command = ["taskset", "-c", str(cpu), *self._command]
        self._expected: list[tuple[Places, Places]] = []
        self._boundary = 0  # serials from here on were begun after the last acknowledgement
        self._undo = ExitStack()
        self._seen: set[int] = set()
        self.per_queue: Counter[int] = Counter()
        self.epoch = 0
        self.of_epoch = self.behind = self.straddling = 0

    async def __aenter__(self) -> Self:
        """Keep the kernel quiet on the tap, and start the sender."""
        with ExitStack() as undo:
            memory = os.memfd_create("traffic")
            undo.callback(os.close, memory)
            os.ftruncate(memory, 8 * sender.WORDS)
            self._mapping = undo.enter_context(mmap.mmap(memory, 8 * sender.WORDS))
            self._words = undo.enter_context(memoryview(self._mapping).cast("Q"))
            self._wake = os.eventfd(0)
            undo.callback(os.close, self._wake)
            # No sanitizer: it is not ours to look into.
            self._process = self._netns.popen(
                [*self._command, str(memory), str(self._wake)],
                stdin=subprocess.PIPE,
                pass_fds=(memory, self._wake),
                env={"PATH": os.environ["PATH"]},
            )
            undo.callback(self._end)
            lines = (f"{flow.hex()}\n" for flow in self._chosen)
            assert self._process.stdin
            self._process.stdin.write("".join(lines).encode())
            self._process.stdin.close()
            self._undo = undo.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the sender."""
        self._undo.close()

    def _end(self) -> None:
        self._words[sender.ALLOWED] = sender.NO_MORE
        os.eventfd_write(self._wake, 1)
        try:
            self._process.wait(TIMEOUT)
        finally:
            self._process.kill()
            self._process.wait()

    # Sending.

    @property
    def sent(self) -> int:
        """Frames handed to the kernel."""
        return self._words[sender.SENT]

    def allow(self, window: int) -> None:
        """Let the sender be so many frames ahead of what was received, and of what was dropped."""
        self._allow(self.received + self.dropped() + window)

    def allow_more(self, count: int) -> None:
        """Let the sender send so many frames from now on."""
        self._allow(self._words[sender.BEGUN] + count)

    def _allow(self, limit: int) -> None:
        if limit > self._words[sender.ALLOWED]:
            self._words[sender.ALLOWED] = limit
            os.eventfd_write(self._wake, 1)

    # Changes.

    def expect(self, places: Places, meanwhile: Places | None = None) -> None:
        """A change is about to be asked for: ``places(n)`` is where frames of flow n may be then.

        ``meanwhile``: where this change or the next may have them while it is being made, if
        that is elsewhere too.
        """
        self._expected.append((places, meanwhile or places))

    def acknowledged(self) -> None:
        """That change was answered: what is sent from now on comes as it says."""
        self.epoch = len(self._expected) - 1
        self._words[sender.EPOCH] = self.epoch
        self._boundary = self._words[sender.BEGUN]
        self.behind = self._boundary - self.received
        self.of_epoch = 0

    # Receiving.

    @property
    def received(self) -> int:
        """Frames the driver got."""
        return len(self._seen)

    def dropped(self) -> int:
        """Frames that are not coming, by the device's count."""
        return self._device.statistics().rx_drops

    def judge(self, frame: Frame) -> None:
        """Count one frame, and fail unless it is where it must be, and as it was sent, once."""
        serial, epoch, flow = sender.STAMP.unpack(frame.data[-sender.STAMP.size :])
        got = Place(frame.queue, frame.hash_value, frame.hash_report)
        asked = self._expected[epoch:]
        chosen = [asked[0][0]] if len(asked) == 1 else [meanwhile for _, meanwhile in asked]
        allowed = {position for places in chosen for position in places(flow)}
        assert got in allowed, (
            f"frame {serial}, flow {flow}, sent at change {epoch} of {len(self._expected) - 1}:"
            f" {got} is none of {allowed}"
        )
        assert frame.data[: -sender.STAMP.size] == self._chosen[flow][: -sender.STAMP.size]
        assert serial not in self._seen, f"frame {serial} comes twice"
        self._seen.add(serial)
        self.per_queue[frame.queue] += 1
        self.of_epoch += epoch == self.epoch
        self.straddling += epoch != self.epoch
        self.behind -= serial < self._boundary

    async def take(self) -> None:
        """Judge what the driver has; wait for a frame if it has none."""
        try:
            frame: Frame | None = await self._driver.receive(timeout=TIMEOUT)
        except TimeoutError:
            raise self._missing() from None
        while frame is not None:
            self.judge(frame)
            frame = self._driver.receive_nowait()

    async def rest(self) -> None:
        """Take all that may be sent; what the device does not count as dropped must come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIMEOUT
        while self.received + self.dropped() < self._words[sender.ALLOWED]:
            if (frame := self._driver.receive_nowait()) is not None:
                self.judge(frame)
                continue
            if loop.time() > deadline:
                raise self._missing()
            for pair in range(self._device.engine.workers):
                self._device.engine.queue_state(2 * pair)
            await asyncio.sleep(0)

    def _missing(self) -> AssertionError:
        return AssertionError(
            f"{self.sent} frames sent, {self.received} received,"
            f" dropped {drop_reasons(self._device.statistics())} and by the tap"
            f" {tap_dropped(self._device)}; change {self.epoch},"
            f" {self.behind} from before it missing"
        )
