# SPDX-License-Identifier: MIT
"""Guest memory whose owner punches holes into it, as balloons and free page reporting do."""

from __future__ import annotations

import mmap
import socket
from typing import TYPE_CHECKING

import pytest

from pyvnet.datapath.config import EngineConfig
from pyvnet.driver import Buffer
from pyvnet.spec.features import Feature
from tests.datapath.rig import Received, Rig
from tests.system.support import tap_in

if TYPE_CHECKING:
    from pyvnet.netdev.netns import NetNamespace

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

PAGE = mmap.PAGESIZE
HEAD = bytes.fromhex("020000000001 020000000002 88b5")


def sent(wire: socket.socket, serial: int, size: int, count: int) -> list[bytes]:
    frames = [HEAD + bytes([serial + i]) * size for i in range(count)]
    for frame in frames:
        wire.send(frame)
    return frames


def taken(rig: Rig, count: int) -> list[bytes]:
    """As many frames of ours as were sent; the kernel has some of its own."""
    found: list[Received] = []

    def enough() -> bool:
        found.extend(frame for frame in rig.take(0) if frame.data.startswith(HEAD))
        return len(found) >= count

    rig.wait(enough)
    return [frame.data for frame in found]


@pytest.mark.requirement("U-63")
@pytest.mark.parametrize("pin", [False, True], ids=["as usual", "pinning asked for"])
@pytest.mark.parametrize("io", ["plain", "auto"])
@pytest.mark.parametrize(("size", "count"), [(1400, 32), (30000, 8)])
def test_frames_after_a_hole_was_punched_are_seen_whole(
    netns: NetNamespace, io: str, pin: bool, size: int, count: int
) -> None:
    config = EngineConfig(io=io, pin_guest_memory=pin)
    with Rig(
        pairs=1, port=tap_in(netns, queues=1), queue_size=128, buffer_size=PAGE, config=config
    ) as rig:
        rig.policy("automatic", guest_offloads=Feature.GUEST_CSUM)
        netns.run(["ip", "link", "set", "vnet0", "mtu", "65521", "up"])
        at = rig.memory.alloc(128 * PAGE, align=PAGE)
        queue = rig.receiveq(0)
        for gpa in range(at, at + 128 * PAGE, PAGE):
            buffer = Buffer(gpa, PAGE, writable=True)
            queue.ring.add([buffer], buffer)
        queue.publish()
        region = rig.memory.regions[0]
        wire = netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        with wire, mmap.mmap(region.fd, region.size, offset=region.mmap_offset) as owner:
            wire.bind(("vnet0", 0))
            for serial in range(0, 4 * count, count):
                frames = sent(wire, serial, size, count)
                assert taken(rig, count) == frames
                owner.madvise(mmap.MADV_REMOVE, at - region.gpa, 128 * PAGE)
                # The kernel may have sent a frame of its own meanwhile.
                assert HEAD not in rig.memory.read(at, 128 * PAGE)
        assert bool(rig.stats(0).rx_direct) is (size > PAGE)
        assert rig.engine.info().pinned is False
        assert bool(rig.engine.info().pin_reason) is pin
