# SPDX-License-Identifier: MIT
"""Rounds of several variants: who has its turn when, and what becomes of those that fail."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.lib.harness import Answer, Plan, deadline, measure
from bench.lib.needs import Need, built, cpu, hugepages, program
from bench.lib.process import BenchError, Process
from bench.lib.report import document, lines
from bench.lib.room import Cpus, Room
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.row import Measure, Setup

MACHINE = {
    "date": "today",
    "pyvnet": "0",
    "commit": "abc",
    "kernel": "6",
    "cpu": "some",
    "cpu_flags": ["avx2"],
    "cpus": 2,
    "backend_cpu": 0,
    "frontend_cpu": 1,
    "load": 0.1,
    "mitigations": [],
    "packages": {},
}


def steady(value: float, trace: list[str] | None = None, name: str = "") -> Setup:
    @contextmanager
    def setup(_: Room) -> Iterator[Measure]:
        def take() -> dict[str, float]:
            if trace is not None:
                trace.append(name)
            return {"mpps": value}

        if trace is not None:
            trace.append(f"{name} begins")
        yield take
        if trace is not None:
            trace.append(f"{name} ends")

    return setup


@contextmanager
def dies(room: Room) -> Iterator[Measure]:
    room.start(["sh", "-c", "echo no luck >&2; exit 3"], private=False).wait()
    yield dict


@contextmanager
def hangs(room: Room) -> Iterator[Measure]:
    sleeper = room.start(["sleep", "1000"], private=False)
    yield lambda: {"mpps": float(len(sleeper.wait()))}


def a_row(*variants: Variant, goals: tuple[Goal, ...] = (), **more: object) -> Row:
    options = {"rounds": 3, "warm_up": 0, "patience": 20.0} | more
    figures = (Figure("mpps", "Mpps"),)
    return Row(1, "how many?", "what a user gets", figures, variants, goals, **options)  # type: ignore[arg-type]


def take(row: Row, plan: Plan | None = None) -> Answer:
    assert row.problems() == []
    return measure(row, plan or Plan(), Cpus.choose())


def test_variants_take_turns_and_each_leads_once() -> None:
    trace: list[str] = []
    take(a_row(*(Variant(name, steady(1, trace, name)) for name in "ABC")))
    assert [word for word in trace if len(word) == 1] == list("ABCBCACAB")


def test_a_variant_is_alone_while_it_is_measured() -> None:
    trace: list[str] = []
    take(a_row(*(Variant(name, steady(1, trace, name)) for name in "AB"), rounds=1))
    assert trace == ["A begins", "A", "A ends", "B begins", "B", "B ends"]


def test_a_row_can_keep_its_variants() -> None:
    trace: list[str] = []
    take(a_row(*(Variant(name, steady(1, trace, name)) for name in "AB"), rounds=2, keep=True))
    assert trace == ["A begins", "A", "B begins", "B", "B", "A", "B ends", "A ends"]


def test_windows_of_a_round_take_turns_and_the_median_counts() -> None:
    trace: list[str] = []

    def rising(name: str) -> Setup:
        @contextmanager
        def setup(_: Room) -> Iterator[Measure]:
            def take() -> dict[str, float]:
                trace.append(name)
                return {"mpps": trace.count(name) ** 2}

            yield take

        return setup

    row = a_row(*(Variant(name, rising(name)) for name in "AB"), rounds=2, windows=3)
    answer = take(row)
    assert "".join(trace) == "ABBAABBAABBA"
    assert answer.taken[0].rounds == [{"mpps": 4}, {"mpps": 25}]


def test_a_kept_variant_takes_no_cpu_while_another_is_measured() -> None:
    spinning: list[int] = []
    states: list[str] = []

    @contextmanager
    def spins(room: Room) -> Iterator[Measure]:
        process = room.start(["sh", "-c", "while :; do :; done"], private=False)
        spinning.append(process.pid)

        def take() -> dict[str, float]:
            room.until(lambda: state(process.pid) == "R", "running again")
            return {"mpps": 1.0}

        yield take

    @contextmanager
    def looks(_: Room) -> Iterator[Measure]:
        def take() -> dict[str, float]:
            states.append(state(spinning[0]))
            return {"mpps": 1.0}

        yield take

    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    row = a_row(Variant("spins", spins), Variant("looks", looks), rounds=1, windows=2, keep=True)
    assert take(row).taken[0].rounds == [{"mpps": 1}]
    assert states == ["T", "T"]


def test_a_kept_variant_that_failed_is_set_up_anew() -> None:
    setups: list[int] = []

    @contextmanager
    def fails_once(_: Room) -> Iterator[Measure]:
        setups.append(1)

        def take() -> dict[str, float]:
            if len(setups) == 1:
                raise BenchError("the first one is broken")
            return {"mpps": 2.0}

        yield take

    answer = take(a_row(Variant("A", fails_once), rounds=3, keep=True))
    assert answer.taken[0].rounds == [None, {"mpps": 2}, {"mpps": 2}]
    assert len(setups) == 2


def test_a_program_answers_each_time_it_is_asked() -> None:
    script = 'n=0; while read word; do n=$((n+1)); echo "{\\"$word\\": $n}"; done'
    with Process(["sh", "-c", script], asked=True) as process:
        assert process.ask("first") == {"first": 1}
        assert process.ask("second") == {"second": 2}
    with (
        Process(["sh", "-c", "echo no luck >&2"], asked=True) as process,
        pytest.raises(BenchError, match="no luck"),
    ):
        process.ask("anything")


def test_the_warm_up_does_not_count() -> None:
    trace: list[str] = []
    answer = take(a_row(Variant("A", steady(1, trace, "A")), rounds=2, warm_up=1))
    assert trace.count("A") == 3
    assert answer.taken[0].rounds == [{"mpps": 1}, {"mpps": 1}]


def test_quick_is_shorter() -> None:
    seen: list[float] = []

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        seen.append(room.seconds)
        yield lambda: {"mpps": 1.0}

    row = a_row(Variant("A", setup), rounds=7, warm_up=1, seconds=1.0)
    take(row, Plan(quick=True))
    assert seen == [0.3] * 3
    take(row, Plan(rounds=2))
    assert seen[3:] == [1.0] * 3


def test_a_goal_is_read() -> None:
    row = a_row(
        Variant("ours", steady(3), ours=True),
        Variant("peer", steady(2)),
        goals=(
            Goal("mpps", of="ours", to="peer", at_least=1.25, stretch=2),
            Goal("mpps", of="peer", at_most=2.5),
        ),
    )
    first, second = take(row).readings
    assert first.interval == (1.5, 1.5, 1.5)
    assert (first.verdict, first.stretch) == ("met", "missed")
    assert second.verdict == "met"


def test_what_is_missing_is_one_line_and_the_rest_runs(capsys: pytest.CaptureFixture[str]) -> None:
    row = a_row(
        Variant("ours", steady(3), ours=True),
        Variant("peer", dies, needs=(program("no-such-peer", "no-such-package"),)),
        goals=(Goal("mpps", of="ours", to="peer", at_least=1.25),),
    )
    answer = take(row)
    line = "peer left out: no no-such-peer; apt-get install no-such-package"
    assert f"row 1: {line}" in capsys.readouterr().err
    assert not answer.failed
    assert answer.readings[0].why == "not measured: peer"
    text = list(lines(document(MACHINE, [answer], quick=False, seconds=1)))
    assert f"   {line}" in text


@pytest.mark.parametrize(
    ("need", "cure"),
    [
        (built("no-such-program"), "make bench-build"),
        (cpu("no-such-flag"), "another CPU"),
        (hugepages(1 << 40), "nr_hugepages"),
        (program("no-such-program", "some-package"), "apt-get install some-package"),
    ],
)
def test_what_is_missing_names_its_cure(need: Need, cure: str) -> None:
    line = need.missing()
    assert line is not None
    assert cure in line
    assert "\n" not in line


def test_our_variant_that_is_missing_is_a_failure_unless_it_is_the_cpu() -> None:
    absent = Need(lambda: "nothing there; make it")
    row = a_row(
        Variant("ours", steady(1), needs=(absent,), ours=True),
        Variant("ours, wide", steady(1), needs=(cpu("no-such-flag"),), ours=True),
    )
    assert [taken.variant.name for taken in take(row).failed] == ["ours"]


def test_a_variant_that_dies_is_given_up_and_the_rest_runs() -> None:
    answer = take(a_row(Variant("ours", dies, ours=True), Variant("peer", steady(2))))
    ours, peer = answer.taken
    assert ours.errors == ["sh failed with status 3: no luck"] * 2
    assert ours.rounds == [None] * 3
    assert len(peer.known("mpps")) == 3
    assert answer.failed == [ours]


def test_one_bad_round_is_forgiven() -> None:
    attempts: list[int] = []

    @contextmanager
    def once(_: Room) -> Iterator[Measure]:
        attempts.append(1)
        if len(attempts) == 1:
            raise BenchError("the first time is hard")
        yield lambda: {"mpps": 2.0}

    answer = take(a_row(Variant("ours", once, ours=True)))
    assert answer.taken[0].rounds == [None, {"mpps": 2}, {"mpps": 2}]
    assert not answer.failed


def test_a_variant_that_hangs_is_ended() -> None:
    answer = take(a_row(Variant("peer", hangs), rounds=1, patience=0.3))
    assert answer.taken[0].errors == ["peer: no answer in 0.3 s"]


def test_a_figure_nobody_declared_is_an_error() -> None:
    @contextmanager
    def setup(_: Room) -> Iterator[Measure]:
        yield lambda: {"kpps": 1.0}

    assert "kpps" in take(a_row(Variant("A", setup))).taken[0].errors[0]


def test_a_deadline_leaves_an_outer_one_running() -> None:
    before = signal.setitimer(signal.ITIMER_REAL, 50)
    try:
        with deadline(10, "inner"):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_a_row_that_contradicts_itself_is_seen() -> None:
    row = a_row(
        Variant("A", dies),
        Variant("A", dies),
        goals=(Goal("kpps", of="B", at_least=1, at_most=2),),
    )
    text = "; ".join(row.problems())
    for word in ("two variants", "'B'", "'kpps'", "at_least and at_most"):
        assert word in text


def test_the_document_holds_what_was_seen() -> None:
    row = a_row(
        Variant("ours", steady(3), ours=True),
        Variant("peer", steady(2)),
        goals=(Goal("mpps", of="ours", to="peer", at_least=1.25),),
    )
    (told,) = document(MACHINE, [take(row)], quick=False, seconds=1)["rows"]
    ours, _ = told["variants"]
    assert ours["rounds"] == [{"mpps": 3}] * 3
    assert ours["summary"] == {"mpps": {"median": 3, "quartiles": [3, 3]}}
    (goal,) = told["goals"]
    assert (goal["median"], goal["interval"], goal["verdict"]) == (1.5, [1.5, 1.5], "met")
