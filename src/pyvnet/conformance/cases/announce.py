# SPDX-License-Identifier: MIT
"""What the device says on its own: announce yourself, the link has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvnet.conformance.case import case
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import Feature

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial

_ANNOUNCE = Feature.GUEST_ANNOUNCE | Feature.STATUS


@case("U-38", needs=Feature.GUEST_ANNOUNCE, control=True)
async def an_announcement_may_be_acknowledged_any_time(t: Trial) -> None:
    """ANNOUNCE_ACK is answered OK also when nothing was asked for."""
    drv = await t.negotiate(Feature.GUEST_ANNOUNCE, pairs=1, rx_buffers=8)
    for _ in range(2):
        ack = await drv.ctrl.announce_ack(check=False)
        t.equal(ack, Ack.OK, "answer to ANNOUNCE_ACK with nothing to acknowledge")


@case("NET-ANN-02", needs=_ANNOUNCE, control=True, operator=True)
async def announcement_is_asked_for(t: Trial) -> None:
    """Asked by its operator, the device sets ANNOUNCE and notifies of the change."""
    drv = await t.negotiate(_ANNOUNCE, pairs=1, rx_buffers=8)
    t.check(not drv.announce, "ANNOUNCE is set before anybody asked")
    t.operator.announce()
    await t.notified(drv)
    t.check(drv.announce, "ANNOUNCE is not set after it was asked for")


@case("NET-ANN-01", needs=_ANNOUNCE, control=True, operator=True)
async def acknowledging_ends_the_announcement(t: Trial) -> None:
    """ANNOUNCE is clear once ANNOUNCE_ACK is answered, and can be asked for again."""
    drv = await t.negotiate(_ANNOUNCE, pairs=1, rx_buffers=8)
    for _ in range(3):
        t.operator.announce()
        await t.notified(drv)
        await drv.read_config()
        t.check(drv.announce, "ANNOUNCE is not set after it was asked for")
        await drv.ctrl.announce_ack()
        await drv.read_config()
        t.check(not drv.announce, "ANNOUNCE is set after ANNOUNCE_ACK")


@case("NET-ANN-01", "U-59", needs=_ANNOUNCE, control=True, operator=True)
async def reset_ends_the_announcement(t: Trial) -> None:
    """What was asked of the driver before a reset is not asked of the next."""
    drv = await t.negotiate(_ANNOUNCE, pairs=1, rx_buffers=8)
    t.operator.announce()
    await t.notified(drv)
    await drv.negotiate(drv.features, pairs=1, rx_buffers=8)
    await drv.read_config()
    t.check(not drv.announce, "ANNOUNCE is set after a reset")


@case("NET-LNK-01", "NET-CFG-15", needs=Feature.STATUS, operator=True)
async def link_follows_the_cable(t: Trial) -> None:
    """LINK_UP follows the link, and each change is notified."""
    drv = await t.negotiate(Feature.STATUS, pairs=1, rx_buffers=8)
    t.check(drv.link_up, "the link is down at the beginning")
    for up in (False, True):
        t.operator.set_link(up=up)
        await t.notified(drv)
        t.equal(drv.link_up, up, f"LINK_UP after the link went {'up' if up else 'down'}")
