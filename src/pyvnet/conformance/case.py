# SPDX-License-Identifier: MIT
"""How a case is written, and the four ways it can end.

    @case("NET-RSS-02", needs=Feature.RSS, wire=True, control=True)
    async def indirection_table_is_followed(t: Trial) -> None:
        \"\"\"The queue is the table's entry at the hash's low bits.\"\"\"
        drv = await t.negotiate(Feature.RSS | Feature.HASH_REPORT, pairs=4)
        …

A case returns when all is well and raises otherwise (``run.py`` turns what it
raises into a verdict).  It never waits for time to pass: that nothing comes is
shown by a second frame that comes first.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from pyvnet.conformance import ids as requirements
from pyvnet.errors import PyvnetError, UsageError
from pyvnet.spec.features import NO_FEATURES, Feature

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyvnet.conformance.trial import Trial

    Look = Callable[[Trial], Awaitable[None]]

MUST: Final = "MUST"


class Verdict(Enum):
    """What is known after a case."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not-applicable"


class Outcome(PyvnetError):  # noqa: N818 (a way to end, not a mistake)
    """Ends a case; `verdict` says how."""

    verdict: Verdict


class Failed(Outcome):
    """The device did something else than the requirement says."""

    verdict = Verdict.FAILED


class Inconclusive(Outcome):
    """It could not be seen whether it does; the device is not blamed."""

    verdict = Verdict.INCONCLUSIVE


class NotTried(Inconclusive):
    """Nobody asked, since nobody would have answered."""


class NotApplicable(Outcome):
    """The requirement does not bind this device, or cannot be seen on this target."""

    verdict = Verdict.NOT_APPLICABLE


@dataclass(frozen=True, slots=True)
class Case:
    """One look at a device.

    Attributes:
        name: in reports.
        ids: what it keeps, of docs/requirements.md or docs/decisions.md.
        level: of the strongest of its ids: ``MUST``, ``SHOULD``, ``DESC``, …
        summary: one line: what is looked at.
        group: the module it stands in.
        needs: features without which it does not apply.
        wire: it sends or receives behind the device.
        control: it needs a control queue that is served.
        operator: it needs somebody who pulls the cable or asks for announcements.
        protocol: it is about vhost-user itself and makes connections of its own.
        hostile: it misbehaves and may bring a weak back-end down; off unless asked for.
        look: the coroutine function.
    """

    name: str
    ids: tuple[str, ...]
    level: str
    summary: str
    group: str
    look: Look
    needs: Feature = NO_FEATURES
    wire: bool = False
    control: bool = False
    operator: bool = False
    protocol: bool = False
    hostile: bool = False

    @property
    def must(self) -> bool:
        """Whether a device that fails it breaks the standard."""
        return self.level == MUST


def case(  # noqa: PLR0913 (one keyword per need)
    *ids: str,
    needs: Feature = NO_FEATURES,
    wire: bool = False,
    control: bool = False,
    operator: bool = False,
    protocol: bool = False,
    hostile: bool = False,
    level: str | None = None,
    name: str | None = None,
    summary: str | None = None,
) -> Callable[[Look], Case]:
    """Make a function a case; see `Case` for the arguments.

    Args:
        ids: at least one.
        needs: see `Case`.
        wire: see `Case`.
        control: see `Case`.
        operator: see `Case`.
        protocol: see `Case`.
        hostile: see `Case`.
        level: where the strongest of the ids says too much of this look.
        name: of one of several made from the same function; else the function's.
        summary: likewise; else the first line of its docstring.

    Raises:
        UsageError: an id nobody knows, none at all, or no summary.
    """

    def make(look: Look) -> Case:
        title = name or look.__name__.replace("_", "-")
        said = summary or (inspect.getdoc(look) or "").partition("\n")[0].rstrip(".")
        unknown = [row for row in ids if row not in requirements.table()]
        if unknown or not ids or not said:
            raise UsageError(f"case {title}: ids {ids} ({unknown} unknown), summary {said!r}")
        return Case(
            name=title,
            ids=ids,
            level=level or requirements.strongest(ids),
            summary=said,
            group=look.__module__.rpartition(".")[2],
            look=look,
            needs=needs,
            wire=wire,
            control=control,
            operator=operator,
            protocol=protocol,
            hostile=hostile,
        )

    return make
