# SPDX-License-Identifier: MIT
"""The protocol itself: what a back-end owes its front-end, message by message."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._rings import comes_in, undisturbed
from pyvnet.conformance.cases.initialization import frame
from pyvnet.driver.errors import RefusedError
from pyvnet.driver.frontend_rings import stop
from pyvnet.driver.memory import PAGE_SIZE, GuestMemory, RegionSpec
from pyvnet.driver.queue import drain_eventfd
from pyvnet.spec import vhost_user as vu
from pyvnet.spec.features import Feature
from pyvnet.spec.status import DeviceStatus
from pyvnet.spec.vhost_user import ProtocolFeature, Request

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver
    from pyvnet.driver.frontend_link import Link

_NOBODY_KNOWS: Final = 0x7F0F  # a message number that was never given out
_TOO_SMALL: Final = 10  # bytes; no MTU is
_MIB: Final = 1 << 20
_NO_PROTOCOL: Final = ProtocolFeature(0)


async def _greet(t: Trial, protocol: ProtocolFeature = _NO_PROTOCOL) -> Link:
    """A connection with these protocol features and no others; not applicable without them.

    The one before is closed: many back-ends take one front-end at a time.
    """
    await t.hang_up()
    link = t.link()
    offered = await link.call_u64(Request.GET_FEATURES)
    if not offered & vu.F_PROTOCOL_FEATURES:
        t.not_applicable("the back-end has no protocol features (bit 30)")
    has = await link.call_u64(Request.GET_PROTOCOL_FEATURES)
    if lacking := int(protocol) & ~has:
        names = ", ".join(str(bit.name).lower() for bit in ProtocolFeature(lacking))
        t.not_applicable(f"not offered: {names}")
    await link.tell(Request.SET_PROTOCOL_FEATURES, vu.pack_u64(int(protocol)))
    link.reply_ack = bool(protocol & ProtocolFeature.REPLY_ACK)
    await link.tell(Request.SET_OWNER)
    t.doing = "an answer"
    return link


def _need(t: Trial, feature: ProtocolFeature) -> None:
    if not t.facts.protocol & feature:
        t.not_applicable(f"not offered: {str(feature.name).lower()}")


# --- messages and answers -----------------------------------------------------------------


@case("VHU-FEAT-01", "VHU-MSG-01", "VHU-MSG-02", protocol=True)
async def protocol_features_come_before_features(t: Trial) -> None:
    """Protocol features are read and written before SET_FEATURES, and answers are well-formed."""
    link = await _greet(t)
    await link.call_u64(Request.GET_FEATURES)


@case("VHU-MSG-02", protocol=True)
async def questions_are_answered_the_same_each_time(t: Trial) -> None:
    """Features and protocol features read the same twice on a connection."""
    link = await _greet(t)
    for question in (Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES):
        first = await link.call_u64(question)
        t.equal(await link.call_u64(question), first, f"{question.name} asked again")


@case("VHU-MSG-03", protocol=True)
async def messages_are_acknowledged_on_demand(t: Trial) -> None:
    """With REPLY_ACK a message that asks for it is answered with 0 when it was obeyed."""
    link = await _greet(t, ProtocolFeature.REPLY_ACK)
    features = await link.call_u64(Request.GET_FEATURES)
    wanted = features & int(Feature.VERSION_1 | vu.F_PROTOCOL_FEATURES)
    await link.tell(Request.SET_FEATURES, vu.pack_u64(wanted))
    await link.tell(Request.SET_VRING_NUM, vu.VringState(0, 64).pack())


@case("VHU-MSG-04", "VHU-MSG-05", protocol=True)
async def nothing_is_answered_twice(t: Trial) -> None:
    """Neither a question that asks for an acknowledgement too, nor a message that asks for none."""
    link = await _greet(t, ProtocolFeature.REPLY_ACK)
    features = await link.call_u64(Request.GET_FEATURES)
    # Asks, with NEED_REPLY: the link takes exactly one answer, and calls any other a violation.
    question = await link.call(Request.GET_FEATURES, need_reply=True)
    t.equal(vu.unpack_u64(question), features, "GET_FEATURES with NEED_REPLY")
    link.reply_ack = False
    await link.tell(Request.SET_VRING_NUM, vu.VringState(0, 64).pack())
    for _ in range(3):
        t.equal(await link.call_u64(Request.GET_FEATURES), features, "GET_FEATURES")


@case("VHU-MSG-06", protocol=True)
async def unknown_messages_are_refused(t: Trial) -> None:
    """With REPLY_ACK a message nobody knows is answered with a failure, or ends the connection."""
    link = await _greet(t, ProtocolFeature.REPLY_ACK)
    try:
        await link.tell(_NOBODY_KNOWS)
    except (RefusedError, ConnectionError) as refusal:
        t.note(str(refusal))
        return
    t.fail("a message with a number that was never given out was acknowledged as obeyed")


@case("VHU-MSG-06", protocol=True)
async def impossible_rings_are_refused(t: Trial) -> None:
    """A ring of 0, of 3 and of 65536 descriptors is refused, or ends the connection."""
    for size in (0, 3, 65536):
        link = await _greet(t, ProtocolFeature.REPLY_ACK)
        try:
            await link.tell(Request.SET_VRING_NUM, vu.VringState(0, size).pack())
        except (RefusedError, ConnectionError):
            continue
        t.fail(f"a ring of {size} descriptors was acknowledged as obeyed")


@case("VHU-MQ-01", protocol=True)
async def the_number_of_queues_is_known(t: Trial) -> None:
    """With MQ, GET_QUEUE_NUM is at least 1 and no fewer than configuration space says."""
    link = await _greet(t, ProtocolFeature.MQ)
    number = await link.call_u64(Request.GET_QUEUE_NUM)
    t.check(number >= max(1, t.config.max_virtqueue_pairs), f"GET_QUEUE_NUM is {number}")


# --- configuration, status, MTU -----------------------------------------------------------


async def _config(link: Link, offset: int, length: int) -> bytes:
    ask = vu.ConfigSpace(offset, length, 0, bytes(length)).pack()
    return await link.call(Request.GET_CONFIG, ask, sizes=range(vu.MAX_PAYLOAD))


@case("VHU-CFG-01", protocol=True)
async def configuration_comes_as_asked_for(t: Trial) -> None:
    """GET_CONFIG is answered with the piece, and as many bytes, as were asked for."""
    link = await _greet(t, ProtocolFeature.CONFIG)
    for offset, length in ((0, 6), (0, 1), (5, 1), (6, 2), (8, 2)):
        answer = await _config(link, offset, length)
        t.equal(len(answer), 12 + length, f"bytes in answer to {length} bytes at {offset}")
        got = vu.ConfigSpace.unpack(answer)
        t.equal((got.offset, got.size), (offset, length), "offset and size in the answer")


@case("VHU-CFG-02", protocol=True)
async def configuration_is_not_the_drivers_to_write(t: Trial) -> None:
    """After SET_CONFIG of the MAC address it is what it was."""
    link = await _greet(t, ProtocolFeature.CONFIG)
    before = (await _config(link, 0, 6))[12:]
    other = bytes(byte ^ 0x10 for byte in before)
    await link.tell(Request.SET_CONFIG, vu.ConfigSpace(0, 6, 0, other).pack())
    try:
        after = (await _config(link, 0, 6))[12:]
    except ConnectionError:  # a back-end may see it that way
        link = await _greet(t, ProtocolFeature.CONFIG)
        after = (await _config(link, 0, 6))[12:]
    t.equal(after, before, "the MAC address after SET_CONFIG")


@case("VHU-MTU-01", needs=Feature.MTU, protocol=True)
async def an_mtu_that_cannot_be_is_refused(t: Trial) -> None:
    """NET_SET_MTU of the device's own MTU is answered with 0, one of 10 bytes with a failure."""
    _need(t, ProtocolFeature.NET_MTU | ProtocolFeature.REPLY_ACK)
    drv = await t.negotiate(Feature.MTU)
    frontend = t.frontend(drv)
    if not frontend.keeps_config:
        t.not_applicable("nobody says which MTU the device has")
    await frontend.set_mtu(t.config.mtu)
    try:
        await frontend.set_mtu(_TOO_SMALL)
    except RefusedError:
        return
    t.fail(f"an MTU of {_TOO_SMALL} bytes was acknowledged as obeyed")


