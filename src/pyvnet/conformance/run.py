# SPDX-License-Identifier: MIT
"""From cases to results, in bounded time, whatever is at the other end.

Each case gets a device, a time and a verdict of its own.  What it raises says
which: a device that breaks a rule, refuses, or does not answer a step has
failed; one that cannot be connected to has said nothing.  Where a case has waited
in vain it is asked for (`life.py`), and where nobody is left nobody else tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal

from pyvnet.conformance.case import (
    Case,
    Failed,
    NotApplicable,
    NotTried,
    Outcome,
    Verdict,
)
from pyvnet.conformance.life import PROBE, Life
from pyvnet.conformance.trial import GREETING, STEP, Facts, NoAnswerError, Trial, ask
from pyvnet.driver.errors import (
    CommandError,
    DeviceViolation,
    NegotiationError,
    RefusedError,
)
from pyvnet.errors import HostError, PyvnetError
from pyvnet.spec.features import NO_FEATURES, Feature, feature_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from pyvnet.capture import Writer
    from pyvnet.conformance.target import Place, Target

TIMEOUT: Final = 2.0
_INTERRUPTED: Final = "not tried to its end: the run was interrupted"

ControlQueue = Literal["auto", "yes", "no"]

# A device that ends a case like this has broken its side of the contract.
_BLAMED: Final = (
    DeviceViolation,
    RefusedError,
    CommandError,
    NegotiationError,
    ConnectionError,
    TimeoutError,
    BlockingIOError,
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of one case.

    Attributes:
        case: it.
        verdict: how it ended.
        reason: why, in one line; "" when it passed.
        evidence: what else was seen.
        seconds: it took.
        tried: it came to its turn; not so where nobody answered any more.
    """

    case: Case
    verdict: Verdict
    reason: str = ""
    evidence: tuple[str, ...] = ()
    seconds: float = 0.0
    tried: bool = True

    @property
    def broken(self) -> bool:
        """Whether a MUST was failed."""
        return self.verdict is Verdict.FAILED and self.case.must


