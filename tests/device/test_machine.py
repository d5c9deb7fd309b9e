# SPDX-License-Identifier: MIT
"""Any driver, in any order: the device against a small model written from the standard.

Invariants, each checked after every step:
    - status, negotiated features and queues are what the model says;
    - the effects asked for, applied in order, leave a world that matches: rings
      run exactly from DRIVER_OK to reset, under the policy the model predicts;
    - a command answered ERR, or not answered, changes nothing but counters;
    - counters never fall, and nothing but counters outlives a reset;
    - a taken state, put back through JSON, gives an equal device.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pyvnet.device.effects import Activate, ConfigChanged, Deactivate, SetPolicy
from pyvnet.device.state import DeviceState
from tests.device.support import PAIRS, commit, device, hash_config, ring, rss, vq_pairs, without

if TYPE_CHECKING:
    from pyvnet.device.device import ControlTransition, Transition
    from pyvnet.device.steering import Policy

V1, CVQ, MQ, RSS, HASH = 1 << 32, 1 << 17, 1 << 22, 1 << 60, 1 << 57
OFFER = int(without())

# Numbers near every bound, and anywhere else.
small = st.sampled_from([0, 1, PAIRS - 1, PAIRS, 0x7FFF, 0x8000, 0xFFFF]) | st.integers(0, PAIRS)
key_lengths = st.sampled_from([0, 1, 39, 40, 41, 255]) | st.integers(0, 41)
hash_types = st.integers(0, 0x1FF) | st.sampled_from([0, 0x200, 0xFFFFFFFF])
tables = st.integers(0, 7).flatmap(
    lambda power: st.lists(st.integers(0, PAIRS - 1), min_size=1 << power, max_size=1 << power)
) | st.lists(small, min_size=1, max_size=130)


@dataclass
class Model:
    """What the standard and our decisions say, in as few words as possible."""

    status: int = 0
    written: int = 0
    queues: dict[int, int] = field(default_factory=dict)  # index -> size
    rss: tuple[tuple[int, ...], int] | None = None  # table, unclassified
    types: int = 0
    key: bytes = bytes(40)
    pairs: int = 1

    @property
    def features(self) -> int:
        return self.written if self.status & 8 else 0

    def acceptable(self) -> bool:
        dependent = self.written & (MQ | RSS | HASH)
        consistent = not dependent or self.written & CVQ
        return bool(self.written & ~OFFER == 0 and self.written & V1 and consistent)

    def queue_count(self) -> int:
        features = self.features if self.status & 8 else OFFER
        pairs = PAIRS if features & (MQ | RSS) else 1
        return 2 * pairs + bool(features & CVQ)

    def write_status(self, value: int) -> None:
        """Climb bit by bit; any stumble and the write never happened."""
        ladder = [1, 2, 8, 4]
        held = [bit for bit in ladder if self.status & bit]
        wanted = [bit for bit in ladder if value & bit]
        if value & ~0xDF or wanted[: len(held)] != held or wanted != ladder[: len(wanted)]:
            return
        if self.status & 128 and not value & 128:
            return
        if len(wanted) > len(held) and self.status & (64 | 128):
            return
        if 8 in wanted and 8 not in held and not self.acceptable():
            if 4 in wanted:
                return
            wanted.remove(8)
        started = 4 in wanted and 4 not in held
        self.status = sum(wanted) | value & 128 | self.status & 64
        if started and any(
            size not in {1 << power for power in range(11)} or index >= self.queue_count()
            for index, size in self.queues.items()
        ):
            self.status |= 64

    def policy(self) -> tuple[object, ...]:
        in_force = set(self.rss[0]) | {self.rss[1]} if self.rss else set(range(self.pairs))
        table, unclassified = self.rss or ((0,), 0)
        return (
            "rss" if self.rss else "automatic",
            self.types if self.rss or self.features & HASH else 0,
            self.key,
            table,
            unclassified,
            max(in_force) + 1,
            20 if self.features & HASH else 12,
            bool(self.features & 1 << 15),
            False,
            max(in_force) + 1,
            in_force,
        )


class World:
    """Applies effects as the runtime would."""

    def __init__(self) -> None:
        self.running: frozenset[int] = frozenset()
        self.policy: Policy | None = None

    def apply(self, transition: Transition) -> None:
        for effect in transition.effects:
            match effect:
                case Activate(_, queues, _):
                    assert not self.running, "started twice"
                    self.running = frozenset(queue.index for queue in queues)
                case Deactivate():
                    self.running = frozenset()
                case SetPolicy(policy):
                    self.policy = policy
                case ConfigChanged():
                    assert transition.state.status & 4, "a driver that is not there was notified"


class Driver(RuleBasedStateMachine):
    """Rules are what a driver, its transport or the operator can do."""

    def __init__(self) -> None:
        super().__init__()
        self.device = device()
        self.model = Model()
        self.world = World()
        self.lowest = self.device.state.counters
        self.do(self.device.reset())

    def do(self, transition: Transition) -> None:
        self.world.apply(transition)
        commit(self.device, transition)

    @rule(value=st.sampled_from([1, 3, 11, 15, 11, 15]))
    def climb(self, value: int) -> None:
        self.do(self.device.write_status(value))
        self.model.write_status(value)

    @rule(value=st.integers(1, 0xFF) | st.integers(256, 2**32))
    def write_any_status(self, value: int) -> None:
        self.do(self.device.write_status(value))
        self.model.write_status(value)

    @rule(by_status=st.booleans())
    def reset(self, by_status: bool) -> None:
        self.do(self.device.write_status(0) if by_status else self.device.reset())
        self.model = Model()

    @rule(dropped=st.sets(st.sampled_from([MQ, RSS, HASH, 1 << 15, 1 << 28])))
    def write_good_features(self, dropped: set[int]) -> None:
        self.write_features(OFFER & ~sum(dropped))

    @rule(bits=st.integers(0, 2**128 - 1) | st.sampled_from([0, V1, OFFER ^ CVQ, OFFER | 1 << 99]))
    def write_any_features(self, bits: int) -> None:
        self.write_features(bits)

    def write_features(self, bits: int) -> None:
        self.do(self.device.write_driver_features(bits))
        if not self.model.status & 8:
            self.model.written = bits

    @rule()
    def start_properly(self) -> None:
        """What most drivers do, so that most runs see control commands."""
        self.reset(by_status=True)
        for value in (1, 3):
            self.climb(value)
        self.write_features(OFFER)
        self.climb(11)
        for index in range(2 * PAIRS + 1):
            self.configure_queue(index, 256)
        self.climb(15)

    @rule(
        index=st.integers(0, 2 * PAIRS + 3) | st.just(0xFFFF),
        size=st.sampled_from([1, 256, 1024, 256, 0, 3, 2048]),
    )
    def configure_queue(self, index: int, size: int) -> None:
        self.do(self.device.configure_queue(ring(index, size=size)))
        if index < self.model.queue_count() and not self.model.status & 4:
            self.model.queues[index] = size

    @rule(index=st.integers(0, 2 * PAIRS + 1))
    def ring_breaks(self, index: int) -> None:
        self.do(self.device.ring_broken(index))
        if self.model.status and index in self.model.queues:
            self.model.status |= 64

    @rule(position=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)))
    def record_positions(self, position: tuple[int, int]) -> None:
        self.do(self.device.record_queue_positions(dict.fromkeys(self.model.queues, position)))

    @rule()
    def take_and_put_back(self) -> None:
        before = self.device.state
        broken = before.status & 64
        taken = DeviceState.from_dict(json.loads(json.dumps(before.to_dict())))
        self.do(self.device.restore(taken))
        assert self.device.state == before
        assert bool(self.world.running) == bool(
            self.model.status & 4 and self.model.queues and not broken
        )

    def control(self, request: bytes, writable: int = 1) -> bool:
        """Execute; True if OK.  What is not OK may change nothing but counters."""
        before = self.device.state
        transition: ControlTransition = self.device.control(request, writable)
        self.do(transition)
        after = self.device.state
        if transition.answer == b"\0":
            return True
        assert transition.answer in {b"\1", None}
        assert transition.effects == ()
        assert transition.note
        assert replace(after, counters=before.counters) == before
        return False

    def allowed(self, feature: int) -> bool:
        return bool(self.model.status & 4 and self.model.features & feature)

    @rule(pairs=small)
    def send_vq_pairs_set(self, pairs: int) -> None:
        good = self.allowed(MQ) and 1 <= pairs <= PAIRS
        assert self.control(vq_pairs(pairs)) is good
        if good:
            self.model.rss = None
            self.model.pairs = pairs

    @rule(table=tables, types=hash_types, unclassified=small, max_tx=small, length=key_lengths)
    def send_rss_config(
        self, table: list[int], types: int, unclassified: int, max_tx: int, length: int
    ) -> None:
        key = bytes(range(length))
        good = (
            self.allowed(RSS)
            and len(table) in {1, 2, 4, 8, 16, 32, 64, 128}
            and max(*table, unclassified) < PAIRS
            and 1 <= max_tx <= PAIRS
            and self.hashing(types, length)
        )
        request = rss(
            tuple(table), types=types, unclassified=unclassified, max_tx_vq=max_tx, key=key
        )
        assert self.control(request) is good
        if good:
            self.model.rss = (tuple(table), unclassified)
            self.model.types, self.model.key = types, key + bytes(40 - length)

    @rule(types=hash_types, length=key_lengths)
    def send_hash_config(self, types: int, length: int) -> None:
        key = bytes(range(length))
        good = self.allowed(HASH) and self.model.rss is None and self.hashing(types, length)
        assert self.control(hash_config(types, key)) is good
        if good:
            self.model.types, self.model.key = types, key + bytes(40 - length)

    @staticmethod
    def hashing(types: int, length: int) -> bool:
        return types <= 0x1FF and length <= 40 and (length > 0 or types == 0)

    @rule(data=st.data(), request=st.sampled_from([rss(), hash_config(), vq_pairs(2)]))
    def truncated_command(self, data: st.DataObject, request: bytes) -> None:
        length = data.draw(st.integers(0, len(request) - 1))
        assert not self.control(request[:length])

    @rule(request=st.sampled_from([rss(), hash_config(), vq_pairs(2), b"", b"\4"]))
    def command_without_room(self, request: bytes) -> None:
        assert not self.control(request, writable=0)

    @rule(head=st.binary(min_size=2, max_size=2), tail=st.binary(max_size=64))
    def noise(self, head: bytes, tail: bytes) -> None:
        if head not in {b"\4\0", b"\4\1", b"\4\2"}:
            assert not self.control(head + tail)

    @precondition(lambda self: self.model.status & 4)
    @rule(pairs=st.integers(1, PAIRS))
    def command_the_host_cannot_apply(self, pairs: int) -> None:
        before = self.device.state
        transition = self.device.control(vq_pairs(pairs), 1)
        self.do(self.device.refuse(transition, "out of descriptors"))
        assert self.device.state.steering == before.steering

    @invariant()
    def device_is_what_the_model_says(self) -> None:
        state = self.device.state
        assert state.status == self.model.status
        assert self.device.features == self.model.features
        assert {queue.index: queue.size for queue in state.queues} == self.model.queues

    @invariant()
    def world_is_what_the_model_says(self) -> None:
        if not self.model.status & 4:
            assert not self.world.running
            return
        if not self.model.status & 64:
            assert self.world.running == self.model.queues.keys()
            assert self.world.policy == self.device.policy
        assert astuple(self.device.policy)[:10] == self.model.policy()[:10]
        assert self.device.policy.queues_in_force == self.model.policy()[-1]

    @invariant()
    def policy_is_within_bounds(self) -> None:
        policy = self.device.policy
        assert len(policy.indirection_table) in {1, 2, 4, 8, 16, 32, 64, 128}
        assert all(0 <= queue < PAIRS for queue in policy.indirection_table)
        assert 0 <= policy.unclassified_queue < PAIRS
        assert 1 <= policy.pairs <= policy.port_queues <= PAIRS
        assert 0 <= policy.hash_types <= 0x1FF
        assert len(policy.key) == 40
        assert policy.header_length in {12, 20}

    @invariant()
    def counters_never_fall(self) -> None:
        counters = self.device.state.counters
        assert all(
            now >= then for now, then in zip(astuple(counters), astuple(self.lowest), strict=False)
        )
        self.lowest = counters

    @invariant()
    def nothing_but_counters_outlives_a_reset(self) -> None:
        state = self.device.reset().state
        assert state == DeviceState.initial(self.device.settings, state.counters, state.host)


TestDriver = Driver.TestCase
# A loaded machine is slow, not unhealthy.
TestDriver.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
