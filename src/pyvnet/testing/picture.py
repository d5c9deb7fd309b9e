# SPDX-License-Identifier: MIT
"""A failed expectation, in a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.driver.receive import Frame
    from pyvnet.testing.expectation import Expected
    from pyvnet.testing.script import Vnet
    from pyvnet.testing.wire import SentFrame


def failure(vnet: Vnet, wanted: Expected, seen: Sequence[Frame | SentFrame]) -> str:
    """What was expected, and what came instead."""
    lines = [f"expected {wanted.describe()}"]
    if wanted.frame is not None:
        lines.append(f"  {wanted.frame.hex(' ', -4)}")
    lines += ["seen:"] if seen else ["no frame came"]
    lines += [f"  queue {f.queue}: {f.data.hex(' ', -4)} {f.header}" for f in seen]
    lines.append(f"counters that moved: {vnet.counters()}")
    return "\n".join(lines)


def silence_broken(vnet: Vnet, seen: Sequence[Frame | SentFrame]) -> str:
    """What came where nothing should."""
    lines = ["expected nothing, but there is:"]
    lines += [f"  queue {f.queue}: {f.data.hex(' ', -4)} {f.header}" for f in seen]
    lines.append(f"counters that moved: {vnet.counters()}")
    return "\n".join(lines)
