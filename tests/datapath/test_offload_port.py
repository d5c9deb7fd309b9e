# SPDX-License-Identifier: MIT
"""A policy whose offloads the host port refuses changes nothing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.native import Native
from pyvnet.errors import HostError
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.transport import receiveq
from tests.datapath.offload_cases import FRAMES, GUEST, fitting
from tests.datapath.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT_OFFLOADS = 7  # enum vnet_fail_site
CSUM = Feature.GUEST_CSUM
TSO4 = CSUM | Feature.GUEST_TSO4
TSO6 = CSUM | Feature.GUEST_TSO6


@pytest.fixture
def hooked(native_hooks: tuple[Any, Any]) -> Iterator[Native]:
    native = Native(*native_hooks)
    yield native
    native.lib.vnet_test_fail(PORT_OFFLOADS, 0)


def sees(rig: Rig, name: str) -> bool:
    """Whether a frame to be segmented reaches the driver."""
    before = rig.totals()
    rig.port.wire(0).send(FRAMES[name], header=fitting(FRAMES[name]).pack())
    rig.rounds(
        lambda: (
            rig.totals().rx_packets + rig.totals().rx_drops
            == before.rx_packets + before.rx_drops + 1
        )
    )
    for pair in range(rig.pairs):
        rig.engine.queue_state(receiveq(pair))  # what was counted is handed over
    return bool(rig.take_all())


@pytest.mark.requirement("OUR-OFL-05", "U-41")
@pytest.mark.parametrize("countdown", [1, 2])
@pytest.mark.parametrize("workers", [2, 1])
def test_offloads_refused_leave_the_old_policy_in_force(
    hooked: Native, countdown: int, workers: int
) -> None:
    """Before the swap (what goes is taken back) and after it (what comes is asked for)."""
    with Rig(pairs=2, workers=workers, buffers=16, native=hooked) as rig:
        rig.policy("automatic", pairs=1, port_queues=1, guest_offloads=TSO4)
        hooked.lib.vnet_test_fail(PORT_OFFLOADS, countdown)
        with pytest.raises(HostError) as raised:
            rig.policy("automatic", guest_offloads=TSO6)
        assert raised.value.errno == errno.EIO
        hooked.lib.vnet_test_fail(PORT_OFFLOADS, 0)
        assert sees(rig, "tcp4")
        assert not sees(rig, "tcp6")
        # Nothing is half done: the same policy is taken now.
        rig.policy("automatic", guest_offloads=TSO6)
        assert sees(rig, "tcp6")
        assert not sees(rig, "tcp4")
        rig.port.wire(1).send(FRAMES["udp4"])
        (got,) = rig.receive(1)
        assert got.queue == 1


@pytest.mark.parametrize(
    ("first", "then", "calls"),
    [(TSO4, TSO4, 0), (CSUM, GUEST, 1), (GUEST, CSUM, 1), (TSO4, TSO6, 2), (GUEST, 0, 1)],
)
def test_the_host_port_is_told_only_what_changes(
    hooked: Native, first: int, then: int, calls: int
) -> None:
    with Rig(pairs=1, native=hooked) as rig:
        rig.policy(guest_offloads=first)
        hooked.lib.vnet_test_fail(PORT_OFFLOADS, calls + 1)
        rig.policy(guest_offloads=then, mtu=1500)
        if calls:
            hooked.lib.vnet_test_fail(PORT_OFFLOADS, calls)
            rig.policy(guest_offloads=then)
            with pytest.raises(HostError):
                rig.policy(guest_offloads=first)


@pytest.mark.requirement("NET-RX-08")
def test_without_a_driver_no_frame_may_ask_for_anything() -> None:
    with Rig(pairs=1, buffers=4) as rig:
        assert not sees(rig, "tcp4")
        rig.port.wire(0).send(FRAMES["tcp4"], header=NetHdr(2).pack())
        (got,) = rig.receive(1)
        assert got.header == NetHdr(num_buffers=1)
