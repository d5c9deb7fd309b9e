# SPDX-License-Identifier: MIT
"""What cases about receive queues and hashes have in common: set up, let frames in, judge.

A case asks for as much as it needs and adapts to what the device has: hash types,
key and table sizes come from its configuration space.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.reference import Hash, classify, steer
from pyvnet.spec.ctrl import Ack, CtrlClass, MqCommand
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    VERIFICATION_KEY,
    HashConfig,
    HashReport,
    HashType,
    RssConfig,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver
    from pyvnet.driver import Frame as Received

OTHER_KEY: Final = bytes((i * 151 + 43) & 0xFF for i in range(40))
EX_TYPES: Final = HashType.IP_EX | HashType.TCP_EX | HashType.UDP_EX
PAIRS: Final = 4

# Frames let in at once: less than any queue holds.
_BURST: Final = 32
_STEERED: Final = Feature.RSS | Feature.HASH_REPORT


async def steered(
    t: Trial, features: Feature = _STEERED, *, pairs: int = 2, **options: Any
) -> Driver:
    """A driver with RSS and reports (or what is asked for), and at most so many pairs.

    Two tell queues from one another; each more costs all who run the suite.

    What the case needs and the device does not offer ends it as not applicable.
    """
    options.setdefault("rx_buffers", 2 * _BURST)
    most = t.pairs if features & (Feature.MQ | Feature.RSS) else 1
    return await t.negotiate(features, pairs=min(most, pairs), **options)


def types_of(drv: Driver) -> HashType:
    """Hash types the device has."""
    return HashType(drv.config.supported_hash_types) & ALL_HASH_TYPES


def plain_types(drv: Driver) -> HashType:
    """Those without the EX types, of which not everybody thinks alike (U-19, U-58)."""
    return types_of(drv) & ~EX_TYPES


async def several(t: Trial, features: Feature = _STEERED, *, pairs: int = 2) -> Driver:
    """As `steered`, for what cannot be seen with one pair: that is not applicable then."""
    if t.pairs < 2:
        t.not_applicable("the device has one queue pair, this takes two")
    return await steered(t, features, pairs=pairs)


def spread(length: int, pairs: int) -> tuple[int, ...]:
    """A table of that length in which neighbours and halves differ."""
    return tuple((i + i // pairs + i // 16 + i // 64) % pairs for i in range(length))


def rss(drv: Driver, **changes: Any) -> RssConfig:
    """The device's plain hash types, a table over every pair; ``changes`` are fields."""
    length = min(128, drv.config.rss_max_indirection_table_length)
    good = RssConfig(
        hash_types=int(plain_types(drv)),
        indirection_table=spread(1 << (length.bit_length() - 1), drv.pairs),
        key=VERIFICATION_KEY[: drv.config.rss_max_key_size],
        unclassified_queue=drv.pairs - 1,
        max_tx_vq=drv.pairs,
    )
    return replace(good, **changes)


async def configure(drv: Driver, types: int, key: bytes) -> None:
    """Switch reports on by whichever command the negotiated features call for."""
    if drv.features & Feature.RSS:
        await drv.ctrl.rss_config(rss(drv, hash_types=types, key=key))
    else:
        await drv.ctrl.hash_config(HashConfig(types, key))


async def refuses(t: Trial, drv: Driver, config: RssConfig | HashConfig, what: str) -> None:
    """Let the device refuse a configuration."""
    command = MqCommand.RSS_CONFIG if isinstance(config, RssConfig) else MqCommand.HASH_CONFIG
    ack = await drv.ctrl.raw(CtrlClass.MQ, command, config.pack(), check=False)
    t.equal(ack, Ack.ERR, f"answer to {what}")


async def deliver(
    t: Trial, drv: Driver, frames: Iterable[bytes], *, ports: int = 1
) -> dict[bytes, Received]:
    """Let frames in and take them out again, by their bytes; others are overlooked.

    Args:
        t: of the case.
        drv: who receives them.
        frames: all different.
        ports: host port queues they come in by in turn, if the wire has so many.
    """
    arrived: dict[bytes, Received] = {}
    frames, ports = list(frames), min(ports, t.wire.queues)
    for start in range(0, len(frames), _BURST):
        burst = frames[start : start + _BURST]
        missing = set(burst)
        for number, frame in enumerate(burst):
            await t.inject(frame, queue=number % ports)
        while missing:
            seen = await t.receive(drv)
            if seen.data in missing:
                missing.discard(seen.data)
                arrived[seen.data] = seen
    return arrived


