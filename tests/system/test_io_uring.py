# SPDX-License-Identifier: MIT
"""A tap by io_uring and by plain calls: no driver can tell which, and refusals are said."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Tap
from pyvnet.datapath.config import EngineConfig
from pyvnet.datapath.engine import BreakReason, Engine, PortGone
from pyvnet.datapath.native import Native
from pyvnet.errors import HostError
from pyvnet.runtime import report
from tests.datapath.rig import DEADLINE, Rig, flow_and_serial, frame_of, ordered
from tests.system.support import tap_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyvnet.netdev.netns import NetNamespace
    from tests.datapath.rig import Received

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

BOTH = pytest.mark.parametrize("io", ["plain", "uring"])
FAIL_MMAP, FAIL_URING, FAIL_URING_ENTER = 1, 8, 9
STEPS = ("io_uring_setup", "lacks an operation", "bounce pages", "queues of the host port")


@pytest.fixture
def kernel(netns: NetNamespace) -> Iterator[socket.socket]:
    """Sends frames out of the tap's far side, once ``wire_up`` has bound it."""
    made = netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    with made:
        yield made


def wire_up(netns: NetNamespace, kernel: socket.socket) -> None:
    netns.run(["ip", "link", "set", "vnet0", "up"])
    kernel.bind(("vnet0", 0))


def ours(found: Sequence[Received]) -> list[Received]:
    """Without what the kernel itself has to say."""
    return [got for got in found if got.data[12:14] == b"\x08\x00"]


def receive(rig: Rig, count: int) -> list[Received]:
    frames: list[Received] = []

    def enough() -> bool:
        frames.extend(ours(rig.take_all()))
        return len(frames) >= count

    rig.wait(enough)
    return frames


