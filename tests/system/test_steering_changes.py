# SPDX-License-Identifier: MIT
"""Steering is changed while frames flow into a real tap: nothing is mixed, nothing goes astray."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from pyvnet import Feature, HashConfig, HashType, RssConfig
from pyvnet.reference import classify, steer
from pyvnet.spec.rss import VERIFICATION_KEY
from tests.system.programs import WISH, by_a_byte
from tests.system.support import tap_in
from tests.system.traffic import (
    BY,
    FLOWS,
    QUEUES,
    RSS,
    Place,
    Traffic,
    drop_reasons,
    flows,
    place,
    steered_by,
    tap_dropped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.netdev.netns import NetNamespace
    from tests.system.traffic import Places

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("about threads and the kernel; thousands of frames"),
]

NOBODY = 3  # the queue no flow has in either configuration
CHANGES = 100
MANY = {"software": 200, "ebpf": 1000}
AFTER = 4  # frames of a change that are waited for
AHEAD = 60  # of the driver: fewer than there are slots between workers
PACE_US = 220  # from frame to frame: they go on while queues are taken away
WINDOW = 256  # frames ahead of the driver
KEYS = (VERIFICATION_KEY, bytes(range(1, 41)))
# Of what is hashed in one, the other hashes less: every report differs.
TYPES = (HashType(0x1FF), HashType.IPV4 | HashType.IPV6 | HashType.IP_EX)
LENGTHS = (128, 64)


class Two:
    """Two configurations, and flows that tell any mixture of them from both.

    Each flow is on another queue in the one than in the other.  The hash by one
    key, one set of types, looked up in the other's table, is on queue ``NOBODY``.
    """

    def __init__(self) -> None:
        self.flows: list[bytes] = []
        tables: tuple[dict[int, int], dict[int, int]] = ({}, {})
        barred: tuple[set[int], set[int]] = (set(), set())
        candidates = flows()
        while len(self.flows) < FLOWS:
            flow = next(candidates)
            hashes = [[classify(flow, types, key).value for types in TYPES] for key in KEYS]
            own = [hashes[i][i] % LENGTHS[i] for i in range(2)]
            mixed = [
                {hashes[key][types] % LENGTHS[i] for key in range(2) for types in range(2)}
                for i in range(2)
            ]
            if hashes[0][0] and not self._admit(tables, barred, own, mixed):
                continue
            self.flows.append(flow)
        self.configs = [
            RssConfig(
                TYPES[i],
                tuple(tables[i].get(position, NOBODY) for position in range(LENGTHS[i])),
                KEYS[i],
                unclassified_queue=i,
            )
            for i in range(2)
        ]
        self.places = [[place(flow, config) for flow in self.flows] for config in self.configs]

    @staticmethod
    def _admit(
        tables: tuple[dict[int, int], dict[int, int]],
        barred: tuple[set[int], set[int]],
        own: list[int],
        mixed: list[set[int]],
    ) -> bool:
        """Give a flow its places in both tables, unless they or its mixtures are in the way."""
        for i in range(2):
            mixed[i].discard(own[i])
            if own[i] in barred[i] or mixed[i] & tables[i].keys():
                return False
        queues = [tables[i].get(own[i]) for i in range(2)]
        if queues[0] == queues[1] and queues[0] is not None:
            return False
        first = random.Random(own[0]).randrange(NOBODY) if queues[0] is None else queues[0]
        if first == queues[1]:
            first = (first + 1) % NOBODY
        second = (first + 1) % NOBODY if queues[1] is None else queues[1]
        for i, queue in enumerate((first, second)):
            tables[i][own[i]] = queue
            barred[i].update(mixed[i])
        return True


@BY
@pytest.mark.requirement("U-41", "NET-RSS-01", "NET-RSS-02", "NET-REP-01", "NET-REP-03")
async def test_no_frame_is_steered_by_a_mixture_of_two_configurations(
    silent: NetNamespace, steering: str
) -> None:
    two = Two()
    device = steered_by(steering, tap_in(silent, queues=QUEUES))
    async with device, device.driver() as driver:
        await driver.negotiate(RSS)
        async with Traffic(device, driver, silent, two.flows) as traffic:
            for change in range(CHANGES):
                places = two.places[change % 2]
                traffic.expect(lambda flow, places=places: (places[flow],))  # type: ignore[misc]
                traffic.allow(2 * WINDOW)  # more than can be sent before the answer
                await driver.ctrl.rss_config(two.configs[change % 2])
                traffic.acknowledged()
                while traffic.of_epoch < FLOWS:
                    traffic.allow(WINDOW)
                    await traffic.take()
            await traffic.rest()
            full = {"rx_drop_overruns", "rx_drop_handoff"}
            assert drop_reasons(device.statistics()).keys() <= full
            lost = traffic.dropped() + tap_dropped(device)
            assert traffic.sent == traffic.received + lost
            assert traffic.straddling > CHANGES
        assert device.steering_owner == steering
        if steering != "software":  # what a mixture puts on a queue the kernel counts there
            assert device.statistics(NOBODY).rx_port_frames == 0
            assert device.statistics().rx_resteered <= traffic.straddling + lost


@dataclass(frozen=True)
class Change:
    """VQ_PAIRS_SET of so many pairs, or RSS over a table."""

    pairs: int
    table: tuple[int, ...] = ()

    @property
    def queues(self) -> int:
        """How many are in force."""
        return 1 + max(self.table) if self.table else self.pairs


def changes(chance: random.Random, count: int) -> Iterator[Change]:
    """Sets of queues in force, each from one the device may be in; one in seven is smaller."""
    top = 1
    for _ in range(count):
        turn = chance.random()
        if turn < 0.15 and top > 1:
            top = chance.randrange(1, top)
        elif turn < 0.5 and top < QUEUES:
            top += 1
        if chance.random() < 0.3:
            yield Change(top)
            continue
        table = [chance.randrange(top) for _ in range(2 ** chance.randrange(7))]
        table[chance.randrange(len(table))] = top - 1
        yield Change(0, tuple(table))


class Hashed:
    """Flows hashed once, placed by many tables."""

    def __init__(self) -> None:
        self.flows = list(islice(flows(), FLOWS))
        self._hashes = [classify(flow, TYPES[0], KEYS[0]) for flow in self.flows]

    def by_table(self, change: Change) -> Places:
        """Where a flow is under RSS."""
        return lambda flow: (self._on(flow, steer(self._hashes[flow], change.table, 0)),)

    def by_wish(self, change: Change) -> Places:
        """Where it is if the kernel steers by the byte ``WISH`` over the pairs there are."""
        return lambda flow: (self._on(flow, self.flows[flow][WISH] % change.pairs),)

    def anywhere(self, change: Change) -> Places:
        """Where it is if nobody knows how the kernel steers."""
        return lambda flow: [self._on(flow, queue) for queue in range(change.pairs)]

    def _on(self, flow: int, queue: int) -> Place:
        return Place(queue, self._hashes[flow].value, self._hashes[flow].report)


@BY
@pytest.mark.requirement("U-62", "U-41", "NET-MQ-03", "NET-MQ-04")
async def test_tap_queue_and_receiveq_stay_together_whatever_queues_are_in_force(
    silent: NetNamespace, steering: str
) -> None:
    hashed = Hashed()
    device = steered_by(steering, tap_in(silent, queues=QUEUES))
    ours = steering != "software"
    async with device, device.driver() as driver, AsyncExitStack() as stack:
        # The driver does not look while the device waits for the kernel: room for what comes.
        await driver.negotiate(RSS | Feature.MQ, queue_size=1024)
        await driver.ctrl.hash_config(HashConfig(TYPES[0], KEYS[0]))
        traffic = Traffic(device, driver, silent, hashed.flows, pace_us=PACE_US)
        await stack.enter_async_context(traffic)
        if not ours:  # then the kernel's numbers of the queues are shown by a program of the test's
            stack.enter_context(by_a_byte(device.netdev.fds[0]))
        allow = traffic.allow if ours else traffic.allow_more
        for change in changes(random.Random(62), MANY[steering]):
            allow(AHEAD)
            if change.table:
                traffic.expect(hashed.by_table(change))
                config = RssConfig(TYPES[0], change.table, KEYS[0])
                await driver.ctrl.rss_config(config)
            else:
                places = hashed.anywhere if ours else hashed.by_wish
                traffic.expect(places(change), meanwhile=hashed.anywhere(change))
                await driver.ctrl.vq_pairs_set(change.pairs)
            traffic.acknowledged()
            while traffic.of_epoch < AFTER // 2 or (ours and traffic.behind):
                allow(AHEAD)
                await traffic.take()
            resteered = device.statistics().rx_resteered
            while traffic.of_epoch < AFTER:
                allow(AHEAD)
                await traffic.take()
            if ours:  # a queue by another number would show: its frames come by a wrong one
                assert device.statistics().rx_resteered == resteered, change
        assert traffic.straddling > MANY[steering]
        assert drop_reasons(device.statistics()) == {}
        assert device.steering_owner in {steering, "kernel-auto"}
        if ours:
            await traffic.rest()
            assert tap_dropped(device) == 0
            assert traffic.sent == traffic.received
