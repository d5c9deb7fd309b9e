# SPDX-License-Identifier: MIT
"""Status, feature bits and reset: "General Initialization And Device Operation"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvnet.conformance.case import case
from pyvnet.spec.features import Feature, feature_names, missing_dependencies
from pyvnet.spec.status import DeviceStatus
from pyvnet.testing.frames import Ipv4, build, udp

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial


@case("VIO-FEAT-05")
async def version_1_is_offered(t: Trial) -> None:
    """VERSION_1 is among the bits offered."""
    drv = await t.driver()
    offered = await drv.transport.device_features()
    t.check(offered & Feature.VERSION_1, f"offered: {', '.join(feature_names(offered))}")


@case("VIO-FEAT-01")
async def offered_bits_come_with_what_they_require(t: Trial) -> None:
    """No bit is offered without the bits it requires."""
    drv = await t.driver()
    offered = Feature(await drv.transport.device_features())
    for bit, lacking in missing_dependencies(offered).items():
        names = " or ".join(feature_names(lacking))
        t.fail(f"{feature_names(bit)[0]} is offered without {names}")


@case("VIO-RST-01", "VIO-FEAT-04")
async def a_reset_begins_anew(t: Trial) -> None:
    """The status is 0 after a reset, and what was negotiated can be negotiated again."""
    drv = await t.negotiate()
    await drv.reset()
    t.equal(await drv.transport.get_status(), DeviceStatus.RESET, "status after a reset")
    await drv.negotiate(Feature.VERSION_1)


@case("VIO-STAT-01", wire=True)
async def frames_cross_once_the_driver_is_ready(t: Trial) -> None:
    """From DRIVER_OK on a frame crosses in either direction."""
    drv = await t.negotiate()
    frame = bytes(build(Ipv4(), udp(2001, 53)))
    await t.inject(frame)
    t.equal((await t.receive(drv)).data, frame, "the frame received")
    await drv.send(frame)
    t.equal((await t.sent()).data, frame, "the frame on the wire")