@case("VHU-STAT-01", protocol=True)
async def the_status_is_what_was_written(t: Trial) -> None:
    """GET_STATUS shows each status a driver goes through."""
    _need(t, ProtocolFeature.STATUS)
    drv = await t.driver()
    status = DeviceStatus.RESET
    for bit in (DeviceStatus.ACKNOWLEDGE, DeviceStatus.DRIVER):
        status |= bit
        await drv.transport.set_status(status)
        t.equal(await drv.transport.get_status(), status, "GET_STATUS")
    drv = await t.negotiate()
    status |= DeviceStatus.FEATURES_OK | DeviceStatus.DRIVER_OK
    t.equal(await drv.transport.get_status(), status, "GET_STATUS in operation")


@case("VHU-RST-01", protocol=True)
async def reset_device_begins_anew(t: Trial) -> None:
    """After RESET_DEVICE the status is 0, the connection goes on, and rings start from nothing."""
    _need(t, ProtocolFeature.RESET_DEVICE)
    drv = await t.negotiate()
    link = t.frontend(drv).link
    await link.tell(Request.RESET_DEVICE)
    if t.facts.protocol & ProtocolFeature.STATUS:
        t.equal(await link.call_u64(Request.GET_STATUS), 0, "GET_STATUS after RESET_DEVICE")
    for queue in drv.queues:
        t.equal(await stop(link, queue.index), 0, f"GET_VRING_BASE of virtqueue {queue.index}")
    await drv.negotiate(Feature.VERSION_1)


