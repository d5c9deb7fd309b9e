# SPDX-License-Identifier: MIT
"""QEMU's virtio-net and ours answer every command alike, but where we decided otherwise.

After each command a frame shows what it led to: refused commands too may leave something behind.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet import Feature, RssConfig
from pyvnet.spec.ctrl import CtrlClass, RxCommand
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, HashReport
from pyvnet.testing import frames
from tests.differential.qemu.commands import random_command, random_layout
from tests.differential.qemu.machine import PAIRS
from tests.differential.qemu.reading import predict
from tests.differential.qemu.sides import HASHING, WITHIN, Sides, Tally, both_sides
from tests.differential.qemu.steering import REASONS, Ours, Qemus

if TYPE_CHECKING:
    import random

    from pyvnet import Driver

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.needs_program("qemu-system-x86_64"),
    pytest.mark.one_loop("what QEMU answers does not depend on our event loop"),
]

COMMANDS: Final = 180  # under each set of features; the first is tried twice
_SOME_CONTROL: Final = Feature.CTRL_RX | Feature.CTRL_GUEST_OFFLOADS | Feature.GUEST_CSUM
FEATURES: Final = {
    "all": HASHING | Feature.MQ | Feature.RSS | _SOME_CONTROL | Feature.CTRL_RX_EXTRA
    | Feature.CTRL_VLAN | Feature.CTRL_MAC_ADDR | Feature.GUEST_ANNOUNCE | Feature.GUEST_TSO4
    | Feature.GUEST_TSO6,
    "RSS without MQ": HASHING | Feature.RSS,
    "MQ without RSS": HASHING | Feature.MQ | Feature.CTRL_RX | Feature.CTRL_VLAN,
    "some": HASHING | Feature.MQ | Feature.RSS | _SOME_CONTROL | Feature.GUEST_ANNOUNCE,
}  # fmt: skip


def random_frame(rng: random.Random) -> bytes:
    chain = (frames.hop_by_hop(),)
    ports = rng.randrange(0x10000), rng.randrange(0x10000)
    return rng.choice(
        (
            frames.build(frames.Ipv4(src=rng.randbytes(4)), frames.tcp(*ports)),
            frames.build(frames.Ipv6(src=rng.randbytes(16)), frames.udp(*ports)),
            frames.build(frames.Ipv6(src=rng.randbytes(16), extensions=chain), frames.tcp(*ports)),
            frames.ethernet(0x0806, rng.randbytes(40)),
        )
    ).data


async def command(
    sides: Sides, ours: Ours, theirs: Qemus, tally: Tally, rng: random.Random
) -> None:
    """One command to both, and a comparison of the answers."""
    request = random_command(rng)
    layout, writable = random_layout(request, rng), rng.choice((1, 1, 1, 2, 9))
    theirs.rss = ours.rss
    here, there = ours.judge(request, writable), theirs.judge(request, writable)
    us = (await sides.ours.ctrl.exchange(request, writable, layout=layout)).ack
    them = (await sides.theirs.ctrl.exchange(request, writable, layout=layout)).ack
    if (us, them) != (here.ack, there.ack):
        due = f"due {here.ack!r} and {there.ack!r}, answered {us!r} and {them!r}"
        tally.complaints.append(f"{due}: {request.hex()}")
    tally.differ(us, them, there.against, request.hex())


async def consequence(
    sides: Sides, ours: Ours, theirs: Qemus, tally: Tally, rng: random.Random
) -> None:
    """A frame to both, and a comparison of what they make of it."""
    frame = random_frame(rng)
    here, there = (seen[0] for seen in await sides.exchange([frame]))
    due, foretold = ours.place(frame), theirs.place(frame)
    tally.frame("ours", here, due, ours.pairs if not ours.rss else PAIRS, frame.hex())
    tally.frame("QEMU's", there, foretold, theirs.pairs, frame.hex())
    because = theirs.against | predict(frame, theirs.types, theirs.key).because
    tally.differ(due, foretold, because, frame.hex())


async def see_all(sides: Sides, ours: Ours, theirs: Qemus) -> None:
    """What filters let through is compared elsewhere; here every frame has to come."""
    for model, driver in ((ours, sides.ours), (theirs, sides.theirs)):
        if not model.promisc:
            await driver.ctrl.raw(CtrlClass.RX, RxCommand.PROMISC, b"\1")
            model.promisc = True


@pytest.mark.requirement("OUR-CVQ-04", "OUR-CVQ-05", "OUR-CVQ-06", "NET-CVQ-01", "NET-CVQ-03",
                         "NET-RSS-05", "NET-RSS-06", "NET-RSS-07", *REASONS)  # fmt: skip
async def test_every_difference_of_an_answer_is_a_decision(vnet_random: random.Random) -> None:
    rng, answers, placed = vnet_random, Tally(), Tally()
    theirs = None
    async with both_sides() as sides:
        for features in (FEATURES["all"], *FEATURES.values()):
            await sides.negotiate(features)
            ours, theirs = Ours(features, PAIRS), Qemus(features, PAIRS, before=theirs)
            for _ in range(COMMANDS):
                await command(sides, ours, theirs, answers, rng)
                await see_all(sides, ours, theirs)
                await consequence(sides, ours, theirs, placed, rng)
    sys.stdout.write(f"\nanswers: {answers}\nframes: {placed}\n")
    assert not answers.complaints, str(answers)
    assert not placed.complaints, str(placed)
    assert answers.looks == COMMANDS * (1 + len(FEATURES))
    met = answers.because.keys() | placed.because.keys()
    assert met >= REASONS.keys() - {"U-02", "U-05"}, "not all of them were met"


@pytest.mark.requirement("U-02", "U-48", "NET-HASH-04", "NET-MQ-02")
async def test_ours_forgets_hashing_at_a_reset_and_theirs_does_not() -> None:
    frame = frames.build(frames.Ipv4(), frames.udp()).data
    config = RssConfig(ALL_HASH_TYPES, (3,), VERIFICATION_KEY, 3, max_tx_vq=PAIRS)
    async with both_sides() as sides:
        await sides.negotiate(FEATURES["all"])
        for driver in (sides.ours, sides.theirs):
            await driver.ctrl.rss_config(config)
        (ours,), (theirs,) = await sides.exchange([frame])
        assert ours == theirs
        assert (ours.report, ours.queue) == (HashReport.UDPV4, 3)
        await sides.negotiate(FEATURES["all"])
        (ours,), (theirs,) = await sides.exchange([frame])
    assert (ours.report, ours.value, ours.queue) == (HashReport.NONE, 0, 0)
    assert (theirs.report, theirs.queue) == (HashReport.UDPV4, 0)


async def answered(driver: Driver, request: bytes, writable: int) -> bool:
    """Whether a command came back, before the device said that it needs a reset."""
    changed = asyncio.ensure_future(driver.wait_config_change())
    answer = asyncio.ensure_future(driver.ctrl.exchange(request, writable))
    done, _ = await asyncio.wait(
        (changed, answer), timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED
    )
    assert done, "neither an answer nor a notification"
    for task in (changed, answer):
        task.cancel()
    await asyncio.wait((changed, answer))
    return answer in done


@pytest.mark.requirement("U-05", "OUR-CVQ-07")
@pytest.mark.parametrize(
    ("request_", "writable"), [(b"", 1), (b"\4", 1), (b"\0\0\1", 0)],
    ids=["nothing", "no code", "no room for the answer"],
)  # fmt: skip
async def test_a_command_that_is_none_ends_theirs_and_not_ours(
    request_: bytes, writable: int
) -> None:
    async with both_sides() as sides:
        await sides.negotiate(FEATURES["all"])
        assert await answered(sides.ours, request_, writable)
        assert not sides.ours.needs_reset
        assert not await answered(sides.theirs, request_, writable)
        assert sides.theirs.needs_reset
        await sides.negotiate(FEATURES["all"])
        for driver in (sides.ours, sides.theirs):
            await driver.ctrl.rx_promisc(on=True)
