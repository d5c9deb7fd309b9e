# SPDX-License-Identifier: MIT
"""The main job, proved on real input and without a guest.

The kernel's own network stack sends flows into a multiqueue tap; the device
hashes, steers and writes them onto its rings; the shipped driver reads them
there; and every single frame is judged again by the independent reference:
receive queue, hash value, hash report.

Where no tap can be made the frames are made here and go in through the
socket-pair port instead: the same path from the host port on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyvnet.daemon.hash_rows import describe
from pyvnet.daemon.spread import Spread
from pyvnet.errors import HostError
from pyvnet.netdev import Pair, Tap, rtnl
from pyvnet.netdev.flows import start_flows
from pyvnet.netdev.netns import enter_private_netns
from pyvnet.reference import classify, steer
from pyvnet.runtime import Device
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    MAX_TABLE_LENGTH,
    REPORT_NAMES,
    VERIFICATION_KEY,
    HashReport,
    RssConfig,
)
from pyvnet.testing.frames import Ipv4, Ipv6, build, tcp, udp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.driver.driver import Driver
    from pyvnet.driver.receive import Frame

TAP_NAME: Final = "pyvnet-demo"
FRAMES_PER_FLOW: Final = 8
FLOW_REPORTS: Final = ("TCPv4", "UDPv4", "TCPv6", "UDPv6")
_FEATURES: Final = (
    Feature.VERSION_1
    | Feature.MAC
    | Feature.CTRL_VQ
    | Feature.MQ
    | Feature.RSS
    | Feature.HASH_REPORT
    | Feature.MRG_RXBUF
    | Feature.INDIRECT_DESC
    | Feature.EVENT_IDX
)
_ARRIVAL: Final = 5.0  # seconds after which a frame the host sent counts as lost
_MISMATCHES_KEPT: Final = 8


class Source(Protocol):
    """Where the frames come from."""

    def batches(self) -> Iterator[int]:
        """Send; yields how many frames were sent since last time."""

    def silence(self) -> None:
        """Send nothing more, and let nobody else send."""

    def handed_over(self) -> int:
        """Frames the host counts as read by the device."""

    def close(self) -> None:
        """Release what sending needed."""


class KernelSource:
    """The kernel's stack, over a tap."""

    def __init__(self, tap: Tap, flows: int, mac: bytes) -> None:
        self._tap = tap
        self._flows = start_flows(tap.name, flows, FRAMES_PER_FLOW, peer_mac=mac.hex(":"))

    def batches(self) -> Iterator[int]:
        """As `Flows.batches`."""
        return self._flows.batches()

    def silence(self) -> None:
        """Close the sockets and take the interface down."""
        self._flows.close()
        rtnl.set_down(self._tap.name)

    def handed_over(self) -> int:
        """The interface's tx_packets, which drivers/net/tun.c counts as they are read."""
        return self._tap.statistics().tx_packets

    def close(self) -> None:
        """Close the sockets."""
        self._flows.close()


class BuiltSource:
    """Frames of our own making, over socket pairs: where no tap can be made."""

    def __init__(self, pair: Pair, flows: int) -> None:
        self._pair = pair
        self._flows = flows
        self._sent = 0

    def batches(self) -> Iterator[int]:
        """One frame of each flow at a time."""
        frames = [self._frame(index) for index in range(self._flows)]
        for _ in range(FRAMES_PER_FLOW):
            for index, frame in enumerate(frames):
                self._pair.wire(index % self._pair.queues).send(frame)
                self._sent += 1
                if (index + 1) % 64 == 0 or index + 1 == len(frames):
                    yield index % 64 + 1

    def _frame(self, index: int) -> bytes:
        ip = Ipv4(src=f"198.18.0.{1 + index % 200}") if index & 2 else Ipv6()
        l4 = (tcp if index & 1 else udp)(10_000 + index, 1024 + index * 7919 % 60_000)
        return bytes(build(ip, l4))

    def silence(self) -> None:
        """Nothing: frames come from `batches` alone."""

    def handed_over(self) -> int:
        """Frames sent."""
        return self._sent

    def close(self) -> None:
        """Nothing: the pair belongs to the device."""


