# SPDX-License-Identifier: MIT
"""GUEST_OFFLOADS_SET: what may be left undone in frames towards the driver, and since when.

The frames come in with a header that asks for a checksum or for segments, so these take a
wire that carries one.  That a header is one the driver agreed to is also looked at by the
driver itself, for each frame of every case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._frames import flow
from pyvnet.driver.offload import offload
from pyvnet.reference import parse
from pyvnet.spec.ctrl import Ack, CtrlClass, GuestOffloadsCommand, pack_guest_offloads
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import HdrFlag
from pyvnet.spec.offloads import GUEST_OFFLOADS
from pyvnet.testing.frames import Ipv4, Ipv6, build, tcp, udp

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver
    from pyvnet.driver import Frame as Received

_CTRL: Final = Feature.CTRL_GUEST_OFFLOADS | Feature.GUEST_CSUM
_SEGMENT: Final = 1000
_PORTS: Final = (1, 2)
_PAYLOAD: Final = bytes(i & 0xFF for i in range(3000))


@dataclass(frozen=True)
class _Burst:
    """A frame to be segmented, and the guest feature that lets it come so."""

    name: str
    version: int
    feature: Feature
    frame: bytes


_BURSTS: Final = (
    _Burst("TCPv4", 4, Feature.GUEST_TSO4, bytes(build(Ipv4(), tcp(*_PORTS, _PAYLOAD)))),
    _Burst("TCPv6", 6, Feature.GUEST_TSO6, bytes(build(Ipv6(), tcp(*_PORTS, _PAYLOAD)))),
    _Burst("UDPv4", 4, Feature.GUEST_USO4, bytes(build(Ipv4(), udp(*_PORTS, _PAYLOAD)))),
    _Burst("UDPv6", 6, Feature.GUEST_USO6, bytes(build(Ipv6(), udp(*_PORTS, _PAYLOAD)))),
)


async def _agreed(t: Trial) -> tuple[Driver, list[_Burst]]:
    """A driver with every guest offload of the device, and the bursts that may come to it."""
    if not t.wire.carries_header:
        t.not_applicable(f"{t.wire.describe()} carries no virtio header")
    offered = t.offered & GUEST_OFFLOADS
    bursts = [burst for burst in _BURSTS if burst.feature & offered]
    features = _CTRL
    for burst in bursts:
        features |= burst.feature
    drv = await t.negotiate(features, pairs=1, rx_buffers=16)
    return drv, bursts


def _mask(drv: Driver) -> int:
    return int(drv.features & GUEST_OFFLOADS)


async def _burst(t: Trial, drv: Driver, burst: _Burst) -> list[Received]:
    """Let a burst in, and a frame behind it; what comes of the burst, whole or in segments."""
    ready = offload(burst.frame, gso_size=_SEGMENT)
    last = flow(0, 30)
    await t.inject(ready.frame, ready.header.pack())
    await t.inject(last)
    came = []
    while (seen := await t.receive(drv)).data != last:
        parsed = parse(seen.data)
        if (parsed.l3, parsed.sport, parsed.dport) == (burst.version, *_PORTS):
            came.append(seen)
    return came


async def _comes(t: Trial, drv: Driver, burst: _Burst, when: str) -> None:
    """It comes, whole and to be segmented, or in segments: an offload permits, and no more."""
    came = await _burst(t, drv, burst)
    whole = [frame for frame in came if frame.header.gso_type]
    if not whole:
        segments = -(-len(_PAYLOAD) // _SEGMENT)
        t.equal(len(came), segments, f"{burst.name} segments that come {when}")
        t.note(f"the burst of {burst.name} came in segments {when}")
        return
    t.equal(len(came), 1, f"frames that come of a whole burst of {burst.name} {when}")
    header = whole[0].header
    told = (header.flags & HdrFlag.NEEDS_CSUM, header.gso_size)
    t.equal(told, (HdrFlag.NEEDS_CSUM, _SEGMENT), f"NEEDS_CSUM and gso_size {when}")
    t.equal(whole[0].data, offload(burst.frame, gso_size=_SEGMENT).frame, f"the burst {when}")


async def _not_whole(t: Trial, drv: Driver, burst: _Burst, when: str) -> None:
    whole = [frame for frame in await _burst(t, drv, burst) if frame.header.gso_type]
    t.check(not whole, f"a burst of {burst.name} comes whole {when}")


@case("NET-OFL-01", "NET-RX-12", needs=_CTRL, wire=True, control=True)
async def offloads_begin_switched_on(t: Trial) -> None:
    """What was negotiated is on before any command: bursts come."""
    drv, bursts = await _agreed(t)
    if not bursts:
        t.not_applicable("the device offers no segmentation offload to the driver")
    for burst in bursts:
        await _comes(t, drv, burst, "before any command")


@case("NET-OFL-02", "NET-RX-07", "OUR-OFL-05", needs=_CTRL, wire=True, control=True)
async def offloads_switch_one_by_one(t: Trial) -> None:
    """SET replaces the mask: each offload left out ends, the others stay, and it comes back."""
    drv, bursts = await _agreed(t)
    if not bursts:
        t.not_applicable("the device offers no segmentation offload to the driver")
    for off in bursts:
        await drv.ctrl.guest_offloads_set(_mask(drv) & ~int(off.feature))
        for burst in bursts:
            if burst is not off:
                await _comes(t, drv, burst, f"with {off.feature.name} off")
        await _not_whole(t, drv, off, "with its offload off")
        await drv.ctrl.guest_offloads_set(_mask(drv))
        await _comes(t, drv, off, "after it was switched on again")


@case("NET-OFL-02", "NET-RX-05", "NET-RX-06", "NET-RX-08", needs=_CTRL, wire=True, control=True)
async def no_offloads_leave_plain_frames(t: Trial) -> None:
    """With a mask of 0 a checksum left to the device is complete, and flags and gso_type are 0."""
    drv, _ = await _agreed(t)
    whole = [bytes(build(ip, l4(9, 10, b"sum"))) for ip in (Ipv4(), Ipv6()) for l4 in (tcp, udp)]
    await drv.ctrl.guest_offloads_set(0)
    for frame in whole:
        ready = offload(frame)
        await t.inject(ready.frame, ready.header.pack())
        while len((seen := await t.receive(drv)).data) != len(frame):
            pass
        t.equal((seen.header.flags, seen.header.gso_type), (0, 0), "flags and gso_type")
        t.equal(seen.data.hex(), frame.hex(), "the frame with its checksum")


@case("NET-OFL-02", "NET-RX-11", needs=_CTRL, wire=True, control=True)
async def checksums_are_left_to_the_driver_again(t: Trial) -> None:
    """Switched off and on, GUEST_CSUM lets frames come with NEEDS_CSUM and what completes it."""
    drv, _ = await _agreed(t)
    frame = bytes(build(Ipv4(), udp(9, 10, b"sum")))
    ready = offload(frame)
    for mask in (0, _mask(drv)):
        await drv.ctrl.guest_offloads_set(mask)
        await t.inject(ready.frame, ready.header.pack())
        while len((seen := await t.receive(drv)).data) != len(frame):
            pass
        flags = seen.header.flags & HdrFlag.NEEDS_CSUM
        if not flags:  # a device may complete what it may leave undone
            t.equal(seen.data.hex(), frame.hex(), f"the frame with offloads {mask:#x}")
            continue
        t.check(bool(mask), "NEEDS_CSUM is set with GUEST_CSUM off")
        places = (seen.header.csum_start, seen.header.csum_offset)
        t.equal(places, (34, 6), "csum_start and csum_offset of UDP over IPv4")
        t.equal(seen.data.hex(), ready.frame.hex(), "the frame with NEEDS_CSUM")


@case("NET-OFL-03", "U-39", "OUR-CVQ-06", needs=_CTRL, wire=True, control=True)
async def offloads_not_negotiated_are_refused(t: Trial) -> None:
    """A mask with a bit that was not negotiated is answered ERR, and the mask in force stays."""
    drv, bursts = await _agreed(t)
    if not bursts:
        t.not_applicable("the device offers no segmentation offload to the driver")
    on, off = bursts[0], bursts[-1]
    mask = _mask(drv) & ~int(off.feature) if on is not off else _mask(drv)
    await drv.ctrl.guest_offloads_set(mask)
    foreign = [bit for bit in (0, 2, 10, 11, 46, 47, 61, 63) if not _mask(drv) >> bit & 1]
    for bit in foreign:
        ack = await drv.ctrl.guest_offloads_set(_mask(drv) | 1 << bit, check=False)
        t.equal(ack, Ack.ERR, f"answer to a mask with bit {bit}")
        await _comes(t, drv, on, f"after bit {bit} was refused")
        if on is not off:
            await _not_whole(t, drv, off, f"after a mask with bit {bit}")


@case("NET-OFL-03", "OUR-CVQ-06", needs=_CTRL | Feature.GUEST_TSO4, control=True)
async def offloads_offered_but_not_negotiated_are_refused(t: Trial) -> None:
    """A mask with GUEST_TSO4 is answered ERR where the driver did not accept it."""
    drv = await t.negotiate(_CTRL | Feature.CTRL_VQ)
    ack = await drv.ctrl.guest_offloads_set(
        int(Feature.GUEST_CSUM | Feature.GUEST_TSO4), check=False
    )
    t.equal(ack, Ack.ERR, "answer to a mask with GUEST_TSO4")


@case("NET-OFL-03", "U-04", "OUR-CVQ-06", needs=_CTRL, wire=True, control=True)
async def a_cut_mask_changes_nothing(t: Trial) -> None:
    """GUEST_OFFLOADS_SET with less than 8 bytes is refused, and bursts come as before."""
    drv, bursts = await _agreed(t)
    for length in range(8):
        cut = pack_guest_offloads(0)[:length]
        ack = await drv.ctrl.raw(
            CtrlClass.GUEST_OFFLOADS, GuestOffloadsCommand.SET, cut, check=False
        )
        t.equal(ack, Ack.ERR, f"answer to {length} bytes of a mask")
    for burst in bursts:
        await _comes(t, drv, burst, "after cut masks were refused")


@case("NET-OFL-01", "U-59", needs=_CTRL, wire=True, control=True)
async def reset_switches_offloads_on(t: Trial) -> None:
    """What a driver switched off is on for the next."""
    drv, bursts = await _agreed(t)
    if not bursts:
        t.not_applicable("the device offers no segmentation offload to the driver")
    await drv.ctrl.guest_offloads_set(0)
    await drv.negotiate(drv.features, pairs=1, rx_buffers=16)
    await t.started(drv)
    for burst in bursts:
        await _comes(t, drv, burst, "after a reset")


@case("U-39", "NET-OFL-03", needs=_CTRL, control=True)
async def every_mask_of_what_was_negotiated_is_taken(t: Trial) -> None:
    """Each offload alone, all, and none are answered OK."""
    drv = await t.negotiate(
        _CTRL | t.offered & (Feature.GUEST_TSO4 | Feature.GUEST_TSO6), pairs=1, rx_buffers=8
    )
    bits = [1 << bit for bit in range(64) if _mask(drv) >> bit & 1]
    for mask in (*bits, 0, _mask(drv)):
        ack = await drv.ctrl.guest_offloads_set(mask, check=False)
        t.equal(ack, Ack.OK, f"answer to a mask of {mask:#x}")
