# SPDX-License-Identifier: MIT
"""Status, feature bits and reset: "General Initialization And Device Operation"."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._rings import undisturbed
from pyvnet.conformance.trial import complete
from pyvnet.driver import Driver, GuestMemory, RegionSpec
from pyvnet.driver.running import Layout, Running
from pyvnet.errors import PyvnetError, UsageError
from pyvnet.spec.features import Feature, feature_names, missing_dependencies
from pyvnet.spec.status import DeviceStatus
from pyvnet.testing.frames import Ipv4, build, udp

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver.queue import DriverQueue

ELSEWHERE: Final = 0x40_0000_0000  # beyond all that a driver lays out by itself
_READY: Final = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER
# Legacy bits without a name here: GSO, NOTIFY_ON_EMPTY, ANY_LAYOUT, GUEST_RSC4 and GUEST_RSC6.
_LEGACY: Final = 1 << 6 | 1 << 24 | 1 << 27 | 1 << 41 | 1 << 42


def frame(number: int) -> bytes:
    """A frame that is like no other number's."""
    return bytes(build(Ipv4(), udp(2000 + number, 53)))


def used_idx(memory: GuestMemory, queue: DriverQueue) -> int:
    """Index of the next used element the device will write, of a split ring."""
    return int.from_bytes(memory.read(queue.setup().used_ring + 2, 2), "little")


async def accepts(drv: Driver, features: int) -> bool:
    """Write feature bits to a device that was reset; whether FEATURES_OK stays."""
    transport = drv.transport
    await transport.set_status(DeviceStatus.RESET)
    await transport.set_status(_READY)
    await transport.set_driver_features(features)
    await transport.set_status(_READY | DeviceStatus.FEATURES_OK)
    return bool(await transport.get_status() & DeviceStatus.FEATURES_OK)


# --- what is offered ------------------------------------------------------------------


@case("VIO-FEAT-05")
async def version_1_is_offered(t: Trial) -> None:
    """VERSION_1 is among the bits offered."""
    drv = await t.driver()
    offered = await drv.transport.device_features()
    t.check(offered & Feature.VERSION_1, f"offered: {', '.join(feature_names(offered))}")


@case("VIO-FEAT-01", "NET-CFG-12", "NET-CFG-13")
async def offered_bits_come_with_what_they_require(t: Trial) -> None:
    """No bit is offered without the bits it requires."""
    drv = await t.driver()
    offered = Feature(await drv.transport.device_features())
    lines = []
    for bit, lacking in missing_dependencies(offered).items():
        names = " or ".join(feature_names(lacking))
        lines.append(f"{feature_names(bit)[0]} is offered without {names}")
    t.check(not lines, "; ".join(lines))


@case("VIO-FEAT-03", "VIO-FEAT-09")
async def no_bit_is_offered_that_means_nothing_here(t: Trial) -> None:
    """Undefined bits and bits of PCI functions are not offered."""
    drv = await t.driver()
    offered = await drv.transport.device_features()
    known = _LEGACY
    for bit in Feature:
        known |= int(bit)
    known &= ~int(Feature.SR_IOV | Feature.ADMIN_VQ)
    wrong = offered & ~known
    t.check(not wrong, f"offered: {', '.join(feature_names(wrong))}")


# --- what is accepted -----------------------------------------------------------------


@case("VIO-FEAT-02", "VIO-FEAT-04")
async def every_bit_can_be_accepted_alone(t: Trial) -> None:
    """Each bit offered is accepted with no others but those it requires, and again at the end."""
    drv = await t.driver()
    refused = []
    for name in feature_names(t.offered):
        if name.upper() not in Feature.__members__:
            continue
        wanted = complete(Feature[name.upper()] | Feature.VERSION_1, t.offered)
        if not missing_dependencies(wanted & t.offered) and not await accepts(drv, wanted):
            refused.append(name)
    t.check(not refused, f"refused: {', '.join(refused)}")
    again = Feature.VERSION_1 & t.offered
    t.check(await accepts(drv, again), "what was accepted before is refused after resets")


@case("VIO-FEAT-02")
async def a_bit_that_was_not_offered_is_refused(t: Trial) -> None:
    """FEATURES_OK does not stay with a bit that is not on offer."""
    drv = await t.driver()
    for bit in (Feature.RING_PACKED, Feature.HASH_TUNNEL, Feature.STANDBY, Feature.IN_ORDER):
        if not bit & t.offered:
            taken = await accepts(drv, Feature.VERSION_1 | bit)
            t.check(not taken, f"{feature_names(bit)[0]} was accepted and not offered")
            return
    t.not_applicable("every bit that could be tried is offered")


