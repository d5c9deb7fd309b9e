# SPDX-License-Identifier: MIT
"""How many queue pairs are in force, and which command of class MQ decides.

Where the device receives what it does not hash is its own business (NET-MQ-06); what is
looked at is where frames may not come, and which of two commands is in force.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._frames import flow, flows
from pyvnet.conformance.cases._steering import (
    PAIRS,
    all_arrive_on,
    deliver,
    on_queues,
    rss,
    sent,
    several,
    steered,
)
from pyvnet.spec.ctrl import Ack, CtrlClass, MqCommand, pack_vq_pairs
from pyvnet.spec.features import Feature
from pyvnet.testing.frames import Ipv4, build, udp

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial

_FLOWS = 24


def _below(t: Trial, queues: list[int], pairs: int, what: str) -> None:
    t.check(max(queues) < pairs, f"{what}: frames came on receiveqs {sorted(set(queues))}")


@case("NET-MQ-02", needs=Feature.MQ, wire=True, control=True)
async def receives_on_one_queue_before_any_command(t: Trial) -> None:
    """With MQ accepted and every pair set up, all flows come on receiveq 0."""
    drv = await several(t, Feature.MQ)
    await all_arrive_on(t, drv, 0, flows(_FLOWS), "frames before any command")


@case("NET-MQ-02", "U-59", needs=Feature.MQ, wire=True, control=True)
async def receives_on_one_queue_after_reset(t: Trial) -> None:
    """What VQ_PAIRS_SET said is forgotten at reset."""
    drv = await several(t, Feature.MQ)
    pairs = drv.pairs
    await drv.ctrl.vq_pairs_set(pairs)
    await deliver(t, drv, flows(_FLOWS), ports=pairs)
    await drv.negotiate(drv.features, pairs=pairs, rx_buffers=64)
    await t.started(drv)
    await all_arrive_on(t, drv, 0, flows(_FLOWS), "frames after the reset")


@case("NET-MQ-03", "NET-MQ-06", needs=Feature.MQ, wire=True, control=True)
async def receives_on_the_pairs_set(t: Trial) -> None:
    """With each number of pairs, upwards and downwards, all frames come and none beyond it."""
    drv = await several(t, Feature.MQ, pairs=PAIRS)
    most = drv.pairs
    for pairs in (*range(1, most + 1), *range(most - 1, 0, -1)):
        await drv.ctrl.vq_pairs_set(pairs)
        queues = await on_queues(t, drv, flows(_FLOWS), ports=pairs)
        _below(t, queues, pairs, f"with {pairs} pairs")


@case("NET-MQ-03", needs=Feature.MQ, wire=True, control=True)
async def flows_leave_the_queues_taken_away(t: Trial) -> None:
    """A flow that was sent on the last pair does not come there once the pair is off."""
    drv = await several(t, Feature.MQ)
    most = drv.pairs
    await drv.ctrl.vq_pairs_set(most)
    for number in range(4):
        await drv.send(_there(number), queue=most - 1)
    await drv.flush()
    await drv.ctrl.vq_pairs_set(1)
    queues = await on_queues(t, drv, [_back(number) for number in range(4)])
    _below(t, queues, 1, "with 1 pair, flows that were sent on the last")


@case("NET-MQ-05", needs=Feature.MQ, wire=True, control=True)
async def flows_come_back_where_they_were_sent(t: Trial) -> None:
    """In automatic mode a flow is received on the pair it was last sent on."""
    if t.wire.names_queue:
        t.not_applicable("on this wire the sender chooses the queue, not the device")
    drv = await several(t, Feature.MQ)
    most = drv.pairs
    await drv.ctrl.vq_pairs_set(most)
    for number in range(2 * most):
        await drv.send(_there(number), queue=number % most)
    await drv.flush()
    queues = await on_queues(t, drv, [_back(number) for number in range(2 * most)])
    t.equal(queues, [number % most for number in range(2 * most)], "receiveqs of the answers")


def _there(number: int) -> bytes:
    there = Ipv4("198.51.100.2", "192.0.2.1")
    near, far = "02:00:00:00:00:01", "02:00:00:00:00:02"
    return bytes(build(there, udp(5000 + number, 7000, b"there"), src=near, dst=far))


def _back(number: int) -> bytes:
    return bytes(build(Ipv4("192.0.2.1", "198.51.100.2"), udp(7000, 5000 + number, b"back")))


@case("NET-MQ-01", "NET-MQ-04", needs=Feature.MQ | Feature.RSS, wire=True, control=True)
async def the_last_command_decides(t: Trial) -> None:
    """VQ_PAIRS_SET ends RSS and RSS_CONFIG ends automatic steering, again and again."""
    drv = await several(t, Feature.MQ | Feature.RSS)
    pairs = drv.pairs
    last = rss(drv, indirection_table=(pairs - 1,) * 2)
    for _ in range(3):
        await drv.ctrl.rss_config(last)
        await all_arrive_on(t, drv, pairs - 1, flows(_FLOWS), "frames after RSS_CONFIG")
        await drv.ctrl.vq_pairs_set(1)
        await all_arrive_on(t, drv, 0, flows(_FLOWS), "frames after VQ_PAIRS_SET of 1")


@case("NET-MQ-09", "OUR-CVQ-06", needs=Feature.MQ, wire=True, control=True)
async def impossible_pairs_are_refused(t: Trial) -> None:
    """No pairs, and more than the device has, are answered ERR; what was in force stays."""
    drv = await steered(t, Feature.MQ)
    most = drv.config.max_virtqueue_pairs
    for pairs in dict.fromkeys((0, most + 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)):
        if 0 < pairs <= most:
            continue
        ack = await drv.ctrl.vq_pairs_set(pairs, check=False)
        t.equal(ack, Ack.ERR, f"answer to VQ_PAIRS_SET of {pairs}, where {most} is the most")
        await all_arrive_on(t, drv, 0, flows(4), f"frames after {pairs} pairs were refused")


@case("OUR-CVQ-06", "U-04", needs=Feature.MQ | Feature.RSS, wire=True, control=True)
async def a_refused_number_of_pairs_leaves_rss(t: Trial) -> None:
    """VQ_PAIRS_SET that is answered ERR does not end RSS."""
    drv = await several(t, Feature.MQ | Feature.RSS)
    pairs = drv.pairs
    await drv.ctrl.rss_config(rss(drv, indirection_table=(pairs - 1,) * 2))
    for payload in (b"", b"\1", pack_vq_pairs(0), pack_vq_pairs(0xFFFF)):
        ack = await drv.ctrl.raw(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET, payload, check=False)
        t.equal(ack, Ack.ERR, f"answer to VQ_PAIRS_SET with {payload.hex() or 'no'} data")
        await all_arrive_on(t, drv, pairs - 1, flows(8), "frames after it was refused")


@case("U-16", "OUR-CVQ-04", needs=Feature.RSS, wire=True, control=True)
async def pairs_are_not_set_without_mq(t: Trial) -> None:
    """With RSS and without MQ, VQ_PAIRS_SET is refused and RSS goes on."""
    drv = await several(t, Feature.RSS)
    pairs = drv.pairs
    await drv.ctrl.rss_config(rss(drv, indirection_table=(pairs - 1,) * 2))
    t.equal(await drv.ctrl.vq_pairs_set(1, check=False), Ack.ERR, "answer to VQ_PAIRS_SET")
    await all_arrive_on(t, drv, pairs - 1, flows(8), "frames after it was refused")


@case("NET-MQ-10", "U-12", "U-60", needs=Feature.MQ, wire=True, control=True)
async def every_pair_may_send(t: Trial) -> None:
    """Frames on transmitqs beyond the number of pairs set are sent or given back, none is stuck."""
    drv = await several(t, Feature.MQ)
    pairs = drv.pairs
    await drv.ctrl.vq_pairs_set(1)
    for queue in range(pairs):
        await drv.send(_there(queue), queue=queue)
    await drv.flush()
    await sent(t, [_there(queue) for queue in range(pairs)])


@case("NET-MQ-07", needs=Feature.MQ, wire=True, control=True)
async def a_stopped_queue_is_gone_around(t: Trial) -> None:
    """In automatic mode frames for a receiveq that is stopped come on another."""
    drv = await several(t, Feature.MQ)
    pairs = drv.pairs
    await drv.ctrl.vq_pairs_set(pairs)
    stopped = drv.receiveqs[1]
    await drv.transport.stop_queue(stopped.index)
    queues = await on_queues(t, drv, flows(_FLOWS), ports=pairs)
    t.check(1 not in queues, "a frame came on the receiveq that is stopped")


@case("NET-MQ-03", "OUR-CVQ-08", "U-41", needs=Feature.MQ | Feature.RSS, wire=True, control=True)
async def a_change_holds_from_the_answer_on(t: Trial) -> None:
    """The first frame sent after the answer is received by the new rule, each of many times."""
    drv = await several(t, Feature.MQ | Feature.RSS)
    pairs = drv.pairs
    config = rss(drv)
    for number in range(20):
        queue = number % pairs
        await drv.ctrl.rss_config(replace(config, indirection_table=(queue,)))
        await all_arrive_on(t, drv, queue, [flow(number)], f"change {number}")
