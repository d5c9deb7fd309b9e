# SPDX-License-Identifier: MIT
"""Filters, links and offloads, asked for by the driver and kept by the device, both ways."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from pyvnet import Device, Driver, Feature, Pair
from pyvnet.driver import CommandError
from pyvnet.driver.offload import offload
from pyvnet.errors import UsageError
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import features_from_names
from pyvnet.spec.net_hdr import HdrFlag, NetHdr
from pyvnet.testing.frames import Ipv4, Ipv6, Vlan, build, tcp, udp
from tests.driver.test_against_device import Setting
from tests.driver.ways import WITHIN, Way, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FEATURES = features_from_names(
    "version_1,mac,mrg_rxbuf,ctrl_vq,status,ctrl_rx,ctrl_rx_extra,ctrl_vlan,ctrl_mac_addr,"
    "guest_announce,ctrl_guest_offloads,csum,guest_csum,host_tso4,host_tso6,host_ecn,host_uso,"
    "guest_tso4,guest_tso6,guest_ecn,guest_uso4,guest_uso6"
)
MAC = "52:54:00:c0:ff:ee"
OTHER, THIRD = "52:54:00:ba:da:55", "52:54:00:00:00:03"
GROUP, OTHER_GROUP = "01:00:5e:00:00:01", "01:00:5e:00:00:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"
EVERYONE = (MAC, OTHER, THIRD, GROUP, OTHER_GROUP, BROADCAST)
PAYLOAD = bytes(i & 0xFF for i in range(4000))


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@asynccontextmanager
async def running(way: Way, features: Feature = FEATURES) -> AsyncIterator[Setting]:
    port = Pair(1)
    async with (
        Device(netdev=port, features=FEATURES, mac=raw(MAC)) as device,
        connected(device, way) as drv,
    ):
        await drv.negotiate(features)
        yield Setting(device, drv, port)


async def let_through(at: Setting, *frames: bytes) -> list[int]:
    """Send frames in on the wire; which of them the driver gets, by number."""
    end = bytes(build(Ipv4(), udp(1, 1), dst=MAC))
    for frame in (*frames, end):
        at.port.wire(0).send(frame)
    seen = []
    while (got := (await at.drv.receive(WITHIN)).data) != end:
        seen.append(frames.index(got))
    return seen


async def addressed(at: Setting) -> set[str]:
    """Which of everyone's frames come through."""
    frames = [bytes(build(Ipv4(), udp(), dst=mac)) for mac in EVERYONE]
    return {EVERYONE[i] for i in await let_through(at, *frames)}


# --- filters ----------------------------------------------------------------------------


@pytest.mark.requirement("NET-FLT-01", "NET-FLT-02", "NET-FLT-10", "NET-FLT-12", "U-31")
async def test_addresses(way: Way) -> None:
    async with running(way) as at:
        assert await addressed(at) == set(EVERYONE)
        await at.drv.ctrl.rx_promisc(on=False)
        assert await addressed(at) == {MAC, BROADCAST}
        await at.drv.ctrl.mac_table_set([raw(OTHER)], [raw(GROUP)])
        assert await addressed(at) == {MAC, OTHER, GROUP, BROADCAST}
        await at.drv.ctrl.mac_table_set([], [])
        await at.drv.ctrl.rx_allmulti(on=True)
        assert await addressed(at) == {MAC, GROUP, OTHER_GROUP, BROADCAST}
        await at.drv.ctrl.rx_promisc(on=True)
        assert await addressed(at) == set(EVERYONE)


@pytest.mark.requirement("NET-FLT-04", "NET-FLT-05", "NET-FLT-06", "NET-FLT-07", "NET-FLT-08")
async def test_extra_modes(way: Way) -> None:
    async with running(way) as at:
        ctrl = at.drv.ctrl
        await ctrl.rx_promisc(on=False)
        await ctrl.rx_alluni(on=True)
        assert await addressed(at) == {MAC, OTHER, THIRD, BROADCAST}
        await ctrl.rx_nobcast(on=True)
        assert await addressed(at) == {MAC, OTHER, THIRD}
        await ctrl.rx_allmulti(on=True)
        await ctrl.rx_nomulti(on=True)
        assert await addressed(at) == {MAC, OTHER, THIRD}
        await ctrl.rx_nobcast(on=False)
        await ctrl.rx_nomulti(on=False)
        assert await addressed(at) == set(EVERYONE)
        assert await ctrl.rx_nouni(on=True) is Ack.OK
        at.port.wire(0).send(bytes(build(Ipv4(), udp(), dst=MAC)))
        at.port.wire(0).send(bytes(build(Ipv4(), udp(), dst=GROUP)))
        assert (await at.drv.receive(WITHIN)).data[:6] == raw(GROUP)


