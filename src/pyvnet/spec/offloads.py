# SPDX-License-Identifier: MIT
"""Offloads of both directions, as feature bits and as the mask of GUEST_OFFLOADS_SET.

In that mask an offload has the number of its feature bit, with one exception:
the UDP tunnel offloads have 46 and 47 there ("Setting Offloads State").
"""

from __future__ import annotations

from typing import Final

from pyvnet.spec.features import Feature, missing_dependencies

# What the driver may switch with GUEST_OFFLOADS_SET, tunnels left out.
GUEST_OFFLOADS: Final = (
    Feature.GUEST_CSUM
    | Feature.GUEST_TSO4
    | Feature.GUEST_TSO6
    | Feature.GUEST_ECN
    | Feature.GUEST_UFO
    | Feature.GUEST_USO4
    | Feature.GUEST_USO6
)

# What the driver may ask the device for in the header of a frame, tunnels left out.
HOST_OFFLOADS: Final = (
    Feature.CSUM
    | Feature.HOST_TSO4
    | Feature.HOST_TSO6
    | Feature.HOST_ECN
    | Feature.HOST_UFO
    | Feature.HOST_USO
)


def deliverable(mask: int) -> Feature:
    """Return the guest offloads of a mask that can be used as they stand.

    A driver may switch off one that others stand on: a segmentation offload is
    of no use without GUEST_CSUM, since each such frame has NEEDS_CSUM set
    (NET-RX-12), nor is GUEST_ECN without GUEST_TSO4 or GUEST_TSO6.
    """
    usable = Feature(mask) & GUEST_OFFLOADS
    while missing := missing_dependencies(usable):
        for bit in missing:
            usable &= ~bit
    return usable