# --- rings --------------------------------------------------------------------------------


async def _exchange(t: Trial, drv: Driver, number: int) -> None:
    """A frame each way; frames of a case have numbers of their own."""
    await t.inject(frame(number))
    t.equal((await t.receive(drv)).data, frame(number), "the frame received")
    await drv.send(frame(number + 1))
    t.equal((await t.sent()).data, frame(number + 1), "the frame on the wire")


async def _switch(t: Trial, drv: Driver, index: int, *, on: bool) -> None:
    link = t.frontend(drv).link
    await link.tell(Request.SET_VRING_ENABLE, vu.VringState(index, int(on)).pack())
    await link.call_u64(Request.GET_FEATURES)  # obeyed by now, acknowledged or not


@case("VHU-RING-05", wire=True, protocol=True)
async def a_disabled_receive_ring_gets_nothing(t: Trial) -> None:
    """No frame comes on a disabled receiveq; enabled again, it goes on."""
    drv = await t.negotiate()
    await _exchange(t, drv, 10)
    await _switch(t, drv, 0, on=False)
    await t.inject(frame(12))
    # Transmission says when the device has had its turn: it serves both rings of a pair.  The
    # first may have been on its way before.
    for _ in range(2):
        await drv.send(frame(13))
        t.equal((await t.sent()).data, frame(13), "the frame on the wire")
    t.equal(drv.receive_nowait(), None, "a frame on a disabled receiveq")
    await _switch(t, drv, 0, on=True)
    await t.started(drv)
    await t.inject(frame(14))
    while (seen := (await t.receive(drv)).data) != frame(14):
        t.equal(seen, frame(12), "a frame that was under way")


@case("VHU-RING-06", "U-42", wire=True, protocol=True)
async def a_disabled_transmit_ring_is_emptied(t: Trial) -> None:
    """What is sent on a disabled transmitq comes back used and does not go on the wire."""
    drv = await t.negotiate()
    await _exchange(t, drv, 20)
    await _switch(t, drv, 1, on=False)
    await drv.send(frame(22))
    t.doing = "a disabled transmitq to be emptied"
    await drv.flush(0)
    await _switch(t, drv, 1, on=True)
    await drv.send(frame(23))
    t.equal((await t.sent()).data, frame(23), "the first frame on the wire since")


@case("VHU-RING-03", "VHU-RING-04", "VHU-RING-09", wire=True, protocol=True)
async def a_stopped_ring_goes_on_where_it_stood(t: Trial) -> None:
    """GET_VRING_BASE says how far the ring came; what is put into it then waits for its start."""
    drv = await t.negotiate()
    await _exchange(t, drv, 30)
    await drv.flush()
    sending = drv.transmitqs[0]
    shown = int.from_bytes(drv.memory.read(sending.setup().avail_ring + 2, 2), "little")
    base, used = await drv.transport.stop_queue(sending.index)
    t.equal((base, used), (shown, shown), "where a transmitq stands that gave back everything")
    await drv.send(frame(32))
    receives = partial(comes_in, t, drv, frame(33))
    what = "what a stopped transmitq gave back"
    await undisturbed(t, 0, sending.ring.ready, what, receives, receives)
    setup = replace(sending.setup(), avail_base=base, used_base=used)
    await drv.transport.set_queue(setup)
    sending.kick()
    t.equal((await t.sent()).data, frame(32), "the frame on the wire after the start")


