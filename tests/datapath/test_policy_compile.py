# SPDX-License-Identifier: MIT
"""What the device model works out reaches the frame path field by field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyvnet.datapath.policy import Policy
from pyvnet.device.rxfilter import MODES, RxFilter
from pyvnet.device.steering import Policy as DevicePolicy
from pyvnet.reference.filter import BROADCAST, Wanted, wants
from tests.datapath.offload_cases import FRAMES, GUEST, HOST, fitting
from tests.datapath.rig import Rig, frame_of

MAC = bytes.fromhex("0200000000aa")
OTHER = bytes.fromhex("0200000000bb")
GROUP = bytes.fromhex("01005e000001")
DESTINATIONS = (MAC, OTHER, b"\2" * 6, GROUP, b"\3" * 6, BROADCAST)
TAGS = (b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x08")
ALONE = RxFilter(promisc=False, unicast=(OTHER,), multicast=(GROUP,), vlans=frozenset({7}))
SEVERAL = [
    RxFilter(),
    ALONE,
    *(replace(ALONE, **{mode: True}) for mode in MODES),  # type: ignore[arg-type]
    replace(ALONE, unicast=(), unicast_overflow=True),
    replace(ALONE, multicast=(), multicast_overflow=True),
]


@pytest.mark.requirement("U-31", "U-34", "U-36", "NET-FLT-02", "NET-VLAN-01", "NET-VLAN-02")
@pytest.mark.parametrize("vlan_filter", [False, True])
@pytest.mark.parametrize("rx_filter", SEVERAL)
def test_the_filter(rx_filter: RxFilter, vlan_filter: bool) -> None:
    said = {name: getattr(rx_filter, name) for name in MODES}
    wanted = Wanted(
        **said,
        mac=MAC,
        unicast=frozenset(rx_filter.unicast),
        multicast=frozenset(rx_filter.multicast),
        unicast_overflow=rx_filter.unicast_overflow,
        multicast_overflow=rx_filter.multicast_overflow,
        vlans=rx_filter.vlans if vlan_filter else None,
    )
    device = DevicePolicy(rx_filter=rx_filter, vlan_filter=vlan_filter, mac=MAC)
    with Policy.compile(device) as policy:
        for destination in DESTINATIONS:
            for tag in TAGS:
                frame = destination + frame_of(1)[6:12] + tag + frame_of(1)[12:]
                assert policy.passes(frame) is wants(wanted, frame)


@pytest.mark.requirement("OUR-OFL-05", "NET-CFG-05")
@pytest.mark.parametrize(("guest", "host"), [(0, int(HOST)), (int(GUEST), 0)])
def test_the_mtu_and_the_offloads_of_either_direction(guest: int, host: int) -> None:
    frame = FRAMES["tcp4"]
    header = fitting(frame).pack()
    with Rig(pairs=1, buffers=8) as rig:
        device = DevicePolicy(mtu=100, guest_offloads=guest, host_offloads=host)
        with Policy.compile(device) as policy:
            rig.engine.set_policy(policy)
        rig.port.wire(0).send(frame, header=header)
        rig.port.wire(0).send(frame)
        rig.send(0, frame, header=header)
        rig.wait_sent(0, 1)
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 2)
        rig.rounds(lambda: rig.stats(0).rx_packets + rig.stats(0).rx_drops == 2)
        stats = rig.stats(0)
        assert (stats.rx_drop_mtu, stats.rx_drop_offload) == (1, not guest)
        assert len(rig.take(0)) == bool(guest)
        assert (stats.tx_packets, stats.tx_drop_malformed) == (bool(host), not host)