@dataclass(slots=True)
class Report:
    """A whole run.

    Attributes:
        target: its name.
        wire: what it was, "" without one.
        facts: what the device says of itself; None: it did not answer.
        control: whether its control queue is served.
        problem: why there are no facts, "" otherwise.
        silence: why some cases were not tried, "" otherwise.
        results: one per case, in the order of the cases.
        interrupted: somebody ended the run; cases that had not ended are inconclusive.
    """

    target: str
    wire: str = ""
    facts: Facts | None = None
    control: bool = True
    problem: str = ""
    silence: str = ""
    results: list[Result] = field(default_factory=list)
    interrupted: bool = False

    def count(self, verdict: Verdict) -> int:
        """How many ended so."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def judged(self) -> int:
        """How many passed or failed."""
        return self.count(Verdict.PASSED) + self.count(Verdict.FAILED)

    @property
    def exit_status(self) -> int:
        """1 where a MUST was failed, nothing could be judged, or nobody answered; else 0."""
        dead = self.silence or (not self.judged and self.count(Verdict.INCONCLUSIVE))
        return int(bool(dead) or any(result.broken for result in self.results))


async def suite(
    target: Target,
    cases: Sequence[Case] | None = None,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 (of each case)
    concurrency: int | None = None,
    control_queue: ControlQueue = "auto",
    hostile: bool = False,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """`run`, for those who want the results alone."""
    runner = Runner(
        target, timeout=timeout, concurrency=concurrency, control_queue=control_queue,
        hostile=hostile, on_result=on_result,
    )  # fmt: skip
    return (await runner.run(cases)).results


class Runner:
    """Runs cases against a target.

    Args:
        target: opened and closed by `run`.
        timeout: seconds for each case; a case and the closing after it take at most twice that.
        concurrency: cases side by side; None: as many as the target takes.
        control_queue: whether it is served; ``auto`` tries.
        hostile: run cases that may bring a weak back-end down.
        on_result: called with each result, in the order of the cases but for their turns.
        capture: gets every frame a driver sees; interfaces are called after cases.
    """

    def __init__(
        self,
        target: Target,
        *,
        timeout: float = TIMEOUT,
        concurrency: int | None = None,
        control_queue: ControlQueue = "auto",
        hostile: bool = False,
        on_result: Callable[[Result], None] | None = None,
        capture: Writer | None = None,
    ) -> None:
        self._target = target
        self._capture = capture
        self._timeout = timeout
        self._concurrency = min(concurrency or target.concurrency, target.concurrency)
        self._control_queue = control_queue
        self._hostile = hostile
        self._on_result = on_result or (lambda _: None)
        self.report = Report(target.name)
        self._left = 0  # cases not begun
        self._life = Life(target, timeout)

    async def run(self, cases: Sequence[Case] | None = None) -> Report:
        """Run some cases, or all there are.

        Cancelled, it closes what it opened, and `report` tells what is known until then.

        Raises:
            HostError, UsageError: the target or its wire cannot be got ready.
        """
        if cases is None:
            from pyvnet.conformance.cases import everything

            cases = everything()
        self.report = report = Report(self._target.name)
        self._life = Life(self._target, self._timeout)
        self._left = len(cases)
        plan = sorted(enumerate(cases), key=lambda entry: self._turn(entry[1]))
        self._to_tell = deque(number for number, _ in plan)
        self._results: dict[int, Result] = {}
        try:
            await self._open()
            await self._look(report)
            for _, turn in groupby(plan, key=lambda entry: self._turn(entry[1])):
                queue = deque(turn)
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._concurrency, len(queue))):
                        group.create_task(self._work(queue))
        except asyncio.CancelledError:
            report.interrupted = True
            for number, case in plan:
                self._results.setdefault(number, Result(case, Verdict.INCONCLUSIVE, _INTERRUPTED))
            self._tell()
            raise
        except ExceptionGroup as errors:  # what on_result raised: nobody listens any more
            raise errors.exceptions[0] from None
        finally:
            report.results = [self._results[number] for number in sorted(self._results)]
            report.silence = self._life.silence
            await self._target.aclose()
        return report

    async def _work(self, queue: deque[tuple[int, Case]]) -> None:
        while queue:
            number, case = queue.popleft()
            self._left -= 1
            self._results[number] = await self._one(case)
            self._tell()

    def _tell(self) -> None:
        while self._to_tell and self._to_tell[0] in self._results:
            self._on_result(self._results[self._to_tell.popleft()])

    def _turn(self, case: Case) -> int:
        """Cases of one turn run side by side.

        Those that exchange messages have a turn of the loop for each, and would wait
        every time for all that others do in one go: they come first.  What may
        bring a back-end down comes last, when there is nothing more to be seen.
        """
        return 2 * case.hostile + (self._concurrency > 1 and not case.protocol)

    async def _open(self) -> None:
        try:
            await self._target.open()
        except OSError as error:  # a wire that is a back-end itself, and does not answer
            raise HostError(f"the other side of {self._target.name}: {error}") from error

    # --- one case -----------------------------------------------------------------------

    async def _one(self, case: Case) -> Result:
        if why := self._does_not_apply(case):
            return Result(case, Verdict.NOT_APPLICABLE, why, tried=not self._life.over)
        if self._life.over:
            return Result(case, Verdict.INCONCLUSIVE, self._life.over, tried=False)
        clock = asyncio.get_running_loop().time
        began = clock()
        evidence: list[str] = []
        verdict, reason = Verdict.PASSED, ""
        ended: Exception | None = None
        try:
            await self._perform(case, evidence)
        except Exception as error:  # noqa: BLE001 (whatever it is, the other cases go on)
            ended = error
            verdict, reason = judge(error)
            if verdict is Verdict.INCONCLUSIVE and not isinstance(error, PyvnetError):
                evidence += traceback.format_exception(error)[-2:]
        seconds = clock() - began
        await self._heed(case, ended, seconds)
        tried = not isinstance(ended, NotTried)
        return Result(case, verdict, reason, tuple(evidence), seconds, tried)

    async def _heed(self, case: Case, ended: Exception | None, seconds: float) -> None:
        """Where a case has waited in vain, look whether the back-end is still there."""
        if isinstance(ended, NotApplicable | NotTried):  # which may be said without asking anybody
            return
        nobody = isinstance(ended, NoAnswerError)
        lost = isinstance(ended, ConnectionError | TimeoutError)
        # However the case puts it: what one step may take has passed.
        if nobody or lost or (ended is not None and seconds >= self._timeout * STEP):
            await self._life.unheard(case, greeted=not nobody, more=self._left > 0)
        else:
            self._life.heard()

    def _does_not_apply(self, case: Case) -> str:
        facts = self.report.facts
        if case.hostile and not self._hostile:
            return "it may bring a back-end down, and was not asked for (--hostile)"
        if facts is None:
            return ""  # the case finds out for itself
        needs = case.needs | (Feature.CTRL_VQ if case.control else NO_FEATURES)
        if lacking := int(needs) & ~int(facts.features):
            return f"not offered: {', '.join(feature_names(lacking))}"
        if case.control and not self.report.control:
            return "the back-end serves no control queue: it leaves that to its VMM"
        return ""

    async def _perform(self, case: Case, evidence: list[str]) -> None:
        async with self._target.place() as place:
            trial = self._trial(case, place, evidence)
            async with self._bounded(trial):
                _ = case.wire and trial.wire, case.operator and trial.operator
                if case.protocol and place.connect is None:
                    raise NotApplicable("the device is not reached over vhost-user")
                await case.look(trial)

    @asynccontextmanager
    async def _bounded(self, trial: Trial) -> AsyncIterator[None]:
        """Give a trial its time, and let go of the device afterwards."""
        try:
            async with asyncio.timeout(self._timeout) as bound:
                yield
        except (ConnectionError, TimeoutError) as error:
            late = f"not over within {self._timeout:.3g} s, waiting for {trial.doing}"
            what = late if bound.expired() else str(error)
            if trial.doing == GREETING:
                raise NoAnswerError(what) from error
            if bound.expired():
                raise Failed(what) from error
            raise
        finally:
            await self._let_go(trial)

    async def _let_go(self, trial: Trial) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await trial.hang_up()

    def _trial(self, case: Case, place: Place, evidence: list[str]) -> Trial:
        facts = self.report.facts
        recorder = None if self._capture is None else self._capture.named(case.name)
        return Trial(
            case,
            place,
            timeout=self._timeout,
            facts=facts,
            evidence=evidence,
            recorder=recorder,
            stalled=self._life.stalled,
        )

    # --- what is asked once ---------------------------------------------------------------

    async def _look(self, report: Report) -> None:
        """Ask what the device offers, and whether anybody serves its control queue."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with self._target.place() as place:
                report.wire = place.wire.describe() if place.wire is not None else ""
                trial = self._trial(PROBE, place, [])
                async with self._bounded(trial):
                    report.facts = await ask(await trial.driver())
                try:
                    report.control = await self._control_served(trial, report.facts)
                finally:
                    await self._let_go(trial)
        except NoAnswerError as error:
            report.problem = judge(error)[1]
            if not self._target.shared:
                return
            if clock() - began < self._timeout * STEP:
                self._life.refused(report.problem)
            else:
                await self._life.ask("to the first question")
        except Exception as error:  # noqa: BLE001 (each case finds out for itself)
            report.problem = judge(error)[1]

    async def _control_served(self, trial: Trial, facts: Facts) -> bool:
        """A command nobody knows is answered like any other, by whoever answers any."""
        if self._control_queue != "auto" or not facts.features & Feature.CTRL_VQ:
            return self._control_queue == "yes"
        negotiated = False
        try:
            async with asyncio.timeout(self._timeout):
                drv = await trial.driver()
                await drv.negotiate(Feature.CTRL_VQ)
                negotiated = True
                await drv.ctrl.exchange(_UNKNOWN_COMMAND)
        except TimeoutError:
            return not negotiated
        except (*_BLAMED, NoAnswerError):
            return True  # wrongly, but somebody is there: its cases say more
        return True


_UNKNOWN_COMMAND: Final = b"\xfe\xfe"


def judge(error: Exception) -> tuple[Verdict, str]:
    """What it means that a case ended with this exception."""
    if isinstance(error, Outcome):
        return error.verdict, str(error)
    if isinstance(error, NoAnswerError):
        return Verdict.INCONCLUSIVE, f"no answer: {error}"
    if isinstance(error, _BLAMED):
        return Verdict.FAILED, str(error) or type(error).__name__
    if isinstance(error, HostError):
        return Verdict.INCONCLUSIVE, str(error)
    return Verdict.INCONCLUSIVE, f"the case itself broke: {type(error).__name__}: {error}"