@BOTH
def test_frames_come_whole_and_in_order(
    netns: NetNamespace, kernel: socket.socket, io: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVNET_IO", io)
    sent = [frame_of(0, serial, 60 + serial * 37 % 1400) for serial in range(300)]
    with Rig(pairs=1, port=tap_in(netns, queues=1), queue_size=512, buffers=400) as rig:
        rig.policy("automatic")
        wire_up(netns, kernel)
        assert rig.engine.info().io == io
        for frame in sent:
            kernel.send(frame)
        assert [got.data for got in receive(rig, len(sent))] == sent
        rig.assert_counters_add_up()


@BOTH
@pytest.mark.requirement("U-43", "NET-RX-02")
def test_a_batch_longer_than_the_ring_waits_and_loses_nothing(
    netns: NetNamespace, kernel: socket.socket, io: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVNET_IO", io)
    sent = [frame_of(0, serial, (60, 1400, 700)[serial % 3]) for serial in range(300)]
    with Rig(
        pairs=1, port=tap_in(netns, queues=1), queue_size=64, buffer_size=512, buffers=64
    ) as rig:
        rig.policy("automatic")
        wire_up(netns, kernel)
        for frame in sent[:100]:
            kernel.send(frame)
        # The ring is used up in the middle of what came; each look gives some of it back.
        rig.rounds(lambda: rig.stats(0).rx_packets >= 20)
        for frame in sent[100:]:
            kernel.send(frame)
        assert [got.data for got in receive(rig, len(sent))] == sent
        rig.assert_counters_add_up()


@BOTH
@pytest.mark.requirement("U-41")
def test_frames_held_are_judged_by_the_policy_that_holds_when_there_are_buffers(
    netns: NetNamespace, kernel: socket.socket, io: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVNET_IO", io)
    count = 40
    with Rig(pairs=1, port=tap_in(netns, queues=1), queue_size=64, buffers=20) as rig:
        rig.policy("automatic")
        wire_up(netns, kernel)
        for serial in range(count):
            kernel.send(frame_of(0, serial, 200))
        rig.rounds(lambda: rig.stats(0).rx_packets == 20)
        rig.policy("automatic", mtu=150)
        rig.fill(0, 40)
        rig.receiveq(0).kick()
        rig.rounds(lambda: rig.stats(0).rx_drop_mtu >= count - 20)
        assert len(ours(rig.take(0))) <= 20
        rig.assert_counters_add_up()


@BOTH
def test_frames_for_other_workers_keep_their_order(
    netns: NetNamespace, kernel: socket.socket, io: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVNET_IO", io)
    with Rig(pairs=4, port=tap_in(netns), queue_size=512, buffers=400, handoff_slots=1024) as rig:
        rig.policy()
        wire_up(netns, kernel)
        for serial in range(40):
            for flow in range(8):
                kernel.send(frame_of(flow, serial, 60 + 100 * flow))
        found = receive(rig, 320)
        assert ordered(found) == {flow: list(range(40)) for flow in range(8)}
        assert all(len(got.data) == 60 + 100 * flow_and_serial(got.data)[0] for got in found)
        rig.barrier()
        assert rig.totals().rx_handoffs > 0
        rig.assert_counters_add_up()


def test_memory_is_replaced_and_taken_away_while_frames_go_both_ways(
    netns: NetNamespace, kernel: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is unmapped once its successor is in force: nobody may still read or write there."""
    monkeypatch.setenv("PYVNET_IO", "uring")
    count = 40
    with Rig(
        pairs=1, port=tap_in(netns, queues=1), queue_size=256, buffer_size=8192, buffers=100
    ) as rig:
        rig.policy("automatic")
        netns.run(["ip", "link", "set", "vnet0", "mtu", "9000"])
        wire_up(netns, kernel)
        assert rig.engine.info().io == "uring"
        for start in range(0, 30 * count, count):
            serials = range(start, start + count)
            # Short ones are copied, long ones come and go where they lie in guest memory.
            low, step = ((60, 37), (5000, 97))[start // count % 2]
            sent = [frame_of(0, serial, low + serial * step % 1400) for serial in serials]
            rig.send(0, *sent)
            for frame in sent:
                kernel.send(frame)
                if flow_and_serial(frame)[1] % 8 == 0:
                    rig.swap_memory()
            assert [got.data for got in receive(rig, count)] == sent
            rig.wait_sent(0, count)
        before = rig.totals()
        assert (before.tx_packets, before.tx_drops) == (30 * count, 0)
        rig.send(0, *(frame_of(0, serial, 3000) for serial in range(count)))
        for serial in range(count):
            kernel.send(frame_of(0, serial))
        rig.engine.clear_memory()
        for serial in range(count):
            kernel.send(frame_of(0, serial))
        rig.rounds(lambda: rig.totals().rx_port_frames >= before.rx_port_frames + 2 * count)
        assert {rig.engine.queue_state(index).broken for index in (0, 1)} == {
            BreakReason.RING_ADDRESS
        }
        rig.assert_counters_add_up()


def test_a_tap_deleted_in_the_middle_of_its_traffic_is_gone_and_nothing_else(
    netns: NetNamespace, kernel: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVNET_IO", "uring")
    with Rig(pairs=1, port=tap_in(netns, queues=1), queue_size=512, buffers=400) as rig:
        rig.policy("automatic")
        wire_up(netns, kernel)
        for serial in range(300):
            kernel.send(frame_of(0, serial))
        netns.run(["ip", "link", "del", "vnet0"])
        assert select.select([rig.engine.event_fd], [], [], DEADLINE)[0]
        assert rig.engine.next_event() == PortGone(0)
        rig.barrier()
        rig.assert_counters_add_up()


def test_a_batch_the_kernel_does_not_take_is_taken_later(
    netns: NetNamespace,
    kernel: socket.socket,
    native_hooks: tuple[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYVNET_IO", "uring")
    native = Native(*native_hooks)
    with Rig(
        pairs=1, port=tap_in(netns, queues=1), queue_size=512, buffers=400, native=native
    ) as rig:
        rig.policy("automatic")
        wire_up(netns, kernel)
        try:
            for start in range(0, 200, 20):
                native.lib.vnet_test_fail(FAIL_URING_ENTER, 1 + start // 20 % 3)
                for serial in range(start, start + 20):
                    kernel.send(frame_of(0, serial))
                found = receive(rig, 20)
                assert [flow_and_serial(got.data)[1] for got in found] == list(
                    range(start, start + 20)
                )
        finally:
            native.lib.vnet_test_fail(FAIL_URING_ENTER, 0)
        rig.assert_counters_add_up()


@pytest.mark.parametrize("call", range(1, len(STEPS) + 1))
def test_what_is_refused_is_said_and_auto_does_without(
    netns: NetNamespace,
    kernel: socket.socket,
    native_hooks: tuple[Any, Any],
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native = Native(*native_hooks)
    native.lib.vnet_test_fail(FAIL_URING, call)
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with pytest.raises(HostError, match=STEPS[call - 1]) as refused:
            Engine(
                pairs=1,
                port_type="null",
                port_fds=[fd],
                config=EngineConfig(io="uring"),
                native=native,
            )
        assert refused.value.cure
    finally:
        os.close(fd)
    monkeypatch.setenv("PYVNET_IO", "auto")
    native.lib.vnet_test_fail(FAIL_URING, call)
    with Rig(pairs=1, port=tap_in(netns, queues=1), buffers=60, native=native) as rig:
        info = rig.engine.info()
        assert info.io == "plain"
        assert STEPS[call - 1] in info.io_reason
        rig.policy("automatic")
        wire_up(netns, kernel)
        for serial in range(20):
            kernel.send(frame_of(0, serial))
        assert len(receive(rig, 20)) == 20


@pytest.mark.parametrize("refused", range(4))
def test_workers_may_be_refused_it_one_by_one(
    netns: NetNamespace, kernel: socket.socket, native_hooks: tuple[Any, Any], refused: int
) -> None:
    """Whichever it is, the others use it, status tells, and frames come over all of them."""
    native = Native(*native_hooks)
    native.lib.vnet_test_fail(FAIL_URING, 1 + refused * len(STEPS))
    config = EngineConfig(io="auto")
    with Rig(port=tap_in(netns), buffers=60, config=config, native=native) as rig:
        shown = report.engine(rig.engine)
        assert (shown["workers"], shown["io"]) == (4, "mixed")
        uring = shown["io_uring"]
        assert (uring["available"], uring["workers"]) == (False, 3)
        assert uring["reason"].startswith("1 of 4 workers go without: io_uring_setup() is refused")
        assert uring["cure"]
        rig.policy()
        wire_up(netns, kernel)
        for flow in range(64):
            kernel.send(frame_of(flow))
        assert {got.queue for got in receive(rig, 64)} == {0, 1, 2, 3}
        rig.assert_counters_add_up()


SCENE = """
import ctypes, os, resource, struct, sys
from pyvnet.datapath.config import EngineConfig
from pyvnet.datapath.engine import Engine
from pyvnet.errors import HostError
from pyvnet.netdev import Tap, netns

assert netns.enter_private_netns() is None
libc = ctypes.CDLL(None, use_errno=True)

def without_io_uring():
    # BPF: A = nr; 425 … 427 are EPERM
    code = [(0x20, 0, 0, 0), (0x35, 0, 2, 425), (0x25, 1, 0, 427),
            (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    text = b"".join(struct.pack("HBBI", *one) for one in code)
    room = ctypes.create_string_buffer(text)
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(room))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())

def without_locked_memory(limit=0):
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    os.setresuid(65534, 65534, 65534)

with Tap("vnet0", queues=4) as tap:
    {act}
    def engine(io):
        return Engine(pairs=4, port_type="tap", port_fds=tap.fds, config=EngineConfig(io=io))
    made = engine("auto")
    info = made.info()
    print(info.io, info.uring_workers, info.io_reason, sep="|")
    made.close()
    try:
        engine("uring")
    except HostError as error:
        print(error)
    plain = engine("plain")
    print(plain.info().io, plain.info().io_reason, sep="|")
    plain.close()
"""


@pytest.mark.parametrize(
    ("act", "made", "step", "cure"),
    [
        (
            "without_io_uring()",
            "plain|0",
            "io_uring_setup() is refused: Operation not permitted",
            "set kernel.io_uring_disabled=0 and allow io_uring in the seccomp profile",
        ),
        (
            "without_locked_memory()",
            "plain|0",
            "io_uring_setup() is refused: Cannot allocate memory",
            "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a systemd unit)",
        ),
        (
            "without_locked_memory(6 << 20)",
            "mixed|2",
            "bounce pages cannot be registered: Cannot allocate memory",
            "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a systemd unit)",
        ),
    ],
)
def test_an_engine_that_may_not_use_io_uring_says_why_and_goes_on(
    act: str, made: str, step: str, cure: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCENE.replace("{act}", act)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{made}|{step}",
        f"io_uring is not to be had: {step}; {cure}",
        "plain|",
    ]


def test_a_tap_is_free_again_as_soon_as_its_engine_is_closed(
    netns: NetNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring that is only closed would hold its files some time longer."""
    monkeypatch.setenv("PYVNET_IO", "uring")
    place = f"/proc/self/fd/{netns.fileno()}"
    with Tap("vnet0", queues=1, netns=place, persist=True) as keeper:
        name = keeper.name
    for _ in range(10):
        with Tap(name, queues=1, netns=place) as tap:
            engine = Engine(
                pairs=1, port_type="tap", port_fds=tap.fds, config=EngineConfig(io="uring")
            )
            engine.close()
    netns.run(["ip", "link", "del", name])
