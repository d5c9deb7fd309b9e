# SPDX-License-Identifier: MIT
"""Front-ends that go and come back: with a word, without one, in the middle of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvnet.conformance.case import case
from pyvnet.conformance.cases.initialization import frame
from pyvnet.spec import vhost_user as vu
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import VERIFICATION_KEY, HashType, RssConfig
from pyvnet.spec.vhost_user import ProtocolFeature, Request

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial


@case("VHU-CON-01", protocol=True)
async def a_front_end_can_come_again(t: Trial) -> None:
    """A second connection, after the first was closed in order, finds the same device."""
    drv = await t.negotiate()
    before = await drv.transport.device_features()
    drv = await t.negotiate()
    t.equal(await drv.transport.device_features(), before, "features offered, the second time")


@case("VHU-CON-01", protocol=True)
async def a_connection_that_breaks_off_is_forgotten(t: Trial) -> None:
    """Connections that end in operation, and before a word was said, are followed by another."""
    drv = await t.negotiate()
    t.frontend(drv).link.close()
    t.link().close()
    drv = await t.negotiate()
    t.check(await drv.transport.get_status(), "the status is 0 in operation")


@case("VHU-CON-01", protocol=True)
async def half_a_message_harms_nobody_else(t: Trial) -> None:
    """A connection that ends within a message is followed by another."""
    for cut in (3, vu.HEADER.size, vu.HEADER.size + 3):
        sock = t.raw_socket()
        sock.send(vu.message(Request.SET_FEATURES, vu.pack_u64(0))[:cut])
        sock.close()
    await t.negotiate()


@case("VHU-CON-02", wire=True, protocol=True)
async def rings_go_on_after_a_new_connection(t: Trial) -> None:
    """With memory and rings handed over again, frames go on in order and none comes twice."""
    drv = await t.negotiate()
    await t.inject(frame(1))
    t.equal((await t.receive(drv)).data, frame(1), "the frame before")
    await drv.send(frame(2))
    t.equal((await t.sent()).data, frame(2), "the frame on the wire before")
    await drv.flush()
    t.frontend(drv).link.close()
    t.doing = "the new connection"
    await drv.reconnect()
    await t.started(drv)
    await drv.send(frame(3))
    t.equal((await t.sent()).data, frame(3), "the frame on the wire afterwards")
    await t.inject(frame(4))
    t.equal((await t.receive(drv)).data, frame(4), "the frame afterwards")


@case("VHU-CON-01", protocol=True)
async def a_front_end_without_protocol_features_is_served(t: Trial) -> None:
    """One that leaves bit 30 and its features alone negotiates and gets to DRIVER_OK."""
    drv = await t.driver(protocol_features=ProtocolFeature(0))
    await drv.negotiate(t.choose(t.offered & Feature.MRG_RXBUF), pairs=1)


@case("U-59", needs=Feature.RSS, wire=True, control=True, protocol=True)
async def commands_hold_over_a_new_connection(t: Trial) -> None:
    """What RSS_CONFIG said is in force after a new connection whose rings go on."""
    drv = await t.negotiate(Feature.RSS, pairs=2)
    await drv.ctrl.rss_config(RssConfig(HashType.UDPV4, (1,), VERIFICATION_KEY))
    await t.inject(frame(1))
    t.equal((await t.receive(drv)).queue, 1, "receiveq before")
    t.frontend(drv).link.close()
    t.doing = "the new connection"
    await drv.reconnect()
    await t.started(drv)
    await t.inject(frame(2))
    t.equal((await t.receive(drv)).queue, 1, "receiveq afterwards")