@dataclass(slots=True)
class Result:
    """What the demo saw; ``as_json`` is the contract of ``pyvnet demo --json``."""

    host_port: str
    steering: str
    spread: Spread
    reason: str | None = None
    steering_reason: str | None = None  # why it is software and nothing better
    flows: int = 0
    frames: int = 0
    verified: int = 0
    mismatches: int = 0
    queues: list[int] = field(default_factory=list)
    reports: Counter[str] = field(default_factory=Counter)
    tap_tx_packets: int = 0
    drops: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Why the proof does not hold; empty if it does."""
        found = []
        if self.mismatches:
            found.append(f"{self.mismatches} of {self.frames} frames differ from the reference")
        if self.frames != self.tap_tx_packets - self.drops:
            found.append(
                f"{self.tap_tx_packets} frames went in and {self.drops} were dropped, "
                f"but {self.frames} arrived"
            )
        missing = [name for name in FLOW_REPORTS if not self.reports[name]]
        if missing and self.flows >= len(FLOW_REPORTS):
            found.append(f"no frame was reported as {', '.join(missing)}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``."""
        return {
            "host_port": self.host_port,
            "steering": self.steering,
            "frames": self.frames,
            "verified": self.verified,
            "mismatches": self.mismatches,
            "queues": self.queues,
            "reports": {name: self.reports[name] for name in _report_names(self.reports)},
            "tap_tx_packets": self.tap_tx_packets,
            "drops": self.drops,
            "flows": self.flows,
            **({"reason": self.reason} if self.reason else {}),
            **({"steering_reason": self.steering_reason} if self.steering_reason else {}),
            **({"examples": self.examples} if self.examples else {}),
        }


def _report_names(reports: Counter[str]) -> list[str]:
    return [*FLOW_REPORTS, *(name for name in sorted(reports) if name not in FLOW_REPORTS)]


# Before MQ_RSS_CONFIG takes effect: receiveq1, no hash, no report (U-01).
_BEFORE_RSS: Final = (0, 0, int(HashReport.NONE))


class Judge:
    """Judges every frame by the reference, under the configuration the driver set.

    The kernel speaks as soon as the tap is up, so frames may lie in the first
    ring that were steered before the driver's command took effect.  They are
    judged by what holds until then, and only as long as none that was steered
    by the command has come: a ring keeps the order of its frames, and after the
    command's completion no frame is placed by the old rule (U-41).
    """

    def __init__(self, config: RssConfig, key: bytes, result: Result) -> None:
        self._config = config
        self._key = key
        self._result = result
        self._commanded = False  # a frame steered by the command was seen

    def take_early(self, frame: Frame) -> None:
        """Count a frame that was in the rings when the command completed."""
        seen = (frame.queue, frame.hash_value, frame.hash_report)
        if self._commanded or seen != _BEFORE_RSS:
            self.take(frame)
            return
        self._count(frame)
        self._result.verified += 1

    def _count(self, frame: Frame) -> None:
        self._result.frames += 1
        self._result.queues[frame.queue] += 1
        self._result.reports[REPORT_NAMES[frame.hash_report] or "none"] += 1
        name = partial(describe, frame.data, frame.hash_report)
        self._result.spread.count(frame.hash_report, frame.hash_value, frame.queue, name)

    def take(self, frame: Frame) -> None:
        """Count a frame, and whether device and reference agree on it."""
        result = self._result
        self._commanded |= frame.queue == 0
        expected = classify(frame.data, self._config.hash_types, self._key)
        queue = steer(expected, self._config.indirection_table, self._config.unclassified_queue)
        self._count(frame)
        seen = (frame.queue, frame.hash_value, frame.hash_report)
        wanted = (queue, expected.value, expected.report)
        if seen == wanted:
            result.verified += 1
            return
        result.mismatches += 1
        if len(result.examples) < _MISMATCHES_KEPT:
            result.examples.append(f"device {_words(seen)}, reference {_words(wanted)}")


