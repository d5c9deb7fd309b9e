# SPDX-License-Identifier: MIT
"""Taking a state and putting it back; what comes back is untrusted."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.device._checks import StateError
from pyvnet.device.counters import Counters
from pyvnet.device.effects import Activate, Deactivate, SetPolicy
from pyvnet.device.queue import QueueFds
from pyvnet.device.state import STATE_VERSION, DeviceState
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature
from tests.device.support import (
    OK,
    commit,
    device,
    group,
    guest_offloads,
    hash_config,
    mac_address,
    mac_table,
    negotiate,
    ring,
    rss,
    running,
    rx_mode,
    send,
    station,
    vlan_add,
    vq_pairs,
    without,
)

if TYPE_CHECKING:
    from pyvnet.device.device import VirtioNetDevice


def busy() -> VirtioNetDevice:
    """A device with something in every part of its state."""
    target = device()
    commit(target, target.negotiate(without()))
    for index in range(target.queue_count):
        setup = ring(index, avail_base=index, used_base=2 * index, kick_fd=100 + index)
        commit(target, target.start_queue(setup, enabled=index != 5))
    for command in range(6):
        send(target, rx_mode(command, command != 0))
    send(target, mac_table((station(1), station(2)), tuple(map(group, range(65)))))
    send(target, mac_address(station(3)))
    send(target, vlan_add(9))
    send(target, vlan_add(7))
    send(target, guest_offloads(1 << 1 | 1 << 7))
    commit(target, target.announce())
    send(target, rss((3, 1), unclassified=2, max_tx_vq=3))
    send(target, b"\4\1")
    return target


def wire(state: DeviceState) -> dict[str, Any]:
    """As it would arrive: through JSON, by value."""
    value: dict[str, Any] = json.loads(json.dumps(state.to_dict()))
    return value


def test_round_trip() -> None:
    for target in (device(), running(), busy()):
        assert DeviceState.from_dict(wire(target.state)) == target.state


def test_put_back_state_gives_an_equal_device_that_answers_alike() -> None:
    source, target = busy(), device()
    commit(target, target.restore(DeviceState.from_dict(wire(source.state))))
    assert target.state == source.state
    assert target.policy == source.policy
    for request in (b"", b"\4", rss((9,)), hash_config(), vq_pairs(3), hash_config(1), rss()):
        ours, theirs = send(target, request), send(source, request)
        assert (ours.answer, ours.effects, ours.note) == (
            theirs.answer,
            theirs.effects,
            theirs.note,
        )
        assert target.state == source.state


def test_effects_of_putting_a_running_state_back() -> None:
    """What runs is stopped first, then the restored policy, then the restored rings."""
    source, target = busy(), running()
    state = DeviceState.from_dict(wire(source.state))
    fds = {0: QueueFds(7, 8, 9)}
    stop, policy, activate = commit(target, target.restore(state, fds)).effects
    assert stop == Deactivate()
    assert policy == SetPolicy(source.policy)
    assert isinstance(activate, Activate)
    assert [(queue.kick_fd, queue.call_fd) for queue in activate.queues[:2]] == [(7, 8), (-1, -1)]
    assert [queue.used_base for queue in activate.queues] == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert [queue.index for queue in activate.queues if not queue.enabled] == [5]


def test_state_of_this_process_keeps_its_eventfds() -> None:
    target = busy()
    taken = target.state
    commit(target, target.reset())
    *_, activate = commit(target, target.restore(taken)).effects
    assert isinstance(activate, Activate)
    assert [queue.kick_fd for queue in activate.queues] == list(range(100, 109))


def test_device_that_needs_a_reset_is_not_started_again() -> None:
    source = busy()
    commit(source, source.ring_broken(0))
    target = device()
    effects = commit(target, target.restore(source.state)).effects
    assert effects == (Deactivate(), SetPolicy(source.policy))
    assert target.status == 15 | 64


def set_at(value: dict[str, Any], path: str, new: object) -> dict[str, Any]:
    value = copy.deepcopy(value)
    place: Any = value
    *way, last = path.split(".")
    for step in way:
        place = place[int(step) if step.isdecimal() else step]
    place[int(last) if last.isdecimal() else last] = new
    return value


def numbers(value: object, path: str = "") -> list[str]:
    """The paths of all integers."""
    if isinstance(value, dict):
        return [one for name, part in value.items() for one in numbers(part, f"{path}.{name}")]
    if isinstance(value, list):
        return [one for i, part in enumerate(value) for one in numbers(part, f"{path}.{i}")]
    return [path[1:]] if isinstance(value, int) and not isinstance(value, bool) else []


TAKEN = wire(busy().state)
# Hostile numbers a field may legally hold all the same.
HARMLESS = {"driver_features", "desc_table", "avail_ring", "used_ring", "hash_types"}


def refused(value: object) -> bool:
    """Whether the door is closed, without a trace on the device."""
    target = running()
    before = target.state
    try:
        target.restore(DeviceState.from_dict(value))
    except StateError:
        assert target.state is before
        return True
    return False


def test_taken_state_is_accepted() -> None:
    assert not refused(TAKEN)


@pytest.mark.parametrize("path", numbers(TAKEN))
def test_every_number_out_of_range(path: str) -> None:
    """Peers took counts and indices of a saved state as they came (CVE-2013-4148 and sisters)."""
    anything: tuple[object, ...] = (-1, 2**64, 2**128, 1.5, None, "1", True, [], {})
    for hostile in anything:
        assert refused(set_at(TAKEN, path, hostile)), hostile
    if path.startswith("counters"):
        return
    for large in (2**31, 2**32 - 1, 2**63):
        if path.rsplit(".", maxsplit=1)[-1] not in HARMLESS:
            assert refused(set_at(TAKEN, path, large)), large


@pytest.mark.parametrize(
    "path", ["", "control", "control.steering", "control.rx_filter", "counters", "queues.0"]
)
def test_missing_and_unknown_keys(path: str) -> None:
    place: Any = TAKEN
    for step in filter(None, path.split(".")):
        place = place[int(step) if step.isdecimal() else step]
    prefix = f"{path}." if path else ""
    assert refused(set_at(TAKEN, f"{prefix}surprise", 0))
    for name in place:
        value = copy.deepcopy(TAKEN)
        inner: Any = value
        for step in filter(None, path.split(".")):
            inner = inner[int(step) if step.isdecimal() else step]
        del inner[name]
        assert refused(value), name


@pytest.mark.parametrize("version", [version for version in range(256) if version != 2])
def test_other_versions(version: int) -> None:
    assert STATE_VERSION == 2
    assert refused(set_at(TAKEN, "version", version))
    with pytest.raises(StateError, match="version"):
        DeviceState.from_dict({"version": version, "what a later one may hold": 1})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("max_virtqueue_pairs", 3),
        ("max_virtqueue_pairs", 8),
        ("mac", "525400c0ffef"),
        ("mac", "525400c0ff"),
        ("mac", "525400c0ffeg"),
        ("mac", "52 5400c0ffee"),
        ("mac", 5),
        ("status", 7),
        ("status", 16),
        ("status", 64),
        ("status", 3),
        ("driver_features", 0),
        ("driver_features", without(Feature.CTRL_VQ)),
        ("driver_features", without(Feature.RSS)),
        ("driver_features", without(Feature.MQ, Feature.RSS, Feature.HASH_REPORT)),
        ("driver_features", without() | 1 << 34),
        ("driver_features", without() | 1 << 100),
        ("queues", {}),
        ("queues", [0]),
        ("queues.0.index", 1),
        ("queues.0.index", 2),
        ("queues.8.index", 9),
        ("queues.0.size", 3),
        ("queues.0.desc_table", 8),
        ("queues.0.used_ring", 2**64 - 4),
        ("control.steering", []),
        ("control.steering.mode", "automatic"),
        ("control.steering.mode", "kernel"),
        ("control.steering.mode", 1),
        ("control.steering.hash_types", 0x200),
        ("control.steering.key", "00" * 39),
        ("control.steering.key", "00" * 41),
        ("control.steering.key", "AA" * 40),
        ("control.steering.indirection_table", []),
        ("control.steering.indirection_table", [0, 0, 0]),
        ("control.steering.indirection_table", [0] * 256),
        ("control.steering.indirection_table", [0, 4]),
        ("control.steering.indirection_table", 0),
        ("control.steering.unclassified_queue", 4),
        ("control.steering.max_tx_vq", 0),
        ("control.steering.max_tx_vq", 5),
        ("control.steering.pairs", 0),
        ("control.steering.pairs", 5),
        ("queues.5.enabled", 0),
        ("control", []),
        ("control.mac", "010000000001"),
        ("control.mac", "000000000000"),
        ("control.mac", "02aa00000"),
        ("control.mac", None),
        ("control.guest_offloads", 1),
        ("control.guest_offloads", 1 << 10),
        ("control.guest_offloads", 1 << 61),
        ("control.announce", 1),
        ("control.rx_filter", []),
        ("control.rx_filter.promisc", 0),
        ("control.rx_filter.nobcast", None),
        ("control.rx_filter.multicast_overflow", "true"),
        ("control.rx_filter.unicast_overflow", True),
        ("control.rx_filter.unicast", "02aa00000001"),
        ("control.rx_filter.unicast", ["02aa0000000"]),
        ("control.rx_filter.unicast", ["02aa00000001ff"]),
        ("control.rx_filter.unicast", [1]),
        ("control.rx_filter.unicast", ["02aa00000001"] * 65),
        ("control.rx_filter.multicast", ["02aa00000001"]),
        ("control.rx_filter.vlans", {}),
        ("control.rx_filter.vlans", [9, 7]),
        ("control.rx_filter.vlans", [7, 7]),
        ("control.rx_filter.vlans", [4096]),
        ("control.rx_filter.vlans", ["7"]),
        ("control.rx_filter.vlans", [True]),
        ("counters", 0),
    ],
)
def test_inconsistent_states(path: str, value: object) -> None:
    assert refused(set_at(TAKEN, path, value))


@pytest.mark.parametrize("value", [None, 0, "", b"", [], {}, {"version": 1}, [TAKEN]])
def test_not_a_state_at_all(value: object) -> None:
    assert refused(value)


@pytest.mark.parametrize(
    ("features", "change"),
    [
        (without(Feature.MQ), ("steering.pairs", 2)),
        (without(Feature.RSS, Feature.HASH_REPORT), ("steering.hash_types", 1)),
        (without(Feature.RSS, Feature.HASH_REPORT), ("steering.key", "01" * 40)),
        (without(Feature.CTRL_RX), ("rx_filter.promisc", False)),
        (without(Feature.CTRL_RX), ("rx_filter.allmulti", True)),
        (without(Feature.CTRL_RX), ("rx_filter.unicast", ["02aa00000001"])),
        (without(Feature.CTRL_RX), ("rx_filter.multicast_overflow", True)),
        (without(Feature.CTRL_RX_EXTRA), ("rx_filter.alluni", True)),
        (without(Feature.CTRL_RX_EXTRA), ("rx_filter.nobcast", True)),
        (without(Feature.CTRL_VLAN), ("rx_filter.vlans", [1])),
        (without(Feature.CTRL_MAC_ADDR), ("mac", "02aa00000001")),
        (without(Feature.GUEST_ANNOUNCE), ("announce", True)),
        (without(Feature.STATUS), ("announce", True)),
        (without(Feature.CTRL_GUEST_OFFLOADS), ("guest_offloads", 0)),
        (without(Feature.GUEST_USO6), ("guest_offloads", 1 << 55 | 2)),
    ],
)
def test_what_no_negotiated_command_sets(features: int, change: tuple[str, object]) -> None:
    """Good where the feature was negotiated, refused where it was not."""
    path, new = change
    value = wire(running(features).state)
    assert not refused(value)
    assert refused(set_at(value, f"control.{path}", new))
    assert not refused(set_at(wire(running().state), f"control.{path}", new))


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("rx_filter.promisc", False),
        ("mac", "02aa00000001"),
        ("announce", True),
        ("guest_offloads", 0),
        ("steering.pairs", 2),
    ],
)
def test_nothing_is_commanded_before_driver_ok(path: str, new: object) -> None:
    source = device()
    negotiate(source, without())
    assert not refused(wire(source.state))
    assert refused(set_at(wire(source.state), f"control.{path}", new))


def test_tables_longer_than_this_device_keeps() -> None:
    source, smaller = running(max_macs=3), device(max_macs=2)
    send(source, mac_table((), tuple(map(group, range(3)))))
    with pytest.raises(StateError, match="multicast table"):
        smaller.restore(source.state)


def test_link_and_mtu_of_this_host_stay_with_it() -> None:
    """So does the operator's steering program: none of them is the driver's."""
    source, target = running(mtu=4000), device(mtu=4000)
    commit(source, source.set_link(up=False))
    commit(source, source.set_frontend_mtu(1500))
    value = wire(source.state)
    assert not {"host", "link_up", "frontend_mtu", "user_program"} & value.keys()
    commit(target, target.restore(DeviceState.from_dict(value)))
    assert target.state.host == device().state.host


def test_queue_beyond_the_last_before_the_rings_run() -> None:
    target = device()
    commit(target, target.configure_queue(ring(8)))
    assert not refused(wire(target.state))
    assert refused(set_at(wire(target.state), "queues.0.index", 9))


@pytest.mark.requirement("U-60")
def test_number_of_pairs_without_a_control_queue() -> None:
    """With MQ alone no command can have set one."""
    source, target = device(relaxed=True), device(relaxed=True)
    negotiate(source, int(Feature.VERSION_1 | Feature.MQ))
    commit(source, source.write_status(15))
    target.restore(source.state)
    with pytest.raises(StateError, match="number of pairs"):
        target.restore(
            DeviceState.from_dict(set_at(wire(source.state), "control.steering.pairs", 2))
        )


def test_device_without_an_offered_feature_refuses_a_state_that_has_it() -> None:
    source = running()
    smaller = device(offered=Feature(without(Feature.RSS)))
    with pytest.raises(StateError, match="not offered: rss"):
        smaller.restore(source.state)


@pytest.mark.requirement("U-49")
def test_counters_survive_reset_and_travel() -> None:
    target = busy()
    before = target.state.counters
    commit(target, target.reset())
    # Configuration space changes too: the MAC is the device's own again.
    assert target.state.counters == before.add(resets=1, config_changes=1)
    other = device()
    commit(other, other.restore(DeviceState.from_dict(wire(target.state))))
    assert other.state.counters == target.state.counters


def test_counters_wrap_at_64_bits() -> None:
    assert Counters(resets=2**64 - 1).add(resets=2).resets == 1
    assert len(fields(Counters)) == len(TAKEN["counters"])


def test_stale_transition_is_refused() -> None:
    target = running()
    first, second = target.control(vq_pairs(2), 1), target.control(vq_pairs(3), 1)
    target.commit(first)
    with pytest.raises(UsageError, match="stale"):
        target.commit(second)
    with pytest.raises(UsageError, match="stale"):
        target.commit(first)
    with pytest.raises(UsageError, match="stale"):
        target.refuse(second)
    assert target.state.steering.pairs == 2


def test_nothing_changes_before_commit() -> None:
    target = busy()
    before = target.state
    target.control(vq_pairs(2), 1)
    target.write_status(0)
    target.ring_broken(0)
    target.record_queue_positions({0: (1, 1)})
    target.restore(device().state)
    assert target.state is before


def test_restored_device_goes_on_where_it_was() -> None:
    source = device()
    negotiate(source, without())
    target = device()
    commit(target, target.restore(DeviceState.from_dict(wire(source.state))))
    for index in range(target.queue_count):
        commit(target, target.configure_queue(ring(index)))
    commit(target, target.write_status(15))
    assert send(target, rss()).answer == OK