@pytest.mark.requirement("NET-VLAN-01", "NET-VLAN-02", "NET-VLAN-03", "OUR-VLAN-04", "U-34")
async def test_vlans(way: Way) -> None:
    frames = [
        bytes(build(Ipv4(), udp(), dst=MAC, vlans=[Vlan(vid)] if vid else []))
        for vid in (0, 7, 4095)
    ]
    async with running(way) as at:
        await at.drv.ctrl.rx_promisc(on=False)
        assert await let_through(at, *frames) == [0]
        await at.drv.ctrl.vlan_add(7)
        await at.drv.ctrl.vlan_add(7)
        assert await let_through(at, *frames) == [0, 1]
        await at.drv.ctrl.vlan_add(4095)
        await at.drv.ctrl.vlan_del(7)
        assert await let_through(at, *frames) == [0, 2]
        with pytest.raises(CommandError, match="VLAN_ADD"):
            await at.drv.ctrl.vlan_add(4096)
        await at.drv.negotiate(FEATURES & ~Feature.CTRL_VLAN)
        await at.drv.ctrl.rx_promisc(on=False)
        assert await let_through(at, *frames) == [0, 1, 2]


@pytest.mark.requirement("NET-FLT-11", "U-37", "U-48")
async def test_another_address(way: Way) -> None:
    async with running(way) as at:
        await at.drv.ctrl.rx_promisc(on=False)
        await at.drv.ctrl.mac_addr_set(raw(OTHER))
        assert (await at.drv.read_config()).mac == raw(OTHER)
        at.port.wire(0).send(bytes(build(Ipv4(), udp(), dst=MAC)))
        at.port.wire(0).send(bytes(build(Ipv4(), udp(), dst=OTHER)))
        assert (await at.drv.receive(WITHIN)).data[:6] == raw(OTHER)
        for bad in (GROUP, "00:00:00:00:00:00"):
            with pytest.raises(CommandError, match="MAC_ADDR_SET"):
                await at.drv.ctrl.mac_addr_set(raw(bad))
        await at.drv.negotiate(FEATURES)
        assert at.drv.config.mac == raw(MAC), "a reset brings the device's own back"


@pytest.mark.requirement("OUR-CVQ-04", "U-33")
@pytest.mark.parametrize(
    ("command", "takes"),
    [
        ((0, 0, b"\0"), Feature.CTRL_RX),
        ((0, 2, b"\1"), Feature.CTRL_RX_EXTRA),
        ((1, 0, bytes(8)), Feature.CTRL_RX),
        ((1, 1, b"\2abcde"), Feature.CTRL_MAC_ADDR),
        ((2, 0, b"\7\0"), Feature.CTRL_VLAN),
        ((3, 0, b""), Feature.GUEST_ANNOUNCE),
        ((5, 0, bytes(8)), Feature.CTRL_GUEST_OFFLOADS),
    ],
)
async def test_a_command_takes_its_feature(
    way: Way, command: tuple[int, int, bytes], takes: Feature
) -> None:
    async with running(way, FEATURES & ~takes) as at:
        assert await at.drv.ctrl.raw(*command, check=False) is Ack.ERR
        assert await addressed(at) == set(EVERYONE)


# --- link and announcements -------------------------------------------------------------


@pytest.mark.requirement("NET-LNK-01")
async def test_the_link(way: Way) -> None:
    async with running(way) as at:
        seen = [at.drv.link_up]
        for up in (False, True):
            at.device.set_link(up=up)
            await asyncio.wait_for(at.drv.wait_config_change(), WITHIN)
            seen.append(at.drv.link_up)
        assert seen == [True, False, True]


@pytest.mark.requirement("NET-ANN-01", "NET-ANN-02", "U-38")
async def test_announcements(way: Way) -> None:
    async with running(way) as at:
        asked = [at.drv.announce]
        assert at.device.announce()
        await asyncio.wait_for(at.drv.wait_config_change(), WITHIN)
        asked.append(at.drv.announce)
        await at.drv.ctrl.announce_ack()
        await at.drv.read_config()
        asked.append(at.drv.announce)
        assert asked == [False, True, False]
        await at.drv.ctrl.announce_ack()


async def test_rarp_for_a_guest_that_cannot_announce() -> None:
    async with running("vhost-user", FEATURES & ~Feature.GUEST_ANNOUNCE) as at:
        await at.drv.frontend.send_rarp(raw(OTHER))
        wired = await asyncio.wait_for(at.port.wire(0).receive(), WITHIN)
        assert wired.data[:14] == raw(BROADCAST) + raw(OTHER) + b"\x80\x35"


# --- offloads ---------------------------------------------------------------------------

BURSTS = {
    "tcp4": bytes(build(Ipv4(), tcp(payload=PAYLOAD), dst=MAC)),
    "tcp6": bytes(build(Ipv6(), tcp(payload=PAYLOAD), dst=MAC)),
    "udp4": bytes(build(Ipv4(), udp(payload=PAYLOAD), dst=MAC)),
    "udp6": bytes(build(Ipv6(), udp(payload=PAYLOAD), dst=MAC)),
    "tagged": bytes(build(Ipv4(), tcp(payload=PAYLOAD), dst=MAC, vlans=[Vlan(5)])),
}
GUEST_BIT = {
    "tcp4": Feature.GUEST_TSO4,
    "tcp6": Feature.GUEST_TSO6,
    "udp4": Feature.GUEST_USO4,
    "udp6": Feature.GUEST_USO6,
    "tagged": Feature.GUEST_TSO4,
}