@case("VHU-RING-08", wire=True, protocol=True)
async def the_call_fd_can_be_replaced(t: Trial) -> None:
    """After SET_VRING_CALL with a running receiveq the new fd is notified."""
    drv = await t.negotiate()
    await _exchange(t, drv, 40)
    receiving = drv.receiveqs[0]
    link = t.frontend(drv).link
    call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        await link.tell(Request.SET_VRING_CALL, vu.pack_u64(receiving.index), (call,))
        await link.call_u64(Request.GET_FEATURES)
        drain_eventfd(call)  # it may be told of at once, and that is no news of a frame
        receiving.ring.arm()
        await t.inject(frame(42))
        t.doing = "a notification on the new call fd"
        seen = None
        while seen is None:  # one more notification than there are frames is no fault
            await t.readable(call)
            os.eventfd_read(call)
            seen = drv.receive_nowait()
        t.equal(seen.data, frame(42), "the frame received")
    finally:
        os.close(call)


@case("VHU-RING-07", wire=True, protocol=True)
async def without_protocol_features_rings_need_no_enabling(t: Trial) -> None:
    """A front-end that does not know of bit 30 sends and receives all the same."""
    drv = await t.driver(plain=True)
    await drv.negotiate(t.choose(t.offered & Feature.MRG_RXBUF))
    await t.started(drv)
    await _exchange(t, drv, 50)


@case("VHU-FEAT-02", wire=True, protocol=True)
async def features_sent_again_change_nothing(t: Trial) -> None:
    """The same SET_FEATURES while rings run, as QEMU sends for each queue pair."""
    drv = await t.negotiate()
    await _exchange(t, drv, 60)
    link = t.frontend(drv).link
    await link.tell(Request.SET_FEATURES, vu.pack_u64(int(drv.features) | vu.F_PROTOCOL_FEATURES))
    await link.call_u64(Request.GET_FEATURES)
    await _exchange(t, drv, 62)


# --- memory -------------------------------------------------------------------------------


def _scattered() -> GuestMemory:
    """Regions that do not touch, in the file in another order and with a gap."""
    return GuestMemory(
        [
            RegionSpec(0x1_0000_0000, 24 * _MIB, 40 * _MIB),
            RegionSpec(0x4000_0000, 24 * _MIB, PAGE_SIZE),
        ]
    )


async def _over(t: Trial, memory: GuestMemory, protocol: ProtocolFeature | None, at: int) -> Driver:
    drv = await t.driver(memory=memory, protocol_features=protocol)
    await drv.negotiate(t.choose(t.offered & Feature.MRG_RXBUF), queue_size=64)
    await t.started(drv)
    await _exchange(t, drv, at)
    return drv


@case("VHU-MEM-01", wire=True, protocol=True)
async def regions_lie_anywhere_in_their_files(t: Trial) -> None:
    """Frames cross with memory in two regions, apart and at offsets of their own."""
    without = t.facts.protocol & ~ProtocolFeature.CONFIGURE_MEM_SLOTS
    with _scattered() as memory:
        await _over(t, memory, without, 70)
        await t.hang_up()


@case("VHU-MEM-02", wire=True, protocol=True)
async def regions_come_and_go_one_by_one(t: Trial) -> None:
    """Frames cross with regions added by ADD_MEM_REG, also after one of them was removed."""
    _need(t, ProtocolFeature.CONFIGURE_MEM_SLOTS)
    with _scattered() as memory, GuestMemory(_MIB) as more:
        drv = await _over(t, memory, None, 80)
        apart = [replace(region, gpa=0x8_0000_0000) for region in more.regions]
        await drv.transport.set_memory([*memory.regions, *apart])
        await _exchange(t, drv, 82)
        await drv.transport.set_memory(memory.regions)
        await _exchange(t, drv, 84)
        await t.hang_up()