def _words(verdict: tuple[int, int, int]) -> str:
    queue, value, report = verdict
    return f"queue {queue} hash 0x{value:08x} {HashReport(report).name}"


def broken_key() -> bytes:
    """The key with one bit flipped: bit 40 weighs on input bits 9 … 40, which every address has."""
    key = bytearray(VERIFICATION_KEY)
    key[5] ^= 0x80
    return bytes(key)


def open_port(queues: int) -> tuple[Tap | Pair, str | None]:
    """A tap in a network namespace of our own, or a socket pair and the reason why."""
    reason = enter_private_netns()
    if reason is None:
        tap = Tap(TAP_NAME, queues=queues)
        try:
            with tap:
                pass  # can it be made?
        except HostError as error:
            reason = str(error)
        else:
            return tap, None
    return Pair(queues=queues), reason


async def run(
    queues: int, flows: int, *, steering: str = "auto", break_key: bool = False
) -> Result:
    """Run the proof; raises HostError if not even the fallback can be set up.

    ``steering`` is whom to ask for; the result says who it was.

    Moves the calling thread to a network namespace of its own: run it in a
    process (or thread) made for it.
    """
    netdev, reason = open_port(queues)
    async with Device(netdev=netdev, steering=steering) as device, device.driver() as driver:
        await driver.negotiate(_FEATURES)
        config = RssConfig(
            hash_types=ALL_HASH_TYPES,
            indirection_table=tuple(i % queues for i in range(MAX_TABLE_LENGTH)),
            key=VERIFICATION_KEY,
            max_tx_vq=queues,
        )
        await driver.ctrl.rss_config(config)
        result = Result(
            netdev.kind,
            device.steering_owner,
            Spread(range(queues), MAX_TABLE_LENGTH, by_flow=True),
            reason,
            _why_software(device, steering),
            flows,
            queues=[0] * queues,
        )
        judge = Judge(config, broken_key() if break_key else VERIFICATION_KEY, result)
        while (early := driver.receive_nowait()) is not None:
            judge.take_early(early)
        source: Source = (
            KernelSource(netdev, flows, device.device.settings.mac)
            if isinstance(netdev, Tap)
            else BuiltSource(netdev, flows)
        )
        try:
            await _collect(device, driver, source, judge, result)
        finally:
            source.close()
    return result


def _why_software(device: Device, asked: str) -> str | None:
    """Why not who was asked for, or what is best; None where that is so, or was not wanted."""
    shown = device.status()["steering"]
    if shown["owner"] != "software" or asked == "software":
        return None
    wanted = "ebpf" if asked == "auto" else asked
    return f"{wanted}: {shown['owners'][wanted]['reason']}"


async def _collect(
    device: Device, driver: Driver, source: Source, judge: Judge, result: Result
) -> None:
    expected = 0
    for sent in source.batches():
        expected += sent
        await _receive_until(driver, judge, result, expected)
    source.silence()
    # The kernel has a word of its own to say (neighbour discovery, MLD): more came than was sent.
    counted = device.statistics()
    await _receive_until(driver, judge, result, counted.rx_port_frames - counted.rx_drops)
    result.drops = device.statistics().rx_drops
    result.tap_tx_packets = source.handed_over()


async def _receive_until(driver: Driver, judge: Judge, result: Result, frames: int) -> None:
    """Take frames until so many were taken; gives up when none comes for a while."""
    while result.frames < frames:
        frame = driver.receive_nowait()
        if frame is None:
            try:
                frame = await driver.receive(timeout=_ARRIVAL)
            except TimeoutError:
                return
        judge.take(frame)