def wire_burst(at: Setting, name: str) -> bytes:
    """Send a burst in on the wire, to be segmented by whoever wants segments."""
    ready = offload(BURSTS[name], gso_size=1000)
    at.port.wire(0).send(ready.frame, ready.header.pack())
    return ready.frame


@pytest.mark.requirement("NET-RX-07", "NET-RX-11", "NET-RX-12", "NET-RX-14", "NET-OFL-01")
@pytest.mark.parametrize("name", BURSTS)
@pytest.mark.parametrize("merge", [Feature.MRG_RXBUF, Feature(0)])
async def test_bursts_come_whole(way: Way, name: str, merge: Feature) -> None:
    async with running(way, FEATURES & ~Feature.MRG_RXBUF | merge) as at:
        frame = wire_burst(at, name)
        got = await at.drv.receive(WITHIN)
        assert got.data == frame
        assert (got.header.flags, got.header.gso_size) == (HdrFlag.NEEDS_CSUM, 1000)
        assert len(got.buffers) == (2 if merge else 1), "a mergeable buffer has 2 KiB"


@pytest.mark.requirement("NET-RX-08", "NET-OFL-02", "NET-OFL-03", "OUR-OFL-05", "U-39")
@pytest.mark.parametrize("name", BURSTS)
async def test_offloads_off_and_on_again(way: Way, name: str) -> None:
    everything = int(FEATURES & _switchable())
    async with running(way) as at:
        for mask, comes in ((everything & ~int(GUEST_BIT[name]), False), (everything, True)):
            await at.drv.ctrl.guest_offloads_set(mask)
            frame = wire_burst(at, name)
            last = bytes(build(Ipv4(), udp(1, 1), dst=MAC))
            at.port.wire(0).send(last)
            assert (await at.drv.receive(WITHIN)).data == (frame if comes else last)
            if comes:
                assert (await at.drv.receive(WITHIN)).data == last
        assert at.device.statistics().rx_drop_offload == 1
        with pytest.raises(CommandError, match="GUEST_OFFLOADS_SET"):
            await at.drv.ctrl.guest_offloads_set(everything | 1 << 10)


def _switchable() -> Feature:
    return features_from_names("guest_csum,guest_tso4,guest_tso6,guest_ecn,guest_uso4,guest_uso6")


@pytest.mark.requirement("NET-RX-05", "NET-RX-06", "NET-RX-11")
@pytest.mark.parametrize("name", BURSTS)
async def test_checksums_are_left_to_the_driver_or_not(way: Way, name: str) -> None:
    complete = BURSTS[name]
    ready = offload(complete)
    async with running(way) as at:
        at.port.wire(0).send(ready.frame, ready.header.pack())
        got = await at.drv.receive(WITHIN)
        assert (got.data, got.header.flags) == (ready.frame, HdrFlag.NEEDS_CSUM)
        await at.drv.ctrl.guest_offloads_set(0)
        at.port.wire(0).send(ready.frame, ready.header.pack())
        got = await at.drv.receive(WITHIN)
        assert (got.data, got.header) == (complete, NetHdr(num_buffers=len(got.buffers)))
        assert at.device.statistics().rx_csum_completed == 1


@pytest.mark.requirement("OUR-TX-12")
@pytest.mark.parametrize("name", BURSTS)
async def test_bursts_go_out_whole(way: Way, name: str) -> None:
    async with running(way) as at:
        for size in (0, 1000):
            ready = offload(BURSTS[name], gso_size=size)
            await at.drv.send_offloaded(BURSTS[name], gso_size=size)
            wired = await asyncio.wait_for(at.port.wire(0).receive(), WITHIN)
            header = NetHdr.unpack(wired.header)
            assert wired.data == ready.frame
            assert (header.gso_type, header.gso_size) == (ready.header.gso_type, size)
            assert header.csum_start == ready.header.csum_start
        assert at.device.statistics().tx_drop_malformed == 0


async def test_what_was_not_negotiated_is_not_sent(way: Way) -> None:
    async with running(way, FEATURES & ~Feature.HOST_ECN & ~Feature.HOST_TSO4) as at:
        with pytest.raises(UsageError, match="not negotiated: host_tso4"):
            await at.drv.send_offloaded(BURSTS["tcp4"], gso_size=1000, ecn=True)
        ready = offload(BURSTS["tcp4"], gso_size=1000)
        await _send_anyway(at.drv, ready.frame, ready.header)
        assert at.device.statistics().tx_drop_malformed == 1


async def _send_anyway(drv: Driver, frame: bytes, header: NetHdr) -> None:
    await drv.send(frame, header=header)
    await asyncio.wait_for(drv.flush(), WITHIN)
