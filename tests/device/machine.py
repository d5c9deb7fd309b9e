# SPDX-License-Identifier: MIT
"""What both state machines share: world, commands, the host's side, invariants (``model.py``)."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pyvnet.device.effects import (
    Activate,
    ConfigChanged,
    Deactivate,
    EnableQueue,
    SetPolicy,
    StartQueue,
    StopQueue,
)
from pyvnet.device.state import DeviceState
from pyvnet.spec.features import Feature
from tests.device.model import (
    ALL,
    ANNOUNCE,
    CSUM,
    CTRL_MAC,
    CTRL_OFFLOADS,
    CTRL_RX,
    CTRL_VLAN,
    CVQ,
    GUEST,
    HASH,
    MAX_MACS,
    MODES,
    MQ,
    MRG,
    MTU,
    NEEDS,
    OWN_MTU,
    RSS,
    RX_EXTRA,
    STATUS,
    V1,
    Model,
)
from tests.device.support import (
    ANNOUNCE_ACK,
    COMMANDS,
    MAC,
    PAIRS,
    commit,
    device,
    guest_offloads,
    hash_config,
    mac_address,
    mac_table,
    rss,
    rx_mode,
    vlan_add,
    vlan_delete,
    vq_pairs,
    without,
)

if TYPE_CHECKING:
    from pyvnet.device.device import ControlTransition, Transition
    from pyvnet.device.steering import Policy

# Numbers near every bound, and anywhere else.
queue_indexes = st.integers(0, 2 * PAIRS + 3) | st.just(0xFFFF)
queue_sizes = st.sampled_from([1, 256, 1024, 256, 0, 3, 2048])
addresses = st.lists(st.binary(min_size=6, max_size=6), max_size=MAX_MACS + 2)
requests = st.sampled_from([request for request, _ in COMMANDS.values()])
any_features = st.integers(0, 2**128 - 1) | st.sampled_from([0, V1, ALL ^ CVQ, ALL | 1 << 99])
# Most of what is offered, less some bits and what depends on them.
good_features = st.sets(st.sampled_from([MQ, RSS, HASH, MRG, MTU, CVQ, CSUM, 1])).map(
    lambda dropped: (
        ALL & ~sum(dropped) & ~sum(bit for bit, need in NEEDS.items() if not need & ~sum(dropped))
    )
)
small = st.sampled_from([0, 1, PAIRS - 1, PAIRS, 0x7FFF, 0x8000, 0xFFFF]) | st.integers(0, PAIRS)
key_lengths = st.sampled_from([0, 1, 39, 40, 41, 255]) | st.integers(0, 41)
hash_types = st.integers(0, 0x1FF) | st.sampled_from([0, 0x200, 0xFFFFFFFF])
tables = st.integers(0, 7).flatmap(
    lambda power: st.lists(st.integers(0, PAIRS - 1), min_size=1 << power, max_size=1 << power)
) | st.lists(small, min_size=1, max_size=130)


class World:
    """Applies effects as the runtime would."""

    def __init__(self) -> None:
        self.running: dict[int, bool] = {}  # index -> enabled
        self.policy: Policy | None = None

    def apply(self, transition: Transition) -> None:
        for effect in transition.effects:
            match effect:
                case Activate(_, queues, _):
                    assert not self.running, "started twice"
                    self.running = {queue.index: queue.enabled for queue in queues}
                case Deactivate():
                    self.running = {}
                case StartQueue(queue, _, _, enabled):
                    assert queue.index not in self.running, "started twice"
                    self.running[queue.index] = enabled
                case StopQueue(index):
                    self.running.pop(index, None)
                case EnableQueue(index, enabled):
                    if index in self.running:
                        assert self.running[index] != enabled, "nothing to switch"
                        self.running[index] = enabled
                case SetPolicy(policy):
                    self.policy = policy
                case ConfigChanged():
                    assert transition.state.status & 4, "a driver that is not there was notified"


class Machine(RuleBasedStateMachine):
    """Rules are what any driver and the host can do; a subclass adds a transport."""

    @initialize(relaxed=st.booleans())
    def begin(self, relaxed: bool) -> None:
        offered = Feature(without())
        self.device = device(offered=offered, relaxed=relaxed, mtu=OWN_MTU, max_macs=MAX_MACS)
        self.model = Model(relaxed)
        self.world = World()
        self.lowest = self.device.state.counters
        self.read = self.device.read_config(0, 28), self.device.config_generation
        self.do(self.device.reset())

    def do(self, transition: Transition) -> None:
        self.world.apply(transition)
        commit(self.device, transition)

    @rule(by_status=st.booleans())
    def reset(self, by_status: bool) -> None:
        self.do(self.device.write_status(0) if by_status else self.device.reset())
        self.model.reset()

    # What the host does.

    @rule(up=st.booleans())
    def set_link(self, up: bool) -> None:
        self.do(self.device.set_link(up=up))
        self.model.link = up

    @rule()
    def announce(self) -> None:
        transition = self.device.announce()
        self.do(transition)
        needed = ANNOUNCE | STATUS | CVQ
        asked = bool(self.model.status & 4) and self.model.features & needed == needed
        assert bool(transition.effects) == asked
        self.model.commanded.announce |= asked

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
        needed = feature | CVQ
        return bool(self.model.status & 4) and self.model.features & needed == needed

    @rule(pairs=small)
    def send_vq_pairs_set(self, pairs: int) -> None:
        good = self.allowed(MQ) and 1 <= pairs <= PAIRS
        assert self.control(vq_pairs(pairs)) is good
        if good:
            self.model.commanded.rss = None
            self.model.commanded.pairs = pairs

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
            self.model.commanded.rss = (tuple(table), unclassified)
            self.model.commanded.types, self.model.commanded.key = types, key + bytes(40 - length)

    @rule(types=hash_types, length=key_lengths)
    def send_hash_config(self, types: int, length: int) -> None:
        key = bytes(range(length))
        good = (
            self.allowed(HASH) and self.model.commanded.rss is None and self.hashing(types, length)
        )
        assert self.control(hash_config(types, key)) is good
        if good:
            self.model.commanded.types, self.model.commanded.key = types, key + bytes(40 - length)

    @rule(command=st.integers(0, 5), value=st.sampled_from([0, 1, 2, 255]))
    def send_rx_mode(self, command: int, value: int) -> None:
        good = self.allowed(CTRL_RX if command < 2 else RX_EXTRA)
        assert self.control(rx_mode(command, value)) is good
        if good:
            modes = self.model.commanded.modes
            (modes.add if value else modes.discard)(MODES[command])

    @rule(unicast=addresses, multicast=addresses, excess=st.sampled_from([0, 0, 0, 1, 2**31]))
    def send_mac_table(self, unicast: list[bytes], multicast: list[bytes], excess: int) -> None:
        counts = len(unicast), len(multicast) + excess
        good = self.allowed(CTRL_RX) and not excess
        request = mac_table(tuple(unicast), tuple(multicast), counts=counts)
        assert self.control(request) is good
        if good:
            self.model.commanded.tables = tuple(unicast), tuple(multicast)

    @rule(address=st.binary(min_size=6, max_size=6) | st.sampled_from([bytes(6), MAC]))
    def send_mac_address(self, address: bytes) -> None:
        good = self.allowed(CTRL_MAC) and any(address) and not address[0] & 1
        assert self.control(mac_address(address)) is good
        if good:
            self.model.commanded.mac = address

    @rule(vid=st.integers(0, 4) | st.sampled_from([4095, 4096, 0xFFFF]), add=st.booleans())
    def send_vlan(self, vid: int, add: bool) -> None:
        good = self.allowed(CTRL_VLAN) and vid < 4096
        assert self.control(vlan_add(vid) if add else vlan_delete(vid)) is good
        if good:
            vlans = self.model.commanded.vlans
            (vlans.add if add else vlans.discard)(vid)

    @rule()
    def send_announce_ack(self) -> None:
        good = self.allowed(ANNOUNCE)
        assert self.control(ANNOUNCE_ACK) is good
        if good:
            self.model.commanded.announce = False

    @rule(mask=st.sets(st.sampled_from([1, 7, 8, 9, 54, 55, 1, 7, 0, 10, 46, 61, 63])))
    def send_guest_offloads(self, mask: set[int]) -> None:
        bits = sum(1 << bit for bit in mask)
        good = self.allowed(CTRL_OFFLOADS) and not bits & ~(self.model.features & GUEST)
        assert self.control(guest_offloads(bits)) is good
        if good:
            self.model.commanded.offloads = bits

    @staticmethod
    def hashing(types: int, length: int) -> bool:
        return types <= 0x1FF and length <= 40 and (length > 0 or types == 0)

    @rule(data=st.data(), request=requests)
    def truncated_command(self, data: st.DataObject, request: bytes) -> None:
        length = data.draw(st.integers(0, len(request) - 1))
        if request != ANNOUNCE_ACK or length < 2:
            assert not self.control(request[:length])

    @rule(request=requests | st.sampled_from([b"", b"\4"]))
    def command_without_room(self, request: bytes) -> None:
        assert not self.control(request, writable=0)

    @rule(head=st.binary(min_size=2, max_size=2), tail=st.binary(max_size=64))
    def noise(self, head: bytes, tail: bytes) -> None:
        if head not in {request[:2] for request, _ in COMMANDS.values()}:
            assert not self.control(head + tail)

    @precondition(lambda self: self.model.status & 4)
    @rule(pairs=st.integers(1, PAIRS))
    def command_the_host_cannot_apply(self, pairs: int) -> None:
        before = self.device.state
        transition = self.device.control(vq_pairs(pairs), 1)
        self.do(self.device.refuse(transition, "out of descriptors"))
        assert self.device.state.control == before.control

    @invariant()
    def device_is_what_the_model_says(self) -> None:
        state = self.device.state
        assert state.status == self.model.status
        assert self.device.features == self.model.features
        assert {queue.index: queue.size for queue in state.queues} == self.model.queues
        assert {queue.index for queue in state.queues if not queue.enabled} == self.model.off
        assert self.device.read_config(0, 8) == self.model.config()

    @invariant()
    def world_is_what_the_model_says(self) -> None:
        if not self.model.status & 4:
            assert not self.world.running
            return
        if not self.model.status & 64:
            assert self.world.running == {
                index: index not in self.model.off for index in self.model.queues
            }
            assert self.world.policy == self.device.policy
        assert asdict(self.device.policy) == self.model.policy()

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
    def generation_moves_with_configuration_space(self) -> None:
        now = self.device.read_config(0, 28), self.device.config_generation
        assert now[0] == self.read[0] or now[1] != self.read[1]
        self.read = now

    @invariant()
    def nothing_but_counters_outlives_a_reset(self) -> None:
        state = self.device.reset().state
        assert state == DeviceState.initial(self.device.settings, state.counters, state.host)