async def sent(t: Trial, frames: Iterable[bytes]) -> None:
    """Wait until each of these frames came out on the wire."""
    missing = list(frames)
    while missing:
        seen = await t.sent()
        if seen.data in missing:
            missing.remove(seen.data)


async def on_queues(t: Trial, drv: Driver, frames: Iterable[bytes], *, ports: int = 1) -> list[int]:
    """The queues some frames arrive on, in the order of the frames."""
    frames = list(frames)
    arrived = await deliver(t, drv, frames, ports=ports)
    return [arrived[frame].queue for frame in frames]


async def all_arrive_on(
    t: Trial, drv: Driver, queue: int, frames: Iterable[bytes], what: str
) -> None:
    """Every one of these frames comes by one queue."""
    t.equal(set(await on_queues(t, drv, frames)), {queue}, f"receiveqs of {what}")


class Seen(NamedTuple):
    """How a frame came, right or wrong."""

    receiveq: int
    hash_report: int
    hash_value: int


async def as_seen(t: Trial, drv: Driver, frames: Iterable[bytes]) -> dict[bytes, Seen]:
    """How some frames come now, to be compared with how they come later."""
    arrived = await deliver(t, drv, frames)
    return {
        frame: Seen(seen.queue, seen.hash_report, seen.hash_value)
        for frame, seen in arrived.items()
    }


async def unchanged(t: Trial, drv: Driver, before: dict[bytes, Seen], when: str) -> None:
    """The same frames come as they did."""
    after = await as_seen(t, drv, before)
    for number, (frame, seen) in enumerate(before.items()):
        t.equal(after[frame], seen, f"how frame {number} comes {when}")


@lru_cache(1 << 14)
def expect(frame: bytes, types: int, key: bytes) -> Hash:
    """What the reference says, who may be asked the same again and again."""
    return classify(frame, types, key)


def judge_hash(
    t: Trial, seen: Received, types: int, key: bytes, name: str, *, under: str = ""
) -> None:
    """Hash and report of a frame are those of the reference."""
    expected = expect(seen.data, int(types), key)
    where = f"{name}{under}"
    report = HashReport(seen.hash_report)
    t.equal(report.name, expected.report.name, f"hash_report of {where}")
    t.equal(f"{seen.hash_value:#010x}", f"{expected.value:#010x}", f"hash_value of {where}")


def judge_queue(t: Trial, seen: Received, config: RssConfig, name: str) -> None:
    """The queue of a frame is the one its own report calls for, or without one the reference's."""
    if seen.hash_report:
        mask = len(config.indirection_table) - 1
        expected = config.indirection_table[seen.hash_value & mask]
    else:
        hashed = expect(seen.data, config.hash_types, config.key)
        expected = steer(hashed, config.indirection_table, config.unclassified_queue)
    t.equal(seen.queue, expected, f"receiveq of {name}")


def names_of_types(types: int) -> str:
    """For evidence."""
    return "+".join(str(bit.name) for bit in HashType if bit and types & bit) or "no types"


async def judge_group(
    t: Trial, drv: Driver, group: Mapping[str, bytes], sets: Iterable[int], key: bytes
) -> None:
    """Hash and report of a group of frames under several sets of hash types.

    Sets the device does not have in full are left out; if none is left there is nothing to judge.
    """
    possible = int(types_of(drv))
    sets = list(dict.fromkeys(types for types in sets if types and not types & ~possible))
    if not sets:
        t.not_applicable(f"the device hashes by {names_of_types(possible)} only")
    for types in sets:
        await configure(drv, types, key)
        arrived = await deliver(t, drv, group.values())
        for name, frame in group.items():
            judge_hash(t, arrived[frame], types, key, name, under=f" under {names_of_types(types)}")