@case("VIO-FEAT-02", needs=Feature.GUEST_TSO4 | Feature.GUEST_CSUM, level="DRV")
async def a_choice_that_contradicts_itself_is_refused(t: Trial) -> None:
    """FEATURES_OK does not stay with a bit that lacks what it requires."""
    drv = await t.driver()
    taken = await accepts(drv, Feature.VERSION_1 | Feature.GUEST_TSO4)
    t.check(not taken, "guest_tso4 was accepted without guest_csum")


# --- reset ------------------------------------------------------------------------------


@case("VIO-RST-01", "VIO-FEAT-04")
async def a_reset_begins_anew(t: Trial) -> None:
    """The status is 0 after a reset, and what was negotiated can be negotiated again."""
    drv = await t.negotiate()
    await drv.reset()
    t.equal(await drv.transport.get_status(), DeviceStatus.RESET, "status after a reset")
    await drv.negotiate(Feature.VERSION_1)


@case("VIO-STAT-01", "VHU-RING-02", wire=True)
async def frames_cross_once_the_driver_is_ready(t: Trial) -> None:
    """From DRIVER_OK on a frame crosses in either direction."""
    drv = await t.negotiate()
    await t.inject(frame(1))
    t.equal((await t.receive(drv)).data, frame(1), "the frame received")
    await drv.send(frame(2))
    t.equal((await t.sent()).data, frame(2), "the frame on the wire")


@case("VIO-STAT-01", "VHU-RING-01", wire=True)
async def nothing_happens_before_the_driver_is_ready(t: Trial) -> None:
    """A frame in a ring that was handed over stays there until DRIVER_OK."""
    drv = await t.driver()
    features = t.choose(t.offered & Feature.MRG_RXBUF)
    t.check(await accepts(drv, features), "VERSION_1 was refused")
    running = Running(
        features,
        await drv.read_config(),
        Layout(queue_size=64, pairs=1, rx_buffer_size=None, rx_buffers=0, rx_cuts=()),
        None,
        backlog=1,
        control_timeout=None,
    )
    try:
        await drv.transport.set_memory(running.memory.regions)
        (sending,) = running.transmitters
        sending.send_nowait(frame(3))
        for queue in running.queues:
            await drv.transport.set_queue(queue.setup())
        status = await drv.transport.get_status()
        queue, what = running.transmitqs[0], "used.idx of the transmitq before DRIVER_OK"
        await undisturbed(t, 0, lambda: used_idx(running.memory, queue), what)
        await drv.transport.set_status(status | DeviceStatus.DRIVER_OK)
        t.equal((await t.sent()).data, frame(3), "the frame on the wire after DRIVER_OK")
    finally:
        with contextlib.suppress(PyvnetError, OSError):
            await drv.transport.set_status(DeviceStatus.RESET)
        running.close(UsageError("the case is over"))


@case("VIO-RST-02", wire=True)
async def after_a_reset_the_old_rings_are_left_alone(t: Trial) -> None:
    """A frame that comes after a reset changes nothing in the rings from before it."""
    drv = await t.negotiate()
    await drv.transport.set_status(DeviceStatus.RESET)
    t.equal(await drv.transport.get_status(), DeviceStatus.RESET, "status after a reset")
    before = [used_idx(drv.memory, queue) for queue in drv.receiveqs]
    await t.inject(frame(4))
    # Elsewhere: where other files at the same addresses are taken for the same memory, the
    # cases about memory say so.
    memory = GuestMemory([RegionSpec(ELSEWHERE, 64 << 20)])
    following = Driver(drv.transport, memory=memory)
    try:
        await following.negotiate(Feature.VERSION_1 | (t.offered & Feature.MRG_RXBUF))
        await t.started(following)
        await t.inject(frame(5))
        while (await t.receive(following)).data != frame(5):
            pass
        after = [used_idx(drv.memory, queue) for queue in drv.receiveqs]
        t.equal(after, before, "used.idx of the rings from before")
    finally:
        with contextlib.suppress(PyvnetError, OSError):
            await following.reset()
        memory.close()
