# SPDX-License-Identifier: MIT
"""Batches of frames into a real tap: bytes, order, and a tap whose send buffer has an end."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.native import Native
from tests.datapath.rig import Rig, flow_and_serial, frame_of
from tests.system.support import TIMEOUT, tap_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.netdev.netns import NetNamespace

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

TUNSETSNDBUF = 0x400454D4
SO_RCVBUFFORCE = 33
FAIL_BATCH_FULL = 10  # a site of test_hooks.h
ETH_P_ALL = 3
OURS = socket.inet_aton("192.0.2.1")
MODES = ["plain", "uring"]


@contextmanager
def listener(netns: NetNamespace, name: str) -> Iterator[socket.socket]:
    """Everything that comes in on an interface."""
    with netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as made:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        netns.call(lambda: made.bind((name, ETH_P_ALL)))
        made.settimeout(TIMEOUT)
        yield made


def received(source: socket.socket, count: int) -> list[bytes]:
    """The next ``count`` frames of ours, as an interface got them from outside."""
    frames: list[bytes] = []
    while len(frames) < count:
        try:
            data, sender = source.recvfrom(1 << 17)
        except TimeoutError:
            pytest.fail(f"{len(frames)} of {count} frames came")
        if sender[2] != socket.PACKET_OUTGOING and data[26:30] == OURS:
            frames.append(data)
    return frames


@pytest.mark.parametrize("io", MODES)
@pytest.mark.parametrize("header_length", [12, 20])
def test_short_and_long_frames_keep_their_order_and_their_bytes(
    netns: NetNamespace, monkeypatch: pytest.MonkeyPatch, io: str, header_length: int
) -> None:
    monkeypatch.setenv("PYVNET_IO", io)
    sizes = (60, 2027, 2028, 2029, 2036, 2037, 9000, 61, 30000)
    frames = [frame_of(0, i, sizes[i % len(sizes)]) for i in range(120)]
    tap = tap_in(netns, queues=1)
    with Rig(pairs=1, port=tap, queue_size=256, buffer_size=8192) as rig:
        rig.policy("automatic", header_length=header_length)
        with listener(netns, "vnet0") as source:
            for start in range(0, len(frames), 60):
                rig.send(0, *frames[start : start + 60], cut=header_length + start // 2)
                assert received(source, 60) == frames[start : start + 60]
                rig.wait_sent(0, 60)
        assert (rig.stats(0).tx_packets, rig.stats(0).tx_drops) == (120, 0)


@contextmanager
def slow_bridge(netns: NetNamespace) -> Iterator[socket.socket]:
    """What comes from the tap leaves by a thin pipe; the far end of it.

    A frame that waits for its turn there is still in the tap's send buffer.
    """
    for command in (
        "ip link add far type veth peer name near",
        "ip link add bridge type bridge",
        "ip link set vnet0 master bridge",
        "ip link set near master bridge",
        "tc qdisc add dev near root tbf rate 40mbit burst 4000 limit 10000000",
        "ip link set far up",
        "ip link set near up",
        "ip link set bridge up",
    ):
        netns.run(command.split())
    until_forwarding(netns, "vnet0", "near")
    with listener(netns, "far") as source:
        yield source


def until_forwarding(netns: NetNamespace, *ports: str) -> None:
    """A bridge forwards once the kernel's link watch has seen the carrier, some time later."""
    deadline = time.monotonic() + TIMEOUT
    for port in ports:
        state = ""
        while state != "forwarding":
            assert time.monotonic() < deadline, f"{port} is {state}"
            shown = netns.run(["ip", "-d", "-j", "link", "show", port], stdout=subprocess.PIPE)
            state = json.loads(shown.stdout)[0]["linkinfo"]["info_slave_data"]["state"]


def set_send_buffer(fd: int, size: int) -> None:
    fcntl.ioctl(fd, TUNSETSNDBUF, struct.pack("i", size))


@pytest.mark.parametrize("io", MODES)
@pytest.mark.parametrize("when", ["from the start", "in between"])
def test_a_send_buffer_with_an_end_loses_nothing(
    netns: NetNamespace, monkeypatch: pytest.MonkeyPatch, io: str, when: str
) -> None:
    """In order, but for the one batch that met the new end first."""
    monkeypatch.setenv("PYVNET_IO", io)
    tap = tap_in(netns, queues=1)
    with (
        Rig(pairs=1, port=tap, queue_size=256, buffer_size=4096) as rig,
        slow_bridge(netns) as far,
    ):
        rig.policy("automatic", header_length=12)
        serial = 0

        def burst(count: int) -> list[int]:
            nonlocal serial
            rig.send(0, *(frame_of(0, serial + i, 1000) for i in range(count)))
            serial += count
            found = [flow_and_serial(frame)[1] for frame in received(far, count)]
            rig.wait_sent(0, count)
            return found

        if when == "in between":
            assert burst(32) == list(range(32))
        set_send_buffer(tap.fds[0], 6000)
        first = serial
        found = burst(32)
        assert sorted(found) == list(range(first, serial))
        if when == "from the start" or io == "plain":
            assert found == sorted(found)
        first = serial
        assert burst(120) == list(range(first, serial))
        assert (rig.stats(0).tx_packets, rig.stats(0).tx_drops) == (serial, 0)


@pytest.mark.parametrize("missed", [1, 5, 63, 64])
def test_a_frame_that_found_no_room_in_the_middle_of_a_batch_follows_it(
    netns: NetNamespace, monkeypatch: pytest.MonkeyPatch, native_hooks: tuple[Any, Any], missed: int
) -> None:
    """Sent late, once; from then on one frame waits for the other."""
    monkeypatch.setenv("PYVNET_IO", "uring")
    hooks = Native(*native_hooks)
    with (
        Rig(pairs=1, port=tap_in(netns, queues=1), queue_size=256, native=hooks) as rig,
        listener(netns, "vnet0") as source,
    ):
        rig.policy("automatic", header_length=12)
        hooks.lib.vnet_test_fail(FAIL_BATCH_FULL, missed)
        rig.send(0, *(frame_of(0, serial) for serial in range(128)))
        found = [flow_and_serial(frame)[1] for frame in received(source, 128)]
        late = missed - 1
        batch = [serial for serial in range(64) if serial != late]
        assert found == [*batch, late, *range(64, 128)]
        rig.wait_sent(0, 128)
        hooks.lib.vnet_test_fail(FAIL_BATCH_FULL, 1)  # nobody asks any more
        rig.send(0, *(frame_of(0, serial) for serial in range(64)))
        assert [flow_and_serial(frame)[1] for frame in received(source, 64)] == list(range(64))
        hooks.lib.vnet_test_fail(FAIL_BATCH_FULL, 0)
        rig.wait_sent(0, 64)
        assert (rig.stats(0).tx_packets, rig.stats(0).tx_drops) == (192, 0)
