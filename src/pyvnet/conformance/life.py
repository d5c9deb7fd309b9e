# SPDX-License-Identifier: MIT
"""Is the back-end still there?  Asked after a case that waited in vain.

A back-end that all cases share and that has died would cost each of them its
time, and they would all say the same.  But silence in one case is a verdict on
that case and on no other.  So the back-end is asked what every driver asks
first: the greeting, its features, a negotiation up to DRIVER_OK.  Whatever it
answers to that, rightly or wrongly, it is alive, however slow; and until it was
asked for a while, over new connections, it is not called dead: it may be
starting again.

    gone      no connection, or no answer to the greeting: no case can be judged
    stalled   it greets, and then leaves a question unanswered: no case that negotiates can
              be; the others are tried until `LEFT` more have waited in vain
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import Case
from pyvnet.conformance.trial import NoAnswerError, Trial
from pyvnet.errors import PyvnetError
from pyvnet.spec.features import Feature

if TYPE_CHECKING:
    from pyvnet.conformance.target import Target

# In times of what a case may take.
_WINDOW: Final = 3.0  # a new attempt is made so long
_ATTEMPT: Final = 2.0  # one that is answered all the while ends then: the back-end is slow
BOUND: Final = 14  # from the last answer to the end of the run, at most

_AGAIN_AFTER: Final = 0.05  # seconds, where an attempt ends at once
LEFT: Final = 3  # cases in vain


async def _nothing(_: Trial) -> None:
    pass


PROBE: Final = Case("probe", (), "", "what the device offers", "", _nothing)


class Life:
    """What is known of the back-end's being there.

    Args:
        target: it.
        timeout: of a case.

    Attributes:
        over: why nobody asks any more; "": somebody does.
        stalled: why no driver negotiates any more; "": they do.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._unheard = 0  # cases in a row without any answer
        self._left = LEFT
        self.over = ""
        self.stalled = ""

    @property
    def silence(self) -> str:
        """Why cases were not tried; "" where all were."""
        return self.over or self.stalled

    def heard(self) -> None:
        """A case came to its end."""
        self._unheard = 0

    async def unheard(self, case: Case, *, greeted: bool, more: bool) -> None:
        """A case has waited in vain.

        Args:
            case: it.
            greeted: whether anything was answered.
            more: whether others follow.
        """
        self._unheard = 0 if greeted else self._unheard + 1
        if self.over or not more:
            return
        if self.stalled:
            self._left -= 1
            self.over = "" if self._left else self.stalled
        elif self._target.shared:
            await self.ask(f"since {case.name}")
        if not self.over and self._unheard >= LEFT:
            self.over = (
                f"not tried: {LEFT} cases in a row got no answer within {self._timeout:.3g} s"
                " (--timeout)"
            )

    def refused(self, why: str) -> None:
        """Nobody took the first connection."""
        self.over = f"not tried: {why}"

    async def ask(self, since: str) -> None:
        """Look whether anybody answers, and remember if not."""
        clock = asyncio.get_running_loop().time
        until = clock() + _WINDOW * self._timeout
        while True:
            try:
                await self._attempt()
            except NoAnswerError as error:
                gone, why = True, str(error)
            except TimeoutError as error:
                gone, why = False, str(error)
            else:
                return
            if clock() >= until:
                break
            await asyncio.sleep(min(_AGAIN_AFTER, self._timeout))
        if gone:
            self.over = f"not tried: no answer {since}: {why}"
        else:
            self.stalled = (
                f"not tried: {since} the first messages are answered and no negotiation: {why}"
            )

    async def _attempt(self) -> None:
        """Greet and negotiate.

        Raises:
            NoAnswerError: the greeting was not answered.
            TimeoutError: something after it was not.
        """
        async with self._target.place() as place:
            trial = Trial(PROBE, place, timeout=self._timeout)
            try:
                await self._greet(trial)
            finally:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._timeout):
                        await trial.hang_up()

    async def _greet(self, trial: Trial) -> None:
        try:
            async with asyncio.timeout(_ATTEMPT * self._timeout) as bound:
                drv = await trial.driver()
                await drv.negotiate(Feature.VERSION_1, pairs=1)
        except NoAnswerError:
            raise
        except TimeoutError:
            if not bound.expired():
                raise
        except (PyvnetError, OSError):
            pass  # an answer, if a wrong one
