# SPDX-License-Identifier: MIT
"""The C frame path and the reference agree on frames that cover every pair of differences.

A number of random frames says little: most of them differ in nothing that matters.  So
the frames are drawn from the coverage matrix of ``axes.py``: each pair of values that can
occur together is sent at least ``PAIR_HITS`` times, each time with other addresses,
ports, keys and whatever else the plan leaves open.  Pairs that cannot occur together are
declared there, with reasons, and not met here.

One axis can silence the others: a frame cut in its Ethernet header has no hash, whatever
its options.  So besides the whole matrix parts of it are covered in the same way: one in
which every frame has a hash, one in which every frame has ports, and one for each reason
that alone keeps a frame from its ports (``HASHED``, ``PORTS``, ``LIMITS``).

The same frames then go through a tap whose queue the steering program chooses.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet.reference import Hash
from pyvnet.spec.rss import HashReport
from tests.differential.axes import (
    AXES,
    HASHED,
    LIMITS,
    PLAIN_TYPES,
    PORTS,
    Axes,
    Plan,
    Planner,
    Value,
    impossible_pairs,
    pairs_of,
)
from tests.differential.cases import build_case
from tests.differential.observe import observe
from tests.differential.steered_frames import QUEUES, Rss, Steered, steered_tap
from tests.differential.verdicts import UNCLASSIFIED, Answer, Readers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAIR_HITS: Final = 50
PART_HITS: Final = 20
LIMIT_HITS: Final = 10
ARRAYS: Final = 5  # different plans; each array covers every pair once
PARTS: Final[dict[str, tuple[Axes, int]]] = {
    "whole matrix": (AXES, PAIR_HITS),
    "hashed": (HASHED, PART_HITS),
    "with ports": (PORTS, PAIR_HITS),
    **{name: (axes, LIMIT_HITS) for name, axes in LIMITS.items()},
}
IP_REPORTS: Final = {HashReport.IPV4, HashReport.IPV6, HashReport.IPV6_EX}
L4_REPORTS: Final = set(HashReport) - IP_REPORTS - {HashReport.NONE}

# Half a minute on an idle core; the first test pays for all.
pytestmark = pytest.mark.timeout(600)


@dataclass(slots=True)
class Tally:
    """What was sent of one part of the matrix, and what came of it."""

    name: str
    planner: Planner
    wanted: int  # hits of each pair
    plans: Counter[tuple[str, ...]] = field(default_factory=Counter)
    pairs: Counter[frozenset[Value]] = field(default_factory=Counter)  # hits of each
    reports: Counter[int] = field(default_factory=Counter)
    queues: set[int] = field(default_factory=set)
    mismatches: list[str] = field(default_factory=list)
    misbuilt: list[str] = field(default_factory=list)
    steered: Steered = field(default_factory=Steered)
    seconds: float = 0.0

    def values(self) -> Counter[Value]:
        """Hits of each value of each axis."""
        hits: Counter[Value] = Counter()
        for values, count in self.plans.items():
            for value in zip(AXES, values, strict=True):
                hits[value] += count
        return hits


def _passes(rng: random.Random, tally: Tally) -> Iterator[list[Plan]]:
    """Covering arrays, each hitting every reachable pair once."""
    for _ in range(ARRAYS):
        plans = tally.planner.covering_array()
        for _ in range(tally.wanted // ARRAYS):
            rng.shuffle(plans)
            yield plans


def _send(tally: Tally, plan: Plan, rng: random.Random, readers: Readers) -> None:
    case = build_case(plan, rng)
    seen = observe(case)
    if seen != plan and len(tally.misbuilt) < 5:
        tally.misbuilt.append(f"planned {plan}\nbuilt   {seen}")
    tally.plans[tuple(seen[axis] for axis in AXES)] += 1
    native, reference = (
        read(case.data, case.hash_types, ex_types_always=case.ex_types_always)
        for read in (readers.native, readers.reference)
    )
    if native != reference and len(tally.mismatches) < 5:
        tally.mismatches.append(
            f"C {native}, reference {reference}, types {case.hash_types:#x}\n"
            f"  {plan}\n  {case.data.hex()}"
        )
    tally.reports[native.report] += 1
    tally.queues.add(native.queue)
    hashed = Hash(reference.value, HashReport(reference.report))
    tally.steered.add(case, seen, readers.key, hashed)


@pytest.fixture(scope="module")
def tallies(pytestconfig: pytest.Config, vnet_seed: str) -> dict[str, Tally]:
    # As many plans either way.  Under a sanitizer, which is slow, none is made into a second frame
    # with other addresses, ports and lengths.
    once = pytestconfig.getoption("--once")
    tallies = {}
    for name, (axes, hits) in PARTS.items():
        wanted = ARRAYS if once else hits
        started = time.monotonic()
        rng = random.Random(f"{vnet_seed} {name}")
        tally = tallies[name] = Tally(name, Planner(rng, axes, strict=name not in LIMITS), wanted)
        for plans in _passes(rng, tally):
            with Readers.random(rng) as readers:
                for plan in plans:
                    _send(tally, plan, rng, readers)
        for values, count in tally.plans.items():
            for pair in pairs_of(dict(zip(AXES, values, strict=True))):
                tally.pairs[pair] += count
        tally.seconds = time.monotonic() - started
    return tallies


@pytest.fixture(params=PARTS)
def tally(request: pytest.FixtureRequest, tallies: dict[str, Tally]) -> Tally:
    return tallies[request.param]


@pytest.mark.requirement(
    "NET-HASH-05", "NET-HASH-06", "NET-HASH-07", "NET-HASH-08", "NET-HASH-09",
    "NET-REP-01", "NET-REP-02", "NET-REP-03", "NET-RSS-01", "NET-RSS-02",
    "U-14", "U-19", "U-20", "U-21", "U-22", "U-23", "U-24", "U-25", "U-27", "U-29", "U-58",
)  # fmt: skip
def test_both_readings_agree_on_every_frame(tally: Tally) -> None:
    assert not tally.mismatches, "\n".join(tally.mismatches)


def test_frames_are_what_was_planned(tally: Tally) -> None:
    assert not tally.misbuilt, "\n".join(tally.misbuilt)


def test_every_reachable_pair_was_sent_often_enough(tally: Tally) -> None:
    hits = tally.pairs
    sys.stdout.write(_table(tally, hits) if tally.name not in LIMITS else _summary(tally, hits))
    assert not {
        tuple(sorted(p)): hits[p] for p in tally.planner.reachable if hits[p] < tally.wanted
    }


def test_no_pair_declared_impossible_was_sent(tally: Tally) -> None:
    assert not tally.pairs.keys() & impossible_pairs().keys()


def test_every_report_was_given_often(tallies: dict[str, Tally]) -> None:
    """Agreement on frames that are all unclassified would prove nothing."""
    reports = sum((tally.reports for tally in tallies.values()), Counter[int]())
    often, queues = (500, UNCLASSIFIED) if tallies["with ports"].wanted == PAIR_HITS else (25, 150)
    assert {report for report in HashReport if reports[report] >= often} == set(HashReport)
    assert tallies["hashed"].reports[HashReport.NONE] == 0
    assert tallies["with ports"].reports.keys() == L4_REPORTS
    for name in LIMITS:
        assert tallies[name].reports.keys() <= IP_REPORTS, name
    assert queues <= len(tallies["hashed"].queues) <= UNCLASSIFIED


@pytest.mark.requirement("U-03")
def test_no_types_mean_value_zero_and_the_unclassified_queue(vnet_random: random.Random) -> None:
    rng = vnet_random
    with Readers.random(rng) as readers:
        for plan in Planner(rng, PORTS).covering_array():
            case = build_case(plan, rng)
            answer = readers.native(case.data, 0, ex_types_always=case.ex_types_always)
            assert answer == Answer(0, HashReport.NONE, UNCLASSIFIED)


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
@pytest.mark.requirement("NET-RSS-01", "NET-RSS-02", "U-17", "U-20", "U-21", "U-24", "U-25", "U-29")
def test_the_steering_program_puts_every_frame_on_the_queue_both_readings_name(
    tallies: dict[str, Tally],
) -> None:
    with steered_tap() as steered:
        for tally in tallies.values():
            complaints = list(islice(tally.steered.send(*steered), 10))
            assert not complaints, "\n".join([tally.name, *complaints])
    whole = tallies["with ports"].wanted == PAIR_HITS
    assert sum(tally.steered.sent for tally in tallies.values()) >= (100_000 if whole else 10_000)


SLIPS: Final[dict[str, Callable[[Rss], Rss]]] = {
    "key": lambda rss: rss._replace(key=rss.key[:11] + bytes([rss.key[11] ^ 1]) + rss.key[12:]),
    "hash types": lambda rss: rss._replace(hash_types=rss.hash_types ^ PLAIN_TYPES),
    "order": lambda rss: rss._replace(ex_types_always=not rss.ex_types_always),
    "half a table": lambda rss: rss._replace(table=rss.table[: max(len(rss.table) // 2, 1)]),
    "unclassified queue": lambda rss: rss._replace(unclassified=(rss.unclassified + 1) % QUEUES),
}


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_a_program_that_is_told_something_else_is_noticed(tallies: dict[str, Tally]) -> None:
    with steered_tap() as (tap, told):
        for name, slip in SLIPS.items():
            frames = tallies["whole matrix"].steered.send(tap, told, slip)
            noticed = list(islice(frames, 5))
            assert len(noticed) == 5, name
            assert all("due at queue" in complaint for complaint in noticed)


def test_every_pair_went_through_the_tap_as_often(tally: Tally) -> None:
    """But those of a cut in the Ethernet header: the kernel sends no frame without one."""
    hits = tally.pairs.copy()
    for planned, sent in tally.steered.recut:
        hits.subtract(pairs_of(planned))
        hits.update(pairs_of(sent))
    unsendable = {("cut", f"eth.{field}") for field in ("dst", "src", "type")}
    reachable = {pair for pair in tally.planner.reachable if not pair & unsendable}
    assert not {tuple(sorted(pair)): hits[pair] for pair in reachable if hits[pair] < tally.wanted}
    assert not any(hits[pair] for pair in hits if pair & unsendable)


def _table(tally: Tally, hits: Counter[frozenset[Value]]) -> str:
    values = tally.values()
    lines = ["", f"{tally.name}: hits of each value"]
    for axis, names in AXES.items():
        sent = ", ".join(f"{n} {values[axis, n]}" for n in names if values[axis, n])
        lines.append(f"  {axis:9} {sent}")
    lines.append(f"{tally.name}: reachable pairs of two axes / hits of the rarest")
    axes = list(AXES)
    lines.append(" " * 9 + "".join(f" {axis:>9}" for axis in axes[1:]))
    cells: dict[tuple[str, str], list[int]] = {pair: [] for pair in combinations(axes, 2)}
    for pair in tally.planner.reachable:
        a, b = sorted((axis for axis, _ in pair), key=axes.index)
        cells[a, b].append(hits[pair])
    for row, a in enumerate(axes[:-1]):
        entries = [f"{len(cells[a, b])}/{min(cells[a, b])}" for b in axes[row + 1 :]]
        lines.append(f"{a:9}" + " " * 10 * row + "".join(f" {entry:>9}" for entry in entries))
    return "\n".join(lines) + "\n" + _summary(tally, hits)


def _summary(tally: Tally, hits: Counter[frozenset[Value]]) -> str:
    reports = ", ".join(f"{r.name} {tally.reports[r]}" for r in HashReport if tally.reports[r])
    return (
        f"{tally.name}: frames {tally.plans.total()}, axes {len(AXES)}, "
        f"values {len(tally.values())}, pairs {len(tally.planner.reachable)}, each at least "
        f"{min(hits[pair] for pair in tally.planner.reachable)} times, "
        f"mismatches {len(tally.mismatches)}, {tally.seconds:.1f} s; reports: {reports}\n"
    )
