# SPDX-License-Identifier: MIT
"""RSS: frame, hash, table, queue; and the configurations a device does not take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyvnet.conformance.case import case
from pyvnet.conformance.cases import _frames
from pyvnet.conformance.cases._frames import flows
from pyvnet.conformance.cases._steering import (
    OTHER_KEY,
    PAIRS,
    all_arrive_on,
    as_seen,
    deliver,
    expect,
    judge_hash,
    judge_queue,
    on_queues,
    plain_types,
    refuses,
    rss,
    several,
    spread,
    steered,
    types_of,
    unchanged,
)
from pyvnet.reference import steer
from pyvnet.spec.ctrl import Ack, CtrlClass, MqCommand
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import HashType, RssConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver
    from pyvnet.spec.config import NetConfig

_PLAIN = HashType.TCPV4 | HashType.UDPV4 | HashType.TCPV6 | HashType.UDPV6


def _table_sizes(drv: Driver) -> list[int]:
    most = drv.config.rss_max_indirection_table_length
    return [1 << bit for bit in range(16) if 1 << bit <= most]


async def _judge_flows(t: Trial, drv: Driver, config: RssConfig, count: int, what: str) -> None:
    arrived = await deliver(t, drv, flows(count))
    for number, frame in enumerate(flows(count)):
        judge_queue(t, arrived[frame], config, f"flow {number} {what}")


@case("NET-RSS-02", needs=Feature.RSS | Feature.HASH_REPORT, wire=True, control=True)
async def queue_is_the_table_entry_of_the_hash(t: Trial) -> None:
    """For tables of every size: queue = table[reported hash AND mask]."""
    drv = await several(t, pairs=PAIRS)
    for size in _table_sizes(drv):
        config = rss(drv, indirection_table=spread(size, drv.pairs))
        await drv.ctrl.rss_config(config)
        await _judge_flows(t, drv, config, 32, f"with a table of {size}")


@case("NET-RSS-02", "NET-HASH-09", needs=Feature.RSS, wire=True, control=True)
async def queue_is_that_of_the_toeplitz_hash(t: Trial) -> None:
    """Without reports: 64 flows come where Toeplitz, key and table put them, under two keys."""
    drv = await several(t, Feature.RSS, pairs=PAIRS)
    for key in (rss(drv).key, OTHER_KEY[: drv.config.rss_max_key_size]):
        config = rss(drv, key=key)
        await drv.ctrl.rss_config(config)
        await _judge_flows(t, drv, config, 64, f"with key {key[:4].hex()}…")


@case("NET-RSS-02", needs=Feature.RSS, wire=True, control=True)
async def a_new_table_replaces_the_old_one(t: Trial) -> None:
    """Shorter, longer, with other entries: nothing of an earlier table is used."""
    drv = await several(t, Feature.RSS)
    pairs = drv.pairs
    sizes = _table_sizes(drv)
    for size, shift in ((sizes[-1], 0), (2, 1), (sizes[-1], 1), (8, 0), (1, 1)):
        table = tuple((entry + shift) % pairs for entry in spread(size, pairs))
        config = rss(drv, indirection_table=table)
        await drv.ctrl.rss_config(config)
        await _judge_flows(t, drv, config, 24, f"after the change to a table of {size}")


@case("NET-RSS-01", needs=Feature.RSS, wire=True, control=True)
async def frames_without_hash_are_unclassified(t: Trial) -> None:
    """What is not IP goes to the unclassified queue, whichever that is."""
    drv = await several(t, Feature.RSS)
    pairs = drv.pairs
    for queue in range(pairs):
        table = ((queue + 1) % pairs,) * 4
        await drv.ctrl.rss_config(rss(drv, indirection_table=table, unclassified_queue=queue))
        for name, frame in _frames.not_ip().items():
            await all_arrive_on(t, drv, queue, [frame], name)


@case("NET-RSS-01", needs=Feature.RSS, wire=True, control=True)
async def types_that_are_off_are_unclassified(t: Trial) -> None:
    """IP of a kind whose types are off goes to the unclassified queue, the rest by the table."""
    drv = await several(t, Feature.RSS)
    for types in (HashType.TCPV4, HashType.UDPV4, HashType.TCPV6, HashType.UDPV6, HashType.IPV6):
        if not types & types_of(drv):
            continue
        config = rss(drv, hash_types=int(types), indirection_table=(1,), unclassified_queue=0)
        await drv.ctrl.rss_config(config)
        await _judge_flows(t, drv, config, 12, f"with {types.name} alone")


@case("U-01", needs=Feature.RSS, wire=True, control=True)
async def receives_on_one_queue_before_rss_is_configured(t: Trial) -> None:
    """RSS accepted, no RSS_CONFIG yet: all flows come on receiveq 0."""
    drv = await several(t, Feature.RSS)
    await all_arrive_on(t, drv, 0, flows(24), "frames before RSS_CONFIG")


@case("NET-MQ-02", "U-59", needs=Feature.RSS | Feature.MQ, wire=True, control=True)
async def reset_ends_rss(t: Trial) -> None:
    """After a reset all flows come on receiveq 0 again, until RSS_CONFIG."""
    drv = await several(t, Feature.RSS | Feature.MQ)
    pairs = drv.pairs
    await drv.ctrl.rss_config(rss(drv, indirection_table=(pairs - 1,), unclassified_queue=1))
    await all_arrive_on(t, drv, pairs - 1, flows(8), "frames before the reset")
    await drv.negotiate(drv.features, pairs=pairs, rx_buffers=64)
    await t.started(drv)
    await all_arrive_on(t, drv, 0, flows(24), "frames after the reset")


@case("NET-RSS-03", "U-11", needs=Feature.RSS, wire=True, control=True, level="DECISION")
async def frames_for_a_stopped_queue_are_dropped(t: Trial) -> None:
    """Frames whose queue is stopped come nowhere; those of other queues come as before."""
    drv = await several(t, Feature.RSS)
    config = rss(drv)
    await drv.ctrl.rss_config(config)
    await drv.transport.stop_queue(drv.receiveqs[1].index)
    hashed = {frame: expect(frame, config.hash_types, config.key) for frame in flows(64)}
    table, unclassified = config.indirection_table, config.unclassified_queue
    lost = [f for f, h in hashed.items() if steer(h, table, unclassified) == 1]
    queues = {f: steer(h, table, unclassified) for f, h in hashed.items() if f not in lost}
    for frame in lost[:16]:
        await t.inject(frame)
    missing = list(queues)[:24]
    for frame in missing:
        await t.inject(frame)
    while missing:
        seen = await t.receive(drv)
        t.check(seen.data not in lost, f"a frame of receiveq 1 came on receiveq {seen.queue}")
        if seen.data in missing:
            missing.remove(seen.data)
            t.equal(seen.queue, queues[seen.data], "receiveq of a frame of another queue")


@case("U-13", needs=Feature.RSS | Feature.HASH_REPORT, wire=True, control=True)
async def short_keys_are_filled_with_zeros(t: Trial) -> None:
    """A key shorter than the types need hashes as if zeros followed, not the rest of the last."""
    drv = await steered(t)
    for length in (39, 36, 16, 12, 4, 1):
        await drv.ctrl.rss_config(rss(drv, key=OTHER_KEY))
        key = rss(drv).key[:length]
        await drv.ctrl.rss_config(rss(drv, key=key))
        arrived = await deliver(t, drv, flows(8))
        for number, frame in enumerate(flows(8)):
            where = f" with a key of {length} bytes"
            judge_hash(t, arrived[frame], plain_types(drv), key, f"flow {number}", under=where)


@case("U-12", needs=Feature.RSS, wire=True, control=True)
async def max_tx_vq_does_not_limit_receiving(t: Trial) -> None:
    """Receive queues are those of the table, whatever max_tx_vq says."""
    drv = await several(t, Feature.RSS)
    pairs = drv.pairs
    for most in range(1, pairs + 1):
        await drv.ctrl.rss_config(rss(drv, indirection_table=(pairs - 1,), max_tx_vq=most))
        await all_arrive_on(t, drv, pairs - 1, flows(8), f"frames with max_tx_vq {most}")


@case("U-14", needs=Feature.RSS, wire=True, control=True)
async def no_types_make_everything_unclassified(t: Trial) -> None:
    """With hash_types 0, with and without a key, every frame goes to the unclassified queue."""
    drv = await several(t, Feature.RSS)
    pairs = drv.pairs
    for key in (rss(drv).key, b""):
        config = rss(drv, hash_types=0, key=key, indirection_table=(0,))
        await drv.ctrl.rss_config(config)
        await all_arrive_on(t, drv, pairs - 1, flows(12), f"frames with a key of {len(key)} bytes")


@case("NET-HASH-01", "U-57", needs=Feature.RSS, control=True)
async def supported_types_and_tables_are_taken(t: Trial) -> None:
    """RSS_CONFIG with each hash type, without each, with all and none is answered OK, twice."""
    drv = await steered(t, Feature.RSS)
    supported = int(types_of(drv))
    single = [1 << bit for bit in range(9) if supported >> bit & 1]
    for types in (*single, *(supported & ~bit for bit in single), supported, 0):
        config = rss(drv, hash_types=types, indirection_table=(0,), unclassified_queue=0)
        t.equal(await drv.ctrl.rss_config(config, check=False), Ack.OK, f"answer to {types:#x}")
    for size in _table_sizes(drv):
        config = rss(drv, indirection_table=(0,) * size, unclassified_queue=0)
        for _ in range(2):
            ack = await drv.ctrl.rss_config(config, check=False)
            t.equal(ack, Ack.OK, f"answer to a table of {size}")


# --- refused ------------------------------------------------------------------------


async def _refused(t: Trial, bad: Callable[[NetConfig], dict[str, dict[str, Any]]]) -> None:
    """Each of these configurations is answered ERR and disturbs nothing of the one in force.

    ``bad`` gives, for a device, names of changes to a good configuration, which
    differs from the one in force in everything.
    """
    drv = await several(t, Feature.RSS | (Feature.HASH_REPORT & t.offered))
    pairs = drv.pairs
    supported = types_of(drv)
    types = int(supported & _PLAIN) or int(supported)
    good = rss(drv, hash_types=types, unclassified_queue=0)
    await drv.ctrl.rss_config(good)
    table = tuple((entry + 1) % pairs for entry in good.indirection_table[:2])
    other = rss(drv, indirection_table=table, key=OTHER_KEY, unclassified_queue=1)
    frames = [*flows(12), *_frames.not_ip().values()]
    before = await as_seen(t, drv, frames)
    for what, changes in bad(drv.config).items():
        await refuses(t, drv, replace(other, **changes), what)
        await unchanged(t, drv, before, f"after {what} was refused")


@case("NET-RSS-05", "U-09", "U-07", "OUR-CVQ-06", needs=Feature.RSS, wire=True, control=True)
async def tables_of_other_lengths_are_refused(t: Trial) -> None:
    """Lengths that are no power of two, or more than the device has: ERR, nothing changes."""

    def bad(config: NetConfig) -> dict[str, dict[str, Any]]:
        most = config.rss_max_indirection_table_length
        lengths = (3, 5, 6, 7, 12, 100, 127, most + 1, 1 << most.bit_length())
        return {f"a table of {length}": {"indirection_table": (1,) * length} for length in lengths}

    await _refused(t, bad)


@case("NET-RSS-04", "U-10", "U-07", "OUR-CVQ-06", needs=Feature.RSS, wire=True, control=True)
async def queues_beyond_the_device_are_refused(t: Trial) -> None:
    """Table entries and unclassified queues that do not exist: ERR, nothing changes."""

    def bad(config: NetConfig) -> dict[str, dict[str, Any]]:
        most = config.max_virtqueue_pairs
        changes: dict[str, dict[str, Any]] = {}
        for queue in (most, most + 1, 0x8000, 0x8001, 0xFFFF):
            changes[f"an unclassified queue of {queue:#x}"] = {"unclassified_queue": queue}
            for table in ((queue, 0), (0, 0, 0, queue)):
                changes[f"a table of {table}"] = {"indirection_table": table}
        return changes

    await _refused(t, bad)


@case("NET-RSS-06", "U-08", "U-07", "OUR-CVQ-06", needs=Feature.RSS, wire=True, control=True)
async def unknown_hash_types_are_refused(t: Trial) -> None:
    """Types the device does not list: ERR, nothing changes."""

    def bad(config: NetConfig) -> dict[str, dict[str, Any]]:
        known = config.supported_hash_types
        unknown = [1 << bit for bit in range(32) if not known >> bit & 1]
        chosen = [*unknown[:3], *unknown[-2:], sum(unknown)]
        return {f"hash types {known | bit:#x}": {"hash_types": known | bit} for bit in chosen}

    await _refused(t, bad)


@case("U-13", "U-07", "OUR-CVQ-06", needs=Feature.RSS, wire=True, control=True)
async def keys_of_other_lengths_are_refused(t: Trial) -> None:
    """Keys longer than the device has, and none for types: ERR, nothing changes."""

    def bad(config: NetConfig) -> dict[str, dict[str, Any]]:
        most = config.rss_max_key_size
        lengths = [0, *(length for length in {most + 1, 64, 255} if most < length < 256)]
        return {f"a key of {length} bytes": {"key": bytes(length)} for length in lengths}

    await _refused(t, bad)


@case("U-12", "U-07", "OUR-CVQ-06", needs=Feature.RSS, wire=True, control=True)
async def impossible_transmit_queues_are_refused(t: Trial) -> None:
    """max_tx_vq of 0 or beyond the device: ERR, nothing changes."""

    def bad(config: NetConfig) -> dict[str, dict[str, Any]]:
        numbers = (0, config.max_virtqueue_pairs + 1, 0x8001, 0xFFFF)
        return {f"max_tx_vq {number:#x}": {"max_tx_vq": number} for number in numbers}

    await _refused(t, bad)


@case("U-04", "U-07", "OUR-CVQ-06", needs=Feature.RSS, wire=True, control=True)
async def a_cut_configuration_changes_nothing(t: Trial) -> None:
    """RSS_CONFIG cut inside any of its fields: ERR, and frames come as before."""
    drv = await several(t, Feature.RSS)
    pairs = drv.pairs
    good = rss(drv, unclassified_queue=0)
    await drv.ctrl.rss_config(good)
    before = await as_seen(t, drv, flows(8))
    payload = rss(drv, indirection_table=(pairs - 1, 0), key=OTHER_KEY).pack()
    for length in (0, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 54):
        ack = await drv.ctrl.raw(CtrlClass.MQ, MqCommand.RSS_CONFIG, payload[:length], check=False)
        t.equal(ack, Ack.ERR, f"answer to RSS_CONFIG of {length} bytes")
        await unchanged(t, drv, before, f"after RSS_CONFIG of {length} bytes")


@case("NET-RSS-07", "OUR-CVQ-04", needs=Feature.RSS | Feature.MQ, wire=True, control=True)
async def rss_is_not_configured_without_rss(t: Trial) -> None:
    """With MQ alone RSS_CONFIG is refused and steering stays automatic."""
    drv = await several(t, Feature.MQ)
    config = RssConfig(1, (1,), OTHER_KEY, unclassified_queue=1)
    await refuses(t, drv, config, "RSS_CONFIG without RSS")
    t.equal(set(await on_queues(t, drv, flows(8))), {0}, "receiveqs after it was refused")
